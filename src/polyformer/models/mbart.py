"""mBART: BART pretrained on many languages, to translate.

Liu et al. 2020, arXiv 2001.08210; fairseq mbart. BART with norms inside of the residuals and one more after each half.
The decoder begins with the code of the language it is to write, which is the last token of a text in that language.
"""

from dataclasses import field

from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.decoder_alone import DecoderAlone, DecoderLM
from polyformer.core.errors import ConfigError
from polyformer.core.keymap import Entry, Fuse, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.seq2seq import DecoderStack, EncoderDecoder, Seq2SeqLM, Stack, begun_by, check_halves, of_halves
from polyformer.core.seq2seq_tasks import EosClassification, Seq2SeqQuestionAnswering
from polyformer.parts.attention import Attention, CrossAttention, per_layer
from polyformer.parts.blocks import PreNormBlock, PreNormCrossBlock
from polyformer.parts.embeddings import ScaledEmbeddings, token_table
from polyformer.parts.feedforward import Dropped, activation, feed_forward
from polyformer.parts.heads import OffsetWordHead, WordHead
from polyformer.parts.layout import Layout
from polyformer.parts.losses import IGNORE
from polyformer.parts.pooling import POOLINGS, last_token
from polyformer.parts.positions import OffsetPositions
from polyformer.parts.state import Past

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("mbart")
class MBartConfig(Config):
    """The 25 languages' model by default; field names and defaults are Hugging Face's, the uniform ones are aliases.

    encoder_layerdrop, decoder_layerdrop: chance that a layer is left out in a step of training.
    scale_embedding: whether token vectors are multiplied by the square root of the width; the published models do.
    num_hidden_layers: of the encoder, always.
    forced_eos_token_id: what a text that is written ends with at the longest.
    """

    aliases = {  # noqa: RUF012
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "intermediate_size": "encoder_ffn_dim",
        "hidden_act": "activation_function",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "initializer_range": "init_std",
    }

    vocab_size: int = 50265
    max_position_embeddings: int = 1024
    encoder_layers: int = 12
    encoder_ffn_dim: int = 4096
    encoder_attention_heads: int = 16
    decoder_layers: int = 12
    decoder_ffn_dim: int = 4096
    decoder_attention_heads: int = 16
    encoder_layerdrop: float = 0.0
    decoder_layerdrop: float = 0.0
    use_cache: bool = True
    is_encoder_decoder: bool = field(default=True, kw_only=True)
    activation_function: str = "gelu"
    d_model: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02
    classifier_dropout: float = 0.0
    scale_embedding: bool = False
    num_hidden_layers: int = field(default=12, kw_only=True)
    pad_token_id: int | None = field(default=1, kw_only=True)
    bos_token_id: int | None = field(default=0, kw_only=True)
    eos_token_id: int | None = field(default=2, kw_only=True)
    forced_eos_token_id: int | None = field(default=2, kw_only=True)

    def check(self) -> None:
        check_halves(self)
        self.check_choice("pooling", POOLINGS)
        self.num_hidden_layers = self.encoder_layers


# ---- the model -------------------------------------------------------------------------------------------------------


class MBartPreTrained(PreTrainedModel):
    """What mBART's classes share."""

    config_class = MBartConfig
    base_model_prefix = "model"

    def word_head(self) -> WordHead:
        return WordHead(self.config.d_model, self.config.vocab_size, bias=False)


def embeddings(c: MBartConfig, tokens: nn.Embedding) -> ScaledEmbeddings:
    """What a half reads: tokens and learnt positions, normalised."""
    positions = OffsetPositions(c.max_position_embeddings, c.d_model)
    scale = c.d_model**0.5 if c.scale_embedding else 1.0
    return ScaledEmbeddings(tokens, positions, nn.LayerNorm(c.d_model), c.dropout, scale)


