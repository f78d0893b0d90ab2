"""Answers as spans, searched with a beam: the likeliest starts, for each the likeliest ends, and whether there is one.

Yang et al. 2019, XLNet, arXiv 1906.08237; zihangdai/xlnet function_builder.py, get_qa_outputs. A token that may not be
part of an answer (padding, the question) is outside of every softmax.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Spans(NamedTuple):
    """The best of every row; `starts` and `ends` are how many are looked at.

    start_probabilities, start_index: (rows, starts), the best first.
    end_probabilities, end_index: (rows, ends * starts), given the start: the best ends of all starts, the second
        best of all starts, ...
    answer: (rows,), a score of the question having no answer.
    """

    start_probabilities: Tensor
    start_index: Tensor
    end_probabilities: Tensor
    end_index: Tensor
    answer: Tensor


class EndScores(nn.Module):
    """How well each token ends an answer that starts at a given one: two layers over both states, normed between."""

    reads_weights = ("dense",)

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width, eps)
        self.out = nn.Linear(width, 1)

    def forward(self, states: Tensor, starts: Tensor) -> Tensor:
        """states (rows, length, width), starts (rows, n, width), the states of n starts -> (rows, length, n)."""
        # the map of two vectors side by side is the sum of a map of each: either is done once, not for every pair
        own, given = self.dense.weight.chunk(2, 1)
        x = F.linear(states, own, self.dense.bias)[:, :, None] + F.linear(starts, given)[:, None]
        return self.out(self.norm(torch.tanh(x))).squeeze(-1)


class AnswerScore(nn.Module):
    """Whether a question has no answer, from the state of the start and of the token that stands for the text."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, 1, bias=False)

    def forward(self, start: Tensor, whole: Tensor) -> Tensor:
        """start and whole (rows, width) -> (rows,)."""
        return self.out(torch.tanh(self.dense(torch.cat([start, whole], -1)))).squeeze(-1)


class SpanHead(nn.Module):
    """Scores of starts, of ends given a start, and of there being no answer.

    Args:
        width: of the token states.
        eps: of the norm in the end's scores.
        starts, ends: how many starts, and ends of each, `best` looks at.
    """

    def __init__(self, width: int, eps: float, starts: int, ends: int) -> None:
        super().__init__()
        self.start = nn.Linear(width, 1)
        self.end = EndScores(width, eps)
        self.answer = AnswerScore(width)
        self.starts, self.ends = starts, ends

    def start_scores(self, states: Tensor, allowed: Tensor | None) -> Tensor:
        """states (rows, length, width), allowed (rows, length) bool -> (rows, length), lowest where not allowed."""
        return _limited(self.start(states), allowed).squeeze(-1)

    def end_scores(self, states: Tensor, starts: Tensor, allowed: Tensor | None) -> Tensor:
        """As above, for starts (rows, n) int64 -> (rows, length, n)."""
        return _limited(self.end(states, at(states, starts)), allowed)

    def best(self, states: Tensor, allowed: Tensor | None, whole: Tensor) -> Spans:
        """The likeliest spans; `whole` (rows, width) is the state of the token that stands for the text."""
        start = self.start_scores(states, allowed).softmax(1)
        start_probabilities, start_index = likeliest(start, self.starts)
        end = self.end_scores(states, start_index, allowed).softmax(1)
        end_probabilities, end_index = likeliest(end, self.ends)
        expected = torch.einsum("rlw,rl->rw", states, start)
        return Spans(
            start_probabilities, start_index, end_probabilities.flatten(1), end_index.flatten(1),
            self.answer(expected, whole),
        )  # fmt: skip


def at(states: Tensor, index: Tensor) -> Tensor:
    """The states (rows, length, width) of tokens index (rows, n) -> (rows, n, width)."""
    return states.gather(1, index[:, :, None].expand(-1, -1, states.shape[2]))


def likeliest(p: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of p (rows, length, ...) along the length, and where they are.

    Where fewer have any probability, the rest has 0 and stands at 0, so that padding changes nothing.
    """
    room = p.new_zeros(p.shape[0], count, *p.shape[2:])
    values, index = torch.cat([p, room], 1).topk(count, 1)
    return values, index.masked_fill(values == 0, 0)


def _limited(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """(rows, length, n), the type's lowest value where not allowed."""
    if allowed is None:
        return scores
    return scores.masked_fill(~allowed[:, :, None], torch.finfo(scores.dtype).min)
