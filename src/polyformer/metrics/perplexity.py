"""How well a language model foresees a text: exp of the mean negative log-probability of its tokens.

A model with positions reads a long text in windows that overlap, each token being scored once, with as much before it
as its window has (stride 3, window 5; tokens in brackets are read again, not scored):

    0 1 2 3 4
        (2 3 4) 5 6 7  ->  window 2: (3 4) 5 6 7
                              window 3:  (6 7) 8 9

One with long memory (Transformer-XL, XLNet) reads segment after segment, the earlier ones remembered.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyformer.generation.decoder import arguments


@dataclass(frozen=True)
class Perplexity:
    """nll: summed negative log-probability, in nats. tokens: how many were scored, all but the first."""

    nll: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats a token."""
        return self.nll / self.tokens

    @property
    def perplexity(self) -> float:
        return math.exp(self.mean)

    def per(self, units: int) -> float:
        """The perplexity a unit of another kind: of so many words, say, to compare vocabularies; bits: see `mean`."""
        return math.exp(self.nll / units)

    def __float__(self) -> float:
        return self.perplexity


def perplexity(
    model: Any,
    text: str | Sequence[int] | Tensor,
    tokenizer: Any = None,
    *,
    window: int | None = None,
    stride: int | None = None,
) -> Perplexity:
    """The perplexity of a text under a causal language model.

    Args:
        model: with a language model head; a token sees those before it only. XLNet is read from left to right.
        text: a text, with its tokenizer, or token ids (length,).
        window: tokens read at a time; by default as many as the model knows positions, or 512. For a model with memory
            the length of a segment.
        stride: how far a window moves, so that all tokens but the first window's have window - stride before them; by
            default half a window. 1 gives every token all that the model can read, at the price of a pass a token.

    Raises:
        ValueError: fewer than two tokens, a window or stride that cannot be. TypeError: a text without a tokenizer.
    """
    ids = _ids(text, tokenizer).to(model.device)
    known = getattr(model.config, "max_position_embeddings", None)
    window = window or min(known or 512, 2**20)
    memory = "mems" in arguments(model)
    if len(ids) < 2:
        raise ValueError(f"a text of {len(ids)} tokens has none to foresee: give at least 2.")
    if window < 2 or (known is not None and window > known):
        raise ValueError(f"window is {window}; this model reads 2 to {known or 'any number of'} tokens at a time.")
    if memory and stride is not None:
        raise ValueError("a model with memory reads segments one after another: leave stride out.")
    stride = max(1, window // 2) if stride is None else stride
    if not 1 <= stride < window:
        raise ValueError(f"stride is {stride}: a window of {window} moves by 1 to {window - 1} tokens.")
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            parts = _by_segments(model, ids, window) if memory else _by_windows(model, ids, window, stride)
            nll = sum(float(-part.double().sum()) for part in parts)
    finally:
        model.train(was_training)
    return Perplexity(nll, len(ids) - 1)


def _ids(text: str | Sequence[int] | Tensor, tokenizer: Any) -> Tensor:
    if isinstance(text, str):
        if tokenizer is None:
            raise TypeError("a text needs the model's tokenizer: perplexity(model, text, tokenizer).")
        text = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    ids = torch.as_tensor(text)
    if ids.dim() != 1 or ids.is_floating_point():
        raise ValueError(f"token ids have shape {tuple(ids.shape)}, but (length,) was expected: one text at a time.")
    return ids


def _by_windows(model: Any, ids: Tensor, window: int, stride: int) -> Iterator[Tensor]:
    """Log-probabilities of all tokens but the first, in order, some at a time."""
    done = 1  # the tokens scored, the first one being given
    while done < len(ids):
        end = min(len(ids), window if done == 1 else done + stride)
        begin = max(0, end - window)
        states = model.base_model(ids[None, begin:end], return_dict=True)[0][0, done - begin - 1 : -1]
        yield _scored(model, states, ids[done:end])
        done = end


def _by_segments(model: Any, ids: Tensor, size: int) -> Iterator[Tensor]:
    """The same with memory: XLNet's second stream tells each word itself, others' states the word after."""
    mems, two_streams = None, "perm_mask" in arguments(model)
    for begin in range(0, len(ids), size):
        segment = ids[begin : begin + size]
        options: dict[str, Any] = {"mems": mems, "return_dict": True}
        if two_streams:
            later = torch.ones(len(segment), len(segment), device=ids.device, dtype=model.dtype)
            options |= {"perm_mask": later.triu()[None], "target_mapping": torch.eye(len(later)).to(later)[None]}
            options["use_mems"] = True
        outputs = model.base_model(segment[None], **options)
        mems, states = outputs.mems, outputs[0][0]
        words = segment if two_streams else ids[begin + 1 : begin + size + 1]
        first = 1 if two_streams and begin == 0 else 0  # of the whole text, which no other model foresees
        yield _scored(model, states[first : len(words)], words[first:])


def _scored(model: Any, states: Tensor, words: Tensor) -> Tensor:
    """Log-probability of each word after its state; states (words, width) -> (words,)."""
    if hasattr(model.lm, "losses"):  # an adaptive softmax needs not score all words
        return -model.lm.losses(states, words)
    logits = model.lm(states)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1).gather(-1, words[:, None])[:, 0]
