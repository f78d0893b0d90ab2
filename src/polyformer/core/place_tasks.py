"""The language model that scores the word at each place, not the next one (XLM, FlauBERT)."""

from typing import Any

import torch
from torch import Tensor, nn

from polyformer.core.config import Config
from polyformer.core.outputs import CausalLMOutputWithCrossAttentions
from polyformer.core.tasks import WordScores, Writes, real_tokens
from polyformer.parts.heads import AdaptiveWordHead, WordHead
from polyformer.parts.losses import token_loss
from polyformer.parts.state import State


class PlaceLM(Writes, WordScores):
    """Which word stands at each place: a masked one, or with config.causal whichever the words before it tell.

    It writes by guessing what a mask put after the text stands for, as Transformers 4 has it, causal or not; a causal
    one keeps its state from word to word, without the mask's.
    """

    wishes = ("logits_to_keep",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.init_weights()

    def word_head(self) -> nn.Module:
        c = self.config
        if c.asm:
            return AdaptiveWordHead(c.hidden_size, c.vocab_size, c.asm_cutoffs, c.asm_div_value)
        return WordHead(c.hidden_size, c.vocab_size)

    def resize_token_embeddings(self, new_num_tokens: int | None = None) -> nn.Embedding:
        if self.config.asm and new_num_tokens not in (None, self.config.vocab_size):
            raise ValueError(
                "the clusters of an adaptive softmax hold a fixed vocabulary: make a model with asm=False."
            )
        return super().resize_token_embeddings(new_num_tokens)

    def answer(
        self, inputs: dict[str, Any], labels: Tensor | None = None, logits_to_keep: int | None = None
    ) -> CausalLMOutputWithCrossAttentions:
        """labels: (rows, length), the word at each place, not shifted, -100 for a token that is not to be guessed.

        logits_to_keep: score the words at this many last places only, as writing does; 0 or None = at all.
        """
        outputs = self.encode(inputs)
        logits = self.score_words(outputs.last_hidden_state, labels, logits_to_keep)
        loss = None if labels is None else token_loss(logits, labels, real_tokens(inputs, logits.shape[1]))
        return CausalLMOutputWithCrossAttentions(
            loss, logits, outputs.past_key_values, outputs.hidden_states, outputs.attentions
        )

    # ---- writing ----

    def empty_state(self, capacity: int | None = None) -> State:
        """What to begin with as `cache`; with room for `capacity` tokens where that is given."""
        return State.empty(self.config.num_hidden_layers, capacity)

    def prepare_inputs_for_generation(
        self,
        ids: Tensor,
        past: State | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool = False,
        langs: Tensor | None = None,
        **inputs: Any,
    ) -> dict[str, Any]:
        """The tokens that are new, all of them without a state, and a mask after them."""
        c = self.config
        if past is not None and past.length:
            past = past.upto(past.length - 1)
        fed = 0 if past is None else past.length
        if langs is None and c.lang_id is not None:
            langs = torch.full_like(ids, c.lang_id)
        return inputs | {
            "input_ids": _with_last(ids, c.mask_token_id)[:, fed:],
            "attention_mask": None if attention_mask is None else _with_last(attention_mask, 1),
            "langs": None if langs is None else _with_last(langs, langs[:, -1:])[:, fed:],
            "cache": past,
        }


def _with_last(x: Tensor, last: Tensor | int) -> Tensor:
    """(rows, length) -> (rows, length + 1)."""
    if not isinstance(last, Tensor):
        last = x.new_full((len(x), 1), last)
    return torch.cat([x, last], 1)
