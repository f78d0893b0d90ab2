"""What is wrong with an argument, in one sentence with the remedy."""

import sys
import warnings
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be."""
    close = get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def reject_unknown(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """TypeError for the first name that `where` does not take, with the name that was probably meant."""
    known = list(known)
    for name in given:
        close = nearest(name, known)
        hint = f"did you mean {close!r}?" if close else f"it takes {', '.join(known)}."
        raise TypeError(f"{where} takes no argument {name!r}: {hint}")


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """`value` (a str, or an enum of one) if it is allowed, else ValueError naming what is."""
    value = getattr(value, "value", value)
    if value in allowed:
        return str(value)
    close = nearest(value, allowed) if isinstance(value, str) else None
    hint = f"did you mean {close!r}?" if close else f"use one of {', '.join(map(repr, allowed))}."
    raise ValueError(f"{name}={value!r} is not known: {hint}")


def check_text(text: Any, where: str) -> None:
    """TypeError if `text` is not a str, ValueError if it holds half a surrogate pair."""
    if not isinstance(text, str):
        hint = "decode bytes first" if isinstance(text, bytes) else "replace a missing value by ''"
        raise TypeError(f"{where} is {_short(text)}, of type {type(text).__name__}, but must be a str: {hint}.")
    for place, char in enumerate(text):
        if "\ud800" <= char <= "\udfff":
            raise ValueError(
                f"{where} holds the lone surrogate {char!r} at position {place}, which is no character: "
                "clean the text with text.encode('utf-8', 'replace').decode('utf-8')."
            )


def check_sides(sides: Sequence[Any], split: bool) -> None:
    """Look through texts that an engine refused (or lists of words, if `split`) for the one at fault, and raise."""
    for i, side in enumerate(sides):
        if not split:
            check_text(side, f"text {i}" if len(sides) > 1 else "the text")
        elif isinstance(side, (list, tuple)):
            for j, word in enumerate(side):
                check_text(word, f"word {j} of text {i}" if len(sides) > 1 else f"word {j}")
        else:
            raise TypeError(
                f"text {i} is {_short(side)}, but with is_split_into_words=True each text must be a list of words: "
                "split it, or leave is_split_into_words out."
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def warn(message: str) -> None:
    """A UserWarning at the line outside of this package that led here."""
    level, frame = 1, sys._getframe()
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "polyformer":
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    warnings.warn(message, stacklevel=level)
