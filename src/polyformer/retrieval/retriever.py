"""What a model asks of whatever finds passages for it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from polyformer.retrieval.passage import Passage


class Found(NamedTuple):
    """The k passages nearest to each query, best first.

    ids: (queries, k) int64. scores: (queries, k) float32, inner products with the query, of the lower id first where
    they are equal. vectors: (queries, k, width) float32, of the passages, so that scores can be computed again with a
    gradient. Where there are fewer than k passages: id -1, score -inf, a vector of zeros.
    """

    ids: np.ndarray
    scores: np.ndarray
    vectors: np.ndarray


@runtime_checkable
class Retriever(Protocol):
    """Finds passages by vectors. `PassageIndex` is one; so is any object with these.

    width: numbers in a vector.
    """

    @property
    def width(self) -> int: ...

    def search(self, vectors: Any, k: int) -> Found:
        """The k best passages for every query; vectors (queries, width), an array or a tensor of any device."""
        ...

    def passages(self, ids: Sequence[int]) -> list[Passage]:
        """The passages with these ids. Raises ValueError for an id (-1 too) that no passage has."""
        ...
