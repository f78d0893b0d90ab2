"""CTRL: a large Transformer that writes what kind of text a control code before it asks for.

Keskar et al. 2019, arXiv 1909.05858; salesforce/ctrl transformer.py. GPT-2's pre-norm stack with ReLU, token vectors
times the square root of their width and fixed positions, sines first, cosines after them; attention weights are not
dropped out. A segment is a token whose vector is added. The words' head has a bias. (Positions are computed in double
precision, as in the original; Transformers 4.6 has them in single, 1e-5 off.) CTRLTokenizer knows the codes.
"""

from dataclasses import field
from typing import Any

import torch
from torch import Tensor, nn

from polyformer.core.causal_tasks import LastTokenClassification
from polyformer.core.config import Config, config
from polyformer.core.keymap import Fuse, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.tasks import CausalLM
from polyformer.parts.attention import Attention, per_layer
from polyformer.parts.blocks import PreNormBlock
from polyformer.parts.embeddings import batch_shape, check_ids, check_length, check_width
from polyformer.parts.feedforward import activation, feed_forward
from polyformer.parts.heads import WordHead
from polyformer.parts.layout import Layout
from polyformer.parts.pooling import POOLINGS, pooling
from polyformer.parts.positions import split_sinusoids
from polyformer.parts.state import Past
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("ctrl")
class CTRLConfig(Config):
    """The published CTRL by default; field names and defaults are Hugging Face's, the uniform ones are aliases.

    n_positions: tokens of the longest text; n_ctx: the same, for older versions of Transformers; it is not read here.
    dff: width of the feed-forward network's inner layer.
    attn_pdrop and the summary's fields are kept for the files: nothing in CTRL reads them.
    """

    aliases = {  # noqa: RUF012
        "max_position_embeddings": "n_positions",
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "dff",
        "hidden_dropout_prob": "resid_pdrop",
        "attention_probs_dropout_prob": "attn_pdrop",
        "layer_norm_eps": "layer_norm_epsilon",
    }
    causal = True

    vocab_size: int = 246534
    n_positions: int = 256
    n_ctx: int = 256
    n_embd: int = 1280
    dff: int = 8192
    n_layer: int = 48
    n_head: int = 16
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_range: float = 0.02
    summary_type: str = "cls_index"
    summary_use_proj: bool = True
    summary_activation: str | None = None
    summary_proj_to_labels: bool = True
    summary_first_dropout: float = 0.1
    use_cache: bool = True
    pad_token_id: int | None = field(default=None, kw_only=True)

    def check(self) -> None:
        self.check_heads()
        self.check_choice("pooling", POOLINGS)


# ---- the model -------------------------------------------------------------------------------------------------------


class CTRLPreTrained(PreTrainedModel):
    """What CTRL's classes share."""

    config_class = CTRLConfig
    base_model_prefix = "transformer"

    def word_head(self) -> WordHead:
        return WordHead(self.config.n_embd, self.config.vocab_size)


class CTRLEmbeddings(nn.Module):
    """Token vectors, and those of segments, times sqrt(width); fixed positions; their sum dropped out."""

    waves: Tensor

    def __init__(self, tokens: int, positions: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width)
        self.register_buffer("waves", split_sinusoids(positions, width), persistent=False)
        self.scale = width**0.5
        self.drop = nn.Dropout(dropout)

    def reset_buffers(self, device: torch.device) -> None:
        self.waves = split_sinusoids(*self.waves.shape).to(device)

    def forward(self, ids: Tensor | None, types: Tensor | None, positions: Tensor, vectors: Tensor | None) -> Tensor:
        """ids, types (...) int64, positions broadcastable to them; vectors (..., width) for ids -> (..., width)."""
        x = self.tokens(ids) if vectors is None else vectors
        x = x if types is None else x + self.tokens(types)
        return self.drop(x * self.scale + self.waves[positions].to(x.dtype))


def layer(c: CTRLConfig) -> PreNormBlock:
    """One layer of the stack."""
    attn = Attention(c.n_embd, c.n_head)
    ffn = feed_forward(c.n_embd, c.dff, activation("relu"), c.chunk_size_feed_forward)
    return PreNormBlock(attn, ffn, lambda: nn.LayerNorm(c.n_embd, c.layer_norm_epsilon), c.resid_pdrop)


class CTRLModel(CTRLPreTrained):
    """The stack: states of all tokens; one vector a sequence too where config.pooling names a way."""

    def __init__(self, config: CTRLConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        c, width = config, config.n_embd
        self.embed = CTRLEmbeddings(c.vocab_size, c.n_positions, width, c.embd_pdrop)
        self.layers = nn.ModuleList(layer(c) for _ in range(c.n_layer))
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
        for i, block in enumerate(self.layers):
            taps.state(x)
            memory = None if state is None else state.layers[i]
            x = self.through(block, x, layout, memory, head_masks[i], taps)
        x = self.norm(x)
        taps.state(x)
        x = layout.unpack(x)

        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=x,
            pooler_output=None if self.pooler is None else self.pooler(x, layout.real, taps.hidden_states),
            past_key_values=None if use_cache is False else state,
            hidden_states=taps.seen("hidden_states") if hidden_states else None,
            attentions=taps.seen("attentions"),
        )
        return result if named else result.to_tuple()


# ---- checkpoint table ------------------------------------------------------------------------------------------------

KEYS = KeyMap(
    [
        ("w.weight", "embed.tokens.weight"),
        ("h.{i}.layernorm1.{p}", "layers.{i}.attn_norm.{p}"),
        ("h.{i}.multi_head_attention.{Wq|Wk|Wv}.{p}", "layers.{i}.attn.qkv.{p}", Fuse()),
        ("h.{i}.multi_head_attention.dense.{p}", "layers.{i}.attn.out.{p}"),
        ("h.{i}.layernorm2.{p}", "layers.{i}.ffn_norm.{p}"),
        ("h.{i}.ffn.0.{p}", "layers.{i}.ffn.up.{p}"),
        ("h.{i}.ffn.2.{p}", "layers.{i}.ffn.down.{p}"),
        ("layernorm.{p}", "norm.{p}"),
        ("pooler.dense.{p}", "pooler.dense.{p}"),
        ("pooler.query.{p}", "pooler.query.{p}"),
        ("pooler.layer_weights", "pooler.layer_weights"),
    ],
    heads=[
        ("lm_head.{p}", "lm.decoder.{p}"),
        ("classifier.weight", "classifier.weight"),
    ],
    fresh=["pooler."],
    prefix="transformer",
)
CTRLPreTrained.backbone, CTRLPreTrained.keys = CTRLModel, KEYS


# ---- task classes ----------------------------------------------------------------------------------------------------


class CTRLLMHeadModel(CTRLPreTrained, CausalLM):
    """Writes word after word what the control code asks for."""


class CTRLForSequenceClassification(CTRLPreTrained, LastTokenClassification):
    """Labels or grades a text."""

    def encode(self, inputs: dict[str, Any]) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """No state unless it is asked for, as in Transformers 4."""
        return super().encode(inputs | {"use_cache": bool(inputs.get("use_cache"))})
