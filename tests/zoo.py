"""The registry of tiny models that every property is tested over. A new architecture adds one `Family`.

A `Case` is a class with a configuration. `make` builds it with weights that give outputs of order one, `sentences`
draws inputs of different lengths, `batch` puts them side by side with padding wherever a test wants it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import polyformer
from polyformer.core.pretrained import PreTrainedModel

Row = dict[str, Tensor]
CHOICES = 2


@dataclass(frozen=True)
class Case:
    """One class under one configuration.

    reference: whether the reference has it too (poolings are ours).
    """

    cls: str
    config: dict[str, Any]
    name: str = ""
    reference: bool = True
    family: str = ""

    def __str__(self) -> str:
        return f"{self.cls}-{self.name}" if self.name else self.cls

    @property
    def model_class(self) -> type[PreTrainedModel]:
        return getattr(polyformer, self.cls)

    def configure(self) -> Any:
        return self.model_class.config_class(**self.config)

    @property
    def arguments(self) -> tuple[str, ...]:
        import inspect

        return tuple(inspect.signature(self.model_class.forward).parameters)[1:]

    @property
    def causal(self) -> bool:
        return bool(self.config.get("is_decoder"))

    @property
    def choices(self) -> bool:
        return "MultipleChoice" in self.cls


@dataclass(frozen=True)
class Family:
    """An architecture: its classes, a tiny configuration, and what is worth varying in it.

    variants: name -> changes of the configuration, for the classes named (all of them if none are).
    poolers: the classes that read a pooled vector; each is tested with every pooling.
    """

    name: str
    classes: tuple[str, ...]
    tiny: dict[str, Any]
    variants: Mapping[str, tuple[dict[str, Any], tuple[str, ...]]] = field(default_factory=dict)
    poolers: tuple[str, ...] = ()

    def cases(self) -> Iterable[Case]:
        for cls in self.classes:
            yield Case(cls, self.tiny, "", True, self.name)
        for name, (changes, only) in self.variants.items():
            for cls in only or self.classes:
                yield Case(cls, self.tiny | changes, name, True, self.name)
        for pooling in POOLINGS:
            for cls in self.poolers:
                yield Case(cls, self.tiny | {"pooling": pooling}, f"pooling={pooling}", pooling == "cls", self.name)


POOLINGS = ("cls", "attention", "mean", "max", "mean_sqrt", "last", "last4_cls", "weighted_layers")

BERT = Family(
    name="bert",
    classes=(
        "BertModel BertForPreTraining BertLMHeadModel BertForMaskedLM BertForNextSentencePrediction "
        "BertForSequenceClassification BertForMultipleChoice BertForTokenClassification BertForQuestionAnswering"
    ).split(),
    tiny=dict(
        vocab_size=47,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=32,
        type_vocab_size=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=3,
    ),
    variants={
        "relative_key": ({"position_embedding_type": "relative_key"}, ("BertModel", "BertForMaskedLM")),
        "relative_key_query": ({"position_embedding_type": "relative_key_query"}, ("BertModel", "BertLMHeadModel")),
        "chunked": ({"chunk_size_feed_forward": 3}, ("BertModel",)),
        "pruned": ({"pruned_heads": {0: [1], 2: [0, 2]}}, ("BertModel", "BertForTokenClassification")),
        "gelu_new": ({"hidden_act": "gelu_new"}, ("BertForMaskedLM",)),
        "untied": ({"tie_word_embeddings": False}, ("BertForMaskedLM", "BertForPreTraining")),
        "regression": ({"num_labels": 1}, ("BertForSequenceClassification",)),
        "multi_label": ({"problem_type": "multi_label_classification"}, ("BertForSequenceClassification",)),
        "decoder": ({"is_decoder": True}, ("BertModel", "BertLMHeadModel")),
        "decoder_relative": (
            {"is_decoder": True, "position_embedding_type": "relative_key_query"},
            ("BertLMHeadModel",),
        ),
        "cross": ({"is_decoder": True, "add_cross_attention": True}, ("BertModel", "BertLMHeadModel")),
    },
    poolers=(
        "BertModel BertForPreTraining BertForNextSentencePrediction BertForSequenceClassification BertForMultipleChoice"
    ).split(),
)

FAMILIES = (BERT,)
CASES = tuple(case for family in FAMILIES for case in family.cases())


def each(cases: Iterable[Case] = CASES) -> Any:
    """Parametrise a test over cases."""
    return pytest.mark.parametrize("case", list(cases), ids=str)


def plain(cases: Iterable[Case] = CASES) -> list[Case]:
    """Cases without cross-attention."""
    return [case for case in cases if not case.config.get("add_cross_attention")]


def make(case: Case, *, dtype: torch.dtype = torch.float64, seed: int = 0, **changes: Any) -> Any:
    """The model of a case in eval mode; weights that float32 can hold, drawn so that outputs are of order one."""
    config = dataclasses.replace(case, config=case.config | changes).configure()
    torch.manual_seed(seed)
    model = case.model_class(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.normal_(std=1.5 * p.shape[-1] ** -0.5)
            else:
                p.normal_(mean=1.0 if "norm.weight" in name else 0.0, std=0.2)
    return model.to(dtype).eval()


# ---- inputs ----------------------------------------------------------------------------------------------------------


def sentences(case: Case, lengths: Iterable[int], seed: int = 1) -> list[Row]:
    """One row of inputs a length, unpadded: tensors of shape (length,), of labels too."""
    generator = torch.Generator().manual_seed(seed)
    c = case.config

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    rows = []
    for length in lengths:
        row: Row = {"input_ids": integers(c["vocab_size"] - 1, length) + 1}
        if "token_type_ids" in case.arguments:
            row["token_type_ids"] = (torch.arange(length) > length // 2).long()
        if case.choices:  # (choices, length)
            row = {name: value.repeat(CHOICES, 1) for name, value in row.items()}
            row["input_ids"] = integers(c["vocab_size"] - 1, CHOICES, length) + 1
        if "labels" in case.arguments:
            row["labels"] = _labels(case, length, integers, generator)
        if "next_sentence_label" in case.arguments:
            row["next_sentence_label"] = integers(2)
        if "start_positions" in case.arguments:
            row["start_positions"], row["end_positions"] = integers(length), integers(length)
        if c.get("add_cross_attention"):
            row["encoder_hidden_states"] = torch.randn(7, c["hidden_size"], generator=generator, dtype=torch.float64)
            row["encoder_attention_mask"] = (torch.arange(7) < 3 + length % 4).long()
        rows.append(row)
    return rows


def _labels(case: Case, length: int, integers: Any, generator: torch.Generator) -> Tensor:
    labels = case.config.get("num_labels", 2)
    if "LM" in case.cls or "PreTraining" in case.cls:
        words = integers(case.config["vocab_size"], length)
        words[::3] = -100
        return words
    if "Token" in case.cls:
        return integers(labels, length)
    if case.choices:
        return integers(CHOICES)
    if "NextSentence" in case.cls:
        return integers(2)
    if case.config.get("problem_type") == "multi_label_classification":
        return integers(2, labels).double()
    if labels == 1:  # (1,), as the reference wants it
        return torch.randn(1, generator=generator, dtype=torch.float64)
    return integers(labels)


PER_TOKEN = ("input_ids", "token_type_ids", "labels")
FILL = {"input_ids": 0, "token_type_ids": 0, "labels": -100}


def batch(
    rows: list[Row], *, side: str = "right", extra: int = 0, garbage: int = 0, mask: bool = True
) -> dict[str, Tensor]:
    """Put rows side by side.

    Args:
        side: where padding goes.
        extra: padding beyond the longest row.
        garbage: instead of zeros, ids under the mask are random below this number.
        mask: whether to give an attention_mask.
    """
    longest = max(row["input_ids"].shape[-1] for row in rows) + extra
    out: dict[str, list[Tensor]] = {}
    for row in rows:
        length = row["input_ids"].shape[-1]
        for name, value in row.items():
            if name in PER_TOKEN and value.dim() and value.shape[-1] == length and not _whole(name, row):
                value = _pad(value, longest, side, FILL[name], garbage if name == "input_ids" else 0)
            out.setdefault(name, []).append(value)
        if mask:
            seen = torch.ones(row["input_ids"].shape, dtype=torch.long)
            out.setdefault("attention_mask", []).append(_pad(seen, longest, side, 0, 0))
        if side == "left":
            for name in ("start_positions", "end_positions"):
                if name in row:
                    out[name][-1] = row[name] + longest - length
    return {name: torch.stack(values) for name, values in out.items()}


def _whole(name: str, row: Row) -> bool:
    """Labels of a whole sequence whose shape happens to be a token's."""
    return name == "labels" and (row["labels"].is_floating_point() or row["labels"].dim() == 0)


