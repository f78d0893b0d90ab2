"""Labels of whole texts, or of pairs of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from polyformer.pipelines.base import Pipeline
from polyformer.pipelines.rows import OVERLAP, Piece, Row, called, policy, rows_of, rows_of_pair, tokens_of

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}


class TextClassificationPipeline(Pipeline):
    """A text to its label: sentiment, topic, whether two sentences agree.

    A text gives [{"label", "score"}], its likeliest label; a list of texts a dictionary each. With top_k a text gives
    the k likeliest labels, with top_k=None all of them, the likeliest first.
    """

    task: ClassVar[str] = "text-classification"
    model_task: ClassVar[str] = "sequence-classification"

    def __call__(
        self,
        inputs: Any,
        *,
        top_k: int | None = 1,
        function_to_apply: str | None = None,
        return_all_scores: bool = False,
        truncation: bool = False,
        on_long: str | None = None,
        show_progress: bool | None = None,
    ) -> Any:
        """Label a text, a list of texts or an iterable of them.

        Args:
            inputs: texts; or pairs, in a list each two texts or {"text": ..., "text_pair": ...}.
            top_k: how many labels a text, None for all.
            function_to_apply: "softmax", "sigmoid" or "none" from logits to scores. By default what the model was
                trained for: independent labels sigmoid, a single output none, the rest softmax.
            return_all_scores: Transformers' older way to ask for all labels, in the order of the model.
            on_long: a text longer than the model takes is an "error", or "truncate" it, or read it by "window" and
                average the logits, every window weighing as much as it has tokens.

        Raises:
            TypeError: not a text or a pair. ValueError: too long a text, an unknown function.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}: ask for at least 1 label, or None for all.")
        options = {
            "top_k": None if return_all_scores else top_k,
            "sort": not return_all_scores,
            "function": FUNCTIONS[self._function(function_to_apply)],
            "on_long": policy(on_long, truncation, "error"),
        }
        result = self.run(inputs, options, show_progress)
        one = isinstance(inputs, (str, Mapping))
        return [result] if one and options["top_k"] == 1 else result

    def prepare(self, texts: Sequence[Any], first: int, options: Mapping[str, Any]) -> list[list[Piece]]:
        return pair_rows(self, [pair_of(text, i) for i, text in enumerate(texts, first)], first, options["on_long"])

    def compute(self, inputs: dict[str, Tensor], rows: Sequence[Row], options: Mapping[str, Any]) -> list[Tensor]:
        return list(self.model(**inputs, return_dict=True).logits.float().cpu())

    def answer(self, text: Any, rows: Sequence[Piece], options: Mapping[str, Any]) -> Any:
        scores = options["function"](averaged(rows)).tolist()
        names = self.model.config.id2label
        found = [{"label": names[i], "score": score} for i, score in enumerate(scores)]
        if options["sort"]:
            found.sort(key=lambda label: -label["score"])
        if options["top_k"] == 1:
            return found[0]
        return found[: options["top_k"]]

    def _function(self, asked: str | None) -> str:
        if asked is not None:
            if asked not in FUNCTIONS:
                raise ValueError(f"function_to_apply is {asked!r}; there are {', '.join(FUNCTIONS)}.")
            return asked
        config = self.model.config
        kind = config.problem_type
        if kind == "regression":
            return "none"
        if kind == "multi_label_classification" or config.num_labels == 1:
            return "sigmoid"
        return "softmax"


def pair_of(text: Any, number: int) -> tuple[str, str | None]:
    """A text, or a pair in any of its forms, as two.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(text, str):
        return text, None
    if isinstance(text, Mapping) and isinstance(text.get("text"), str):
        second = text.get("text_pair")
        if second is None or isinstance(second, str):
            return text["text"], second
    if isinstance(text, (tuple, list)) and len(text) == 2 and all(isinstance(side, str) for side in text):
        return text[0], text[1]
    raise TypeError(
        f"{called(number)} is a {type(text).__name__}: give a str, a pair of them, or "
        '{"text": ..., "text_pair": ...}.'
    )


def pair_rows(pipe: Pipeline, pairs: Sequence[tuple[str, str | None]], first: int, on_long: str) -> list[list[Piece]]:
    """The rows of texts and of pairs."""
    texts = iter(tokens_of(pipe.tokenizer, [side for pair in pairs for side in pair if side is not None]))
    limit = pipe.limit
    found = []
    for number, (_, b) in enumerate(pairs, first):
        tokens = next(texts)
        if b is None:
            found.append(rows_of(pipe.tokenizer, tokens, limit, on_long, number, overlap=OVERLAP))
        else:
            found.append(rows_of_pair(pipe.tokenizer, tokens, next(texts), limit, on_long, number, OVERLAP))
    return found


def averaged(rows: Sequence[Piece]) -> Tensor:
    """(labels,): the logits of a text, of several windows their mean by their numbers of tokens."""
    if len(rows) == 1:
        return rows[0].result
    weights = torch.tensor([float(len(row.ids)) for row in rows])
    return (torch.stack([row.result for row in rows]) * (weights / weights.sum())[:, None]).sum(0)
