"""A backend for what the Rust library cannot express: a vocabulary in a dict, added tokens cut out of the text first.

    text   ->  "some text " | <added> | "more text"  ->  pieces of each part, by the family  ->  one row of pieces

White space around an added token goes with it, as in the tokenizers of transformers that were written in Python.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, Generic, NamedTuple, Self, TypeVar

from tokenizers import AddedToken

from polyformer.tokenizers.backend import TextSide, Tokens
from polyformer.tokenizers.checks import check_sides
from polyformer.tokenizers.template import Template

T = TypeVar("T")


class Pieces(NamedTuple):
    """The pieces of a text; with nothing but ids where no detail was asked for. Offsets are characters of the text."""

    ids: list[int]
    tokens: list[str]
    offsets: list[tuple[int, int]]
    word_ids: list[int | None]


class Part(NamedTuple):
    """A stretch of a text, from this character on: an added token (its id), or what lies between (None)."""

    text: str
    start: int
    id: int | None


class Later(Generic[T]):
    """What is made at the first text, as it takes longer than reading its files. Copies of a backend share it."""

    def __init__(self, make: Callable[..., T], *arguments: Any) -> None:
        self._make, self._arguments = make, arguments

    @cached_property
    def made(self) -> T:
        return self._make(*self._arguments)


class DictBackend:
    """What is the same for every family; one of them defines `pieces` and `join`, and `template` if it adds tokens."""

    def __init__(self, vocab: Mapping[str, int]) -> None:
        """vocab: token to id; not to be changed afterwards."""
        self._vocab = vocab
        self._added: dict[int, AddedToken] = {}  # found in text as written; some are of the vocabulary

    @cached_property
    def _tokens(self) -> dict[int, str]:
        """Id to token of the vocabulary."""
        return {i: token for token, i in self._vocab.items()}

    @cached_property
    def _highest(self) -> int:
        return max(self._vocab.values(), default=-1)

    def pieces(self, texts: Sequence[str], detail: bool) -> Sequence[Pieces]:
        """The pieces of texts without added tokens in them; unless `detail`, ids alone."""
        raise NotImplementedError

    def join(self, tokens: Sequence[str]) -> str:
        """The text that tokens of the vocabulary stand for."""
        raise NotImplementedError

    def template(self) -> Template:
        return Template()

    def json(self) -> None:
        """No tokenizer.json can hold it."""

    # ---- text to pieces

    def encode(self, texts: Sequence[TextSide], split: bool, detail: bool) -> Sequence[Tokens]:
        try:
            words = [[text] if isinstance(text, str) else text for text in texts]
            parts = [[list(self._parts(word)) for word in side] for side in words]
            plain = [part.text for side in parts for word in side for part in word if part.id is None]
            made = iter(self.pieces(plain, detail))
        except (TypeError, UnicodeError):
            check_sides(texts, split)  # says which text is at fault
            raise
        return [self._row(side, split, made) for side in parts]

    def _parts(self, text: str) -> Iterator[Part]:
        end = 0
        for match in self._finder.finditer(text) if self._added else ():
            if between := text[end : match.start()].rstrip():
                yield Part(between, end, None)
            yield Part(match[0], match.start(), self.token_to_id(match[0]))
            end = match.end()
        if rest := text[end:]:
            yield Part(rest, end, None)

    @staticmethod
    def _row(side: list[list[Part]], split: bool, made: Iterator[Pieces]) -> Pieces:
        """The pieces of one text; of a list of words, each numbered by its place and with offsets of its own."""
        row = Pieces([], [], [], [])
        words = 0
        for number, word in enumerate(side):
            for part in word:
                found = next(made) if part.id is None else Pieces([part.id], [part.text], [(0, len(part.text))], [0])
                row.ids.extend(found.ids)
                row.tokens.extend(found.tokens)
                row.offsets.extend((part.start + start, part.start + end) for start, end in found.offsets)
                own = [None if w is None else w + words for w in found.word_ids]
                row.word_ids.extend([number] * len(own) if split else own)
                words = max((w for w in own if w is not None), default=words - 1) + 1
        return row

    @cached_property
    def _finder(self) -> re.Pattern[str]:
        """Finds the longest added token at each place."""
        tokens = sorted(self._added.values(), key=lambda t: len(t.content), reverse=True)
        return re.compile(
            "|".join((r"(?<!\w)%s(?!\w)" if t.single_word else "%s") % re.escape(t.content) for t in tokens)
        )

    # ---- pieces to text

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        kept = [i for i in ids if not (skip_special_tokens and i in self._added and self._added[i].special)]
        texts: list[str] = []
        for apart, group in groupby(kept, key=self._is_new):
            tokens = [token for i in group if (token := self.id_to_token(i)) is not None]
            texts += tokens if apart else [self.join(tokens)]
        return " ".join(texts)

    def _is_new(self, id: int) -> bool:
        return id in self._added and self._added[id].content not in self._vocab

    # ---- vocabulary

    def token_to_id(self, token: str) -> int | None:
        found = self._vocab.get(token)
        return self._new.get(token) if found is None else found

    def id_to_token(self, id: int) -> str | None:
        return self._added[id].content if id in self._added else self._tokens.get(id)

    def vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        return {**self._vocab, **self._new} if with_added_tokens else dict(self._vocab)

    def vocab_size(self, with_added_tokens: bool = True) -> int:
        return len(self._vocab) + (len(self._new) if with_added_tokens else 0)

    def added_tokens(self) -> dict[int, AddedToken]:
        return dict(self._added)

    @cached_property
    def _new(self) -> dict[str, int]:
        """The added tokens that the vocabulary has not."""
        return {t.content: i for i, t in self._added.items() if self._is_new(i)}

    def adding(self, tokens: Sequence[AddedToken]) -> Self:
        """A backend that also knows these tokens; new ones get the ids after the highest."""
        grown = dict(self._added)
        ids = {t.content: i for i, t in grown.items()}
        free = max([self._highest, *grown]) + 1
        for token in tokens:
            if token.content:
                i = ids.setdefault(token.content, self._vocab.get(token.content, free))
                free += i == free
                grown[i] = token
        changed = copy.copy(self)
        changed._added = grown
        for name in ("_new", "_finder"):
            changed.__dict__.pop(name, None)
        return changed
