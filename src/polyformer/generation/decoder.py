"""The one way a search talks to a model: all tokens so far in, scores of the next word out.

The decoder knows what the model has seen already and feeds it the rest, keeps its State, and follows when the search
takes other rows (beams that move, texts that have ended and leave the batch). What it asks of a model:

    outputs = model(input_ids=new tokens, attention_mask=all tokens' or None, past_key_values=state, use_cache=True)

with `outputs.logits` (rows, new tokens, words) and the state to go on from, which is any object with
`reorder(rows) -> state`, under the name that STATE_NAMES has. A model that says `causal = False`, or whose outputs have
no state, is given all tokens every time; one that takes `logits_to_keep` is asked for the last token's scores only. A
model may define, to have it otherwise:

    empty_state(capacity) -> state                 what to begin with, where `State.empty` of key-value caches is not it
    prepare_inputs_for_generation(ids, past=, attention_mask=, use_cache=, **inputs) -> dict    its arguments for a step
    adjust_logits_during_generation(logits, cur_len=, max_length=) -> logits
"""

import inspect
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polyformer.core.outputs import ModelOutput
from polyformer.parts.state import State

logger = logging.getLogger("polyformer")

# what a model calls its state as an argument, and what among its outputs
STATE_NAMES = {
    "past_key_values": "past_key_values",
    "mems": "mems",
    "past_buckets_states": "past_buckets_states",
    "cache": "past_key_values",  # XLM
}
PER_TOKEN = ("token_type_ids", "langs")  # inputs that a new token continues as the last one had it
_told: set[str] = set()


def say_once(sentence: str) -> None:
    """Warn, the first time only."""
    if sentence not in _told:
        _told.add(sentence)
        logger.warning("%s", sentence)


def arguments(model: nn.Module) -> tuple[str, ...]:
    """The names of what a model's forward takes."""
    return tuple(inspect.signature(model.forward).parameters)


