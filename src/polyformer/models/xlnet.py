"""XLNet: a Transformer that reads words in any order, pretrained to tell each from those before it in that order.

Yang et al. 2019, arXiv 1906.08237; zihangdai/xlnet modeling.py. Memory and attention by distance are Transformer-XL's;
of segments counts only whether two words are of the same. A word is told by a second stream, which knows its place
alone. Who may see nobody attends to nothing there, where the original attends to everybody alike.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from polyformer.core.config import Config, config
from polyformer.core.errors import ConfigError
from polyformer.core.keymap import FromHeads, Heads, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions, MaskedLMOutput
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.span_tasks import SpanBeams
from polyformer.core.tasks import (
    QuestionAnswering,
    SequenceClassification,
    SummarisedChoice,
    SummaryScores,
    TokenClassification,
    WordScores,
    Writes,
    real_tokens,
    shown,
)
from polyformer.parts.attend import attend, attend_packed
from polyformer.parts.attention import keep_columns, keep_rows, kept_heads, per_layer
from polyformer.parts.embeddings import batch_shape, check_ids, check_width
from polyformer.parts.feedforward import Dropped, activation, feed_forward
from polyformer.parts.flush import Flush
from polyformer.parts.heads import WordHead
from polyformer.parts.layout import Layout, Packing, tracing
from polyformer.parts.linear import Linear
from polyformer.parts.losses import token_loss
from polyformer.parts.memory import Memory, Mems
from polyformer.parts.pooling import POOLINGS, SUMMARIES, pooling
from polyformer.parts.positions import relative_shift, waves
from polyformer.parts.taps import Taps

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("xlnet")
class XLNetConfig(Config):
    """xlnet-large-cased by default; field names and defaults are Hugging Face's, the uniform ones are aliases.

    attn_type: "bi", or "uni": a token sees those before it only.
    mem_len: how many tokens are remembered; None or 0 = all. reuse_len: of those of one call only so many first places,
        as in pretraining, where the rest is read again; None or 0 = all.
    use_mems_eval, use_mems_train: whether a memory is given back unless the call says.
    clamp_len: distances beyond it count as it; -1 = none does.
    same_length: of "uni", every token sees as many others: as many as are remembered.
    bi_data: the second half of the rows is read backwards: distances change their sign.
    untie_r: whether each layer has biases of its own; here each has, as in Transformers.
    d_head: width of a head, d_model / n_head.
    summary_type: the vector of a sequence, if config.pooling names none: "last", "first", "mean" or "cls_index"; then a
        map (summary_use_proj), summary_activation and dropout.
    start_n_top, end_n_top: how many starts, and ends of each, an answer's beam has.
    """

    aliases = {  # noqa: RUF012
        "hidden_size": "d_model",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
        "n_token": "vocab_size",
        "intermediate_size": "d_inner",
        "hidden_act": "ff_activation",
        "hidden_dropout_prob": "dropout",
    }

    vocab_size: int = 32000
    d_model: int = 1024
    n_layer: int = 24
    n_head: int = 16
    d_inner: int = 4096
    ff_activation: str = "gelu"
    untie_r: bool = True
    attn_type: str = "bi"
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    mem_len: int | None = 512
    reuse_len: int | None = None
    use_mems_eval: bool = True
    use_mems_train: bool = False
    bi_data: bool = False
    clamp_len: int = -1
    same_length: bool = False
    summary_type: str = "last"
    summary_use_proj: bool = True
    summary_activation: str | None = "tanh"
    summary_last_dropout: float = 0.1
    start_n_top: int = 5
    end_n_top: int = 5
    pad_token_id: int | None = 5
    bos_token_id: int | None = 1
    eos_token_id: int | None = 2
    d_head: int = field(default=0, kw_only=True)
    summary_first_dropout: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        self.d_head = self.d_head or self.d_model // max(self.n_head, 1)
        super().__post_init__()

    def check(self) -> None:
        self.check_heads()
        self.check_choice("attn_type", ("bi", "uni"))
        self.check_choice("summary_type", SUMMARIES)
        self.check_choice("pooling", POOLINGS)
        if self.d_head * self.n_head != self.d_model:
            raise ConfigError(f"d_head is {self.d_head}, but {self.n_head} heads share a d_model of {self.d_model}.")
        if self.d_model % 2:
            raise ConfigError(f"d_model is {self.d_model}, but distances are sines and cosines: it must be even.")

    @property
    def causal(self) -> bool:
        return self.attn_type == "uni"


# ---- the model -------------------------------------------------------------------------------------------------------


class Projected(Memory):
    """Keys and values, side by side, in place of the states that they are made of: for writing, which reads a memory
    again and again.
    """


@dataclass(frozen=True)
class Sight:
    """How the tokens of rows of one length see those rows and the memory before them.

    keys: how many there are, the remembered ones first.
    columns: which of the distances occur.
    same: (rows, 1, queries, keys) bool, whether two are of one segment; None = there are none.
    """

    keys: int
    columns: slice
    same: Tensor | None


@dataclass(frozen=True)
class View:
    """Who sees whom, and how far away.

    waves: (1 or 2, distances, width), of falling distances as `relative_shift` wants them; the second half of the rows
        has the second ones where there are two.
    sights: one, or of a packed batch one for each length.
    content, query: (rows, 1, queries, keys) bool, whom the two streams may see; None = everybody.
    targets: (rows, targets, queries), which place each of the second stream's is; None = there is no such stream.
    projected: whether what is remembered are keys and values.
    packing: where layers run on real tokens only; causal: and see earlier ones only.
    """

    waves: Tensor
    sights: list[Sight]
    content: Tensor | None
    query: Tensor | None
    targets: Tensor | None
    projected: bool
    packing: Packing | None
    causal: bool


class XLNetAttention(nn.Module):
    """Attention by what a key says, how far it is, and whether it is of the query's segment (section 2.3 to 2.5).

        score = (q + u) k + (q + v) r(distance) + (q + s) e(same segment), scaled

    A content state knows its word; a query state, from which the word is told, its place alone:

        memory ─┐
        content ┴──── keys, values ──┬───────────────┐
        content ────────────── query ┴ sees itself   │
        query state ── at its target's place ─ query ┴ does not see itself
    """

    def __init__(self, width: int, heads: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.dim, self.heads, self.scale = dim, list(range(heads)), dim**-0.5
        self.q: nn.Linear = Linear(width, heads * dim, bias=False)
        self.kv: nn.Linear = Linear(width, 2 * heads * dim, bias=False)
        self.distances: nn.Linear = Linear(width, heads * dim, bias=False)
        self.out: nn.Linear = Linear(heads * dim, width, bias=False)
        self.word_bias = nn.Parameter(torch.empty(heads, dim))
        self.distance_bias = nn.Parameter(torch.empty(heads, dim))
        self.segment_bias = nn.Parameter(torch.empty(heads, dim))
        self.segments = nn.Parameter(torch.empty(2, heads, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        g: Tensor | None,
        view: View,
        memory: Tensor | None,
        head_mask: Tensor | None,
        taps: "XLNetTaps",
    ) -> tuple[Tensor, Tensor | None]:
        """Content x (rows, length, width), or (tokens, width) packed, queries g (rows, targets, width) -> the same.

        memory: (rows, remembered, width), what this layer read before, or keys and values.
        """
        q, kv = self.q(x).unflatten(-1, (-1, self.dim)) + self.word_bias, self.kv(x)
        taps.made(kv)
        if memory is not None:
            kv = torch.cat([memory if view.projected else self.kv(memory), kv], 1)
        k, v = kv.unflatten(-1, (2, -1, self.dim)).unbind(-3)
        far = None if self.few(x, view.waves) else self.distances(view.waves)
        biases = [partial(self.bias, view.waves, far, sight) for sight in view.sights]
        if view.packing is not None:
            y = attend_packed(
                q, k, v, view.packing, bias=biases, causal=view.causal, scale=self.scale, dropout=self.dropout
            )
            return self.out(y.flatten(-2)), None
        # (rows, length, heads, dim) -> (rows, heads, length, dim)
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        shared = partial(
            attend, k=k, v=v, bias=biases[0], scale=self.scale, dropout=self.dropout, head_mask=head_mask,
            weights=taps.attentions is not None,
        )  # fmt: skip
        y, weights = shared(q.transpose(1, 2), mask=view.content)
        y = self.out(y.transpose(1, 2).flatten(2))
        if g is None or view.targets is None:
            taps.looked(weights)
            return y, None
        q = torch.einsum("rthd,rtl->rhld", self.q(g).unflatten(-1, (-1, self.dim)), view.targets)
        h, others = shared(q + self.word_bias[:, None], mask=view.query)
        taps.looked(weights, others)
        return y, self.out(torch.einsum("rhld,rtl->rthd", h, view.targets).flatten(2))

    def few(self, x: Tensor, waves: Tensor) -> bool:
        """Whether it is less work to map these tokens' queries to waves than all waves to what heads compare with."""
        if tracing() or type(self.distances) is not Linear:
            return False
        _, distances, width = waves.shape
        queries = x.numel() // width
        return queries * (width + len(self.heads) * distances) < distances * (width + queries)

    def bias(self, waves: Tensor, far: Tensor | None, sight: Sight, q: Tensor, k: Tensor) -> Tensor:
        """What distance and segment add to the scaled scores, (rows, heads, queries, keys), of queries q + u.

        far: (1 or 2, distances, heads * dim) of the waves; None = they are few.
        """
        # (rows, heads, queries, dim) -> (1 or 2, rows of each, heads, queries, dim)
        placed = ((q + (self.distance_bias - self.word_bias)[:, None]) * self.scale).unflatten(0, (waves.shape[0], -1))
        if far is None:
            mapped = torch.einsum("grhqd,hdw->grhqw", placed, self.distances.weight.unflatten(0, (-1, self.dim)))
            by_distance = torch.einsum("grhqw,gtw->grhqt", mapped, waves[:, sight.columns])
        else:
            far = far[:, sight.columns].unflatten(-1, (-1, self.dim))
            by_distance = torch.einsum("grhqd,gthd->grhqt", placed, far)
        bias = relative_shift(by_distance.flatten(0, 1), sight.keys)
        if sight.same is None:
            return bias
        by_segment = ((q + (self.segment_bias - self.word_bias)[:, None]) * self.scale) @ self.segments.permute(1, 2, 0)
        same, other = by_segment.split(1, -1)
        return bias + torch.where(sight.same, same, other)

    def prune(self, heads: Iterable[int]) -> None:
        """Remove these heads for good; numbers are those of the unpruned layer, and stay so."""
        present, inner = self.heads, self.out.in_features
        self.heads, kept = kept_heads(present, heads, self.dim)
        self.q, self.distances, self.out = (
            keep_rows(self.q, kept),
            keep_rows(self.distances, kept),
            keep_columns(self.out, kept),
        )
        self.kv = keep_rows(self.kv, torch.cat([kept, kept + inner]))
        left = torch.tensor([present.index(h) for h in self.heads], device=self.segments.device)
        for name, p in list(self.named_parameters(recurse=False)):
            setattr(self, name, nn.Parameter(p.data.index_select(p.dim() - 2, left)))


