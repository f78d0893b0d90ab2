"""Transformer-XL's tokenizer: whole words, cut by the Moses rules (Dai et al. 2019, kimiyoung/transformer-xl).

WikiText-103 parts figures at their signs and words at their dashes, so that both can be told from punctuation:
`1,000 and x-y` is `1 @,@ 000 and x @-@ y`.
"""

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar, Unpack

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import files, moses, pickled
from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.dict_backend import Pieces
from polyformer.tokenizers.reader import Characters, Reader
from polyformer.tokenizers.slow import WholeRows
from polyformer.tokenizers.special import Token
from polyformer.tokenizers.traced import STRIP, LowercaseEach, Rules, Trace
from polyformer.tokenizers.word_backend import WordBackend

FilePath = str | PathLike[str]

FIGURES = Rules((r"(?<=\d)[,.](?=\d)", r" @\g<0>@ "))


class TransfoXLTokenizer(WholeRows):
    """Text to Transformer-XL's ids and back; nothing is added around a text, and there is no padding token.

    vocab_file: a vocab.txt, a word a line. pretrained_vocab_file: a vocab.pkl or vocab.bin as transformers 4.x saved
        it, used if both are given; only words and ids are read of it, and nothing in it is run.
    lower_case: for a vocabulary without capitals.
    delimiter: "" makes every character a token. never_split: what is kept whole, the special tokens unless told
        otherwise. language: of the Moses rules.
    special, min_freq, max_size: what the vocabulary was built with; kept, and without effect here.

    Needs sacremoses (`pip install polyformer[xlm]`). Raises CheckpointError for a vocabulary that is missing, damaged,
    has a word twice, or lacks the unknown token.
    """

    vocab_files_names: ClassVar[Mapping[str, str]] = {
        "pretrained_vocab_file": "vocab.pkl",
        "pretrained_vocab_file_torch": "vocab.bin",
        "vocab_file": "vocab.txt",
    }
    any_vocab_file = True
    model_input_names = ("input_ids",)

    def __init__(
        self,
        special: Sequence[str] | None = None,
        min_freq: int = 0,
        max_size: int | None = None,
        lower_case: bool = False,
        delimiter: str | None = None,
        vocab_file: FilePath | None = None,
        pretrained_vocab_file: FilePath | None = None,
        never_split: Sequence[str] | None = None,
        unk_token: Token = "<unk>",
        eos_token: Token = "<eos>",
        *,
        language: str = "en",
        pretrained_vocab_file_torch: FilePath | None = None,
        bos_token: Token | None = None,
        sep_token: Token | None = None,
        pad_token: Token | None = None,
        cls_token: Token | None = None,
        mask_token: Token | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        vocab, path = _vocab(pretrained_vocab_file or pretrained_vocab_file_torch, vocab_file)
        if str(unk_token) not in vocab:
            raise CheckpointError(
                f"{path} has no {str(unk_token)!r}, which is needed for words that the vocabulary lacks: check that it "
                "is this model's vocabulary, or pass unk_token= with the token that plays this part there."
            )
        options.setdefault("additional_special_tokens", ["<formula>"])
        named = (unk_token, eos_token, bos_token, sep_token, pad_token, cls_token, mask_token)
        specials = [*named, *(options["additional_special_tokens"] or ())]
        whole = never_split or [str(token) for token in specials if token is not None]
        case = LowercaseEach() if lower_case else None
        words = moses.Words(language, dashes=True, protected=map(re.escape, whole))
        reader = Reader((STRIP, moses.Punctuation(language)), words, (FIGURES,), case)
        if delimiter == "":
            reader = Reader((STRIP,), Characters(), case=case)
        super().__init__(
            WordsBackend(vocab, reader, str(unk_token), language),
            own_options={
                "special": list(special or ()),
                "min_freq": min_freq,
                "max_size": max_size,
                "lower_case": lower_case,
                "delimiter": delimiter,
                "never_split": None if never_split is None else list(never_split),
                "language": language,
            },
            unk_token=unk_token,
            eos_token=eos_token,
            bos_token=bos_token,
            sep_token=sep_token,
            pad_token=pad_token,
            cls_token=cls_token,
            mask_token=mask_token,
            **options,
        )

    def vocabulary_files(self) -> dict[str, str | bytes]:
        """vocab.txt, without added tokens; nothing if a word holds white space, which ends it there."""
        vocab = self.backend.vocab(with_added_tokens=False)
        words = sorted(vocab, key=vocab.__getitem__)
        return {} if any(word.split() != [word] for word in words) else {"vocab.txt": "".join(w + "\n" for w in words)}


class WordsBackend(WordBackend):
    """A word is a token, the unknown one if the vocabulary lacks it."""

    def __init__(self, vocab: Mapping[str, int], reader: Reader, unk_token: str, language: str) -> None:
        super().__init__(vocab, reader)
        self._unk_id, self._language = vocab[unk_token], language

    def rows(self, texts: Sequence[list[str]]) -> list[list[int]]:
        known, unknown = self._vocab, self._unk_id
        return [[known.get(word, unknown) for word in words] for words in texts]

    def detailed(self, words: Sequence[Trace]) -> Pieces:
        tokens = [word.text for word in words]
        spans = [word.span(0, len(word.text)) for word in words]
        return Pieces(self.rows([tokens])[0], tokens, spans, list(range(len(words))))

    def join(self, tokens: Sequence[str]) -> str:
        return moses.join(tokens, self._language).replace(" @,@ ", ",").replace(" @.@ ", ".").strip()


def _vocab(saved: FilePath | None, text: FilePath | None) -> tuple[dict[str, int], FilePath]:
    """Word to id, and the file that it is from."""
    if saved is not None:
        return _of_pickle(saved), saved
    if text is not None:
        return _of_text(text), text
    raise ValueError(
        "TransfoXLTokenizer needs a vocabulary: give vocab_file or pretrained_vocab_file, or use from_pretrained."
    )


def _of_pickle(path: FilePath) -> dict[str, int]:
    vocab: Any = pickled.read(path).get("sym2idx")
    if not isinstance(vocab, dict) or not vocab:
        raise CheckpointError(f"{path} has no words (sym2idx): it is no vocabulary of Transformer-XL.")
    if not all(type(word) is str and type(i) is int for word, i in vocab.items()):
        raise CheckpointError(f"{path} has entries that are not a word and its number: download it again.")
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise CheckpointError(f"{path} does not number its words from 0 on, each once: download it again.")
    return dict(vocab)


def _of_text(path: FilePath) -> dict[str, int]:
    vocab: dict[str, int] = {}
    lines = files.read_text(path, "vocab.txt").rstrip("\r\n").replace("\r\n", "\n").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise CheckpointError(f"{path} has nothing on line {number}, where a word belongs: download it again.")
        word = line.split()[0]
        if vocab.setdefault(word, number - 1) != number - 1:
            raise CheckpointError(
                f"{path} has the word {word!r} on lines {vocab[word] + 1} and {number}, so that one id would be lost: "
                "give the second a name of its own to keep the other ids as they are."
            )
    return vocab
