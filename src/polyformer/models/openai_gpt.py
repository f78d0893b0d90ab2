"""GPT: the Transformer's decoder without an encoder, pretrained to tell the next word of books.

Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training"; openai/finetune-transformer-lm
train.py. A norm after every residual as in the Transformer, learnt positions, GELU by its tanh approximation. A segment
is a token whose vector is added. In the files matrices are the other way round.
"""

from dataclasses import field

from torch import Tensor, nn

from polyformer.core.causal_tasks import DoubleHeads, LastTokenClassification
from polyformer.core.config import Config, config
from polyformer.core.keymap import KeyMap, transposed
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.tasks import CausalLM
from polyformer.parts.attention import Attention, per_layer
from polyformer.parts.blocks import PostNormBlock
from polyformer.parts.embeddings import PlacedTokens, batch_shape, check_ids, check_length, check_width
from polyformer.parts.feedforward import activation, feed_forward
from polyformer.parts.heads import WordHead
from polyformer.parts.layout import Layout
from polyformer.parts.pooling import POOLINGS, SUMMARIES, pooling
from polyformer.parts.state import Past
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("openai-gpt")
class OpenAIGPTConfig(Config):
    """The published GPT by default; field names and defaults are Hugging Face's, the uniform ones are aliases.

    n_positions: tokens of the longest text; n_ctx: the same, for older versions of Transformers; it is not read here.
    afn: "relu", "silu" or "swish", or "gelu", which is its tanh approximation here.
    predict_special_tokens: kept for the files; words are scored all alike.
    summary_type: what the choice of DoubleHeads is read off, if config.pooling names nothing: "cls_index" (of
        mc_token_ids), "first", "last" or "mean". summary_activation: after the map to the choice's score;
        summary_first_dropout, summary_last_dropout: around these.
    """

    aliases = {  # noqa: RUF012
        "max_position_embeddings": "n_positions",
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "hidden_act": "afn",
        "hidden_dropout_prob": "resid_pdrop",
        "attention_probs_dropout_prob": "attn_pdrop",
        "layer_norm_eps": "layer_norm_epsilon",
    }
    causal = True

    vocab_size: int = 40478
    n_positions: int = 512
    n_ctx: int = 512
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    afn: str = "gelu"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    predict_special_tokens: bool = True
    summary_type: str = "cls_index"
    summary_use_proj: bool = True
    summary_activation: str | None = None
    summary_proj_to_labels: bool = True
    summary_first_dropout: float = 0.1
    summary_last_dropout: float = field(default=0.0, kw_only=True)
    pad_token_id: int | None = field(default=None, kw_only=True)

    def check(self) -> None:
        self.check_heads()
        self.check_choice("pooling", POOLINGS)
        self.check_choice("summary_type", SUMMARIES)


# ---- the model -------------------------------------------------------------------------------------------------------


class OpenAIGPTPreTrained(PreTrainedModel):
    """What GPT's classes share."""

    config_class = OpenAIGPTConfig
    base_model_prefix = "transformer"

    def word_head(self) -> WordHead:
        return WordHead(self.config.n_embd, self.config.vocab_size, bias=False)


def layer(c: OpenAIGPTConfig) -> PostNormBlock:
    """One layer of the stack."""
    attn = Attention(c.n_embd, c.n_head, c.attn_pdrop)
    act = activation("gelu_new" if c.afn == "gelu" else c.afn)
    ffn = feed_forward(c.n_embd, 4 * c.n_embd, act, c.chunk_size_feed_forward)
    return PostNormBlock(attn, ffn, lambda: nn.LayerNorm(c.n_embd, c.layer_norm_epsilon), c.resid_pdrop)


