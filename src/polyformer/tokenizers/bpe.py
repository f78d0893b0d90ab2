"""Byte-pair encoding (Sennrich et al. 2016): its two files, a vocab.json and a merges.txt, read and written.

A word starts as single characters; the pair of neighbours that stands first in merges.txt is joined, again and again,
until no pair of the list is left. vocab.json gives each piece its id. The families differ in what a character is
(byte_level.py, openai_gpt.py, ctrl.py).
"""

import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from os import PathLike
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer, models

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import files
from polyformer.tokenizers.base import PreTrainedTokenizer

Merge = tuple[str, str]
Path = str | PathLike[str] | None

HEADER = "#version: 0.2"


class Merges(Sequence[Merge]):
    """The pairs of a merges.txt, kept as its text: they are gone through once or twice, and there may be 200,000."""

    def __init__(self, text: str) -> None:
        """text: two pieces a line, parted by one space."""
        self._text = text

    def __iter__(self) -> Iterator[Merge]:
        return chain.from_iterable(map(_pairs, self._blocks()))

    def _blocks(self, size: int = 1 << 14) -> Iterator[str]:
        """Stretches of whole lines. Their pieces take up the memory of those before, which is faster than one list."""
        text, at = self._text, 0
        while at < len(text):
            end = text.find("\n", at + size)
            end = len(text) if end < 0 else end
            yield text[at:end]
            at = end + 1

    def joined(self) -> list[str]:
        """What each pair makes."""
        return self._text.replace(" ", "").split("\n") if self._text else []

    def __len__(self) -> int:
        return self._text.count("\n") + bool(self._text)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]


def _pairs(lines: str) -> Iterator[Merge]:
    pieces = iter(lines.replace("\n", " ").split(" "))
    return zip(pieces, pieces, strict=True)


class BPETokenizer(PreTrainedTokenizer):
    """What the families with a vocab.json and a merges.txt share."""

    vocab_files_names: ClassVar[Mapping[str, str]] = {
        "vocab_file": "vocab.json",
        "merges_file": "merges.txt",
        "tokenizer_file": files.FAST,
    }
    model_input_names: Sequence[str] = ("input_ids", "attention_mask")

    def vocabulary_files(self) -> dict[str, str | bytes]:
        """vocab.json and merges.txt, without added tokens; nothing if a piece holds a space, which parts a line."""
        tokenizer = self.backend_tokenizer
        if tokenizer is None or not isinstance(tokenizer.model, models.BPE):
            return {}
        return as_files(self.backend.vocab(with_added_tokens=False), merges_of(tokenizer))


def merges_of(tokenizer: Tokenizer) -> list[Merge]:
    """The merges of a `tokenizers` BPE, in their order."""
    return [(left, right) for left, right in json.loads(tokenizer.model.__getstate__())["merges"]]


def as_files(vocab: Mapping[str, int], merges: Iterable[Merge]) -> dict[str, str | bytes]:
    """The content of vocab.json and merges.txt; nothing if a piece holds a space or the end of a line."""
    lines = [f"{left} {right}" for left, right in merges]
    if any(line.count(" ") > 1 or "\n" in line for line in lines):
        return {}
    in_order = {token: vocab[token] for token in sorted(vocab, key=vocab.__getitem__)}
    return {
        "vocab.json": json.dumps(in_order, ensure_ascii=False) + "\n",
        "merges.txt": "\n".join([HEADER, *lines, ""]),
    }


def read(vocab_file: Path, merges_file: Path, owner: str) -> tuple[dict[str, int], Merges]:
    """Token to id, and the merges in their order; `owner` is the class that wants them.

    ValueError if either file is not given, CheckpointError for one that cannot be read or is no such file.
    """
    if vocab_file is None and merges_file is None:
        raise ValueError(
            f"{owner} needs a vocabulary: give vocab_file and merges_file, or tokenizer_file, or use from_pretrained."
        )
    if vocab_file is None or merges_file is None:
        there, lacking = ("vocab_file", "merges_file") if merges_file is None else ("merges_file", "vocab_file")
        raise ValueError(f"{owner} got {there} alone: give {lacking} beside it, as neither says anything by itself.")
    return read_vocab(vocab_file), read_merges(merges_file)


