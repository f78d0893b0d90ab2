"""What a model with long memory remembers: what each of its layers read of the segments before this one.

Dai et al. 2019, "Transformer-XL", arXiv 1901.02860, section 3.2. States are remembered as they are, without gradient;
keys and values are made of them again. A forward pass leaves the memory it is given as it was and gives a new one back.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from polyformer.parts.layout import tracing


class Memory(tuple[Tensor, ...]):
    """States of earlier tokens, the newest last, so that they end where the next segment begins.

    It is the `mems` of Transformers 4: a (length, rows, width) tensor a layer, and beside them
    real: (rows, length) bool, where there is something; None = everywhere. Rows of unlike length end together.
    """

    real: Tensor | None

    def __new__(cls, layers: Iterable[Tensor], real: Tensor | None = None) -> Self:
        """layers: what each layer read, (rows, length, width)."""
        made = super().__new__(cls, [t.transpose(0, 1) for t in layers])
        made.real = real
        return made

    @property
    def layers(self) -> list[Tensor]:
        """What each layer read, (rows, length, width)."""
        return [t.transpose(0, 1) for t in self]

    @classmethod
    def blank(cls, layers: int, rows: int, length: int, width: int, like: Tensor) -> "Memory":
        """`length` zero vectors, seen like any other; 0 = nothing yet. Type and device are those of `like`."""
        return cls([like.new_zeros(rows, length, width) for _ in range(layers)])

    @classmethod
    def of(cls, mems: "Mems") -> "Memory":
        """A memory to continue from; old-style lists of (length, rows, width) tensors are understood too.

        Raises:
            TypeError: something else.
            ValueError: layers of different lengths or rows.
        """
        if isinstance(mems, Memory):
            return mems
        if isinstance(mems, Tensor | Mapping) or not all(isinstance(t, Tensor) and t.dim() == 3 for t in mems):
            raise TypeError("mems are one (length, rows, width) tensor a layer: give back what the last call gave you.")
        if len({t.shape for t in mems}) > 1:
            raise ValueError(
                f"mems differ in shape: {', '.join(str(tuple(t.shape)) for t in mems)}; they are of one text."
            )
        return cls([t.transpose(0, 1) for t in mems])

    @property
    def length(self) -> int:
        """Tokens remembered, of the row that has most."""
        return self[0].shape[0]

    def append(self, states: Sequence[Tensor], limit: int | None = None, real: Tensor | None = None) -> Self:
        """The memory after another segment.

        Args:
            states: what each layer read of it, (rows, new, width), from its first real token on.
            limit: how many tokens are remembered; None = all.
            real: (rows, new) bool, the tokens that are no padding; None = all. Padding after a row's last token is
                forgotten, one between its tokens keeps its place and stays unseen.
        """
        joined = [torch.cat([old, s], 1) for old, s in zip(self.layers, states, strict=True)]
        return self.followed(joined, states[0].shape[1], limit, real)

    def followed(
        self, joined: Sequence[Tensor], new: int, limit: int | None = None, real: Tensor | None = None
    ) -> Self:
        """The same where memory and segment are joined already, as layers that attend to both have them.

        joined: (rows, length + new, width) a layer.
        """
        last = slice(None) if limit is None else slice(-limit, None) if limit else slice(0)
        if real is None:
            seen = None
            if self.real is not None:
                seen = torch.cat([self.real, self.real.new_ones(self.real.shape[0], new)], 1)[:, last]
            return type(self)([t.detach()[:, last] for t in joined], seen)
        before = real.new_ones(real.shape[0], self.length) if self.real is None else self.real
        kept = joined[0][:, last].shape[1]
        ends = self.length + (real * torch.arange(1, new + 1, device=real.device)).amax(1)
        places = ends[:, None] - kept + torch.arange(kept, device=real.device)  # (rows, kept); below 0 there is nothing
        at = places.clamp(min=0)
        seen = torch.cat([before, real], 1).gather(1, at) & (places >= 0)
        layers = [t.detach().gather(1, at[:, :, None].expand(-1, -1, t.shape[2])) for t in joined]
        return type(self)(layers, None if not tracing() and bool(seen.all()) else seen)

    def reorder(self, rows: Tensor) -> Self:
        """The memory whose row i is row rows[i] of this one; rows (new rows,) int64."""
        real = None if self.real is None else self.real.index_select(0, rows)
        return type(self)([t.index_select(0, rows) for t in self.layers], real)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.layers, self.real)


Mems = Memory | Sequence[Tensor]

torch.utils._pytree.register_pytree_node(
    Memory,
    lambda m: ([m.layers, m.real], None),
    lambda values, _: Memory(*values),
    serialized_type_name="polyformer.Memory",
    to_dumpable_context=lambda c: c,
    from_dumpable_context=lambda c: c,
)
