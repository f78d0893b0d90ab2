"""Beam search for texts that have given phrases in them.

Dynamic beam allocation (Post and Vilar 2018, arXiv 1804.06609): besides the best words, each beam may go on with a word
of a phrase it lacks; candidates are sorted into banks by how much they lack, and the banks share the beams. The bank
that lacks least has one at least, and can always lack one token less, so that all phrases are met in the end if the
text may be as long as they are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyformer.generation.beams import Candidates, Plan, beam_search
from polyformer.generation.constraints import Constraint, Progress
from polyformer.generation.processors import NEVER
from polyformer.generation.search import Found, Search

Candidate = tuple[float, int, int]  # sum, beam, token


class Banks(Plan):
    """How beams go on so that what they lack is written.

    start: tokens of the prompts, which are not looked at.
    """

    nothing = (
        "no text with all forced words was found for a prompt: raise max_new_tokens or num_beams, or see whether "
        "another option forbids the words."
    )

    def __init__(self, constraints: Sequence[Constraint], start: int) -> None:
        self.progress, self.start = Progress(constraints), start

    def accepts(self, text: Tensor) -> bool:
        return not self.progress.remaining(self.progress.after(text[self.start :].tolist()))

    def candidates(self, s: Search, value: Tensor, ids: Tensor, place: Tensor, prompts: int) -> Candidates:
        beams = value.shape[1]
        texts = ids[:, self.start :].unflatten(0, (-1, beams)).tolist()
        found = [self._of_prompt(s, one, text) for one, text in zip(value, texts, strict=True)]
        width = max(len(c) for c, _ in found)
        none = (NEVER, 0, s.pad)
        rows = [c + [none] * (width - len(c)) for c, _ in found]
        totals = value.new_tensor([[c[0] for c in row] for row in rows])
        beam, token = (ids.new_tensor([[c[i] for c in row] for row in rows]) for i in (1, 2))
        ends = torch.tensor([count for _, count in found], device=ids.device)
        return Candidates(totals, beam, token, torch.arange(width, device=ids.device) < ends[:, None])

    def _of_prompt(self, s: Search, value: Tensor, texts: list[list[int]]) -> tuple[list[Candidate], int]:
        """value (beams, words) -> those that end, best first, and those that go on, bank by bank; how many end."""
        beams, words = value.shape
        states = [self.progress.after(text) for text in texts]
        places = set(value.flatten().topk(min(2 * beams, beams * words)).indices.tolist())
        places |= {beam * words + best for beam, best in enumerate(value.argmax(1).tolist())}
        places |= {b * words + t for b, state in enumerate(states) for t in self.progress.advances(state) if t < words}
        totals = value.flatten()[list(places)].tolist()
        ending: list[Candidate] = []
        banks: dict[int, list[Candidate]] = {}
        for total, at in sorted(zip(totals, places, strict=True), reverse=True):
            beam, token = divmod(at, words)
            if total == NEVER:
                continue
            if token in s.options.eos_ids:
                if not self.progress.remaining(states[beam]):
                    ending.append((total, beam, token))
            else:
                lacking = self.progress.remaining(self.progress.after([token], states[beam]))
                banks.setdefault(lacking, []).append((total, beam, token))
        going = _in_turn([banks[lacking] for lacking in sorted(banks)], beams)
        none = (NEVER, 0, s.pad)
        ending = ending[:beams]
        return ending + going + [none] * (beams - len(going)), len(ending)


def _in_turn(banks: list[list[Candidate]], count: int) -> list[Candidate]:
    """The best of each bank, then the second of each, ...; best first."""
    taken: list[Candidate] = []
    depth = 0
    while len(taken) < count and any(len(bank) > depth for bank in banks):
        taken += [bank[depth] for bank in banks if len(bank) > depth]
        depth += 1
    return sorted(taken[:count], reverse=True)


def constrained_beam_search(s: Search, count: int, constraints: Sequence[Constraint]) -> Found:
    """The `count` best texts of each prompt that meet all constraints."""
    return beam_search(s, count, Banks(constraints, s.ids.shape[1]))
