"""Reformer's tokenizer: byte pair encoding of a SentencePiece model (Kitaev et al. 2020, google/trax)."""

from collections.abc import Mapping
from typing import Any, Unpack

from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.sentencepiece_tokenizer import FilePath, SentencePieceTokenizer
from polyformer.tokenizers.special import Token


class ReformerTokenizer(SentencePieceTokenizer):
    """Text to Reformer's ids and back, without special tokens around it and without a padding token.

    vocab_file: a spiece.model, or tokenizer_file: a tokenizer.json (used if both are given).
    sp_model_kwargs: options of the sentencepiece library for sampling; kept, and without effect here.

    Raises CheckpointError for a vocabulary that is missing or damaged.
    """

    model_input_names = ("input_ids", "attention_mask")

    def __init__(
        self,
        vocab_file: FilePath | None = None,
        eos_token: Token = "</s>",
        unk_token: Token = "<unk>",
        sp_model_kwargs: Mapping[str, Any] | None = None,
        *,
        tokenizer_file: FilePath | None = None,
        bos_token: Token | None = None,
        sep_token: Token | None = None,
        pad_token: Token | None = None,
        cls_token: Token | None = None,
        mask_token: Token | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        super().__init__(
            self._read(vocab_file, tokenizer_file, {}),
            own_options={"sp_model_kwargs": dict(sp_model_kwargs or {})},
            bos_token=bos_token,
            eos_token=eos_token,
            unk_token=unk_token,
            sep_token=sep_token,
            pad_token=pad_token,
            cls_token=cls_token,
            mask_token=mask_token,
            **options,
        )
