"""Files of texts, one text a line: plain text, or JSON Lines with the text in a field of every line."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

from polyformer.cli.common import Failure
from polyformer.retrieval.readers import field_of

ENDINGS = (".jsonl", ".ndjson")
FIELD = {"field": "--field {value}"}  # for `own_words`


def add_field(parser: argparse.ArgumentParser, what: str = "a line of JSON") -> None:
    parser.add_argument("--field", metavar="NAME", help=f'which field of {what} is the text; "text" by default')


class Texts:
    """The texts of a file, read as they are asked for; "-" is stdin. A context manager that closes it.

    A text is a line, so that line i of the file is row i of the result: an empty line is an empty text.
    jsonl: every line is JSON, whatever the file is called; so it is where a field is named.
    count: how many there are, None for stdin.
    """

    def __init__(self, name: str, jsonl: bool = False, field: str | None = None) -> None:
        self.name = "standard input" if name == "-" else name
        self.field = field or "text"
        self.jsonl = jsonl or field is not None or name.endswith(ENDINGS)
        self._file: IO[bytes] = sys.stdin.buffer if name == "-" else _open(Path(name))
        self.count = None if name == "-" else _count_lines(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not sys.stdin.buffer:
            self._file.close()

    def __length_hint__(self) -> int:
        return self.count or 0

    def __iter__(self) -> Iterator[Any]:
        for number, line in enumerate(self._file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise Failure(f"line {number} of {self.name} is not UTF-8 text ({error.reason}).") from None
            yield self.parsed(text, number) if self.jsonl else text

    def called(self, number: int) -> str:
        """What messages call input `number`, counted from 0."""
        return f"line {number + 1} of {self.name}"

    def parsed(self, line: str, number: int) -> Any:
        """What a line of JSON is taken for."""
        return json_text(line, number, self.name, self.field)


class Items(Texts):
    """The same with any JSON in a line: a question with its text, a text with its choices."""

    def parsed(self, line: str, number: int) -> Any:
        return json_value(line, number, self.name)


def json_value(line: str, number: int, name: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise Failure(f"line {number} of {name} is not JSON ({error}).") from None


def json_text(line: str, number: int, name: str, field: str = "text") -> str:
    """The text of a line of JSON."""
    text: str = field_of(json_value(line, number, name), field, f"line {number} of {name}")
    return text


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise Failure(f"there is no file {path}.") from None
    except OSError as error:
        raise Failure(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from None


def _count_lines(file: IO[bytes]) -> int | None:
    """How many lines follow; None for what can be read only once."""
    if not file.seekable():
        return None
    lines, last = 0, b"\n"
    while block := file.read(1 << 20):
        lines += block.count(b"\n")
        last = block[-1:]
    file.seek(0)
    return lines + (last != b"\n")
