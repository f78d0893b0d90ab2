"""BERT: a bidirectional Transformer encoder, pretrained on masked words and sentence pairs.

Devlin, Chang, Lee and Toutanova 2018, arXiv 1810.04805; google-research/bert modeling.py. The Transformer's encoder
with learnt positions and segments, GELU, and a norm after every residual; with `is_decoder` it reads left to right.
"""

from collections.abc import Iterable, Mapping

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
from polyformer.parts.feedforward import ChunkedFeedForward, FeedForward, activation
from polyformer.parts.layout import Layout
from polyformer.parts.pooling import POOLINGS, pooling
from polyformer.parts.positions import RelativeKey, RelativeKeyQuery
from polyformer.parts.state import Past, State
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------

POSITIONS = {"absolute": None, "relative_key": RelativeKey, "relative_key_query": RelativeKeyQuery}


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
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {self.num_attention_heads}."
            )
        if self.position_embedding_type not in POSITIONS:
            raise ConfigError(
                f"position_embedding_type is {self.position_embedding_type!r}; there are {', '.join(POSITIONS)}."
            )
        if self.pooling is not None and self.pooling not in POOLINGS:
            raise ConfigError(f"pooling is {self.pooling!r}; there are {', '.join(POOLINGS)}.")

    @property
    def classifier_dropout_rate(self) -> float:
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout


# ---- the model -------------------------------------------------------------------------------------------------------


class BertPreTrained(PreTrainedModel):
    """What BERT's classes share."""

    config_class = BertConfig
    base_model_prefix = "bert"

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=std)
            if module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()


def layer(c: BertConfig) -> PostNormBlock:
    """One layer of the stack: attention, in a decoder attention to the encoder, feed-forward."""

    def norm() -> nn.Module:
        return nn.LayerNorm(c.hidden_size, c.layer_norm_eps)

    width, heads, dropout = c.hidden_size, c.num_attention_heads, c.attention_probs_dropout_prob
    scheme = POSITIONS[c.position_embedding_type]
    positions = scheme(c.max_position_embeddings, width // heads) if scheme else None
    attn = Attention(width, heads, dropout, positions)
    act = activation(c.hidden_act)
    if c.chunk_size_feed_forward:
        ffn: FeedForward = ChunkedFeedForward(width, c.intermediate_size, act, c.chunk_size_feed_forward)
    else:
        ffn = FeedForward(width, c.intermediate_size, act)
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
        check_length(past + length, c.max_position_embeddings)
        check_width(inputs_embeds, c.hidden_size)
        for ids, name, limit, remedy in (
            (input_ids, "input_ids", c.vocab_size, "is this the model's own tokenizer, were tokens added to it?"),
            (token_type_ids, "token_type_ids", c.type_vocab_size, "this model tells that many segments apart"),
            (position_ids, "position_ids", c.max_position_embeddings, "this model knows that many positions"),
        ):
            check_ids(ids, limit, name, remedy, (rows, length))

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
        heads = [c.num_attention_heads - len(c.pruned_heads.get(i, ())) for i in range(len(self.layers))]
        head_masks = per_layer(head_mask, heads)
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
            x = self.through(block, x, layout, memory, head_masks[i], taps, source, across)
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

    def recall(self, past: Past | None, use_cache: bool | None) -> State | None:
        """The state to go on from, if this call has one or is to leave one."""
        if past is not None:
            return State.of(past)
        c = self.config
        wanted = c.is_decoder and (c.use_cache if use_cache is None else use_cache)
        recomputing = c.gradient_checkpointing and self.training
        return State.empty(len(self.layers)) if wanted and not recomputing else None

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        """Remove attention heads for good: {layer: heads}, numbered as in the unpruned model; kept in the config."""
        for number, heads in heads_to_prune.items():
            if not 0 <= number < len(self.layers):
                raise ValueError(f"cannot prune layer {number}: there are layers 0 to {len(self.layers) - 1}.")
            if wrong := [h for h in heads if not 0 <= h < self.config.num_attention_heads]:
                last = self.config.num_attention_heads - 1
                raise ValueError(f"cannot prune heads {wrong} of layer {number}: it has heads 0 to {last}.")
            block = self.layers[number]
            assert isinstance(block, PostNormBlock)
            block.attn.prune(heads)
            known = self.config.pruned_heads.get(number, [])
            self.config.pruned_heads[number] = sorted({*known, *heads})


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
