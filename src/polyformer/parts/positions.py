"""How positions are numbered, and position schemes: modules that turn queries and keys into a bias of the scores."""

import math

import torch
from torch import Tensor, nn

from polyformer.parts.layout import Layout


def numbered_after_pad(layout: Layout, ids: Tensor | None, pad: int) -> Tensor:
    """Positions as fairseq gives them: the first real token has pad + 1; the id `pad` takes none and has `pad`.

    Args:
        ids: (rows, length) int64; None where there are vectors in their place: then every token takes one.

    Returns:
        (1 or rows, length), or (tokens,) where packed.
    """
    if ids is None:
        return layout.positions + (pad + 1)
    takes = ids != pad
    if layout.packing is not None:  # no cache, no hole
        assert layout.real is not None
        takes = takes & layout.real
        return layout.pack(takes.cumsum(1) * takes + pad)
    if layout.real is not None:  # leading padding takes none, whatever its ids; a hole does
        takes = takes & (layout.real | (layout.positions > 0))
    return (takes.cumsum(1) + layout.positions[:, :1]) * takes + pad


def sinusoids(positions: int, width: int) -> Tensor:
    """sin and cos of position / 10000^(2 i / width) in columns 2 i and 2 i + 1 (Vaswani et al. 2017, section 3.5).

    Returns:
        (positions, width).
    """
    rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
    # (positions, width / 2, 2) -> (positions, width), without the last column where the width is odd
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width].to(torch.get_default_dtype())


def waves(distances: Tensor, width: int, dtype: torch.dtype, rates: torch.dtype | None = None) -> Tensor:
    """All sin, then all cos, of distance / 10000^(2 i / width): what attention by distance reads.

    Dai et al. 2019, arXiv 1901.02860, section 3.3.

    Args:
        distances: (count,), of either sign.
        width: even.
        rates: what the rates are rounded to; what all is worked out in by default.

    Returns:
        (count, width), worked out in float32 at least.
    """
    exact = torch.promote_types(dtype, torch.float32)
    steps = torch.arange(0, width, 2, dtype=rates or exact, device=distances.device) / width
    angles = distances.to(exact)[:, None] * (1 / 10000.0**steps).to(exact)
    return torch.cat([angles.sin(), angles.cos()], -1).to(dtype)


def relative_shift(scores: Tensor, keys: int, step: int = 1) -> Tensor:
    """From scores by distance to scores by key (Dai et al. 2019, appendix B): a view, not a copy.

    Row i moves to the left by step * (queries - i): [i, j] = scores[i, step * (queries - i) + j]. With distances that
    fall by one from column to column that is the score of the key at which query i's distance is the right one, queries
    lying `step` keys apart. What lies beyond a row's last column is another row's: nobody may look there.

    Args:
        scores: (..., queries, distances), contiguous, with distances >= keys + step.

    Returns:
        (..., queries, keys).
    """
    queries = scores.shape[-2]
    # taken `step` columns shorter, every row begins that much later than the one before
    return scores.flatten(-2)[..., step * queries :].unflatten(-1, (queries, -1))[..., :keys]


class Sinusoids(nn.Embedding):
    """A table of `sinusoids` that is not trained; it is in the files like a learnt one."""

    def __init__(self, positions: int, width: int) -> None:
        super().__init__(positions, width)
        self.weight.requires_grad_(False)

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(sinusoids(*self.weight.shape))


def split_sinusoids(positions: int, width: int) -> Tensor:
    """The same numbers with all sines first, then all cosines, as tensor2tensor has them; (positions, width)."""
    table = sinusoids(positions, width)
    return torch.cat([table[:, 0::2], table[:, 1::2]], 1)


class SplitSinusoids(nn.Module):
    """A table of `split_sinusoids`, computed and in no file."""

    table: Tensor

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.register_buffer("table", self.values(positions, width), persistent=False)

    @staticmethod
    def values(positions: int, width: int) -> Tensor:
        return split_sinusoids(positions, width)

    def reset_buffers(self, device: torch.device) -> None:
        self.table = self.values(*self.table.shape).to(device)

    def forward(self, positions: Tensor) -> Tensor:
        """(...) int64 -> (..., width), of the table's type."""
        return self.table[positions]


class OffsetPositions(nn.Embedding):
    """A learnt vector a position, of which the first ones have no use: fairseq keeps their places for padding."""

    offset = 2

    def __init__(self, positions: int, width: int) -> None:
        super().__init__(positions + self.offset, width)

    def forward(self, positions: Tensor) -> Tensor:
        """(...) int64, counted from 0 -> (..., width)."""
        return super().forward(positions + self.offset)


