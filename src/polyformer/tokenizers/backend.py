"""What turns one text into tokens: the `Backend` protocol, and its implementation on the Rust library.

A backend is a value: it never changes once built, so any number of threads may use it with different settings. It
knows nothing of truncation, padding and special tokens around a text; those are arguments of a call. New tokens make a
new backend.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, Self

from tokenizers import AddedToken, Tokenizer, models

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import files
from polyformer.tokenizers.checks import check_sides
from polyformer.tokenizers.template import Template

TextSide = str | Sequence[str]  # one text, or one list of words


class Tokens(Protocol):
    """The tokens of one text. Where no detail was asked for, only `ids` counts."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def tokens(self) -> list[str]: ...
    @property
    def offsets(self) -> list[tuple[int, int]]: ...
    @property
    def word_ids(self) -> list[int | None]: ...


class Backend(Protocol):
    """Text to tokens and back, over one vocabulary."""

    def encode(self, texts: Sequence[TextSide], split: bool, detail: bool) -> Sequence[Tokens]: ...
    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str: ...
    def join(self, tokens: Sequence[str]) -> str: ...
    def token_to_id(self, token: str) -> int | None: ...
    def id_to_token(self, id: int) -> str | None: ...
    def vocab(self, with_added_tokens: bool = True) -> dict[str, int]: ...
    def vocab_size(self, with_added_tokens: bool = True) -> int: ...
    def added_tokens(self) -> dict[int, AddedToken]: ...
    def adding(self, tokens: Sequence[AddedToken]) -> "Backend": ...
    def template(self) -> Template: ...
    def json(self) -> str | None: ...


class RustBackend:
    """A `tokenizers.Tokenizer` that is never changed."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def encode(self, texts: Sequence[TextSide], split: bool, detail: bool) -> Sequence[Tokens]:
        """Tokens of each text without special tokens around it; a list of words each if `split`.

        Without `detail` (token texts, offsets, words) it is a quarter faster.
        """
        encode = self.tokenizer.encode_batch if detail else self.tokenizer.encode_batch_fast
        try:
            return encode(texts, is_pretokenized=split, add_special_tokens=False)
        except (TypeError, UnicodeError):
            check_sides(texts, split)  # says which text is at fault
            raise

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        if self._respelt.keys().isdisjoint(ids):
            return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        skip = {i for i, t in self.added_tokens().items() if t.special} if skip_special_tokens else ()
        tokens = [self.id_to_token(i) for i in ids if i not in skip]
        return self.join([token for token in tokens if token is not None])

    def join(self, tokens: Sequence[str]) -> str:
        decoder = self.tokenizer.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(list(tokens))

    def token_to_id(self, token: str) -> int | None:
        return self.tokenizer.token_to_id(token)

    def id_to_token(self, id: int) -> str | None:
        if id < 0:
            return None
        return self._respelt.get(id) or self.tokenizer.id_to_token(id)

    @cached_property
    def _respelt(self) -> dict[int, str]:
        """Added tokens that the library (0.21 and later) would give back in lower case, having normalised them."""
        added = self.added_tokens()
        return {i: str(t) for i, t in added.items() if t.normalized and self.tokenizer.id_to_token(i) != str(t)}

    def vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        return self.tokenizer.get_vocab(with_added_tokens)

    def vocab_size(self, with_added_tokens: bool = True) -> int:
        return self.tokenizer.get_vocab_size(with_added_tokens)

    def added_tokens(self) -> dict[int, AddedToken]:
        return self.tokenizer.get_added_tokens_decoder()

    def template(self) -> Template:
        return Template.of(self.tokenizer.post_processor)

    def adding(self, tokens: Sequence[AddedToken]) -> "RustBackend":
        """A backend that also knows these tokens; those that it has already, with the same options, change nothing."""
        known = {str(t): t for t in self.added_tokens().values()}
        new = [t for t in tokens if str(t) and not _same(known.get(str(t)), t)]
        if not new:
            return self
        copy = shared_copy(self.tokenizer)
        _add(copy, new)
        for token in new:
            place = copy.token_to_id(str(token))
            there = None if place is None else self.id_to_token(place)
            if there not in (None, str(token)):
                raise CheckpointError(
                    f"The token {str(token)!r} would get the id {place}, which {there!r} has: the vocabulary has gaps "
                    "in its ids, so it cannot grow; number its tokens from 0 on, special ones included."
                )
        return self.over(copy)

    def over(self, tokenizer: Tokenizer) -> Self:
        """A backend of the same kind and options over another tokenizer."""
        return type(self)(tokenizer)

    def json(self) -> str | None:
        """The text of tokenizer.json; None from a backend that has no such form.

        Merges are written as "a b", which every version reads, and not as pairs, which those before 0.20 refuse.
        """
        if not isinstance(self.tokenizer.model, models.BPE):
            return self.tokenizer.to_str(pretty=True) + "\n"
        spec = json.loads(self.tokenizer.to_str())
        merges = [tuple(merge) for merge in spec["model"]["merges"]]
        if not any(" " in piece for merge in merges for piece in merge):
            spec["model"]["merges"] = [" ".join(merge) for merge in merges]
        return files.to_text(spec)

    def __repr__(self) -> str:
        return f"RustBackend({type(self.tokenizer.model).__name__}, {self.vocab_size()} tokens)"


def shared_copy(tokenizer: Tokenizer) -> Tokenizer:
    """A second tokenizer over the same model (which is not copied), with token lists and settings of its own.

    Truncation and padding stay behind: they are arguments of a call here.
    """
    copy = Tokenizer(tokenizer.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if getattr(tokenizer, part) is not None:
            setattr(copy, part, getattr(tokenizer, part))
    added = tokenizer.get_added_tokens_decoder()
    _add(copy, [added[i] for i in sorted(added)])
    if {i: str(t) for i, t in copy.get_added_tokens_decoder().items()} != {i: str(t) for i, t in added.items()}:
        copy = Tokenizer.from_str(tokenizer.to_str())  # ids with gaps: only the file format can place them
        copy.no_truncation()
        copy.no_padding()
    return copy


def load_json(path: str | PathLike[str]) -> RustBackend:
    """The backend in a tokenizer.json; truncation and padding that were switched on in the file are undone.

    Raises CheckpointError if the file is not a tokenizer.
    """
    path = Path(path)
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as e:  # the library raises no narrower kind
        spec = files.parse_json(path)  # which says so if it is not even that
        missing = "" if isinstance(spec, dict) and "model" in spec else ', having no "model" entry'
        raise CheckpointError(
            f"{path} is JSON but not a tokenizer{missing} ({e}): save it again with save_pretrained."
        ) from e
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return RustBackend(tokenizer)


def _add(tokenizer: Tokenizer, tokens: Iterable[AddedToken]) -> None:
    for special, group in groupby(tokens, key=lambda t: t.special):
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(list(group))


def _same(a: AddedToken | None, b: AddedToken) -> bool:
    return a is not None and added_token_json(a) == added_token_json(b)


def added_token_json(token: AddedToken) -> dict[str, Any]:
    """The options of a token, as tokenizer.json writes them."""
    names = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return {name: getattr(token, name) for name in names}
