"""mBART's tokenizer: XLM-R's SentencePiece model, and the language of a text after it (Liu et al. 2020, fairseq)."""

from collections.abc import Mapping
from typing import Any, Unpack

from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.languages import LanguageTokenizer, layout_with
from polyformer.tokenizers.sentencepiece_tokenizer import FilePath
from polyformer.tokenizers.special import Token

LANGUAGES = (
    "ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN", "it_IT", "ja_XX", "kk_KZ",
    "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO", "ru_RU", "si_LK", "tr_TR", "vi_VN", "zh_CN",
)  # fmt: skip


class MBartTokenizer(LanguageTokenizer):
    """Text to mBART's ids and back: `A </s> LANGUAGE`, or `A B </s> LANGUAGE`; the decoder begins with LANGUAGE.

    vocab_file: a sentencepiece.bpe.model, or tokenizer_file: a tokenizer.json (used if both are given).
    src_lang, tgt_lang: the languages of texts and targets, such as "en_XX" (the default of src_lang) and "ro_RO".

    Raises CheckpointError for a vocabulary that is missing, damaged, or of another layout, ValueError for a language
    that it has no token for.
    """

    layout = layout_with(LANGUAGES)
    extra = LANGUAGES
    language_forms = ("$A:0 {eos_token}:0 {language}:0", "$A:0 $B:0 {eos_token}:0 {language}:0")

    def __init__(
        self,
        vocab_file: FilePath | None = None,
        bos_token: Token | None = "<s>",
        eos_token: Token = "</s>",
        sep_token: Token = "</s>",
        cls_token: Token = "<s>",
        unk_token: Token = "<unk>",
        pad_token: Token = "<pad>",
        mask_token: Token | None = "<mask>",
        sp_model_kwargs: Mapping[str, Any] | None = None,
        *,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        tokenizer_file: FilePath | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        super().__init__(
            vocab_file,
            src_lang,
            tgt_lang,
            eos_token,
            sep_token,
            cls_token,
            unk_token,
            pad_token,
            mask_token,
            sp_model_kwargs,
            bos_token=bos_token,
            tokenizer_file=tokenizer_file,
            **options,
        )

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Zeros for the row that XLM-R would make of these ids, which for a pair is longer by two than mBART's own."""
        return [0] * (2 + len(token_ids_0) + (0 if token_ids_1 is None else 2 + len(token_ids_1)))
