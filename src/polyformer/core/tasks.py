"""The task classes, written once: what is read of a backbone, the head on top, the loss.

An architecture makes one with a line: `class BertForTokenClassification(BertPreTrained, TokenClassification)`. Its
`forward` takes the backbone's arguments, in the backbone's order, and the task's targets after them.
"""

import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from polyformer.core.config import Config
from polyformer.core.outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
    MaskedLMOutput,
    ModelOutput,
    MultipleChoiceModelOutput,
    NextSentencePredictorOutput,
    PreTrainingOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from polyformer.core.pretrained import PreTrainedModel
from polyformer.parts.feedforward import activation
from polyformer.parts.heads import ClassifierHead, LMHead
from polyformer.parts.losses import cross_entropy, next_token_loss, sequence_loss, span_loss, token_loss
from polyformer.parts.pooling import Pooling

_ENCODER = ("encoder_hidden_states", "encoder_attention_mask")
_CACHE = ("past_key_values", "use_cache")
_OPTIONS = ("output_attentions", "output_hidden_states", "return_dict")


class Task(PreTrainedModel):
    """A backbone with a head. A subclass says what it reads and how it answers.

    pooled: whether the head reads the pooler.
    targets: the arguments that are labels.
    passes: arguments of the backbone, beyond an encoder's plain inputs, that go through to it.
    """

    pooled: ClassVar[bool] = False
    targets: ClassVar[tuple[str, ...]] = ("labels",)
    passes: ClassVar[tuple[str, ...]] = ()
    arguments: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.backbone(config, add_pooling_layer=self.pooled))  # type: ignore[call-arg]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "backbone"):
            signature = _signature(cls)
            cls.arguments = tuple(signature.parameters)[1:]

            def forward(self: Task, *args: Any, **kwargs: Any) -> ModelOutput | tuple[Any, ...]:
                return self._run(args, kwargs)

            forward.__signature__ = signature  # type: ignore[attr-defined]
            forward.__qualname__ = f"{cls.__name__}.forward"
            forward.__doc__ = cls.answer.__doc__
            cls.forward = forward

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModelOutput | tuple[Any, ...]:
        inputs = dict(zip(self.arguments, args, strict=False))
        if len(args) > len(self.arguments):
            raise TypeError(f"{type(self).__name__} takes {len(self.arguments)} arguments, not {len(args)}.")
        for name, value in kwargs.items():
            if name not in self.arguments or name in inputs:
                raise _wrong_argument(type(self).__name__, name, self.arguments)
            inputs[name] = value
        targets = {name: inputs.pop(name, None) for name in self.targets}
        named = inputs.pop("return_dict", None)
        named = self.config.use_return_dict if named is None else named
        result = self.answer(inputs, **targets)
        return result if named else result.to_tuple()

    def answer(self, inputs: dict[str, Any]) -> ModelOutput:
        """From the backbone's inputs and the targets to the task's output."""
        raise NotImplementedError

    def encode(self, inputs: dict[str, Any]) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """Run the backbone."""
        return self.base_model(**inputs, return_dict=True)

    @property
    def width(self) -> int:
        """Of what the head reads."""
        if not self.pooled:
            return self.config.hidden_size
        pooler = self.base_model.pooler
        assert isinstance(pooler, Pooling)
        return pooler.out_width


def real_tokens(inputs: dict[str, Any], length: int) -> Tensor | None:
    """Which of the tokens of this call are no padding, (rows, length) bool; None = all."""
    mask = inputs.get("attention_mask")
    return None if mask is None or mask.dim() != 2 else mask[:, -length:].bool()


class SequenceClassification(Task):
    """One or more labels a sequence, or numbers (config.problem_type)."""

    pooled = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.classifier = ClassifierHead(self.width, config.num_labels, config.classifier_dropout_rate)
        self.init_weights()

    def answer(self, inputs: dict[str, Any], labels: Tensor | None = None) -> SequenceClassifierOutput:
        """labels: (rows,) classes, (rows, labels) 0 or 1, or (rows,) or (rows, labels) numbers."""
        outputs = self.encode(inputs)
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else sequence_loss(logits, labels, self.config.problem_type)
        return SequenceClassifierOutput(loss, logits, outputs.hidden_states, outputs.attentions)


