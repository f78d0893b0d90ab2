"""The distribution that a word is drawn from: flattened, sharpened, cut."""

import torch
from torch import Tensor

from polyformer.generation.best import largest
from polyformer.generation.processors.base import NEVER, LogitsProcessor


class Temperature(LogitsProcessor):
    """Above 1 flattens the distribution, below 1 sharpens it."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        return scores / self.temperature


class TopK(LogitsProcessor):
    """Only the k best words may come, and those as good as the last of them (Fan et al. 2018, arXiv 1805.04833)."""

    def __init__(self, k: int) -> None:
        self.k = k

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        worst = largest(scores, min(self.k, scores.shape[1]))[0][:, -1:]
        return scores.masked_fill(scores < worst, NEVER)


class TopP(LogitsProcessor):
    """Only the fewest best words whose probabilities sum to more than p may come, and `least` of them at any rate.

    Nucleus sampling: Holtzman et al. 2019, arXiv 1904.09751, section 3.1.
    """

    def __init__(self, p: float, least: int = 1) -> None:
        self.p, self.least = p, least

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        ranked, words = scores.sort(descending=True)
        better = ranked.softmax(-1).cumsum(-1).roll(1, -1)  # what the words before this one sum to
        surplus = better > self.p
        surplus[:, : self.least] = False
        return scores.masked_fill(torch.zeros_like(surplus).scatter(1, words, surplus), NEVER)


class Typical(LogitsProcessor):
    """Only the words whose information is nearest to what is expected may come, the fewest that sum to `mass`.

    Locally typical sampling: Meister et al. 2022, arXiv 2202.00666, equation 7. `least` words stay at any rate.
    """

    def __init__(self, mass: float, least: int = 1) -> None:
        self.mass, self.least = mass, least

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        logp = scores.log_softmax(-1)
        p = logp.exp()
        entropy = -(p * logp.masked_fill(p == 0, 0)).sum(-1, keepdim=True)
        words = (logp + entropy).abs().argsort(dim=-1, stable=True)
        nearer = p.gather(1, words).cumsum(-1).roll(1, -1)
        surplus = nearer >= self.mass
        surplus[:, : self.least] = False
        return scores.masked_fill(torch.zeros_like(surplus).scatter(1, words, surplus), NEVER)


class Floor(LogitsProcessor):
    """Only words whose probability reaches a bound may come, and the `least` best at any rate."""

    def __init__(self, bound: float, least: int = 1) -> None:
        self.bound, self.least = bound, least

    def floor(self, p: Tensor) -> Tensor:
        """p (rows, words), probabilities -> (rows, 1), the bound of each row."""
        raise NotImplementedError

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        p = scores.softmax(-1)
        best = scores.topk(min(self.least, scores.shape[1])).values[:, -1:]
        return scores.masked_fill((p < self.floor(p)) & (scores < best), NEVER)


class MinP(Floor):
    """A share of the best word's probability: Nguyen et al. 2024, arXiv 2407.01082."""

    def floor(self, p: Tensor) -> Tensor:
        return self.bound * p.amax(-1, keepdim=True)


class EpsilonCutoff(Floor):
    """A probability: Hewitt et al. 2022, arXiv 2210.15191, section 3."""

    def floor(self, p: Tensor) -> Tensor:
        return p.new_full((len(p), 1), self.bound)


class EtaCutoff(Floor):
    """A probability, the smaller the flatter the distribution: Hewitt et al. 2022, arXiv 2210.15191, section 4."""

    def floor(self, p: Tensor) -> Tensor:
        entropy = torch.special.entr(p).sum(-1, keepdim=True)
        return (self.bound**0.5 * (-entropy).exp()).clamp(max=self.bound)


class Renormalized(LogitsProcessor):
    """Log-probabilities again."""

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        return scores.log_softmax(-1)


class RemoveInvalid(LogitsProcessor):
    """NaN becomes 0 and infinity the largest number, so that a model that overflows goes on."""

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        return scores.nan_to_num(0.0, torch.finfo(scores.dtype).max, NEVER)


class Diversity:
    """Takes the penalty off a word's score for every beam of an earlier group that has just chosen it (Hamming).

    Vijayakumar et al. 2016, Diverse Beam Search, arXiv 1610.02424, section 3.
    """

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def __call__(self, scores: Tensor, chosen: Tensor) -> Tensor:
        """scores (prompts * beams, words) of one group, chosen (prompts, beams before) the earlier groups' tokens."""
        counts = scores.new_zeros(len(chosen), scores.shape[1])
        counts.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=scores.dtype))
        return scores - self.penalty * counts.repeat_interleave(len(scores) // len(chosen), 0)
