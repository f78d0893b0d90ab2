"""The vectors of all tokens of a text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, overload

import numpy as np
from torch import Tensor

from polyformer.pipelines.base import Pipeline
from polyformer.pipelines.rows import Row, policy, whole

RETURNS = (None, "np", "pt")


class FeatureExtractionPipeline(Pipeline):
    """Text to the states of the last layer, one vector a token, special tokens included.

    A text gives [[vector of token 0, vector of token 1, ...]], shape (1, tokens, width); a list of n texts gives n such
    tables (tokens, width). Tables are never padded: each has as many vectors as its text has tokens.
    """

    task: ClassVar[str] = "feature-extraction"
    model_task: ClassVar[str] = "base"

    @overload
    def __call__(
        self,
        inputs: str | list[str] | tuple[str, ...],
        *,
        return_tensors: str | None = ...,
        truncation: bool = ...,
        on_long: str | None = ...,
        show_progress: bool | None = ...,
    ) -> Any: ...
    @overload
    def __call__(
        self,
        inputs: Iterable[str],
        *,
        return_tensors: str | None = ...,
        truncation: bool = ...,
        on_long: str | None = ...,
        show_progress: bool | None = ...,
    ) -> Iterator[Any]: ...
    def __call__(
        self,
        inputs: Any,
        *,
        return_tensors: str | None = None,
        truncation: bool = False,
        on_long: str | None = None,
        show_progress: bool | None = None,
    ) -> Any:
        """Vectors of a text, a list of texts or an iterable of them.

        Args:
            return_tensors: None = nested lists, "np" = arrays, "pt" = tensors on the CPU; all float32.
            on_long: a text longer than the model takes is an "error", or "truncate" it (also truncation=True), or
                "window": pieces that overlap, every token's vector from where it has most context.
            show_progress: True or False; None = on a terminal, when it takes a moment.

        Raises:
            TypeError: not a text. ValueError: too long a text.
        """
        if return_tensors not in RETURNS:
            raise ValueError(f"return_tensors is {return_tensors!r}; there are None (nested lists), 'np' and 'pt'.")
        options = {"return_tensors": return_tensors, "on_long": policy(on_long, truncation, "error")}
        result = self.run(inputs, options, show_progress)
        if not isinstance(inputs, str):
            return result
        return [result] if return_tensors is None else result[None]

    def prepare(self, texts: Sequence[Any], first: int, options: Mapping[str, Any]) -> Sequence[Sequence[Row]]:
        return self.rows(texts, first, options["on_long"])

    def compute(self, inputs: dict[str, Tensor], rows: Sequence[Row], options: Mapping[str, Any]) -> list[Tensor]:
        states = self.model(**inputs, return_dict=True).last_hidden_state.float().cpu()
        return [states[i, : len(row.ids)] for i, row in enumerate(rows)]

    def answer(self, text: Any, rows: Sequence[Any], options: Mapping[str, Any]) -> Any:
        states: Tensor = rows[0].result if len(rows) == 1 else whole(rows)
        if options["return_tensors"] == "pt":
            return states.clone()  # its own memory, not that of the batch
        array: np.ndarray = states.numpy()
        return array.copy() if options["return_tensors"] == "np" else array.tolist()
