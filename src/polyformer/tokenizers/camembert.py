"""CamemBERT's tokenizer: SentencePiece over French text (Martin et al. 2019).

Its file was added to fairseq's dictionary whole, so that `<s>` and `</s>` are there twice; those of the file are used.
"""

from polyformer.tokenizers.fairseq import FairseqTokenizer, Layout


class CamembertTokenizer(FairseqTokenizer):
    """Text to CamemBERT's ids and back: `<s> A </s>`, or `<s> A </s></s> B </s>`, without token types.

    vocab_file: a sentencepiece.bpe.model, or tokenizer_file: a tokenizer.json (used if both are given).

    Raises CheckpointError for a vocabulary that is missing, damaged, or of another layout.
    """

    layout = Layout(
        first=(("<s>NOTUSED", 0.0), ("<pad>", 0.0), ("</s>NOTUSED", 0.0), ("<unk>", 0.0), ("<unk>NOTUSED", -100.0)),
        replaced=("<unk>",),
    )
    extra = ("<s>NOTUSED", "</s>NOTUSED")
