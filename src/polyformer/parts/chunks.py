"""A text in chunks, each of which attends to itself and to its neighbours: time and memory grow with the length.

Kitaev, Kaiser and Levskaya 2020, arXiv 2001.04451, section 2; google/trax, the code of the paper. The chunks lie in a
ring: before the first one comes the last one. Here every text has a ring of its own, so that neither the others in a
batch nor its padding change what its tokens see; texts are padded to whole chunks by nobody else.

    columns    of the batch as it was given, padding on either side
    slots      where the tokens lie while attention runs: each text from slot 0 on, whole chunks
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.parts.attend import attend
from polyformer.parts.attention import keep_columns, keep_rows, kept_heads
from polyformer.parts.buckets import BucketMemory
from polyformer.parts.layout import tracing
from polyformer.parts.taps import Taps


@dataclass(frozen=True)
class Reach:
    """Chunks of `size` tokens, and how many of them before and after its own a token sees."""

    size: int
    before: int
    after: int

    @property
    def near(self) -> int:
        """Chunks that a token sees."""
        return self.before + 1 + self.after

    def within(self, slots: int) -> "Reach":
        """For a text of so many slots: one that fits into a chunk is a chunk, without neighbours."""
        return Reach(slots, 0, 0) if not tracing() and slots <= self.size else self


@dataclass(frozen=True)
class ChunkLayout:
    """Where the tokens of a batch lie while attention runs.

    past: cached columns. total: columns, cached ones included.
    slots: how many a text has, at least `total`.
    turn: (rows, slots) the column of each slot, and the slot of each column; None = the same.
    shown: (rows or 1, slots) bool, which slots hold tokens that may be seen; None = all.
    own: (rows or 1, 1) how many slots a text has that has no others beside it; None = `slots`.
    causal: whether a token sees itself and earlier ones only.
    rounds: of hashing, where layers hash.
    """

    past: int
    total: int
    slots: int
    turn: tuple[Tensor, Tensor] | None = None
    shown: Tensor | None = None
    own: Tensor | None = None
    causal: bool = False
    rounds: int = 1

    @classmethod
    def of(
        cls,
        total: int,
        seen: Tensor | None,
        sizes: Sequence[int],
        device: torch.device,
        *,
        past: int = 0,
        causal: bool = False,
        rounds: int = 1,
    ) -> "ChunkLayout":
        """Lay the texts of a batch out in chunks.

        Args:
            total: columns, `past` cached ones included.
            seen: (rows, total) bool, what attention_mask says; None = all.
            sizes: of the chunks of all layers. A text that fits into the smallest is left as it is, another one fills
                up whole chunks of every size.
        """
        least, unit = min(sizes), math.lcm(*sizes)
        filled = (total + unit - 1) // unit * unit
        # With one chunk or more than one it would be another graph: a recorded one has an idle unit at the end.
        slots = filled + unit if tracing() else (total if total <= least else filled)
        slot = torch.arange(slots, device=device)
        if seen is None:
            shown = None if not tracing() and slots == total else slot[None] < total
            own = (slot[:1] * 0 + filled)[None] if tracing() else None
            return cls(past, total, slots, None, shown, own, causal, rounds)
        leading, trailing = ((t.cumsum(1) == 0).sum(1, keepdim=True) for t in (seen, seen.flip(1)))
        span = (total - leading - trailing).clamp(min=0)
        own = torch.where(span <= least, span, (span + unit - 1) // unit * unit)
        turn = None
        if tracing() or bool((leading > 0).any()):
            order, back = (torch.where(slot < total, (slot + by) % total, slot) for by in (leading, -leading))
            turn = order, back
        shown = F.pad(seen, (0, slots - total))
        shown = shown if turn is None else shown.gather(1, turn[0])
        return cls(past, total, slots, turn, shown, own, causal, rounds)

    def align(self, x: Tensor, fill: int = 0) -> Tensor:
        """(rows, total, ...) by columns -> (rows, slots, ...), with `fill` where there is no column."""
        if tracing() or self.slots != self.total:
            x = torch.cat([x, x.new_full((x.shape[0], self.slots - self.total, *x.shape[2:]), fill)], 1)
        return x if self.turn is None else _taken(x, self.turn[0])

    def restore(self, x: Tensor) -> Tensor:
        """(rows, slots, ...) -> the same by columns, those that are beyond the text last."""
        return x if self.turn is None else _taken(x, self.turn[1])

    def columns(self, slots: Tensor) -> Tensor:
        """Where these slots, (rows, count), have their tokens; any column for one that has none."""
        slots = slots.clamp(max=self.slots - 1)
        return (slots if self.turn is None else self.turn[0].gather(1, slots)).clamp(max=self.total - 1)

    def newest(self, rows: int, device: torch.device) -> Tensor:
        """The slot of the last column, (rows,)."""
        if self.turn is None:
            return torch.full((rows,), self.total - 1, device=device)
        return self.turn[1][:, self.total - 1]

    def pack(self, x: Tensor | None, fill: int = 0) -> Tensor | None:
        """New tokens as the layers read them: by slots; by columns where there are cached ones before them."""
        return x if self.past or x is None else self.align(x, fill)

    def unpack(self, x: Tensor) -> Tensor:
        """The inverse, but for slots that are beyond the text."""
        return x if self.past else self.restore(x)


def _taken(x: Tensor, order: Tensor) -> Tensor:
    index = order.view(*order.shape, *[1] * (x.dim() - 2))
    return x.gather(1, index.expand(x.shape[0], -1, *x.shape[2:]))


# ---- the ring --------------------------------------------------------------------------------------------------------


def ring(layout: ChunkLayout, reach: Reach, device: torch.device, rounds: int = 1) -> tuple[Tensor, Tensor | None]:
    """Which chunks each chunk sees.

    Args:
        rounds: how many copies of the text follow one another in the ring, each in an order of its own.

    Returns:
        (rows or 1, chunks, near) numbers of chunks, where chunks = rounds * slots / size and near = before + 1 + after;
        and (rows or 1, chunks, near) bool, False where a text is no longer than a chunk, which has no neighbours
        then; None = True.
    """
    count = layout.slots // reach.size
    chunk = torch.arange(rounds * count, device=device)[:, None]
    offsets = torch.arange(-reach.before, reach.after + 1, device=device)
    whole = ((chunk + offsets) % (rounds * count))[None]
    if layout.own is None:
        return whole, None
    # a text whose own chunks are fewer: (rows, chunks, near), counted without the idle ones and back
    own = (layout.own // reach.size).clamp(min=1)[:, :, None]
    copy, place = chunk // count, chunk % count
    turned = (copy * own + place + offsets) % (rounds * own)
    idle = place >= own
    index = torch.where(idle, whole, turned // own * count + turned % own)
    return index, (own > 1) | idle | (offsets == 0)


def nearby(x: Tensor, index: Tensor) -> Tensor:
    """The neighbours of chunks, one after another; x (groups, chunks, size, ...), index (groups or 1, some, near).

    Returns:
        (groups, some, near * size, ...).
    """
    groups, chunks = x.shape[:2]
    first = torch.arange(groups, device=x.device)[:, None, None] * chunks
    found = x.flatten(0, 1).index_select(0, (index + first).flatten())
    return found.view(groups, index.shape[1], -1, *x.shape[3:])


def near_slots(slots: Tensor, layout: ChunkLayout, reach: Reach, rounds: int = 1) -> Tensor:
    """The slots that each chunk's tokens may see; `layout.slots`, which is none, where there is nothing.

    Args:
        slots: (rows, heads, chunks, size), the tokens of each chunk.

    Returns:
        (rows, heads, chunks, near * size).
    """
    rows, heads = slots.shape[:2]
    index, neighbours = ring(layout, reach, slots.device, rounds)
    index = index.expand(rows, -1, -1).repeat_interleave(heads, 0)
    if layout.shown is not None:
        tokens = slots.flatten(1)
        hidden = ~layout.shown.expand(rows, -1).gather(1, tokens)
        slots = tokens.masked_fill(hidden, layout.slots).view(slots.shape)
    near = nearby(slots.flatten(0, 1), index).unflatten(0, (rows, heads))
    if neighbours is None:
        return near
    return near.masked_fill(~neighbours[:, None].repeat_interleave(reach.size, -1), layout.slots)


def may_see(query: Tensor, key: Tensor, layout: ChunkLayout) -> Tensor:
    """(..., queries) and (..., keys) slots -> (..., queries, keys) bool."""
    limit = query[..., None] if layout.causal else layout.slots - 1
    return key[..., None, :] <= limit


def attend_local(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: ChunkLayout,
    reach: Reach,
    *,
    dropout: nn.Dropout | None = None,
    head_mask: Tensor | None = None,
    weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Every chunk to itself and the chunks around it in the text.

    Args:
        q, k, v: (rows, slots, heads, dim).
        dropout, head_mask: as of `attend`.
        weights: also give the weights back.

    Returns:
        (rows, slots, heads, dim), and, if asked for, the weights (rows, heads, chunks, size, near * size); of one chunk
        (rows, heads, slots, slots).
    """
    reach, rows = reach.within(layout.slots), q.shape[0]
    q, k, v = (t.unflatten(1, (-1, reach.size)) for t in (q, k, v))
    mask = None
    if reach.near > 1:
        index, _ = ring(layout, reach, q.device)
        k, v = nearby(k, index), nearby(v, index)
    if layout.causal or layout.shown is not None or layout.own is not None:
        slot = torch.arange(layout.slots, device=q.device).view(1, 1, -1, reach.size).expand(rows, -1, -1, -1)
        mask = may_see(slot, near_slots(slot, layout, reach), layout)[:, 0]
        if layout.shown is not None:  # a pad that sees nothing weighs everything alike, which nobody sees
            blind = ~mask.any(-1, keepdim=True)
            q = q.masked_fill(blind[..., None], 0.0)
            mask = mask | blind
        # (rows, chunks, queries, keys) -> (rows * chunks, one head, queries, keys)
        mask = mask.flatten(0, 1)[:, None]
    # (rows, chunks, tokens, heads, dim) -> (rows * chunks, heads, tokens, dim)
    parts = (t.flatten(0, 1).transpose(1, 2) for t in (q, k, v))
    y, p = attend(*parts, mask=mask, dropout=dropout, head_mask=head_mask, weights=weights)
    y = y.transpose(1, 2).unflatten(0, (rows, -1)).flatten(1, 2)
    if p is None:
        return y, None
    p = p.unflatten(0, (rows, -1)).transpose(1, 2)
    return y, p.squeeze(2) if reach.size == layout.slots else p


