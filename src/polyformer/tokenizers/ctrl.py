"""CTRL's tokenizer: BPE over characters, `@@` at the end of every piece but a word's last (Keskar et al. 2019).

A text begins with a control code, a word such as `Links` or `Reviews` that says what kind of text follows
(salesforce/ctrl, control_codes.py). Words are parted by white space, a line feed going with the word before it.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count, pairwise
from os import PathLike
from typing import ClassVar, Literal, Unpack, get_args

from tokenizers import Encoding, Regex, Tokenizer, models, pre_tokenizers

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import bpe
from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.dict_backend import DictBackend, Later, Pieces
from polyformer.tokenizers.slow import WholeRows
from polyformer.tokenizers.special import Token

ControlCode = Literal[
    "Pregnancy", "Christianity", "Explain", "Fitness", "Saving", "Ask", "Ass", "Joke", "Questions", "Thoughts",
    "Retail", "Feminism", "Writing", "Atheism", "Netflix", "Computing", "Opinion", "Alone", "Funny", "Gaming", "Human",
    "India", "Joker", "Diet", "Legal", "Norman", "Tip", "Weight", "Movies", "Running", "Science", "Horror",
    "Confession", "Finance", "Politics", "Scary", "Support", "Technologies", "Teenage", "Event", "Learned", "Notion",
    "Wikipedia", "Books", "Extract", "Confessions", "Conspiracy", "Links", "Narcissus", "Relationship",
    "Relationships", "Reviews", "News", "Translation", "multilingual",
]  # fmt: skip
CONTROL_CODES: tuple[ControlCode, ...] = get_args(ControlCode)

END, MORE = "</w>", "@@"


class CTRLTokenizer(WholeRows, bpe.BPETokenizer):
    """Text to CTRL's ids and back; nothing is added around a text, and there is no padding token until one is named.

    vocab_file, merges_file: a vocab.json and a merges.txt.
    unk_token: a token of the vocabulary, for pieces that it lacks.

    Raises CheckpointError for files that are missing, damaged, not of one model, or lack the unknown token.
    """

    vocab_files_names: ClassVar[Mapping[str, str]] = {"vocab_file": "vocab.json", "merges_file": "merges.txt"}
    model_input_names = ("input_ids", "token_type_ids", "attention_mask")

    def __init__(
        self,
        vocab_file: str | PathLike[str] | None = None,
        merges_file: str | PathLike[str] | None = None,
        unk_token: Token = "<unk>",
        *,
        bos_token: Token | None = None,
        eos_token: Token | None = None,
        sep_token: Token | None = None,
        pad_token: Token | None = None,
        cls_token: Token | None = None,
        mask_token: Token | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        vocab, merges = bpe.read(vocab_file, merges_file, type(self).__name__)
        bpe.need_unknown(vocab, vocab_file, str(unk_token))
        backend = CTRLBackend(vocab, merges, str(unk_token))
        if not backend.fitting:
            raise CheckpointError(
                f"{merges_file} makes pieces most of which are not in {vocab_file}: the two files do not belong "
                "together; take both from one model."
            )
        self._merges = merges
        super().__init__(
            backend,
            unk_token=unk_token,
            bos_token=bos_token,
            eos_token=eos_token,
            sep_token=sep_token,
            pad_token=pad_token,
            cls_token=cls_token,
            mask_token=mask_token,
            **options,
        )

    @property
    def control_codes(self) -> dict[ControlCode, int]:
        """The control codes that the vocabulary has, and their ids."""
        vocab = self.backend.vocab(with_added_tokens=False)
        return {code: vocab[code] for code in CONTROL_CODES if code in vocab}

    def prompt(self, text: str, codes: ControlCode | Sequence[ControlCode]) -> str:
        """A text after its control codes, one or several in this order: what to have the model go on from.

        Raises ValueError for a code that CTRL or this vocabulary does not have, with the likely name, or for none.
        """
        codes = [codes] if isinstance(codes, str) else list(codes)
        known = self.control_codes
        if not codes:
            raise ValueError(f"CTRL writes after a control code: give one or several of {', '.join(known)}.")
        for code in codes:
            if code not in known:
                near = difflib.get_close_matches(code, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
                raise ValueError(f"{code!r} is no control code of this vocabulary; {hint}")
        return " ".join([*codes, text]) if text else " ".join(codes)

    def vocabulary_files(self) -> dict[str, str | bytes]:
        """vocab.json and merges.txt, without added tokens."""
        return bpe.as_files(self.backend.vocab(with_added_tokens=False), self._merges)


class CTRLBackend(DictBackend):
    """The Rust model over the symbols of merges.txt, in which `</w>` marks a word's last piece: `th@@` is `th` there
    and `the` is `the</w>`.

    merges.txt may make pieces that the vocabulary lacks (the published one does): they are joined on as any other, and
    are the unknown token where they are left over. `fitting`: whether the vocabulary has most of what the merges make.
    """

    def __init__(self, vocab: Mapping[str, int], merges: bpe.Merges, unk_token: str) -> None:
        super().__init__(vocab)
        self._cutter = Later(Cutter, vocab, merges, vocab[unk_token])
        made = merges.joined()
        made = made[:: 1 + len(made) // 10_000]  # these tell as much as all 200,000
        self.fitting = 2 * sum(_piece(symbol) in vocab for symbol in made) >= len(made)

    def pieces(self, texts: Sequence[str], detail: bool) -> Sequence[Pieces]:
        cutter = self._cutter.made
        if not detail:
            made = cutter.rust.encode_batch_fast(texts, add_special_tokens=False)
            return [Pieces(cutter.known(e.ids), [], [], []) for e in made]
        return [_detailed(t, e, cutter) for t, e in zip(texts, cutter.rust.encode_batch(texts), strict=True)]

    def join(self, tokens: Sequence[str]) -> str:
        return " ".join(tokens).replace(MORE + " ", "").strip()


class Cutter:
    """What cuts a text into symbols: those of the vocabulary and, numbered after them, what else the merges have."""

    def __init__(self, vocab: Mapping[str, int], merges: Sequence[bpe.Merge], unk_id: int) -> None:
        pairs = list(_reread(merges))
        symbols = {_symbol(token): i for token, i in vocab.items()}
        foreign = sorted({*chain.from_iterable(pairs), *map("".join, pairs)} - symbols.keys())
        self._foreign = [unk_id, *(vocab.get(_piece(symbol), unk_id) for symbol in foreign)]
        self._first_foreign = max(vocab.values()) + 1
        # "" stands for characters without a symbol: no piece of a text is empty
        symbols.update(zip(("", *foreign), count(self._first_foreign), strict=False))
        self.rust = Tokenizer(models.BPE(symbols, pairs, unk_token="", end_of_word_suffix=END))
        self.rust.pre_tokenizer = pre_tokenizers.Split(Regex(r"\S+\n?"), "removed", invert=True)

    def known(self, ids: list[int]) -> list[int]:
        """The ids of symbols as the vocabulary has them."""
        first, foreign = self._first_foreign, self._foreign
        return [i if i < first else foreign[i - first] for i in ids]


def _detailed(text: str, encoding: Encoding, cutter: Cutter) -> Pieces:
    """A piece is the text as it stands, also where it has the unknown token's id."""
    words = encoding.word_ids
    inside = [word == following for word, following in pairwise(words)] + [False]
    tokens = [text[start:end] + MORE * more for (start, end), more in zip(encoding.offsets, inside, strict=False)]
    return Pieces(cutter.known(encoding.ids), tokens, encoding.offsets, words)


def _reread(merges: Iterable[bpe.Merge]) -> Iterator[bpe.Merge]:
    """The merges as transformers has them, which parts lines at any white space: one with a no-break space in it may be
    another pair's line, or nobody's."""
    for merge in merges:
        if len(pieces := " ".join(merge).split()) == 2:
            yield pieces[0], pieces[1]


def _symbol(token: str) -> str:
    """How merges.txt spells a piece."""
    return token[: -len(MORE)] if token.endswith(MORE) and token != MORE else token + END


def _piece(symbol: str) -> str:
    """How the vocabulary spells a symbol of merges.txt."""
    return symbol.removesuffix(END) if symbol.endswith(END) else symbol + MORE
