"""XLM-RoBERTa: RoBERTa pretrained on texts in a hundred languages (Conneau et al. 2019, arXiv 1911.02116).

RoBERTa's model under another name, with a vocabulary of its own.
"""

from polyformer.core.config import config
from polyformer.models.roberta import (
    RobertaConfig,
    RobertaForCausalLM,
    RobertaForMaskedLM,
    RobertaForMultipleChoice,
    RobertaForQuestionAnswering,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
    RobertaModel,
    RobertaPreTrained,
)


@config("xlm-roberta")
class XLMRobertaConfig(RobertaConfig):
    """RoBERTa's fields; xlm-roberta-base has vocab_size 250002."""


class XLMRobertaPreTrained(RobertaPreTrained):
    """What XLM-RoBERTa's classes share."""

    config_class = XLMRobertaConfig


class XLMRobertaModel(XLMRobertaPreTrained, RobertaModel):
    """The encoder or decoder with a pooler: states of all tokens, one vector a sequence."""


XLMRobertaPreTrained.backbone = XLMRobertaModel


class XLMRobertaForMaskedLM(XLMRobertaPreTrained, RobertaForMaskedLM):
    """Fills in masked words."""


class XLMRobertaForCausalLM(XLMRobertaPreTrained, RobertaForCausalLM):
    """Writes word after word (config.is_decoder=True)."""


class XLMRobertaForSequenceClassification(XLMRobertaPreTrained, RobertaForSequenceClassification):
    """Labels or grades a text or a pair of texts."""


class XLMRobertaForMultipleChoice(XLMRobertaPreTrained, RobertaForMultipleChoice):
    """Picks one of several continuations."""


class XLMRobertaForTokenClassification(XLMRobertaPreTrained, RobertaForTokenClassification):
    """Tags every token."""


class XLMRobertaForQuestionAnswering(XLMRobertaPreTrained, RobertaForQuestionAnswering):
    """Finds the answer to a question in a text."""
