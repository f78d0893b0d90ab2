"""From a file of weights to the parameters of a model (and what else belongs in a file: the running means of a batch
norm, say), with one copy in memory at most.

A model is first made without memory; then every parameter becomes the file's own memory, where it is there as it
stands, or is read straight into its place (several tensors of the file into their parts of a fused one); what the file
lacks is initialised.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from polyformer.core.checkpoint import Checkpoint
from polyformer.core.errors import CheckpointError
from polyformer.core.keymap import Match, Plan, same
from polyformer.core.report import LoadReport, some

if TYPE_CHECKING:
    from polyformer.core.pretrained import PreTrainedModel

Owners = Mapping[str, list[tuple[nn.Module, str]]]  # a parameter's first name -> the places it is in


class InMemory(Checkpoint):
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

    def close(self) -> None:
        pass


class Hollow(TorchFunctionMode):
    """Models made inside have shapes but no memory, and no initial values are drawn for it."""

    FILLS = frozenset("normal_ uniform_ fill_ zero_ constant_ kaiming_uniform_ xavier_uniform_ trunc_normal_".split())

    def __enter__(self) -> Any:
        self.meta = torch.device("meta")
        self.meta.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.meta.__exit__(*error)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self.FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def fill(
    model: "PreTrainedModel",
    file: Checkpoint,
    device: torch.device,
    report: LoadReport,
    *,
    ignore_mismatched: bool = False,
    strict: bool = False,
) -> None:
    """Give the parameters of a hollow model their values, and note in the report where each came from.

    Raises:
        CheckpointError: weights of the base model are missing, or shapes do not fit; with `strict`, any are missing.
    """
    dtype = report.dtype
    owners = _owners(model)
    plan = model.keys.plan(file.keys(), base=model.is_base, own=owners)
    matches = _through_ties(model, plan.matches, owners)
    reads: list[tuple[str, Tensor]] = []
    fresh: list[str] = []
    for name, places in owners.items():
        match, hollow = matches.get(name), _tensor(*places[0])
        kind = dtype if hollow.is_floating_point() else hollow.dtype
        pairs = [] if match is None else list(zip(match.theirs, match.views(hollow), strict=True))
        wrong = [(key, file.shape(key), tuple(view.shape)) for key, view in pairs if file.shape(key) != view.shape]
        report.mismatched += wrong
        if match is None or wrong:
            fresh.append(name)
            _replace(places, torch.empty(hollow.shape, dtype=kind, device=device))
        elif (mapped := _mapped(file, match, kind, device)) is not None:
            _replace(places, mapped)
        else:
            data = torch.empty(hollow.shape, dtype=kind, device=device)
            _replace(places, data)
            reads += zip(match.theirs, match.views(data), strict=True)
    if report.mismatched and not ignore_mismatched:
        raise _mismatch(report)
    _check_missing(model, [name for name in fresh if name not in matches], owners, report)
    if strict and not report.clean:
        raise CheckpointError(
            f"{report.source} has no trained head for {type(model).__name__}, it lacks {some(report.missing, 5)}: "
            f"name a checkpoint that was trained for this task."
        )
    file.read_many(reads)
    _fill_buffers(model, device)
    _initialise(model, set(fresh))
    for module in model.modules():
        module.initialised = True  # type: ignore[assignment]
    _account(plan, matches, owners, ties(model), report)
    report.parameters = model.num_parameters()


def wanted_dtype(asked: torch.dtype | str | None, file: Checkpoint) -> torch.dtype:
    """The type that `torch_dtype` asks for: torch's default, a type, its name, or "auto", the file's first."""
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


def ties(model: nn.Module) -> dict[str, str]:
    """Names of parameters that are the same as another, and that other's name."""
    first: dict[int, str] = {}
    found = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(p), name) != name:
            found[name] = first[id(p)]
    return found


# ---- where a parameter is --------------------------------------------------------------------------------------------


