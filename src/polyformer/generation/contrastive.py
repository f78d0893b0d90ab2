"""Contrastive search: likely words whose state is unlike those before, so that a text neither strays nor repeats.

Su et al. 2022, arXiv 2202.06417, equation 5: of the k most likely words v

    (1 - alpha) p(v | text) - alpha max over earlier tokens x of cos(h_v, h_x)

is to be greatest, where h are the states of the last layer.
"""

import torch
from torch import Tensor

from polyformer.generation.search import Found, Search, close_ranks


def contrastive_search(s: Search) -> Found:
    """Every step reads k words for each text and keeps one; (rows, length), pad after the end."""
    k, alpha, d = s.options.top_k, float(s.options.penalty_alpha or 0), s.decoder
    ids = s.ids
    written = ids.new_full((len(ids), s.end), s.pad)
    living = torch.arange(len(ids), device=ids.device)
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    logits = s.step(ids)
    context = _unit(d.states)  # (rows, length, width), lengths 1; 0 at padding
    if d.padding is not None:
        context = context.masked_fill(d.padding[:, :, None], 0)
    while True:
        scores = s.process(ids, logits, d.padding)
        s.saw(scores)
        p, words = scores.softmax(-1).topk(min(k, scores.shape[1]))  # (rows, k)
        rows = torch.arange(len(ids), device=ids.device).repeat_interleave(words.shape[1])
        d.reorder(rows)
        tried = torch.cat([ids[rows], words.flatten()[:, None]], 1)
        logits = d.step(tried)
        states = _unit(d.states[:, -1]).unflatten(0, words.shape)  # (rows, k, width)
        likeness = (states @ context.mT).amax(-1)
        best = ((1 - alpha) * p - alpha * likeness).masked_fill(p == 0, -torch.inf).argmax(-1)
        mine = torch.arange(len(ids), device=ids.device)
        chosen = words[mine, best].masked_fill(ended, s.pad)
        ids = torch.cat([ids, chosen[:, None]], 1)
        if s.streamer is not None:
            s.streamer.put(written.new_full((len(written),), s.pad).index_copy_(0, living, chosen).cpu())
        stopped = s.stop(ids, scores)
        ended = ended | torch.isin(chosen, s.eos) | stopped
        if bool(ended.all()):
            written[living, : ids.shape[1]] = ids
            d.keep_shown(None)
            return Found(written[:, : ids.shape[1]])
        going = mine
        if s.compact and bool(ended.any()):
            written[living[ended], : ids.shape[1]] = ids[ended]
            going = close_ranks(ended)
            ids, living, ended, best = ids[going], living[going], ended[going], best[going]
            s.process.keep(going)
        taken = going * words.shape[1] + best
        d.reorder(taken)
        d.keep_shown(taken)
        logits = logits[taken]
        if s.logits is not None:
            s.logits.append(logits)
        context = torch.cat([context[going], states[going, best][:, None]], 1)


def _unit(states: Tensor) -> Tensor:
    return torch.nn.functional.normalize(states.float(), dim=-1)
