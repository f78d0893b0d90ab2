"""Assisted decoding: a draft is checked many words at a time, and what comes out is what the model alone would write.

Leviathan et al. 2023, arXiv 2211.17192. Greedy: the draft is right as far as it is what the model would have chosen.
Sampling (section 2.3): a word x that the draft drew with probability q(x) is kept with probability min(1, p(x) / q(x)),
else one is drawn from max(p - q, 0) in its place; so the text has the model's distribution p whatever the draft is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyformer.generation.chance import draw, probabilities
from polyformer.generation.drafts import Draft
from polyformer.generation.search import Found, Search


def assisted(s: Search, draft: Draft) -> Found:
    """One text, with ids (1, prompt length), in fewer steps of the model."""
    ids, zero = s.ids, torch.zeros(1, dtype=torch.int64, device=s.ids.device)
    while True:
        guess, q = draft.guess(ids, s.end - 1 - ids.shape[1])
        guessed = guess.shape[1]
        tried = torch.cat([ids, guess], 1)
        # (1, guessed + 1, words): what follows the text, and each word of the guess
        logits = s.decoder.read(tried, guessed + 1)
        for right in range(guessed + 1):
            length = ids.shape[1]
            scores = s.shaped(ids, logits[:, right])
            if not s.options.do_sample:
                word = scores.argmax(-1, keepdim=True)
            elif right == guessed:
                word = draw(scores, 1, 1, zero, s.generator)
            else:
                p = probabilities(scores)[0]
                word = _kept_or_drawn(int(guess[0, right]), p, None if q is None else q[right], s)
            ids = torch.cat([ids, word], 1)
            s.saw(scores)
            if s.logits is not None:
                s.logits.append(logits[:, right])
            if s.streamer is not None:
                s.streamer.put(word[0].cpu())
            stopped = s.stop(ids, scores)
            if bool(torch.isin(word, s.eos).any()) or (stopped if isinstance(stopped, bool) else bool(stopped.all())):
                return Found(ids)
            if right == guessed or int(word) != int(guess[0, right]):
                break
        draft.learn(guessed, right)
        s.decoder.back_to(length)


def _kept_or_drawn(guess: int, p: Tensor, q: Tensor | None, s: Search) -> Tensor:
    """The guess, or what stands in its place, (1, 1); p, q (words,), q = None: the guess was sure."""
    if q is None:
        q = torch.zeros_like(p)
        q[guess] = 1
    generator = s.generator[0] if isinstance(s.generator, Sequence) else s.generator
    chance = torch.rand((), generator=generator, device=p.device, dtype=p.dtype)
    if chance * q[guess] < p[guess]:
        return torch.tensor([[guess]], device=p.device)
    rest = (p - q).clamp(min=0)
    return draw(rest.log()[None], 1, 1, torch.zeros(1, dtype=torch.int64, device=p.device), s.generator)
