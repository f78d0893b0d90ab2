"""The table of replacements in a SentencePiece model, applied as SentencePiece does, and how Rust is brought to agree.

SentencePiece replaces the longest entry at each place, from left to right. The normaliser `Precompiled` of the
`tokenizers` library looks at what a reader sees as one character (a letter with its accents), and goes wrong where that
is more than one entry: of the Vietnamese e + dot below + circumflex it loses the circumflex; decomposed Hangul and
half-width katakana with voicing marks it leaves as they are. Such clusters are rewritten before it sees them.
"""

import unicodedata
from array import array
from collections.abc import Iterator
from functools import cache, cached_property, lru_cache
from itertools import chain
from re import Match, Pattern
from re import compile as regex

import numpy as np
from tokenizers import normalizers


class Charsmap:
    """A compiled table: the size of a trie in bytes, the trie (a double array of Darts-clone), the replacements."""

    def __init__(self, blob: bytes) -> None:
        size = int.from_bytes(blob[:4], "little")
        self.units = array("I", blob[4 : 4 + size])
        self.texts = blob[4 + size :]
        self.rust = normalizers.Precompiled(blob)
        self.rewritten = lru_cache(maxsize=65536)(self._rewritten)

    def normalize(self, text: str) -> str:
        """The text with the longest entry at each place replaced."""
        return "".join(new for _, new in self.entries(text))

    def entries(self, text: str) -> Iterator[tuple[int, str]]:
        """From left to right, how many characters are replaced at a time, and by what; one by itself without entry."""
        data, at = text.encode(), 0
        while at < len(data):
            size, replacement = self._longest(data, at)
            if not size:
                size = _SIZES[data[at] >> 4]
                replacement = data[at : at + size]
            yield len(data[at : at + size].decode()), replacement.decode()
            at += size

    @cached_property
    def touched(self) -> Pattern[str]:
        """Finds the stretches outside of which no entry applies: characters that are an entry or continue one.

        The character before them is in, as an entry may begin with it.
        """
        units = np.frombuffer(self.units, np.uint32)
        labels = np.arange(1, 256)
        alone: set[str] = set()
        later: set[str] = set()
        todo = [
            (_children(self.units[0]), b"", True)
        ]  # where children are, bytes of the character so far, if it is first
        seen = set(todo)
        while todo:
            base, begun, first = todo.pop()
            places = base ^ labels
            held = places < len(units)
            for place in places[held][units[places[held]] & 0x800000FF == labels[held]].tolist():
                unit, data = self.units[place], begun + bytes([base ^ place])
                whole = len(data) == _SIZES[data[0] >> 4]
                if whole and (unit >> 8 & 1 or not first):
                    (alone if first else later).update(data.decode(errors="ignore"))
                state = (place ^ _children(unit), b"" if whole else data, first and not whole)
                if state not in seen:
                    seen.add(state)
                    todo.append(state)
        group = "".join(rf"\U{a:08x}-\U{b:08x}" for a, b in _runs(sorted(map(ord, alone | later))))
        return regex(f"(?s:.)?[{group}]+" if group else "(?!)")

    def _longest(self, data: bytes, at: int) -> tuple[int, bytes]:
        """Size in bytes of the longest entry that the data has from `at` on, and its replacement; 0 for none."""
        units = self.units
        node, found, place = _children(units[0]), 0, 0
        for i in range(at, len(data)):
            node ^= data[i]
            if node >= len(units) or units[node] & 0x800000FF != data[i]:
                break
            ends = units[node] >> 8 & 1
            node ^= _children(units[node])
            if ends and node < len(units):
                found, place = i + 1 - at, units[node] & 0x7FFFFFFF
        return found, self.texts[place : self.texts.index(0, place)] if found else b""

    def _rewritten(self, cluster: str) -> str | None:
        """What is to stand for this cluster; None where the library makes the same of it as SentencePiece.

        A pile of accents of which two or more are left over stays uncomposed, as published fast tokenizers have it.
        """
        want, got = self.normalize(cluster), self.rust.normalize_str(cluster)
        piled = sum(unicodedata.combining(c) > 0 for c in want) > 1
        if got == want or (piled and unicodedata.normalize("NFD", got) == unicodedata.normalize("NFD", want)):
            return None
        # Where the outcome would be changed once more, a control character keeps its parts apart; the table deletes it.
        return next((new for new in (want, "\1".join(want)) if self.rust.normalize_str(new) == want), None)

    def changes(self, text: str) -> dict[str, str]:
        """The clusters of the text that are to be rewritten, and as what."""
        if text.isascii() or not _marks().search(text):
            return {}
        pairs = ((cluster, self.rewritten(cluster)) for cluster in set(_clusters().findall(text)))
        return {cluster: new for cluster, new in pairs if new is not None}


