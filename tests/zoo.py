"""The registry of tiny models that every property is tested over. A new architecture adds one `Family`.

A `Case` is a class with a configuration. `make` builds it with weights that give outputs of order one, `sentences`
draws inputs of different lengths, `batch` puts them side by side with padding wherever a test wants it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from polyformer.parts.heads import OffsetWordHead
from polyformer.parts.memory import Memory
from polyformer.parts.state import State
from zoo_convbert import CONVBERT
from zoo_decoders import DECODERS
from zoo_encoders import BERT, ENCODERS
from zoo_family import POOLINGS, THOROUGH, Case, Family
from zoo_funnel import FUNNEL
from zoo_longformer import LONGFORMER
from zoo_reformer import REFORMERS
from zoo_seq2seq import SEQ2SEQ
from zoo_t5 import T5S
from zoo_transfo_xl import TRANSFO_XL
from zoo_xlm import XLMS
from zoo_xlnet import XLNET

__all__ = ["BERT", "POOLINGS", "THOROUGH", "Case", "Family"]

Row = dict[str, Tensor]
CHOICES = 2

FAMILIES = (*ENCODERS, CONVBERT, LONGFORMER, FUNNEL, *XLMS, XLNET, TRANSFO_XL, *REFORMERS, *DECODERS, *SEQ2SEQ, *T5S)
FAMILY = {family.name: family for family in FAMILIES}
CASES = tuple(case for family in FAMILIES for case in family.cases())


def each(cases: Iterable[Case] = CASES) -> Any:
    """Parametrise a test over cases."""
    return pytest.mark.parametrize("case", list(cases), ids=str)


def plain(cases: Iterable[Case] = CASES) -> list[Case]:
    """Cases without cross-attention."""
    return [case for case in cases if not case.config.get("add_cross_attention")]


def originals() -> list[Case]:
    """Cases of families that are not another's classes under a new name."""
    return [case for case in CASES if FAMILY[case.family].rename_of is None]


# Variants that are the same lines of code in every family: losses, activations, tying, chunks, BERT's positions.
SHARED = ("regression", "multi_label", "relu", "untied", "pad_5", "chunked", "relative_key", "relative_key_query")
FIRST = {(case.kind, case.name): case.family for case in reversed(CASES)}  # the first family with such a case


def own(cases: Iterable[Case] = CASES) -> list[Case]:
    """Cases that are code of their own; all of them, if everything is asked for.

    So no renames, no variant of shared code that a family before has, and of the poolings, which all families share,
    AveragePooler's alone but for the first family.
    """

    def is_own(case: Case) -> bool:
        shared = case.name in SHARED or ("pooling" in case.name and case.name != "pooling=attention")
        return FAMILY[case.family].rename_of is None and (not shared or FIRST[case.kind, case.name] == case.family)

    return [case for case in cases if THOROUGH or is_own(case)]


def first(family: Family, kind: str = "Model", name: str = "") -> Case:
    """The case of this kind and variant."""
    return next(case for case in family.cases() if case.kind == kind and case.name == name)


