"""The ids that fairseq gives to the pieces of a SentencePiece model, and the tokenizers that have them.

    model file       <unk> <s> </s> ▁the ▁a ...
    fairseq's ids    <s> <pad> </s> <unk> ▁the ▁a ... [languages] <mask>

fairseq's dictionary has special tokens of its own in front of the pieces; `<mask>` was added behind them when the model
was trained (Ott et al. 2019, facebookresearch/fairseq).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import files, sentencepiece
from polyformer.tokenizers.backend import Backend
from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.sentencepiece import Columns, Scored
from polyformer.tokenizers.sentencepiece_model import Kind, SentencePieceModel
from polyformer.tokenizers.sentencepiece_tokenizer import FilePath, SentencePieceTokenizer
from polyformer.tokenizers.special import SpaceEater, Token


@dataclass(frozen=True)
class Layout:
    """Which token has which id.

    first: tokens before the pieces, with scores. replaced: the pieces, the first of the file, that they stand for.
    last: tokens behind the pieces.
    """

    first: tuple[tuple[str, float], ...] = (("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0))
    replaced: tuple[str, ...] = ("<unk>", "<s>", "</s>")
    last: tuple[str, ...] = ("<mask>",)

    def entries(self, model: SentencePieceModel) -> Columns:
        """The vocabulary in the order of its ids; CheckpointError if a piece of the file would be lost."""
        for piece, kind in zip(model.pieces[: len(self.replaced)], model.kinds, strict=False):
            if kind not in (Kind.UNKNOWN, Kind.CONTROL):
                raise CheckpointError(
                    f"The SentencePiece model has {piece!r} among its first {len(self.replaced)} pieces, where this "
                    f"class expects {', '.join(self.replaced)}: use the tokenizer class that it was made for."
                )
        pieces = sentencepiece.scored(model)[len(self.replaced) :]
        first, scores = zip(*self.first, strict=True)
        return Columns([*first, *pieces.pieces, *self.last], [*scores, *pieces.scores, *[0.0] * len(self.last)])

    def pieces(self, entries: Scored) -> Scored:
        """The reverse of `entries`."""
        return [*((piece, 0.0) for piece in self.replaced), *entries[len(self.first) : len(entries) - len(self.last)]]

    def fits(self, backend: Backend) -> bool:
        """Whether a vocabulary is laid out so."""
        behind = backend.vocab_size(with_added_tokens=False) - len(self.last)
        ids = {token: i for i, (token, _) in enumerate(self.first)} | {t: behind + i for i, t in enumerate(self.last)}
        return all(backend.token_to_id(token) == i for token, i in ids.items())


class FairseqTokenizer(SentencePieceTokenizer):
    """What the families with fairseq's ids share; a family has a `layout` and `forms`.

    vocab_file: a sentencepiece.bpe.model, or tokenizer_file: a tokenizer.json (used if both are given).
    mask_token: given as a str it takes the space before it along, since the word that it stands for would have it.
    sp_model_kwargs: options of the sentencepiece library for sampling; kept, and without effect here.

    Raises CheckpointError for a vocabulary that is missing, damaged, or of another layout.
    """

    vocab_files_names: ClassVar[Mapping[str, str]] = {
        "vocab_file": "sentencepiece.bpe.model",
        "tokenizer_file": files.FAST,
    }
    model_input_names = ("input_ids", "attention_mask")
    mask_token = SpaceEater()

    layout: ClassVar[Layout] = Layout()
    forms: ClassVar[tuple[str, str]] = (
        "{cls_token}:0 $A:0 {sep_token}:0",
        "{cls_token}:0 $A:0 {sep_token}:0 {sep_token}:0 $B:0 {sep_token}:0",
    )
    # Special tokens without a name, as far as the vocabulary has them.
    extra: ClassVar[tuple[str, ...]] = ()

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
        tokenizer_file: FilePath | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        around = {"cls_token": cls_token, "sep_token": sep_token, "eos_token": eos_token}
        backend = self._read(vocab_file, tokenizer_file, {n: t for n, t in around.items() if n in self.forms[0]})
        given = list(options.pop("additional_special_tokens", None) or [])
        known = [t for t in self.extra if t not in map(str, given) and backend.token_to_id(t) is not None]
        options["additional_special_tokens"] = [*known, *given]
        super().__init__(
            backend,
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

    def _entries(self, model: SentencePieceModel) -> Columns:
        return self.layout.entries(model)

    def _pieces(self, entries: Scored) -> Scored:
        return self.layout.pieces(entries)

    def vocabulary_files(self) -> dict[str, str | bytes]:
        """The model file, as it was read or rebuilt; nothing where ids are laid out otherwise, which it cannot say."""
        return super().vocabulary_files() if self.layout.fits(self.backend) else {}
