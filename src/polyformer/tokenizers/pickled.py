"""Vocabularies that transformers 4.x and the original repository pickled, read without running anything in them.

Of what a pickle may ask for, only containers, texts and numbers are made. Anything else it names becomes an empty
placeholder: no class of it is imported, no function called.
"""

import io
import pickle
import zipfile
from collections import Counter, OrderedDict
from os import PathLike
from pathlib import Path
from typing import Any

from polyformer.core.errors import CheckpointError

_CONTAINERS = {("collections", "OrderedDict"): OrderedDict, ("collections", "Counter"): Counter}
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # the first of the five pickles of a file that torch.save wrote before 1.6


class _Placeholder:
    """Takes whatever a pickle does to an object, and keeps none of it."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def __setstate__(self, _: Any) -> None: ...
    def __setitem__(self, _: Any, __: Any) -> None: ...
    def append(self, _: Any) -> None: ...
    def extend(self, _: Any) -> None: ...
    def add(self, _: Any) -> None: ...


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _CONTAINERS.get((module, name), _Placeholder)

    def persistent_load(self, _: Any) -> Any:
        return _Placeholder()


def read(path: str | PathLike[str]) -> dict[str, Any]:
    """The dict in a vocab.pkl or vocab.bin; CheckpointError if there is none."""
    try:
        data = Path(path).read_bytes()
    except OSError as e:
        raise CheckpointError(f"{path} cannot be read ({e.strerror}); check the path.") from e
    try:
        value = _load(data)
    except Exception as e:  # a damaged pickle may raise anything
        raise CheckpointError(
            f"{path} is not a pickled vocabulary ({e}): download it again, or use a vocab.txt."
        ) from e
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} holds no dict but a {type(value).__name__}: it is no vocabulary that transformers saved."
        )
    return value


def _load(data: bytes) -> Any:
    if data.startswith(b"PK"):  # torch.save since 1.6
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            data = archive.read(name)
    stream = io.BytesIO(data)

    def value() -> Any:
        return _Reader(stream, encoding="utf-8", errors="replace").load()

    first = value()
    if first == _TORCH_MAGIC:
        value(), value()  # its protocol, and the machine that wrote it
        return value()
    return first
