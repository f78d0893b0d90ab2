"""Tables of text for people: columns that line up in any script, spaces and control characters that can be seen."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

SPACE = "␣"
PROSE = ("note", "why")  # columns of remarks, whose spaces are spaces


def table(rows: Sequence[Mapping[str, Any]], margin: str = "    ") -> list[str]:
    """Lines of the rows under their column names, without columns that are empty in every row."""
    names = [name for name in (rows[0] if rows else ()) if any(row[name] not in ("", None, []) for row in rows)]
    if not names:
        return []
    cells = [[row[name] if name in PROSE else _cell(row[name]) for name in names] for row in rows]
    widths = [max(map(width, column)) for column in zip(names, *cells, strict=True)]
    return [
        (margin + "  ".join(_fill(cell, n) for cell, n in zip(row, widths, strict=True))).rstrip()
        for row in [names, *cells]
    ]


def visible(text: str) -> str:
    """The text with each space as `␣` and what cannot be printed as Python writes it in a str."""
    return "".join(SPACE if c == " " else c if c.isprintable() else repr(c)[1:-1] for c in text)


def width(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _cell(value: Any) -> str:
    """Text with its spaces shown, a span as 2-5, a list's items apart; a number or nothing as it is."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, tuple):
        return f"{value[0]}-{value[1]}"
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def _fill(cell: str, columns: int) -> str:
    return cell + " " * (columns - width(cell))