def make(case: Case, *, dtype: torch.dtype = torch.float64, seed: int = 0, **changes: Any) -> Any:
    """The model of a case in eval mode; weights that float32 can hold, drawn so that outputs are of order one."""
    config = case.but(**changes).configure()
    torch.manual_seed(seed)
    model = case.model_class(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.normal_(std=1.5 * p.shape[-1] ** -0.5)
            else:
                p.normal_(mean=1.0 if "norm.weight" in name else 0.0, std=0.2)
        if isinstance(getattr(model, "lm", None), OffsetWordHead):
            model.lm.offset.normal_(std=0.2)
    return model.to(dtype).eval()


# ---- inputs ----------------------------------------------------------------------------------------------------------


def written(length: int) -> int:
    """Tokens that have been written for a source of so many, where a test does not say."""
    return 2 + length // 2


def sentences(case: Case, lengths: Iterable[int], seed: int = 1, targets: Callable[[int], int] = written) -> list[Row]:
    """One row of inputs a length, unpadded: tensors of shape (length,), of labels too. No token is the padding id.

    targets: of an encoder-decoder, how many tokens have been written for a source of so many.
    """
    generator = torch.Generator().manual_seed(seed)
    c = case.configure()

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    def words(*shape: int) -> Tensor:
        found = integers(c.vocab_size - 1, *shape)
        return found + (found >= (c.pad_token_id or 0))

    rows = []
    for length in lengths:
        row: Row = {"input_ids": words(length)}
        if case.writes:
            row["decoder_input_ids"] = words(targets(length))
        elif case.encodes:  # one EOS, at the end
            row["input_ids"][row["input_ids"] == c.eos_token_id] += 1
            row["input_ids"][-1] = c.eos_token_id
        if "token_type_ids" in case.arguments:
            row["token_type_ids"] = (torch.arange(length) > length // 2).long()
        if "langs" in case.arguments and c.n_langs > 1:
            row["langs"] = integers(c.n_langs, length)
        if "global_attention_mask" in case.arguments:
            row["global_attention_mask"] = torch.isin(torch.arange(length), torch.tensor([0, 2])).long()
        if case.choices:  # (choices, length)
            row = {name: value.repeat(CHOICES, 1) for name, value in row.items()}
            row["input_ids"] = words(CHOICES, length)
        if "labels" in case.arguments:
            row["labels"] = _labels(case, targets(length) if case.writes else length, integers, generator)
        for name in {"next_sentence_label", "sentence_order_label"} & {*case.arguments}:
            row[name] = integers(2)
        if "mc_token_ids" in case.arguments:
            row["mc_token_ids"], row["mc_labels"] = integers(length, CHOICES), integers(CHOICES)
        if "start_positions" in case.arguments:
            row["start_positions"], row["end_positions"] = integers(length), integers(length)
        if "p_mask" in case.arguments:  # no answer at one token, and none of the given ones is there
            row["p_mask"] = (torch.arange(length) == length - 1).double()
            row["start_positions"], row["end_positions"] = integers(length - 1), integers(length - 1)
            row["cls_index"], row["is_impossible"] = integers(length), integers(2).double()
        if c.add_cross_attention:
            row["encoder_hidden_states"] = torch.randn(7, c.hidden_size, generator=generator, dtype=torch.float64)
            row["encoder_attention_mask"] = (torch.arange(7) < 3 + length % 4).long()
        rows.append(row)
    return rows


def _labels(case: Case, length: int, integers: Any, generator: torch.Generator) -> Tensor:
    labels = case.config.get("num_labels", 2)
    if case.replaced:
        return integers(2, length)
    if case.kind == "ForTokenClassification":
        return integers(labels, length)
    if case.per_token:
        words = integers(case.config["vocab_size"], *([CHOICES] if case.choices else []), length)
        words[..., ::3] = -100
        return words
    if case.choices:
        return integers(CHOICES)
    if case.kind == "ForNextSentencePrediction":
        return integers(2)
    if case.config.get("problem_type") == "multi_label_classification":
        return integers(2, labels).double()
    if labels == 1:  # (1,), as the reference wants it
        return torch.randn(1, generator=generator, dtype=torch.float64)
    return integers(labels)


# inputs with one entry a token, and what they have at padding
FILL = {
    "input_ids": 0, "decoder_input_ids": 0, "token_type_ids": 0, "langs": 0, "global_attention_mask": 0,
    "labels": -100, "p_mask": 1,
}  # fmt: skip
PER_TOKEN = tuple(FILL)
WRITTEN = ("decoder_input_ids", "labels")  # of an encoder-decoder that reads what has been written


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
    longest = {name: max(_text(name, row).shape[-1] for row in rows) + extra for name in rows[0]}
    out: dict[str, list[Tensor]] = {}
    for row in rows:
        for name, value in row.items():
            length = _text(name, row).shape[-1]
            if name in PER_TOKEN and value.dim() and value.shape[-1] == length and not _whole(name, row):
                value = _pad(value, longest[name], side, FILL[name], garbage if name.endswith("input_ids") else 0)
            out.setdefault(name, []).append(value)
        for name in ("input_ids", "decoder_input_ids") if mask else ():
            if name in row:
                seen = _pad(torch.ones(row[name].shape, dtype=torch.long), longest[name], side, 0, 0)
                out.setdefault(name.replace("input_ids", "attention_mask"), []).append(seen)
        if side == "left":
            for name in ("start_positions", "end_positions", "cls_index", "mc_token_ids"):
                if name in row:
                    out[name][-1] = row[name] + longest[name] - row["input_ids"].shape[-1]
    return {name: torch.stack(values) for name, values in out.items()}


def _text(name: str, row: Row) -> Tensor:
    """The ids of the text to which an input of this name belongs."""
    return row["decoder_input_ids" if "decoder_input_ids" in row and name in WRITTEN else "input_ids"]


def _whole(name: str, row: Row) -> bool:
    """Labels of a whole sequence whose shape happens to be a token's."""
    return name == "labels" and (row["labels"].is_floating_point() or row["labels"].dim() == 0)


def _pad(value: Tensor, longest: int, side: str, fill: int, garbage: int) -> Tensor:
    shape = (*value.shape[:-1], longest - value.shape[-1])
    pad = torch.randint(0, garbage, shape) if garbage else torch.full(shape, fill, dtype=value.dtype)
    return torch.cat([value, pad] if side == "right" else [pad, value], -1)


def without_labels(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    targets = {"labels", "next_sentence_label", "sentence_order_label"}
    targets |= {"start_positions", "end_positions", "is_impossible", "mc_labels"}
    return {name: value for name, value in inputs.items() if name not in targets}


def remembering(model: Any, past: Any = None) -> dict[str, Any]:
    """Arguments that make a causal model go on from a state, or begin one, and give back the next."""
    if "cache" in inspect.signature(model.forward).parameters:
        return {"cache": State.empty(len(model.base_model.blocks())) if past is None else past}
    return {"past_key_values": past, "use_cache": True}


def forgetting(model: Any) -> dict[str, Any]:
    """Arguments that make a causal model keep nothing."""
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


def mask_of(inputs: Mapping[str, Tensor], name: str) -> Tensor:
    """The mask of the text that the output of this name is about: that of the source, or of what has been written."""
    own = "attention_mask" if name.startswith("encoder_") else "decoder_attention_mask"
    return inputs[own if own in inputs else "attention_mask"]


def known_there(case: Case, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that the reference takes too."""
    return {name: value for name, value in inputs.items() if name not in FAMILY[case.family].unasked}


def at_real_tokens(value: Tensor, mask: Tensor) -> Tensor:
    """Which numbers of an output are of real tokens, bool and of its shape; all of them if none is a token's.

    mask: the batch's. Of rows and choices either may make one axis or two.
    """
    real = mask.bool().flatten(0, -2)
    for axes in (2, 3):
        tokens = value.shape[:axes]
        if len(tokens) == axes and tokens[-1] == real.shape[1] and tokens.numel() == real.numel():
            return real.view(*tokens, *[1] * (value.dim() - axes)).expand(value.shape)
    return torch.ones_like(value, dtype=torch.bool)


def pull(outputs: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A weight for each number of these outputs, the same however a batch is padded, 0 at padding; layers' left out."""
    found = {}
    for name, value in outputs.items():
        if isinstance(value, Tensor):
            keep = at_real_tokens(value, mask_of(inputs, name))
            weights = torch.arange(value.numel(), dtype=value.dtype).cos()
            found[name] = torch.zeros_like(value).masked_scatter(keep, weights)
    return found


def objective(outputs: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> Tensor:
    """The loss; where there is none, the sum of the outputs, each number with its weight."""
    if "loss" in outputs:
        return outputs["loss"]
    return torch.stack([(outputs[name] * weights).sum() for name, weights in pull(outputs, inputs).items()]).sum()


def outputs_of_row(case: Case, outputs: Any, i: int, length: int, *, side: str, longest: int = 0) -> dict[str, Tensor]:
    """What a model said of row i, cut to its real tokens; the loss is of the batch and left out.

    Places are counted from the row's first token, for which the padded length, `longest`, is wanted.
    """
    found: dict[str, Tensor] = {}

    def cut(value: Tensor, axis: int, count: int, whole: int) -> Tensor:  # merged tokens are never padded on the left
        start = value.shape[axis] - whole if side == "left" and count == whole else 0
        return value.narrow(axis, start, count)

    def put(name: str, value: Tensor) -> None:
        whole = written(length) if case.writes and not name.startswith("encoder_") else length
        counts = FAMILY[case.family].kept(case, name, whole)
        if name in ("loss", "past_key_values") or value.dim() == 0:
            return
        if case.choices and len(value) != len(outputs["logits"]):  # rows and choices are one axis there
            value = value.unflatten(0, (-1, CHOICES))
        value, token_axis = value[i], int(case.choices)
        if name.endswith("_index") and side == "left":
            value = value - (longest - length)
        elif name.startswith(("cross_attentions", "global_attentions")):
            value = cut(value, -2, whole, whole)
            value = cut(value, -1, length, length) if case.encodes else value
        elif "attentions" in name:
            if not FAMILY[case.family].attention_tokens:  # tokens are in an order of their own
                return
            if before := FAMILY[case.family].before(case):
                found[f"{name}.before"] = cut(value[..., :before], -2, whole, whole)
                value = value[..., before:]
            for axis, count in zip(FAMILY[case.family].attention_tokens, counts, strict=False):
                value = cut(value, axis, count, whole)
        elif (
            "hidden_state" in name
            or name in ("start_logits", "end_logits")
            or (name in ("logits", "prediction_logits", "prediction_scores") and case.per_token)
        ):
            if FAMILY[case.family].fills_chunks and longest:
                value = value[:longest]
            value = cut(value, token_axis, counts[0], whole)
        found[name] = value

    for name, value in outputs.items():
        if isinstance(value, Tensor):
            put(name, value)
        elif isinstance(value, Memory):
            found |= _remembered(case, value, i)
        elif isinstance(value, tuple):
            for layer, part in enumerate(value):
                put(f"{name}.{layer}", part)
    return found


def _remembered(case: Case, memory: Memory, i: int) -> dict[str, Tensor]:
    """What is remembered of row i, the states alone."""
    rows = slice(i * CHOICES, (i + 1) * CHOICES) if case.choices else slice(i, i + 1)
    real = torch.ones(memory[0].shape[1::-1], dtype=torch.bool) if memory.real is None else memory.real
    return {f"mems.{layer}": states[rows][real[rows]] for layer, states in enumerate(memory.layers)}


def assert_same(got: Mapping[str, Tensor], want: Mapping[str, Tensor], tol: float, where: str = "") -> None:
    """Same names, same shapes, no value further off than tol + tol * |want|; `where` goes before what is wrong."""
    assert got.keys() == want.keys(), where
    for name in want:
        close = {"rtol": tol, "atol": tol, "msg": lambda m, n=name: f"{where} {n}: {m}"}
        torch.testing.assert_close(got[name], want[name], **close)
