"""CamemBERT: RoBERTa pretrained on French (Martin et al. 2019, arXiv 1911.03894).

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


@config("camembert")
class CamembertConfig(RobertaConfig):
    """RoBERTa's fields; camembert-base has vocab_size 32005."""


class CamembertPreTrained(RobertaPreTrained):
    """What CamemBERT's classes share."""

    config_class = CamembertConfig


class CamembertModel(CamembertPreTrained, RobertaModel):
    """The encoder or decoder with a pooler: states of all tokens, one vector a sequence."""


CamembertPreTrained.backbone = CamembertModel


class CamembertForMaskedLM(CamembertPreTrained, RobertaForMaskedLM):
    """Fills in masked words."""


class CamembertForCausalLM(CamembertPreTrained, RobertaForCausalLM):
    """Writes word after word (config.is_decoder=True)."""


class CamembertForSequenceClassification(CamembertPreTrained, RobertaForSequenceClassification):
    """Labels or grades a text or a pair of texts."""


class CamembertForMultipleChoice(CamembertPreTrained, RobertaForMultipleChoice):
    """Picks one of several continuations."""


class CamembertForTokenClassification(CamembertPreTrained, RobertaForTokenClassification):
    """Tags every token."""


class CamembertForQuestionAnswering(CamembertPreTrained, RobertaForQuestionAnswering):
    """Finds the answer to a question in a text."""
