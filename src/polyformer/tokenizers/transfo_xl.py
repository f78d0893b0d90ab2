"""Transformer-XL's tokenizer: whole words, cut by the Moses rules (Dai et al. 2019, kimiyoung/transformer-xl).

WikiText-103 parts figures at their signs and words at their dashes, so that both can be told from punctuation:
`1,000 and x-y` is `1 @,@ 000 and x @-@ y`.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar, TypeVar, Unpack

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import files, moses, pickled
from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.dict_backend import Pieces
from polyformer.tokenizers.reader import Characters, Reader
from polyformer.tokenizers.slow import WholeRows
from polyformer.tokenizers.special import Token
from polyformer.tokenizers.tensors import to_kind
from polyformer.tokenizers.traced import STRIP, LowercaseEach, Rules, Trace
from polyformer.tokenizers.word_backend import WordBackend

FilePath = str | PathLike[str]
Item = TypeVar("Item")
logger = logging.getLogger("polyformer")

FIGURES = Rules((r"(?<=\d)[,.](?=\d)", r" @\g<0>@ "))


class TransfoXLTokenizer(WholeRows):
    """Text to Transformer-XL's ids and back; nothing is added around a text, and there is no padding token.

    vocab_file: a vocab.txt, a word a line. pretrained_vocab_file: a vocab.pkl or vocab.bin as transformers 4.x saved
        it, used if both are given; only words and ids are read of it, and nothing in it is run.
    lower_case: for a vocabulary without capitals.
    delimiter: "" makes every character a token. never_split: what is kept whole, the special tokens unless told
        otherwise. language: of the Moses rules.
    special, min_freq, max_size: what a vocabulary is built with; see `build_vocab`. Without a vocabulary file, special
        makes one of these tokens, and of the unknown one, to begin with.

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
        vocab, path = _vocab(pretrained_vocab_file or pretrained_vocab_file_torch, vocab_file, special, unk_token)
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
        self.counter: Counter[str] = Counter()
        self._built = path is not None

    # ---- building a vocabulary

    def count_file(
        self, path: FilePath, verbose: bool = False, add_eos: bool = False, add_double_eos: bool = False
    ) -> list[list[str]]:
        """Count the words of a text file, line by line, and give them back.

        add_eos: with the end token after each line; add_double_eos: with "<S>" before and after it (LM1B).
        verbose: log how far it is. Raises CheckpointError for a file that cannot be read.
        """
        lines = [self._framed(words, add_eos, add_double_eos) for words in self._lines(path, verbose)]
        self.count_sents(lines)
        return lines

    def count_sents(self, sents: Iterable[Sequence[str]], verbose: bool = False) -> None:
        """Count words that are words already, a list a sentence; verbose: log how far it is."""
        for words in _told(sents, verbose):
            self.counter.update(words)

    def build_vocab(self) -> None:
        """Make the vocabulary of `special`, then of the words counted, the most frequent first.

        At most max_size of them, and those that occur min_freq times. Of equally frequent ones the first counted comes
        first. A vocabulary that is from a file stays, as in the original.

        Raises ValueError if it would lack the unknown token.
        """
        if self._built:
            return
        made = self._own_options
        counted = (word for word, n in self.counter.most_common(made["max_size"]) if n >= made["min_freq"])
        words = list(dict.fromkeys([*made["special"], *counted]))
        if str(self.unk_token) not in words:
            raise ValueError(
                f"neither special nor the counted words have {self.unk_token!r}, which is needed for all other words: "
                f"begin special with it."
            )
        self._hold(words)

    def move_added_token(self, token: str, target_idx: int) -> None:
        """Give an added token this id, and those from there on the next ones, as after a model's
        resize_token_embeddings of another cluster than the last. Raises ValueError if it is no added token."""
        added = {str(t) for t in self.backend.added_tokens().values()}
        words = self._words()
        if token not in added or token in words or not 0 <= target_idx <= len(words):
            raise ValueError(
                f"{token!r} cannot be moved to {target_idx}: give a token that was added to the {len(words)} words, "
                f"and a place among them."
            )
        self._hold([*words[:target_idx], token, *words[target_idx:]])

    def _hold(self, words: Sequence[str]) -> None:
        """Have this vocabulary from now on; tokens that were added stay."""
        backend = self.backend
        assert isinstance(backend, WordsBackend)
        self._backend = backend.holding(words)
        self._template = self._backend.template()

    def _words(self) -> list[str]:
        """The vocabulary in order, without added tokens."""
        vocab = self.backend.vocab(with_added_tokens=False)
        return sorted(vocab, key=vocab.__getitem__)

    # ---- corpora

    def encode_file(
        self,
        path: FilePath,
        ordered: bool = False,
        verbose: bool = False,
        add_eos: bool = True,
        add_double_eos: bool = False,
    ) -> Any:
        """The ids of a text file: an int64 tensor a line, or with `ordered` one of them all; else as `count_file`."""
        lines = (self._framed(words, add_eos, add_double_eos) for words in self._lines(path, verbose))
        return self.encode_sents(list(lines), ordered)

    def encode_sents(self, sents: Sequence[Sequence[str]], ordered: bool = False, verbose: bool = False) -> Any:
        """The ids of words, a list a sentence: an int64 tensor a sentence, or with `ordered` one of them all."""
        if ordered:
            return self.convert_to_tensor([word for words in sents for word in words])
        return [self.convert_to_tensor(words) for words in _told(sents, verbose)]

    def convert_to_tensor(self, symbols: Sequence[str]) -> Any:
        """The ids of words, (words,) int64."""
        return to_kind("input_ids", self.convert_tokens_to_ids(list(symbols)), "pt")

    def _lines(self, path: FilePath, verbose: bool) -> Iterator[list[str]]:
        lines = files.read_text(path, "the text").splitlines()
        return (self.tokenize(line) for line in _told(lines, verbose))

    def _framed(self, words: list[str], eos: bool, double: bool) -> list[str]:
        if double:
            return ["<S>", *words, "<S>"]
        return [*words, str(self.eos_token)] if eos else words

    def vocabulary_files(self) -> dict[str, str | bytes]:
        """vocab.txt, without added tokens; nothing if a word holds white space, which ends it there."""
        words = self._words()
        return {} if any(word.split() != [word] for word in words) else {"vocab.txt": "".join(w + "\n" for w in words)}


