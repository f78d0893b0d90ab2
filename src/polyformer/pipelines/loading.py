"""What every pipeline does first: choose a device, fetch model and tokenizer."""

import copy
import os
from dataclasses import asdict, dataclass
from typing import Any

import torch

from polyformer.core.auto import AutoConfig
from polyformer.core.auto_tokenizer import AutoTokenizer
from polyformer.core.config import Config, read_config
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.registry import architecture, task_class


@dataclass(frozen=True)
class Where:
    """How the files of a model are found; fields as of `cached_file`."""

    revision: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    force_download: bool = False
    subfolder: str = ""

    def inside(self, folder: str) -> "Where":
        """The same place, one folder deeper."""
        return Where(**asdict(self) | {"subfolder": "/".join(part for part in (self.subfolder, folder) if part)})

    def options(self) -> dict[str, Any]:
        return asdict(self)


def device_of(device: torch.device | str | int | None) -> torch.device:
    """Where to compute: the first GPU if there is one and nothing is asked for; a number counts GPUs, -1 is the CPU.

    Raises:
        ValueError: there is no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(device, int):
        device = "cpu" if device < 0 else f"cuda:{device}"
    try:
        made = torch.device(device)
    except RuntimeError:
        raise ValueError(f"{device!r} is no device of torch: there are 'cpu', 'cuda', 'cuda:1' and others.") from None
    if made.type == "cuda" and (made.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"there is no {made} here, torch sees {torch.cuda.device_count()} GPUs: use device='cpu'.")
    return made


def load_model(
    name_or_path: str | os.PathLike[str],
    where: Where,
    *,
    task: str,
    config: Config | None = None,
    device: torch.device | str | int | None = None,
    torch_dtype: torch.dtype | str | None = None,
    **changes: Any,
) -> Any:
    """The model of a task (a key of the registry's TASKS), ready to answer; `changes` are fields of its config.

    Raises:
        CheckpointError: the checkpoint has no head for the task, so that every answer would be noise.
    """
    kind = config.model_type if config is not None else read_config(name_or_path, **where.options()).get("model_type")
    made = task_class(kind, task)
    return made.from_pretrained(
        name_or_path, config=config, device=device_of(device), torch_dtype=torch_dtype, strict=True,
        **where.options(), **changes,
    )  # fmt: skip


def load_states_model(
    name_or_path: str | os.PathLike[str],
    where: Where,
    *,
    config: Config | None = None,
    device: torch.device | str | int | None = None,
    torch_dtype: torch.dtype | str | None = None,
) -> Any:
    """A base model for the states of its tokens alone: no pooler is read, computed, or missed in the checkpoint.

    Of an architecture with a class for its encoder alone (T5), that.
    """
    config = (
        copy.deepcopy(config) if config is not None else AutoConfig.from_pretrained(name_or_path, **where.options())
    )
    own, config.pooling = config.pooling, "mean"  # one without weights stands in
    found = architecture(config.model_type)
    made = found.find(f"{found.name}EncoderModel") or task_class(config.model_type, "base")
    model = made.from_pretrained(
        name_or_path, config=config, device=device_of(device), torch_dtype=torch_dtype, strict=True, **where.options()
    )
    model.pooler, config.pooling = None, own
    return model


def load_tokenizer(tokenizer: Any, model: PreTrainedModel, where: Where) -> Any:
    """The tokenizer as given, by name, or of the place the model was loaded from.

    Raises:
        ValueError: nothing says which tokenizer the model wants.
    """
    if tokenizer is None:
        if model.load_report is None or not model.load_report.source:
            raise ValueError("this model is not from a checkpoint, so say which tokenizer it wants: tokenizer=...")
        tokenizer = model.load_report.source
    if isinstance(tokenizer, (str, os.PathLike)):
        return AutoTokenizer.from_pretrained(tokenizer, **where.options())
    return tokenizer


def longest_input(tokenizer: Any, model: PreTrainedModel) -> int | None:
    """How many tokens a sequence may have, special ones included, as far as tokenizer and model know."""
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    known = [limit for limit in limits if limit is not None and 0 < limit < 10**9]
    return min(known, default=None)
