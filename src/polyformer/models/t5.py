"""T5: an encoder-decoder that is given every task as a text and writes the answer as one.

Raffel et al. 2019, arXiv 1910.10683; google-research/text-to-text-transfer-transformer, mesh-tensorflow
transformer_layers.py. The Transformer with norms inside the residuals that only scale, no bias in any map, scores that
are not scaled, and positions told by one bias a stack (parts/positions.py). Version 1.1 has gated GELU and, as a rule,
an output matrix of its own (Shazeer 2020, arXiv 2002.05202).
"""

from collections.abc import Sequence
from dataclasses import field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.keymap import Fuse, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.seq2seq import DecoderStack, EncoderDecoder, Seq2SeqLM, Stack
from polyformer.parts.attention import Attention, CrossAttention, per_layer
from polyformer.parts.embeddings import batch_shape, check_ids, check_width
from polyformer.parts.feedforward import Dropped, FeedForward, GatedFeedForward, activation
from polyformer.parts.heads import ScaledWordHead, WordHead
from polyformer.parts.layout import BiasedLayout, Layout
from polyformer.parts.norms import RMSNorm
from polyformer.parts.positions import Buckets, PastBuckets
from polyformer.parts.state import LayerState, Past
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("t5")
class T5Config(Config):
    """T5-small by default; field names and defaults are Hugging Face's, the uniform ones are aliases.

    d_kv: width of a head; heads * d_kv need not be d_model.
    num_layers, num_decoder_layers: of the encoder and of the decoder, which has as many unless told otherwise.
    relative_attention_num_buckets, relative_attention_max_distance: how many buckets of distances there are, and the
        distance from which on there are no more.
    feed_forward_proj: an activation function's name, as "relu", or "gated-" and one's name; "gated-gelu" is version
        1.1's, with GELU's tanh approximation.
    initializer_factor: of all weights as they are drawn.
    """

    aliases = {  # noqa: RUF012
        "hidden_size": "d_model",
        "intermediate_size": "d_ff",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "head_dim": "d_kv",
        "hidden_dropout_prob": "dropout_rate",
        "attention_probs_dropout_prob": "dropout_rate",
        "layer_norm_eps": "layer_norm_epsilon",
    }

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"
    is_encoder_decoder: bool = field(default=True, kw_only=True)
    use_cache: bool = field(default=True, kw_only=True)
    pad_token_id: int | None = field(default=0, kw_only=True)
    eos_token_id: int | None = field(default=1, kw_only=True)
    relative_attention_max_distance: int = field(default=128, kw_only=True)

    def check(self) -> None:
        if self.num_decoder_layers is None:
            self.num_decoder_layers = self.num_layers

    @property
    def gated(self) -> bool:
        return self.feed_forward_proj.startswith("gated-")

    @property
    def inner_activation(self) -> str:
        """The name of the feed-forward network's activation function."""
        name = self.feed_forward_proj.removeprefix("gated-")
        return "gelu_new" if self.gated and name == "gelu" else name


# ---- the model -------------------------------------------------------------------------------------------------------


class T5PreTrained(PreTrainedModel):
    """What T5's classes share."""

    config_class: ClassVar[type[Config]] = T5Config
    base_model_prefix = "transformer"

    def _init_weights(self, module: nn.Module) -> None:
        """As mesh-tensorflow: normal, with a variance of 1 / inputs, but that of queries is smaller, and of words 1."""
        factor, width = self.config.initializer_factor, self.config.d_model
        if isinstance(module, RMSNorm):
            nn.init.constant_(module.weight, factor)
        elif isinstance(module, nn.Embedding):
            shared = any(module is part.numbers for part in self.modules() if isinstance(part, Buckets))
            nn.init.normal_(module.weight, std=factor * (width**-0.5 if shared else 1))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=factor * module.in_features**-0.5)
            for block in self.base_model.blocks():
                if module is block.attn.qkv or module is getattr(getattr(block, "cross", None), "q", None):
                    units = len((block.attn if module is block.attn.qkv else block.cross).heads) * self.config.d_kv
                    module.weight.data[:units] *= self.config.d_kv**-0.5

    def word_head(self) -> WordHead:
        kind = ScaledWordHead if self.config.tie_word_embeddings else WordHead
        return kind(self.config.d_model, self.config.vocab_size, bias=False)


