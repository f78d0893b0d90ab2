"""Configurations: config.json is the contract, field names and defaults are Hugging Face's.

An architecture's configuration is a dataclass made with `@config`. What it does not know is kept and written back; a
slip of the pen in code (`hiden_size`) raises with the right name, and in a file is named in the load report, since real
checkpoints carry such keys.
"""

import copy
import dataclasses
import difflib
import functools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

from polyformer.core.atomic import write_all
from polyformer.core.errors import CheckpointError, ConfigError

CONFIG_NAME = "config.json"

# Fields that Transformers 4 and 5 keep in config.json for generation, other frameworks and their own books. They mean
# nothing to a model's numbers; they are kept as they are and never taken for a slip of the pen.
PASSENGERS = frozenset(
    """
    _name_or_path name_or_path transformers_version model_type architectures auto_map dtype torch_dtype torchscript
    use_bfloat16 tf_legacy_loss finetuning_task task_specific_params tokenizer_class prefix num_labels
    gradient_checkpointing attn_implementation _attn_implementation experts_implementation language
    output_past return_dict use_return_dict is_composition tie_encoder_decoder cross_attention_hidden_size
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p
    typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens bos_token_id
    eos_token_id sep_token_id decoder_start_token_id decoder eos_token_ids pad_token_ids xla_device num_hidden_groups
    directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
    classif_dropout
    """.split()
)