class OpenAIGPTModel(OpenAIGPTPreTrained):
    """The stack: states of all tokens; one vector a sequence too where config.pooling names a way."""

    def __init__(self, config: OpenAIGPTConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        c, width = config, config.n_embd
        self.embed = PlacedTokens(c.vocab_size, c.n_positions, width, c.embd_pdrop)
        self.layers = nn.ModuleList(layer(c) for _ in range(c.n_layer))
        self.pooler = pooling(c.pooling, width, c.n_layer) if c.pooling and add_pooling_layer else None
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
        past_key_values: Past | None = None,
        use_cache: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """Read a batch from left to right.

        Args:
            input_ids: (rows, length) int64, or inputs_embeds (rows, length, width) in their place.
            attention_mask: (rows, cached + length), 0 = padding; or (rows, queries, keys), 0 = may not attend.
            token_type_ids: (rows, length) ids whose token vectors are added; none by default.
            position_ids: (rows or 1, length); counted from the first real token by default.
            head_mask: (heads,) or (layers, heads), a factor of every head's attention weights.
            past_key_values: what an earlier call gave back, whose tokens come before these.
            use_cache: whether to give past_key_values back; no by default, since Transformers 4 has none here.

        Raises:
            ValueError: too long a sequence, an id outside of the vocabulary, both or neither of ids and embeddings.
        """
        c = self.config
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        rows, length = batch_shape(input_ids, inputs_embeds)
        state = self.recall(past_key_values, bool(use_cache))
        past = 0 if state is None else state.length
        check_length(past + length, c.n_positions, position_ids)
        check_width(inputs_embeds, c.n_embd)
        check_ids(input_ids, c.vocab_size, "input_ids", (rows, length))
        check_ids(token_type_ids, c.vocab_size, "token_type_ids", (rows, length))
        check_ids(position_ids, c.n_positions, "position_ids", (rows, length))

        layout = Layout.of(
            (rows, length), attention_mask, self.device, causal=True, past=past,
            packable=self.packable and not attentions and head_mask is None,
        )  # fmt: skip
        every_layer = hidden_states or (self.pooler is not None and self.pooler.needs_layers)
        taps = Taps(layout, hidden_states=every_layer, attentions=attentions)
        head_masks = per_layer(head_mask, [len(block.attn.heads) for block in self.blocks()])
        positions = layout.positions if position_ids is None else layout.pack(position_ids.expand(rows, length))

        # packed: (rows, length) -> (tokens,), padding left out until the last layer is done
        x = self.embed(layout.pack(input_ids), layout.pack(token_type_ids), positions, layout.pack(inputs_embeds))
        taps.state(x)
        for i, block in enumerate(self.layers):
            memory = None if state is None else state.layers[i]
            x = self.through(block, x, layout, memory, head_masks[i], taps)
            taps.state(x)
        x = layout.unpack(x)

        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=x,
            pooler_output=None if self.pooler is None else self.pooler(x, layout.real, taps.hidden_states),
            past_key_values=state if use_cache else None,
            hidden_states=taps.seen("hidden_states") if hidden_states else None,
            attentions=taps.seen("attentions"),
        )
        return result if named else result.to_tuple()


# ---- checkpoint table ------------------------------------------------------------------------------------------------

KEYS = KeyMap(
    [
        ("tokens_embed.weight", "embed.tokens.weight"),
        ("positions_embed.weight", "embed.positions.weight"),
        ("h.{i}.attn.c_attn.{p}", "layers.{i}.attn.qkv.{p}", transposed),
        ("h.{i}.attn.c_proj.{p}", "layers.{i}.attn.out.{p}", transposed),
        ("h.{i}.ln_1.{p}", "layers.{i}.attn_norm.{p}"),
        ("h.{i}.mlp.c_fc.{p}", "layers.{i}.ffn.up.{p}", transposed),
        ("h.{i}.mlp.c_proj.{p}", "layers.{i}.ffn.down.{p}", transposed),
        ("h.{i}.ln_2.{p}", "layers.{i}.ffn_norm.{p}"),
        ("pooler.dense.{p}", "pooler.dense.{p}"),
        ("pooler.query.{p}", "pooler.query.{p}"),
        ("pooler.layer_weights", "pooler.layer_weights"),
    ],
    heads=[
        ("lm_head.weight", "lm.decoder.weight"),
        ("multiple_choice_head.summary.{p}", "choice.dense.{p}"),
        ("score.weight", "classifier.weight"),
    ],
    drop=["position_ids", "h.{i}.attn.bias"],  # constants
    fresh=["pooler."],
    prefix="transformer",
)
OpenAIGPTPreTrained.backbone, OpenAIGPTPreTrained.keys = OpenAIGPTModel, KEYS


# ---- task classes ----------------------------------------------------------------------------------------------------


class OpenAIGPTLMHeadModel(OpenAIGPTPreTrained, CausalLM):
    """Writes word after word."""


class OpenAIGPTDoubleHeadsModel(OpenAIGPTPreTrained, DoubleHeads):
    """Writes, and picks one of several continuations."""


class OpenAIGPTForSequenceClassification(OpenAIGPTPreTrained, LastTokenClassification):
    """Labels or grades a text."""
