"""Encoder-decoders: how the two halves are called, and the task that writes a text for a source.

    input_ids -> encoder -> states of the source --------------------+
                                                                     | cross-attention
    decoder_input_ids -> decoder (its own earlier tokens: the State) +-> states of the target -> words

The stacks themselves are in each architecture's file; here is only the wiring that BART, Marian, T5 and their kin have
unchanged. Argument names and order are those of Transformers 4.6.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polyformer.core.config import Config
from polyformer.core.errors import ConfigError
from polyformer.core.keymap import Entry
from polyformer.core.outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    ModelOutput,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
)
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.tasks import Task, WordScores, Writes, real_tokens
from polyformer.parts.attention import per_layer
from polyformer.parts.embeddings import batch_shape, check_ids, check_length, check_width
from polyformer.parts.heads import OffsetWordHead
from polyformer.parts.layout import Layout
from polyformer.parts.losses import IGNORE, token_loss
from polyformer.parts.state import Past, State
from polyformer.parts.taps import Taps

Encoded = BaseModelOutputWithPoolingAndCrossAttentions | tuple[Any, ...]


def shift_right(labels: Tensor, start: int | None, pad: int | None) -> Tensor:
    """What a decoder reads in order to write `labels`: each token's predecessor, `start` first; (rows, length).

    Labels of -100 are read as padding.

    Raises:
        ConfigError: no `start`, or no `pad` (to put in place of -100).
    """
    if start is None or pad is None:
        missing = "decoder_start_token_id" if start is None else "pad_token_id"
        raise ConfigError(
            f"labels cannot be made the decoder's input: set config.{missing}, or give decoder_input_ids."
        )
    begun = labels.new_full((len(labels), 1), start)
    return torch.cat([begun, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORE, pad)], 1)


def begun_by(first: Tensor, ids: Tensor, mask: Tensor | None) -> Tensor:
    """A text moved to the right by one token, `first` (rows, 1) before it; what its last token was falls away.

    Args:
        ids: (rows, length) int64, padded on either side as `mask` (rows, length) says, 0 = padding.
    """
    moved = torch.cat([first, ids[:, :-1]], 1)
    if mask is None:
        return moved
    real = mask.bool()
    return torch.where(real & (real.cumsum(1) == 1), first, moved)


def check_halves(c: Config) -> None:
    """Heads share the width evenly, in either half; c has d_model, encoder_attention_heads, decoder_attention_heads."""
    for half in ("encoder", "decoder"):
        heads = getattr(c, f"{half}_attention_heads")
        if c.d_model % heads:
            raise ConfigError(f"d_model {c.d_model} is no multiple of {half}_attention_heads {heads}.")


def of_halves(rows: Iterable[Entry]) -> list[Entry]:
    """Rows of a checkpoint table that stand for the encoder and for the decoder."""
    return [(f"{half}.{row[0]}", f"{half}.{row[1]}", *row[2:]) for half in ("encoder", "decoder") for row in rows]


class Stack(PreTrainedModel):
    """One half of an encoder-decoder. It has `layers`, and `embed` whose table of token vectors is `embed.tokens`."""

    layers: nn.ModuleList
    embed: nn.Module

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed.tokens  # type: ignore[return-value]

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        self.embed.tokens = table

    def enter(
        self,
        ids: Tensor | None,
        vectors: Tensor | None,
        attention_mask: Tensor | None,
        head_mask: Tensor | None,
        attentions: bool,
        hidden_states: bool,
        *,
        state: State | None = None,
        causal: bool = False,
        packable: bool = True,
    ) -> tuple[Tensor, Layout, Taps, list[Tensor | None]]:
        """What a pass through the layers begins with: states, packed where they may be, and what goes along with them.

        The configuration has max_position_embeddings, d_model, vocab_size; the arguments are those of `forward`.

        Returns:
            the embeddings, the layout, the recorder, each layer's head mask.

        Raises:
            ValueError: too long a sequence, an id outside of the vocabulary, both or neither of ids and embeddings.
        """
        c = self.config
        rows, length = batch_shape(ids, vectors)
        past = 0 if state is None else state.length
        check_length(past + length, c.max_position_embeddings)
        check_width(vectors, c.d_model)
        check_ids(ids, c.vocab_size, "input_ids", (rows, length))
        layout = Layout.of(
            (rows, length), attention_mask, self.device, causal=causal, past=past,
            packable=packable and self.packable and not attentions and head_mask is None,
        )  # fmt: skip
        x = self.embed(layout.pack(ids), layout.positions, layout.pack(vectors))
        taps = Taps(layout, hidden_states=hidden_states, attentions=attentions)
        return x, layout, taps, per_layer(head_mask, [len(block.attn.heads) for block in self.blocks()])

    def leave(
        self, x: Tensor, taps: Taps, named: bool, *, state: State | None = None, crossed: bool = False
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """What comes out of a pass: the last layer's states, unpacked, what is remembered, what the layers showed."""
        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=taps.layout.unpack(x),
            past_key_values=state,
            hidden_states=taps.seen("hidden_states"),
            attentions=taps.seen("attentions"),
            cross_attentions=taps.seen("cross_attentions") if crossed else None,
        )
        return result if named else result.to_tuple()

    def skips(self, rate: float) -> bool:
        """Whether this pass leaves a layer out, in training, by this chance (Fan et al. 2019, arXiv 1909.11556)."""
        return self.training and rate > 0 and bool(torch.rand(()) < rate)


