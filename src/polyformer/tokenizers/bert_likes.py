"""Tokenizers that are BERT's own under another model's name: the vocabulary and the cutting are the same.

They differ in the columns a call returns, and Funnel in its special tokens. Every other option is BertTokenizer's.
"""

from collections.abc import Iterable
from os import PathLike
from typing import Unpack

from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.bert import BertTokenizer
from polyformer.tokenizers.special import Token


class DistilBertTokenizer(BertTokenizer):
    """DistilBERT's (Sanh et al. 2019), which has no token types."""

    model_input_names = ("input_ids", "attention_mask")


class RetriBertTokenizer(BertTokenizer):
    """RetriBERT's (Jernite 2020), without token types."""

    model_input_names = ("input_ids", "attention_mask")


class ElectraTokenizer(BertTokenizer):
    """ELECTRA's (Clark et al. 2020)."""


class ConvBertTokenizer(BertTokenizer):
    """ConvBERT's (Jiang et al. 2020)."""


class MobileBertTokenizer(BertTokenizer):
    """MobileBERT's (Sun et al. 2020)."""


class LxmertTokenizer(BertTokenizer):
    """LXMERT's (Tan and Bansal 2019), for the question beside an image."""


class FunnelTokenizer(BertTokenizer):
    """Funnel Transformer's (Dai et al. 2020): `<cls> A <sep> B <sep>`, where `<cls>` is of a token type of its own, 2.

    That type lets the model keep the first token apart from those it pools.
    """

    forms = (
        "{cls_token}:2 $A:0 {sep_token}:0",
        "{cls_token}:2 $A:0 {sep_token}:0 $B:1 {sep_token}:1",
    )

    def __init__(
        self,
        vocab_file: str | PathLike[str] | None = None,
        do_lower_case: bool | None = None,
        do_basic_tokenize: bool = True,
        never_split: Iterable[str] | None = None,
        unk_token: Token = "<unk>",
        sep_token: Token = "<sep>",
        pad_token: Token = "<pad>",
        cls_token: Token = "<cls>",
        mask_token: Token = "<mask>",
        bos_token: Token | None = "<s>",
        eos_token: Token | None = "</s>",
        tokenize_chinese_chars: bool | None = None,
        strip_accents: bool | None = None,
        *,
        tokenizer_file: str | PathLike[str] | None = None,
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
            tokenizer_file=tokenizer_file,
            bos_token=bos_token,
            eos_token=eos_token,
            **options,
        )
