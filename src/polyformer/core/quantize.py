"""Weights made smaller, or laid out anew, for answering faster on a CPU. Each says that it changes the model."""

import mmap
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import torch
from torch import Tensor, nn

from polyformer.parts.int8 import Int8Linear
from polyformer.parts.linear import Linear, PackedLinear

Model = TypeVar("Model", bound=nn.Module)
LARGE = 2**21  # bytes of a page


def quantize(model: Model) -> Model:
    """Replace the linear maps, the one to words too, by ones of int8 weights and activations; in place, for good.

    Embedding tables, of which a text reads some rows only, norms and position tables stay as they are: a table that was
    tied to the map to words is kept in float32 for itself. So do the few maps that are folded into other matrices
    (`reads_weights` of a module names them). See `polyformer.parts.int8` for how numbers are rounded. The
    model answers a little differently (benchmarks/generate.py says by how much in perplexity), faster, and can neither
    be trained nor saved; quantizing anew after loading takes about as long as loading.

    Returns:
        the same model, in eval mode.

    Raises:
        ValueError: weights that are not float32 on a CPU, or no linear map left to replace.
    """
    kept = _read_elsewhere(model)
    return _replace(model, [place for place in _linears(model) if place[2] not in kept], Int8Linear, "quantize")


def prepack(model: Model) -> Model:
    """Order the matrices of the linear maps once for all as oneDNN reads them, in place: faster for 2 to 64 rows.

    That is what writing several texts at once comes down to: there a step is 1.2 times as fast as with the matrices as
    they were read (benchmarks/generate.py); one text at a time is a little slower, long texts are as before. Answers
    are the same but for rounding. A matrix that is an embedding table as well stays as it is, so memory does too. The
    model can be saved as before, and no longer be trained.

    Returns:
        the same model, in eval mode.

    Raises:
        ValueError: weights that are not float32 on a CPU, or no linear map left to replace.
    """
    kept = _read_elsewhere(model)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    free = [place for place in _linears(model) if place[2] not in kept and id(place[2].weight) not in tables]
    return _replace(model, free, PackedLinear, "prepack")


def lay_out_for_one(model: Model) -> Model:
    """Turn the matrices of every linear map, and tied tables, round in memory, in place: input by input.

    A vector times a matrix then reads memory in long runs, which is the faster way to write one text at a time
    (benchmarks/generate.py); with several rows the usual order, output by output, is, or that of `prepack`. Nothing
    else changes: shapes, values, training, saving and loading are as before.

    Returns:
        the same model.
    """
    weights = {id(linear.weight): linear.weight for _, _, linear in _linears(model)}.values()
    for weight in weights:
        turned = weight.data.T
        weight.data = _in_large_pages(turned.shape, turned).copy_(turned).T
    return model


def _in_large_pages(shape: torch.Size, like: Tensor) -> Tensor:
    """Memory for numbers like these, in large pages where a CPU has them: a few percent faster to read through."""
    size = shape.numel() * like.element_size()
    if like.device.type != "cpu" or size < LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    block = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        block.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(block, dtype=like.dtype).view(shape)


def _replace(
    model: Model,
    places: list[tuple[nn.Module, str, nn.Linear]],
    kind: Callable[[nn.Linear], nn.Module],
    asked: str,
) -> Model:
    """Put a map of this kind in each place, one for all places of a map; nothing is replaced if one cannot be."""
    if not places:
        raise ValueError(
            f"{type(model).__name__} has no linear map in floating point to replace: is it quantized or packed already?"
        )
    for weight in (linear.weight for _, _, linear in places):
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            raise ValueError(
                f"{asked} wants float32 weights on the CPU, but found {weight.dtype} on {weight.device}: call "
                f"model.float().cpu() before."
            )
    made: dict[int, nn.Module] = {}
    for parent, name, linear in places:
        if id(linear) not in made:
            made[id(linear)] = kind(linear)
        setattr(parent, name, made[id(linear)])
    return model.eval().requires_grad_(False)


def _linears(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Every plain linear map with the module it is in and its name there; not those that adapters have replaced."""
    for parent in model.modules():
        for name, child in parent._modules.items():  # named_children would leave out a second name of the same map
            if type(child) in (nn.Linear, Linear):
                yield parent, name, child  # type: ignore[misc]


def _read_elsewhere(model: nn.Module) -> set[nn.Module]:
    """Maps whose weights their parents read, under the names in `reads_weights`, instead of calling them."""
    return {
        inner
        for parent in model.modules()
        for name in getattr(parent, "reads_weights", ())
        for inner in getattr(parent, name).modules()
    }
