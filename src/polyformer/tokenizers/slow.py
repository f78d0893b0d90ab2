"""The tokenizers whose reference was written in Python: one row a text, whatever its length.

    call                     fast                              slow
    overflow                 further rows                      `overflowing_tokens`, `num_truncated_tokens` of the row
    only_first, only_second  ValueError if a text is too short  a warning, the row stays as it is
    longest_first, odd room  one token more for the longer     one more for the first, if both are cut
    an empty second text     none                              a pair
    pair, no special tokens  types 0 and 1                     types 0
    length                   with padding                      without

They are CTRL, FlauBERT, Marian, ProphetNet, Transformer-XL, XLM and XLM-ProphetNet. Offsets, words and characters are
to be had from them here, though not in transformers.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from polyformer.tokenizers.base import PreTrainedTokenizer
from polyformer.tokenizers.checks import warn
from polyformer.tokenizers.contract import Contract
from polyformer.tokenizers.plan import Lengths
from polyformer.tokenizers.template import Form, Template
from polyformer.tokenizers.truncation import Span, left_over, one_by_one, too_short

if TYPE_CHECKING:
    from polyformer.tokenizers.assemble import Row, Table


class OneRow(Contract):
    """What was cut off stands beside the row; what cannot be cut as asked stays."""

    def is_text(self, second: Any) -> bool:
        return second is not None

    def form(self, template: Template, pair: bool, special: bool) -> Form:
        form = template.form(pair, special)
        return form if special else form.untyped

    def spans(
        self, lengths: Sequence[int], room: int | None, want: Lengths, side: str, overflow: bool
    ) -> list[tuple[Span, ...]]:
        kept = lengths if room is None else self.kept(lengths, room, want.truncation or "do_not_truncate")
        if side == "right":
            return [tuple((0, k) for k in kept)]
        return [tuple((n - k, n) for n, k in zip(lengths, kept, strict=True))]

    def kept(self, lengths: Sequence[int], room: int, strategy: str) -> list[int]:
        kept = one_by_one(lengths, room, strategy)
        if kept is None:
            warn(f"A row is longer than asked for: {too_short(lengths, room, strategy)}")
        return list(lengths) if kept is None else kept

    def overflow(
        self, rows: Sequence["Row"], ids: Sequence[list[int]], want: Lengths, side: str, table: "Table"
    ) -> dict[str, Any]:
        texts = [[ids[text] for text in row.sides] for row in rows]
        cut = [left_over(t, row.lengths, want.stride, side) for t, row in zip(texts, rows, strict=True)]
        wanted = [row.form.added + sum(map(len, t)) for t, row in zip(texts, rows, strict=True)]
        limit = want.max_length if want.truncation else None
        return {
            "overflowing_tokens": table.ragged("overflowing_tokens", cut),
            "num_truncated_tokens": table.vector([0 if limit is None else n - limit for n in wanted]),
        }

    def length(self, tokens: int, width: int | None) -> int:
        return tokens

    def single(self, data: Mapping[str, Any], overflow: bool) -> dict[str, Any]:
        return {key: value[0] for key, value in data.items()}


class WholeRows(PreTrainedTokenizer):
    """Base, or first of several, of a family that answers so."""

    contract: ClassVar[Contract] = OneRow()
    is_fast = False
