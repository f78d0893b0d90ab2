"""What BART and mBART do with a text besides writing: they read it with both halves, the decoder moved by one token."""

from typing import Any

import torch
from torch import Tensor, nn

from polyformer.core.config import Config
from polyformer.core.outputs import (
    Seq2SeqModelOutput,
    Seq2SeqQuestionAnsweringModelOutput,
    Seq2SeqSequenceClassifierOutput,
)
from polyformer.core.seq2seq import Seq2SeqTask, real_targets
from polyformer.parts.heads import DenseHead
from polyformer.parts.losses import sequence_loss, span_loss
from polyformer.parts.pooling import last_token, pooling


class ReadsBothHalves(Seq2SeqTask):
    """A task whose decoder reads the source itself; it has nothing to remember while it learns."""

    passes = ("use_cache",)

    def encode(self, inputs: dict[str, Any]) -> Seq2SeqModelOutput:  # type: ignore[override]
        return self.base_model(**inputs, return_dict=True)


class EosClassification(ReadsBothHalves):
    """One or more labels a sequence, or numbers, read off the decoder's state at the last EOS, which has seen all.

    A row without an EOS is read at its last real token. config.pooling names another way, over the decoder's states.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        self.pooler = pooling(c.pooling, c.d_model, c.decoder_layers) if c.pooling else None
        width = c.d_model if self.pooler is None else self.pooler.out_width
        self.classifier = DenseHead(width, c.d_model, c.num_labels, torch.tanh, c.classifier_dropout)
        self.init_weights()

    def answer(self, inputs: dict[str, Any], labels: Tensor | None = None) -> Seq2SeqSequenceClassifierOutput:
        """labels: (rows,) classes, (rows, labels) 0 or 1, or (rows,) or (rows, labels) numbers."""
        if labels is not None and inputs.get("use_cache") is None:
            inputs = inputs | {"use_cache": False}
        wished = inputs.get("output_hidden_states")
        if self.pooler is not None and self.pooler.needs_layers:
            inputs = inputs | {"output_hidden_states": True}
        outputs = self.encode(inputs)
        logits = self.classifier(self.read(outputs, inputs))
        loss = None if labels is None else sequence_loss(logits, labels, self.config.problem_type)
        shown = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        if not (self.config.output_hidden_states if wished is None else wished):
            shown = {name: value for name, value in shown.items() if not name.endswith("_hidden_states")}
        return Seq2SeqSequenceClassifierOutput(loss=loss, logits=logits, **shown)

    def read(self, outputs: Seq2SeqModelOutput, inputs: dict[str, Any]) -> Tensor:  # type: ignore[override]
        states = outputs.last_hidden_state
        real = real_targets(inputs, states.shape[1])
        if self.pooler is not None:
            return self.pooler(states, real, outputs.decoder_hidden_states)
        ids = inputs.get("input_ids")
        if ids is None or ids.shape != states.shape[:2]:
            return last_token(states, real)
        ends = ids == self.config.eos_token_id
        ends = ends if real is None else ends & real
        anywhere = torch.ones_like(ends) if real is None else real
        return last_token(states, torch.where(ends.any(1, keepdim=True), ends, anywhere))


class Seq2SeqQuestionAnswering(ReadsBothHalves):
    """Where in the text the answer starts and ends. Padding is no answer: its logits are at the type's lowest."""

    targets = ("start_positions", "end_positions")
    order = (
        "input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask", "head_mask", "decoder_head_mask",
        "cross_attn_head_mask", "encoder_outputs", "start_positions", "end_positions",
    )  # fmt: skip

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.d_model, 2)
        self.init_weights()

    def answer(
        self, inputs: dict[str, Any], start_positions: Tensor | None = None, end_positions: Tensor | None = None
    ) -> Seq2SeqQuestionAnsweringModelOutput:
        """start_positions, end_positions: (rows,) tokens; one past the length is left out of the loss."""
        asked = start_positions is not None and end_positions is not None
        if asked and inputs.get("use_cache") is None:
            inputs = inputs | {"use_cache": False}
        outputs = self.encode(inputs)
        logits = self.qa_outputs(outputs.last_hidden_state)
        real = real_targets(inputs, logits.shape[1])
        if real is not None:
            logits = logits.masked_fill(~real[:, :, None], torch.finfo(logits.dtype).min)
        start, end = logits.unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start, end, start_positions, end_positions)
        return Seq2SeqQuestionAnsweringModelOutput(
            loss=loss, start_logits=start, end_logits=end,
            **{name: value for name, value in outputs.items() if name != "last_hidden_state"},
        )  # fmt: skip
