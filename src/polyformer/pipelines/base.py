"""What all pipelines share: inputs of every shape, batches of about as many tokens each, results in the order asked.

A task says three things: which rows (sequences for the model) a text becomes, what the model computes for a batch of
rows, and what the answer is. The rest is here.

    texts -> prepare -> rows -> sorted, cut into batches -> compute -> back in order -> answer -> results
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import length_hint
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from polyformer.core.pretrained import PreTrainedModel
from polyformer.pipelines.batching import padded, token_batches, windows
from polyformer.pipelines.loading import device_of, longest_input
from polyformer.pipelines.progress import Progress
from polyformer.pipelines.rows import OVERLAP, Row, called, check_texts, rows_of, tokens_of

# Tokens of a batch. On a CPU more is slower: a layer's largest array (tokens x inner width) leaves the cache, and
# glibc takes fresh pages from the system for it again and again. MiniLM, one thread: docstrings, texts a second at
# 256, 512, 768, 1024, 2048 tokens: 98 106 107 102 102; texts of 128 tokens, ms each at 512, 768, 1024, 2048:
# 23.4 23.0 23.6 25.3. Two threads share a batch: texts of 128 tokens a second at 512, 768, 1024, 1280, 1536, 2048,
# 3072: 84 87 83 90 89 89 79. A GPU wants to be filled.
CPU_TOKENS_A_THREAD, CPU_TOKENS_MOST = 768, 2048
CPU_NUMBERS = CPU_TOKENS_A_THREAD * 1536  # of that array; a narrower model takes more tokens to fill as much
GPU_TOKENS = 32768

ALONE = -1  # the number of a text that is the only one

Columns = Mapping[str, Sequence[Sequence[int]]]  # input_ids and, where a model wants them, token_type_ids: a list a row


class Pipeline(ABC):
    """A model, its tokenizer and a task. Call it with a text, a list of texts, or any iterable of them.

    A text gives its answer, a list the list of answers; any other iterable (a generator, a file, a data set) gives an
    iterator that reads ahead `window` texts and holds no more than those. A list is refused before its window is
    computed if one of its texts cannot be answered; an iterator answers what comes before that text, and raises then.

    model_task: which class of the architecture is loaded, a key of the registry's TASKS.
    window: texts held at a time.
    """

    task: ClassVar[str]
    model_task: ClassVar[str]
    window: ClassVar[int] = 256

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        *,
        device: torch.device | str | int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        self.model = (model if device is None else model.to(device_of(device))).eval()
        self.tokenizer = tokenizer
        self.batch_tokens = check_budget(batch_tokens) or default_budget(self.model)

    # ---- what a task says ----

    @abstractmethod
    def prepare(self, texts: Sequence[Any], first: int, options: Mapping[str, Any]) -> Sequence[Sequence[Row]]:
        """The rows of every text; `first` is the number of the first one among all texts, for `called` in messages."""

    @abstractmethod
    def compute(self, inputs: dict[str, Tensor], rows: Sequence[Row], options: Mapping[str, Any]) -> Sequence[Any]:
        """Run the model on a batch; one result a row. `inputs` are (rows, length); no mask = no padding."""

    @abstractmethod
    def answer(self, text: Any, rows: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """The answer for a text from its rows and their results."""

    # ---- what is the same for all ----

    @property
    def device(self) -> torch.device:
        return self.model.device

    def run(self, inputs: Any, options: Mapping[str, Any], show_progress: bool | None = None) -> Any:
        """The answer, the list of answers, or an iterator over them, as the inputs are."""
        if isinstance(inputs, (list, tuple)):
            return list(self.stream(inputs, options, show_progress))
        if isinstance(inputs, (str, Mapping)) or not isinstance(inputs, Iterable):
            return next(self.stream([inputs], options, False, first=ALONE))
        return self.stream(inputs, options, show_progress)

    def stream(
        self, texts: Iterable[Any], options: Mapping[str, Any], show_progress: bool | None = None, first: int = 0
    ) -> Iterator[Any]:
        """The answers one by one, in the order of the texts, in bounded memory."""
        total = length_hint(texts) or None
        with Progress(total, "texts", show_progress) as progress:
            for window in windows(texts, self.window):
                groups, refused = self._readable(window, first, options, whole=isinstance(texts, (list, tuple)))
                window = window[: len(groups)]
                share = len(window) / max(1, sum(map(len, groups)))
                for done in self._compute_all([row for group in groups for row in group], options):
                    progress.advance(done * share)
                for text, group in zip(window, groups, strict=True):
                    yield self.answer(text, group, options)
                if refused is not None:
                    raise refused
                first += len(window)

    def _readable(
        self, window: Sequence[Any], first: int, options: Mapping[str, Any], whole: bool
    ) -> tuple[Sequence[Sequence[Row]], Exception | None]:
        """The rows of the texts before the first that cannot be answered, and why not; with `whole` that is raised."""
        try:
            return self.prepare(window, first, options), None
        except (TypeError, ValueError):
            if whole:
                raise
        groups: list[Sequence[Row]] = []
        for number, text in enumerate(window, first):
            try:
                groups += self.prepare([text], number, options)
            except (TypeError, ValueError) as error:
                return groups, error
        return groups, None

    def _compute_all(self, rows: list[Row], options: Mapping[str, Any]) -> Iterator[int]:
        """Give every row its result; yields after each batch how many rows it had."""
        columns: dict[str, list[list[int]]] = {"input_ids": [row.ids for row in rows]}
        if any(row.types for row in rows):
            columns["token_type_ids"] = [row.types or [0] * len(row.ids) for row in rows]
        for numbers, inputs in in_batches(columns, self.batch_tokens, self.device):
            batch = [rows[i] for i in numbers]
            with torch.inference_mode():
                results = self.compute(inputs, batch, options)
            for row, result in zip(batch, results, strict=True):
                row.result = result
            yield len(batch)

    @property
    def limit(self) -> int | None:
        """How many tokens a row may have, special ones included; None where nothing says so."""
        return longest_input(self.tokenizer, self.model)

    def rows(self, texts: Sequence[str], first: int, on_long: str = "error") -> Sequence[Sequence[Row]]:
        """The rows of every text: one each, or several windows of a long one; `on_long` as in rows.py.

        Raises:
            TypeError: not a text. ValueError: more tokens than the model takes, where that is an error.
        """
        check_texts(texts, first)
        limit, window = self.limit, on_long == "window"
        cut = {"truncation": True, "max_length": limit} if on_long == "truncate" and limit is not None else {}
        made = self.tokenizer(list(texts), return_attention_mask=False, verbose=False, **cut)
        types = made.get("token_type_ids") or [None] * len(texts)
        found: list[Sequence[Row]] = []
        for number, (ids, kinds) in enumerate(zip(made["input_ids"], types, strict=True), first):
            fits = limit is None or len(ids) <= limit
            if not fits and not window:
                raise ValueError(
                    f"{called(number)} has {len(ids)} tokens, and this model takes {limit}: pass on_long='window' to "
                    "read it piece by piece, or on_long='truncate' to leave out the rest."
                )
            if fits:
                found.append([Row(ids, kinds if kinds and any(kinds) else None)])
            else:
                (tokens,) = tokens_of(self.tokenizer, [texts[number - first]])
                found.append(rows_of(self.tokenizer, tokens, limit, on_long, number, overlap=OVERLAP))
        return found

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model and tokenizer into a folder that `pipeline` reads."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.model).__name__} on {self.device})"


def in_batches(columns: Columns, budget: int, device: torch.device) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
    """Cut rows into batches of about `budget` tokens and lay each out for the model.

    Yields the numbers (n,) of a batch's rows and the model's arguments: every column as (n, longest) int64, padded on
    the right, and attention_mask, (n, longest) bool, where there is padding. Rows without a token are in no batch.
    """
    rows = columns["input_ids"]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    for numbers in token_batches(lengths, budget):
        sizes = lengths[numbers]
        inputs: dict[str, Tensor] = {}
        real: np.ndarray | None = None
        for name, values in columns.items():
            table, real = padded([values[i] for i in numbers], sizes)
            inputs[name] = torch.from_numpy(table).to(device)
        if real is not None:
            inputs["attention_mask"] = torch.from_numpy(real).to(device)
        yield numbers, inputs


def default_budget(model: PreTrainedModel) -> int:
    """How many tokens to compute at once: what suits the device, the model's width, and the threads of a batch."""
    if model.device.type != "cpu":
        return GPU_TOKENS
    inner = getattr(model.config, "intermediate_size", None) or 1536
    each = max(CPU_TOKENS_A_THREAD, CPU_NUMBERS // inner)
    return min(each * torch.get_num_threads(), CPU_TOKENS_MOST)


def check_budget(batch_tokens: int | None) -> int | None:
    if batch_tokens is not None and batch_tokens < 1:
        raise ValueError(f"batch_tokens is {batch_tokens}: give the number of tokens of a batch, at least 1.")
    return batch_tokens
