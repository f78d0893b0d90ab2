"""mT5: T5 version 1.1 for a hundred languages.

Xue et al. 2020, arXiv 2010.11934; google-research/multilingual-t5. Nothing in the architecture differs from T5's.
"""

from dataclasses import field

from polyformer.core.config import config
from polyformer.models.t5 import KEYS, T5Config, T5EncoderModel, T5ForConditionalGeneration, T5Model, T5PreTrained


@config("mt5")
class MT5Config(T5Config):
    """mT5-small by default; fields as of T5Config."""

    vocab_size: int = 250112
    d_ff: int = 1024
    num_layers: int = 8
    num_heads: int = 6
    feed_forward_proj: str = "gated-gelu"
    tie_word_embeddings: bool = field(default=False, kw_only=True)
    decoder_start_token_id: int | None = field(default=0, kw_only=True)


class MT5PreTrained(T5PreTrained):
    """What mT5's classes share."""

    config_class = MT5Config


class MT5Model(MT5PreTrained, T5Model):
    """Encoder and decoder: states of the target's tokens."""


MT5PreTrained.backbone, MT5PreTrained.keys = MT5Model, KEYS


class MT5EncoderModel(MT5PreTrained, T5EncoderModel):
    """The encoder alone: states of the source's tokens."""


MT5EncoderModel.backbone = MT5EncoderModel


class MT5ForConditionalGeneration(MT5PreTrained, T5ForConditionalGeneration):
    """Writes the text that belongs to a source."""
