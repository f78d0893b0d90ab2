"""Positions as coordinates in a grid, each with a vector of its own: few vectors for long texts.

Kitaev et al. 2020, arXiv 2001.04451, section 5 ("axial positional embeddings", after Ho et al. 2019, arXiv 1912.12180).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class GridPositions(nn.Module):
    """The vector of position p: those of its row, column, ... in a grid filled row by row, side by side.

    Args:
        shape: of the grid; positions are below its product.
        widths: of the vectors of each axis; their sum is that of what comes out.

    `axes` has a tensor for each axis, of the grid's shape with 1 for the other axes, and its width: (rows, 1, width)
    and (1, columns, width).
    """

    def __init__(self, shape: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        ones = [1] * len(self.shape)
        self.axes = nn.ParameterList(
            torch.empty(*ones[:i], count, *ones[i + 1 :], width)
            for i, (count, width) in enumerate(zip(self.shape, widths, strict=True))
        )
        for axis in self.axes:
            nn.init.normal_(axis)

    def forward(self, positions: Tensor) -> Tensor:
        """(...) int64 -> (..., width)."""
        found = []
        for i, axis in enumerate(self.axes):
            digit = positions // math.prod(self.shape[i + 1 :]) % self.shape[i]
            found.append(nn.functional.embedding(digit, axis.flatten(0, -2)))
        return torch.cat(found, -1)
