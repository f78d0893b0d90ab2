"""When a text begins and ends."""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyformer.generation.processors.base import NEVER, LogitsProcessor


class MinLength(LogitsProcessor):
    """No eos before the text, prompt included, has `length` tokens."""

    only_forbids = True

    def __init__(self, length: int, eos_ids: Sequence[int]) -> None:
        self.length, self.eos_ids = length, list(eos_ids)

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        if ids.shape[1] >= self.length:
            return scores
        return scores.index_fill(1, torch.tensor(self.eos_ids, device=scores.device), NEVER)


class ForcedToken(LogitsProcessor):
    """The token after the first `length` is one of these: the language after a decoder's start, or eos at the end."""

    def __init__(self, length: int, tokens: Sequence[int]) -> None:
        self.length, self.tokens = length, list(tokens)

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        if ids.shape[1] != self.length:
            return scores
        return torch.full_like(scores, NEVER).index_fill(1, torch.tensor(self.tokens, device=scores.device), 0.0)


class LengthDecay(LogitsProcessor):
    """From `length` tokens on, eos gets better by |its score| * (factor ** tokens since then - 1)."""

    def __init__(self, length: int, factor: float, eos_ids: Sequence[int]) -> None:
        self.length, self.factor, self.eos_ids = length, factor, list(eos_ids)

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        beyond = ids.shape[1] - self.length
        if beyond <= 0:
            return scores
        scores = scores.clone()
        eos = scores[:, self.eos_ids]
        scores[:, self.eos_ids] = eos + eos.abs() * (self.factor**beyond - 1)
        return scores
