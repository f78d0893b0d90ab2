"""DistilBERT: BERT's every second layer, trained to answer as BERT does.

Sanh et al. 2019, arXiv 1910.01108. No segments and no pooler (a sequence is read at its first token), no dropout after
the attention, and positions may be the fixed sinusoids of the Transformer. Vectors in place of ids (inputs_embeds) get
positions and a norm like any token's; Transformers 4.6 left both out, later versions do not.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.keymap import Fuse, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.tasks import (
    MaskedLM,
    MultipleChoice,
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
)
from polyformer.parts.attention import Attention, per_layer
from polyformer.parts.blocks import PostNormBlock
from polyformer.parts.embeddings import batch_shape, check_ids, check_length, check_width
from polyformer.parts.feedforward import activation, feed_forward
from polyformer.parts.heads import ClassifierHead, LMHead
from polyformer.parts.layout import Layout
from polyformer.parts.pooling import POOLINGS, pooling
from polyformer.parts.positions import Sinusoids
from polyformer.parts.state import LayerState
from polyformer.parts.taps import Taps

EPS = 1e-12  # of all norms

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("distilbert")
class DistilBertConfig(Config):
    """distilbert-base by default; field names and defaults are Hugging Face's, the uniform ones are aliases.

    sinusoidal_pos_embds: fixed positions instead of learnt ones.
    qa_dropout, seq_classif_dropout: before the heads for answers and for whole sequences; of tags, `dropout`.
    """

    aliases = {  # noqa: RUF012
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }

    vocab_size: int = 30522
    max_position_embeddings: int = 512
    sinusoidal_pos_embds: bool = False
    n_layers: int = 6
    n_heads: int = 12
    dim: int = 768
    hidden_dim: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    initializer_range: float = 0.02
    qa_dropout: float = 0.1
    seq_classif_dropout: float = 0.2
    pad_token_id: int | None = 0

    def check(self) -> None:
        self.check_heads()
        self.check_choice("pooling", POOLINGS)

    @property
    def classifier_dropout_rate(self) -> float:
        return self.dropout


# ---- the model -------------------------------------------------------------------------------------------------------


class DistilBertPreTrained(PreTrainedModel):
    """What DistilBERT's classes share."""

    config_class = DistilBertConfig
    base_model_prefix = "distilbert"


class DistilBertEmbeddings(nn.Module):
    """Token and position vectors, summed, normalised, dropped out."""

    def __init__(self, c: DistilBertConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(c.vocab_size, c.dim, padding_idx=c.pad_token_id)
        table = Sinusoids if c.sinusoidal_pos_embds else nn.Embedding
        self.positions = table(c.max_position_embeddings, c.dim)
        self.norm = nn.LayerNorm(c.dim, EPS)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, ids: Tensor | None, positions: Tensor, vectors: Tensor | None) -> Tensor:
        """ids (...) int64, positions broadcastable to them; vectors (..., width) for ids -> (..., width)."""
        x = self.tokens(ids) if vectors is None else vectors
        return self.drop(self.norm(x + self.positions(positions)))


class DistilBertBlock(PostNormBlock):
    """BERT's block without dropout after the attention."""

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        state: LayerState | None = None,
        head_mask: Tensor | None = None,
        taps: Taps | None = None,
        source: Tensor | None = None,
        source_layout: Layout | None = None,
        cross_head_mask: Tensor | None = None,
    ) -> Tensor:
        """x (rows, length, width), or (tokens, width) packed -> the same shape; an encoder has no state or source."""
        x = self.attn_norm(x + self.attn(x, layout, None, head_mask, taps))
        return self.ffn_norm(x + self.drop(self.ffn(x)))


def layer(c: DistilBertConfig) -> DistilBertBlock:
    """One layer of the stack."""
    attn = Attention(c.dim, c.n_heads, c.attention_dropout)
    ffn = feed_forward(c.dim, c.hidden_dim, activation(c.activation), c.chunk_size_feed_forward)
    return DistilBertBlock(attn, ffn, lambda: nn.LayerNorm(c.dim, EPS), c.dropout)


