"""The growing files of an index as arrays that are read from the disk where they are touched."""

import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from polyformer.core.errors import CheckpointError
from polyformer.retrieval.files import ENDS, PASSAGES, VECTORS, Extent, check_sizes
from polyformer.retrieval.passage import Passage

STEP = 1 << 24  # bytes that are read at once where a whole file is


class Mapped:
    """So much of an index, read only; nothing of it is in memory but what was touched.

    vectors: (rows, width) float32.
    """

    def __init__(self, folder: Path, width: int, extent: Extent) -> None:
        check_sizes(folder, width, extent)
        self.folder, self.extent = folder, extent
        rows = extent.rows
        empty = rows == 0  # what is empty cannot be mapped
        self.vectors: np.ndarray = (
            np.zeros((0, width), "<f4") if empty else np.memmap(folder / VECTORS, "<f4", "r", shape=(rows, width))
        )
        self._ends: np.ndarray = np.zeros(0, "<u8") if empty else np.memmap(folder / ENDS, "<u8", "r", shape=(rows,))
        self._lines: mmap.mmap | bytes = b""
        if not empty:
            with (folder / PASSAGES).open("rb") as file:
                self._lines = mmap.mmap(file.fileno(), extent.text_bytes, access=mmap.ACCESS_READ)
            if self._ends[-1] != extent.text_bytes:
                raise self._damaged(ENDS, "the last passage does not end where the file does")

    def line(self, row: int) -> bytes:
        """A line of passages.jsonl."""
        start = int(self._ends[row - 1]) if row else 0
        return self._lines[start : int(self._ends[row])]

    def passage(self, row: int) -> Passage:
        """Raises CheckpointError if its line is not what was written."""
        try:
            made = Passage.from_line(self.line(row))
            if made.id != row:
                raise ValueError
        except (ValueError, TypeError, KeyError):
            raise self._damaged(PASSAGES, f"passage {row} cannot be read") from None
        return made

    def verify(self) -> None:
        """Read everything. Raises CheckpointError if a byte is not what was written."""
        if _crc(self.vectors.reshape(-1).view("u1")) != self.extent.vectors_crc:
            raise self._damaged(VECTORS, "its checksum is another")
        if _crc(self._lines) != self.extent.passages_crc:
            raise self._damaged(PASSAGES, "its checksum is another")
        for row in range(self.extent.rows):
            line = self.line(row)
            if line[:1] != b"{" or line.find(b"\n") != len(line) - 1:
                raise self._damaged(ENDS, f"passage {row} does not end where it says")

    def until(self, row: int) -> Extent:
        """The extent of the first rows alone."""
        size = int(self._ends[row - 1]) if row else 0
        return Extent(row, size, _crc(self.vectors[:row].reshape(-1).view("u1")), _crc(self._lines, size))

    def _damaged(self, name: str, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.folder / name} is damaged, {what}: restore it from a backup, or build the index again in another "
            "folder."
        )


def _crc(content: Any, size: int | None = None) -> int:
    made = 0
    for step in _steps(len(content) if size is None else size):
        made = zlib.crc32(content[step], made)
    return made


def _steps(size: int) -> Iterator[slice]:
    return (slice(start, min(start + STEP, size)) for start in range(0, size, STEP))