class MultipleChoice(Task):
    """Which of several continuations is right; inputs are (rows, choices, length)."""

    pooled = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.classifier = ClassifierHead(self.width, 1, config.classifier_dropout_rate)
        self.init_weights()

    def answer(self, inputs: dict[str, Any], labels: Tensor | None = None) -> MultipleChoiceModelOutput:
        """labels: (rows,) number of the right choice."""
        given = inputs.get("input_ids") if inputs.get("input_ids") is not None else inputs.get("inputs_embeds")
        if given is None or given.dim() < 3:
            raise ValueError("multiple choice takes inputs of shape (rows, choices, length): one row a question.")
        choices = given.shape[1]
        # (rows, choices, length, ...) -> (rows * choices, length, ...)
        flat = {
            name: value.flatten(0, 1) if torch.is_tensor(value) and name != "head_mask" else value
            for name, value in inputs.items()
        }
        outputs = self.encode(flat)
        logits = self.classifier(outputs.pooler_output).view(-1, choices)
        loss = None if labels is None else cross_entropy(logits, labels)
        return MultipleChoiceModelOutput(loss, logits, outputs.hidden_states, outputs.attentions)


class TokenClassification(Task):
    """A label a token."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.classifier = ClassifierHead(self.width, config.num_labels, config.classifier_dropout_rate)
        self.init_weights()

    def answer(self, inputs: dict[str, Any], labels: Tensor | None = None) -> TokenClassifierOutput:
        """labels: (rows, length), -100 for none."""
        outputs = self.encode(inputs)
        logits = self.classifier(outputs.last_hidden_state)
        loss = None if labels is None else token_loss(logits, labels, real_tokens(inputs, logits.shape[1]))
        return TokenClassifierOutput(loss, logits, outputs.hidden_states, outputs.attentions)


class QuestionAnswering(Task):
    """Where in the text the answer starts and ends. Padding is no answer: its logits are at the type's lowest."""

    targets = ("start_positions", "end_positions")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(self.width, 2)
        self.init_weights()

    def answer(
        self, inputs: dict[str, Any], start_positions: Tensor | None = None, end_positions: Tensor | None = None
    ) -> QuestionAnsweringModelOutput:
        """start_positions, end_positions: (rows,) tokens; one past the length is left out of the loss."""
        outputs = self.encode(inputs)
        logits = self.qa_outputs(outputs.last_hidden_state)
        real = real_tokens(inputs, logits.shape[1])
        if real is not None:
            logits = logits.masked_fill(~real[:, :, None], torch.finfo(logits.dtype).min)
        start, end = logits.unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start, end, start_positions, end_positions)
        return QuestionAnsweringModelOutput(loss, start, end, outputs.hidden_states, outputs.attentions)


class NextSentencePrediction(Task):
    """Whether the second segment follows the first (0) or is a random one (1)."""

    pooled = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.nsp = nn.Linear(self.width, 2)
        self.init_weights()

    def answer(self, inputs: dict[str, Any], labels: Tensor | None = None) -> NextSentencePredictorOutput:
        """labels: (rows,), 0 or 1."""
        outputs = self.encode(inputs)
        logits = self.nsp(outputs.pooler_output)
        loss = None if labels is None else cross_entropy(logits, labels)
        return NextSentencePredictorOutput(loss, logits, outputs.hidden_states, outputs.attentions)


