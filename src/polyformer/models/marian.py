"""Marian: the Transformer of Vaswani et al. 2017 as Marian NMT trains it, for translation (OPUS-MT).

Junczys-Dowmunt et al. 2018, arXiv 1804.00344; marian-nmt. BART with fixed positions and without a norm of the
embeddings. The decoder begins with padding, which it is never to write. Marian's own files: core/marian_file.py.
"""

import os
from dataclasses import field
from typing import Any, Self

import torch
from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.decoder_alone import DecoderAlone, DecoderLM
from polyformer.core.keymap import Entry, Fuse, KeyMap
from polyformer.core.marian_file import read_marian
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.seq2seq import DecoderStack, EncoderDecoder, Seq2SeqLM, Stack, check_halves, of_halves
from polyformer.parts.attention import Attention, CrossAttention, per_layer
from polyformer.parts.blocks import PostNormBlock, PostNormCrossBlock
from polyformer.parts.embeddings import ScaledEmbeddings, token_table
from polyformer.parts.feedforward import Dropped, activation, feed_forward
from polyformer.parts.heads import OffsetWordHead, WordHead
from polyformer.parts.layout import Layout
from polyformer.parts.positions import SplitSinusoids
from polyformer.parts.state import Past

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("marian")
class MarianConfig(Config):
    """BART-large's shape by default; field names and defaults are Hugging Face's, the uniform ones are aliases.

    encoder_layerdrop, decoder_layerdrop: chance that a layer is left out in a step of training.
    scale_embedding: whether token vectors are multiplied by the square root of the width; the published models do.
    num_hidden_layers: of the encoder, always.
    forced_eos_token_id: what a text that is written ends with at the longest.
    native_positions: whether the rates of the sinusoids are those of Marian NMT, which go down to 1 / 10000, or, as in
        Transformers, stop one before that. Ours alone: published checkpoints, made from Marian's, are used without it.
    """

    aliases = {  # noqa: RUF012
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "intermediate_size": "encoder_ffn_dim",
        "hidden_act": "activation_function",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "initializer_range": "init_std",
    }

    vocab_size: int = 50265
    max_position_embeddings: int = 1024
    encoder_layers: int = 12
    encoder_ffn_dim: int = 4096
    encoder_attention_heads: int = 16
    decoder_layers: int = 12
    decoder_ffn_dim: int = 4096
    decoder_attention_heads: int = 16
    encoder_layerdrop: float = 0.0
    decoder_layerdrop: float = 0.0
    use_cache: bool = True
    is_encoder_decoder: bool = field(default=True, kw_only=True)
    activation_function: str = "gelu"
    d_model: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02
    classifier_dropout: float = 0.0
    scale_embedding: bool = False
    num_hidden_layers: int = field(default=12, kw_only=True)
    pad_token_id: int | None = field(default=58100, kw_only=True)
    eos_token_id: int | None = field(default=0, kw_only=True)
    decoder_start_token_id: int | None = field(default=58100, kw_only=True)
    forced_eos_token_id: int | None = field(default=0, kw_only=True)
    native_positions: bool = field(default=False, kw_only=True)

    def check(self) -> None:
        check_halves(self)
        self.num_hidden_layers = self.encoder_layers


# ---- the model -------------------------------------------------------------------------------------------------------


class MarianPreTrained(PreTrainedModel):
    """What Marian's classes share."""

    config_class = MarianConfig
    base_model_prefix = "model"

    def word_head(self) -> WordHead:
        return WordHead(self.config.d_model, self.config.vocab_size, bias=False)


class MarianSinusoids(SplitSinusoids):
    """position / 10000^(i / (width / 2 - 1)), all sines first (marian-nmt node_initializers.cpp)."""

    @staticmethod
    def values(positions: int, width: int) -> Tensor:
        half = width // 2
        rates = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / (half - 1))
        angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], 1).to(torch.get_default_dtype())


