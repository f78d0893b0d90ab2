"""How values cross between a test and the worker: JSON for the structure, a safetensors file for the tensors.

Both sides import this file, so it needs torch and safetensors only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

KIND = "$"  # marks a JSON object that stands for something else than a plain value


@dataclass(frozen=True)
class Carry:
    """An argument taken from the previous call's output: ``Carry("past_key_values")``."""

    name: str


def pack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """value -> JSON, its tensors put aside under running numbers."""
    if isinstance(value, torch.Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu()
        return {KIND: "tensor", "key": key}
    if isinstance(value, Carry):
        return {KIND: "carry", "name": value.name}
    if isinstance(value, torch.dtype):
        return {KIND: "dtype", "name": str(value).removeprefix("torch.")}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return {KIND: "tuple", "items": [pack(v, tensors) for v in value]}
    if isinstance(value, list):
        return [pack(v, tensors) for v in value]
    if isinstance(value, dict):  # as pairs: JSON would turn keys into strings
        return {KIND: "dict", "items": [[pack(k, tensors), pack(v, tensors)] for k, v in value.items()]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be sent to the reference")


def unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The inverse of pack."""
    if isinstance(value, list):
        return [unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    kind = value[KIND]
    if kind == "tensor":
        return tensors[value["key"]]
    if kind == "carry":
        return Carry(value["name"])
    if kind == "dtype":
        return getattr(torch, value["name"])
    if kind == "tuple":
        return tuple(unpack(v, tensors) for v in value["items"])
    return {unpack(k, tensors): unpack(v, tensors) for k, v in value["items"]}


def write(value: Any, file: Path) -> Any:
    """Pack the value, its tensors into the file; the JSON."""
    tensors: dict[str, torch.Tensor] = {}
    packed = pack(value, tensors)
    # safetensors refuses storage that two tensors share, so every one goes as a copy of its own
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, file)
    return packed


def read(packed: Any, file: Path) -> Any:
    """Unpack the JSON with the tensors of the file, and remove the file."""
    tensors = load_file(file)
    file.unlink()
    return unpack(packed, tensors)
