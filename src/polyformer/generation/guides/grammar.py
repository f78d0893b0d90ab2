"""Context-free grammars, written down.

    # a comment
    root   ::= object
    object ::= "{" (pair ("," pair)*)? "}"
    pair   ::= string ":" (string | object)
    string ::= '"' [^"\\\\]* '"'
    digits ::= [0-9]{1,3} | /0x[0-9a-f]+/

Texts in quotes stand for themselves (escapes as in Python), classes and patterns between slashes are those of `re`;
then come parentheses, alternatives with |, and ?, *, +, {n}, {n,}, {n,m} behind what is repeated. Space between them
means nothing. A rule may name any other and, not at its own beginning, itself.
"""

import ast
import re

from polyformer.generation.guides.language import Chars, Choice, Language, Node, Repeat, Rule, Sequence
from polyformer.generation.guides.regex import literal, members, regex

TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | (?P<rule> [A-Za-z_][\w-]*)\s*::= | (?P<name> [A-Za-z_][\w-]*)
    | (?P<text> "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*') | (?P<chars> \[\^?\]?(?:\\.|[^\]\\\n])*\])
    | /(?P<pattern> (?:\\.|[^/\\\n])+)/ | \{(?P<count> \d+(?:\s*,\s*\d*)?)\} | (?P<sign> [()|?*+])""",
    re.VERBOSE,
)
TIMES = {"?": (0, 1), "*": (0, None), "+": (1, None)}


def grammar(rules: str, start: str | None = None) -> Language:
    """The texts that follow the rule `start`, by default the first.

    Raises:
        ValueError: what is not written as above; a rule that is missing, or that no text can follow.
    """
    found = _Reader(rules).rules()
    start = next(iter(found), None) if start is None else start
    if start is None:
        raise ValueError("a grammar has at least one rule: name ::= what it stands for.")
    return Language(Rule(start), found)


class _Reader:
    """Recursive descent over the tokens (kind, text, place)."""

    def __init__(self, source: str) -> None:
        self.source, self.at = source, 0
        self.tokens: list[tuple[str, str, int]] = []
        place = 0
        while place < len(source):
            match = TOKEN.match(source, place)
            if match is None:
                raise self._wrong(place)
            if match.lastgroup is not None:
                self.tokens.append((match.lastgroup, match[match.lastgroup], place))
            place = match.end()
        self.tokens.append(("end", "", len(source)))

    def rules(self) -> dict[str, Node]:
        found: dict[str, Node] = {}
        while self._kind() == "rule":
            name = self._next()
            if name in found:
                raise ValueError(f"the rule {name!r} is there twice: join the two by |.")
            found[name] = self._choice()
        if self._kind() != "end":
            raise self._wrong(self.tokens[self.at][2])
        return found

    def _choice(self) -> Node:
        options = [self._row()]
        while self._is("|"):
            self._next()
            options.append(self._row())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _row(self) -> Node:
        parts = []
        while self._kind() in ("name", "text", "chars", "pattern") or self._is("("):
            part = self._part()
            while self._kind() == "count" or (self._kind() == "sign" and self.tokens[self.at][1] in TIMES):
                part = Repeat(part, *self._times())
            parts.append(part)
        return Sequence(tuple(parts))

    def _part(self) -> Node:
        kind, place = self._kind(), self.tokens[self.at][2]
        text = self._next()
        if kind == "name":
            return Rule(text)
        if kind == "text":
            return literal(ast.literal_eval(text))
        if kind == "chars":
            return Chars(members(text))
        if kind == "pattern":
            return regex(text.replace("\\/", "/")).top
        inner = self._choice()
        if not self._is(")"):
            raise self._wrong(place)
        self._next()
        return inner

    def _times(self) -> tuple[int, int | None]:
        kind = self._kind()
        text = self._next()
        if kind == "sign":
            return TIMES[text]
        least, comma, most = text.partition(",")
        if not comma:
            return int(least), int(least)
        return int(least), int(most) if most.strip() else None

    def _kind(self) -> str:
        return self.tokens[self.at][0]

    def _is(self, sign: str) -> bool:
        return self.tokens[self.at][:2] == ("sign", sign)

    def _next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1][1]

    def _wrong(self, place: int) -> ValueError:
        line = self.source.count("\n", 0, place) + 1
        return ValueError(f"line {line} of the grammar cannot be read at {self.source[place : place + 20]!r}.")
