"""Norms that torch has no module for."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Scales to a mean square of one, without mean and bias (Zhang and Sennrich 2019, arXiv 1910.07467).

    Sums are of single precision at least.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same shape."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