_SIZES = (1,) * 12 + (2, 2, 3, 4)  # bytes of a character in UTF-8, by the upper half of the first

charsmap_of = lru_cache(maxsize=8)(Charsmap)  # families share few tables, and each keeps what it has looked up


def _children(unit: int) -> int:
    """Where the children of a unit of the trie are, as seen from it."""
    return unit >> 10 << ((unit & 0x200) >> 6)


class Rewritten:
    """A text with clusters replaced, and where its characters stood in the text before."""

    def __init__(self, text: str, changes: dict[str, str]) -> None:
        self._spans: list[tuple[int, int, int]] = []  # begin and end of each cluster before, its length now

        def replace(match: Match[str]) -> str:
            new = changes.get(match[0])
            if new is None:
                return match[0]
            self._spans.append((match.start(), match.end(), len(new)))
            return new

        self.text = _clusters().sub(replace, text)

    def before(self, span: tuple[int, int]) -> tuple[int, int]:
        """Where a span of this text stood in the text before; part of a cluster is all of it."""
        starts, ends = self._places
        start, stop = span
        return int(starts[start]), int(starts[start] if start == stop else ends[stop - 1])

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each character began and ended in the text before."""
        begin, end, size = np.array(self._spans, np.int64).reshape(-1, 3).T
        shrunk = end - begin - size
        at = begin - np.cumsum(shrunk) + shrunk  # where each cluster begins now
        shift = np.zeros(len(self.text) + 2, np.int64)
        np.add.at(shift, at + size, shrunk)
        starts = np.arange(len(self.text) + 1) + np.cumsum(shift)[:-1]
        ends = starts + 1
        inside = np.repeat(at + size - np.cumsum(size), size) + np.arange(size.sum())
        starts[inside], ends[inside] = np.repeat(begin, size), np.repeat(end, size)
        return starts, ends


@cache
def _marks() -> Pattern[str]:
    """What may belong to the character before: accents, vowel signs, the later parts of a Hangul syllable."""
    return regex(f"[{_group()}]")


@cache
def _clusters() -> Pattern[str]:
    """A character with the marks after it; marks alone where none stands before them, or in a very long row."""
    return regex(f"[^{_group()}]?[{_group()}]{{1,32}}")


@cache
def _group() -> str:
    blocks = chain(range(0x300, 0xD800), range(0xF900, 0x1F000), range(0xE0100, 0xE01F0))
    marks = {i for i in blocks if unicodedata.category(chr(i))[0] == "M"}
    marks |= {*range(0x1160, 0x1200), *range(0xD7B0, 0xD7FC)}  # medial vowels and final consonants of Hangul
    marks |= {*range(0x1F3FB, 0x1F400)}  # skin colours
    marks |= {0x0E33, 0x0EB3, 0x200C, 0x200D, 0xFF9E, 0xFF9F}  # vowels of Thai and Lao, joiners, half-width voicing
    return "".join(rf"\U{first:08x}-\U{last:08x}" for first, last in _runs(sorted(marks)))


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """The first and last of each row of consecutive numbers."""
    breaks = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1]
    return [(numbers[a], numbers[b - 1]) for a, b in zip([0, *breaks], [*breaks, len(numbers)], strict=True)]
