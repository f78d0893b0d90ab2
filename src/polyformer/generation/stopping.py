"""When to stop although not every text has ended.

A criterion is called after every token with `ids` (rows, length) and the `scores` (rows, words) the last one was chosen
by, and says whether to stop.
"""

import time
from collections.abc import Callable, Iterable

from torch import Tensor

from polyformer.generation.config import GenerationConfig

Criterion = Callable[[Tensor, Tensor], bool]


class MaxLength:
    """Stop at `length` tokens, prompt included."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, ids: Tensor, scores: Tensor) -> bool:
        return ids.shape[1] >= self.length


class MaxTime:
    """Stop once `seconds` have passed since this was made."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def __call__(self, ids: Tensor, scores: Tensor) -> bool:
        return time.monotonic() > self.end


class Stop:
    """Any of several."""

    def __init__(self, criteria: Iterable[Criterion]) -> None:
        self.all = list(criteria)

    def __call__(self, ids: Tensor, scores: Tensor) -> bool:
        return any(bool(criterion(ids, scores)) for criterion in self.all)


def stop_for(o: GenerationConfig, end: int, more: Iterable[Criterion] = ()) -> Stop:
    """What the options ask for; `end` tokens at most."""
    timed = [] if o.max_time is None else [MaxTime(o.max_time)]
    return Stop([MaxLength(end), *timed, *more])
