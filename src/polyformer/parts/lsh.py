"""Attention among tokens that a hash puts together: locality-sensitive hashing.

Kitaev, Kaiser and Levskaya 2020, arXiv 2001.04451, section 2; google/trax, the code of the paper. Queries are keys, and
a softmax is about the keys that point where the query does. Random rotations tell into which of `buckets` directions a
vector points; the text, sorted by bucket, is cut into chunks, and a token sees its own chunk and the neighbours of that
(parts/chunks.py). Rounds with other rotations find what the first one missed; they are joined by the share that each
has of the whole softmax. A token sees itself only where it sees nothing else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.parts.buckets import BucketMemory
from polyformer.parts.chunks import ChunkedAttention, ChunkLayout, Reach, may_see, near_slots, nearby, ring
from polyformer.parts.layout import tracing

HIDDEN, ITSELF = -1e9, -1e5  # scores of what may not be seen, and of the token itself
BLOCK = 1 << 22  # scores at a time, where nobody wants to see them

# ---- hashing ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _drawn(seed: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(shape, dtype=dtype, device=device, generator=torch.Generator(device).manual_seed(seed))


@torch.library.custom_op("polyformer::rotations", mutates_args=())
def seeded_rotations(like: Tensor, seed: int, shape: Sequence[int]) -> Tensor:
    """Normal numbers of this shape, of the type and on the device of `like`: the first that torch draws after
    `torch.manual_seed(seed)`, while its own state stays as it is. One operation, so that a recorded graph has it too.
    """
    return _drawn(seed, tuple(shape), like.dtype, like.device).clone()


@seeded_rotations.register_fake
def _(like: Tensor, seed: int, shape: Sequence[int]) -> Tensor:
    return like.new_empty(shape)


def rotations(like: Tensor, seed: int | None, heads: int, dim: int, rounds: int, buckets: Sequence[int]) -> Tensor:
    """Random directions, (heads, dim, rounds, half of the sum of `buckets`), of the type of `like` and beside it.

    seed: None = new ones each time, from torch's own generator.
    """
    shape = (heads, dim, rounds, sum(buckets) // 2)
    if seed is None:
        return torch.randn(shape, dtype=like.dtype, device=like.device)
    return seeded_rotations(like.detach(), seed, shape)


def hashed(x: Tensor, directions: Tensor, buckets: Sequence[int]) -> Tensor:
    """The bucket of each vector: the direction it is most along, or against (section 2, "Locality sensitive hashing").

    Several numbers of buckets stand for their product: a digit of the bucket each, the first counting least. Those of
    a round are numbered on from those of the round before.

    Args:
        x: (rows, length, heads, dim), directions: (heads, dim, rounds, half of the sum of `buckets`).

    Returns:
        (rows, heads, rounds, length) int64.
    """
    found: list[Tensor] = []
    for turn in directions.unbind(2):
        along = torch.einsum("rlhd,hdb->rhlb", x.detach(), turn)
        bucket, worth = torch.zeros(along.shape[:3], dtype=torch.int64, device=x.device), 1
        for part, count in zip(along.split([n // 2 for n in buckets], -1), buckets, strict=True):
            (most, where), (least, opposite) = part.max(-1), part.min(-1)
            bucket = bucket + worth * torch.where(most >= -least, where, opposite + count // 2)
            worth *= count
        found.append(bucket + len(found) * math.prod(buckets))
    return torch.stack(found, 2)


def bucket_counts(slots: int, size: int, longest: int) -> list[int]:
    """How many buckets suit a text of so many slots in chunks of this size: a power of two, about twice the chunks.

    Many are split into two numbers, so that fewer directions do (section 2); longest: tokens that the model reads.
    """
    power = max((2 * (slots // size)).bit_length() - 1, 1)
    if 1 << power > 2 * max(math.isqrt(longest // size), size):
        return [1 << power // 2, 1 << (power - power // 2)]
    return [1 << power]


# ---- attention -------------------------------------------------------------------------------------------------------


def sorted_slots(buckets: Tensor, layout: ChunkLayout) -> Tensor:
    """Each text's slots by bucket, in order within one, what may not be seen last; (rows, heads, rounds, slots)."""
    if layout.shown is not None:
        last = torch.iinfo(buckets.dtype).max
        buckets = buckets.masked_fill(~layout.shown[:, None, None], last)
    return buckets.sort(dim=-1, stable=True).indices


