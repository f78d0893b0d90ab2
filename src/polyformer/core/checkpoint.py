"""Checkpoints on disk, in Hugging Face's format: opening, reading straight into place, and saving all or nothing.

Reading: `open_checkpoint(path)` gives a `Checkpoint`, whichever format the file has.
Writing: `save_checkpoint(folder, tensors)`.
Nothing here executes what a file says, and every failure is one CheckpointError with its remedy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .atomic import AtomicFiles, explain
from .errors import CheckpointError
from .files import INDEX_SUFFIX, SAFETENSORS, TORCH, index_text, is_weight_file, refuse_escape, shard_name
from .safetensors_file import SafetensorsFile, check_writable, write_safetensors
from .sharded import Sharded
from .torch_file import ResidentTorchFile, TorchFile, open_torch, storage_groups, stored_bytes, write_torch
from .weightfile import Checkpoint

__all__ = [
    "Checkpoint",
    "ResidentTorchFile",
    "SafetensorsFile",
    "Sharded",
    "TorchFile",
    "open_checkpoint",
    "save_checkpoint",
]


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a `.safetensors` file, a `.bin` / `.pt` / `.pth` / `.ckpt` file of `torch.save`, or an `.index.json` of
    either, its shards beside it. Close it after use, or use it in a `with`.

    Errors: CheckpointError when the file is missing, truncated, damaged, something else, or wants to run code.
    """
    path = Path(path)
    try:
        if path.name.endswith(INDEX_SUFFIX):
            return Sharded(path, _open_file)
        return _open_file(path)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def _open_file(path: Path) -> Checkpoint:
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt"):
        return open_torch(path)
    raise CheckpointError(f"{path} has no known ending; weights end in .safetensors, .bin, .pt or {INDEX_SUFFIX}.")


# -------------------------------------------------------------------------------------------------------- saving


def save_checkpoint(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    safe: bool = True,
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] = {"format": "pt"},
    extra_files: Mapping[str, bytes | str] = {},
) -> list[Path]:
    """Save tensors and `extra_files` (name -> content, such as config.json) in a folder, all or nothing.

    Writes `model.safetensors`, or `pytorch_model.bin` with safe=False, or shards of at most `max_shard_size` (bytes,
    or a text such as "500MB" or "2GiB") with their index; a single larger tensor has a shard of its own. Weights of an
    earlier save that the new ones replace, in either format, are removed at the end. Any failure before that leaves
    the folder as it was. `metadata` goes into safetensors files; transformers asks for its "format". With safe=True
    tensors that share memory are each written in full: drop tied names first.
    Memory: about one tensor above the weights; with safe=False, one shard for tensors on a GPU.

    Returns the paths of the files written: weights, index, extra files.
    Errors: CheckpointError for a full disk, a folder that cannot be written, or a tensor that cannot be saved;
    ValueError for a `max_shard_size` that is no size.
    """
    folder = Path(folder)
    _check_tensors(tensors, safe)
    _check_names(extra_files)
    shards = _plan(tensors, safe, _size(max_shard_size))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with AtomicFiles(folder) as files:
            written = [*_write_weights(files, shards, metadata, safe), *_write_extra(files, extra_files)]
            stale = [path.name for path in folder.iterdir() if is_weight_file(path.name) and path.name not in written]
            # Shards replace shards of the same name one by one: with no index between, a crash cannot mix old and new.
            mixing = len(shards) > 1 and any((folder / shard.name).exists() for shard in shards)
            files.commit(withdraw=[SAFETENSORS + INDEX_SUFFIX, TORCH + INDEX_SUFFIX] if mixing else [], remove=stale)
    except CheckpointError:
        raise
    except OSError as error:
        raise explain(folder, error) from error
    return [folder / name for name in written]


@dataclass(frozen=True)
class _Shard:
    name: str
    tensors: dict[str, Tensor]


def _plan(tensors: Mapping[str, Tensor], safe: bool, most: int) -> list[_Shard]:
    """Share the tensors out, in their order, over files of at most `most` bytes; names that share memory together
    where the format keeps that."""
    groups = [[key] for key in tensors] if safe else storage_groups(tensors)
    parts: list[dict[str, Tensor]] = [{}]
    filled = 0
    for group in groups:
        members = {key: tensors[key] for key in group}
        size = _bytes(members) if safe else stored_bytes(list(members.values()))
        if parts[-1] and filled + size > most:
            parts.append({})
            filled = 0
        parts[-1].update(members)
        filled += size
    whole = SAFETENSORS if safe else TORCH
    if len(parts) == 1:
        return [_Shard(whole, parts[0])]
    return [_Shard(shard_name(whole, number, len(parts)), part) for number, part in enumerate(parts, 1)]


def _write_weights(files: AtomicFiles, shards: list[_Shard], metadata: Mapping[str, str], safe: bool) -> Iterator[str]:
    for shard in shards:
        path = files.path_for(shard.name)
        if safe:
            write_safetensors(path, shard.tensors, metadata)
        else:
            write_torch(path, shard.tensors)
        yield shard.name
    if len(shards) > 1:
        weight_map = {key: shard.name for shard in shards for key in shard.tensors}
        total = sum(_bytes(shard.tensors) for shard in shards)
        index = (SAFETENSORS if safe else TORCH) + INDEX_SUFFIX
        files.path_for(index).write_text(index_text(weight_map, total), encoding="utf-8")
        yield index


def _write_extra(files: AtomicFiles, extra_files: Mapping[str, bytes | str]) -> Iterator[str]:
    for name, content in extra_files.items():
        files.path_for(name).write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        yield name


def _check_tensors(tensors: Mapping[str, Tensor], safe: bool) -> None:
    for key, tensor in tensors.items():
        if tensor.is_meta:
            raise CheckpointError(f"{key!r} is on the meta device and has no values to save; load or initialise it.")
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise CheckpointError(f"{key!r} is sparse or quantized, which a checkpoint cannot hold; make it dense.")
        if safe:
            check_writable(key, tensor)


def _check_names(extra_files: Mapping[str, bytes | str]) -> None:
    for name in extra_files:
        refuse_escape(name)
        if is_weight_file(name):
            raise CheckpointError(f"{name!r} is a name for weights and cannot be an extra file; choose another.")


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


_UNITS = {"B": 1} | {
    f"{prefix}{kind}": base**power
    for power, prefix in enumerate("KMGT", 1)
    for kind, base in (("B", 1000), ("IB", 1024))
}


def _size(text: int | str) -> int:
    """A size in bytes from a number or from a text such as "5GB" (10^9) or "2GiB" (2^30)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B)\s*", str(text).upper()) if isinstance(text, str) else None
    size = int(float(match[1]) * _UNITS[match[2]]) if match else text
    if not isinstance(size, int) or size <= 0:
        raise ValueError(f"{text!r} is not a size; give a number of bytes or a text such as '500MB' or '2GiB'.")
    return size
