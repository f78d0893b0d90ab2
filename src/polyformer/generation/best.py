"""The best words of each row, looked for block by block: a row of 50,000 scores is read once and not put in order."""

import torch
from torch import Tensor

BLOCK = 64  # scores
ROWS = 4  # of scores that are summed up together, so that what is in between stays in the cache


def largest(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`x.topk(count)` of x (rows, any): values and places, each (rows, count), largest first."""
    rows, width = x.shape
    blocks = width // BLOCK
    if blocks <= count:
        found = x.topk(count)
        return found.values, found.indices
    whole, rest = x[:, : blocks * BLOCK].unflatten(1, (blocks, BLOCK)), x[:, blocks * BLOCK :]
    at = whole.amax(-1).topk(count).indices  # the `count` largest are in the blocks with the largest maxima
    few = torch.cat([whole[torch.arange(rows, device=x.device)[:, None], at].flatten(1), rest], 1)
    values, places = few.topk(count)
    inside = at.gather(1, (places // BLOCK).clamp_(max=count - 1)) * BLOCK + places % BLOCK
    return values, torch.where(places < count * BLOCK, inside, places + (blocks - count) * BLOCK)


def first_best(x: Tensor) -> Tensor:
    """`x.argmax(-1)` of x (rows, any): of equals the first; (rows,) int64."""
    blocks = x.shape[1] // BLOCK
    if blocks < 2:
        return x.argmax(-1)
    whole, rest = x[:, : blocks * BLOCK].unflatten(1, (blocks, BLOCK)), x[:, blocks * BLOCK :]
    tops = [whole.amax(-1), *([rest.amax(1, keepdim=True)] if rest.shape[1] else [])]
    at = torch.cat(tops, 1).argmax(-1)
    rows = torch.arange(len(x), device=x.device)
    inside = at.clamp(max=blocks - 1) * BLOCK + whole[rows, at.clamp(max=blocks - 1)].argmax(-1)
    return torch.where(at < blocks, inside, blocks * BLOCK + rest.argmax(-1)) if rest.shape[1] else inside


def log_total(x: Tensor) -> Tensor:
    """`x.logsumexp(-1, keepdim=True)` of x (rows, any) of floating point, a few rows at a time; (rows, 1)."""
    if x.device.type != "cpu":  # where there is no such cache, and each step costs a launch
        return x.logsumexp(-1, keepdim=True)
    ends = torch.finfo(x.dtype)
    found = []
    for part in x.split(ROWS):
        top = part.amax(1, keepdim=True).clamp_(ends.min, ends.max)
        found.append(part.sub(top).exp_().sum(1, keepdim=True).log_().add_(top))
    return torch.cat(found)
