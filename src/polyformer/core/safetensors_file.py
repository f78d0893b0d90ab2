"""The safetensors format, read and written without a second copy of the weights.

Layout (https://github.com/huggingface/safetensors#format): 8 bytes with the header's length N, little-endian; N bytes
of JSON, `{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}`, padded with spaces;
then the tensors, without gaps or overlaps, up to the end of the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from .errors import CheckpointError
from .files import DOWNLOAD_AGAIN, readable_size, refuse
from .weightfile import Place, PlacedFile, tensor_bytes

LONGEST_HEADER = 100_000_000  # bytes: the limit of the safetensors library
METADATA = "__metadata__"
_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
# An older torch lacks a few of them.
DTYPES: dict[str, torch.dtype] = {code: getattr(torch, name) for code, name in _NAMES.items() if hasattr(torch, name)}
_CODES = {dtype: code for code, dtype in DTYPES.items()}


class SafetensorsFile(PlacedFile):
    """A `.safetensors` file, checked on opening: header, offsets and file size. The data itself has no checksum."""

    def __init__(self, path: Path) -> None:
        places, metadata = read_header(path)
        try:  # a second opinion, by the format's own library: it maps the file and reads the header only
            with safetensors.safe_open(path, framework="pt"):
                pass
        except (safetensors.SafetensorError, OSError) as error:
            refuse(path, "safetensors", f"is not a valid safetensors file ({error}); {DOWNLOAD_AGAIN}", error)
        super().__init__(path, places, metadata)


# ------------------------------------------------------------------------------------------------------- reading


def read_header(path: Path) -> tuple[dict[str, Place], dict[str, str]]:
    """The tensors' places and the metadata of a safetensors file, every rule of the format checked.

    Errors: CheckpointError naming the file and what is wrong with it.
    """
    size = readable_size(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LONGEST_HEADER or 8 + length > size:
                reason = f"has {size} bytes, too few for its header of {length}: it is truncated or damaged"
                refuse(path, "safetensors", f"{reason}; {DOWNLOAD_AGAIN}")
            text = file.read(length)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        header = _parse(text)
        metadata = _metadata(header.pop(METADATA, {}))
        places = {key: _place(key, entry, 8 + length) for key, entry in header.items()}
        _check_layout(places, 8 + length, size)
    except (ValueError, RecursionError) as error:
        refuse(path, "safetensors", f"has a damaged header ({error}); {DOWNLOAD_AGAIN}", error)
    return dict(sorted(places.items(), key=lambda item: item[1].begin)), metadata


def _parse(text: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name occurs twice")
        return found

    header = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    if not isinstance(header, dict):
        raise ValueError("it is not a JSON object")
    return header


def _metadata(found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError(f"its {METADATA} is not a table of texts")
    return found


def _place(key: str, entry: Any, start: int) -> Place:
    """One tensor's entry of the header, checked; `start` is where the data begins in the file."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"{key!r} lacks dtype, shape or data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise ValueError(f"{key!r} has the dtype {code!r}, which this version of torch does not know")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        raise ValueError(f"{key!r} has the shape {shape!r} at the offsets {offsets!r}")
    dtype, (begin, end) = DTYPES[code], offsets
    if end - begin != math.prod(shape) * dtype.itemsize or math.prod(size or 1 for size in shape) >= 1 << 60:
        raise ValueError(f"{key!r} of shape {shape} and dtype {code} does not fit its offsets {begin} to {end}")
    return Place(dtype, tuple(shape), start + begin)


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_layout(places: Mapping[str, Place], start: int, size: int) -> None:
    """The tensors must follow each other without gaps and overlaps and end where the file ends."""
    position = start
    for key, place in sorted(places.items(), key=lambda item: (item[1].begin, item[1].span)):
        if place.begin != position:
            raise ValueError(f"{key!r} {'overlaps' if place.begin < position else 'leaves a gap after'} its neighbour")
        position += place.span * place.dtype.itemsize
    if position > size:
        raise ValueError(f"the file is truncated: it should have {position} bytes and has {size}")
    if position < size:
        raise ValueError(f"{size - position} bytes follow the last tensor")


# ------------------------------------------------------------------------------------------------------- writing


def check_writable(key: str, tensor: Tensor) -> None:
    """Raise CheckpointError for a tensor that a safetensors file cannot hold."""
    if tensor.dtype not in _CODES:
        raise CheckpointError(f"{key!r} has the dtype {tensor.dtype}, which safetensors lacks; use safe=False.")
    if key == METADATA:
        raise CheckpointError(f"A tensor cannot be called {METADATA!r} in a safetensors file; rename it.")


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a new safetensors file, one tensor after the other, so that at most one is copied at a time.

    Tensors may be on any device and have any strides; those that share memory are each written in full. Wide dtypes
    come first, so that every tensor is aligned for readers that map the file.
    Errors: OSError as the file system raises it; FileExistsError when `path` exists.
    """
    ordered = sorted(tensors, key=lambda key: (-tensors[key].element_size(), key))
    with path.open("xb") as file:
        file.write(_header(ordered, tensors, metadata))
        for key in ordered:
            if tensors[key].numel():
                file.write(tensor_bytes(_plain(tensors[key])))


def _header(ordered: list[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    table: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    position = 0
    for key in ordered:
        tensor = tensors[key]
        end = position + tensor.numel() * tensor.element_size()
        table[key] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _plain(tensor: Tensor) -> Tensor:
    """The tensor's values in contiguous CPU memory: itself if they are there already."""
    return tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
