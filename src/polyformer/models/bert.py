"""BERT: a bidirectional Transformer encoder, pretrained on masked words and sentence pairs.

Devlin, Chang, Lee and Toutanova 2018, arXiv 1810.04805; google-research/bert modeling.py. The Transformer's encoder
with learnt positions and segments, GELU, and a norm after every residual; with `is_decoder` it reads left to right.
"""

from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.errors import ConfigError
from polyformer.core.keymap import Entry, Fuse, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.tasks import (
    CausalLM,
    MaskedLM,
    MultipleChoice,
    NextSentencePrediction,
    QuestionAnswering,
    SentencePairPretraining,
    SequenceClassification,
    TokenClassification,
)
from polyformer.parts.attention import Attention, CrossAttention, per_layer
from polyformer.parts.blocks import PostNormBlock, PostNormCrossBlock
from polyformer.parts.embeddings import (
    Embeddings,
    UnplacedEmbeddings,
    batch_shape,
    check_ids,
    check_length,
    check_width,
)
from polyformer.parts.feedforward import activation, feed_forward
from polyformer.parts.layout import Layout
from polyformer.parts.pooling import POOLINGS, pooling
from polyformer.parts.positions import SCHEMES, scheme
from polyformer.parts.state import Past
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("bert")
class BertConfig(Config):
    """BERT-base by default; field names and defaults are Hugging Face's.

    position_embedding_type: "absolute", or "relative_key" or "relative_key_query" (parts/positions.py).
    classifier_dropout: of the classification heads; hidden_dropout_prob unless set.
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
    pad_token_id: int | None = 0
    position_embedding_type: str = "absolute"
    use_cache: bool = True
    classifier_dropout: float | None = None

    def check(self) -> None:
        self.check_heads()
        self.check_choice("position_embedding_type", SCHEMES)
        self.check_choice("pooling", POOLINGS)

    @property
    def classifier_dropout_rate(self) -> float:
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout


# ---- the model -------------------------------------------------------------------------------------------------------


class BertPreTrained(PreTrainedModel):
    """What BERT's classes share."""

    config_class = BertConfig
    base_model_prefix = "bert"


def layer(c: BertConfig) -> PostNormBlock:
    """One layer of the stack: attention, in a decoder attention to the encoder, feed-forward."""

    def norm() -> nn.Module:
        return nn.LayerNorm(c.hidden_size, c.layer_norm_eps)

    width, heads, dropout = c.hidden_size, c.num_attention_heads, c.attention_probs_dropout_prob
    positions = scheme(c.position_embedding_type, c.max_position_embeddings, width // heads)
    attn = Attention(width, heads, dropout, positions)
    ffn = feed_forward(width, c.intermediate_size, activation(c.hidden_act), c.chunk_size_feed_forward)
    if c.add_cross_attention:
        return PostNormCrossBlock(attn, CrossAttention(width, heads, dropout), ffn, norm, c.hidden_dropout_prob)
    return PostNormBlock(attn, ffn, norm, c.hidden_dropout_prob)


class BertModel(BertPreTrained):
    """The encoder (or, with config.is_decoder, decoder) with a pooler: states of all tokens, one vector a sequence."""

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        if config.add_cross_attention and not config.is_decoder:
            raise ConfigError("add_cross_attention is for decoders: set is_decoder=True too.")
        c, width = config, config.hidden_size
        embeddings = Embeddings if c.position_embedding_type == "absolute" else UnplacedEmbeddings
        self.embed = embeddings(
            c.vocab_size, c.max_position_embeddings, c.type_vocab_size, width,
            nn.LayerNorm(width, c.layer_norm_eps), c.hidden_dropout_prob, c.pad_token_id,
        )  # fmt: skip
        self.layers = nn.ModuleList(layer(c) for _ in range(c.num_hidden_layers))
        self.pooler = pooling(c.pooling or "cls", width, c.num_hidden_layers) if add_pooling_layer else None
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
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Past | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """Encode a batch.

        Args:
            input_ids: (rows, length) int64, or inputs_embeds (rows, length, width) in their place.
            attention_mask: (rows, cached + length), 0 = padding; or (rows, queries, keys), 0 = may not attend.
            token_type_ids: (rows, length) segments, 0 by default.
            position_ids: (rows or 1, length); counted from the first real token by default.
            head_mask: (heads,) or (layers, heads), a factor of every head's attention weights.
            encoder_hidden_states: (rows, source length, width) for a decoder with cross-attention, their
                encoder_attention_mask (rows, source length).
            past_key_values: what an earlier call gave back, whose tokens come before these.

        Raises:
            ValueError: too long a sequence, an id outside of the vocabulary, both or neither of ids and embeddings.
        """
        c = self.config
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        rows, length = batch_shape(input_ids, inputs_embeds)
        state = self.recall(past_key_values, use_cache)
        past = 0 if state is None else state.length
        placed = position_ids if c.position_embedding_type == "absolute" else None
        check_length(past + length, c.max_position_embeddings, placed)
        check_width(inputs_embeds, c.hidden_size)
        check_ids(input_ids, c.vocab_size, "input_ids", (rows, length))
        check_ids(token_type_ids, c.type_vocab_size, "token_type_ids", (rows, length))
        check_ids(position_ids, c.max_position_embeddings, "position_ids", (rows, length))

        source = encoder_hidden_states
        if source is not None and not c.add_cross_attention:
            raise ValueError(
                "encoder_hidden_states need a decoder with cross-attention: set config.add_cross_attention."
            )
        layout = Layout.of(
            (rows, length), attention_mask, self.device, causal=c.is_decoder, past=past,
            packable=self.packable and not attentions and head_mask is None and state is None and source is None,
        )  # fmt: skip
        across = None if source is None else Layout.across(encoder_attention_mask, layout.positions)
        every_layer = hidden_states or (self.pooler is not None and self.pooler.needs_layers)
        taps = Taps(layout, hidden_states=every_layer, attentions=attentions)
        head_masks = per_layer(head_mask, [len(block.attn.heads) for block in self.blocks()])
        if position_ids is not None:
            position_ids = layout.pack(position_ids.expand(rows, length))

        # packed: (rows, length) -> (tokens,), padding left out until the last layer is done
        x = self.embed(
            layout.pack(input_ids), layout.pack(token_type_ids),
            layout.positions if position_ids is None else position_ids, layout.pack(inputs_embeds),
        )  # fmt: skip
        taps.state(x)
        for i, block in enumerate(self.layers):
            memory = None if state is None else state.layers[i]
            x = self.through(block, x, layout, memory, head_masks[i], taps, source, across, head_masks[i])
            taps.state(x)
        x = layout.unpack(x)

        pooled = None if self.pooler is None else self.pooler(x, layout.real, taps.hidden_states)
        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=x,
            pooler_output=pooled,
            past_key_values=None if use_cache is False else state,
            hidden_states=taps.seen("hidden_states") if hidden_states else None,
            attentions=taps.seen("attentions"),
            cross_attentions=taps.seen("cross_attentions") if source is not None else None,
        )
        return result if named else result.to_tuple()


