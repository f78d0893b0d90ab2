"""An index as its readers see it."""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from polyformer.core.errors import CheckpointError
from polyformer.retrieval import faiss_kinds, flat
from polyformer.retrieval.files import FAISS, read_meta
from polyformer.retrieval.mapped import Mapped
from polyformer.retrieval.passage import Passage
from polyformer.retrieval.retriever import Found

TOGETHER = 1024  # queries
MARGIN = 8  # candidates more than asked for, so that the last digits of a block's scores do not decide


class PassageIndex:
    """Passages and their vectors, in a folder, read from the disk where they are touched. A `Retriever`.

    What it sees is the index as it was when it was opened: a process may add and delete meanwhile, and any number may
    read. `refresh` looks again.

    folder: of the index. exact: search every vector, though FAISS has been asked to help.

    Raises:
        CheckpointError: no index, half built, damaged, or of a later version; the message says what to do.
    """

    def __init__(self, folder: str | os.PathLike[str], *, exact: bool = False) -> None:
        self.folder, self.exact = Path(folder), exact
        self.refresh()

    def refresh(self) -> None:
        """See what has been added and deleted since."""
        self.meta = read_meta(self.folder)
        if not self.meta.whole.rows:
            done = self.meta.run.rows if self.meta.run else 0
            raise CheckpointError(
                f"the index in {self.folder} is half built, {done} passages are done: build it again as before, with "
                "the same documents and model, and it goes on from there."
            )
        self._files = Mapped(self.folder, self.meta.width, self.meta.whole)
        self._alive: np.ndarray | None = None
        if self.meta.deleted:
            self._alive = np.ones(self.meta.whole.rows, bool)
            for start, stop in self.meta.deleted:
                self._alive[start:stop] = False
        self.__dict__.pop("_faiss", None)

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.meta.width

    @property
    def vectors(self) -> np.ndarray:
        """(ids, width) float32 of all passages by id, deleted ones too, mapped from the file."""
        return self._files.vectors

    def __len__(self) -> int:
        """How many passages there are, deleted ones not counted."""
        return self.meta.whole.rows - sum(stop - start for start, stop in self.meta.deleted)

    def __iter__(self) -> Iterator[Passage]:
        """The passages one by one, in the order of their ids."""
        for row in range(self.meta.whole.rows):
            if self._alive is None or self._alive[row]:
                yield self._files.passage(row)

    def search(self, vectors: Any, k: int) -> Found:
        """The k best passages for every query.

        vectors: (queries, width), an array or a tensor; brought to length 1 where the index's metric is the cosine.

        Raises:
            ValueError: vectors of another shape, or not finite; k below 1.
        """
        queries = self._queries(vectors)
        if k < 1:
            raise ValueError(f"k is {k}: ask for at least 1 passage.")
        parts = [self._best(queries[i : i + TOGETHER], k) for i in range(0, max(1, len(queries)), TOGETHER)]
        return Found(*map(np.concatenate, zip(*parts, strict=True)))

    def passages(self, ids: Sequence[int] | np.ndarray) -> list[Passage]:
        """The passages with these ids. Raises ValueError for one that no passage has, or has no more."""
        made = []
        for i in map(int, ids):
            if not 0 <= i < self.meta.whole.rows:
                raise ValueError(f"no passage has the id {i}: there are ids from 0 to {self.meta.whole.rows - 1}.")
            if self._alive is not None and not self._alive[i]:
                raise ValueError(f"passage {i} has been deleted.")
            made.append(self._files.passage(i))
        return made

    def verify(self) -> None:
        """Read all of the index. Raises CheckpointError if a byte of it is not what was written."""
        self._files.verify()

    @cached_property
    def _faiss(self) -> Any:
        return faiss_kinds.read_faiss(self.folder / FAISS.format(**self.meta.faiss or {}))

    def _best(self, queries: np.ndarray, k: int) -> Found:
        """The best of the candidates, scored in float64, so that neither the batch nor the kind of search shows."""
        rows = np.sort(
            self._candidates(queries, min(k + MARGIN, len(self.vectors))), axis=1
        )  # of equal scores the lower id comes first
        missing = k - rows.shape[1]
        if missing > 0:
            rows = np.pad(rows, ((0, 0), (0, missing)), constant_values=-1)
        found = np.where(rows[:, :, None] >= 0, self._files.vectors[np.maximum(rows, 0)], np.float32(0))
        scores = np.einsum("qd,qkd->qk", queries, found, dtype=np.float64)
        scores[rows < 0] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        ids, scores = np.take_along_axis(rows, best, 1), np.take_along_axis(scores, best, 1)
        return Found(ids, scores.astype(np.float32), np.take_along_axis(found, best[:, :, None], 1))

    def _candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        """(queries, n) ids among which the best are, or most of them; -1 where there are fewer."""
        rows, alive = self._files.vectors, self._alive
        if self.exact or self.meta.faiss is None:
            return flat.candidates(queries, rows, alive, count)
        kind = faiss_kinds.kind_of(self.meta.faiss)
        covered = min(self._faiss.ntotal, len(rows))
        seen = np.ones(covered, bool) if alive is None and covered < self._faiss.ntotal else alive
        near = faiss_kinds.candidates(kind, self._faiss, queries, seen, count)
        # what was added since is searched exactly
        tail = flat.candidates(queries, rows[covered:], None if alive is None else alive[covered:], count)
        return np.concatenate([near, np.where(tail >= 0, tail + covered, -1)], axis=1)

    def _queries(self, vectors: Any) -> np.ndarray:
        """Queries as the index wants them, (queries, width) float32."""
        if hasattr(vectors, "detach"):
            vectors = vectors.detach().float().cpu().numpy()
        queries = np.asarray(vectors, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.width:
            raise ValueError(
                f"queries have shape {queries.shape}, but (queries, {self.width}) was expected: use the model that "
                f"goes with the index, {self.meta.question_encoder}."
            )
        if not np.isfinite(queries).all():
            raise ValueError("a query has numbers that are not finite.")
        if self.meta.metric == "cosine":
            queries = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return queries

    def __repr__(self) -> str:
        faiss = f", {self.meta.faiss['kind']}" if self.meta.faiss else ""
        return f"PassageIndex({str(self.folder)!r}, {len(self)} passages, {self.width} wide, {self.meta.metric}{faiss})"
