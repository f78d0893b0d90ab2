"""BART's tokenizer, which is RoBERTa's (Lewis et al. 2019)."""

from polyformer.tokenizers.roberta import RobertaTokenizer


class BartTokenizer(RobertaTokenizer):
    """Text to BART's ids and back; see RobertaTokenizer. Targets are encoded as sources are."""
