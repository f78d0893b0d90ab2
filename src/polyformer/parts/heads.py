"""The small networks on top of an encoder or decoder."""

import torch
from torch import Tensor, nn

from polyformer.parts.feedforward import Activation
from polyformer.parts.linear import Linear


class ClassifierHead(nn.Module):
    """Dropout and one linear map: read a vector or every token, give a score a label."""

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(width, labels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., labels)."""
        return self.out(self.drop(x))


class DenseHead(nn.Module):
    """A hidden layer before the scores, with dropout before either (RoBERTa and its kin)."""

    def __init__(self, width: int, inner: int, labels: int, act: Activation, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.dense = nn.Linear(width, inner)
        self.act = act
        self.scores = nn.Linear(inner, labels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., labels)."""
        return self.scores(self.drop(self.act(self.dense(self.drop(x)))))


class Summary(nn.Module):
    """A vector made ready to be judged: dropout, a map, an activation, dropout (XLM, XLNet, ELECTRA)."""

    def __init__(self, dense: nn.Module, act: Activation, first_dropout: float, last_dropout: float) -> None:
        super().__init__()
        self.first_drop = nn.Dropout(first_dropout)
        self.dense = dense
        self.act = act
        self.last_drop = nn.Dropout(last_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., what the map makes of it)."""
        return self.last_drop(self.act(self.dense(self.first_drop(x))))


class SummaryHead(nn.Module):
    """Scores of the vector that sums a sequence up."""

    def __init__(self, summary: Summary, width: int, labels: int) -> None:
        super().__init__()
        self.summary = summary
        self.out = nn.Linear(width, labels)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, width) -> (rows, labels)."""
        return self.out(self.summary(x))


class WordHead(nn.Module):
    """Scores of all words for every token: the (mostly tied) embedding matrix and, maybe, a bias, nothing before it."""

    def __init__(self, width: int, words: int, bias: bool = True) -> None:
        super().__init__()
        self.decoder = Linear(width, words, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., words)."""
        return self.decoder(x)


class ScaledWordHead(WordHead):
    """The same, read off the states divided by the square root of their width, where vectors of words are of order one.

    mesh-tensorflow transformer.py, shared_embedding_and_softmax_weights.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., words)."""
        return self.decoder(x * self.decoder.in_features**-0.5)


class OffsetWordHead(WordHead):
    """The same, and numbers that are added to the scores: never trained, and mostly zero (BART's final_logits_bias)."""

    offset: Tensor

    def __init__(self, width: int, words: int) -> None:
        super().__init__(width, words, bias=False)
        self.register_buffer("offset", torch.zeros(1, words))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.offset)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., words)."""
        scores = self.decoder(x)
        return scores + self.offset if torch.is_grad_enabled() else scores.add_(self.offset)

    def resize(self, words: int) -> None:
        """Cut the numbers to so many words, or add zeros."""
        kept = self.offset[:, :words]
        self.offset = torch.cat([kept, kept.new_zeros(1, words - kept.shape[1])], 1)


class AdaptiveWordHead(nn.Module):
    """Log-probabilities of all words, of which rare ones are told apart by narrow clusters.

    Grave et al. 2017, arXiv 1609.04309. Words are numbered by how frequent they are; the first cutoffs[0] are scored
    beside the clusters, cluster i holds the words up to cutoffs[i] and is width / shrink^i wide.
    """

    def __init__(self, width: int, words: int, cutoffs: list[int], shrink: float) -> None:
        super().__init__()
        self.clusters = nn.AdaptiveLogSoftmaxWithLoss(width, words, cutoffs, shrink, head_bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., words)."""
        return self.clusters.log_prob(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


class LMHead(nn.Module):
    """Scores of all words for every token: dense, activation, norm, then the (mostly tied) embedding matrix and a bias.

    Devlin et al. 2018, appendix A.2; google-research/bert run_pretraining.py, get_masked_lm_output.

    Args:
        width: of the states. words: how many.
        norm: of what comes out of the dense layer.
        inner: width of the embeddings, where it is not that of the states.
    """

    def __init__(self, width: int, words: int, act: Activation, norm: nn.Module, inner: int | None = None) -> None:
        super().__init__()
        self.dense = nn.Linear(width, inner or width)
        self.act = act
        self.norm = norm
        self.decoder = Linear(inner or width, words)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., words)."""
        return self.decoder(self.norm(self.act(self.dense(x))))
