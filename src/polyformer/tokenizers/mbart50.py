"""mBART-50's tokenizer: mBART's for fifty languages, the language of a text before it (Tang et al. 2020, fairseq)."""

from polyformer.tokenizers import mbart
from polyformer.tokenizers.languages import LanguageTokenizer, layout_with

LANGUAGES = (
    *mbart.LANGUAGES, "af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL", "hr_HR", "id_ID", "ka_GE", "km_KH", "mk_MK", "ml_IN",
    "mn_MN", "mr_IN", "pl_PL", "ps_AF", "pt_XX", "sv_SE", "sw_KE", "ta_IN", "te_IN", "th_TH", "tl_XX", "uk_UA", "ur_PK",
    "xh_ZA", "gl_ES", "sl_SI",
)  # fmt: skip


class MBart50Tokenizer(LanguageTokenizer):
    """Text to mBART-50's ids and back: `LANGUAGE A </s>`, or `LANGUAGE A B </s>`; targets likewise.

    vocab_file: a sentencepiece.bpe.model, or tokenizer_file: a tokenizer.json (used if both are given).
    src_lang, tgt_lang: the languages of texts and targets, such as "en_XX" (the default of src_lang) and "ro_RO".

    Raises CheckpointError for a vocabulary that is missing, damaged, or of another layout, ValueError for a language
    that it has no token for.
    """

    layout = layout_with(LANGUAGES)
    extra = LANGUAGES
    language_forms = ("{language}:0 $A:0 {eos_token}:0", "{language}:0 $A:0 $B:0 {eos_token}:0")

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """0 for each id of the first text, 1 for each of the second, without the special tokens."""
        return [0] * len(token_ids_0) + [1] * len(token_ids_1 or ())
