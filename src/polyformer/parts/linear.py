"""The linear map of the large layers, and the one place where its kernel is chosen."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.parts.layout import tracing

FEW, MANY = 4, 64  # rows
LARGE = 2**20  # weights
PACKED_FOR = 8  # rows; what is best for them is within a few percent of the best for 1 to 512


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


class PackedLinear(nn.Module):
    """The same map with its matrix in the order in which oneDNN's inner product reads it, and in no other.

    Torch's maps have it ordered so, or so that BLAS likes it, again at every call. It has no gradient; its place in a
    state dict has the matrix as it was.
    """

    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        """From a float32 map on the CPU, whose own matrix is let go with it."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), PACKED_FOR)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features), float32."""
        check_fixed(self, x)
        return torch.ops.mkldnn._linear_pointwise.default(x, self.packed, self.bias, "none", [], "")

    @property
    def weight(self) -> Tensor:
        """A copy of the matrix, (out_features, in_features)."""
        return self.packed.to_dense()

    def __getstate__(self) -> dict[str, Any]:  # the packed order cannot be copied or pickled
        return super().__getstate__() | {"packed": self.weight}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(state["packed"], PACKED_FOR)

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.weight
        if self.bias is not None:
            destination[f"{prefix}bias"] = self.bias

    def _load_from_state_dict(self, *args: object) -> None:
        raise TypeError("the weights of a PackedLinear are fixed: load them before the model is packed.")

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def check_fixed(module: nn.Module, x: Tensor) -> None:
    """TypeError where the weights of this module, which have one type and no gradient, would give wrong answers."""
    if x.dtype != torch.float32:
        raise TypeError(f"{type(module).__name__} computes in float32 alone, not {x.dtype}: leave the model as it is.")
    if x.requires_grad and torch.is_grad_enabled():
        raise TypeError(f"no gradient goes through {type(module).__name__}: train the model before it is packed.")


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