class RelativeKey(nn.Module):
    """A learnt vector for every distance, read by the query: bias = q . e[i - j]  (Shaw et al. 2018, arXiv 1803.02155).

    Args:
        reach: largest number of positions; distances lie in (-reach, reach).
        dim: width of a head.
        scale: of the bias; that of the scores, 1 / sqrt(dim), by default.
    """

    def __init__(self, reach: int, dim: int, scale: float | None = None) -> None:
        super().__init__()
        self.reach, self.scale = reach, dim**-0.5 if scale is None else scale
        self.distances = nn.Embedding(2 * reach - 1, dim)

    def between(self, queries: int, keys: int) -> Tensor:
        """The vectors of all distances i - j, (queries, keys, dim); the last query stands at the last key."""
        device = self.distances.weight.device
        i = torch.arange(keys - queries, keys, device=device)[:, None]
        j = torch.arange(keys, device=device)
        return self.distances(i - j + self.reach - 1)

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """q (batch, heads, Q, dim), k (batch, heads, K, dim) -> bias (batch, heads, Q, K)."""
        e = self.between(q.shape[2], k.shape[2])
        return torch.einsum("bhqd,qkd->bhqk", q, e) * self.scale


class RelativeKeyQuery(RelativeKey):
    """Read by query and key: bias = q . e[i - j] + k . e[i - j]  (Huang et al. 2020, arXiv 2009.13658, method 4)."""

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        e = self.between(q.shape[2], k.shape[2])
        bias = torch.einsum("bhqd,qkd->bhqk", q, e) + torch.einsum("bhkd,qkd->bhqk", k, e)
        return bias * self.scale


def spread(distances: Tensor, buckets: int, reach: int) -> Tensor:
    """Distances from 0 on over so many buckets, int64: half of these are of one distance, the others grow with its
    logarithm up to `reach`, and the last has all that lies beyond."""
    near = buckets // 2
    share = (distances.clamp(min=1).float() / near).log() / math.log(reach / near)
    far = near + (share * (buckets - near)).long()
    return torch.where(distances < near, distances, far.clamp(max=buckets - 1))


class Buckets(nn.Module):
    """A learnt number for every head and bucket of distances, added to the scores of all layers of a stack.

    Raffel et al. 2019, arXiv 1910.10683, section 2.1; mesh-tensorflow transformer_layers.py. Half of the buckets are
    for keys that come later. Of each half, half are of one distance, 0, 1, 2 ...; the others grow with the logarithm of
    theirs up to `reach`, and the last has all that lies beyond.

    Args:
        buckets: how many. heads: how many. reach: the distance from which on there are no more buckets.
    """

    bucket_of: Tensor

    def __init__(self, buckets: int, heads: int, reach: int) -> None:
        super().__init__()
        self.buckets, self.reach = buckets, reach
        self.numbers = nn.Embedding(buckets, heads)
        self.register_buffer("bucket_of", torch.empty(2 * reach + 1, dtype=torch.int64), persistent=False)
        self.reset_buffers(self.bucket_of.device)

    def reset_buffers(self, device: torch.device) -> None:
        """Work out the buckets of the distances -reach to reach."""
        self.bucket_of = self.bucket(torch.arange(-self.reach, self.reach + 1, device=device))

    def bucket(self, distances: Tensor) -> Tensor:
        """The buckets of distances from a query back to a key, int64; below 0 where the key comes later."""
        half = self.buckets // 2
        return self.spread(distances.abs(), half) + half * (distances < 0)

    def spread(self, distances: Tensor, buckets: int) -> Tensor:
        return spread(distances, buckets, self.reach)

    def forward(self, queries: int, keys: int) -> Tensor:
        """(1, heads, queries, keys); the last query stands at the last key."""
        device = self.bucket_of.device
        i = torch.arange(keys - queries, keys, device=device)[:, None]
        distances = i - torch.arange(keys, device=device)
        found = self.bucket_of[distances.clamp(-self.reach, self.reach) + self.reach]
        return self.numbers.weight.T[:, found][None]


class PastBuckets(Buckets):
    """The same for a decoder: all buckets are for keys that come earlier."""

    def bucket(self, distances: Tensor) -> Tensor:
        return self.spread(distances.clamp(min=0), self.buckets)


# By config.position_embedding_type; None: a vector a position, added to the token's.
SCHEMES: dict[str, type[RelativeKey] | None] = {
    "absolute": None,
    "relative_key": RelativeKey,
    "relative_key_query": RelativeKeyQuery,
}


def scheme(name: str, reach: int, dim: int, scale: float | None = None) -> RelativeKey | None:
    """The scheme of this name for `reach` positions and heads `dim` wide; None if it is in the embeddings."""
    made = SCHEMES[name]
    return None if made is None else made(reach, dim, scale)