def layer(c: MBartConfig, heads: int, inner: int, crosses: bool) -> PreNormBlock | PreNormCrossBlock:
    """One layer: attention, in the decoder attention to the encoder, feed-forward."""
    width = c.d_model
    act = activation(c.activation_function)
    act = Dropped(act, c.activation_dropout) if c.activation_dropout else act
    attn, ffn = Attention(width, heads, c.attention_dropout), feed_forward(width, inner, act, c.chunk_size_feed_forward)
    if crosses:
        cross = CrossAttention(width, heads, c.attention_dropout)
        return PreNormCrossBlock(attn, cross, ffn, lambda: nn.LayerNorm(width), c.dropout)
    return PreNormBlock(attn, ffn, lambda: nn.LayerNorm(width), c.dropout)


class MBartEncoder(MBartPreTrained, Stack):
    """The half that reads."""

    def __init__(self, config: MBartConfig, tokens: nn.Embedding) -> None:
        super().__init__(config)
        c = config
        self.embed = embeddings(c, tokens)
        self.layers = nn.ModuleList(
            layer(c, c.encoder_attention_heads, c.encoder_ffn_dim, False) for _ in range(c.encoder_layers)
        )
        self.norm = nn.LayerNorm(c.d_model)

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
        # packed: (rows, length) -> (tokens,), padding left out until the last layer is done
        x, layout, taps, head_masks = self.enter(
            input_ids, inputs_embeds, attention_mask, head_mask, attentions, hidden_states
        )
        for block, mask in zip(self.layers, head_masks, strict=True):
            taps.state(x)
            if not self.skips(self.config.encoder_layerdrop):
                x = self.through(block, x, layout, None, mask, taps)
        x = self.norm(x)
        taps.state(x)

        return self.leave(x, taps, named)


class MBartDecoder(MBartPreTrained, DecoderStack):
    """The half that writes."""

    def __init__(self, config: MBartConfig, tokens: nn.Embedding) -> None:
        super().__init__(config)
        c = config
        self.embed = embeddings(c, tokens)
        self.layers = nn.ModuleList(
            layer(c, c.decoder_attention_heads, c.decoder_ffn_dim, True) for _ in range(c.decoder_layers)
        )
        self.norm = nn.LayerNorm(c.d_model)

    @property
    def heads(self) -> int:
        return self.config.decoder_attention_heads

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
        """Read what has been written; arguments as of the whole model, with the encoder's states (rows, length, width).

        attention_mask may have three axes too: (rows, queries, keys), 0 = may not attend.
        """
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        state, source = self.recall(past_key_values, use_cache), encoder_hidden_states
        x, layout, taps, head_masks = self.enter(
            input_ids, inputs_embeds, attention_mask, head_mask, attentions, hidden_states,
            state=state, causal=True, packable=source is None,
        )  # fmt: skip
        across = None if source is None else Layout.across(encoder_attention_mask, layout.positions)
        cross_masks = per_layer(cross_attn_head_mask, [len(block.cross.heads) for block in self.blocks()])

        for i, block in enumerate(self.layers):
            taps.state(x)
            if state is not None or not self.skips(self.config.decoder_layerdrop):
                memory = None if state is None else state.layers[i]
                x = self.through(block, x, layout, memory, head_masks[i], taps, source, across, cross_masks[i])
        x = self.norm(x)
        taps.state(x)

        state = None if use_cache is False else state
        return self.leave(x, taps, named, state=state, crossed=source is not None)


