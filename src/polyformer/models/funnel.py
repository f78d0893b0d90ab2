"""Funnel-Transformer: an encoder whose blocks halve the sequence, with a decoder that stretches it again for tokens.

Dai, Lai, Yang and Le 2020, arXiv 2006.03236; laiguokun/Funnel-Transformer. Tokens are placed by their distances, as in
Transformer-XL. Padding is never merged with a token and a row begins at its first real token, so that an answer does
not depend on the batch (Transformers merges them, and loses the last token before padding).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.errors import ConfigError
from polyformer.core.keymap import Entry, Fuse, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.tasks import (
    MaskedLM,
    MultipleChoice,
    QuestionAnswering,
    ReplacedTokenDetection,
    SequenceClassification,
    Task,
    TokenClassification,
)
from polyformer.parts.attend import attend
from polyformer.parts.attention import keep_columns, keep_rows, kept_heads, per_layer
from polyformer.parts.embeddings import batch_shape, check_ids, check_width
from polyformer.parts.feedforward import Dropped, activation, feed_forward
from polyformer.parts.heads import DenseHead, WordHead
from polyformer.parts.layout import Layout, tracing
from polyformer.parts.pooling import POOLINGS, LayersPooling, Pooling, pooling
from polyformer.parts.positions import relative_shift, waves
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("funnel")
class FunnelConfig(Config):
    """funnel-transformer/small by default; field names and defaults are Hugging Face's, the uniform ones are aliases.

    block_sizes: layers of each block; every block after the first works on half as many tokens.
    block_repeats: how often each layer of a block runs before the next one does; once by default.
    pooling_type: a pair of tokens becomes its "mean" or its "max".
    pool_q_only: a block's first layer still sees the tokens as they were before they were merged.
    separate_cls: the first token is never merged, and stands nowhere: it is as far from everything.
    truncate_seq: beside it, the last token of a text is left out of each merging, as the reference pretrained.
    attention_type: "relative_shift" or "factorized", two ways to the same numbers; here both are the former.
    initializer_range: weights of the attention's own start evenly between 0 and this; initializer_std: deviation that
        embeddings and linear maps start with, by default 1 and that of Glorot and Bengio.
    """

    aliases = {  # noqa: RUF012
        "hidden_size": "d_model",
        "num_attention_heads": "n_head",
        "intermediate_size": "d_inner",
        "hidden_dropout_prob": "hidden_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }

    vocab_size: int = 30522
    block_sizes: list[int] = field(default_factory=lambda: [4, 4, 4])
    block_repeats: list[int] = field(default_factory=list)
    num_decoder_layers: int = 2
    d_model: int = 768
    n_head: int = 12
    d_head: int = 64
    d_inner: int = 3072
    hidden_act: str = "gelu_new"
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    max_position_embeddings: int = 512
    type_vocab_size: int = 3
    initializer_range: float = 0.1
    initializer_std: float | None = None
    layer_norm_eps: float = 1e-9
    pooling_type: str = "mean"
    attention_type: str = "relative_shift"
    separate_cls: bool = True
    truncate_seq: bool = True
    pool_q_only: bool = True
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        self.block_repeats = self.block_repeats or [1] * len(self.block_sizes)
        super().__post_init__()

    def check(self) -> None:
        sizes, repeats = self.block_sizes, self.block_repeats
        if not sizes or len(sizes) != len(repeats):
            raise ConfigError(f"block_repeats {repeats} must have one number for each of block_sizes {sizes}.")
        if self.d_model % 2:
            raise ConfigError(f"d_model is {self.d_model}, but distances are sines and cosines: it must be even.")
        self.check_choice("pooling_type", MERGES)
        self.check_choice("attention_type", ("relative_shift", "factorized"))
        self.check_choice("pooling", POOLINGS)

    @property
    def num_hidden_layers(self) -> int:
        """Of the encoder, each counted once."""
        return sum(self.block_sizes)

    @property
    def classifier_dropout_rate(self) -> float:
        return self.hidden_dropout


ANY_SEGMENT = 2  # what the tokenizer gives [CLS], which belongs to every segment

# ---- the batch, at every length --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """The tokens of a batch, or what some mergings have left of them. A row begins with its first real one.

    length: of the rows.
    stride: how many tokens lie between one and the next.
    real: (rows, length) bool, None = all.
    types: (rows, length) segments, None = all the same.
    places: (rows, length), where the caller's tokens are; None = where they were.
    """

    length: int
    stride: int
    real: Tensor | None
    types: Tensor | None
    places: Tensor | None = None

    def as_given(self, x: Tensor, axis: int = 1) -> Tensor:
        """x, (rows, ..., length, ...) with its tokens along this axis, in the caller's order."""
        return x if self.places is None else _taken(x, self.places, axis)


