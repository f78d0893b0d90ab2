"""Lists to arrays: `return_tensors`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

KINDS = ("pt", "np")


def to_kind(name: str, value: Any, kind: str) -> Any:
    """A rectangular nested list, array or tensor as a numpy array ("np") or torch tensor ("pt")."""
    if kind == "pt":
        import torch

        if isinstance(value, torch.Tensor):
            return value
        return torch.from_numpy(np.ascontiguousarray(as_array(name, value)))
    return as_array(name, value)


def as_array(name: str, value: Any) -> np.ndarray:
    """A rectangular nested list as an array, int64 where it holds whole numbers; ValueError if it is ragged."""
    if not isinstance(value, (list, tuple)):
        return np.asarray(value)
    ragged = _ragged(name, value)
    if ragged:
        raise ValueError(ragged)
    try:
        array = np.array(value)
    except ValueError as e:
        raise ValueError(f"{name} cannot be made a tensor ({e}): drop it, or leave return_tensors out.") from e
    if array.dtype == object or array.dtype.kind in "US":
        raise ValueError(f"{name} holds values that are not numbers: drop it, or leave return_tensors out.")
    return array.astype(np.int64) if array.size == 0 or array.dtype.kind in "iu" else array


def ragged_message(name: str, shortest: int, longest: int) -> str:
    return (
        f"the rows of {name} have different lengths ({shortest} to {longest}) and cannot be one tensor: pass "
        "padding=True (and truncation=True where a row may be longer than max_length), or leave return_tensors out."
    )


def _ragged(name: str, rows: Any) -> str | None:
    if not any(isinstance(row, (list, tuple)) for row in rows):
        return None
    lengths = {len(row) if isinstance(row, (list, tuple)) else 0 for row in rows}
    return ragged_message(name, min(lengths), max(lengths)) if len(lengths) > 1 else None


def to_lists(value: Any) -> Any:
    """Tensors and arrays, also inside lists and dicts, as plain lists and numbers."""
    if isinstance(value, Mapping):
        return {key: to_lists(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return value if not value or isinstance(value[0], int) else [to_lists(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value
