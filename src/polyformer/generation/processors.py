"""What changes the scores of the next word before one is chosen.

A processor is called with `ids` (rows, length) int64, all tokens so far, and `scores` (rows, words), logits or
log-probabilities, and gives scores of the same shape; -inf is a word that may not come. Those here are shown -1 in
place of padding, which is no token to them. Rows lie prompt by prompt, as many to a prompt as there are beams.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from polyformer.generation.config import GenerationConfig

Processor = Callable[[Tensor, Tensor], Tensor]
PrefixFunction = Callable[[int, Tensor], Sequence[int]]

NEVER = float("-inf")


class LogitsProcessor:
    """Base of those here.

    per_prompt: whether it must know which prompt a row belongs to, so that no row may leave the batch.
    """

    per_prompt = False

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        raise NotImplementedError


class RepetitionPenalty(LogitsProcessor):
    """Scores of words that occur are divided by the penalty where positive, multiplied where negative.

    Keskar et al. 2019, CTRL, arXiv 1909.05858, section 4.1.
    """

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        occurs = _mark(ids, torch.ones_like(ids, dtype=torch.bool), scores)
        return torch.where(occurs, torch.where(scores < 0, scores * self.penalty, scores / self.penalty), scores)


class NoRepeatNGram(LogitsProcessor):
    """No run of `size` tokens comes twice (Paulus et al. 2017, arXiv 1705.04304, section 2.5)."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        return _forbid_runs(ids, ids, self.size, scores)


class EncoderNoRepeatNGram(LogitsProcessor):
    """No run of `size` tokens of the source (prompts, length) is copied."""

    per_prompt = True

    def __init__(self, size: int, source: Tensor) -> None:
        self.size, self.source = size, source

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        beams = len(ids) // len(self.source)
        return _forbid_runs(self.source.repeat_interleave(beams, 0), ids, self.size, scores)


class BadWords(LogitsProcessor):
    """Words, of one or several tokens, that may not be written; eos alone cannot be one."""

    def __init__(self, words: Sequence[Sequence[int]], eos_ids: Sequence[int] = ()) -> None:
        kept = [tuple(w) for w in words if not (len(w) == 1 and w[0] in eos_ids)]
        self.largest = max((i for w in kept for i in w), default=-1)
        self.single = torch.tensor([w[0] for w in kept if len(w) == 1], dtype=torch.int64)
        self.longer: dict[int, Tensor] = {}  # length -> (words, length)
        for length in sorted({len(w) for w in kept} - {1}):
            self.longer[length] = torch.tensor([w for w in kept if len(w) == length])

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        if self.largest >= scores.shape[1]:
            raise ValueError(f"bad_words_ids has {self.largest}, but the model's words are 0 to {scores.shape[1] - 1}.")
        scores = scores.index_fill(1, self.single.to(ids.device), NEVER)
        for length, words in self.longer.items():
            if length > ids.shape[1] + 1:
                continue
            words = words.to(ids.device)
            # (rows, 1, length - 1) against (words, length - 1) -> (rows, words)
            begun = (ids[:, None, 1 - length :] == words[:, :-1]).all(-1)
            last = words[:, -1].expand(len(ids), -1)
            scores = scores.masked_fill(_mark(last, begun, scores), NEVER)
        return scores


class MinLength(LogitsProcessor):
    """No eos before the text, prompt included, has `length` tokens."""

    def __init__(self, length: int, eos_ids: Sequence[int]) -> None:
        self.length, self.eos_ids = length, list(eos_ids)

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        if ids.shape[1] >= self.length:
            return scores
        return scores.index_fill(1, torch.tensor(self.eos_ids, device=scores.device), NEVER)


