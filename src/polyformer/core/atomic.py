"""Files that appear all at once, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .errors import CheckpointError


class AtomicFiles:
    """New files of a folder, written beside the old ones and renamed into place in `commit`.

    Used as a context manager: leaving it without a finished commit, by any exception, restores the old files and
    removes the new ones. Each file is forced onto the disk before the first one is renamed.

    What a rename cannot give: a power cut or `kill -9` in the moment *between* the renames of one commit leaves files
    of both kinds. The caller chooses the order, so that this moment is harmless or makes loading fail.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mark = f"{os.getpid()}-{secrets.token_hex(4)}"  # two processes that save here do not meet
        self._new: dict[str, Path] = {}  # name -> where it is written
        self._old: dict[str, Path] = {}  # name -> where the former file waits
        self._placed: list[str] = []
        self._committed = False

    def path_for(self, name: str) -> Path:
        """Where to write the file that will be called `name`: to be created by the caller, so that umask applies."""
        target = self.folder / name
        if target.is_dir():
            raise CheckpointError(f"{target} is a folder, so no file can be saved there; remove or rename it.")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._new[name] = target.with_name(f".{target.name}.{self._mark}.tmp")
        return self._new[name]

    def commit(self, *, withdraw: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """Take away the files `withdraw`, rename the new files in the order in which they were asked for, and take
        away the files `remove`; on any error all of it is undone."""
        for path in self._new.values():
            _flush(path)
        for name in withdraw:
            self._set_aside(name)
        for name, path in self._new.items():
            self._keep_old(name)
            self._placed.append(name)
            os.replace(path, self.folder / name)
        for name in remove:
            self._set_aside(name)
        _flush_folder(self.folder)
        self._committed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._committed:
            self._undo()
        for path in [*self._new.values(), *self._old.values()]:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _undo(self) -> None:
        for name in self._placed:
            if name not in self._old and not self._new[name].exists():
                (self.folder / name).unlink(missing_ok=True)
        for name, waiting in self._old.items():
            if os.path.lexists(waiting):
                os.replace(waiting, self.folder / name)  # does nothing if both are names of one file
                waiting.unlink(missing_ok=True)
        self._old.clear()

    def _waiting(self, name: str) -> Path:
        target = self.folder / name
        return target.with_name(f".{target.name}.{self._mark}.old")

    def _keep_old(self, name: str) -> None:
        """Give the former file a second name, so that its first one never ceases to exist."""
        target = self.folder / name
        if name in self._old or not os.path.lexists(target):
            return
        waiting = self._old[name] = self._waiting(name)  # noted first: an interrupt may come at any line
        try:
            os.link(target, waiting, follow_symlinks=False)
        except (OSError, NotImplementedError):  # a file system without links
            os.replace(target, waiting)

    def _set_aside(self, name: str) -> None:
        target = self.folder / name
        if name not in self._old and os.path.lexists(target):
            self._old[name] = self._waiting(name)
            os.replace(target, self._old[name])


def write_all(
    folder: str | os.PathLike[str], texts: Mapping[str, str | bytes], stale: Iterable[str] = ()
) -> list[Path]:
    """Write these files all at once, the folder made if need be, and remove the stale ones. Gives the paths.

    Errors: CheckpointError when the folder cannot be written; the old files are whole then.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with AtomicFiles(folder) as new:
            for name, text in texts.items():
                new.path_for(name).write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
            new.commit(remove=[name for name in stale if name not in texts])
    except CheckpointError:
        raise
    except OSError as error:
        raise explain(folder, error) from error
    return [folder / name for name in texts]


def _flush(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the renames themselves last; some systems cannot open a folder, and do without."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def explain(folder: Path, error: OSError) -> CheckpointError:
    """One sentence for an error of the file system while `folder` was written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return CheckpointError(f"The disk is full or a quota is reached at {folder}; free some space and save again.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return CheckpointError(f"{folder} cannot be written to ({error.strerror}); choose a folder that you may write.")
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return CheckpointError(f"{folder} is a file, or lies under one, and not a folder; choose another name.")
    return CheckpointError(f"Nothing was saved in {folder}: {error.strerror or error}; the old files are unchanged.")
