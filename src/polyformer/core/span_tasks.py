"""Question answering with a beam of spans and a score of there being no answer (XLM, FlauBERT, XLNet)."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from polyformer.core.config import Config
from polyformer.core.outputs import SpanBeamsOutput
from polyformer.core.tasks import Task, real_tokens
from polyformer.parts.losses import span_loss
from polyformer.parts.pooling import last_token
from polyformer.parts.spans import SpanHead, at


class SpanBeams(Task):
    """Finds the likeliest spans of a text, or, given the right one, how wrong the model is.

    config.start_n_top and config.end_n_top: how many starts, and ends of each, are looked at.
    """

    targets = ("start_positions", "end_positions", "is_impossible", "cls_index", "p_mask")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        self.qa_outputs = SpanHead(c.hidden_size, c.layer_norm_eps, c.start_n_top, c.end_n_top)
        self.init_weights()

    def answer(
        self,
        inputs: dict[str, Any],
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        is_impossible: Tensor | None = None,
        cls_index: Tensor | None = None,
        p_mask: Tensor | None = None,
    ) -> SpanBeamsOutput:
        """Spans, or with start_positions and end_positions (rows,) their loss; one past the length is left out of it.

        is_impossible (rows,), 1 where there is no answer: half of that loss is added where cls_index is given too.
        cls_index (rows,): the token that stands for the text, the last one by default.
        p_mask (rows, length): 1 = no answer is here. Padding never has one.
        """
        outputs = self.encode(inputs)
        shown = outputs.mems, outputs.hidden_states, outputs.attentions
        states, head = outputs.last_hidden_state, self.qa_outputs
        real = allowed = real_tokens(inputs, states.shape[1])
        if p_mask is not None:
            allowed = p_mask == 0 if real is None else real & (p_mask == 0)
        whole = last_token(states, real) if cls_index is None else at(states, _column(cls_index)).squeeze(1)
        if start_positions is None or end_positions is None:
            return SpanBeamsOutput(None, *head.best(states, allowed, whole), *shown)

        given = _column(start_positions).clamp(0, states.shape[1] - 1)
        start, end = head.start_scores(states, allowed), head.end_scores(states, given, allowed).squeeze(-1)
        loss = span_loss(start, end, start_positions, end_positions)
        if cls_index is not None and is_impossible is not None:
            answer = head.answer(at(states, given).squeeze(1), whole)
            loss = loss + 0.5 * F.binary_cross_entropy_with_logits(answer, is_impossible.to(answer.dtype))
        return SpanBeamsOutput(loss, None, None, None, None, None, *shown)


def _column(index: Tensor) -> Tensor:
    """(rows,) or (rows, 1) -> (rows, 1)."""
    return index.reshape(-1, 1)
