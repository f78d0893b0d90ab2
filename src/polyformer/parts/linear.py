"""The linear map of the large layers, and the one place where its kernel is chosen."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.parts.layout import tracing

FEW, MANY = 4, 64  # rows
LARGE = 2**20  # weights


class Linear(nn.Linear):
    """x W' + b, as torch's own, by another kernel where a few rows meet a large matrix on a CPU.

    That is what writing several texts at once comes down to, and a short query. Torch then calls a BLAS that arranges
    the matrix anew each time; oneDNN's inner product reads it as it lies, once: 1.1 to 1.6 times as fast with 4 to 64
    rows, slower with less (measured with AVX-512, so it is used there alone).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        w = self.weight
        if (
            not tracing()
            and w.numel() >= LARGE
            and FEW <= x.numel() // w.shape[1] <= MANY
            and _inner_product_fits(x, w)
        ):
            return torch.ops.mkldnn._linear_pointwise.default(x, w, self.bias, "none", [], "")
        return F.linear(x, w, self.bias)


def _inner_product_fits(x: Tensor, w: Tensor) -> bool:
    """Whether these are what the kernel was measured with: plain float32 arrays, and nothing asks for gradients."""
    return (
        x.dtype == w.dtype == torch.float32
        and x.device.type == w.device.type == "cpu"
        and w.is_contiguous()
        and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )
