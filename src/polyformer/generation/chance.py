"""Drawing words."""

from collections.abc import Sequence

import torch
from torch import Tensor

# torch's own, one for all rows, or one a row
Chance = torch.Generator | Sequence[torch.Generator] | None


def seeded(seeds: Sequence[int] | Tensor, device: torch.device) -> list[torch.Generator]:
    """A source of chance for each row, so that what it draws does not hang on the others."""
    return [torch.Generator(device).manual_seed(int(seed)) for seed in seeds]


def draw(scores: Tensor, count: int, total: int, living: Tensor, generator: Chance = None) -> Tensor:
    """Draw `count` different places of each row with the probabilities softmax(scores), the first drawn first.

    By exponential clocks: the place whose clock, running at the rate of its probability, rings first (Efraimidis and
    Spirakis 2006, doi 10.1016/j.ipl.2005.11.003). Unless each row has its own generator, the clocks are set for all
    `total` rows, of which `living`, (rows,), are here, so that what a row draws does not hang on which have ended.

    Raises:
        ValueError: no word of a row is allowed, or a score is not a number.
    """
    p = probabilities(scores)
    if isinstance(generator, Sequence):
        clocks = torch.stack([p.new_empty(p.shape[1]).exponential_(generator=generator[i]) for i in living.tolist()])
    else:
        clocks = p.new_empty(total, p.shape[1]).exponential_(generator=generator)
        clocks = clocks if len(living) == total else clocks[living]
    rate = p / clocks
    return rate.argmax(-1, keepdim=True) if count == 1 else rate.topk(count).indices


def probabilities(scores: Tensor) -> Tensor:
    """softmax(scores), (rows, words).

    Raises:
        ValueError: no word of a row is allowed, or a score is not a number.
    """
    p = scores.softmax(-1)
    if bool(p.isnan().any()):
        raise ValueError(
            "nothing can be drawn: the scores of the next word are not numbers (an overflow in half precision?), or "
            "every word is forbidden (by bad_words_ids, prefix_allowed_tokens_fn or the like)."
        )
    return p
