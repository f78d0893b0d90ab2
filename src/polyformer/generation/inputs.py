"""What there is to go on from: a source, prompts of any length, the model's other inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyformer.generation.config import GenerationConfig
from polyformer.generation.decoder import PER_TOKEN

Ids = Tensor | Sequence[Tensor] | Sequence[Sequence[int]]


@dataclass
class Prompts:
    """Texts to go on with, and what belongs to them.

    ids: (prompts, length), padded on the left.
    real: (prompts, length) bool, the tokens that are no padding; None = all.
    source: (prompts, source length) what an encoder read, -1 = padding.
    inputs: the model's other arguments.
    before, given: tokens between padding and prompt that belong to no answer; the prompts without them.
    """

    ids: Tensor
    real: Tensor | None
    inputs: dict[str, Any]
    source: Tensor | None = None
    before: int = 0
    given: Tensor | None = None

    @property
    def own(self) -> Tensor:
        """(prompts, length), as they come back in the answers."""
        return self.ids if self.given is None else self.given

    def alone(self, row: int) -> "Prompts":
        """One of them, without padding."""
        real = slice(None) if self.real is None else self.real[row]
        inputs = {name: v for name, v in self.inputs.items() if v is not None}
        for name, value in inputs.items():
            if not name.endswith("head_mask"):
                inputs[name] = one_row(value, row)[:, real] if name in PER_TOKEN else one_row(value, row)
        source = None if self.source is None else self.source[row : row + 1]
        return Prompts(self.ids[row : row + 1][:, real], None, inputs, source)


def one_row(value: Any, row: int) -> Any:
    """Of tensors that have one for each prompt."""
    if isinstance(value, Tensor):
        return value[row : row + 1]
    if isinstance(value, dict):
        return type(value)(**{name: one_row(part, row) for name, part in value.items()})
    return tuple(one_row(part, row) for part in value) if isinstance(value, tuple) else value


def read_prompts(
    model: Any,
    ids: Ids | None,
    mask: Tensor | None,
    o: GenerationConfig,
    inputs: dict[str, Any],
    before: Sequence[int] | Tensor | None = None,
) -> Prompts:
    """What a user gave, in order.

    Args:
        ids: (prompts, length), padded on either side, or a list of prompts of any length.
        before: (tokens,) that go before every prompt.
    """
    if model.config.is_encoder_decoder:
        if before is not None:
            raise ValueError("prefix_ids go before prompts; this model reads a source: put them into input_ids.")
        return _encoded(model, ids, mask, o, inputs)
    if ids is None:
        ids = _begin(o.bos_token_id, 1, model, "there is no prompt: give input_ids, or a bos_token_id to begin with.")
    ids, real = _rectangle(ids, mask, o, model, left=True)
    tokens = {name: v for name, v in inputs.items() if name in PER_TOKEN}
    for name, value in tokens.items():
        tokens[name] = value if isinstance(value, Tensor) else _pad(value, 0, ids.device, left=True)[0]
    if real is not None and not bool(real[:, -1].all()):
        ids, real, *moved = (_to_the_left(x, real) for x in (ids, real, *tokens.values()))
        tokens = dict(zip(tokens, moved, strict=True))
    prompts = Prompts(ids, real, {**inputs, **tokens})
    return prompts if before is None else _after(torch.as_tensor(before, device=ids.device), prompts)


def _after(before: Tensor, p: Prompts) -> Prompts:
    """The same prompts with tokens before each."""
    count = len(before)
    real = torch.ones_like(p.ids, dtype=torch.bool) if p.real is None else p.real
    begin = (real.cumsum(1) == 0).sum(1, keepdim=True)  # where a prompt begins
    place = torch.arange(count + p.ids.shape[1], device=p.ids.device) - begin
    inside = (place >= 0) & (place < count)
    ids = torch.cat([p.ids[:, :1].expand(-1, count), p.ids], 1)
    ids = torch.where(inside, before[place.clamp(0, count - 1)], ids)
    real = inside | (place >= count) & torch.cat([real.new_ones(len(real), count), real], 1)
    inputs = {n: torch.cat([v[:, :1].expand(-1, count), v], 1) if n in PER_TOKEN else v for n, v in p.inputs.items()}
    return Prompts(ids, real, inputs, p.source, count, p.ids)


def _encoded(model: Any, ids: Ids | None, mask: Tensor | None, o: GenerationConfig, inputs: dict[str, Any]) -> Prompts:
    """The same for an encoder-decoder, whose source is read here."""
    inputs = dict(inputs)
    outputs = inputs.pop("encoder_outputs", None)
    source = None
    if ids is None and outputs is None:
        ids = _begin(o.bos_token_id, 1, model, "there is no source: give input_ids, encoder_outputs or a bos_token_id.")
    if ids is not None:
        ids, real = _rectangle(ids, mask, o, model, left=False)
        mask = None if real is None else real.long()
        source = ids if real is None else ids.masked_fill(~real, -1)
    if outputs is None:
        wishes = {f"output_{kind}": True for kind in ("attentions", "hidden_states") if getattr(o, f"output_{kind}")}
        outputs = model.get_encoder()(input_ids=ids, attention_mask=mask, return_dict=True, **wishes)
    prompts = outputs[0].shape[0]
    start = o.bos_token_id if o.decoder_start_token_id is None else o.decoder_start_token_id
    begun = inputs.pop("decoder_input_ids", None)
    if begun is None:
        begun = _begin(start, prompts, model, "the decoder cannot begin: give decoder_start_token_id or bos_token_id.")
    begun_mask = inputs.pop("decoder_attention_mask", None)
    real = None if begun_mask is None else begun_mask.bool()
    if real is not None and not bool(real[:, -1].all()):
        begun, real = _to_the_left(begun, real), _to_the_left(real, real)
    return Prompts(begun, real, {**inputs, "encoder_outputs": outputs, "attention_mask": mask}, source)


def _begin(token: int | None, rows: int, model: Any, otherwise: str) -> Tensor:
    if token is None:
        raise ValueError(otherwise)
    return torch.full((rows, 1), token, dtype=torch.int64, device=model.device)


def _rectangle(
    ids: Ids, mask: Tensor | None, o: GenerationConfig, model: Any, left: bool
) -> tuple[Tensor, Tensor | None]:
    """Token ids (prompts, length), and which of them are no padding; None = all."""
    if isinstance(ids, Tensor):
        return ids, _real(ids, mask, o)
    if mask is not None:
        raise ValueError("a list of prompts says itself how long each is: leave attention_mask out.")
    padded, real = _pad(ids, 0 if o.pad_token_id is None else o.pad_token_id, model.device, left)
    return padded, None if bool(real.all()) else real


def _pad(rows: Sequence[Any], pad: int, device: torch.device, left: bool) -> tuple[Tensor, Tensor]:
    """Rows of any length -> (rows, length), and which of it they are."""
    texts = [torch.as_tensor(row, device=device) for row in rows]
    if not texts or any(text.dim() != 1 or not len(text) or text.is_floating_point() for text in texts):
        raise ValueError("a list of prompts holds one list, or 1-d tensor, of at least one token id for each.")
    longest = max(map(len, texts))
    padded = torch.full((len(texts), longest), pad, dtype=torch.int64, device=device)
    real = torch.zeros_like(padded, dtype=torch.bool)
    for row, mine, text in zip(padded, real, texts, strict=True):
        place = slice(longest - len(text), None) if left else slice(len(text))
        row[place], mine[place] = text, True
    return padded, real


def _to_the_left(x: Tensor, real: Tensor) -> Tensor:
    """(rows, length) with the padding at the end of each row at its beginning."""
    length = real.shape[1]
    trailing = (real.flip(1).cumsum(1) == 0).sum(1, keepdim=True)
    return x.gather(1, (torch.arange(length, device=x.device) - trailing) % length)


def _real(ids: Tensor, mask: Tensor | None, o: GenerationConfig) -> Tensor | None:
    """Which tokens are no padding, (rows, length) bool; None = all."""
    if ids.dim() != 2 or not ids.shape[0] or not ids.shape[1] or ids.is_floating_point():
        raise ValueError(
            f"input_ids holds {str(ids.dtype).removeprefix('torch.')} of shape {tuple(ids.shape)}, but token ids of "
            f"shape (prompts, length), at least one of each, were expected."
        )
    if mask is not None:
        if mask.shape != ids.shape:
            raise ValueError(
                f"attention_mask has shape {tuple(mask.shape)}, but input_ids {tuple(ids.shape)}: make them alike."
            )
        return mask.bool()
    if o.pad_token_id is None or o.pad_token_id in o.eos_ids:
        return None
    real = ids != o.pad_token_id
    return None if bool(real.all()) else real
