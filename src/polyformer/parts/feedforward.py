"""The position-wise feed-forward network (Vaswani et al. 2017, section 3.3), and activation functions by name."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.parts.int8 import Int8Linear
from polyformer.parts.layout import tracing
from polyformer.parts.linear import Linear

Activation = Callable[[Tensor], Tensor]


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    return F.gelu(x, approximate="tanh")


def gelu_fast(x: Tensor) -> Tensor:
    """The same with the constant sqrt(2 / pi) cut to 0.7978845608, as in the checkpoints that name it."""
    return 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def gelu_10(x: Tensor) -> Tensor:
    """GELU kept within [-10, 10], for 8-bit use."""
    return F.gelu(x).clamp(-10, 10)


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


def gelu_accurate(x: Tensor) -> Tensor:
    """The tanh approximation with its constant in full."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def linear(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_fast": gelu_fast,
    "gelu_accurate": gelu_accurate,
    "gelu_10": gelu_10,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "swish": F.silu,
    "mish": F.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "linear": linear,
}


# The same, writing over their argument.
IN_PLACE: dict[Activation, Activation] = {
    F.gelu: torch.ops.aten.gelu_,
    gelu_tanh: partial(torch.ops.aten.gelu_, approximate="tanh"),
    F.relu: partial(F.relu, inplace=True),
    F.silu: partial(F.silu, inplace=True),
}


def activation(name: str | Activation) -> Activation:
    """The function of this name in config.json; a function is passed through."""
    if callable(name):
        return name
    if name not in ACTIVATIONS:
        raise ValueError(f"no activation function is called {name!r}; there are {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


class Dropped(nn.Module):
    """An activation function and dropout after it."""

    def __init__(self, act: Activation, dropout: float) -> None:
        super().__init__()
        self.act = act
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.act(x))


class FeedForward(nn.Module):
    """width -> inner -> width, token by token.

    The inner states are the largest array of a layer. Where nobody else can see them (no gradient, no hook, no graph),
    the activation writes over them: half the memory, and fewer fresh pages from the system, which cost more than it.

    biased: whether the linear maps have biases.
    """

    def __init__(self, width: int, inner: int, act: Activation, biased: bool = True) -> None:
        super().__init__()
        self.up: nn.Linear = Linear(width, inner, biased)
        self.down: nn.Linear = Linear(inner, width, biased)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        inner = self.up(x)
        act = in_place(self.act) if unseen(self.up) else self.act
        return self.down(act(inner))


def unseen(up: nn.Module) -> bool:
    """Whether nobody but the caller can see what this map has just given."""
    own = type(up) in (Linear, Int8Linear)
    return own and not (torch.is_grad_enabled() or tracing() or up._forward_hooks)


def in_place(act: Activation) -> Activation:
    """The same function writing over its argument, if there is one."""
    if isinstance(act, Dropped) and not act.drop.training:
        act = act.act
    return IN_PLACE.get(act, act)


class GatedFeedForward(nn.Module):
    """width -> inner -> width, where half of the inner states, activated, are factors of the other half.

    Shazeer 2020, arXiv 2002.05202: GEGLU where the activation is GELU.

    Args:
        dropout: of the products.
    """

    def __init__(self, width: int, inner: int, act: Activation, dropout: float) -> None:
        super().__init__()
        self.gate_up: nn.Linear = Linear(width, 2 * inner, bias=False)
        self.down: nn.Linear = Linear(inner, width, bias=False)
        self.act = act
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        gate, inner = self.gate_up(x).chunk(2, -1)
        if unseen(self.gate_up) and not self.drop.training:
            return self.down(in_place(self.act)(gate).mul_(inner))
        return self.down(self.drop(self.act(gate) * inner))


class ChunkedFeedForward(FeedForward):
    """The same, `chunk` tokens at a time, so that the inner states of a long text never exist all at once.

    Any length will do (Kitaev et al. 2020, arXiv 2001.04451, section 3). A recorded graph, whose length is open, has
    one chunk.
    """

    def __init__(self, width: int, inner: int, act: Activation, chunk: int) -> None:
        super().__init__(width, inner, act)
        self.chunk = chunk

    def forward(self, x: Tensor) -> Tensor:
        if tracing():
            return super().forward(x)
        return torch.cat([super(ChunkedFeedForward, self).forward(part) for part in x.split(self.chunk, -2)], -2)


def feed_forward(width: int, inner: int, act: Activation, chunk: int = 0) -> FeedForward:
    """In chunks of so many tokens, or whole where that is 0 (config.chunk_size_feed_forward)."""
    return ChunkedFeedForward(width, inner, act, chunk) if chunk else FeedForward(width, inner, act)
