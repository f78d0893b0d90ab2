"""EncoderDecoderModel: any encoder of the library with any decoder that looks at one, both with weights from before.

Rothe, Narayan and Severyn 2020, "Leveraging Pre-trained Checkpoints for Sequence Generation Tasks", arXiv 1907.12461.
Only the decoder's cross-attention is new (and, where the two have different widths, a linear map between them); it
starts from the seed and is learnt in fine-tuning.
"""

import inspect
import os
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from polyformer.core.assemble import options_by_part, part_from_pretrained
from polyformer.core.composite import Composite, Part
from polyformer.core.config import Config, config
from polyformer.core.errors import ConfigError
from polyformer.core.keymap import KeyMap
from polyformer.core.outputs import Seq2SeqLMOutput
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.registry import task_class
from polyformer.core.seq2seq import Encoded, shift_right, shown_by
from polyformer.core.tasks import Writes
from polyformer.parts.losses import token_loss
from polyformer.parts.state import Past

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("encoder-decoder")
class EncoderDecoderConfig(Config):
    """Both parts' configurations: EncoderDecoderConfig(encoder=..., decoder=...), or from_encoder_decoder_configs.

    What is not here is asked of the decoder's: `config.vocab_size` is `config.decoder.vocab_size`; so are the ids of
    bos, eos and padding, unless they are given.

    tie_encoder_decoder: the encoder's weights are the decoder's own, where both have them.
    """

    parts: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    leans_on: ClassVar[str] = "decoder"

    encoder: Config = field(kw_only=True)
    decoder: Config = field(kw_only=True)
    is_encoder_decoder: bool = field(default=True, kw_only=True)
    tie_encoder_decoder: bool = False
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(self.decoder, name, None))
        super().__post_init__()

    @classmethod
    def from_encoder_decoder_configs(cls, encoder_config: Config, decoder_config: Config, **fields: Any) -> Self:
        """Of these two; the decoder's is told to be one, and to look at an encoder."""
        decoder_config.is_decoder, decoder_config.add_cross_attention = True, True
        return cls(encoder=encoder_config, decoder=decoder_config, **fields)

    def check(self) -> None:
        if not (self.decoder.causal and self.decoder.add_cross_attention):
            raise ConfigError(
                "the decoder does not write for an encoder: set is_decoder=True and add_cross_attention=True in its "
                "configuration, as EncoderDecoderConfig.from_encoder_decoder_configs does."
            )


# ---- the model -------------------------------------------------------------------------------------------------------


