"""Models put together from two checkpoints: which options are whose, and a part from its checkpoint."""

import copy
import os
from collections.abc import Mapping
from typing import Any

from polyformer.core.auto import AutoConfig
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.registry import task_class

WHERE = ("revision", "cache_dir", "token", "local_files_only", "subfolder")  # options that say where a checkpoint is


def options_by_part(
    options: Mapping[str, Any], parts: tuple[str, ...], own: tuple[str, ...] = ()
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Options that begin with a part's name and _, without that, part by part; and the others.

    own: options of the whole all the same.
    """
    inside: list[dict[str, Any]] = [{} for _ in parts]
    others = {}
    for name, value in options.items():
        place = next((i for i, part in enumerate(parts) if name.startswith(f"{part}_") and name not in own), None)
        if place is None:
            others[name] = value
        else:
            inside[place][name.removeprefix(f"{parts[place]}_")] = value
    return inside, others


def part_from_pretrained(
    part: str, name: str | os.PathLike[str] | None, task: str, options: Mapping[str, Any], **fields: Any
) -> PreTrainedModel:
    """A part from its checkpoint.

    task: of `core.registry.task_class`.
    options: of `from_pretrained`.
    fields: what its configuration must say; one that the options give is copied.

    Raises:
        ValueError: no name.
    """
    if name is None:
        raise ValueError(f"there is no {part}: name a checkpoint, or give {part}_model=...")
    given = options.get("config")
    where = {key: options[key] for key in WHERE if key in options}
    found = AutoConfig.from_pretrained(name, **where) if given is None else copy.deepcopy(given)
    for key, value in fields.items():
        setattr(found, key, value)
    made: PreTrainedModel = task_class(found.model_type, task).from_pretrained(name, **{**options, "config": found})
    return made
