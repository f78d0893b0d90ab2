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
    "image-text-classification": "ForClassification",
    "seq2seq-lm": "ForConditionalGeneration",
}


@dataclass(frozen=True)
class Architecture:
    """Where an architecture lives and what its classes are called.

    module: in polyformer.models.
    name: what its class names begin with.
    exceptions: task -> class name, where the rule of TASKS does not hold.
    """

    module: str
    name: str
    exceptions: tuple[tuple[str, str], ...] = ()

    def class_name(self, task: str) -> str:
        return dict(self.exceptions).get(task, self.name + TASKS[task])

    def find(self, class_name: str) -> Any | None:
        return getattr(import_module(f"polyformer.models.{self.module}"), class_name, None)


def _in_place(name: str) -> tuple[tuple[str, str], ...]:
    """XLM's kin: one class for all that words are scored for, and answers in two ways."""
    words = ("pretraining", "causal-lm", "masked-lm")
    return *((task, f"{name}WithLMHeadModel") for task in words), (
        "question-answering",
        f"{name}ForQuestionAnsweringSimple",
    )


def _fills(name: str) -> tuple[tuple[str, str], ...]:
    """BART's kin, pretrained by writing a damaged source anew, its gaps filled."""
    return tuple((task, f"{name}ForConditionalGeneration") for task in ("pretraining", "masked-lm"))


ARCHITECTURES = {
    "bert": Architecture("bert", "Bert", (("causal-lm", "BertLMHeadModel"),)),
    "roberta": Architecture("roberta", "Roberta", (("pretraining", "RobertaForMaskedLM"),)),
    "xlm-roberta": Architecture("xlm_roberta", "XLMRoberta", (("pretraining", "XLMRobertaForMaskedLM"),)),
    "camembert": Architecture("camembert", "Camembert", (("pretraining", "CamembertForMaskedLM"),)),
    "distilbert": Architecture("distilbert", "DistilBert", (("pretraining", "DistilBertForMaskedLM"),)),
    "electra": Architecture("electra", "Electra"),
    "albert": Architecture("albert", "Albert"),
    "convbert": Architecture("convbert", "ConvBert"),
    "funnel": Architecture("funnel", "Funnel"),
    "dpr": Architecture("dpr", "DPR", (("base", "DPRQuestionEncoder"),)),
    "longformer": Architecture("longformer", "Longformer", (("pretraining", "LongformerForMaskedLM"),)),
    "xlm": Architecture("xlm", "XLM", _in_place("XLM")),
    "flaubert": Architecture("flaubert", "Flaubert", _in_place("Flaubert")),
    "openai-gpt": Architecture(
        "openai_gpt", "OpenAIGPT", (("pretraining", "OpenAIGPTLMHeadModel"), ("causal-lm", "OpenAIGPTLMHeadModel"))
    ),
    "gpt2": Architecture("gpt2", "GPT2", (("pretraining", "GPT2LMHeadModel"), ("causal-lm", "GPT2LMHeadModel"))),
    "ctrl": Architecture("ctrl", "CTRL", (("pretraining", "CTRLLMHeadModel"), ("causal-lm", "CTRLLMHeadModel"))),
    "xlnet": Architecture(
        "xlnet",
        "XLNet",
        (
            ("pretraining", "XLNetLMHeadModel"),
            ("causal-lm", "XLNetLMHeadModel"),
            ("question-answering", "XLNetForQuestionAnsweringSimple"),
        ),
    ),
    "transfo-xl": Architecture(
        "transfo_xl", "TransfoXL", (("pretraining", "TransfoXLLMHeadModel"), ("causal-lm", "TransfoXLLMHeadModel"))
    ),
    "reformer": Architecture(
        "reformer",
        "Reformer",
        (("pretraining", "ReformerModelWithLMHead"), ("causal-lm", "ReformerModelWithLMHead")),
    ),
    "mmbt": Architecture("mmbt", "MMBT"),
    "encoder-decoder": Architecture("encoder_decoder", "EncoderDecoder", (("seq2seq-lm", "EncoderDecoderModel"),)),
    "rag": Architecture("rag", "Rag"),
    "bart": Architecture("bart", "Bart", _fills("Bart")),
    "mbart": Architecture("mbart", "MBart", _fills("MBart")),
    "pegasus": Architecture("pegasus", "Pegasus", (("pretraining", "PegasusForConditionalGeneration"),)),
    "marian": Architecture("marian", "Marian", (("pretraining", "MarianMTModel"), ("seq2seq-lm", "MarianMTModel"))),
    "prophetnet": Architecture("prophetnet", "ProphetNet"),
    "xlm-prophetnet": Architecture("xlm_prophetnet", "XLMProphetNet"),
    "t5": Architecture("t5", "T5", (("pretraining", "T5ForConditionalGeneration"),)),
    "mt5": Architecture("mt5", "MT5", (("pretraining", "MT5ForConditionalGeneration"),)),
}

