"""Cutting texts to length: which tokens each row keeps, and the windows over what does not fit.

Everything here is arithmetic on lengths. The rules are those of the Rust library (its `truncate_encodings`), which
transformers' fast tokenizers use; no state of a shared tokenizer is touched.
"""

from collections.abc import Sequence
from itertools import product
from typing import Literal

Strategy = Literal["longest_first", "only_first", "only_second", "do_not_truncate"]
STRATEGIES: tuple[str, ...] = ("longest_first", "only_first", "only_second", "do_not_truncate")
Side = Literal["right", "left"]
Span = tuple[int, int]  # start and stop of the tokens kept of one text


def shares(lengths: Sequence[int], room: int, strategy: str) -> list[int]:
    """How many tokens each text keeps so that together they fit into `room`.

    Raises ValueError where the strategy cannot reach it: `only_first` and `only_second` leave at least one token.
    """
    excess = sum(lengths) - room
    if excess <= 0 or strategy == "do_not_truncate":
        return list(lengths)
    if strategy == "longest_first":
        return [room] if len(lengths) == 1 else _even(lengths[0], lengths[1], room)
    if room == 0:
        return [0] * len(lengths)
    which = 0 if strategy == "only_first" else 1
    if which >= len(lengths) or lengths[which] <= excess:
        raise ValueError(too_short(lengths, room, strategy))
    kept = list(lengths)
    kept[which] -= excess
    return kept


def too_short(lengths: Sequence[int], room: int, strategy: str) -> str:
    """Why `only_first` or `only_second` cannot cut texts of these lengths, and what to do."""
    which = 0 if strategy == "only_first" else 1
    if which >= len(lengths):
        return "truncation='only_second' needs a second text to shorten: give pairs, or use truncation='longest_first'."
    return (
        f"truncation={strategy!r} would have to remove {sum(lengths) - room} tokens of a text that has "
        f"{lengths[which]}: use truncation='longest_first', or a larger max_length."
    )


def _even(first: int, second: int, room: int) -> list[int]:
    """Shorten the longer of two texts first; when both must give, an odd token goes to the longer (or the second)."""
    short, long = sorted((first, second))
    if short <= room // 2:
        long = room - short
    else:
        short, long = room // 2, room - room // 2
    return [long, short] if first > second else [short, long]


def one_by_one(lengths: Sequence[int], room: int, strategy: str) -> list[int] | None:
    """How many tokens each text keeps where they go one by one, each from the longer text (the second when equal).

    None where `only_first` or `only_second` would leave nothing of that text, or there is no second one.
    """
    excess = sum(lengths) - room
    if excess <= 0 or strategy == "do_not_truncate":
        return list(lengths)
    if strategy == "longest_first":
        if len(lengths) == 1:
            return [room]
        first = min(lengths[0], room - min(lengths[1], room // 2))
        return [first, room - first]
    which = 0 if strategy == "only_first" else 1
    if which >= len(lengths) or lengths[which] <= excess:
        return None
    return [n - excess if i == which else n for i, n in enumerate(lengths)]


def left_over(texts: Sequence[list[int]], kept: Sequence[int], stride: int, side: str) -> list[int]:
    """What was cut off a text, with the `stride` tokens before it; nothing where two texts were cut."""
    shortened = [(text, n) for text, n in zip(texts, kept, strict=True) if n < len(text)]
    if len(shortened) != 1:
        return []
    text, n = shortened[0]
    return text[max(n - stride, 0) :] if side == "right" else text[: len(text) - n + stride]


def windows(length: int, size: int, stride: int, side: str) -> list[Span]:
    """The spans of `size` tokens over a text, each sharing `stride` tokens with the one before; the kept one first.

    length 10, size 4, stride 1, right:  0-4 3-7 6-10        left:  6-10 3-7 0-4
    """
    if length <= size:
        return [(0, length)]
    check_stride(stride, size)
    spans: list[Span] = []
    for shift in range(0, length, size - stride):
        if side == "right":
            spans.append((shift, min(shift + size, length)))
        else:
            spans.append((max(length - shift - size, 0), length - shift))
        if shift + size >= length:
            break
    return spans


def check_stride(stride: int, size: int) -> None:
    """ValueError if windows of `size` tokens that share `stride` would not advance."""
    if stride >= size:
        raise ValueError(
            f"stride={stride} must be smaller than the {size} tokens of text that a row has room for: "
            "use a smaller stride, or a larger max_length."
        )


def cut(
    lengths: Sequence[int], room: int | None, strategy: str, side: str, stride: int, overflow: bool
) -> list[tuple[Span, ...]]:
    """The rows that one sample becomes: a span for each of its texts. One row, unless `overflow` is asked for.

    `room` is what the special tokens leave of max_length, None without a bound.
    """
    if room is None or sum(lengths) <= room:
        return [tuple((0, n) for n in lengths)]
    kept = shares(lengths, room, strategy)
    if not overflow:
        if side == "right":
            return [tuple((0, k) for k in kept)]
        return [tuple((n - k, n) for n, k in zip(lengths, kept, strict=True))]
    spans = [windows(n, k, stride, side) for n, k in zip(lengths, kept, strict=True)]
    # The kept row, then every further window of the first text with each of the second, then the reverse.
    main, *rest = product(*spans)
    first = spans[0][0]
    return [main, *(row for row in rest if row[0] != first), *(row for row in rest if row[0] == first)]
