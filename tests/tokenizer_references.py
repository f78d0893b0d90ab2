"""What the originals make of a text: the sentencepiece library and sacremoses, with what a family does around them.

    pieces = Pieces(family, folder, tokenizer)
    pieces("some text")          # ids without special tokens, for text that holds none

Written from the documents and code of the originals (google-research/albert, zihangdai/xlnet, facebookresearch/XLM and
fairseq), not from transformers; see also the live reference, ``oracle``.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import sacremoses
import sentencepiece

from tokenizer_zoo import Family

# ---- SentencePiece ---------------------------------------------------------------------------------------------------


class Pieces:
    """Ids of a text by its SentencePiece model, under the family's own numbers."""

    def __init__(self, family: Family, folder: Path, tokenizer: Any) -> None:
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(folder / str(family.spm)))
        self.vocab: dict[str, int] = tokenizer.get_vocab()
        self.tokens = {i: token for token, i in self.vocab.items()}
        self.unknown: int = tokenizer.unk_token_id
        self.kind = family.name.split("-")[0] if family.name != "xlm-roberta" else "fairseq"
        self.options = {"do_lower_case": self.kind == "albert", "keep_accents": False} | dict(family.options)

    def __call__(self, text: str) -> list[int]:
        return [self.number(piece) for piece in self.texts(text)]

    def texts(self, text: str) -> list[str]:
        if self.kind not in ("albert", "xlnet"):
            return list(self.model.encode(text, out_type=str))
        pieces = self.model.encode(self.cleaned(text), out_type=str)
        return [part for piece in pieces for part in self.without_comma(piece)]

    def cleaned(self, text: str) -> str:
        """Text as the authors of XLNet make it plain."""
        text = " ".join(text.split()).replace("``", '"').replace("''", '"')
        if not self.options["keep_accents"]:
            text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        return text.lower() if self.options["do_lower_case"] else text

    def without_comma(self, piece: str) -> list[str]:
        """A piece that ends in a digit and a comma is cut once more, before the comma."""
        if not re.search(r"\d,\Z", piece):
            return [piece]
        parts = self.model.encode(piece[:-1].replace("▁", ""), out_type=str)
        if not piece.startswith("▁") and parts[0].startswith("▁"):
            parts = parts[1:] if parts[0] == "▁" else [parts[0][1:], *parts[1:]]
        return [*parts, ","]

    def spelt(self, ids: list[int]) -> str:
        return "".join(self.tokens[i] for i in ids)

    def likelier(self, ids: list[int], others: list[int]) -> bool:
        """Whether a row of pieces is at least as likely as another, in exact arithmetic, with as many unknown."""
        return ids.count(self.unknown) == others.count(self.unknown) and self.score(ids) >= self.score(others)

    def score(self, ids: list[int]) -> float:
        return math.fsum(self.model.get_score(self.model.piece_to_id(self.tokens[i])) for i in ids)

    def number(self, piece: str) -> int:
        """Under the tokenizer's own ids; which of them a piece has is compared with the reference elsewhere."""
        if self.kind == "marian":  # a piece of the other model, unknown to this one, is as good
            return self.vocab.get(piece, self.unknown)
        known = not self.model.is_unknown(self.model.piece_to_id(piece))
        return self.vocab.get(piece, self.unknown) if known else self.unknown


def same_pieces(original: Pieces, got: list[int], text: str) -> bool:
    """Whether these ids are the original's, or those of a row of pieces that is as likely.

    Published fast tokenizers keep a space at the end as a piece, sentencepiece drops it. Where two rows of pieces are
    equally likely, or nearly, rounding to float32 decides over there: ours must not be the less likely one.
    """
    want, space = original(text), original.vocab.get("▁")
    while len(got) > len(want) and got[-1] == space:
        got = got[:-1]
    if got == want:
        return True
    alike = sorted(got) == sorted(want) or (original.kind not in ("albert", "xlnet") and original.likelier(got, want))
    return alike and original.spelt(got) == original.spelt(want)


# ---- Moses -----------------------------------------------------------------------------------------------------------


@cache
def moses(language: str) -> tuple[Any, Any]:
    return sacremoses.MosesPunctNormalizer(lang=language), sacremoses.MosesTokenizer(lang=language)


def moses_words(text: str, language: str) -> list[str]:
    """The pipeline of XLM's tokenize.sh: punctuation, what cannot be printed, words."""
    punctuation, tokenizer = moses(language)
    text = punctuation.normalize(punctuation.replace_unicode_punct(text))
    text = "".join(c for c in text if unicodedata.category(c)[0] != "C")
    return list(tokenizer.tokenize(text, return_str=False, escape=False))


def xlm_ids(text: str, folder: Path, lower: bool) -> list[int]:
    """XLM's ids of an English text: the words, in lower case and without accents if `lower`, by byte pair encoding."""
    words = " ".join(moses_words(text, "en"))
    if lower:
        words = "".join(c for c in unicodedata.normalize("NFD", words.lower()) if unicodedata.category(c) != "Mn")
    vocab, _ = merges(folder)
    return [vocab.get(piece, vocab["<unk>"]) for word in words.split() for piece in merged(word, folder)]


@cache
def merges(folder: Path) -> tuple[dict[str, int], dict[tuple[str, ...], int]]:
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    ranks = {tuple(line.split()[:2]): rank for rank, line in enumerate(lines) if not line.startswith("#version")}
    return json.loads((folder / "vocab.json").read_text(encoding="utf-8")), ranks


@cache
def merged(word: str, folder: Path) -> list[str]:
    """Byte pair encoding by its definition: the pair that was learnt first is joined first, wherever it stands."""
    _, ranks = merges(folder)
    parts = [*word[:-1], word[-1] + "</w>"]
    while pairs := [pair for pair in pairwise(parts) if pair in ranks]:
        best, joined, at = min(pairs, key=ranks.__getitem__), [], 0
        while at < len(parts):
            both = tuple(parts[at : at + 2]) == best
            joined.append("".join(parts[at : at + 1 + both]))
            at += 1 + both
        parts = joined
    return parts
