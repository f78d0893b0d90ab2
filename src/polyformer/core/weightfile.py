"""What every readable weight file offers, and the direct path from the file's bytes into a tensor's memory."""

from __future__ import annotations

import math
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from .errors import CheckpointError
from .files import DOWNLOAD_AGAIN


class Checkpoint(ABC):
    """Named tensors in a file or in several; a context manager that closes them.

    Every method raises CheckpointError, in one sentence, for a key that is not there or a file that fails.
    """

    path: Path
    metadata: dict[str, str]

    @abstractmethod
    def keys(self) -> list[str]:
        """The names of the tensors, in the file's order."""

    @abstractmethod
    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""

    @abstractmethod
    def dtype(self, key: str) -> torch.dtype:
        """The dtype that a tensor has in the file, without reading it."""

    @abstractmethod
    def read(self, key: str, out: Tensor) -> None:
        """Fill `out` with the tensor; `out` has its shape, and any dtype, device and strides."""

    def read_many(self, pairs: Iterable[tuple[str, Tensor]]) -> None:
        """Fill many tensors, in the order that suits the file: faster than one `read` after the other."""
        for key, out in pairs:
            self.read(key, out)

    def tensor(self, key: str) -> Tensor:
        """A fresh CPU tensor in the file's dtype."""
        out = torch.empty(self.shape(key), dtype=self.dtype(key))
        self.read(key, out)
        return out

    def mapped(self, key: str) -> Tensor | None:
        """The tensor as a private view of the file's own memory, where there is such a thing: nothing is read before
        it is used, and what is written to it stays out of the file. It outlives `close`."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Close the file; reading afterwards is an error. Closing twice is not."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def _refuse_key(self, key: str) -> CheckpointError:
        return CheckpointError(f"{self.path} has no tensor called {key!r}; keys() lists what it has.")


# --------------------------------------------------------------------------------------------- tensors and their bytes


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor, as bytes that can be read and written; any dtype, 0-dim included."""
    bytes_: Any = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return memoryview(bytes_)


def takes_bytes(out: Tensor, dtype: torch.dtype) -> bool:
    """Whether a file's bytes of `dtype` can go straight into the memory of `out`."""
    return (
        out.device.type == "cpu"
        and out.dtype == dtype
        and out.is_contiguous()
        and not (out.is_conj() or out.is_neg())  # such a view's memory holds other values than it shows
    )


def copy_into(out: Tensor, value: Tensor) -> None:
    """`out.copy_(value)`, also for parameters, and for tensors made in inference mode from a thread outside it."""
    if out.is_meta:
        raise CheckpointError("A tensor on the meta device has no memory to read into; use to_empty() first.")
    with torch.inference_mode(out.is_inference()):
        out.detach().copy_(value)


# ------------------------------------------------------------------------------ files whose tensors have a known place


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a file: its first element at byte `begin`; `stride` None means contiguous."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    stride: tuple[int, ...] | None = None

    @property
    def span(self) -> int:
        """How many elements lie between the first and the last, both included."""
        if 0 in self.shape:
            return 0
        if self.stride is None:
            return math.prod(self.shape)
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))


