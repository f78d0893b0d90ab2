"""Python's regular expressions as languages.

The pattern is parsed by Python's own parser, and which characters a class has is asked of `re` itself.
"""

import importlib
import re
from collections.abc import Sequence as Listed
from functools import cache, lru_cache
from typing import Any

from polyformer.generation.guides.language import Chars, CharSet, Choice, Language, Node, Repeat, Sequence

PARSER = importlib.import_module("re._parser")  # what `re` compiles from; the same since Python 3.11
LAST = 0x10FFFF
CATEGORIES = {
    "CATEGORY_DIGIT": r"\d", "CATEGORY_NOT_DIGIT": r"\D", "CATEGORY_SPACE": r"\s", "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w", "CATEGORY_NOT_WORD": r"\W",
}  # fmt: skip
REFUSED = {
    "ASSERT": "a lookahead or lookbehind",
    "ASSERT_NOT": "a lookahead or lookbehind",
    "GROUPREF": "a reference to a group",
    "GROUPREF_EXISTS": "a reference to a group",
    "AT": "an anchor inside (^ and $ may stand at the ends, \\b nowhere)",
    "ATOMIC_GROUP": "an atomic group",
    "POSSESSIVE_REPEAT": "a possessive repetition",
}


def regex(pattern: str, flags: int = 0) -> Language:
    """The texts that `re.fullmatch(pattern, text, flags)` matches.

    Raises:
        ValueError: a pattern that is none, or has what no automaton can follow.
    """
    try:
        parsed = PARSER.parse(pattern, flags)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}.") from None
    items = list(parsed)
    if items and str(items[0][0]) == "AT" and str(items[0][1]).startswith("AT_BEGINNING"):
        del items[0]
    if items and str(items[-1][0]) == "AT" and str(items[-1][1]).startswith("AT_END"):
        del items[-1]
    return Language(_row(items, parsed.state.flags))


def _row(items: Listed[Any], flags: int) -> Node:
    return Sequence(tuple(_node(str(kind), value, flags) for kind, value in items))


def _node(kind: str, value: Any, flags: int) -> Node:
    if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
        return Chars(members(_class(kind, value), flags & (re.IGNORECASE | re.DOTALL | re.ASCII)))
    if kind == "BRANCH":
        return Choice(tuple(_row(option, flags) for option in value[1]))
    if kind == "SUBPATTERN":
        _, added, removed, items = value
        return _row(items, (flags | added) & ~removed)
    if kind in ("MAX_REPEAT", "MIN_REPEAT"):
        least, most, items = value
        return Repeat(_row(items, flags), least, None if most == PARSER.MAXREPEAT else most)
    raise ValueError(f"a pattern cannot have {REFUSED.get(kind, kind.lower())} here: write it without.")


def _class(kind: str, value: Any) -> str:
    """The source of a pattern for one character."""
    if kind == "ANY":
        return "."
    if kind != "IN":
        return f"[{'^' * (kind == 'NOT_LITERAL')}{_escaped(value)}]"
    parts = []
    for what, item in value:
        if str(what) == "RANGE":
            parts.append(f"{_escaped(item[0])}-{_escaped(item[1])}")
        elif str(what) == "CATEGORY":
            parts.append(CATEGORIES[str(item)])
        else:
            parts.append("^" if str(what) == "NEGATE" else _escaped(item))
    return f"[{''.join(parts)}]"


def _escaped(code: int) -> str:
    return f"\\U{code:08x}"


@cache
def _everything() -> str:
    return "".join(map(chr, range(LAST + 1)))


@lru_cache(maxsize=1024)
def members(one: str, flags: int = 0) -> CharSet:
    """The characters that a pattern for one character matches."""
    runs = re.compile(f"(?:{one})+", flags).finditer(_everything())
    return CharSet((run.start(), run.end() - 1) for run in runs)


def literal(text: str) -> Node:
    """This text alone."""
    return Sequence(tuple(Chars(CharSet([(ord(char), ord(char))])) for char in text))
