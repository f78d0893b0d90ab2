"""XLM's tokenizer: BPE over the words that the Moses rules make (Lample and Conneau 2019, facebookresearch/XLM).

Text goes through the scripts of the original's tokenize.sh: full-width signs and punctuation are unified, what cannot
be printed is left out, words are parted (by the rules of a language), lower-cased and stripped of accents. Chinese,
Thai and Japanese are cut by programs of their own.
"""

import json
import warnings
from collections.abc import Mapping
from copy import copy
from functools import cache
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Unpack

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import bpe, moses
from polyformer.tokenizers.base import BatchEncoding, TokenizerOptions
from polyformer.tokenizers.reader import Reader, Segments, Spaced, Splitter, WhiteSpace
from polyformer.tokenizers.slow import WholeRows
from polyformer.tokenizers.special import Token
from polyformer.tokenizers.traced import LowercaseEach, Rules, Step, WithoutAccents
from polyformer.tokenizers.word_bpe import WordBPEBackend, read_merges

SPECIALS = tuple(f"<special{i}>" for i in range(10))


class XLMTokenizer(WholeRows):
    """Text to XLM's ids and back: `<s> A </s>`, or `<s> A </s> B </s>` with token types 0 and 1.

    vocab_file, merges_file: a vocab.json and a merges.txt, the codes of fastBPE.
    lang2id, id2lang: the languages of the model, by name and by number, for its `langs`.
    do_lowercase_and_remove_accent: as the model was trained; False for those of 17 and 100 languages.

    A call takes `lang`, whose rules the text is cut by ("en" unless told otherwise), and `bypass_tokenizer=True` for
    text that is cut already, its words parted by spaces; nothing is changed in it. Within a call, needs sacremoses
    (`pip install polyformer[xlm]`), and jieba for "zh", pythainlp for "th", Mykytea for "ja".

    Raises CheckpointError for files that are missing, damaged, not of one model, or lack the unknown token.
    """

    vocab_files_names: ClassVar[Mapping[str, str]] = {"vocab_file": "vocab.json", "merges_file": "merges.txt"}
    _backend: WordBPEBackend
    language: ClassVar[str] = "en"  # of texts about which a call does not say

    def __init__(
        self,
        vocab_file: str | PathLike[str] | None = None,
        merges_file: str | PathLike[str] | None = None,
        unk_token: Token = "<unk>",
        bos_token: Token = "<s>",
        sep_token: Token = "</s>",
        pad_token: Token | None = "<pad>",
        cls_token: Token | None = "</s>",
        mask_token: Token | None = "<special1>",
        *,
        lang2id: Mapping[str, int] | None = None,
        id2lang: Mapping[Any, str] | None = None,
        do_lowercase_and_remove_accent: bool = True,
        eos_token: Token | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        if vocab_file is None or merges_file is None:
            raise ValueError(
                f"{type(self).__name__} needs a vocabulary: give vocab_file and merges_file, or use from_pretrained."
            )
        vocab, merges = bpe.read_vocab(vocab_file), read_merges(merges_file)
        bpe.need_unknown(vocab, vocab_file, str(unk_token))
        self._merges = merges
        self.lang2id = None if lang2id is None else dict(lang2id)
        self.id2lang = None if id2lang is None else {int(number): name for number, name in id2lang.items()}
        self.do_lowercase_and_remove_accent = do_lowercase_and_remove_accent
        backend = WordBPEBackend(
            vocab,
            merges,
            self._reader(self.language),
            unk_token=str(unk_token),
            bos_token=str(bos_token),
            sep_token=str(sep_token),
        )
        if not backend.fitting:
            raise CheckpointError(
                f"{merges_file} makes pieces most of which are not in {vocab_file}: the two files do not belong "
                "together; take both from one model."
            )
        options.setdefault("additional_special_tokens", SPECIALS)
        super().__init__(
            backend,
            own_options={
                "lang2id": self.lang2id,
                "id2lang": self.id2lang,
                "do_lowercase_and_remove_accent": do_lowercase_and_remove_accent,
            },
            unk_token=unk_token,
            bos_token=bos_token,
            sep_token=sep_token,
            pad_token=pad_token,
            cls_token=cls_token,
            mask_token=mask_token,
            eos_token=eos_token,
            **options,
        )

    def __call__(
        self, *arguments: Any, lang: str | None = None, bypass_tokenizer: bool = False, **more: Any
    ) -> BatchEncoding:
        """Encode texts, as every tokenizer does (see PreTrainedTokenizer), here by the rules of a language.

        lang: its code, such as "fr". bypass_tokenizer: the words are parted by spaces already, and stay as they are.
        """
        if lang is None and not bypass_tokenizer:
            return super().__call__(*arguments, **more)
        if lang and self.lang2id and lang not in self.lang2id:
            warnings.warn(
                f"The model knows no language {lang!r}, only {', '.join(self.lang2id)}: text is cut by its rules, but "
                "there is no id for `langs`.",
                stacklevel=2,
            )
        other = copy(self)
        other._backend = self._backend.reading(WHITE if bypass_tokenizer else self._reader(lang or self.language))
        return super(XLMTokenizer, other).__call__(*arguments, **more)

    def _reader(self, language: str) -> Reader:
        """How text in this language becomes words."""
        before, split = _cutting(language)
        if self.do_lowercase_and_remove_accent:
            return Reader(before, split, (WithoutAccents(),), LowercaseEach())
        return Reader(before, split)

    def vocabulary_files(self) -> dict[str, str | bytes]:
        """vocab.json and merges.txt, without added tokens."""
        vocab = self.backend.vocab(with_added_tokens=False)
        merges = "".join(f"{left} {right}\n" for left, right in self._merges)
        return {"vocab.json": json.dumps(vocab, ensure_ascii=False) + "\n", "merges.txt": merges}


def _cutting(language: str) -> tuple[tuple[Step, ...], Splitter]:
    """What is done to text in this language, and what then cuts it into words."""
    clean = moses.cleaning(language)
    match language:
        case "zh":
            return (Spaced(_jieba), *clean), WhiteSpace()
        case "th":
            return clean, Segments(_pythainlp)
        case "ja":
            return clean, Segments(_kytea)
        case "ro":
            return (*clean, ROMANIAN), moses.Words(language)
    return clean, moses.Words(language)


WHITE = Reader((), WhiteSpace())

# The letters of Romanian without their marks, whether a comma or a cedilla was written (rsennrich/wmt16-scripts).
ROMANIAN = Rules(("[ȘȚĂÂÎșțăâîŞŢşţ]", lambda match: _plain(match[0])))


def _plain(letter: str) -> str:
    return WithoutAccents().plain(letter)


def _jieba(text: str) -> list[str]:
    return list(_cutter("jieba", "Chinese", "jieba").cut(text))


def _pythainlp(text: str) -> list[str]:
    return list(_cutter("pythainlp", "Thai", "pythainlp").word_tokenize(text))


def _kytea(text: str) -> list[str]:
    return list(_kytea_model().getWS(text))


@cache
def _kytea_model() -> Any:
    model = Path.home() / "local/share/kytea/model.bin"
    if not model.is_file():
        raise CheckpointError(f"Japanese text needs KyTea's model at {model}: install KyTea (neubig/kytea) with it.")
    return _cutter("Mykytea", "Japanese", "kytea").Mykytea(f"-model {model}")


def _cutter(module: str, language: str, package: str) -> Any:
    """The module that cuts text of a language into words."""
    try:
        return import_module(module)
    except ImportError as e:
        raise ImportError(f"{language} text needs {module} to be cut into words: `pip install {package}`.") from e