def begun(layout: Layout) -> tuple[Tensor | None, Tensor | None]:
    """Places (rows, length) to take tokens from so that rows begin with their first real one, and to put them back.

    None where all do.
    """
    if layout.real is None:
        return None, None
    length = layout.real.shape[1]
    leading = length - 1 - layout.positions[:, -1:]
    if not tracing() and not bool(leading.any()):
        return None, None
    places = torch.arange(length, device=leading.device)
    return (places + leading) % length, (places - leading) % length


def _taken(x: Tensor, places: Tensor, axis: int = 1) -> Tensor:
    shape = [places.shape[0], *[1] * (x.dim() - 1)]
    shape[axis] = places.shape[1]
    return x.gather(axis, places.view(shape).expand_as(x))


def mean_of_pair(a: Tensor, b: Tensor, has_a: Tensor, has_b: Tensor) -> Tensor:
    """The mean of those of the two (rows, pairs, width) that are there (rows, pairs, 1); of none, zeros."""
    total = a.masked_fill(~has_a, 0.0) + b.masked_fill(~has_b, 0.0)
    return total / (has_a.to(a.dtype) + has_b.to(a.dtype)).clamp(min=1.0)


def max_of_pair(a: Tensor, b: Tensor, has_a: Tensor, has_b: Tensor) -> Tensor:
    """The larger of those of the two that are there; of none, zeros."""
    largest = torch.maximum(a.masked_fill(~has_a, -torch.inf), b.masked_fill(~has_b, -torch.inf))
    return largest.masked_fill(~(has_a | has_b), 0.0)


Merge = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
MERGES: dict[str, Merge] = {"mean": mean_of_pair, "max": max_of_pair}


@dataclass(frozen=True)
class Halving:
    """How neighbours become one, and one becomes neighbours again (section 2.2 and 2.3).

    merge: of a pair.
    apart: the first token is in no pair.
    short: then a text's last token is in none either and is lost, unless it is the only other one.

        apart, short    [CLS] a b c d e [SEP]  ->  [CLS] ab cd e
        apart           [CLS] a b c d e [SEP]  ->  [CLS] ab cd e[SEP]
        else            [CLS] a b c d e [SEP]  ->  [CLS]a bc de [SEP]
    """

    merge: Merge
    apart: bool
    short: bool

    def count(self, length: int) -> int:
        """How many states so many become; told in arithmetic, since a recorded graph has no other way."""
        if not self.apart:
            return (length + 1) // 2
        if not self.short:
            return length // 2 + 1
        return (length + 1) // 2 + 2 // length * (length - 1)  # one more of two

    def merged(self, x: Tensor, level: Level) -> tuple[Tensor, Level]:
        """States x (rows, length, width) and what they are of -> the same of about half the length."""
        length, count = level.length, self.count(level.length)
        # the places of a pair; the first token, if it is apart, makes one with itself
        second = 2 * torch.arange(count, device=x.device) + int(not self.apart)
        first, exists = (second - 1).clamp(min=0), second < length
        second = second.clamp(max=length - 1)
        paired = real = torch.ones(1, length, dtype=torch.bool, device=x.device) if level.real is None else level.real
        if self.apart and self.short:
            so_far = real.cumsum(1)
            last = (so_far == so_far[:, -1:]) & (torch.arange(length, device=x.device) > 1)
            paired = real & ~last
        has_first, has_second = paired[:, first], paired[:, second] & exists
        return self.merge(x[:, first], x[:, second], has_first[:, :, None], has_second[:, :, None]), Level(
            count,
            2 * level.stride,
            None if level.real is None else has_first | has_second,
            None if level.types is None else level.types[:, first],
        )

    def stretched(self, x: Tensor, level: Level, length: int) -> Tensor:
        """States (rows, level's length, width) -> (rows, length, width): each for all the tokens merged into it.

        Zeros for a token that was lost.
        """
        if level.stride == 1:
            return x
        if level.real is not None:
            x = x.masked_fill(~level.real[:, :, None], 0.0)
        apart = int(self.apart)
        source = (torch.arange(length, device=x.device) - apart).div(level.stride, rounding_mode="floor") + apart
        lost = source >= level.length
        return x[:, source.clamp(max=level.length - 1)].masked_fill(lost[:, None], 0.0)