class MBartModel(MBartPreTrained, EncoderDecoder):
    """The encoder and the decoder, which without anything to read reads the source, its last token first."""

    def __init__(self, config: MBartConfig) -> None:
        super().__init__(config)
        self.shared = token_table(config.vocab_size, config.d_model, config.pad_token_id)
        self.encoder = MBartEncoder(config, self.shared)
        self.decoder = MBartDecoder(config, self.shared)
        self.init_weights()

    def begin(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor | None:
        real = input_ids != self.config.pad_token_id if attention_mask is None else attention_mask.bool()
        return begun_by(last_token(input_ids[:, :, None], real), input_ids, attention_mask)


class MBartDecoderModel(MBartPreTrained, DecoderAlone):
    """The decoder alone."""

    def __init__(self, config: MBartConfig) -> None:
        super().__init__(config)
        self.decoder = MBartDecoder(config, token_table(config.vocab_size, config.d_model, config.pad_token_id))
        self.init_weights()


# ---- checkpoint table ------------------------------------------------------------------------------------------------

HALF: list[Entry] = [
    ("embed_tokens.weight", "embed.tokens.weight"),
    ("embed_positions.weight", "embed.positions.weight"),
    ("layernorm_embedding.{p}", "embed.norm.{p}"),
    ("layers.{i}.self_attn.{q_proj|k_proj|v_proj}.{p}", "layers.{i}.attn.qkv.{p}", Fuse()),
    ("layers.{i}.self_attn.out_proj.{p}", "layers.{i}.attn.out.{p}"),
    ("layers.{i}.self_attn_layer_norm.{p}", "layers.{i}.attn_norm.{p}"),
    ("layers.{i}.encoder_attn.q_proj.{p}", "layers.{i}.cross.q.{p}"),
    ("layers.{i}.encoder_attn.{k_proj|v_proj}.{p}", "layers.{i}.cross.kv.{p}", Fuse()),
    ("layers.{i}.encoder_attn.out_proj.{p}", "layers.{i}.cross.out.{p}"),
    ("layers.{i}.encoder_attn_layer_norm.{p}", "layers.{i}.cross_norm.{p}"),
    ("layers.{i}.fc1.{p}", "layers.{i}.ffn.up.{p}"),
    ("layers.{i}.fc2.{p}", "layers.{i}.ffn.down.{p}"),
    ("layers.{i}.final_layer_norm.{p}", "layers.{i}.ffn_norm.{p}"),
    ("layer_norm.{p}", "norm.{p}"),
]
HEADS: list[Entry] = [
    ("lm_head.weight", "lm.decoder.weight"),
    ("final_logits_bias", "lm.offset"),
    ("classification_head.dense.{p}", "classifier.dense.{p}"),
    ("classification_head.out_proj.{p}", "classifier.scores.{p}"),
    ("pooler.dense.{p}", "pooler.dense.{p}"),
    ("pooler.query.{p}", "pooler.query.{p}"),
    ("pooler.layer_weights", "pooler.layer_weights"),
    ("qa_outputs.{p}", "qa_outputs.{p}"),
]
DROP = ["encoder.version", "decoder.version"]
KEYS = KeyMap(
    [("shared.weight", "shared.weight"), *of_halves(HALF)], heads=HEADS, drop=DROP, optional=["lm.offset"],
    prefix="model",
)  # fmt: skip
ALONE = KeyMap(  # where the table is in the file once
    [*of_halves(HALF), ("shared.weight", "decoder.embed.tokens.weight")], heads=HEADS, drop=DROP, prefix="model"
)
MBartPreTrained.backbone, MBartPreTrained.keys = MBartModel, KEYS
MBartDecoderModel.backbone, MBartDecoderModel.keys = MBartDecoderModel, ALONE


# ---- task classes ----------------------------------------------------------------------------------------------------


class MBartForConditionalGeneration(MBartPreTrained, Seq2SeqLM):
    """Writes a text that belongs to a source: a summary, a translation, the source restored."""

    def word_head(self) -> WordHead:
        return OffsetWordHead(self.config.d_model, self.config.vocab_size)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """The same with each text's own last token, the code of its language, before it."""
        pad = self.config.pad_token_id
        if pad is None:
            raise ConfigError("labels cannot be made the decoder's input: set config.pad_token_id.")
        ids = labels.masked_fill(labels == IGNORE, pad)
        return begun_by(last_token(ids[:, :, None], ids != pad), ids, None)


class MBartForSequenceClassification(MBartPreTrained, EosClassification):
    """Labels or grades a text or a pair of texts."""


class MBartForQuestionAnswering(MBartPreTrained, Seq2SeqQuestionAnswering):
    """Finds the answer to a question in a text."""


class MBartForCausalLM(MBartPreTrained, DecoderLM):
    """Writes word after word with the decoder alone, if need be after another encoder."""

    backbone, keys = MBartDecoderModel, ALONE