class DistilBertModel(DistilBertPreTrained):
    """The encoder: states of all tokens; one vector a sequence too where config.pooling names a way."""

    def __init__(self, config: DistilBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        c = config
        self.embed = DistilBertEmbeddings(c)
        self.layers = nn.ModuleList(layer(c) for _ in range(c.n_layers))
        self.pooler = pooling(c.pooling, c.dim, c.n_layers) if c.pooling and add_pooling_layer else None
        self.init_weights()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed.tokens

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        self.embed.tokens = table

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
            ValueError: too long a sequence, an id outside of the vocabulary, both or neither of ids and embeddings.
        """
        c = self.config
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        rows, length = batch_shape(input_ids, inputs_embeds)
        check_length(length, c.max_position_embeddings)
        check_width(inputs_embeds, c.dim)
        check_ids(input_ids, c.vocab_size, "input_ids", (rows, length))

        packable = self.packable and not attentions and head_mask is None
        layout = Layout.of((rows, length), attention_mask, self.device, packable=packable)
        every_layer = hidden_states or (self.pooler is not None and self.pooler.needs_layers)
        taps = Taps(layout, hidden_states=every_layer, attentions=attentions)
        head_masks = per_layer(head_mask, [len(block.attn.heads) for block in self.blocks()])

        # packed: (rows, length) -> (tokens,), padding left out until the last layer is done
        x = self.embed(layout.pack(input_ids), layout.positions, layout.pack(inputs_embeds))
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
        ("embeddings.LayerNorm.{p}", "embed.norm.{p}"),
        ("transformer.layer.{i}.attention.{q_lin|k_lin|v_lin}.{p}", "layers.{i}.attn.qkv.{p}", Fuse()),
        ("transformer.layer.{i}.attention.out_lin.{p}", "layers.{i}.attn.out.{p}"),
        ("transformer.layer.{i}.sa_layer_norm.{p}", "layers.{i}.attn_norm.{p}"),
        ("transformer.layer.{i}.ffn.lin1.{p}", "layers.{i}.ffn.up.{p}"),
        ("transformer.layer.{i}.ffn.lin2.{p}", "layers.{i}.ffn.down.{p}"),
        ("transformer.layer.{i}.output_layer_norm.{p}", "layers.{i}.ffn_norm.{p}"),
        ("pooler.dense.{p}", "pooler.dense.{p}"),
        ("pooler.query.{p}", "pooler.query.{p}"),
        ("pooler.layer_weights", "pooler.layer_weights"),
    ],
    heads=[
        ("vocab_transform.{p}", "lm.dense.{p}"),
        ("vocab_layer_norm.{p}", "lm.norm.{p}"),
        ("vocab_projector.{p}", "lm.decoder.{p}"),
        ("pre_classifier.{p}", "classifier.dense.{p}"),
        ("classifier.{p}", "classifier.out.{p}"),
        ("qa_outputs.{p}", "qa_outputs.out.{p}"),
    ],
    drop=["embeddings.position_ids"],
    fresh=["pooler."],
    prefix="distilbert",
)
DistilBertPreTrained.backbone, DistilBertPreTrained.keys = DistilBertModel, KEYS


# ---- task classes ----------------------------------------------------------------------------------------------------


class PreClassifierHead(ClassifierHead):
    """A hidden layer before the scores, with dropout between the two."""

    def __init__(self, width: int, inner: int, labels: int, dropout: float) -> None:
        super().__init__(inner, labels, dropout)
        self.dense = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., labels)."""
        return super().forward(F.relu(self.dense(x)))


class DistilBertForMaskedLM(DistilBertPreTrained, MaskedLM):
    """Fills in masked words."""

    def word_head(self) -> LMHead:
        c = self.config
        return LMHead(c.dim, c.vocab_size, F.gelu, nn.LayerNorm(c.dim, EPS))


class DistilBertForSequenceClassification(DistilBertPreTrained, SequenceClassification):
    """Labels or grades a text or a pair of texts."""

    def head(self, labels: int) -> nn.Module:
        return PreClassifierHead(self.width, self.config.dim, labels, self.config.seq_classif_dropout)


class DistilBertForMultipleChoice(DistilBertPreTrained, MultipleChoice):
    """Picks one of several continuations."""

    def head(self, labels: int) -> nn.Module:
        return PreClassifierHead(self.width, self.config.dim, labels, self.config.seq_classif_dropout)


class DistilBertForTokenClassification(DistilBertPreTrained, TokenClassification):
    """Tags every token."""


class DistilBertForQuestionAnswering(DistilBertPreTrained, QuestionAnswering):
    """Finds the answer to a question in a text."""

    def head(self, labels: int) -> nn.Module:
        return ClassifierHead(self.width, labels, self.config.qa_dropout)
