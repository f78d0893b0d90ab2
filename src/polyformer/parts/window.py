"""Attention within a sliding window, and a few global tokens that see all and are seen by all.

Beltagy, Peters and Cohan 2020, arXiv 2004.05150, section 3.1. A token sees the tokens at most `reach` away from it and
every global token. A global token sees every token, by projections of its own. Time and memory grow with the length,
not with its square: queries are taken a chunk at a time, with the only keys that they can see,

    queries                 [ chunk ]
    keys     [globals]...[reach][ chunk ][reach]      of which each query sees a band and the global tokens

A global token's key stands in front of the others, once, and is left out of the window.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.parts.attend import attend
from polyformer.parts.attention import Attention, keep_rows, kept_heads
from polyformer.parts.layout import Layout, tracing
from polyformer.parts.state import KV, PreallocatedKV
from polyformer.parts.taps import Taps

CHUNK = 64  # queries a chunk at least: what kernels take at a time

# ---- where the global tokens are -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Globals:
    """The global tokens of some sequences, as many places for them in each.

    marked: (rows, length) bool, which tokens are global.
    index: (rows, places) where they stand in their sequence, in order; 0 at a place that is not taken.
    taken: (rows, places) bool.
    places: how many.
    """

    marked: Tensor
    index: Tensor
    taken: Tensor
    places: int

    @classmethod
    def of(cls, marked: Tensor, places: int | None = None) -> "Globals | None":
        """places: how many there are, marks beyond them are lost; the longest row's count by default; None for 0."""
        counts = marked.sum(1, keepdim=True)
        places = int(counts.max()) if places is None else places
        if not places:
            return None
        place = marked.cumsum(1) - 1
        place = place.where(marked & (place < places), places)
        tokens = torch.arange(marked.shape[1], device=marked.device).expand_as(place)
        index = tokens.new_zeros(marked.shape[0], places + 1).scatter(1, place, tokens)[:, :places]
        return cls(marked, index, torch.arange(places, device=marked.device) < counts, places)

    def pick(self, x: Tensor) -> Tensor:
        """(rows, length, ...) -> (rows, places, ...), the global tokens'."""
        index = self.index.view(*self.index.shape, *[1] * (x.dim() - 2))
        return x.gather(1, index.expand(-1, -1, *x.shape[2:]))

    def put(self, x: Tensor, y: Tensor) -> Tensor:
        """x (rows, length, width) with y (rows, places, width) at the global tokens; x itself where no gradient is."""
        index, y = self.index[:, :, None].expand_as(y), y * self.taken[:, :, None]
        if torch.is_grad_enabled() or tracing():
            return x.masked_fill(self.marked[:, :, None], 0.0).scatter_add(1, index, y)
        return x.masked_fill_(self.marked[:, :, None], 0.0).scatter_add_(1, index, y)


@dataclass(frozen=True)
class Span:
    """Sequences of one length side by side: a padded batch, or those of a length in a packed one.

    start: first token in the packed batch.
    real: (rows, length) bool, None = all.
    """

    start: int
    rows: int
    length: int
    real: Tensor | None
    globals: Globals | None

    @property
    def in_window(self) -> Tensor | None:
        """(rows, length) bool, which tokens a window may show; None = all."""
        if self.globals is None:
            return self.real
        return ~self.globals.marked if self.real is None else self.real & ~self.globals.marked


@dataclass(frozen=True)
class WindowLayout(Layout):
    """A layout with its spans and global tokens.

    lost: (rows,) bool, sequences with more global tokens than a recorded graph has places for; None = nowhere.
    """

    spans: tuple[Span, ...] = ()
    lost: Tensor | None = None

    @classmethod
    def around(cls, layout: Layout, marked: Tensor | None, shape: tuple[int, int], places: int) -> "WindowLayout":
        """A batch of `shape` (rows, length) with global tokens where `marked` (rows, length) bool is True.

        places: how many of them a sequence may have while a graph is recorded, where they cannot be counted.
        """
        parts = (layout.real, layout.mask, layout.causal, layout.positions, layout.packing)
        if layout.packing is None:
            rows, length = shape
            if marked is None:
                return cls(*parts, (Span(0, rows, length, layout.real, None),))
            found = Globals.of(marked, places if tracing() else None)
            lost = marked.sum(1) > places if tracing() else None
            return cls(*parts, (Span(0, rows, length, layout.real, found),), lost)
        packed, spans = layout.pack(marked), []
        for start, rows, length in layout.packing.groups:
            here = None if packed is None else packed[start : start + rows * length].unflatten(0, (rows, length))
            spans.append(Span(start, rows, length, None, None if here is None else Globals.of(here)))
        return cls(*parts, tuple(spans))


