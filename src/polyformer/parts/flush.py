"""Rows of a padded batch moved until all begin in the first column.

Where attention goes by distance and a memory lies before the batch, padding on the left would put every row at another
distance from its memory. Moved to the left, padding is behind a row's tokens and in nobody's way.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from polyformer.parts.layout import tracing


@dataclass(frozen=True)
class Flush:
    """How far each row moves.

    lead: (rows,) padding before a row's first real token; None = no row has to move.
    real: (rows, length) bool, the tokens that are no padding, once moved; None = all.
    """

    lead: Tensor | None
    real: Tensor | None

    @classmethod
    def of(cls, attention_mask: Tensor | None, rows: int, length: int) -> "Flush":
        """Of a mask, (rows, length) or longer by what came before: the last `length` columns count; 0 = padding."""
        if attention_mask is None:
            return cls(None, None)
        shape = tuple(attention_mask.shape)
        if not tracing() and (len(shape) != 2 or shape[0] != rows or shape[1] < length):
            raise ValueError(
                f"attention_mask has shape {shape}, but {(rows, length)} was expected: one row a sequence, one entry a "
                f"token; earlier tokens may come before."
            )
        real = attention_mask[:, -length:].bool()
        if not tracing() and bool(real.all()):
            return cls(None, None)
        lead = (real.cumsum(1) == 0).sum(1)
        if not tracing() and not bool((lead * real.any(1)).any()):
            return cls(None, real)
        return cls(lead, cls(lead, None).left(real))

    def left(self, x: Tensor, axis: int = 1) -> Tensor:
        """(rows, ..., length, ...) -> the same with every row's first real token in the first column of `axis`."""
        return self._moved(x, axis, 1)

    def back(self, x: Tensor, axis: int = 1) -> Tensor:
        """The way back."""
        return self._moved(x, axis, -1)

    def _moved(self, x: Tensor, axis: int, sign: int) -> Tensor:
        if self.lead is None:
            return x
        length = x.shape[axis]
        at = (torch.arange(length, device=x.device) + sign * self.lead[:, None]) % length
        # (rows, length) -> (rows, 1, ..., length, ..., 1)
        at = at.view(at.shape[0], *(length if i == axis else 1 for i in range(1, x.dim())))
        return x.gather(axis, at.expand(x.shape))
