"""ProphetNet: an encoder and a decoder that foresees several words at once, pretrained to restore masked spans.

Qi et al. 2020, "ProphetNet: Predicting Future N-gram for Sequence-to-Sequence Pre-training", arXiv 2001.04063;
microsoft/ProphetNet. The Transformer with learnt positions, GELU, a norm of the embeddings and one after every
residual; in the decoder distances in buckets, read by the query, and beside the main stream, which reads the text, a
stream for each word foreseen (section 3.2):

    stream      at place i reads            and tells
    main        main 0 .. i                 nothing; its states are the keys of all others
    1           main 0 .. i,   itself       word i + 1, as any decoder does
    2           main 0 .. i-1, itself       word i + 1 as well, one step further ahead
    n           main 0 .. i+1-n, itself     word i + 1, n - 1 steps further ahead (main 0 at least)

Transformers 4.6 mixes the texts of a batch in the decoder; here each is what it is alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.decoder_alone import DecoderAlone, DecoderLM
from polyformer.core.errors import ConfigError
from polyformer.core.keymap import Entry, Fuse, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions, ModelOutput, Tensors
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.seq2seq import (
    DecoderStack,
    Encoded,
    EncoderDecoder,
    Seq2SeqLM,
    Stack,
    check_halves,
    reads_targets,
    real_targets,
    shown_by,
)
from polyformer.core.tasks import real_tokens
from polyformer.parts.attend import attend
from polyformer.parts.attention import Attention, CrossAttention, keep_columns, keep_rows, kept_heads, per_layer
from polyformer.parts.blocks import PostNormBlock, PostNormCrossBlock
from polyformer.parts.embeddings import ScaledEmbeddings, batch_shape, check_ids, check_length, check_width, token_table
from polyformer.parts.feedforward import Dropped, FeedForward, activation, feed_forward
from polyformer.parts.heads import WordHead
from polyformer.parts.layout import Layout, tracing
from polyformer.parts.linear import Linear
from polyformer.parts.losses import IGNORE, cross_entropy
from polyformer.parts.positions import spread
from polyformer.parts.state import KV, CrossKV, Past, PreallocatedKV, State
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("prophetnet")
class ProphetNetConfig(Config):
    """ProphetNet-large by default; field names and defaults are Hugging Face's, the uniform ones are aliases.

    ngram: words foreseen at once, and streams beside the main one.
    num_buckets: of distances; relative_max_distance: from which on all are in the last.
    disable_ngram_loss: whether the loss is of the next word alone; ngram_weights: how much each stream's loss counts
        (not in Transformers), alike by default. eps: of label smoothing.
    """

    aliases = {  # noqa: RUF012
        "d_model": "hidden_size",
        "num_attention_heads": "num_encoder_attention_heads",
        "encoder_attention_heads": "num_encoder_attention_heads",
        "decoder_attention_heads": "num_decoder_attention_heads",
        "intermediate_size": "encoder_ffn_dim",
        "hidden_act": "activation_function",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "initializer_range": "init_std",
    }

    activation_dropout: float = 0.1
    activation_function: str = "gelu"
    vocab_size: int = 30522
    hidden_size: int = 1024
    encoder_ffn_dim: int = 4096
    num_encoder_layers: int = 12
    num_encoder_attention_heads: int = 16
    decoder_ffn_dim: int = 4096
    num_decoder_layers: int = 12
    num_decoder_attention_heads: int = 16
    attention_dropout: float = 0.1
    dropout: float = 0.1
    max_position_embeddings: int = 512
    init_std: float = 0.02
    ngram: int = 2
    num_buckets: int = 32
    relative_max_distance: int = 128
    disable_ngram_loss: bool = False
    eps: float = 0.0
    ngram_weights: list[float] | None = field(default=None, kw_only=True)
    use_cache: bool = field(default=True, kw_only=True)
    is_encoder_decoder: bool = field(default=True, kw_only=True)
    add_cross_attention: bool = field(default=True, kw_only=True)
    decoder_start_token_id: int | None = field(default=0, kw_only=True)
    pad_token_id: int | None = field(default=0, kw_only=True)
    bos_token_id: int | None = field(default=1, kw_only=True)
    eos_token_id: int | None = field(default=2, kw_only=True)

    @property
    def num_hidden_layers(self) -> int:
        """Of both halves."""
        return self.num_encoder_layers + self.num_decoder_layers

    def check(self) -> None:
        check_halves(self)
        if self.ngram < 1:
            raise ConfigError(f"ngram is {self.ngram}: the decoder foresees at least 1 word.")
        weights = self.ngram_weights
        if weights is not None and (len(weights) != self.ngram or min(weights) < 0 or not sum(weights)):
            raise ConfigError(f"ngram_weights are {weights}: give {self.ngram} numbers from 0 on, not all 0.")


# ---- outputs ---------------------------------------------------------------------------------------------------------


@dataclass
class ProphetNetDecoderModelOutput(ModelOutput):
    """What the decoder gives: of the main stream, and after it of the others.

    last_hidden_state: (rows, length, width); last_hidden_state_ngram: (rows, ngram * length, width), stream by stream,
        as hidden_states and hidden_states_ngram are.
    attentions: (rows, heads, length, keys); ngram_attentions: (rows, ngram, heads, length, keys + length), the last
        keys being each stream's own; cross_attentions: (rows, heads, (1 + ngram) * length, source length).
    """

    last_hidden_state: Tensor
    last_hidden_state_ngram: Tensor | None = None
    past_key_values: State | None = None
    hidden_states: Tensors | None = None
    hidden_states_ngram: Tensors | None = None
    attentions: Tensors | None = None
    ngram_attentions: Tensors | None = None
    cross_attentions: Tensors | None = None


@dataclass
class ProphetNetDecoderLMOutput(ModelOutput):
    """loss (), logits (rows, length, words) of the next word, logits_ngram (rows, ngram - 1, length, words) of those
    after it, and what the decoder gives."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    logits_ngram: Tensor | None = None
    past_key_values: State | None = None
    hidden_states: Tensors | None = None
    hidden_states_ngram: Tensors | None = None
    attentions: Tensors | None = None
    ngram_attentions: Tensors | None = None
    cross_attentions: Tensors | None = None


