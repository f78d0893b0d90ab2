"""Pegasus's tokenizer (Zhang et al. 2019, google-research/pegasus): a SentencePiece model behind 103 reserved ids.

    id      0      1     2         3         4 ...    104        105 ...
    token   <pad>  </s>  <mask_1>  <mask_2>  <unk_2>  <unk_102>  the pieces of the file, from its third on

`<mask_1>` stands for a sentence that is to be generated, `<mask_2>` for a word as in BERT; the others were never used.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.sentencepiece import Entry, Scored
from polyformer.tokenizers.sentencepiece_model import Kind, SentencePieceModel
from polyformer.tokenizers.sentencepiece_tokenizer import FilePath, SentencePieceTokenizer
from polyformer.tokenizers.special import Token


class PegasusTokenizer(SentencePieceTokenizer):
    """Text to Pegasus's ids and back: `A </s>`, or `A B </s>`, without token types.

    vocab_file: a spiece.model, or tokenizer_file: a tokenizer.json (used if both are given).
    mask_token_sent: the token that stands for a sentence; None if the model has no such token.
    offset: how many ids are reserved in front of the third piece; 0 for a file that has them as pieces of its own.
    sp_model_kwargs: options of the sentencepiece library for sampling; kept, and without effect here.

    Raises CheckpointError for a vocabulary that is missing or damaged, or that has the reserved tokens itself.
    """

    model_input_names = ("input_ids", "attention_mask")
    forms: ClassVar[tuple[str, str]] = ("$A:0 {eos_token}:0", "$A:0 $B:0 {eos_token}:0")
    words = True

    def __init__(
        self,
        vocab_file: FilePath | None = None,
        pad_token: Token = "<pad>",
        eos_token: Token = "</s>",
        unk_token: Token = "<unk>",
        mask_token: Token = "<mask_2>",
        mask_token_sent: Token | None = "<mask_1>",
        offset: int = 103,
        sp_model_kwargs: Mapping[str, Any] | None = None,
        *,
        tokenizer_file: FilePath | None = None,
        bos_token: Token | None = None,
        sep_token: Token | None = None,
        cls_token: Token | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        self.offset = offset
        self.mask_token_sent = None if mask_token_sent is None else str(mask_token_sent)
        self._masks = [str(token) for token in (mask_token_sent, mask_token) if token is not None]
        if 0 < offset < len(self._masks) or offset < 0:
            raise ValueError(f"offset={offset} leaves no ids for the masks: use 103, or 0 for a file that has them.")
        self._unused = [f"<unk_{i}>" for i in range(2, 2 + offset - len(self._masks))]
        backend = self._read(vocab_file, tokenizer_file, {"eos_token": eos_token})
        extra = [] if mask_token_sent is None else [mask_token_sent]
        extra += [
            token for token in options.get("additional_special_tokens") or () if str(token) != self.mask_token_sent
        ]
        named = {str(token) for token in extra}
        extra += [t for t in self._unused if t not in named and backend.token_to_id(t) is not None]
        options["additional_special_tokens"] = extra
        super().__init__(
            backend,
            own_options={
                "mask_token_sent": self.mask_token_sent,
                "offset": offset,
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

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """0 for each id of the first text, 1 for each of the second, without the special token."""
        return [0] * len(token_ids_0) + [1] * len(token_ids_1 or ())

    def _entries(self, model: SentencePieceModel) -> Sequence[Entry]:
        pieces = super()._entries(model)
        clash = next((token for token in (*self._masks, *self._unused) if token in model.ids), None)
        if self.offset and clash is not None:
            raise CheckpointError(
                f"The SentencePiece model has the piece {clash!r}, for which offset={self.offset} reserves an id: pass "
                "offset=0 for a file that has the reserved tokens itself."
            )
        if self.offset:
            return [*pieces[:2], *((token, 0.0) for token in (*self._masks, *self._unused)), *pieces[2:]]
        reserved = all(kind in (Kind.CONTROL, Kind.USER_DEFINED) for kind in model.kinds[2:4])
        if self.mask_token_sent is None or clash is not None or not reserved:
            return pieces
        return [*pieces[:2], *((token, 0.0) for token in self._masks), *pieces[4:]]  # as published: ids 2 and 3

    def _pieces(self, entries: Scored) -> Scored:
        return entries[:2] + entries[2 + self.offset :]
