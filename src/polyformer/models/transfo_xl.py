"""Transformer-XL: a Transformer that writes, segment after segment, and sees what its layers read of earlier ones.

Dai et al. 2019, arXiv 1901.02860; kimiyoung/transformer-xl. Tokens are placed by their distances; words have vectors
and probabilities by clusters. A text begins with a memory of zero vectors that are seen like any other, as in the
original's TensorFlow code and Transformers 4, with which the published weights were evaluated.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.core.causal_tasks import LastTokenClassification
from polyformer.core.config import Config, config
from polyformer.core.errors import ConfigError
from polyformer.core.keymap import KeyMap
from polyformer.core.outputs import AdaptiveLMOutput, BaseModelOutputWithPoolingAndCrossAttentions
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.tasks import SequenceClassification, WordScores, Writes, real_tokens
from polyformer.parts.adaptive import (
    AdaptiveEmbedding,
    AdaptiveSoftmax,
    ClusteredSoftmax,
    Clusters,
    PlainEmbedding,
    PlainSoftmax,
    Projection,
    WordVectors,
)
from polyformer.parts.attend import attend
from polyformer.parts.attention import keep_columns, keep_rows, kept_heads, per_layer
from polyformer.parts.embeddings import batch_shape, check_ids, check_width
from polyformer.parts.feedforward import Dropped, activation, feed_forward
from polyformer.parts.flush import Flush
from polyformer.parts.layout import tracing
from polyformer.parts.losses import IGNORE
from polyformer.parts.memory import Memory, Mems
from polyformer.parts.pooling import POOLINGS, pooling
from polyformer.parts.positions import relative_shift, waves

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("transfo-xl")
class TransfoXLConfig(Config):
    """transfo-xl-wt103 by default; field names and defaults are Hugging Face's, the uniform ones are aliases.

    cutoffs: where the clusters of words end that are not the last one; none = one cluster.
    div_val: cluster i's vectors are d_embed / div_val^i wide; 1 = one table for all.
    mem_len: how many tokens are remembered. same_length: every token sees the last mem_len ones, itself included;
        else all of the memory and of its segment up to itself, so that a text read in segments sees less than one read
        whole, be it only zero vectors that it has forgotten.
    clamp_len: distances beyond are as this one; 0 or less = none are.
    tie_projs: for which clusters the projections of the embeddings are those of the softmax too; by default for all
        but the first, or none without proj_share_all_but_first. tie_weight: whether their tables are.
    untie_r: whether each layer has its own biases of content and distance.
    pre_lnorm: norms come before attention and feed-forward, inside the residuals.
    init: weights start "normal", with deviation init_std (projections proj_init_std), or "uniform" up to init_range.
    attn_type, sample_softmax: only 0 and -1 have ever been in use; adaptive: nothing hangs on it.
    """

    aliases = {  # noqa: RUF012
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "d_inner",
        "n_token": "vocab_size",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "dropatt",
        "layer_norm_eps": "layer_norm_epsilon",
        "initializer_range": "init_std",
    }
    causal = True

    vocab_size: int = 267735
    cutoffs: list[int] = field(default_factory=lambda: [20000, 40000, 200000])
    d_model: int = 1024
    d_embed: int = 1024
    n_head: int = 16
    d_head: int = 64
    d_inner: int = 4096
    div_val: int = 4
    pre_lnorm: bool = False
    n_layer: int = 18
    mem_len: int = 1600
    clamp_len: int = 1000
    same_length: bool = True
    proj_share_all_but_first: bool = True
    attn_type: int = 0
    sample_softmax: int = -1
    adaptive: bool = True
    dropout: float = 0.1
    dropatt: float = 0.0
    untie_r: bool = True
    init: str = "normal"
    init_range: float = 0.01
    proj_init_std: float = 0.01
    init_std: float = 0.02
    layer_norm_epsilon: float = 1e-5
    eos_token_id: int | None = 0
    tie_projs: list[bool] | None = field(default=None, kw_only=True)
    tie_weight: bool = field(default=True, kw_only=True)
    pad_token_id: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.tie_projs is None:
            self.tie_projs = [False] + [self.proj_share_all_but_first] * len(self.cutoffs)
        super().__post_init__()

    def check(self) -> None:
        bounds = [0, *self.cutoffs, self.vocab_size]
        if sorted({*bounds}) != bounds:
            raise ConfigError(f"cutoffs {self.cutoffs} must rise, between 0 and vocab_size {self.vocab_size}.")
        if len(self.tie_projs or ()) != len(self.cutoffs) + 1:
            raise ConfigError(f"tie_projs {self.tie_projs} must have one entry a cluster, one more than cutoffs.")
        if self.div_val < 1 or self.d_embed < self.div_val ** len(self.cutoffs):
            raise ConfigError(f"d_embed {self.d_embed} leaves the last cluster no width at div_val {self.div_val}.")
        if self.d_model % 2:
            raise ConfigError(f"d_model is {self.d_model}, but distances are sines and cosines: it must be even.")
        if self.mem_len < 0 or (self.same_length and not self.mem_len):
            raise ConfigError(
                f"mem_len is {self.mem_len}: with same_length a token sees that many, so give at least 1; 0 otherwise."
            )
        if self.attn_type or self.sample_softmax > 0:
            raise ConfigError("attn_type must be 0 and sample_softmax -1: nothing else was ever published.")
        self.check_choice("init", ("normal", "uniform"))
        self.check_choice("pooling", POOLINGS)

    @property
    def max_position_embeddings(self) -> int | None:
        """A text may have any length."""
        return None


# ---- the model -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """What every layer looks at, beside the states. Rows begin with their first real token.

    waves: (1 + keys, width), of the distances from `keys` down to 0.
    mask: (rows or 1, 1, queries, keys) bool, True = may attend.
    flush: how rows were moved to begin so.
    """

    waves: Tensor
    mask: Tensor
    flush: Flush

    def as_given(self, weights: Tensor) -> Tensor:
        """Attention weights, (rows, heads, queries, keys), with the segment's tokens where the caller has them."""
        before = weights.shape[3] - weights.shape[2]
        weights = self.flush.back(weights, 2)
        return torch.cat([weights[..., :before], self.flush.back(weights[..., before:], 3)], 3)