@dataclass
class ProphetNetSeq2SeqModelOutput(ModelOutput):
    """The same of the decoder beside its encoder."""

    last_hidden_state: Tensor
    last_hidden_state_ngram: Tensor | None = None
    past_key_values: State | None = None
    decoder_hidden_states: Tensors | None = None
    decoder_ngram_hidden_states: Tensors | None = None
    decoder_attentions: Tensors | None = None
    decoder_ngram_attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: Tensors | None = None
    encoder_attentions: Tensors | None = None


@dataclass
class ProphetNetSeq2SeqLMOutput(ModelOutput):
    """loss (), logits (rows, length, words) of the next word, logits_ngram (rows, ngram - 1, length, words) of those
    after it, and what the model without a head gives."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    logits_ngram: Tensor | None = None
    past_key_values: State | None = None
    decoder_hidden_states: Tensors | None = None
    decoder_ngram_hidden_states: Tensors | None = None
    decoder_attentions: Tensors | None = None
    decoder_ngram_attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: Tensors | None = None
    encoder_attentions: Tensors | None = None


# ---- the model -------------------------------------------------------------------------------------------------------


class ProphetNetPreTrained(PreTrainedModel):
    """What ProphetNet's classes share."""

    config_class = ProphetNetConfig
    base_model_prefix = "prophetnet"

    def word_head(self) -> WordHead:
        return WordHead(self.config.hidden_size, self.config.vocab_size, bias=False)


class PositionsAfterPad(nn.Embedding):
    """A learnt vector a position, numbered after the id of padding."""

    def __init__(self, c: ProphetNetConfig) -> None:
        super().__init__(c.max_position_embeddings, c.hidden_size)
        self.first = (c.pad_token_id or 0) + 1

    def forward(self, positions: Tensor) -> Tensor:
        """(...) int64, counted from 0 -> (..., width)."""
        return super().forward(positions + self.first)


