"""Files that `torch.save` wrote, read without executing anything they contain.

A `.bin` file is a pickle, and a pickle can name any function to be called while it is read. Here it is opened by the
unpickler of `torch.load(weights_only=True)`, which knows tensors, numbers, texts and containers and nothing else.

Both layouts keep each storage (the memory of one tensor, or of several) as plain bytes: the zip of PyTorch >= 1.6 as an
uncompressed entry, the older stream of pickles one after the other behind the pickles. So the tensors are first built
without their memory, and their bytes are then read straight into place, as from a safetensors file. Where that is not
possible the file is loaded whole. A zip's checksums are not verified: that would cost more than the reading.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from .errors import CheckpointError
from .files import DOWNLOAD_AGAIN, readable_size, refuse
from .weightfile import Checkpoint, Place, PlacedFile, bytes_of, copy_into

NESTED = ("state_dict", "model")  # where training scripts put the weights, next to the optimizer and the epoch
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_TO_CONVERT = "have someone who trusts it convert it to safetensors"


def open_torch(path: Path) -> Checkpoint:
    """Open a file that `torch.save` wrote: a flat dict of tensors, or one under a "state_dict" or "model" key.

    Errors: CheckpointError when it is truncated, compressed, not such a file, wants to run code, or holds no tensors.
    """
    readable_size(path)
    with path.open("rb") as file:
        head = file.read(4)
    if head == _ZIP:
        return _open_zip(path) or ResidentTorchFile(path)
    if head.startswith(_PICKLE):
        return _open_stream(path) or ResidentTorchFile(path)
    refuse(path, "torch", f"is not a file that torch.save wrote, or its beginning is damaged; {DOWNLOAD_AGAIN}")


class TorchFile(PlacedFile):
    """A `.bin` file whose tensors are read straight from their places."""


@dataclass(frozen=True)
class Storages:
    """Where the storages of a file have their bytes: begin -> size; and whether they are little-endian."""

    sizes: dict[int, int]
    little_endian: bool = True


def _placed(path: Path, tensors: Mapping[str, Tensor], storages: Storages) -> TorchFile | None:
    """The file with its tensors' places, or None where they are not all known.

    tensors: on the meta device; the attribute `_checkpoint_offset` of their storages says where the bytes begin.
    """
    places = {key: _place(tensor, storages) for key, tensor in tensors.items()}
    known = {key: place for key, place in places.items() if place is not None}
    if len(known) < len(places) or not storages.little_endian:
        return None
    return TorchFile(path, known, {})


def _place(tensor: Tensor, storages: Storages) -> Place | None:
    begin = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    if begin is None or tensor.is_conj() or tensor.is_neg():
        return None
    stride = None if tensor.is_contiguous() else tensor.stride()
    first = tensor.storage_offset() * tensor.element_size()
    place = Place(tensor.dtype, tuple(tensor.shape), begin + first, stride)
    if first + place.span * tensor.element_size() > storages.sizes.get(begin, -1):
        return None
    return place


# -------------------------------------------------------------------------------------------------- the zip layout


def _open_zip(path: Path) -> TorchFile | None:
    """The file, checked, with its tensors' places; None where this version of torch does not tell them.

    Loading onto the meta device leaves the offset on each storage ("Serialization semantics" in PyTorch's notes). Each
    must be that of a zip entry.
    """
    storages = check_zip(path)
    return _placed(path, load_tensors(path, "meta"), storages)


def check_zip(path: Path) -> Storages:
    """Look through the zip file's directory before torch does: nothing in it may unpack to more than it takes.

    `torch.save` stores its entries uncompressed; one that is compressed can be made to fill any memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
            packed = [entry.filename for entry in found if entry.compress_type != zipfile.ZIP_STORED]
            total = sum(max(entry.file_size, entry.compress_size) for entry in found)
            if packed or total > path.stat().st_size:
                what = f"compresses {packed[0]!r}" if packed else f"claims to hold {total} bytes, more than it has"
                raise CheckpointError(
                    f"{path} {what}, which torch.save never does: it may be a zip bomb and is not read; {_TO_CONVERT}."
                )
            order = [archive.read(entry) for entry in found if entry.filename.endswith("/byteorder")]
            return Storages(_data_positions(path, found), order in ([], [b"little"]))
    except CheckpointError:
        raise
    except Exception as error:  # zipfile lets struct, value, unicode and other errors through on damaged files
        raise CheckpointError(f"{path} is truncated or damaged ({error}); {DOWNLOAD_AGAIN}.") from error


def _data_positions(path: Path, entries: list[zipfile.ZipInfo]) -> dict[int, int]:
    """begin -> size of each entry's bytes, which follow a local header with two fields of variable length."""
    positions = {}
    with path.open("rb") as file:
        for entry in entries:
            file.seek(entry.header_offset + 26)
            lengths = file.read(4)
            skip = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            positions[entry.header_offset + 30 + skip] = entry.file_size
    return positions


# ------------------------------------------------------------------------------------------------ the older layout

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the stream, and the second
_PROTOCOL = 1001


def _open_stream(path: Path) -> TorchFile | None:
    """A file in the older layout with its tensors' places; None if it is not quite as expected.

    The stream: a magic number, a protocol number, facts about the writer, the content, the order of the storages; then
    each storage as its number of elements (8 bytes) and its bytes. torch.load can only read all of it, so here its
    restricted unpickler is driven directly; whatever it does not like, torch.load is left to say.
    """
    try:
        with path.open("rb") as file:
            content, storages = _parse_stream(file)
    except Exception:
        return None
    return _placed(path, _only_tensors(path, content), storages)


def _parse_stream(file: IO[bytes]) -> tuple[Any, Storages]:
    from torch import _weights_only_unpickler as restricted

    memories: dict[str, tuple[torch.UntypedStorage, int, int]] = {}  # key -> storage, elements, bytes of one

    def storage(saved: tuple[Any, ...]) -> torch.storage.TypedStorage:
        kind, storage_type, key, _device, elements, view = saved
        if kind != "storage" or view is not None:
            raise ValueError("a module or a view of a storage")
        width = storage_type.dtype.itemsize
        if key not in memories:
            memories[key] = torch.UntypedStorage(elements * width, device="meta"), elements, width
        return torch.storage.TypedStorage(wrap_storage=memories[key][0], dtype=storage_type.dtype, _internal=True)

    if restricted.load(file, encoding="utf-8") != _MAGIC or restricted.load(file, encoding="utf-8") != _PROTOCOL:
        raise ValueError("not a file of torch.save")
    if not restricted.load(file, encoding="utf-8")["little_endian"]:
        raise ValueError("from a big-endian machine")
    unpickler = restricted.Unpickler(file, encoding="utf-8")
    unpickler.persistent_load = storage  # type: ignore[method-assign]
    content = unpickler.load()
    sizes = {}
    for key in restricted.load(file, encoding="utf-8"):
        memory, elements, width = memories.pop(key)
        if int.from_bytes(file.read(8), "little") != elements:
            raise ValueError("the sizes differ")
        memory._checkpoint_offset = begin = file.tell()
        sizes[begin] = elements * width
        file.seek(begin + sizes[begin])
    if memories or file.tell() != os.fstat(file.fileno()).st_size:
        raise ValueError("truncated, or something follows")
    return content, Storages(sizes)


# -------------------------------------------------------------------------------------------------- loaded whole


class ResidentTorchFile(Checkpoint):
    """A `.bin` file that is read into memory whole; each tensor leaves it when it is read.

    A tensor that is asked for again makes the file be loaded again, and then kept: right, if slow.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.metadata = path, {}
        self._tensors = load_tensors(path, "cpu")
        self._layout = {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in self._tensors.items()}
        self._keep = False

    def keys(self) -> list[str]:
        return list(self._layout)

    def shape(self, key: str) -> tuple[int, ...]:
        return self._known(key)[0]

    def dtype(self, key: str) -> torch.dtype:
        return self._known(key)[1]

    def read(self, key: str, out: Tensor) -> None:
        shape, _ = self._known(key)
        if tuple(out.shape) != shape:
            raise CheckpointError(f"{self.path}: {key!r} is {shape} and cannot fill {tuple(out.shape)}.")
        copy_into(out, self._take(key))

    def close(self) -> None:
        self._tensors, self._layout = {}, {}

    def _known(self, key: str) -> tuple[tuple[int, ...], torch.dtype]:
        try:
            return self._layout[key]
        except KeyError:
            raise self._refuse_key(key) from None

    def _take(self, key: str) -> Tensor:
        if key not in self._tensors:
            self._tensors, self._keep = load_tensors(self.path, "cpu"), True
        return self._tensors[key] if self._keep else self._tensors.pop(key)


def load_tensors(path: Path, device: str) -> dict[str, Tensor]:
    """The file's tensors by name, through torch's restricted unpickler."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises eight kinds, from EOFError to RuntimeError, for a damaged file
        raise CheckpointError(_why_not(path, error)) from error
    return _only_tensors(path, content)


def _why_not(path: Path, error: Exception) -> str:
    wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
    if wanted is not None:
        return f"{path} wants to run code ({wanted[1]}) and was not executed; {_TO_CONVERT}."
    if "TorchScript" in str(error):
        return f"{path} is a TorchScript program, not a table of weights; save its state_dict() as safetensors."
    told = str(error).partition("WeightsUnpickler error:")[2] or str(error)  # without torch's advice around it
    reason = next(iter(told.strip().splitlines()), type(error).__name__)[:200].rstrip(".")
    return f"{path} is truncated, damaged or not a table of tensors ({reason}); {DOWNLOAD_AGAIN}."


def _only_tensors(path: Path, content: Any) -> dict[str, Tensor]:
    """`content` if it is a flat dict of tensors, else what is nested in it under one of the names of NESTED."""
    if isinstance(content, dict) and not any(isinstance(value, Tensor) for value in content.values()):
        content = next((content[name] for name in NESTED if isinstance(content.get(name), dict)), content)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a table of tensors; save a state_dict().")
    wrong = [key for key, value in content.items() if not isinstance(key, str) or not _is_plain(value)]
    if wrong:
        kind = type(content[wrong[0]]).__name__
        raise CheckpointError(
            f"{path} holds more than plain tensors ({wrong[0]!r} is a {kind}); save only the model's state_dict()."
        )
    return {key: value.detach() for key, value in content.items()}


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized


# -------------------------------------------------------------------------------------------------------- writing


def write_torch(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a new `.bin` file that PyTorch 1.6 and later reads, also with weights_only=True.

    Tensors that share memory are stored once and share it again when loaded. A tensor on another device, or one that
    is a small part of a larger memory, is copied first.
    Errors: OSError as the file system raises it; FileExistsError when `path` exists.
    """
    with path.open("xb") as file:
        try:
            torch.save(_compact(tensors), file)
        except RuntimeError as error:  # torch's zip writer hides the OSError of a full disk
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            raise cause or CheckpointError(f"torch.save could not write {path.parent}: {error}.") from error


def storage_groups(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """The names of the tensors, those that share memory together; in the order of the mapping."""
    groups: dict[tuple[torch.device, int], list[str]] = {}
    for position, (key, tensor) in enumerate(tensors.items()):
        memory = tensor.untyped_storage().data_ptr() or -position  # empty tensors have no memory to share
        groups.setdefault((tensor.device, memory), []).append(key)
    return list(groups.values())


def stored_bytes(group: list[Tensor]) -> int:
    """The bytes that tensors of one memory take in a file: views that coincide are counted once."""
    different = {_view(tensor): tensor for tensor in group}
    return min(bytes_of(list(different.values())), group[0].untyped_storage().nbytes())


def _compact(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, none of them dragging along memory that no tensor here shows."""
    compact: dict[str, Tensor] = {}
    for group in storage_groups(tensors):
        members = [tensors[key].detach() for key in group]
        whole = stored_bytes(members) == members[0].untyped_storage().nbytes()
        copies: dict[Any, Tensor] = {}
        for key, tensor in zip(group, members, strict=True):
            if whole and tensor.device.type == "cpu":
                compact[key] = tensor
            else:
                copy = copies.get(_view(tensor))
                if copy is None:
                    copy = tensor.to("cpu", copy=True).contiguous()
                compact[key] = copies[_view(tensor)] = copy
    return {key: compact[key] for key in tensors}


def _view(tensor: Tensor) -> tuple[Any, ...]:
    """What two tensors of one memory have in common when they show the same numbers."""
    shown = math.prod(tensor.shape) > 0
    return (tensor.data_ptr() if shown else 0, tuple(tensor.shape), tensor.stride(), tensor.dtype)