class XLNetLayer(nn.Module):
    """Attention and feed-forward, normalised after each residual; both streams go through the same weights."""

    def __init__(self, c: XLNetConfig) -> None:
        super().__init__()
        act = activation(c.ff_activation)
        self.attn = XLNetAttention(c.d_model, c.n_head, c.d_head, c.dropout)
        self.attn_norm = nn.LayerNorm(c.d_model, c.layer_norm_eps)
        self.ffn = feed_forward(
            c.d_model, c.d_inner, Dropped(act, c.dropout) if c.dropout else act, c.chunk_size_feed_forward
        )
        self.ffn_norm = nn.LayerNorm(c.d_model, c.layer_norm_eps)
        self.drop = nn.Dropout(c.dropout)

    def forward(
        self,
        x: Tensor,
        g: Tensor | None,
        view: View,
        memory: Tensor | None,
        head_mask: Tensor | None,
        taps: "XLNetTaps",
    ) -> tuple[Tensor, Tensor | None]:
        """Content x and query states g, None without targets -> the same."""
        y, h = self.attn(x, g, view, memory, head_mask, taps)
        return self.rest(x, y), None if g is None else self.rest(g, h)

    def rest(self, x: Tensor, y: Tensor) -> Tensor:
        """What comes after attention: states x and what they attended to, y -> as x."""
        x = self.attn_norm(x + self.drop(y))
        return self.ffn_norm(x + self.drop(self.ffn(x)))


