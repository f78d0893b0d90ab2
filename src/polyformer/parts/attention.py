"""Multi-head attention over one sequence, and from one sequence to another (Vaswani et al. 2017, section 3.2.2)."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from polyformer.parts.attend import attend, attend_packed
from polyformer.parts.layout import BiasedLayout, Layout, tracing
from polyformer.parts.linear import Linear
from polyformer.parts.state import KV, CrossKV, PreallocatedKV
from polyformer.parts.taps import Taps


class Attention(nn.Module):
    """Self-attention with query, key and value in one projection.

    Args:
        width: of the token states.
        heads: how many.
        dropout: of the attention weights.
        positions: a position scheme, called with queries and keys, whose bias is added to the scores.
        scale: of the scores; 1 / sqrt(width of a head) by default.
        dim: width of a head; width // heads by default.
        biased: whether the linear maps have biases.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        positions: nn.Module | None = None,
        scale: float | None = None,
        dim: int | None = None,
        biased: bool = True,
    ) -> None:
        super().__init__()
        self.dim, self.heads, self.pruned = dim or width // heads, list(range(heads)), False
        self.scale = self.dim**-0.5 if scale is None else scale
        inner = heads * self.dim
        self.qkv: nn.Linear = Linear(width, 3 * inner, biased)
        self.out: nn.Linear = Linear(inner, width, biased)
        self.dropout = nn.Dropout(dropout)
        self.positions = positions

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        memory: KV | PreallocatedKV | None = None,
        head_mask: Tensor | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """x (rows, length, width), or (tokens, width) where the layout is packed -> the same shape."""
        # (..., 3 * heads * dim) -> (..., 3, heads, dim)
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, self.dim)).unbind(-3)
        if layout.packing is not None:
            if memory is not None:  # empty until now; the next tokens come unpacked, so these are kept so
                memory.append(layout.unpack(k).transpose(1, 2), layout.unpack(v).transpose(1, 2))
            y = attend_packed(
                q, k, v, layout.packing, bias=self.bias(layout), causal=layout.causal, scale=self.scale,
                dropout=self.dropout,
            )  # fmt: skip
            return self.out(y.flatten(-2))
        # (rows, length, heads, dim) -> (rows, heads, length, dim)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if memory is not None:
            k, v = memory.append(k, v)
        y, weights = attend(
            q, k, v, bias=self.bias(layout), mask=layout.mask, causal=layout.causal, scale=self.scale,
            dropout=self.dropout, head_mask=head_mask, weights=taps is not None and taps.attentions is not None,
        )  # fmt: skip
        if taps is not None:
            taps.saw(weights)
        return self.out(y.transpose(1, 2).flatten(2))

    def bias(self, layout: Layout) -> Callable[[Tensor, Tensor], Tensor] | None:
        """What is added to the scores: by the layer's own position scheme, or what all layers share."""
        if not isinstance(layout, BiasedLayout) or layout.bias is None:
            return self.positions
        shared = layout.bias[:, self.heads] if self.pruned else layout.bias
        return lambda q, k: shared[:, :, : q.shape[2], : k.shape[2]]  # of a packed text as of the longest one

    def prune(self, heads: Iterable[int]) -> None:
        """Remove these heads for good; numbers are those of the unpruned layer, and stay so."""
        inner = self.out.in_features
        self.heads, kept = kept_heads(self.heads, heads, self.dim)
        self.pruned = True
        self.qkv = keep_rows(self.qkv, torch.cat([kept, kept + inner, kept + 2 * inner]))
        self.out = keep_columns(self.out, kept)


