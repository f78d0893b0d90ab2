"""From the states of all tokens to one vector a sequence: eight ways, and padding never changes one of them.

Every pooling is a module called with

    states  (rows, length, width)  of the last layer
    real    (rows, length) bool    which tokens are no padding; None = all
    layers  states of the embeddings and every layer, for the poolings whose `needs_layers` is set; else unused

and gives (rows, `out_width`). A row without any real token gives what its formula gives for nothing: zeros, mostly.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from polyformer.parts.attend import attend


def token_at(states: Tensor, places: Tensor) -> Tensor:
    """One token of each row, (rows, width); places (rows,) int64."""
    return states.gather(1, places[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)


def first_token(states: Tensor, real: Tensor | None) -> Tensor:
    """The first real token of each row, (rows, width)."""
    if real is None:
        return states[:, 0]
    return token_at(states, real.int().argmax(1))


def last_token(states: Tensor, real: Tensor | None) -> Tensor:
    """The last real token of each row, (rows, width)."""
    if real is None:
        return states[:, -1]
    return token_at(states, real.shape[1] - 1 - real.flip(1).int().argmax(1))


def masked_sum(states: Tensor, real: Tensor | None) -> Tensor:
    """Sum over the real tokens, (rows, width)."""
    return states.sum(1) if real is None else states.masked_fill(~real[:, :, None], 0.0).sum(1)


def token_counts(states: Tensor, real: Tensor | None) -> Tensor:
    """How many tokens are real, at least 1, (rows, 1) in the states' type."""
    if real is None:
        return states.new_full((1, 1), states.shape[1])
    return real.sum(1, keepdim=True).clamp(min=1).to(states.dtype)


def masked_mean(states: Tensor, real: Tensor | None) -> Tensor:
    """Mean over the real tokens, (rows, width)."""
    return masked_sum(states, real) / token_counts(states, real)


# One vector a sequence by config.summary_type. Without a place of its own, "cls_index" is the last token.
SUMMARIES: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "first": first_token,
    "last": last_token,
    "mean": masked_mean,
    "cls_index": last_token,
}


class Pooling(nn.Module):
    """What all poolings share. Built from the width of the states and the number of layers."""

    needs_layers = False

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.out_width = width

    def forward(self, states: Tensor, real: Tensor | None = None, layers: Sequence[Tensor] | None = None) -> Tensor:
        raise NotImplementedError


class ClsPooler(Pooling):
    """tanh of a linear map of the first token (Devlin et al. 2018): what BERT was pretrained with."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__(width, layers)
        self.dense = nn.Linear(width, width)

    def forward(self, states: Tensor, real: Tensor | None = None, layers: Sequence[Tensor] | None = None) -> Tensor:
        return torch.tanh(self.dense(first_token(states, real)))


class AveragePooler(Pooling):
    """Attention with one query, a linear map of the sum of all real states; its keys and values are those states.

    softmax(W s . h_i / sqrt(width)) over the real tokens i, with s the sum of the h_i; the weighted mean of the h_i.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__(width, layers)
        self.query = nn.Linear(width, width)

    def forward(self, states: Tensor, real: Tensor | None = None, layers: Sequence[Tensor] | None = None) -> Tensor:
        query = self.query(masked_sum(states, real))
        mask = None if real is None else real[:, None, None]
        # (rows, width) -> (rows, 1 head, 1 query, width)
        mixed, _ = attend(query[:, None, None], states[:, None], states[:, None], mask=mask)
        return mixed[:, 0, 0]


class MeanPooling(Pooling):
    """The mean of the real tokens."""

    def forward(self, states: Tensor, real: Tensor | None = None, layers: Sequence[Tensor] | None = None) -> Tensor:
        return masked_mean(states, real)


class MeanSqrtPooling(Pooling):
    """The sum of the real tokens over the square root of their number."""

    def forward(self, states: Tensor, real: Tensor | None = None, layers: Sequence[Tensor] | None = None) -> Tensor:
        return masked_sum(states, real) / token_counts(states, real).sqrt()


class MaxPooling(Pooling):
    """The largest value of each feature over the real tokens."""

    def forward(self, states: Tensor, real: Tensor | None = None, layers: Sequence[Tensor] | None = None) -> Tensor:
        if real is None:
            return states.amax(1)
        highest = states.masked_fill(~real[:, :, None], float("-inf")).amax(1)
        return highest.masked_fill(~real.any(1, keepdim=True), 0.0)


class LastTokenPooling(Pooling):
    """The last real token, as decoders are read."""

    def forward(self, states: Tensor, real: Tensor | None = None, layers: Sequence[Tensor] | None = None) -> Tensor:
        return last_token(states, real)


class LayersPooling(Pooling):
    """Reads all layers, which may differ in length."""

    needs_layers = True

    def forward(self, states: Tensor, real: Tensor | None = None, layers: Sequence[Tensor] | None = None) -> Tensor:
        assert layers is not None
        return self.mix(layers, [real] * len(layers))

    def mix(self, layers: Sequence[Tensor], real: Sequence[Tensor | None]) -> Tensor:
        """States of each layer and which of them are of real tokens."""
        raise NotImplementedError


class Last4ClsPooling(LayersPooling):
    """The first token of the last four layers side by side, last layer last: four times as wide."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__(width, layers)
        if layers < 3:  # the embeddings count as a layer
            raise ValueError(f"pooling 'last4_cls' reads four layers, embeddings included; here are {layers + 1}.")
        self.out_width = 4 * width

    def mix(self, layers: Sequence[Tensor], real: Sequence[Tensor | None]) -> Tensor:
        return torch.cat([first_token(x, own) for x, own in zip(layers[-4:], real[-4:], strict=True)], -1)


class WeightedLayersPooling(LayersPooling):
    """The mean over the real tokens of a learnt mixture of all layers, embeddings included.

    The mixture is a softmax over one scalar a layer, equal at the start (Peters et al. 2018, arXiv 1802.05365, eq. 1).
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__(width, layers)
        self.layer_weights = nn.Parameter(torch.zeros(layers + 1))

    def mix(self, layers: Sequence[Tensor], real: Sequence[Tensor | None]) -> Tensor:
        shares = self.layer_weights.softmax(0)
        # (layers + 1, rows, width)
        means = torch.stack([masked_mean(x, own) for x, own in zip(layers, real, strict=True)])
        return torch.einsum("l,lrw->rw", shares, means)


POOLINGS: dict[str, type[Pooling]] = {
    "cls": ClsPooler,
    "attention": AveragePooler,
    "mean": MeanPooling,
    "max": MaxPooling,
    "mean_sqrt": MeanSqrtPooling,
    "last": LastTokenPooling,
    "last4_cls": Last4ClsPooling,
    "weighted_layers": WeightedLayersPooling,
}


def pooling(name: str, width: int, layers: int) -> Pooling:
    """The pooling that `config.pooling` names."""
    if name not in POOLINGS:
        raise ValueError(f"no pooling is called {name!r}; there are {', '.join(POOLINGS)}.")
    return POOLINGS[name](width, layers)
