"""ConvBERT: an encoder half of whose heads are convolutions, since much of BERT's attention looks nearby anyway.

Jiang, Yu, Zhou, Chen, Feng and Yan 2020, arXiv 2008.02496; yitu-opensource/ConvBert. ELECTRA's stack and heads, but
attention has half of the width and fewer heads, beside a span-based dynamic convolution (parts/spanconv.py) that has
the other half; both mix by the same queries. Padding is never read (in Transformers 4.6 the convolution reads it). The
word head's norm has the configuration's eps, as in the original (Transformers 4.6 has 1e-5 there); attention has half
of the width whatever head_ratio is, as in Transformers 5 (4.6 runs with a ratio of 2 only, where it has).
"""

from collections.abc import Iterable
from dataclasses import field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.errors import ConfigError
from polyformer.core.keymap import Fuse, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.tasks import (
    MaskedLM,
    QuestionAnswering,
    SequenceClassification,
    SummarisedChoice,
    TokenClassification,
)
from polyformer.parts.attend import attend, attend_packed
from polyformer.parts.attention import keep_columns, keep_rows, kept_heads, per_layer
from polyformer.parts.blocks import PostNormBlock
from polyformer.parts.embeddings import Embeddings, batch_shape, check_ids, check_length, check_width
from polyformer.parts.feedforward import activation, feed_forward
from polyformer.parts.heads import DenseHead, LMHead
from polyformer.parts.layout import Layout
from polyformer.parts.pooling import POOLINGS, SUMMARIES, pooling
from polyformer.parts.spanconv import SpacedLayout, SpanConv
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("convbert")
class ConvBertConfig(Config):
    """conv-bert-base by default; field names and defaults are Hugging Face's.

    head_ratio: a layer has num_attention_heads // head_ratio heads of attention, at least one, and as many kernels.
    conv_kernel_size: how many tokens a kernel spans.
    num_groups: into how many groups the feed-forward's matrices are cut.
    summary_type: the vector that multiple choice reads, if config.pooling names none: "first", "last", "mean" or
        "cls_index". summary_use_proj, summary_activation: whether a linear map follows, and which function;
        summary_first_dropout, summary_last_dropout: before and after these.
    classifier_dropout: of the other classification heads; hidden_dropout_prob unless set.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 1
    bos_token_id: int | None = field(default=0, kw_only=True)
    eos_token_id: int | None = field(default=2, kw_only=True)
    embedding_size: int = 768
    head_ratio: int = 2
    conv_kernel_size: int = 9
    num_groups: int = 1
    classifier_dropout: float | None = None
    summary_type: str = "last"
    summary_use_proj: bool = False
    summary_activation: str | None = None
    summary_first_dropout: float = 0.0
    summary_last_dropout: float = 0.0

    def check(self) -> None:
        self.check_heads()
        self.check_choice("pooling", POOLINGS)
        self.check_choice("summary_type", SUMMARIES)
        for name in ("head_ratio", "conv_kernel_size", "num_groups"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, but it is at least 1.")
        if self.hidden_size % (2 * self.attention_heads):
            raise ConfigError(
                f"hidden_size {self.hidden_size} is no multiple of twice the {self.attention_heads} heads of a layer "
                f"(num_attention_heads // head_ratio), which share it with as many kernels."
            )
        if self.hidden_size % self.num_groups or self.intermediate_size % self.num_groups:
            raise ConfigError(
                f"hidden_size {self.hidden_size} and intermediate_size {self.intermediate_size} are not both multiples "
                f"of num_groups {self.num_groups}."
            )

    @property
    def attention_heads(self) -> int:
        """Of a layer."""
        return max(1, self.num_attention_heads // self.head_ratio)

    @property
    def classifier_dropout_rate(self) -> float:
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout


# ---- the model -------------------------------------------------------------------------------------------------------


class MixedAttention(nn.Module):
    """Attention and convolution side by side, by the same queries (section 4.3).

        x -+-> keys, values --> attention --+
           +-> queries ----------^  v       +-> linear map
           +------------> span convolution -+

    Args:
        width: of the token states, half of it for either side.
        heads: of attention, and kernels of the convolution.
        taps: how many tokens a kernel spans.
        dropout: of the attention weights.
    """

    def __init__(self, width: int, heads: int, taps: int, dropout: float) -> None:
        super().__init__()
        half = width // 2
        self.dim, self.heads = half // heads, list(range(heads))
        self.q, self.kv = nn.Linear(width, half), nn.Linear(width, 2 * half)
        self.span = SpanConv(width, heads, self.dim, taps)
        self.out = nn.Linear(2 * half, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, layout: SpacedLayout, memory: None, head_mask: Tensor | None, taps: Taps | None
    ) -> Tensor:
        """x (rows, length, width), or (tokens, width) where the layout is packed -> the same shape."""
        q = self.q(x)
        return self.out(torch.cat([self.attend(x, q, layout, head_mask, taps), self.span(x, q, layout)], -1))

    def attend(self, x: Tensor, q: Tensor, layout: Layout, head_mask: Tensor | None, taps: Taps | None) -> Tensor:
        """(..., heads * dim)."""
        # (..., 2 * heads * dim) -> (..., 2, heads, dim)
        k, v = self.kv(x).unflatten(-1, (2, -1, self.dim)).unbind(-3)
        q = q.unflatten(-1, (-1, self.dim))
        if len(self.heads) < self.span.heads:  # pruned heads leave their queries to the convolution
            q = q[..., self.heads, :]
        if layout.packing is not None:
            return attend_packed(q, k, v, layout.packing, dropout=self.dropout).flatten(-2)
        y, weights = attend(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask=layout.mask, dropout=self.dropout,
            head_mask=head_mask, weights=taps is not None and taps.attentions is not None,
        )  # fmt: skip
        if taps is not None:
            taps.saw(weights)
        return y.transpose(1, 2).flatten(2)

    def prune(self, heads: Iterable[int]) -> None:
        """Remove these heads of the attention for good; numbers are those of the unpruned layer, and stay so."""
        inner = len(self.heads) * self.dim
        self.heads, kept = kept_heads(self.heads, heads, self.dim)
        self.kv = keep_rows(self.kv, torch.cat([kept, kept + inner]))
        self.out = keep_columns(self.out, torch.cat([kept, torch.arange(inner, self.out.in_features)]))


class GroupedLinear(nn.Linear):
    """A linear map of groups of channels, each with a matrix of its own; weight (groups, inputs, outputs)."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__(inputs, outputs)
        self.weight = nn.Parameter(torch.empty(groups, inputs // groups, outputs // groups))
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        grouped = x.unflatten(-1, (self.weight.shape[0], -1))
        return torch.einsum("...gi,gio->...go", grouped, self.weight).flatten(-2) + self.bias


class ConvBertPreTrained(PreTrainedModel):
    """What ConvBERT's classes share."""

    config_class = ConvBertConfig
    base_model_prefix = "convbert"

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SpanConv):
            nn.init.normal_(module.depthwise, std=self.config.initializer_range)


def layer(c: ConvBertConfig) -> PostNormBlock:
    """One layer of the stack."""
    width, inner = c.hidden_size, c.intermediate_size
    attn = MixedAttention(width, c.attention_heads, c.conv_kernel_size, c.attention_probs_dropout_prob)
    ffn = feed_forward(width, inner, activation(c.hidden_act), c.chunk_size_feed_forward)
    if c.num_groups > 1:
        ffn.up, ffn.down = GroupedLinear(width, inner, c.num_groups), GroupedLinear(inner, width, c.num_groups)
    return PostNormBlock(attn, ffn, lambda: nn.LayerNorm(width, c.layer_norm_eps), c.hidden_dropout_prob)


class ConvBertModel(ConvBertPreTrained):
    """The encoder: states of all tokens; one vector a sequence too where config.pooling names a way."""

    def __init__(self, config: ConvBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        c, narrow = config, config.embedding_size
        self.embed = Embeddings(
            c.vocab_size, c.max_position_embeddings, c.type_vocab_size, narrow,
            nn.LayerNorm(narrow, c.layer_norm_eps), c.hidden_dropout_prob, c.pad_token_id,
        )  # fmt: skip
        self.project = nn.Linear(narrow, c.hidden_size) if narrow != c.hidden_size else nn.Identity()
        self.layers = nn.ModuleList(layer(c) for _ in range(c.num_hidden_layers))
        depth = c.num_hidden_layers
        self.pooler = pooling(c.pooling, c.hidden_size, depth) if c.pooling and add_pooling_layer else None
        self.init_weights()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed.tokens

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        self.embed.tokens = table

    @property
    def heads(self) -> int:
        return self.config.attention_heads

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
            input_ids: (rows, length) int64, or inputs_embeds (rows, length, embedding_size) in their place.
            attention_mask: (rows, length), 0 = padding; or (rows, queries, keys), 0 = may not attend, of which the
                convolution knows nothing: it reads all neighbours.
            token_type_ids: (rows, length) segments, 0 by default.
            position_ids: (rows or 1, length); counted from the first real token by default.
            head_mask: (heads,) or (layers, heads), a factor of every head's attention weights; of the
                num_attention_heads // head_ratio heads that a layer has.

        Raises:
            ValueError: too long a sequence, an id outside of the vocabulary, both or neither of ids and embeddings.
        """
        c = self.config
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        rows, length = batch_shape(input_ids, inputs_embeds)
        check_length(length, c.max_position_embeddings, position_ids)
        check_width(inputs_embeds, c.embedding_size)
        check_ids(input_ids, c.vocab_size, "input_ids", (rows, length))
        check_ids(token_type_ids, c.type_vocab_size, "token_type_ids", (rows, length))
        check_ids(position_ids, c.max_position_embeddings, "position_ids", (rows, length))

        packable = self.packable and not attentions and head_mask is None
        layout = Layout.of((rows, length), attention_mask, self.device, packable=packable)
        layout = SpacedLayout.around(layout, c.conv_kernel_size)
        every_layer = hidden_states or (self.pooler is not None and self.pooler.needs_layers)
        taps = Taps(layout, hidden_states=every_layer, attentions=attentions)
        head_masks = per_layer(head_mask, [len(block.attn.heads) for block in self.blocks()])
        positions = layout.positions if position_ids is None else layout.pack(position_ids.expand(rows, length))

        # packed: (rows, length) -> (tokens,), padding left out until the last layer is done
        x = self.embed(layout.pack(input_ids), layout.pack(token_type_ids), positions, layout.pack(inputs_embeds))
        x = self.project(x)
        taps.state(x)
        for block, weights in zip(self.layers, head_masks, strict=True):
            x = self.through(block, x, layout, None, weights, taps)
            taps.state(x)
        x = layout.unpack(x)

        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=x,
            pooler_output=None if self.pooler is None else self.pooler(x, layout.real, taps.hidden_states),
            hidden_states=taps.seen("hidden_states") if hidden_states else None,
            attentions=taps.seen("attentions"),
        )
        return result if named else result.to_tuple()


# ---- checkpoint table ------------------------------------------------------------------------------------------------


def channels_first(ours: Tensor, count: int) -> list[Tensor]:
    """(taps, channels) as a convolution without groups of channels keeps it: (channels, 1, taps)."""
    return [ours.T[:, None]]


def with_one_tap(ours: Tensor, count: int) -> list[Tensor]:
    """A linear map as a convolution of one token: (..., 1)."""
    return [ours[..., None]]


SELF = "encoder.layer.{i}.attention.self"

KEYS = KeyMap(
    [
        ("embeddings.word_embeddings.weight", "embed.tokens.weight"),
        ("embeddings.position_embeddings.weight", "embed.positions.weight"),
        ("embeddings.token_type_embeddings.weight", "embed.types.weight"),
        ("embeddings.LayerNorm.{p}", "embed.norm.{p}"),
        ("embeddings_project.{p}", "project.{p}"),
        (SELF + ".query.{p}", "layers.{i}.attn.q.{p}"),
        (SELF + ".{key|value}.{p}", "layers.{i}.attn.kv.{p}", Fuse()),
        (SELF + ".key_conv_attn_layer.depthwise.weight", "layers.{i}.attn.span.depthwise", channels_first),
        (SELF + ".key_conv_attn_layer.pointwise.weight", "layers.{i}.attn.span.pointwise.weight", with_one_tap),
        (SELF + ".key_conv_attn_layer.bias", "layers.{i}.attn.span.pointwise.bias", with_one_tap),
        (SELF + ".conv_kernel_layer.{p}", "layers.{i}.attn.span.kernel.{p}"),
        (SELF + ".conv_out_layer.{p}", "layers.{i}.attn.span.value.{p}"),
        ("encoder.layer.{i}.attention.output.dense.{p}", "layers.{i}.attn.out.{p}"),
        ("encoder.layer.{i}.attention.output.LayerNorm.{p}", "layers.{i}.attn_norm.{p}"),
        ("encoder.layer.{i}.intermediate.dense.{p}", "layers.{i}.ffn.up.{p}"),
        ("encoder.layer.{i}.output.dense.{p}", "layers.{i}.ffn.down.{p}"),
        ("encoder.layer.{i}.output.LayerNorm.{p}", "layers.{i}.ffn_norm.{p}"),
        ("pooler.dense.{p}", "pooler.dense.{p}"),
        ("pooler.query.{p}", "pooler.query.{p}"),
        ("pooler.layer_weights", "pooler.layer_weights"),
    ],
    heads=[
        ("generator_predictions.dense.{p}", "lm.dense.{p}"),
        ("generator_predictions.LayerNorm.{p}", "lm.norm.{p}"),
        ("generator_lm_head.{p}", "lm.decoder.{p}"),
        ("sequence_summary.summary.{p}", "classifier.summary.dense.{p}"),
        ("classifier.dense.{p}", "classifier.dense.{p}"),
        ("classifier.out_proj.{p}", "classifier.scores.{p}"),
        ("classifier.{p}", "classifier.out.{p}"),
        ("qa_outputs.{p}", "qa_outputs.{p}"),
    ],
    drop=["embeddings.position_ids", "embeddings.token_type_ids"],
    fresh=["pooler."],
    prefix="convbert",
)
ConvBertPreTrained.backbone, ConvBertPreTrained.keys = ConvBertModel, KEYS


# ---- task classes ----------------------------------------------------------------------------------------------------


class ConvBertForMaskedLM(ConvBertPreTrained, MaskedLM):
    """Fills in masked words."""

    def word_head(self) -> LMHead:
        c = self.config
        norm = nn.LayerNorm(c.embedding_size, c.layer_norm_eps)
        return LMHead(c.hidden_size, c.vocab_size, F.gelu, norm, c.embedding_size)


class ConvBertForSequenceClassification(ConvBertPreTrained, SequenceClassification):
    """Labels or grades a text or a pair of texts."""

    def head(self, labels: int) -> nn.Module:
        c = self.config
        return DenseHead(self.width, c.hidden_size, labels, activation(c.hidden_act), c.classifier_dropout_rate)


class ConvBertForMultipleChoice(ConvBertPreTrained, SummarisedChoice):
    """Picks one of several continuations."""


class ConvBertForTokenClassification(ConvBertPreTrained, TokenClassification):
    """Tags every token."""


class ConvBertForQuestionAnswering(ConvBertPreTrained, QuestionAnswering):
    """Finds the answer to a question in a text."""