def embeddings(c: ProphetNetConfig, tokens: nn.Embedding | None) -> ScaledEmbeddings:
    """What a half reads: tokens and learnt positions, normalised."""
    width = c.hidden_size
    tokens = token_table(c.vocab_size, width, c.pad_token_id) if tokens is None else tokens
    return ScaledEmbeddings(tokens, PositionsAfterPad(c), nn.LayerNorm(width), c.dropout)


def inner_network(c: ProphetNetConfig, inner: int) -> FeedForward:
    act = activation(c.activation_function)
    act = Dropped(act, c.activation_dropout) if c.activation_dropout else act
    return feed_forward(c.hidden_size, inner, act, c.chunk_size_feed_forward)


def encoder_layer(c: ProphetNetConfig) -> PostNormBlock:
    """One layer of the encoder: attention, feed-forward."""
    attn = ScoredAttention(c.hidden_size, c.num_encoder_attention_heads, c.attention_dropout)
    return PostNormBlock(attn, inner_network(c, c.encoder_ffn_dim), lambda: nn.LayerNorm(c.hidden_size), c.dropout)


def decoder_layer(c: ProphetNetConfig) -> PostNormBlock:
    """One layer of the decoder: attention of all streams, attention to the encoder, feed-forward."""
    width, heads = c.hidden_size, c.num_decoder_attention_heads
    attn: Any = StreamAttention(width, heads, c.num_buckets, c.attention_dropout)
    ffn = inner_network(c, c.decoder_ffn_dim)
    if not c.add_cross_attention:
        return PostNormBlock(attn, ffn, lambda: nn.LayerNorm(width), c.dropout)
    cross = ScoredCrossAttention(width, heads, c.attention_dropout)
    return PostNormCrossBlock(attn, cross, ffn, lambda: nn.LayerNorm(width), c.dropout)


@dataclass
class Streams:
    """Who sees whom from where; keys are all tokens so far, of streams 1 to n with the stream's own tokens after them.

    near: buckets of the main stream's distances, (1 or rows, length, keys); ahead: of the others',
        (1 or rows, length, keys + length).
    seen: bool, (1 or rows, 1, length, keys), None = all; foreseen: (1 or rows, ngram, 1, length, keys + length).
    """

    near: Tensor
    ahead: Tensor
    seen: Tensor | None
    foreseen: Tensor

    @classmethod
    def of(cls, layout: Layout, attention_mask: Tensor | None, length: int, past: int, c: Any) -> "Streams":
        """Of `length` new tokens after `past`; attention_mask (rows, past + length), 0 = padding."""
        device, keys = layout.positions.device, past + length
        place, key = torch.arange(past, keys, device=device)[:, None], torch.arange(keys, device=device)
        # positions of keys (1 or rows, keys) follow from that of the newest one
        at = layout.positions[:, -1:] - (keys - 1 - key)
        distance = layout.positions[:, :, None] - at[:, None]
        own = torch.zeros_like(distance[:, :, :1]).expand(-1, -1, length)
        near, beyond = (
            spread(d.clamp(min=0), c.num_buckets, c.relative_max_distance) for d in (distance, distance + 1)
        )
        lag = torch.arange(c.ngram, device=device)[:, None, None, None]
        # (1 or rows, ngram, 1, length, keys); the first token is seen by all
        before = (key <= place - lag)[None] | (at == 0)[:, None, None, None]
        if attention_mask is not None:
            before = before & attention_mask.bool()[:, None, None, None]
        itself = torch.eye(length, dtype=torch.bool, device=device).expand(*before.shape[:3], -1, -1)
        seen = None if attention_mask is None and not tracing() and length == 1 else before[:, 0]
        return cls(near, torch.cat([beyond, own], -1), seen, torch.cat([before, itself], -1))


class ScoredAttention(Attention):
    """The encoder's attention. What it shows are not its weights but the scores before, as Transformers has it."""

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        memory: KV | PreallocatedKV | None = None,
        head_mask: Tensor | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """x (rows, length, width), or (tokens, width) packed -> the same shape."""
        if taps is not None and taps.attentions is not None:
            q, k, _ = self.qkv(x).unflatten(-1, (3, -1, self.dim)).transpose(1, 3).unbind(2)
            taps.saw(shown_scores(q, k, self.scale, layout.mask, head_mask))
        return super().forward(x, layout, memory, head_mask)


