"""The tokenizer of T5 (Raffel et al. 2019, google-research/t5x) and mT5 (Xue et al. 2020)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.sentencepiece import Entry, Scored
from polyformer.tokenizers.sentencepiece_model import SentencePieceModel
from polyformer.tokenizers.sentencepiece_tokenizer import FilePath, SentencePieceTokenizer
from polyformer.tokenizers.special import Token


class T5Tokenizer(SentencePieceTokenizer):
    """Text to T5's ids and back: `A </s>`, or `A </s> B </s>`, without token types.

    vocab_file: a spiece.model, or tokenizer_file: a tokenizer.json (used if both are given).
    extra_ids: how many sentinels `<extra_id_0>`, `<extra_id_1>` ... there are behind the pieces, the last one first;
        each stands for a span that was left out of the text.
    sp_model_kwargs: options of the sentencepiece library for sampling; kept, and without effect here.

    Raises CheckpointError for a vocabulary that is missing or damaged, ValueError for additional_special_tokens with
    another number of sentinels than extra_ids.
    """

    model_input_names = ("input_ids", "attention_mask")
    forms: ClassVar[tuple[str, str]] = ("$A:0 {eos_token}:0", "$A:0 {eos_token}:0 $B:0 {eos_token}:0")

    def __init__(
        self,
        vocab_file: FilePath | None = None,
        eos_token: Token = "</s>",
        unk_token: Token = "<unk>",
        pad_token: Token = "<pad>",
        extra_ids: int = 100,
        sp_model_kwargs: Mapping[str, Any] | None = None,
        *,
        tokenizer_file: FilePath | None = None,
        bos_token: Token | None = None,
        sep_token: Token | None = None,
        cls_token: Token | None = None,
        mask_token: Token | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        self._sentinels = [f"<extra_id_{i}>" for i in range(extra_ids)]
        backend = self._read(vocab_file, tokenizer_file, {"eos_token": eos_token})
        options["additional_special_tokens"] = self._with_sentinels(options.get("additional_special_tokens") or [])
        super().__init__(
            backend,
            own_options={"extra_ids": extra_ids, "sp_model_kwargs": dict(sp_model_kwargs or {})},
            bos_token=bos_token,
            eos_token=eos_token,
            unk_token=unk_token,
            sep_token=sep_token,
            pad_token=pad_token,
            cls_token=cls_token,
            mask_token=mask_token,
            **options,
        )

    def _with_sentinels(self, given: Sequence[Token]) -> list[Token]:
        """The additional special tokens; the sentinels come first where none of them is given."""
        count = sum("<extra_id_" in str(token) for token in given)
        if count and self._sentinels and count != len(self._sentinels):
            raise ValueError(
                f"extra_ids={len(self._sentinels)} but additional_special_tokens has {count} tokens <extra_id_...>: "
                f"pass extra_ids={count}, or leave additional_special_tokens out."
            )
        return list(given) if count else [*self._sentinels, *given]

    def _entries(self, model: SentencePieceModel) -> Sequence[Entry]:
        pieces = super()._entries(model)
        return [*pieces, *((token, 0.0) for token in reversed(self._sentinels) if token not in model.ids)]

    def _pieces(self, entries: Scored) -> Scored:
        return [entry for entry in entries if entry[0] not in self._sentinels]


class MT5Tokenizer(T5Tokenizer):
    """mT5's tokenizer: T5's, over a vocabulary for a hundred languages."""