# model_type -> module in polyformer.tokenizers and class; also of architectures whose models are not here.
TOKENIZERS = {
    "bert": ("bert", "BertTokenizer"),
    "distilbert": ("bert_likes", "DistilBertTokenizer"),
    "retribert": ("bert_likes", "RetriBertTokenizer"),
    "electra": ("bert_likes", "ElectraTokenizer"),
    "convbert": ("bert_likes", "ConvBertTokenizer"),
    "mobilebert": ("bert_likes", "MobileBertTokenizer"),
    "lxmert": ("bert_likes", "LxmertTokenizer"),
    "funnel": ("bert_likes", "FunnelTokenizer"),
    "prophetnet": ("prophetnet", "ProphetNetTokenizer"),
    "dpr": ("dpr", "DPRQuestionEncoderTokenizer"),
    "rag": ("rag", "RagTokenizer"),
    "gpt2": ("gpt2", "GPT2Tokenizer"),
    "roberta": ("roberta", "RobertaTokenizer"),
    "longformer": ("longformer", "LongformerTokenizer"),
    "bart": ("bart", "BartTokenizer"),
    "openai-gpt": ("openai_gpt", "OpenAIGPTTokenizer"),
    "ctrl": ("ctrl", "CTRLTokenizer"),
    "xlm": ("xlm", "XLMTokenizer"),
    "flaubert": ("flaubert", "FlaubertTokenizer"),
    "transfo-xl": ("transfo_xl", "TransfoXLTokenizer"),
    "xlm-roberta": ("xlm_roberta", "XLMRobertaTokenizer"),
    "mbart": ("mbart", "MBartTokenizer"),
    "camembert": ("camembert", "CamembertTokenizer"),
    "xlm-prophetnet": ("xlm_prophetnet", "XLMProphetNetTokenizer"),
    "albert": ("albert", "AlbertTokenizer"),
    "xlnet": ("xlnet", "XLNetTokenizer"),
    "t5": ("t5", "T5Tokenizer"),
    "mt5": ("t5", "MT5Tokenizer"),
    "pegasus": ("pegasus", "PegasusTokenizer"),
    "reformer": ("reformer", "ReformerTokenizer"),
    "marian": ("marian", "MarianTokenizer"),
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
        raise ConfigError(
            f"{found.name} has no class for {task}, only for {', '.join(has)}: choose another model for it."
        )
    return made


def config_class(model_type: str | None) -> Any:
    """The configuration class of an architecture."""
    found = architecture(model_type)
    return found.find(f"{found.name}Config")


def tokenizer_class(model_type: str | None) -> Any:
    """The tokenizer class of a config.json's model_type."""
    if model_type not in TOKENIZERS:
        known = ", ".join(TOKENIZERS)
        raise ConfigError(f"no tokenizer belongs to model_type {model_type!r}; there are tokenizers of {known}.")
    module, name = TOKENIZERS[model_type]
    return getattr(import_module(f"polyformer.tokenizers.{module}"), name)
