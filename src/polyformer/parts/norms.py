"""Norms that torch has no module for."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.parts.layout import tracing


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
        exact = x.dtype in (torch.float32, torch.float64)
        if torch.is_grad_enabled() or tracing() or not exact or x.device.type != "cpu":
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        # torch has no kernel of its own for it on CPUs: thrice the passes over memory, ten times as slow on long texts
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(self.eps).rsqrt_()
        return (x * scale).mul_(self.weight)
