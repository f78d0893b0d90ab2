"""What a processor of scores is, and how several work together.

A processor is called with `ids` (rows, length) int64, all tokens so far, and `scores` (rows, words), logits or
log-probabilities, and gives scores of the same shape; -inf is a word that may not come. Those here are shown -1 in
place of padding, which is no token to them.
"""

from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from torch import Tensor

Processor = Callable[[Tensor, Tensor], Tensor]

NEVER = float("-inf")


class LogitsProcessor:
    """Base of those here.

    One that knows something of each *text* (a row that goes its own way, or a prompt with all its beams, whose rows lie
    side by side) forgets what has left the batch in `keep`.

    only_forbids: whether it leaves scores as they are or makes them -inf, whatever they are.
    """

    only_forbids: ClassVar[bool] = False

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        raise NotImplementedError

    def keep(self, texts: Tensor) -> None:
        """Text i is from now on what text texts[i] was; (texts that stay,) int64."""


class Processors:
    """Several, one after another. Those of the user see the tokens as they are, padding too."""

    def __init__(self, processors: Iterable[Processor]) -> None:
        self.all = list(processors)

    @property
    def foreign(self) -> bool:
        """Whether some are the user's own, from under which no row may leave the batch."""
        return not all(isinstance(p, LogitsProcessor) for p in self.all)

    @property
    def only_forbid(self) -> bool:
        """Whether they all leave scores as they are or make them -inf."""
        return all(isinstance(p, LogitsProcessor) and p.only_forbids for p in self.all)

    def keep(self, texts: Tensor) -> None:
        for processor in self.all:
            if isinstance(processor, LogitsProcessor):
                processor.keep(texts)

    def __call__(self, ids: Tensor, scores: Tensor, padding: Tensor | None = None) -> Tensor:
        """padding: (rows, prompt length) bool."""
        if not self.all:
            return scores
        seen = ids
        if padding is not None:
            seen = ids.clone()
            seen[:, : padding.shape[1]].masked_fill_(padding, -1)
        for processor in self.all:
            scores = processor(seen if isinstance(processor, LogitsProcessor) else ids, scores)
        return scores


def mark(words: Tensor, which: Tensor, scores: Tensor) -> Tensor:
    """True, in the shape of `scores`, at those of `words` (rows, any) that `which` (rows, any) has, but not at -1."""
    count = scores.shape[1]
    places = torch.where(which & (words >= 0), words, count)  # one column more, for what is not to be marked
    marked = torch.zeros(len(scores), count + 1, dtype=torch.bool, device=scores.device)
    return marked.scatter_(1, places, True)[:, :count]


def for_rows(x: Tensor, ids: Tensor) -> Tensor:
    """(texts, ...) -> (rows, ...), each as often as its text has rows."""
    return x if len(x) == len(ids) else x.repeat_interleave(len(ids) // len(x), 0)
