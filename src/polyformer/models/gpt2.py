"""GPT-2: a Transformer that writes, pretrained to tell the next word of web pages.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; openai/gpt-2 src/model.py. GPT with norms
before attention and feed-forward and after the last layer, and residual branches that start smaller the more of them
there are (section 2.3). A segment is a token whose vector is added. In the files matrices are the other way round.
"""

from dataclasses import field
from typing import Any

from torch import Tensor, nn

from polyformer.core.causal_tasks import DoubleHeads, LastTokenClassification
from polyformer.core.config import Config, config
from polyformer.core.keymap import KeyMap, transposed
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.tasks import CausalLM, TokenClassification
from polyformer.parts.attention import Attention, CrossAttention, per_layer
from polyformer.parts.blocks import PreNormBlock, PreNormCrossBlock
from polyformer.parts.embeddings import PlacedTokens, batch_shape, check_ids, check_length, check_width
from polyformer.parts.feedforward import activation, feed_forward
from polyformer.parts.heads import WordHead
from polyformer.parts.layout import Layout
from polyformer.parts.pooling import POOLINGS, SUMMARIES, pooling
from polyformer.parts.state import Past
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("gpt2")
class GPT2Config(Config):
    """The small GPT-2 by default; field names and defaults are Hugging Face's, the uniform ones are aliases.

    n_positions: tokens of the longest text; n_ctx: the same, for older versions of Transformers; it is not read here.
    n_inner: width of the feed-forward network's inner layer, 4 n_embd unless set.
    scale_attn_weights: whether scores are divided by the square root of a head's width; and with
        scale_attn_by_inverse_layer_idx by the number of the layer, from 1 on, too.
    reorder_and_upcast_attn: nothing here hangs on it: scores are never summed in half precision.
    summary_type: what the choice of DoubleHeads is read off, if config.pooling names nothing: "cls_index" (of
        mc_token_ids), "first", "last" or "mean". summary_activation: after the map to the choice's score;
        summary_first_dropout, summary_last_dropout: around these.
    classifier_dropout: of the token classifier, 0.1 unless set.
    """

    aliases = {  # noqa: RUF012
        "max_position_embeddings": "n_positions",
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "n_inner",
        "hidden_act": "activation_function",
        "hidden_dropout_prob": "resid_pdrop",
        "attention_probs_dropout_prob": "attn_pdrop",
        "layer_norm_eps": "layer_norm_epsilon",
    }
    causal = True

    vocab_size: int = 50257
    n_positions: int = 1024
    n_ctx: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    summary_type: str = "cls_index"
    summary_use_proj: bool = True
    summary_activation: str | None = None
    summary_proj_to_labels: bool = True
    summary_first_dropout: float = 0.1
    scale_attn_weights: bool = field(default=True, kw_only=True)
    scale_attn_by_inverse_layer_idx: bool = field(default=False, kw_only=True)
    reorder_and_upcast_attn: bool = field(default=False, kw_only=True)
    use_cache: bool = field(default=True, kw_only=True)
    summary_last_dropout: float = field(default=0.0, kw_only=True)
    classifier_dropout: float | None = field(default=None, kw_only=True)
    pad_token_id: int | None = field(default=None, kw_only=True)
    bos_token_id: int | None = field(default=50256, kw_only=True)
    eos_token_id: int | None = field(default=50256, kw_only=True)

    def check(self) -> None:
        self.check_heads()
        self.check_choice("pooling", POOLINGS)
        self.check_choice("summary_type", SUMMARIES)

    @property
    def classifier_dropout_rate(self) -> float:
        return 0.1 if self.classifier_dropout is None else self.classifier_dropout


# ---- the model -------------------------------------------------------------------------------------------------------


class GPT2PreTrained(PreTrainedModel):
    """What GPT-2's classes share."""

    config_class = GPT2Config
    base_model_prefix = "transformer"

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        last = (linear for block in self.base_model.blocks() for linear in (block.attn.out, block.ffn.down))
        if isinstance(module, nn.Linear) and any(module is linear for linear in last):
            nn.init.normal_(module.weight, std=self.config.initializer_range / (2 * self.config.n_layer) ** 0.5)

    def word_head(self) -> WordHead:
        return WordHead(self.config.n_embd, self.config.vocab_size, bias=False)


