"""Position schemes: modules that turn queries and keys into a bias of the scores."""

import torch
from torch import Tensor, nn


class RelativeKey(nn.Module):
    """A learnt vector for every distance, read by the query: bias = q . e[i - j]  (Shaw et al. 2018, arXiv 1803.02155).

    Args:
        reach: largest number of positions; distances lie in (-reach, reach).
        dim: width of a head.
    """

    def __init__(self, reach: int, dim: int) -> None:
        super().__init__()
        self.reach, self.scale = reach, dim**-0.5
        self.distances = nn.Embedding(2 * reach - 1, dim)

    def between(self, queries: int, keys: int) -> Tensor:
        """The vectors of all distances i - j, (queries, keys, dim); the last query stands at the last key."""
        device = self.distances.weight.device
        i = torch.arange(keys - queries, keys, device=device)[:, None]
        j = torch.arange(keys, device=device)
        return self.distances(i - j + self.reach - 1)

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """q (batch, heads, Q, dim), k (batch, heads, K, dim) -> bias (batch, heads, Q, K)."""
        e = self.between(q.shape[2], k.shape[2])
        return torch.einsum("bhqd,qkd->bhqk", q, e) * self.scale


class RelativeKeyQuery(RelativeKey):
    """Read by query and key: bias = q . e[i - j] + k . e[i - j]  (Huang et al. 2020, arXiv 2009.13658, method 4)."""

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        e = self.between(q.shape[2], k.shape[2])
        bias = torch.einsum("bhqd,qkd->bhqk", q, e) + torch.einsum("bhkd,qkd->bhqk", k, e)
        return bias * self.scale
