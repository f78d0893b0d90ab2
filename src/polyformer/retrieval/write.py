"""Building an index and changing it. What was killed goes on where it was when it is called again as before."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from zlib import crc32

import numpy as np

from polyformer.core.atomic import AtomicFiles, explain
from polyformer.core.errors import CheckpointError
from polyformer.retrieval.faiss_kinds import Kind, extended, read_faiss, require, write_faiss
from polyformer.retrieval.files import (
    ENDS,
    FAISS,
    LOCK,
    META,
    METRICS,
    PASSAGES,
    VECTORS,
    Extent,
    Meta,
    merged,
    read_meta,
    writing,
)
from polyformer.retrieval.index import PassageIndex
from polyformer.retrieval.mapped import Mapped
from polyformer.retrieval.passage import Passage

Encode = Callable[[Sequence[Passage]], np.ndarray]
BLOCK = 256  # passages that are encoded and written at once
SECONDS = 0.5  # after so many, blocks are made to count, which waits for the disk: a kill costs a block and so much
SAME = 0.99  # cosine of two vectors of one passage by one model, computed on different machines or in half precision


def build(
    folder: str | os.PathLike[str],
    passages: Iterable[Passage],
    encode: Encode,
    *,
    encoder: str,
    question_encoder: str | None = None,
    metric: str = "cosine",
    metadata: Mapping[str, Any] | None = None,
    block: int = BLOCK,
    advance: Callable[[int], None] | None = None,
) -> PassageIndex:
    """A new index of passages, in one pass over them, with no more than a block of them in memory.

    Called again after it was interrupted, by `kill -9` even, it goes on where it was: passages are read again and
    compared with those on disk, vectors are computed for the rest only. The files are those of a build in one go.

    Args:
        folder: a new or an empty one.
        encode: a list of passages to their vectors (passages, width).
        encoder, question_encoder: names of the models for passages, and for questions if that is another.
        metric: "cosine", vectors are brought to length 1; or "inner-product", as they are.
        metadata: whatever you want to keep with the index, JSON.
        block: passages at a time. advance: called with how many passages more are done.

    Raises:
        CheckpointError: the folder holds a finished index, one of another model or other files, or cannot be written.
        ValueError: no passage, or vectors that are not numbers.
    """
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}; there are {' and '.join(map(repr, METRICS))}.")
    folder = Path(folder)
    meta = Meta(encoder, question_encoder or encoder, metric, metadata=dict(metadata or {}))
    with writing(folder):
        begun = _begun(folder)
        if begun is not None:
            if (begun.encoder, begun.metric) != (encoder, metric):
                raise CheckpointError(
                    f"the index in {folder} is half built with {begun.encoder} and {begun.metric}: go on with those, "
                    "or remove the folder."
                )
            meta = replace(begun, question_encoder=meta.question_encoder, metadata=meta.metadata)
        if not _append(folder, meta, passages, encode, block, advance):
            raise ValueError("there is no passage to build an index of.")
    return PassageIndex(folder)


def add(
    folder: str | os.PathLike[str],
    passages: Iterable[Passage],
    encode: Encode,
    *,
    replacing: bool = False,
    block: int = BLOCK,
    advance: Callable[[int], None] | None = None,
) -> PassageIndex:
    """More passages for an index, after those it has. Readers see all of them or none; a kill costs a moment.

    encode: by the model that built the index; that is checked with a passage of it.
    replacing: what the index had of the documents that are added is deleted in the same moment.

    Raises:
        CheckpointError: no finished index. ValueError: vectors of another width or another model.
    """
    folder = Path(folder)
    with writing(folder):
        meta = PassageIndex(folder).meta  # raises for one that is half built
        if meta.faiss is not None:
            require()  # before the work
        _check_model(Mapped(folder, meta.width, meta.whole), encode)
        _append(folder, meta, passages, encode, block, advance, replacing)
        meta = read_meta(folder)
        if meta.faiss is not None:
            _cover(folder, meta, FAISS.format(**meta.faiss))
    return PassageIndex(folder)


def delete(folder: str | os.PathLike[str], ids: Iterable[int] = (), documents: Iterable[str] = ()) -> int:
    """Take passages out of an index by their ids, or all of some documents; gives how many it was.

    No other id changes, and no id is given again. The texts stay in the files, where no search finds them.

    Raises:
        ValueError: an id or a document that is not in the index (an id that was deleted before may be named again).
    """
    folder = Path(folder)
    with writing(folder):
        index = PassageIndex(folder)
        gone = [(int(i), int(i) + 1) for i in ids]
        for start, _ in gone:
            if not 0 <= start < index.meta.whole.rows:
                raise ValueError(f"no passage has the id {start}: there are ids from 0 to {index.meta.whole.rows - 1}.")
        wanted = set(documents)
        if wanted:
            found = {passage.id: passage.document for passage in index if passage.document in wanted}
            if missing := sorted(wanted - set(found.values())):
                raise ValueError(f"the index has no passage of a document {missing[0]!r}.")
            gone += [(i, i + 1) for i in found]
        after = replace(index.meta, deleted=merged([*index.meta.deleted, *gone]))
        after.write(folder)
        return _count(after.deleted) - _count(index.meta.deleted)


def accelerate(folder: str | os.PathLike[str], kind: Kind | None) -> PassageIndex:
    """Put an index of FAISS beside the vectors, for faster search that may miss some; None takes it away.

    Passages that are added later are put into it too.

    Raises:
        CheckpointError: FAISS is not installed, or no finished index.
    """
    folder = Path(folder)
    with writing(folder):
        meta = PassageIndex(folder).meta
        if kind is not None:
            made = kind.made(Mapped(folder, meta.width, meta.whole).vectors)
            _place(folder, FAISS.format(kind=kind.name), made)
        replace(meta, faiss=None if kind is None else kind.description()).write(folder)
        for path in folder.glob(FAISS.format(kind="*")):
            if kind is None or path.name != FAISS.format(kind=kind.name):
                path.unlink()
    return PassageIndex(folder)


def kept(folder: str | os.PathLike[str]) -> int:
    """How many passages of a build or an addition that was interrupted are on disk, not to be computed again."""
    if not (Path(folder) / META).exists():
        return 0
    meta = read_meta(Path(folder))
    return meta.run.rows - meta.whole.rows if meta.run is not None else 0


def _begun(folder: Path) -> Meta | None:
    """The half-built index of a folder, None for a new one."""
    if (folder / META).exists():
        meta = read_meta(folder)
        if meta.whole.rows:
            raise CheckpointError(f"{folder} already has an index: add to it, or build in another folder.")
        return meta
    if others := sorted(path.name for path in folder.iterdir() if path.name not in (LOCK, VECTORS, PASSAGES, ENDS)):
        raise CheckpointError(f"{folder} has other files, {others[0]} for one: build in a new or an empty folder.")
    return None


def _append(
    folder: Path,
    meta: Meta,
    passages: Iterable[Passage],
    encode: Encode,
    block: int,
    advance: Callable[[int], None] | None,
    replacing: bool = False,
) -> bool:
    """Write passages behind those that count, make them count at the end; False if there are none at all."""
    extent, rest = _resumed(folder, meta, iter(passages))
    if meta.run not in (None, extent):  # before what is behind it is dropped
        meta = replace(meta, run=extent)
        meta.write(folder)
    if advance is not None:
        advance(extent.rows - meta.whole.rows)
    with Growing(folder, meta, extent) as files:
        while batch := list(islice(rest, block)):
            files.append(batch, encode(batch))
            if advance is not None:
                advance(len(batch))
        files.commit()
        meta, extent = files.meta, files.extent
    if not extent.rows:
        return False
    deleted = meta.deleted
    if replacing:
        deleted = merged([*deleted, *_former(Mapped(folder, meta.width, extent), meta.whole.rows)])
    replace(meta, whole=extent, run=None, deleted=deleted).write(folder)
    return True


def _resumed(folder: Path, meta: Meta, passages: Iterator[Passage]) -> tuple[Extent, Iterator[Passage]]:
    """How far the files already hold these passages, and those they do not hold yet."""
    if meta.run is None:
        return meta.whole, passages
    there = Mapped(folder, meta.width, meta.run)
    for row in range(meta.whole.rows, meta.run.rows):
        passage = next(passages, None)
        if passage is None:
            return there.until(row), iter(())
        if passage.line(row) != there.line(row):
            return there.until(row), chain([passage], passages)
    return meta.run, passages


def _former(there: Mapped, first: int) -> list[tuple[int, int]]:
    """The rows before `first` of documents that have passages from there on."""
    names = {there.passage(row).document for row in range(first, there.extent.rows)}
    return [(row, row + 1) for row in range(first) if there.passage(row).document in names]


class Growing:
    """The growing files of an index, open to be appended to; what is in them behind `extent` is dropped."""

    def __init__(self, folder: Path, meta: Meta, extent: Extent) -> None:
        self.folder, self.meta, self.extent = folder, meta, extent
        sizes = {VECTORS: 4 * meta.width * extent.rows, PASSAGES: extent.text_bytes, ENDS: 8 * extent.rows}
        self._files = []
        try:
            for name, size in sizes.items():
                file = (folder / name).open("ab")
                self._files.append(file)
                file.truncate(size)
                file.seek(size)
            self._next = time.monotonic() + SECONDS
        except OSError as error:
            self.__exit__(None, None, None)
            raise explain(folder, error) from error

    def append(self, passages: Sequence[Passage], vectors: np.ndarray) -> None:
        """Write passages and their vectors (passages, width); now and then, note in meta.json that they are there."""
        table = self._checked(passages, vectors)
        first, size = self.extent.rows, self.extent.text_bytes
        lines = [passage.line(first + i) for i, passage in enumerate(passages)]
        ends = (size + np.cumsum([len(line) for line in lines])).astype("<u8")
        text, numbers = b"".join(lines), table.tobytes()
        try:
            for file, content in zip(self._files, (numbers, text, ends.tobytes()), strict=True):
                file.write(content)
        except OSError as error:
            raise explain(self.folder, error) from error
        self.extent = Extent(
            first + len(lines), size + len(text), crc32(numbers, self.extent.vectors_crc),
            crc32(text, self.extent.passages_crc),
        )  # fmt: skip
        self.meta = replace(self.meta, width=table.shape[1], run=self.extent)
        if time.monotonic() >= self._next:
            self.commit()
            self._next = time.monotonic() + SECONDS

    def commit(self) -> None:
        """Make what was written count: first it is on the disk, then meta.json says so."""
        try:
            for file in self._files:
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise explain(self.folder, error) from error
        self.meta.write(self.folder)

    def _checked(self, passages: Sequence[Passage], vectors: np.ndarray) -> np.ndarray:
        """The vectors as they are kept."""
        table = np.asarray(vectors, np.float32)
        if table.ndim != 2 or len(table) != len(passages) or not table.shape[1]:
            raise ValueError(f"{len(passages)} passages have vectors of shape {table.shape}: give a row for each.")
        if self.meta.width not in (0, table.shape[1]):
            raise ValueError(
                f"vectors are {table.shape[1]} wide and those of the index {self.meta.width}: use the model that built "
                f"it, {self.meta.encoder}."
            )
        if not np.isfinite(table).all():
            row = int(np.flatnonzero(~np.isfinite(table).all(1))[0])
            raise ValueError(
                f"the vector of passage {self.extent.rows + row} is not finite: the model computes no number."
            )
        return unit(table).astype("<f4") if self.meta.metric == "cosine" else table.astype("<f4")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self.meta.run == self.extent:  # what is written is good; it counts if it can
            with suppress(OSError):
                self.commit()
        for file in self._files:
            with suppress(OSError):
                file.close()


def _check_model(there: Mapped, encode: Encode) -> None:
    """Raise ValueError if the model gives the first passage another vector than the index has of it."""
    have, got = there.vectors[0], np.asarray(encode([there.passage(0)]), np.float32).reshape(-1)
    if not have.any():
        return
    if len(got) != len(have) or float(unit(got[None])[0] @ unit(have[None])[0]) < SAME:
        raise ValueError(
            "this model gives the first passage another vector than the index has of it: use the model that built it."
        )


def _cover(folder: Path, meta: Meta, name: str) -> None:
    """Put the rows that this index of FAISS lacks into it."""
    vectors = Mapped(folder, meta.width, meta.whole).vectors
    made = read_faiss(folder / name)
    if made.ntotal < len(vectors):
        _place(folder, name, extended(made, vectors))


def _place(folder: Path, name: str, made: Any) -> None:
    try:
        with AtomicFiles(folder) as files:
            write_faiss(made, files.path_for(name))
            files.commit()
    except CheckpointError:
        raise
    except OSError as error:
        raise explain(folder, error) from error


def _count(intervals: Iterable[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in intervals)


def unit(table: np.ndarray) -> np.ndarray:
    """Rows of length 1; zeros stay."""
    return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), np.finfo(np.float32).tiny)
