"""FlauBERT: XLM's encoder for French, which may be normalised before its layers and leave layers out in training.

Le et al. 2019, arXiv 1912.05372; getalp/Flaubert. Its large checkpoints have pre_norm: the norms stand inside the
residuals, none after the last. With layerdrop whole layers are left out in training, each with that chance (Fan et al.
2019, arXiv 1909.11556); a layer left out shows what came into it, and no attentions. Padding is told as in XLM.
"""

from dataclasses import field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.errors import ConfigError
from polyformer.core.keymap import Fuse, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from polyformer.core.padding import told_by_mask
from polyformer.core.place_tasks import PlaceLM
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.span_tasks import SpanBeams
from polyformer.core.tasks import (
    MultipleChoice,
    QuestionAnswering,
    SequenceClassification,
    Summarised,
    TokenClassification,
)
from polyformer.parts.attention import Attention, per_layer
from polyformer.parts.blocks import PostNormBlock, PreNormBlock
from polyformer.parts.embeddings import LanguageEmbeddings, batch_shape, check_ids, check_length, check_width
from polyformer.parts.feedforward import feed_forward
from polyformer.parts.layout import Layout, seen_tokens
from polyformer.parts.pooling import POOLINGS, SUMMARIES, pooling
from polyformer.parts.positions import Sinusoids
from polyformer.parts.state import Past, State
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("flaubert")
class FlaubertConfig(Config):
    """Field names and defaults are Hugging Face's, which are XLM's, the uniform ones are aliases; flaubert-base-cased
    has vocab_size 68729, emb_dim 768, n_heads 12 and layer_norm_eps 1e-6.

    layerdrop: how often a layer is left out in training. pre_norm: normalised before each part of a layer, not after.
    causal: a token sees those before it only. gelu_activation: GELU, else ReLU.
    sinusoidal_embeddings: fixed positions instead of learnt ones.
    n_langs, use_lang_emb: how many languages, and whether they have vectors; lang_id: the one to write in.
    asm, asm_cutoffs, asm_div_value: the word head is an adaptive softmax with clusters up to these words, each this
        much narrower than the one before.
    pad_index, mask_token_id: ids of padding and of the mask that is put after a text to write on.
    summary_type: the vector of a sequence, if config.pooling names none: "first", "last", "mean" or "cls_index".
        summary_activation: after the map to the labels; summary_first_dropout, summary_last_dropout: around these.
    start_n_top, end_n_top: how many starts, and ends of each, an answer's beam has.
    """

    aliases = {  # noqa: RUF012
        "n_words": "vocab_size",
        "hidden_size": "emb_dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "initializer_range": "init_std",
    }

    layerdrop: float = 0.0
    pre_norm: bool = False
    pad_token_id: int | None = 2
    bos_token_id: int | None = 0
    vocab_size: int = 30145
    emb_dim: int = 2048
    n_layers: int = 12
    n_heads: int = 16
    dropout: float = 0.1
    attention_dropout: float = 0.1
    gelu_activation: bool = True
    sinusoidal_embeddings: bool = False
    causal: bool = False
    asm: bool = False
    n_langs: int = 1
    use_lang_emb: bool = True
    max_position_embeddings: int = 512
    embed_init_std: float = 2048**-0.5
    layer_norm_eps: float = 1e-12
    init_std: float = 0.02
    bos_index: int = 0
    eos_index: int = 1
    pad_index: int = 2
    unk_index: int = 3
    mask_index: int = 5
    is_encoder: bool = True
    summary_type: str = "first"
    summary_use_proj: bool = True
    summary_activation: str | None = None
    summary_proj_to_labels: bool = True
    summary_first_dropout: float = 0.1
    start_n_top: int = 5
    end_n_top: int = 5
    mask_token_id: int = 0
    lang_id: int | None = 0
    summary_last_dropout: float = 0.0
    asm_cutoffs: list[int] = field(default_factory=lambda: [8000, 20000])
    asm_div_value: float = 4.0

    def check(self) -> None:
        self.check_heads()
        self.check_choice("pooling", POOLINGS)
        self.check_choice("summary_type", SUMMARIES)
        if not self.is_encoder:
            raise ConfigError("is_encoder is False, but FlauBERT is nothing else: set it to True.")

    @property
    def classifier_dropout_rate(self) -> float:
        return self.dropout


# ---- the model -------------------------------------------------------------------------------------------------------


