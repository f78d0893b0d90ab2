"""What a text must have in it: phrases, or one of several.

A constraint is an automaton that reads the new tokens of a text one by one. A phrase is met once its tokens stand side
by side in the text, wherever; several may overlap.
"""

from collections.abc import Hashable, Sequence
from typing import Any

from polyformer.generation.checks import is_word

State = Hashable


class Constraint:
    """Base of all constraints; the states are the subclass's own.

    start: the state before the first token.
    """

    start: State

    def step(self, state: State, token: int) -> State:
        """The state after one more token."""
        raise NotImplementedError

    def remaining(self, state: State) -> int:
        """How many more tokens the constraint needs at least; 0 = it is met, and stays so."""
        raise NotImplementedError

    def advances(self, state: State) -> list[int]:
        """The tokens after which it needs one fewer."""
        raise NotImplementedError


class DisjunctiveConstraint(Constraint):
    """One of several phrases must occur, each a list of token ids.

    A state is how much of each phrase the text ends with (Knuth, Morris and Pratt 1977), or None once one has occurred.
    """

    def __init__(self, nested_token_ids: Sequence[Sequence[int]]) -> None:
        if not nested_token_ids or not all(map(is_word, nested_token_ids)):
            raise ValueError("a constraint takes phrases, each a list of at least one token id: [[5], [6, 8]].")
        self.phrases = [tuple(phrase) for phrase in nested_token_ids]
        self.shorter = [_borders(phrase) for phrase in self.phrases]
        self.start = (0,) * len(self.phrases)

    def step(self, state: Any, token: int) -> State:
        if state is None:
            return None
        after = []
        for phrase, shorter, matched in zip(self.phrases, self.shorter, state, strict=True):
            while matched and phrase[matched] != token:
                matched = shorter[matched - 1]
            matched += phrase[matched] == token
            if matched == len(phrase):
                return None
            after.append(matched)
        return tuple(after)

    def remaining(self, state: Any) -> int:
        if state is None:
            return 0
        return min(len(phrase) - matched for phrase, matched in zip(self.phrases, state, strict=True))

    def advances(self, state: Any) -> list[int]:
        fewest = self.remaining(state)
        if not fewest:
            return []
        pairs = zip(self.phrases, state, strict=True)
        return sorted({phrase[matched] for phrase, matched in pairs if len(phrase) - matched == fewest})


class PhrasalConstraint(DisjunctiveConstraint):
    """A phrase must occur, a list of token ids."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        super().__init__([token_ids])


def constraints_of(force_words_ids: Sequence[Any] | None) -> list[Constraint]:
    """A list of phrases, or of lists of phrases one of which is enough."""
    found: list[Constraint] = []
    for one in force_words_ids or ():
        found.append(PhrasalConstraint(one) if is_word(one) else DisjunctiveConstraint(one))
    return found


class Progress:
    """How far a text is with several constraints."""

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self.constraints = list(constraints)
        self.start = tuple(c.start for c in self.constraints)
        self.lengths = [c.remaining(c.start) for c in self.constraints]

    def after(self, tokens: Sequence[int], state: tuple[State, ...] | None = None) -> tuple[State, ...]:
        """The state after these tokens."""
        state = self.start if state is None else state
        for token in tokens:
            state = tuple(c.step(one, token) for c, one in zip(self.constraints, state, strict=True))
        return state

    def remaining(self, state: tuple[State, ...]) -> int:
        """Tokens that are enough to meet all: the rest of the one that is furthest begun, and the others whole."""
        total, begun = 0, 0
        for constraint, length, one in zip(self.constraints, self.lengths, state, strict=True):
            rest = constraint.remaining(one)
            if rest:
                total, begun = total + length, max(begun, length - rest)
        return total - begun

    def advances(self, state: tuple[State, ...]) -> set[int]:
        """Tokens that bring some constraint nearer."""
        return {token for c, one in zip(self.constraints, state, strict=True) for token in c.advances(one)}


def _borders(phrase: tuple[int, ...]) -> list[int]:
    """For each beginning of the phrase, the length of the longest shorter one that it ends with."""
    found = [0] * len(phrase)
    for i in range(1, len(phrase)):
        length = found[i - 1]
        while length and phrase[i] != phrase[length]:
            length = found[length - 1]
        found[i] = length + (phrase[i] == phrase[length])
    return found