class CrossAttention(nn.Module):
    """Attention from a decoder's tokens to an encoder's states, which are projected once and kept in the state."""

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        source_width: int | None = None,
        scale: float | None = None,
        dim: int | None = None,
        biased: bool = True,
    ) -> None:
        super().__init__()
        self.dim, self.heads = dim or width // heads, list(range(heads))
        self.scale = self.dim**-0.5 if scale is None else scale
        inner = heads * self.dim
        self.q: nn.Linear = Linear(width, inner, biased)
        self.kv: nn.Linear = Linear(source_width or width, 2 * inner, biased)
        self.out: nn.Linear = Linear(inner, width, biased)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        source: Tensor,
        layout: Layout,
        memory: CrossKV | None = None,
        head_mask: Tensor | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """x (rows, length, width), source (rows, source length, source width), layout of the source -> as x."""
        memory = CrossKV() if memory is None else memory
        keys, values = memory.shared
        if keys is None or values is None:
            k, v = self.kv(source).unflatten(-1, (2, -1, self.dim)).unbind(-3)
            keys, values = memory.shared = k.transpose(1, 2), v.transpose(1, 2)
        # (rows, length, width) -> (sources, heads, copies * length, dim): rows that share a source read it as one
        rows, length, copies = x.shape[0], x.shape[1], memory.copies
        q = self.q(x).view(rows // copies, copies * length, -1, self.dim).transpose(1, 2)
        mask = None if layout.mask is None else layout.mask[::copies]  # one of a single row stays
        y, weights = attend(
            q, keys, values, mask=mask, scale=self.scale, dropout=self.dropout,
            head_mask=head_mask, weights=taps is not None and taps.attentions is not None,
        )  # fmt: skip
        if taps is not None:
            if weights is not None:  # (sources, heads, copies * length, keys) -> (rows, heads, length, keys)
                weights = weights.unflatten(2, (copies, length)).transpose(1, 2).flatten(0, 1)
            taps.saw_across(weights)
        return self.out(y.transpose(1, 2).reshape(rows, length, -1))

    def prune(self, heads: Iterable[int]) -> None:
        """Remove these heads for good; numbers are those of the unpruned layer, and stay so."""
        inner = self.out.in_features
        self.heads, kept = kept_heads(self.heads, heads, self.dim)
        self.q = keep_rows(self.q, kept)
        self.kv = keep_rows(self.kv, torch.cat([kept, kept + inner]))
        self.out = keep_columns(self.out, kept)


def per_layer(head_mask: Tensor | None, heads: Sequence[int]) -> list[Tensor | None]:
    """(heads,) or (layers, heads) -> one (1, heads, 1, 1) a layer, to multiply attention weights with.

    heads: how many each layer has.
    """
    layers = len(heads)
    if head_mask is None:
        return [None] * layers
    wanted = (heads[0],) if head_mask.dim() == 1 else (layers, heads[0])
    if not tracing() and head_mask.dim() < 3 and (len({*heads}) > 1 or tuple(head_mask.shape) != wanted):
        raise ValueError(
            f"head_mask has shape {tuple(head_mask.shape)}, but the {layers} layers have {', '.join(map(str, heads))} "
            f"heads: give one number a head, (heads,) or (layers, heads), which wants as many heads in every layer."
        )
    rows = head_mask.expand(layers, -1) if head_mask.dim() == 1 else head_mask
    return [row.view(1, -1, 1, 1) if row.dim() == 1 else row for row in rows]


def kept_heads(present: list[int], gone: Iterable[int], dim: int) -> tuple[list[int], Tensor]:
    """Heads that stay, and the units of theirs among those of the present heads."""
    gone = set(gone)
    kept = [h for h in present if h not in gone]
    if not kept:
        raise ValueError("pruning all heads of a layer leaves no attention: keep at least one.")
    units = torch.arange(len(present) * dim).view(len(present), dim)
    return kept, units[[present.index(h) for h in kept]].flatten()


def keep_rows(linear: nn.Linear, kept: Tensor) -> nn.Linear:
    kept = kept.to(linear.weight.device)
    return _linear(type(linear), linear.weight.data[kept], None if linear.bias is None else linear.bias.data[kept])


def keep_columns(linear: nn.Linear, kept: Tensor) -> nn.Linear:
    kept = kept.to(linear.weight.device)
    return _linear(type(linear), linear.weight.data[:, kept], None if linear.bias is None else linear.bias.data)


def _linear(kind: type[nn.Linear], weight: Tensor, bias: Tensor | None) -> nn.Linear:
    smaller = nn.utils.skip_init(kind, weight.shape[1], weight.shape[0], bias is not None, device=weight.device)
    smaller.weight = nn.Parameter(weight.clone())
    smaller.bias = None if bias is None else nn.Parameter(bias.clone())
    return smaller
