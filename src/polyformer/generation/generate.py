"""Writing text: from a user's options to a search."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from polyformer.core.outputs import ModelOutput
from polyformer.generation.beams import beam_search
from polyformer.generation.config import GenerationConfig, option_names, refuse_unknown
from polyformer.generation.decoder import Decoder, EncodedDecoder, arguments, say_once
from polyformer.generation.outputs import CLASSES
from polyformer.generation.processors import PrefixFunction, Processor, processors_for, warpers_for
from polyformer.generation.search import Search, word_by_word
from polyformer.generation.stopping import Criterion, stop_for

# arguments of a model that only a search can know
OWN = {"labels", "position_ids", "inputs_embeds", "past_key_values", "logits_to_keep", "return_dict"}


@torch.no_grad()
def generate(
    model: Any,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    generation_config: GenerationConfig | None = None,
    prefix_allowed_tokens_fn: PrefixFunction | None = None,
    logits_processor: Iterable[Processor] | None = None,
    stopping_criteria: Iterable[Criterion] | None = None,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Tensor | ModelOutput:
    """Continue prompts, or with an encoder-decoder write what belongs to a source.

    Args:
        input_ids: (prompts, length) int64; none = begin with bos.
        attention_mask: (prompts, length), 0 = padding, which belongs on the left of a prompt; by default what is
            pad_token_id, unless that is eos.
        generation_config: used instead of the model's.
        prefix_allowed_tokens_fn: called with a prompt's number and (tokens,) so far; gives the ids that may come next.
        logits_processor, stopping_criteria: more of what polyformer.generation.processors and .stopping describe.
        generator: source of chance when sampling, on the model's device; torch's own by default.
        options: fields of GenerationConfig, and the model's own inputs (token_type_ids, encoder_outputs, ...).

    Returns:
        (prompts * num_return_sequences, length) int64, prompts included, or with return_dict_in_generate one of
        polyformer.generation.outputs. A text that has ended takes no more computing; all rows stay in the batch where
        scores, attentions or hidden states are wanted, or the user's own processors or criteria look at them.

    Raises:
        ValueError: options that contradict each other or do not fit the prompt.
        TypeError: an unknown option (with the likely name), or a model without a language model head.
    """
    _check_model(model)
    o, inputs = _sort_options(model, generation_config, options)
    _choose_pad(o)
    source, prompt, inputs = _inputs(model, input_ids, attention_mask, o, inputs)
    ids, real = prompt
    end = _end(o, ids.shape[1])
    copies = o.num_beams * (o.num_return_sequences if o.do_sample else 1)
    process = processors_for(o, ids.shape[1], end, len(ids), source, prefix_allowed_tokens_fn, logits_processor or ())
    stop = stop_for(o, end, stopping_criteria or ())
    show = _shown(model, o)
    kind = EncodedDecoder if model.config.is_encoder_decoder else Decoder
    search = Search(
        kind(model, real, copies, end, o.use_cache, inputs, show), ids.repeat_interleave(copies, 0), end, o, process,
        warpers_for(o), stop, generator,
        compact=not (show or _wants_scores(o) or process.per_prompt or stopping_criteria),
        scores=[] if _wants_scores(o) else None,
    )  # fmt: skip
    if o.num_beams == 1:
        return _result(model, search, word_by_word(search), None, inputs)
    count = 1 if o.do_sample else o.num_return_sequences
    return _result(model, search, *beam_search(search, count), inputs)


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


def _inputs(
    model: Any, ids: Tensor | None, mask: Tensor | None, o: GenerationConfig, inputs: dict[str, Any]
) -> tuple[Tensor | None, tuple[Tensor, Tensor | None], dict[str, Any]]:
    """The source an encoder reads (-1 = padding), the prompt and which of it is real, the model's other arguments."""
    if model.config.is_encoder_decoder:
        return _encoded(model, ids, mask, o, inputs)
    if ids is None:
        ids = _begin(o.bos_token_id, 1, model, "there is no prompt: give input_ids, or a bos_token_id to begin with.")
    real = _real(ids, mask, o)
    if real is not None and not bool(real[:, -1].all()):
        say_once(
            "A prompt has padding on its right, so that its text goes on from a pad: give padding_side='left' to the "
            "tokenizer."
        )
    return None, (ids, real), inputs


