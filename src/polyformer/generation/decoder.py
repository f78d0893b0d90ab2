"""The one way a search talks to a model: all tokens so far in, scores of the next word out.

The decoder knows what the model has seen already and feeds it the rest, keeps its State, and follows when the search
takes other rows (beams that move, texts that have ended and leave the batch). What it asks of a model:

    outputs = model(input_ids=new tokens, attention_mask=all tokens' or None, past_key_values=state, use_cache=True)

with `outputs.logits` (rows, new tokens, words) and the state to go on from, which is any object with
`reorder(rows) -> state`, under the name that STATE_NAMES has. A model that says `causal = False`, or whose outputs have
no state, is given all tokens every time; one that takes `logits_to_keep` is asked for the last token's scores only. A
model may define, to have it otherwise:

    empty_state(capacity) -> state                 what to begin with, where `State.empty` of key-value caches is not it
    upto(length) -> state                          on the state: what it was after so many tokens (assisted decoding)
    prepare_inputs_for_generation(ids, past=, attention_mask=, use_cache=, **inputs) -> dict    its arguments for a step
    adjust_logits_during_generation(logits, cur_len=, max_length=) -> logits
"""

import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass
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
        keep_states: whether to keep the last layer's states of the newest tokens in `states`, (rows, new, width).
    """

    ids_name, mask_name, states_name = "input_ids", "attention_mask", "hidden_states"

    def __init__(
        self,
        model: nn.Module,
        real: Tensor | None,
        copies: int,
        capacity: int,
        use_cache: bool,
        inputs: Mapping[str, Any],
        show: tuple[str, ...] = (),
        keep_states: bool = False,
    ) -> None:
        self.model: Any = model
        self.capacity, self.copies, self.keep_states = capacity, copies, keep_states
        self.of_prompts = Given(
            None if real is None or bool(real.all()) else real,
            {name: value for name, value in inputs.items() if value is not None},
        )
        self.of_rows = self.of_prompts
        self.prompts: Tensor | None = None  # the prompt of each row; None = row i is of prompt i
        self.shown: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in show}
        taken = arguments(model)
        self.state_name = next((name for name in STATE_NAMES if name in taken), None)
        self.wishes = _wishes((*show, self.states_name) if keep_states else show)
        self.keeps_logits = "logits_to_keep" in taken
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
        return None if self.of_rows.real is None else ~self.of_rows.real

    def step(self, ids: Tensor) -> Tensor:
        """ids (rows, length), the tokens so far -> (rows, words), scores of the next one."""
        return self.read(ids, 1)[:, -1]

    def read(self, ids: Tensor, last: int) -> Tensor:
        """ids (rows, length), the tokens so far -> (rows, last, words), scores of what follows each of the last."""
        first = self.fed == 0 and self.copies > 1
        given = self._arguments(ids[:: self.copies] if first else ids)
        kept = {"logits_to_keep": last} if self.keeps_logits else {}
        outputs = self.model(**given, **self.wishes, **kept, return_dict=True)
        logits: Tensor = outputs.logits[:, -last:]
        shown = {name: tuple(t for t in outputs[name] if t is not None) for name in self.shown if name in outputs}
        if self.keep_states:
            new = ids.shape[1] - self.fed  # Reformer shows what it padded to as well
            self.states: Tensor = outputs[self.states_name][-1][:, :new]
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
            before = ids.shape[1] - last
            each = [adjust(t, cur_len=before + 1 + i, max_length=self.capacity) for i, t in enumerate(logits.unbind(1))]
            logits = torch.stack(each, 1) if last > 1 else each[0][:, None]
        return logits

    def reorder(self, rows: Tensor) -> None:
        """From now on row i is what row rows[i] was; rows (new rows,) int64."""
        prompts = rows if self.prompts is None else self.prompts[rows]
        if self.prompts is None or not torch.equal(prompts, self.prompts):
            self.prompts, self.of_rows = prompts, self._taken(prompts)
        if self.state is not None:
            self.state = self.state.reorder(rows)

    def keep_shown(self, rows: Tensor | None) -> None:
        """Of what the last step showed keep these rows only; None = nothing."""
        for steps in self.shown.values():
            last = steps.pop()
            if rows is not None:
                steps.append(take(last, rows))

    def back_to(self, length: int) -> None:
        """Forget the tokens after the first `length`.

        Raises:
            ValueError: the model's state cannot be cut.
        """
        if self.state is None or length >= self.fed:
            return
        if not hasattr(self.state, "upto"):
            raise ValueError(
                f"{type(self.model).__name__} cannot take back tokens that it has read: give use_cache=False, or leave "
                f"assistant_model and prompt_lookup_num_tokens out."
            )
        self.state, self.fed = self.state.upto(length), length

    def _taken(self, prompts: Tensor) -> "Given":
        """What goes with rows of these prompts."""
        return self.of_prompts.take(prompts)

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
        length, (real, inputs) = ids.shape[1], (self.of_rows.real, self.of_rows.inputs)
        mask = None if real is None else _longer(real.long(), length, 1)
        inputs = {n: _longer(v, length, v[:, -1:]) if n in PER_TOKEN else v for n, v in inputs.items()}
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
    """The decoder of an encoder-decoder; `inputs` holds `encoder_outputs` and the encoder's `attention_mask`.

    The model is called with `encoder_outputs` of one row a row. Once its State holds the projected states of the
    encoder, which beams of a prompt share, it is no longer read and comes as it is, one row a prompt.
    """

    ids_name, mask_name, states_name = "decoder_input_ids", "decoder_attention_mask", "decoder_hidden_states"

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        inputs = self.of_prompts.inputs
        outputs = inputs["encoder_outputs"]  # of which the last states are all that is read
        states = type(outputs)(last_hidden_state=outputs[0]) if isinstance(outputs, ModelOutput) else (outputs[0],)
        inputs["encoder_outputs"] = states

    def _taken(self, prompts: Tensor) -> "Given":
        if not (
            isinstance(self.state, State) and all(layer.cross.shared[0] is not None for layer in self.state.layers)
        ):
            return self.of_prompts.take(prompts)
        rest = dict(self.of_prompts.inputs)
        states = rest.pop("encoder_outputs")
        taken = Given(self.of_prompts.real, rest).take(prompts)
        taken.inputs["encoder_outputs"] = states
        return taken


@dataclass
class Given:
    """What a model is given beside the tokens.

    real: (rows, prompt length) bool, the tokens that are no padding; None = all.
    inputs: more of the model's arguments.
    """

    real: Tensor | None
    inputs: dict[str, Any]

    def take(self, rows: Tensor) -> "Given":
        inputs = {name: v if name.endswith("head_mask") else take(v, rows) for name, v in self.inputs.items()}
        return Given(take(self.real, rows), inputs)


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
