"""Longformer's tokenizer, which is RoBERTa's (Beltagy et al. 2020)."""

from polyformer.tokenizers.roberta import RobertaTokenizer


class LongformerTokenizer(RobertaTokenizer):
    """Text to Longformer's ids and back; see RobertaTokenizer."""
