"""XLM-ProphetNet: ProphetNet for a hundred languages.

Qi et al. 2020, arXiv 2001.04063; microsoft/ProphetNet, xprophetnet. Nothing in the architecture differs.
"""

from polyformer.core.config import config
from polyformer.models.prophetnet import (
    ALONE,
    DECODER,
    ENCODER,
    KEYS,
    ProphetNetConfig,
    ProphetNetDecoder,
    ProphetNetDecoderModel,
    ProphetNetEncoder,
    ProphetNetForCausalLM,
    ProphetNetForConditionalGeneration,
    ProphetNetModel,
    ProphetNetPreTrained,
)


@config("xlm-prophetnet")
class XLMProphetNetConfig(ProphetNetConfig):
    """Fields as of ProphetNetConfig."""


class XLMProphetNetPreTrained(ProphetNetPreTrained):
    """What XLM-ProphetNet's classes share."""

    config_class = XLMProphetNetConfig


class XLMProphetNetEncoder(XLMProphetNetPreTrained, ProphetNetEncoder):
    """The half that reads."""


class XLMProphetNetDecoder(XLMProphetNetPreTrained, ProphetNetDecoder):
    """The half that writes."""


class XLMProphetNetModel(XLMProphetNetPreTrained, ProphetNetModel):
    """The encoder and the decoder."""


class XLMProphetNetDecoderModel(XLMProphetNetPreTrained, ProphetNetDecoderModel):
    """The decoder alone."""


XLMProphetNetPreTrained.backbone, XLMProphetNetPreTrained.keys = XLMProphetNetModel, KEYS
XLMProphetNetDecoderModel.backbone, XLMProphetNetDecoderModel.keys = XLMProphetNetDecoderModel, ALONE
XLMProphetNetEncoder.backbone, XLMProphetNetEncoder.keys = XLMProphetNetEncoder, ENCODER
XLMProphetNetDecoder.backbone, XLMProphetNetDecoder.keys = XLMProphetNetDecoder, DECODER


class XLMProphetNetForConditionalGeneration(XLMProphetNetPreTrained, ProphetNetForConditionalGeneration):
    """Writes a text that belongs to a source."""


class XLMProphetNetForCausalLM(XLMProphetNetPreTrained, ProphetNetForCausalLM):
    """Writes with the decoder alone, or after another encoder."""

    backbone, keys = XLMProphetNetDecoderModel, ALONE
