"""What models return: named results that also read like a tuple and like a dictionary.

`outputs.logits`, `outputs["logits"]`, `outputs[0]` and `loss, logits = outputs[:2]` all work; what is None is left out
of the tuple and the dictionary. Field names and order are those of Transformers 4.6.
"""

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from polyformer.parts.buckets import BucketState
from polyformer.parts.memory import Memory
from polyformer.parts.state import State

Tensors = tuple[Tensor, ...]


class ModelOutput(OrderedDict[str, Any]):
    """Base of all results. Subclasses are dataclasses; a field is an attribute and, unless None, an entry."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        torch.utils._pytree.register_pytree_node(
            cls,
            lambda o: (list(o.values()), list(o.keys())),
            lambda values, names: cls(**dict(zip(names, values, strict=True))),
            serialized_type_name=f"polyformer.{cls.__name__}",
        )

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is not None:
                super().__setitem__(field.name, value)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setattr__(self, name: str, value: Any) -> None:
        if value is not None and name in self.keys():
            super().__setitem__(name, value)
        super().__setattr__(name, value)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __delitem__(self, key: str) -> None:
        raise TypeError(f"a {type(self).__name__} cannot lose a field; make a dict of it first: dict(outputs).")

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), dict(self.items()))

    def to_tuple(self) -> tuple[Any, ...]:
        """All fields that are not None, in order; a traced graph gets a state as plain tuples."""
        if torch.jit.is_tracing():
            return tuple(tuple(v) if isinstance(v, State | Memory | BucketState) else v for v in self.values())
        return tuple(self.values())


def _rebuild(cls: type[ModelOutput], values: dict[str, Any]) -> ModelOutput:
    return cls(**values)


@dataclass
class BaseModelOutputWithPoolingAndCrossAttentions(ModelOutput):
    """What a model without a head gives.

    last_hidden_state: (rows, length, width); zeros at padding where the layers ran on real tokens only.
    pooler_output: (rows, width), or as wide as the pooling makes it.
    past_key_values: what a decoder remembers, for its next call.
    mems: what a model with long memory remembers, (tokens, rows, width) a layer.
    past_buckets_states: what Reformer remembers, a pair a layer.
    hidden_states: of the embeddings and every layer, each (rows, length, width).
    attentions, cross_attentions: of every layer, each (rows, heads, queries, keys).
    global_attentions: of Longformer's layers, each (rows, heads, keys, global tokens).
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    past_key_values: State | None = None
    mems: Memory | None = None
    past_buckets_states: BucketState | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    global_attentions: Tensors | None = None


@dataclass
class HeadOutput(ModelOutput):
    """What a head with one set of scores gives: loss (), logits, what is remembered, and what the layers showed."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    mems: Memory | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    global_attentions: Tensors | None = None


@dataclass
class CausalLMOutputWithCrossAttentions(ModelOutput):
    """loss (), logits (rows, length, words)."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: State | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    cross_attentions: Tensors | None = None


class MaskedLMOutput(HeadOutput):
    """loss (), logits (rows, length, words)."""


@dataclass
class PreTrainingOutput(ModelOutput):
    """loss (), prediction_logits (rows, length, words), seq_relationship_logits (rows, 2)."""

    loss: Tensor | None = None
    prediction_logits: Tensor | None = None
    seq_relationship_logits: Tensor | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


class NextSentencePredictorOutput(HeadOutput):
    """loss (), logits (rows, 2): the second follows the first, or does not."""


class ReplacedTokenOutput(HeadOutput):
    """loss (), logits (rows, length): above 0 where a token seems to be replaced."""


class SequenceClassifierOutput(HeadOutput):
    """loss (), logits (rows, labels)."""


@dataclass
class SequenceClassifierOutputWithPast(ModelOutput):
    """loss (), logits (rows, labels), and what a decoder remembers."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: State | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


class MultipleChoiceModelOutput(HeadOutput):
    """loss (), logits (rows, choices)."""


class TokenClassifierOutput(HeadOutput):
    """loss (), logits (rows, length, labels)."""


@dataclass
class DoubleHeadsModelOutput(ModelOutput):
    """loss () of the words and logits (rows, choices, length, words); mc_loss () and mc_logits (rows, choices).

    Rows and choices are one axis of what the layers showed, save of the last hidden states, as in Transformers 4.
    """

    loss: Tensor | None = None
    mc_loss: Tensor | None = None
    logits: Tensor | None = None
    mc_logits: Tensor | None = None
    past_key_values: State | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


@dataclass
class AdaptiveLMOutput(ModelOutput):
    """What a language model with an adaptive softmax gives.

    losses: (rows, length - 1) of given labels, each word's minus log-probability; as Transformers 4 has them, cluster
        by cluster, and in the end zeros for the words that do not count.
    prediction_scores: (rows, length, words) log-probabilities; () beside losses.
    """

    losses: Tensor | None = None
    prediction_scores: Tensor | tuple[()] | None = None
    mems: Memory | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None

    @property
    def logits(self) -> Tensor | tuple[()] | None:
        """The scores, under their usual name."""
        return self.prediction_scores

    @property
    def loss(self) -> Tensor | None:
        """Mean of the losses of the words that count, (); a word that is certain, of loss 0, is taken for none."""
        return None if self.losses is None else self.losses.sum() / (self.losses != 0).sum().clamp(min=1)


@dataclass
class DPREncoderOutput(ModelOutput):
    """pooler_output (rows, width): the vector of each text."""

    pooler_output: Tensor
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


@dataclass
class DPRReaderOutput(ModelOutput):
    """start_logits and end_logits (rows, length), at the type's lowest value at padding; relevance_logits (rows,)."""

    start_logits: Tensor
    end_logits: Tensor
    relevance_logits: Tensor
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