class WordScores(Task):
    """What the language models share: a head whose matrix is, as a rule, the token embeddings."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.lm = LMHead(config.hidden_size, config.vocab_size, activation(config.hidden_act), norm)

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm.decoder


class MaskedLM(WordScores):
    """Which word stands at a masked place."""

    passes = _ENCODER

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.init_weights()

    def answer(self, inputs: dict[str, Any], labels: Tensor | None = None) -> MaskedLMOutput:
        """labels: (rows, length), -100 for a token that is not to be guessed."""
        outputs = self.encode(inputs)
        logits = self.lm(outputs.last_hidden_state)
        loss = None if labels is None else token_loss(logits, labels, real_tokens(inputs, logits.shape[1]))
        return MaskedLMOutput(loss, logits, outputs.hidden_states, outputs.attentions)


class Writes:
    """What a model that scores the next word can do with it.

    generation_config: how it writes unless told otherwise, from and to generation_config.json beside the weights.
    """

    config: Config
    generation_config: Any = None

    def load_companions(self, name_or_path: str | os.PathLike[str], where: Mapping[str, Any]) -> None:
        from polyformer.core.hub import cached_file
        from polyformer.generation.config import GENERATION_CONFIG_NAME, GenerationConfig

        path = cached_file(name_or_path, GENERATION_CONFIG_NAME, required=False, **where)
        if path is not None:
            self.generation_config = GenerationConfig.from_pretrained(path.parent)

    def companions(self) -> dict[str, str]:
        if self.generation_config is None:
            return {}
        from polyformer.generation.config import GENERATION_CONFIG_NAME

        return {GENERATION_CONFIG_NAME: self.generation_config.to_json_string()}

    @property
    def causal(self) -> bool:
        """Whether a token sees earlier ones only, so that their keys can be kept; always-causal models say True."""
        return self.config.is_decoder or self.config.is_encoder_decoder

    def generate(
        self,
        input_ids: Tensor | None = None,
        max_length: int | None = None,
        min_length: int | None = None,
        do_sample: bool | None = None,
        early_stopping: bool | None = None,
        num_beams: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float | None = None,
        bad_words_ids: list[list[int]] | None = None,
        bos_token_id: int | None = None,
        pad_token_id: int | None = None,
        eos_token_id: int | list[int] | None = None,
        length_penalty: float | None = None,
        no_repeat_ngram_size: int | None = None,
        encoder_no_repeat_ngram_size: int | None = None,
        num_return_sequences: int | None = None,
        max_time: float | None = None,
        decoder_start_token_id: int | None = None,
        use_cache: bool | None = None,
        num_beam_groups: int | None = None,
        diversity_penalty: float | None = None,
        prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]] | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_scores: bool | None = None,
        return_dict_in_generate: bool | None = None,
        forced_bos_token_id: int | None = None,
        forced_eos_token_id: int | None = None,
        remove_invalid_values: bool | None = None,
        *,
        attention_mask: Tensor | None = None,
        max_new_tokens: int | None = None,
        min_new_tokens: int | None = None,
        generation_config: Any = None,
        logits_processor: Iterable[Callable[[Tensor, Tensor], Tensor]] | None = None,
        stopping_criteria: Iterable[Callable[[Tensor, Tensor], bool]] | None = None,
        generator: torch.Generator | None = None,
        **inputs: Any,
    ) -> Tensor | ModelOutput:
        """Write on; `polyformer.generation.generate` says how, `GenerationConfig` what the options mean.

        `inputs` are further arguments of the model's own (token_type_ids, ...); anything else raises TypeError.
        """
        options = dict(locals())
        from polyformer.generation import generate

        model, inputs = options.pop("self"), options.pop("inputs")
        return generate(model, **options, **inputs)


class CausalLM(Writes, WordScores):
    """Which word comes next; `config.is_decoder` makes the backbone causal."""

    passes = (*_ENCODER, *_CACHE)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.init_weights()

    def answer(self, inputs: dict[str, Any], labels: Tensor | None = None) -> CausalLMOutputWithCrossAttentions:
        """labels: (rows, length), not shifted, -100 for a token that is not to be predicted."""
        if labels is not None and inputs.get("use_cache") is None:
            inputs = inputs | {"use_cache": False}
        outputs = self.encode(inputs)
        logits = self.lm(outputs.last_hidden_state)
        loss = None if labels is None else next_token_loss(logits, labels, real_tokens(inputs, logits.shape[1]))
        return CausalLMOutputWithCrossAttentions(
            loss, logits, outputs.past_key_values, outputs.hidden_states, outputs.attentions, outputs.cross_attentions
        )


class SentencePairPretraining(WordScores):
    """Masked words and a sentence-pair question at once: the pretraining of BERT."""

    pooled = True
    targets = ("labels", "next_sentence_label")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.nsp = nn.Linear(self.width, 2)
        self.init_weights()

    def answer(
        self, inputs: dict[str, Any], labels: Tensor | None = None, next_sentence_label: Tensor | None = None
    ) -> PreTrainingOutput:
        """labels: (rows, length), -100 for a token that is not to be guessed; next_sentence_label: (rows,)."""
        outputs = self.encode(inputs)
        words, pairs = self.lm(outputs.last_hidden_state), self.nsp(outputs.pooler_output)
        loss = None
        if labels is not None and next_sentence_label is not None:
            loss = token_loss(words, labels, real_tokens(inputs, words.shape[1]))
            loss = loss + cross_entropy(pairs, next_sentence_label, "next_sentence_label")
        return PreTrainingOutput(loss, words, pairs, outputs.hidden_states, outputs.attentions)


def _signature(cls: type[Task]) -> inspect.Signature:
    """The backbone's arguments, less those the task does not pass on, with the targets after the inputs."""
    given = inspect.signature(cls.backbone.forward).parameters
    kept = [p for name, p in given.items() if name not in (*_ENCODER, *_CACHE) or name in cls.passes]
    targets = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None) for name in cls.targets]
    at = next(i for i, p in enumerate(kept) if p.name in (*_CACHE, *_OPTIONS))
    return inspect.Signature([*kept[:at], *targets, *kept[at:]])


def _wrong_argument(model: str, name: str, known: tuple[str, ...]) -> TypeError:
    if name in known:
        return TypeError(f"{model} got {name} twice, by position and by name.")
    near = difflib.get_close_matches(name, known, n=1)
    return TypeError(f"{model} has no argument {name!r}" + (f"; did you mean {near[0]!r}?" if near else "."))