class ScoredCrossAttention(CrossAttention):
    """The same from the decoder's streams to the encoder."""

    def forward(
        self,
        x: Tensor,
        source: Tensor,
        layout: Layout,
        memory: CrossKV | None = None,
        head_mask: Tensor | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """x (rows, streams * length, width), source (rows, source length, width), its layout -> as x."""
        memory = CrossKV() if memory is None else memory
        y = super().forward(x, source, layout, memory, head_mask)
        if taps is not None and taps.attentions is not None and memory.keys is not None:
            q = self.q(x).unflatten(-1, (-1, self.dim)).transpose(1, 2)
            taps.saw_across(shown_scores(q, memory.keys, self.scale, layout.mask, head_mask))
        return y


def shown_scores(q: Tensor, k: Tensor, scale: float, mask: Tensor | None, head_mask: Tensor | None) -> Tensor:
    """(rows, heads, queries, keys), -10000 added where nothing may be seen."""
    scores = (q * scale) @ k.mT
    scores = scores if mask is None else scores - 10000.0 * (~mask).to(scores.dtype)
    return scores if head_mask is None else scores * head_mask


class StreamAttention(nn.Module):
    """Self-attention of the main stream, and of the others over it and themselves, with the same weights.

    buckets: of distances, for each of which a query has a number (a linear map of the state it is made of).
    """

    def __init__(self, width: int, heads: int, buckets: int, dropout: float) -> None:
        super().__init__()
        self.dim, self.heads, self.buckets = width // heads, list(range(heads)), buckets
        self.qkv: nn.Linear = Linear(width, 3 * width)
        self.out: nn.Linear = Linear(width, width)
        self.distances = nn.Linear(width, buckets * heads)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        streams: Streams,
        memory: KV | PreallocatedKV | None = None,
        head_mask: Tensor | None = None,
        taps: "StreamTaps | None" = None,
    ) -> Tensor:
        """x (rows, (1 + ngram) * length, width) -> the same shape."""
        length, rows = streams.near.shape[-2], x.shape[0]
        # (rows, streams * length, 3 * heads * dim) -> three of (rows, streams, heads, length, dim)
        q, k, v = self.qkv(x).view(rows, -1, length, 3, len(self.heads), self.dim).permute(3, 0, 1, 4, 2, 5).unbind(0)
        # (rows, streams * length, buckets * heads) -> (rows, streams, heads, length, buckets)
        numbers = self.distances(x).view(rows, -1, length, self.buckets, len(self.heads)).permute(0, 1, 4, 2, 3)
        weights = taps is not None and taps.attentions is not None
        keys, values = (k[:, 0], v[:, 0]) if memory is None else memory.append(k[:, 0], v[:, 0])

        near = streams.near[:, None].expand(rows, len(self.heads), -1, -1)
        y, seen = attend(
            q[:, 0], keys, values, bias=numbers[:, 0].gather(-1, near), mask=streams.seen, dropout=self.dropout,
            head_mask=head_mask, weights=weights,
        )  # fmt: skip
        # the others: (rows, ngram, ...) -> (rows * ngram, ...), the main stream's keys before their own
        ngram = q.shape[1] - 1
        both = (
            torch.cat([main[:, None].expand(-1, ngram, -1, -1, -1), own[:, 1:]], 3).flatten(0, 1)
            for main, own in ((keys, k), (values, v))
        )
        ahead = streams.ahead[:, None, None].expand(rows, ngram, len(self.heads), -1, -1)
        mask = streams.foreseen.expand(rows, -1, -1, -1, -1).flatten(0, 1)
        z, foreseen = attend(
            q[:, 1:].flatten(0, 1), *both, bias=numbers[:, 1:].gather(-1, ahead).flatten(0, 1), mask=mask,
            dropout=self.dropout, head_mask=head_mask, weights=weights,
        )  # fmt: skip
        if taps is not None:
            taps.saw(seen)
            taps.foresaw(None if foreseen is None else foreseen.unflatten(0, (rows, ngram)))
        mixed = torch.cat([y[:, None], z.unflatten(0, (rows, ngram))], 1)
        return self.out(mixed.transpose(2, 3).reshape(rows, -1, len(self.heads) * self.dim))

    def prune(self, heads: Iterable[int]) -> None:
        """Remove these heads for good; numbers are those of the unpruned layer, and stay so."""
        inner, before = self.out.in_features, len(self.heads)
        self.heads, kept = kept_heads(self.heads, heads, self.dim)
        self.qkv = keep_rows(self.qkv, torch.cat([kept, kept + inner, kept + 2 * inner]))
        self.out = keep_columns(self.out, kept)
        left = kept[:: self.dim] // self.dim
        self.distances = keep_rows(self.distances, (torch.arange(self.buckets)[:, None] * before + left).flatten())


