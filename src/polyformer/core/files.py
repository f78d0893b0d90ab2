"""A checkpoint's files, seen without torch: their names, the shard index, and what a file is when it is not weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

from .errors import CheckpointError

SAFETENSORS = "model.safetensors"
TORCH = "pytorch_model.bin"
INDEX_SUFFIX = ".index.json"
WEIGHT_FILES = (SAFETENSORS, SAFETENSORS + INDEX_SUFFIX, TORCH, TORCH + INDEX_SUFFIX)  # in the order of preference
FOREIGN_WEIGHTS = {  # weights of other frameworks, which this library does not read
    "tf_model.h5": "TensorFlow",
    "flax_model.msgpack": "Flax",
    "model.ckpt.index": "TensorFlow 1",
    "rust_model.ot": "Rust",
    "model.onnx": "ONNX",
    "openvino_model.bin": "OpenVINO",
}
_SHARD = re.compile(r"(model-\d{5,}-of-\d{5,}\.safetensors|pytorch_model-\d{5,}-of-\d{5,}\.bin)")
DOWNLOAD_AGAIN = "download or copy it again"


def is_weight_file(name: str) -> bool:
    """Whether `name` is one that a saved checkpoint gives to its weights, a shard of them or their index."""
    return name in WEIGHT_FILES or _SHARD.fullmatch(name) is not None


def shard_name(whole: str, number: int, count: int) -> str:
    """`model.safetensors`, 1, 2 -> `model-00001-of-00002.safetensors`, Hugging Face's name for the first of two."""
    stem, dot, suffix = whole.rpartition(".")
    return f"{stem}-{number:05d}-of-{count:05d}{dot}{suffix}"


def refuse_escape(name: str, what: str = "file name") -> None:
    """Raise unless `name` stays inside the folder it is relative to, on every operating system.

    Only the written name is judged: in the hub's cache every file is a link that leaves its folder, rightly so.
    """
    parts = name.replace("\\", "/").split("/")
    windows = PureWindowsPath(name)
    if not name or "\0" in name or ".." in parts or PurePosixPath(name).is_absolute() or windows.drive or windows.root:
        raise CheckpointError(f"The {what} {name!r} points outside its folder and is refused; use a plain file name.")


# ------------------------------------------------------------------------------------- files that are something else


def foreign_content(path: Path, expected: str) -> str | None:
    """What the file is instead of weights or JSON, and the remedy, as the end of a sentence; None if nothing known.

    `expected` is "safetensors", "torch" or "json": what the caller took it for, which it never is told it is.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return None
    for kind, looks_so, sentence in _FOREIGN:
        if kind != expected and looks_so(head):
            return sentence
    return None


def _is_web_page(head: bytes) -> bool:
    return head.lstrip(_BLANK).lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml"))


_BLANK = b"\xef\xbb\xbf \t\r\n"
_FOREIGN: list[tuple[str, Callable[[bytes], bool], str]] = [
    (
        "lfs",
        lambda head: head.startswith(b"version https://git-lfs"),
        "is a git-lfs pointer, not the file itself; run `git lfs pull` in its folder",
    ),
    (
        "html",
        _is_web_page,
        "is a web page saved under this name; download the file itself (its 'resolve' link, not 'blob')",
    ),
    (
        "torch",
        lambda head: head.startswith((b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc")),
        "is a PyTorch file (torch.save); give it a name that ends in .bin",
    ),
    (
        "safetensors",
        lambda head: head[8:10] == b'{"' and head[4:8] == bytes(4),
        "is a safetensors file; give it a name that ends in .safetensors",
    ),
    (
        "hdf5",
        lambda head: head.startswith(b"\x89HDF"),
        "is an HDF5 file (Keras, TensorFlow); convert it to safetensors",
    ),
    ("gguf", lambda head: head.startswith(b"GGUF"), "is a GGUF file; convert it to safetensors"),
    (
        "json",
        lambda head: head.lstrip(_BLANK).startswith((b"{", b"[")) and b"\0" not in head,
        f"is JSON text, perhaps a server's error message or an index; {DOWNLOAD_AGAIN}",
    ),
    (
        "zeros",
        lambda head: head.count(0) == len(head),
        f"is filled with zeros, as an interrupted download leaves it; {DOWNLOAD_AGAIN}",
    ),
]


def refuse(path: Path, expected: str, reason: str, cause: BaseException | None = None) -> NoReturn:
    """Raise the one sentence that says why `path` is not `expected`: what it is instead if known, else `reason`."""
    raise CheckpointError(f"{path} {foreign_content(path, expected) or reason}.") from cause


def readable_size(path: Path) -> int:
    """The size of a file that is there and is a file; CheckpointError otherwise, and for one that is empty."""
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no file {path}; check the path.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened: {error.strerror}.") from error
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file; name the weight file inside it.")
    if size == 0:
        raise CheckpointError(f"{path} is empty; {DOWNLOAD_AGAIN}.")
    return size


# ------------------------------------------------------------------------------------------------- the shard index


@dataclass(frozen=True)
class Index:
    """Which shard holds which tensor: Hugging Face's `*.index.json`."""

    weight_map: dict[str, str]

    @property
    def shards(self) -> list[str]:
        """The shards' file names, each once, sorted."""
        return sorted(set(self.weight_map.values()))


def read_index(path: Path) -> Index:
    """Read and check an index file.

    Errors: CheckpointError when it is missing, not JSON, without a `weight_map` from names to file names, or when a
    shard's name leaves the folder.
    """
    readable_size(path)
    try:
        content: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        refuse(path, "json", f"is not valid JSON ({error}); {DOWNLOAD_AGAIN}", error)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path} has no 'weight_map', so it is not an index of shards; {DOWNLOAD_AGAIN}.")
    for key, shard in weight_map.items():
        if not isinstance(shard, str):
            raise CheckpointError(f"{path} gives {key!r} the shard {shard!r}, which is no file name; {DOWNLOAD_AGAIN}.")
        refuse_escape(shard, f"shard name in {path}")
    return Index(weight_map)


def index_text(weight_map: dict[str, str], total_size: int) -> str:
    """The text of an index file in Hugging Face's layout; `total_size` in bytes."""
    content = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(content, indent=2) + "\n"


def listing(names: list[str], most: int = 8) -> str:
    """`a, b, c and 4 more`: names for an error message, however many there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
