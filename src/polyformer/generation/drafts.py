"""Guesses at how a text goes on, for a model to check several words at once."""

from typing import Any, Protocol

import torch
from torch import Tensor

from polyformer.generation.chance import Chance, draw, probabilities
from polyformer.generation.config import GenerationConfig
from polyformer.generation.decoder import Decoder
from polyformer.generation.processors import Processors


class Draft(Protocol):
    """What guesses."""

    def guess(self, ids: Tensor, most: int) -> tuple[Tensor, Tensor | None]:
        """Up to `most` tokens to follow ids (1, length).

        Returns:
            (1, tokens), and the distributions they were drawn from, (tokens, words); None = they were not drawn.
        """
        ...

    def learn(self, guessed: int, right: int) -> None:
        """How many of the last guess were right."""
        ...


class Lookup:
    """What followed the last few tokens where they stood before: prompt lookup (Saxena 2023; no model is asked).

    Args:
        most: tokens of a guess.
        longest: tokens that are looked for, fewer if so many are not found.
    """

    def __init__(self, most: int, longest: int) -> None:
        self.most, self.longest = most, longest

    def guess(self, ids: Tensor, most: int) -> tuple[Tensor, None]:
        length = ids.shape[1]
        for size in range(min(self.longest, length - 1), 0, -1):
            runs = ids[0].unfold(0, size, 1)[:-1]  # (runs, size), the last one is what is looked for
            places = (runs == ids[0, -size:]).all(1).nonzero()[:, 0]
            if len(places):
                begin = int(places[-1]) + size
                return ids[:, begin : begin + min(self.most, most)], None
        return ids[:, :0], None

    def learn(self, guessed: int, right: int) -> None:
        """It does not."""


class Assistant:
    """A smaller model of the same vocabulary writes ahead.

    Args:
        decoder: its.
        process, warp: what shapes its scores, as the other model's are.
        generator: where words are drawn.
    """

    def __init__(
        self, decoder: Decoder, o: GenerationConfig, process: Processors, warp: Processors, generator: Chance
    ) -> None:
        self.decoder, self.process, self.warp, self.generator = decoder, process, warp, generator
        self.sample, self.count = o.do_sample, o.num_assistant_tokens
        self.learns = o.num_assistant_tokens_schedule != "constant"

    def guess(self, ids: Tensor, most: int) -> tuple[Tensor, Tensor | None]:
        begun, drawn = ids.shape[1], []
        self.decoder.back_to(begun - 1)
        row = torch.zeros(1, dtype=torch.int64, device=ids.device)
        for _ in range(min(self.count, most)):
            scores = self.warp(ids, self.process(ids, self.decoder.step(ids)))
            if self.sample:
                drawn.append(probabilities(scores)[0])
                word = draw(scores, 1, 1, row, self.generator)
            else:
                word = scores.argmax(-1, keepdim=True)
            ids = torch.cat([ids, word], 1)
        return ids[:, begun:], torch.stack(drawn) if drawn else None

    def learn(self, guessed: int, right: int) -> None:
        if self.learns:
            self.count = self.count + 2 if right == guessed else max(1, self.count - 1)


def shares_words(model: Any, assistant: Any) -> None:
    """Raise ValueError unless the two models' tokens are the same."""
    ours, theirs = (one.config.vocab_size for one in (model, assistant))
    if ours != theirs:
        raise ValueError(
            f"assistant_model knows {theirs} words, but the model {ours}: the two must have the same vocabulary."
        )