class PlacedFile(Checkpoint):
    """A file that says where each tensor's bytes are, so that they are read straight into the tensor's memory, or are
    that memory.

    No temporary: the peak is the tensors themselves. Bytes are little-endian, as the formats have them. Safe to read
    from several threads.
    """

    def __init__(self, path: Path, places: dict[str, Place], metadata: dict[str, str]) -> None:
        self.path, self.metadata = path, metadata
        self._places = places
        if sys.byteorder != "little":
            raise CheckpointError(f"{path} is little-endian and this machine is not; read it on another machine.")
        try:
            self._file = path.open("rb", buffering=0)
            self._size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise CheckpointError(f"{path} cannot be opened: {error.strerror}.") from error
        self._seeking = threading.Lock()
        self._storage: torch.UntypedStorage | None = None

    def keys(self) -> list[str]:
        return list(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def shape(self, key: str) -> tuple[int, ...]:
        return self._place(key).shape

    def dtype(self, key: str) -> torch.dtype:
        return self._place(key).dtype

    def read(self, key: str, out: Tensor) -> None:
        place = self._place(key)
        if tuple(out.shape) != place.shape:
            raise CheckpointError(f"{self.path}: {key!r} is {place.shape} and cannot fill {tuple(out.shape)}.")
        if place.stride is None and takes_bytes(out, place.dtype):
            self._fill(key, place, out)
        else:
            flat = torch.empty(place.span, dtype=place.dtype)
            self._fill(key, place, flat)
            copy_into(out, flat.view(place.shape) if place.stride is None else self._strided(flat, place))

    def read_many(self, pairs: Iterable[tuple[str, Tensor]]) -> None:
        for key, out in sorted(pairs, key=lambda pair: self._place(pair[0]).begin):
            self.read(key, out)

    def mapped(self, key: str) -> Tensor | None:
        place = self._place(key)
        # Elsewhere a mapped file cannot be replaced, so that nobody could save over the model that is loaded; bool
        # bytes must be looked at; and tensors of old writers may lie askew.
        if os.name != "posix" or place.dtype is torch.bool or place.begin % place.dtype.itemsize or not place.span:
            return None
        if self._storage is None:
            storage = torch.UntypedStorage.from_file(str(self.path), shared=False, nbytes=self._size)
            assert isinstance(storage, torch.UntypedStorage)
            self._storage = storage
        # A part of the storage of its own, so that what is saved or pickled of it is the tensor and not the file.
        part = self._storage[place.begin : place.begin + place.span * place.dtype.itemsize]
        stride = place.stride or torch.empty(place.shape, device="meta").stride()
        return torch.empty(0, dtype=place.dtype).set_(part, 0, place.shape, stride)

    def tensor(self, key: str) -> Tensor:
        place = self._place(key)
        if math.prod(place.shape) * place.dtype.itemsize > self._size:  # an expanded tensor: few bytes, any shape
            raise CheckpointError(f"{self.path} is smaller than its tensor {key!r} of shape {place.shape}; not read.")
        return super().tensor(key)

    def close(self) -> None:
        self._file.close()

    def _place(self, key: str) -> Place:
        try:
            return self._places[key]
        except KeyError:
            raise self._refuse_key(key) from None

    @staticmethod
    def _strided(flat: Tensor, place: Place) -> Tensor:
        assert place.stride is not None
        return flat.as_strided(place.shape, place.stride) if flat.numel() else flat.view(place.shape)

    def _fill(self, key: str, place: Place, out: Tensor) -> None:
        """Read the bytes of `place` into the memory of `out`, a contiguous CPU tensor."""
        if out.numel() == 0:
            return
        target, position = tensor_bytes(out), place.begin
        while target:
            try:
                count = self._read_at(position, target)
            except (OSError, ValueError) as error:  # ValueError: closed
                raise CheckpointError(f"{self.path} failed while {key!r} was read: {error}.") from error
            if count == 0:
                raise CheckpointError(f"{self.path} ends in the middle of {key!r}; {DOWNLOAD_AGAIN}.")
            target, position = target[count:], position + count
        if place.dtype is torch.bool and out.view(torch.uint8).gt(1).any():
            raise CheckpointError(f"{self.path}: {key!r} should be true or false but is neither; {DOWNLOAD_AGAIN}.")

    def _read_at(self, position: int, target: memoryview) -> int:
        if hasattr(os, "preadv"):  # no file position, so threads do not meet
            return os.preadv(self._file.fileno(), [target], position)
        with self._seeking:
            self._file.seek(position)
            return self._file.readinto(target) or 0


def bytes_of(tensors: Sequence[Tensor]) -> int:
    """The bytes that these tensors' elements take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
