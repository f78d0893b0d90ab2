"""Word vectors and word probabilities by clusters: the rarer a word, the narrower its vector may be.

Grave et al. 2017, arXiv 1609.04309 (softmax); Baevski and Auli 2019, arXiv 1809.10853 (embeddings). Words are numbered
by how frequent they are: cluster 0 has those below the first cutoff, cluster i those from cutoff i - 1 up to the next.
A rare word's probability is its cluster's, which is told apart beside the frequent words, times its own within that.
"""

from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.parts.layout import tracing
from polyformer.parts.losses import IGNORE, _check_range


class Projection(nn.Module):
    """One matrix between a model's states and word vectors, read both ways, so that the two ways can be tied.

    weight: (width, narrow).
    """

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, narrow))

    def widen(self, x: Tensor) -> Tensor:
        """(..., narrow) -> (..., width)."""
        return F.linear(x, self.weight)

    def narrow(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., narrow)."""
        return x @ self.weight


def spans(words: int, cutoffs: list[int]) -> list[tuple[int, int]]:
    """The first word of each cluster and the one after its last."""
    return list(pairwise([0, *cutoffs, words]))


def narrowing(words: int, inner: int, cutoffs: list[int], shrink: int) -> list[tuple[int, int]]:
    """How many words each cluster has, and how wide its vectors are: inner / shrink^i."""
    return [(end - begin, inner // shrink**i) for i, (begin, end) in enumerate(spans(words, cutoffs))]


# ---- embeddings ------------------------------------------------------------------------------------------------------


class WordVectors(nn.Module):
    """Tables of so many words and so wide vectors, one after another, and projections to the model's width."""

    def __init__(self, width: int, tables: list[tuple[int, int]], projections: list[int]) -> None:
        super().__init__()
        self.tables: Any = nn.ModuleList(nn.Embedding(words, narrow) for words, narrow in tables)
        self.projections: Any = nn.ModuleList(Projection(width, narrow) for narrow in projections)
        self.embedding_dim = width

    @property
    def sizes(self) -> list[int]:
        """Words of each table."""
        return [table.num_embeddings for table in self.tables]

    @property
    def num_embeddings(self) -> int:
        return sum(self.sizes)


class PlainEmbedding(WordVectors):
    """One table for all words, `inner` wide, projected if the model is not as wide; times sqrt(width)."""

    def __init__(self, width: int, words: int, inner: int) -> None:
        super().__init__(width, [(words, inner)], [] if inner == width else [inner])

    def forward(self, ids: Tensor) -> Tensor:
        """(...) int64 -> (..., width)."""
        x = self.tables[0](ids)
        for projection in self.projections:
            x = projection.widen(x)
        return x * self.embedding_dim**0.5


class AdaptiveEmbedding(WordVectors):
    """A table a cluster, cluster i's vectors inner / shrink^i wide and projected to the width; times sqrt(width)."""

    def __init__(self, width: int, words: int, inner: int, cutoffs: list[int], shrink: int) -> None:
        tables = narrowing(words, inner, cutoffs, shrink)
        super().__init__(width, tables, [narrow for _, narrow in tables])

    def forward(self, ids: Tensor) -> Tensor:
        """(...) int64 -> (..., width)."""
        begins = [0, *accumulate(self.sizes)]
        x = torch.zeros((), dtype=self.tables[0].weight.dtype, device=ids.device)
        for table, projection, begin, size in zip(self.tables, self.projections, begins, self.sizes, strict=False):
            vectors = projection.widen(table((ids - begin).clamp(0, size - 1)))
            x = torch.where((ids >= begin)[..., None], vectors, x)
        return x * self.embedding_dim**0.5


# ---- softmax ---------------------------------------------------------------------------------------------------------


class Clusters(nn.Module):
    """How likely a word of each rare cluster is, told apart beside the frequent words: a row and a bias a cluster."""

    def __init__(self, clusters: int, inner: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(clusters, inner))
        self.bias = nn.Parameter(torch.zeros(clusters))


