"""Marian NMT's own models: an .npz of arrays whose names Marian's transformer.h gives, and a .yml with the vocabulary.

Matrices stand the other way round there, vectors are rows, layers count from 1, and the training's options are a text
in the array `special:model.yml`. The decoder begins with a vector of zeros; in Hugging Face's format that is one more
token, `<pad>`, the last one, which Marian's files do not have.
"""

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyformer.core.errors import CheckpointError

OPTIONS = "special:model.yml"

# Marian's options that make another network of it, and the value that this one has.
NEEDED = {
    "type": "transformer",
    "transformer-preprocess": "",
    "transformer-postprocess": "dan",
    "transformer-postprocess-emb": "d",
    "transformer-decoder-autoreg": "self-attention",
    "transformer-ffn-depth": "2",
    "transformer-train-position-embeddings": "false",
    "transformer-no-projection": "false",
}


def read_marian(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fields of a MarianConfig, and the weights under Hugging Face's names.

    Args:
        path: an .npz, or a folder with one.

    Raises:
        CheckpointError: no such file, or damaged; a network of another kind; arrays too many or too few.
    """
    path = _npz(Path(path))
    arrays = _arrays(path)
    options = _options(path, arrays)
    for name, value in NEEDED.items():
        if (found := options.get(name, value)) != value:
            raise CheckpointError(f"{path} was trained with {name}: {found!r}; only {value!r} can be read.")
    config = _config(options, arrays, path)
    tensors: dict[str, Tensor] = {}
    for theirs, ours in _names(config["encoder_layers"], config["decoder_layers"]):
        if theirs not in arrays:
            raise CheckpointError(f"{path} lacks {theirs}: the file is incomplete, or another kind of network.")
        array = arrays.pop(theirs)
        is_vector = array.ndim == 2 and array.shape[0] == 1
        tensors[ours] = torch.from_numpy(array[0] if is_vector else array.T)
    tensors |= _words(arrays, path)
    if arrays:
        more = f" (and {len(arrays) - 1} more)" if len(arrays) > 1 else ""
        raise CheckpointError(f"{path} has {min(arrays)}{more}, for which this network has no place.")
    return config, tensors


def read_marian_vocabulary(path: str | os.PathLike[str]) -> dict[str, int]:
    """The ids of a Marian vocabulary's tokens and of `<pad>`, the last: what vocab.json holds beside such a model.

    Args:
        path: a .yml of tokens and their ids.

    Raises:
        CheckpointError: no such file, or not of that kind.
    """
    entries = _yaml(Path(path).read_bytes() if Path(path).is_file() else None, str(path))
    try:
        ids = {str(token): int(number) for token, number in entries.items()}
    except (TypeError, ValueError):
        raise CheckpointError(f"{path} is no vocabulary of Marian's: each line is to be a token and its id.") from None
    return {**ids, "<pad>": max(ids.values()) + 1}


def _npz(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.npz"))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise CheckpointError(f"{path} has to have one model of Marian's, *.npz, but there is {names}: name the file.")
    return found[0]


def _arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise CheckpointError(f"{path} is not there: name an .npz of Marian's or a folder with one.") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is no .npz of Marian's, or damaged ({error}): copy it again.") from None


def _options(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Marian's options as texts."""
    if OPTIONS not in arrays:
        raise CheckpointError(f"{path} has no {OPTIONS}, so it is no model of Marian's, or of a version before 1.0.")
    return _yaml(arrays.pop(OPTIONS).astype(np.uint8).tobytes().rstrip(b"\0"), f"{OPTIONS} of {path}")


def _yaml(text: bytes | None, where: str) -> dict[str, Any]:
    """A mapping, its keys and values left as texts."""
    import yaml

    if text is None:
        raise CheckpointError(f"{where} is not there.")
    try:
        found = yaml.load(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))  # texts and containers, no code
    except (yaml.YAMLError, UnicodeDecodeError):
        found = None
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{where} is not YAML with names and values: copy the file again.")
    return dict(found)


