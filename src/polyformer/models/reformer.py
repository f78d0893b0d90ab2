"""Reformer: texts of half a million tokens on one machine, by attention among what a hash puts together.

Kitaev, Kaiser and Levskaya 2020, "Reformer: The Efficient Transformer", arXiv 2001.04451; google/trax. A Transformer
whose layers attend within chunks, of the text (local) or of the text sorted by a hash of what the tokens ask for (LSH);
whose two residual streams allow each layer's input to be computed from its output; and whose positions are coordinates
in a grid. Time and memory grow with the length. Any length will do: padding to chunks is nobody's business.

Where it differs from the reference, transformers 4.6.1: a text's chunks are its own, whatever else is in the batch, so
that padding changes no answer (with config.num_buckets set; without, their number hangs on the longest text); outside
of training an unset hash_seed means the same rotations every time; training takes any length. While training, memory
is that of one layer after `model.gradient_checkpointing_enable()`: layers are then run backwards (parts/reversible.py).

With a cache a step is what the last token of the whole text would get, from what earlier tokens got when they were new.
Where a text is longer than the chunks that LSH attention sees at once, that is another answer than that of the whole
text without a cache: new tokens move old ones to other chunks. (The reference's differ as soon as there are two.)
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.errors import ConfigError
from polyformer.core.keymap import Entry, Fuse, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions, ModelOutput, Tensors
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.tasks import (
    MaskedLM,
    QuestionAnswering,
    SequenceClassification,
    WordScores,
    Writes,
    real_tokens,
)
from polyformer.parts.attention import per_layer
from polyformer.parts.axial import GridPositions
from polyformer.parts.buckets import BucketMemory, BucketState, PastBuckets
from polyformer.parts.chunks import ChunkedAttention, ChunkLayout, LocalAttention, Reach
from polyformer.parts.embeddings import batch_shape, check_ids, check_length, check_width
from polyformer.parts.feedforward import Activation, activation, feed_forward
from polyformer.parts.heads import DenseHead, WordHead
from polyformer.parts.layout import Layout, tracing
from polyformer.parts.losses import next_token_loss
from polyformer.parts.lsh import HashedAttention, Hashing
from polyformer.parts.pooling import POOLINGS, pooling
from polyformer.parts.reversible import Couple, run_reversibly
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------

KINDS = ("local", "lsh")


@config("reformer")
class ReformerConfig(Config):
    """Fields and defaults are Hugging Face's, for its smallest examples; the paper's models are larger.

    attn_layers: "local" or "lsh", a layer each; num_hidden_layers is their number.
    attention_head_size: width of a head; all heads together may be wider than the states.
    axial_pos_embds: whether positions are coordinates in a grid of axial_pos_shape, row by row, each coordinate with a
        vector of its own, as wide as axial_pos_embds_dim says; these start with a standard deviation of axial_norm_std.
        Otherwise there is a table of max_position_embeddings.
    local_attn_chunk_length, lsh_attn_chunk_length: tokens of a chunk; ..._num_chunks_before, ..._num_chunks_after: how
        many chunks a token sees beside its own.
    num_hashes: rounds of hashing. num_buckets: how many buckets, or two numbers whose product it is; None = about twice
        as many as chunks.
    hash_seed: of the rotations; None = new ones each time while training, the same each time otherwise.
    chunk_size_feed_forward, chunk_size_lm_head: tokens at a time, 0 = all.
    """

    aliases = {  # noqa: RUF012
        "intermediate_size": "feed_forward_size",
        "attention_probs_dropout_prob": "local_attention_probs_dropout_prob",
    }

    attention_head_size: int = 64
    attn_layers: list[str] = field(default_factory=lambda: [*KINDS] * 3)
    axial_norm_std: float = 1.0
    axial_pos_embds: bool = True
    axial_pos_shape: tuple[int, ...] = (64, 64)
    axial_pos_embds_dim: tuple[int, ...] = (64, 192)
    chunk_size_lm_head: int = 0
    eos_token_id: int | None = 2
    feed_forward_size: int = 512
    hash_seed: int | None = None
    hidden_act: str = "relu"
    hidden_dropout_prob: float = 0.05
    hidden_size: int = 256
    initializer_range: float = 0.02
    is_decoder: bool = False
    layer_norm_eps: float = 1e-12
    local_num_chunks_before: int = 1
    local_num_chunks_after: int = 0
    local_attention_probs_dropout_prob: float = 0.05
    local_attn_chunk_length: int = 64
    lsh_attn_chunk_length: int = 64
    lsh_attention_probs_dropout_prob: float = 0.0
    lsh_num_chunks_before: int = 1
    lsh_num_chunks_after: int = 0
    max_position_embeddings: int = 4096
    num_attention_heads: int = 12
    num_buckets: int | list[int] | None = None
    num_hashes: int = 1
    pad_token_id: int | None = 0
    vocab_size: int = 320
    tie_word_embeddings: bool = False
    use_cache: bool = True
    num_hidden_layers: int = field(default=6, kw_only=True)

    def check(self) -> None:
        self.num_hidden_layers = len(self.attn_layers)
        self.axial_pos_shape, self.axial_pos_embds_dim = tuple(self.axial_pos_shape), tuple(self.axial_pos_embds_dim)
        self.check_choice("pooling", POOLINGS)
        if wrong := [kind for kind in self.attn_layers if kind not in KINDS]:
            raise ConfigError(f"attn_layers has {wrong[0]!r}; layers are {' or '.join(KINDS)}.")
        if self.axial_pos_embds and (parts := sum(self.axial_pos_embds_dim)) != self.hidden_size:
            raise ConfigError(
                f"axial_pos_embds_dim sum up to {parts}, but hidden_size {self.hidden_size} is their sum."
            )
        if self.axial_pos_embds and len(self.axial_pos_shape) != len(self.axial_pos_embds_dim):
            raise ConfigError("axial_pos_shape and axial_pos_embds_dim have a number for every axis: as many each.")
        if any(count < 2 or count % 2 for count in self.buckets or ()):
            raise ConfigError(f"num_buckets is {self.num_buckets}, but directions have opposites: give even numbers.")
        if self.tie_word_embeddings:
            raise ConfigError(
                "tie_word_embeddings cannot be: words are scored from two streams, twice as wide as the embeddings."
            )

    @property
    def buckets(self) -> list[int] | None:
        """num_buckets as the numbers whose product it is."""
        return [self.num_buckets] if isinstance(self.num_buckets, int) else self.num_buckets

    @property
    def longest(self) -> int:
        """Tokens of the longest text that there are positions for."""
        return torch.Size(self.axial_pos_shape).numel() if self.axial_pos_embds else self.max_position_embeddings

    @property
    def chunk_lengths(self) -> list[int]:
        """Tokens of a chunk, of every kind of layer that there is."""
        return sorted({getattr(self, f"{kind}_attn_chunk_length") for kind in self.attn_layers})

    @property
    def classifier_dropout_rate(self) -> float:
        return self.hidden_dropout_prob


@dataclass
class ReformerModelWithLMHeadOutput(ModelOutput):
    """loss (), logits (rows, length, words), and what is remembered.

    hidden_states, attentions: as ReformerModel gives them.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_buckets_states: BucketState | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


