"""What one call asks for, with the words `padding` and `truncation` resolved."""

from dataclasses import dataclass
from typing import Any

from polyformer.tokenizers import padding as pads
from polyformer.tokenizers import truncation as cuts
from polyformer.tokenizers.checks import choice, reject_unknown, warn
from polyformer.tokenizers.limits import NO_LIMIT
from polyformer.tokenizers.tensors import KINDS


@dataclass(frozen=True)
class Lengths:
    """How long rows may be and are to be: `padding` and `truncation` are None where a row is left as it is."""

    padding: str | None = None
    truncation: str | None = None
    max_length: int | None = None
    stride: int = 0
    multiple: int | None = None


@dataclass(frozen=True)
class Plan:
    """One call: lengths, and which columns to return."""

    lengths: Lengths
    special: bool
    tensors: str | None
    types: bool
    attention: bool
    overflow: bool
    special_mask: bool
    offsets: bool
    length: bool


def plan_lengths(
    padding: Any,
    truncation: Any,
    max_length: int | None,
    stride: int,
    multiple: int | None,
    limit: int,
    verbose: bool = True,
) -> Lengths:
    """Resolve the arguments of a call; `limit` is the tokenizer's model_max_length.

    padding: True or "longest", "max_length", False or "do_not_pad". truncation: True or "longest_first", "only_first",
    "only_second", False or "do_not_truncate". A max_length without either truncates, as in transformers.
    """
    for name, value, least in (
        ("max_length", max_length, 0),
        ("stride", stride, 0),
        ("pad_to_multiple_of", multiple, 1),
    ):
        if value is not None and (isinstance(value, bool) or not hasattr(value, "__index__") or value < least):
            raise ValueError(f"{name}={value!r} must be a whole number of at least {least}.")
    if max_length is not None and padding is False and truncation is False:
        truncation = True
    pad = _word("padding", padding, "longest", pads.STRATEGIES)
    cut = _word("truncation", truncation, "longest_first", cuts.STRATEGIES)
    if max_length is None and (cut or pad == "max_length"):
        if limit < NO_LIMIT:
            max_length = limit
        else:
            if verbose:
                warn(
                    "truncation=True or padding='max_length' does nothing here, as neither max_length nor the "
                    "tokenizer's model_max_length is set: pass max_length."
                )
            pad, cut = (None if pad == "max_length" else pad), None
    if cut and pad and multiple and max_length is not None and max_length % multiple:
        raise ValueError(
            f"max_length={max_length} is not a multiple of pad_to_multiple_of={multiple}, so that a truncated row "
            f"could not be padded to one: use max_length={max_length // multiple * multiple}."
        )
    return Lengths(pad, cut, max_length, stride, multiple)


def _word(name: str, value: Any, default: str, allowed: tuple[str, ...]) -> str | None:
    """The strategy that a bool, None, a str or an enum of one names; None for the last, which does nothing."""
    if value is None or value is False:
        return None
    word = default if value is True else choice(name, value, allowed)
    return None if word == allowed[-1] else word


def check_tensors(kind: Any) -> str | None:
    """ "pt", "np" or None; ValueError for what else transformers knew (TensorFlow, JAX)."""
    return None if kind is None else choice("return_tensors", kind, KINDS)


def old_names(unknown: dict[str, Any], padding: Any, truncation: Any, known: tuple[str, ...]) -> tuple[Any, Any]:
    """`padding` and `truncation` with the names of before transformers 3 taken in; TypeError for any other name."""
    unknown = dict(unknown)
    if unknown.pop("pad_to_max_length", False) and padding is False:
        padding = "max_length"
    old = unknown.pop("truncation_strategy", "do_not_truncate")
    if truncation is False and old != "do_not_truncate":
        truncation = old
    reject_unknown(unknown, known, "The tokenizer")
    return padding, truncation