def layer(c: GPT2Config, number: int) -> PreNormBlock | PreNormCrossBlock:
    """One layer of the stack, numbered from 1: attention, maybe attention to an encoder, feed-forward."""
    width, heads, dropout = c.n_embd, c.n_head, c.attn_pdrop
    scale = (width // heads) ** -0.5 if c.scale_attn_weights else 1.0
    scale = scale / number if c.scale_attn_by_inverse_layer_idx else scale

    def norm() -> nn.Module:
        return nn.LayerNorm(width, c.layer_norm_epsilon)

    attn = Attention(width, heads, dropout, scale=scale)
    ffn = feed_forward(width, c.n_inner or 4 * width, activation(c.activation_function), c.chunk_size_feed_forward)
    if c.add_cross_attention:
        cross = CrossAttention(width, heads, dropout, scale=scale)
        return PreNormCrossBlock(attn, cross, ffn, norm, c.resid_pdrop)
    return PreNormBlock(attn, ffn, norm, c.resid_pdrop)


class GPT2Model(GPT2PreTrained):
    """The stack: states of all tokens; one vector a sequence too where config.pooling names a way."""

    def __init__(self, config: GPT2Config, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        c, width = config, config.n_embd
        self.embed = PlacedTokens(c.vocab_size, c.n_positions, width, c.embd_pdrop)
        self.layers = nn.ModuleList(layer(c, i + 1) for i in range(c.n_layer))
        self.norm = nn.LayerNorm(width, c.layer_norm_epsilon)
        self.pooler = pooling(c.pooling, width, c.n_layer) if c.pooling and add_pooling_layer else None
        self.init_weights()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed.tokens

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        self.embed.tokens = table

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Past | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """Read a batch from left to right.

        Args:
            input_ids: (rows, length) int64, or inputs_embeds (rows, length, width) in their place.
            past_key_values: what an earlier call gave back, whose tokens come before these.
            attention_mask: (rows, cached + length), 0 = padding; or (rows, queries, keys), 0 = may not attend.
            token_type_ids: (rows, length) ids whose token vectors are added; none by default.
            position_ids: (rows or 1, length); counted from the first real token by default.
            head_mask: (heads,) or (layers, heads), a factor of every head's attention weights.
            encoder_hidden_states: (rows, source length, width) for a model with cross-attention, their
                encoder_attention_mask (rows, source length).
            use_cache: whether to give past_key_values back; config.use_cache by default, in training no.

        Raises:
            ValueError: too long a sequence, an id outside of the vocabulary, both or neither of ids and embeddings.
        """
        c = self.config
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        rows, length = batch_shape(input_ids, inputs_embeds)
        state = self.recall(past_key_values, use_cache)
        past = 0 if state is None else state.length
        check_length(past + length, c.n_positions, position_ids)
        check_width(inputs_embeds, c.n_embd)
        check_ids(input_ids, c.vocab_size, "input_ids", (rows, length))
        check_ids(token_type_ids, c.vocab_size, "token_type_ids", (rows, length))
        check_ids(position_ids, c.n_positions, "position_ids", (rows, length))

        source = encoder_hidden_states
        if source is not None and not c.add_cross_attention:
            raise ValueError(
                "encoder_hidden_states need a decoder with cross-attention: set config.add_cross_attention."
            )
        layout = Layout.of(
            (rows, length), attention_mask, self.device, causal=True, past=past,
            packable=self.packable and not attentions and head_mask is None and source is None,
        )  # fmt: skip
        across = None if source is None else Layout.across(encoder_attention_mask, layout.positions)
        every_layer = hidden_states or (self.pooler is not None and self.pooler.needs_layers)
        taps = Taps(layout, hidden_states=every_layer, attentions=attentions)
        head_masks = per_layer(head_mask, [len(block.attn.heads) for block in self.blocks()])
        positions = layout.positions if position_ids is None else layout.pack(position_ids.expand(rows, length))

        # packed: (rows, length) -> (tokens,), padding left out until the last layer is done
        x = self.embed(layout.pack(input_ids), layout.pack(token_type_ids), positions, layout.pack(inputs_embeds))
        for i, block in enumerate(self.layers):
            taps.state(x)
            memory = None if state is None else state.layers[i]
            x = self.through(block, x, layout, memory, head_masks[i], taps, source, across, head_masks[i])
        x = self.norm(x)
        taps.state(x)
        x = layout.unpack(x)

        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=x,
            pooler_output=None if self.pooler is None else self.pooler(x, layout.real, taps.hidden_states),
            past_key_values=None if use_cache is False else state,
            hidden_states=taps.seen("hidden_states") if hidden_states else None,
            attentions=taps.seen("attentions"),
            cross_attentions=taps.seen("cross_attentions") if source is not None else None,
        )
        return result if named else result.to_tuple()


# ---- checkpoint table ------------------------------------------------------------------------------------------------

KEYS = KeyMap(
    [
        ("wte.weight", "embed.tokens.weight"),
        ("wpe.weight", "embed.positions.weight"),
        ("h.{i}.ln_1.{p}", "layers.{i}.attn_norm.{p}"),
        ("h.{i}.attn.c_attn.{p}", "layers.{i}.attn.qkv.{p}", transposed),
        ("h.{i}.attn.c_proj.{p}", "layers.{i}.attn.out.{p}", transposed),
        ("h.{i}.ln_cross_attn.{p}", "layers.{i}.cross_norm.{p}"),
        ("h.{i}.crossattention.q_attn.{p}", "layers.{i}.cross.q.{p}", transposed),
        ("h.{i}.crossattention.c_attn.{p}", "layers.{i}.cross.kv.{p}", transposed),
        ("h.{i}.crossattention.c_proj.{p}", "layers.{i}.cross.out.{p}", transposed),
        ("h.{i}.ln_2.{p}", "layers.{i}.ffn_norm.{p}"),
        ("h.{i}.mlp.c_fc.{p}", "layers.{i}.ffn.up.{p}", transposed),
        ("h.{i}.mlp.c_proj.{p}", "layers.{i}.ffn.down.{p}", transposed),
        ("ln_f.{p}", "norm.{p}"),
        ("pooler.dense.{p}", "pooler.dense.{p}"),
        ("pooler.query.{p}", "pooler.query.{p}"),
        ("pooler.layer_weights", "pooler.layer_weights"),
    ],
    heads=[
        ("lm_head.weight", "lm.decoder.weight"),
        ("multiple_choice_head.summary.{p}", "choice.dense.{p}"),
        ("score.weight", "classifier.weight"),
        ("classifier.{p}", "classifier.out.{p}"),
    ],
    drop=[  # constants
        "h.{i}.attn.bias",
        "h.{i}.attn.masked_bias",
        "h.{i}.crossattention.bias",
        "h.{i}.crossattention.masked_bias",
    ],
    fresh=["pooler.", ".cross.", ".cross_norm."],
    prefix="transformer",
)
GPT2PreTrained.backbone, GPT2PreTrained.keys = GPT2Model, KEYS


# ---- task classes ----------------------------------------------------------------------------------------------------


class GPT2LMHeadModel(GPT2PreTrained, CausalLM):
    """Writes word after word, if need be after an encoder."""


class GPT2DoubleHeadsModel(GPT2PreTrained, DoubleHeads):
    """Writes, and picks one of several continuations."""


class GPT2ForSequenceClassification(GPT2PreTrained, LastTokenClassification):
    """Labels or grades a text."""


class GPT2ForTokenClassification(GPT2PreTrained, TokenClassification):
    """Tags every token by itself and what comes before it."""

    def encode(self, inputs: dict[str, Any]) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """Without a state, which nobody would get."""
        return super().encode(inputs | {"use_cache": False})
