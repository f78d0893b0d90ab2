"""What becomes of texts that are too long, and the few other things in which kinds of tokenizers answer differently.

This is the contract of most families here, which is that of transformers' fast tokenizers; see slow.py for the other.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from polyformer.tokenizers.plan import Lengths
from polyformer.tokenizers.template import Form, Template
from polyformer.tokenizers.truncation import Span, check_stride, cut, one_by_one, too_short

if TYPE_CHECKING:
    from polyformer.tokenizers.assemble import Row, Table


class Contract:
    """Overflow becomes further rows; what cannot be cut as asked raises ValueError."""

    def is_text(self, second: Any) -> bool:
        """Whether what was given as the second text beside a single one makes a pair."""
        return not (second is None or (isinstance(second, (str, list, tuple)) and not second))

    def form(self, template: Template, pair: bool, special: bool) -> Form:
        """The arrangement of a single text or a pair, with or without special tokens."""
        return template.form(pair, special)

    def spans(
        self, lengths: Sequence[int], room: int | None, want: Lengths, side: str, overflow: bool
    ) -> list[tuple[Span, ...]]:
        """The rows that a sample becomes, given how many tokens each of its texts has: which of them go into each."""
        if overflow and room is not None:
            check_stride(want.stride, room)  # also where all fits, lest it depends on the text whether a call works
        return cut(lengths, room, want.truncation or "do_not_truncate", side, want.stride, overflow)

    def kept(self, lengths: Sequence[int], room: int, strategy: str) -> list[int]:
        """How many ids each text keeps, tokens being taken off one by one."""
        kept = one_by_one(lengths, room, strategy)
        if kept is None:
            raise ValueError(too_short(lengths, room, strategy))
        return kept

    def overflow(
        self, rows: Sequence["Row"], ids: Sequence[list[int]], want: Lengths, side: str, table: "Table"
    ) -> dict[str, Any]:
        """The columns that return_overflowing_tokens adds; ids: of every text, whole; side: on which it was cut."""
        return {"overflow_to_sample_mapping": table.vector([row.sample for row in rows])}

    def length(self, tokens: int, width: int | None) -> int:
        """What return_length says of a row of so many tokens in a table so wide (None: not padded)."""
        return max(tokens, width or 0)

    def single(self, data: Mapping[str, Any], overflow: bool) -> dict[str, Any]:
        """The columns for a text that came alone; those of its one row, unless there may be more."""
        if overflow:
            return dict(data)
        return {key: value[0] if isinstance(value[0], list) else value for key, value in data.items()}
