"""What every way of searching has at hand and gives back, and the plainest: word by word.

Word by word takes the best word each time (greedy), or draws one from the distribution.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from polyformer.generation.best import first_best, largest
from polyformer.generation.chance import Chance, draw
from polyformer.generation.config import GenerationConfig
from polyformer.generation.decoder import Decoder
from polyformer.generation.processors import Processors, TopK
from polyformer.generation.stopping import Stop

FEW = 8  # times as many words there are at least, if some are few


class Streamer(Protocol):
    """What is told of tokens as they are chosen: `put` first (rows, prompt length), then (rows,) each; `end` once."""

    def put(self, value: Tensor) -> None: ...
    def end(self) -> None: ...


@dataclass
class Search:
    """What every way of searching needs.

    ids: (rows, prompt length), beams and copies of a prompt side by side.
    end: tokens of the longest text.
    compact: whether rows leave the batch once their text has ended. The texts are the same either way.
    scores, logits: one (rows, words) a token, as processed and as the model gave them, where they are wanted.
    """

    decoder: Decoder
    ids: Tensor
    end: int
    options: GenerationConfig
    process: Processors
    warp: Processors
    stop: Stop
    generator: Chance = None
    compact: bool = True
    scores: list[Tensor] | None = None
    logits: list[Tensor] | None = None
    streamer: Streamer | None = None

    @cached_property
    def eos(self) -> Tensor:
        return torch.tensor(self.options.eos_ids, dtype=torch.int64, device=self.ids.device)

    @property
    def pad(self) -> int:
        """What stands after the end; nothing does where no text can end."""
        return 0 if self.options.pad_token_id is None else self.options.pad_token_id

    def step(self, ids: Tensor) -> Tensor:
        """ids (rows, length), the tokens so far -> (rows, words), the model's scores of the next one."""
        logits = self.decoder.step(ids)
        if self.logits is not None:
            self.logits.append(logits)
        return logits

    def shaped(self, ids: Tensor, logits: Tensor) -> Tensor:
        """The scores that a word is chosen by, (rows, words), of rows that each go their own way."""
        padding = self.decoder.padding
        return self.warp(ids, self.process(ids, logits, padding), padding)

    @cached_property
    def few(self) -> int | None:
        """How many words can be drawn at all, where that is known and nobody wants to see the scores of the others."""
        k = next((p.k for p in self.warp.all if isinstance(p, TopK)), None)
        seen = self.scores is not None or self.stop.foreign or self.warp.foreign
        return None if seen else k

    def drawn(self, ids: Tensor, logits: Tensor, total: int, living: Tensor) -> tuple[Tensor, Tensor]:
        """A word for each row, (rows,), and the scores that it was drawn by."""
        if self.few is None or self.few * FEW > logits.shape[1]:
            scores = self.shaped(ids, logits)
            return draw(scores, 1, total, living, self.generator)[:, 0], scores
        scores, words = largest(self.process(ids, logits, self.decoder.padding), self.few)
        scores = self.warp(ids, scores, self.decoder.padding)  # no step of it asks which word a score is of
        return words.gather(1, draw(scores, 1, total, living, self.generator))[:, 0], scores

    def saw(self, scores: Tensor) -> None:
        if self.scores is not None:
            self.scores.append(scores)


@dataclass
class Found:
    """What a search has found.

    sequences: (texts, length), pad after the end; worth: (texts,), of beams.
    trail: (texts, new tokens), the row of the scores that each token of a beam was chosen in; -1 after the end.
    """

    sequences: Tensor
    worth: Tensor | None = None
    trail: Tensor | None = None


def word_by_word(s: Search) -> Found:
    """Greedy, or with `do_sample` drawn."""
    ids, eos = s.ids, s.eos
    written = ids.new_full((len(ids), s.end), s.pad)
    living = torch.arange(len(ids), device=ids.device)  # the rows of `written` that `ids` still holds
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    while True:
        logits = s.step(ids)
        if s.options.do_sample:
            chosen, scores = s.drawn(ids, logits, len(written), living)
        else:
            scores = s.shaped(ids, logits)
            chosen = first_best(scores)
        s.saw(scores)
        chosen = chosen.masked_fill(ended, s.pad)
        ids = torch.cat([ids, chosen[:, None]], 1)
        if s.streamer is not None:
            s.streamer.put(written.new_full((len(written),), s.pad).index_copy_(0, living, chosen).cpu())
        ended = ended | torch.isin(chosen, eos)
        stopped = s.stop(ids, scores)
        ended = ended | stopped
        if bool(ended.all()):
            written[living, : ids.shape[1]] = ids
            return Found(written[:, : ids.shape[1]])
        if s.compact and bool(ended.any()):
            written[living[ended], : ids.shape[1]] = ids[ended]
            going = close_ranks(ended)
            ids, living, ended = ids[going], living[going], ended[going]
            s.decoder.reorder(going)
            s.process.keep(going)


def close_ranks(ended: Tensor) -> Tensor:
    """The rows that go on, (rows,) bool -> (rows that go on,): the last take the places of those that have ended."""
    going = (~ended).nonzero()[:, 0]
    count = len(going)
    rows = torch.arange(count, device=ended.device)
    rows[ended[:count]] = going[going >= count]
    return rows