class FlaubertPreTrained(PreTrainedModel):
    """What FlauBERT's classes share."""

    config_class = FlaubertConfig
    base_model_prefix = "transformer"

    def understood(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Padding told by lengths or by its id becomes an attention_mask."""
        return told_by_mask(inputs, self.config.pad_index)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Embedding) and not isinstance(module, Sinusoids):
            nn.init.normal_(module.weight, std=self.config.embed_init_std)
            if module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])


def layer(c: FlaubertConfig) -> PostNormBlock:
    """One layer of the stack."""
    attn = Attention(c.emb_dim, c.n_heads, c.attention_dropout)
    act = F.gelu if c.gelu_activation else F.relu
    ffn = feed_forward(c.emb_dim, 4 * c.emb_dim, act, c.chunk_size_feed_forward)
    block = PreNormBlock if c.pre_norm else PostNormBlock
    return block(attn, ffn, lambda: nn.LayerNorm(c.emb_dim, c.layer_norm_eps), c.dropout)


class FlaubertModel(FlaubertPreTrained):
    """The encoder: states of all tokens; one vector a sequence too where config.pooling names a way."""

    def __init__(self, config: FlaubertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        c, width = config, config.emb_dim
        positions = (Sinusoids if c.sinusoidal_embeddings else nn.Embedding)(c.max_position_embeddings, width)
        languages = c.n_langs if c.use_lang_emb and c.n_langs > 1 else 0
        norm = nn.LayerNorm(width, c.layer_norm_eps)
        self.embed = LanguageEmbeddings(c.vocab_size, positions, languages, width, norm, c.dropout, c.pad_index)
        self.layers = nn.ModuleList(layer(c) for _ in range(c.n_layers))
        self.pooler = pooling(c.pooling, width, c.n_layers) if c.pooling and add_pooling_layer else None
        self.init_weights()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed.tokens

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        self.embed.tokens = table

    def left_out(self) -> bool:
        """Whether chance leaves out the next layer; never but in training."""
        return self.training and self.config.layerdrop > 0 and bool(torch.rand(()) < self.config.layerdrop)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        langs: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        lengths: Tensor | None = None,
        cache: Past | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """Encode a batch.

        Args:
            input_ids: (rows, length) int64, or inputs_embeds (rows, length, width) in their place.
            attention_mask: (rows, cached + length), 0 = padding; or (rows, queries, keys), 0 = may not attend.
                By default what is not pad_index, or where tokens are cached, all.
            langs: (rows, length) languages; none by default.
            token_type_ids: (rows, length) ids whose token vectors are added; none by default.
            position_ids: (rows or 1, length); counted from the first real token by default.
            lengths: (rows,) of texts padded on the right, in place of an attention_mask.
            cache: of a causal model, State.empty(layers), or the past_key_values that an earlier call with a cache gave
                back, whose tokens come before these.
            head_mask: (heads,) or (layers, heads), a factor of every head's attention weights.

        Raises:
            ValueError: too long a sequence, an id outside of the vocabulary, both or neither of ids and embeddings, a
                cache where tokens see those after them.
        """
        c = self.config
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        rows, length = batch_shape(input_ids, inputs_embeds)
        if cache is not None and not c.causal:
            raise ValueError("a cache is for models that read from left to right: set config.causal, or leave it out.")
        state = None if cache is None else State.of(cache)
        past = 0 if state is None else state.length
        check_length(past + length, c.max_position_embeddings, position_ids)
        check_width(inputs_embeds, c.emb_dim)
        check_ids(input_ids, c.vocab_size, "input_ids", (rows, length))
        check_ids(langs, c.n_langs, "langs", (rows, length))
        check_ids(token_type_ids, c.vocab_size, "token_type_ids", (rows, length))
        check_ids(position_ids, c.max_position_embeddings, "position_ids", (rows, length))

        if attention_mask is None:
            attention_mask = seen_tokens(input_ids, inputs_embeds, lengths, c.pad_index, past)
        layout = Layout.of(
            (rows, length), attention_mask, self.device, causal=c.causal, past=past,
            packable=self.packable and not attentions and head_mask is None and state is None,
        )  # fmt: skip
        every_layer = hidden_states or (self.pooler is not None and self.pooler.needs_layers)
        taps = Taps(layout, hidden_states=every_layer, attentions=attentions)
        head_masks = per_layer(head_mask, [len(block.attn.heads) for block in self.blocks()])
        positions = layout.positions if position_ids is None else layout.pack(position_ids.expand(rows, length))

        # packed: (rows, length) -> (tokens,), padding left out until the last layer is done
        x = self.embed(
            layout.pack(input_ids), layout.pack(langs), layout.pack(token_type_ids), positions,
            layout.pack(inputs_embeds),
        )  # fmt: skip
        taps.state(x)
        for i, block in enumerate(self.layers):
            memory = None if state is None else state.layers[i]
            if not self.left_out():
                x = self.through(block, x, layout, memory, head_masks[i], taps)
            taps.state(x)
        x = layout.unpack(x)

        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=x,
            pooler_output=None if self.pooler is None else self.pooler(x, layout.real, taps.hidden_states),
            past_key_values=state,
            hidden_states=taps.seen("hidden_states") if hidden_states else None,
            attentions=taps.seen("attentions"),
        )
        return result if named else result.to_tuple()


# ---- checkpoint table ------------------------------------------------------------------------------------------------

KEYS = KeyMap(
    [
        ("embeddings.weight", "embed.tokens.weight"),
        ("position_embeddings.weight", "embed.positions.weight"),
        ("lang_embeddings.weight", "embed.languages.weight"),
        ("layer_norm_emb.{p}", "embed.norm.{p}"),
        ("attentions.{i}.{q_lin|k_lin|v_lin}.{p}", "layers.{i}.attn.qkv.{p}", Fuse()),
        ("attentions.{i}.out_lin.{p}", "layers.{i}.attn.out.{p}"),
        ("layer_norm1.{i}.{p}", "layers.{i}.attn_norm.{p}"),
        ("ffns.{i}.lin1.{p}", "layers.{i}.ffn.up.{p}"),
        ("ffns.{i}.lin2.{p}", "layers.{i}.ffn.down.{p}"),
        ("layer_norm2.{i}.{p}", "layers.{i}.ffn_norm.{p}"),
        ("pooler.dense.{p}", "pooler.dense.{p}"),
        ("pooler.query.{p}", "pooler.query.{p}"),
        ("pooler.layer_weights", "pooler.layer_weights"),
    ],
    heads=[
        ("pred_layer.proj.{p}", "lm.decoder.{p}"),
        ("pred_layer.proj.head.{p}", "lm.clusters.head.{p}"),
        ("pred_layer.proj.tail.{i}.{j}.{p}", "lm.clusters.tail.{i}.{j}.{p}"),
        ("sequence_summary.summary.{p}", "classifier.0.dense.{p}"),
        ("logits_proj.{p}", "classifier.1.{p}"),
        ("classifier.{p}", "classifier.out.{p}"),
        ("qa_outputs.{p}", "qa_outputs.{p}"),
        ("qa_outputs.start_logits.dense.{p}", "qa_outputs.start.{p}"),
        ("qa_outputs.end_logits.dense_0.{p}", "qa_outputs.end.dense.{p}"),
        ("qa_outputs.end_logits.LayerNorm.{p}", "qa_outputs.end.norm.{p}"),
        ("qa_outputs.end_logits.dense_1.{p}", "qa_outputs.end.out.{p}"),
        ("qa_outputs.answer_class.dense_0.{p}", "qa_outputs.answer.dense.{p}"),
        ("qa_outputs.answer_class.dense_1.{p}", "qa_outputs.answer.out.{p}"),
    ],
    drop=["position_ids"],
    fresh=["pooler."],
    prefix="transformer",
)
FlaubertPreTrained.backbone, FlaubertPreTrained.keys = FlaubertModel, KEYS


# ---- task classes ----------------------------------------------------------------------------------------------------


class FlaubertWithLMHeadModel(FlaubertPreTrained, PlaceLM):
    """Fills in masked words; with config.causal tells a word from those before it. Either way it writes."""


class FlaubertForSequenceClassification(FlaubertPreTrained, Summarised, SequenceClassification):
    """Labels or grades a text or a pair of texts."""

    def head(self, labels: int) -> nn.Module:
        return nn.Sequential(self.label_summary(labels))


class FlaubertForMultipleChoice(FlaubertPreTrained, Summarised, MultipleChoice):
    """Picks one of several continuations."""

    def head(self, labels: int) -> nn.Module:
        inner = self.config.num_labels
        return nn.Sequential(self.label_summary(inner), nn.Linear(inner, labels))


class FlaubertForTokenClassification(FlaubertPreTrained, TokenClassification):
    """Tags every token."""


class FlaubertForQuestionAnsweringSimple(FlaubertPreTrained, QuestionAnswering):
    """Finds the answer to a question in a text."""


class FlaubertForQuestionAnswering(FlaubertPreTrained, SpanBeams):
    """Finds likely answers to a question in a text, and tells whether there is one."""