class StreamTaps(Taps):
    """The recorder of the decoder: what Taps has of the main stream, and the others apart."""

    def __init__(self, layout: Layout, length: int, *, hidden_states: bool, attentions: bool) -> None:
        super().__init__(layout, hidden_states=hidden_states, attentions=attentions)
        self.length = length
        self.hidden_states_ngram: list[Tensor] | None = [] if hidden_states else None
        self.ngram_attentions: list[Tensor] | None = [] if attentions else None

    def state(self, x: Tensor) -> None:
        """(rows, (1 + ngram) * length, width)."""
        super().state(x[:, : self.length])
        if self.hidden_states_ngram is not None:
            self.hidden_states_ngram.append(x[:, self.length :])

    def foresaw(self, weights: Tensor | None) -> None:
        """The other streams' weights."""
        if self.ngram_attentions is not None and weights is not None:
            self.ngram_attentions.append(weights)


class ProphetNetEncoder(ProphetNetPreTrained, Stack):
    """The half that reads. tokens: the table of token vectors, where the decoder has it too."""

    def __init__(self, config: ProphetNetConfig, tokens: nn.Embedding | None = None) -> None:
        super().__init__(config)
        self.embed = embeddings(config, tokens)
        self.layers = nn.ModuleList(encoder_layer(config) for _ in range(config.num_encoder_layers))
        self.init_weights()

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
        _, length = batch_shape(input_ids, inputs_embeds)
        check_length(length, self.config.max_position_embeddings - self.embed.positions.first)  # type: ignore
        # packed: (rows, length) -> (tokens,), padding left out until the last layer is done
        x, layout, taps, head_masks = self.enter(
            input_ids, inputs_embeds, attention_mask, head_mask, attentions, hidden_states
        )
        taps.state(x)
        for block, mask in zip(self.layers, head_masks, strict=True):
            x = self.through(block, x, layout, None, mask, taps)
            taps.state(x)
        return self.leave(x, taps, named)


