"""The Auto classes: the checkpoint's config.json says which architecture, the Auto class says which task."""

import os
from typing import Any, ClassVar

from polyformer.core.config import Config, read_config
from polyformer.core.registry import config_class, task_class

_WHERE = ("revision", "cache_dir", "token", "local_files_only", "force_download", "subfolder")


class AutoConfig:
    """Reads the configuration of any architecture."""

    def __init__(self) -> None:
        raise TypeError("AutoConfig is not made but loaded: AutoConfig.from_pretrained(...), or .for_model('bert').")

    @staticmethod
    def for_model(model_type: str, **fields: Any) -> Config:
        """A new configuration of this architecture."""
        return config_class(model_type)(**fields)

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str], **options: Any) -> Config:
        """From a folder or the hub; options as of Config.from_pretrained."""
        where = {name: options.pop(name) for name in _WHERE if name in options}
        values = read_config(name_or_path, **where)
        return config_class(values.get("model_type")).from_dict(values, **options)


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


class AutoModelForSeq2SeqLM(_AutoModel):
    """Writes a text that belongs to a source."""

    task = "seq2seq-lm"


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
