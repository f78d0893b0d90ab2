"""XLNet's tokenizer: a SentencePiece model, special tokens at the end (Yang et al. 2019, zihangdai/xlnet)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.cleaned import cleaning, cleans, with_cleaning, with_commas, without_commas
from polyformer.tokenizers.sentencepiece import Columns, Scored, scored
from polyformer.tokenizers.sentencepiece_model import SentencePieceModel
from polyformer.tokenizers.sentencepiece_tokenizer import FilePath, SentencePieceTokenizer
from polyformer.tokenizers.special import SpaceEater, Token
from polyformer.tokenizers.vocabulary import Side


class XLNetTokenizer(SentencePieceTokenizer):
    """Text to XLNet's ids and back: `A <sep> <cls>`, or `A <sep> B <sep> <cls>`, padded on the left.

    Token types are 0 and 1, 2 for <cls> and 3 for padding.

    vocab_file: a spiece.model, or tokenizer_file: a tokenizer.json (used if both are given).
    do_lower_case, keep_accents: None leaves it to tokenizer.json; for a spiece.model it means False and False.
    remove_space: fold runs of spaces. The vocabulary's own rules do so in any case; kept, and without effect here.
    sp_model_kwargs: options of the sentencepiece library for sampling; kept, and without effect here.

    Raises CheckpointError for a vocabulary that is missing or damaged, or lacks the tokens around a text.
    """

    padding_side = Side("left")
    pad_token_type_id = 3
    forms: ClassVar[tuple[str, str]] = (
        "$A:0 {sep_token}:0 {cls_token}:2",
        "$A:0 {sep_token}:0 $B:1 {sep_token}:1 {cls_token}:2",
    )
    mask_token = SpaceEater()

    def __init__(
        self,
        vocab_file: FilePath | None = None,
        do_lower_case: bool | None = None,
        remove_space: bool = True,
        keep_accents: bool | None = None,
        bos_token: Token = "<s>",
        eos_token: Token = "</s>",
        unk_token: Token = "<unk>",
        sep_token: Token = "<sep>",
        pad_token: Token = "<pad>",
        cls_token: Token = "<cls>",
        mask_token: Token = "<mask>",
        sp_model_kwargs: Mapping[str, Any] | None = None,
        *,
        tokenizer_file: FilePath | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        options.setdefault("additional_special_tokens", ["<eop>", "<eod>"])
        before = cleaning(bool(do_lower_case), bool(keep_accents))
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
