"""ALBERT: BERT with one layer's weights used at every depth, and narrow embeddings.

Lan et al. 2019, arXiv 1909.11942; google-research/albert modeling.py. Embeddings are projected to the width of the
layers; these belong to groups, and every layer of a group is the same `inner_group_num` blocks; pretraining asks if two
segments are in order. The norm of the word head has the configuration's eps, as the published checkpoints were trained
(Transformers 4.6 has 1e-5 there), and dropout follows the feed-forward network, as it does in the original. Relative
positions, which the original lacks, are added to the scores unscaled, as in Transformers.
"""

from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.errors import ConfigError
from polyformer.core.keymap import Fuse, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions, ModelOutput, Tensors
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.tasks import (
    MaskedLM,
    MultipleChoice,
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
    WordScores,
    real_tokens,
)
from polyformer.parts.attention import Attention, per_layer
from polyformer.parts.blocks import PostNormBlock
from polyformer.parts.embeddings import (
    Embeddings,
    UnplacedEmbeddings,
    batch_shape,
    check_ids,
    check_length,
    check_width,
)
from polyformer.parts.feedforward import activation, feed_forward
from polyformer.parts.heads import LMHead
from polyformer.parts.layout import Layout
from polyformer.parts.losses import cross_entropy, token_loss
from polyformer.parts.pooling import POOLINGS, pooling
from polyformer.parts.positions import SCHEMES, scheme
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("albert")
class AlbertConfig(Config):
    """albert-xxlarge by default; field names and defaults are Hugging Face's.

    num_hidden_groups: sets of weights; the layers are shared out among them in order.
    inner_group_num: blocks that one layer consists of.
    position_embedding_type: "absolute", or "relative_key" or "relative_key_query" (parts/positions.py).
    """

    vocab_size: int = 30000
    embedding_size: int = 128
    hidden_size: int = 4096
    num_hidden_layers: int = 12
    num_hidden_groups: int = 1
    num_attention_heads: int = 64
    intermediate_size: int = 16384
    inner_group_num: int = 1
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0
    attention_probs_dropout_prob: float = 0
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    classifier_dropout_prob: float | None = 0.1
    position_embedding_type: str = "absolute"
    pad_token_id: int | None = 0
    bos_token_id: int | None = field(default=2, kw_only=True)
    eos_token_id: int | None = field(default=3, kw_only=True)

    def check(self) -> None:
        self.check_heads()
        self.check_choice("position_embedding_type", SCHEMES)
        self.check_choice("pooling", POOLINGS)
        if not 1 <= self.num_hidden_groups <= self.num_hidden_layers:
            raise ConfigError(
                f"num_hidden_groups is {self.num_hidden_groups}, but {self.num_hidden_layers} layers can be shared out "
                f"among 1 to {self.num_hidden_layers} groups."
            )

    @property
    def classifier_dropout_rate(self) -> float:
        return self.hidden_dropout_prob if self.classifier_dropout_prob is None else self.classifier_dropout_prob


# ---- the model -------------------------------------------------------------------------------------------------------


class AlbertPreTrained(PreTrainedModel):
    """What ALBERT's classes share."""

    config_class = AlbertConfig
    base_model_prefix = "albert"

    def word_head(self) -> LMHead:
        c = self.config
        norm = nn.LayerNorm(c.embedding_size, c.layer_norm_eps)
        return LMHead(c.hidden_size, c.vocab_size, activation(c.hidden_act), norm, c.embedding_size)