@dataclass(kw_only=True)
class Config:
    """What all architectures share.

    pooling: how a sequence becomes one vector (DESIGN: "cls", "attention", "mean", "max", "mean_sqrt", "last",
        "last4_cls", "weighted_layers"); None = the architecture's own way.
    id2label: names of the classes by number; `num_labels` is their count.
    extra: what the file or the caller gave beyond the fields, kept and written back.

    A composite model's configuration holds those of its parts, each in a field of its own; in a file they are objects
    with a model_type, which says their class.
    """

    model_type: ClassVar[str] = ""
    aliases: ClassVar[Mapping[str, str]] = {}  # uniform name -> this architecture's name
    parts: ClassVar[tuple[str, ...]] = ()  # fields that are configurations
    leans_on: ClassVar[str] = ""  # the part that has whatever this configuration does not know
    positional: ClassVar[tuple[str, ...]] = ()  # names of arguments by position, where these are not the fields

    return_dict: bool = True
    output_hidden_states: bool = False
    output_attentions: bool = False
    torchscript: bool = False
    torch_dtype: str | None = None
    pruned_heads: dict[int, list[int]] = field(default_factory=dict)
    tie_word_embeddings: bool = True
    is_encoder_decoder: bool = False
    is_decoder: bool = False
    add_cross_attention: bool = False
    chunk_size_feed_forward: int = 0
    gradient_checkpointing: bool = False
    pooling: str | None = None
    architectures: list[str] | None = None
    id2label: dict[int, str] = field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})
    label2id: dict[str, int] = field(default_factory=dict)
    problem_type: str | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    sep_token_id: int | None = None
    decoder_start_token_id: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = self.id2label or {0: "LABEL_0", 1: "LABEL_1"}  # files may say null
        self.id2label = {int(number): label for number, label in labels.items()}
        if set((self.label2id or {}).values()) != set(self.id2label):
            self.label2id = {label: number for number, label in self.id2label.items()}
        self.pruned_heads = {int(layer): list(heads) for layer, heads in (self.pruned_heads or {}).items()}
        self.check()

    def check(self) -> None:
        """Raise ConfigError where no model can be built; architectures add to it."""

    def check_heads(self) -> None:
        """Heads share the width evenly."""
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {self.num_attention_heads}."
            )

    def check_choice(self, name: str, known: Iterable[str]) -> None:
        """A field, unless it is None, has one of these values."""
        value = getattr(self, name)
        if value is not None and value not in known:
            raise ConfigError(f"{name} is {value!r}; there are {', '.join(known)}.")

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        if count != len(self.id2label):
            self.id2label = {i: f"LABEL_{i}" for i in range(count)}
            self.label2id = {label: i for i, label in self.id2label.items()}

    @property
    def causal(self) -> bool:
        """Whether a token sees itself and earlier ones only; architectures for which that is always so say True."""
        return self.is_decoder

    @property
    def use_return_dict(self) -> bool:
        """Whether models answer with named results; TorchScript wants tuples."""
        return self.return_dict and not self.torchscript

    def __getattr__(self, name: str) -> Any:  # only for names that are no field
        if name.startswith("__") or name == "extra":
            raise AttributeError(name)
        if name in type(self).aliases:
            return getattr(self, type(self).aliases[name])
        if name in self.extra:
            return self.extra[name]
        if self.leans_on and name != self.leans_on:
            return getattr(getattr(self, self.leans_on), name)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}{_did_you_mean(name, _field_names(self))}")

    def __setattr__(self, name: str, value: Any) -> None:
        name = type(self).aliases.get(name, name)
        if name in type(self).parts:
            value = _part(name, value)
        if name in _field_names(self) or isinstance(getattr(type(self), name, None), property):
            super().__setattr__(name, value)
        else:
            self._keep(name, value)

    def _keep(self, name: str, value: Any) -> None:
        """A value for what is no field, given in code."""
        _refuse_slip(type(self), name)
        if self.leans_on:
            setattr(getattr(self, self.leans_on), name, value)
        else:
            self.extra[name] = value

    # ---- files ----

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        subfolder: str = "",
        **changes: Any,
    ) -> Self:
        """Read config.json from a folder, a file or the hub; `changes` replace fields of it.

        Raises:
            CheckpointError: no such file, or it is not JSON.
            ConfigError: a configuration of another architecture, or one that no model can be built from.
        """
        values = read_config(
            name_or_path, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only,
            force_download=force_download, subfolder=subfolder,
        )  # fmt: skip
        return cls.from_dict(values, **changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **changes: Any) -> Self:
        """Build from what a config.json holds; `changes`, given in code, are checked for slips."""
        kind = values.get("model_type")
        if cls.model_type and kind and kind != cls.model_type:
            raise ConfigError(
                f"this is a checkpoint of model_type {kind!r}, not {cls.model_type!r}: load it with its own class, or "
                f"with AutoConfig and AutoModel, which choose it."
            )
        values = {name: value for name, value in values.items() if name != "model_type"}
        labels = values.pop("num_labels", None)
        known: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for name, value in values.items():
            name = cls.aliases.get(name, name)
            (known if name in _init_names(cls) else extra)[name] = value
        if labels is not None and "id2label" not in known:
            known["id2label"] = {i: f"LABEL_{i}" for i in range(labels)}
        known |= {cls.aliases.get(name, name): value for name, value in changes.items()}
        beyond = {name: known.pop(name) for name in list(known) if name not in _init_names(cls)}
        try:
            made = cls(**known)
        except TypeError as error:
            raise ConfigError(f"config.json does not fit {cls.__name__}: {error}.") from None
        made.extra.update(extra)
        made.num_labels = beyond.pop("num_labels", made.num_labels)
        for name, value in beyond.items():
            made._keep(name, value)
        return made

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> Self:
        return cls.from_dict(_read_json(Path(path)))

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json: the architecture's fields, shared ones unless at all defaults, the extra."""
        shared = {f.name: f for f in dataclasses.fields(Config)}
        result: dict[str, Any] = dict(self.extra)
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name == "extra" or (f.name in shared and value == _default(f) == _default(shared[f.name])):
                continue
            result[f.name] = value.to_dict() if f.name in self.parts else copy.deepcopy(value)
        if self.id2label == _default(shared["id2label"]):
            result.pop("label2id", None)
        return result | {"model_type": self.model_type}

    def update(self, values: Mapping[str, Any]) -> None:
        """Set several fields at once."""
        for name, value in values.items():
            setattr(self, name, value)

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json into the folder, made if need be."""
        write_all(folder, {CONFIG_NAME: self.to_json_string()})

    @property
    def suspects(self) -> dict[str, str]:
        """Keys of the file that look like a slip for a field: the key and the field's name."""
        found = {name: near for name in self.extra if (near := _near_miss(type(self), name))}
        for part in self.parts:
            found |= {f"{part}.{name}": f"{part}.{near}" for name, near in getattr(self, part).suspects.items()}
        return found


