"""The process that runs the reference: requests on stdin, answers on stdout, a JSON object a line (see ``wire.py``).

    python -s tests/oracle/worker.py FOLDER       FOLDER: what build.py made

It stays up, since importing transformers takes seconds and a tiny model milliseconds. What a request may be is the
table OPERATIONS; ``client.py`` says what each means. An exception becomes an answer; nothing but a lost stdin ends it.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wire import Carry, read, write  # beside this file, which is first on the path of a script

sys.path[0] = str(Path(sys.argv[1]).resolve())  # its numpy and tokenizers before those of the environment

import torch
import transformers
from safetensors.torch import load_file

BUFFERS = re.compile(r"position_ids|token_type_ids")  # constants that old checkpoints hold or lack


def config_of(cls: type, config: dict[str, Any] | str) -> Any:
    """A config from a dict, or from the path of a config.json."""
    if isinstance(config, str):
        config = json.loads(Path(config).read_text(encoding="utf-8"))
    return cls.config_class.from_dict(config)


def make(request: dict[str, Any]) -> torch.nn.Module:
    """A model of the class, configuration and arguments that a request names."""
    cls = getattr(transformers, request["cls"])
    if hasattr(cls, "config_class"):
        return cls(config_of(cls, request["config"]), **request["build"])
    return multimodal(cls, **request["config"])


def multimodal(cls: type, text: str, text_config: dict[str, Any], image_width: int, **fields: Any) -> torch.nn.Module:
    """MMBT over a text encoder of class `text` and an image encoder that is one linear map, both made here."""
    encoder = getattr(transformers, text)
    config = encoder.config_class.from_dict(text_config)
    image = torch.nn.Sequential(torch.nn.Linear(image_width, fields["modal_hidden_size"]), torch.nn.Tanh())
    return cls(transformers.MMBTConfig(config, **fields), encoder(config), image)


# ---- weights ---------------------------------------------------------------------------------------------------------


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Draw every parameter so that what comes out is of order one and no term of a layer is too small to be seen.

    Norms scale by about 1; biases are about 0.1; all else is divided by the square root of the width it sums over.
    Fixed tables (sinusoids) stay as they are.
    """
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if not p.requires_grad:
                continue
            noise = torch.randn(p.shape, generator=draw)
            with torch.no_grad():
                if p.dim() < 2:
                    scales = name == "weight" and "norm" in type(module).__name__.lower()
                    p.copy_(1 + 0.1 * noise if scales else 0.1 * noise)
                else:
                    p.copy_(noise / summed_over(module, p) ** 0.5)


def summed_over(module: torch.nn.Module, p: torch.Tensor) -> int:
    """How many terms one output of this matrix is a sum of. (An embedding's rows come out with norm 1.)"""
    if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
        return p.shape[-1]
    if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d):
        return p[0].numel()
    return p.shape[0]  # GPT-2's Conv1D, XLNet's (width, heads, size)


