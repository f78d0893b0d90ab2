"""A linear map with weights of eight bits: a quarter of the memory to read, which is what a step of writing costs."""

from functools import cache

import torch
from torch import Tensor, nn

from polyformer.parts.linear import check_fixed

STEPS = 127  # to each side of zero
FEWER_STEPS = 63  # where sums of two products saturate at 16 bits: 2 * 127 * 127 < 2 ** 15


class Int8Linear(nn.Module):
    """x W' + b in whole numbers: an int8 scale for every row of W, and for every row of x as it comes.

    Both are symmetric, round(value / scale) with the largest of a row at 127; products are summed in int32 and scaled
    in float32. No row of x has a say in another's scale, so an answer does not hang on what else is in the batch. The
    weights are packed for oneDNN: they have no gradient and are not for saving. On a CPU without instructions for such
    products (VNNI) the largest of a row of x is at 63.
    """

    scales: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        """From a float32 map on the CPU, whose own weights are let go with it."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        numbers, scales = eight_bits(linear.weight.detach())
        self.packed = torch.ops.onednn.qlinear_prepack(numbers, None)
        self.register_buffer("scales", scales[:, 0])
        self.register_buffer("zeros", torch.zeros(self.out_features, dtype=torch.int32))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features), float32."""
        check_fixed(self, x)
        steps = FEWER_STEPS if saturates() else STEPS
        scales = scales_of(x, steps)
        numbers = (x / scales).round_().add_(steps + 1).to(torch.uint8)  # from zero on: that is what has fast kernels
        y = torch.ops.onednn.qlinear_pointwise.default(
            numbers, 1.0, steps + 1, self.packed, self.scales, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        y.mul_(scales)
        return y if self.bias is None else y.add_(self.bias)

    @property
    def weight(self) -> Tensor:
        raise TypeError("the weights of an Int8Linear are packed: change or copy those of the float model it was.")

    def _save_to_state_dict(self, *args: object) -> None:
        raise TypeError("a model of Int8Linear cannot be saved: save the float model, and call quantize after loading.")

    def __getstate__(self) -> dict[str, object]:
        raise TypeError("an Int8Linear can be neither copied nor pickled: copy the float model, and quantize the copy.")

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def eight_bits(x: Tensor) -> tuple[Tensor, Tensor]:
    """(..., width) -> int8 of that shape and float32 scales (..., 1); their product is x to half a scale."""
    scales = scales_of(x, STEPS)
    return (x / scales).round_().to(torch.int8), scales


def scales_of(x: Tensor, steps: int) -> Tensor:
    """(..., width) -> (..., 1): what a step stands for where the largest number of a row is so many."""
    return x.abs().amax(-1, keepdim=True).div_(steps).clamp_(min=torch.finfo(torch.float32).tiny)


@cache
def saturates() -> bool:
    """Whether this CPU adds two products in 16 bits: found by trying, on numbers that are too large for that."""
    large = torch.full((1, 64), 255, dtype=torch.uint8)
    packed = torch.ops.onednn.qlinear_prepack(torch.full((64, 64), STEPS, dtype=torch.int8), None)
    found = torch.ops.onednn.qlinear_pointwise.default(
        large,
        1.0,
        0,
        packed,
        torch.ones(64),
        torch.zeros(64, dtype=torch.int32),
        None,
        1.0,
        0,
        torch.float32,
        "none",
        [],
        "",
    )
    return bool((found != 64 * 255 * STEPS).any())
