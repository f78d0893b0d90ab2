"""What is read of a model that always reads from left to right: its last token, or a word and a choice at once."""

from typing import Any

import torch
from torch import Tensor, nn

from polyformer.core.config import Config
from polyformer.core.outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    DoubleHeadsModelOutput,
    SequenceClassifierOutputWithPast,
)
from polyformer.core.tasks import SequenceClassification, Summarised, WordScores, Writes, real_tokens
from polyformer.parts.layout import tracing
from polyformer.parts.losses import cross_entropy, next_token_loss, sequence_loss
from polyformer.parts.pooling import last_token, token_at


class LastTokenClassification(SequenceClassification):
    """One or more labels a sequence, or a number, read off its last real token, the one that has seen all others.

    Padding is what attention_mask says or, without one, what is pad_token_id; it may be on either side.
    """

    pooled = False
    passes = ("past_key_values", "use_cache")

    def head(self, labels: int) -> nn.Module:
        return nn.Linear(self.width, labels, bias=False)

    def read(self, outputs: BaseModelOutputWithPoolingAndCrossAttentions, inputs: dict[str, Any]) -> Tensor:
        if outputs.pooler_output is not None:
            return outputs.pooler_output
        states = outputs.last_hidden_state
        real = real_tokens(inputs, states.shape[1])
        if real is None and inputs.get("input_ids") is not None and self.config.pad_token_id is not None:
            real = inputs["input_ids"] != self.config.pad_token_id
        return last_token(states, real)

    def answer(self, inputs: dict[str, Any], labels: Tensor | None = None) -> SequenceClassifierOutputWithPast:  # type: ignore[override]
        """labels: (rows,) classes, or (rows,) or (rows, labels) numbers."""
        outputs = self.encode(inputs)
        logits = self.classifier(self.read(outputs, inputs))
        loss = None if labels is None else sequence_loss(logits, labels, self.config.problem_type)
        return SequenceClassifierOutputWithPast(
            loss, logits, outputs.past_key_values, outputs.hidden_states, outputs.attentions
        )


class DoubleHeads(Summarised, Writes, WordScores):
    """The next word, and which of several continuations is right, at once (Radford et al. 2018, section 3.3).

    Inputs are (rows, choices, length); (rows, length) are rows with one choice, as while writing.
    """

    vector = True
    pooled = False
    passes = ("past_key_values", "use_cache")
    targets = ("mc_token_ids", "labels", "mc_labels")
    wishes = ("logits_to_keep",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.choice = self.label_summary(1)
        self.init_weights()

    def answer(
        self,
        inputs: dict[str, Any],
        mc_token_ids: Tensor | None = None,
        labels: Tensor | None = None,
        mc_labels: Tensor | None = None,
        logits_to_keep: int | None = None,
    ) -> DoubleHeadsModelOutput:
        """mc_token_ids: (rows, choices) places of the tokens that are judged; the last real ones by default.

        labels: (rows, choices, length), not shifted, -100 for a token that is not to be predicted.
        mc_labels: (rows,) number of the right choice; its loss is apart, mc_loss.
        logits_to_keep: score the words after this many last tokens only; 0 or None = after all.
        """
        shape, flat = _flat(inputs)
        outputs = self.encode(flat)
        states = outputs.last_hidden_state
        words = self.score_words(states, labels, logits_to_keep)
        if mc_token_ids is not None and self.config.summary_type == "cls_index" and outputs.pooler_output is None:
            judged = token_at(states, _checked(mc_token_ids, shape, states.shape[1]))
        else:
            judged = self.read(outputs, flat)
        choices = self.choice(judged).view(shape)
        loss = None
        if labels is not None:
            loss = next_token_loss(words, labels.reshape(states.shape[:2]), real_tokens(flat, states.shape[1]))
        hidden = outputs.hidden_states
        return DoubleHeadsModelOutput(
            loss=loss,
            mc_loss=None if mc_labels is None else cross_entropy(choices, mc_labels, "mc_labels"),
            logits=words.unflatten(0, shape),
            mc_logits=choices,
            past_key_values=outputs.past_key_values,
            hidden_states=None if hidden is None else (*hidden[:-1], hidden[-1].unflatten(0, shape)),
            attentions=outputs.attentions,
        )


PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")


def _flat(inputs: dict[str, Any]) -> tuple[torch.Size, dict[str, Any]]:
    """The batch's shape without its length, and the inputs with all the axes of that made one."""
    ids, vectors = inputs.get("input_ids"), inputs.get("inputs_embeds")
    if (given := ids if ids is not None else vectors) is None:
        raise ValueError("give either input_ids or inputs_embeds, one of the two.")
    axes = given.dim() - (1 if ids is not None else 2)
    if axes < 1:
        raise ValueError(f"inputs have shape {tuple(given.shape)}, but (rows, choices, length) was expected.")
    flat = {
        name: value.flatten(0, axes - 1) if name in PER_TOKEN and value is not None and value.dim() > axes else value
        for name, value in inputs.items()
    }
    return given.shape[:axes], flat


def _checked(places: Tensor, shape: torch.Size, length: int) -> Tensor:
    """(rows * choices,); one clear sentence for places that are not those of tokens, on the CPU."""
    if not tracing() and places.numel() != shape.numel():
        raise ValueError(
            f"mc_token_ids has shape {tuple(places.shape)}, but {tuple(shape)} was expected: one a choice."
        )
    if not tracing() and places.device.type == "cpu" and bool(((places < 0) | (places >= length)).any()):
        raise ValueError(f"mc_token_ids are places of tokens, so 0 to {length - 1} here, not {places.tolist()}.")
    return places.flatten()
