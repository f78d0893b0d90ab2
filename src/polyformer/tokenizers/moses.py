"""The rules of the Moses scripts (Koehn et al. 2007, moses-smt/mosesdecoder), which sacremoses has in Python.

normalise   one spelling of quotes, dashes, brackets and full-width signs, and the spaces around them
tokenise    `isn't it?` to `isn 't it ?`, with what is particular to a language
detokenise  the reverse

XLM, FlauBERT and Transformer-XL were trained on text prepared so. sacremoses comes with `pip install polyformer[xlm]`.
"""

import re
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from polyformer.tokenizers.traced import STRIP, Rules, Step, Trace


class _Made(threading.local):
    """Tools of sacremoses, each thread its own: nothing says that they may be shared."""

    def __init__(self) -> None:
        self.tools: dict[tuple[str, str], Any] = {}


_MADE = _Made()


def _tool(name: str, language: str) -> Any:
    found = _MADE.tools.get((name, language))
    if found is None:
        found = _MADE.tools[name, language] = getattr(_sacremoses(), name)(lang=language)
    return found


def _sacremoses() -> Any:
    try:
        import sacremoses
    except ImportError as e:
        raise ImportError(
            "the Moses rules that this tokenizer cuts text by need sacremoses: install it with "
            "`pip install polyformer[xlm]`."
        ) from e
    return sacremoses


@cache
def _punctuation(language: str) -> tuple[Step, ...]:
    return Rules(*_tool("MosesPunctNormalizer", language).substitutions), STRIP


@cache
def _ascii(language: str) -> tuple[Step, ...]:
    return (Rules(*_tool("MosesPunctNormalizer", language).REPLACE_UNICODE_PUNCTUATION),)


class Punctuation:
    """normalize-punctuation.perl for a language: one spelling of quotes, dashes and the spaces around them."""

    rules = staticmethod(_punctuation)

    def __init__(self, language: str) -> None:
        self.language = language

    def plain(self, text: str) -> str:
        for step in self.rules(self.language):
            text = step.plain(text)
        return text

    def traced(self, trace: Trace) -> Trace:
        for step in self.rules(self.language):
            trace = step.traced(trace)
        return trace


class UnicodePunctuation(Punctuation):
    """replace-unicode-punctuation.perl: full-width signs to those of ASCII, in any language."""

    rules = staticmethod(_ascii)


def cleaning(language: str) -> tuple[Step, ...]:
    """What comes before `Words` in the scripts of XLM and FlauBERT."""
    return UnicodePunctuation(language), Punctuation(language), PRINTABLE


def _printable(match: re.Match[str]) -> str:
    return "" if unicodedata.category(match[0])[0] == "C" else match[0]


# remove-non-printing-char.perl: characters of Unicode's category "other", line ends and tabs among them.
PRINTABLE = Rules((r"[^\w !-~]", _printable))


class Words:
    """tokenizer.perl for a language: text to words, a Splitter (reader.py).

    dashes: part words at the dashes within them, which become `@-@`. protected: patterns of what is never parted.
    """

    def __init__(self, language: str, dashes: bool = False, protected: Iterable[str] = ()) -> None:
        self.language, self.dashes, self.protected = language, dashes, list(protected)

    def plain(self, text: str) -> list[str]:
        tokenizer = _tool("MosesTokenizer", self.language)
        words: list[str] = tokenizer.tokenize(
            text, aggressive_dash_splits=self.dashes, escape=False, protected_patterns=self.protected or None
        )
        return words

    def traced(self, trace: Trace) -> list[Trace]:
        words = self.plain(trace.text)
        found = trace.cut(["-" if self.dashes and word == DASH else word for word in words])
        return [Trace(word, t.spans * (len(word) // len(t.text))) for word, t in zip(words, found, strict=True)]


DASH = "@-@"


def join(tokens: Sequence[str], language: str) -> str:
    """detokenizer.perl for a language: words to text."""
    text: str = _tool("MosesDetokenizer", language).detokenize(tokens)
    return text
