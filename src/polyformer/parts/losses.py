"""The losses of the task heads. Padding takes no part in any of them, and a label out of range says so.

IGNORE marks a token, span or row without a label, as everywhere in the field.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from polyformer.parts.layout import tracing

IGNORE = -100


def cross_entropy(logits: Tensor, labels: Tensor, what: str = "labels") -> Tensor:
    """Mean cross entropy over the labels that are not IGNORE; logits (..., classes), labels (...) int64 -> ()."""
    classes = logits.shape[-1]
    if logits.shape[:-1].numel() != labels.numel():
        raise ValueError(f"{what} have shape {tuple(labels.shape)}, but {tuple(logits.shape[:-1])} was expected.")
    _check_range(labels, classes, what)
    return F.cross_entropy(logits.reshape(-1, classes), labels.reshape(-1), ignore_index=IGNORE)


def token_loss(logits: Tensor, labels: Tensor, real: Tensor | None) -> Tensor:
    """Cross entropy over the real tokens; logits (rows, length, classes), labels and real (rows, length) -> ()."""
    return cross_entropy(logits, labels if real is None else labels.masked_fill(~real, IGNORE))


def next_token_loss(logits: Tensor, labels: Tensor, real: Tensor | None) -> Tensor:
    """Every token predicts the one after it; logits (rows, length, words), labels (rows, length), unshifted -> ().

    Padding predicts nothing, not even the first real token after it.
    """
    words = labels[:, 1:]
    if real is not None:
        words = words.masked_fill(~(real[:, :-1] & real[:, 1:]), IGNORE)
    return cross_entropy(logits[:, :-1], words)


def replaced_loss(logits: Tensor, labels: Tensor, real: Tensor | None) -> Tensor:
    """Mean binary cross entropy over the real tokens that have a label; logits, labels, real (rows, length) -> ()."""
    _check_range(labels, 2, "labels")
    counts = labels != IGNORE if real is None else real & (labels != IGNORE)
    each = F.binary_cross_entropy_with_logits(logits, labels.masked_fill(~counts, 0).to(logits.dtype), reduction="none")
    return each.masked_fill(~counts, 0.0).sum() / counts.sum()


def span_loss(start_logits: Tensor, end_logits: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Mean of the start's and the end's cross entropy.

    logits (rows, length), at their lowest outside of what may be answered; starts and ends (rows,) or (rows, 1). A
    position at or past the length (an answer that was cut off) is left out.
    """
    length = start_logits.shape[1]
    losses = []
    for logits, wanted in ((start_logits, starts), (end_logits, ends)):
        labels = wanted.squeeze(-1) if wanted.dim() > 1 else wanted
        _check_range(labels.clamp(max=0), length, "start_positions and end_positions")
        losses.append(F.cross_entropy(logits, labels.masked_fill(labels >= length, IGNORE), ignore_index=IGNORE))
    return (losses[0] + losses[1]) / 2


def sequence_loss(logits: Tensor, labels: Tensor, problem: str | None) -> Tensor:
    """The loss of a sequence classifier; logits (rows, labels) -> ().

    Args:
        problem: 'regression' (mean squared error; labels like the logits, or (rows,) for one), or
            'single_label_classification' (labels (rows,) int64), or 'multi_label_classification' (labels like the
            logits, 0 or 1). None: one output is a regression, integer labels are single ones, others are multiple.
    """
    problem = problem or _problem(logits.shape[-1], labels)
    if problem == "single_label_classification":
        return cross_entropy(logits, labels)
    if logits.numel() != labels.numel():
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, but a {problem.replace('_', ' ')} with "
            f"{logits.shape[-1]} outputs wants {tuple(logits.shape)}."
        )
    labels = labels.reshape(logits.shape).to(logits.dtype)
    if problem == "regression":
        return F.mse_loss(logits, labels)
    if problem == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, labels)
    raise ValueError(
        f"config.problem_type is {problem!r}; it is one of 'regression', 'single_label_classification' and "
        f"'multi_label_classification'."
    )


def retrieval_loss(questions: Tensor, passages: Tensor, positives: Tensor) -> Tensor:
    """Every question picks its passage out of the batch's, by inner product (Karpukhin et al. 2020, section 3.2).

    questions (questions, width), passages (passages, width), positives (questions,) int64, which passage answers each
    -> (). All other passages are negatives: those that answer other questions (in-batch negatives), and what else there
    is, hard negatives mined for any of the questions.
    """
    if questions.dim() != 2 or passages.dim() != 2 or questions.shape[1] != passages.shape[1]:
        raise ValueError(
            f"questions have shape {tuple(questions.shape)} and passages {tuple(passages.shape)}: a vector of the same "
            "width for each is wanted."
        )
    return cross_entropy(questions @ passages.transpose(0, 1), positives, "positives")


def _problem(outputs: int, labels: Tensor) -> str:
    if outputs == 1:
        return "regression"
    if labels.dtype in (torch.long, torch.int):
        return "single_label_classification"
    return "multi_label_classification"


def _check_range(labels: Tensor, classes: int, what: str) -> None:
    """One clear sentence; for labels on the CPU only, since elsewhere a look at them would make the device wait."""
    if tracing() or labels.device.type != "cpu" or not labels.numel():
        return
    wrong = labels[(labels != IGNORE) & ((labels < 0) | (labels >= classes))]
    if wrong.numel():
        raise ValueError(
            f"{what} contain {int(wrong[0])}, but only 0 to {classes - 1} (or {IGNORE} for none) mean something here: "
            f"check num_labels and how labels are numbered."
        )
