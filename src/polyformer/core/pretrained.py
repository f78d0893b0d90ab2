"""The base of every model: configuration, weights from and to files, and the operations users expect of a model."""

import copy
import inspect
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from polyformer.core.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from polyformer.core.config import CONFIG_NAME, Config
from polyformer.core.errors import CheckpointError
from polyformer.core.hub import find_weights
from polyformer.core.keymap import KeyMap
from polyformer.core.loading import Hollow, InMemory, fill, ties, wanted_dtype
from polyformer.core.report import LoadReport, some
from polyformer.parts.heads import OffsetWordHead
from polyformer.parts.positions import Sinusoids
from polyformer.parts.state import Past, State

logger = logging.getLogger("polyformer")


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
    padded_because: ClassVar[str] = ""  # why an architecture cannot leave padding out
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
        fresh = self._resized(table, new_num_tokens)
        self.set_input_embeddings(fresh)
        out = self.get_output_embeddings()
        if out is not None:
            self._resize_output(out, new_num_tokens)
            self.tie_weights()
        self.config.vocab_size = new_num_tokens
        return fresh

    def _resized(self, table: nn.Embedding, rows: int) -> nn.Embedding:
        """A copy of a table with so many rows, new ones from the seed."""
        pad = table.padding_idx if table.padding_idx is None or table.padding_idx < rows else None
        fresh = nn.Embedding(rows, table.embedding_dim, pad, device=table.weight.device, dtype=table.weight.dtype)
        self._init_weights(fresh)
        _copy_rows(table.weight, fresh.weight)
        return fresh

    def _resize_output(self, out: nn.Linear, rows: int) -> None:
        fresh = nn.Linear(out.in_features, rows, out.bias is not None, device=out.weight.device, dtype=out.weight.dtype)
        self._init_weights(fresh)
        _copy_rows(out.weight, fresh.weight)
        out.weight, out.out_features = fresh.weight, rows
        if out.bias is not None:
            _copy_rows(out.bias, fresh.bias)
            out.bias = fresh.bias

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        """Remove attention heads for good: {layer: heads}, numbered as in the unpruned model; kept in the config."""
        if not self.is_base:
            return self.base_model.prune_heads(heads_to_prune)
        blocks = self.blocks()
        for number, heads in heads_to_prune.items():
            if not 0 <= number < len(blocks):
                raise ValueError(f"cannot prune layer {number}: there are layers 0 to {len(blocks) - 1}.")
            last = self.heads_in(number) - 1
            if wrong := [h for h in heads if not 0 <= h <= last]:
                raise ValueError(f"cannot prune heads {wrong} of layer {number}: it has heads 0 to {last}.")
            blocks[number].attn.prune(heads)
            known = self.config.pruned_heads.get(number, [])
            self.config.pruned_heads[number] = sorted({*known, *heads})

    @property
    def heads(self) -> int:
        """How many a layer has before any is pruned."""
        return self.config.num_attention_heads

    def heads_in(self, number: int) -> int:
        """How many the block of this number has."""
        return self.heads

    def blocks(self) -> Sequence[Any]:
        """The blocks whose self-attentions, `attn`, are pruned, in order."""
        return self.layers  # type: ignore[return-value]

    def recall(self, past: Past | None, use_cache: bool | None) -> State | None:
        """The state to go on from, if this call has one or is to leave one; in training only where it is asked for."""
        if past is not None:
            return State.of(past)
        c = self.config
        wanted = c.causal and (c.use_cache and not self.training if use_cache is None else use_cache)
        recomputing = c.gradient_checkpointing and self.training
        return State.empty(c.num_hidden_layers) if wanted and not recomputing else None

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

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise one module's own parameters as the architecture's authors did; as BERT's unless it says how."""
        if isinstance(module, nn.LayerNorm | Sinusoids | OffsetWordHead):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])

    def init_weights(self) -> None:
        """Prune and tie as the configuration says, then initialise every module that has not been yet."""
        if self.config.pruned_heads and self.is_base:
            self.prune_heads(self.config.pruned_heads)
        if self.device.type != "meta":
            for module in self.modules():
                if not getattr(module, "initialised", False):
                    self._init_weights(module)
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
        strict: bool = False,
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
            strict: raise instead of starting a head from the seed, for models that are to answer at once.
            output_loading_info: also return a dictionary of missing, unexpected and mismatched keys.
            changes: fields of the configuration to set (num_labels=3, pooling="attention", output_attentions=True), or
                further arguments of the class (add_pooling_layer=False).

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
        own = [name for name in inspect.signature(cls).parameters if name in changes]
        arguments = {name: changes.pop(name) for name in own}
        if config is None:
            config = cls.config_class.from_pretrained(name_or_path, **where, **changes)
        elif changes:
            config = copy.deepcopy(config)
            for name, value in changes.items():
                setattr(config, name, value)
        with Hollow():
            model = cls(config, **arguments)
        file: Checkpoint
        if state_dict is None:
            file = open_checkpoint(find_weights(name_or_path, **where))
        else:
            file = InMemory(model.file_names(state_dict))
        with file:
            report = LoadReport(cls.__name__, str(name_or_path), wanted_dtype(torch_dtype, file))
            fill(model, file, torch.device(device), report, ignore_mismatched=ignore_mismatched_sizes, strict=strict)
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
                cls.__name__, name_or_path, some(fresh, 8),
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

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """`load_state_dict` takes the names of Hugging Face's files too."""
        shapes = {name: tensor.shape for name, tensor in self.state_dict().items()}
        given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        if not given.keys() <= shapes.keys() and self.keys.plan(given, base=self.is_base).matches:
            for key in given:
                del state_dict[prefix + key]
            foreign = {key: value for key, value in given.items() if key not in shapes}
            ours = {key: value for key, value in given.items() if key in shapes}
            ours |= self.keys.load(foreign, shapes, base=self.is_base)
            for alias, name in ties(self).items():
                if alias not in ours and name in ours:
                    ours[alias] = ours[name]
            state_dict.update({prefix + key: value for key, value in ours.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)

    def file_names(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Tensors under the file's names, whether they come under those or ours."""
        return self.keys.save(tensors, base=self.is_base) if tensors.keys() <= self.state_dict().keys() else tensors

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
            tensors = {name: t for name, t in tensors.items() if name not in ties(self)}
        self.config.architectures = [type(self).__name__]
        if state_dict is None:
            self.config.torch_dtype = str(self.dtype).removeprefix("torch.")
        save_checkpoint(
            Path(folder), self.keys.save(tensors, base=self.is_base), safe=safe_serialization,
            max_shard_size=max_shard_size, extra_files=self.companions() | {CONFIG_NAME: self.config.to_json_string()},
        )  # fmt: skip


def _copy_rows(old: Tensor, new: Tensor) -> None:
    rows = min(old.shape[0], new.shape[0])
    with torch.no_grad():
        new[:rows] = old[:rows]


def _refuse_other_frameworks(changes: dict[str, Any]) -> None:
    for name in ("from_tf", "from_flax"):
        if changes.pop(name, False):
            raise CheckpointError(f"{name}=True: only PyTorch weights (.safetensors, .bin) are read; convert them.")
