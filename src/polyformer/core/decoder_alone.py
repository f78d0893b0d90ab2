"""The decoder of an encoder-decoder without its encoder: a backbone, and the task that writes with it."""

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from polyformer.core.config import Config
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions, CausalLMOutputWithCrossAttentions
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.seq2seq import DecoderStack
from polyformer.core.tasks import CausalLM, real_tokens
from polyformer.parts.losses import token_loss
from polyformer.parts.state import Past


class DecoderAlone(PreTrainedModel):
    """A backbone that is a decoder without its encoder, under the name that it has beside one."""

    decoder: DecoderStack

    def get_decoder(self) -> PreTrainedModel:
        return self.decoder

    def get_input_embeddings(self) -> nn.Embedding:
        return self.decoder.get_input_embeddings()

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        self.decoder.set_input_embeddings(table)

    @property
    def packable(self) -> bool:
        return self.decoder.packable

    @packable.setter
    def packable(self, value: bool) -> None:
        self.decoder.packable = value

    def blocks(self) -> Sequence[Any]:
        return self.decoder.blocks()

    @property
    def heads(self) -> int:
        return self.decoder.heads

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """Read a batch from left to right, as the decoder does."""
        return self.decoder(
            input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask, head_mask=head_mask,
            cross_attn_head_mask=cross_attn_head_mask, past_key_values=past_key_values, inputs_embeds=inputs_embeds,
            use_cache=use_cache, output_attentions=output_attentions, output_hidden_states=output_hidden_states,
            return_dict=return_dict,
        )  # fmt: skip


class DecoderLM(CausalLM):
    """Writes word after word with the decoder of an encoder-decoder alone."""

    def __init__(self, config: Config) -> None:
        config = copy.deepcopy(config)
        config.is_decoder, config.is_encoder_decoder = True, False
        super().__init__(config)

    def make_backbone(self, config: Config) -> PreTrainedModel:
        return self.backbone(config)

    def get_decoder(self) -> PreTrainedModel:
        return self.base_model.get_decoder()  # type: ignore[operator]

    def answer(
        self, inputs: dict[str, Any], labels: Tensor | None = None, logits_to_keep: int | None = None
    ) -> CausalLMOutputWithCrossAttentions:
        """labels: (rows, length), the word that is to come after each token (so they are shifted already, as this class
            of Transformers 4 has it), -100 for none.
        logits_to_keep: score the words after this many last tokens only, as writing does; 0 or None = after all.
        """
        outputs = self.encode(inputs)
        logits = self.score_words(outputs.last_hidden_state, labels, logits_to_keep)
        loss = None if labels is None else token_loss(logits, labels, real_tokens(inputs, logits.shape[1]))
        return CausalLMOutputWithCrossAttentions(
            loss, logits, outputs.past_key_values, outputs.hidden_states, outputs.attentions, outputs.cross_attentions
        )
