"""What each word of a text contributed to its score."""

from collections.abc import Sequence

import torch
from torch import Tensor


def compute_transition_scores(
    sequences: Tensor, scores: Sequence[Tensor], beam_indices: Tensor | None = None, normalize_logits: bool = False
) -> Tensor:
    """The score of every new token, given the ones before.

    Args:
        sequences, scores, beam_indices: as `generate` gave them, with output_scores.
        normalize_logits: make the scores log-probabilities first; those of beams are sums of such already.

    Returns:
        (texts, new tokens), of beams 0 after the end.

    Raises:
        ValueError: scores of beams without beam_indices, or to be normalised.
    """
    new = sequences[:, sequences.shape[1] - len(scores) :] if beam_indices is None else None
    if new is not None:
        if len(scores[0]) != len(sequences):
            raise ValueError(f"{len(sequences)} texts cannot be seen in {len(scores[0])} rows: give beam_indices too.")
        each = [(s.log_softmax(-1) if normalize_logits else s) for s in scores]
        return torch.stack([s.gather(1, t[:, None])[:, 0] for s, t in zip(each, new.unbind(1), strict=True)], 1)
    if normalize_logits:
        raise ValueError("the scores of beams are sums of log-probabilities: leave normalize_logits out.")
    assert beam_indices is not None
    steps = beam_indices.shape[1]
    new = sequences[:, sequences.shape[1] - steps :]
    sums = [
        s[row.clamp(min=0), token].masked_fill(row < 0, 0)
        for s, row, token in zip(scores[:steps], beam_indices.unbind(1), new.unbind(1), strict=True)
    ]
    found = torch.stack(sums, 1)
    before = torch.cat([torch.zeros_like(found[:, :1]), found[:, :-1]], 1)
    return (found - before).masked_fill(beam_indices < 0, 0)
