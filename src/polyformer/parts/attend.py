"""The one place where an attention kernel is chosen.

Every attention with a score matrix is  softmax(q k' * scale + bias, where the mask allows) v  (Vaswani et al. 2017,
section 3.2.1). The wrapper here decides three things once for all architectures: which kernel runs, whether dropout
applies, and what a query that may see nothing gets (zeros).
"""

from collections.abc import Callable, Sequence
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.parts.layout import Packing

# An additive bias, or the position scheme that computes it from queries and keys: (q, k) -> (..., heads, Q, K).
Bias = Tensor | Callable[[Tensor, Tensor], Tensor]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Bias | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: nn.Dropout | None = None,
    head_mask: Tensor | None = None,
    weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of a padded batch.

    Args:
        q: queries (batch, heads, Q, dim).
        k, v: keys and values (batch, heads, K, dim).
        bias: float, broadcastable to (batch, heads, Q, K), added to the scaled scores; or a function of q and k.
        mask: bool, broadcastable likewise; True = may attend.
        causal: query i sees keys up to i only; for Q = K and no mask (a mask has it built in).
        scale: factor of the scores, 1 / sqrt(dim) by default.
        dropout: of the attention weights; applies only where the module is in training.
        head_mask: factor of the weights of each head, broadcastable to (batch, heads, Q, K).
        weights: also give the weights back (batch, heads, Q, K), as used, after dropout and head mask.

    Returns:
        (batch, heads, Q, dim), with zeros for a query that may see nothing, and the weights or None.
    """
    if callable(bias):
        bias = bias(q, k)
    rate = dropout.p if dropout is not None and dropout.training else 0.0
    if weights or head_mask is not None:
        return _explicit(q, k, v, bias, _with_causal(mask, q, k) if causal else mask, scale, rate, head_mask)
    if bias is not None:  # the kernel takes one of the two: fold the mask into the bias
        mask = _with_causal(mask, q, k) if causal else mask
        mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
        causal = False
    return F.scaled_dot_product_attention(q, k, v, mask, rate, is_causal=causal, scale=scale), None


def attend_packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    packing: Packing,
    *,
    bias: Callable[[Tensor, Tensor], Tensor] | Sequence[Bias] | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: nn.Dropout | None = None,
) -> Tensor:
    """Self-attention of packed sequences: one kernel call for all sequences of a length, none sees a pad.

    Args:
        q, k, v: (tokens, heads, dim), sequence after sequence as `packing` orders them.
        bias: position scheme, called with the (batch, heads, length, dim) queries and keys of one length; or a bias for
            each length that occurs.

    Returns:
        (tokens, heads, dim).
    """
    mixed = []
    of_groups = bias if isinstance(bias, Sequence) else repeat(bias)
    for (start, count, length), own in zip(packing.groups, of_groups, strict=False):
        # (count * length, heads, dim) -> (count, heads, length, dim), a view
        alike = (t[start : start + count * length].unflatten(0, (count, length)).transpose(1, 2) for t in (q, k, v))
        y, _ = attend(*alike, bias=own, causal=causal, scale=scale, dropout=dropout)
        mixed.append(y.transpose(1, 2).flatten(0, 1))
    if not mixed:  # nothing but padding
        return v
    return torch.cat(mixed) if len(mixed) != 1 else mixed[0]


def _with_causal(mask: Tensor | None, q: Tensor, k: Tensor) -> Tensor:
    earlier = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril(k.shape[-2] - q.shape[-2])
    return earlier if mask is None else mask & earlier


def _explicit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    scale: float | None,
    rate: float,
    head_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The definition, step by step: the only path that has the weights in its hands. Sums are of single precision at
    least, as they are in the kernels."""
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q.to(wide) * (scale if scale is not None else q.shape[-1] ** -0.5)) @ k.to(wide).mT
    if bias is not None:
        scores = scores + bias
    if mask is not None:  # a finite fill, so that a row with nothing to see has no NaN, forward or backward
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    p = scores.softmax(-1).to(v.dtype)
    if mask is not None:
        p = p.masked_fill(~mask, 0.0)
    p = F.dropout(p, rate, training=rate > 0)
    if head_mask is not None:
        p = p * head_mask
    return p @ v, p
