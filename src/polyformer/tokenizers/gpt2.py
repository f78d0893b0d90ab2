"""GPT-2's tokenizer: byte-level BPE with one special token (Radford et al. 2019, openai/gpt-2)."""

from os import PathLike
from typing import Unpack

from polyformer.tokenizers import byte_level
from polyformer.tokenizers.backend import load_json
from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.bpe import BPETokenizer
from polyformer.tokenizers.special import Token


class GPT2Tokenizer(BPETokenizer):
    """Text to GPT-2's ids and back; nothing is added around a text, and there is no padding token until one is named.

    vocab_file, merges_file: a vocab.json and a merges.txt, or tokenizer_file: a tokenizer.json (used if given).
    errors: what decoding does with bytes that are no UTF-8: "replace" by U+FFFD, "ignore", "strict" (raises) ...
    add_prefix_space: begin every text with a space, so that its first word is spelt like any other; needed for lists
        of words. None leaves it to tokenizer.json, and means False without one.
    trim_offsets: leave the space before a word out of its offsets; None as above.

    Raises CheckpointError for files that are missing, damaged, or not of one model.
    """

    def __init__(
        self,
        vocab_file: str | PathLike[str] | None = None,
        merges_file: str | PathLike[str] | None = None,
        errors: str = "replace",
        unk_token: Token | None = "<|endoftext|>",
        bos_token: Token | None = "<|endoftext|>",
        eos_token: Token | None = "<|endoftext|>",
        add_prefix_space: bool | None = None,
        *,
        tokenizer_file: str | PathLike[str] | None = None,
        trim_offsets: bool | None = None,
        sep_token: Token | None = None,
        pad_token: Token | None = None,
        cls_token: Token | None = None,
        mask_token: Token | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        if tokenizer_file is not None:
            tokenizer = load_json(tokenizer_file).tokenizer
        else:
            tokenizer = byte_level.from_files(vocab_file, merges_file, type(self).__name__)
        backend = byte_level.backend(tokenizer, errors, add_prefix_space, trim_offsets)
        super().__init__(
            backend,
            own_options={"errors": errors, **backend.settings},
            unk_token=unk_token,
            bos_token=bos_token,
            eos_token=eos_token,
            sep_token=sep_token,
            pad_token=pad_token,
            cls_token=cls_token,
            mask_token=mask_token,
            **options,
        )
