"""Writing text: from a user's options to a search."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polyformer.core.outputs import ModelOutput
from polyformer.generation.chance import Chance, seeded
from polyformer.generation.config import GenerationConfig, option_names, refuse_unknown
from polyformer.generation.constraints import Constraint, constraints_of
from polyformer.generation.decoder import arguments, say_once
from polyformer.generation.inputs import Ids, Prompts, read_prompts
from polyformer.generation.outputs import class_of
from polyformer.generation.processors import PrefixFunction, Processor
from polyformer.generation.search import Found, Streamer
from polyformer.generation.stopping import Criterion, criteria_for
from polyformer.generation.strategies import CONTRAST, STRATEGIES, Writing

# arguments of a model that only a search can know
OWN = {"labels", "position_ids", "inputs_embeds", "past_key_values", "mems", "logits_to_keep", "return_dict"}


@torch.no_grad()
def generate(
    model: Any,
    input_ids: Ids | None = None,
    attention_mask: Tensor | None = None,
    *,
    generation_config: GenerationConfig | None = None,
    prefix_allowed_tokens_fn: PrefixFunction | None = None,
    logits_processor: Iterable[Processor] | None = None,
    stopping_criteria: Iterable[Criterion] | None = None,
    constraints: Iterable[Constraint] | None = None,
    assistant_model: Any = None,
    streamer: Streamer | None = None,
    tokenizer: Any = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | Tensor | None = None,
    prefix_ids: Sequence[int] | Tensor | None = None,
    **options: Any,
) -> Tensor | ModelOutput:
    """Continue prompts, or with an encoder-decoder write what belongs to a source.

    Args:
        input_ids: (prompts, length) int64, padded on either side, or a list of prompts (lists, or tensors (length,)) of
            any length; none = begin with bos.
        attention_mask: (prompts, length), 0 = padding; by default what is pad_token_id, unless that is eos.
        generation_config: used instead of the model's.
        prefix_allowed_tokens_fn: called with a prompt's number and (tokens,) so far; gives the ids that may come next.
            A Guide (of a trie, a regular expression, a grammar) is one.
        logits_processor, stopping_criteria: more of what polyformer.generation.processors and .stopping describe.
        constraints: what beams must write, beside force_words_ids.
        assistant_model: a smaller model of the same vocabulary that writes ahead, for this one to check.
        streamer: is told of the tokens as they come (TextStreamer, TextIteratorStreamer); not with beams.
        tokenizer: with stop_strings, to know the text.
        generator: source of chance when sampling, on the model's device; torch's own by default.
        seeds: in its place, one for each text that is sampled, whose draws then do not hang on the other rows.
        prefix_ids: (tokens,) read before every prompt and left out of the answers: the padding text that gives short
            prompts a context (Transformer-XL, XLNet). They do not count in max_length.
        options: fields of GenerationConfig, and the model's own inputs (token_type_ids, encoder_outputs, ...).

    Returns:
        (prompts * num_return_sequences, length) int64, prompts included (padding on the left where they differ in
        length), or with return_dict_in_generate one of polyformer.generation.outputs. A text that has ended takes no
        more computing; all rows stay in the batch where scores, attentions or hidden states are wanted, or the user's
        own processors or criteria look at them.

    Raises:
        ValueError: options that contradict each other or do not fit the prompt.
        TypeError: an unknown option (with the likely name), or a model without a language model head.
    """
    _check_model(model)
    o, inputs = _sort_options(model, generation_config, options)
    _choose_pad(o)
    prompts = read_prompts(model, input_ids, attention_mask, o, inputs, prefix_ids)
    o = o.replaced(max_length=o.max_length + prompts.before, min_length=o.min_length + prompts.before)
    w = Writing(
        model, o, prompts, _end(o, prompts.ids.shape[1]), prefix_allowed_tokens_fn,
        list(logits_processor or ()), criteria_for(o, stopping_criteria or (), tokenizer),
        [*constraints_of(o.force_words_ids), *(constraints or ())], assistant_model, streamer,
        _chance(o, prompts, generator, seeds),
    )  # fmt: skip
    name, strategy = next((name, s) for name, s in STRATEGIES.items() if s.wanted(w))
    strategy.check(name, w)
    if streamer is not None:
        streamer.put(prompts.own.repeat_interleave(w.texts_a_prompt, 0).cpu())
    try:
        found = strategy.run(w)
    finally:
        if streamer is not None:
            streamer.end()
    return _result(w, name, found)


def _check_model(model: Any) -> None:
    """Raise unless the model has scores of words to give."""
    if not hasattr(model, "generate") and model.get_output_embeddings() is None:
        raise TypeError(
            f"{type(model).__name__} has no language model head and cannot write: load the checkpoint with a class "
            f"that has one (AutoModelForCausalLM, AutoModelForSeq2SeqLM)."
        )


def _sort_options(
    model: Any, given: GenerationConfig | None, options: Mapping[str, Any]
) -> tuple[GenerationConfig, dict[str, Any]]:
    """The options in force, and what goes to the model."""
    known, taken = option_names(), arguments(model)
    refuse_unknown(f"{type(model).__name__}.generate", options, {*known, *taken, "encoder_outputs"})
    base = given or getattr(model, "generation_config", None) or GenerationConfig.of_model(model.config)
    o = base.replaced(**{name: value for name, value in options.items() if name in known})
    o.check()
    inputs = {name: value for name, value in options.items() if name not in known and value is not None}
    if wrong := sorted(inputs.keys() & OWN):
        raise ValueError(f"generate looks after {wrong[0]} itself: leave it out.")
    return o, inputs


def _choose_pad(o: GenerationConfig) -> None:
    if o.pad_token_id is None and o.eos_ids:
        o.pad_token_id = o.eos_ids[0]
        say_once(f"There is no pad_token_id, so texts that have ended are filled with eos_token_id, {o.pad_token_id}.")


def _end(o: GenerationConfig, start: int) -> int:
    """Tokens of the longest text, from a prompt of `start`."""
    if o.max_new_tokens is not None:
        return start + o.max_new_tokens
    if o.max_length <= start:
        raise ValueError(
            f"the prompt has {start} tokens, which leaves no room for more under max_length={o.max_length}: raise "
            f"max_length or give max_new_tokens."
        )
    return o.max_length


def _chance(
    o: GenerationConfig, prompts: Prompts, generator: torch.Generator | None, seeds: Sequence[int] | Tensor | None
) -> Chance:
    if seeds is None:
        return generator
    texts = len(prompts.ids) * o.num_return_sequences
    if generator is not None or len(seeds) != texts:
        raise ValueError(f"seeds take the place of generator, one for each text that is sampled: {texts} here.")
    return seeded(seeds, prompts.ids.device)


def _result(w: Writing, name: str, found: Found) -> Tensor | ModelOutput:
    """What the user gets."""
    o, p, search = w.options, w.prompts, w.searches[0]
    sequences = found.sequences
    if p.before:
        own = p.own.repeat_interleave(len(sequences) // len(p.own), 0)
        sequences = torch.cat([own, sequences[:, p.ids.shape[1] :]], 1)
    if not o.return_dict_in_generate:
        return sequences
    values: dict[str, Any] = {name: tuple(steps) for name, steps in search.decoder.shown.items()}
    if search.logits is not None:
        values["logits"] = tuple(search.logits)
    if search.scores is not None:
        values["scores"] = tuple(search.scores)
        if found.worth is not None:
            values |= {"sequences_scores": found.worth, "beam_indices": found.trail}
    encoded = bool(w.model.config.is_encoder_decoder)
    if encoded:
        for kind in ("attentions", "hidden_states"):
            if getattr(o, f"output_{kind}"):
                values[f"encoder_{kind}"] = getattr(w.prompts.inputs["encoder_outputs"], kind, None)
    return class_of(encoded, o.num_beams > 1, o.do_sample, name == CONTRAST)(sequences=sequences, **values)
