"""What a call returns: `BatchEncoding`, a dict of columns that also knows which text each token is from."""

from collections import UserDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from polyformer.tokenizers import tensors
from polyformer.tokenizers.checks import choice


class CharSpan(NamedTuple):
    """Characters `start` to `end` (excluded) of a text."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens `start` to `end` (excluded) of a row."""

    start: int
    end: int


@dataclass(repr=False)
class Encoding:
    """One row of a batch in full: all lists have the length of the row, padding included.

    offsets: the characters of each token in its text, (0, 0) for special tokens and padding.
    word_ids, sequence_ids: which word (counted within its text) and which text a token is from, None for the others.
    overflowing: the further windows over the same text, where they were asked for.
    """

    ids: list[int]
    type_ids: list[int]
    tokens: list[str]
    offsets: list[tuple[int, int]]
    attention_mask: list[int]
    special_tokens_mask: list[int]
    word_ids: list[int | None]
    sequence_ids: list[int | None]
    overflowing: list["Encoding"] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Encoding(tokens={self.tokens})"

    @property
    def words(self) -> list[int | None]:
        return self.word_ids

    @property
    def n_sequences(self) -> int:
        return len(set(self.sequence_ids) - {None})

    def token_to_sequence(self, token_index: int) -> int | None:
        """0 for a token of the first text, 1 of the second, None for a special token."""
        return self.sequence_ids[token_index]

    def token_to_word(self, token_index: int) -> int | None:
        return self.word_ids[token_index]

    def token_to_chars(self, token_index: int) -> tuple[int, int] | None:
        """The characters of a token in its text, None for a special token."""
        return None if self.sequence_ids[token_index] is None else self.offsets[token_index]

    def char_to_token(self, char_pos: int, sequence_index: int = 0) -> int | None:
        """The token that holds a character of the text, None for white space and what was cut off."""
        for token in range(*self._range(sequence_index)):
            if self.offsets[token][0] <= char_pos < self.offsets[token][1]:
                return token
        return None

    def char_to_word(self, char_pos: int, sequence_index: int = 0) -> int | None:
        token = self.char_to_token(char_pos, sequence_index)
        return None if token is None else self.word_ids[token]

    def word_to_tokens(self, word_index: int, sequence_index: int = 0) -> tuple[int, int] | None:
        """First token of a word and the one after its last, None if the word gave no token in this row."""
        first, last = self._range(sequence_index)
        places = [i for i in range(first, last) if self.word_ids[i] == word_index]
        return (places[0], places[-1] + 1) if places else None

    def word_to_chars(self, word_index: int, sequence_index: int = 0) -> tuple[int, int] | None:
        span = self.word_to_tokens(word_index, sequence_index)
        return None if span is None else (self.offsets[span[0]][0], self.offsets[span[1] - 1][1])

    def _range(self, sequence: int) -> tuple[int, int]:
        """The tokens of one text: first, and one after the last."""
        places = [i for i, s in enumerate(self.sequence_ids) if s == sequence]
        return (places[0], places[-1] + 1) if places else (0, 0)


Encodings = Encoding | Sequence[Encoding] | Callable[[], Sequence[Encoding]] | None


