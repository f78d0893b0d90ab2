"""Words that occur already, in the text or in its source."""

import torch
from torch import Tensor

from polyformer.generation.processors.base import NEVER, LogitsProcessor, for_rows, mark


class RepetitionPenalty(LogitsProcessor):
    """Scores of words that occur are divided by the penalty where positive, multiplied where negative.

    Keskar et al. 2019, CTRL, arXiv 1909.05858, section 4.1.
    """

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        occurs = mark(ids, torch.ones_like(ids, dtype=torch.bool), scores)
        return torch.where(occurs, torch.where(scores < 0, scores * self.penalty, scores / self.penalty), scores)


class EncoderRepetitionPenalty(LogitsProcessor):
    """The other way round for words of the source (texts, length), so that what is written stays with it."""

    def __init__(self, penalty: float, source: Tensor) -> None:
        self.towards, self.source = RepetitionPenalty(1 / penalty), source

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        return self.towards(for_rows(self.source, ids), scores)

    def keep(self, texts: Tensor) -> None:
        self.source = self.source[texts]


class NoRepeatNGram(LogitsProcessor):
    """No run of `size` tokens comes twice (Paulus et al. 2017, arXiv 1705.04304, section 2.5)."""

    only_forbids = True

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        return _forbid_runs(ids, ids, self.size, scores)


class EncoderNoRepeatNGram(LogitsProcessor):
    """No run of `size` tokens of the source (texts, length) is copied."""

    only_forbids = True

    def __init__(self, size: int, source: Tensor) -> None:
        self.size, self.source = size, source

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        return _forbid_runs(for_rows(self.source, ids), ids, self.size, scores)

    def keep(self, texts: Tensor) -> None:
        self.source = self.source[texts]


def _forbid_runs(text: Tensor, ids: Tensor, size: int, scores: Tensor) -> Tensor:
    """Forbid each word that would make the last `size` tokens of `ids` a run that `text` (rows, any) has."""
    if text.shape[1] < size or ids.shape[1] < size - 1:
        return scores
    runs = text.unfold(1, size, 1)  # (rows, runs, size)
    begun = ids[:, ids.shape[1] - size + 1 :]  # (rows, size - 1)
    same = (runs[..., :-1] == begun[:, None]).all(-1) & (runs >= 0).all(-1)
    return scores.masked_fill(mark(runs[..., -1], same, scores), NEVER)