class T5Block(nn.Module):
    """One layer of the encoder."""

    def __init__(self, c: T5Config) -> None:
        super().__init__()
        width, act = c.d_model, activation(c.inner_activation)
        self.attn = Attention(width, c.num_heads, c.dropout_rate, scale=1.0, dim=c.d_kv, biased=False)
        self.attn_norm = RMSNorm(width, c.layer_norm_epsilon)
        self.ffn = (
            GatedFeedForward(width, c.d_ff, act, c.dropout_rate)
            if c.gated
            else FeedForward(width, c.d_ff, Dropped(act, c.dropout_rate), biased=False)
        )
        self.ffn_norm = RMSNorm(width, c.layer_norm_epsilon)
        self.drop = nn.Dropout(c.dropout_rate)

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        head_mask: Tensor | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """x (rows, length, width), or (tokens, width) packed -> the same shape."""
        x = finite(x + self.drop(self.attn(self.attn_norm(x), layout, None, head_mask, taps)))
        return finite(x + self.drop(self.ffn(self.ffn_norm(x))))


class T5CrossBlock(T5Block):
    """One layer of the decoder."""

    def __init__(self, c: T5Config) -> None:
        super().__init__(c)
        self.cross = CrossAttention(c.d_model, c.num_heads, c.dropout_rate, scale=1.0, dim=c.d_kv, biased=False)
        self.cross_norm = RMSNorm(c.d_model, c.layer_norm_epsilon)

    def forward(  # type: ignore[override]  # it reads a source too
        self,
        x: Tensor,
        layout: Layout,
        source: Tensor | None,
        source_layout: Layout,
        state: LayerState | None = None,
        head_mask: Tensor | None = None,
        cross_head_mask: Tensor | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """x (rows, length, width), source (rows, source length, width) and its layout -> as x. No source, no look."""
        own, across = (None, None) if state is None else (state.own, state.cross)
        x = finite(x + self.drop(self.attn(self.attn_norm(x), layout, own, head_mask, taps)))
        if source is not None:
            read = self.cross(self.cross_norm(x), source, source_layout, across, cross_head_mask, taps)
            x = finite(x + self.drop(read))
        return finite(x + self.drop(self.ffn(self.ffn_norm(x))))


def finite(x: Tensor) -> Tensor:
    """Kept within what half precision can hold, which sums of the published weights leave."""
    limit = torch.finfo(torch.float16).max - 1000
    return x.clamp(-limit, limit) if x.dtype == torch.float16 else x


class Words(nn.Module):
    """The words' vectors, dropped out; `tokens` is one table for both stacks."""

    def __init__(self, tokens: nn.Embedding, dropout: float) -> None:
        super().__init__()
        self.tokens = tokens
        self.drop = nn.Dropout(dropout)

    def forward(self, ids: Tensor | None, vectors: Tensor | None) -> Tensor:
        """ids (...) int64, or vectors (..., width) in their place -> (..., width)."""
        return self.drop(self.tokens(ids) if vectors is None else vectors)


def read_shape(c: Config, ids: Tensor | None, vectors: Tensor | None) -> tuple[int, int]:
    """(rows, length) of what a stack reads; one clear sentence for what it cannot."""
    shape = batch_shape(ids, vectors)
    check_width(vectors, c.d_model)
    check_ids(ids, c.vocab_size, "input_ids", shape)
    return shape


class T5Encoder(T5PreTrained, Stack):
    """Reads the source, every token seeing all others."""

    def __init__(self, config: T5Config, words: nn.Embedding) -> None:
        super().__init__(config)
        c = config
        self.embed = Words(words, c.dropout_rate)
        self.positions = Buckets(c.relative_attention_num_buckets, c.num_heads, c.relative_attention_max_distance)
        self.layers = nn.ModuleList(T5Block(c) for _ in range(c.num_layers))
        self.norm = RMSNorm(c.d_model, c.layer_norm_epsilon)
        self.drop = nn.Dropout(c.dropout_rate)

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
        """Arguments as of T5Model."""
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        rows, length = read_shape(self.config, input_ids, inputs_embeds)
        layout = Layout.of(
            (rows, length), attention_mask, self.device,
            packable=self.packable and not attentions and head_mask is None,
        )  # fmt: skip
        layout = BiasedLayout.by(layout, self.positions(length, length))
        taps = Taps(layout, hidden_states=hidden_states, attentions=attentions)
        head_masks = per_layer(head_mask, [len(block.attn.heads) for block in self.blocks()])

        x = self.embed(layout.pack(input_ids), layout.pack(inputs_embeds))
        for block, mask in zip(self.layers, head_masks, strict=True):
            taps.state(x)
            x = self.through(block, x, layout, mask, taps)
        x = self.drop(self.norm(x))
        taps.state(x)

        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=layout.unpack(x),
            hidden_states=taps.seen("hidden_states"),
            attentions=taps.seen("attentions"),
        )
        return result if named else result.to_tuple()


