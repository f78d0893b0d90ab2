"""The folder of a sentence-transformers model: modules.json and what it names, read without running any of it.

modules.json                          which modules, in which order, in which folders
sentence_bert_config.json             max_seq_length, do_lower_case
config_sentence_transformers.json     prompts
1_Pooling/config.json                 how tokens become a vector
2_Dense/config.json, its weights      further layers
2_Normalize/                          nothing in it, often not even there
"""

import json
import os
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from polyformer.core.checkpoint import open_checkpoint
from polyformer.core.errors import CheckpointError
from polyformer.core.hub import cached_file, find_weights
from polyformer.pipelines.loading import Where
from polyformer.pipelines.sentence_modules import Dense, LayerNorm, Normalize, TokenPooling

Source = str | os.PathLike[str]

# Older versions named the file by the architecture.
TRANSFORMER_CONFIGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


@dataclass
class Recipe:
    """What such a folder says, beyond the transformer itself.

    folder: where the transformer is, "" for the top.
    pooling: how tokens become a vector; None = nothing is said, as for a plain model.
    layers: what comes after, in order.
    max_length: tokens of a text at most, None = what tokenizer and model allow.
    lower: whether texts are lower-cased first, whatever the tokenizer does.
    prompts, prompt: texts by name that can be put before a text, and the name of the one that is by default.
    """

    folder: str = ""
    pooling: TokenPooling | None = None
    layers: list[nn.Module] = field(default_factory=list)
    max_length: int | None = None
    lower: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    prompt: str | None = None


def read_recipe(source: Source, where: Where) -> Recipe:
    """Read the folder's modules.json and all it names; a plain model gives an empty recipe.

    Raises:
        CheckpointError: a module that is not known here, files missing or damaged.
    """
    modules = read_json(source, "modules.json", where)
    if modules is None:
        return Recipe()
    if not isinstance(modules, list) or any(not isinstance(m, dict) or "type" not in m for m in modules):
        raise CheckpointError(f"modules.json of {source} is no list of modules: fetch the file again.")
    recipe = Recipe()
    for module in modules:
        kind, folder = module["type"].rpartition(".")[2], module.get("path") or ""
        if kind == "Transformer":
            recipe.folder = folder
        elif kind != "Dropout":
            _add(recipe, kind, source, where.inside(folder))
    if recipe.pooling is None:
        raise CheckpointError(f"modules.json of {source} has no Pooling module, so it is no model of sentence vectors.")
    _read_limits(recipe, source, where.inside(recipe.folder))
    _read_prompts(recipe, source, where)
    return recipe


def _add(recipe: Recipe, kind: str, source: Source, where: Where) -> None:
    config = read_json(source, "config.json", where) or {}
    for end in ("input", "output"):
        name = config.get(f"module_{end}_name") or "sentence_embedding"
        if name != "sentence_embedding":
            raise CheckpointError(f"{source}: the module {kind} works on {name!r}, not on sentence_embedding.")
    try:
        if kind == "Pooling":
            recipe.pooling = TokenPooling.of(config)
        elif kind == "Normalize":
            recipe.layers.append(Normalize())
        elif kind in ("Dense", "LayerNorm"):
            layer = (Dense if kind == "Dense" else LayerNorm).of(config)
            recipe.layers.append(_with_weights(layer, source, where))
        else:
            raise CheckpointError(
                f"{source} has a module {kind!r}; those known here are Transformer, Pooling, Dense, LayerNorm, Dropout "
                "and Normalize."
            )
    except KeyError as error:
        raise CheckpointError(f"{source}: config.json of the module {kind} lacks {error}.") from None


def _with_weights(layer: nn.Module, source: Source, where: Where) -> nn.Module:
    """The module with the weights beside its config.json."""
    path = find_weights(source, **where.options())
    state = layer.state_dict()
    with open_checkpoint(path) as file:
        if set(file.keys()) != set(state):
            raise CheckpointError(f"{path} holds {', '.join(sorted(file.keys()))}, not {', '.join(sorted(state))}.")
        for key, target in state.items():
            if tuple(file.shape(key)) != tuple(target.shape):
                shapes = f"{tuple(file.shape(key))}, not {tuple(target.shape)}"
                raise CheckpointError(f"{key} in {path} has shape {shapes} as its config.json says.")
            file.read(key, target)
    return layer.eval()


def _read_limits(recipe: Recipe, source: Source, where: Where) -> None:
    for name in TRANSFORMER_CONFIGS:
        config = read_json(source, name, where)
        if config is not None:
            recipe.max_length = config.get("max_seq_length")
            recipe.lower = bool(config.get("do_lower_case"))
            return


def _read_prompts(recipe: Recipe, source: Source, where: Where) -> None:
    config = read_json(source, "config_sentence_transformers.json", where) or {}
    recipe.prompts = {name: text for name, text in (config.get("prompts") or {}).items() if text}
    recipe.prompt = config.get("default_prompt_name")


def read_json(source: Source, name: str, where: Where) -> Any:
    """The contents of a file, None where there is no such file."""
    path = cached_file(source, name, required=False, **where.options())
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): fetch or write the file again.") from None
