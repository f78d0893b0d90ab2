"""Words and phrases that may not come, should come, or alone may come."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polyformer.generation.processors.base import NEVER, LogitsProcessor

PrefixFunction = Callable[[int, Tensor], Sequence[int] | Tensor]


class SequenceBias(LogitsProcessor):
    """Adds to the score of a word that would complete one of some sequences of tokens; several biases add up.

    Args:
        biases: pairs of a sequence and its bias, or a mapping.
        option: what the user calls them.
    """

    option = "sequence_bias"

    def __init__(self, biases: Mapping[tuple[int, ...], float] | Sequence[Any]) -> None:
        pairs = [(tuple(w), b) for w, b in (biases.items() if isinstance(biases, Mapping) else biases)]
        self.largest = max((i for word, _ in pairs for i in word), default=-1)
        self.sequences: dict[int, tuple[Tensor, Tensor]] = {}  # length -> (words, length), (words,)
        for length in sorted({len(word) for word, _ in pairs}):
            alike = [(word, bias) for word, bias in pairs if len(word) == length]
            self.sequences[length] = torch.tensor([w for w, _ in alike]), torch.tensor([float(b) for _, b in alike])

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        if self.largest >= scores.shape[1]:
            raise ValueError(f"{self.option} has {self.largest}, but the model's words are 0 to {scores.shape[1] - 1}.")
        scores = scores.clone()
        for length, (words, biases) in self.sequences.items():
            if length > ids.shape[1] + 1:
                continue
            words, biases = words.to(ids.device), biases.to(scores)
            # (rows, 1, length - 1) against (words, length - 1) -> (rows, words)
            begun = (ids[:, None, ids.shape[1] - length + 1 :] == words[:, :-1]).all(-1)
            scores.scatter_add_(1, words[:, -1].expand(len(ids), -1), biases.where(begun, 0))
        return scores


class BadWords(SequenceBias):
    """Words, of one or several tokens, that may not be written; eos alone cannot be one."""

    only_forbids = True

    option = "bad_words_ids"

    def __init__(self, words: Sequence[Sequence[int]], eos_ids: Sequence[int] = ()) -> None:
        super().__init__([(w, NEVER) for w in words if not (len(w) == 1 and w[0] in eos_ids)])


class Suppress(LogitsProcessor):
    """Tokens that may not come; with `length`, only not after the first so many."""

    only_forbids = True

    def __init__(self, tokens: Sequence[int], length: int | None = None) -> None:
        self.tokens, self.length = torch.tensor(tokens, dtype=torch.int64), length

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        if self.length not in (None, ids.shape[1]):
            return scores
        return scores.index_fill(1, self.tokens.to(scores.device), NEVER)


class PrefixAllowed(LogitsProcessor):
    """Only what `allowed(prompt number, tokens so far)` names may come (De Cao et al. 2020, arXiv 2010.00904).

    Args:
        allowed: one with `new_tokens_only` set, as a Guide, is shown what has been written without the prompt.
        prompts: the number of each text's prompt.
        start: tokens of the prompt.
    """

    only_forbids = True

    def __init__(self, allowed: PrefixFunction, prompts: Sequence[int], start: int) -> None:
        self.allowed, self.prompts = allowed, list(prompts)
        self.start = start if getattr(allowed, "new_tokens_only", False) else 0

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        beams = len(ids) // len(self.prompts)
        kept = torch.zeros_like(scores, dtype=torch.bool)
        for row, tokens in enumerate(ids[:, self.start :]):
            may = self.allowed(self.prompts[row // beams], tokens[tokens >= 0])
            kept[row, may if isinstance(may, Tensor) else list(may)] = True
        return scores.masked_fill(~kept, NEVER)

    def keep(self, texts: Tensor) -> None:
        self.prompts = [self.prompts[i] for i in texts.tolist()]