# ---- the layer -------------------------------------------------------------------------------------------------------


class ChunkedAttention(nn.Module):
    """What local and hashed attention share: projections without biases, and what they do with a memory.

    Args:
        width: of the token states.
        heads: how many, each `dim` wide.
        dropout: of the attention weights.

    projections: a letter each, of those that lie side by side in the linear map of this name.
    """

    projections: ClassVar[str]

    def __init__(self, width: int, heads: int, dim: int, reach: Reach, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim, self.heads, self.reach = dim, list(range(heads)), reach
        setattr(self, self.projections, nn.Linear(width, len(self.projections) * heads * dim, bias=False))
        self.out = nn.Linear(heads * dim, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        layout: ChunkLayout,
        memory: BucketMemory | None = None,
        head_mask: Tensor | None = None,
        taps: Taps | None = None,
        hashes: list[Tensor] | None = None,
    ) -> Tensor:
        """x (rows, slots, width); or (rows, new, width), new columns after those that memory has -> the same shape.

        hashes: what a first run leaves there, a second one of the same tokens takes in place of its own.
        """
        wanted = taps is not None and taps.attentions is not None
        states = x
        if memory is not None:
            states = memory.states.append(x if layout.past else layout.restore(x)[:, : layout.total])
        if not layout.past:
            y, weights = self.whole(x, layout, memory, head_mask, wanted, hashes)
        elif x.shape[1] == 1 and layout.slots > self.reach.size and type(self.project) is nn.Linear:
            assert memory is not None
            y, weights = self.step(x, states, layout, memory, head_mask, wanted)
        else:
            y, weights = self.whole(layout.align(states), layout, memory, head_mask, wanted, hashes)
            y = layout.restore(y)[:, layout.past : layout.total]
        if taps is not None:
            taps.saw(weights)
        return self.out(y.flatten(2))

    @property
    def project(self) -> nn.Linear:
        return getattr(self, self.projections)

    def projected(self, x: Tensor) -> tuple[Tensor, ...]:
        """x (..., width) -> its projections, each (..., heads, dim)."""
        return self.project(x).unflatten(-1, (len(self.projections), -1, self.dim)).unbind(-3)

    def whole(
        self,
        x: Tensor,
        layout: ChunkLayout,
        memory: BucketMemory | None,
        head_mask: Tensor | None,
        wanted: bool,
        hashes: list[Tensor] | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Every token of x (rows, slots, width): (rows, slots, heads, dim), and the weights if they are wanted."""
        raise NotImplementedError

    def step(
        self,
        x: Tensor,
        states: Tensor,
        layout: ChunkLayout,
        memory: BucketMemory,
        head_mask: Tensor | None,
        wanted: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """One new token x (rows, 1, width) after others, all `states` (rows, total, width): (rows, 1, heads, dim).

        Keys and values are made of what is near alone. The answer is that of `whole` for the last token.
        """
        raise NotImplementedError

    def prune(self, heads: Iterable[int]) -> None:
        """Remove these heads for good; numbers are those of the unpruned layer, and stay so."""
        inner = self.out.in_features
        self.heads, kept = kept_heads(self.heads, heads, self.dim)
        units = torch.cat([kept + i * inner for i in range(len(self.projections))])
        setattr(self, self.projections, keep_rows(self.project, units))
        self.out = keep_columns(self.out, kept)


class LocalAttention(ChunkedAttention):
    """Attention of each chunk to those around it in the text; queries, keys and values are three projections."""

    projections = "qkv"

    def whole(
        self,
        x: Tensor,
        layout: ChunkLayout,
        memory: BucketMemory | None,
        head_mask: Tensor | None,
        wanted: bool,
        hashes: list[Tensor] | None,
    ) -> tuple[Tensor, Tensor | None]:
        q, k, v = self.projected(x)
        return attend_local(
            q, k, v, layout, self.reach, dropout=self.dropout, head_mask=head_mask, weights=wanted
        )  # fmt: skip

    def step(
        self,
        x: Tensor,
        states: Tensor,
        layout: ChunkLayout,
        memory: BucketMemory,
        head_mask: Tensor | None,
        wanted: bool,
    ) -> tuple[Tensor, Tensor | None]:
        rows, slot = len(x), layout.newest(len(x), x.device)
        slots = torch.arange(layout.slots, device=x.device).view(1, 1, -1, self.reach.size)
        near = near_slots(slots.expand(rows, -1, -1, -1), layout, self.reach)[:, 0]
        # (rows, chunks, near * size) -> (rows, near * size)
        key = near[torch.arange(rows, device=x.device), slot // self.reach.size]
        column = layout.columns(key)[:, :, None].expand(-1, -1, states.shape[2])
        q, (_, k, v) = self.projected(x)[0], self.projected(states.gather(1, column))
        parts = (t.transpose(1, 2) for t in (q, k, v))
        mask = may_see(slot[:, None], key, layout)[:, None]
        y, p = attend(*parts, mask=mask, dropout=self.dropout, head_mask=head_mask, weights=wanted)
        return y.transpose(1, 2), p
