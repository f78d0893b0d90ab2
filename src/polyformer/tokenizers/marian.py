"""Marian's tokenizer, of the OPUS-MT translation models: two SentencePiece models and one vocabulary for both.

Junczys-Dowmunt et al. 2018 (marian-nmt/marian), Tiedemann and Thottingal 2020 (Helsinki-NLP/OPUS-MT). What is read is
cut by source.spm, what is written by target.spm; vocab.json has the ids of the pieces of either. A model for several
target languages is told by a code, `>>fra<<`, at the beginning of the text which one is wanted.
"""

import json
import re
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from itertools import filterfalse
from os import PathLike
from typing import Any, ClassVar, Self, Unpack, cast

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import bpe
from polyformer.tokenizers.backend import Backend
from polyformer.tokenizers.base import BatchEncoding, TokenizerOptions
from polyformer.tokenizers.dict_backend import Pieces
from polyformer.tokenizers.sentencepiece import SPACE
from polyformer.tokenizers.sentencepiece_exact import Cutter, ExactBackend
from polyformer.tokenizers.sentencepiece_model import Kind, SentencePieceModel, read_model
from polyformer.tokenizers.slow import WholeRows
from polyformer.tokenizers.special import Token
from polyformer.tokenizers.targets import TargetMode
from polyformer.tokenizers.template import A, B, Form, Piece, Template

FilePath = str | PathLike[str]

CODE = re.compile(r">>\S+?<<")


