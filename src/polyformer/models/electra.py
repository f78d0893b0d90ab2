"""ELECTRA: an encoder pretrained to tell which tokens a small generator has replaced.

Clark, Luong, Le and Manning 2020, arXiv 2003.10555; google-research/electra. BERT's stack on embeddings of a width of
their own, projected where it differs; no pooler: a sequence is read at its first token. The norm of the generator's
head has the configuration's eps, as the published ones were trained (Transformers 4.6 has 1e-5 there).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.keymap import Fuse, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.tasks import (
    MaskedLM,
    QuestionAnswering,
    ReplacedTokenDetection,
    SequenceClassification,
    SummarisedChoice,
    TokenClassification,
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
from polyformer.parts.heads import DenseHead, LMHead
from polyformer.parts.layout import Layout
from polyformer.parts.pooling import POOLINGS, SUMMARIES, pooling
from polyformer.parts.positions import SCHEMES, scheme
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("electra")
class ElectraConfig(Config):
    """electra-small's discriminator by default; field names and defaults are Hugging Face's.

    position_embedding_type: "absolute", or "relative_key" or "relative_key_query" (parts/positions.py).
    summary_type: the vector that multiple choice reads, if config.pooling names none: "first", "last", "mean" or
        "cls_index". summary_use_proj, summary_activation: whether a linear map follows, and which function;
        summary_first_dropout, summary_last_dropout: before and after these.
    classifier_dropout: of the other classification heads; hidden_dropout_prob unless set.
    """

    vocab_size: int = 30522
    embedding_size: int = 128
    hidden_size: int = 256
    num_hidden_layers: int = 12
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    summary_type: str = "first"
    summary_use_proj: bool = True
    summary_activation: str | None = "gelu"
    summary_last_dropout: float = 0.1
    pad_token_id: int | None = 0
    position_embedding_type: str = "absolute"
    classifier_dropout: float | None = None
    summary_first_dropout: float = 0.0

    def check(self) -> None:
        self.check_heads()
        self.check_choice("position_embedding_type", SCHEMES)
        self.check_choice("pooling", POOLINGS)
        self.check_choice("summary_type", SUMMARIES)

    @property
    def classifier_dropout_rate(self) -> float:
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout


# ---- the model -------------------------------------------------------------------------------------------------------


class ElectraPreTrained(PreTrainedModel):
    """What ELECTRA's classes share."""

    config_class = ElectraConfig
    base_model_prefix = "electra"


def layer(c: ElectraConfig) -> PostNormBlock:
    """One layer of the stack."""
    width, heads = c.hidden_size, c.num_attention_heads
    positions = scheme(c.position_embedding_type, c.max_position_embeddings, width // heads)
    attn = Attention(width, heads, c.attention_probs_dropout_prob, positions)
    ffn = feed_forward(width, c.intermediate_size, activation(c.hidden_act), c.chunk_size_feed_forward)
    return PostNormBlock(attn, ffn, lambda: nn.LayerNorm(width, c.layer_norm_eps), c.hidden_dropout_prob)


class ElectraModel(ElectraPreTrained):
    """The encoder: states of all tokens; one vector a sequence too where config.pooling names a way."""

    def __init__(self, config: ElectraConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        c, narrow = config, config.embedding_size
        embeddings = Embeddings if c.position_embedding_type == "absolute" else UnplacedEmbeddings
        self.embed = embeddings(
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
            head_mask: (heads,) or (layers, heads), a factor of every head's attention weights.

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

KEYS = KeyMap(
    [
        ("embeddings.word_embeddings.weight", "embed.tokens.weight"),
        ("embeddings.position_embeddings.weight", "embed.positions.weight"),
        ("embeddings.token_type_embeddings.weight", "embed.types.weight"),
        ("embeddings.LayerNorm.{p}", "embed.norm.{p}"),
        ("embeddings_project.{p}", "project.{p}"),
        ("encoder.layer.{i}.attention.self.{query|key|value}.{p}", "layers.{i}.attn.qkv.{p}", Fuse()),
        ("encoder.layer.{i}.attention.self.distance_embedding.weight", "layers.{i}.attn.positions.distances.weight"),
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
        ("discriminator_predictions.dense.{p}", "replaced.dense.{p}"),
        ("discriminator_predictions.dense_prediction.{p}", "replaced.scores.{p}"),
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
    prefix="electra",
)
ElectraPreTrained.backbone, ElectraPreTrained.keys = ElectraModel, KEYS


# ---- task classes ----------------------------------------------------------------------------------------------------


class ElectraForPreTraining(ElectraPreTrained, ReplacedTokenDetection):
    """The discriminator: tells replaced tokens, as ELECTRA was pretrained."""


class ElectraForMaskedLM(ElectraPreTrained, MaskedLM):
    """The generator: fills in masked words."""

    def word_head(self) -> LMHead:
        c = self.config
        norm = nn.LayerNorm(c.embedding_size, c.layer_norm_eps)
        return LMHead(c.hidden_size, c.vocab_size, F.gelu, norm, c.embedding_size)


class ElectraForSequenceClassification(ElectraPreTrained, SequenceClassification):
    """Labels or grades a text or a pair of texts."""

    def head(self, labels: int) -> nn.Module:
        return DenseHead(self.width, self.config.hidden_size, labels, F.gelu, self.config.classifier_dropout_rate)


class ElectraForMultipleChoice(ElectraPreTrained, SummarisedChoice):
    """Picks one of several continuations."""


class ElectraForTokenClassification(ElectraPreTrained, TokenClassification):
    """Tags every token."""


class ElectraForQuestionAnswering(ElectraPreTrained, QuestionAnswering):
    """Finds the answer to a question in a text."""
