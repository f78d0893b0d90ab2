"""Word by word: the best one each time (greedy), or one drawn from the distribution."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from polyformer.generation.config import GenerationConfig
from polyformer.generation.decoder import Decoder
from polyformer.generation.processors import Processors
from polyformer.generation.stopping import Stop


@dataclass
class Search:
    """What every way of searching needs.

    ids: (rows, prompt length), beams and copies of a prompt side by side.
    end: tokens of the longest text.
    compact: whether rows leave the batch once their text has ended. The texts are the same either way.
    scores: one (rows, words) a token, where they are wanted.
    """

    decoder: Decoder
    ids: Tensor
    end: int
    options: GenerationConfig
    process: Processors
    warp: Processors
    stop: Stop
    generator: torch.Generator | None = None
    compact: bool = True
    scores: list[Tensor] | None = None

    @cached_property
    def eos(self) -> Tensor:
        return torch.tensor(self.options.eos_ids, dtype=torch.int64, device=self.ids.device)

    @property
    def pad(self) -> int:
        """What stands after the end; nothing does where no text can end."""
        return 0 if self.options.pad_token_id is None else self.options.pad_token_id

    def saw(self, scores: Tensor) -> None:
        if self.scores is not None:
            self.scores.append(scores)


def word_by_word(s: Search) -> Tensor:
    """Greedy, or with `do_sample` drawn; (rows, length), pad after eos."""
    ids, eos = s.ids, s.eos
    written = ids.new_full((len(ids), s.end), s.pad)
    living = torch.arange(len(ids), device=ids.device)  # the rows of `written` that `ids` still holds
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    while True:
        scores = s.process(ids, s.decoder.step(ids), s.decoder.padding)
        scores = s.warp(ids, scores, s.decoder.padding)
        s.saw(scores)
        chosen = draw(scores, 1, len(written), living, s.generator)[:, 0] if s.options.do_sample else scores.argmax(-1)
        chosen = chosen.masked_fill(ended, s.pad)
        ids = torch.cat([ids, chosen[:, None]], 1)
        ended = ended | torch.isin(chosen, eos)
        if bool(ended.all()) or s.stop(ids, scores):
            written[living, : ids.shape[1]] = ids
            return written[:, : ids.shape[1]]
        if s.compact and bool(ended.any()):
            written[living[ended], : ids.shape[1]] = ids[ended]
            going = (~ended).nonzero()[:, 0]
            ids, living, ended = ids[going], living[going], ended[going]
            s.decoder.reorder(going)


def draw(scores: Tensor, count: int, total: int, living: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw `count` different places of each row with the probabilities softmax(scores), the first drawn first.

    By exponential clocks: the place whose clock, running at the rate of its probability, rings first (Efraimidis and
    Spirakis 2006, doi 10.1016/j.ipl.2005.11.003). The clocks are set for all `total` rows, of which `living`, (rows,),
    are here, so that what a row draws does not hang on which others have ended.

    Raises:
        ValueError: no word of a row is allowed, or a score is not a number.
    """
    p = scores.softmax(-1)
    if bool(p.isnan().any()):
        raise ValueError(
            "nothing can be drawn: the scores of the next word are not numbers (an overflow in half precision?), or "
            "every word is forbidden (by bad_words_ids, prefix_allowed_tokens_fn or the like)."
        )
    clocks = p.new_empty(total, p.shape[1]).exponential_(generator=generator)
    rate = p / (clocks if len(living) == total else clocks[living])
    return rate.argmax(-1, keepdim=True) if count == 1 else rate.topk(count).indices
