"""Beam search: the most likely texts found by extending the few best at a time.

Plain beam search is the search with one group. In diverse beam search (Vijayakumar et al. 2016, arXiv 1610.02424) the
groups of a prompt's beams go one after another, and what one has just chosen makes the same word dearer for the next.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from polyformer.generation.processors import Diversity
from polyformer.generation.search import Search, draw

UNBORN = -1e9  # sum of a beam that is a mere copy of the first, as all are at the start


@dataclass
class Hypotheses:
    """The `size` best complete texts of a prompt.

    A text is worth its log-probability / length ** penalty (after Wu et al. 2016, arXiv 1609.08144, section 7). Its
    length counts the prompt, padding too, and not eos.
    """

    size: int
    penalty: float
    early: bool
    texts: list[tuple[float, Tensor]] = field(default_factory=list)
    closed: bool = False

    def worth(self, total: float, length: int) -> float:
        return float(total / length**self.penalty)

    def add(self, total: float, length: int, text: Tensor) -> None:
        """Keep a text (tokens,), unless `size` better ones are known."""
        value = self.worth(total, length)
        if len(self.texts) < self.size:
            self.texts.append((value, text))
            return
        values = [_value(known) for known in self.texts]
        if value > min(values):
            del self.texts[values.index(min(values))]
            self.texts.append((value, text))

    def close(self, best: float, length: int) -> None:
        """End the search once there are enough texts and, unless it ends early, `best` is no longer worth more."""
        if len(self.texts) >= self.size:
            self.closed = self.closed or self.early or min(map(_value, self.texts)) >= self.worth(best, length)

    def best(self, count: int) -> list[tuple[float, Tensor]]:
        """Best first; of equals the later."""
        return sorted(self.texts, key=_value)[::-1][:count]


def _value(text: tuple[float, Tensor]) -> float:
    return text[0]


def beam_search(s: Search, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best texts of each prompt, (prompts * count, length), pad after eos; and their worth, one a text."""
    o = s.options
    beams = o.num_beams
    found = [Hypotheses(beams, o.length_penalty, o.early_stopping) for _ in range(len(s.ids) // beams)]
    living = list(range(len(found)))  # the prompts that are still searched
    sums = s.ids.new_zeros(len(found), o.num_beam_groups, beams // o.num_beam_groups, dtype=torch.float32)
    if not o.do_sample:  # drawn beams go apart by themselves
        sums[:, :, 1:] = UNBORN
    ids = s.ids
    while True:
        scores = s.decoder.step(ids).log_softmax(-1)
        sources, tokens, sums = _extend(s, ids, scores, sums.to(scores.dtype), found, living)
        going = [i for i, prompt in enumerate(living) if not found[prompt].closed]
        if going and s.compact and len(going) < len(living):
            living = [living[i] for i in going]
            at = torch.tensor(going, device=ids.device)
            sources, tokens, sums = sources[at], tokens[at], sums[at]
        rows = sources.flatten()
        ids = torch.cat([ids[rows], tokens.flatten()[:, None]], 1)
        if not going or s.stop(ids, scores):
            break
        if not _same_rows(rows, len(scores)):
            s.decoder.reorder(rows)
    _add_unfinished(found, living, ids, sums)
    return _gather([text for one in found for text in one.best(count)], s)


def _extend(
    s: Search, ids: Tensor, scores: Tensor, sums: Tensor, found: list[Hypotheses], living: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """One word more for every beam; texts that end are kept in `found`.

    Args:
        ids: (prompts * beams, length); scores: (prompts * beams, words), log-probabilities.
        sums: (prompts, groups, beams of a group), log-probability of each beam.

    Returns:
        the row each new beam comes from, its new token, its sum; all like `sums`.
    """
    prompts, groups, beams = sums.shape
    rows = torch.arange(len(ids), device=ids.device).view(prompts, groups, beams)
    place = torch.tensor(living, device=ids.device)
    diversity = Diversity(s.options.diversity_penalty) if s.options.diversity_penalty else None
    sources, tokens, totals, seen = torch.empty_like(rows), torch.empty_like(rows), torch.empty_like(sums), []
    for g in range(groups):
        mine = rows[:, g].flatten()
        value = scores if groups == 1 else scores[mine]
        if diversity is not None:
            value = diversity(value, tokens[:, :g].flatten(1))
        padding = s.decoder.padding if groups == 1 or s.decoder.padding is None else s.decoder.padding[mine]
        value = s.process(ids[mine], value, padding) + sums[:, g].reshape(-1, 1)
        value = s.warp(ids[mine], value, padding)
        seen.append(value.view(prompts, 1, beams, -1))
        totals_of, beam, token, ended = _candidates(s, value.view(prompts, beams, -1), len(found), place)
        _keep_ended(totals_of, rows[:, g], beam, token, ended, ids, found, living)
        # (prompts, candidates) -> (prompts, beams): the best that go on
        best = ended.to(torch.uint8).argsort(dim=1, stable=True)[:, :beams]
        sources[:, g] = rows[:, g].gather(1, beam.gather(1, best))
        tokens[:, g], totals[:, g] = token.gather(1, best), totals_of.gather(1, best)
    s.saw(torch.cat(seen, 1).view(len(ids), -1))
    return sources, tokens, totals


def _candidates(s: Search, value: Tensor, total: int, place: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best extensions, or drawn ones, best first, enough for all beams to go on whatever ends.

    value (prompts, beams, words) -> sums, beams, tokens, whether they end; each (prompts, candidates).
    """
    prompts, beams, words = value.shape
    flat = value.view(prompts, beams * words)
    count = min(beams * max(2, 1 + len(s.options.eos_ids)), beams * words)
    if s.options.do_sample:
        drawn = draw(flat, count, total, place, s.generator)
        best, order = flat.gather(1, drawn).sort(descending=True)
        places = drawn.gather(1, order)
    else:
        best, places = flat.topk(count)
    token = places % words
    return best, places // words, token, torch.isin(token, s.eos)


def _keep_ended(
    totals: Tensor,
    rows: Tensor,
    beam: Tensor,
    token: Tensor,
    ended: Tensor,
    ids: Tensor,
    found: list[Hypotheses],
    living: list[int],
) -> None:
    """Keep the texts that end among the best, as many as there are beams; then see which prompts are done."""
    length, beams = ids.shape[1], rows.shape[1]
    going = [not found[prompt].closed for prompt in living]
    for i, rank in ended[:, :beams].nonzero().tolist():
        if going[i]:
            text = torch.cat([ids[rows[i, beam[i, rank]]], token[i, rank, None]])
            found[living[i]].add(float(totals[i, rank]), length, text)
    for i, best in enumerate(totals[:, 0].tolist()):
        found[living[i]].close(best, length)


def _add_unfinished(found: list[Hypotheses], living: list[int], ids: Tensor, sums: Tensor) -> None:
    """The beams of prompts whose search was stopped are texts too."""
    by_prompt = ids.view(len(living), -1, ids.shape[1])
    for prompt, texts, totals in zip(living, by_prompt, sums.flatten(1).tolist(), strict=True):
        if not found[prompt].closed:
            for text, total in zip(texts, totals, strict=True):
                found[prompt].add(total, ids.shape[1], text)


def _gather(best: list[tuple[float, Tensor]], s: Search) -> tuple[Tensor, Tensor]:
    """Texts side by side, (texts, length), and their worth (texts,)."""
    sequences = s.ids.new_full((len(best), max(len(text) for _, text in best)), s.pad)
    for row, (_, text) in zip(sequences, best, strict=True):
        row[: len(text)] = text
    return sequences, torch.tensor([value for value, _ in best], device=s.ids.device)


def _same_rows(rows: Tensor, before: int) -> bool:
    return len(rows) == before and bool((rows == torch.arange(before, device=rows.device)).all())