class DecoderStack(Stack):
    """The half that writes."""

    def recall(self, past: Past | None, use_cache: bool | None) -> State | None:
        """The state to go on from, if this call has one or is to leave one; in training only where it is asked for."""
        if past is not None:
            return State.of(past)
        c = self.config
        wanted = c.use_cache and not self.training if use_cache is None else use_cache
        recomputing = c.gradient_checkpointing and self.training
        return State.empty(len(self.layers)) if wanted and not recomputing else None


class EncoderDecoder(PreTrainedModel):
    """A backbone of two stacks, `encoder` and `decoder`, each called as a model of its own.

    shared: the table of token vectors, which both have.
    """

    shared: nn.Embedding
    encoder: PreTrainedModel
    decoder: PreTrainedModel

    def get_input_embeddings(self) -> nn.Embedding:
        return self.shared

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        self.shared = table
        self.encoder.set_input_embeddings(table)
        self.decoder.set_input_embeddings(table)

    def get_encoder(self) -> PreTrainedModel:
        return self.encoder

    def get_decoder(self) -> PreTrainedModel:
        return self.decoder

    @property
    def packable(self) -> bool:
        """Whether the encoder runs on real tokens only."""
        return self.encoder.packable

    @packable.setter
    def packable(self, value: bool) -> None:
        self.encoder.packable = self.decoder.packable = value

    def blocks(self) -> Sequence[Any]:
        """The encoder's, then the decoder's."""
        return [*self.encoder.blocks(), *self.decoder.blocks()]

    def heads_in(self, number: int) -> int:
        half = self.encoder if number < len(self.encoder.blocks()) else self.decoder
        return half.heads

    def begin(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor | None:
        """What the decoder reads where the user gives it nothing: nothing can be, unless an architecture says so."""
        return None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        decoder_head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        encoder_outputs: Encoded | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Seq2SeqModelOutput | tuple[object, ...]:
        """Read a source and, word after word, what has been written for it.

        Args:
            input_ids: (rows, length) int64 of the source, or inputs_embeds (rows, length, width) in their place.
            attention_mask: (rows, length), 0 = padding of the source.
            decoder_input_ids: (rows, target length), or decoder_inputs_embeds in their place; with past_key_values the
                new tokens alone.
            decoder_attention_mask: (rows, cached + target length), 0 = padding.
            head_mask, decoder_head_mask, cross_attn_head_mask: (heads,) or (layers, heads), a factor of every head's
                attention weights in the encoder, in the decoder, and from the decoder to the encoder.
            encoder_outputs: what the encoder gave for this source, instead of the source.
            past_key_values: what an earlier call gave back, whose tokens come before these.
            use_cache: whether to give past_key_values back; config.use_cache by default, in training no.

        Raises:
            ValueError: too long a sequence, an id outside of the vocabulary, nothing for the decoder to read.
        """
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        shows: dict[str, Any] = {"output_attentions": attentions, "output_hidden_states": hidden_states}
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = None if input_ids is None else self.begin(input_ids, attention_mask)
            if decoder_input_ids is None:
                raise ValueError(
                    "the decoder has nothing to read: give decoder_input_ids, or labels to a model that writes."
                )
            decoder_attention_mask = attention_mask if decoder_attention_mask is None else decoder_attention_mask
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, head_mask=head_mask, inputs_embeds=inputs_embeds,
                **shows, return_dict=True,
            )  # fmt: skip
        source = encoder_outputs[0]
        written = self.decoder(
            input_ids=decoder_input_ids, attention_mask=decoder_attention_mask, encoder_hidden_states=source,
            encoder_attention_mask=attention_mask, head_mask=decoder_head_mask,
            cross_attn_head_mask=cross_attn_head_mask, past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds, use_cache=use_cache, **shows, return_dict=True,
        )  # fmt: skip
        result = Seq2SeqModelOutput(
            last_hidden_state=written.last_hidden_state,
            past_key_values=written.past_key_values,
            decoder_hidden_states=written.hidden_states,
            decoder_attentions=written.attentions,
            cross_attentions=written.cross_attentions,
            encoder_last_hidden_state=source,
            encoder_hidden_states=shown_by(encoder_outputs, "hidden_states"),
            encoder_attentions=shown_by(encoder_outputs, "attentions"),
        )
        return result if named else result.to_tuple()