class T5Decoder(T5PreTrained, DecoderStack):
    """Writes, every token seeing those before it and the source."""

    def __init__(self, config: T5Config, words: nn.Embedding) -> None:
        super().__init__(config)
        c = config
        self.embed = Words(words, c.dropout_rate)
        self.positions = PastBuckets(c.relative_attention_num_buckets, c.num_heads, c.relative_attention_max_distance)
        self.layers = nn.ModuleList(T5CrossBlock(c) for _ in range(c.num_decoder_layers or 0))
        self.norm = RMSNorm(c.d_model, c.layer_norm_epsilon)
        self.drop = nn.Dropout(c.dropout_rate)

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
        """Arguments as of T5Model, its decoder_input_ids being the input_ids here, and so on."""
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        rows, length = read_shape(self.config, input_ids, inputs_embeds)
        state = self.recall(past_key_values, use_cache)
        past = 0 if state is None else state.length
        source = encoder_hidden_states
        layout = Layout.of(
            (rows, length), attention_mask, self.device, causal=True, past=past,
            packable=self.packable and not attentions and head_mask is None and source is None,
        )  # fmt: skip
        layout = BiasedLayout.by(layout, self.positions(length, past + length))
        across = Layout.across(encoder_attention_mask, layout.positions)
        taps = Taps(layout, hidden_states=hidden_states, attentions=attentions)
        head_masks = per_layer(head_mask, [len(block.attn.heads) for block in self.blocks()])
        cross_masks = per_layer(cross_attn_head_mask, [len(block.cross.heads) for block in self.blocks()])

        x = self.embed(layout.pack(input_ids), layout.pack(inputs_embeds))
        for i, block in enumerate(self.layers):
            taps.state(x)
            memory = None if state is None else state.layers[i]
            x = self.through(block, x, layout, source, across, memory, head_masks[i], cross_masks[i], taps)
        x = self.drop(self.norm(x))
        taps.state(x)

        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=layout.unpack(x),
            past_key_values=None if use_cache is False else state,
            hidden_states=taps.seen("hidden_states"),
            attentions=taps.seen("attentions"),
            cross_attentions=taps.seen("cross_attentions") if source is not None else None,
        )
        return result if named else result.to_tuple()


class T5Model(T5PreTrained, EncoderDecoder):
    """Encoder and decoder: states of the target's tokens."""

    encoder: T5Encoder
    decoder: T5Decoder

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Encoder(config, self.shared)
        self.decoder = T5Decoder(config, self.shared)
        self.init_weights()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.shared

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        self.shared = self.encoder.embed.tokens = self.decoder.embed.tokens = table


class T5EncoderModel(T5PreTrained):
    """The encoder alone: states of the source's tokens."""

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Encoder(config, self.shared)
        self.init_weights()

    def get_encoder(self) -> T5Encoder:
        return self.encoder

    @property
    def packable(self) -> bool:
        return self.encoder.packable

    @packable.setter
    def packable(self, value: bool) -> None:
        self.encoder.packable = value

    def get_input_embeddings(self) -> nn.Embedding:
        return self.shared

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        self.shared = self.encoder.embed.tokens = table

    def blocks(self) -> Sequence[Any]:
        return self.encoder.blocks()

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
        """Encode a batch.

        Args:
            input_ids: (rows, length) int64, or inputs_embeds (rows, length, width) in their place.
            attention_mask: (rows, length), 0 = padding; or (rows, queries, keys), 0 = may not attend.
            head_mask: (heads,) or (layers, heads), a factor of every head's attention weights.

        Raises:
            ValueError: an id outside of the vocabulary, both or neither of ids and embeddings.
        """
        return self.encoder(
            input_ids, attention_mask, head_mask, inputs_embeds, output_attentions, output_hidden_states, return_dict
        )


