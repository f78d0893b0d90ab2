"""Where special tokens go around one text or two, read from the post-processor of a tokenizer.json.

    single   [CLS] A [SEP]            types 0 0 0
    pair     [CLS] A [SEP] B [SEP]    types 0 0 0 1 1

A Template is a pair of Forms, a Form a row of pieces: special tokens, and places for a text's own tokens. Everything a
row of a batch consists of (ids, types, masks, offsets, words) is woven by the same Form.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple


class Piece(NamedTuple):
    """A special token (`text` is None), or the place of the first (`text` 0) or second (1) text."""

    text: int | None
    type: int
    id: int = -1
    token: str = ""


@dataclass(frozen=True)
class Form:
    """One arrangement of special tokens and texts."""

    pieces: tuple[Piece, ...]

    @cached_property
    def added(self) -> int:
        """The number of special tokens."""
        return sum(p.text is None for p in self.pieces)

    @cached_property
    def ids(self) -> list[int]:
        """What `weave` needs to place the ids of the special tokens."""
        return [p.id for p in self.pieces]

    @cached_property
    def tokens(self) -> list[str]:
        return [p.token for p in self.pieces]

    @cached_property
    def one_type(self) -> int | None:
        """The token type that all pieces share, if they do."""
        types = {p.type for p in self.pieces}
        return types.pop() if len(types) == 1 else None

    def weave(self, texts: Sequence[list[Any]], specials: Sequence[Any]) -> list[Any]:
        """The row of values: `texts[i]` where text i goes, `specials[k]` where piece k is a special token."""
        row: list[Any] = []
        for piece, value in zip(self.pieces, specials, strict=True):
            if piece.text is None:
                row.append(value)
            else:
                row += texts[piece.text]
        return row

    def spread(self, lengths: Sequence[int], values: Sequence[Any]) -> list[Any]:
        """The row with one value a piece, repeated over the length of its text."""
        row: list[Any] = []
        for piece, value in zip(self.pieces, values, strict=True):
            row += [value] if piece.text is None else [value] * lengths[piece.text]
        return row

    def types(self, lengths: Sequence[int]) -> list[int]:
        """Token type ids for texts of these lengths."""
        return self.spread(lengths, [p.type for p in self.pieces])

    def special_mask(self, lengths: Sequence[int]) -> list[int]:
        """1 at special tokens, 0 elsewhere."""
        return self.spread(lengths, [int(p.text is None) for p in self.pieces])

    def sequence_ids(self, lengths: Sequence[int]) -> list[int | None]:
        """Which text each token is from, None at special tokens."""
        return self.spread(lengths, [p.text for p in self.pieces])

    @cached_property
    def untyped(self) -> "Form":
        """The same with type 0 throughout."""
        return Form(tuple(p._replace(type=0) for p in self.pieces))

    def bare(self) -> "Form":
        """The same without special tokens."""
        return Form(tuple(p for p in self.pieces if p.text is not None))


A, B = Piece(0, 0), Piece(1, 1)


@dataclass(frozen=True)
class Template:
    """The forms of a single text and of a pair."""

    single: Form = Form((A,))
    pair: Form = Form((A, B))

    def form(self, pair: bool, special: bool = True) -> Form:
        """The form for a pair or a single text, with or without special tokens."""
        return (self.pair if pair else self.single) if special else self._bare[pair]

    @cached_property
    def _bare(self) -> tuple[Form, Form]:
        return self.single.bare(), self.pair.bare()

    @classmethod
    def of(cls, processor: Any) -> "Template":
        """Read a `tokenizers` post-processor (or None, which adds nothing)."""
        return cls() if processor is None else cls.from_json(json.loads(processor.__getstate__()))

    @classmethod
    def from_json(cls, spec: dict[str, Any]) -> "Template":
        """Read the `post_processor` entry of a tokenizer.json."""
        match spec["type"]:
            case "TemplateProcessing":
                tokens = spec["special_tokens"]
                return cls(_form(spec["single"], tokens), _form(spec["pair"], tokens))
            case "BertProcessing":
                start, end = (Piece(None, 0, i, token) for token, i in (spec["cls"], spec["sep"]))
                return cls(Form((start, A, end)), Form((start, A, end, B, end._replace(type=1))))
            case "RobertaProcessing":
                start, end = (Piece(None, 0, i, token) for token, i in (spec["cls"], spec["sep"]))
                return cls(Form((start, A, end)), Form((start, A, end, end, B._replace(type=0), end)))
            case "Sequence":
                steps = [cls.from_json(step) for step in spec["processors"] if step["type"] != "ByteLevel"]
                return steps[-1] if steps else cls()
        return cls()  # ByteLevel: trims offsets, adds nothing


def _form(row: list[dict[str, Any]], tokens: dict[str, Any]) -> Form:
    pieces: list[Piece] = []
    for entry in row:
        if "Sequence" in entry:
            pieces.append(Piece(int(entry["Sequence"]["id"] == "B"), entry["Sequence"]["type_id"]))
        else:
            name, kind = entry["SpecialToken"]["id"], entry["SpecialToken"]["type_id"]
            pieces += [
                Piece(None, kind, i, t) for i, t in zip(tokens[name]["ids"], tokens[name]["tokens"], strict=True)
            ]
    return Form(tuple(pieces))