def shown_by(outputs: Encoded, kind: str) -> tuple[Tensor, ...] | None:
    """What the encoder's layers showed; a plain tuple of outputs is (states, hidden states, attentions)."""
    if isinstance(outputs, ModelOutput):
        return getattr(outputs, kind, None)
    at = ("hidden_states", "attentions").index(kind) + 1
    return outputs[at] if len(outputs) > at else None


class Seq2SeqTask(Task):
    """A task of an encoder-decoder."""

    def make_backbone(self, config: Config) -> PreTrainedModel:
        return self.backbone(config)

    def get_encoder(self) -> PreTrainedModel:
        return self.base_model.get_encoder()  # type: ignore[operator]

    def get_decoder(self) -> PreTrainedModel:
        return self.base_model.get_decoder()  # type: ignore[operator]

    def _resize_output(self, out: nn.Linear, rows: int) -> None:
        super()._resize_output(out, rows)
        if isinstance(head := getattr(self, "lm", None), OffsetWordHead):
            head.resize(rows)


class Seq2SeqLM(Writes, Seq2SeqTask, WordScores):
    """Writes a text that belongs to a source."""

    passes = ("past_key_values", "use_cache")
    wishes = ("logits_to_keep",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.init_weights()

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """What the decoder reads in order to write `labels`, (rows, length)."""
        return shift_right(labels, self.config.decoder_start_token_id, self.config.pad_token_id)

    def answer(
        self, inputs: dict[str, Any], labels: Tensor | None = None, logits_to_keep: int | None = None
    ) -> Seq2SeqLMOutput:
        """labels: (rows, target length), not shifted, -100 for a token that is not to be predicted; without
            decoder_input_ids the decoder reads these, shifted.
        logits_to_keep: score the words after this many last tokens only, as writing does; 0 or None = after all.
        """
        if labels is not None and not reads_targets(inputs):
            inputs = inputs | {"decoder_input_ids": self.prepare_decoder_input_ids_from_labels(labels)}
        outputs = self.base_model(**inputs, return_dict=True)
        logits = self.score_words(outputs.last_hidden_state, labels, logits_to_keep)
        loss = None if labels is None else token_loss(logits, labels, real_targets(inputs, logits.shape[1]))
        return Seq2SeqLMOutput(
            loss=loss, logits=logits, **{k: v for k, v in outputs.items() if k != "last_hidden_state"}
        )


def reads_targets(inputs: dict[str, Any]) -> bool:
    """Whether the decoder was given something to read."""
    return inputs.get("decoder_input_ids") is not None or inputs.get("decoder_inputs_embeds") is not None


def real_targets(inputs: dict[str, Any], length: int) -> Tensor | None:
    """Which tokens of the decoder in this call are no padding, (rows, length) bool; None = all.

    Where the decoder was given nothing it reads the source, moved, and its padding is that of the source.
    """
    name = "decoder_attention_mask" if reads_targets(inputs) else "attention_mask"
    return real_tokens({"attention_mask": inputs.get(name)}, length)
