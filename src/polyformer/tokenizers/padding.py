"""Rows of unequal length to rectangles: as lists, or as arrays in one go without a Python loop over tokens."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

STRATEGIES = ("longest", "max_length", "do_not_pad")


def width_of(longest: int, strategy: str, max_length: int | None, multiple: int | None) -> int:
    """The length to pad rows to; a row that is already longer stays as it is."""
    width = longest if strategy == "longest" or max_length is None else max_length
    return -(-width // multiple) * multiple if multiple else width


def pad_row(row: list[Any], width: int, value: Any, side: str) -> list[Any]:
    """`row` with `value` added on one side up to `width`."""
    missing = width - len(row)
    if missing <= 0:
        return row
    return row + [value] * missing if side == "right" else [value] * missing + row


class Grid:
    """Where the rows of a batch lie in an array of shape (rows, width).

    `real` (rows, width) is True where a row has a value and False where padding goes.
    """

    def __init__(self, lengths: Sequence[int], width: int, side: str) -> None:
        n = np.fromiter(lengths, np.int64, len(lengths))[:, None]
        place = np.arange(width)
        self.real = place < n if side == "right" else place >= width - n
        self.total = int(n.sum())
        self.full = self.total == self.real.size

    def fill(self, rows: Iterable[Iterable[Any]], value: Any) -> np.ndarray:
        """The rows as int64 (rows, width), `value` elsewhere; values that are pairs give (rows, width, 2)."""
        if isinstance(value, tuple):
            flat = np.array([*chain.from_iterable(rows)], np.int64).reshape(self.total, len(value))
        else:
            flat = np.fromiter(chain.from_iterable(rows), np.int64, self.total)
        shape = self.real.shape + flat.shape[1:]
        if self.full:
            return flat.reshape(shape)
        out = np.empty(shape, np.int64)
        out[...] = value
        out[self.real] = flat
        return out

    def const(self, inside: int, outside: int) -> np.ndarray:
        """One value where rows are, another where padding is."""
        return np.where(self.real, np.int64(inside), np.int64(outside))
