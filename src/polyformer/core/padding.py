"""Padding that is told otherwise than by an attention_mask: by its id, or by the lengths of the texts."""

from typing import Any

from polyformer.parts.layout import seen_tokens
from polyformer.parts.state import State


def told_by_mask(inputs: dict[str, Any], pad: int) -> dict[str, Any]:
    """A model's inputs with an attention_mask in place of `lengths` and of the id `pad`, for what comes after it."""
    inputs = dict(inputs)
    lengths, cache = inputs.pop("lengths", None), inputs.get("cache")
    ids, vectors = inputs.get("input_ids"), inputs.get("inputs_embeds")
    if inputs.get("attention_mask") is None and (ids is not None or vectors is not None):
        past = 0 if cache is None else State.of(cache).length
        inputs["attention_mask"] = seen_tokens(ids, vectors, lengths, pad, past)
    return inputs