PretrainedConfig = Config
C = TypeVar("C", bound=Config)


@dataclass_transform()
def config(model_type: str) -> Any:
    """Class decorator of an architecture's configuration; its fields may be given by position, in their order.

    Keyword arguments that are no fields are kept in `extra`, near misses raise.
    """

    def decorate(cls: type[C]) -> type[C]:
        cls.model_type = model_type
        cls = dataclass(cls)
        plain_init: Any = cls.__init__

        @functools.wraps(plain_init)
        def init(self: C, *args: Any, num_labels: int | None = None, **values: Any) -> None:
            values = {type(self).aliases.get(name, name): value for name, value in values.items()}
            if self.positional:
                args, values = (), _named(type(self), args, values)
                num_labels = values.pop("num_labels", num_labels)
            unknown = {name: values.pop(name) for name in list(values) if name not in _init_names(type(self))}
            for name in unknown:  # before a field that is lacking for it
                _refuse_slip(type(self), name)
            if "extra" not in values:
                values["extra"] = {}
            plain_init(self, *args, **values)
            for name, value in unknown.items():
                self._keep(name, value)
            if num_labels is not None:
                self.num_labels = num_labels

        cls.__init__ = init  # type: ignore[method-assign, assignment]
        return cls

    return decorate


def read_config(name_or_path: str | os.PathLike[str], **where: Any) -> dict[str, Any]:
    """The contents of a config.json in a folder, at a path or on the hub, unchecked."""
    path = Path(name_or_path)
    if not path.is_file():
        from polyformer.core.hub import cached_file

        found = cached_file(name_or_path, CONFIG_NAME, **where)
        assert found is not None
        path = found
    return _read_json(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}): fetch or write the file again.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, not the fields of a configuration.")
    return values


def _part(name: str, value: Any) -> Config:
    """A composite's part, as it is or as a file has it."""
    if isinstance(value, Config):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is a {type(value).__name__}: it is a configuration, or the fields of one.")
    from polyformer.core.registry import config_class

    try:
        return config_class(value.get("model_type")).from_dict(value)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _named(cls: type[Config], args: tuple[Any, ...], values: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name, of which some came by position."""
    if len(args) > len(cls.positional):
        raise TypeError(f"{cls.__name__} takes {', '.join(cls.positional)} by position; name the other arguments.")
    given = dict(zip(cls.positional, args, strict=False))
    if twice := given.keys() & values.keys():
        raise TypeError(f"{cls.__name__} got {', '.join(sorted(twice))} twice, by position and by name.")
    return given | values


_INIT_NAMES: dict[type[Config], frozenset[str]] = {}


def _init_names(cls: type[Config]) -> frozenset[str]:
    """The fields of a configuration class; asked for at every access, so worked out once."""
    if cls not in _INIT_NAMES:
        _INIT_NAMES[cls] = frozenset(f.name for f in dataclasses.fields(cls))
    return _INIT_NAMES[cls]


def _field_names(made: Config) -> frozenset[str]:
    return _init_names(type(made))


def _default(f: "dataclasses.Field[Any]") -> Any:
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default


def _near_miss(cls: type[Config], name: str) -> str | None:
    if name in PASSENGERS:
        return None
    names = _init_names(cls) - {"extra"} | set(cls.aliases)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.87)
    return near[0] if near else None


def _did_you_mean(name: str, names: frozenset[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else "."


def _refuse_slip(cls: type[Config], name: str) -> None:
    if near := _near_miss(cls, name):
        raise TypeError(f"{cls.__name__} has no field {name!r}; did you mean {near!r}?")
