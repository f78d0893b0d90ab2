"""OpenAI GPT's tokenizer: BPE over characters, `</w>` at the end of a word (Radford et al. 2018).

The original cleaned text with ftfy and spaCy (openai/finetune-transformer-lm). This is the way without them: BERT's
cleaning and splitting, in lower case and without accents; ids differ where spaCy splits otherwise.
"""

from os import PathLike
from typing import Unpack

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

from polyformer.tokenizers import bpe
from polyformer.tokenizers.backend import RustBackend, load_json
from polyformer.tokenizers.base import TokenizerOptions
from polyformer.tokenizers.special import Token


class OpenAIGPTTokenizer(bpe.BPETokenizer):
    """Text to GPT's ids and back; nothing is added around a text, and there is no padding token until one is named.

    vocab_file, merges_file: a vocab.json and a merges.txt, or tokenizer_file: a tokenizer.json (used if given).

    Raises CheckpointError for files that are missing, damaged, not of one model, or lack the unknown token.
    """

    def __init__(
        self,
        vocab_file: str | PathLike[str] | None = None,
        merges_file: str | PathLike[str] | None = None,
        unk_token: Token = "<unk>",
        *,
        tokenizer_file: str | PathLike[str] | None = None,
        bos_token: Token | None = None,
        eos_token: Token | None = None,
        sep_token: Token | None = None,
        pad_token: Token | None = None,
        cls_token: Token | None = None,
        mask_token: Token | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        if tokenizer_file is not None:
            backend = load_json(tokenizer_file)
        else:
            backend = _from_files(vocab_file, merges_file, str(unk_token), type(self).__name__)
        super().__init__(
            backend,
            unk_token=unk_token,
            bos_token=bos_token,
            eos_token=eos_token,
            sep_token=sep_token,
            pad_token=pad_token,
            cls_token=cls_token,
            mask_token=mask_token,
            **options,
        )

    @property
    def do_lower_case(self) -> bool:
        """Always: the vocabulary has no capitals."""
        return True


def _from_files(vocab_file: bpe.Path, merges_file: bpe.Path, unk_token: str, owner: str) -> RustBackend:
    vocab, merges = bpe.read(vocab_file, merges_file, owner)
    bpe.need_unknown(vocab, vocab_file, unk_token)
    tokenizer = Tokenizer(bpe.model(vocab, merges, merges_file, unk_token=unk_token, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return RustBackend(tokenizer)