class ProphetNetDecoder(ProphetNetPreTrained, DecoderStack):
    """The half that writes. tokens: the table of token vectors, where the encoder has it too."""

    packable = False
    padded_because = "every token is in several streams"

    def __init__(self, config: ProphetNetConfig, tokens: nn.Embedding | None = None) -> None:
        super().__init__(config)
        self.embed = embeddings(config, tokens)
        self.ahead = nn.Embedding(config.ngram, config.hidden_size)
        self.layers = nn.ModuleList(decoder_layer(config) for _ in range(config.num_decoder_layers))
        self.init_weights()

    @property
    def heads(self) -> int:
        return self.config.num_decoder_attention_heads

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
    ) -> ProphetNetDecoderModelOutput | tuple[object, ...]:
        """Read what has been written; arguments as of the whole model, with the encoder's states (rows, length, width).

        Raises:
            ValueError: too long a sequence, an id outside of the vocabulary, both or neither of ids and embeddings, a
                mask of three axes.
        """
        c = self.config
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        state, source = self.recall(past_key_values, use_cache), encoder_hidden_states
        rows, length = batch_shape(input_ids, inputs_embeds)
        past = 0 if state is None else state.length
        check_length(past + length, c.max_position_embeddings - self.embed.positions.first - 1)  # type: ignore
        check_width(inputs_embeds, c.hidden_size)
        check_ids(input_ids, c.vocab_size, "input_ids", (rows, length))
        if attention_mask is not None and attention_mask.dim() > 2:
            raise ValueError("ProphetNet's decoder takes an attention_mask of shape (rows, length), one entry a token.")
        if source is not None and not c.add_cross_attention:
            raise ValueError("encoder_hidden_states need cross-attention: set config.add_cross_attention.")
        layout = Layout.of((rows, length), attention_mask, self.device, causal=True, past=past, packable=False)
        streams = Streams.of(layout, attention_mask, length, past, c)
        across = None if source is None else Layout.across(encoder_attention_mask, layout.positions)
        taps = StreamTaps(layout, length, hidden_states=hidden_states, attentions=attentions)
        head_masks = per_layer(head_mask, [len(block.attn.heads) for block in self.blocks()])
        crossing = [len(block.cross.heads) for block in self.blocks()] if c.add_cross_attention else []
        cross_masks = per_layer(cross_attn_head_mask, crossing) or [None] * len(self.layers)

        embed: Any = self.embed
        main = embed(input_ids, layout.positions, inputs_embeds)
        # (1 or rows, ngram * length, width): of a word that is not there yet only the place is known, and which it is
        which = self.ahead.weight.roll(1, 0)  # the last row is the first stream's, as the authors' code has it
        next_place = embed.positions(layout.positions + 1)[:, None] + which[:, None]
        others = embed.drop(embed.norm(next_place.flatten(1, 2).expand(rows, -1, -1)))
        x = torch.cat([main, others], 1)
        taps.state(x)
        for i, block in enumerate(self.layers):
            memory = None if state is None else state.layers[i]
            x = self.through(block, x, streams, memory, head_masks[i], taps, source, across, cross_masks[i])
            taps.state(x)

        result = ProphetNetDecoderModelOutput(
            last_hidden_state=x[:, :length],
            last_hidden_state_ngram=x[:, length:],
            past_key_values=None if use_cache is False else state,
            hidden_states=taps.seen("hidden_states"),
            hidden_states_ngram=taps.seen("hidden_states_ngram"),
            attentions=taps.seen("attentions"),
            ngram_attentions=taps.seen("ngram_attentions"),
            cross_attentions=taps.seen("cross_attentions") if source is not None else None,
        )
        return result if named else result.to_tuple()


class ProphetNetModel(ProphetNetPreTrained, EncoderDecoder):
    """The encoder and the decoder, with one table of token vectors."""

    def __init__(self, config: ProphetNetConfig) -> None:
        super().__init__(config)
        self.shared = token_table(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.encoder = ProphetNetEncoder(config, self.shared)
        self.decoder = ProphetNetDecoder(config, self.shared)
        self.init_weights()

    @property
    def packable(self) -> bool:
        """Whether the encoder runs on real tokens only."""
        return self.encoder.packable

    @packable.setter
    def packable(self, value: bool) -> None:
        self.encoder.packable = value

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        decoder_head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        encoder_outputs: Encoded | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ProphetNetSeq2SeqModelOutput | tuple[object, ...]:
        """Read a source and, word after word, what has been written for it; arguments as of EncoderDecoder."""
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        shows: dict[str, Any] = {"output_attentions": attentions, "output_hidden_states": hidden_states}
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            raise ValueError(
                "the decoder has nothing to read: give decoder_input_ids, or labels to a model that writes."
            )
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, head_mask=head_mask, inputs_embeds=inputs_embeds,
                **shows, return_dict=True,
            )  # fmt: skip
        source = encoder_outputs[0]
        written = self.decoder(
            input_ids=decoder_input_ids, attention_mask=decoder_attention_mask, encoder_hidden_states=source,
            encoder_attention_mask=attention_mask, head_mask=decoder_head_mask,
            cross_attn_head_mask=cross_attn_head_mask, past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds, use_cache=use_cache, **shows, return_dict=True,
        )  # fmt: skip
        result = ProphetNetSeq2SeqModelOutput(
            last_hidden_state=written.last_hidden_state,
            last_hidden_state_ngram=written.last_hidden_state_ngram,
            past_key_values=written.past_key_values,
            decoder_hidden_states=written.hidden_states,
            decoder_ngram_hidden_states=written.hidden_states_ngram,
            decoder_attentions=written.attentions,
            decoder_ngram_attentions=written.ngram_attentions,
            cross_attentions=written.cross_attentions,
            encoder_last_hidden_state=source,
            encoder_hidden_states=shown_by(encoder_outputs, "hidden_states"),
            encoder_attentions=shown_by(encoder_outputs, "attentions"),
        )
        return result if named else result.to_tuple()


