"""Exact search: every vector against every query, a block of the file at a time."""

import numpy as np

QUERIES = 256  # at a time: the file is read once for each so many
SCORES = 1 << 22  # numbers of one block of scores, 16 MB
ROWS = 1 << 16  # of a block at most


def candidates(queries: np.ndarray, vectors: np.ndarray, alive: np.ndarray | None, count: int) -> np.ndarray:
    """Which rows have the highest inner product with each query.

    queries: (queries, width). vectors: (rows, width), mapped perhaps. alive: (rows,) bool, None = all. Both float32.

    Returns:
        (queries, count) int64 rows, in no order; -1 where there are fewer.
    """
    parts = [_of_some(queries[i : i + QUERIES], vectors, alive, count) for i in range(0, len(queries), QUERIES)]
    return np.concatenate(parts) if parts else np.zeros((0, count), np.int64)


def _of_some(queries: np.ndarray, vectors: np.ndarray, alive: np.ndarray | None, count: int) -> np.ndarray:
    block = max(count, min(ROWS, SCORES // len(queries)))
    rows = np.full((len(queries), count), -1)
    best = np.full((len(queries), count), -np.inf, np.float32)
    for start in range(0, len(vectors), block):
        scores = queries @ vectors[start : start + block].T
        if alive is not None:
            scores[:, ~alive[start : start + block]] = -np.inf
        # after the first blocks few scores are still among the best; the others are not looked at again
        worst = best.min(1)
        if start == 0 and scores.shape[1] > count:
            worst = np.nextafter(np.partition(scores, -count, axis=1)[:, -count], np.float32(-np.inf))
        queries_of, places = np.nonzero(scores > worst[:, None])
        if len(places):
            rows, best = _merged(rows, best, queries_of, places + start, scores[queries_of, places])
    return rows


def _merged(
    rows: np.ndarray, best: np.ndarray, queries_of: np.ndarray, more: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The best of (queries, count) rows and of more, each of a query; the lower row where scores are equal."""
    count = rows.shape[1]
    owner = np.concatenate([np.repeat(np.arange(len(rows)), count), queries_of])
    rows, scores = np.concatenate([rows.ravel(), more]), np.concatenate([best.ravel(), scores])
    order = np.lexsort((rows, -scores, owner))
    begins = np.searchsorted(owner[order], np.arange(len(best)))
    chosen = order[begins[:, None] + np.arange(count)]
    return rows[chosen], scores[chosen]
