"""The files of an index, and what makes them one.

    vectors.f32      a row a passage, float32, little-endian: row i is the vector of passage i
    passages.jsonl   a line a passage
    ends.u64         where each line of passages.jsonl ends, uint64, little-endian
    meta.json        how much of the three counts, and everything else that is known
    faiss-KIND.index  perhaps: an index of FAISS over the first rows

The first three only grow. What is in them counts once meta.json, which is replaced all at once, says so: whenever a
process is killed, what counted before still does, and a reader, who maps as much as its meta.json said, never sees a
writer at work. Deleted passages are intervals of ids in meta.json; their rows stay, so that ids do.
"""

import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from polyformer.core.atomic import explain, write_all
from polyformer.core.errors import CheckpointError

FORMAT = 1
META, VECTORS, PASSAGES, ENDS, LOCK = "meta.json", "vectors.f32", "passages.jsonl", "ends.u64", ".lock"
FAISS = "faiss-{kind}.index"
METRICS = ("cosine", "inner-product")


class Extent(NamedTuple):
    """How much of the growing files counts: rows, bytes of passages.jsonl, and the CRC-32 of both files so far."""

    rows: int = 0
    text_bytes: int = 0
    vectors_crc: int = 0
    passages_crc: int = 0


NOTHING = Extent()


@dataclass(frozen=True)
class Meta:
    """What is known of an index.

    encoder, question_encoder: names of the models that make vectors of passages and of questions.
    width: numbers in a vector. metric: "cosine" (vectors are kept with length 1) or "inner-product".
    whole: what readers see. run: how far a build or an addition got that is not finished, None where there is none.
    deleted: ids [start, stop) of deleted passages, sorted and apart.
    faiss: kind and options of its index, None where there is none.
    metadata: the user's own.
    """

    encoder: str
    question_encoder: str
    metric: str
    width: int = 0
    whole: Extent = NOTHING
    run: Extent | None = None
    deleted: tuple[tuple[int, int], ...] = ()
    faiss: dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Make it count."""
        fields = {"format": FORMAT, **asdict(self)}
        write_all(folder, {META: json.dumps(fields | {"checksum": _checksum(fields)}, indent=1) + "\n"})


def read_meta(folder: Path) -> Meta:
    """meta.json of an index, whether or not the index is finished.

    Raises:
        CheckpointError: there is none, it is damaged, or of a later version.
    """
    path = folder / META
    try:
        fields = json.loads(path.read_bytes())
        version, checksum = fields.pop("format"), fields.pop("checksum")
        if isinstance(version, int) and version > FORMAT:
            raise CheckpointError(
                f"{folder} is an index of format {version}, and this version of polyformer reads up to {FORMAT}: "
                "install a later one."
            )
        if checksum != _checksum({"format": version, **fields}):
            raise ValueError
        for name in ("whole", "run"):
            fields[name] = None if fields[name] is None else Extent(*fields[name])
        fields["deleted"] = tuple((start, stop) for start, stop in fields["deleted"])
        return Meta(**fields)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"there is no index in {folder}: build one, or name another folder.") from None
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CheckpointError(
            f"{path} is damaged: restore it from a backup, or build the index again in another folder."
        ) from None


def check_sizes(folder: Path, width: int, extent: Extent) -> None:
    """Raise CheckpointError where a file is missing or shorter than what counts of it."""
    wanted = {VECTORS: 4 * width * extent.rows, PASSAGES: extent.text_bytes, ENDS: 8 * extent.rows}
    for name, size in wanted.items():
        try:
            found = (folder / name).stat().st_size
        except OSError:
            raise CheckpointError(
                f"the index in {folder} has no {name}: restore it from a backup, or build the index again."
            ) from None
        if found < size:
            raise CheckpointError(
                f"{folder / name} is cut off, {found} of {size} bytes are there: restore it from a backup, or build "
                "the index again in another folder."
            )


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Within it, this process alone writes to the index. The system lets go of the lock however the process ends.

    Raises:
        CheckpointError: another one is writing, or the folder cannot be written.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise CheckpointError(f"another process is writing to {folder}: wait until it is done.") from None
    except OSError as error:
        raise explain(folder, error) from error
    try:
        for stray in [*folder.glob(".*.tmp"), *folder.glob(".*.old")]:  # of a process that was killed
            with suppress(OSError):
                stray.unlink()
        yield
    finally:
        lock.release()


def merged(intervals: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same numbers as sorted intervals [start, stop) that do not touch."""
    made: list[tuple[int, int]] = []
    for start, stop in sorted(intervals):
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(made[-1][1], stop))
        else:
            made.append((start, stop))
    return tuple(made)


def _checksum(fields: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(fields, sort_keys=True).encode())
