"""Longformer: RoBERTa for long texts, in time and memory that grow with the length and not with its square.

Beltagy, Peters and Cohan 2020, arXiv 2004.05150; allenai/longformer. RoBERTa's stack and positions, but a token sees a
window (`attention_window`, half of it to each side) and a few global tokens, which see and are seen by all through
projections of their own (parts/window.py). Any length will do; padding to window multiples is nobody's business.
"""

import copy
import dataclasses
from dataclasses import field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.errors import ConfigError
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
from polyformer.parts.attention import per_layer
from polyformer.parts.blocks import PostNormBlock
from polyformer.parts.embeddings import Embeddings, batch_shape, check_ids, check_length, check_width
from polyformer.parts.feedforward import activation, feed_forward
from polyformer.parts.heads import ClassifierHead, DenseHead, LMHead
from polyformer.parts.layout import Layout, tracing
from polyformer.parts.pooling import POOLINGS, pooling
from polyformer.parts.positions import numbered_after_pad
from polyformer.parts.window import WindowAttention, WindowLayout, WindowTaps

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("longformer")
class LongformerConfig(Config):
    """Field names and defaults are Hugging Face's; longformer-base-4096 has vocab_size 50265, type_vocab_size 1,
    max_position_embeddings 4098 and layer_norm_eps 1e-5.

    attention_window: tokens that a token sees besides itself, half of them to each side: even; one number, or one a
        layer.
    sep_token_id: ends the question where a head finds it by itself.
    """

    attention_window: int | list[int] = 512
    sep_token_id: int | None = 2
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
        self.check_choice("position_embedding_type", ("absolute",))
        self.check_choice("pooling", POOLINGS)
        if self.pad_token_id is None or not 0 <= self.pad_token_id < self.max_position_embeddings:
            raise ConfigError(f"pad_token_id is {self.pad_token_id}, but positions are counted from it: set it.")
        if len(self.windows) != self.num_hidden_layers or not all(w > 0 and w % 2 == 0 for w in self.windows):
            raise ConfigError(
                f"attention_window is {self.attention_window}; it is an even number above 0, or one for each of the "
                f"{self.num_hidden_layers} layers."
            )

    @property
    def windows(self) -> list[int]:
        """Of every layer."""
        w = self.attention_window
        return [w] * self.num_hidden_layers if isinstance(w, int) else list(w)

    @property
    def classifier_dropout_rate(self) -> float:
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout


# ---- the model -------------------------------------------------------------------------------------------------------


class LongformerPreTrained(PreTrainedModel):
    """What Longformer's classes share."""

    config_class = LongformerConfig
    base_model_prefix = "longformer"

    def word_head(self) -> LMHead:
        c = self.config
        return LMHead(c.hidden_size, c.vocab_size, F.gelu, nn.LayerNorm(c.hidden_size, c.layer_norm_eps))


