"""From the tokens of each text to the columns of a batch: cut, weave in special tokens, pad.

    samples   [("a b c d", "e f"), ...]
    sides     the texts of all samples in a row, each turned into tokens on its own
    rows      what each sample becomes: which sides, which span of each (more than one row a sample with overflow)
    columns   input_ids, token_type_ids, ..., one list a row or one array

All of it is computed from arguments; nothing shared is written to.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from polyformer.tokenizers.backend import Backend, TextSide, Tokens
from polyformer.tokenizers.contract import Contract
from polyformer.tokenizers.encoding import BatchEncoding, Encoding
from polyformer.tokenizers.padding import Grid, pad_row, width_of
from polyformer.tokenizers.plan import Lengths, Plan
from polyformer.tokenizers.template import Form, Template
from polyformer.tokenizers.tensors import ragged_message, to_kind
from polyformer.tokenizers.truncation import Span

Sample = tuple[TextSide, ...]  # a text, or a pair of texts


class Filler(NamedTuple):
    """What padding consists of, and the sides on which to pad and to cut."""

    id: int
    token: str
    type: int
    side: str
    cut_side: str


class Row(NamedTuple):
    """One row of the batch: spans of the tokens of some sides, in a form."""

    sample: int
    form: Form
    sides: tuple[int, ...]
    spans: tuple[Span, ...]

    def weave(self, values: Sequence[list[Any]], specials: Sequence[Any]) -> list[Any]:
        """The row of values, given those of every side and those of the form's special tokens."""
        texts = [values[side][start:stop] for side, (start, stop) in zip(self.sides, self.spans, strict=True)]
        return self.form.weave(texts, specials)

    @property
    def lengths(self) -> list[int]:
        return [stop - start for start, stop in self.spans]


def encode(
    backend: Backend,
    template: Template,
    contract: Contract,
    samples: Sequence[Sample],
    split: bool,
    plan: Plan,
    filler: Filler,
) -> BatchEncoding:
    """The batch of these samples. Columns: input_ids, and what the plan asks for."""
    sides = [side for sample in samples for side in sample]
    tokens = backend.encode(sides, split, plan.offsets)
    ids = [t.ids for t in tokens]
    rows = lay_rows(samples, list(map(len, ids)), template, contract, plan, filler.cut_side)
    woven = [row.weave(ids, row.form.ids) for row in rows]
    table = Table(list(map(len, woven)), plan.lengths, plan.tensors, filler.side)
    data = {"input_ids": table.column("input_ids", woven, filler.id)}
    if plan.types:
        data["token_type_ids"] = _types(rows, table, filler)
    if plan.attention:
        data["attention_mask"] = table.constant(1, 0)
    if plan.special_mask:
        masks = [row.form.special_mask(row.lengths) for row in rows]
        data["special_tokens_mask"] = table.column("special_tokens_mask", masks, 1)
    if plan.offsets:
        spans = [t.offsets for t in tokens]
        offsets = [row.weave(spans, [(0, 0)] * len(row.form.pieces)) for row in rows]
        data["offset_mapping"] = table.column("offset_mapping", offsets, (0, 0))
    if plan.length:
        data["length"] = table.vector([contract.length(n, table.width) for n in table.lengths])
    if plan.overflow:
        data |= contract.overflow(rows, ids, plan.lengths, filler.cut_side, table)
    again = partial(backend.encode, sides, split, True)
    full = partial(full_rows, (lambda: tokens) if plan.offsets else again, rows, table.width, filler)
    return BatchEncoding(data, full, n_sequences=len(samples[0]) if samples else None)


def lay_rows(
    samples: Sequence[Sample],
    lengths: Sequence[int],
    template: Template,
    contract: Contract,
    plan: Plan,
    cut_side: str,
) -> list[Row]:
    """Decide which tokens of each side (there are `lengths` of them) go into which row."""
    want = plan.lengths
    rows: list[Row] = []
    side = 0
    for number, sample in enumerate(samples):
        mine = tuple(range(side, side + len(sample)))
        side += len(sample)
        form = contract.form(template, len(sample) == 2, plan.special)
        room = room_for_text(want.max_length, form) if want.truncation else None
        for spans in contract.spans([lengths[i] for i in mine], room, want, cut_side, plan.overflow):
            rows.append(Row(number, form, mine, spans))
    return rows


