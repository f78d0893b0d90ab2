"""A SentencePiece model file (`spiece.model`, `sentencepiece.bpe.model`, `source.spm`), read and written.

The file is a protocol buffer, described by sentencepiece_model.proto of google/sentencepiece (Kudo and Richardson
2018): pieces with their scores and kinds, how the text is normalised, and which algorithm cuts it.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from polyformer.core import files
from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import protobuf


class Kind(IntEnum):
    """What a piece is for."""

    NORMAL = 1
    UNKNOWN = 2  # stands for what no piece covers
    CONTROL = 3  # has an id, but is never found in text
    USER_DEFINED = 4  # always found in text
    UNUSED = 5
    BYTE = 6  # one byte of what no other piece covers, written <0x0A>


SPECIALS = {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": "<pad>"}  # by default
ALGORITHMS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


@dataclass(frozen=True)
class SentencePieceModel:
    """The content of a model file.

    pieces, scores, kinds: one entry an id. A score is a log probability (unigram) or minus a rank (bpe).
    algorithm: "unigram", "bpe", "word" or "char".
    charsmap: the compiled table of replacements that normalises text; empty for none.
    add_dummy_prefix: begin every text with a space. remove_extra_whitespaces: fold runs of spaces, and trim.
    escape_whitespaces: write a space as ▁. treat_whitespace_as_suffix: that ▁ ends a word instead of beginning it.
    byte_fallback: write what no piece covers as bytes. unk_surface: what the unknown piece is in a text joined again.
    specials: the pieces that play the parts unk, bos, eos and pad, where the file has such pieces.
    data: the file this was read from, byte for byte, if there was one.
    """

    pieces: list[str]
    scores: list[float]
    kinds: list[int]
    algorithm: str = "unigram"
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    treat_whitespace_as_suffix: bool = False
    byte_fallback: bool = False
    unk_surface: str = " \u2047 "
    specials: Mapping[str, str] = field(default_factory=lambda: SPECIALS)
    data: bytes | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.pieces)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Piece to id."""
        return {piece: i for i, piece in enumerate(self.pieces)}

    @cached_property
    def unk_id(self) -> int:
        """The id of what no piece covers."""
        return self.kinds.index(Kind.UNKNOWN)

    @property
    def bos_id(self) -> int | None:
        """The id of the piece that begins a text; None where the file has none. So for eos_id and pad_id."""
        return self._control("bos")

    @property
    def eos_id(self) -> int | None:
        return self._control("eos")

    @property
    def pad_id(self) -> int | None:
        return self._control("pad")

    def _control(self, part: str) -> int | None:
        i = self.ids.get(self.specials[part])
        return i if i is not None and self.kinds[i] == Kind.CONTROL else None

    def to_bytes(self) -> bytes:
        """The content of the file: as it was read, or written afresh."""
        return self.data if self.data is not None else _write(self)


def read_model(path: str | PathLike[str]) -> SentencePieceModel:
    """The model in a file; CheckpointError, in one sentence, if it is missing, cut short or something else."""
    path = Path(path)
    files.readable_size(path)
    try:
        data = path.read_bytes()
    except OSError as e:
        raise CheckpointError(f"{path} cannot be read ({e.strerror}); check the path.") from e
    try:
        return parse(data)
    except ValueError as e:
        reason = f"is no SentencePiece model, or a damaged one: {e}; {files.DOWNLOAD_AGAIN}"
        files.refuse(path, "sentencepiece", reason, e)


def parse(data: bytes) -> SentencePieceModel:
    """The model in these bytes; ValueError if they are none."""
    found = _Pieces()
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, wire, value in protobuf.fields(data, found.take_usual(data)):
        if number in (1, 2, 3) and wire != protobuf.BYTES:
            raise ValueError(f"its field {number} is no message")
        if isinstance(value, bytes) and number == 1:
            found.take(value)
        elif isinstance(value, bytes) and number in (2, 3):
            (trainer if number == 2 else normalizer).update(_spec(value))
    pieces, scores, kinds = found.checked()
    algorithm = ALGORITHMS.get(trainer.get(3, 1))
    if algorithm is None:
        raise ValueError(f"it names an algorithm of number {trainer[3]}, which there is not")
    names = {part: trainer.get(45 + i, piece.encode()).decode() for i, (part, piece) in enumerate(SPECIALS.items())}
    return SentencePieceModel(
        pieces,
        scores,
        kinds,
        algorithm,
        charsmap=_checked_charsmap(normalizer.get(2, b"")),
        add_dummy_prefix=bool(normalizer.get(3, True)),
        remove_extra_whitespaces=bool(normalizer.get(4, True)),
        escape_whitespaces=bool(normalizer.get(5, True)),
        treat_whitespace_as_suffix=bool(trainer.get(24, False)),
        byte_fallback=bool(trainer.get(35, False)),
        unk_surface=trainer.get(44, " \u2047 ".encode()).decode(),
        specials=names,
        data=data,
    )