class ProphetNetDecoderModel(ProphetNetPreTrained, DecoderAlone):
    """The decoder alone."""

    def __init__(self, config: ProphetNetConfig) -> None:
        super().__init__(config)
        self.decoder = ProphetNetDecoder(config)
        self.init_weights()


def ngram_loss(logits: Tensor, labels: Tensor, real: Tensor | None, c: ProphetNetConfig) -> Tensor:
    """Every stream tells the same words, from further and further back (section 3.1, equation 4).

    Args:
        logits: (rows, ngram, length, words). labels: (rows, length), the word after each token, -100 for none.
        real: (rows, length) bool, the tokens that are no padding; None = all.
    """
    labels = labels if real is None else labels.masked_fill(~real, IGNORE)
    weights = [1.0] * c.ngram if c.ngram_weights is None else c.ngram_weights
    weights = [1.0, *[0.0] * (c.ngram - 1)] if c.disable_ngram_loss else weights
    total = logits.new_zeros(())
    for weight, scores in zip(weights, logits.unbind(1), strict=True):
        if not weight:
            continue
        loss = cross_entropy(scores, labels)
        if c.eps > 0:
            # the mean over all words, of the tokens that have a label
            flat = -scores.log_softmax(-1).mean(-1)[labels != IGNORE].mean()
            loss = (1 - c.eps) * loss + c.eps * flat
        total = total + weight * loss
    return total / sum(weights)


# ---- checkpoint table ------------------------------------------------------------------------------------------------


def half(side: str) -> list[Entry]:
    """The rows of the encoder's or the decoder's table, with nothing before them."""
    rows: list[Entry] = [
        ("word_embeddings.weight", "embed.tokens.weight"),
        ("position_embeddings.weight", "embed.positions.weight"),
        ("embeddings_layer_norm.{p}", "embed.norm.{p}"),
        ("layers.{i}.self_attn.{query_proj|key_proj|value_proj}.{p}", "layers.{i}.attn.qkv.{p}", Fuse()),
        ("layers.{i}.self_attn.out_proj.{p}", "layers.{i}.attn.out.{p}"),
        ("layers.{i}.self_attn_layer_norm.{p}", "layers.{i}.attn_norm.{p}"),
        ("layers.{i}.feed_forward.intermediate.{p}", "layers.{i}.ffn.up.{p}"),
        ("layers.{i}.feed_forward.output.{p}", "layers.{i}.ffn.down.{p}"),
        ("layers.{i}.feed_forward_layer_norm.{p}", "layers.{i}.ffn_norm.{p}"),
    ]
    if side == "decoder":
        rows += [
            ("ngram_embeddings.weight", "ahead.weight"),
            ("layers.{i}.self_attn.relative_pos_embeddings.{p}", "layers.{i}.attn.distances.{p}"),
            ("layers.{i}.cross_attn.query_proj.{p}", "layers.{i}.cross.q.{p}"),
            ("layers.{i}.cross_attn.{key_proj|value_proj}.{p}", "layers.{i}.cross.kv.{p}", Fuse()),
            ("layers.{i}.cross_attn.out_proj.{p}", "layers.{i}.cross.out.{p}"),
            ("layers.{i}.cross_attn_layer_norm.{p}", "layers.{i}.cross_norm.{p}"),
        ]
    return rows


