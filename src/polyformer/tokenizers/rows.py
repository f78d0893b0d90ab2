"""Rows of ids: special tokens around ids, cutting, padding. For those who have ids already, not text."""

from collections.abc import Mapping
from typing import Any, ClassVar

from polyformer.tokenizers.assemble import Filler, Table, room_for_text
from polyformer.tokenizers.checks import choice, reject_unknown
from polyformer.tokenizers.contract import Contract
from polyformer.tokenizers.encoding import BatchEncoding
from polyformer.tokenizers.plan import Lengths, check_tensors, old_names, plan_lengths
from polyformer.tokenizers.tensors import to_lists
from polyformer.tokenizers.truncation import STRATEGIES, left_over
from polyformer.tokenizers.vocabulary import Vocabulary

Ids = list[int]


class Rows(Vocabulary):
    """Everything about rows of ids."""

    contract: ClassVar[Contract] = Contract()  # what becomes of texts that are too long

    # ---- special tokens

    def build_inputs_with_special_tokens(self, token_ids_0: Ids, token_ids_1: Ids | None = None) -> Ids:
        """The ids of one text or two with the special tokens that the model wants around them."""
        form = self._template.form(token_ids_1 is not None)
        return form.weave([list(token_ids_0), list(token_ids_1 or ())], form.ids)

    def create_token_type_ids_from_sequences(self, token_ids_0: Ids, token_ids_1: Ids | None = None) -> list[int]:
        """The token types of the row that `build_inputs_with_special_tokens` makes."""
        return self._template.form(token_ids_1 is not None).types([len(token_ids_0), len(token_ids_1 or ())])

    def get_special_tokens_mask(
        self, token_ids_0: Ids, token_ids_1: Ids | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 for each special token of a row, 0 for the others: of a finished row, or of the row to be built."""
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError(
                    "a finished row is one list: give token_ids_0 alone with already_has_special_tokens=True."
                )
            special = set(self.all_special_ids)
            return [int(i in special) for i in token_ids_0]
        return self._template.form(token_ids_1 is not None).special_mask([len(token_ids_0), len(token_ids_1 or ())])

    # ---- cutting

    def truncate_sequences(
        self,
        ids: Ids,
        pair_ids: Ids | None = None,
        num_tokens_to_remove: int = 0,
        truncation_strategy: str = "longest_first",
        stride: int = 0,
    ) -> tuple[Ids, Ids | None, Ids]:
        """Take this many tokens off one text or two; returns both, and what was cut off one text with `stride` more.

        With longest_first over two texts, tokens go one by one from the longer (from the second when equal); if both
        are cut, nothing is returned as cut off. ValueError where a text is too short for only_first or only_second.
        """
        strategy = choice("truncation_strategy", truncation_strategy, STRATEGIES)
        texts = [list(ids)] if pair_ids is None else [list(ids), list(pair_ids)]
        lengths = list(map(len, texts))
        room = max(sum(lengths) - max(num_tokens_to_remove, 0), 0)
        kept = self.contract.kept(lengths, room, strategy)
        cut = left_over(texts, kept, stride, self.truncation_side)
        texts = [self._keep(text, count) for text, count in zip(texts, kept, strict=True)]
        return texts[0], None if pair_ids is None else texts[1], cut

    def _keep(self, ids: Ids, count: int) -> Ids:
        return ids[:count] if self.truncation_side == "right" else ids[len(ids) - count :]

    def prepare_for_model(
        self,
        ids: Ids,
        pair_ids: Ids | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        stride: int = 0,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        prepend_batch_axis: bool = False,
        **unknown: Any,
    ) -> BatchEncoding:
        """One row of ids made ready: cut, special tokens added, padded. Arguments as for a call with text.

        return_overflowing_tokens adds overflowing_tokens (a list of ids) and num_truncated_tokens.
        """
        known = ("padding", "truncation", "max_length", "stride", "return_tensors", "return_attention_mask")
        padding, truncation = old_names(unknown, padding, truncation, known)
        want = plan_lengths(padding, truncation, max_length, stride, pad_to_multiple_of, self.model_max_length, verbose)
        check_tensors(return_tensors)
        if return_offsets_mapping:
            raise ValueError("ids do not tell their offsets: pass the text itself to the tokenizer.")
        pair = pair_ids is not None
        form = self.contract.form(self._template, pair, add_special_tokens)
        room = room_for_text(want.max_length, form) if want.truncation else None
        excess = 0 if room is None else len(ids) + len(pair_ids or ()) - room
        ids, pair_ids, cut = self.truncate_sequences(ids, pair_ids, excess, want.truncation or "longest_first", stride)
        data: dict[str, Any] = {}
        if return_overflowing_tokens:
            data |= {"overflowing_tokens": cut, "num_truncated_tokens": excess}
        texts = [list(ids), list(pair_ids or ())]
        lengths = list(map(len, texts))
        data["input_ids"] = form.weave(texts, form.ids)
        if self._wants("token_type_ids", return_token_type_ids):
            data["token_type_ids"] = form.types(lengths)
        if return_special_tokens_mask:
            data["special_tokens_mask"] = form.special_mask(lengths)
        if want.padding or self._wants("attention_mask", return_attention_mask):
            data = self._padded(data, want, self._wants("attention_mask", return_attention_mask), None)
        if return_length:
            data["length"] = len(data["input_ids"])
        return BatchEncoding(data, None, return_tensors, prepend_batch_axis, n_sequences=1 + pair)

    def _wants(self, column: str, asked: bool | None) -> bool:
        return column in self.model_input_names if asked is None else asked

    # ---- padding

    def _filler(self, padding: bool) -> Filler:
        """What to pad with; ValueError if `padding` and there is no padding token."""
        token = self.pad_token
        found = self._backend.token_to_id(token) if padding and token is not None else None
        if padding and token is None:
            raise ValueError(
                "padding needs a padding token and this tokenizer has none: name one of its tokens "
                "(tokenizer.pad_token = tokenizer.eos_token), or add one "
                "(tokenizer.add_special_tokens({'pad_token': '[PAD]'}))."
            )
        if padding and found is None:
            raise ValueError(
                f"the padding token {token!r} is not in the vocabulary: add it with "
                f"tokenizer.add_special_tokens({{'pad_token': {token!r}}}) and resize the model's embeddings."
            )
        return Filler(found or 0, token or "", self.pad_token_type_id, self.padding_side, self.truncation_side)

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
        **unknown: Any,
    ) -> BatchEncoding:
        """Pad rows that were encoded before to one length, as a data collator does.

        encoded_inputs: a list of dicts with input_ids, or one dict of rows (or of a single row); tensors and arrays are
            taken too. The other columns that a tokenizer makes are padded along, and others (labels) are left alone.
        """
        reject_unknown(unknown, ("padding", "max_length", "pad_to_multiple_of", "return_tensors"), "pad")
        data, main = self._columns(encoded_inputs), self.model_input_names[0]
        if main not in data:
            raise ValueError(
                f"pad needs {main!r} but got only {', '.join(map(repr, data)) or 'nothing'}: pass what a call returned."
            )
        want = plan_lengths(padding, None, max_length, 0, pad_to_multiple_of, self.model_max_length, verbose)
        kind = check_tensors(return_tensors)
        return BatchEncoding(
            self._padded(data, want, self._wants("attention_mask", return_attention_mask), kind), None, kind
        )

    def _columns(self, inputs: Any) -> dict[str, Any]:
        """A list of rows, or a dict of columns, as a dict of columns in plain lists."""
        if isinstance(inputs, Mapping):
            return {key: to_lists(value) for key, value in inputs.items()}
        if not isinstance(inputs, (list, tuple)) or not all(isinstance(row, Mapping) for row in inputs):
            raise TypeError(
                f"pad takes a dict, or a list of dicts, with input_ids, not a {type(inputs).__name__} such as this."
            )
        if not inputs:
            raise ValueError("the batch is empty: give at least one row to pad.")
        lacking = next((i for i, row in enumerate(inputs) if row.keys() != inputs[0].keys()), None)
        if lacking is not None:
            raise ValueError(
                f"row {lacking} has the columns {', '.join(inputs[lacking])} but row 0 has {', '.join(inputs[0])}: "
                "give every row the same columns."
            )
        return {key: [to_lists(row[key]) for row in inputs] for key in inputs[0]}

    def _padded(self, data: Mapping[str, Any], want: Lengths, attention: bool, kind: str | None) -> dict[str, Any]:
        """The columns with every row padded; a single row stays one."""
        main = self.model_input_names[0]
        one = not data[main] or not isinstance(data[main][0], (list, tuple))
        columns = {key: [value] for key, value in data.items()} if one else dict(data)
        filler = self._filler(want.padding is not None)
        pads: dict[str, Any] = {
            main: filler.id,
            "attention_mask": 0,
            "token_type_ids": filler.type,
            "special_tokens_mask": 1,
            "offset_mapping": (0, 0),
        }
        table = Table(list(map(len, columns[main])), want, kind, filler.side)
        if attention and "attention_mask" not in columns:
            columns["attention_mask"] = [[1] * n for n in table.lengths]
        for key, pad in pads.items():
            if key in columns:
                columns[key] = table.column(key, columns[key], pad)
        return {key: value[0] for key, value in columns.items()} if one else columns
