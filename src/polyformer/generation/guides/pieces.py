"""What each token of a vocabulary adds to a text, in bytes.

A token is looked at behind another one, since a first token may lose its space. One that is not a whole character (a
byte of UTF-8) is read off its name: <0xE2>, or the letters that byte-level vocabularies write bytes with (openai/gpt-2
src/encoder.py: printable bytes of Latin-1 are themselves, the others follow from U+0100 on).
"""

import re
from typing import Any

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_OF = {chr(byte): byte for byte in _PRINTABLE} | {chr(0x100 + i): byte for i, byte in enumerate(_OTHERS)}


class Trie:
    """Tokens by their bytes. here: the tokens that end at this node."""

    __slots__ = ("here", "next")

    def __init__(self) -> None:
        self.next: dict[int, Trie] = {}
        self.here: list[int] = []

    def add(self, key: bytes, token: int) -> None:
        node = self
        for byte in key:
            node = node.next.setdefault(byte, Trie())
        node.here.append(token)


def pieces(tokenizer: Any) -> dict[int, bytes]:
    """Token -> its bytes, for all tokens that are text; special ones and empty ones are left out."""
    how: dict[str, Any] = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    before = list(tokenizer.encode("a", add_special_tokens=False))[-1:]
    begun = len(tokenizer.decode(before, **how))
    special = set(getattr(tokenizer, "all_special_ids", ()))
    found = {}
    for token in range(len(tokenizer)):
        if token in special:
            continue
        text = tokenizer.decode([*before, token], **how)[begun:]
        raw = text.encode() if "\ufffd" not in text else _named_bytes(tokenizer.convert_ids_to_tokens(token))
        if raw:
            found[token] = raw
    return found


def _named_bytes(name: str | None) -> bytes:
    """The bytes that a token's name says it is; none where it does not."""
    if name is None:
        return b""
    byte = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", name)
    if byte:
        return bytes([int(byte[1], 16)])
    return bytes(BYTE_OF[char] for char in name) if all(char in BYTE_OF for char in name) else b""