def inside(side: str) -> list[Entry]:
    return [(f"{side}.{row[0]}", f"{side}.{row[1]}", *row[2:]) for row in half(side)]


HEADS: list[Entry] = [("lm_head.weight", "lm.decoder.weight")]
KEYS = KeyMap(
    [("word_embeddings.weight", "shared.weight"), *inside("encoder"), *inside("decoder")], heads=HEADS,
    prefix="prophetnet",
)  # fmt: skip
ALONE = KeyMap(inside("decoder"), heads=HEADS, fresh=[".cross.", ".cross_norm."], prefix="prophetnet")
ProphetNetPreTrained.backbone, ProphetNetPreTrained.keys = ProphetNetModel, KEYS
ProphetNetDecoderModel.backbone, ProphetNetDecoderModel.keys = ProphetNetDecoderModel, ALONE
# a half by itself has the bare names; out of the file of a whole it finds its own, and the table that both share
ENCODER, DECODER = (
    KeyMap([*half(name), *((f"{name}.{row[0]}", *row[1:]) for row in half(name))], prefix="prophetnet")
    for name in ("encoder", "decoder")
)
ProphetNetEncoder.backbone, ProphetNetEncoder.keys = ProphetNetEncoder, ENCODER
ProphetNetDecoder.backbone, ProphetNetDecoder.keys = ProphetNetDecoder, DECODER


# ---- task classes ----------------------------------------------------------------------------------------------------


class ProphetNetForConditionalGeneration(ProphetNetPreTrained, Seq2SeqLM):
    """Writes a text that belongs to a source."""

    def answer(  # type: ignore[override]
        self, inputs: dict[str, Any], labels: Tensor | None = None, logits_to_keep: int | None = None
    ) -> ProphetNetSeq2SeqLMOutput:
        """labels: (rows, target length), not shifted, -100 for a token that is not to be predicted; without
            decoder_input_ids the decoder reads these, shifted.
        logits_to_keep: score the words after this many last tokens only, as writing does; 0 or None = after all.
        """
        if labels is not None and not reads_targets(inputs):
            inputs = inputs | {"decoder_input_ids": self.prepare_decoder_input_ids_from_labels(labels)}
        outputs = self.base_model(**inputs, return_dict=True)
        length = outputs.last_hidden_state.shape[1]
        real = real_targets(inputs, length)
        return ProphetNetSeq2SeqLMOutput(**foretold(self, outputs, labels, real, logits_to_keep))


class ProphetNetForCausalLM(ProphetNetPreTrained, DecoderLM):
    """Writes with the decoder alone, or after another encoder."""

    backbone, keys = ProphetNetDecoderModel, ALONE

    def answer(  # type: ignore[override]
        self, inputs: dict[str, Any], labels: Tensor | None = None, logits_to_keep: int | None = None
    ) -> ProphetNetDecoderLMOutput:
        """labels: (rows, length), the word that is to come after each token, -100 for none.

        logits_to_keep: score the words after this many last tokens only, as writing does; 0 or None = after all.
        """
        outputs = self.encode(inputs)
        real = real_tokens(inputs, outputs.last_hidden_state.shape[1])
        return ProphetNetDecoderLMOutput(**foretold(self, outputs, labels, real, logits_to_keep))


def foretold(model: Any, outputs: Any, labels: Tensor | None, real: Tensor | None, keep: int | None) -> dict[str, Any]:
    """The words that the streams tell, the loss if there are labels, and what else the model without a head gave."""
    streams = outputs.last_hidden_state_ngram.unflatten(1, (model.config.ngram, -1))
    if keep and labels is not None:
        raise ValueError("labels are held against the scores of all tokens: leave logits_to_keep out.")
    logits = model.lm(streams[:, :, -keep:] if keep else streams)
    states = ("last_hidden_state", "last_hidden_state_ngram")
    return {
        "loss": None if labels is None else ngram_loss(logits, labels, real, model.config),
        "logits": logits[:, 0],
        "logits_ngram": logits[:, 1:] if model.config.ngram > 1 else None,
    } | {name: value for name, value in outputs.items() if name not in states}