# ---- the model -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """How the tokens of one level see those of the same, or of the one before it.

    waves: (distances, width), of falling distances: as `relative_shift` wants them, with the keys' stride between two.
    step: keys between a query and the next.
    same: (rows, 1, queries, keys) bool, whether two are of the same segment; None = all are.
    nowhere: (queries, keys) bool, whether one of the two is a first token that stands nowhere and is of no segment.
    """

    queries: Level
    keys: Level
    waves: Tensor
    step: int
    same: Tensor | None
    nowhere: Tensor | None

    @property
    def mask(self) -> Tensor | None:
        return None if self.keys.real is None else self.keys.real[:, None, None]

    def as_given(self, weights: Tensor) -> Tensor:
        """Attention weights (rows, heads, queries, keys) in the caller's order."""
        return self.queries.as_given(self.keys.as_given(weights, 3), 2)


class FunnelAttention(nn.Module):
    """Attention whose queries read what a key says, how far it is, and whether it is of their segment (appendix A.2).

    score = (q + u) k + (q + v) r(distance) + (q + s) e(same segment), scaled.
    """

    def __init__(self, width: int, heads: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.dim, self.heads, self.scale = dim, list(range(heads)), dim**-0.5
        self.q = nn.Linear(width, heads * dim, bias=False)
        self.kv = nn.Linear(width, 2 * heads * dim)
        self.out = nn.Linear(heads * dim, width)
        self.word_bias = nn.Parameter(torch.empty(heads, dim))
        self.distance_bias = nn.Parameter(torch.empty(heads, dim))
        self.segment_bias = nn.Parameter(torch.empty(heads, dim))
        self.distances = nn.Parameter(torch.empty(width, heads, dim))
        self.segments = nn.Parameter(torch.empty(2, heads, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, source: Tensor, view: View, head_mask: Tensor | None, taps: Taps | None) -> Tensor:
        """Queries x (rows, queries, width), keys and values of source (rows, keys, width) -> as x."""
        # (rows, length, heads * dim) -> (rows, heads, length, dim)
        q = self.q(x).unflatten(-1, (-1, self.dim)).transpose(1, 2)
        k, v = self.kv(source).unflatten(-1, (2, -1, self.dim)).transpose(1, 3).unbind(2)
        y, weights = attend(
            q + self.word_bias[:, None], k, v, bias=self.bias(q, view), mask=view.mask, scale=self.scale,
            dropout=self.dropout, head_mask=head_mask, weights=taps is not None and taps.attentions is not None,
        )  # fmt: skip
        if taps is not None and weights is not None:
            taps.saw(view.as_given(weights))
        return self.out(y.transpose(1, 2).flatten(2))

    def bias(self, q: Tensor, view: View) -> Tensor:
        """What distance and segment add to the scaled scores: (rows, heads, queries, keys)."""
        far = torch.einsum("tw,whd->hdt", view.waves, self.distances)
        by_distance = ((q + self.distance_bias[:, None]) * self.scale) @ far
        bias = relative_shift(by_distance, view.keys.length, view.step)
        by_segment = ((q + self.segment_bias[:, None]) * self.scale) @ self.segments.permute(1, 2, 0)
        other, same = by_segment.split(1, -1)
        bias = bias + (same if view.same is None else torch.where(view.same, same, other))
        return bias if view.nowhere is None else bias.masked_fill(view.nowhere, 0.0)

    def prune(self, heads: Iterable[int]) -> None:
        """Remove these heads for good; numbers are those of the unpruned layer, and stay so."""
        present, inner = self.heads, self.out.in_features
        self.heads, kept = kept_heads(present, heads, self.dim)
        self.q, self.out = keep_rows(self.q, kept), keep_columns(self.out, kept)
        self.kv = keep_rows(self.kv, torch.cat([kept, kept + inner]))
        left = torch.tensor([present.index(h) for h in self.heads], device=self.segments.device)
        for name, p in list(self.named_parameters(recurse=False)):
            setattr(self, name, nn.Parameter(p.data.index_select(p.dim() - 2, left)))


class FunnelLayer(nn.Module):
    """Attention and feed-forward, normalised after each residual; it may look at more tokens than it has."""

    def __init__(self, c: FunnelConfig) -> None:
        super().__init__()
        act = activation(c.hidden_act)
        if c.activation_dropout:
            act = Dropped(act, c.activation_dropout)
        self.attn = FunnelAttention(c.d_model, c.n_head, c.d_head, c.attention_dropout)
        self.attn_norm = nn.LayerNorm(c.d_model, c.layer_norm_eps)
        self.ffn = feed_forward(c.d_model, c.d_inner, act, c.chunk_size_feed_forward)
        self.ffn_norm = nn.LayerNorm(c.d_model, c.layer_norm_eps)
        self.drop = nn.Dropout(c.hidden_dropout)

    def forward(
        self, x: Tensor, source: Tensor, view: View, head_mask: Tensor | None = None, taps: Taps | None = None
    ) -> Tensor:
        """x (rows, queries, width), which looks at source (rows, keys, width) -> as x."""
        x = self.attn_norm(x + self.drop(self.attn(x, source, view, head_mask, taps)))
        return self.ffn_norm(x + self.drop(self.ffn(x)))


class FunnelEmbeddings(nn.Module):
    """Token embeddings, normalised, dropped out; distances and segments are the attention's."""

    def __init__(self, tokens: int, width: int, norm: nn.Module, dropout: float, pad: int | None) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width, padding_idx=pad)
        self.norm = norm
        self.drop = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (rows, length) int64 -> (rows, length, width)."""
        return self.drop(self.norm(self.tokens(ids)))


class FunnelTaps(Taps):
    """Records states in the caller's order, and which tokens of each are real.

    real: (rows, length) bool, None = all; one a state.
    """

    def __init__(self, layout: Layout, *, hidden_states: bool, attentions: bool) -> None:
        super().__init__(layout, hidden_states=hidden_states, attentions=attentions)
        self.real: list[Tensor | None] = []

    def state_at(self, x: Tensor, level: Level) -> None:
        """A layer's output."""
        self.real.append(None if level.real is None else level.as_given(level.real))
        if self.hidden_states is not None:
            self.hidden_states.append(level.as_given(x))


class FunnelPreTrained(PreTrainedModel):
    """What Funnel's classes share."""

    config_class = FunnelConfig
    base_model_prefix = "funnel"
    packable = False
    padded_because = "its layers work on merged tokens, whose number is not that of the real ones"

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_std
        if isinstance(module, FunnelAttention):
            for p in module.parameters(recurse=False):
                nn.init.uniform_(p, 0.0, self.config.initializer_range)
        elif isinstance(module, nn.Linear):
            wide = module.in_features + module.out_features
            nn.init.normal_(module.weight, std=wide**-0.5 if std is None else std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=1.0 if std is None else std)
            if module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
        else:
            super()._init_weights(module)


class FunnelEncoding(FunnelPreTrained):
    """What the models with and without a decoder share: embeddings, and blocks that halve the sequence."""

    pooler: Pooling | None

    def __init__(self, config: FunnelConfig) -> None:
        super().__init__(config)
        c = config
        norm = nn.LayerNorm(c.d_model, c.layer_norm_eps)
        self.embed = FunnelEmbeddings(c.vocab_size, c.d_model, norm, c.hidden_dropout, c.pad_token_id)
        self.encoder = nn.ModuleList(nn.ModuleList(FunnelLayer(c) for _ in range(size)) for size in c.block_sizes)
        self.wave_drop = nn.Dropout(c.hidden_dropout)
        self.halving = Halving(MERGES[c.pooling_type], c.separate_cls, c.truncate_seq)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed.tokens

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        self.embed.tokens = table

    def blocks(self) -> list[Any]:
        return [layer for block in self.encoder for layer in block]  # type: ignore[attr-defined]

    def pooling(self, after: int = 0) -> Pooling | None:
        """Of the states of the blocks' layers and so many after them; None where the configuration names none."""
        c = self.config
        layers = sum(size * repeats for size, repeats in zip(c.block_sizes, c.block_repeats, strict=True))
        return pooling(c.pooling, c.d_model, layers + after) if c.pooling else None

    def placed(
        self,
        ids: Tensor | None,
        mask: Tensor | None,
        types: Tensor | None,
        vectors: Tensor | None,
        asked: tuple[bool, bool, bool],
    ) -> tuple[Tensor, Level, FunnelTaps]:
        """The embedded tokens (rows, length, d_model), each row from its first real one on, and what records more."""
        c = self.config
        rows, length = batch_shape(ids, vectors)
        check_width(vectors, c.d_model)
        check_ids(ids, c.vocab_size, "input_ids", (rows, length))
        check_ids(types, c.type_vocab_size, "token_type_ids", (rows, length))
        if mask is not None and mask.dim() > 2:
            raise ValueError(
                f"attention_mask has shape {tuple(mask.shape)}, but Funnel merges tokens, so who sees whom cannot be "
                f"said one by one: give (rows, length), 0 = padding."
            )
        layout = Layout.of((rows, length), mask, self.device, packable=False)
        forth, back = begun(layout)
        real, types = (x if x is None else x.expand(rows, length) for x in (layout.real, types))
        given = (real, types, vectors if ids is None else ids)
        real, types, tokens = (x if x is None or forth is None else _taken(x, forth) for x in given)
        assert tokens is not None
        attentions, hidden_states, _ = asked
        every_layer = hidden_states or isinstance(self.pooler, LayersPooling)
        taps = FunnelTaps(layout, hidden_states=every_layer, attentions=attentions)
        return tokens if ids is None else self.embed(tokens), Level(length, 1, real, types, back), taps

    def view(self, queries: Level, keys: Level) -> View:
        """How these see those."""
        c, step = self.config, queries.stride // keys.stride
        # A pair stands where its first token stood: `step` keys apart, the first pair at key 0, or at key 1 where the
        # first token is kept apart.
        farthest = step * queries.length + (1 - step if c.separate_cls else 0)
        distances = farthest - torch.arange(step * queries.length + keys.length, device=self.device)
        same = None
        if queries.types is not None and keys.types is not None:
            a, b = queries.types[:, None, :, None], keys.types[:, None, None]
            same = (a == b) | (a == ANY_SEGMENT) | (b == ANY_SEGMENT)
        table = self.wave_drop(waves(distances * keys.stride, c.d_model, self.dtype))
        nowhere = None
        if c.separate_cls:
            i, j = (torch.arange(level.length, device=self.device) for level in (queries, keys))
            nowhere = (i[:, None] == 0) | (j == 0)
        return View(queries, keys, table, step, same, nowhere)

    def encode(
        self, x: Tensor, level: Level, taps: FunnelTaps, head_mask: Tensor | None = None
    ) -> tuple[Tensor, Level, Tensor]:
        """Run the blocks on embedded tokens x (rows, length, d_model).

        Returns:
            the last states (rows, what is left of the length, d_model) and their level; states of all tokens, for a
            decoder to add.
        """
        c, view, early = self.config, self.view(level, level), x
        masks = per_layer(head_mask, [len(layer.attn.heads) for layer in self.blocks()])
        layers = iter(zip(self.blocks(), masks, strict=True))
        taps.state_at(x, level)
        for number, (size, repeats) in enumerate(zip(c.block_sizes, c.block_repeats, strict=True)):
            source, seen = x, view
            if number:
                before = level
                x, level = self.halving.merged(x, before)
                view = self.view(level, level)
                source, seen = (source, self.view(level, before)) if c.pool_q_only else (x, view)
            for _ in range(size):
                layer, weights = next(layers)
                for _ in range(repeats):
                    x = self.through(layer, x, source, seen, weights, taps)
                    taps.state_at(x, level)
                    source, seen = x, view
                    # the first block's last, or earlier where its layers repeat: the reference does not count repeats
                    early = x if len(taps.real) == 1 + c.block_sizes[0] else early
        return x, level, early

    def summed_up(
        self, x: Tensor, level: Level, taps: FunnelTaps, asked: tuple[bool, bool, bool]
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """The model's output, of its last states."""
        x, pooled = level.as_given(x), None
        _, every_state, named = asked
        if isinstance(self.pooler, LayersPooling):
            pooled = self.pooler.mix(taps.hidden_states or [], taps.real)
        elif self.pooler is not None:
            pooled = self.pooler(x, taps.real[-1])
        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=x,
            pooler_output=pooled,
            hidden_states=taps.seen("hidden_states") if every_state else None,
            attentions=taps.seen("attentions"),
        )
        return result if named else result.to_tuple()


class FunnelBaseModel(FunnelEncoding):
    """The encoder alone: what is left of the tokens after its blocks, for reading whole sequences."""

    def __init__(self, config: FunnelConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.pooler = self.pooling() if add_pooling_layer else None
        self.init_weights()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """Encode a batch.

        Args:
            input_ids: (rows, length) int64, or inputs_embeds (rows, length, d_model) in place of their embeddings,
                normalised as they are, as in the reference.
            attention_mask: (rows, length), 0 = padding.
            token_type_ids: (rows, length) segments; 2 belongs to all of them.
            position_ids: of no effect, as in the reference: only distances count.
            head_mask: (heads,) or (layers, heads), a factor of every head's attention weights.

        States of merged tokens begin at place 0 of their row, wherever its padding is.

        Raises:
            ValueError: an id outside of the vocabulary, both or neither of ids and embeddings, a mask of edges.
        """
        asked = self.options(output_attentions, output_hidden_states, return_dict)
        x, level, taps = self.placed(input_ids, attention_mask, token_type_ids, inputs_embeds, asked)
        x, level, _ = self.encode(x, level, taps, head_mask)
        return self.summed_up(x, level, taps, asked)


class FunnelModel(FunnelEncoding):
    """The encoder, and a decoder that stretches what is left to the tokens' number: states of all tokens.

    tokens ── first block ──┬── second block, half as long ── third, a quarter ──┐
                            └───────────────────── + ── stretched ───────────────┘
                                                   └── decoder ── states
    """

    def __init__(self, config: FunnelConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        c = config
        self.decoder = nn.ModuleList(FunnelLayer(c) for _ in range(c.num_decoder_layers))
        # the stretched states count as a layer's
        self.pooler = self.pooling(after=1 + c.num_decoder_layers) if add_pooling_layer else None
        self.init_weights()

    def blocks(self) -> list[Any]:
        return [*super().blocks(), *self.decoder]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """Encode a batch; arguments as of FunnelBaseModel."""
        asked = self.options(output_attentions, output_hidden_states, return_dict)
        x, whole, taps = self.placed(input_ids, attention_mask, token_type_ids, inputs_embeds, asked)
        x, level, early = self.encode(x, whole, taps)
        x = early + self.halving.stretched(x, level, whole.length)
        taps.state_at(x, whole)
        view = self.view(whole, whole)
        for layer in self.decoder:
            x = self.through(layer, x, x, view, None, taps)
            taps.state_at(x, whole)
        return self.summed_up(x, whole, taps, asked)


# ---- checkpoint table ------------------------------------------------------------------------------------------------

LAYER: list[tuple[str, str]] = [
    ("attention.q_head.weight", "attn.q.weight"),
    ("attention.post_proj.{p}", "attn.out.{p}"),
    ("attention.r_w_bias", "attn.word_bias"),
    ("attention.r_r_bias", "attn.distance_bias"),
    ("attention.r_s_bias", "attn.segment_bias"),
    ("attention.r_kernel", "attn.distances"),
    ("attention.seg_embed", "attn.segments"),
    ("attention.layer_norm.{p}", "attn_norm.{p}"),
    ("ffn.linear_1.{p}", "ffn.up.{p}"),
    ("ffn.linear_2.{p}", "ffn.down.{p}"),
    ("ffn.layer_norm.{p}", "ffn_norm.{p}"),
]
STACKS = (("encoder.blocks.{i}.{j}", "encoder.{i}.{j}"), ("decoder.layers.{i}", "decoder.{i}"))
ROWS: list[Entry] = [
    ("embeddings.word_embeddings.weight", "embed.tokens.weight"),
    ("embeddings.layer_norm.{p}", "embed.norm.{p}"),
    *[(f"{theirs}.{name}", f"{ours}.{own}") for theirs, ours in STACKS for name, own in LAYER],
    *[(f"{theirs}.attention.{{k_head|v_head}}.{{p}}", f"{ours}.attn.kv.{{p}}", Fuse()) for theirs, ours in STACKS],
    ("pooler.dense.{p}", "pooler.dense.{p}"),
    ("pooler.query.{p}", "pooler.query.{p}"),
    ("pooler.layer_weights", "pooler.layer_weights"),
]
KEYS = KeyMap(
    ROWS,
    heads=[
        ("discriminator_predictions.dense.{p}", "replaced.dense.{p}"),
        ("discriminator_predictions.dense_prediction.{p}", "replaced.scores.{p}"),
        ("lm_head.{p}", "lm.decoder.{p}"),
        ("classifier.linear_hidden.{p}", "classifier.dense.{p}"),
        ("classifier.linear_out.{p}", "classifier.scores.{p}"),
        ("classifier.{p}", "classifier.out.{p}"),
        ("qa_outputs.{p}", "qa_outputs.{p}"),
    ],
    fresh=["pooler."],
    prefix="funnel",
)
FunnelPreTrained.backbone, FunnelPreTrained.keys = FunnelModel, KEYS
FunnelBaseModel.backbone = FunnelBaseModel


# ---- task classes ----------------------------------------------------------------------------------------------------


class FirstStateHead(DenseHead):
    """A hidden layer before the scores, with dropout between the two."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., labels)."""
        return self.scores(self.drop(self.act(self.dense(x))))


class ReadsFirstState(FunnelPreTrained, Task):
    """Reads the first of the encoder's states, unless config.pooling names another vector; no decoder."""

    backbone = FunnelBaseModel
    withheld = ("position_ids", "head_mask")

    def read(self, outputs: BaseModelOutputWithPoolingAndCrossAttentions, inputs: dict[str, Any]) -> Tensor:
        return outputs.last_hidden_state[:, 0] if outputs.pooler_output is None else outputs.pooler_output

    def head(self, labels: int) -> nn.Module:
        c = self.config
        return FirstStateHead(self.width, c.d_model, labels, torch.tanh, c.hidden_dropout)


class FunnelForPreTraining(FunnelPreTrained, ReplacedTokenDetection):
    """Tells replaced tokens, as Funnel was pretrained (ELECTRA's way)."""


class FunnelForMaskedLM(FunnelPreTrained, MaskedLM):
    """Fills in masked words."""

    def word_head(self) -> WordHead:
        return WordHead(self.config.d_model, self.config.vocab_size)


class FunnelForSequenceClassification(ReadsFirstState, SequenceClassification):
    """Labels or grades a text or a pair of texts."""


class FunnelForMultipleChoice(ReadsFirstState, MultipleChoice):
    """Picks one of several continuations."""


class FunnelForTokenClassification(FunnelPreTrained, TokenClassification):
    """Tags every token."""


class FunnelForQuestionAnswering(FunnelPreTrained, QuestionAnswering):
    """Finds the answer to a question in a text."""
