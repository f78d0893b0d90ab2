"""FlauBERT's tokenizer: XLM's, for French (Le et al. 2020, getalp/Flaubert).

Before the Moses rules, quotes typed as two ticks become `"`, and letters and their marks one character.
"""

from collections.abc import Mapping
from os import PathLike
from typing import Any, ClassVar, Unpack

from polyformer.tokenizers import moses
from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.reader import Reader
from polyformer.tokenizers.special import Token
from polyformer.tokenizers.traced import Composed, Lowercase, Rules, Step
from polyformer.tokenizers.xlm import XLMTokenizer


class FlaubertTokenizer(XLMTokenizer):
    """Text to FlauBERT's ids and back: `<s> A </s>`, or `<s> A </s> B </s>` with token types 0 and 1.

    do_lowercase: for the uncased models; accents stay. Every other option is XLMTokenizer's, whose
    do_lowercase_and_remove_accent is kept but means nothing here. A call takes `bypass_tokenizer` as there.
    """

    language: ClassVar[str] = "fr"

    def __init__(
        self,
        do_lowercase: bool = False,
        vocab_file: str | PathLike[str] | None = None,
        merges_file: str | PathLike[str] | None = None,
        unk_token: Token = "<unk>",
        bos_token: Token = "<s>",
        sep_token: Token = "</s>",
        pad_token: Token | None = "<pad>",
        cls_token: Token | None = "</s>",
        mask_token: Token | None = "<special1>",
        *,
        lang2id: Mapping[str, int] | None = None,
        id2lang: Mapping[Any, str] | None = None,
        do_lowercase_and_remove_accent: bool = True,
        eos_token: Token | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        self.do_lowercase = do_lowercase
        super().__init__(
            vocab_file,
            merges_file,
            unk_token,
            bos_token,
            sep_token,
            pad_token,
            cls_token,
            mask_token,
            lang2id=lang2id,
            id2lang=id2lang,
            do_lowercase_and_remove_accent=do_lowercase_and_remove_accent,
            eos_token=eos_token,
            **options,
        )
        self._own_options["do_lowercase"] = do_lowercase

    def _reader(self, language: str) -> Reader:
        lower: tuple[Step, ...] = (Lowercase(),) if self.do_lowercase else ()
        return Reader((QUOTES, Composed(), *lower, *moses.cleaning(language)), moses.Words(language))


QUOTES = Rules(("``|''", '"'))