def _config(options: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]], path: Path) -> dict[str, Any]:
    if "Wemb" not in arrays:
        raise CheckpointError(
            f"{path} has no Wemb: only one table for both languages (tied-embeddings-all) can be read."
        )
    words, width = arrays["Wemb"].shape
    inner = options.get("transformer-dim-ffn", "2048")
    own = options.get("transformer-decoder-dim-ffn", "0")
    try:
        return {
            "vocab_size": words + 1,
            "d_model": width,
            "encoder_layers": int(options["enc-depth"]),
            "decoder_layers": int(options["dec-depth"]),
            "encoder_attention_heads": int(options["transformer-heads"]),
            "decoder_attention_heads": int(options["transformer-heads"]),
            "encoder_ffn_dim": int(inner),
            "decoder_ffn_dim": int(own) or int(inner),
            "activation_function": str(options.get("transformer-ffn-activation", "swish")),
            "dropout": float(options.get("transformer-dropout", 0)),
            "attention_dropout": float(options.get("transformer-dropout-attention", 0)),
            "activation_dropout": float(options.get("transformer-dropout-ffn", 0)),
            "scale_embedding": True,
            "pad_token_id": words,
            "decoder_start_token_id": words,
            "bad_words_ids": [[words]],
            "eos_token_id": 0,
            "forced_eos_token_id": 0,
            "max_length": 512,
        } | ({"num_beams": int(options["beam-size"])} if "beam-size" in options else {})
    except KeyError as error:
        raise CheckpointError(
            f"the options in {path} lack {error.args[0]!r}: it is no Transformer of Marian's."
        ) from None
    except ValueError as error:
        raise CheckpointError(f"an option in {path} is no number ({error}): the file is damaged.") from None


def _names(encoder_layers: int, decoder_layers: int) -> Iterator[tuple[str, str]]:
    """Marian's name of every array of a layer, and Hugging Face's."""
    for half, layers in (("encoder", encoder_layers), ("decoder", decoder_layers)):
        attentions = {"self": "self_attn"} | ({"context": "encoder_attn"} if half == "decoder" else {})
        for i in range(layers):
            theirs, ours = f"{half}_l{i + 1}", f"model.{half}.layers.{i}"
            for part, attention in attentions.items():
                for letter, projection in zip("qkvo", ("q_proj", "k_proj", "v_proj", "out_proj"), strict=True):
                    yield f"{theirs}_{part}_W{letter}", f"{ours}.{attention}.{projection}.weight"
                    yield f"{theirs}_{part}_b{letter}", f"{ours}.{attention}.{projection}.bias"
                yield f"{theirs}_{part}_Wo_ln_scale", f"{ours}.{attention}_layer_norm.weight"
                yield f"{theirs}_{part}_Wo_ln_bias", f"{ours}.{attention}_layer_norm.bias"
            for number in (1, 2):
                yield f"{theirs}_ffn_W{number}", f"{ours}.fc{number}.weight"
                yield f"{theirs}_ffn_b{number}", f"{ours}.fc{number}.bias"
            yield f"{theirs}_ffn_ffn_ln_scale", f"{ours}.final_layer_norm.weight"
            yield f"{theirs}_ffn_ffn_ln_bias", f"{ours}.final_layer_norm.bias"


def _words(arrays: dict[str, np.ndarray[Any, Any]], path: Path) -> dict[str, Tensor]:
    """The table of token vectors and what is added to their scores, `<pad>`'s at the end: zeros."""
    table = torch.from_numpy(arrays.pop("Wemb"))
    offset = torch.from_numpy(arrays.pop("decoder_ff_logit_out_b", np.zeros((1, len(table)), np.float32)))
    if offset.shape != (1, len(table)):
        raise CheckpointError(
            f"{path} has {len(table)} token vectors but decoder_ff_logit_out_b of shape {tuple(offset.shape)}: it is "
            f"damaged."
        )
    return {
        "model.shared.weight": torch.cat([table, table.new_zeros(1, table.shape[1])]),
        "final_logits_bias": torch.cat([offset, offset.new_zeros(1, 1)], 1),
    }
