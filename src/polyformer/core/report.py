"""What became of every weight when a model was loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class LoadReport:
    """What became of every weight when a model was loaded; names are the file's.

    missing: not in the file, initialised from the seed.
    unexpected: in the file, not used by this class.
    mismatched: name, the file's shape, the model's; initialised from the seed (only with ignore_mismatched_sizes).
    dropped: in the file and known to be of no use (position numbers, copies of tied weights).
    config_extra: keys of config.json that this architecture does not know; config_suspects: those that look like a slip
        for a field, and the field.
    """

    model: str
    source: str = ""
    dtype: torch.dtype = torch.float32
    parameters: int = 0
    seconds: float = 0.0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    config_extra: list[str] = field(default_factory=list)
    config_suspects: dict[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether every weight of the model came from the file."""
        return not self.missing and not self.mismatched

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "dtype": str(self.dtype).removeprefix("torch.")}

    def __str__(self) -> str:
        lines = [
            f"{self.model} from {self.source}: {self.parameters:,} parameters in "
            f"{str(self.dtype).removeprefix('torch.')}, {self.seconds:.2f} s"
        ]
        for title, names in (
            ("new, initialised from the seed", self.missing),
            ("new because of another shape", [f"{n} {a} -> {b}" for n, a, b in self.mismatched]),
            ("in the file, not used here", self.unexpected),
            ("in the file, of no use", self.dropped),
            ("unknown keys of config.json, kept", self.config_extra),
            ("keys of config.json that look like a slip", [f"{a} for {b}" for a, b in self.config_suspects.items()]),
        ):
            if names:
                lines.append(f"  {title}: {some(names, 8)}")
        return "\n".join(lines)


def some(names: Sequence[str], count: int) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
