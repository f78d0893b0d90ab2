"""The two-way checkpoint table: how the names and tensors of a file and of a module correspond.

A row is (theirs, ours[, operation]). Names may have holes, the same ones on both sides: {i} {j} {k} stand for a number,
{p} for `weight` or `bias`, {b} for what a batch norm keeps. `{query|key|value}` in theirs lists several tensors that
make up one of ours, in order.

An operation is a view: given our tensor, it names the parts of it that are their tensors. Reading copies the file into
the views and writing copies the views into the file, so that the two directions cannot disagree and nothing is held
twice.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Operation = Callable[[Tensor, int], list[Tensor]]
Entry = tuple[str, str] | tuple[str, str, Operation]  # a row as it is written down


def same(ours: Tensor, count: int) -> list[Tensor]:
    """The tensor as it is."""
    return [ours]


def transposed(ours: Tensor, count: int) -> list[Tensor]:
    """A layer whose matrix is kept the other way round, as GPT-2's one-dimensional convolutions are; not its bias."""
    return [ours.T if ours.dim() == 2 else ours]


@dataclass(frozen=True)
class Fuse:
    """Several tensors of the same shape side by side in one of ours, along `dim`."""

    dim: int = 0

    def __call__(self, ours: Tensor, count: int) -> list[Tensor]:
        return list(ours.chunk(count, self.dim))


@dataclass(frozen=True)
class Heads:
    """(width, heads, dim) parameters, as XLNet has them, against one fused linear weight, heads `dim` wide."""

    dim: int

    def __call__(self, ours: Tensor, count: int) -> list[Tensor]:
        return [part.T.unflatten(1, (-1, self.dim)) for part in ours.chunk(count)]


@dataclass(frozen=True)
class FromHeads:
    """(width, heads, dim) against the weight of a linear map from all heads to the width."""

    dim: int

    def __call__(self, ours: Tensor, count: int) -> list[Tensor]:
        return [ours.unflatten(1, (-1, self.dim))]


_HOLES = {
    **dict.fromkeys("ijk", r"\d+"),
    "p": "weight|bias",
    "b": "weight|bias|running_mean|running_var|num_batches_tracked",
}


def _pattern(template: str) -> re.Pattern[str]:
    def hole(found: re.Match[str]) -> str:
        return f"(?P<{found[1]}>{_HOLES[found[1]]})"

    return re.compile(re.sub(r"\\{(\w)\\}", hole, re.escape(template)))


def _holes(template: str) -> set[str]:
    return set(re.findall(r"{(\w)}", template))


class _Row:
    """One row, its names compiled."""

    def __init__(self, theirs: str, ours: str, operation: Operation = same) -> None:
        several = re.search(r"{(\w+(?:\|\w+)+)}", theirs)
        self.theirs = [theirs.replace(several[0], name) for name in several[1].split("|")] if several else [theirs]
        self.ours, self.operation = ours, operation
        if any(_holes(name) != _holes(ours) for name in self.theirs):
            raise ValueError(f"the two sides of a row need the same holes: {theirs!r}, {ours!r}")
        self.reads, self.writes = [_pattern(name) for name in self.theirs], _pattern(ours)


@dataclass(frozen=True)
class Match:
    """One of our tensors and the file's tensors it consists of."""

    ours: str
    theirs: tuple[str, ...]
    operation: Operation

    def views(self, ours: Tensor) -> list[Tensor]:
        """The parts of our tensor that are theirs, in the order of `theirs`."""
        return self.operation(ours, len(self.theirs))


@dataclass(frozen=True)
class Plan:
    """How the names of a file are claimed.

    matches: by our name. incomplete: matches some of whose tensors the file lacks. dropped: names that the table says
    to leave out. unclaimed: names that no row knows. names: all of the file's.
    """

    names: frozenset[str]
    matches: dict[str, Match]
    incomplete: dict[str, Match]
    dropped: list[str]
    unclaimed: list[str]


