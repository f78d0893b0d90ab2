"""From languages to the tokens that may come next."""

from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from polyformer.generation.guides.language import Chars, CharSet, Language, Place, Repeat
from polyformer.generation.guides.pieces import Trie, pieces

# where a text stands: in its language, and the bytes of a character that is not whole
Where = tuple[Place, bytes]

_vocabularies: "WeakKeyDictionary[Any, tuple[dict[int, bytes], Trie]]" = WeakKeyDictionary()


class Guide:
    """Base of what can be given as prefix_allowed_tokens_fn and looks at the new tokens only."""

    new_tokens_only = True

    def __init__(self, eos_token_id: int | Sequence[int] | None) -> None:
        eos = [] if eos_token_id is None else [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id)
        if not eos:
            raise ValueError("a text must be able to end: give eos_token_id.")
        self.eos = eos

    def __call__(self, prompt: int, tokens: Tensor) -> Tensor:
        """The tokens that may follow (tokens,); after eos nothing but eos."""
        written = tokens.tolist()
        if any(token in self.eos for token in written):
            return torch.tensor(self.eos)
        return self.allowed(written)

    def allowed(self, tokens: list[int]) -> Tensor:
        """The ids that may follow these; eos after what is outside of the language, as given-up beams may be."""
        raise NotImplementedError


class TrieGuide(Guide):
    """One of some sequences of tokens, whole (De Cao et al. 2020, arXiv 2010.00904: entity names).

    Args:
        sequences: token ids of each, without eos.
        eos_token_id: what ends a text, one or several.
    """

    def __init__(self, sequences: Iterable[Sequence[int]], eos_token_id: int | Sequence[int]) -> None:
        super().__init__(eos_token_id)
        self.next: dict[int, Any] = {}
        for sequence in sequences:
            node = self.next
            for token in sequence:
                node = node.setdefault(int(token), {})
            node[-1] = {}  # it may end here
        if not self.next:
            raise ValueError("a trie holds at least one sequence of tokens.")

    def allowed(self, tokens: list[int]) -> Tensor:
        node: dict[int, Any] | None = self.next
        for token in tokens:
            node = None if node is None else node.get(token)
        if node is None:
            return torch.tensor(self.eos)
        going = [token for token in node if token >= 0]
        return torch.tensor(going + self.eos if -1 in node else going)


class TextGuide(Guide):
    """Any tokens that make a text of a language.

    Args:
        language: of the new text.
        tokenizer: of the model.
        eos_token_id: one or several; the tokenizer's by default.
        free_space: whether a space may stand before the text, as the first token of most vocabularies has it.
    """

    def __init__(
        self,
        language: Language,
        tokenizer: Any,
        eos_token_id: int | Sequence[int] | None = None,
        free_space: bool = True,
    ) -> None:
        super().__init__(tokenizer.eos_token_id if eos_token_id is None else eos_token_id)
        space = Repeat(Chars(CharSet([(32, 32)])), 0, 1)
        self.language = language.before(space) if free_space else language
        self.pieces, self.trie = _vocabulary(tokenizer)
        self.places: dict[tuple[int, ...], Where | None] = {(): (self.language.start, b"")}
        self.found: dict[Where, Tensor] = {}

    def allowed(self, tokens: list[int]) -> Tensor:
        where = self.after(tuple(tokens))
        if where is None:
            return torch.tensor(self.eos)
        if where not in self.found:
            going = self._tokens(where)
            ending = self.eos if where[0].whole and not where[1] else []
            if not going and not ending:
                raise ValueError("no token of the vocabulary goes on as the pattern or grammar wants it.")
            self.found[where] = torch.tensor(going + ending)
        return self.found[where]

    def after(self, tokens: tuple[int, ...]) -> Where | None:
        """Where a text stands after these tokens; None = outside of the language."""
        known = len(tokens)
        while tokens[:known] not in self.places:
            known -= 1
        where = self.places[tokens[:known]]
        for at in range(known, len(tokens)):
            for byte in self.pieces.get(tokens[at], b"\xff"):
                where = None if where is None else self._step(where, byte)
            self.places[tokens[: at + 1]] = where
        return where

    def _tokens(self, where: Where) -> list[int]:
        """All tokens whose bytes may come."""
        found, todo = [], [(self.trie, where)]
        while todo:
            node, stands = todo.pop()
            found += node.here
            for byte, child in node.next.items():
                after = self._step(stands, byte)
                if after is not None:
                    todo.append((child, after))
        return found

    def _step(self, where: Where, byte: int) -> Where | None:
        place, begun = where
        if byte < 0x80 and not begun:
            after = self.language.step(place, byte)
            return None if after is None else (after, b"")
        begun += bytes([byte])
        span = _span(begun)
        if span is None or not place.goes_on(*span):
            return None
        if span[0] < span[1] or len(begun) == 1:
            return place, begun
        after = self.language.step(place, span[0])
        return None if after is None else (after, b"")


def _span(begun: bytes) -> tuple[int, int] | None:
    """The first and last character whose UTF-8 begins with these bytes, of several; one if they are whole."""
    first = begun[0]
    size = 2 if 0xC2 <= first <= 0xDF else 3 if 0xE0 <= first <= 0xEF else 4 if 0xF0 <= first <= 0xF4 else 0
    if not size or len(begun) > size or any(not 0x80 <= byte <= 0xBF for byte in begun[1:]):
        return None
    code = first & (0x7F >> size)
    for byte in begun[1:]:
        code = code << 6 | byte & 0x3F
    open_bits = 6 * (size - len(begun))
    low, high = code << open_bits, (code + 1 << open_bits) - 1
    if code == 0xD and open_bits == 12:  # surrogates are no characters
        high = 0xD7FF
    low, high = max(low, (0, 0, 0x80, 0x800, 0x10000)[size]), min(high, 0x10FFFF)
    return (low, high) if low <= high and not (low >= 0xD800 and high <= 0xDFFF) else None


def _vocabulary(tokenizer: Any) -> tuple[dict[int, bytes], Trie]:
    """A tokenizer's pieces, made once."""
    if tokenizer not in _vocabularies:
        held, trie = pieces(tokenizer), Trie()
        for token, piece in held.items():
            trie.add(piece, token)
        _vocabularies[tokenizer] = held, trie
    return _vocabularies[tokenizer]
