"""Documents from files, one at a time: folders of text files, JSON Lines, and DPR's passages in TSV.

.txt .text .md .markdown .rst    a document; its title is a first heading of Markdown, else the name of the file
.jsonl .ndjson                   a document a line: {"text": ..., "title": ..., "id": ..., anything else}
.tsv                             DPR's psgs_w100.tsv: a header, then id, text and title; passages, not cut again
"""

import csv
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from polyformer.retrieval.passage import Document, Passage

logger = logging.getLogger("polyformer.retrieval")

TEXT, LINES, TABLE = {".txt", ".text", ".md", ".markdown", ".rst"}, {".jsonl", ".ndjson"}, {".tsv"}
SKIPPED_FOLDERS = {"__pycache__", "node_modules", "site-packages"}
HEADING = re.compile(r"\s*#[ \t]+(.+?)[ \t#]*(?:\n|$)")
COLUMNS = ["id", "text", "title"]  # of DPR's table


def read_documents(names: Iterable[str | os.PathLike[str]], field: str = "text") -> Iterator[Document | Passage]:
    """The documents of files and folders, in a fixed order, no more than one file or line of them in memory.

    Folders are read with those below them, hidden ones left out, files in the order of their names; a file in a folder
    that does not begin as its ending says is left out with a warning. A file that is named by itself is read as text if
    nothing is known of its ending. A file that is named in two ways is read once.

    field: what JSON Lines call the text.

    Raises:
        FileNotFoundError: a name that is neither. ValueError: a file that is not what its ending says.
    """
    seen: set[str] = set()
    for name in names:
        path = Path(name)
        if not path.exists():
            raise FileNotFoundError(f"there is no file or folder {path}.")
        for found in files_inside(path, TEXT | LINES | TABLE) if path.is_dir() else [path]:
            if (key := os.path.realpath(found)) in seen:
                continue
            seen.add(key)
            documents = read_file(found, field)
            try:
                first = list(islice(documents, 1))
            except ValueError as error:
                if not path.is_dir():
                    raise
                logger.warning("skipped %s: %s", found, error)
                continue
            yield from first
            yield from documents


def read_file(path: Path, field: str = "text") -> Iterator[Document | Passage]:
    """The documents of one file, by its ending."""
    ending = path.suffix.lower()
    if ending in LINES:
        yield from read_jsonl(path, field)
    elif ending in TABLE:
        yield from read_dpr_table(path)
    elif (text := _text(path)) is None:
        raise ValueError(f"{path} is no text in UTF-8.")
    else:
        heading = HEADING.match(text) if ending in (".md", ".markdown") else None
        yield Document(path.as_posix(), text, heading.group(1) if heading else path.stem)


def read_jsonl(path: Path, field: str = "text") -> Iterator[Document]:
    """A document a line. Its name is its "id", or else the file and the line; other fields become its meta."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                fields: Any = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except ValueError as error:
                raise ValueError(f"line {number} of {path} is not JSON in UTF-8 ({error}).") from None
            text = field_of(fields, field, f"line {number} of {path}")
            del fields[field]
            name, title = fields.pop("id", None), fields.pop("title", None)
            name = f"{path.as_posix()}:{number}" if name is None else str(name)
            yield Document(name, text, "" if title is None else str(title), fields)


def field_of(line: Any, field: str, called: str, kinds: type | tuple[type, ...] = str) -> Any:
    """What a line of JSON has in a field, a text if no other kinds are told.

    called: what messages call the line.

    Raises:
        ValueError: it has no such field; names those that it has.
    """
    if not isinstance(line, dict):
        raise ValueError(f'{called} is no object with a "{field}".')
    if field not in line:
        others = ", ".join(f'"{name}"' for name in line) or "none"
        raise ValueError(f"{called} has no \"{field}\"; its fields are {others}: name the one to read, field='NAME'.")
    if not isinstance(line[field], kinds):
        raise ValueError(f'{called} has no text in "{field}", which is {json.dumps(line[field])[:40]}.')
    return line[field]


def read_dpr_table(path: Path) -> Iterator[Passage]:
    """The passages of DPR's download_data (psgs_w100.tsv): id, text, title, quoted as csv does."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        try:
            for number, row in enumerate(rows, 1):
                if number == 1 and row[:3] == COLUMNS:
                    continue
                if len(row) < 3:
                    raise ValueError(f"it has {len(row)} columns where id, text and title are wanted")
                yield Passage(row[1], document=row[0], title=row[2])
        except (ValueError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
            raise ValueError(f"row {rows.line_num} of {path} cannot be read: {error}.") from None


def files_inside(folder: Path, endings: Iterable[str]) -> Iterator[Path]:
    """The files of a folder and those below it that end so, hidden ones left out, in the order of their names."""
    wanted = set(endings)
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in SKIPPED_FOLDERS)
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in wanted:
                yield Path(place, name)


def _text(path: Path) -> str | None:
    """The file's text, None if it is none."""
    content = path.read_bytes()
    try:
        return None if b"\0" in content else content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
