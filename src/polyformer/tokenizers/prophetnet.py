"""ProphetNet's tokenizer: BERT's WordPiece over a prophetnet.tokenizer, with only a `[SEP]` after each text.

Qi et al. 2020, microsoft/ProphetNet.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from os import PathLike
from typing import ClassVar, Unpack

from polyformer.tokenizers.backend import Backend
from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.bert import BertTokenizer
from polyformer.tokenizers.dict_backend import DictBackend, Part, Pieces
from polyformer.tokenizers.slow import WholeRows
from polyformer.tokenizers.special import Token
from polyformer.tokenizers.template import Template


class ProphetNetTokenizer(WholeRows, BertTokenizer):
    """Text to ProphetNet's ids and back: `A [SEP]`, or `A [SEP] B [SEP]` with token types 0 and 1.

    x_sep_token: what the original puts between the sentences of a summary; in a text it is one token, the unknown one
        if the vocabulary lacks it.
    Every other option is BertTokenizer's.
    """

    vocab_files_names: ClassVar[Mapping[str, str]] = {"vocab_file": "prophetnet.tokenizer"}
    forms = ("$A:0 {sep_token}:0", "$A:0 {sep_token}:0 $B:1 {sep_token}:1")

    def __init__(
        self,
        vocab_file: str | PathLike[str] | None = None,
        do_lower_case: bool = True,
        do_basic_tokenize: bool = True,
        never_split: Iterable[str] | None = None,
        unk_token: Token = "[UNK]",
        sep_token: Token = "[SEP]",
        x_sep_token: str = "[X_SEP]",
        pad_token: Token = "[PAD]",
        mask_token: Token = "[MASK]",
        tokenize_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        *,
        cls_token: Token | None = None,
        bos_token: Token | None = None,
        eos_token: Token | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        super().__init__(
            vocab_file,
            do_lower_case,
            do_basic_tokenize,
            never_split,
            unk_token,
            sep_token,
            pad_token,
            cls_token,
            mask_token,
            tokenize_chinese_chars,
            strip_accents,
            bos_token=bos_token,
            eos_token=eos_token,
            **options,
        )
        self._own_options["x_sep_token"] = x_sep_token
        backend = self._backend
        assert isinstance(backend, WordPieceBackend)
        self._backend = backend.parting(x_sep_token, str(unk_token))

    def _from_vocab(
        self, path: str | PathLike[str], flags: dict[str, bool | None], basic: bool, specials: dict[str, Token]
    ) -> "WordPieceBackend":
        words = super()._from_vocab(path, flags, basic, specials)
        return WordPieceBackend(words, cleans=basic, lowers=basic and flags["lowercase"] is not False)


class WordPieceBackend(DictBackend):
    """BERT's cutting between added tokens, which are found as they were written.

    cleans: control characters are taken out of a text. lowers: capitals become small, as Python has it: Rust's part
    knows neither that a character which Unicode has not assigned is to go, nor the sigma at the end of a word.
    """

    def __init__(self, words: Backend, *, cleans: bool, lowers: bool) -> None:
        super().__init__(words.vocab())
        self._words, self._cleans, self._lowers = words, cleans, lowers
        self._x_sep = ""
        self._x_sep_id = -1

    def parting(self, x_sep: str, unknown: str) -> "WordPieceBackend":
        """The same with a token that parts sentences."""
        other = copy(self)
        found = self.token_to_id(x_sep)
        other._x_sep, other._x_sep_id = x_sep, self._vocab[unknown] if found is None else found
        return other

    def _parts(self, text: str) -> Iterator[Part]:
        for part in super()._parts(text):
            if part.id is not None or not self._x_sep or self._x_sep not in part.text:
                yield part
                continue
            at = part.start
            for number, sentence in enumerate(part.text.split(self._x_sep)):
                if number:
                    yield Part(self._x_sep, at, self._x_sep_id)
                    at += len(self._x_sep)
                if sentence.strip():
                    yield Part(sentence.rstrip(), at, None)
                at += len(sentence)

    def _as_python_has_it(self, text: str) -> str:
        """As long as the text, so that spans stay."""
        if text.isascii():
            return text
        if self._cleans and (gone := {c for c in text if unicodedata.category(c) == "Cn"}):
            text = text.translate(dict.fromkeys(map(ord, gone), "\x01"))  # a control character, which Rust takes out
        return _LAST_SIGMA.sub(_final, text) if self._lowers and "Σ" in text else text

    def pieces(self, texts: Sequence[str], detail: bool) -> Sequence[Pieces]:
        made = self._words.encode([self._as_python_has_it(text) for text in texts], False, detail)
        if not detail:
            return [Pieces(e.ids, [], [], []) for e in made]
        return [Pieces(e.ids, e.tokens, e.offsets, e.word_ids) for e in made]

    def join(self, tokens: Sequence[str]) -> str:
        return " ".join(tokens).replace(" ##", "").strip()

    def template(self) -> Template:
        return self._words.template()


# BERT's white space; other control characters are taken out before words are lower-cased.
_WHITE = " \t\n\r\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_LAST_SIGMA = re.compile(f"[^{_WHITE}]*Σ[^{_WHITE}]*")


def _final(word: re.Match[str]) -> str:
    """The word with every capital sigma that str.lower would make a final one made so."""
    letters = list(word[0])
    kept = [i for i, c in enumerate(letters) if unicodedata.category(c)[0] != "C"]
    text = "".join(letters[i] for i in kept)
    lowered = text.lower()
    for place, i in enumerate(kept):
        if letters[i] == "Σ" and lowered[len(text[:place].lower())] == "ς":
            letters[i] = "ς"
    return "".join(letters)
