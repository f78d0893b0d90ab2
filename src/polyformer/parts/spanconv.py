"""Span-based dynamic convolution: a token mixes its neighbours, with weights that its query and its surroundings give.

Jiang et al. 2020, arXiv 2008.02496, section 4.2; yitu-opensource/ConvBert. Of the tokens i + t around token i, itself
in the middle (of an even number, the earlier of the two in the middle):

    span key   s_i = P sum_t d_t * x_(i+t) + b           one weight d a tap and channel, then a linear map
    kernel     p_i = softmax over t of K (q_i * s_i)     one weight a tap and head
    output     y_i = sum_t p_it V x_(i+t)

What is beyond the ends of a sequence counts as zeros, x and V x both, and so does padding: it is never read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.parts.layout import Layout


@dataclass(frozen=True)
class SpacedLayout(Layout):
    """A layout that can put zeros around its sequences.

    A packed batch becomes one line, taps - 1 zeros after every sequence, which belong to it and to the next one:

        [zeros] sequence [zeros] sequence [zeros] ...

    taps: how many tokens a convolution reads at once.
    places: (tokens,) where the packed tokens stand in the line, from the first one on; None where nothing is packed.
    room: how long the line is, from there on.
    """

    taps: int = 1
    places: Tensor | None = None
    room: int = 0

    @classmethod
    def around(cls, layout: Layout, taps: int) -> "SpacedLayout":
        """The same batch, for a convolution of so many taps."""
        parts = (layout.real, layout.mask, layout.causal, layout.positions, layout.packing)
        if layout.packing is None:
            return cls(*parts, taps)
        lengths = [length for _, count, length in layout.packing.groups for _ in range(count)]
        device, tokens = layout.packing.index.device, sum(lengths)
        counts = torch.tensor(lengths, dtype=torch.long, device=device)
        sequence = torch.arange(len(lengths), device=device).repeat_interleave(counts, output_size=tokens)
        places = torch.arange(tokens, device=device) + sequence * (taps - 1)
        return cls(*parts, taps, places, tokens + len(lengths) * (taps - 1))

    def spaced(self, x: Tensor) -> Tensor:
        """With zeros around every sequence and at padding.

        (rows, length, width) -> (rows, length + taps - 1, width); packed (tokens, width) -> (1, room + taps - 1, ...).
        """
        before = (self.taps - 1) // 2
        if self.places is not None:
            return x.new_zeros(self.room + self.taps - 1, x.shape[1]).index_copy(0, self.places + before, x)[None]
        x = x if self.real is None else x.masked_fill(~self.real[:, :, None], 0.0)
        return F.pad(x, (0, 0, before, self.taps - 1 - before))

    def lined_up(self, x: Tensor) -> Tensor:
        """(rows, length, ...) as it is; packed (tokens, ...) -> (1, room, ...): beside what is read in `spaced`."""
        if self.places is None:
            return x
        return x.new_zeros(self.room, *x.shape[1:]).index_copy(0, self.places, x)[None]

    def gathered(self, y: Tensor) -> Tensor:
        """The inverse of `lined_up`."""
        return y if self.places is None else y[0].index_select(0, self.places)


def slide(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """y_i = sum over t of weights[t]_i * x_(i+t).

    Args:
        x: (rows, length + taps - 1, ...).
        weights: one a tap, broadcastable to (rows, length, ...).
    """
    length = x.shape[1] - len(weights) + 1
    y = x[:, :length] * weights[0]
    for tap, weight in enumerate(weights[1:], 1):
        y.addcmul_(x[:, tap : tap + length], weight)
    return y


class SpanConv(nn.Module):
    """Span-based dynamic convolution.

    Args:
        width: of the token states.
        heads: how many kernels a token has. dim: how wide what each of them mixes is.
        taps: how many tokens a kernel spans.
    """

    def __init__(self, width: int, heads: int, dim: int, taps: int) -> None:
        super().__init__()
        self.heads, self.dim, self.taps = heads, dim, taps
        self.depthwise = nn.Parameter(torch.empty(taps, width).normal_(std=taps**-0.5))
        self.pointwise = nn.Linear(width, heads * dim)
        self.kernel = nn.Linear(heads * dim, heads * taps)
        self.value = nn.Linear(width, heads * dim)

    def forward(self, x: Tensor, q: Tensor, layout: SpacedLayout) -> Tensor:
        """x (rows, length, width), queries q (rows, length, heads * dim), or (tokens, ...) where packed -> like q."""
        span_keys = self.pointwise(layout.gathered(slide(layout.spaced(x), self.depthwise.unbind())))
        # (..., heads * taps) -> (..., heads, taps)
        kernels = self.kernel(q * span_keys).unflatten(-1, (self.heads, self.taps)).softmax(-1)
        values = layout.spaced(self.value(x)).unflatten(-1, (self.heads, self.dim))
        return layout.gathered(slide(values, layout.lined_up(kernels)[..., None].unbind(-2))).flatten(-2)
