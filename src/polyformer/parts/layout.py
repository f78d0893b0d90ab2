"""Where the tokens of a batch lie: padding, packing, causality and positions, worked out once per forward pass."""

from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor


def tracing() -> bool:
    """Whether a graph is being recorded, so that nothing may depend on the values of a tensor."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


@dataclass(frozen=True)
class Packing:
    """The real tokens of a padded (rows, length) batch, one after another, sequences of a length side by side.

    index: (tokens,) places of the tokens in the flattened batch.
    groups: (first token, sequences, length) for every length that occurs.
    shape: (rows, length) of the padded batch.
    """

    index: Tensor
    groups: list[tuple[int, int, int]]
    shape: tuple[int, int]

    @classmethod
    def of(cls, real: Tensor) -> "Packing":
        """Pack a (rows, length) bool mask whose rows have no holes."""
        lengths, order = real.sum(1).sort(stable=True)
        row, column = real[order].nonzero(as_tuple=True)
        sizes, counts = lengths.unique_consecutive(return_counts=True)
        groups, start = [], 0
        for length, count in zip(sizes.tolist(), counts.tolist(), strict=True):
            if length:
                groups.append((start, count, length))
            start += count * length
        return cls(order[row] * real.shape[1] + column, groups, (real.shape[0], real.shape[1]))


@dataclass(frozen=True)
class Layout:
    """What a layer must know of the batch besides the numbers.

    real: (rows, length) bool, the tokens that are no padding; None = all.
    mask: bool, broadcastable to (rows, heads, queries, keys), True = may attend; None = no limit but `causal`.
    causal: a token sees itself and earlier ones only, and no mask says so.
    positions: (1 or rows, length), or (tokens,) where packed; counted from the first real token of a row.
    packing: set where layers run on real tokens only.
    """

    real: Tensor | None
    mask: Tensor | None
    causal: bool
    positions: Tensor
    packing: Packing | None = None

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        attention_mask: Tensor | None,
        device: torch.device,
        *,
        causal: bool = False,
        past: int = 0,
        packable: bool = True,
    ) -> "Layout":
        """Lay out a batch of `shape` (rows, length), `past` cached tokens before it.

        Args:
            attention_mask: (rows, past + length), 0 = padding; or (rows, queries, keys) or (rows, heads or 1, queries,
                keys), 0 = may not attend: it alone says who sees whom, causality included, and pads nothing.
            packable: whether the layers may run on real tokens only. They do where there is padding, no cache, and no
                graph is being recorded; a row with a hole in its mask keeps the batch padded.
        """
        rows, length = shape
        total = past + length
        positions = torch.arange(past, total, device=device)[None]
        if attention_mask is not None and attention_mask.dim() > 2:
            mask = attention_mask.bool()
            mask = mask[:, None] if mask.dim() == 3 else mask
            _check_mask(mask, rows, length, total)
            return cls(None, mask, False, positions)
        if attention_mask is not None:
            _check_mask(attention_mask, rows, total)
            seen = attention_mask.bool()
            if tracing() or not bool(seen.all()):
                return cls._padded(seen, length, causal, packable and not past)
        if causal and past and length == 1:  # the newest token sees all the others
            return cls(None, None, False, positions)
        if causal and past:  # the kernel's own causal mask is for as many queries as keys
            return cls(None, _causal(None, length, total, device), False, positions)
        return cls(None, None, causal, positions)

    @classmethod
    def _padded(cls, seen: Tensor, length: int, causal: bool, packable: bool) -> "Layout":
        total = seen.shape[1]
        so_far = seen.cumsum(1)
        leading = (so_far == 0).sum(1, keepdim=True)
        positions = (torch.arange(total, device=seen.device) - leading).clamp(min=0)[:, -length:]
        real = seen[:, -length:]
        if packable and not tracing():
            counted = so_far[:, -1:]
            # no holes: as many real tokens as lie between the first and the last of them
            if bool(((so_far == counted).sum(1, keepdim=True) == total - leading - counted + 1)[counted > 0].all()):
                packing = Packing.of(real)
                return cls(real, None, causal, positions.flatten()[packing.index], packing)
        mask = seen[:, None, None]
        return cls(real, _causal(mask, length, total) if causal else mask, False, positions)

    @classmethod
    def across(cls, attention_mask: Tensor | None, positions: Tensor) -> "Layout":
        """How a decoder sees an encoder whose padding `attention_mask` (rows, length) or (rows, 1, length) tells."""
        if attention_mask is None:
            return cls(None, None, False, positions)
        seen = attention_mask.bool()
        return cls(None, seen[:, None, None] if seen.dim() == 2 else seen[:, None], False, positions)

    @overload
    def pack(self, x: Tensor) -> Tensor: ...
    @overload
    def pack(self, x: None) -> None: ...
    def pack(self, x: Tensor | None) -> Tensor | None:
        """(rows or 1, length, ...) -> (tokens, ...) where packed, else as it is."""
        if self.packing is None or x is None:
            return x
        rows, length = self.packing.shape
        return x.expand(rows, *x.shape[1:]).reshape(rows * length, *x.shape[2:])[self.packing.index]

    def unpack(self, x: Tensor) -> Tensor:
        """(tokens, ...) -> (rows, length, ...), zeros at padding, where packed, else as it is."""
        if self.packing is None:
            return x
        rows, length = self.packing.shape
        flat = x.new_zeros(rows * length, *x.shape[1:]).index_copy(0, self.packing.index, x)
        return flat.unflatten(0, (rows, length))


@dataclass(frozen=True)
class BiasedLayout(Layout):
    """The same for a stack whose layers add one bias to their scores (T5).

    bias: (1, heads, queries, keys), of the longest sequence where packed.
    """

    bias: Tensor | None = None

    @classmethod
    def by(cls, layout: Layout, bias: Tensor) -> "BiasedLayout":
        """A layout with this bias."""
        return cls(layout.real, layout.mask, layout.causal, layout.positions, layout.packing, bias)


def seen_tokens(
    ids: Tensor | None, vectors: Tensor | None, lengths: Tensor | None, pad: int, past: int = 0
) -> Tensor | None:
    """The mask of a batch that came without one, where padding is told by its id or by lengths.

    Args:
        ids: (..., length) int64, or vectors (..., length, width) in their place, which are all real.
        lengths: (...) int64, of texts padded on the right, cached tokens included; they count where they are given.
        pad: the id of padding.
        past: how many tokens before these are cached; then all are real that lengths do not leave out.

    Returns:
        (..., past + length) bool, or None where all tokens are real.
    """
    if lengths is not None:
        given = ids if ids is not None else vectors
        assert given is not None
        length = given.shape[-1] if ids is not None else given.shape[-2]
        seen = torch.arange(past + length, device=lengths.device) < lengths[..., None]
    elif ids is None or past:
        return None
    else:
        seen = ids != pad
    return None if not tracing() and bool(seen.all()) else seen


def _causal(mask: Tensor | None, queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    place = mask.device if mask is not None else device
    earlier = torch.ones(queries, keys, dtype=torch.bool, device=place).tril(keys - queries)[None, None]
    return earlier if mask is None else mask & earlier


def _check_mask(mask: Tensor, rows: int, *sizes: int) -> None:
    if tracing():
        return
    wanted = (rows, *sizes)
    given = (mask.shape[0], *mask.shape[-len(sizes) :])
    if any(g != w and not (g == 1 and i < len(sizes)) for i, (g, w) in enumerate(zip(given, wanted, strict=True))):
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}, but {wanted} was expected: one row a sequence, one entry a "
            f"token, cached tokens included."
        )
