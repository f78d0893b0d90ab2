"""Residual layers that can be run backwards, so that training keeps nothing of them but what the last one gives.

Gomez, Ren, Urtasun and Grosse 2017, arXiv 1707.04585; Kitaev et al. 2020, arXiv 2001.04451, section 3. Of two streams

    y1 = x1 + f(x2)            x2 = y2 - g(y1)
    y2 = x2 + g(y1)            x1 = y1 - f(x2)

the left computes, and the right finds again what went in. The backward pass goes from the last layer to the first,
runs f and g once more, and has the gradients that it would have had; dropout drops the same numbers again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Branch = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Couple:
    """One layer: its two branches, which must give the same for the same random state, and the weights of each."""

    f: Branch
    g: Branch
    f_weights: Sequence[Tensor]
    g_weights: Sequence[Tensor]


def run_reversibly(couples: Sequence[Couple], x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
    """Through all layers; what autograd keeps of them is the last one's two streams.

    Tensors that f and g use beside their argument and their weights get no gradient.
    """
    weights = [w for couple in couples for w in (*couple.f_weights, *couple.g_weights)]
    y1, y2 = Reversible.apply(couples, x1, x2, *weights)
    return y1, y2


class Chance:
    """The random state, and the precision, in which a branch was run."""

    def __init__(self, device: torch.device) -> None:
        self.kind, self.device = device.type, device
        self.cpu = torch.get_rng_state()
        self.own = torch.cuda.get_rng_state(device) if self.kind == "cuda" else None
        self.cast = torch.is_autocast_enabled(self.kind), torch.get_autocast_dtype(self.kind)

    @contextmanager
    def again(self) -> Iterator[None]:
        """The same once more; afterwards all is as it was before."""
        on, dtype = self.cast
        devices = [self.device] if self.own is not None else []
        with torch.random.fork_rng(devices), torch.autocast(self.kind, dtype, enabled=on):
            torch.set_rng_state(self.cpu)
            if self.own is not None:
                torch.cuda.set_rng_state(self.own, self.device)
            yield


class Reversible(torch.autograd.Function):
    """`run_reversibly` for autograd."""

    @staticmethod
    def forward(ctx: Any, couples: Sequence[Couple], x1: Tensor, x2: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        ctx.couples, ctx.chances = couples, []
        y1, y2 = x1, x2
        for couple in couples:
            chances = [Chance(x1.device)]
            y1 = y1 + couple.f(y2)
            chances.append(Chance(x1.device))
            y2 = y2 + couple.g(y1)
            ctx.chances.append(chances)
        ctx.save_for_backward(y1, y2)
        return y1, y2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad1: Tensor, grad2: Tensor) -> tuple[Any, ...]:
        y1, y2 = ctx.saved_tensors
        found: list[list[Tensor | None]] = []
        for couple, (f_chance, g_chance) in zip(reversed(ctx.couples), reversed(ctx.chances), strict=True):
            value, grad, of_g = _once_more(couple.g, y1, grad2, couple.g_weights, g_chance)
            y2, grad1 = y2 - value, grad1 + grad
            value, grad, of_f = _once_more(couple.f, y2, grad1, couple.f_weights, f_chance)
            y1, grad2 = y1 - value, grad2 + grad
            found.append([*of_f, *of_g])
        weights = [grad for of_couple in reversed(found) for grad in of_couple]
        return None, grad1, grad2, *weights


def _once_more(
    branch: Branch, x: Tensor, signal: Tensor, weights: Sequence[Tensor], chance: Chance
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """The branch's value at x, and the gradients of x and of its weights where its value has the gradient `signal`."""
    with torch.enable_grad(), chance.again():
        x = x.detach().requires_grad_()
        value = branch(x)
    learns = [w for w in weights if w.requires_grad]
    grad, *grads = torch.autograd.grad(value, [x, *learns], signal, allow_unused=True)
    each = iter(grads)
    return value.detach(), grad, [next(each) if w.requires_grad else None for w in weights]