class ClusteredSoftmax(nn.Module):
    """Linear maps of so many words and so wide vectors, and projections of states to these."""

    reads_weights = ("layers",)

    def __init__(self, width: int, cutoffs: list[int], layers: list[tuple[int, int]], projections: list[int]) -> None:
        super().__init__()
        self.cutoffs = list(cutoffs)
        self.layers: Any = nn.ModuleList(nn.Linear(narrow, words) for words, narrow in layers)
        self.projections: Any = nn.ModuleList(Projection(width, narrow) for narrow in projections)
        self.clusters = Clusters(len(cutoffs), layers[0][1]) if cutoffs else None

    @property
    def words(self) -> int:
        return sum(layer.out_features for layer in self.layers)

    def rows(self, i: int) -> tuple[Tensor, Tensor]:
        """Weight (words of cluster i, its width) and bias (words,)."""
        raise NotImplementedError

    def inside(self, x: Tensor, i: int) -> Tensor:
        """Log-probabilities within cluster i, of cluster 0 with the rare clusters' after the words'."""
        weight, bias = self.rows(i)
        if i == 0 and self.clusters is not None:
            weight, bias = torch.cat([weight, self.clusters.weight]), torch.cat([bias, self.clusters.bias])
        narrow = self.projections[i].narrow(x) if len(self.projections) else x
        return F.linear(narrow, weight, bias).log_softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities of all words; (..., width) -> (..., words)."""
        first, *rare = self.inside(x, 0).split([spans(self.words, self.cutoffs)[0][1], *[1] * len(self.cutoffs)], -1)
        return torch.cat([first, *(own + self.inside(x, i) for i, own in enumerate(rare, 1))], -1)

    def losses(self, x: Tensor, words: Tensor) -> Tensor:
        """Minus the log-probability of each word, of which only its own cluster is worked out.

        Args:
            x: (tokens, width).
            words: (tokens,) int64; IGNORE = none.

        Returns:
            (tokens,), in the order of their clusters and within one in their own; then zeros where there is no word.
        """
        _check_range(words, self.words, "labels")
        bounds = torch.tensor(self.cutoffs, device=words.device, dtype=words.dtype)
        cluster = torch.bucketize(words, bounds, right=True).masked_fill(words == IGNORE, len(self.cutoffs) + 1)
        order = cluster.argsort(stable=True)
        x, words, cluster = x[order], words[order], cluster[order]
        if tracing():
            found = self(x).gather(1, words.clamp(min=0)[:, None])[:, 0]
            return -found.masked_fill(words == IGNORE, 0.0)
        counts = cluster.bincount(minlength=len(self.cutoffs) + 2).tolist()
        return torch.cat([*self._by_cluster(x, words, counts[:-1]), x.new_zeros(counts[-1])])

    def _by_cluster(self, x: Tensor, words: Tensor, counts: list[int]) -> list[Tensor]:
        total = sum(counts)
        first = self.inside(x[:total], 0)
        found, done = [], 0
        for i, ((begin, _), count) in enumerate(zip(spans(self.words, self.cutoffs), counts, strict=True)):
            part = slice(done, done + count)
            inside = first[part] if i == 0 else self.inside(x[part], i)
            own = inside.gather(1, (words[part] - begin)[:, None])[:, 0]
            found.append(-(own if i == 0 else first[part, i - 1 - len(self.cutoffs)] + own))
            done += count
        return found


class PlainSoftmax(ClusteredSoftmax):
    """Clusters of words whose vectors are all `inner` wide: rows of one matrix.

    Args:
        width: of the states; projected, for every cluster in its own way, where `inner` is another.
        cutoffs: none = all words are told apart at once.
    """

    def __init__(self, width: int, words: int, inner: int, cutoffs: list[int]) -> None:
        super().__init__(width, cutoffs, [(words, inner)], [] if inner == width else [inner] * (len(cutoffs) + 1))

    def rows(self, i: int) -> tuple[Tensor, Tensor]:
        begin, end = spans(self.words, self.cutoffs)[i]
        return self.layers[0].weight[begin:end], self.layers[0].bias[begin:end]


class AdaptiveSoftmax(ClusteredSoftmax):
    """Cluster i's vectors are inner / shrink^i wide, a matrix each, and states are projected to that."""

    def __init__(self, width: int, words: int, inner: int, cutoffs: list[int], shrink: int) -> None:
        layers = narrowing(words, inner, cutoffs, shrink)
        super().__init__(width, cutoffs, layers, [narrow for _, narrow in layers])

    def rows(self, i: int) -> tuple[Tensor, Tensor]:
        return self.layers[i].weight, self.layers[i].bias