def _encoded(
    model: Any, ids: Tensor | None, mask: Tensor | None, o: GenerationConfig, inputs: dict[str, Any]
) -> tuple[Tensor | None, tuple[Tensor, Tensor | None], dict[str, Any]]:
    """The same for an encoder-decoder, whose source is read here."""
    outputs = inputs.pop("encoder_outputs", None)
    source = None
    if ids is None and outputs is None:
        ids = _begin(o.bos_token_id, 1, model, "there is no source: give input_ids, encoder_outputs or a bos_token_id.")
    if ids is not None:
        real = _real(ids, mask, o)
        mask = None if real is None else real.long()
        source = ids if real is None else ids.masked_fill(~real, -1)
    if outputs is None:
        wishes = {f"output_{kind}": True for kind in ("attentions", "hidden_states") if getattr(o, f"output_{kind}")}
        outputs = model.get_encoder()(input_ids=ids, attention_mask=mask, return_dict=True, **wishes)
    prompts = outputs[0].shape[0]
    start = o.bos_token_id if o.decoder_start_token_id is None else o.decoder_start_token_id
    begun = inputs.pop("decoder_input_ids", None)
    if begun is None:
        begun = _begin(start, prompts, model, "the decoder cannot begin: give decoder_start_token_id or bos_token_id.")
    begun_mask = inputs.pop("decoder_attention_mask", None)
    real = None if begun_mask is None else begun_mask.bool()
    return source, (begun, real), {**inputs, "encoder_outputs": outputs, "attention_mask": mask}


def _begin(token: int | None, rows: int, model: Any, otherwise: str) -> Tensor:
    if token is None:
        raise ValueError(otherwise)
    return torch.full((rows, 1), token, dtype=torch.int64, device=model.device)


def _real(ids: Tensor, mask: Tensor | None, o: GenerationConfig) -> Tensor | None:
    """Which tokens are no padding, (rows, length) bool; None = all."""
    if ids.dim() != 2 or not ids.shape[0] or not ids.shape[1] or ids.is_floating_point():
        raise ValueError(
            f"input_ids holds {str(ids.dtype).removeprefix('torch.')} of shape {tuple(ids.shape)}, but token ids of "
            f"shape (prompts, length), at least one of each, were expected."
        )
    if mask is not None:
        if mask.shape != ids.shape:
            raise ValueError(
                f"attention_mask has shape {tuple(mask.shape)}, but input_ids {tuple(ids.shape)}: make them alike."
            )
        return mask.bool()
    if o.pad_token_id is None or o.pad_token_id in o.eos_ids:
        return None
    return ids != o.pad_token_id


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


def _wants_scores(o: GenerationConfig) -> bool:
    return o.return_dict_in_generate and o.output_scores


def _shown(model: Any, o: GenerationConfig) -> tuple[str, ...]:
    """What to keep of the model's outputs, by the names it gives them."""
    if not o.return_dict_in_generate:
        return ()
    side = "decoder_" if model.config.is_encoder_decoder else ""
    attentions = (f"{side}attentions", *(("cross_attentions",) if side else ()))
    states = (f"{side}hidden_states",)
    return (*(attentions if o.output_attentions else ()), *(states if o.output_hidden_states else ()))


def _result(
    model: Any, s: Search, sequences: Tensor, worth: Tensor | None, inputs: Mapping[str, Any]
) -> Tensor | ModelOutput:
    """What the user gets."""
    o = s.options
    if not o.return_dict_in_generate:
        return sequences
    encoded = bool(model.config.is_encoder_decoder)
    values: dict[str, Any] = {name: tuple(steps) for name, steps in s.decoder.shown.items()}
    if s.scores is not None:
        values["scores"] = tuple(s.scores)
        if worth is not None:
            values["sequences_scores"] = worth
    if encoded:
        for kind in ("attentions", "hidden_states"):
            if getattr(o, f"output_{kind}"):
                values[f"encoder_{kind}"] = getattr(inputs["encoder_outputs"], kind, None)
    return CLASSES[encoded, o.num_beams > 1, o.do_sample](sequences=sequences, **values)