class XLNetTaps(Taps):
    """Records both streams, content before query, in the caller's order of tokens.

    attentions: (rows, heads, queries, keys) a layer, or pairs of them; remembered keys come first.
    read: what is to be remembered of each layer, in the order that it works in.
    """

    def __init__(
        self, layout: Layout, flush: Flush, *, hidden_states: bool, attentions: bool, memory: type[Memory] | None
    ) -> None:
        super().__init__(layout, hidden_states=hidden_states, attentions=attentions)
        self.packed, self.flush, self.memory = layout.packing is not None, flush, memory
        self.read: list[Tensor] = []

    def home(self, x: Tensor) -> Tensor:
        """Content states as the caller's tokens lie, (rows, length, width)."""
        return self.layout.unpack(x) if self.packed else self.flush.back(x)

    def states(self, x: Tensor, g: Tensor | None) -> None:
        """What a layer makes."""
        if self.hidden_states is not None:
            self.hidden_states += [self.home(x)] if g is None else [self.home(x), g]

    def given(self, x: Tensor) -> None:
        """What a layer reads."""
        if self.memory is Memory:
            self.read.append(x)

    def made(self, kv: Tensor) -> None:
        """Keys and values that it makes of that."""
        if self.memory is Projected:
            self.read.append(kv)

    def looked(self, *weights: Tensor | None) -> None:
        """Attention weights of each stream."""
        found = tuple(self._as_given(w) for w in weights if w is not None)
        if self.attentions is not None and found:
            self.attentions.append(found[0] if len(weights) == 1 else found)  # type: ignore[arg-type]

    def _as_given(self, weights: Tensor) -> Tensor:
        if self.flush.lead is None:
            return weights
        earlier, own = weights.split([weights.shape[3] - weights.shape[2], weights.shape[2]], 3)
        return self.flush.back(torch.cat([earlier, self.flush.back(own, 3)], 3), 2)