class _Pieces:
    """Pieces, scores and kinds on their way out of a file; there may be a quarter of a million of them."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.scores, self.kinds = bytearray(), bytearray()

    def take_usual(self, data: bytes) -> int:
        """Take messages as long as they are laid out as every writer does it; returns where that ends.

        That is 0A and a length below 128; 0A, length and text; 15 and the score; and 18 and the kind, unless normal.
        """
        places, at, end = [], 0, len(data)
        padded = data + bytes(512)  # more than any length here leads beyond the end
        while padded[at] == 0x0A:  # from length to length; what lies between is looked at below
            places.append(at)
            at += 2 + padded[at + 1]
        if not places:
            return 0
        raw, begin = np.frombuffer(padded, np.uint8), np.array(places)
        size, length = raw[begin + 1].astype(np.int64), raw[begin + 3]
        stop, after = begin + 4 + length, begin + 2 + size  # of the text, of the message
        unnamed = after - stop == 5
        kinds = np.where(unnamed, Kind.NORMAL, raw[after - 1]).astype(np.uint8)
        usual = (raw[begin + 2] == 0x0A) & (size < 128) & (after <= end) & (raw[stop] == 0x15)
        usual &= unnamed | ((after - stop == 7) & (raw[after - 2] == 0x18) & np.isin(kinds, [*_KINDS]))
        if not usual.all():
            count = int(usual.argmin())
            at, begin, stop, kinds = places[count], begin[:count], stop[:count], kinds[:count]
        kept, marked = np.ones(at, bool), raw[:at].copy()
        for i in range(4):
            kept[begin + i] = kept[stop + 1 + i] = False
        named = stop[~unnamed[: len(stop)]]
        kept[named + 5] = kept[named + 6] = False
        marked[stop] = 0
        texts = marked[kept].tobytes()  # each ended by a zero
        if texts.count(0) == len(begin):  # one decoding is faster than many
            self.pieces += texts.decode().split("\0")[:-1]
        else:
            self.pieces += [data[a + 4 : b].decode() for a, b in zip(begin.tolist(), stop.tolist(), strict=True)]
        self.scores += raw[stop[:, None] + np.arange(1, 5)].tobytes()
        self.kinds += kinds.tobytes()
        return at

    def take(self, message: bytes) -> None:
        """Take one message, however it is laid out."""
        fields = _spec(message)
        text, score, kind = fields.get(1, b""), fields.get(2, bytes(4)), fields.get(3, Kind.NORMAL)
        if not (isinstance(text, bytes) and isinstance(score, bytes) and len(score) == 4 and kind in _KINDS):
            raise ValueError(f"piece {len(self.pieces)} has no text, score and kind")
        self.pieces.append(text.decode())
        self.scores += score
        self.kinds.append(kind)

    def checked(self) -> tuple[list[str], list[float], list[int]]:
        """All that was taken; ValueError if it is no vocabulary."""
        pieces, unknown = self.pieces, self.kinds.count(Kind.UNKNOWN)
        if unknown != 1:
            raise ValueError(f"it has {len(pieces)} pieces, {unknown} of them unknown, where 1 must be")
        if len(set(pieces)) < len(pieces) or "" in pieces:
            raise ValueError("it has an empty piece, or one twice")
        values = list(struct.unpack(f"<{len(pieces)}f", self.scores))
        if not isfinite(sum(values)):
            raise ValueError("it has a score that is no number")
        return pieces, values, list(self.kinds)


_KINDS = frozenset(Kind)


def _spec(data: bytes) -> dict[int, Any]:
    """The fields of a message by number; the last of a number counts."""
    return {number: value for number, _, value in protobuf.fields(data)}


def _checked_charsmap(blob: Any) -> bytes:
    """A charsmap is a length, a trie of 32-bit units of that length, and the replacements, each ended by a zero.

    ValueError if a walk through the trie could leave it or end at what is no replacement.
    """
    if not isinstance(blob, bytes):
        raise ValueError("its table of replacements is none")
    if not blob:
        return blob
    size = int.from_bytes(blob[:4], "little")
    if size % 1024 or not size or 4 + size >= len(blob) or blob[-1]:
        raise ValueError("its table of replacements has not the length that it says")
    units, texts = np.frombuffer(blob, "<u4", size // 4, 4), np.frombuffer(blob, np.uint8, offset=4 + size)
    blob[4 + size :].decode()  # or UnicodeDecodeError, which is a ValueError
    ends = units >> 31 == 1  # these hold where a replacement begins, the others where the next units are
    places = units[ends] & 0x7FFFFFFF
    next_units = np.arange(len(units))[~ends] ^ (units[~ends] >> 10 << ((units[~ends] & 0x200) >> 6))
    if (next_units | 255).max() >= len(units) or places.max() >= len(texts) or texts[places[places > 0] - 1].any():
        raise ValueError("its table of replacements leads nowhere")
    return blob


def _write(model: SentencePieceModel) -> bytes:
    out = bytearray()
    for piece, score, kind in zip(model.pieces, model.scores, model.kinds, strict=True):
        message = protobuf.field(1, piece) + protobuf.field(2, float(score))
        out += protobuf.field(1, message if kind == Kind.NORMAL else message + protobuf.field(3, int(kind)))
    numbers = {name: number for number, name in ALGORITHMS.items()}
    names = [model.specials[part] for part in SPECIALS]
    trainer: dict[int, Any] = {3: numbers[model.algorithm], 4: len(model)}
    trainer |= {24: model.treat_whitespace_as_suffix, 35: model.byte_fallback}
    trainer |= {40 + i: model.ids.get(name, -1) for i, name in enumerate(names)}
    trainer |= {45 + i: name for i, name in enumerate(names)}
    normalizer: dict[int, Any] = {2: model.charsmap, 3: model.add_dummy_prefix, 4: model.remove_extra_whitespaces}
    normalizer |= {5: model.escape_whitespaces}
    for number, spec in ((2, trainer), (3, normalizer)):
        out += protobuf.field(number, b"".join(protobuf.field(n, value) for n, value in spec.items()))
    return bytes(out)
