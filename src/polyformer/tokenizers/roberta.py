"""RoBERTa's tokenizer: GPT-2's byte-level BPE with BERT's kind of special tokens (Liu et al. 2019, fairseq)."""

from os import PathLike
from typing import Unpack

from tokenizers import Tokenizer, processors

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import byte_level
from polyformer.tokenizers.backend import load_json
from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.bpe import BPETokenizer, Path
from polyformer.tokenizers.special import SpaceEater, Token


class RobertaTokenizer(BPETokenizer):
    """Text to RoBERTa's ids and back: `<s> A </s>`, or `<s> A </s></s> B </s>`, all of token type 0.

    Arguments as for GPT2Tokenizer; trim_offsets means True for a vocab.json. A mask token given as a str takes the
    space before it along, since the word that it stands for would have it.

    Raises CheckpointError for files that are missing, damaged, not of one model, or lack `<s>` or `</s>`.
    """

    mask_token = SpaceEater()

    def __init__(
        self,
        vocab_file: str | PathLike[str] | None = None,
        merges_file: str | PathLike[str] | None = None,
        errors: str = "replace",
        bos_token: Token | None = "<s>",
        eos_token: Token | None = "</s>",
        sep_token: Token = "</s>",
        cls_token: Token = "<s>",
        unk_token: Token | None = "<unk>",
        pad_token: Token | None = "<pad>",
        mask_token: Token | None = "<mask>",
        add_prefix_space: bool | None = None,
        *,
        tokenizer_file: str | PathLike[str] | None = None,
        trim_offsets: bool | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        if tokenizer_file is not None:
            tokenizer = load_json(tokenizer_file).tokenizer
        else:
            tokenizer = byte_level.from_files(vocab_file, merges_file, type(self).__name__)
            _put_around(tokenizer, vocab_file, str(cls_token), str(sep_token))
        backend = byte_level.backend(tokenizer, errors, add_prefix_space, trim_offsets)
        super().__init__(
            backend,
            own_options={"errors": errors, **backend.settings},
            bos_token=bos_token,
            eos_token=eos_token,
            sep_token=sep_token,
            cls_token=cls_token,
            unk_token=unk_token,
            pad_token=pad_token,
            mask_token=mask_token,
            **options,
        )


def _put_around(tokenizer: Tokenizer, vocab_file: Path, first: str, last: str) -> None:
    """Begin each text with the token `first` and end it with `last`, and trim offsets."""
    ids = {}
    for name, token in (("cls_token", first), ("sep_token", last)):
        found = tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(
                f"{vocab_file} has no {token!r}, which is needed as the {name}: check that it is this model's "
                f"vocabulary, or pass {name}= with the token that plays this part there."
            )
        ids[token] = found
    tokenizer.post_processor = processors.RobertaProcessing(
        (last, ids[last]), (first, ids[first]), trim_offsets=True, add_prefix_space=False
    )
