"""Labels that the model was never trained on: each is put to a model of natural language inference as a hypothesis.

Yin, Hay and Roth 2019, arXiv 1909.00161: if a text entails "This example is about politics.", politics is its label.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from polyformer.core.config import Config
from polyformer.core.pretrained import PreTrainedModel
from polyformer.pipelines.base import Pipeline
from polyformer.pipelines.rows import OVERLAP, Piece, Row, check_texts, policy, rows_of_pair, tokens_of
from polyformer.pipelines.text_classification import averaged


class ZeroShotClassificationPipeline(Pipeline):
    """A text and any labels to how well each fits.

    A text gives {"sequence", "labels", "scores"}, the best label first; a list of texts such a dictionary each.
    """

    task: ClassVar[str] = "zero-shot-classification"
    model_task: ClassVar[str] = "sequence-classification"

    def __init__(self, model: PreTrainedModel, tokenizer: Any, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        self.entailment, self.contradiction = inference_labels(model.config)

    def __call__(
        self,
        sequences: Any,
        candidate_labels: str | Sequence[str],
        *,
        hypothesis_template: str = "This example is {}.",
        multi_label: bool = False,
        truncation: bool = False,
        on_long: str | None = None,
        show_progress: bool | None = None,
    ) -> Any:
        """Weigh the labels for a text, a list of texts or an iterable of them.

        Args:
            candidate_labels: a list, or one str with commas between the labels.
            hypothesis_template: the sentence that a label is put into, at {}.
            multi_label: False = the scores of a text sum to 1; True = every label is judged by itself, how likely it is
                entailed rather than contradicted.
            on_long: a text longer than the model takes is an "error", or "truncate" it, or "window".

        Raises:
            TypeError: not a text. ValueError: no label, no {} in the template, too long a text.
        """
        labels = candidate_labels.split(",") if isinstance(candidate_labels, str) else list(candidate_labels)
        labels = [label.strip() for label in labels]
        if not all(labels) or not labels:
            raise ValueError(f"candidate_labels is {candidate_labels!r}: give at least one label, none of them empty.")
        if hypothesis_template.format("x") == hypothesis_template.format("y"):
            raise ValueError(f"hypothesis_template {hypothesis_template!r} has no {{}} to put a label in.")
        options = {
            "labels": labels,
            "hypotheses": [hypothesis_template.format(label) for label in labels],
            "multi_label": multi_label,
            "on_long": policy(on_long, truncation, "error"),
        }
        return self.run(sequences, options, show_progress)

    def prepare(self, texts: Sequence[Any], first: int, options: Mapping[str, Any]) -> list[list[Piece]]:
        check_texts(texts, first)
        hypotheses = tokens_of(self.tokenizer, options["hypotheses"])
        found: list[list[Piece]] = []
        for number, premise in enumerate(tokens_of(self.tokenizer, texts), first):
            found.append([])
            for label, hypothesis in enumerate(hypotheses):
                given = (self.tokenizer, premise, hypothesis, self.limit, options["on_long"], number, OVERLAP)
                for row in rows_of_pair(*given):
                    row.number = label
                    found[-1].append(row)
        return found

    def compute(self, inputs: dict[str, Tensor], rows: Sequence[Row], options: Mapping[str, Any]) -> list[Tensor]:
        return list(self.model(**inputs, return_dict=True).logits.float().cpu())

    def answer(self, text: Any, rows: Sequence[Piece], options: Mapping[str, Any]) -> dict[str, Any]:
        labels = options["labels"]
        logits = torch.stack([averaged([row for row in rows if row.number == i]) for i in range(len(labels))])
        if options["multi_label"] or len(labels) == 1:
            scores = logits[:, [self.contradiction, self.entailment]].softmax(-1)[:, 1]
        else:
            scores = logits[:, self.entailment].softmax(0)
        order = scores.argsort(descending=True, stable=True).tolist()
        return {
            "sequence": text,
            "labels": [labels[i] for i in order],
            "scores": [float(scores[i]) for i in order],
        }


def inference_labels(config: Config) -> tuple[int, int]:
    """The numbers of entailment and of its opposite, by their names in the config.

    Raises:
        ValueError: no label is called entailment, so that nobody knows what the model's outputs mean.
    """
    names = {number: name.lower() for number, name in config.id2label.items()}
    entailed = [number for number, name in names.items() if name.startswith("entail")]
    if len(entailed) != 1:
        raise ValueError(
            f"the model's labels are {', '.join(config.id2label.values())}: zero-shot classification needs a model of "
            "natural language inference with one label called entailment; set config.label2id if it is one."
        )
    others = [number for number in names if number != entailed[0]]
    opposite = [number for number in others if names[number].startswith(("contra", "not_entail"))]
    if len(opposite) != 1:
        if len(others) != 1:
            raise ValueError(f"none of the labels {', '.join(config.id2label.values())} is called contradiction.")
        opposite = others
    return entailed[0], opposite[0]