# ---- the window ------------------------------------------------------------------------------------------------------


def attend_window(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    span: Span,
    reach: int,
    *,
    dropout: nn.Dropout | None = None,
    head_mask: Tensor | None = None,
    weights: bool = False,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Every token to the tokens at most `reach` away and to the global tokens.

    Args:
        q, k, v: (rows, length, heads, dim).
        dropout, head_mask: as of `attend`.
        weights: also give the weights back.
        chunk: queries at a time; as many as the window reaches to one side, by default.

    Returns:
        (rows, length, heads, dim), which at the global tokens means nothing yet, and, if asked for, the weights
        (rows, heads, length, places + 2 * reach + 1): on the global tokens, then on the tokens from `reach` before a
        query to `reach` after it, with zeros at the global ones, outside of the text, and in a global token's own row.
    """
    chunk = max(reach, CHUNK) if chunk is None else chunk
    if weights or head_mask is not None or tracing() or q.device.type != "cpu":
        return _all_chunks(q, k, v, span, reach, chunk, dropout, head_mask, weights)
    return _chunk_by_chunk(q, k, v, span, reach, chunk, dropout), None


def _chunk_by_chunk(
    q: Tensor, k: Tensor, v: Tensor, span: Span, reach: int, chunk: int, dropout: nn.Dropout | None
) -> Tensor:
    """One call a chunk: on a CPU the fastest way, and without global tokens no key is copied."""
    front, shown, length, mixed = span.globals, span.in_window, q.shape[1], []
    front_k, front_v = (None, None) if front is None else (front.pick(k), front.pick(v))
    for start in range(0, length, chunk):
        end = min(start + chunk, length)
        low, high = max(start - reach, 0), min(end + reach, length)
        near_k, near_v = k[:, low:high], v[:, low:high]
        mask = None if shown is None else shown[:, None, None, low:high]
        if max(end - 1 - low, high - 1 - start) > reach:
            band = _band(end - start, high - low, low - start, reach, q.device)
            mask = band if mask is None else mask & band
        if front is not None and front_k is not None and front_v is not None:
            near_k, near_v = torch.cat([front_k, near_k], 1), torch.cat([front_v, near_v], 1)
            assert mask is not None  # the global tokens are not in the window
            ahead = front.taken[:, None, None].expand(-1, 1, end - start, -1)
            mask = torch.cat([ahead, mask.expand(q.shape[0], 1, end - start, -1)], -1)
        # (rows, tokens, heads, dim) -> (rows, heads, tokens, dim)
        parts = (t.transpose(1, 2) for t in (q[:, start:end], near_k, near_v))
        mixed.append(attend(*parts, mask=mask, dropout=dropout)[0].transpose(1, 2))
    return torch.cat(mixed, 1) if len(mixed) > 1 else mixed[0]


def _all_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    span: Span,
    reach: int,
    chunk: int,
    dropout: nn.Dropout | None,
    head_mask: Tensor | None,
    weights: bool,
) -> tuple[Tensor, Tensor | None]:
    """One call for all chunks, whose number no line depends on, so that a recorded graph takes any length.

    A graph has an idle chunk at the end: with one chunk or more than one it would be another graph (of one, torch knows
    that it broadcasts), with two or more it is the same.
    """
    rows, length = q.shape[:2]
    front, shown, keys = span.globals, span.in_window, chunk + 2 * reach
    after = chunk - 1 + chunk * tracing()
    queries = _cut(q, 0, after, chunk, chunk)
    near_k, near_v = (_cut(t, reach, reach + after, keys, chunk) for t in (k, v))
    shown = torch.ones(rows, length, dtype=torch.bool, device=q.device) if shown is None else shown
    # (rows, chunks, keys), False outside of the text -> (rows, chunks, queries, keys)
    inside = F.pad(shown, (reach, reach + after)).unfold(1, keys, chunk)
    mask = inside[:, :, None] & _band(chunk, keys, -reach, reach, q.device)
    if front is not None:
        ahead = (front.pick(t)[:, None].expand(-1, mask.shape[1], -1, -1, -1) for t in (k, v))
        near_k, near_v = (torch.cat([a, near], 2) for a, near in zip(ahead, (near_k, near_v), strict=True))
        taken = front.taken[:, None, None].expand(*mask.shape[:3], -1)
        mask = torch.cat([taken, mask], -1)
    # (rows, chunks, tokens, heads, dim) -> (rows * chunks, heads, tokens, dim)
    parts = (t.flatten(0, 1).transpose(1, 2) for t in (queries, near_k, near_v))
    y, p = attend(
        *parts, mask=mask.flatten(0, 1)[:, None], dropout=dropout, head_mask=head_mask, weights=weights
    )  # fmt: skip
    y = y.transpose(1, 2).unflatten(0, (rows, -1)).flatten(1, 2)[:, :length]
    if p is None:
        return y, None
    # a query's window begins one key later than that of the query before it
    places = 0 if front is None else front.places
    window = _range(chunk, q)[:, None] + _range(2 * reach + 1, q)
    p = torch.cat([p[..., :places], p[..., places:].gather(-1, window.expand(*p.shape[:2], -1, -1))], -1)
    p = p.unflatten(0, (rows, -1)).transpose(1, 2).flatten(2, 3)[:, :, :length]
    return y, p if front is None else p.masked_fill(front.marked[:, None, :, None], 0.0)


def _cut(x: Tensor, before: int, after: int, size: int, step: int) -> Tensor:
    """(rows, length, heads, dim), with so many zeros before and after it -> (rows, chunks, size, heads, dim)."""
    return F.pad(x, (0, 0, 0, 0, before, after)).unfold(1, size, step).permute(0, 1, 4, 2, 3)


def _band(queries: int, keys: int, first: int, reach: int, device: torch.device) -> Tensor:
    """[i, j]: whether key first + j is at most `reach` away from query i, (queries, keys) bool."""
    i = torch.arange(queries, device=device)[:, None]
    j = torch.arange(first, first + keys, device=device)
    return (j - i).abs() <= reach


def _range(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device)


# ---- the layer -------------------------------------------------------------------------------------------------------


class WindowTaps(Taps):
    """Records what the global tokens see too, (rows, heads, length, places): a column a global token."""

    layout: WindowLayout

    def __init__(self, layout: WindowLayout, *, hidden_states: bool, attentions: bool) -> None:
        super().__init__(layout, hidden_states=hidden_states, attentions=attentions)
        self.global_attentions: list[Tensor] = []

    def saw_globally(self, weights: Tensor) -> None:
        """The global tokens' weights (rows, heads, places, length)."""
        self.global_attentions.append(weights.mT)

    def global_weights(self, padded: int) -> tuple[Tensor, ...] | None:
        """One a layer, None if there are none.

        A place that is not taken has the same weight for each of `padded` tokens, as in the reference, whose text is
        padded to that length.
        """
        if not self.global_attentions:
            return None
        found = self.layout.spans[0].globals
        assert found is not None
        return tuple(w.masked_fill(~found.taken[:, None, None], 1 / padded) for w in self.global_attentions)


class WindowAttention(Attention):
    """Self-attention within a window, with global tokens.

    Args:
        width, heads, dropout: as of `Attention`.
        reach: how many tokens to each side a token sees.
    """

    def __init__(self, width: int, heads: int, reach: int, dropout: float = 0.0) -> None:
        super().__init__(width, heads, dropout)
        self.reach = reach
        self.q_global = nn.Linear(width, width)
        self.kv_global = nn.Linear(width, 2 * width)

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        memory: KV | PreallocatedKV | None = None,
        head_mask: Tensor | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """x (rows, length, width), or (tokens, width) where the layout is packed -> the same shape."""
        assert isinstance(layout, WindowLayout)
        assert memory is None or not memory.length
        qkv = self.qkv(x)
        if layout.packing is None:
            return self.out(self._span(x, qkv, layout.spans[0], head_mask, taps))
        mixed = []
        for span in layout.spans:
            # (rows * length, ...) -> (rows, length, ...), a view
            here, shape = slice(span.start, span.start + span.rows * span.length), (span.rows, span.length)
            y = self._span(x[here].unflatten(0, shape), qkv[here].unflatten(0, shape), span, head_mask, taps)
            mixed.append(y.flatten(0, 1))
        # a batch of nothing but padding has no token and no span
        return self.out(torch.cat(mixed) if mixed else qkv[:, : self.out.in_features])

    def _span(self, x: Tensor, qkv: Tensor, span: Span, head_mask: Tensor | None, taps: Taps | None) -> Tensor:
        """x (rows, length, width), qkv (rows, length, 3 * width) -> (rows, length, width), before the last map."""
        # (..., 3 * heads * dim) -> (..., 3, heads, dim)
        q, k, v = qkv.unflatten(-1, (3, -1, self.dim)).unbind(-3)
        wanted = taps is not None and taps.attentions is not None
        y, weights = attend_window(
            q, k, v, span, self.reach, dropout=self.dropout, head_mask=head_mask, weights=wanted
        )  # fmt: skip
        if taps is not None:
            taps.saw(weights)
        y = y.flatten(2)
        if span.globals is None:
            return y
        y_global, weights = self._from_globals(x, span.globals, span.real, head_mask, wanted)
        if isinstance(taps, WindowTaps) and weights is not None:
            taps.saw_globally(weights)
        return span.globals.put(y, y_global)

    def _from_globals(
        self, x: Tensor, found: Globals, real: Tensor | None, head_mask: Tensor | None, wanted: bool
    ) -> tuple[Tensor, Tensor | None]:
        """What the global tokens see: (rows, places, width), and the weights (rows, heads, places, length).

        A few of them never project the text: q . (K x + b) = (K' q) . x + q . b, where the last term is the same for
        every x, and the mean of V x + b is V of the mean, plus b. From `dim` places on projecting is cheaper.
        """
        q = self.q_global(found.pick(x)).unflatten(-1, (-1, self.dim))
        mask = None if real is None else real[:, None, None]
        few = found.places < self.dim and type(self.kv_global) is nn.Linear
        if not few or self.kv_global._forward_hooks or self.kv_global._forward_pre_hooks:
            k, v = self.kv_global(x).unflatten(-1, (2, -1, self.dim)).unbind(-3)
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            y, p = attend(q, k, v, mask=mask, dropout=self.dropout, head_mask=head_mask, weights=wanted)
            return y.transpose(1, 2).flatten(2), p
        to_key, to_value = self.kv_global.weight.unflatten(0, (2, -1, self.dim)).unbind()
        _, bias = self.kv_global.bias.unflatten(0, (2, -1)).unbind()
        # (rows, places, heads, dim) -> (rows, one head, heads * places, width)
        folded = torch.einsum("rphd,hdw->rhpw", q, to_key)
        if head_mask is not None:
            head_mask = head_mask.expand(-1, -1, folded.shape[2], -1).flatten(1, 2)[:, None]
        y, p = attend(
            folded.flatten(1, 2)[:, None], x[:, None], x[:, None], mask=mask, scale=self.scale, dropout=self.dropout,
            head_mask=head_mask, weights=True,
        )  # fmt: skip
        assert p is not None
        shape = folded.shape[1:3]
        y, p = y[:, 0].unflatten(1, shape), p[:, 0].unflatten(1, shape)
        # the weights sum to one but for dropout, a head mask, and a row without tokens
        shares = p.sum(-1).transpose(1, 2).repeat_interleave(self.dim, -1)
        return torch.einsum("rhpw,hdw->rphd", y, to_value).flatten(2) + bias * shares, p if wanted else None

    def prune(self, heads: Iterable[int]) -> None:
        """Remove these heads for good; numbers are those of the unpruned layer, and stay so."""
        gone, inner = list(heads), self.out.in_features
        _, kept = kept_heads(self.heads, gone, self.dim)
        super().prune(gone)
        self.q_global = keep_rows(self.q_global, kept)
        self.kv_global = keep_rows(self.kv_global, torch.cat([kept, kept + inner]))
