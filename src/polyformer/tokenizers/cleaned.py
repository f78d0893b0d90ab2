"""Text made plain before SentencePiece sees it, as XLNet's authors did it and ALBERT's after them.

``quoted''  -> "quoted"      accents dropped      and, for an uncased vocabulary, lower case
"""

import json
from re import compile as regex

from tokenizers import Regex, Tokenizer, normalizers

from polyformer.tokenizers.sentencepiece import Columns, Scored, SentencePieceBackend, steps_of


def without_commas(entries: Columns) -> Columns:
    """The entries with those that end in a digit and a comma made so unlikely that the two are parted.

    The authors' code cuts such a piece once more, before the comma.
    """
    scores = [score - 100 if piece[-1] == "," and _COMMA.search(piece) else score for piece, score in entries]
    return Columns(entries.pieces, scores)


def with_commas(entries: Scored) -> Scored:
    """The reverse of `without_commas`."""
    return [(piece, score + 100 * (score <= -100 and bool(_COMMA.search(piece)))) for piece, score in entries]


_COMMA = regex(r"\d,\Z")


def cleaning(lower: bool, accents: bool) -> list[normalizers.Normalizer]:
    """What is done to the text: to lower case if `lower`; accents stay if `accents`."""
    steps: list[normalizers.Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if not accents:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if lower:
        steps.append(normalizers.Lowercase())
    return steps


def cleans(backend: SentencePieceBackend) -> tuple[bool, bool]:
    """`lower` and `accents` of this backend's cleaning."""
    kinds = [step["type"] for step in steps_of(backend.tokenizer)]
    return "Lowercase" in kinds, "StripAccents" not in kinds


def with_cleaning(backend: SentencePieceBackend, lower: bool | None, accents: bool | None) -> SentencePieceBackend:
    """The backend with what was asked for explicitly (not None), where its tokenizer.json says otherwise."""
    now = cleans(backend)
    want = now[0] if lower is None else lower, now[1] if accents is None else accents
    if want == now:
        return backend
    steps = steps_of(backend.tokenizer)
    rest = next((i for i, step in enumerate(steps) if step["type"] == "Precompiled"), len(steps))
    first = [json.loads(step.__getstate__()) for step in cleaning(*want)]
    spec = json.loads(backend.tokenizer.to_str())
    spec["normalizer"] = {"type": "Sequence", "normalizers": [*first, *steps[rest:]]}
    return backend.over(Tokenizer.from_str(json.dumps(spec)))
