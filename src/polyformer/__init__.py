"""polyformer: the classic transformer zoo on PyTorch, in Hugging Face's checkpoint format.

Importing this package loads neither torch nor tokenizers: a name is imported from its module when it is first asked
for (PEP 562). One line of `_NAMES` below is one module and what it offers.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

_NAMES = {
    "core.config": "Config PretrainedConfig",
    "core.outputs": "ModelOutput",
    "core.pretrained": "PreTrainedModel",
    "core.report": "LoadReport",
    "core.auto": "AutoConfig AutoModel AutoModelForPreTraining AutoModelForCausalLM AutoModelForMaskedLM "
    "AutoModelForNextSentencePrediction AutoModelForSequenceClassification AutoModelForMultipleChoice "
    "AutoModelForTokenClassification AutoModelForQuestionAnswering AutoTokenizer",
    "core.errors": "CheckpointError ConfigError",
    "models.bert": "BertConfig BertPreTrained BertModel BertForPreTraining BertLMHeadModel BertForMaskedLM "
    "BertForNextSentencePrediction BertForSequenceClassification BertForMultipleChoice BertForTokenClassification "
    "BertForQuestionAnswering",
    "tokenizers.base": "PreTrainedTokenizer BatchEncoding",
    "tokenizers.bert": "BertTokenizer",
    "generation": "GenerationConfig",
    "parts.pooling": "AveragePooler",
    "pipelines": "pipeline Pipeline SentenceEncoder",
}
_ALIASES = {  # another name for the same class
    "PreTrainedTokenizerFast": "PreTrainedTokenizer",
    "PreTrainedTokenizerBase": "PreTrainedTokenizer",
    "BertTokenizerFast": "BertTokenizer",
    "BertPreTrainedModel": "BertPreTrained",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted([*_HOME, *_ALIASES])


def __getattr__(name: str) -> Any:
    original = _ALIASES.get(name, name)
    if original not in _HOME:
        raise AttributeError(f"module 'polyformer' has no attribute {name!r}")
    value = getattr(import_module(f"polyformer.{_HOME[original]}"), original)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
