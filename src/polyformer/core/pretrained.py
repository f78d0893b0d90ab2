"""The base of every model: configuration, weights from and to files, and the operations users expect of a model."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint as recompute

from polyformer.core.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from polyformer.core.config import CONFIG_NAME, Config
from polyformer.core.errors import CheckpointError
from polyformer.core.hub import find_weights
from polyformer.core.keymap import KeyMap, Match, Plan, same

logger = logging.getLogger("polyformer")


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
                lines.append(f"  {title}: {_some(names, 8)}")
        return "\n".join(lines)


class PreTrainedModel(nn.Module):
    """What all models share. An architecture's own base sets the four class attributes.

    config_class: its configuration.
    base_model_prefix: what the model without a head is called inside a task class.
    backbone: the class of the model without a head.
    keys: its checkpoint table.
    """

    config_class: ClassVar[type[Config]]
    base_model_prefix: ClassVar[str] = ""
    backbone: ClassVar[type["PreTrainedModel"]]
    keys: ClassVar[KeyMap]
    packable: bool = True  # False: run on padding too, as a traced graph does
    load_report: LoadReport | None = None

    def __init__(self, config: Config) -> None:
        super().__init__()
        if not isinstance(config, self.config_class):
            raise TypeError(
                f"{type(self).__name__}(config) takes a {self.config_class.__name__}, not a {type(config).__name__}; "
                f"to load weights use {type(self).__name__}.from_pretrained(...)."
            )
        self.config = config

    # ---- parts of the model ----

    @property
    def base_model(self) -> "PreTrainedModel":
        """The model without its head; itself where it has none."""
        return getattr(self, self.base_model_prefix, self)

    @property
    def is_base(self) -> bool:
        return self.base_model is self

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the first floating point parameter."""
        return next(p.dtype for p in self.parameters() if p.is_floating_point())

    def num_parameters(self, only_trainable: bool = False) -> int:
        """How many numbers the model has learnt; tied ones count once."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of token vectors."""
        if self.is_base:
            raise NotImplementedError(f"{type(self).__name__} does not say where its token embeddings are")
        return self.base_model.get_input_embeddings()

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        if self.is_base:
            raise NotImplementedError(f"{type(self).__name__} does not say where its token embeddings are")
        self.base_model.set_input_embeddings(table)

    def get_output_embeddings(self) -> nn.Linear | None:
        """The linear map from states to words, where there is one."""
        return None

    def tie_weights(self) -> None:
        """Make the output embeddings the input embeddings, where the configuration wants it."""
        out = self.get_output_embeddings()
        if out is not None and self.config.tie_word_embeddings:
            out.weight = self.get_input_embeddings().weight

    def resize_token_embeddings(self, new_num_tokens: int | None = None) -> nn.Embedding:
        """Grow (new rows from the seed) or cut the vocabulary, input and output side; the table is returned."""
        table = self.get_input_embeddings()
        if new_num_tokens is None or new_num_tokens == table.num_embeddings:
            return table
        if new_num_tokens < 1:
            raise ValueError(f"a vocabulary of {new_num_tokens} tokens is none: give at least 1.")
        pad = table.padding_idx if table.padding_idx is None or table.padding_idx < new_num_tokens else None
        fresh = nn.Embedding(
            new_num_tokens, table.embedding_dim, pad, device=table.weight.device, dtype=table.weight.dtype
        )
        self.init_weights(fresh)
        _copy_rows(table.weight, fresh.weight)
        self.set_input_embeddings(fresh)
        out = self.get_output_embeddings()
        if out is not None:
            self._resize_output(out, new_num_tokens)
            self.tie_weights()
        self.config.vocab_size = new_num_tokens
        return fresh

    def _resize_output(self, out: nn.Linear, rows: int) -> None:
        fresh = nn.Linear(out.in_features, rows, out.bias is not None, device=out.weight.device, dtype=out.weight.dtype)
        self.init_weights(fresh)
        _copy_rows(out.weight, fresh.weight)
        out.weight, out.out_features = fresh.weight, rows
        if out.bias is not None:
            _copy_rows(out.bias, fresh.bias)
            out.bias = fresh.bias

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        """Remove attention heads for good: {layer: heads}, numbered as in the unpruned model; kept in the config."""
        self.base_model.prune_heads(heads_to_prune)

    def options(
        self, output_attentions: bool | None, output_hidden_states: bool | None, return_dict: bool | None
    ) -> tuple[bool, bool, bool]:
        """What a call asked for, or else the configuration: attentions, hidden states, named results."""
        c = self.config
        return (
            c.output_attentions if output_attentions is None else output_attentions,
            c.output_hidden_states if output_hidden_states is None else output_hidden_states,
            c.use_return_dict if return_dict is None else return_dict,
        )

    # ---- weights ----

    def init_weights(self, module: nn.Module) -> None:
        """Initialise one module's own parameters as the architecture's authors did."""
        raise NotImplementedError

    def initialise(self) -> None:
        """Prune and tie as the configuration says, then initialise every module that has not been yet."""
        if self.config.pruned_heads and self.is_base:
            self.prune_heads(self.config.pruned_heads)
        if self.device.type != "meta":
            for module in self.modules():
                if not getattr(module, "initialised", False):
                    self.init_weights(module)
                    module.initialised = True  # type: ignore[assignment]
        self.tie_weights()

    def gradient_checkpointing_enable(self) -> None:
        """Keep only each layer's input for the backward pass and compute the rest again: less memory, more time."""
        self.config.gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        self.config.gradient_checkpointing = False

    def through(self, layer: nn.Module, *args: Any) -> Tensor:
        """Run a layer, recomputing it in the backward pass where gradient checkpointing is on."""
        if self.config.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return recompute(layer, *args, use_reentrant=False)
        return layer(*args)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        config: Config | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device: torch.device | str = "cpu",
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        subfolder: str = "",
        **changes: Any,
    ) -> Self:
        """Load a model in Hugging Face's layout, from a folder or the hub, ready to answer (in eval mode).

        Args:
            name_or_path: a folder, or a repository on the hub; a local or cached model never touches the network.
            config: used instead of the checkpoint's.
            state_dict: weights used instead of the checkpoint's, under its names or ours.
            torch_dtype: type of the weights; "auto" = the file's; float32 otherwise, whatever the file has.
            ignore_mismatched_sizes: initialise weights of another shape than the file's instead of raising.
            output_loading_info: also return a dictionary of missing, unexpected and mismatched keys.
            changes: fields of the configuration to set (num_labels=3, pooling="attention", output_attentions=True).

        On a CPU, weights that the model has just as the file does stay in the file until they are used or changed:
        replace such a file as save_pretrained does, do not write into it. What the file lacks for the head is
        initialised from torch's seed and said in one warning; `model.load_report` has it all.

        Raises:
            CheckpointError: files missing or damaged; weights of the base model missing; shapes that do not fit.
            ConfigError: a checkpoint of another architecture.
        """
        begun = time.perf_counter()
        where: dict[str, Any] = dict(
            revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only,
            force_download=force_download, subfolder=subfolder,
        )  # fmt: skip
        _refuse_other_frameworks(changes)
        if config is None:
            config = cls.config_class.from_pretrained(name_or_path, **where, **changes)
        else:
            for name, value in changes.items():
                setattr(config, name, value)
        file: Checkpoint
        file = _InMemory(state_dict) if state_dict is not None else open_checkpoint(find_weights(name_or_path, **where))
        with file:
            dtype = _wanted_dtype(torch_dtype, file, config)
            with torch.device("meta"), _Uninitialised():
                model = cls(config)
            report = LoadReport(cls.__name__, str(name_or_path), dtype)
            model._fill(file, dtype, torch.device(device), ignore_mismatched_sizes, report)
        report.config_suspects = config.suspects
        report.config_extra = sorted(config.extra)
        report.seconds = time.perf_counter() - begun
        model.load_report = report
        model.load_companions(name_or_path, where)
        model.eval()
        if not report.clean:
            fresh = report.missing + [name for name, _, _ in report.mismatched]
            logger.warning(
                "%s: these weights are not in %s and start from the seed, so train them before use: %s.",
                cls.__name__, name_or_path, _some(fresh, 8),
            )  # fmt: skip
        if output_loading_info:
            keys = {f"{kind}_keys": getattr(report, kind) for kind in ("missing", "unexpected", "mismatched")}
            return model, keys | {"error_msgs": []}  # type: ignore[return-value]
        return model

    def load_companions(self, name_or_path: str | os.PathLike[str], where: Mapping[str, Any]) -> None:
        """Read what else a class keeps beside the weights."""

    def companions(self) -> dict[str, str]:
        """What else a class keeps beside the weights: file name -> contents."""
        return {}

    def _fill(
        self, file: Checkpoint, dtype: torch.dtype, device: torch.device, ignore_mismatched: bool, report: LoadReport
    ) -> None:
        """Make the file's memory the parameters', or read the file straight into theirs."""
        plan = self.keys.plan(file.keys(), base=self.is_base)
        owners = _owners(self)
        matches = self._through_ties(plan.matches, owners)
        reads: list[tuple[str, Tensor]] = []
        fresh: list[str] = []
        for name, places in owners.items():
            match, empty = matches.get(name), _parameter(*places[0])
            pairs = [] if match is None else list(zip(match.theirs, match.views(empty), strict=True))
            wrong = [(key, file.shape(key), tuple(view.shape)) for key, view in pairs if file.shape(key) != view.shape]
            report.mismatched += wrong
            if match is None or wrong:
                fresh.append(name)
            elif (data := _mapped(file, match, dtype, device)) is not None:
                _replace(places, data)
                continue
            data = torch.empty(empty.shape, dtype=dtype, device=device)
            _replace(places, data)
            if match is not None and not wrong:
                reads += zip(match.theirs, match.views(data), strict=True)
        if report.mismatched and not ignore_mismatched:
            raise _mismatch(type(self).__name__, report)
        self._check_missing([n for n in fresh if n not in matches], owners, plan.incomplete, report)
        file.read_many(reads)
        _fill_buffers(self, device)
        self._initialise_new(set(fresh))
        self._account(plan, matches, owners, report)
        report.parameters = self.num_parameters()

    def _account(self, plan: Plan, matches: Mapping[str, Match], owners: Iterable[str], report: LoadReport) -> None:
        """Name what was in the file and was not read."""
        read = {key for name in owners if name in matches for key in matches[name].theirs}
        ties = self._ties()
        dropped, unexpected = set(plan.dropped), set(plan.unclaimed)
        for name, match in plan.matches.items():
            (dropped if name in ties else unexpected).update(set(match.theirs) - read)
        for match in plan.incomplete.values():
            unexpected.update(set(match.theirs) & plan.names)
        report.dropped, report.unexpected = sorted(dropped), sorted(unexpected)

    def _through_ties(
        self, matches: Mapping[str, Match], owners: Mapping[str, list[tuple[nn.Module, str]]]
    ) -> dict[str, Match]:
        """A tied parameter may be in the file under any of its names; its first name counts most."""
        known = dict(matches)
        names = {(id(module), leaf): name for name, places in owners.items() for module, leaf in places}
        for path, module in self.named_modules():
            for leaf, _ in module.named_parameters(recurse=False):
                alias, name = f"{path}.{leaf}".lstrip("."), names[id(module), leaf]
                if alias != name and alias in matches and name not in known:
                    known[name] = matches[alias]
        return known

    def _check_missing(
        self,
        names: list[str],
        owners: Mapping[str, Any],
        incomplete: Mapping[str, Match],
        report: LoadReport,
    ) -> None:
        inside = "" if self.is_base else f"{self.base_model_prefix}."
        theirs, _ = self.keys.names(names, base=self.is_base)
        report.missing = [key for name in names for key in (theirs[name].theirs if name in theirs else (name,))]
        lost = [n for n in names if n.startswith(inside) and not self.keys.may_be_new(n.removeprefix(inside))]
        if not lost:
            return
        keys = [key for name in lost for key in (theirs[name].theirs if name in theirs else (name,))]
        backbone = [n for n in owners if n.startswith(inside)]
        if len(lost) >= len(backbone) - 2:
            raise CheckpointError(
                f"{report.source} has none of the weights of a {self.config.model_type} model: it is a checkpoint of "
                f"another kind, or its names are not Hugging Face's."
            )
        raise CheckpointError(
            f"{report.source} lacks {len(keys)} weights that {type(self).__name__} cannot do without: "
            f"{_some(keys, 5)}. The file is incomplete, or config.json describes a larger model than it holds."
        )

    def _initialise_new(self, fresh: set[str]) -> None:
        """Initialise modules that have a new parameter; what such a module got from the file stays."""
        with torch.no_grad():
            for path, module in self.named_modules():
                own = {f"{path}.{leaf}".lstrip("."): p for leaf, p in module.named_parameters(recurse=False)}
                if not fresh & own.keys():
                    continue
                loaded = {name: p.clone() for name, p in own.items() if name not in fresh}
                self.init_weights(module)
                for name, values in loaded.items():
                    own[name].copy_(values)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """`load_state_dict` takes the names of Hugging Face's files too."""
        shapes = {name: p.shape for name, p in self.named_parameters(remove_duplicate=False)}
        given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        if not given.keys() <= shapes.keys() and self.keys.plan(given, base=self.is_base).matches:
            for key in given:
                del state_dict[prefix + key]
            foreign = {key: value for key, value in given.items() if key not in shapes}
            ours = {key: value for key, value in given.items() if key in shapes}
            ours |= self.keys.load(foreign, shapes, base=self.is_base)
            for alias, name in self._ties().items():
                if alias not in ours and name in ours:
                    ours[alias] = ours[name]
            state_dict.update({prefix + key: value for key, value in ours.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _ties(self) -> dict[str, str]:
        """Names of parameters that are the same as another, and that other's name."""
        first: dict[int, str] = {}
        ties = {}
        for name, p in self.named_parameters(remove_duplicate=False):
            if first.setdefault(id(p), name) != name:
                ties[name] = first[id(p)]
        return ties

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        safe_serialization: bool = True,
        max_shard_size: int | str = "5GB",
        state_dict: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write config.json and the weights under Hugging Face's names, all or nothing.

        Args:
            safe_serialization: model.safetensors (tied weights once); else pytorch_model.bin.
            max_shard_size: bytes, or "5GB": larger models are split into files with an index.
            state_dict: our names, in place of the model's own weights.

        Raises:
            CheckpointError: the folder cannot be written; what was there before is untouched.
        """
        tensors = dict(self.state_dict() if state_dict is None else state_dict)
        if safe_serialization:
            tensors = {name: t for name, t in tensors.items() if name not in self._ties()}
        self.config.architectures = [type(self).__name__]
        if state_dict is None:
            self.config.torch_dtype = str(self.dtype).removeprefix("torch.")
        save_checkpoint(
            Path(folder), self.keys.save(tensors, base=self.is_base), safe=safe_serialization,
            max_shard_size=max_shard_size, extra_files=self.companions() | {CONFIG_NAME: self.config.to_json_string()},
        )  # fmt: skip


# ---- helpers -----------------------------------------------------------------------------------------------------


class _InMemory(Checkpoint):
    """A dictionary of tensors that reads like a file."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.metadata: dict[str, str] = {}

    def keys(self) -> list[str]:
        return list(self.tensors)

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self.tensors[key].shape)

    def dtype(self, key: str) -> torch.dtype:
        return self.tensors[key].dtype

    def read(self, key: str, out: Tensor) -> None:
        out.copy_(self.tensors[key])

    def tensor(self, key: str) -> Tensor:
        return self.tensors[key].clone()

    def close(self) -> None:
        pass


class _Uninitialised(TorchFunctionMode):
    """Modules made inside have no initial values: none would last, and drawing them for no memory is slow."""

    FILLS = frozenset("normal_ uniform_ fill_ zero_ constant_ kaiming_uniform_ xavier_uniform_ trunc_normal_".split())

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self.FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _owners(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """Every parameter by its first name, with all the places it is in."""
    first: dict[int, str] = {}
    owners: dict[str, list[tuple[nn.Module, str]]] = {}
    for path, module in model.named_modules():
        for leaf, p in module.named_parameters(recurse=False):
            name = first.setdefault(id(p), f"{path}.{leaf}".lstrip("."))
            owners.setdefault(name, []).append((module, leaf))
    return owners


def _parameter(module: nn.Module, leaf: str) -> nn.Parameter:
    p = module._parameters[leaf]
    assert p is not None
    return p


def _replace(places: list[tuple[nn.Module, str]], data: Tensor) -> None:
    fresh = nn.Parameter(data, requires_grad=_parameter(*places[0]).requires_grad)
    for module, leaf in places:
        module._parameters[leaf] = fresh


def _mapped(file: Checkpoint, match: Match, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """A parameter that is one tensor of the file as it stands, without a copy."""
    if match.operation is not same or device.type != "cpu" or file.dtype(match.theirs[0]) != dtype:
        return None
    return file.mapped(match.theirs[0])


def _fill_buffers(model: nn.Module, device: torch.device) -> None:
    """Buffers are computed, never read: a module that has some makes them again on request."""
    for module in model.modules():
        if any(b.is_meta for b in module.buffers(recurse=False)):
            reset: Callable[[torch.device], None] = module.reset_buffers  # type: ignore[assignment]
            reset(device)


def _copy_rows(old: Tensor, new: Tensor) -> None:
    rows = min(old.shape[0], new.shape[0])
    with torch.no_grad():
        new[:rows] = old[:rows]


def _wanted_dtype(asked: torch.dtype | str | None, file: Checkpoint, config: Config) -> torch.dtype:
    if asked is None:
        return torch.get_default_dtype()
    if isinstance(asked, torch.dtype):
        return asked
    if asked == "auto":
        kinds: Iterator[torch.dtype] = (file.dtype(key) for key in file.keys())
        return next((kind for kind in kinds if kind.is_floating_point), torch.get_default_dtype())
    named = getattr(torch, asked.removeprefix("torch."), None)
    if not isinstance(named, torch.dtype):
        raise ValueError(f"torch_dtype is {asked!r}; give a torch.dtype, its name, or 'auto'.")
    return named


def _refuse_other_frameworks(changes: dict[str, Any]) -> None:
    for name in ("from_tf", "from_flax"):
        if changes.pop(name, False):
            raise CheckpointError(f"{name}=True: only PyTorch weights (.safetensors, .bin) are read; convert them.")


def _mismatch(model: str, report: LoadReport) -> CheckpointError:
    key, theirs, ours = report.mismatched[0]
    more = f" (and {len(report.mismatched) - 1} more)" if len(report.mismatched) > 1 else ""
    return CheckpointError(
        f"{key} has shape {theirs} in {report.source}, but {model} with this config wants {ours}{more}: correct "
        f"config.json (or the arguments given here), or start them from the seed with ignore_mismatched_sizes=True."
    )


def _some(names: list[str], count: int) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
