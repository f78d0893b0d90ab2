"""Sets of texts, read character by character: regular and context-free languages by one mechanism.

A language is an expression: characters, sequences, alternatives, repetitions, and rules by name that may be recursive.
Where a text stands in it is a set of stacks of what must still come: the partial derivatives of the expression
(Antimirov 1996, doi 10.1016/0304-3975(95)00182-4), of which a regular expression has finitely many.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field


class CharSet:
    """Characters, as ranges of code points, both ends included, in order."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self.ranges = sorted(ranges)
        self.begins = [begin for begin, _ in self.ranges]

    def __contains__(self, code: int) -> bool:
        return self.meets(code, code)

    def meets(self, low: int, high: int) -> bool:
        """Whether it has one of these, both ends included; its own ranges do not overlap."""
        at = bisect_right(self.begins, high)
        return at > 0 and self.ranges[at - 1][1] >= low


class Node:
    """Base of the parts of an expression, each of which is only equal to itself."""


@dataclass(frozen=True, eq=False)
class Chars(Node):
    """One character of a set."""

    chars: CharSet


@dataclass(frozen=True, eq=False)
class Sequence(Node):
    """All of them in a row; none = the empty text."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Choice(Node):
    """Any of them."""

    options: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Repeat(Node):
    """At least `least` and at most `most` times in a row; most = None: any number of times."""

    part: Node
    least: int
    most: int | None
    _rest: "list[Repeat]" = field(default_factory=list)

    def rest(self) -> "Repeat":
        """What must come after the first time."""
        if self.most is None and not self.least:
            return self
        if not self._rest:
            most = None if self.most is None else self.most - 1
            self._rest.append(Repeat(self.part, max(self.least - 1, 0), most))
        return self._rest[0]


@dataclass(frozen=True, eq=False)
class Rule(Node):
    """The rule of that name."""

    name: str


# what must still come: a part, and what comes after it; None = nothing
Stack = tuple[Node, "Stack"] | None


@dataclass(eq=False)
class Place:
    """Where a text stands in its language.

    heads: the characters that may come now, and what must come after each.
    whole: whether the text is one of the language as it is.
    """

    heads: list[tuple[CharSet, Stack]]
    whole: bool
    _after: "dict[int, Place | None]" = field(default_factory=dict)

    def goes_on(self, low: int, high: int) -> bool:
        """Whether one of these characters may come."""
        return any(chars.meets(low, high) for chars, _ in self.heads)


class Language:
    """The texts of an expression.

    Args:
        top: the expression.
        rules: what the rules in it are.

    Raises:
        ValueError: a rule that is missing, begins with itself, or that no text can follow.
    """

    def __init__(self, top: Node, rules: Mapping[str, Node] | None = None) -> None:
        self.top, self.rules = top, dict(rules or {})
        self._check_rules()
        self._places: dict[frozenset[Stack], Place] = {}
        self.start = self._place([(top, None)])

    def step(self, place: Place, code: int) -> Place | None:
        """Where the text stands after one more character; None = nowhere."""
        if code not in place._after:
            stacks = [after for chars, after in place.heads if code in chars]
            place._after[code] = self._place(stacks) if stacks else None
        return place._after[code]

    def matches(self, text: str) -> bool:
        """Whether the text is one of the language."""
        place: Place | None = self.start
        for char in text:
            if place is None:
                return False
            place = self.step(place, ord(char))
        return place is not None and place.whole

    def before(self, other: Node) -> "Language":
        """The language whose texts begin with `other`."""
        return Language(Sequence((other, self.top)), self.rules)

    def _place(self, stacks: Iterable[Stack]) -> Place:
        wanted = frozenset(stacks)
        if wanted not in self._places:
            self._places[wanted] = self._open(wanted)
        return self._places[wanted]

    def _open(self, stacks: frozenset[Stack]) -> Place:
        """Unfold what comes first until it is characters."""
        seen, todo, place = set(stacks), list(stacks), Place([], False)
        while todo:
            stack = todo.pop()
            if stack is None:
                place.whole = True
                continue
            node, after = stack
            if isinstance(node, Chars):
                place.heads.append((node.chars, after))
                continue
            for unfolded in self._unfolded(node, after):
                if unfolded not in seen:
                    seen.add(unfolded)
                    todo.append(unfolded)
        return place

    def _unfolded(self, node: Node, after: Stack) -> list[Stack]:
        if isinstance(node, Sequence):
            for part in reversed(node.parts):
                after = (part, after)
            return [after]
        if isinstance(node, Choice):
            return [(option, after) for option in node.options]
        if isinstance(node, Repeat):
            skipped = [] if node.least else [after]
            return skipped if node.most == 0 else [*skipped, (node.part, (node.rest(), after))]
        assert isinstance(node, Rule)
        return [(self.rules[node.name], after)]

    # ---- rules that cannot be followed ----

    def _check_rules(self) -> None:
        nodes = [self.top, *self.rules.values()]
        for name in {name for node in nodes for name in _named(node)}:
            if name not in self.rules:
                raise ValueError(f"the rule {name!r} is not there: write {name} ::= ..., or mend its name.")
        empty = self._closure(lambda node, names: _may(node, names, lambda chars: False))
        some = self._closure(lambda node, names: _may(node, names, lambda chars: bool(chars.ranges)))
        for name in self.rules:
            if name not in some:
                raise ValueError(f"no text can follow the rule {name!r}: give it an end that does not need itself.")
        begins = {name: _first(node, empty) for name, node in self.rules.items()}
        for name in self.rules:
            reached: set[str] = set()
            todo = [name]
            while todo:
                for first in begins[todo.pop()] - reached:
                    reached.add(first)
                    todo.append(first)
            if name in reached:
                raise ValueError(
                    f"the rule {name!r} begins with itself: write a repetition, {name} ::= start rest*, instead."
                )

    def _closure(self, holds: Callable[[Node, set[str]], bool]) -> set[str]:
        """The names of all rules of which it holds, if it holds of those they are made of."""
        names: set[str] = set()
        while True:
            more = {name for name, node in self.rules.items() if name not in names and holds(node, names)}
            if not more:
                return names
            names |= more


def _children(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Sequence):
        return node.parts
    if isinstance(node, Choice):
        return node.options
    return (node.part,) if isinstance(node, Repeat) else ()


def _named(node: Node) -> set[str]:
    """The rules that it names."""
    if isinstance(node, Rule):
        return {node.name}
    return {name for child in _children(node) for name in _named(child)}


def _may(node: Node, names: set[str], chars: Callable[[CharSet], bool]) -> bool:
    """Whether it has a text, made of characters that `chars` lets pass and rules with these names."""
    if isinstance(node, Chars):
        return chars(node.chars)
    if isinstance(node, Rule):
        return node.name in names
    if isinstance(node, Repeat):
        return node.least == 0 or _may(node.part, names, chars)
    parts = [_may(child, names, chars) for child in _children(node)]
    return any(parts) if isinstance(node, Choice) else all(parts)


def _first(node: Node, empty: set[str]) -> set[str]:
    """The rules that it may begin with, where those named `empty` may be nothing."""
    if isinstance(node, Rule):
        return {node.name}
    found: set[str] = set()
    for child in _children(node):
        found |= _first(child, empty)
        if isinstance(node, Sequence) and not _may(child, empty, lambda chars: False):
            break
    return found