def load(model: torch.nn.Module, weights: dict[str, torch.Tensor] | str, strict: bool) -> None:
    """Copy the weights in by name; with ``strict``, a name too many or too few is an error."""
    if isinstance(weights, str):
        weights = load_file(weights)
    old = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    for theirs, ours in old.items():
        weights = {key.replace(theirs, ours): tensor for key, tensor in weights.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    state = model.state_dict(keep_vars=True)
    given = {state[key].data_ptr() for key in weights if key in state}
    missing = [key for key in missing if not BUFFERS.search(key) and state[key].data_ptr() not in given]  # tied is fine
    unexpected = [key for key in unexpected if not BUFFERS.search(key)]
    if strict and (missing or unexpected):
        raise KeyError(f"the weights lack {missing} and have {unexpected} too many")


# ---- calls -----------------------------------------------------------------------------------------------------------


def flat(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """(dotted name, tensor) of every tensor in nested tuples, lists, dicts and outputs; nothing else comes along."""
    if isinstance(value, torch.Tensor):
        yield name, value.detach()
        return
    pairs: Any = ()
    if hasattr(value, "items"):
        pairs = value.items()
    elif isinstance(value, tuple | list):
        pairs = enumerate(value)
    for key, item in pairs:
        yield from flat(f"{name}.{key}" if name else str(key), item)


def ready(value: Any, dtype: torch.dtype, before: Any) -> Any:
    """An argument as the model takes it: floats in its dtype, Carry replaced by what the call before gave."""
    if isinstance(value, Carry):
        return before[value.name]
    if isinstance(value, torch.Tensor):  # a copy: CTRL scales inputs_embeds in place
        return value.to(dtype) if value.is_floating_point() else value.clone()
    if isinstance(value, tuple | list):
        return type(value)(ready(v, dtype, before) for v in value)
    return value


def call(model: torch.nn.Module, request: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Do the calls of a request; what they gave, flat."""
    dtype, method, grad = request["dtype"], request["method"], request["grad"]
    model = model.to(dtype).train(request["train"])
    calls, out, result = request["calls"], None, {}
    torch.manual_seed(request["seed"])
    with torch.set_grad_enabled(bool(grad)):
        for i, inputs in enumerate(calls):
            arguments = {name: ready(value, dtype, out) for name, value in inputs.items()}
            for name in request["grad_inputs"]:
                arguments[name].requires_grad_()
            out = getattr(model, method)(**arguments)
            named = {"sequences": out} if method == "generate" and isinstance(out, torch.Tensor) else out
            prefix = f"s{i}" if len(calls) > 1 else ""
            result |= dict(flat(prefix, {"0": named} if isinstance(named, torch.Tensor) else named))
    if grad:
        backward(out, grad)
        owners = dict(model.named_parameters()) | {f"input.{name}": arguments[name] for name in request["grad_inputs"]}
        result |= {f"grad.{name}": p.grad for name, p in owners.items() if p.grad is not None}
    return result


def backward(out: Any, grad: bool | dict[str, torch.Tensor]) -> None:
    """From the loss, or from the gradients given for named outputs."""
    if grad is True:
        (out["loss"] if hasattr(out, "items") else out[0]).backward()
        return
    tensors = {name: value for name, value in walk("", out) if name in grad}
    if lacking := set(grad) - set(tensors):
        raise KeyError(f"no output is named {sorted(lacking)}")
    torch.autograd.backward(list(tensors.values()), [grad[name].to(t.dtype) for name, t in tensors.items()])


def walk(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """flat, with the graph kept."""
    if isinstance(value, torch.Tensor):
        yield name, value
        return
    for key, item in value.items() if hasattr(value, "items") else enumerate(value):
        if item is not None:
            yield from walk(f"{name}.{key}" if name else str(key), item)


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


# ---- operations ------------------------------------------------------------------------------------------------------


def op_init(request: dict[str, Any]) -> Any:
    torch.manual_seed(request["seed"])
    model = make(request)
    randomise(model, request["seed"])
    return state_of(model)


def op_run(request: dict[str, Any]) -> Any:
    model = make(request).to(request["dtype"])
    load(model, request["weights"], request["strict"])
    for name, *arguments in request["before"]:
        getattr(model, name)(*arguments)
    result = call(model, request)
    if request["state"]:
        result |= {f"state.{name}": tensor for name, tensor in state_of(model).items()}
    return result


def op_load_dir(request: dict[str, Any]) -> Any:
    cls = getattr(transformers, request["cls"])
    model, info = cls.from_pretrained(request["folder"], output_loading_info=True)
    result = {"missing": info["missing_keys"], "unexpected": info["unexpected_keys"], "errors": info["error_msgs"]}
    return result | {"state": state_of(model), "outputs": call(model, request)}


def op_save_dir(request: dict[str, Any]) -> Any:
    model = make(request)
    load(model, request["weights"], True)
    model.save_pretrained(request["folder"])


def op_config(request: dict[str, Any]) -> Any:
    return config_of(getattr(transformers, request["cls"]), request["config"]).to_dict()


def op_arguments(request: dict[str, Any]) -> Any:
    given = inspect.signature(getattr(transformers, request["cls"]).forward).parameters.values()
    return [p.name for p in given if p.name != "self" and p.kind is not p.VAR_KEYWORD]


TOKENIZERS: dict[str, Any] = {}  # those loaded so far


def op_tokenize(request: dict[str, Any]) -> Any:
    """Each call's answer, or that it raises, which the Rust library does past Exception."""
    key = json.dumps([request["cls"], request["folder"], request["options"]])
    if key not in TOKENIZERS:
        TOKENIZERS[key] = getattr(transformers, request["cls"]).from_pretrained(request["folder"], **request["options"])
    return [answer_of(TOKENIZERS[key], *call) for call in request["calls"]]


def answer_of(tokenizer: Any, method: str, arguments: list[Any], options: dict[str, Any]) -> Any:
    try:
        return listed(getattr(tokenizer, method)(*arguments, **options))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return {"raises": f"{type(error).__name__}: {error}"}


def listed(value: Any) -> Any:
    """What a tokenizer gave, in dicts and lists."""
    if hasattr(value, "items"):
        return {key: listed(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [listed(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value


def op_hello(request: dict[str, Any]) -> Any:
    return {"transformers": transformers.__version__, "torch": torch.__version__, "file": transformers.__file__}


OPERATIONS = {name.removeprefix("op_"): f for name, f in globals().items() if name.startswith("op_")}


# ---- the loop --------------------------------------------------------------------------------------------------------


def answer(line: str) -> dict[str, Any]:
    """One request, as a line of JSON -> its answer, {"value"} or {"error", "trace"}."""
    message = json.loads(line)
    try:
        request = read(message["request"], Path(message["tensors"]))
        value = OPERATIONS[request.pop("op")](request)
        return {"value": write(value, Path(message["reply"]))}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}


def unrounded(softmax: Any) -> Any:
    """A softmax that stays in float64 where the reference asks for float32, as Longformer does whatever its weights."""

    def in_own_type(scores: torch.Tensor, *arguments: Any, dtype: torch.dtype | None = None, **options: Any) -> Any:
        return softmax(scores, *arguments, dtype=None if scores.dtype == torch.float64 else dtype, **options)

    return in_own_type


def unnarrowed(forward: Any) -> Any:
    """A forward inside of which `float()` and `to(torch.float32)` leave float64 alone.

    XLM, Funnel, Transformer-XL and T5 have their softmax in float32, T5 its norms too.
    """
    narrow, to = torch.Tensor.float, torch.Tensor.to

    def kept(x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        return x if x.dtype == torch.float64 and arguments == (torch.float32,) else to(x, *arguments, **options)

    def in_own_type(*arguments: Any, **options: Any) -> Any:
        torch.Tensor.float = lambda x: x if x.dtype == torch.float64 else narrow(x)
        torch.Tensor.to = kept
        try:
            return forward(*arguments, **options)
        finally:
            torch.Tensor.float, torch.Tensor.to = narrow, to

    return in_own_type


def rounded_last(table: Any) -> Any:
    """A table of positions computed in float64, then rounded: CTRL's original has it so, the reference in float32."""
    return lambda positions, width, dtype: table(positions, width, torch.float64).to(dtype)


def main() -> None:
    torch.nn.functional.softmax = unrounded(torch.nn.functional.softmax)
    ctrl = transformers.models.ctrl.modeling_ctrl
    ctrl.positional_encoding = rounded_last(ctrl.positional_encoding)
    xlm, funnel = transformers.models.xlm.modeling_xlm, transformers.models.funnel.modeling_funnel
    t5 = transformers.models.t5.modeling_t5
    xl = transformers.models.transfo_xl.modeling_transfo_xl.RelPartialLearnableMultiHeadAttn
    narrowing = (xlm.MultiHeadAttention, funnel.FunnelRelMultiheadAttention, xl, t5.T5Attention, t5.T5LayerNorm)
    for part in narrowing:  # the first is FlauBERT's too
        part.forward = unnarrowed(part.forward)
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints, prints to stderr: the pipe is for answers
    for line in sys.stdin:
        print(json.dumps(answer(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