class Rearranged(torch.autograd.Function):
    """Rows of x by number; backward too they are looked up, not added one by one.

    x: (n, dim); index: (m,); places: (times, n), where in the result each row of x stands, once in each of `times`.
    """

    @staticmethod
    def forward(x: Tensor, index: Tensor, places: Tensor) -> Tensor:
        return x.index_select(0, index)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (places,) = ctx.saved_tensors
        found = grad.index_select(0, places.flatten())
        return found if len(places) == 1 else found.unflatten(0, places.shape).sum(0), None, None


def rearranged(x: Tensor, index: Tensor, places: Tensor) -> Tensor:
    return Rearranged.apply(x, index, places) if x.requires_grad else x.index_select(0, index)


def places_of(order: Tensor) -> Tensor:
    """The inverse of orders along the last axis."""
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


@dataclass(frozen=True)
class Sorting:
    """From the order of the text to that of buckets, and back.

    order: (rows, heads, rounds, slots), the slots by bucket.
    there: numbers of rows of (rows * slots * heads, dim), in the order of (rows, heads, rounds, slots).
    back: (rounds, rows * slots * heads), the other way round.
    """

    order: Tensor
    there: Tensor
    back: Tensor

    @classmethod
    def of(cls, order: Tensor) -> "Sorting":
        rows, heads, rounds, slots = order.shape
        row, head, turn = (torch.arange(n, device=order.device) for n in (rows, heads, rounds))
        there = (row[:, None] * slots * heads + head)[:, :, None, None] + order * heads
        line = (row[:, None] * heads + head)[:, :, None] * rounds + turn
        back = places_of(order) + line[..., None] * slots
        return cls(order, there.flatten(), back.permute(2, 0, 3, 1).flatten(1))

    def sort(self, x: Tensor, size: int) -> Tensor:
        """(rows, slots, heads, dim) -> (rows * heads, rounds * chunks, size, dim)."""
        rows, heads = self.order.shape[:2]
        sorted_ = rearranged(x.reshape(-1, x.shape[-1]), self.there, self.back)
        return sorted_.view(rows * heads, -1, size, x.shape[-1])

    def unsort(self, x: Tensor) -> Tensor:
        """(rows * heads, rounds * chunks, size, dim) -> (rounds, rows, slots, heads, dim)."""
        rows, heads, rounds, slots = self.order.shape
        turn = torch.arange(rounds, device=x.device)[:, None] * self.back.shape[1]
        way = (self.there.view(rows, heads, rounds, slots) + turn).view(1, -1)
        found = rearranged(x.flatten(0, 2), self.back.flatten(), way)
        return found.view(rounds, rows, slots, heads, x.shape[-1])


