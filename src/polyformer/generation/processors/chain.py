"""From options to processors."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from polyformer.generation.config import GenerationConfig
from polyformer.generation.processors.base import Processor, Processors
from polyformer.generation.processors.distribution import (
    EpsilonCutoff,
    EtaCutoff,
    MinP,
    RemoveInvalid,
    Renormalized,
    Temperature,
    TopK,
    TopP,
    Typical,
)
from polyformer.generation.processors.length import ForcedToken, LengthDecay, MinLength
from polyformer.generation.processors.repetition import (
    EncoderNoRepeatNGram,
    EncoderRepetitionPenalty,
    NoRepeatNGram,
    RepetitionPenalty,
)
from polyformer.generation.processors.words import BadWords, PrefixAllowed, PrefixFunction, SequenceBias, Suppress


def processors_for(
    o: GenerationConfig,
    start: int,
    end: int,
    prompts: Sequence[int],
    source: Tensor | None = None,
    prompt: Tensor | None = None,
    allowed: PrefixFunction | None = None,
    more: Iterable[Processor] = (),
) -> Processors:
    """What the options ask for, in Transformers' order.

    Args:
        start, end: tokens of the prompt, and of the longest text.
        prompts: the number of each text's prompt.
        source: (texts, length) what an encoder read, -1 for padding; prompt: what there is in its place without one.
        allowed: see PrefixAllowed.
        more: the user's own.
    """
    found: list[Processor] = []
    if o.sequence_bias:
        found.append(SequenceBias(o.sequence_bias))
    read = prompt if source is None else source
    if o.encoder_repetition_penalty != 1 and read is not None:
        found.append(EncoderRepetitionPenalty(o.encoder_repetition_penalty, read))
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
        found.append(PrefixAllowed(allowed, prompts, start))
    if o.forced_bos_token_id is not None:
        found.append(ForcedToken(1, [o.forced_bos_token_id]))
    if o.forced_eos_token_id is not None:
        forced = o.forced_eos_token_id
        found.append(ForcedToken(end - 1, forced if isinstance(forced, list | tuple) else [forced]))
    if o.remove_invalid_values:
        found.append(RemoveInvalid())
    if o.exponential_decay_length_penalty and o.eos_ids:
        since, factor = o.exponential_decay_length_penalty
        found.append(LengthDecay(start + since, factor, o.eos_ids))
    if o.suppress_tokens:
        found.append(Suppress(o.suppress_tokens))
    if o.begin_suppress_tokens:
        forced_first = start == 1 and o.forced_bos_token_id is not None
        found.append(Suppress(o.begin_suppress_tokens, start + forced_first))
    last = [Renormalized()] if o.renormalize_logits and (o.num_beams > 1 or not o.do_sample) else []
    return Processors([*found, *more, *last])


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
    if o.min_p:
        found.append(MinP(o.min_p, least))
    if o.typical_p < 1:
        found.append(Typical(o.typical_p, least))
    if o.epsilon_cutoff:
        found.append(EpsilonCutoff(o.epsilon_cutoff, least))
    if o.eta_cutoff:
        found.append(EtaCutoff(o.eta_cutoff, least))
    if o.renormalize_logits and o.num_beams == 1:
        found.append(Renormalized())
    return Processors(found)
