"""Which of several continuations or answers fits a text best, as on SWAG (Zellers et al. 2018)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from polyformer.pipelines.base import Pipeline
from polyformer.pipelines.rows import Piece, Row, called, policy
from polyformer.pipelines.text_classification import averaged, pair_rows


class MultipleChoicePipeline(Pipeline):
    """A text and its choices to the best of them: {"choice", "index", "score", "scores"}, scores summing to 1."""

    task: ClassVar[str] = "multiple-choice"
    model_task: ClassVar[str] = "multiple-choice"

    def __call__(
        self,
        inputs: Any,
        choices: Sequence[str] | None = None,
        *,
        truncation: bool = False,
        on_long: str | None = None,
        show_progress: bool | None = None,
    ) -> Any:
        """Choose for one text, a list of them or an iterable of them.

        Args:
            inputs: a text, with `choices` beside it; or {"text": ..., "choices": [...]}, or any number of those.
            on_long: text and choice longer than the model takes are an "error", or "truncate" them, or "window".

        Raises:
            TypeError: not a text and its choices. ValueError: fewer than two choices, too long a text.
        """
        if choices is not None:
            if not isinstance(inputs, str):
                raise TypeError('choices= goes with one text; for several give {"text": ..., "choices": [...]} each.')
            inputs = {"text": inputs, "choices": choices}
        return self.run(inputs, {"on_long": policy(on_long, truncation, "error")}, show_progress)

    def prepare(self, texts: Sequence[Any], first: int, options: Mapping[str, Any]) -> list[list[Piece]]:
        found = []
        for number, text in enumerate(texts, first):
            _check(text, number)
            pairs = [(text["text"], choice) for choice in text["choices"]]
            for index, rows in enumerate(group := pair_rows(self, pairs, number, options["on_long"])):
                for row in rows:
                    row.number = index
            found.append([row for rows in group for row in rows])
        return found

    def compute(self, inputs: dict[str, Tensor], rows: Sequence[Row], options: Mapping[str, Any]) -> list[Tensor]:
        # every choice is scored by itself: (rows, length) -> (rows, 1 choice, length)
        scores = self.model(**{name: value[:, None] for name, value in inputs.items()}, return_dict=True).logits
        return list(scores.float().cpu())

    def answer(self, text: Any, rows: Sequence[Piece], options: Mapping[str, Any]) -> dict[str, Any]:
        count = len(text["choices"])
        logits = torch.cat([averaged([row for row in rows if row.number == i]) for i in range(count)])
        scores = logits.softmax(0).tolist()
        best = max(range(count), key=scores.__getitem__)
        return {"choice": text["choices"][best], "index": best, "score": scores[best], "scores": scores}


def _check(text: Any, number: int) -> None:
    given = text if isinstance(text, Mapping) else {}
    choices = given.get("choices")
    if not isinstance(given.get("text"), str) or not isinstance(choices, (list, tuple)):
        raise TypeError(f'{called(number)} is no text with choices: give {{"text": ..., "choices": [...]}}.')
    if len(choices) < 2 or not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"{called(number)} has {len(choices)} choices: give at least two, each a str.")
