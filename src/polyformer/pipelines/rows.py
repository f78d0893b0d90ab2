"""Texts to rows for the model. One longer than it takes is an error, is cut, or becomes overlapping windows.

    tokens of the text      0 1 2 3 4 5 6 7 8 9
    window 0                0 1 2 3 4 5
    window 1                      3 4 5 6 7 8            (room 6, overlap 3)
    window 2                            6 7 8 9
    which one speaks        0 0 0 0 0 1 1 1 2 2          where a token has most context on both sides

The last one is BERT's "maximum context" (Devlin et al. 2018, run_squad.py).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from polyformer.tokenizers.truncation import shares

OVERLAP = 64  # tokens that two windows share where nothing else is asked for
POLICIES = ("error", "truncate", "window")


class Tokens(NamedTuple):
    """A text's tokens, without special ones.

    ids: (tokens,). spans: characters [start, end) of each. words: number of the word each is part of.
    """

    ids: list[int]
    spans: list[tuple[int, int]]
    words: list[int | None]


@dataclass
class Row:
    """One sequence for the model, a text or a part of one.

    ids, types: (length,) token ids, special ones included, and segments where they are not all 0.
    result: what `compute` gave for it.
    """

    ids: list[int]
    types: list[int] | None = None
    result: Any = field(default=None, repr=False)


@dataclass
class Piece(Row):
    """A row that reads a text, or a window of it.

    tokens: all of the text. cut: [start, stop) of those in this row.
    places: (length,) which of the text's tokens each token of the row is, -1 for special ones and for another text.
    number: which of several questions about the text this row asks.
    """

    tokens: Tokens = field(default_factory=lambda: Tokens([], [], []), repr=False)
    cut: tuple[int, int] = (0, 0)
    places: np.ndarray = field(default_factory=lambda: np.empty(0, int), repr=False)
    number: int = 0


def policy(on_long: str | None, truncation: bool, default: str, allowed: Sequence[str] = POLICIES) -> str:
    """What to do with a text that is too long; truncation=True is Transformers' name for one of the answers.

    Raises:
        ValueError: no such policy, or the two contradict each other.
    """
    if on_long is None:
        return "truncate" if truncation else default
    if on_long not in allowed:
        raise ValueError(f"on_long is {on_long!r}; here there are {', '.join(map(repr, allowed))}.")
    if truncation and on_long != "truncate":
        raise ValueError(f"truncation=True and on_long={on_long!r} contradict each other: give one of them.")
    return on_long


def tokens_of(tokenizer: Any, texts: Sequence[Any], split: bool = False) -> list[Tokens]:
    """The tokens of every text; with `split` of lists of words, whose spans are those in the words joined by spaces."""
    if not texts:
        return []
    made = tokenizer(
        list(texts), add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False,
        return_token_type_ids=False, is_split_into_words=split, verbose=False,
    )  # fmt: skip
    found = []
    for number, ids in enumerate(made["input_ids"]):
        spans, words = made["offset_mapping"][number], made.word_ids(number)
        if split:  # spans are counted within each word
            starts = np.concatenate([[0], np.cumsum([len(word) + 1 for word in texts[number]])])
            spans = [
                (int(starts[w]) + a, int(starts[w]) + b) if w is not None else (a, b)
                for (a, b), w in zip(spans, words, strict=True)
            ]
        found.append(Tokens(ids, [tuple(span) for span in spans], words))
    return found


def rows_of(
    tokenizer: Any,
    tokens: Tokens,
    limit: int | None,
    on_long: str,
    number: int,
    *,
    before: Sequence[int] | None = None,
    after: Sequence[int] | None = None,
    overlap: int = 0,
) -> list[Piece]:
    """The rows of a text: one, or as many windows as it needs.

    limit: tokens of a row, special ones included. number: of the text, for messages.
    before, after: ids of another text, a question say, that is in every row whole, before this one or after it.
    overlap: tokens that two neighbouring windows share.

    Raises:
        ValueError: the text is too long and the policy is "error", or no room is left for it.
    """
    other = before if before is not None else after
    count = len(tokens.ids)
    room = count
    if limit is not None:
        room = limit - tokenizer.num_special_tokens_to_add(other is not None) - len(other or ())
        if count > room and on_long == "error":
            raise ValueError(
                f"{called(number)} has {count - room + limit} tokens, and this model takes {limit}: pass "
                "on_long='window' to read it piece by piece, or on_long='truncate' to leave out the rest."
            )
        if room < min(count, 1):
            raise ValueError(
                f"{called(number)} has no room in a row of {limit} tokens beside the {len(other or ())} of the text it "
                "goes with: shorten that one, or allow longer rows."
            )
    cuts = windows(count, room, overlap) if on_long == "window" else [(0, min(count, room))]
    return [_row(tokenizer, tokens, cut, before, after) for cut in cuts]


def rows_of_pair(
    tokenizer: Any, first: Tokens, second: Tokens, limit: int | None, on_long: str, number: int, overlap: int
) -> list[Piece]:
    """The rows of two texts judged together: windows go over the longer, each with the whole of the shorter."""
    a, b = first.ids, second.ids
    if limit is not None and on_long == "truncate":
        room = limit - tokenizer.num_special_tokens_to_add(pair=True)
        kept = shares((len(a), len(b)), room, "longest_first")
        a, b = a[: kept[0]], b[: kept[1]]
        first, second = first._replace(ids=a), second._replace(ids=b)
    if len(a) > len(b):
        return rows_of(tokenizer, first, limit, on_long, number, after=b, overlap=overlap)
    return rows_of(tokenizer, second, limit, on_long, number, before=a, overlap=overlap)


def windows(count: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """[start, stop) of windows of at most `room` over `count` tokens; neighbours share `overlap`, fewer if need be."""
    if count <= room:
        return [(0, count)]
    step = max(1, room - overlap)
    starts = range(0, count - room + step, step)
    return [(start, min(start + room, count)) for start in starts]


def speaker(cuts: Sequence[tuple[int, int]]) -> np.ndarray:
    """(tokens,) which window has a token furthest from its edges; the ends of the text are no edges."""
    count = cuts[-1][1]
    context = np.full((len(cuts), count), -1)
    for number, (start, stop) in enumerate(cuts):
        places = np.arange(start, stop)
        left = places - start if start else np.full(stop - start, count)
        right = stop - 1 - places if stop < count else np.full(stop - start, count)
        context[number, start:stop] = np.minimum(left, right)
    return context.argmax(0)


def merged(rows: Sequence[Piece]) -> np.ndarray:
    """(tokens, ...): the results of a text's windows, (length, ...) each, put together token by token."""
    cuts = [row.cut for row in rows]
    first = np.asarray(rows[0].result)
    whole = np.zeros((cuts[-1][1], *first.shape[1:]), first.dtype)
    chosen = speaker(cuts)
    for number, row in enumerate(rows):
        inside = row.places >= 0
        places = row.places[inside]
        mine = chosen[places] == number
        whole[places[mine]] = np.asarray(row.result)[inside][mine]
    return whole


