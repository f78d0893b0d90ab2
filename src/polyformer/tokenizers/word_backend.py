"""A backend for text that a Reader makes words of: case first, then added tokens, then words, then their tokens."""

import re
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any, Self

from tokenizers import AddedToken

from polyformer.tokenizers.backend import TextSide, Tokens
from polyformer.tokenizers.dict_backend import DictBackend, Pieces
from polyformer.tokenizers.reader import Reader
from polyformer.tokenizers.traced import Outside, Span, Step, Trace


class WordBackend(DictBackend):
    """What is the same for every family; one of them defines `rows`, `detailed`, `join`, and `template`."""

    def __init__(self, vocab: Mapping[str, int], reader: Reader) -> None:
        super().__init__(vocab)
        self._reader = reader

    def reading(self, reader: Reader) -> Self:
        """The same vocabulary over other words."""
        other = copy(self)
        other._reader = reader
        other.__dict__.pop("_case", None)
        return other

    def rows(self, texts: Sequence[list[str]]) -> list[list[int]]:
        """The ids of each list of words."""
        raise NotImplementedError

    def detailed(self, words: Sequence[Trace]) -> Pieces:
        """The pieces of a list of words, with everything."""
        raise NotImplementedError

    def pieces(self, texts: Sequence[str], detail: bool) -> Sequence[Pieces]:
        "".join(texts).encode()  # raises UnicodeError for half a character, which not every family would notice
        if detail:
            return [self.detailed(self._reader.traced(text)) for text in texts]
        return [Pieces(ids, [], [], []) for ids in self.rows([self._reader.plain(text) for text in texts])]

    # ---- case

    @cached_property
    def _case(self) -> Step | None:
        """The Reader's step for case, which special tokens are left out of."""
        specials = "|".join(re.escape(token.content) for token in self._added.values() if token.special)
        step = self._reader.case
        return Outside(re.compile(specials), step) if step and specials else step

    def encode(self, texts: Sequence[TextSide], split: bool, detail: bool) -> Sequence[Tokens]:
        case = self._case
        if case is None:
            return super().encode(texts, split, detail)

        def changed(text: Any) -> Any:
            if isinstance(text, str):
                return case.plain(text)
            return [*map(changed, text)] if isinstance(text, (list, tuple)) else text  # refused below if neither

        rows = super().encode([*map(changed, texts)], split, detail)
        if detail:
            return [self._placed(row, text, case) for row, text in zip(rows, texts, strict=True)]
        return rows

    @staticmethod
    def _placed(row: Tokens, text: TextSide, case: Step) -> Pieces:
        """The row with offsets in the text as it was before the step for case."""
        traces = [case.traced(Trace.of(word)) for word in ([text] if isinstance(text, str) else text)]
        which = [0] * len(row.ids) if isinstance(text, str) else row.word_ids
        offsets: list[Span] = [traces[i or 0].span(*span) for i, span in zip(which, row.offsets, strict=True)]
        return Pieces(row.ids, row.tokens, offsets, row.word_ids)

    def adding(self, tokens: Sequence[AddedToken]) -> Self:
        """A backend that also knows these tokens, ordinary ones as text is after the step for case."""
        case = self._reader.case
        if case is not None:
            tokens = [t if t.special else _respelt(t, case.plain(t.content)) for t in tokens]
            tokens = [t for t in tokens if t.special or t.content not in self._vocab]
        grown = super().adding(tokens)
        grown.__dict__.pop("_case", None)
        return grown


def _respelt(token: AddedToken, text: str) -> AddedToken:
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(text, **{name: getattr(token, name) for name in names})
