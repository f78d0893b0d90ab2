"""Checkpoint tables of models that are made of models: every part's own table, under the name of the part.

file                                      module
mmbt.transformer.embeddings...            mmbt.transformer.embed...          the table of the text encoder
mmbt.modal_encoder.encoder.layer...       mmbt.encoder.layer...              names that stand for themselves
mmbt.modal_encoder.proj_embeddings.bias   mmbt.projection.bias               a row of the composite's own
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from polyformer.core.keymap import Entry, KeyMap, Match, Plan, same


@dataclass(frozen=True)
class Part:
    """A part of a composite model.

    theirs, ours: what files and the module call it.
    table: its own; base: whether it is a model without a head.
    """

    theirs: str
    ours: str
    table: KeyMap
    base: bool = True


class Verbatim(KeyMap):
    """The table of a module that has none: a user's own, whose names are the file's."""

    def __init__(self, fresh: Iterable[str] = ("num_batches_tracked",)) -> None:
        super().__init__((), fresh=fresh, prefix="")

    def plan(self, names: Iterable[str], *, base: bool, own: Iterable[str] = ()) -> Plan:
        names = frozenset(names)
        return Plan(names, {name: Match(name, (name,), same) for name in names}, {}, [], [])

    def names(self, ours: Iterable[str], *, base: bool) -> tuple[dict[str, Match], list[str]]:
        return {name: Match(name, (name,), same) for name in ours}, []


class Composite(KeyMap):
    """The tables of the parts, and a KeyMap's own rows for what is in none of them.

    Everything works inside each part as it does in a model of that kind alone: its operations, old names, names to
    leave out, names that may be new.
    """

    def __init__(self, parts: Iterable[Part], rows: Iterable[Entry] = (), **own: Any) -> None:
        """rows and own: as of KeyMap."""
        super().__init__(rows, **own)
        self.parts = tuple(parts)

    def plan(self, names: Iterable[str], *, base: bool, own: Iterable[str] = ()) -> Plan:
        left = names = frozenset(names)
        own = frozenset(own)
        found = Plan(names, {}, {}, [], [])
        for part in self.parts:
            ours = self._ours(part, base)
            for theirs in (f"{self.prefix}.{part.theirs}.", f"{part.theirs}."):
                if inside := _below(theirs, left):
                    left -= {theirs + name for name in inside}
                    _add(found, part.table.plan(inside, base=part.base, own=_below(ours, own)), theirs, ours)
        _add(found, super().plan(left, base=base, own=own), "", "")
        return found

    def names(self, ours: Iterable[str], *, base: bool) -> tuple[dict[str, Match], list[str]]:
        left = dict.fromkeys(ours)
        matches: dict[str, Match] = {}
        unknown: list[str] = []
        for part in self.parts:
            lead = self._ours(part, base)
            theirs = part.theirs + "." if base else f"{self.prefix}.{part.theirs}."
            inside = _below(lead, left)
            found, lost = part.table.names(inside, base=part.base)
            matches |= _moved(found, theirs, lead)
            unknown += [lead + name for name in lost]
            for name in inside:
                del left[lead + name]
        rest, lost = super().names(left, base=base)
        return matches | rest, unknown + lost

    def may_be_new(self, name: str) -> bool:
        for part in self.parts:
            if name.startswith(f"{part.ours}."):
                inner, base = name.removeprefix(f"{part.ours}."), f"{part.table.module}."
                if not part.base and not inner.startswith(base):
                    return True  # of the part's head
                return part.table.may_be_new(inner if part.base else inner.removeprefix(base))
        return super().may_be_new(name)

    def _ours(self, part: Part, base: bool) -> str:
        return f"{part.ours}." if base else f"{self.module}.{part.ours}."


def _below(lead: str, names: Iterable[str]) -> list[str]:
    return [name.removeprefix(lead) for name in names if name.startswith(lead)]


def _moved(matches: dict[str, Match], theirs: str, ours: str) -> dict[str, Match]:
    """Matches of a part under the names it has in the whole."""
    return {
        ours + name: Match(ours + name, tuple(theirs + file for file in match.theirs), match.operation)
        for name, match in matches.items()
    }


def _add(whole: Plan, part: Plan, theirs: str, ours: str) -> None:
    whole.matches.update(_moved(part.matches, theirs, ours))
    whole.incomplete.update(_moved(part.incomplete, theirs, ours))
    whole.dropped.extend(theirs + name for name in part.dropped)
    whole.unclaimed.extend(theirs + name for name in part.unclaimed)
