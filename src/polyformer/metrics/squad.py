"""Exact match and F1 of answers, as SQuAD scores them (Rajpurkar et al. 2016, section 6.1; 2018 for no answer)."""

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad(predictions: Mapping[str, str], examples: Iterable[Mapping[str, object]]) -> dict[str, float]:
    """Scores in percent over all questions.

    Args:
        predictions: answer by the question's id; "" says that there is none. A question without one counts as wrong.
        examples: {"id", "answers"} each, the answers a list of texts, empty where there is none (pipelines'
            `squad_examples` makes them of a file).

    Returns:
        exact, f1, total; and where some questions have no answer, exact and f1 of those that have (HasAns_) and of
        those that do not (NoAns_).
    """
    scores: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for example in examples:
        answers: Sequence[str] = example["answers"]  # type: ignore[assignment]
        golds = [answer for answer in answers if normalized(answer)] or [""]
        said = predictions.get(str(example["id"]))
        pair = (0.0, 0.0) if said is None else (max(exact(said, g) for g in golds), max(f1(said, g) for g in golds))
        scores[bool(answers)].append(pair)
    if not (every := scores[True] + scores[False]):
        raise ValueError("there are no examples to score.")
    found = _mean("", every)
    if scores[False]:
        found |= _mean("HasAns_", scores[True]) | _mean("NoAns_", scores[False])
    return found


def normalized(text: str) -> str:
    """Lower case, without punctuation and articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(said: str, gold: str) -> float:
    return float(normalized(said) == normalized(gold))


def f1(said: str, gold: str) -> float:
    """The harmonic mean of precision and recall over words; where one side has none, whether both have."""
    a, b = normalized(said).split(), normalized(gold).split()
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def _mean(name: str, pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    count = len(pairs)
    exacts, f1s = (100 * sum(column) / count for column in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
    return {f"{name}exact": exacts, f"{name}f1": f1s, f"{name}total": float(count)}