class BatchEncoding(UserDict[str, Any]):
    """Columns such as `input_ids`, by key or attribute; `batch[0]` is the first row as an `Encoding`.

    The columns are lists, or arrays of shape (batch, length) with `return_tensors`. The methods about tokens, words and
    characters read the rows in full; where a call did not need those, they are made when first asked for.
    """

    def __init__(
        self,
        data: dict[str, Any] | None = None,
        encoding: Encodings = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
        n_sequences: int | None = None,
    ) -> None:
        self.data = dict(data or {})  # UserDict would copy it entry by entry
        self._encodings = [encoding] if isinstance(encoding, Encoding) else encoding
        self._n_sequences = n_sequences
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getitem__(self, item: Any) -> Any:
        """A column by name, a row by number, or a slice of all columns."""
        if isinstance(item, str):
            return self.data[item]
        if isinstance(item, slice):
            return {key: value[item] for key, value in self.data.items()}
        return self._rows()[item]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "data" or name not in self.data:
            raise AttributeError(
                f"this batch has no {name!r}; its columns are {', '.join(self.__dict__.get('data', ()))}."
            )
        return self.data[name]

    def __getstate__(self) -> dict[str, Any]:
        # Rows not yet made would drag the texts and the vocabulary along (a DataLoader pickles every batch).
        rows = None if callable(self._encodings) else self._encodings
        return {"data": self.data, "_encodings": rows, "_n_sequences": self._n_sequences}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def encodings(self) -> Sequence[Encoding] | None:
        """The rows in full, None if only the columns were kept."""
        if callable(self._encodings):
            self._encodings = list(self._encodings())
        return self._encodings

    @property
    def is_fast(self) -> bool:
        """Whether the rows in full (offsets, words) are to be had."""
        return self._encodings is not None

    @property
    def n_sequences(self) -> int | None:
        """1 for single texts, 2 for pairs, None if unknown."""
        return self._n_sequences

    def _rows(self) -> Sequence[Encoding]:
        rows = self.encodings
        if rows is None:
            raise ValueError(
                "this batch holds only its columns (it came out of pad, was pickled, or its tokenizer has no offsets): "
                "ask the batch that the tokenizer returned, or pass return_offsets_mapping=True to the call."
            )
        return rows

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row as texts."""
        return self._rows()[batch_index].tokens

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """The word of each token of a row, counted within its text; None for special tokens."""
        return self._rows()[batch_index].word_ids

    words = word_ids

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """The text of each token of a row: 0 or 1, None for special tokens."""
        return self._rows()[batch_index].sequence_ids

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        row, token = self._at(batch_or_token_index, token_index)
        return row.token_to_sequence(token)

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The word that a token is part of. With one argument, in the first row."""
        row, token = self._at(batch_or_token_index, token_index)
        return row.token_to_word(token)

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """The characters of a token, None for a special token."""
        row, token = self._at(batch_or_token_index, token_index)
        span = row.token_to_chars(token)
        return None if span is None else CharSpan(*span)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The token that holds a character of the first (or second) text, None for white space and what was cut off."""
        row, char = self._pick(batch_or_char_index, char_index)
        return row.char_to_token(char, sequence_index)

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The word that holds a character."""
        row, char = self._pick(batch_or_char_index, char_index)
        return row.char_to_word(char, sequence_index)

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """The tokens of a word, None if it has none in this row."""
        row, word = self._pick(batch_or_word_index, word_index)
        span = row.word_to_tokens(word, sequence_index)
        return None if span is None else TokenSpan(*span)

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """The characters of a word, None if it has no token in this row."""
        row, word = self._pick(batch_or_word_index, word_index)
        span = row.word_to_chars(word, sequence_index)
        return None if span is None else CharSpan(*span)

    def _pick(self, batch_or_index: int, index: int | None) -> tuple[Encoding, int]:
        rows = self._rows()
        return (rows[0], batch_or_index) if index is None else (rows[batch_or_index], index)

    def _at(self, batch_or_index: int, index: int | None) -> tuple[Encoding, int]:
        row, token = self._pick(batch_or_index, index)
        if not -len(row) <= token < len(row):
            raise IndexError(f"token {token} is not in a row of {len(row)} tokens: give 0 to {len(row) - 1}.")
        return row, token

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> "BatchEncoding":
        """Make every column an array ("np") or torch tensor ("pt"), in place; ValueError if rows differ in length."""
        if tensor_type is None:
            return self
        kind = choice("return_tensors", tensor_type, tensors.KINDS)
        for key, value in self.data.items():
            self.data[key] = tensors.to_kind(key, [value] if prepend_batch_axis else value, kind)
        return self

    def to(self, device: Any) -> "BatchEncoding":
        """Move every tensor to a device, in place; what is not a tensor stays."""
        self.data = {key: value.to(device) if hasattr(value, "to") else value for key, value in self.data.items()}
        return self