# ---- checkpoint table ------------------------------------------------------------------------------------------------

ROWS: list[Entry] = [
    ("embeddings.word_embeddings.weight", "embed.tokens.weight"),
    ("embeddings.position_embeddings.weight", "embed.positions.weight"),
    ("embeddings.token_type_embeddings.weight", "embed.types.weight"),
    ("embeddings.LayerNorm.{p}", "embed.norm.{p}"),
    ("encoder.layer.{i}.attention.self.{query|key|value}.{p}", "layers.{i}.attn.qkv.{p}", Fuse()),
    ("encoder.layer.{i}.attention.self.distance_embedding.weight", "layers.{i}.attn.positions.distances.weight"),
    ("encoder.layer.{i}.attention.output.dense.{p}", "layers.{i}.attn.out.{p}"),
    ("encoder.layer.{i}.attention.output.LayerNorm.{p}", "layers.{i}.attn_norm.{p}"),
    ("encoder.layer.{i}.crossattention.self.query.{p}", "layers.{i}.cross.q.{p}"),
    ("encoder.layer.{i}.crossattention.self.{key|value}.{p}", "layers.{i}.cross.kv.{p}", Fuse()),
    ("encoder.layer.{i}.crossattention.output.dense.{p}", "layers.{i}.cross.out.{p}"),
    ("encoder.layer.{i}.crossattention.output.LayerNorm.{p}", "layers.{i}.cross_norm.{p}"),
    ("encoder.layer.{i}.intermediate.dense.{p}", "layers.{i}.ffn.up.{p}"),
    ("encoder.layer.{i}.output.dense.{p}", "layers.{i}.ffn.down.{p}"),
    ("encoder.layer.{i}.output.LayerNorm.{p}", "layers.{i}.ffn_norm.{p}"),
    ("pooler.dense.{p}", "pooler.dense.{p}"),
    ("pooler.query.{p}", "pooler.query.{p}"),
    ("pooler.layer_weights", "pooler.layer_weights"),
]
KEYS = KeyMap(
    ROWS,
    heads=[
        ("cls.predictions.transform.dense.{p}", "lm.dense.{p}"),
        ("cls.predictions.transform.LayerNorm.{p}", "lm.norm.{p}"),
        ("cls.predictions.decoder.weight", "lm.decoder.weight"),
        ("cls.predictions.bias", "lm.decoder.bias"),
        ("cls.seq_relationship.{p}", "nsp.{p}"),
        ("classifier.{p}", "classifier.out.{p}"),
        ("qa_outputs.{p}", "qa_outputs.{p}"),
    ],
    drop=[
        "embeddings.position_ids",
        "embeddings.token_type_ids",
        "encoder.layer.{i}.crossattention.self.distance_embedding.weight",  # no distance to a source
    ],
    fresh=["pooler.", ".cross.", ".cross_norm."],
    legacy=[(".gamma", ".weight"), (".beta", ".bias"), (".predictions.decoder.bias", ".predictions.bias")],
    prefix="bert",
)
BertPreTrained.backbone, BertPreTrained.keys = BertModel, KEYS


# ---- task classes ----------------------------------------------------------------------------------------------------


class BertForPreTraining(BertPreTrained, SentencePairPretraining):
    """Masked words and next sentence, as BERT was pretrained."""


class BertForMaskedLM(BertPreTrained, MaskedLM):
    """Fills in masked words."""


class BertLMHeadModel(BertPreTrained, CausalLM):
    """Writes word after word (config.is_decoder=True), if need be after an encoder."""


class BertForNextSentencePrediction(BertPreTrained, NextSentencePrediction):
    """Tells whether two segments belong together."""


class BertForSequenceClassification(BertPreTrained, SequenceClassification):
    """Labels or grades a text or a pair of texts."""


class BertForMultipleChoice(BertPreTrained, MultipleChoice):
    """Picks one of several continuations."""


class BertForTokenClassification(BertPreTrained, TokenClassification):
    """Tags every token."""


class BertForQuestionAnswering(BertPreTrained, QuestionAnswering):
    """Finds the answer to a question in a text."""
