"""Tokenizers that tell the model, by a token of the vocabulary, which language a text is in: mBART's and mBART-50's."""

import re
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Unpack

from tokenizers import processors

from polyformer.tokenizers.backend import shared_copy
from polyformer.tokenizers.base import BatchEncoding, TokenizerOptions
from polyformer.tokenizers.checks import choice
from polyformer.tokenizers.fairseq import FairseqTokenizer, Layout
from polyformer.tokenizers.sentencepiece import SentencePieceBackend
from polyformer.tokenizers.sentencepiece_tokenizer import FilePath
from polyformer.tokenizers.special import Token
from polyformer.tokenizers.targets import TargetMode
from polyformer.tokenizers.template import Template
from polyformer.tokenizers.vocabulary import _GROWING

_CODE = re.compile("[a-z]{2,3}_[A-Za-z]{2,4}")  # en_XX; eng_Latn in later models


def layout_with(languages: tuple[str, ...]) -> Layout:
    """fairseq's layout, with the codes of these languages before `<mask>`."""
    return Layout(last=(*languages, "<mask>"))


class LanguageTokenizer(TargetMode, FairseqTokenizer):
    """What mBART and mBART-50 share; a family has `extra`, the codes of its languages, and `language_forms`.

    src_lang: the language of texts, such as "en_XX". tgt_lang: that of targets, needed within as_target_tokenizer. Both
    may be set at any time; a call under way in another thread keeps the one that it began with.
    """

    forms = ("$A:0", "$A:0 $B:0")  # of the file alone; src_lang and tgt_lang say what goes around
    language_forms: ClassVar[tuple[str, str]]
    default: ClassVar[str] = "en_XX"

    def __init__(
        self,
        vocab_file: FilePath | None = None,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        eos_token: Token = "</s>",
        sep_token: Token = "</s>",
        cls_token: Token = "<s>",
        unk_token: Token = "<unk>",
        pad_token: Token = "<pad>",
        mask_token: Token | None = "<mask>",
        sp_model_kwargs: Mapping[str, Any] | None = None,
        *,
        bos_token: Token | None = None,
        tokenizer_file: FilePath | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        super().__init__(
            vocab_file,
            bos_token,
            eos_token,
            sep_token,
            cls_token,
            unk_token,
            pad_token,
            mask_token,
            sp_model_kwargs,
            tokenizer_file=tokenizer_file,
            **options,
        )
        self.src_lang = src_lang or self.default
        self.tgt_lang = tgt_lang

    # ---- languages

    @property
    def src_lang(self) -> str:
        """The language of texts; ValueError when set to one that the vocabulary has no token for."""
        return str(self._own_options["src_lang"])

    @src_lang.setter
    def src_lang(self, language: str) -> None:
        with _GROWING:
            tokenizer = shared_copy(self.backend_tokenizer)
            tokenizer.post_processor = self._processor("src_lang", language)
            self._backend = SentencePieceBackend(tokenizer)
            self._template = self._backend.template()
            self._own_options = self._own_options | {"src_lang": language}

    @property
    def tgt_lang(self) -> str | None:
        """The language of targets; ValueError when set to one that the vocabulary has no token for."""
        return self._own_options["tgt_lang"]

    @tgt_lang.setter
    def tgt_lang(self, language: str | None) -> None:
        target = None if language is None else Template.of(self._processor("tgt_lang", language))
        with _GROWING:
            self._target = target
            self._own_options = self._own_options | {"tgt_lang": language}

    @property
    def lang_code_to_id(self) -> dict[str, int]:
        """Language to the id of its token."""
        codes = filter(_CODE.fullmatch, self.additional_special_tokens)
        return {code: self.convert_tokens_to_ids(code) for code in codes}

    @property
    def cur_lang_code(self) -> int:
        """The id of the language that a call encodes in."""
        return self.convert_tokens_to_ids(self.tgt_lang if self._writing else self.src_lang)

    def _processor(self, name: str, language: str) -> processors.TemplateProcessing:
        """What puts the token of a language, given as the attribute `name`, around texts."""
        code = choice(name, language, list(self.lang_code_to_id))
        around = {"eos_token": str(self.eos_token), "language": code}
        single, pair = ([piece.format(**around) for piece in form.split()] for form in self.language_forms)
        tokens = [(token, self.convert_tokens_to_ids(token)) for token in around.values()]
        return processors.TemplateProcessing(single=single, pair=pair, special_tokens=tokens)

    @property
    def _template(self) -> Template:
        if not self._writing:
            return self._source
        if self._target is None:
            raise ValueError("targets need a language: set tgt_lang, as in tokenizer.tgt_lang = 'ro_RO'.")
        return self._target

    @_template.setter
    def _template(self, value: Template) -> None:
        self._source = value

    # ---- sequence to sequence

    def prepare_seq2seq_batch(  # type: ignore[override]  # this order is mBART's own
        self,
        src_texts: Sequence[str],
        src_lang: str | None = None,
        tgt_texts: Sequence[str] | None = None,
        tgt_lang: str | None = None,
        max_length: int | None = None,
        max_target_length: int | None = None,
        padding: bool | str = "longest",
        return_tensors: str | None = None,
        truncation: bool | str = True,
        **more: Any,
    ) -> BatchEncoding:
        """Sources as by a call, and the ids of the targets as `labels`.

        src_lang, tgt_lang: for this batch alone; None means the tokenizer's own (and "ro_RO" where it has no tgt_lang).
        """
        own = copy(self)
        own.src_lang, own.tgt_lang = src_lang or self.src_lang, tgt_lang or self.tgt_lang or "ro_RO"
        return super(LanguageTokenizer, own).prepare_seq2seq_batch(
            src_texts, tgt_texts, max_length, max_target_length, padding, return_tensors, truncation, **more
        )