def embeddings(c: MarianConfig, tokens: nn.Embedding) -> ScaledEmbeddings:
    """What a half reads: tokens and fixed positions."""
    kind = MarianSinusoids if c.native_positions else SplitSinusoids
    positions = kind(c.max_position_embeddings, c.d_model)
    scale = c.d_model**0.5 if c.scale_embedding else 1.0
    return ScaledEmbeddings(tokens, positions, nn.Identity(), c.dropout, scale)


def layer(c: MarianConfig, heads: int, inner: int, crosses: bool) -> PostNormBlock:
    """One layer: attention, in the decoder attention to the encoder, feed-forward."""
    width = c.d_model
    act = activation(c.activation_function)
    act = Dropped(act, c.activation_dropout) if c.activation_dropout else act
    attn, ffn = Attention(width, heads, c.attention_dropout), feed_forward(width, inner, act, c.chunk_size_feed_forward)
    if crosses:
        cross = CrossAttention(width, heads, c.attention_dropout)
        return PostNormCrossBlock(attn, cross, ffn, lambda: nn.LayerNorm(width), c.dropout)
    return PostNormBlock(attn, ffn, lambda: nn.LayerNorm(width), c.dropout)


class MarianEncoder(MarianPreTrained, Stack):
    """The half that reads."""

    def __init__(self, config: MarianConfig, tokens: nn.Embedding) -> None:
        super().__init__(config)
        c = config
        self.embed = embeddings(c, tokens)
        self.layers = nn.ModuleList(
            layer(c, c.encoder_attention_heads, c.encoder_ffn_dim, False) for _ in range(c.encoder_layers)
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """Read a source; arguments as of the whole model."""
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        # packed: (rows, length) -> (tokens,), padding left out until the last layer is done
        x, layout, taps, head_masks = self.enter(
            input_ids, inputs_embeds, attention_mask, head_mask, attentions, hidden_states
        )
        taps.state(x)
        for block, mask in zip(self.layers, head_masks, strict=True):
            if not self.skips(self.config.encoder_layerdrop):
                x = self.through(block, x, layout, None, mask, taps)
            taps.state(x)

        return self.leave(x, taps, named)


class MarianDecoder(MarianPreTrained, DecoderStack):
    """The half that writes."""

    def __init__(self, config: MarianConfig, tokens: nn.Embedding) -> None:
        super().__init__(config)
        c = config
        self.embed = embeddings(c, tokens)
        self.layers = nn.ModuleList(
            layer(c, c.decoder_attention_heads, c.decoder_ffn_dim, True) for _ in range(c.decoder_layers)
        )

    @property
    def heads(self) -> int:
        return self.config.decoder_attention_heads

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """Read what has been written; arguments as of the whole model, with the encoder's states (rows, length, width).

        attention_mask may have three axes too: (rows, queries, keys), 0 = may not attend.
        """
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        state, source = self.recall(past_key_values, use_cache), encoder_hidden_states
        x, layout, taps, head_masks = self.enter(
            input_ids, inputs_embeds, attention_mask, head_mask, attentions, hidden_states,
            state=state, causal=True, packable=source is None,
        )  # fmt: skip
        across = None if source is None else Layout.across(encoder_attention_mask, layout.positions)
        cross_masks = per_layer(cross_attn_head_mask, [len(block.cross.heads) for block in self.blocks()])

        taps.state(x)
        for i, block in enumerate(self.layers):
            if state is not None or not self.skips(self.config.decoder_layerdrop):
                memory = None if state is None else state.layers[i]
                x = self.through(block, x, layout, memory, head_masks[i], taps, source, across, cross_masks[i])
            taps.state(x)

        state = None if use_cache is False else state
        return self.leave(x, taps, named, state=state, crossed=source is not None)


class MarianModel(MarianPreTrained, EncoderDecoder):
    """The encoder and the decoder."""

    def __init__(self, config: MarianConfig) -> None:
        super().__init__(config)
        self.shared = token_table(config.vocab_size, config.d_model, config.pad_token_id)
        self.encoder = MarianEncoder(config, self.shared)
        self.decoder = MarianDecoder(config, self.shared)
        self.init_weights()


class MarianDecoderModel(MarianPreTrained, DecoderAlone):
    """The decoder alone."""

    def __init__(self, config: MarianConfig) -> None:
        super().__init__(config)
        self.decoder = MarianDecoder(config, token_table(config.vocab_size, config.d_model, config.pad_token_id))
        self.init_weights()


# ---- checkpoint table ------------------------------------------------------------------------------------------------

HALF: list[Entry] = [
    ("embed_tokens.weight", "embed.tokens.weight"),
    ("layers.{i}.self_attn.{q_proj|k_proj|v_proj}.{p}", "layers.{i}.attn.qkv.{p}", Fuse()),
    ("layers.{i}.self_attn.out_proj.{p}", "layers.{i}.attn.out.{p}"),
    ("layers.{i}.self_attn_layer_norm.{p}", "layers.{i}.attn_norm.{p}"),
    ("layers.{i}.encoder_attn.q_proj.{p}", "layers.{i}.cross.q.{p}"),
    ("layers.{i}.encoder_attn.{k_proj|v_proj}.{p}", "layers.{i}.cross.kv.{p}", Fuse()),
    ("layers.{i}.encoder_attn.out_proj.{p}", "layers.{i}.cross.out.{p}"),
    ("layers.{i}.encoder_attn_layer_norm.{p}", "layers.{i}.cross_norm.{p}"),
    ("layers.{i}.fc1.{p}", "layers.{i}.ffn.up.{p}"),
    ("layers.{i}.fc2.{p}", "layers.{i}.ffn.down.{p}"),
    ("layers.{i}.final_layer_norm.{p}", "layers.{i}.ffn_norm.{p}"),
]
HEADS: list[Entry] = [
    ("lm_head.weight", "lm.decoder.weight"),
    ("final_logits_bias", "lm.offset"),
]
DROP = ["encoder.embed_positions.weight", "decoder.embed_positions.weight"]  # computed
KEYS = KeyMap(
    [("shared.weight", "shared.weight"), *of_halves(HALF)], heads=HEADS, drop=DROP, optional=["lm.offset"],
    prefix="model",
)  # fmt: skip
ALONE = KeyMap(  # where the table is in the file once
    [*of_halves(HALF), ("shared.weight", "decoder.embed.tokens.weight")], heads=HEADS, drop=DROP, prefix="model"
)
MarianPreTrained.backbone, MarianPreTrained.keys = MarianModel, KEYS
MarianDecoderModel.backbone, MarianDecoderModel.keys = MarianDecoderModel, ALONE


# ---- task classes ----------------------------------------------------------------------------------------------------


class MarianMTModel(MarianPreTrained, Seq2SeqLM):
    """Translates."""

    @classmethod
    def from_marian(cls, path: str | os.PathLike[str], **changes: Any) -> Self:
        """Load a model of Marian NMT's own, an .npz or a folder with one; save_pretrained makes it Hugging Face's.

        Its vocabulary, a .yml, becomes the vocab.json of MarianTokenizer by core.marian_file.read_marian_vocabulary.

        Args:
            changes: fields of the configuration; native_positions=True for the positions that it was trained with.

        Raises:
            CheckpointError: no such file, or damaged; a network of another kind.
        """
        fields, tensors = read_marian(path)
        folder = path if os.path.isdir(path) else os.path.dirname(path) or os.curdir
        return cls.from_pretrained(folder, config=cls.config_class(**(fields | changes)), state_dict=tensors)

    def word_head(self) -> WordHead:
        return OffsetWordHead(self.config.d_model, self.config.vocab_size)

    def adjust_logits_during_generation(self, logits: Tensor, cur_len: int, max_length: int) -> Tensor:
        """Padding, with which the decoder begins, is never written; `logits` (rows, words) are changed."""
        if self.config.pad_token_id is not None:
            logits[:, self.config.pad_token_id] = float("-inf")
        return logits


class MarianForCausalLM(MarianPreTrained, DecoderLM):
    """Writes word after word with the decoder alone, if need be after another encoder."""

    backbone, keys = MarianDecoderModel, ALONE
