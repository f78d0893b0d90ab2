"""`polyformer info`: what is in a checkpoint, and what is missing from it."""

import argparse
import logging
from pathlib import Path
from typing import Any

from polyformer.cli.common import add_json, bold, command, print_json, size

EXAMPLES = """\
  polyformer info bert-base-uncased
  polyformer info ./my-checkpoint
  polyformer info ./my-checkpoint --json | jq .parameters
"""
MORE = """\
Loads the model as the class its config.json names and tells the architecture, the parameters of each part, the size of
the files, and the load report: which weights are missing, of another shape, or not used."""


def add(commands: Any) -> None:
    parser = command(commands, "info", "Tell what is in a checkpoint.", EXAMPLES, MORE)
    parser.add_argument("model", metavar="MODEL", help="a folder, or a name on the hub")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    facts = gather(args.model)
    if args.json:
        print_json(facts)
    else:
        print(_shown(facts))


def gather(name: str) -> dict[str, Any]:
    """Everything that `info` tells, as JSON has it."""
    from polyformer.core.auto import AutoConfig

    config = AutoConfig.from_pretrained(name)
    made = _class_of(config)
    logger = logging.getLogger("polyformer")
    level = logger.level
    logger.setLevel(logging.ERROR)  # what the warning says is told below
    try:
        model = made.from_pretrained(name, config=config)
    finally:
        logger.setLevel(level)
    report = model.load_report
    return {
        "model": name,
        "class": made.__name__,
        "config": config.to_dict(),
        "parameters": {"total": report.parameters, "parts": _parts(model)},
        "bytes": _bytes_of(name),
        "dtype": report.to_dict()["dtype"],
        "tokenizer": _tokenizer(name),
        "sentence_vectors": _sentence(name),
        "report": report.to_dict(),
        "warnings": _warnings(report),
    }


def _class_of(config: Any) -> Any:
    """The class that config.json names if there is such a one here, else the model without a head."""
    from polyformer.core.registry import architecture, task_class

    found = architecture(config.model_type)
    named = (found.find(name) for name in config.architectures or ())
    return next((made for made in named if made is not None), None) or task_class(config.model_type, "base")


def _parts(model: Any) -> dict[str, int]:
    """Numbers in each part of the model; a matrix that two parts share counts in the first."""
    parts: dict[str, int] = {}
    inside = "" if model.is_base else f"{model.base_model_prefix}."
    for name, values in model.named_parameters():
        part = name.removeprefix(inside).partition(".")[0]
        parts[part] = parts.get(part, 0) + values.numel()
    return parts


def _bytes_of(name: str) -> int:
    """The size of the weight files."""
    from polyformer.core.files import INDEX_SUFFIX, read_index
    from polyformer.core.hub import find_weights

    path = find_weights(name)
    files = [path.parent / shard for shard in read_index(path).shards] if path.name.endswith(INDEX_SUFFIX) else [path]
    return sum(file.stat().st_size for file in files)


def _tokenizer(name: str) -> dict[str, Any] | None:
    from polyformer.core.auto_tokenizer import AutoTokenizer
    from polyformer.core.errors import CheckpointError

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except CheckpointError:
        return None
    limit = tokenizer.model_max_length
    return {
        "class": type(tokenizer).__name__,
        "words": len(tokenizer),
        "max_length": limit if limit < 10**9 else None,
        "special_tokens": tokenizer.special_tokens_map,
    }


def _sentence(name: str) -> dict[str, Any] | None:
    """What sentence-transformers' files say, None for a model that has none."""
    from polyformer.pipelines.loading import Where
    from polyformer.pipelines.sentence_files import read_recipe

    recipe = read_recipe(name, Where())
    if recipe.pooling is None:
        return None
    layers = [type(layer).__name__ for layer in recipe.layers]
    return {"pooling": list(recipe.pooling.modes), "layers": layers, "max_length": recipe.max_length}


def _warnings(report: Any) -> list[str]:
    said = []
    if report.missing:
        said.append(f"missing, so they start from the seed and want training: {_some(report.missing)}")
    for key, theirs, ours in report.mismatched:
        said.append(f"{key} has shape {theirs} in the file, not {ours}")
    for wrong, right in report.config_suspects.items():
        said.append(f"config.json has {wrong!r}; is {right!r} meant?")
    return said


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _shown(facts: dict[str, Any]) -> str:
    config, report, parameters = facts["config"], facts["report"], facts["parameters"]
    folder = Path(facts["model"])
    lines = [f"{bold(folder.name if folder.is_dir() else facts['model'])}: {facts['class']}, {facts['dtype']}", ""]
    total = parameters["total"]
    lines.append(f"{'parameters':<12}{total:>14,}   {size(facts['bytes'])} on disk")
    for part, count in parameters["parts"].items():
        lines.append(f"  {part:<10}{count:>14,}   {count / total:5.1%}")
    tokenizer, sentence = facts["tokenizer"], facts["sentence_vectors"]
    lines += ["", f"{'tokenizer':<12}{_tokenizer_line(tokenizer)}"]
    if sentence:
        steps = ", then ".join([f"{' and '.join(sentence['pooling'])} of the tokens", *sentence["layers"]]).lower()
        lines.append(f"{'vectors':<12}{steps}, at most {sentence['max_length'] or 'as many as fit'} tokens")
    lines += ["", "config"]
    lines += [f"  {key:<32}{_short(value)}" for key, value in sorted(config.items())]
    lines += ["", "load report"]
    for title, names in (("not used here", report["unexpected"]), ("of no use", report["dropped"])):
        if names:
            lines.append(f"  {title + ':':<16}{_some(names)}")
    lines += [f"  warning: {warning}" for warning in facts["warnings"]] or [
        "  every weight of the model is in the file"
    ]
    return "\n".join(lines)


def _tokenizer_line(tokenizer: dict[str, Any] | None) -> str:
    if tokenizer is None:
        return "none beside the model"
    limit = f", at most {tokenizer['max_length']} tokens" if tokenizer["max_length"] else ""
    return f"{tokenizer['class']}, {tokenizer['words']:,} tokens in its vocabulary{limit}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