class KeyMap:
    """The table of one architecture.

    Args:
        rows: of the base model, as a file of the base model alone names them.
        heads: of the task classes, names in full.
        drop: names that may be in a file and are not read.
        fresh: beginnings or middles of our names that need not be in a file of the base model (its pooler, say).
        optional: endings of our names that a file may lack, since they have a start of their own that is no guess.
        legacy: endings of names in old files and what they are called now.
        prefix: what the base model is called inside a task class, in files and in modules; in files it may be nothing;
        module: in modules, where that is another name.
    """

    def __init__(
        self,
        rows: Iterable[Entry],
        *,
        heads: Iterable[Entry] = (),
        drop: Iterable[str] = (),
        fresh: Iterable[str] = (),
        optional: Iterable[str] = (),
        legacy: Iterable[tuple[str, str]] = (),
        prefix: str,
        module: str | None = None,
    ) -> None:
        self.base = [_Row(*row) for row in rows]
        self.heads = [_Row(*row) for row in heads]
        self.drop = [_pattern(name) for name in drop]
        self.fresh, self.optional = tuple(fresh), tuple(optional)
        self.legacy, self.prefix = tuple(legacy), prefix
        self.module = module or prefix

    def plan(self, names: Iterable[str], *, base: bool, own: Iterable[str] = ()) -> Plan:
        """Claim the names of a file for a base model (base=True) or a task class around one.

        The file may be of either kind: the prefix is taken off or put on. Of names that no row knows, those in `own`
        (the parameters of a head that a user wrote) stand for themselves.
        """
        names = frozenset(names)
        left = {self._current(name): name for name in sorted(names)}
        dropped = [left.pop(name) for name in list(left) if self._dropped(name)]
        matches: dict[str, Match] = {}
        incomplete: dict[str, Match] = {}
        partly: list[tuple[str, tuple[str, ...], Operation]] = []
        inside, ours_inside = self.prefix and f"{self.prefix}.", "" if base else f"{self.module}."
        for rows, theirs_prefixes, ours_prefix in ((self.base, (inside, ""), ours_inside), (self.heads, ("",), "")):
            for row in rows:
                for prefix in theirs_prefixes:
                    for ours, theirs in self._claim(row, left, prefix, ours_prefix):
                        if all(name in left for name in theirs):
                            matches[ours] = Match(ours, tuple(left.pop(name) for name in theirs), row.operation)
                        else:
                            partly.append((ours, theirs, row.operation))
        for ours, theirs, operation in partly:  # after the rows that have all of their tensors
            if any(name in left for name in theirs):
                incomplete[ours] = Match(ours, tuple(left.pop(name, name) for name in theirs), operation)
        for name in () if base else sorted(left.keys() & set(own)):
            matches[name] = Match(name, (left.pop(name),), same)
        return Plan(names, matches, incomplete, dropped, list(left.values()))

    def names(self, ours: Iterable[str], *, base: bool) -> tuple[dict[str, Match], list[str]]:
        """The file's names for a module's: matches by our name, and names of the base model that no row knows.

        A name of a head that no row knows, one that a user wrote, is the file's name too.
        """
        matches, unknown = {}, []
        for name in ours:
            inside = base or name.startswith(f"{self.module}.")
            lead = (self.prefix and f"{self.prefix}.", f"{self.module}.") if inside and not base else ("", "")
            match = self._written(name, lead, self.base if inside else self.heads)
            if match is None and inside:
                unknown.append(name)
            else:
                matches[name] = match or Match(name, (name,), same)
        return matches, unknown

    def load(self, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], *, base: bool) -> dict[str, Tensor]:
        """A file's tensors under our names, for parameters of these shapes; what no row knows is passed through."""
        plan = self.plan(tensors, base=base)
        result = {name: tensors[name] for name in plan.unclaimed}
        for name, match in plan.matches.items():
            if name not in shapes or match.operation is same:
                result[name] = tensors[match.theirs[0]]
                continue
            first = tensors[match.theirs[0]]
            ours = torch.empty(shapes[name], dtype=first.dtype, device=first.device)
            for view, file in zip(match.views(ours), match.theirs, strict=True):
                view.copy_(tensors[file])
            result[name] = ours
        return result

    def save(self, tensors: Mapping[str, Tensor], *, base: bool) -> dict[str, Tensor]:
        """A module's tensors under a file's names: views, so nothing is copied."""
        matches, unknown = self.names(tensors, base=base)
        if unknown:
            raise KeyError(f"parameters that no row of the checkpoint table knows: {', '.join(unknown[:5])}")
        result: dict[str, Tensor] = {}
        for name, match in matches.items():
            result.update(zip(match.theirs, match.views(tensors[name]), strict=True))
        return result

    def may_be_new(self, name: str) -> bool:
        """Whether a base-model parameter of ours may be missing from a file."""
        return any(part in name for part in self.fresh)

    def _current(self, name: str) -> str:
        for old, new in self.legacy:
            if name.endswith(old):
                return name.removesuffix(old) + new
        return name

    def _dropped(self, name: str) -> bool:
        inner = name.removeprefix(f"{self.prefix}.")
        return any(pattern.fullmatch(name) or pattern.fullmatch(inner) for pattern in self.drop)

    @staticmethod
    def _claim(row: _Row, names: Iterable[str], prefix: str, ours_prefix: str) -> list[tuple[str, tuple[str, ...]]]:
        found: dict[str, tuple[str, ...]] = {}
        for name in names:
            if not name.startswith(prefix):
                continue
            for pattern in row.reads:
                if hit := pattern.fullmatch(name, len(prefix)):
                    holes = hit.groupdict()
                    ours = ours_prefix + row.ours.format(**holes)
                    found[ours] = tuple(prefix + theirs.format(**holes) for theirs in row.theirs)
        return list(found.items())

    @staticmethod
    def _written(name: str, leads: tuple[str, str], rows: Iterable[_Row]) -> Match | None:
        theirs_lead, lead = leads
        for row in rows:
            if hit := row.writes.fullmatch(name, len(lead)):
                holes = hit.groupdict()
                return Match(name, tuple(theirs_lead + theirs.format(**holes) for theirs in row.theirs), row.operation)
        return None