def layer(c: LongformerConfig, window: int) -> PostNormBlock:
    """One layer of the stack: attention within its window, feed-forward."""

    def norm() -> nn.Module:
        return nn.LayerNorm(c.hidden_size, c.layer_norm_eps)

    attn = WindowAttention(c.hidden_size, c.num_attention_heads, window // 2, c.attention_probs_dropout_prob)
    ffn = feed_forward(c.hidden_size, c.intermediate_size, activation(c.hidden_act), c.chunk_size_feed_forward)
    return PostNormBlock(attn, ffn, norm, c.hidden_dropout_prob)


class LongformerModel(LongformerPreTrained):
    """The encoder with a pooler: states of all tokens, one vector a sequence.

    global_places: how many global tokens a sequence may have in a graph that is recorded (export, compile, trace),
        whose shapes cannot depend on how many there are. Set it before recording: fewer are faster, 1 is enough to
        classify sequences. A sequence with more raises, or, where the graph's runtime cannot, gets NaN everywhere.
    """

    global_places: int = 64

    def __init__(self, config: LongformerConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        c, width = config, config.hidden_size
        self.embed = Embeddings(
            c.vocab_size, c.max_position_embeddings, c.type_vocab_size, width,
            nn.LayerNorm(width, c.layer_norm_eps), c.hidden_dropout_prob, c.pad_token_id, c.pad_token_id,
        )  # fmt: skip
        self.layers = nn.ModuleList(layer(c, window) for window in c.windows)
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
        global_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """Encode a batch.

        Args:
            input_ids: (rows, length) int64, or inputs_embeds (rows, length, width) in their place.
            attention_mask: (rows, length), 0 = padding, 1 = a token, 2 = a global token.
            global_attention_mask: (rows or 1, length), 1 = a global token; none but the mask's by default.
            head_mask: (heads,) or (layers, heads), a factor of every head's attention weights.
            token_type_ids: (rows, length) segments, 0 by default.
            position_ids: (rows or 1, length); by default the first real token has pad_token_id + 1, and a token that is
                the padding id takes no position, masked or not.

        Attentions have the shape (rows, heads, length, places + attention_window + 1): on the global tokens, in order,
        and on the window; a global token's own are in `global_attentions`, (rows, heads, length, places), whose column
        is what that token sees. There are as many places as the sequence with most global tokens has; those that
        another sequence does not fill mean nothing.

        Raises:
            ValueError: too long a sequence, an id outside of the vocabulary, both or neither of ids and embeddings.
        """
        c = self.config
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        rows, length = batch_shape(input_ids, inputs_embeds)
        check_length(length, c.max_position_embeddings - c.pad_token_id - 1)
        check_width(inputs_embeds, c.hidden_size)
        check_ids(input_ids, c.vocab_size, "input_ids", (rows, length))
        check_ids(token_type_ids, c.type_vocab_size, "token_type_ids", (rows, length))
        check_ids(position_ids, c.max_position_embeddings, "position_ids", (rows, length))
        marked = global_tokens((rows, length), attention_mask, global_attention_mask)

        layout = Layout.of(
            (rows, length), attention_mask, self.device,
            packable=self.packable and not attentions and head_mask is None,
        )  # fmt: skip
        places = 0 if global_attention_mask is None else self.global_places
        layout = WindowLayout.around(layout, marked, (rows, length), places)
        every_layer = hidden_states or (self.pooler is not None and self.pooler.needs_layers)
        taps = WindowTaps(layout, hidden_states=every_layer, attentions=attentions)
        head_masks = per_layer(head_mask, [len(block.attn.heads) for block in self.blocks()])
        if position_ids is None:
            positions = numbered_after_pad(layout, input_ids, c.pad_token_id)
        else:
            positions = layout.pack(position_ids.expand(rows, length))

        # packed: (rows, length) -> (tokens,), padding left out until the last layer is done
        x = self.embed(layout.pack(input_ids), layout.pack(token_type_ids), positions, layout.pack(inputs_embeds))
        taps.state(x)
        for i, block in enumerate(self.layers):
            x = self.through(block, x, layout, None, head_masks[i], taps)
            taps.state(x)
        x = layout.unpack(x)
        if layout.lost is not None:
            torch._assert_async(
                ~layout.lost.any(),
                "more global tokens than this graph has places for: set the model's global_places, and give "
                "global_attention_mask where attention_mask has 2, before recording it.",
            )
            x = x.masked_fill(layout.lost[:, None, None], float("nan"))

        pooled = None if self.pooler is None else self.pooler(x, layout.real, taps.hidden_states)
        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=x,
            pooler_output=pooled,
            hidden_states=taps.seen("hidden_states") if hidden_states else None,
            attentions=taps.seen("attentions"),
            global_attentions=taps.global_weights(-(-length // max(c.windows)) * max(c.windows)),
        )
        return result if named else result.to_tuple()


def global_tokens(
    shape: tuple[int, int], attention_mask: Tensor | None, global_attention_mask: Tensor | None
) -> Tensor | None:
    """Which tokens are global, (rows, length) bool; None where nothing says so. Padding never is."""
    if attention_mask is not None and attention_mask.dim() != 2:
        raise ValueError("Longformer's attention_mask is (rows, length): a window says by itself who sees whom.")
    marked = None if attention_mask is None else attention_mask > 1
    if global_attention_mask is None:
        return marked
    given = tuple(global_attention_mask.shape)
    if not tracing() and given not in (shape, (1, shape[1])):
        raise ValueError(f"global_attention_mask has shape {given}, but {shape} was expected: one entry a token.")
    also = global_attention_mask.bool().expand(shape)
    return also if marked is None or attention_mask is None else (marked | also) & attention_mask.bool()


# ---- checkpoint table ------------------------------------------------------------------------------------------------

KEYS = KeyMap(
    [
        ("embeddings.word_embeddings.weight", "embed.tokens.weight"),
        ("embeddings.position_embeddings.weight", "embed.positions.weight"),
        ("embeddings.token_type_embeddings.weight", "embed.types.weight"),
        ("embeddings.LayerNorm.{p}", "embed.norm.{p}"),
        ("encoder.layer.{i}.attention.self.{query|key|value}.{p}", "layers.{i}.attn.qkv.{p}", Fuse()),
        ("encoder.layer.{i}.attention.self.query_global.{p}", "layers.{i}.attn.q_global.{p}"),
        ("encoder.layer.{i}.attention.self.{key_global|value_global}.{p}", "layers.{i}.attn.kv_global.{p}", Fuse()),
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
        ("lm_head.dense.{p}", "lm.dense.{p}"),
        ("lm_head.layer_norm.{p}", "lm.norm.{p}"),
        ("lm_head.decoder.weight", "lm.decoder.weight"),
        ("lm_head.bias", "lm.decoder.bias"),
        ("classifier.dense.{p}", "classifier.dense.{p}"),
        ("classifier.out_proj.{p}", "classifier.scores.{p}"),
        ("classifier.{p}", "classifier.out.{p}"),
        ("qa_outputs.{p}", "qa_outputs.{p}"),
    ],
    drop=["embeddings.position_ids", "embeddings.token_type_ids"],
    fresh=["pooler."],
    legacy=[(".gamma", ".weight"), (".beta", ".bias"), ("lm_head.decoder.bias", "lm_head.bias")],
    prefix="longformer",
)
LongformerPreTrained.backbone, LongformerPreTrained.keys = LongformerModel, KEYS


# ---- task classes ----------------------------------------------------------------------------------------------------


def separators(inputs: dict[str, Any], sep: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens' numbers, (length,); the first separator's, (rows, 1); who is a separator, (rows, length) bool."""
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if ids is None or sep is None:
        lacking = "from inputs_embeds" if ids is None else "without config.sep_token_id"
        raise ValueError(f"{lacking} the question cannot be told from the rest: give global_attention_mask.")
    found = ids == sep if mask is None else (ids == sep) & mask.bool()
    if not tracing() and ids.device.type == "cpu" and not bool(found.any(1).all()):
        raise ValueError(
            f"a sequence has no separator (id {sep}), so the question cannot be told from the rest: give "
            f"global_attention_mask."
        )
    return torch.arange(ids.shape[1], device=ids.device), found.int().argmax(1, keepdim=True), found


class LongformerForMaskedLM(LongformerPreTrained, MaskedLM):
    """Fills in masked words, as Longformer was pretrained."""


class LongformerForSequenceClassification(LongformerPreTrained, SequenceClassification):
    """Labels or grades a text. The first token is global unless global_attention_mask says which are."""

    pooled = False

    def head(self, labels: int) -> nn.Module:
        return DenseHead(self.width, self.config.hidden_size, labels, torch.tanh, self.config.classifier_dropout_rate)

    def encode(self, inputs: dict[str, Any]) -> BaseModelOutputWithPoolingAndCrossAttentions:
        if inputs.get("global_attention_mask") is None:
            rows, length = batch_shape(inputs.get("input_ids"), inputs.get("inputs_embeds"))
            mask = inputs.get("attention_mask")
            mask = torch.ones(rows, length, device=self.device) if mask is None else mask
            first = mask.bool().int().argmax(1, keepdim=True)
            inputs = inputs | {"global_attention_mask": torch.arange(length, device=self.device) == first}
        return super().encode(inputs)


class LongformerForMultipleChoice(LongformerPreTrained, MultipleChoice):
    """Picks one of several continuations. What follows the question is global unless global_attention_mask says."""

    order: ClassVar[tuple[str, ...]] = (
        "input_ids", "token_type_ids", "attention_mask", "global_attention_mask", "head_mask", "labels",
    )  # fmt: skip

    def encode(self, inputs: dict[str, Any]) -> BaseModelOutputWithPoolingAndCrossAttentions:
        if inputs.get("global_attention_mask") is None:
            number, first, found = separators(inputs, self.config.sep_token_id)
            second = (number == first + 1) & found  # RoBERTa's pairs have two between them, BERT's one
            inputs = inputs | {"global_attention_mask": (number > first) & ~second}
        return super().encode(inputs)


class LongformerForTokenClassification(LongformerPreTrained, TokenClassification):
    """Tags every token."""


class LongformerForQuestionAnswering(LongformerPreTrained, QuestionAnswering):
    """Finds the answer to a question in a text. The question is global unless global_attention_mask says which are."""

    def encode(self, inputs: dict[str, Any]) -> BaseModelOutputWithPoolingAndCrossAttentions:
        if inputs.get("global_attention_mask") is None:
            number, first, _ = separators(inputs, self.config.sep_token_id)
            inputs = inputs | {"global_attention_mask": number < first}
        return super().encode(inputs)


# ---- from shorter models ---------------------------------------------------------------------------------------------

LONG = {
    MaskedLM: LongformerForMaskedLM,
    SequenceClassification: LongformerForSequenceClassification,
    MultipleChoice: LongformerForMultipleChoice,
    TokenClassification: LongformerForTokenClassification,
    QuestionAnswering: LongformerForQuestionAnswering,
}


def to_longformer(
    model: PreTrainedModel, attention_window: int | list[int] = 512, max_position_embeddings: int = 4096
) -> Any:
    """A Longformer with the weights of a BERT or RoBERTa, of the same task, ready to be trained on long texts.

    Positions past the model's own repeat them, and global tokens start with the projections of the others (section 5 of
    the paper), so that a text that fits into half a window gets the answers that the model gave.

    Args:
        model: of this library, an encoder with BERT's or RoBERTa's modules and absolute positions.
        attention_window: of the Longformer's configuration.
        max_position_embeddings: how many tokens it is to read; its own table has pad_token_id + 1 rows more.

    Raises:
        ValueError: a model of another build, or with a task that Longformer has no class for.
    """
    made: Any = (
        LongformerModel if model.is_base else next((LONG[task] for task in LONG if isinstance(model, task)), None)
    )
    if made is None:
        raise ValueError(f"Longformer has no class for the task of {type(model).__name__}.")
    base: Any = model.base_model
    old, prefix = model.config, "" if model.is_base else f"{model.base_model_prefix}."
    pad = old.pad_token_id or 0
    shared = {f.name for f in dataclasses.fields(LongformerConfig)} & {f.name for f in dataclasses.fields(old)}
    values = {name: copy.deepcopy(getattr(old, name)) for name in shared - {"architectures", "extra"}} | {
        "attention_window": attention_window,
        "max_position_embeddings": max_position_embeddings + pad + 1,
        "pad_token_id": pad,
        "sep_token_id": old.eos_token_id if old.sep_token_id is None else old.sep_token_id,
    }
    tensors = {
        f"longformer.{k[len(prefix) :]}" if k.startswith(prefix) else k: v for k, v in model.state_dict().items()
    }
    if made is LongformerForSequenceClassification and isinstance(model.classifier, ClassifierHead):
        _join_pooler(tensors, old.pooling)
        values["pooling"] = None
    for name in [name for name in tensors if ".attn.qkv." in name]:
        q, k, v = tensors[name].chunk(3)
        tensors |= {name.replace("qkv", "q_global"): q, name.replace("qkv", "kv_global"): torch.cat([k, v])}
    arguments = {}
    if model.is_base:
        tensors = {name.removeprefix("longformer."): value for name, value in tensors.items()}
        arguments = {"add_pooling_layer": base.pooler is not None}
    long: Any = made(LongformerConfig(**values), **arguments)
    acts_alike = not isinstance(model, MaskedLM) or model.lm.act is long.lm.act
    if tensors.keys() != long.state_dict().keys() or old.is_decoder or not acts_alike:
        raise ValueError(f"{type(model).__name__} is not built as BERT's and RoBERTa's encoders are.")
    name = next(name for name in tensors if name.endswith("embed.positions.weight"))
    tensors[name] = _tiled(base.embed.positions, pad + 1, max_position_embeddings)
    long.to(device=model.device, dtype=model.dtype).load_state_dict(tensors)
    return long.train(model.training)


def _join_pooler(tensors: dict[str, Tensor], pooling: str | None) -> None:
    """BERT's pooler and classifier as one head of two layers, in place."""
    if pooling not in (None, "cls"):
        raise ValueError(
            f"Longformer's classifier has two layers, one more than pooling {pooling!r} leaves it to read."
        )
    for p in ("weight", "bias"):
        tensors[f"classifier.dense.{p}"] = tensors.pop(f"longformer.pooler.dense.{p}")
        tensors[f"classifier.scores.{p}"] = tensors.pop(f"classifier.out.{p}")


def _tiled(table: nn.Embedding, before: int, count: int) -> Tensor:
    """So many positions, the table's over and over, after `before` that no token has; (before + count, width)."""
    first = 0 if table.padding_idx is None else table.padding_idx + 1  # where the table's own count begins
    unused = table.weight.new_zeros(before, table.embedding_dim)
    unused[:first] = table.weight.detach()[:first]
    own = table.weight.detach()[first:]
    return torch.cat([unused, own[torch.arange(count, device=own.device) % own.shape[0]]])
