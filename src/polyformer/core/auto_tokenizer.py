"""`AutoTokenizer`: what was saved beside a checkpoint says which tokenizer it has."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyformer.core.config import CONFIG_NAME, Config
from polyformer.core.errors import CheckpointError
from polyformer.core.registry import TOKENIZERS, tokenizer_class

_WHERE = ("revision", "cache_dir", "token", "local_files_only", "force_download", "subfolder")
# Names under which transformers saves a tokenizer that is its tokenizer.json and nothing more.
_GENERIC = {"PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend"}
# The part of a composite model whose tokenizer is the whole's.
_READS = {"encoder-decoder": "encoder", "mmbt": "text_config"}


class AutoTokenizer:
    """Loads the tokenizer that belongs to a checkpoint."""

    def __init__(self) -> None:
        raise TypeError("AutoTokenizer is not made but loaded: AutoTokenizer.from_pretrained(...).")

    @staticmethod
    def from_pretrained(
        name_or_path: str | os.PathLike[str], *, config: Config | Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """The tokenizer in a folder or on the hub.

        Its class is the one that tokenizer_config.json names, else the one that config.json names, else the one of
        config.json's model_type; a tokenizer.json that nothing else speaks of opens as a PreTrainedTokenizer. Where the
        class named is a more general one than the model's own (5.x saves DistilBERT's as BertTokenizer), a call still
        returns the columns that the model takes.

        config: the model's configuration, where it does not lie in the same place.
        options: as of PreTrainedTokenizer.from_pretrained. Raises CheckpointError where nothing tells the class.
        """
        saved = _read(name_or_path, "tokenizer_config.json", options)
        model = read_model_config(name_or_path, options) if config is None else _as_mapping(config)
        while part := _READS.get(model.get("model_type", "")):
            model = model.get(part) or {}
        kind = model.get("model_type")
        own = tokenizer_class(kind) if kind in TOKENIZERS else None
        name = saved.get("tokenizer_class") or model.get("tokenizer_class")
        found = own if name is None else _named(name)
        if found is None:
            if _find(name_or_path, "tokenizer.json", options) is None:
                raise CheckpointError(_no_class(name_or_path, name, kind))
            found = _named("PreTrainedTokenizerFast")
        if own is not None and issubclass(own, found) and found is not own and "model_input_names" not in saved:
            options.setdefault("model_input_names", list(own.model_input_names))
        return found.from_pretrained(name_or_path, **options)


def read_model_config(name_or_path: str | os.PathLike[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a checkpoint, unchecked, empty if there is none; `options` may say where it lies."""
    return _read(name_or_path, CONFIG_NAME, options)


def _as_mapping(config: Config | Mapping[str, Any]) -> Mapping[str, Any]:
    return config if isinstance(config, Mapping) else config.to_dict()


def _named(name: Any) -> Any:
    """The tokenizer class of this name, with or without Fast; None if there is none here."""
    import polyformer

    short = str(name).removesuffix("Fast")
    if name in _GENERIC:
        short = "PreTrainedTokenizer"
    return getattr(polyformer, short, None) if short.endswith("Tokenizer") and short != "AutoTokenizer" else None


def _find(name_or_path: str | os.PathLike[str], file: str, options: Mapping[str, Any]) -> Path | None:
    from polyformer.core.hub import cached_file

    where = {name: value for name, value in options.items() if name in _WHERE}
    return cached_file(name_or_path, file, required=False, **where)


def _read(name_or_path: str | os.PathLike[str], file: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The object in a JSON file of the checkpoint, empty if there is no such file."""
    from polyformer.tokenizers.files import read_json

    path = _find(name_or_path, file, options)
    return {} if path is None else read_json(path)


def _no_class(place: Any, name: Any, kind: Any) -> str:
    remedy = "open it by its class, such as BertTokenizer.from_pretrained(...)"
    if name is not None:
        return (
            f"{place} was saved by {name}, which this library does not have, and holds no tokenizer.json to open "
            f"without it: save it with a fast tokenizer of transformers first, or, if its vocabulary is of a known "
            f"kind, {remedy}."
        )
    if kind is not None:
        return (
            f"{place} is a checkpoint of model_type {kind!r}, which no tokenizer of this library belongs to, and holds "
            f"no tokenizer.json: {remedy}; there are tokenizers of {', '.join(TOKENIZERS)}."
        )
    return (
        f"Nothing in {place} tells which tokenizer it has: there is no tokenizer_class in a tokenizer_config.json, no "
        f"model_type in a config.json and no tokenizer.json; {remedy}."
    )
