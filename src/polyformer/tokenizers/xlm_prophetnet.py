"""XLM-ProphetNet's tokenizer: XLM-R's SentencePiece model under other ids (Qi et al. 2020, microsoft/ProphetNet).

model file    <unk> <s> </s> ▁the ▁a ...
ids           [PAD] [CLS] [SEP] [UNK] [MASK] [unused0] ... [unused9] ▁the ▁a ...
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar, Unpack

from tokenizers import AddedToken

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.sentencepiece import SPACE
from polyformer.tokenizers.sentencepiece_exact import Cutter, ExactBackend
from polyformer.tokenizers.sentencepiece_model import Kind, SentencePieceModel, read_model
from polyformer.tokenizers.slow import WholeRows
from polyformer.tokenizers.special import Token
from polyformer.tokenizers.template import A, B, Form, Piece, Template

FIRST = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *(f"[unused{i}]" for i in range(10)))
REPLACED = ("<unk>", "<s>", "</s>")


class XLMProphetNetTokenizer(WholeRows):
    """Text to XLM-ProphetNet's ids and back: `A [SEP]`, or `A [SEP] B [SEP]`, without token types.

    vocab_file: a prophetnet.tokenizer.
    sp_model_kwargs: options of the sentencepiece library for sampling; kept, and without effect here.

    Raises CheckpointError for a vocabulary that is missing, damaged, or of another layout.
    """

    vocab_files_names: ClassVar[Mapping[str, str]] = {"vocab_file": "prophetnet.tokenizer"}
    model_input_names = ("input_ids", "attention_mask")

    def __init__(
        self,
        vocab_file: str | PathLike[str],
        bos_token: Token | None = "[SEP]",
        eos_token: Token | None = "[SEP]",
        sep_token: Token = "[SEP]",
        unk_token: Token = "[UNK]",
        pad_token: Token | None = "[PAD]",
        cls_token: Token | None = "[CLS]",
        mask_token: Token | None = "[MASK]",
        sp_model_kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        model = read_model(vocab_file)
        self._model_file = model.to_bytes()
        backend = XLMProphetNetBackend(_vocab(model, vocab_file), Cutter(model))
        super().__init__(
            backend.adding([AddedToken(token, normalized=False) for token in FIRST]),  # so that text may hold them
            own_options={"sp_model_kwargs": dict(sp_model_kwargs or {})},
            bos_token=bos_token,
            eos_token=eos_token,
            sep_token=sep_token,
            unk_token=unk_token,
            pad_token=pad_token,
            cls_token=cls_token,
            mask_token=mask_token,
            **options,
        )

    def vocabulary_files(self) -> dict[str, str | bytes]:
        """prophetnet.tokenizer, byte for byte as it was read."""
        return {"prophetnet.tokenizer": self._model_file}

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Zeros: for a pair one more than the row has, as if another separator stood between the texts."""
        return [0] * (1 + len(token_ids_0) + (0 if token_ids_1 is None else 2 + len(token_ids_1)))


class XLMProphetNetBackend(ExactBackend):
    """The ids that ProphetNet gives to XLM-R's pieces."""

    def __init__(self, vocab: Mapping[str, int], cutter: Cutter) -> None:
        super().__init__(vocab, "[UNK]", cutter)

    def template(self) -> Template:
        end = Piece(None, 0, self._vocab["[SEP]"], "[SEP]")
        return Template(Form((A, end)), Form((A, end, B._replace(type=0), end)))

    def join(self, tokens: Sequence[str]) -> str:
        return "".join(tokens).replace(SPACE, " ").strip()


def _vocab(model: SentencePieceModel, path: Any) -> dict[str, int]:
    for piece, kind in zip(model.pieces[: len(REPLACED)], model.kinds, strict=False):
        if kind not in (Kind.UNKNOWN, Kind.CONTROL):
            raise CheckpointError(
                f"{path} has {piece!r} among its first {len(REPLACED)} pieces, where {', '.join(REPLACED)} must be: "
                "use the tokenizer class that it was made for."
            )
    return {token: i for i, token in enumerate([*FIRST, *model.pieces[len(REPLACED) :]])}