# ---- the model -------------------------------------------------------------------------------------------------------


class ReformerPreTrained(PreTrainedModel):
    """What Reformer's classes share."""

    config_class = ReformerConfig
    base_model_prefix = "reformer"
    packable = False
    padded_because: ClassVar[str] = "chunks are made of whole texts"

    @property
    def width(self) -> int:
        """Of what a head reads: both streams, or what the pooling makes of them."""
        pooler = getattr(self.base_model, "pooler", None)
        return 2 * self.config.hidden_size if pooler is None else pooler.out_width

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GridPositions):
            for axis in module.axes:
                nn.init.normal_(axis, std=self.config.axial_norm_std)

    def empty_state(self, capacity: int) -> BucketState:
        """What writing begins with; room for so many tokens."""
        return BucketState.empty(self.config.num_hidden_layers, capacity)


class ReformerEmbeddings(nn.Module):
    """Tokens and their places, in a grid or in a row, summed, dropped out."""

    def __init__(self, c: ReformerConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.positions = (
            GridPositions(c.axial_pos_shape, c.axial_pos_embds_dim)
            if c.axial_pos_embds
            else nn.Embedding(c.max_position_embeddings, c.hidden_size)
        )
        self.drop = nn.Dropout(c.hidden_dropout_prob)

    def forward(self, ids: Tensor | None, positions: Tensor, vectors: Tensor | None) -> Tensor:
        """ids (rows, length) int64, or vectors (rows, length, width) in their place -> (rows, length, width)."""
        x = self.tokens(ids) if vectors is None else vectors
        return self.drop(x + self.positions(positions))


class DroppedInner(nn.Module):
    """Dropout and an activation function after it."""

    def __init__(self, act: Activation, dropout: float) -> None:
        super().__init__()
        self.act = act
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(x))


