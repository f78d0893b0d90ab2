"""Files and folders cut into passages of about a hundred words that remember where they are from."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from polyformer.cli.common import Failure
from polyformer.cli.texts import json_text
from polyformer.retrieval.readers import files_inside
from polyformer.retrieval.split import WORD

# Read in folders; a file that is named by itself is read whatever it is called.
ENDINGS = {".txt", ".text", ".md", ".markdown", ".rst", ".py", ".jsonl", ".ndjson"}
CODE, LINES = {".py"}, {".jsonl", ".ndjson"}

SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
HEADING = re.compile(r"#{1,6} ")


@dataclass(frozen=True)
class Passage:
    """A piece of a file: its words, the line (from 1) where it begins, and whether its lines are to be kept."""

    file: str
    line: int
    text: str
    code: bool = False


@dataclass
class Corpus:
    """What was read: passages, how many files they are from, and the files that are not text."""

    passages: list[Passage] = field(default_factory=list)
    files: int = 0
    skipped: list[str] = field(default_factory=list)


def read_corpus(names: Iterable[str], words: int = 100, field: str = "text") -> Corpus:
    """All passages of files and folders. Files that are binary or not UTF-8 are left out and listed.

    field: what JSON Lines call the text; in folders, files of JSON of another kind are left out and listed, too.

    Raises:
        Failure: a name that is neither, or a file that cannot be opened. ValueError: JSON of another kind.
    """
    names = list(names)
    named = set(map(os.path.realpath, names))
    corpus = Corpus()
    for path in _files(names):
        text = _read(path)
        try:
            found = None if text is None else list(_passages(path, text, words, field))
        except (Failure, ValueError):
            if os.path.realpath(path) in named:
                raise
            found = None
        if found is None:
            corpus.skipped.append(str(path))
        else:
            corpus.files += 1
            corpus.passages += found
    return corpus


def _files(names: Iterable[str]) -> Iterator[Path]:
    seen = set()
    for name in names:
        path = Path(name)
        if not path.exists():
            raise Failure(f"there is no file or folder {name}.")
        for found in files_inside(path, ENDINGS) if path.is_dir() else [path]:
            if (key := os.path.realpath(found)) not in seen:
                seen.add(key)
                yield found


def _read(path: Path) -> str | None:
    """The file's text, None if it is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Failure(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from None
    if b"\0" in content:
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _passages(path: Path, text: str, words: int, field: str) -> Iterator[Passage]:
    ending = path.suffix.lower()
    if ending in LINES:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                for _, piece in split(json_text(line, number, str(path), field), words):
                    yield Passage(str(path), number, piece)
        return
    for number, piece in split(text, words, ending in CODE):
        yield Passage(str(path), number, piece, ending in CODE)


def split(text: str, words: int = 100, code: bool = False) -> Iterator[tuple[int, str]]:
    """Pieces of about so many words, cut between paragraphs where that is near, else between sentences (code: lines).

    Yields the line (from 1) where a piece begins, and the piece. Short paragraphs are put together; a heading of
    Markdown stays with what follows it.
    """
    piece: list[str] = []
    count = start = 0
    for line, glue, fragment in _fragments(text, words, code):
        size = len(WORD.findall(fragment))
        paragraph_ends = glue == "\n\n" and count >= 0.6 * words
        if count and (count + size > 1.25 * words or paragraph_ends or (not code and HEADING.match(fragment))):
            yield start, "".join(piece)
            piece, count = [], 0
        if not piece:
            start, glue = line, ""
        piece += [glue, fragment]
        count += size
    if count:
        yield start, "".join(piece)


def _fragments(text: str, words: int, code: bool) -> Iterator[tuple[int, str, str]]:
    """What is not cut further: sentences (of code, lines), hard cuts where one is far too long.

    Yields its line, what stands between it and the one before, and itself.
    """
    blank = False
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            blank = True
            continue
        glue = "\n\n" if blank else "\n"
        blank = False
        for sentence in [line.rstrip()] if code else SENTENCE.split(line.strip()):
            for part in _hard_cuts(sentence, words):
                yield number, glue, part
                glue = " "


def _hard_cuts(sentence: str, words: int) -> Iterator[str]:
    starts = [match.start() for match in WORD.finditer(sentence)]
    if len(starts) <= 1.25 * words:
        if starts:
            yield sentence
        return
    ends = [*starts[words::words], len(sentence)]
    for begin, end in zip([0, *ends], ends, strict=False):
        yield sentence[begin:end].rstrip()
