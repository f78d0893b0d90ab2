"""Small repairs of decoded text."""

_JOINED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


def clean_up(text: str) -> str:
    """Take out the spaces that tokenization left before English punctuation and contractions."""
    for piece in _JOINED:
        text = text.replace(piece, piece.strip())
    return text
