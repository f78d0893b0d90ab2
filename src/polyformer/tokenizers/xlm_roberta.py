"""XLM-RoBERTa's tokenizer: one SentencePiece model for a hundred languages (Conneau et al. 2019)."""

from polyformer.tokenizers.fairseq import FairseqTokenizer


class XLMRobertaTokenizer(FairseqTokenizer):
    """Text to XLM-R's ids and back: `<s> A </s>`, or `<s> A </s></s> B </s>`, without token types.

    vocab_file: a sentencepiece.bpe.model, or tokenizer_file: a tokenizer.json (used if both are given).
    sp_model_kwargs: options of the sentencepiece library for sampling; kept, and without effect here.

    Raises CheckpointError for a vocabulary that is missing, damaged, or of another layout.
    """
