"""Many sequences of mixed length, cut into batches of about as many tokens each. Numbers only: no model, no torch.

    sequences  any number, perhaps without end
    windows    some thousand of them at a time: what is held in memory
    batches    those of a window, sorted by length, cut where a batch has `budget` tokens

Models run packed, on real tokens only, so a batch costs what its tokens cost. Sorting still pays: sequences of a length
share one attention call, and the padded arrays at the model's door stay small.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

# Sequences held at a time. Sorting within so many leaves batches as even as sorting everything.
WINDOW = 4096
# How much larger than the budget the padded arrays of a batch may be (short sequences beside a long one).
SLACK = 1.25


def windows(items: Iterable[Item], size: int = WINDOW) -> Iterator[list[Item]]:
    """Lists of `size` items in their order, the last one shorter; takes from the iterable only what it gives."""
    source = iter(items)
    while window := list(islice(source, size)):
        yield window


def token_batches(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Which sequences go together: row numbers (n,) of one batch after another, the longest sequences first.

    Args:
        lengths: (rows,) tokens of every sequence; rows without any are in no batch.
        budget: tokens of a batch at most; a longer sequence is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    order = order[: np.count_nonzero(lengths)]
    ends = np.cumsum(lengths[order])
    start = 0
    while start < len(order):
        before = ends[start - 1] if start else 0
        by_tokens = int(np.searchsorted(ends, before + budget, side="right"))
        by_padding = start + int(SLACK * budget) // int(lengths[order[start]])
        stop = max(start + 1, min(by_tokens, by_padding))
        yield order[start:stop]
        start = stop


def padded(rows: Sequence[Sequence[int]], lengths: np.ndarray, fill: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
    """One array of several sequences, padded on the right.

    Args:
        rows: the sequences; lengths: (rows,) how long each is.

    Returns:
        (rows, longest) int64, and which of it is real, (rows, longest) bool; None where all is.
    """
    longest, shortest = int(lengths.max()), int(lengths.min())
    flat = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
    if longest == shortest:
        return flat.reshape(len(rows), longest), None
    real = np.arange(longest) < lengths[:, None]
    table = np.full(real.shape, fill, np.int64)
    table[real] = flat
    return table, real