def _owners(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    first: dict[int, str] = {}
    owners: dict[str, list[tuple[nn.Module, str]]] = {}
    for path, module in model.named_modules():
        for leaf, p in _kept(module):
            name = first.setdefault(id(p), f"{path}.{leaf}".lstrip("."))
            owners.setdefault(name, []).append((module, leaf))
    return owners


def _kept(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A module's own tensors that belong in a file: parameters, and buffers unless they can be computed."""
    yield from module.named_parameters(recurse=False)
    for leaf, buffer in module.named_buffers(recurse=False):
        if leaf not in module._non_persistent_buffers_set:
            yield leaf, buffer


def _tensor(module: nn.Module, leaf: str) -> Tensor:
    found = module._parameters.get(leaf, module._buffers.get(leaf))
    assert found is not None
    return found


def _replace(places: list[tuple[nn.Module, str]], data: Tensor) -> None:
    old = _tensor(*places[0])
    if not isinstance(old, nn.Parameter):
        for module, leaf in places:
            module._buffers[leaf] = data
        return
    fresh = nn.Parameter(data, requires_grad=old.requires_grad)
    for module, leaf in places:
        module._parameters[leaf] = fresh


def _mapped(file: Checkpoint, match: Match, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """A parameter that is one tensor of the file as it stands, without a copy."""
    if match.operation is not same or device.type != "cpu" or file.dtype(match.theirs[0]) != dtype:
        return None
    return file.mapped(match.theirs[0])


def _through_ties(model: nn.Module, matches: Mapping[str, Match], owners: Owners) -> dict[str, Match]:
    """A tied parameter may be in the file under any of its names; its first name counts most."""
    known = dict(matches)
    for alias, name in ties(model).items():
        if alias in matches and name in owners:
            known.setdefault(name, matches[alias])
    return known


# ---- what the file lacks ---------------------------------------------------------------------------------------------


def _check_missing(model: "PreTrainedModel", names: list[str], owners: Owners, report: LoadReport) -> None:
    """Note new parameters of the head by the file's names; without one of the base model's there is no going on."""
    names = [name for name in names if not name.endswith(model.keys.optional)]
    theirs, _ = model.keys.names(owners, base=model.is_base)

    def file_names(ours: Iterable[str]) -> list[str]:
        return [key for name in ours for key in (theirs[name].theirs if name in theirs else (name,))]

    report.missing = file_names(names)
    inside = "" if model.is_base else f"{model.base_model_prefix}."
    needed = [n for n in owners if n.startswith(inside) and not model.keys.may_be_new(n.removeprefix(inside))]
    lost = [name for name in needed if name in set(names)]
    if lost and lost == needed:
        raise CheckpointError(
            f"{report.source} has none of the weights of a {model.config.model_type} model: it is a checkpoint of "
            f"another kind, or its names are not Hugging Face's."
        )
    if lost:
        keys = file_names(lost)
        raise CheckpointError(
            f"{report.source} lacks {len(keys)} weights that {type(model).__name__} cannot do without: "
            f"{some(keys, 5)}. The file is incomplete, or config.json describes a larger model than it holds."
        )


def _mismatch(report: LoadReport) -> CheckpointError:
    key, theirs, ours = report.mismatched[0]
    more = f" (and {len(report.mismatched) - 1} more)" if len(report.mismatched) > 1 else ""
    return CheckpointError(
        f"{key} has shape {theirs} in {report.source}, but {report.model} with this config wants {ours}{more}: correct "
        f"config.json (or the arguments given here), or start them from the seed with ignore_mismatched_sizes=True."
    )


def _fill_buffers(model: nn.Module, device: torch.device) -> None:
    """Other buffers are computed, never read: a module that has some makes them again on request."""
    for module in model.modules():
        if any(b.is_meta for b in module.buffers(recurse=False)):
            reset: Callable[[torch.device], None] = module.reset_buffers  # type: ignore[assignment]
            reset(device)
        else:  # of a module that was made before, and given
            module._buffers.update({name: b.to(device) for name, b in module.named_buffers(recurse=False)})


def _initialise(model: "PreTrainedModel", fresh: set[str]) -> None:
    """Initialise modules that have a new parameter; what such a module got from the file stays."""
    with torch.no_grad():
        for path, module in model.named_modules():
            own = {f"{path}.{leaf}".lstrip("."): p for leaf, p in _kept(module)}
            if not fresh & own.keys():
                continue
            loaded = {name: p.clone() for name, p in own.items() if name not in fresh}
            model._init_weights(module)
            for name, values in loaded.items():
                own[name].copy_(values)


def _account(
    plan: Plan, matches: Mapping[str, Match], owners: Owners, tied: Mapping[str, str], report: LoadReport
) -> None:
    """Name what was in the file and was not read."""
    read = {key for name in owners if name in matches for key in matches[name].theirs}
    dropped, unexpected = set(plan.dropped), set(plan.unclaimed)
    for name, match in plan.matches.items():
        (dropped if name in tied else unexpected).update(set(match.theirs) - read)
    for match in plan.incomplete.values():
        unexpected.update(set(match.theirs) & plan.names)
    report.dropped, report.unexpected = sorted(dropped), sorted(unexpected)