def room_for_text(max_length: int | None, form: Form) -> int | None:
    """What the special tokens leave of max_length; ValueError if it does not even hold those."""
    if max_length is None:
        return None
    if max_length < form.added:
        raise ValueError(
            f"max_length={max_length} does not hold the {form.added} special tokens: "
            f"use at least {form.added + 1}, or add_special_tokens=False."
        )
    return max_length - form.added


class Table:
    """Writes columns over rows of these lengths: padded or not, as lists or arrays."""

    def __init__(self, lengths: Sequence[int], want: Lengths, kind: str | None, side: str) -> None:
        self.lengths, self.kind, self.side = lengths, kind, side
        longest = max(lengths, default=0)
        self.width = width_of(longest, want.padding, want.max_length, want.multiple) if want.padding else None
        self.grid: Grid | None = None
        if kind:
            width = longest if self.width is None else self.width
            shortest = width if want.padding else min(lengths, default=0)
            if shortest < width or longest > width:
                raise ValueError(ragged_message("input_ids", min(min(lengths), width), longest))
            self.grid = Grid(lengths, width, side)

    def column(self, name: str, rows: list[list[Any]], pad: Any) -> Any:
        """The rows, with `pad` added where they are shorter than the table is wide."""
        if self.grid is not None:
            if [*map(len, rows)] != [*self.lengths]:
                raise ValueError(f"{name} has rows of other lengths than input_ids, so it cannot be padded along.")
            return self._tensor(self.grid.fill(rows, pad))
        return rows if self.width is None else [pad_row(row, self.width, pad, self.side) for row in rows]

    def constant(self, inside: int, outside: int) -> Any:
        """One value where rows have tokens, another where there is padding."""
        if self.grid is not None:
            return self._tensor(self.grid.const(inside, outside))
        return self.column("", [[inside] * n for n in self.lengths], outside)

    def vector(self, values: list[int]) -> Any:
        """One number a row."""
        return self._tensor(np.array(values, np.int64)) if self.kind else values

    def ragged(self, name: str, rows: list[list[int]]) -> Any:
        """Rows of lengths of their own, which are not padded; ValueError if they were to be one tensor and differ."""
        if self.kind and len(set(map(len, rows))) > 1:
            raise ValueError(f"{name} differ in length and cannot be one tensor: leave return_tensors out.")
        return to_kind(name, rows, self.kind) if self.kind else rows

    def _tensor(self, array: np.ndarray) -> Any:
        if self.kind == "pt":
            import torch

            return torch.from_numpy(array)
        return array


def _types(rows: Sequence[Row], table: Table, filler: Filler) -> Any:
    shared = {row.form.one_type for row in rows}
    if len(shared) == 1 and None not in shared:
        return table.constant(next(iter(shared)) or 0, filler.type)
    return table.column("token_type_ids", [row.form.types(row.lengths) for row in rows], filler.type)


def full_rows(
    tokens_of: Callable[[], Sequence[Tokens]], rows: Sequence[Row], width: int | None, filler: Filler
) -> list[Encoding]:
    """Every row with all that is known of it; the first of each sample lists its further windows."""
    tokens = tokens_of()
    ids, texts, offsets, words = zip(*((t.ids, t.tokens, t.offsets, t.word_ids) for t in tokens), strict=True)
    made: list[Encoding] = []
    for row in rows:
        form, lengths = row.form, row.lengths
        none: list[Any] = [None] * len(form.pieces)
        n = sum(lengths) + form.added

        def padded(values: list[Any], pad: Any) -> list[Any]:
            return values if width is None else pad_row(values, width, pad, filler.side)

        made.append(
            Encoding(
                ids=padded(row.weave(ids, form.ids), filler.id),
                type_ids=padded(form.types(lengths), filler.type),
                tokens=padded(row.weave(texts, form.tokens), filler.token),
                offsets=padded(row.weave(offsets, [(0, 0)] * len(form.pieces)), (0, 0)),
                attention_mask=padded([1] * n, 0),
                special_tokens_mask=padded(form.special_mask(lengths), 1),
                word_ids=padded(row.weave(words, none), None),
                sequence_ids=padded(form.sequence_ids(lengths), None),
            )
        )
    firsts: dict[int, Encoding] = {}
    for row, encoding in zip(rows, made, strict=True):
        if firsts.setdefault(row.sample, encoding) is not encoding:
            firsts[row.sample].overflowing.append(encoding)
    return made
