"""SentencePiece to the letter, for families whose reference asks the sentencepiece library itself.

normalise      the charsmap of the file, applied as SentencePiece does; spaces folded, trimmed and written ▁
cut            the Rust model over the pieces of the file
ids            looked up by the text of each piece, in a vocabulary that need not be the file's own
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import repeat
from typing import Any

from tokenizers import Encoding, Tokenizer, pre_tokenizers

from polyformer.tokenizers import sentencepiece
from polyformer.tokenizers.charsmap import charsmap_of
from polyformer.tokenizers.dict_backend import DictBackend, Pieces
from polyformer.tokenizers.sentencepiece import SPACE
from polyformer.tokenizers.sentencepiece_model import Kind, SentencePieceModel


class Normalizer:
    """Text to what is cut into pieces, `Hello  world` to `▁Hello▁world`; nothing to nothing."""

    def __init__(self, model: SentencePieceModel) -> None:
        self.prefix = SPACE if model.add_dummy_prefix else ""
        self.folds = model.remove_extra_whitespaces
        self.charsmap = charsmap_of(model.charsmap) if model.charsmap else None
        self._new = lru_cache(maxsize=65536)(self._replaced)

    def _replaced(self, stretch: str) -> str:
        return stretch if self.charsmap is None else self.charsmap.normalize(stretch)

    def __call__(self, text: str) -> str:
        if not text:
            return ""
        if self.charsmap is not None:
            text = self.charsmap.touched.sub(lambda match: self._new(match[0]), text)
        if not self.folds:
            return self.prefix + text.replace(" ", SPACE)
        text = _SPACES.sub(" ", text.strip(" "))
        return (self.prefix + text.replace(" ", SPACE)).rstrip(SPACE)

    def aligned(self, text: str) -> tuple[str, list[int], list[int]]:
        """The same, and where each of its characters began and ended in the text."""
        rows: list[tuple[str, int, int]] = []
        for char, start, end in self._characters(text):
            if char != " " or not self.folds:
                rows.append((char.replace(" ", SPACE), start, end))
            elif rows and rows[-1][0] != " ":
                rows.append((" ", start, end))
        if text:
            first = rows[0][1] if rows else 0
            rows[:0] = [(char, first, first) for char in self.prefix]
        while self.folds and rows and rows[-1][0] in (" ", SPACE):
            rows.pop()
        return "".join(c for c, _, _ in rows).replace(" ", SPACE), [s for _, s, _ in rows], [e for _, _, e in rows]

    def _characters(self, text: str) -> Iterator[tuple[str, int, int]]:
        """The characters that the charsmap leaves, each with where it is from."""
        done = 0
        for match in () if self.charsmap is None else self.charsmap.touched.finditer(text):
            yield from ((text[i], i, i + 1) for i in range(done, match.start()))
            done = match.start()
            for size, new in self.charsmap.entries(match[0]) if self.charsmap is not None else ():
                yield from ((char, done, done + size) for char in new)
                done += size
        yield from ((text[i], i, i + 1) for i in range(done, len(text)))


_SPACES = re.compile(" {2,}")


class Cutter:
    """A model file's pieces of any text, as texts; what no piece covers is one as it stands.

    CheckpointError for a model that the library cannot do.
    """

    def __init__(self, model: SentencePieceModel) -> None:
        sentencepiece.check(model)
        self.model = model
        self.unk_id = model.unk_id
        self.normalizer = Normalizer(model)

    @cached_property
    def rust(self) -> Tokenizer:
        """The Rust model, made at the first text: of two files that a family may have, one is often never asked."""
        hidden = (Kind.UNKNOWN, Kind.CONTROL, Kind.UNUSED)
        # Pieces that are never found in text get a space, of which there are none after normalising.
        vocab = [
            (piece + " " if kind in hidden else piece, score)
            for (piece, score), kind in zip(sentencepiece.scored(self.model), self.model.kinds, strict=True)
        ]
        rust = Tokenizer(sentencepiece.model_of(self.model, vocab))
        rust.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "never", split=not sentencepiece.crosses(self.model))
        return rust

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model,)

    def cut(self, texts: Sequence[str]) -> Iterator[tuple[list[int], list[str] | None]]:
        """The pieces of each text: their ids in the file and, where it lacks one, all of them as texts."""
        normal = [self.normalizer(text) for text in texts]
        made = self.rust.encode_batch_fast(normal, add_special_tokens=False)
        for text, ids in zip(normal, (m.ids for m in made), strict=True):
            yield ids, self._texts(text, self._encode(text)) if self.unk_id in ids else None

    def detailed(self, text: str) -> Pieces:
        """The pieces of one text with all that is known of them, ids being those of the file."""
        normal, starts, ends = self.normalizer.aligned(text)
        made = self._encode(normal)
        offsets = [(starts[a], ends[b - 1]) for a, b in made.offsets]
        return Pieces(made.ids, self._texts(normal, made), offsets, made.word_ids)

    def _encode(self, normal: str) -> Encoding:
        return self.rust.encode(normal, add_special_tokens=False)

    def _texts(self, normal: str, made: Encoding) -> list[str]:
        spans = zip(made.ids, made.tokens, made.offsets, strict=True)
        return [normal[a:b] if i == self.unk_id else token for i, token, (a, b) in spans]


class ExactBackend(DictBackend):
    """Pieces of a model file under the ids of a vocabulary; a family says how they are joined.

    vocab: token to id. unk_token: what stands for a piece that it lacks. A piece that the file lacks, it may have.
    """

    def __init__(self, vocab: Mapping[str, int], unk_token: str, cutter: Cutter) -> None:
        super().__init__(vocab)
        self._unk_id = vocab[unk_token]
        self._use(cutter)

    def _use(self, cutter: Cutter) -> None:
        self._cutter = cutter
        self.__dict__.pop("_public", None)

    @cached_property
    def _public(self) -> list[int]:
        """The vocabulary's id of each piece of the file."""
        return list(map(self._vocab.get, self._cutter.model.pieces, repeat(self._unk_id)))

    def _id_of(self, piece: str) -> int:
        return self._vocab.get(piece, self._unk_id)

    def pieces(self, texts: Sequence[str], detail: bool) -> Sequence[Pieces]:
        if detail:
            made = map(self._cutter.detailed, texts)
            return [row._replace(ids=[*map(self._id_of, row.tokens)]) for row in made]
        public = self._public
        return [
            Pieces([public[i] for i in ids] if new is None else [*map(self._id_of, new)], [], [], [])
            for ids, new in self._cutter.cut(texts)
        ]
