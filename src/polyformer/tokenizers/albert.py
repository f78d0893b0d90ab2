"""ALBERT's tokenizer: a SentencePiece model over plain text (Lan et al. 2019, google-research/albert)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.cleaned import cleaning, cleans, with_cleaning, with_commas, without_commas
from polyformer.tokenizers.sentencepiece import Columns, Scored, scored
from polyformer.tokenizers.sentencepiece_model import SentencePieceModel
from polyformer.tokenizers.sentencepiece_tokenizer import FilePath, SentencePieceTokenizer
from polyformer.tokenizers.special import SpaceEater, Token


class AlbertTokenizer(SentencePieceTokenizer):
    """Text to ALBERT's ids and back: `[CLS] A [SEP]`, or `[CLS] A [SEP] B [SEP]` with token types 0 and 1.

    vocab_file: a spiece.model, or tokenizer_file: a tokenizer.json (used if both are given).
    do_lower_case, keep_accents: None leaves it to tokenizer.json; for a spiece.model it means True and False.
    remove_space: fold runs of spaces. The vocabulary's own rules do so in any case; kept, and without effect here.
    sp_model_kwargs: options of the sentencepiece library for sampling; kept, and without effect here.

    Raises CheckpointError for a vocabulary that is missing or damaged, or lacks the tokens around a text.
    """

    forms: ClassVar[tuple[str, str]] = (
        "{cls_token}:0 $A:0 {sep_token}:0",
        "{cls_token}:0 $A:0 {sep_token}:0 $B:1 {sep_token}:1",
    )
    mask_token = SpaceEater()

    def __init__(
        self,
        vocab_file: FilePath | None = None,
        do_lower_case: bool | None = None,
        remove_space: bool = True,
        keep_accents: bool | None = None,
        bos_token: Token = "[CLS]",
        eos_token: Token = "[SEP]",
        unk_token: Token = "<unk>",
        sep_token: Token = "[SEP]",
        pad_token: Token = "<pad>",
        cls_token: Token = "[CLS]",
        mask_token: Token = "[MASK]",
        sp_model_kwargs: Mapping[str, Any] | None = None,
        *,
        tokenizer_file: FilePath | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        before = cleaning(do_lower_case is not False, bool(keep_accents))
        backend = self._read(vocab_file, tokenizer_file, {"cls_token": cls_token, "sep_token": sep_token}, before)
        if tokenizer_file is not None:
            backend = with_cleaning(backend, do_lower_case, keep_accents)
        lower, accents = cleans(backend)
        super().__init__(
            backend,
            own_options={
                "do_lower_case": lower,
                "remove_space": remove_space,
                "keep_accents": accents,
                "sp_model_kwargs": dict(sp_model_kwargs or {}),
            },
            bos_token=bos_token,
            eos_token=eos_token,
            unk_token=unk_token,
            sep_token=sep_token,
            pad_token=pad_token,
            cls_token=cls_token,
            mask_token=mask_token,
            **options,
        )

    def _entries(self, model: SentencePieceModel) -> Columns:
        return without_commas(scored(model))

    def _pieces(self, entries: Scored) -> Scored:
        return with_commas(entries)