# ---- checkpoint table ------------------------------------------------------------------------------------------------

KEYS = KeyMap(
    [
        ("shared.weight", "shared.weight"),
        ("encoder.embed_tokens.weight", "encoder.embed.tokens.weight"),
        (
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            "encoder.positions.numbers.weight",
        ),
        ("encoder.block.{i}.layer.0.SelfAttention.{q|k|v}.weight", "encoder.layers.{i}.attn.qkv.weight", Fuse()),
        ("encoder.block.{i}.layer.0.SelfAttention.o.weight", "encoder.layers.{i}.attn.out.weight"),
        ("encoder.block.{i}.layer.0.layer_norm.weight", "encoder.layers.{i}.attn_norm.weight"),
        ("encoder.block.{i}.layer.1.DenseReluDense.wi.weight", "encoder.layers.{i}.ffn.up.weight"),
        (
            "encoder.block.{i}.layer.1.DenseReluDense.{wi_0|wi_1}.weight",
            "encoder.layers.{i}.ffn.gate_up.weight",
            Fuse(),
        ),
        ("encoder.block.{i}.layer.1.DenseReluDense.wo.weight", "encoder.layers.{i}.ffn.down.weight"),
        ("encoder.block.{i}.layer.1.layer_norm.weight", "encoder.layers.{i}.ffn_norm.weight"),
        ("encoder.final_layer_norm.weight", "encoder.norm.weight"),
        ("decoder.embed_tokens.weight", "decoder.embed.tokens.weight"),
        (
            "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            "decoder.positions.numbers.weight",
        ),
        ("decoder.block.{i}.layer.0.SelfAttention.{q|k|v}.weight", "decoder.layers.{i}.attn.qkv.weight", Fuse()),
        ("decoder.block.{i}.layer.0.SelfAttention.o.weight", "decoder.layers.{i}.attn.out.weight"),
        ("decoder.block.{i}.layer.0.layer_norm.weight", "decoder.layers.{i}.attn_norm.weight"),
        ("decoder.block.{i}.layer.1.EncDecAttention.q.weight", "decoder.layers.{i}.cross.q.weight"),
        ("decoder.block.{i}.layer.1.EncDecAttention.{k|v}.weight", "decoder.layers.{i}.cross.kv.weight", Fuse()),
        ("decoder.block.{i}.layer.1.EncDecAttention.o.weight", "decoder.layers.{i}.cross.out.weight"),
        ("decoder.block.{i}.layer.1.layer_norm.weight", "decoder.layers.{i}.cross_norm.weight"),
        ("decoder.block.{i}.layer.2.DenseReluDense.wi.weight", "decoder.layers.{i}.ffn.up.weight"),
        (
            "decoder.block.{i}.layer.2.DenseReluDense.{wi_0|wi_1}.weight",
            "decoder.layers.{i}.ffn.gate_up.weight",
            Fuse(),
        ),
        ("decoder.block.{i}.layer.2.DenseReluDense.wo.weight", "decoder.layers.{i}.ffn.down.weight"),
        ("decoder.block.{i}.layer.2.layer_norm.weight", "decoder.layers.{i}.ffn_norm.weight"),
        ("decoder.final_layer_norm.weight", "decoder.norm.weight"),
    ],
    heads=[("lm_head.weight", "lm.decoder.weight")],
    drop=["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"],  # there is none to a source
    prefix="",
    module="transformer",
)
T5PreTrained.backbone, T5PreTrained.keys = T5Model, KEYS
T5EncoderModel.backbone = T5EncoderModel


# ---- task classes ----------------------------------------------------------------------------------------------------


class T5ForConditionalGeneration(T5PreTrained, Seq2SeqLM):
    """Writes the text that belongs to a source."""
