"""What options can be, alone and together: ValueError in one sentence for what cannot."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyformer.generation.config import GenerationConfig

FROM_ONE = (
    "num_beams", "num_beam_groups", "num_return_sequences", "max_length", "max_new_tokens", "prompt_lookup_num_tokens",
    "max_matching_ngram_size", "num_assistant_tokens",
)  # fmt: skip
FROM_ZERO = ("min_length", "min_new_tokens", "top_k", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size")
FACTORS = ("temperature", "repetition_penalty", "encoder_repetition_penalty")
SCHEDULES = ("constant", "heuristic", "heuristic_transient")


def check_options(o: "GenerationConfig") -> None:
    """Raise ValueError for what cannot be done."""
    for name in (*FROM_ONE, *FROM_ZERO):
        least = int(name in FROM_ONE)
        value = getattr(o, name)
        if isinstance(value, type(o)):
            raise TypeError(f"a GenerationConfig was given as {name}: give it by name, generation_config=...")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ValueError(f"{name} is {value!r}; give a whole number, at least {least}.")
    _check_numbers(o)
    _check_lists(o)
    _check_beams(o)


def _check_numbers(o: "GenerationConfig") -> None:
    for name in FACTORS:
        if not getattr(o, name) > 0:
            raise ValueError(f"{name} is {getattr(o, name)!r}; give a number above 0 (1 changes nothing).")
    for name in ("top_p", "typical_p"):
        if not 0 < getattr(o, name) <= 1:
            raise ValueError(
                f"{name} is {getattr(o, name)!r}; give a probability above 0 and up to 1 (1 cuts nothing)."
            )
    for name in ("min_p", "epsilon_cutoff", "eta_cutoff"):
        if not 0 <= (getattr(o, name) or 0) < 1:
            raise ValueError(f"{name} is {getattr(o, name)!r}; give a probability from 0 (cuts nothing) to below 1.")
    if not 0 <= (o.penalty_alpha or 0) <= 1:
        raise ValueError(f"penalty_alpha is {o.penalty_alpha!r}; give a number from 0 (greedy) to 1.")
    if not (isinstance(o.early_stopping, bool) or o.early_stopping == "never"):
        raise ValueError(f"early_stopping is {o.early_stopping!r}; give True, False or 'never'.")
    if o.num_assistant_tokens_schedule not in SCHEDULES:
        raise ValueError(
            f"num_assistant_tokens_schedule is {o.num_assistant_tokens_schedule!r}; give one of {', '.join(SCHEDULES)}."
        )


def _check_lists(o: "GenerationConfig") -> None:
    if not _listed(o.bad_words_ids, is_word):
        raise ValueError("bad_words_ids takes a list of words, each a list of at least one token id: [[5], [6, 8]].")
    if not _listed(o.force_words_ids, _forced):
        raise ValueError(
            "force_words_ids takes a list of words, each a list of token ids, or a list of such one of which is "
            "enough: [[5], [[6, 8], [7]]]."
        )
    bias = o.sequence_bias
    if not (_listed([*map(list, bias)], is_word) if isinstance(bias, dict) else _listed(bias, _biased)):
        raise ValueError("sequence_bias takes pairs of token ids and a number: [[[5], -1.5], [[6, 8], 3.0]].")
    for name in ("suppress_tokens", "begin_suppress_tokens"):
        if not _listed(getattr(o, name), is_id):
            raise ValueError(f"{name} takes a list of token ids: [5, 6].")
    decay = o.exponential_decay_length_penalty
    if decay is not None and not (len(decay) == 2 and decay[0] >= 0 and decay[1] > 0):
        raise ValueError(
            f"exponential_decay_length_penalty is {decay!r}; give new tokens from which on, and a factor: (15, 1.2)."
        )


def _check_beams(o: "GenerationConfig") -> None:
    if o.num_beam_groups > o.num_beams or o.num_beams % o.num_beam_groups:
        raise ValueError(
            f"{o.num_beams} beams cannot be shared by {o.num_beam_groups} groups: make num_beams a multiple of "
            f"num_beam_groups."
        )
    if o.num_beam_groups > 1 and o.do_sample:
        raise ValueError("groups of beams are not sampled: set do_sample=False or num_beam_groups=1.")
    if o.diversity_penalty < 0:
        raise ValueError(f"diversity_penalty is {o.diversity_penalty!r}; give a number of at least 0.")
    if o.diversity_penalty and o.num_beam_groups == 1:
        raise ValueError("diversity_penalty pushes groups of beams apart: set num_beam_groups to 2 or more.")
    if o.num_return_sequences > o.num_beams and not o.do_sample:
        raise ValueError(
            f"{o.num_return_sequences} sequences cannot come out of {o.num_beams} beam{'s' * (o.num_beams > 1)}: raise "
            f"num_beams to num_return_sequences or more, or set do_sample=True."
        )


def is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_word(value: Any) -> bool:
    """Whether it is a list of at least one token id."""
    return isinstance(value, list | tuple) and bool(value) and all(map(is_id, value))


def _forced(value: Any) -> bool:
    return is_word(value) or (isinstance(value, list | tuple) and bool(value) and all(map(is_word, value)))


def _biased(value: Any) -> bool:
    return (
        isinstance(value, list | tuple) and len(value) == 2 and is_word(value[0]) and isinstance(value[1], int | float)
    )


def _listed(values: Any, fits: Callable[[Any], bool]) -> bool:
    return values is None or (isinstance(values, list | tuple) and all(map(fits, values)))
