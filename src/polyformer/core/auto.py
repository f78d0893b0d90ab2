"""The Auto classes: the checkpoint's config.json says which architecture, the Auto class says which task."""

import os
from typing import Any, ClassVar

from polyformer.core.config import Config, read_config
from polyformer.core.errors import CheckpointError
from polyformer.core.registry import architecture, task_class, tokenizer_class

_WHERE = ("revision", "cache_dir", "token", "local_files_only", "force_download", "subfolder")


class AutoConfig:
    """Reads the configuration of any architecture."""

    def __init__(self) -> None:
        raise TypeError("AutoConfig is not made but loaded: AutoConfig.from_pretrained(...), or .for_model('bert').")

    @staticmethod
    def for_model(model_type: str, **fields: Any) -> Config:
        """A new configuration of this architecture."""
        found = architecture(model_type)
        made: type[Config] = found.find(f"{found.name}Config")  # type: ignore[assignment]
        return made(**fields)

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str], **options: Any) -> Config:
        """From a folder or the hub; options as of Config.from_pretrained."""
        where = {name: options.pop(name) for name in _WHERE if name in options}
        values = read_config(name_or_path, **where)
        found = architecture(values.get("model_type"))
        made: type[Config] = found.find(f"{found.name}Config")  # type: ignore[assignment]
        return made.from_dict(values, **options)


class _AutoModel:
    """Loads or makes the class of one task for whatever architecture the configuration is of."""

    task: ClassVar[str]

    def __init__(self) -> None:
        name = type(self).__name__
        raise TypeError(f"{name} is not made but loaded: {name}.from_pretrained(...) or {name}.from_config(config).")

    @classmethod
    def from_config(cls, config: Config) -> Any:
        """A new model with weights from the seed."""
        return task_class(config.model_type, cls.task)(config)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], **options: Any) -> Any:
        """From a folder or the hub; options as of PreTrainedModel.from_pretrained."""
        config = options.get("config")
        if config is not None:
            kind = config.model_type
        else:
            kind = read_config(name_or_path, **{k: v for k, v in options.items() if k in _WHERE}).get("model_type")
        return task_class(kind, cls.task).from_pretrained(name_or_path, **options)


class AutoModel(_AutoModel):
    """States of all tokens, no head."""

    task = "base"


class AutoModelForPreTraining(_AutoModel):
    """The heads an architecture was pretrained with."""

    task = "pretraining"


class AutoModelForCausalLM(_AutoModel):
    """Writes text."""

    task = "causal-lm"


class AutoModelForMaskedLM(_AutoModel):
    """Fills in masked words."""

    task = "masked-lm"


class AutoModelForNextSentencePrediction(_AutoModel):
    """Tells whether two segments belong together."""

    task = "next-sentence"


class AutoModelForSequenceClassification(_AutoModel):
    """Labels a text."""

    task = "sequence-classification"


class AutoModelForMultipleChoice(_AutoModel):
    """Picks one of several continuations."""

    task = "multiple-choice"


class AutoModelForTokenClassification(_AutoModel):
    """Tags every token."""

    task = "token-classification"


class AutoModelForQuestionAnswering(_AutoModel):
    """Finds answers in a text."""

    task = "question-answering"


class AutoTokenizer:
    """Loads the tokenizer that belongs to a checkpoint."""

    def __init__(self) -> None:
        raise TypeError("AutoTokenizer is not made but loaded: AutoTokenizer.from_pretrained(...).")

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str], **options: Any) -> Any:
        """From a folder or the hub, by tokenizer_config.json's class or else config.json's architecture."""
        import polyformer

        where = {name: value for name, value in options.items() if name in _WHERE}
        named = _tokenizer_config(name_or_path, where).get("tokenizer_class")
        if named and hasattr(polyformer, named) and named != "PreTrainedTokenizerFast":
            return getattr(polyformer, named).from_pretrained(name_or_path, **options)
        kind = read_config(name_or_path, **where).get("model_type")
        return tokenizer_class(kind).from_pretrained(name_or_path, **options)


def _tokenizer_config(name_or_path: str | os.PathLike[str], where: dict[str, Any]) -> dict[str, Any]:
    import json

    from polyformer.core.hub import cached_file

    path = cached_file(name_or_path, "tokenizer_config.json", required=False, **where)
    if path is None:
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): fetch or write the file again.") from None
    return values if isinstance(values, dict) else {}
