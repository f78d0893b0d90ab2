"""What comes after the transformer in a sentence encoder: the modules of sentence-transformers that make one vector.

Each is called with vectors (rows, width) and gives (rows, other width), but for the first, `TokenPooling`, which reads
the states of all tokens. Sequences are padded on the right. All is computed in float32.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyformer.core.errors import CheckpointError

# Their names for a way to pool: the flag of older files, the word of newer ones. In the order in which several are
# put side by side.
MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

# Activations of a Dense module by the name of torch's class; a name in a file never imports anything.
ACTIVATIONS = {
    kind.__name__: kind
    for kind in (
        nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.ELU, nn.SELU, nn.Softplus, nn.Softsign,
        nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.Mish,
    )
}  # fmt: skip


class TokenPooling(nn.Module):
    """From the states of all tokens to one vector a row; several ways give their vectors side by side.

    modes: words of MODES. "cls" is the plain first token, "lasttoken" the last, "weightedmean" weighs token i with i
        (counted from 1), "mean_sqrt_len_tokens" divides the sum by the root of the number of tokens.
    prompt: whether the tokens of a prompt count; where not, the vector is made of those after it.
    """

    def __init__(self, modes: Sequence[str] = ("mean",), prompt: bool = True) -> None:
        super().__init__()
        self.modes, self.prompt = tuple(modes), prompt

    @classmethod
    def of(cls, config: dict[str, Any]) -> "TokenPooling":
        """From the config.json of a Pooling module, of any version."""
        named = config.get("pooling_mode") or [mode for flag, mode in MODES.items() if config.get(flag)] or "mean"
        modes = [named] if isinstance(named, str) else list(named)
        if unknown := [mode for mode in modes if mode not in MODES.values()]:
            raise CheckpointError(f"pooling_mode {unknown[0]!r} is none of {', '.join(MODES.values())}.")
        return cls(modes, config.get("include_prompt", True))

    def forward(self, states: Tensor, real: Tensor | None, skip: int = 0) -> Tensor:
        """states (rows, length, width), real (rows, length) bool or None = all, -> (rows, modes * width).

        skip: tokens of a prompt at the beginning of every row.
        """
        if real is None:
            real = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        real = real.clone()
        if not self.prompt:
            real[:, :skip] = False
        return torch.cat([self._pool(mode, states.float(), real) for mode in self.modes], -1)

    def _pool(self, mode: str, states: Tensor, real: Tensor) -> Tensor:
        if mode == "max":
            return states.masked_fill(~real[:, :, None], float("-inf")).amax(1)
        if mode == "cls":
            return _pick(states, real.int().argmax(1))
        if mode == "lasttoken":
            return _pick(states, real.shape[1] - 1 - real.flip(1).int().argmax(1))
        shares = real.float()
        if mode == "weightedmean":
            shares = shares * torch.arange(1, real.shape[1] + 1, device=real.device)
        total = shares.sum(1, keepdim=True).clamp(min=1e-9)
        shares = shares / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)
        # a mean is a product: (rows, 1, length) @ (rows, length, width)
        return (shares[:, None] @ states)[:, 0]


def _pick(states: Tensor, index: Tensor) -> Tensor:
    return states.gather(1, index[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)


class Normalize(nn.Module):
    """Vectors of length 1."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


class Dense(nn.Module):
    """A linear map and an activation, if need be added to what came in."""

    def __init__(self, width: int, out_width: int, bias: bool, act: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out_width, bias)
        self.act = act
        self.add = residual
        self.residual = nn.Linear(width, out_width, bias=False) if residual and width != out_width else None

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Dense":
        """From the config.json of a Dense module."""
        name = config.get("activation_function") or "torch.nn.modules.activation.Tanh"
        act = ACTIVATIONS.get(name.rpartition(".")[2]) if name.startswith("torch.nn.") else None
        if act is None:
            raise CheckpointError(f"the activation {name!r} is none of torch.nn's {', '.join(ACTIVATIONS)}.")
        widths, options = (config["in_features"], config["out_features"]), (config.get("bias", True), act())
        return cls(*widths, *options, residual=config.get("use_residual", False))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.linear(x))
        if not self.add:
            return y
        return y + (x if self.residual is None else self.residual(x))


class LayerNorm(nn.Module):
    """A norm over the features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    @classmethod
    def of(cls, config: dict[str, Any]) -> "LayerNorm":
        return cls(config["dimension"])

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)