def whole(rows: Sequence[Piece]) -> Tensor:
    """(length, ...): the results of a text's windows as of one row, special tokens of the first and the last window."""
    first, last = (np.flatnonzero(row.places >= 0) for row in (rows[0], rows[-1]))
    return torch.cat([
        rows[0].result[: first[0]],
        torch.from_numpy(merged(rows)),
        rows[-1].result[last[-1] + 1 :],
    ])  # fmt: skip


def _row(
    tokenizer: Any,
    tokens: Tokens,
    cut: tuple[int, int],
    before: Sequence[int] | None,
    after: Sequence[int] | None,
) -> Piece:
    piece = tokens.ids[slice(*cut)]
    sides = [list(side) for side in (before, piece, after) if side is not None]
    types = tokenizer.create_token_type_ids_from_sequences(*sides)
    special = np.array(tokenizer.get_special_tokens_mask(*sides), bool)
    start = 0 if before is None else len(before)
    places = np.full(len(special), -1)
    places[np.flatnonzero(~special)[start : start + len(piece)]] = np.arange(*cut)
    made = tokenizer.build_inputs_with_special_tokens(*sides)
    return Piece(made, types if any(types) else None, tokens=tokens, cut=cut, places=places)


def called(number: int) -> str:
    """What messages call a text."""
    return "the text" if number < 0 else _name.get()(number)


@contextmanager
def naming(name: Callable[[int], str]) -> Iterator[None]:
    """Within it, messages call text number `number`, counted from 0, `name(number)`: a line of a file, say."""
    before = _name.set(name)
    try:
        yield
    finally:
        _name.reset(before)


_name: ContextVar[Callable[[int], str]] = ContextVar("name", default="text {}".format)


def check_texts(texts: Iterable[Any], first: int = 0) -> None:
    """Raise TypeError for what is not a text, with its number."""
    for number, text in enumerate(texts, first):
        if not isinstance(text, str):
            raise TypeError(f"{called(number)} is a {type(text).__name__}, not a str.")
