"""BPE over the words of a Reader, `</w>` at the end of a word's last piece: the backend of XLM and FlauBERT."""

from collections.abc import Mapping, Sequence
from itertools import chain, count
from os import PathLike

from tokenizers import Encoding, Tokenizer, models

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import files
from polyformer.tokenizers.bpe import Merge
from polyformer.tokenizers.dict_backend import Later, Pieces
from polyformer.tokenizers.reader import Reader
from polyformer.tokenizers.template import A, B, Form, Piece, Template
from polyformer.tokenizers.traced import Trace
from polyformer.tokenizers.word_backend import WordBackend

END = "</w>"


class WordBPEBackend(WordBackend):
    """`bos A sep`, or `bos A sep B sep` with types 0 and 1, around the pieces of each text.

    Merges may make pieces that the vocabulary lacks, which was cut to the frequent ones: they are joined on as any
    other, and are the unknown token where they are left over. `fitting`: whether it has most of what the merges make.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[Merge],
        reader: Reader,
        *,
        unk_token: str,
        bos_token: str,
        sep_token: str,
    ) -> None:
        super().__init__(vocab, reader)
        self._bos_token, self._sep_token = bos_token, sep_token
        self._unk_id = vocab[unk_token]
        self._first_foreign = self._highest + 1
        self._words = Later(_cutter, vocab, merges)
        made = set(map("".join, merges))
        self.fitting = 2 * len(made - vocab.keys()) <= len(made)

    def rows(self, texts: Sequence[list[str]]) -> list[list[int]]:
        made = self._words.made.encode_batch_fast(texts, is_pretokenized=True, add_special_tokens=False)
        return [self._known(encoding.ids) for encoding in made]

    def _known(self, ids: list[int]) -> list[int]:
        return [i if i < self._first_foreign else self._unk_id for i in ids]

    def detailed(self, words: Sequence[Trace]) -> Pieces:
        """A piece is the word as it stands, also where it has the unknown token's id."""
        made: Encoding = self._words.made.encode([word.text for word in words], is_pretokenized=True)
        tokens, spans = [], []
        for number, (start, end) in zip(made.word_ids, made.offsets, strict=True):
            word = words[number or 0]
            tokens.append(word.text[start:end] + END * (end == len(word.text)))
            spans.append(word.span(start, end))
        return Pieces(self._known(made.ids), tokens, spans, made.word_ids)

    def join(self, tokens: Sequence[str]) -> str:
        return "".join(tokens).replace(END, " ").strip()

    def template(self) -> Template:
        bos, sep = (Piece(None, 0, self._id_of(token), token) for token in (self._bos_token, self._sep_token))
        return Template(Form((bos, A, sep)), Form((bos, A, sep, B, sep._replace(type=1))))

    def _id_of(self, token: str) -> int:
        found = self.token_to_id(token)
        return self._unk_id if found is None else found


def _cutter(vocab: Mapping[str, int], merges: Sequence[Merge]) -> Tokenizer:
    """What cuts words into pieces, those of the vocabulary and, numbered after them, what else the merges make."""
    foreign = sorted({*chain.from_iterable(merges), *map("".join, merges)} - vocab.keys())
    # "" stands for characters that are in neither: no piece of a text is empty
    symbols = {**vocab, **dict(zip(("", *foreign), count(max(vocab.values()) + 1), strict=False))}
    return Tokenizer(models.BPE(symbols, merges, unk_token="", end_of_word_suffix=END))


def read_merges(path: str | PathLike[str]) -> list[Merge]:
    """The pairs of a merges.txt as fastBPE writes it, `t h 1234`, with or without how often each was seen."""
    lines = files.read_text(path, "merges.txt").rstrip("\r\n").replace("\r\n", "\n").split("\n")
    merges = [(row[0], row[1]) for row in map(str.split, lines) if 2 <= len(row) <= 3]
    if len(merges) < len(lines):
        at = next(i for i, line in enumerate(lines) if not 2 <= len(line.split()) <= 3)
        raise CheckpointError(
            f"{path} has on line {at + 1} {lines[at][:60]!r}, where two pieces belong, and maybe a number: "
            "it is no merges.txt, or was damaged on the way."
        )
    return merges
