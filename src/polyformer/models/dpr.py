"""DPR, dense passage retrieval: two BERTs whose vectors meet, and a third that reads what was found.

Karpukhin et al. 2020, arXiv 2004.04906; facebookresearch/DPR. Questions and passages become the state of their first
token; their inner product ranks passages, among which the reader scores each passage and each span of it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from polyformer.core.config import config
from polyformer.core.keymap import KeyMap
from polyformer.core.outputs import DPREncoderOutput, DPRReaderOutput
from polyformer.core.tasks import OPTIONS, Task, real_tokens
from polyformer.models.bert import ROWS, BertConfig, BertModel

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("dpr")
class DPRConfig(BertConfig):
    """BERT's fields, and

    projection_dim: width of the vectors of questions and passages; 0 = hidden_size, without a projection.
    """

    projection_dim: int = 0


# ---- the model -------------------------------------------------------------------------------------------------------


class DPRPreTrained(Task):
    """A BERT without its pooler, unless config.pooling wants one, and what is read of it."""

    config_class = DPRConfig
    base_model_prefix = "bert"
    backbone = BertModel
    vector, pooled, targets = True, False, ()


class DPREncoder(DPRPreTrained):
    """A text to one vector. Without an attention_mask, tokens that are pad_token_id count as padding."""

    order = ("input_ids", "attention_mask", "token_type_ids", "inputs_embeds", *OPTIONS)

    def __init__(self, config: DPRConfig) -> None:
        super().__init__(config)
        self.projection = nn.Linear(self.width, config.projection_dim) if config.projection_dim else None
        self.init_weights()

    @property
    def embeddings_size(self) -> int:
        """How wide the vectors are."""
        return self.config.projection_dim or self.width

    def answer(self, inputs: dict[str, Any]) -> DPREncoderOutput:
        """A vector a row, (rows, embeddings_size)."""
        if inputs.get("attention_mask") is None and inputs.get("input_ids") is not None:
            inputs = inputs | {"attention_mask": inputs["input_ids"].ne(self.config.pad_token_id).long()}
        outputs = self.encode(inputs)
        vectors = self.read(outputs, inputs)
        if self.projection is not None:
            vectors = self.projection(vectors)
        return DPREncoderOutput(vectors, outputs.hidden_states, outputs.attentions)


# ---- checkpoint tables -----------------------------------------------------------------------------------------------


def keys(inside: str, *heads: tuple[str, str]) -> KeyMap:
    """BERT's table, for a BERT that files keep under this name.

    Files of Transformers 4.6 have a pooler that nothing reads; that of config.pooling="cls" has another name.
    """
    rows = [row for row in ROWS if row[1] != "pooler.dense.{p}"] + [("pooler.cls.{p}", "pooler.dense.{p}")]
    drop = ["pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"]
    return KeyMap(rows, heads=heads, drop=drop, fresh=["pooler."], prefix=f"{inside}.bert_model", module="bert")


CONTEXT = keys("ctx_encoder", ("ctx_encoder.encode_proj.{p}", "projection.{p}"))
QUESTION = keys("question_encoder", ("question_encoder.encode_proj.{p}", "projection.{p}"))
READER = keys(
    "span_predictor.encoder",
    ("span_predictor.qa_outputs.{p}", "spans.{p}"),
    ("span_predictor.qa_classifier.{p}", "relevance.{p}"),
)

# ---- the classes -----------------------------------------------------------------------------------------------------


class DPRContextEncoder(DPREncoder):
    """Passages to vectors."""

    keys = CONTEXT


class DPRQuestionEncoder(DPREncoder):
    """Questions to vectors."""

    keys = QUESTION


class DPRReader(DPRPreTrained):
    """Of rows "question, title, passage": how likely each holds the answer, and which span of it is."""

    keys = READER
    withheld, order = ("token_type_ids",), ("input_ids", "attention_mask", "inputs_embeds", *OPTIONS)

    def __init__(self, config: DPRConfig) -> None:
        super().__init__(config)
        self.spans = nn.Linear(config.hidden_size, 2)
        self.relevance = nn.Linear(self.width, 1)
        self.init_weights()

    def answer(self, inputs: dict[str, Any]) -> DPRReaderOutput:
        """start_logits and end_logits (rows, length), relevance_logits (rows,)."""
        outputs = self.encode(inputs)
        states: Tensor = outputs.last_hidden_state
        logits, real = self.spans(states), real_tokens(inputs, states.shape[1])
        if real is not None:
            logits = logits.masked_fill(~real[:, :, None], torch.finfo(logits.dtype).min)
        start, end = logits.unbind(-1)
        relevance = self.relevance(self.read(outputs, inputs)).squeeze(-1)
        return DPRReaderOutput(start, end, relevance, outputs.hidden_states, outputs.attentions)
