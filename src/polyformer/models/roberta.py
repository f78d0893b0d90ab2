"""RoBERTa: BERT pretrained longer, on more text, without the sentence-pair task.

Liu et al. 2019, arXiv 1907.11692; fairseq models/roberta. BERT's stack, but positions count from pad_token_id + 1 (so
514 of them hold 512 tokens) and the padding id takes none, as in fairseq; the word head has a GELU whatever
`hidden_act` says; a sequence is classified by two layers on its first token.
"""

from dataclasses import field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.errors import ConfigError
from polyformer.core.keymap import Fuse, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.tasks import (
    CausalLM,
    MaskedLM,
    MultipleChoice,
    QuestionAnswering,
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
from polyformer.parts.heads import DenseHead, LMHead
from polyformer.parts.layout import Layout
from polyformer.parts.pooling import POOLINGS, pooling
from polyformer.parts.positions import SCHEMES, numbered_after_pad, scheme
from polyformer.parts.state import Past
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("roberta")
class RobertaConfig(Config):
    """Field names and defaults are Hugging Face's, which are BERT's; roberta-base has vocab_size 50265,
    max_position_embeddings 514, type_vocab_size 1 and layer_norm_eps 1e-5.

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
    pad_token_id: int = 1
    bos_token_id: int | None = field(default=0, kw_only=True)
    eos_token_id: int | None = field(default=2, kw_only=True)
    position_embedding_type: str = "absolute"
    use_cache: bool = True
    classifier_dropout: float | None = None

    def check(self) -> None:
        self.check_heads()
        self.check_choice("position_embedding_type", SCHEMES)
        self.check_choice("pooling", POOLINGS)
        if self.pad_token_id is None or not 0 <= self.pad_token_id < self.max_position_embeddings:
            raise ConfigError(
                f"pad_token_id is {self.pad_token_id}, but positions are counted from it: RoBERTa and its kin have 1."
            )

    @property
    def classifier_dropout_rate(self) -> float:
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout


# ---- the model -------------------------------------------------------------------------------------------------------


class RobertaPreTrained(PreTrainedModel):
    """What RoBERTa's classes share."""

    config_class = RobertaConfig
    base_model_prefix = "roberta"

    def word_head(self) -> LMHead:
        c = self.config
        return LMHead(c.hidden_size, c.vocab_size, F.gelu, nn.LayerNorm(c.hidden_size, c.layer_norm_eps))


def layer(c: RobertaConfig) -> PostNormBlock:
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


class RobertaModel(RobertaPreTrained):
    """The encoder (or, with config.is_decoder, decoder) with a pooler: states of all tokens, one vector a sequence."""

    def __init__(self, config: RobertaConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        if config.add_cross_attention and not config.is_decoder:
            raise ConfigError("add_cross_attention is for decoders: set is_decoder=True too.")
        c, width = config, config.hidden_size
        embeddings = Embeddings if c.position_embedding_type == "absolute" else UnplacedEmbeddings
        self.embed = embeddings(
            c.vocab_size, c.max_position_embeddings, c.type_vocab_size, width,
            nn.LayerNorm(width, c.layer_norm_eps), c.hidden_dropout_prob, c.pad_token_id, c.pad_token_id,
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
            position_ids: (rows or 1, length); by default the first real token has pad_token_id + 1, and a token that is
                the padding id takes no position, masked or not.
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
        check_length(past + length, c.max_position_embeddings - c.pad_token_id - 1, placed)
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
        if position_ids is None:
            positions = numbered_after_pad(layout, input_ids, c.pad_token_id)
        else:
            positions = layout.pack(position_ids.expand(rows, length))

        # packed: (rows, length) -> (tokens,), padding left out until the last layer is done
        x = self.embed(layout.pack(input_ids), layout.pack(token_type_ids), positions, layout.pack(inputs_embeds))
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

KEYS = KeyMap(
    [
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
    ],
    heads=[
        ("lm_head.dense.{p}", "lm.dense.{p}"),
        ("lm_head.layer_norm.{p}", "lm.norm.{p}"),
        ("lm_head.decoder.weight", "lm.decoder.weight"),
        ("lm_head.bias", "lm.decoder.bias"),
        ("classifier.dense.{p}", "classifier.dense.{p}"),
        ("classifier.out_proj.{p}", "classifier.scores.{p}"),
        ("classifier.{p}", "classifier.out.{p}"),
        ("qa_outputs.{p}", "qa_outputs.{p}"),
    ],
    drop=[
        "embeddings.position_ids",
        "embeddings.token_type_ids",
        "encoder.layer.{i}.crossattention.self.distance_embedding.weight",  # no distance to a source
    ],
    fresh=["pooler.", ".cross.", ".cross_norm."],
    legacy=[(".gamma", ".weight"), (".beta", ".bias"), ("lm_head.decoder.bias", "lm_head.bias")],
    prefix="roberta",
)
RobertaPreTrained.backbone, RobertaPreTrained.keys = RobertaModel, KEYS


# ---- task classes ----------------------------------------------------------------------------------------------------


class RobertaForMaskedLM(RobertaPreTrained, MaskedLM):
    """Fills in masked words, as RoBERTa was pretrained."""


class RobertaForCausalLM(RobertaPreTrained, CausalLM):
    """Writes word after word (config.is_decoder=True), if need be after an encoder."""


class RobertaForSequenceClassification(RobertaPreTrained, SequenceClassification):
    """Labels or grades a text or a pair of texts, by its first token unless config.pooling names another way."""

    pooled = False

    def head(self, labels: int) -> nn.Module:
        return DenseHead(self.width, self.config.hidden_size, labels, torch.tanh, self.config.classifier_dropout_rate)


class RobertaForMultipleChoice(RobertaPreTrained, MultipleChoice):
    """Picks one of several continuations."""

    order: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids", "attention_mask", "labels")


class RobertaForTokenClassification(RobertaPreTrained, TokenClassification):
    """Tags every token."""


class RobertaForQuestionAnswering(RobertaPreTrained, QuestionAnswering):
    """Finds the answer to a question in a text."""