class PrefixAllowed(LogitsProcessor):
    """Only what `allowed(prompt number, tokens so far)` names may come (De Cao et al. 2020, arXiv 2010.00904)."""

    per_prompt = True

    def __init__(self, allowed: PrefixFunction, prompts: int) -> None:
        self.allowed, self.prompts = allowed, prompts

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        beams = len(ids) // self.prompts
        kept = torch.zeros_like(scores, dtype=torch.bool)
        for row, tokens in enumerate(ids):
            kept[row, list(self.allowed(row // beams, tokens[tokens >= 0]))] = True
        return scores.masked_fill(~kept, NEVER)


class ForcedToken(LogitsProcessor):
    """The token after the first `length` is this one: the language after a decoder's start, or eos at the very end."""

    def __init__(self, length: int, tokens: Sequence[int]) -> None:
        self.length, self.tokens = length, list(tokens)

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        if ids.shape[1] != self.length:
            return scores
        return torch.full_like(scores, NEVER).index_fill(1, torch.tensor(self.tokens, device=scores.device), 0.0)


class RemoveInvalid(LogitsProcessor):
    """NaN becomes 0 and infinity the largest number, so that a model that overflows goes on."""

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        return scores.nan_to_num(0.0, torch.finfo(scores.dtype).max, NEVER)


class Temperature(LogitsProcessor):
    """Above 1 flattens the distribution, below 1 sharpens it."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        return scores / self.temperature


class TopK(LogitsProcessor):
    """Only the k best words may come, and those as good as the last of them (Fan et al. 2018, arXiv 1805.04833)."""

    def __init__(self, k: int) -> None:
        self.k = k

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        worst = scores.topk(min(self.k, scores.shape[1])).values[:, -1:]
        return scores.masked_fill(scores < worst, NEVER)


class TopP(LogitsProcessor):
    """Only the fewest best words whose probabilities sum to more than p may come, and `least` of them at any rate.

    Nucleus sampling: Holtzman et al. 2019, arXiv 1904.09751, section 3.1.
    """

    def __init__(self, p: float, least: int = 1) -> None:
        self.p, self.least = p, least

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        ranked, words = scores.sort(descending=True)
        better = ranked.softmax(-1).cumsum(-1).roll(1, -1)  # what the words before this one sum to
        surplus = better > self.p
        surplus[:, : self.least] = False
        return scores.masked_fill(torch.zeros_like(surplus).scatter(1, words, surplus), NEVER)


class Diversity:
    """Takes the penalty off a word's score for every beam of an earlier group that has just chosen it (Hamming).

    Vijayakumar et al. 2016, Diverse Beam Search, arXiv 1610.02424, section 3.
    """

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def __call__(self, scores: Tensor, chosen: Tensor) -> Tensor:
        """scores (prompts * beams, words) of one group, chosen (prompts, beams before) the earlier groups' tokens."""
        counts = scores.new_zeros(len(chosen), scores.shape[1])
        counts.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=scores.dtype))
        return scores - self.penalty * counts.repeat_interleave(len(scores) // len(chosen), 0)


class Processors:
    """Several, one after another. Those of the user see the tokens as they are, padding too."""

    def __init__(self, processors: Iterable[Processor]) -> None:
        self.all = list(processors)

    @property
    def per_prompt(self) -> bool:
        """Whether no row may leave the batch."""
        return any(getattr(p, "per_prompt", True) for p in self.all)

    def __call__(self, ids: Tensor, scores: Tensor, padding: Tensor | None = None) -> Tensor:
        """padding: (rows, prompt length) bool."""
        if not self.all:
            return scores
        seen = ids
        if padding is not None:
            seen = ids.clone()
            seen[:, : padding.shape[1]].masked_fill_(padding, -1)
        for processor in self.all:
            scores = processor(seen if isinstance(processor, LogitsProcessor) else ids, scores)
        return scores


def processors_for(
    o: GenerationConfig,
    start: int,
    end: int,
    prompts: int,
    source: Tensor | None = None,
    allowed: PrefixFunction | None = None,
    more: Iterable[Processor] = (),
) -> Processors:
    """What the options ask for, in 4.6's order.

    Args:
        start, end: tokens of the prompt, and of the longest text.
        prompts: how many.
        source: (prompts, length) what an encoder read, -1 for padding.
        allowed: see PrefixAllowed.
        more: the user's own.
    """
    found: list[Processor] = []
    if o.repetition_penalty != 1:
        found.append(RepetitionPenalty(o.repetition_penalty))
    if o.no_repeat_ngram_size:
        found.append(NoRepeatNGram(o.no_repeat_ngram_size))
    if o.encoder_no_repeat_ngram_size:
        if source is None:
            raise ValueError("encoder_no_repeat_ngram_size is for models with an encoder; this one reads no source.")
        found.append(EncoderNoRepeatNGram(o.encoder_no_repeat_ngram_size, source))
    if o.bad_words_ids:
        found.append(BadWords(o.bad_words_ids, o.eos_ids))
    least = max(o.min_length, start + (o.min_new_tokens or 0))
    if o.eos_ids and least > start:
        found.append(MinLength(least, o.eos_ids))
    if allowed is not None:
        found.append(PrefixAllowed(allowed, prompts))
    if o.forced_bos_token_id is not None:
        found.append(ForcedToken(1, [o.forced_bos_token_id]))
    if o.forced_eos_token_id is not None:
        found.append(ForcedToken(end - 1, [o.forced_eos_token_id]))
    if o.remove_invalid_values:
        found.append(RemoveInvalid())
    return Processors([*found, *more])


def warpers_for(o: GenerationConfig) -> Processors:
    """What shapes the distribution that is sampled from; beams always keep two words, since one may be eos."""
    least = 2 if o.num_beams > 1 else 1
    found: list[Processor] = []
    if not o.do_sample:
        return Processors(found)
    if o.temperature != 1:
        found.append(Temperature(o.temperature))
    if o.top_k:
        found.append(TopK(max(o.top_k, least)))
    if o.top_p < 1:
        found.append(TopP(o.top_p, least))
    return Processors(found)


def _mark(words: Tensor, which: Tensor, scores: Tensor) -> Tensor:
    """True, in the shape of `scores`, at those of `words` (rows, any) that `which` (rows, any) has, but not at -1."""
    count = scores.shape[1]
    places = torch.where(which & (words >= 0), words, count)  # one column more, for what is not to be marked
    marked = torch.zeros(len(scores), count + 1, dtype=torch.bool, device=scores.device)
    return marked.scatter_(1, places, True)[:, :count]


def _forbid_runs(text: Tensor, ids: Tensor, size: int, scores: Tensor) -> Tensor:
    """Forbid each word that would make the last `size` tokens of `ids` a run that `text` (rows, any) has."""
    if text.shape[1] < size or ids.shape[1] < size - 1:
        return scores
    runs = text.unfold(1, size, 1)  # (rows, runs, size)
    begun = ids[:, ids.shape[1] - size + 1 :]  # (rows, size - 1)
    same = (runs[..., :-1] == begun[:, None]).all(-1) & (runs >= 0).all(-1)
    return scores.masked_fill(_mark(runs[..., -1], same, scores), NEVER)