class DistanceAttention(nn.Module):
    """Attention to a segment and the memory before it, of which a query reads content and distance.

    score = (q + content_bias) . k + (q + distance_bias) . r  (Dai et al. 2019, section 3.3), where r is the projected
    wave of the distance. For a few queries it is less work to bring them to the states, q' = W' q, than to project
    all states of a long memory and all waves for them; the numbers are the same.
    """

    reads_weights = ("qkv", "distances")

    def __init__(self, width: int, heads: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.dim, self.heads, self.scale = dim, list(range(heads)), dim**-0.5
        self.qkv = nn.Linear(width, 3 * heads * dim, bias=False)
        self.distances = nn.Linear(width, heads * dim, bias=False)
        self.out = nn.Linear(heads * dim, width, bias=False)
        self.content_bias = nn.Parameter(torch.empty(heads, dim))
        self.distance_bias = nn.Parameter(torch.empty(heads, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, seen: Tensor, view: View, head_mask: Tensor | None, shown: list[Tensor] | None
    ) -> Tensor:
        """x (rows, length, width); seen (rows, keys, width), the memory and then x -> as x."""
        inner = self.out.in_features
        # (rows, length, heads * dim) -> (rows, heads, length, dim)
        q = F.linear(x, self.qkv.weight[:inner]).unflatten(-1, (-1, self.dim)).transpose(1, 2)
        attention = self.few if not tracing() and 2 * x.shape[1] <= self.dim else self.many
        y, weights = attention(q, seen, view, head_mask, shown is not None)
        if shown is not None and weights is not None:
            shown.append(view.as_given(weights))
        return self.out(y.transpose(1, 2).flatten(2))

    def many(
        self, q: Tensor, seen: Tensor, view: View, head_mask: Tensor | None, weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """q (rows, heads, length, dim) with states seen (rows, keys, width), projected -> as q, and the weights."""
        inner = self.out.in_features
        k, v = F.linear(seen, self.qkv.weight[inner:]).unflatten(-1, (2, -1, self.dim)).transpose(1, 3).unbind(2)
        # (count, heads * dim) -> (heads, dim, count)
        r = self.distances(view.waves).unflatten(-1, (-1, self.dim)).permute(1, 2, 0)
        by_distance = ((q + self.distance_bias[:, None]) * self.scale) @ r
        return attend(
            q + self.content_bias[:, None], k, v, bias=relative_shift(by_distance, seen.shape[1]), mask=view.mask,
            scale=self.scale, dropout=self.dropout, head_mask=head_mask, weights=weights,
        )  # fmt: skip

    def few(
        self, q: Tensor, seen: Tensor, view: View, head_mask: Tensor | None, weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The same with the queries brought to the states: one head as wide as these, of heads * length queries."""
        heads, length = q.shape[1:3]
        _, by_k, by_v = self.qkv.weight.unflatten(0, (3, heads, self.dim))

        def brought(q: Tensor, by: Tensor) -> Tensor:  # (rows, heads, length, dim) -> (rows, 1, heads * length, width)
            return (q @ by).flatten(1, 2)[:, None]

        def folded(x: Tensor) -> Tensor:  # (..., heads or 1, length or 1, n) -> (..., 1, heads * length, n)
            return x.expand(-1, heads, length, -1).flatten(1, 2)[:, None]

        by = self.distances.weight.unflatten(0, (heads, self.dim))
        by_distance = brought((q + self.distance_bias[:, None]) * self.scale, by) @ view.waves.T
        bias = relative_shift(by_distance.unflatten(2, (heads, length)).squeeze(1), seen.shape[1])
        states = seen[:, None]
        y, shown = attend(
            brought(q + self.content_bias[:, None], by_k), states, states, bias=folded(bias), mask=folded(view.mask),
            scale=self.scale, dropout=self.dropout, head_mask=None if head_mask is None else folded(head_mask),
            weights=weights,
        )  # fmt: skip
        y = y.squeeze(1).unflatten(1, (heads, length)) @ by_v.mT
        return y, None if shown is None else shown.squeeze(1).unflatten(1, (heads, length))

    def prune(self, heads: Iterable[int]) -> None:
        """Remove these heads for good; numbers are those of the unpruned layer, and stay so."""
        present, inner = self.heads, self.out.in_features
        self.heads, kept = kept_heads(present, heads, self.dim)
        self.qkv = keep_rows(self.qkv, torch.cat([kept, kept + inner, kept + 2 * inner]))
        self.distances, self.out = keep_rows(self.distances, kept), keep_columns(self.out, kept)
        left = torch.tensor([present.index(h) for h in self.heads], device=self.content_bias.device)
        for name in ("content_bias", "distance_bias"):
            setattr(self, name, nn.Parameter(getattr(self, name).data[left]))


class MemoryBlock(nn.Module):
    """Attention and feed-forward, normalised after each residual."""

    def __init__(self, c: TransfoXLConfig) -> None:
        super().__init__()
        self.attn = DistanceAttention(c.d_model, c.n_head, c.d_head, c.dropatt)
        self.attn_norm = nn.LayerNorm(c.d_model, c.layer_norm_epsilon)
        act = Dropped(activation("relu"), c.dropout)
        self.ffn = feed_forward(c.d_model, c.d_inner, act, c.chunk_size_feed_forward)
        self.ffn_norm = nn.LayerNorm(c.d_model, c.layer_norm_epsilon)
        self.drop = nn.Dropout(c.dropout)

    def forward(
        self, x: Tensor, seen: Tensor, view: View, head_mask: Tensor | None, shown: list[Tensor] | None
    ) -> Tensor:
        """x (rows, length, width); seen (rows, keys, width), the memory and then x -> as x."""
        x = self.attn_norm(x + self.drop(self.attn(x, seen, view, head_mask, shown)))
        return self.ffn_norm(x + self.drop(self.ffn(x)))


class PreNormMemoryBlock(MemoryBlock):
    """The same, normalised before attention and feed-forward, inside the residuals."""

    def forward(
        self, x: Tensor, seen: Tensor, view: View, head_mask: Tensor | None, shown: list[Tensor] | None
    ) -> Tensor:
        x = x + self.drop(self.attn(self.attn_norm(x), self.attn_norm(seen), view, head_mask, shown))
        return x + self.drop(self.ffn(self.ffn_norm(x)))


class TransfoXLPreTrained(PreTrainedModel):
    """What Transformer-XL's classes share."""

    config_class = TransfoXLConfig
    base_model_prefix = "transformer"
    packable = False
    padded_because = "a memory lies before every row"

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, 1.0, self.config.init_std)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.Embedding | Clusters):
            self._start(module.weight, self.config.init_std)
            if isinstance(bias := getattr(module, "bias", None), Tensor):
                nn.init.zeros_(bias)
        elif isinstance(module, Projection):
            self._start(module.weight, self.config.proj_init_std)
        elif isinstance(module, DistanceAttention):
            self._start(module.content_bias, self.config.init_std)
            self._start(module.distance_bias, self.config.init_std)

    def _start(self, p: Tensor, std: float) -> None:
        bound = self.config.init_range
        nn.init.normal_(p, std=std) if self.config.init == "normal" else nn.init.uniform_(p, -bound, bound)

    def init_mems(self, bsz: int) -> Memory | None:
        """What so many texts begin with: mem_len zero vectors a layer; None where nothing is remembered."""
        c = self.config
        return Memory.blank(c.n_layer, bsz, c.mem_len, c.d_model, next(self.parameters())) if c.mem_len else None

    def reset_memory_length(self, mem_len: int) -> None:
        """Remember so many tokens from now on."""
        before, self.config.mem_len = self.config.mem_len, mem_len
        try:
            self.config.check()
        except ConfigError:
            self.config.mem_len = before
            raise

    def resize_token_embeddings(self, new_num_tokens: int | None = None, layer: int = -1) -> WordVectors:  # type: ignore[override]
        """Grow (new rows from the seed) or cut one cluster of the vocabulary, the last unless `layer` says otherwise.

        Words are numbered cluster by cluster, so those of later ones move by as much. The embeddings are returned.
        """
        embed: WordVectors = self.get_input_embeddings()  # type: ignore[assignment]
        more = 0 if new_num_tokens is None else new_num_tokens - embed.num_embeddings
        if new_num_tokens is None or not more:
            return embed
        count, cutoffs = len(embed.tables), self.config.cutoffs
        if not -count <= layer < count:
            raise ValueError(f"there is no table {layer} of word vectors: layer is 0 to {count - 1}, -1 the last.")
        number = layer % count
        rows, least = embed.sizes[number] + more, 1
        if count > 1:  # else the table's last rows are the last cluster
            cutoffs = [*cutoffs[:number], *(cut + more for cut in cutoffs[number:])]
        elif cutoffs:
            least += cutoffs[-1]
        if rows < least:
            raise ValueError(
                f"{new_num_tokens} tokens leave cluster {number} of the vocabulary without a word: give at least "
                f"{new_num_tokens + least - rows}."
            )
        embed.tables[number] = self._resized(embed.tables[number], rows)
        head: ClusteredSoftmax | None = getattr(self, "lm", None)
        if head is not None:
            self._resize_output(head.layers[number], rows)
            head.cutoffs = list(cutoffs)
        self.config.vocab_size, self.config.cutoffs = new_num_tokens, cutoffs
        self.tie_weights()
        return embed


class TransfoXLModel(TransfoXLPreTrained):
    """The stack: states of all tokens; one vector a sequence too where config.pooling names a way."""

    def __init__(self, config: TransfoXLConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        c = config
        self.embed: WordVectors = (
            PlainEmbedding(c.d_model, c.vocab_size, c.d_embed)
            if c.div_val == 1
            else AdaptiveEmbedding(c.d_model, c.vocab_size, c.d_embed, c.cutoffs, c.div_val)
        )
        self.drop = nn.Dropout(c.dropout)
        block = PreNormMemoryBlock if c.pre_lnorm else MemoryBlock
        self.layers = nn.ModuleList(block(c) for _ in range(c.n_layer))
        if not c.untie_r:
            first = self.blocks()[0].attn
            self.content_bias, self.distance_bias = first.content_bias, first.distance_bias
            for layer in self.blocks():
                layer.attn.content_bias, layer.attn.distance_bias = self.content_bias, self.distance_bias
        self.pooler = pooling(c.pooling, c.d_model, c.n_layer) if c.pooling and add_pooling_layer else None
        self.init_weights()

    def get_input_embeddings(self) -> WordVectors:  # type: ignore[override]
        return self.embed

    def set_input_embeddings(self, table: WordVectors) -> None:  # type: ignore[override]
        self.embed = table

    def forward(
        self,
        input_ids: Tensor | None = None,
        mems: Mems | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """Read a segment of each text from left to right.

        Args:
            input_ids: (rows, length) int64, or inputs_embeds (rows, length, width) in their place.
            mems: what an earlier call gave back, whose segment comes before this one; by default mem_len zero vectors.
                Memory.blank(layers, rows, 0, width, like) begins with nothing instead, as the original's PyTorch code.
            head_mask: (heads,) or (layers, heads), a factor of every head's attention weights.
            attention_mask: (rows, length) or longer by what came before, 0 = padding, which is not remembered; a row
                may have it on either side, and a hole keeps its position.
            use_cache: False = give no mems back.

        Raises:
            ValueError: an id outside of the vocabulary, both or neither of ids and embeddings, mems of another batch.
        """
        c = self.config
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        rows, length = batch_shape(input_ids, inputs_embeds)
        check_width(inputs_embeds, c.d_model)
        check_ids(input_ids, c.vocab_size, "input_ids", (rows, length))
        flush = Flush.of(attention_mask, rows, length)
        x = self.drop(flush.left(self.embed(input_ids) if inputs_embeds is None else inputs_embeds))
        memory = self.memory(mems, x)
        view = self.view(memory, x, flush)
        head_masks = per_layer(head_mask, [len(block.attn.heads) for block in self.blocks()])
        shown: list[Tensor] | None = [] if attentions else None

        states, seen = [x], []
        for layer, before, weights in zip(self.layers, memory.layers, head_masks, strict=True):
            seen.append(torch.cat([before, x], 1))
            x = self.through(layer, x, seen[-1], view, weights, shown)
            states.append(x)
        states[-1] = x = self.drop(x)
        keeps = c.mem_len > 0 and use_cache is not False
        remembered = memory.followed(seen, length, c.mem_len, flush.real) if keeps else None

        x = flush.back(x)
        wanted = hidden_states or self.pooler is not None
        every_state = tuple(flush.back(state) for state in states) if wanted else ()
        real = None if attention_mask is None else attention_mask[:, -length:].bool()
        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=x,
            pooler_output=None if self.pooler is None else self.pooler(x, real, every_state),
            mems=remembered,
            hidden_states=every_state if hidden_states else None,
            attentions=None if shown is None else tuple(shown),
        )
        return result if named else result.to_tuple()

    def memory(self, mems: Mems | None, x: Tensor) -> Memory:
        """What lies before a segment x, (rows, length, width)."""
        c, rows = self.config, x.shape[0]
        if mems is None:
            return Memory.blank(c.n_layer, rows, c.mem_len, c.d_model, x)
        memory = Memory.of(mems)
        if not tracing() and (len(memory) != c.n_layer or memory[0].shape[1:] != (rows, c.d_model)):
            raise ValueError(
                f"mems are {len(memory)} layers of {tuple(memory[0].shape) if memory else ()}, but {c.n_layer} of "
                f"(tokens, {rows}, {c.d_model}) were expected: those that this model gave for the same rows."
            )
        return memory

    def view(self, memory: Memory, x: Tensor, flush: Flush) -> View:
        """Who sees whom from which distance."""
        c, rows, length = self.config, x.shape[0], x.shape[1]
        keys = memory.length + length
        distances = torch.arange(keys, -1, -1, device=x.device)
        if c.clamp_len > 0:
            distances = distances.clamp(max=c.clamp_len)
        places = torch.arange(keys, device=x.device)
        back = places[memory.length :, None] - places  # how far each token looks back to each key
        mask = ((back >= 0) & (back < c.mem_len) if c.same_length else back >= 0)[None, None]
        if memory.real is not None or flush.real is not None:
            before = mask.new_ones(rows, memory.length) if memory.real is None else memory.real
            now = mask.new_ones(rows, length) if flush.real is None else flush.real
            mask = mask & torch.cat([before, now], 1)[:, None, None]
        return View(self.drop(waves(distances, c.d_model, x.dtype, torch.float32)), mask, flush)


# ---- checkpoint table ------------------------------------------------------------------------------------------------

KEYS = KeyMap(
    [
        ("word_emb.emb_layers.{i}.weight", "embed.tables.{i}.weight"),
        ("word_emb.emb_projs.{i}", "embed.projections.{i}.weight"),
        ("r_w_bias", "content_bias"),
        ("r_r_bias", "distance_bias"),
        ("layers.{i}.dec_attn.r_w_bias", "layers.{i}.attn.content_bias"),
        ("layers.{i}.dec_attn.r_r_bias", "layers.{i}.attn.distance_bias"),
        ("layers.{i}.dec_attn.qkv_net.weight", "layers.{i}.attn.qkv.weight"),
        ("layers.{i}.dec_attn.r_net.weight", "layers.{i}.attn.distances.weight"),
        ("layers.{i}.dec_attn.o_net.weight", "layers.{i}.attn.out.weight"),
        ("layers.{i}.dec_attn.layer_norm.{p}", "layers.{i}.attn_norm.{p}"),
        ("layers.{i}.pos_ff.CoreNet.0.{p}", "layers.{i}.ffn.up.{p}"),
        ("layers.{i}.pos_ff.CoreNet.3.{p}", "layers.{i}.ffn.down.{p}"),
        ("layers.{i}.pos_ff.layer_norm.{p}", "layers.{i}.ffn_norm.{p}"),
        ("pooler.dense.{p}", "pooler.dense.{p}"),
        ("pooler.query.{p}", "pooler.query.{p}"),
        ("pooler.layer_weights", "pooler.layer_weights"),
    ],
    heads=[
        ("crit.cluster_{p}", "lm.clusters.{p}"),
        ("crit.out_layers.{i}.{p}", "lm.layers.{i}.{p}"),
        ("crit.out_projs.{i}", "lm.projections.{i}.weight"),
        ("score.weight", "classifier.weight"),
    ],
    drop=["pos_emb.inv_freq"],  # a constant
    fresh=["pooler."],
    prefix="transformer",
)
TransfoXLPreTrained.backbone, TransfoXLPreTrained.keys = TransfoXLModel, KEYS


# ---- task classes ----------------------------------------------------------------------------------------------------

ORDER = (
    "input_ids", "mems", "head_mask", "inputs_embeds", "labels",
    "output_attentions", "output_hidden_states", "return_dict",
)  # fmt: skip


class TransfoXLLMHeadModel(TransfoXLPreTrained, Writes, WordScores):
    """Writes word after word; scores are log-probabilities."""

    passes = ("use_cache",)
    order = ORDER
    wishes = ("logits_to_keep",)
    lm: ClusteredSoftmax

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__(config)
        self.init_weights()

    def word_head(self) -> nn.Module:
        c = self.config
        if c.div_val == 1:
            return PlainSoftmax(c.d_model, c.vocab_size, c.d_embed, c.cutoffs)
        return AdaptiveSoftmax(c.d_model, c.vocab_size, c.d_embed, c.cutoffs, c.div_val)

    def get_output_embeddings(self) -> nn.Linear:
        """The rarest words' matrix."""
        return self.lm.layers[-1]

    def tie_weights(self) -> None:
        """Make the softmax's tables and projections the embeddings', where the configuration wants it."""
        c = self.config
        embed: WordVectors = self.get_input_embeddings()  # type: ignore[assignment]
        if c.tie_word_embeddings and c.tie_weight:
            for layer, table in zip(self.lm.layers, embed.tables, strict=True):
                layer.weight = table.weight
        shared = list(embed.projections) * (len(self.lm.projections) if c.div_val == 1 else 1)
        for projection, ours, tied in zip(self.lm.projections, shared, c.tie_projs or (), strict=False):
            if tied:
                projection.weight = ours.weight

    def answer(
        self, inputs: dict[str, Any], labels: Tensor | None = None, logits_to_keep: int | None = None
    ) -> AdaptiveLMOutput:
        """labels: (rows, length), not shifted, -100 for a token that is not to be predicted; with them `losses`, and
        the scores of all words are not worked out.

        logits_to_keep: score the words after this many last tokens only, as writing does; 0 or None = after all.
        """
        outputs = self.encode(inputs)
        states = outputs.last_hidden_state
        return AdaptiveLMOutput(
            losses=None if labels is None else self.losses(states, labels, real_tokens(inputs, states.shape[1])),
            prediction_scores=self.score_words(states, None, logits_to_keep) if labels is None else (),
            mems=outputs.mems,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def losses(self, states: Tensor, labels: Tensor, real: Tensor | None) -> Tensor:
        """Of the words after each state (rows, length, width), (rows, length - 1); in which order says the output."""
        if labels.shape != states.shape[:2]:
            raise ValueError(f"labels have shape {tuple(labels.shape)}, but {tuple(states.shape[:2])} was expected.")
        words = labels[:, 1:]
        if real is not None:
            words = words.masked_fill(~(real[:, 1:] & real[:, :-1]), IGNORE)
        return self.lm.losses(states[:, :-1].flatten(0, 1), words.flatten()).view(words.shape)


class TransfoXLForSequenceClassification(TransfoXLPreTrained, LastTokenClassification):
    """Labels or grades a text."""

    passes = ("use_cache",)  # type: ignore[assignment]
    order = ORDER
    answer = SequenceClassification.answer  # type: ignore[assignment]