def block(c: AlbertConfig) -> PostNormBlock:
    """Attention and feed-forward, BERT's."""
    width, heads = c.hidden_size, c.num_attention_heads
    positions = scheme(c.position_embedding_type, c.max_position_embeddings, width // heads, scale=1.0)
    attn = Attention(width, heads, c.attention_probs_dropout_prob, positions)
    ffn = feed_forward(width, c.intermediate_size, activation(c.hidden_act), c.chunk_size_feed_forward)
    return PostNormBlock(attn, ffn, lambda: nn.LayerNorm(width, c.layer_norm_eps), c.hidden_dropout_prob)


class AlbertModel(AlbertPreTrained):
    """The encoder with a pooler: states of all tokens, one vector a sequence."""

    def __init__(self, config: AlbertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        c, narrow = config, config.embedding_size
        embeddings = Embeddings if c.position_embedding_type == "absolute" else UnplacedEmbeddings
        self.embed = embeddings(
            c.vocab_size, c.max_position_embeddings, c.type_vocab_size, narrow,
            nn.LayerNorm(narrow, c.layer_norm_eps), c.hidden_dropout_prob, c.pad_token_id,
        )  # fmt: skip
        self.project = nn.Linear(narrow, c.hidden_size)
        self.groups = nn.ModuleList(
            nn.ModuleList(block(c) for _ in range(c.inner_group_num)) for _ in range(c.num_hidden_groups)
        )
        depth = c.num_hidden_layers
        self.pooler = pooling(c.pooling or "cls", c.hidden_size, depth) if add_pooling_layer else None
        self.init_weights()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed.tokens

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        self.embed.tokens = table

    def blocks(self) -> list[Any]:
        return list(chain.from_iterable(self.groups))  # type: ignore[arg-type]

    def group_masks(self, head_mask: Tensor | None) -> list[list[Tensor | None]]:
        """The head mask of every block of every group: the row of the layer that is the first to use the group, and of
        the layers after it for further blocks. A mask is of weights, and those of a group are one set."""
        depth, groups = self.config.num_hidden_layers, len(self.groups)
        rows = per_layer(head_mask, [len(self.blocks()[0].attn.heads)] * depth)
        share = depth // groups
        return [
            [rows[g * share + min(j, share - 1)] for j in range(self.config.inner_group_num)] for g in range(groups)
        ]

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
            attention_mask: (rows, length), 0 = padding; or (rows, queries, keys), 0 = may not attend.
            token_type_ids: (rows, length) segments, 0 by default.
            position_ids: (rows or 1, length); counted from the first real token by default.
            head_mask: (heads,) or (layers, heads), a factor of every head's attention weights; layers that have the
                same weights have the row of the first of them.

        Raises:
            ValueError: too long a sequence, an id outside of the vocabulary, both or neither of ids and embeddings.
        """
        c = self.config
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        rows, length = batch_shape(input_ids, inputs_embeds)
        placed = position_ids if c.position_embedding_type == "absolute" else None
        check_length(length, c.max_position_embeddings, placed)
        check_width(inputs_embeds, c.embedding_size)
        check_ids(input_ids, c.vocab_size, "input_ids", (rows, length))
        check_ids(token_type_ids, c.type_vocab_size, "token_type_ids", (rows, length))
        check_ids(position_ids, c.max_position_embeddings, "position_ids", (rows, length))

        packable = self.packable and not attentions and head_mask is None
        layout = Layout.of((rows, length), attention_mask, self.device, packable=packable)
        every_layer = hidden_states or (self.pooler is not None and self.pooler.needs_layers)
        taps = Taps(layout, hidden_states=every_layer, attentions=attentions)
        head_masks = self.group_masks(head_mask)
        positions = layout.positions if position_ids is None else layout.pack(position_ids.expand(rows, length))

        # packed: (rows, length) -> (tokens,), padding left out until the last layer is done
        x = self.embed(layout.pack(input_ids), layout.pack(token_type_ids), positions, layout.pack(inputs_embeds))
        x = self.project(x)
        taps.state(x)
        for i in range(c.num_hidden_layers):
            group = i * c.num_hidden_groups // c.num_hidden_layers
            for inner, weights in zip(self.groups[group], head_masks[group], strict=True):
                x = self.through(inner, x, layout, None, weights, taps)
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

GROUP = "encoder.albert_layer_groups.{i}.albert_layers.{j}"

KEYS = KeyMap(
    [
        ("embeddings.word_embeddings.weight", "embed.tokens.weight"),
        ("embeddings.position_embeddings.weight", "embed.positions.weight"),
        ("embeddings.token_type_embeddings.weight", "embed.types.weight"),
        ("embeddings.LayerNorm.{p}", "embed.norm.{p}"),
        ("encoder.embedding_hidden_mapping_in.{p}", "project.{p}"),
        (GROUP + ".attention.{query|key|value}.{p}", "groups.{i}.{j}.attn.qkv.{p}", Fuse()),
        (GROUP + ".attention.distance_embedding.weight", "groups.{i}.{j}.attn.positions.distances.weight"),
        (GROUP + ".attention.dense.{p}", "groups.{i}.{j}.attn.out.{p}"),
        (GROUP + ".attention.LayerNorm.{p}", "groups.{i}.{j}.attn_norm.{p}"),
        (GROUP + ".ffn.{p}", "groups.{i}.{j}.ffn.up.{p}"),
        (GROUP + ".ffn_output.{p}", "groups.{i}.{j}.ffn.down.{p}"),
        (GROUP + ".full_layer_layer_norm.{p}", "groups.{i}.{j}.ffn_norm.{p}"),
        ("pooler.{p}", "pooler.dense.{p}"),
        ("pooler.query.{p}", "pooler.query.{p}"),
        ("pooler.layer_weights", "pooler.layer_weights"),
    ],
    heads=[
        ("predictions.dense.{p}", "lm.dense.{p}"),
        ("predictions.LayerNorm.{p}", "lm.norm.{p}"),
        ("predictions.decoder.weight", "lm.decoder.weight"),
        ("predictions.bias", "lm.decoder.bias"),
        ("sop_classifier.classifier.{p}", "order_head.out.{p}"),
        ("classifier.{p}", "classifier.out.{p}"),
        ("qa_outputs.{p}", "qa_outputs.{p}"),
    ],
    drop=["embeddings.position_ids", "embeddings.token_type_ids"],
    fresh=["pooler."],
    legacy=[("predictions.decoder.bias", "predictions.bias")],
    prefix="albert",
)
AlbertPreTrained.backbone, AlbertPreTrained.keys = AlbertModel, KEYS


# ---- task classes ----------------------------------------------------------------------------------------------------


@dataclass
class AlbertForPreTrainingOutput(ModelOutput):
    """loss (), prediction_logits (rows, length, words), sop_logits (rows, 2): in order, or swapped."""

    loss: Tensor | None = None
    prediction_logits: Tensor | None = None
    sop_logits: Tensor | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


class AlbertForPreTraining(AlbertPreTrained, WordScores):
    """Masked words and the order of two segments, as ALBERT was pretrained."""

    vector = True
    targets = ("labels", "sentence_order_label")

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__(config)
        self.order_head = self.head(2)
        self.init_weights()

    def answer(
        self, inputs: dict[str, Any], labels: Tensor | None = None, sentence_order_label: Tensor | None = None
    ) -> AlbertForPreTrainingOutput:
        """labels: (rows, length), -100 for a token that is not to be guessed; sentence_order_label: (rows,)."""
        outputs = self.encode(inputs)
        words, order = self.lm(outputs.last_hidden_state), self.order_head(self.read(outputs, inputs))
        loss = None
        if labels is not None and sentence_order_label is not None:
            loss = token_loss(words, labels, real_tokens(inputs, words.shape[1]))
            loss = loss + cross_entropy(order, sentence_order_label, "sentence_order_label")
        return AlbertForPreTrainingOutput(loss, words, order, outputs.hidden_states, outputs.attentions)


class AlbertForMaskedLM(AlbertPreTrained, MaskedLM):
    """Fills in masked words."""


class AlbertForSequenceClassification(AlbertPreTrained, SequenceClassification):
    """Labels or grades a text or a pair of texts."""


class AlbertForMultipleChoice(AlbertPreTrained, MultipleChoice):
    """Picks one of several continuations."""


class AlbertForTokenClassification(AlbertPreTrained, TokenClassification):
    """Tags every token."""


class AlbertForQuestionAnswering(AlbertPreTrained, QuestionAnswering):
    """Finds the answer to a question in a text."""
