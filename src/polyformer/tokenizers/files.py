"""The files of a saved tokenizer: found, read, and merged into one set of options, whatever version wrote them."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from polyformer.core.errors import CheckpointError
from polyformer.core.files import foreign_content, listing
from polyformer.tokenizers import special

CONFIG, SPECIALS, ADDED, FAST = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
)

# Entries of tokenizer_config.json that say where a file came from, or that are arguments of a call and no state.
_DROPPED = {
    "tokenizer_class", "name_or_path", "special_tokens_map_file", "tokenizer_file", "backend", "is_local", "auto_map",
    "max_length", "stride", "truncation_strategy", "pad_to_multiple_of", "vocab_file", "merges_file", "processor_class",
}  # fmt: skip


@dataclass
class Saved:
    """What the folder of a tokenizer holds: options of the constructor, vocabulary files, tokens added later."""

    options: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    added: dict[int, AddedToken] = field(default_factory=dict)


def read(
    name_or_path: str | os.PathLike[str], names: Mapping[str, str], hub: Mapping[str, Any], any_file: bool = False
) -> Saved:
    """Everything saved in this folder or repository; `names` maps arguments of the constructor to their files.

    any_file: one of them is enough; else all are needed, or a tokenizer.json. A path to one file is that vocabulary
    file alone. Raises CheckpointError if there is no vocabulary.
    """
    from polyformer.core.hub import cached_file

    path = Path(name_or_path)
    if path.is_file():
        like = [kind for kind, name in names.items() if Path(name).suffix == path.suffix]
        return Saved(files={[*like, *names][0]: str(path)})

    def find(name: str) -> Path | None:
        return cached_file(name_or_path, name, required=False, **hub)

    files = {kind: str(file) for kind, name in names.items() if (file := find(name))}
    needed = 1 if any_file else max(1, len(names.keys() - {"tokenizer_file"}))
    if "tokenizer_file" not in files and len(files) < needed:
        raise CheckpointError(_nothing_at(name_or_path, names, hub.get("subfolder", ""), "or" if any_file else "and"))
    config, specials, added = (read_json(file) if (file := find(name)) else {} for name in (CONFIG, SPECIALS, ADDED))
    return Saved(_options(config, specials), files, _added(config, added, specials))


def _nothing_at(name: Any, names: Mapping[str, str], subfolder: str, conjunction: str) -> str:
    wanted = f" {conjunction} ".join(file for kind, file in names.items() if kind != "tokenizer_file")
    wanted = f"{wanted} (or {FAST})" if wanted and "tokenizer_file" in names else wanted or FAST
    folder = Path(name) / subfolder
    if not folder.is_dir():
        return f"{name!r} has no tokenizer: it needs {wanted}; check the name, or save a tokenizer there first."
    held = sorted(p.name for p in folder.iterdir())
    has = f"but has only {listing(held)}" if held else "but is empty"
    return f"The folder {folder} has no tokenizer: it needs {wanted}, {has}; check the path, or add the file."


def _options(config: dict[str, Any], specials: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the constructor out of tokenizer_config.json and special_tokens_map.json (which wins)."""
    tokens = {*special.NAMES, special.EXTRA}
    options = {k: special.from_json(v) if k in tokens else v for k, v in config.items() if k not in _DROPPED}
    options |= {k: special.from_json(v) for k, v in specials.items() if k in tokens and v is not None}
    options.pop("added_tokens_decoder", None)
    extra = options.pop("extra_special_tokens", None) or []  # what transformers 5 calls them
    if extra and not options.get(special.EXTRA):
        options[special.EXTRA] = special.from_json(list(extra.values()) if isinstance(extra, dict) else extra)
    return options


def _added(config: dict[str, Any], added: dict[str, int], specials: dict[str, Any]) -> dict[int, AddedToken]:
    """Tokens beside the vocabulary, by id: from added_tokens_decoder (new files) and added_tokens.json (old ones)."""
    decoder: dict[str, Any] = config.get("added_tokens_decoder") or {}
    tokens: dict[int, AddedToken] = {int(i): special.from_json(token) for i, token in decoder.items()}
    named = {str(special.from_json(t)) for v in specials.values() for t in (v if isinstance(v, list) else [v])}
    for text, i in added.items():
        tokens.setdefault(i, special.as_special(text) if text in named else AddedToken(text))
    return dict(sorted(tokens.items()))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; CheckpointError if it holds anything else."""
    value = parse_json(path)
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} holds a JSON {type(value).__name__} where an object was expected; save it again."
        )
    return value


def parse_json(path: Path) -> Any:
    """Any JSON from a file; CheckpointError, saying what the file is instead if that can be seen, if it is none."""
    try:
        return json.loads(path.read_bytes().decode())
    except (ValueError, RecursionError) as e:
        what = foreign_content(path, "json") or f"is not valid JSON ({e}); download or save it again"
        raise CheckpointError(f"{path} {what}.") from e
    except OSError as e:
        raise CheckpointError(f"{path} cannot be read ({e.strerror}); check the path.") from e


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """The text of a vocabulary file, a `what`, line ends as they are; CheckpointError if it is none."""
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except FileNotFoundError as e:
        raise CheckpointError(f"There is no vocabulary file {path}: check the path.") from e
    except OSError as e:
        raise CheckpointError(
            f"{path} cannot be read as a {what} ({e.strerror}): use from_pretrained for a folder."
        ) from e
    except UnicodeDecodeError as e:
        raise CheckpointError(f"{path} is not UTF-8 text ({e}): it is no {what}, or was damaged on the way.") from e
    if not text or text.isspace():
        raise CheckpointError(f"{path} is empty, which a {what} never is: download or save it again.")
    return text


def to_text(value: Any) -> str:
    """JSON as it is written here."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
