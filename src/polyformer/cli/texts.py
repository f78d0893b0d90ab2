"""Files of texts, one text a line: plain text, or JSON Lines with a "text" in every line."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

from polyformer.cli.common import Failure


class Texts:
    """The texts of a file, read as they are asked for; "-" is stdin. A context manager that closes it.

    A text is a line, so that line i of the file is row i of the result: an empty line is an empty text.
    count: how many there are, None for stdin.
    """

    def __init__(self, name: str, jsonl: bool = False) -> None:
        self.name = "standard input" if name == "-" else name
        self.jsonl = jsonl or name.endswith((".jsonl", ".ndjson"))
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

    def parsed(self, line: str, number: int) -> Any:
        """What a line of JSON is taken for."""
        return json_text(line, number, self.name)


class Items(Texts):
    """The same with any JSON in a line: a question with its text, a text with its choices."""

    def parsed(self, line: str, number: int) -> Any:
        return json_value(line, number, self.name)


def json_value(line: str, number: int, name: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise Failure(f"line {number} of {name} is not JSON ({error}).") from None


def json_text(line: str, number: int, name: str) -> str:
    """The "text" of a line of JSON."""
    value = json_value(line, number, name)
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise Failure(f'line {number} of {name} is no object with a "text".')
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