def attend_hashed(
    q: Tensor,
    v: Tensor,
    buckets: Tensor | None,
    layout: ChunkLayout,
    reach: Reach,
    *,
    dropout: nn.Dropout | None = None,
    head_mask: Tensor | None = None,
    weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Every token to those that its chunk and its neighbours hold in the order of buckets.

    Args:
        q, v: (rows, slots, heads, dim).
        buckets: (rows, heads, rounds, slots); None for a text that fits into a chunk, where nothing is sorted.
        dropout, head_mask: as of `attend`.
        weights: also give the weights back.

    Returns:
        (rows, slots, heads, dim), and, if asked for, the weights (rows, heads, rounds * chunks, size, near * size) in
        the order of buckets; of one chunk (rows, heads, slots, slots).
    """
    rows, slots, heads = q.shape[:3]
    reach, rounds = reach.within(slots), 1 if buckets is None else layout.rounds
    rate = dropout.p if dropout is not None and dropout.training else 0.0
    if buckets is None:
        order = torch.arange(slots, device=q.device).expand(rows, heads, 1, -1)
    else:
        order = sorted_slots(buckets, layout)
    sorting = Sorting.of(order)
    q, v = sorting.sort(q, reach.size), sorting.sort(v, reach.size)
    k = as_keys(q)
    query = order.reshape(rows, heads, -1, reach.size)
    key = near_slots(query, layout, reach, rounds).flatten(0, 1)
    query = query.flatten(0, 1)
    near, _ = ring(layout, reach, q.device, rounds)
    near = near.expand(rows, -1, -1).repeat_interleave(heads, 0)
    if head_mask is not None:  # (1 or rows, heads, 1, 1) -> (rows * heads, 1, 1, 1)
        head_mask = head_mask.expand(rows, heads, 1, 1).reshape(-1, 1, 1, 1)
    mixed, sums, shown = [], [], None
    for part in blocks(q, key, whole=torch.is_grad_enabled() or weights or tracing()):
        scores = score(q[:, part], nearby(k, near[:, part]), query[:, part], key[:, part], layout)
        p = F.dropout(scores.softmax(-1).to(v.dtype), rate, training=rate > 0)
        p = shown = p if head_mask is None else p * head_mask
        mixed.append(p @ nearby(v, near[:, part]))
        if rounds > 1:
            sums.append(log_sum(scores))
    y = sorting.unsort(torch.cat(mixed, 1))
    y = y[0] if rounds == 1 else joined(y, sorting.unsort(torch.cat(sums, 1)))
    if not weights or shown is None:
        return y, None
    shown = shown.unflatten(0, (rows, heads))
    return y, shown.squeeze(2) if buckets is None else shown


def blocks(q: Tensor, key: Tensor, whole: bool) -> list[slice]:
    """The chunks of q (groups, chunks, size, dim) in parts with some BLOCK scores each, or in one."""
    if whole:
        return [slice(None)]
    groups, chunks, size = q.shape[:3]
    step = max(BLOCK // (groups * size * key.shape[-1]), 1)
    return [slice(a, a + step) for a in range(0, chunks, step)]


def score(q: Tensor, k: Tensor, query: Tensor, key: Tensor, layout: ChunkLayout) -> Tensor:
    """q (..., queries, dim) times k (..., keys, dim), of these slots, in single precision at least."""
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = q.to(wide) @ k.to(wide).mT
    if layout.causal or layout.shown is not None or layout.own is not None:
        scores = scores.masked_fill_(~may_see(query, key, layout), HIDDEN)
    return scores.masked_fill_(query[..., None] == key[..., None, :], ITSELF)


def log_sum(scores: Tensor) -> Tensor:
    """The logarithm of the sum of exponentials along the last axis, in two parts, (..., 2): the largest, and the rest.

    Apart since single precision has no room for the rest beside the score of a token that sees itself alone.
    """
    peak = scores.detach().amax(-1, keepdim=True)
    return torch.cat([peak, (scores - peak).logsumexp(-1, keepdim=True)], -1)


def joined(y: Tensor, sums: Tensor) -> Tensor:
    """All rounds' answers (rounds, ..., dim), by the share that each has of the sum of all, (rounds, ..., 2)."""
    peak, rest = sums.split(1, -1)
    share = (peak - peak.amax(0) + rest).softmax(0)
    return (y * share.to(y.dtype)).sum(0)


def as_keys(q: Tensor) -> Tensor:
    """Queries (..., dim) as keys: of unit length, so that scores need no other scale."""
    return q * (q.square().sum(-1, keepdim=True) + 1e-6 * q.shape[-1]).rsqrt()


# ---- the layer -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hashing:
    """How vectors are hashed.

    buckets: how many, or several numbers whose product it is; None = as suits the longest text of
    a batch, so that it takes them all to know an answer.
    seed: of the rotations; None = new ones each time while training, the same each time otherwise.
    longest: tokens of the longest text that there may be.
    """

    buckets: list[int] | None
    seed: int | None
    longest: int


class HashedAttention(ChunkedAttention):
    """Attention by hash; queries, which are keys, and values are two projections."""

    projections = "qv"

    def __init__(self, width: int, heads: int, dim: int, reach: Reach, hashing: Hashing, dropout: float = 0.0) -> None:
        super().__init__(width, heads, dim, reach, dropout)
        self.hashing, self.all_heads = hashing, heads

    def whole(
        self,
        x: Tensor,
        layout: ChunkLayout,
        memory: BucketMemory | None,
        head_mask: Tensor | None,
        wanted: bool,
        hashes: list[Tensor] | None,
    ) -> tuple[Tensor, Tensor | None]:
        q, v = self.projected(x)
        buckets = None
        if tracing() or layout.slots > self.reach.size:
            counts, directions = self.directions(q, layout, memory)  # drawn the second time too, as chance demands
            buckets = hashes[0] if hashes else hashed(q, directions, counts)
            if hashes is not None and not hashes:
                hashes.append(buckets)
        if buckets is not None and memory is not None:  # (rows, heads, rounds, slots) -> by columns, those not yet kept
            kept = layout.restore(buckets.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            memory.buckets.append(kept[..., memory.buckets.length : layout.total])
        return attend_hashed(
            q,
            v,
            buckets,
            layout,
            self.reach,
            dropout=self.dropout,
            head_mask=head_mask,
            weights=wanted,
        )

    def directions(
        self, like: Tensor, layout: ChunkLayout, memory: BucketMemory | None
    ) -> tuple[Sequence[int], Tensor]:
        """Numbers of buckets and the rotations that tell these apart; those of the buckets in memory."""
        how = self.hashing
        counts = how.buckets or (None if memory is None else memory.counts)
        if counts is None:
            counts = bucket_counts(how.longest if tracing() else layout.slots, self.reach.size, how.longest)
        if memory is not None:
            memory.counts = counts
        seed = 0 if how.seed is None and not (self.training and memory is None) else how.seed
        found = rotations(like, seed, self.all_heads, self.dim, layout.rounds, counts)
        return counts, found if len(self.heads) == self.all_heads else found[self.heads]

    def step(
        self,
        x: Tensor,
        states: Tensor,
        layout: ChunkLayout,
        memory: BucketMemory,
        head_mask: Tensor | None,
        wanted: bool,
    ) -> tuple[Tensor, Tensor | None]:
        rows, heads, rounds, size = len(x), len(self.heads), layout.rounds, self.reach.size
        unhashed = self.projected(states[:, memory.buckets.length :])[0]
        counts, directions = self.directions(unhashed, layout, memory)
        buckets = memory.buckets.append(hashed(unhashed, directions, counts))
        buckets = layout.align(buckets.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        order = sorted_slots(buckets, layout)
        # where the new token stands in each order, and which slots are near: (rows, heads, rounds, near * size)
        slot = layout.newest(rows, x.device)[:, None, None]
        place = places_of(order).gather(-1, slot[..., None].expand(-1, heads, rounds, 1))
        chunk = place // size + (torch.arange(rounds, device=x.device) * (layout.slots // size))[:, None]
        near = near_slots(order.reshape(rows, heads, -1, size), layout, self.reach, rounds)
        key = near.gather(2, chunk.expand(-1, -1, -1, near.shape[-1]))
        column = layout.columns(key.flatten(1))[:, :, None].expand(-1, -1, states.shape[2])
        found = states.gather(1, column).unflatten(1, (heads, -1))
        # (2 * heads * dim, width), each head's states by its own weights -> (rows, heads, rounds, near * size, dim)
        weight = self.project.weight.view(2, heads, self.dim, -1)
        k, v = torch.einsum("rhnw,phdw->prhnd", found, weight).unflatten(3, (rounds, -1)).unbind()
        q = self.projected(x)[0].transpose(1, 2)[:, :, None]
        scores = score(q, as_keys(k), slot[..., None], key, layout)  # (rows, heads, rounds, 1, near * size)
        # one softmax over all rounds: (rows, heads, rounds, 1, near * size) -> (rows, heads, rounds * near * size)
        p = scores.flatten(2).softmax(-1).view(scores.shape)
        p = self.dropout(p.to(v.dtype))
        p = p if head_mask is None else p * head_mask[:, :, None]
        return (p @ v).sum(2).transpose(1, 2), p if wanted else None