class EncoderDecoderModel(Writes, PreTrainedModel):
    """Writes a text that belongs to a source: an encoder without a head, a decoder with one for words.

    Args:
        config: of both; may be left out where both models are given.
        encoder, decoder: models from before; by default from the seed, as the configuration says.
    """

    config_class = EncoderDecoderConfig
    base_model_prefix = "encoder_decoder"

    def __init__(
        self,
        config: EncoderDecoderConfig | None = None,
        encoder: PreTrainedModel | None = None,
        decoder: PreTrainedModel | None = None,
    ) -> None:
        if config is None:
            if encoder is None or decoder is None:
                raise ValueError("give a configuration, or both an encoder and a decoder.")
            config = EncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config)
        super().__init__(config)
        c = config
        self.encoder = task_class(c.encoder.model_type, "base")(c.encoder) if encoder is None else encoder
        self.decoder = task_class(c.decoder.model_type, "causal-lm")(c.decoder) if decoder is None else decoder
        c.encoder, c.decoder = self.encoder.config, self.decoder.config
        if not self.encoder.is_base or self.encoder.config.is_encoder_decoder:
            raise TypeError(
                f"a {type(self.encoder).__name__} is no encoder: give a model without a head, say BertModel."
            )
        if "encoder_hidden_states" not in inspect.signature(self.decoder.forward).parameters:
            raise TypeError(
                f"a {type(self.decoder).__name__} cannot look at an encoder: give one that can, say BertLMHeadModel, "
                f"RobertaForCausalLM or GPT2LMHeadModel."
            )
        for module in (*self.encoder.modules(), *self.decoder.modules()):
            module.initialised = True  # from before, or by itself
        width, wanted = c.encoder.hidden_size, c.decoder.hidden_size
        self.projection = nn.Identity() if width == wanted else nn.Linear(width, wanted)
        self.takes = frozenset(inspect.signature(self.encoder.forward).parameters)
        self.init_weights()

    @classmethod
    def from_encoder_decoder_pretrained(
        cls,
        encoder_pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        decoder_pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        encoder_model: PreTrainedModel | None = None,
        decoder_model: PreTrainedModel | None = None,
        **options: Any,
    ) -> Self:
        """Put together two checkpoints, folders or names on the hub, or models that are there already.

        Args:
            options: of `from_pretrained` for either part, `encoder_...` and `decoder_...` (encoder_revision="main",
                decoder_config=..., decoder_num_labels=...); others are fields of EncoderDecoderConfig.

        Raises:
            ValueError: a part that is neither named nor given.
        """
        (for_encoder, for_decoder), own = options_by_part(
            options, ("encoder", "decoder"), own=("decoder_start_token_id",)
        )
        if encoder_model is None:
            encoder_model = part_from_pretrained(
                "encoder", encoder_pretrained_model_name_or_path, "base", for_encoder,
                is_decoder=False, add_cross_attention=False,
            )  # fmt: skip
        if decoder_model is None:
            decoder_model = part_from_pretrained(
                "decoder", decoder_pretrained_model_name_or_path, "causal-lm", for_decoder,
                is_decoder=True, add_cross_attention=True,
            )  # fmt: skip
        both = EncoderDecoderConfig.from_encoder_decoder_configs(encoder_model.config, decoder_model.config, **own)
        return cls(both, encoder_model, decoder_model).eval()

    @property
    def keys(self) -> KeyMap:  # type: ignore[override]
        """The checkpoint table, which depends on the two parts."""
        parts = [
            Part("encoder", "encoder", self.encoder.keys),
            Part("decoder", "decoder", self.decoder.keys, base=False),
        ]
        return Composite(parts, [("enc_to_dec_proj.{p}", "projection.{p}")], prefix="")

    def get_encoder(self) -> PreTrainedModel:
        return self.encoder

    def get_decoder(self) -> PreTrainedModel:
        return self.decoder

    def get_input_embeddings(self) -> nn.Embedding:
        return self.encoder.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Linear | None:
        return self.decoder.get_output_embeddings()

    def resize_token_embeddings(self, new_num_tokens: int | None = None) -> nn.Embedding:
        raise TypeError("two models, two vocabularies: call model.encoder.resize_token_embeddings or model.decoder's.")

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        raise TypeError("two models with heads: call model.encoder.prune_heads or model.decoder.prune_heads.")

    def gradient_checkpointing_enable(self) -> None:
        self.encoder.gradient_checkpointing_enable()
        self.decoder.gradient_checkpointing_enable()

    def gradient_checkpointing_disable(self) -> None:
        self.encoder.gradient_checkpointing_disable()
        self.decoder.gradient_checkpointing_disable()

    def tie_weights(self) -> None:
        """Each part's own ties, and with config.tie_encoder_decoder those between them."""
        self.encoder.tie_weights()
        self.decoder.tie_weights()
        if self.config.tie_encoder_decoder:
            _share(self.encoder, self.decoder.base_model)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Encoded | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        token_type_ids: Tensor | None = None,
        decoder_token_type_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        decoder_head_mask: Tensor | None = None,
        logits_to_keep: int | None = None,
    ) -> Seq2SeqLMOutput | tuple[object, ...]:
        """Read a source and, word after word, what has been written for it.

        Args:
            input_ids, attention_mask, token_type_ids, head_mask, inputs_embeds: as of the encoder, (rows, length).
            decoder_...: as of the decoder, (rows, target length).
            encoder_outputs: what the encoder gave for this source, instead of the source.
            past_key_values: what an earlier call gave back, whose tokens come before these.
            labels: (rows, target length), -100 for a token that is not to be predicted. Alone, they are what is to be
                written, and the decoder reads them shifted by one. With decoder_input_ids, as in Transformers 4.6, they
                are these tokens, each predicted from those before it.
            logits_to_keep: score the words after this many last tokens only.

        Raises:
            ValueError: neither a source nor encoder_outputs, nothing for the decoder to read.
        """
        named = self.config.use_return_dict if return_dict is None else return_dict
        shows: dict[str, Any] = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        if encoder_outputs is None:
            given = {
                "input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds,
                "token_type_ids": token_type_ids, "head_mask": head_mask,
            }  # fmt: skip
            encoder_outputs = self.encoder(
                **{k: v for k, v in given.items() if v is not None}, **shows, return_dict=True
            )
        begun = decoder_input_ids is not None or decoder_inputs_embeds is not None
        if not begun:
            if labels is None:
                raise ValueError("the decoder has nothing to read: give decoder_input_ids or labels.")
            start = self.config.decoder_start_token_id
            start = self.config.bos_token_id if start is None else start
            decoder_input_ids = shift_right(labels, start, self.config.pad_token_id)
        theirs = {
            "input_ids": decoder_input_ids, "attention_mask": decoder_attention_mask,
            "token_type_ids": decoder_token_type_ids, "head_mask": decoder_head_mask,
            "inputs_embeds": decoder_inputs_embeds, "past_key_values": past_key_values,
            "labels": labels if begun else None, "logits_to_keep": logits_to_keep,
        }  # fmt: skip
        source = encoder_outputs[0]
        written = self.decoder(
            **{name: value for name, value in theirs.items() if value is not None},
            encoder_hidden_states=self.projection(source), encoder_attention_mask=attention_mask,
            use_cache=False if labels is not None and use_cache is None else use_cache, **shows, return_dict=True,
        )  # fmt: skip
        loss = written.loss
        if labels is not None and not begun:
            real = None if decoder_attention_mask is None else decoder_attention_mask.bool()
            loss = token_loss(written.logits, labels, real)
        result = Seq2SeqLMOutput(
            loss=loss,
            logits=written.logits,
            past_key_values=written.past_key_values,
            decoder_hidden_states=written.hidden_states,
            decoder_attentions=written.attentions,
            cross_attentions=written.cross_attentions,
            encoder_last_hidden_state=source,
            encoder_hidden_states=shown_by(encoder_outputs, "hidden_states"),
            encoder_attentions=shown_by(encoder_outputs, "attentions"),
        )
        return result if named else result.to_tuple()


EncoderDecoderModel.backbone = EncoderDecoderModel


# ---- two parts -------------------------------------------------------------------------------------------------------


def _share(encoder: nn.Module, decoder: nn.Module) -> None:
    """Let the encoder's weights be the decoder's, wherever both have one of the same name.

    Raises:
        ConfigError: two architectures, or two sizes.
    """
    theirs, ours = dict(decoder.named_parameters()), dict(encoder.named_parameters())
    if type(encoder) is not type(decoder) or any(theirs[n].shape != ours[n].shape for n in ours.keys() & theirs.keys()):
        raise ConfigError("tie_encoder_decoder wants an encoder and a decoder of one architecture and size.")
    for path, module in encoder.named_modules():
        for name, _ in list(module.named_parameters(recurse=False)):
            if (other := theirs.get(f"{path}.{name}" if path else name)) is not None:
                setattr(module, name, other)
