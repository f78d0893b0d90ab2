"""Beam search: the most likely texts found by extending the few best at a time.

Plain beam search is the search with one group. In diverse beam search (Vijayakumar et al. 2016, arXiv 1610.02424) the
groups of a prompt's beams go one after another, and what one has just chosen makes the same word dearer for the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from polyformer.generation.best import largest, log_total
from polyformer.generation.chance import draw
from polyformer.generation.processors import NEVER, Diversity
from polyformer.generation.search import Found, Search

UNBORN = -1e9  # sum of a beam that is a mere copy of the first, as all are at the start


class Text(NamedTuple):
    """A complete text: what it is worth, its tokens (length,), the rows its new tokens were chosen in."""

    worth: float
    tokens: Tensor
    trail: Tensor


@dataclass
class Hypotheses:
    """The `size` best complete texts of a prompt.

    A text is worth its log-probability / length ** penalty (after Wu et al. 2016, arXiv 1609.08144, section 7). Its
    length counts the prompt, padding too, and not eos.

    early: True, False or "never", see GenerationConfig.early_stopping.
    end: tokens of the longest text.
    """

    size: int
    penalty: float
    early: bool | str
    end: int
    texts: list[Text] = field(default_factory=list)
    closed: bool = False

    def worth(self, total: float, length: int) -> float:
        return float(total / length**self.penalty)

    def add(self, total: float, length: int, tokens: Tensor, trail: Tensor) -> None:
        """Keep a text, unless `size` better ones are known."""
        text = Text(self.worth(total, length), tokens, trail)
        if len(self.texts) < self.size:
            self.texts.append(text)
            return
        values = [known.worth for known in self.texts]
        if text.worth > min(values):
            self.texts[values.index(min(values))] = text

    def close(self, best: float, length: int) -> None:
        """End the search once there are enough texts and, unless it ends early, `best` is no longer worth more."""
        if len(self.texts) >= self.size and not self.closed:
            longest = self.end if self.early == "never" and self.penalty > 0 else length
            hopeless = min(text.worth for text in self.texts) >= self.worth(best, longest)
            self.closed = self.early is True or hopeless

    def best(self, count: int) -> list[Text]:
        """Best first; of equals the later. Where there are not so many, the last comes again and is worth -inf."""
        ranked = sorted(self.texts, key=lambda text: text.worth)[::-1][:count]
        return ranked + [ranked[-1]._replace(worth=NEVER)] * (count - len(ranked))


class Candidates(NamedTuple):
    """How texts may go on, each (prompts, candidates): sums, beams, tokens, whether they end; the first preferred.

    As many do not end as there are beams; a sum of -inf is none.
    """

    totals: Tensor
    beams: Tensor
    tokens: Tensor
    ended: Tensor

    def going_on(self, beams: int) -> Tensor:
        """(prompts, candidates) -> (prompts, beams): the best that do not end."""
        return self.ended.to(torch.uint8).argsort(dim=1, stable=True)[:, :beams]


class Plan:
    """How beams go on: by the best words, or drawn ones.

    nothing: what is said where no text was found.
    """

    nothing = (
        "nothing can be written: every word is forbidden (by bad_words_ids, prefix_allowed_tokens_fn or the like)."
    )

    def candidates(self, s: Search, value: Tensor, ids: Tensor, place: Tensor, prompts: int) -> Candidates:
        """The best extensions, or drawn ones, best first.

        Args:
            value: (living prompts, beams, words), sums of the texts with each word.
            ids: (living prompts * beams, length).
            place: (living prompts,), which of all `prompts` they are.
        """
        beams, words = value.shape[1:]
        flat = value.flatten(1)
        count = min(beams * max(2, 1 + len(s.options.eos_ids)), beams * words)
        if s.options.do_sample:
            dead = (flat == NEVER).all(1, keepdim=True)  # the search is over, but not for the others
            drawn = draw(flat.masked_fill(dead, 0), count, prompts, place, s.generator)
            totals, order = flat.gather(1, drawn).sort(descending=True)
            places = drawn.gather(1, order)
        else:
            totals, places = largest(flat, count)
        tokens = places % words
        return Candidates(totals, places // words, tokens, torch.isin(tokens, s.eos))

    def best(self, s: Search, logits: Tensor, allowed: Tensor, sums: Tensor) -> Candidates:
        """The same as `candidates` where words are forbidden at most: only the best of a beam are summed up.

        Args:
            logits: (living prompts * beams, words). allowed: the same, -inf where a word may not come.
            sums: (living prompts, beams).
        """
        prompts, beams = sums.shape
        wanted = beams * max(2, 1 + len(s.options.eos_ids))
        values, tokens = largest(allowed, min(wanted, logits.shape[1]))
        values = values - log_total(logits) + sums.view(-1, 1)
        totals, places = values.view(prompts, -1).topk(min(wanted, values.numel() // prompts))
        best = tokens.view(prompts, -1).gather(1, places)
        return Candidates(totals, places // values.shape[1], best, torch.isin(best, s.eos))

    def accepts(self, text: Tensor) -> bool:
        """Whether a text (length,) may be an answer."""
        return True


def beam_search(s: Search, count: int, plan: Plan | None = None) -> Found:
    """The `count` best texts of each prompt.

    Raises:
        ValueError: there is none.
    """
    o = s.options
    plan = plan or Plan()
    beams = o.num_beams
    found = [Hypotheses(beams, o.length_penalty, o.early_stopping, s.end) for _ in range(len(s.ids) // beams)]
    living = list(range(len(found)))  # the prompts that are still searched
    sums = s.ids.new_zeros(len(found), o.num_beam_groups, beams // o.num_beam_groups, dtype=torch.float32)
    if not o.do_sample:  # drawn beams go apart by themselves
        sums[:, :, 1:] = UNBORN
    ids, trail = s.ids, s.ids.new_empty(len(s.ids), 0)
    plain = _plain(s, plan)
    while True:
        scores = s.step(ids) if plain else s.step(ids).log_softmax(-1)
        sources, tokens, sums = _extend(s, plan, ids, trail, scores, sums.to(scores.dtype), found, living)
        rows = sources.flatten()
        ids = torch.cat([ids[rows], tokens.flatten()[:, None]], 1)
        trail = torch.cat([trail[rows], rows[:, None]], 1)
        stopped = s.stop(ids, scores)
        if isinstance(stopped, Tensor):
            sums = _keep_stopped(plan, stopped, ids, trail, sums, found, living)
        going = [i for i, prompt in enumerate(living) if not found[prompt].closed]
        if not going or stopped is True:
            break
        if s.compact and len(going) < len(living):
            living = [living[i] for i in going]
            at = torch.tensor(going, device=ids.device)
            rows, ids, trail = (x.unflatten(0, (-1, beams))[at].flatten(0, 1) for x in (rows, ids, trail))
            sums = sums[at]
            s.process.keep(at)
        if not _same_rows(rows, len(scores)):
            s.decoder.reorder(rows)
    _add(plan, found, living, ids, trail, sums)  # what was not ended is a text too
    if not all(one.texts for one in found):
        raise ValueError(plan.nothing)
    return _gather([text for one in found for text in one.best(count)], s)


def _extend(
    s: Search,
    plan: Plan,
    ids: Tensor,
    trail: Tensor,
    scores: Tensor,
    sums: Tensor,
    found: list[Hypotheses],
    living: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """One word more for every beam; texts that end are kept in `found`.

    Args:
        ids: (prompts * beams, length); scores: (prompts * beams, words), log-probabilities, or logits where the search
            is plain.
        sums: (prompts, groups, beams of a group), log-probability of each beam.

    Returns:
        the row each new beam comes from, its new token, its sum; all like `sums`.
    """
    prompts, groups, beams = sums.shape
    rows = torch.arange(len(ids), device=ids.device).view(prompts, groups, beams)
    if _plain(s, plan):
        c = plan.best(s, scores, s.process(ids, scores, s.decoder.padding), sums[:, 0])
        _keep_ended(plan, c, rows[:, 0], ids, trail, found, living)
        best = c.going_on(beams)
        sources, tokens, totals = (t.gather(1, best)[:, None] for t in (c.beams, c.tokens, c.totals))
        return rows[:, 0].gather(1, sources[:, 0])[:, None], tokens, totals
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
        c = plan.candidates(s, value.view(prompts, beams, -1), ids[mine], place, len(found))
        _keep_ended(plan, c, rows[:, g], ids, trail, found, living)
        best = c.going_on(beams)
        sources[:, g] = rows[:, g].gather(1, c.beams.gather(1, best))
        tokens[:, g], totals[:, g] = c.tokens.gather(1, best), c.totals.gather(1, best)
    if s.scores is not None:
        s.saw(torch.cat(seen, 1).view(len(ids), -1))
    return sources, tokens, totals


def _plain(s: Search, plan: Plan) -> bool:
    """Whether nothing looks at the scores of words, or does more than forbid some, before the best are taken."""
    o = s.options
    changed = not s.process.only_forbid or s.warp.all or o.do_sample or o.num_beam_groups > 1
    return type(plan) is Plan and not (changed or s.scores is not None or s.stop.foreign)


def _keep_ended(
    plan: Plan,
    c: Candidates,
    rows: Tensor,
    ids: Tensor,
    trail: Tensor,
    found: list[Hypotheses],
    living: Sequence[int],
) -> None:
    """Keep the texts that end among the best, as many as there are beams; then see which prompts are done."""
    length, beams = ids.shape[1], rows.shape[1]
    going = [not found[prompt].closed for prompt in living]
    for i, rank in (c.ended & (c.totals > NEVER))[:, :beams].nonzero().tolist():
        row = rows[i, c.beams[i, rank]]
        text = torch.cat([ids[row], c.tokens[i, rank, None]])
        if going[i] and plan.accepts(text):
            found[living[i]].add(float(c.totals[i, rank]), length, text, torch.cat([trail[row], row[None]]))
    for i, best in enumerate(c.totals.amax(1).tolist()):
        found[living[i]].close(best, length)


def _keep_stopped(
    plan: Plan,
    stopped: Tensor,
    ids: Tensor,
    trail: Tensor,
    sums: Tensor,
    found: list[Hypotheses],
    living: Sequence[int],
) -> Tensor:
    """Beams that a criterion ends are texts, and go on no more: sums (prompts, groups, beams of a group)."""
    ended = stopped.view_as(sums)
    _add(plan, found, living, ids, trail, sums.masked_fill(~ended, NEVER))
    sums = sums.masked_fill(ended, NEVER)
    for prompt, best in zip(living, sums.flatten(1).amax(1).tolist(), strict=True):
        found[prompt].close(best, ids.shape[1])
        found[prompt].closed |= best == NEVER
    return sums


def _add(plan: Plan, found: list[Hypotheses], living: Sequence[int], ids: Tensor, trail: Tensor, sums: Tensor) -> None:
    """Keep the texts of those beams that have a sum, of prompts that are still searched."""
    beams = len(ids) // len(living)
    for i, totals in enumerate(sums.flatten(1).tolist()):
        one = found[living[i]]
        for row, total in enumerate(totals, i * beams):
            if total > NEVER and not one.closed and plan.accepts(ids[row]):
                one.add(total, ids.shape[1], ids[row], trail[row])


def _gather(best: Sequence[Text], s: Search) -> Found:
    """Texts side by side."""
    longest = max(len(text.tokens) for text in best)
    sequences = s.ids.new_full((len(best), longest), s.pad)
    trail = s.ids.new_full((len(best), longest - s.ids.shape[1]), -1)
    for i, text in enumerate(best):
        sequences[i, : len(text.tokens)] = text.tokens
        trail[i, : len(text.trail)] = text.trail
    return Found(sequences, torch.tensor([text.worth for text in best], device=s.ids.device), trail)


def _same_rows(rows: Tensor, before: int) -> bool:
    return len(rows) == before and bool((rows == torch.arange(before, device=rows.device)).all())
