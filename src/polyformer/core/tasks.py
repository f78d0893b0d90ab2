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
from polyformer.core.errors import ConfigError
from polyformer.core.outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
    MaskedLMOutput,
    ModelOutput,
    MultipleChoiceModelOutput,
    NextSentencePredictorOutput,
    PreTrainingOutput,
    QuestionAnsweringModelOutput,
    ReplacedTokenOutput,
    SequenceClassifierOutput,
    Tensors,
    TokenClassifierOutput,
)
from polyformer.core.pretrained import PreTrainedModel
from polyformer.parts.feedforward import activation
from polyformer.parts.heads import ClassifierHead, DenseHead, LMHead, Summary, SummaryHead
from polyformer.parts.losses import cross_entropy, next_token_loss, replaced_loss, sequence_loss, span_loss, token_loss
from polyformer.parts.memory import Memory
from polyformer.parts.pooling import SUMMARIES, Pooling, first_token

_ENCODER = ("encoder_hidden_states", "encoder_attention_mask")
_CACHE = ("past_key_values", "use_cache")
_LATE = (*_CACHE, "use_mems")  # after the targets
OPTIONS = ("output_attentions", "output_hidden_states", "return_dict")


class Task(PreTrainedModel):
    """A backbone with a head. A subclass says what it reads and how it answers.

    vector: whether the head reads one vector a sequence.
    pooled: whether that is the architecture's own pooler's where config.pooling names none; else the first token's.
    targets: the arguments that are labels.
    passes: arguments of the backbone, beyond an encoder's plain inputs, that go through to it.
    withheld: arguments of the backbone that the task does not have.
    order: arguments that come before all others, where the backbone's order does not hold.
    wishes: arguments of the task's own that come last.
    """

    vector: ClassVar[bool] = False
    pooled: ClassVar[bool] = True
    targets: ClassVar[tuple[str, ...]] = ("labels",)
    passes: ClassVar[tuple[str, ...]] = ()
    withheld: ClassVar[tuple[str, ...]] = ()
    order: ClassVar[tuple[str, ...]] = ()
    wishes: ClassVar[tuple[str, ...]] = ()
    arguments: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.make_backbone(config))

    def make_backbone(self, config: Config) -> PreTrainedModel:
        """The model without a head, with a pooler where this task reads one."""
        pools = self.vector and (self.pooled or config.pooling is not None)
        return self.backbone(config, add_pooling_layer=pools)  # type: ignore[call-arg]

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
        own = {name: inputs.pop(name, None) for name in (*self.targets, *self.wishes)}
        named = inputs.pop("return_dict", None)
        named = self.config.use_return_dict if named is None else named
        result = self.answer(self.understood(inputs), **own)
        return result if named else result.to_tuple()

    def understood(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The backbone's inputs; an architecture that has padding told otherwise makes an attention_mask of that."""
        return inputs

    def answer(self, inputs: dict[str, Any]) -> ModelOutput:
        """From the backbone's inputs, the targets and the wishes to the task's output."""
        raise NotImplementedError

    def encode(self, inputs: dict[str, Any]) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """Run the backbone."""
        return self.base_model(**inputs, return_dict=True)

    def read(self, outputs: BaseModelOutputWithPoolingAndCrossAttentions, inputs: dict[str, Any]) -> Tensor:
        """The vector of each sequence: the pooler's, or the first real token's where there is none; (rows, width)."""
        if outputs.pooler_output is not None:
            return outputs.pooler_output
        states = outputs.last_hidden_state
        return first_token(states, real_tokens(inputs, states.shape[1]))

    @property
    def width(self) -> int:
        """Of what the head reads."""
        pooler = getattr(self.base_model, "pooler", None)
        return pooler.out_width if isinstance(pooler, Pooling) else self.config.hidden_size

    def head(self, labels: int) -> nn.Module:
        """From what is read to so many scores; an architecture with a head of its own kind says so here."""
        return ClassifierHead(self.width, labels, self.config.classifier_dropout_rate)


def shown(
    outputs: BaseModelOutputWithPoolingAndCrossAttentions,
) -> tuple[Memory | None, Tensors | None, Tensors | None, Tensors | None]:
    """What a backbone remembers and its layers showed, in the order that the outputs of heads have it."""
    return outputs.mems, outputs.hidden_states, outputs.attentions, outputs.global_attentions


def real_tokens(inputs: dict[str, Any], length: int) -> Tensor | None:
    """Which of the tokens of this call are no padding, (rows, length) bool; None = all, as XLNet's targets are."""
    mask = inputs.get("attention_mask") if inputs.get("target_mapping") is None else None
    return None if mask is None or mask.dim() != 2 else mask[:, -length:].bool()


class Summarised(Task):
    """Reads the vector that config.summary_type names, unless config.pooling names one."""

    def read(self, outputs: BaseModelOutputWithPoolingAndCrossAttentions, inputs: dict[str, Any]) -> Tensor:
        if outputs.pooler_output is not None:
            return outputs.pooler_output
        states = outputs.last_hidden_state
        return SUMMARIES[self.config.summary_type](states, real_tokens(inputs, states.shape[1]))

    def summary(self, dense: nn.Module) -> Summary:
        """This map of what is read, between the configuration's dropouts and activation."""
        c = self.config
        act = activation(c.summary_activation or "linear")
        return Summary(dense, act, c.summary_first_dropout, c.summary_last_dropout)

    def label_summary(self, labels: int) -> Summary:
        """The summary that is the scores of so many labels themselves (XLM, FlauBERT)."""
        if not (self.config.summary_use_proj and self.config.summary_proj_to_labels):
            raise ConfigError(
                "without summary_use_proj and summary_proj_to_labels labels have no score: set both to True."
            )
        return self.summary(nn.Linear(self.width, labels))


class SequenceClassification(Task):
    """One or more labels a sequence, or numbers (config.problem_type)."""

    vector = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.classifier = self.head(config.num_labels)
        self.init_weights()

    def answer(self, inputs: dict[str, Any], labels: Tensor | None = None) -> SequenceClassifierOutput:
        """labels: (rows,) classes, (rows, labels) 0 or 1, or (rows,) or (rows, labels) numbers."""
        outputs = self.encode(inputs)
        logits = self.classifier(self.read(outputs, inputs))
        loss = None if labels is None else sequence_loss(logits, labels, self.config.problem_type)
        return SequenceClassifierOutput(loss, logits, *shown(outputs))


class MultipleChoice(Task):
    """Which of several continuations is right; inputs are (rows, choices, length), or (rows, length): one."""

    vector = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.classifier = self.head(1)
        self.init_weights()

    def answer(self, inputs: dict[str, Any], labels: Tensor | None = None) -> MultipleChoiceModelOutput:
        """labels: (rows,) number of the right choice."""
        ids, vectors = inputs.get("input_ids"), inputs.get("inputs_embeds")
        given, axes = (vectors, 4) if ids is None else (ids, 3)
        if given is None or given.dim() not in (axes - 1, axes):
            raise ValueError("multiple choice takes inputs of shape (rows, choices, length): one row a question.")
        choices, flat = 1, inputs
        if given.dim() == axes:
            choices = given.shape[1]
            # (rows, choices, length, ...) -> (rows * choices, length, ...)
            flat = {
                name: value.flatten(0, 1) if torch.is_tensor(value) and name != "head_mask" else value
                for name, value in inputs.items()
            }
        outputs = self.encode(flat)
        logits = self.classifier(self.read(outputs, flat)).view(-1, choices)
        loss = None if labels is None else cross_entropy(logits, labels)
        return MultipleChoiceModelOutput(loss, logits, *shown(outputs))


class SummaryScores(Summarised):
    """Scores that are a linear map of a summary; config.summary_use_proj: whether that has a map of its own."""

    def head(self, labels: int) -> nn.Module:
        inner = self.config.hidden_size if self.config.summary_use_proj else self.width
        dense = nn.Linear(self.width, inner) if self.config.summary_use_proj else nn.Identity()
        return SummaryHead(self.summary(dense), inner, labels)


class SummarisedChoice(SummaryScores, MultipleChoice):
    """Which of several continuations is right, by its summary."""


class TokenClassification(Task):
    """A label a token."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.classifier = self.head(config.num_labels)
        self.init_weights()

    def answer(self, inputs: dict[str, Any], labels: Tensor | None = None) -> TokenClassifierOutput:
        """labels: (rows, length), -100 for none."""
        outputs = self.encode(inputs)
        logits = self.classifier(outputs.last_hidden_state)
        loss = None if labels is None else token_loss(logits, labels, real_tokens(inputs, logits.shape[1]))
        return TokenClassifierOutput(loss, logits, *shown(outputs))


class QuestionAnswering(Task):
    """Where in the text the answer starts and ends. Padding is no answer: its logits are at the type's lowest."""

    targets = ("start_positions", "end_positions")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.qa_outputs = self.head(2)
        self.init_weights()

    def head(self, labels: int) -> nn.Module:
        return nn.Linear(self.width, labels)

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
        return QuestionAnsweringModelOutput(loss, start, end, *shown(outputs))


class NextSentencePrediction(Task):
    """Whether the second segment follows the first (0) or is a random one (1)."""

    vector = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.nsp = nn.Linear(self.width, 2)
        self.init_weights()

    def answer(self, inputs: dict[str, Any], labels: Tensor | None = None) -> NextSentencePredictorOutput:
        """labels: (rows,), 0 or 1."""
        outputs = self.encode(inputs)
        logits = self.nsp(self.read(outputs, inputs))
        loss = None if labels is None else cross_entropy(logits, labels)
        return NextSentencePredictorOutput(loss, logits, *shown(outputs))


class ReplacedTokenDetection(Task):
    """Which tokens a generator has put in place of the original ones: the pretraining of ELECTRA's discriminator."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.replaced = DenseHead(width, width, 1, activation(config.hidden_act), 0.0)
        self.init_weights()

    def answer(self, inputs: dict[str, Any], labels: Tensor | None = None) -> ReplacedTokenOutput:
        """labels: (rows, length), 1 for a replaced token, 0 for an original one, -100 for none."""
        outputs = self.encode(inputs)
        logits = self.replaced(outputs.last_hidden_state).squeeze(-1)
        loss = None if labels is None else replaced_loss(logits, labels, real_tokens(inputs, logits.shape[1]))
        return ReplacedTokenOutput(loss, logits, *shown(outputs))


class WordScores(Task):
    """What the language models share: a head whose matrix is, as a rule, the token embeddings."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.lm = self.word_head()

    def word_head(self) -> nn.Module:
        """From a token's state to the scores of all words; BERT's, unless an architecture says otherwise.

        A linear map to the words, if it ends in one, is called `decoder`.
        """
        c = self.config
        norm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
        return LMHead(c.hidden_size, c.vocab_size, activation(c.hidden_act), norm)

    def get_output_embeddings(self) -> nn.Linear | None:
        return getattr(self.lm, "decoder", None)

    def score_words(self, states: Tensor, labels: Tensor | None, keep: int | None) -> Tensor:
        """Scores of all words for every token, or the last `keep`; states (rows, length, width) -> (..., words)."""
        if keep and labels is not None:
            raise ValueError("labels are held against the scores of all tokens: leave logits_to_keep out.")
        return self.lm(states[:, -keep:] if keep else states)


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
        return MaskedLMOutput(loss, logits, *shown(outputs))


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
        """Whether a token sees earlier ones only, so that their keys can be kept."""
        return self.config.causal or self.config.is_encoder_decoder

    def generate(
        self,
        input_ids: Tensor | Sequence[Tensor] | Sequence[Sequence[int]] | None = None,
        max_length: int | None = None,
        min_length: int | None = None,
        do_sample: bool | None = None,
        early_stopping: bool | str | None = None,
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
        prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int] | Tensor] | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_scores: bool | None = None,
        return_dict_in_generate: bool | None = None,
        forced_bos_token_id: int | None = None,
        forced_eos_token_id: int | list[int] | None = None,
        remove_invalid_values: bool | None = None,
        *,
        attention_mask: Tensor | None = None,
        max_new_tokens: int | None = None,
        min_new_tokens: int | None = None,
        generation_config: Any = None,
        logits_processor: Iterable[Callable[[Tensor, Tensor], Tensor]] | None = None,
        stopping_criteria: Iterable[Callable[[Tensor, Tensor], bool | Tensor]] | None = None,
        constraints: Iterable[Any] | None = None,
        assistant_model: Any = None,
        streamer: Any = None,
        tokenizer: Any = None,
        generator: torch.Generator | None = None,
        seeds: Sequence[int] | Tensor | None = None,
        prefix_ids: Sequence[int] | Tensor | None = None,
        **inputs: Any,
    ) -> Tensor | ModelOutput:
        """Write on; `polyformer.generation.generate` says how, `GenerationConfig` what the options mean.

        `inputs` are its other fields and the model's own arguments (token_type_ids, ...); else TypeError is raised.
        """
        options = dict(locals())
        from polyformer.generation import generate

        model, inputs = options.pop("self"), options.pop("inputs")
        return generate(model, **options, **inputs)

    def compute_transition_scores(
        self,
        sequences: Tensor,
        scores: Sequence[Tensor],
        beam_indices: Tensor | None = None,
        normalize_logits: bool = False,
    ) -> Tensor:
        """What each new word of `generate` contributed, see polyformer.generation.compute_transition_scores."""
        from polyformer.generation import compute_transition_scores

        return compute_transition_scores(sequences, scores, beam_indices, normalize_logits)