class MarianTokenizer(TargetMode, WholeRows):
    """Text to a translation model's ids and back: `A </s>`, or `A B </s>`, without token types.

    vocab: a vocab.json. source_spm, target_spm: the SentencePiece models of what is read and written.
    source_lang, target_lang: kept for the saved files; source_lang is also whose punctuation `normalize` knows.
    sp_model_kwargs: options of the sentencepiece library for sampling; kept, and without effect here.

    A language code is one token where the text begins with it, unknown if the vocabulary lacks it; elsewhere codes are
    taken out. Within as_target_tokenizer target.spm cuts. Decoding spells what target.spm knows; other pieces, those of
    source.spm alone, come out as they stand, with their `▁`.

    Raises CheckpointError for files that are missing, damaged, not of one model, or lack the unknown or the end token.
    """

    vocab_files_names: ClassVar[Mapping[str, str]] = {
        "source_spm": "source.spm",
        "target_spm": "target.spm",
        "vocab": "vocab.json",
    }
    model_input_names = ("input_ids", "attention_mask")

    def __init__(
        self,
        vocab: FilePath,
        source_spm: FilePath,
        target_spm: FilePath,
        source_lang: str | None = None,
        target_lang: str | None = None,
        unk_token: Token = "<unk>",
        eos_token: Token = "</s>",
        pad_token: Token | None = "<pad>",
        sp_model_kwargs: Mapping[str, Any] | None = None,
        *,
        bos_token: Token | None = None,
        sep_token: Token | None = None,
        cls_token: Token | None = None,
        mask_token: Token | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        ids = bpe.read_vocab(vocab)
        for name, token in (("unk_token", str(unk_token)), ("eos_token", str(eos_token))):
            if token not in ids:
                raise CheckpointError(
                    f"{vocab} has no {token!r}, which is needed as the {name}: check that it is this model's "
                    f"vocabulary, or pass {name}= with the token that plays this part there."
                )
        source, target = (_read(path, ids, vocab) for path in (source_spm, target_spm))
        self._files = {"source.spm": source.to_bytes(), "target.spm": target.to_bytes()}
        options.setdefault("model_max_length", 512)
        super().__init__(
            MarianBackend(ids, str(unk_token), str(eos_token), source, target),
            own_options={
                "source_lang": source_lang,
                "target_lang": target_lang,
                "sp_model_kwargs": dict(sp_model_kwargs or {}),
            },
            unk_token=unk_token,
            eos_token=eos_token,
            pad_token=pad_token,
            bos_token=bos_token,
            sep_token=sep_token,
            cls_token=cls_token,
            mask_token=mask_token,
            **options,
        )

    def __call__(self, *texts: Any, **options: Any) -> BatchEncoding:
        """Arguments as of any tokenizer's call.

        token_type_ids, where they are asked for, are those of create_token_type_ids_from_sequences, which have no place
        for the `</s>`: they are one shorter than input_ids, as in transformers. Marian's models take none.
        """
        batch = super().__call__(*texts, **options)
        if options.get("add_special_tokens", (*texts, True, True, True)[2]):
            if "token_type_ids" in batch:
                batch["token_type_ids"] = _without_last(batch["token_type_ids"])
            if "special_tokens_mask" in batch:
                batch["special_tokens_mask"] = self._marked(batch["input_ids"])
        return batch

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 for each special token but the unknown one, also those that stand in a text."""
        if already_has_special_tokens:
            return super().get_special_tokens_mask(token_ids_0, token_ids_1, True)
        return self._marked(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))

    def _marked(self, ids: Any) -> Any:
        """Which of the ids, in lists, an array or a tensor, are special."""
        special = [i for i in self.all_special_ids if i != self.unk_token_id]
        if isinstance(ids, list):
            return (
                [self._marked(row) for row in ids]
                if ids and isinstance(ids[0], list)
                else [+(i in special) for i in ids]
            )
        return sum((ids == i) * 1 for i in special)

    @property
    def supported_language_codes(self) -> list[str]:
        """The codes of target languages that the vocabulary has, such as `>>fra<<`."""
        return [token for token in self.backend.vocab(with_added_tokens=False) if CODE.fullmatch(token)]

    def vocabulary_files(self) -> dict[str, str | bytes]:
        """The three files, the SentencePiece models byte for byte as they were read."""
        vocab = self.backend.vocab(with_added_tokens=False)
        return {**self._files, "vocab.json": json.dumps(vocab, ensure_ascii=False) + "\n"}

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """0 for each id of the first text, 1 for each of the second, without the special token."""
        return [0] * len(token_ids_0) + [1] * len(token_ids_1 or ())

    # ---- punctuation

    def normalize(self, text: str) -> str:
        """Punctuation as the Moses scripts write it, of which source_lang decides some; needs polyformer[xlm].

        The training data of OPUS-MT went through it. No call does it by itself; apply it to texts first.
        """
        return self._punctuation.normalize(text) if text else ""

    @cached_property
    def _punctuation(self) -> Any:
        try:
            from sacremoses import MosesPunctNormalizer
        except ImportError as e:
            raise ImportError("normalize needs sacremoses: install it with `pip install polyformer[xlm]`.") from e
        return MosesPunctNormalizer(self._own_options["source_lang"] or "en")

    # ---- which of the two models cuts

    @property
    def _backend(self) -> Backend:
        return self._reading.writing if self._writing else self._reading

    @_backend.setter
    def _backend(self, value: Backend) -> None:
        self._reading = cast(MarianBackend, value).reading


class MarianBackend(ExactBackend):
    """Two models over one vocabulary: `reading` cuts by source.spm, `writing` by target.spm, and both join by that."""

    def __init__(
        self,
        vocab: Mapping[str, int],
        unk_token: str,
        eos_token: str,
        source: SentencePieceModel,
        target: SentencePieceModel,
    ) -> None:
        super().__init__(vocab, unk_token, Cutter(source))
        self._eos_token = eos_token
        self._source, self._target = self._cutter, Cutter(target)
        self._joiner = Joiner(target)

    @property
    def reading(self) -> Self:
        """This vocabulary, for what the model reads."""
        return self._with(self._source)

    @property
    def writing(self) -> Self:
        """This vocabulary, for what the model writes."""
        return self._with(self._target)

    def _with(self, cutter: Cutter) -> Self:
        if cutter is self._cutter:
            return self
        other = copy(self)
        other._use(cutter)
        return other

    def template(self) -> Template:
        end = Piece(None, 0, self._vocab[self._eos_token], self._eos_token)
        return Template(Form((A, end)), Form((A, B, end)))

    def join(self, tokens: Sequence[str]) -> str:
        return self._joiner(tokens)

    # ---- language codes

    def pieces(self, texts: Sequence[str], detail: bool) -> Sequence[Pieces]:
        made = super().pieces([CODE.sub("", text) for text in texts], detail)
        return [self._with_code(text, row) if ">>" in text else row for text, row in zip(texts, made, strict=True)]

    def _with_code(self, text: str, row: Pieces) -> Pieces:
        """The pieces of a text without its codes, with the code that it begins with, and where they are in it."""
        codes = list(CODE.finditer(text))
        inside = {i for code in codes for i in range(*code.span())}
        kept = [i for i in range(len(text)) if i not in inside]
        offsets = [(kept[a], kept[b - 1] + 1 if b > a else kept[a]) for a, b in row.offsets]
        row = row._replace(offsets=offsets)
        if not codes or text[: codes[0].start()].strip():
            return row
        first = codes[0]
        words: list[int | None] = [0, *(w + 1 for w in row.word_ids if w is not None)]
        return Pieces([self._id_of(first[0]), *row.ids], [first[0], *row.tokens], [first.span(), *offsets], words)


class Joiner:
    """Pieces to text as SentencePiece does it, given pieces that need not be of its file."""

    def __init__(self, model: SentencePieceModel) -> None:
        self._model = model
        self._trims = model.add_dummy_prefix or model.remove_extra_whitespaces

    @cached_property
    def _spelt(self) -> dict[str, str]:
        """Piece to text."""
        model = self._model
        silent = [piece for piece, kind in zip(model.pieces, model.kinds, strict=True) if kind == Kind.CONTROL]
        spelt = {piece: piece.replace(SPACE, " ") for piece in model.pieces} | dict.fromkeys(silent, "")
        return spelt | {model.pieces[model.unk_id]: model.unk_surface}

    def __call__(self, tokens: Sequence[str]) -> str:
        text = ""
        for token in tokens:
            spelt = self._spelt.get(token)
            if spelt is not None and self._trims and not text:
                spelt = spelt.removeprefix(" ") if token.startswith(SPACE) else spelt
            text += token if spelt is None else spelt
        return text


def _without_last(rows: Any) -> Any:
    """A row of types, or rows in a list, array or tensor, without the last; it is 0, as the end token or padding."""
    if isinstance(rows, list):
        return [row[:-1] for row in rows] if rows and isinstance(rows[0], list) else rows[:-1]
    return rows[..., :-1]


def _read(path: FilePath, vocab: Mapping[str, int], vocab_path: FilePath) -> SentencePieceModel:
    """The model in a file; CheckpointError if the vocabulary lacks most of its pieces: a few are missing in any."""
    model = read_model(path)
    lacking = list(filterfalse(vocab.__contains__, model.pieces))
    if 2 * len(lacking) > len(model):
        raise CheckpointError(
            f"{vocab_path} lacks {len(lacking)} of the {len(model)} pieces of {path}, such as {lacking[-1]!r}: "
            "the files do not belong together; take all three from one model."
        )
    return model