@dataclass
class QuestionAnsweringModelOutput(ModelOutput):
    """loss (), start_logits and end_logits (rows, length), at the type's lowest value at padding."""

    loss: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    mems: Memory | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    global_attentions: Tensors | None = None


@dataclass
class SpanBeamsOutput(ModelOutput):
    """loss () of given spans; without these, the best spans of each row (parts/spans.py).

    start_top_log_probs, start_top_index: (rows, starts) probabilities, so called, and places, the best first.
    end_top_log_probs, end_top_index: (rows, ends * starts), given the start: the best end of every start first.
    cls_logits: (rows,), above 0 where there seems to be no answer.
    """

    loss: Tensor | None = None
    start_top_log_probs: Tensor | None = None
    start_top_index: Tensor | None = None
    end_top_log_probs: Tensor | None = None
    end_top_index: Tensor | None = None
    cls_logits: Tensor | None = None
    mems: Memory | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


@dataclass
class Seq2SeqModelOutput(ModelOutput):
    """What an encoder-decoder without a head gives.

    last_hidden_state: (rows, decoder length, width), the decoder's; encoder_last_hidden_state: (rows, length, width).
    past_key_values: what the decoder remembers, the projected encoder states too.
    cross_attentions: of every decoder layer, each (rows, heads, decoder length, length).
    """

    last_hidden_state: Tensor
    past_key_values: State | None = None
    decoder_hidden_states: Tensors | None = None
    decoder_attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: Tensors | None = None
    encoder_attentions: Tensors | None = None


@dataclass
class Seq2SeqLMOutput(ModelOutput):
    """loss (), logits (rows, decoder length, words), and what the model without a head gives."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: State | None = None
    decoder_hidden_states: Tensors | None = None
    decoder_attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: Tensors | None = None
    encoder_attentions: Tensors | None = None


@dataclass
class Seq2SeqSequenceClassifierOutput(Seq2SeqLMOutput):
    """loss (), logits (rows, labels), and what the model without a head gives."""


@dataclass
class Seq2SeqQuestionAnsweringModelOutput(ModelOutput):
    """loss (), start_logits and end_logits (rows, decoder length), at the type's lowest value at padding."""

    loss: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    past_key_values: State | None = None
    decoder_hidden_states: Tensors | None = None
    decoder_attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: Tensors | None = None
    encoder_attentions: Tensors | None = None


@dataclass
class RetrievAugLMOutput(ModelOutput):
    """What RAG gives before it sums over passages.

    logits: (rows * passages, decoder length, words), the generator's after each passage.
    doc_scores: (rows, passages), how near the passages are to the question.
    retrieved_doc_embeds (rows, passages, width), retrieved_doc_ids (rows, passages), context_input_ids and
        context_attention_mask (rows * passages, length): what was retrieved, where that is wanted.
    question_...: of the question encoder, its vectors (rows, width) being question_encoder_last_hidden_state.
    generator_...: of the generator's encoder and decoder.
    """

    logits: Tensor
    doc_scores: Tensor
    past_key_values: State | None = None
    retrieved_doc_embeds: Tensor | None = None
    retrieved_doc_ids: Tensor | None = None
    context_input_ids: Tensor | None = None
    context_attention_mask: Tensor | None = None
    question_encoder_last_hidden_state: Tensor | None = None
    question_enc_hidden_states: Tensors | None = None
    question_enc_attentions: Tensors | None = None
    generator_enc_last_hidden_state: Tensor | None = None
    generator_enc_hidden_states: Tensors | None = None
    generator_enc_attentions: Tensors | None = None
    generator_dec_hidden_states: Tensors | None = None
    generator_dec_attentions: Tensors | None = None
    generator_cross_attentions: Tensors | None = None


@dataclass
class RetrievAugLMMarginOutput(ModelOutput):
    """loss, (rows,) or with reduce_loss (), logits, of RAG-Token with do_marginalize (rows, decoder length, words), and
    what RAG gives before it sums over passages."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    doc_scores: Tensor | None = None
    past_key_values: State | None = None
    retrieved_doc_embeds: Tensor | None = None
    retrieved_doc_ids: Tensor | None = None
    context_input_ids: Tensor | None = None
    context_attention_mask: Tensor | None = None
    question_encoder_last_hidden_state: Tensor | None = None
    question_enc_hidden_states: Tensors | None = None
    question_enc_attentions: Tensors | None = None
    generator_enc_last_hidden_state: Tensor | None = None
    generator_enc_hidden_states: Tensors | None = None
    generator_enc_attentions: Tensors | None = None
    generator_dec_hidden_states: Tensors | None = None
    generator_dec_attentions: Tensors | None = None
    generator_cross_attentions: Tensors | None = None