class WordsBackend(WordBackend):
    """A word is a token, the unknown one if the vocabulary lacks it."""

    def __init__(self, vocab: Mapping[str, int], reader: Reader, unk_token: str, language: str) -> None:
        super().__init__(vocab, reader)
        self._unk_token, self._unk_id, self._language = unk_token, vocab[unk_token], language

    def holding(self, words: Sequence[str]) -> "WordsBackend":
        """The same over another vocabulary; added tokens that it lacks come after it."""
        other = WordsBackend({word: i for i, word in enumerate(words)}, self._reader, self._unk_token, self._language)
        return other.adding([self._added[i] for i in sorted(self._added)])

    def rows(self, texts: Sequence[list[str]]) -> list[list[int]]:
        known, unknown = self._vocab, self._unk_id
        return [[known.get(word, unknown) for word in words] for words in texts]

    def detailed(self, words: Sequence[Trace]) -> Pieces:
        tokens = [word.text for word in words]
        spans = [word.span(0, len(word.text)) for word in words]
        return Pieces(self.rows([tokens])[0], tokens, spans, list(range(len(words))))

    def join(self, tokens: Sequence[str]) -> str:
        return moses.join(tokens, self._language).replace(" @,@ ", ",").replace(" @.@ ", ".").strip()


def _vocab(
    saved: FilePath | None, text: FilePath | None, special: Sequence[str] | None, unk_token: Token
) -> tuple[dict[str, int], FilePath | None]:
    """Word to id, and the file that it is from; None if it is yet to be built."""
    if saved is not None:
        return _of_pickle(saved), saved
    if text is not None:
        return _of_text(text), text
    if special:
        return {word: i for i, word in enumerate(dict.fromkeys([*special, str(unk_token)]))}, None
    raise ValueError(
        "TransfoXLTokenizer needs a vocabulary: give vocab_file or pretrained_vocab_file, or use from_pretrained; to "
        "build one, give special=['<unk>', '<eos>'], then count_file and build_vocab."
    )


def _told(items: Iterable[Item], verbose: bool) -> Iterator[Item]:
    """The same items; with verbose, every 500,000th is logged."""
    for number, item in enumerate(items):
        if verbose and number and number % 500_000 == 0:
            logger.info("%d lines", number)
        yield item


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
