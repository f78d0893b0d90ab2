"""Answers that stand in a text: extractive question answering, as on SQuAD (Rajpurkar et al. 2016, 2018).

    question + window of the text -> a score for every token to begin the answer, and one to end it

A text longer than the model takes is read in overlapping windows. Every token counts once, in the window where it has
most context, and one softmax goes over all of them, so that scores of different windows can be compared. [CLS] stands
for "no answer"; of several windows the one that is surest there is an answer speaks for it (Devlin et al. 2018).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from polyformer.pipelines.base import Pipeline
from polyformer.pipelines.rows import Piece, Row, Tokens, called, policy, rows_of, speaker, tokens_of

THRESHOLD = "null_score_diff_threshold"  # the name of run_squad.py


class Span(NamedTuple):
    """A candidate: tokens [first, last] of the text, and the log of its probability."""

    first: int
    last: int
    score: float


class QuestionAnsweringPipeline(Pipeline):
    """A question and a text to the words of the text that answer it.

    A question gives {"score", "start", "end", "answer"} with context[start:end] == answer, or with top_k > 1 a list of
    them; a list of questions a list of those.
    """

    task: ClassVar[str] = "question-answering"
    model_task: ClassVar[str] = "question-answering"

    def __call__(
        self,
        inputs: Any = None,
        *,
        question: str | Sequence[str] | None = None,
        context: str | Sequence[str] | None = None,
        top_k: int = 1,
        topk: int | None = None,
        max_answer_len: int = 15,
        max_seq_len: int = 384,
        max_question_len: int = 64,
        doc_stride: int = 128,
        handle_impossible_answer: bool = False,
        null_threshold: float | None = None,
        align_to_words: bool = True,
        on_long: str | None = None,
        show_progress: bool | None = None,
    ) -> Any:
        """Answer a question, a list of them, or an iterable of them.

        Args:
            inputs: {"question": ..., "context": ...}, a list of those, or any iterable of those; or
            question, context: a text each, or lists of the same length (one context for all questions will do).
            top_k: how many answers at most, the best first, no two the same place. `topk` is Transformers' older name.
            max_answer_len: tokens of an answer at most.
            max_seq_len: tokens of a window at most, question and special tokens included.
            max_question_len: a question of more tokens is an error.
            doc_stride: tokens that two windows share.
            handle_impossible_answer: "no answer" is possible too: {"answer": "", "start": 0, "end": 0}.
            null_threshold: "no answer" wins where its score (sum of two logits) is higher than the best answer's by
                more than this; by default the model's config.null_score_diff_threshold, or 0.
            align_to_words: answers begin and end where words do.
            on_long: "window" by default; else "truncate" reads one window, "error" refuses a longer text.

        Raises:
            TypeError: not texts. ValueError: an empty question or context, too long a question.
        """
        top_k = top_k if topk is None else topk
        for name, value in (("top_k", top_k), ("max_answer_len", max_answer_len), ("max_seq_len", max_seq_len)):
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1.")
        saved = getattr(self.model.config, "extra", {}).get(THRESHOLD, 0.0)
        limit = max_seq_len if self.limit is None else min(max_seq_len, self.limit)
        options = {
            "top_k": top_k,
            "longest": max_answer_len,
            "limit": limit,
            "question": max_question_len,
            "overlap": min(doc_stride, limit // 2),
            "null": handle_impossible_answer,
            "threshold": saved if null_threshold is None else null_threshold,
            "words": align_to_words,
            "on_long": policy(on_long, False, "window"),
        }
        return self.run(_examples(inputs, question, context), options, show_progress)

    def prepare(self, texts: Sequence[Any], first: int, options: Mapping[str, Any]) -> list[list[Piece]]:
        for number, example in enumerate(texts, first):
            _check(example, number)
        questions = self.tokenizer(
            [example["question"].strip() for example in texts], add_special_tokens=False, return_attention_mask=False,
            return_token_type_ids=False, verbose=False,
        )["input_ids"]  # fmt: skip
        contexts = tokens_of(self.tokenizer, [example["context"] for example in texts])
        # models that are padded on the left read the text first (XLNet)
        side = "before" if self.tokenizer.padding_side == "right" else "after"
        found = []
        for number, (ids, tokens) in enumerate(zip(questions, contexts, strict=True), first):
            if len(ids) > options["question"]:
                raise ValueError(
                    f"the question of {called(number)} has {len(ids)} tokens: shorten it, or allow more than "
                    f"{options['question']} with max_question_len."
                )
            given: Any = {side: ids, "overlap": options["overlap"]}
            found.append(rows_of(self.tokenizer, tokens, options["limit"], options["on_long"], number, **given))
        return found

    def compute(self, inputs: dict[str, Tensor], rows: Sequence[Row], options: Mapping[str, Any]) -> list[np.ndarray]:
        outputs = self.model(**inputs, return_dict=True)
        starts, ends = outputs.start_logits.double().cpu().numpy(), outputs.end_logits.double().cpu().numpy()
        return [np.stack([starts[i, : len(row.ids)], ends[i, : len(row.ids)]], 1) for i, row in enumerate(rows)]

    def answer(self, text: Any, rows: Sequence[Piece], options: Mapping[str, Any]) -> Any:
        context, tokens = text["context"], rows[0].tokens
        spans, null = candidates(rows, self.tokenizer.cls_token_id, options["longest"], 4 * options["top_k"] + 16)
        found: list[tuple[float, dict[str, Any]]] = []
        seen = set()
        for span in spans:
            start, end = characters(tokens, span, context, options["words"])
            if (start, end) not in seen:
                seen.add((start, end))
                score = float(np.exp(span.score))
                found.append((span.score, {"score": score, "start": start, "end": end, "answer": context[start:end]}))
        if null is not None and options["null"]:
            nothing = {"score": float(np.exp(null)), "start": 0, "end": 0, "answer": ""}
            found.append((null - options["threshold"], nothing))
            found.sort(key=lambda pair: -pair[0])
        best = [answer for _, answer in found[: options["top_k"]]]
        return best[0] if options["top_k"] == 1 else best


def candidates(rows: Sequence[Piece], cls: int | None, longest: int, most: int) -> tuple[list[Span], float | None]:
    """The best spans of a text, best first, and the log probability of "no answer", None where a model cannot say it.

    rows: the windows with results (length, 2), logits to begin and to end. longest: tokens of an answer.
    """
    speaks = speaker([row.cut for row in rows])
    nulls = []
    begins, ends = np.full((2, len(speaks)), -np.inf)  # of every token, where it has most context
    for number, row in enumerate(rows):
        own = np.flatnonzero(row.places >= 0)
        mine = own[speaks[row.places[own]] == number]
        begins[row.places[mine]], ends[row.places[mine]] = row.result[mine].T
        if cls is not None and cls in row.ids:
            nulls.append(row.result[row.ids.index(cls)])
    null = min(nulls, key=sum, default=None)
    total = [_log_sum(side, None if null is None else null[i]) for i, side in enumerate((begins, ends))]
    spans: list[Span] = []
    for number, row in enumerate(rows):
        own = np.flatnonzero(row.places >= 0)
        places = row.places[own]
        start, end = (row.result[own] - total).T
        start = np.where(speaks[places] == number, start, -np.inf)
        # (tokens, longest): scores of the spans that begin with a token
        padded = np.concatenate([end, np.full(longest - 1, -np.inf)])
        scores = start[:, None] + np.lib.stride_tricks.sliding_window_view(padded, longest)
        best = np.argsort(-scores, axis=None, kind="stable")[:most]
        for i, length in zip(*np.unravel_index(best, scores.shape), strict=True):
            if np.isfinite(scores[i, length]):
                spans.append(Span(int(places[i]), int(places[i + length]), float(scores[i, length])))
    spans.sort(key=lambda span: -span.score)
    return spans, None if null is None else float(sum(null - total))


def characters(tokens: Tokens, span: Span, context: str, words: bool) -> tuple[int, int]:
    """Where a span stands in the text, without white space around it; with `words`, made whole words."""
    first, last = span.first, span.last
    if words:
        while first > 0 and tokens.words[first] is not None and tokens.words[first - 1] == tokens.words[first]:
            first -= 1
        end = len(tokens.ids) - 1
        while last < end and tokens.words[last] is not None and tokens.words[last + 1] == tokens.words[last]:
            last += 1
    start, stop = tokens.spans[first][0], tokens.spans[last][1]
    while start < stop and context[start].isspace():
        start += 1
    while stop > start and context[stop - 1].isspace():
        stop -= 1
    return start, stop


def _log_sum(values: np.ndarray, more: float | None) -> float:
    every = values if more is None else np.append(values, more)
    highest = every.max()
    return float(highest + np.log(np.exp(every - highest).sum()))


def _examples(inputs: Any, question: Any, context: Any) -> Any:
    """One example, a list of them, or an iterable of them."""
    if inputs is not None:
        if question is not None or context is not None:
            raise TypeError("give the examples, or question= and context=, not both.")
        return inputs
    if question is None or context is None:
        raise TypeError('question answering needs question= and context=, or {"question": ..., "context": ...}.')
    if isinstance(question, str) and isinstance(context, str):
        return {"question": question, "context": context}
    questions = [question] if isinstance(question, str) else list(question)
    contexts = [context] * len(questions) if isinstance(context, str) else list(context)
    questions = questions * len(contexts) if isinstance(question, str) else questions
    if len(questions) != len(contexts):
        raise ValueError(f"there are {len(questions)} questions but {len(contexts)} contexts: give one for each.")
    return [{"question": q, "context": c} for q, c in zip(questions, contexts, strict=True)]


def _check(example: Any, number: int) -> None:
    for name in ("question", "context"):
        value = example.get(name) if isinstance(example, Mapping) else None
        if not isinstance(value, str):
            raise TypeError(f'{called(number)} has no str as its {name}: give {{"question": ..., "context": ...}}.')
        if not value.strip():
            raise ValueError(f"the {name} of {called(number)} is empty.")


def squad_examples(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The questions of a file in SQuAD's format, versions 1 and 2: id, question, context, answers (texts)."""
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                answers: Iterable[Mapping[str, Any]] = asked.get("answers", ())
                yield {
                    "id": asked["id"],
                    "question": asked["question"],
                    "context": paragraph["context"],
                    "answers": [answer["text"] for answer in answers],
                }
