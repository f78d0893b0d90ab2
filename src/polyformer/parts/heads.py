"""The small networks on top of an encoder or decoder."""

from torch import Tensor, nn

from polyformer.parts.feedforward import Activation


class ClassifierHead(nn.Module):
    """Dropout and one linear map: read a vector or every token, give a score a label."""

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(width, labels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., labels)."""
        return self.out(self.drop(x))


class LMHead(nn.Module):
    """Scores of all words for every token: dense, activation, norm, then the (mostly tied) embedding matrix and a bias.

    Devlin et al. 2018, appendix A.2; google-research/bert run_pretraining.py, get_masked_lm_output.
    """

    def __init__(self, width: int, words: int, act: Activation, norm: nn.Module) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.act = act
        self.norm = norm
        self.decoder = nn.Linear(width, words)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., words)."""
        return self.decoder(self.norm(self.act(self.dense(x))))
