"""Texts as users give them, sorted into samples: one text or a pair, alone or in a batch, as text or as words."""

from collections.abc import Sequence
from typing import Any

from polyformer.tokenizers.assemble import Sample
from polyformer.tokenizers.checks import check_sides, check_text
from polyformer.tokenizers.contract import Contract


def samples_of(text: Any, text_pair: Any, split: bool, contract: Contract) -> tuple[list[Sample], bool]:
    """The samples, and whether they came as a batch. `split`: each text is a list of words.

    TypeError for what is not a text, ValueError for an empty batch or texts and pairs that don't match in number.
    """
    if not split and not isinstance(text, (str, list, tuple)):
        check_text(text, "the text")
    if split and not isinstance(text, (list, tuple)):
        check_sides([text], split)
    batched = isinstance(text, (list, tuple)) and (not split or _lists(text))
    if not batched:
        return [(text, text_pair) if contract.is_text(text_pair) else (text,)], False
    if not text:
        raise ValueError("the batch is empty: give at least one text.")
    if text_pair is None:
        return [_sample(item, split, i) for i, item in enumerate(text)], True
    if not isinstance(text_pair, (list, tuple)) or len(text_pair) != len(text):
        got = len(text_pair) if isinstance(text_pair, (list, tuple)) else f"a {type(text_pair).__name__}"
        raise ValueError(f"text is a batch of {len(text)} but text_pair is {got}: give one second text for each first.")
    return list(zip(text, text_pair, strict=True)), True


def _lists(text: Sequence[Any]) -> bool:
    return bool(text) and isinstance(text[0], (list, tuple))


def _sample(item: Any, split: bool, number: int) -> Sample:
    """One item of a batch: a text, or a pair of texts in a tuple or list."""
    if isinstance(item, str) and not split:
        return (item,)
    if isinstance(item, (list, tuple)):
        if split and not _lists(item):
            return (item,)
        if len(item) == 2:
            return (item[0], item[1])
        if not split:
            raise TypeError(
                f"text {number} is a list of {len(item)}: give a str or a pair of them, "
                "or pass is_split_into_words=True for lists of words."
            )
    if not split:
        check_text(item, f"text {number}")
    raise TypeError(f"text {number} is {item!r}: with is_split_into_words=True each text must be a list of words.")
