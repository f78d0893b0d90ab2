"""Byte-level BPE (Radford et al. 2019, openai/gpt-2): the alphabet is the 256 bytes, so that any text can be written.

Text is split into words with the space before them, contractions, numbers and runs of other signs; each byte of a word
is spelt as a printable character (a space as `Ġ`), and the pieces are joined by merges. There is no unknown token, and
decoding gives back the very text.
"""

import codecs
import json
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, Self

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors

from polyformer.tokenizers import bpe
from polyformer.tokenizers.backend import RustBackend, TextSide, Tokens, shared_copy

# The printable bytes of Latin-1 are spelt as themselves, the 68 others, in order, as the characters from U+0100 on.
_PLAIN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHER = [byte for byte in range(256) if byte not in _PLAIN]
BYTE_OF = {chr(byte): byte for byte in _PLAIN} | {chr(0x100 + i): byte for i, byte in enumerate(_OTHER)}


class ByteLevelBackend(RustBackend):
    """A byte-level tokenizer. `errors`: what decoding does with bytes that are no UTF-8, as for `bytes.decode`."""

    def __init__(self, tokenizer: Tokenizer, errors: str = "replace") -> None:
        super().__init__(tokenizer)
        self.errors = errors if isinstance(tokenizer.decoder, decoders.ByteLevel) else "replace"

    def over(self, tokenizer: Tokenizer) -> Self:
        return type(self)(tokenizer, self.errors)

    def encode(self, texts: Sequence[TextSide], split: bool, detail: bool) -> Sequence[Tokens]:
        if split and self.settings.get("add_prefix_space") is False:
            raise ValueError(
                "words given one by one need the space before them that they have within a text: "
                "load the tokenizer with add_prefix_space=True to use is_split_into_words=True."
            )
        return super().encode(texts, split, detail)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        if self.errors == "replace" and self._unlike_bytes.isdisjoint(ids):
            return super().decode(ids, skip_special_tokens)
        added = self.added_tokens()
        kept = [i for i in ids if not (skip_special_tokens and i in added and added[i].special)]
        text = ""
        for literal, group in groupby(kept, key=added.__contains__):
            tokens = [token for i in group if (token := self.id_to_token(i)) is not None]
            text += "".join(tokens) if literal else self.join(tokens)
        return text

    def join(self, tokens: Sequence[str]) -> str:
        if self.errors == "replace":
            return super().join(tokens)
        spelt = b"".join(bytes(map(BYTE_OF.__getitem__, t)) if BYTE_OF.keys() >= set(t) else t.encode() for t in tokens)
        return spelt.decode("utf-8", self.errors)

    @cached_property
    def _unlike_bytes(self) -> frozenset[int]:
        """Added tokens, which are text as it stands, that the decoder would take for the spelling of other bytes."""
        return frozenset(
            i for i, t in self.added_tokens().items() if super(ByteLevelBackend, self).join([str(t)]) != str(t)
        )

    @cached_property
    def settings(self) -> dict[str, bool]:
        """add_prefix_space and trim_offsets, as far as the pre-tokenizer and the post-processor have them."""
        spaces = [step["add_prefix_space"] for step in _steps(_state(self.tokenizer.pre_tokenizer))]
        trims = [step["trim_offsets"] for step in _steps(_state(self.tokenizer.post_processor))]
        found = {"add_prefix_space": spaces, "trim_offsets": trims}
        return {name: values[0] for name, values in found.items() if values}


def from_files(vocab_file: bpe.Path, merges_file: bpe.Path, owner: str) -> Tokenizer:
    """The tokenizer of a vocab.json and a merges.txt, without a space before the text and without special tokens."""
    vocab, merges = bpe.read(vocab_file, merges_file, owner)
    tokenizer = Tokenizer(bpe.model(vocab, merges, merges_file))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False)
    return tokenizer


def backend(
    tokenizer: Tokenizer, errors: str, add_prefix_space: bool | None, trim_offsets: bool | None
) -> ByteLevelBackend:
    """The backend over this tokenizer, with the settings that are not None changed to these.

    add_prefix_space: begin every text with a space, so that its first word is spelt as it would be inside a text.
    trim_offsets: leave the space before a word out of its offsets.
    """
    try:
        codecs.lookup_error(errors)
    except LookupError as e:
        raise ValueError(
            f"errors={errors!r} is no way to treat bytes that are no text: use 'replace', 'ignore', 'strict' or "
            "another of those that bytes.decode knows."
        ) from e
    wanted = {"add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    parts = {name: _state(getattr(tokenizer, name)) for name in ("pre_tokenizer", "post_processor")}
    steps = [step for part in parts.values() for step in _steps(part)]
    if all(step[name] == value for step in steps for name, value in wanted.items()):
        return ByteLevelBackend(tokenizer, errors)
    for step in steps:
        step.update(wanted)
    changed = shared_copy(tokenizer)
    made = Tokenizer.from_str(json.dumps(_NOTHING | parts))
    for name in parts:
        setattr(changed, name, getattr(made, name))
    return ByteLevelBackend(changed, errors)


_NOTHING: dict[str, Any] = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "decoder": None,
    "model": {"type": "BPE", "vocab": {}, "merges": []},
}  # fmt: skip


def _state(part: Any) -> Any:
    return None if part is None else json.loads(part.__getstate__())


def _steps(state: Any) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer or post-processor that deal with bytes and their spaces."""
    if state is None:
        return []
    if state["type"] == "Sequence":
        return [s for inner in state.get("pretokenizers", state.get("processors", ())) for s in _steps(inner)]
    return [state] if state["type"] in ("ByteLevel", "RobertaProcessing") else []
