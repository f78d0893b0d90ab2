"""What FAISS adds to exact search (Johnson et al. 2017, arXiv 1702.08734): three ways to look at less.

All that FAISS does here is to name rows that may be the best; their scores are computed from the vectors themselves.
IVF and HNSW are faster with a copy of all vectors in memory, int8 with a quarter of one.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from polyformer.core.errors import CheckpointError

BLOCK = 1 << 15  # vectors that are put in at once
TRAINING = 64  # vectors a list that k-means sees; FAISS asks for 39 at least


class Kind(Protocol):
    """A kind of index. name: how files and the command call it. extra: candidates that are scored for each wanted."""

    name: ClassVar[str]
    extra: ClassVar[int]

    def made(self, vectors: np.ndarray) -> Any:
        """An index of FAISS over all vectors (rows, width)."""
        ...

    def options(self, made: Any, selector: Any) -> Any:
        """How to search it; `selector` says which rows are alive."""
        ...

    def description(self) -> dict[str, Any]:
        """What `kind_of` makes the same kind of."""
        ...


@dataclass(frozen=True)
class _Described:
    name: ClassVar[str]

    def description(self) -> dict[str, Any]:
        return {"kind": self.name, **asdict(self)}


@dataclass(frozen=True)
class IVF(_Described):
    """Vectors in lists by their nearest centre; a query reads the lists of the nearest ones.

    lists: how many; 4 sqrt(rows) by default. probes: how many a query reads; a sixteenth of them, 16 at least.
    """

    lists: int | None = None
    probes: int | None = None
    name: ClassVar[str] = "ivf"
    extra: ClassVar[int] = 1

    def made(self, vectors: np.ndarray) -> Any:
        lists = min(self.lists or max(1, int(4 * math.sqrt(len(vectors)))), len(vectors))
        made = _factory(f"IVF{lists},Flat", vectors)
        made.cp.min_points_per_centroid = 1  # few vectors are no reason to warn
        some = np.arange(len(vectors))
        if len(vectors) > TRAINING * lists:
            some = np.sort(np.random.default_rng(0).choice(len(vectors), TRAINING * lists, replace=False))
        made.train(np.ascontiguousarray(vectors[some], np.float32))
        return extended(made, vectors)

    def options(self, made: Any, selector: Any) -> Any:
        probes = self.probes or max(16, made.nlist // 16)
        return require().SearchParametersIVF(nprobe=min(probes, made.nlist), sel=selector)


@dataclass(frozen=True)
class HNSW(_Described):
    """A graph of near neighbours (Malkov and Yashunin 2016, arXiv 1603.09320); a query walks it.

    links: of a vector. width_build, width_search: how many of the best so far are followed.
    """

    links: int = 32
    width_build: int = 64
    width_search: int = 128
    name: ClassVar[str] = "hnsw"
    extra: ClassVar[int] = 1

    def made(self, vectors: np.ndarray) -> Any:
        made = _factory(f"HNSW{self.links},Flat", vectors)
        made.hnsw.efConstruction = self.width_build
        return extended(made, vectors)

    def options(self, made: Any, selector: Any) -> Any:
        return require().SearchParametersHNSW(efSearch=self.width_search, sel=selector)


@dataclass(frozen=True)
class Int8(_Described):
    """Every number of every vector as one of 256 values: a quarter of the memory, all of it read by every query."""

    name: ClassVar[str] = "int8"
    extra: ClassVar[int] = 4

    def made(self, vectors: np.ndarray) -> Any:
        made = _factory("SQ8", vectors)
        some = vectors[:: max(1, len(vectors) // (1 << 17))]
        made.train(np.ascontiguousarray(some, np.float32))
        return extended(made, vectors)

    def options(self, made: Any, selector: Any) -> Any:
        return require().SearchParameters(sel=selector) if selector is not None else None


KINDS: dict[str, type[IVF] | type[HNSW] | type[Int8]] = {kind.name: kind for kind in (IVF, HNSW, Int8)}


def kind_of(description: dict[str, Any]) -> Kind:
    """The kind that a description is of. Raises CheckpointError if there is none such."""
    try:
        fields = dict(description)
        return KINDS[fields.pop("kind")](**fields)
    except (KeyError, TypeError):
        raise CheckpointError(
            f"faiss.index is of a kind this version does not know, {description!r}: install a later polyformer."
        ) from None


def candidates(kind: Kind, made: Any, queries: np.ndarray, alive: np.ndarray | None, count: int) -> np.ndarray:
    """Rows that may be the best for each query, (queries, n) int64; -1 where there are fewer.

    alive: (rows,) bool, None = all.
    """
    count = min(count * kind.extra, made.ntotal)
    selector = None
    if alive is not None:
        bits = np.zeros(made.ntotal, bool)  # FAISS may have been given rows that this reader does not see yet
        bits[: len(alive)] = alive[: made.ntotal]
        packed = np.packbits(bits, bitorder="little")
        selector = require().IDSelectorBitmap(packed)
    options = kind.options(made, selector)
    found: np.ndarray = made.search(np.ascontiguousarray(queries, np.float32), count, params=options)[1]
    return found


def extended(made: Any, vectors: np.ndarray) -> Any:
    """The index with all vectors that it lacks."""
    for start in range(made.ntotal, len(vectors), BLOCK):
        made.add(np.ascontiguousarray(vectors[start : start + BLOCK], np.float32))
    return made


def read_faiss(path: Path) -> Any:
    """An index of FAISS from its file. Raises CheckpointError if it cannot be read."""
    faiss = require()
    try:
        return faiss.read_index(str(path))
    except (RuntimeError, MemoryError) as error:
        reason = "is missing" if not path.exists() else f"is damaged ({str(error).splitlines()[0][:80]})"
        raise CheckpointError(
            f"{path} {reason}: make it again with `polyformer index faiss`, or search exactly; the vectors are whole."
        ) from None


def write_faiss(made: Any, path: Path) -> None:
    """Raises OSError if it cannot be written."""
    try:
        require().write_index(made, str(path))
    except RuntimeError as error:
        raise OSError(str(error).splitlines()[0]) from None


def _factory(recipe: str, vectors: np.ndarray) -> Any:
    faiss = require()
    return faiss.index_factory(vectors.shape[1], recipe, faiss.METRIC_INNER_PRODUCT)


def require() -> Any:
    """The module. Raises CheckpointError if it is not installed."""
    try:
        import faiss
    except ImportError:
        raise CheckpointError(
            "FAISS is not installed: run pip install 'polyformer[retrieval]', or search exactly, which needs no more."
        ) from None
    return faiss
