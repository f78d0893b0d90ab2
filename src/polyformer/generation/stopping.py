"""When to stop although not every text has ended.

A criterion is called after every token with `ids` (rows, length) and the `scores` (rows, words) the last one was chosen
by, and says whether to stop: True or False for all rows, or a tensor (rows,) of bool for each.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from polyformer.generation.config import GenerationConfig

Criterion = Callable[[Tensor, Tensor], bool | Tensor]


class StoppingCriteria:
    """Base of those here, to which it is all the same which rows there are."""

    def __call__(self, ids: Tensor, scores: Tensor) -> bool | Tensor:
        raise NotImplementedError


class MaxLength(StoppingCriteria):
    """Stop at `length` tokens, prompt included."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, ids: Tensor, scores: Tensor) -> bool:
        return ids.shape[1] >= self.length


class MaxTime(StoppingCriteria):
    """Stop once `seconds` have passed since this was made."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def __call__(self, ids: Tensor, scores: Tensor) -> bool:
        return time.monotonic() > self.end


class StopStrings(StoppingCriteria):
    """A text ends when its newest token completes one of some strings, wherever in its tokens that begins and ends.

    Looked for in the decoded text, so that a string may lie across tokens, in the middle of one, or begin in the
    prompt; what the newest token has behind the string stays.

    Args:
        strings: one or several.
        decode: the text of a list of token ids.
        pad: the id of padding, which is no text.
    """

    def __init__(
        self, strings: str | Iterable[str], decode: Callable[[list[int]], str], pad: int | None = None
    ) -> None:
        self.strings = [strings] if isinstance(strings, str) else list(strings)
        if not self.strings or "" in self.strings:
            raise ValueError("stop_strings takes a string or several, none of them empty.")
        self.decode, self.pad = decode, pad
        self.longest = max(map(len, self.strings))

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        return torch.tensor([self.completed(row) for row in ids.tolist()], device=ids.device)

    def completed(self, tokens: list[int]) -> bool:
        """Whether the last token completes a string."""
        window = self.longest + 4  # a token has a character at least; but one of four bytes may be four tokens
        while True:
            seen = [t for t in tokens[-window:] if t != self.pad]
            before = self.decode(seen[:-1])
            if len(before) >= self.longest + 4 or window >= len(tokens):
                break
            window *= 2
        text = self.decode(seen)
        same = alike(before, text)
        # a string that ends in what the last token has changed
        return any(text.find(s, max(0, same - len(s) + 1)) >= 0 for s in self.strings)


def alike(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


class Stop:
    """Any of several."""

    def __init__(self, criteria: Iterable[Criterion]) -> None:
        self.all = list(criteria)

    @property
    def foreign(self) -> bool:
        """Whether some are the user's own, from under which no row may leave the batch."""
        return not all(isinstance(criterion, StoppingCriteria) for criterion in self.all)

    def __call__(self, ids: Tensor, scores: Tensor) -> bool | Tensor:
        """True: all stop; False: none; else (rows,) bool."""
        stopped: bool | Tensor = False
        for criterion in self.all:
            met = criterion(ids, scores)
            if isinstance(met, Tensor) and met.dim():
                stopped = met.to(ids.device).bool() | stopped
            elif met:
                return True
        return stopped


def criteria_for(o: GenerationConfig, more: Iterable[Criterion] = (), tokenizer: Any = None) -> list[Criterion]:
    """What the options ask for beside the length; the clock of max_time begins now."""
    found: list[Criterion] = []
    if o.max_time is not None:
        found.append(MaxTime(o.max_time))
    if o.stop_strings is not None:
        if tokenizer is None:
            raise ValueError("stop_strings are looked for in the text: give generate the tokenizer, tokenizer=...")
        pad = None if o.pad_token_id in o.eos_ids else o.pad_token_id
        found.append(StopStrings(o.stop_strings, tokenizer.decode, pad))
    return [*found, *more]