def read_vocab(path: str | PathLike[str]) -> dict[str, int]:
    """Token to id out of a vocab.json; CheckpointError unless it is an object of whole numbers, each there once."""
    vocab = files.read_json(pathlib.Path(path))
    if not vocab:
        raise CheckpointError(f"{path} is an empty object: a vocab.json gives every token its id; download it again.")
    ids = set(vocab.values()) if set(map(type, vocab.values())) == {int} else set()
    if not ids or min(ids) < 0 or max(ids) >= 2**31:
        token, i = next((t, i) for t, i in vocab.items() if type(i) is not int or not 0 <= i < 2**31)
        raise CheckpointError(
            f"{path} gives the token {token!r} the id {i!r}, which is no whole number from 0 on: "
            "it is no vocab.json, or was damaged on the way."
        )
    if len(ids) < len(vocab):
        raise CheckpointError(_shared_id(path, vocab))
    try:
        "".join(vocab).encode()
    except UnicodeEncodeError as e:
        raise CheckpointError(
            f"{path} has a token with half a character in it ({e}): download or save it again."
        ) from e
    return vocab


def _shared_id(path: Any, vocab: Mapping[str, int]) -> str:
    first: dict[int, str] = {}
    one, other, i = next((first[i], t, i) for t, i in vocab.items() if first.setdefault(i, t) != t)
    return f"{path} gives {one!r} and {other!r} the same id {i}: every token needs an id of its own; download it again."


def read_merges(path: str | PathLike[str]) -> Merges:
    """The pairs of a merges.txt in their order; CheckpointError for a line that does not hold two pieces."""
    text = files.read_text(path, "merges.txt").rstrip("\r\n").replace("\r\n", "\n")
    head, _, body = text.partition("\n")
    if not head.startswith("#version"):
        head, body = "", text
    if not _in_pairs(body):
        lines = body.split("\n")
        at = next(i for i, line in enumerate(lines) if line.count(" ") != 1 or not all(line.split(" ")))
        raise CheckpointError(
            f"{path} has on line {at + 1 + bool(head)} {lines[at][:60]!r}, where two pieces parted by one space "
            "belong: it is no merges.txt, or was damaged on the way."
        )
    return Merges(body)


def _in_pairs(body: str) -> bool:
    """Whether each line is two pieces: spaces and ends of lines take turns, with something between them."""
    text = np.frombuffer(body.encode(), np.uint8)
    places = np.flatnonzero((text == 32) | (text == 10))
    turns, gaps = text[places], np.diff(places, prepend=-1, append=len(text))
    return not body or bool(
        len(turns) % 2 and (turns[::2] == 32).all() and (turns[1::2] == 10).all() and gaps.min() > 1
    )


def model(vocab: dict[str, int], merges: Sequence[Merge], merges_file: Any, **options: Any) -> models.BPE:
    """The Rust model of these; CheckpointError for a merge of or into a piece that the vocabulary has not."""
    try:
        return models.BPE(vocab, merges, **options)
    except Exception as e:  # the library raises no narrower kind
        for left, right in merges:
            for token in (left, right, left + right):
                if token not in vocab:
                    raise CheckpointError(
                        f"{merges_file} joins {left!r} and {right!r}, but {token!r} is not in the vocabulary: "
                        "the two files do not belong together; take both from one model."
                    ) from e
        raise


def need_unknown(vocab: Mapping[str, int], vocab_file: Any, unk_token: str) -> None:
    """CheckpointError if the token that stands for unknown characters is not in the vocabulary."""
    if unk_token not in vocab:
        raise CheckpointError(
            f"{vocab_file} has no {unk_token!r}, which is needed for characters that the vocabulary lacks: "
            "check that it is this model's vocabulary, or pass unk_token= with the token that plays this part there."
        )
