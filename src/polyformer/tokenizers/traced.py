"""Text under change that remembers where each of its characters is from: offsets for what rewrites text with rules.

A Step changes text in one of two ways, with the same outcome: `plain` quickly, `traced` with the spans kept.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

Span = tuple[int, int]
Replacement = str | Callable[[re.Match[str]], str]  # as for re.sub


class Trace(NamedTuple):
    """A text, and for each of its characters the characters of the original that it came from."""

    text: str
    spans: list[Span]

    @classmethod
    def of(cls, text: str) -> "Trace":
        return cls(text, [(i, i + 1) for i in range(len(text))])

    def sub(self, pattern: re.Pattern[str], replacement: Replacement) -> "Trace":
        """As re.sub. A character put in comes from the first equal one it replaces, else from all that have none."""
        parts: list[str] = []
        spans: list[Span] = []
        done = 0
        for match in pattern.finditer(self.text):
            start, end = match.span()
            new = _expanded(match, replacement)
            parts += self.text[done:start], new
            spans += self.spans[done:start]
            spans += _spans(new, match[0], self.spans[start:end])
            done = end
        return Trace("".join([*parts, self.text[done:]]), spans + self.spans[done:]) if done else self

    def cut(self, words: Sequence[str]) -> "list[Trace]":
        """These words, which stand in the text in this order, blanks between them; what is not there has no width."""
        found: list[Trace] = []
        place = 0
        for word in words:
            spans: list[Span] = []
            for char in word:
                while place < len(self.text) and self.text[place] != char and _is_blank(self.text[place]):
                    place += 1
                if place < len(self.text) and self.text[place] == char:
                    spans.append(self.spans[place])
                    place += 1
                else:
                    end = self.spans[place - 1][1] if place else 0
                    spans.append((end, end))
            found.append(Trace(word, spans))
        return found

    def part(self, start: int, end: int) -> "Trace":
        return Trace(self.text[start:end], self.spans[start:end])

    def span(self, start: int, end: int) -> Span:
        """Where these characters are from, all together."""
        there = [(a, b) for a, b in self.spans[start:end] if a < b] or self.spans[start:end]
        return min(a for a, _ in there), max(b for _, b in there)


def _is_blank(char: str) -> bool:
    return char.isspace() or not char.isprintable()


def _expanded(match: re.Match[str], replacement: Replacement) -> str:
    if not isinstance(replacement, str):
        return replacement(match)
    return match.expand(replacement) if "\\" in replacement else replacement


def _spans(new: str, old: str, spans: Sequence[Span]) -> list[Span]:
    if new == old:
        return list(spans)
    left = list(zip(old, spans, strict=True))
    found: list[Span | None] = []
    for char in new:
        twin = next((i for i, (c, _) in enumerate(left) if c == char), None)
        found.append(None if twin is None else left.pop(twin)[1])
    rest = [span for c, span in left if not c.isspace()] or [span for _, span in left]
    other = (min(a for a, _ in rest), max(b for _, b in rest)) if rest else (spans[0][0], spans[0][0])
    return [span or other for span in found]


class Step(Protocol):
    """One change of text."""

    def plain(self, text: str) -> str: ...
    def traced(self, trace: Trace) -> Trace: ...


class Rules:
    """Regular expressions, replaced one after the other; text in which none of them is found is let through at once."""

    def __init__(self, *rules: tuple[str, Replacement]) -> None:
        self.rules = [(re.compile(pattern), replacement) for pattern, replacement in rules]
        self.any = re.compile("|".join(pattern for pattern, _ in rules))

    def plain(self, text: str) -> str:
        if self.any.search(text):
            for pattern, replacement in self.rules:
                text = pattern.sub(replacement, text)
        return text

    def traced(self, trace: Trace) -> Trace:
        if self.any.search(trace.text):
            for pattern, replacement in self.rules:
                trace = trace.sub(pattern, replacement)
        return trace


class Lowercase:
    def plain(self, text: str) -> str:
        return text.lower()

    def traced(self, trace: Trace) -> Trace:
        return Trace(self.plain(trace.text), [s for c, s in zip(*trace, strict=True) for _ in c.lower()])


class LowercaseEach(Lowercase):
    """Each character by itself: a capital sigma at the end of a word is as any other."""

    def plain(self, text: str) -> str:
        return text.replace("Σ", "σ").lower()


class Outside:
    """A step that leaves what a pattern finds as it is."""

    def __init__(self, pattern: re.Pattern[str], step: Step) -> None:
        self.pattern, self.step = pattern, step

    def plain(self, text: str) -> str:
        done = 0
        parts: list[str] = []
        for start, end in self._kept(text):
            parts += self.step.plain(text[done:start]), text[start:end]
            done = end
        return "".join(parts)

    def traced(self, trace: Trace) -> Trace:
        done = 0
        parts: list[Trace] = []
        for start, end in self._kept(trace.text):
            parts += self.step.traced(trace.part(done, start)), trace.part(start, end)
            done = end
        return Trace("".join(p.text for p in parts), [span for p in parts for span in p.spans])

    def _kept(self, text: str) -> Iterator[Span]:
        """What the pattern finds, and the end of the text."""
        yield from (match.span() for match in self.pattern.finditer(text))
        yield len(text), len(text)


class WithoutAccents:
    """Characters taken apart, and the marks among them left out."""

    def plain(self, text: str) -> str:
        if text.isascii():
            return text
        return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")

    def traced(self, trace: Trace) -> Trace:
        return Trace(self.plain(trace.text), [s for c, s in zip(*trace, strict=True) for _ in self.plain(c)])


class Composed:
    """Unicode's NFC: a letter and its marks as one character where there is one."""

    def plain(self, text: str) -> str:
        return unicodedata.normalize("NFC", text)

    def traced(self, trace: Trace) -> Trace:
        return trace.sub(_COMPOSABLE, lambda match: unicodedata.normalize("NFC", match[0]))


# A character and what may be composed with it: marks, and the vowels and final consonants of Hangul.
_COMPOSABLE = re.compile(r"(?s:.)(?:[^\w\s!-~]|[\u1160-\u11ff])*")

STRIP = Rules((r"\A\s+", ""), (r"\s+\Z", ""))
