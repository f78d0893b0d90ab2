"""Text that rules rewrite and cut into words.

case     lower, for uncased vocabularies: before anything else, added tokens included (word_backend.py)
before   the text as a whole: punctuation ...                  steps (traced.py)
split    into words: by the Moses rules, at white space ...
after    each word: accents, figures ...                       steps; blanks that they put in part words
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from polyformer.tokenizers.traced import Step, Trace


class Splitter(Protocol):
    """Text to words."""

    def plain(self, text: str) -> list[str]: ...
    def traced(self, trace: Trace) -> list[Trace]: ...


class WhiteSpace:
    """Words are what white space parts."""

    def plain(self, text: str) -> list[str]:
        return text.split()

    def traced(self, trace: Trace) -> list[Trace]:
        return trace.cut(trace.text.split())


class Characters:
    """Every character is a word."""

    def plain(self, text: str) -> list[str]:
        return list(text)

    def traced(self, trace: Trace) -> list[Trace]:
        return [trace.part(i, i + 1) for i in range(len(trace.text))]


class Segments:
    """Words are what a function cuts the text into, without the blanks around them."""

    def __init__(self, cut: Callable[[str], Sequence[str]]) -> None:
        self.cut = cut

    def plain(self, text: str) -> list[str]:
        return [word for part in self.cut(text) if (word := part.strip())]

    def traced(self, trace: Trace) -> list[Trace]:
        return trace.cut(self.plain(trace.text))


class Spaced:
    """A step that puts a space between what a function cuts the text into."""

    def __init__(self, cut: Callable[[str], Sequence[str]]) -> None:
        self.cut = cut

    def plain(self, text: str) -> str:
        return " ".join(self.cut(text))

    def traced(self, trace: Trace) -> Trace:
        text, spans = "", []
        for part in trace.cut(list(self.cut(trace.text))):
            spans += [*([(part.spans[0][0],) * 2] if text else []), *part.spans]
            text += " " * bool(text) + part.text
        return Trace(text, spans)


class Reader(NamedTuple):
    """How a text becomes words: quickly, or with the spans of their characters; the words are the same."""

    before: tuple[Step, ...]
    split: Splitter
    after: tuple[Step, ...] = ()
    case: Step | None = None

    def plain(self, text: str) -> list[str]:
        for step in self.before:
            text = step.plain(text)
        words = self.split.plain(text)
        if not self.after:
            return words
        text = " ".join(words)
        for step in self.after:
            text = step.plain(text)
        return text.split()

    def traced(self, text: str) -> list[Trace]:
        trace = Trace.of(text)
        for step in self.before:
            trace = step.traced(trace)
        words = self.split.traced(trace)
        if not self.after:
            return words
        made: list[Trace] = []
        for word in words:
            for step in self.after:
                word = step.traced(word)
            made += word.cut(word.text.split())
        return made