class Decoder:
    """A model that continues its own tokens.

    Args:
        model: with a language model head.
        real: (prompts, prompt length) bool, the tokens that are no padding; None = all.
        copies: rows that each prompt will have. The prompt itself is read once, then the state is copied.
        capacity: tokens of the longest text.
        use_cache: whether to keep a state; the answers are the same.
        inputs: more of the model's arguments, one row a prompt; None is left out.
        show: which of `attentions`, `hidden_states`, ... to keep of every step.
    """

    ids_name, mask_name = "input_ids", "attention_mask"

    def __init__(
        self,
        model: nn.Module,
        real: Tensor | None,
        copies: int,
        capacity: int,
        use_cache: bool,
        inputs: Mapping[str, Any],
        show: tuple[str, ...] = (),
    ) -> None:
        self.model: Any = model
        self.capacity, self.copies = capacity, copies
        self.real = None if real is None or bool(real.all()) else real
        self.inputs = {name: value for name, value in inputs.items() if value is not None}
        self.shown: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in show}
        taken = arguments(model)
        self.state_name = next((name for name in STATE_NAMES if name in taken), None)
        self.wishes = _wishes(show) | ({"logits_to_keep": 1} if "logits_to_keep" in taken else {})
        self.use_cache = use_cache and self.state_name is not None
        if self.use_cache and not getattr(model, "causal", True):
            self.use_cache = False
            say_once(
                f"{type(model).__name__} is not causal, so each step reads the whole text again: set is_decoder=True "
                f"in its config (XLM and FlauBERT: causal=True) if it learnt to write."
            )
        self.state: Any = self._empty_state() if self.use_cache else None
        self.fed = 0

    @property
    def padding(self) -> Tensor | None:
        """(rows, prompt length) bool; None = no row has any."""
        return None if self.real is None else ~self.real

    def step(self, ids: Tensor) -> Tensor:
        """ids (rows, length), the tokens so far -> (rows, words), scores of the next one."""
        first = self.fed == 0 and self.copies > 1
        given = self._arguments(ids[:: self.copies] if first else ids)
        outputs = self.model(**given, **self.wishes, return_dict=True)
        logits: Tensor = outputs.logits[:, -1]
        shown = {name: tuple(t for t in outputs[name] if t is not None) for name in self.shown if name in outputs}
        self._keep_state(outputs, ids.shape[1])
        if first:
            rows = torch.arange(len(logits), device=logits.device).repeat_interleave(self.copies)
            self.copies = 1
            self.reorder(rows)
            logits, shown = take(logits, rows), take(shown, rows)
        for name, tensors in shown.items():
            self.shown[name].append(tensors)
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()  # sums of log-probabilities need it
        adjust = getattr(self.model, "adjust_logits_during_generation", None)
        if adjust is not None:
            logits = adjust(logits, cur_len=ids.shape[1], max_length=self.capacity)
        return logits

    def reorder(self, rows: Tensor) -> None:
        """From now on row i is what row rows[i] was; rows (new rows,) int64."""
        self.real = take(self.real, rows)
        self.inputs = {name: v if name.endswith("head_mask") else take(v, rows) for name, v in self.inputs.items()}
        if self.state is not None:
            self.state = self.state.reorder(rows)

    def _empty_state(self) -> Any:
        if hasattr(self.model, "empty_state"):
            return self.model.empty_state(self.capacity)
        if self.state_name != "past_key_values" or hasattr(self.model, "prepare_inputs_for_generation"):
            return None  # the model makes its own
        return State.empty(_layers(self.model.config), self.capacity)

    def _keep_state(self, outputs: ModelOutput, length: int) -> None:
        if not self.use_cache:
            return
        self.state = outputs.get(STATE_NAMES[str(self.state_name)])
        if self.state is None:
            self.use_cache = False
            say_once(f"{type(self.model).__name__} keeps no state, so each step reads the whole text again.")
        else:
            self.fed = length

    def _arguments(self, ids: Tensor) -> dict[str, Any]:
        """What the model is called with, where `ids` are all tokens so far."""
        length = ids.shape[1]
        mask = None if self.real is None else _longer(self.real.long(), length, 1)
        inputs = {n: _longer(v, length, v[:, -1:]) if n in PER_TOKEN else v for n, v in self.inputs.items()}
        prepare = getattr(self.model, "prepare_inputs_for_generation", None)
        if prepare is not None:
            mask = torch.ones_like(ids) if mask is None else mask
            return dict(prepare(ids, past=self.state, attention_mask=mask, use_cache=self.use_cache, **inputs))
        inputs = {n: v[:, self.fed :] if n in PER_TOKEN else v for n, v in inputs.items()}
        inputs[self.ids_name] = ids[:, self.fed :]
        if mask is not None:
            inputs[self.mask_name] = mask
        if self.state_name is not None:
            inputs |= {self.state_name: self.state, "use_cache": self.use_cache}
        return inputs


class EncodedDecoder(Decoder):
    """The decoder of an encoder-decoder; `inputs` holds `encoder_outputs` and the encoder's `attention_mask`."""

    ids_name, mask_name = "decoder_input_ids", "decoder_attention_mask"

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        outputs = self.inputs["encoder_outputs"]  # of which the last states are all that is read
        states = type(outputs)(last_hidden_state=outputs[0]) if isinstance(outputs, ModelOutput) else (outputs[0],)
        self.inputs["encoder_outputs"] = states


def take(value: Any, rows: Tensor) -> Any:
    """The rows of a tensor, or of all tensors in a tuple, a dictionary or a ModelOutput."""
    if isinstance(value, Tensor):
        return value.index_select(0, rows)
    if isinstance(value, ModelOutput):
        return type(value)(**{name: take(part, rows) for name, part in value.items()})
    if isinstance(value, dict):
        return {name: take(part, rows) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(take(part, rows) for part in value)
    return value


def _wishes(show: tuple[str, ...]) -> dict[str, int]:
    """The arguments that ask a model for these outputs."""
    kinds = ("attentions", "hidden_states")
    return {f"output_{kind}": True for kind in kinds if any(name.endswith(kind) for name in show)}


def _longer(x: Tensor, length: int, fill: Tensor | int) -> Tensor:
    """(rows, shorter) -> (rows, length), the new columns being `fill`, (rows, 1) or a number."""
    if x.shape[1] >= length:
        return x
    new = x.new_empty(len(x), length - x.shape[1])
    return torch.cat([x, new.copy_(fill) if isinstance(fill, Tensor) else new.fill_(fill)], 1)


def _layers(config: Any) -> int:
    """Of the stack that writes."""
    own = next((n for n in ("decoder_layers", "num_decoder_layers") if n in vars(config)), "num_hidden_layers")
    return int(getattr(config, own))