class ReformerBlock(nn.Module):
    """One layer.

    x1 ----------------- + -- y1 ----.---- y1       attention and feed-forward, each with its norm before it, in turn
                         |           |              change one stream by what they read in the other
                     attention      ffn
                         |           |
    x2 ------------------'---------- + --- y2
    """

    def __init__(self, c: ReformerConfig, kind: str) -> None:
        super().__init__()
        width = c.hidden_size
        self.attn_norm = nn.LayerNorm(width, c.layer_norm_eps)
        self.attn = attention(c, kind)
        self.ffn_norm = nn.LayerNorm(width, c.layer_norm_eps)
        act = DroppedInner(activation(c.hidden_act), c.hidden_dropout_prob)
        self.ffn = feed_forward(width, c.feed_forward_size, act, c.chunk_size_feed_forward)
        self.drop = nn.Dropout(c.hidden_dropout_prob)

    def attend(self, x2: Tensor, *given: Any) -> Tensor:
        """What the first stream gets; `given` are the attention's further arguments."""
        return self.drop(self.attn(self.attn_norm(x2), *given))

    def feed(self, y1: Tensor) -> Tensor:
        """What the second stream gets."""
        return self.drop(self.ffn(self.ffn_norm(y1)))

    def forward(
        self,
        x1: Tensor,
        x2: Tensor,
        layout: ChunkLayout,
        memory: BucketMemory | None = None,
        head_mask: Tensor | None = None,
        taps: Taps | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x1, x2 (rows, length, width) -> the same shapes."""
        y1 = x1 + self.attend(x2, layout, memory, head_mask, taps)
        return y1, x2 + self.feed(y1)

    def couple(self, layout: ChunkLayout, head_mask: Tensor | None) -> Couple:
        """The same, to be run backwards: a second run takes the buckets of the first."""
        hashes: list[Tensor] = []
        return Couple(
            lambda x2: self.attend(x2, layout, None, head_mask, None, hashes),
            self.feed,
            [*self.attn_norm.parameters(), *self.attn.parameters()],
            [*self.ffn_norm.parameters(), *self.ffn.parameters()],
        )


def attention(c: ReformerConfig, kind: str) -> ChunkedAttention:
    """Of a layer of this kind."""
    shape = c.hidden_size, c.num_attention_heads, c.attention_head_size
    if kind == "local":
        reach = Reach(c.local_attn_chunk_length, c.local_num_chunks_before, c.local_num_chunks_after)
        return LocalAttention(*shape, reach, c.local_attention_probs_dropout_prob)
    reach = Reach(c.lsh_attn_chunk_length, c.lsh_num_chunks_before, c.lsh_num_chunks_after)
    hashing = Hashing(c.buckets, c.hash_seed, c.max_position_embeddings)
    return HashedAttention(*shape, reach, hashing, c.lsh_attention_probs_dropout_prob)


class ReformerModel(ReformerPreTrained):
    """The stack: states of all tokens, two streams side by side; one vector a sequence too with config.pooling."""

    def __init__(self, config: ReformerConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        c, width = config, config.hidden_size
        self.embed = ReformerEmbeddings(c)
        self.layers = nn.ModuleList(ReformerBlock(c, kind) for kind in c.attn_layers)
        self.norm = nn.LayerNorm(2 * width, c.layer_norm_eps)
        self.drop = nn.Dropout(c.hidden_dropout_prob)
        self.pooler = None
        if c.pooling and add_pooling_layer:
            streams = 1 if POOLINGS[c.pooling].needs_layers else 2  # between layers the second alone is shown
            self.pooler = pooling(c.pooling, streams * width, c.num_hidden_layers)
        self.init_weights()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed.tokens

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        self.embed.tokens = table

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        num_hashes: int | None = None,
        past_buckets_states: PastBuckets | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """Read a batch.

        Args:
            input_ids: (rows, length) int64, or inputs_embeds (rows, length, width) in their place.
            attention_mask: (rows, cached + length), 0 = padding.
            position_ids: (rows or 1, length); counted from the first real token by default.
            head_mask: (heads,) or (layers, heads), a factor of every head's attention weights.
            num_hashes: rounds of hashing, config.num_hashes by default.
            past_buckets_states: what an earlier call gave back, whose tokens come before these.
            use_cache: whether to give past_buckets_states back; decoders do by default, in training not.

        Hidden states and attentions are those of whole chunks, as in the reference: longer than the text where it fills
        none. Attentions of a text with more than one chunk are (rows, heads, chunks, size, near * size), of LSH layers
        (rows, heads, num_hashes * chunks, size, near * size) in the order of buckets.

        Raises:
            ValueError: too long a sequence, an id outside of the vocabulary, both or neither of ids and embeddings.
        """
        c = self.config
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        rows, length = batch_shape(input_ids, inputs_embeds)
        state = self.remembered(past_buckets_states, use_cache)
        past = 0 if state is None else state.length
        check_length(past + length, c.longest)
        check_width(inputs_embeds, c.hidden_size)
        check_ids(input_ids, c.vocab_size, "input_ids", (rows, length))
        check_ids(position_ids, c.longest, "position_ids", (rows, length))
        if attention_mask is not None and attention_mask.dim() != 2:
            raise ValueError("Reformer's attention_mask is (rows, length): chunks say by themselves who sees whom.")

        whole = Layout.of((rows, length), attention_mask, self.device, past=past, packable=False)
        layout = ChunkLayout.of(
            past + length, None if whole.mask is None else whole.mask[:, 0, 0], c.chunk_lengths, self.device,
            past=past, causal=c.is_decoder, rounds=num_hashes or c.num_hashes,
        )  # fmt: skip
        every_layer = hidden_states or (self.pooler is not None and self.pooler.needs_layers)
        taps = Taps(layout, hidden_states=every_layer, attentions=attentions)
        head_masks = per_layer(head_mask, [len(block.attn.heads) for block in self.blocks()])

        # by slots, whole chunks: (rows, length) -> (rows, slots), unless there are tokens before these
        ids = layout.pack(input_ids, c.pad_token_id or 0)
        positions = whole.positions if position_ids is None else position_ids
        x = self.embed(ids, self.places(layout, positions, position_ids is not None), layout.pack(inputs_embeds))
        x1, x2 = self.through_layers(x, layout, state, head_masks, taps)
        x = self.drop(self.norm(torch.cat([x1, x2], -1)))
        x = layout.unpack(x)[:, :length]

        seen_layers = None if taps.hidden_states is None else [t[:, :length] for t in taps.hidden_states]
        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=x,
            pooler_output=None if self.pooler is None else self.pooler(x, whole.real, seen_layers),
            past_buckets_states=None if use_cache is False else state,
            hidden_states=taps.seen("hidden_states") if hidden_states else None,
            attentions=taps.seen("attentions"),
        )
        return result if named else result.to_tuple()

    def remembered(self, past: PastBuckets | None, use_cache: bool | None) -> BucketState | None:
        """The state to go on from, if this call has one or is to leave one."""
        if past is not None:
            return BucketState.of(past)
        empty = self.recall(None, use_cache)  # whether there is to be one
        return None if empty is None else BucketState.empty(self.config.num_hidden_layers)

    def places(self, layout: ChunkLayout, positions: Tensor, given: bool) -> Tensor:
        """The positions (rows or 1, length) of what the layers read; what is beyond the text has any."""
        if layout.past:
            return positions
        slots = torch.arange(layout.slots, device=self.device)[None].clamp(max=self.config.longest - 1)
        if not given:  # texts begin at slot 0
            return slots
        return torch.where(slots < layout.total, layout.align(positions), slots)

    def through_layers(
        self,
        x: Tensor,
        layout: ChunkLayout,
        state: BucketState | None,
        head_masks: list[Tensor | None],
        taps: Taps,
    ) -> tuple[Tensor, Tensor]:
        """Both streams begin as x (rows, slots, width)."""
        x1 = x2 = x
        backwards = self.config.gradient_checkpointing and self.training and torch.is_grad_enabled() and not tracing()
        shown = taps.hidden_states is not None or taps.attentions is not None  # to be kept, and learnt from, anyway
        if backwards and not shown and state is None and not any(m is not None and m.requires_grad for m in head_masks):
            pairs = zip(self.blocks(), head_masks, strict=True)
            return run_reversibly([block.couple(layout, mask) for block, mask in pairs], x1, x2)
        for i, block in enumerate(self.layers):
            taps.state(x2)
            memory = None if state is None else state.layers[i]
            x1, x2 = self.through(block, x1, x2, layout, memory, head_masks[i], taps)
        taps.state(x2)
        return x1, x2


# ---- checkpoint table ------------------------------------------------------------------------------------------------

ATTENTION = "encoder.layers.{i}.attention.self_attention"
ROWS: list[Entry] = [
    ("embeddings.word_embeddings.weight", "embed.tokens.weight"),
    ("embeddings.position_embeddings.embedding.weight", "embed.positions.weight"),
    ("embeddings.position_embeddings.weights.{i}", "embed.positions.axes.{i}"),
    ("encoder.layers.{i}.attention.layer_norm.{p}", "layers.{i}.attn_norm.{p}"),
    (ATTENTION + ".{query|key|value}.weight", "layers.{i}.attn.qkv.weight", Fuse()),
    (ATTENTION + ".{query_key|value}.weight", "layers.{i}.attn.qv.weight", Fuse()),
    ("encoder.layers.{i}.attention.output.dense.weight", "layers.{i}.attn.out.weight"),
    ("encoder.layers.{i}.feed_forward.layer_norm.{p}", "layers.{i}.ffn_norm.{p}"),
    ("encoder.layers.{i}.feed_forward.dense.dense.{p}", "layers.{i}.ffn.up.{p}"),
    ("encoder.layers.{i}.feed_forward.output.dense.{p}", "layers.{i}.ffn.down.{p}"),
    ("encoder.layer_norm.{p}", "norm.{p}"),
    ("pooler.dense.{p}", "pooler.dense.{p}"),
    ("pooler.query.{p}", "pooler.query.{p}"),
    ("pooler.layer_weights", "pooler.layer_weights"),
]
KEYS = KeyMap(
    ROWS,
    heads=[
        ("lm_head.decoder.weight", "lm.decoder.weight"),
        ("lm_head.bias", "lm.decoder.bias"),
        ("classifier.dense.{p}", "classifier.dense.{p}"),
        ("classifier.out_proj.{p}", "classifier.scores.{p}"),
        ("qa_outputs.{p}", "qa_outputs.{p}"),
    ],
    drop=[  # constants
        ATTENTION + ".mask_value_float16",
        ATTENTION + ".mask_value_float32",
        ATTENTION + ".self_mask_value_float16",
        ATTENTION + ".self_mask_value_float32",
    ],
    fresh=["pooler."],
    legacy=[("lm_head.decoder.bias", "lm_head.bias")],
    prefix="reformer",
)
ReformerPreTrained.backbone, ReformerPreTrained.keys = ReformerModel, KEYS


# ---- task classes ----------------------------------------------------------------------------------------------------


class ChunkedWordHead(WordHead):
    """Scores of all words, for `chunk` tokens at a time."""

    def __init__(self, width: int, words: int, chunk: int) -> None:
        super().__init__(width, words)
        self.chunk = chunk

    def forward(self, x: Tensor) -> Tensor:
        if tracing():
            return super().forward(x)
        return torch.cat([super(ChunkedWordHead, self).forward(part) for part in x.split(self.chunk, -2)], -2)


class ScoresWords(ReformerPreTrained):
    """The word head: a linear map of both streams, tied to nothing."""

    def word_head(self) -> nn.Module:
        c = self.config
        made = ChunkedWordHead(self.width, c.vocab_size, c.chunk_size_lm_head) if c.chunk_size_lm_head else None
        return made or WordHead(self.width, c.vocab_size)


class ReformerModelWithLMHead(ScoresWords, Writes, WordScores):
    """Writes word after word (config.is_decoder=True)."""

    order: ClassVar[tuple[str, ...]] = ("input_ids", "position_ids", "attention_mask")
    passes = ("use_cache",)
    targets = ()
    wishes = ("labels", "logits_to_keep")

    def __init__(self, config: ReformerConfig) -> None:
        super().__init__(config)
        self.init_weights()

    def answer(
        self, inputs: dict[str, Any], labels: Tensor | None = None, logits_to_keep: int | None = None
    ) -> ReformerModelWithLMHeadOutput:
        """labels: (rows, length), not shifted, -100 for a token that is not to be predicted.

        logits_to_keep: score the words after this many last tokens only, as writing does; 0 or None = after all.
        """
        outputs = self.encode(inputs)
        logits = self.score_words(outputs.last_hidden_state, labels, logits_to_keep)
        loss = None if labels is None else next_token_loss(logits, labels, real_tokens(inputs, logits.shape[1]))
        return ReformerModelWithLMHeadOutput(
            loss, logits, outputs.past_buckets_states, outputs.hidden_states, outputs.attentions
        )


class ReformerForMaskedLM(ScoresWords, MaskedLM):
    """Fills in masked words."""

    order: ClassVar[tuple[str, ...]] = ReformerModelWithLMHead.order
    withheld = ("past_buckets_states",)


class ReformerForSequenceClassification(ReformerPreTrained, SequenceClassification):
    """Labels or grades a text, read off its first token unless config.pooling names another way."""

    order: ClassVar[tuple[str, ...]] = ReformerModelWithLMHead.order
    withheld = ("past_buckets_states",)
    pooled = False

    def head(self, labels: int) -> nn.Module:
        return DenseHead(self.width, self.config.hidden_size, labels, torch.tanh, self.config.classifier_dropout_rate)


class ReformerForQuestionAnswering(ReformerPreTrained, QuestionAnswering):
    """Finds the answer to a question in a text."""

    order: ClassVar[tuple[str, ...]] = ReformerModelWithLMHead.order
    withheld = ("past_buckets_states",)
