"""The table of architectures: one line each. Nothing here imports a model until it is asked for."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from polyformer.core.errors import ConfigError

# A task and the ending of its class name, for architectures that follow the rule.
TASKS = {
    "base": "Model",
    "pretraining": "ForPreTraining",
    "causal-lm": "ForCausalLM",
    "masked-lm": "ForMaskedLM",
    "next-sentence": "ForNextSentencePrediction",
    "sequence-classification": "ForSequenceClassification",
    "multiple-choice": "ForMultipleChoice",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
}


@dataclass(frozen=True)
class Architecture:
    """Where an architecture lives and what its classes are called.

    module: in polyformer.models.
    name: what its class names begin with.
    tokenizer: module in polyformer.tokenizers and class.
    exceptions: task -> class name, where the rule of TASKS does not hold.
    """

    module: str
    name: str
    tokenizer: tuple[str, str]
    exceptions: tuple[tuple[str, str], ...] = ()

    def class_name(self, task: str) -> str:
        return dict(self.exceptions).get(task, self.name + TASKS[task])

    def find(self, class_name: str) -> Any | None:
        return getattr(import_module(f"polyformer.models.{self.module}"), class_name, None)


ARCHITECTURES = {
    "bert": Architecture("bert", "Bert", ("bert", "BertTokenizer"), (("causal-lm", "BertLMHeadModel"),)),
}


def architecture(model_type: str | None) -> Architecture:
    """The architecture of a config.json's model_type."""
    if model_type in ARCHITECTURES:
        return ARCHITECTURES[model_type]
    known = ", ".join(ARCHITECTURES)
    if model_type is None:
        raise ConfigError(
            f"config.json has no model_type, so its architecture is unknown: add one ({known}), or use its own class."
        )
    raise ConfigError(f"model_type {model_type!r} is not an architecture of this library, which has {known}.")


def task_class(model_type: str | None, task: str) -> Any:
    """The class of an architecture for a task."""
    found = architecture(model_type)
    made = found.find(found.class_name(task))
    if made is None:
        has = [name for name in TASKS if found.find(found.class_name(name)) is not None]
        raise ConfigError(f"{found.name} has no class for {task}; it has {', '.join(has)}.")
    return made


def tokenizer_class(model_type: str | None) -> Any:
    """The tokenizer class of an architecture."""
    module, name = architecture(model_type).tokenizer
    return getattr(import_module(f"polyformer.tokenizers.{module}"), name)