class CausalLM(Writes, WordScores):
    """Which word comes next; `config.is_decoder` makes the backbone causal, if it is not anyway."""

    passes = (*_ENCODER, *_CACHE)
    wishes = ("logits_to_keep",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.init_weights()

    def answer(
        self, inputs: dict[str, Any], labels: Tensor | None = None, logits_to_keep: int | None = None
    ) -> CausalLMOutputWithCrossAttentions:
        """labels: (rows, length), not shifted, -100 for a token that is not to be predicted.

        logits_to_keep: score the words after this many last tokens only, as writing does; 0 or None = after all.
        """
        if labels is not None and inputs.get("use_cache") is None and self.config.is_decoder:
            inputs = inputs | {"use_cache": False}  # as in Transformers 4, where GPT-2 and its kin keep theirs
        outputs = self.encode(inputs)
        logits = self.score_words(outputs.last_hidden_state, labels, logits_to_keep)
        loss = None if labels is None else next_token_loss(logits, labels, real_tokens(inputs, logits.shape[1]))
        return CausalLMOutputWithCrossAttentions(
            loss, logits, outputs.past_key_values, outputs.hidden_states, outputs.attentions, outputs.cross_attentions
        )


class SentencePairPretraining(WordScores):
    """Masked words and a sentence-pair question at once: the pretraining of BERT."""

    vector = True
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
        words, pairs = self.lm(outputs.last_hidden_state), self.nsp(self.read(outputs, inputs))
        loss = None
        if labels is not None and next_sentence_label is not None:
            loss = token_loss(words, labels, real_tokens(inputs, words.shape[1]))
            loss = loss + cross_entropy(pairs, next_sentence_label, "next_sentence_label")
        return PreTrainingOutput(loss, words, pairs, outputs.hidden_states, outputs.attentions)


def _signature(cls: type[Task]) -> inspect.Signature:
    """The backbone's arguments, less those the task does not pass on, with the targets after the inputs.

    Those of the class's `order` stand first, its wishes last.
    """
    given = inspect.signature(cls.backbone.forward).parameters
    withheld = {*_ENCODER, *_CACHE, *cls.withheld} - {*cls.passes}
    kept = [p for name, p in given.items() if name not in withheld]
    targets, wishes = (
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None) for name in names]
        for names in (cls.targets, cls.wishes)
    )
    at = 1 + max(i for i, p in enumerate(kept) if p.name not in (*_LATE, *OPTIONS))
    order = ("self", *cls.order)
    places = {name: place for place, name in enumerate(order)}
    found = [*kept[:at], *targets, *kept[at:], *wishes]
    return inspect.Signature(sorted(found, key=lambda p: places.get(p.name, len(order))))


def _wrong_argument(model: str, name: str, known: tuple[str, ...]) -> TypeError:
    if name in known:
        return TypeError(f"{model} got {name} twice, by position and by name.")
    near = difflib.get_close_matches(name, known, n=1)
    return TypeError(f"{model} has no argument {name!r}" + (f"; did you mean {near[0]!r}?" if near else "."))