def _pad(value: Tensor, longest: int, side: str, fill: int, garbage: int) -> Tensor:
    shape = (*value.shape[:-1], longest - value.shape[-1])
    pad = torch.randint(0, garbage, shape) if garbage else torch.full(shape, fill, dtype=value.dtype)
    return torch.cat([value, pad] if side == "right" else [pad, value], -1)


def without_labels(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    targets = ("labels", "next_sentence_label", "start_positions", "end_positions")
    return {name: value for name, value in inputs.items() if name not in targets}


def outputs_of_row(outputs: Any, i: int, length: int, *, side: str, choices: bool = False) -> dict[str, Tensor]:
    """What a model said of row i, cut to its real tokens; the loss is of the batch and left out."""
    found: dict[str, Tensor] = {}

    def cut(value: Tensor, axis: int) -> Tensor:
        start = value.shape[axis] - length if side == "left" else 0
        return value.narrow(axis, start, length)

    def put(name: str, value: Tensor) -> None:
        if name in ("loss", "past_key_values") or value.dim() == 0:
            return
        if choices and name != "logits":  # rows and choices are one axis there
            value = value.unflatten(0, (-1, CHOICES))[i]
            token_axis = 1
        else:
            value, token_axis = value[i], 0
        if name.startswith("attentions"):
            value = cut(cut(value, -1), -2)
        elif name.startswith("cross_attentions"):
            value = cut(value, -2)
        elif name.startswith(("hidden_states", "last_hidden_state", "start_logits", "end_logits")) or (
            name in ("logits", "prediction_logits") and value.dim() == 2
        ):
            value = cut(value, token_axis)
        found[name] = value

    for name, value in outputs.items():
        if isinstance(value, Tensor):
            put(name, value)
        elif isinstance(value, tuple):
            for layer, part in enumerate(value):
                put(f"{name}.{layer}", part)
    return found


def assert_same(got: Mapping[str, Tensor], want: Mapping[str, Tensor], tol: float) -> None:
    """Same names, same shapes, no value further off than tol + tol * |want|."""
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=tol, atol=tol, msg=lambda m, n=name: f"{n}: {m}")