class XLNetPreTrained(PreTrainedModel):
    """What XLNet's classes share."""

    config_class = XLNetConfig
    base_model_prefix = "transformer"

    @property
    def keys(self) -> KeyMap:  # type: ignore[override]
        """The checkpoint table, which depends on how wide a head is."""
        return key_map(self.config.d_head)

    def understood(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """An input_mask becomes an attention_mask, for what comes after the backbone."""
        inputs = dict(inputs)
        inputs["attention_mask"] = _mask(inputs.get("attention_mask"), inputs.pop("input_mask", None))
        return inputs

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, XLNetAttention | XLNetModel):
            for p in module.parameters(recurse=False):
                nn.init.normal_(p, std=self.config.initializer_range)


class XLNetModel(XLNetPreTrained):
    """The stack: states of all tokens, or of targets; one vector a sequence too where config.pooling names a way."""

    def __init__(self, config: XLNetConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        c = config
        self.tokens = nn.Embedding(c.vocab_size, c.d_model)
        self.blank = nn.Parameter(torch.empty(1, 1, c.d_model))  # where a query state begins, whatever its word
        self.layers = nn.ModuleList(XLNetLayer(c) for _ in range(c.n_layer))
        self.drop = nn.Dropout(c.dropout)
        self.pooler = pooling(c.pooling, c.d_model, c.n_layer) if c.pooling and add_pooling_layer else None
        self.init_weights()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.tokens

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        self.tokens = table

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Mems | None = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """Read a batch.

        Args:
            input_ids: (rows, length) int64, or inputs_embeds (rows, length, width) in their place.
            attention_mask: (rows, length), 0 = padding; or input_mask in its place, where 1 = padding.
            mems: what an earlier call gave back, whose tokens come before these, or (remembered, rows, width) a layer.
            perm_mask: (rows, length, length), 1 where token i may not see token j: who comes later in the order that
                words are told in. A token's own state always sees its word.
            target_mapping: (rows, targets, length), one 1 a target: the places whose words are to be told. Then the
                states are theirs, (rows, targets, width), and only perm_mask keeps a word from being seen there;
                hidden_states and attentions are of content and targets by turns.
            token_type_ids: (rows, length) segments, of which only counts whether two are alike; what is remembered
                is of segment 0. None by default, which is not the same as all alike.
            head_mask: (heads,) or (layers, heads), a factor of every head's attention weights.
            use_mems: whether to give mems back; config.use_mems_eval by default, in training config.use_mems_train.

        Raises:
            ValueError: an id outside of the vocabulary, both or neither of ids and embeddings, both masks, mems of
                another batch or model.
        """
        c = self.config
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        rows, length = batch_shape(input_ids, inputs_embeds)
        check_width(inputs_embeds, c.d_model)
        check_ids(input_ids, c.vocab_size, "input_ids", (rows, length))
        check_ids(token_type_ids, 1 << 31, "token_type_ids", (rows, length))
        _check_shape("perm_mask", perm_mask, (rows, length, length))
        _check_shape("target_mapping", target_mapping, (rows, None, length))
        memory = None if mems is None else self.recalled(mems, rows)
        kind = Projected if isinstance(mems, Projected) else Memory
        keeps = (c.use_mems_train if self.training else c.use_mems_eval) if use_mems is None else use_mems
        mask = _mask(attention_mask, input_mask)
        flush = Flush.of(mask, rows, length)
        layout = Layout.of(
            (rows, length), None if mask is None else mask[:, -length:], self.device, causal=c.causal,
            packable=self.packable and memory is None and perm_mask is None and target_mapping is None
            and not (attentions or c.bi_data or c.same_length) and head_mask is None,
        )  # fmt: skip
        every_layer = hidden_states or (self.pooler is not None and self.pooler.needs_layers)
        taps = XLNetTaps(
            layout, flush, hidden_states=every_layer, attentions=attentions, memory=kind if keeps else None
        )
        head_masks = per_layer(head_mask, [len(layer.attn.heads) for layer in self.blocks()])

        # packed: (rows, length) -> (tokens,), padding left out until the last layer is done; else rows begin at once
        put = flush.left if layout.packing is None else layout.pack
        given = input_ids if inputs_embeds is None else inputs_embeds
        assert given is not None
        x = put(given) if input_ids is None else self.tokens(put(given))
        types = None if token_type_ids is None else put(token_type_ids.expand(rows, length))
        g = targets = None
        if target_mapping is not None:
            g = self.drop(self.blank.expand(rows, target_mapping.shape[1], -1))
            targets = flush.left(target_mapping.to(x.dtype), 2)
        if perm_mask is not None:
            perm_mask = flush.left(flush.left(perm_mask, 1), 2)
        view = self.view(layout, flush, memory, types, perm_mask, targets, (rows, length))
        before: list[Tensor | None] = [None] * c.n_layer if memory is None else [*memory.layers]
        x = self.drop(x)
        taps.states(x, g)
        for layer, old, weights in zip(self.layers, before, head_masks, strict=True):
            taps.given(x)
            x, g = self.through(layer, x, g, view, old, weights, taps)
            taps.states(x, g)
        x = taps.home(self.drop(x))

        content = None if taps.hidden_states is None else taps.hidden_states[:: 1 if g is None else 2]
        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=x if g is None else self.drop(g),
            pooler_output=None if self.pooler is None else self.pooler(x, layout.real, content),
            mems=self.remembered(memory, taps) if keeps else None,
            hidden_states=taps.seen("hidden_states") if hidden_states else None,
            attentions=taps.seen("attentions"),
        )
        return result if named else result.to_tuple()

    def view(
        self,
        layout: Layout,
        flush: Flush,
        memory: Memory | None,
        types: Tensor | None,
        perm_mask: Tensor | None,
        targets: Tensor | None,
        shape: tuple[int, int],
    ) -> View:
        """How the tokens of this batch see each other."""
        c, packing, (rows, length) = self.config, layout.packing, shape
        past = 0 if memory is None else memory.length
        farthest = past + length
        # from the last token to the first one remembered, and unless that is not allowed the other way too
        distances = farthest - torch.arange(farthest + (1 if c.causal else length), device=self.device)
        if c.clamp_len > 0:
            distances = distances.clamp(-c.clamp_len, c.clamp_len)
        if c.bi_data and not tracing() and rows % 2:
            raise ValueError(f"bi_data reads half of the rows backwards, but there are {rows}: give an even number.")
        directions = (distances, -distances) if c.bi_data else (distances,)
        # in single precision whatever the model's type, as the original and Transformers work them out
        table = torch.stack([waves(d, c.d_model, torch.float32) for d in directions])
        table = self.drop(table.to(self.dtype))
        if packing is None:
            content, query = self.seen(flush, memory, perm_mask, shape)
            sight = Sight(farthest, slice(None), _same(types, past))
            return View(table, [sight], content, query, targets, isinstance(memory, Projected), None, c.causal)
        sights = []
        for start, count, own in packing.groups:
            columns = slice(length - own, length + (1 if c.causal else own))
            of = None if types is None else types[start : start + count * own].view(count, own)
            sights.append(Sight(own, columns, _same(of, 0)))
        return View(table, sights, None, None, None, False, packing, c.causal)

    def seen(
        self, flush: Flush, memory: Memory | None, perm_mask: Tensor | None, shape: tuple[int, int]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Whom content and query states may see, (rows or 1, 1, length, remembered + length) bool; None = everybody."""
        c, (rows, length) = self.config, shape
        if flush.real is None and perm_mask is None and not c.causal and (memory is None or memory.real is None):
            return None, None
        own = torch.ones(1, 1, length, length, dtype=torch.bool, device=self.device)
        itself = own.tril() & own.triu()
        if c.causal:
            own = own.tril()
        if flush.real is not None:
            own = own & flush.real[:, None, None]
        if perm_mask is not None:
            own = own & (perm_mask == 0)[:, None]
        content = own | itself
        if memory is not None:
            earlier = own.new_ones(1, memory.length) if memory.real is None else memory.real
            earlier = earlier[:, None, None].expand(rows, 1, length, -1)
            own, content = (torch.cat([earlier, m.expand(rows, -1, -1, -1)], 3) for m in (own, content))
        if c.causal and c.same_length:
            # the last token sees all that its row remembers, the one before it as many from one earlier on, ...
            first = torch.zeros(1, 1, device=self.device, dtype=torch.long)
            if memory is not None and memory.real is not None:
                first = (memory.real.cumsum(1) == 0).sum(1, keepdim=True)
            first = first + torch.arange(length, device=self.device)
            near = torch.arange(own.shape[3], device=self.device) >= first[:, None, :, None]
            own, content = own & near, content & near
        return content, own

    def recalled(self, mems: Mems, rows: int) -> Memory | None:
        """A memory of this batch; None of nothing."""
        memory, c = Memory.of(mems), self.config
        if len(memory) == c.n_layer and not memory.length:
            return None
        wide = {c.d_model} if type(memory) is Memory else {t.shape[2] for t in memory}
        if not tracing() and (
            len(memory) != c.n_layer or any(t.shape[1] != rows or t.shape[2] not in wide for t in memory)
        ):
            raise ValueError(
                f"mems are {len(memory)} tensors of shape {tuple(memory[0].shape) if len(memory) else ()}, but "
                f"{c.n_layer} of shape (remembered, {rows}, {c.d_model}) were expected: give back what the last call "
                f"of the same model with the same rows gave you."
            )
        return memory

    def remembered(self, memory: Memory | None, taps: XLNetTaps) -> Memory:
        """The memory after this call, of what its layers read."""
        c, flush, read = self.config, taps.flush, taps.read
        if taps.packed:
            read = [flush.left(taps.layout.unpack(x)) for x in read]
        real, length = flush.real, read[0].shape[1]
        if memory is None:
            assert taps.memory is not None
            memory = taps.memory([x[:, :0].detach() for x in read])
        if c.reuse_len and c.reuse_len < length:
            read = [x[:, : c.reuse_len] for x in read]
            if real is not None:
                real = real[:, : c.reuse_len]
            if real is not None and flush.lead is not None:  # places are counted with the padding before
                real = real & (torch.arange(c.reuse_len, device=real.device) + flush.lead[:, None] < c.reuse_len)
        return memory.append(read, c.mem_len or None, real)


def _mask(attention_mask: Tensor | None, input_mask: Tensor | None) -> Tensor | None:
    """Either of the two, 0 = padding."""
    if input_mask is None:
        return attention_mask
    if attention_mask is not None:
        raise ValueError("give either attention_mask (0 = padding) or input_mask (1 = padding), one of the two.")
    return input_mask == 0


def _same(types: Tensor | None, past: int) -> Tensor | None:
    """Segments (rows, length) -> (rows, 1, length, past + length) bool, which two are of one; what is past is of 0."""
    if types is None:
        return None
    keys = torch.cat([types.new_zeros(types.shape[0], past), types], 1) if past else types
    return types[:, None, :, None] == keys[:, None, None]


def _check_shape(name: str, value: Tensor | None, wanted: tuple[int | None, ...]) -> None:
    if value is None or tracing():
        return
    if value.dim() != len(wanted) or any(w not in (None, n) for n, w in zip(value.shape, wanted, strict=True)):
        shape = f"({', '.join('targets' if w is None else str(w) for w in wanted)})"
        raise ValueError(f"{name} has shape {tuple(value.shape)}, but {shape} was expected.")


# ---- checkpoint table ------------------------------------------------------------------------------------------------


@cache
def key_map(dim: int) -> KeyMap:
    """The table for heads `dim` wide."""
    return KeyMap(
        [
            ("word_embedding.weight", "tokens.weight"),
            ("mask_emb", "blank"),
            ("layer.{i}.rel_attn.q", "layers.{i}.attn.q.weight", Heads(dim)),
            ("layer.{i}.rel_attn.{k|v}", "layers.{i}.attn.kv.weight", Heads(dim)),
            ("layer.{i}.rel_attn.r", "layers.{i}.attn.distances.weight", Heads(dim)),
            ("layer.{i}.rel_attn.o", "layers.{i}.attn.out.weight", FromHeads(dim)),
            ("layer.{i}.rel_attn.r_w_bias", "layers.{i}.attn.word_bias"),
            ("layer.{i}.rel_attn.r_r_bias", "layers.{i}.attn.distance_bias"),
            ("layer.{i}.rel_attn.r_s_bias", "layers.{i}.attn.segment_bias"),
            ("layer.{i}.rel_attn.seg_embed", "layers.{i}.attn.segments"),
            ("layer.{i}.rel_attn.layer_norm.{p}", "layers.{i}.attn_norm.{p}"),
            ("layer.{i}.ff.layer_1.{p}", "layers.{i}.ffn.up.{p}"),
            ("layer.{i}.ff.layer_2.{p}", "layers.{i}.ffn.down.{p}"),
            ("layer.{i}.ff.layer_norm.{p}", "layers.{i}.ffn_norm.{p}"),
            ("pooler.dense.{p}", "pooler.dense.{p}"),
            ("pooler.query.{p}", "pooler.query.{p}"),
            ("pooler.layer_weights", "pooler.layer_weights"),
        ],
        heads=[
            ("lm_loss.{p}", "lm.decoder.{p}"),
            ("sequence_summary.summary.{p}", "classifier.summary.dense.{p}"),
            ("logits_proj.{p}", "classifier.out.{p}"),
            ("classifier.{p}", "classifier.{p}"),
            ("qa_outputs.{p}", "qa_outputs.{p}"),
            ("start_logits.dense.{p}", "qa_outputs.start.{p}"),
            ("end_logits.dense_0.{p}", "qa_outputs.end.dense.{p}"),
            ("end_logits.LayerNorm.{p}", "qa_outputs.end.norm.{p}"),
            ("end_logits.dense_1.{p}", "qa_outputs.end.out.{p}"),
            ("answer_class.dense_0.{p}", "qa_outputs.answer.dense.{p}"),
            ("answer_class.dense_1.{p}", "qa_outputs.answer.out.{p}"),
        ],
        fresh=["pooler."],
        prefix="transformer",
    )


XLNetPreTrained.backbone = XLNetModel


# ---- task classes ----------------------------------------------------------------------------------------------------


class XLNetLMHeadModel(XLNetPreTrained, Writes, WordScores):
    """Tells the words at given places, and writes."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__(config)
        self.init_weights()

    def word_head(self) -> WordHead:
        return WordHead(self.config.d_model, self.config.vocab_size)

    def answer(self, inputs: dict[str, Any], labels: Tensor | None = None) -> MaskedLMOutput:
        """labels: (rows, targets), or without a target_mapping (rows, length): the word at each place, not shifted.

        -100 for a place whose word is not to be told.
        """
        outputs = self.encode(inputs)
        logits = self.lm(outputs.last_hidden_state)
        loss = None if labels is None else token_loss(logits, labels, real_tokens(inputs, logits.shape[1]))
        return MaskedLMOutput(loss, logits, *shown(outputs))

    # ---- writing ----

    @property
    def causal(self) -> bool:
        """What is remembered of a text need not be read again, though with attn_type "bi" it would look different."""
        return True

    def empty_state(self, capacity: int | None = None) -> Projected:
        """What to begin with as `mems`, so that they are keys and values."""
        return Projected([self.base_model.blank[:, :0]] * self.config.n_layer)  # type: ignore[index]

    def prepare_inputs_for_generation(
        self,
        ids: Tensor,
        past: Memory | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool = False,
        **inputs: Any,
    ) -> dict[str, Any]:
        """The text and a blank after it, which nobody sees and whose word is told; of a text that is remembered the
        last two words, which are read again. Segments are left out, as Transformers leaves them out.
        """
        inputs.pop("token_type_ids", None)
        inputs["mems"] = past
        if past is not None and past.length:
            inputs["mems"] = type(past)(
                [x[:, :-AGAIN] for x in past.layers], None if past.real is None else past.real[:, :-AGAIN]
            )
            ids, attention_mask = ids[:, -AGAIN:], None if attention_mask is None else attention_mask[:, -AGAIN:]
        rows, length = len(ids), ids.shape[1] + 1
        blank = torch.arange(length, device=ids.device) == length - 1
        return inputs | {
            "input_ids": torch.cat([ids, ids.new_zeros(rows, 1)], 1),
            "attention_mask": None
            if attention_mask is None
            else torch.cat([attention_mask, attention_mask.new_ones(rows, 1)], 1),
            "perm_mask": blank.to(self.dtype).expand(rows, length, length),
            "target_mapping": blank.to(self.dtype).expand(rows, 1, length),
            "use_mems": use_cache,
        }


AGAIN = 2  # words, by which Transformers found texts to be better than by one


class XLNetForSequenceClassification(XLNetPreTrained, SummaryScores, SequenceClassification):
    """Labels or grades a text or a pair of texts."""

    pooled = False


class XLNetForMultipleChoice(XLNetPreTrained, SummarisedChoice):
    """Picks one of several continuations."""

    pooled = False
    order = ("input_ids", "token_type_ids", "input_mask")


class XLNetForTokenClassification(XLNetPreTrained, TokenClassification):
    """Tags every token."""

    def head(self, labels: int) -> nn.Linear:
        return nn.Linear(self.width, labels)


class XLNetForQuestionAnsweringSimple(XLNetPreTrained, QuestionAnswering):
    """Finds the answer to a question in a text."""


class XLNetForQuestionAnswering(XLNetPreTrained, SpanBeams):
    """Finds likely answers to a question in a text, and tells whether there is one."""
