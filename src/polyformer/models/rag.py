"""RAG: a question encoder finds passages, a generator writes with each of them, and the answers are summed over them.

Lewis et al. 2020, arXiv 2005.11401. RAG-Token sums over passages at every word, RAG-Sequence over whole texts. The
scores of the passages are inner products with the question's vector, through which its encoder learns.

    question -> question encoder -> vector -> retriever -> passages, scores ---------------------+
                                                 passage // question -> generator -> words, p(y|x,z) -> sum over z
"""

import inspect
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from polyformer.core.assemble import options_by_part, part_from_pretrained
from polyformer.core.composite import Composite, Part
from polyformer.core.config import Config, config
from polyformer.core.keymap import KeyMap
from polyformer.core.outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    ModelOutput,
    RetrievAugLMMarginOutput,
    RetrievAugLMOutput,
    Seq2SeqLMOutput,
)
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.registry import task_class
from polyformer.core.seq2seq import Encoded
from polyformer.core.tasks import Writes
from polyformer.parts.layout import tracing
from polyformer.parts.losses import IGNORE
from polyformer.parts.state import Past, State

TOGETHER = 8  # texts that are weighed at once

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("rag")
class RagConfig(Config):
    """Both parts' configurations: RagConfig(question_encoder=..., generator=...), or
    from_question_encoder_generator_configs.

    n_docs: passages for a question. max_combined_length: tokens of a passage and the question after it, at most.
    title_sep, doc_sep: what stands between a passage's title and text, and between that and the question.
    reduce_loss: whether the loss is the sum over rows, not one a row. label_smoothing: share of the loss that is the
        mean over all words. exclude_bos_score: whether RAG-Sequence leaves out the score of a bos that begins a target.
    do_marginalize: whether RAG-Token's logits are summed over the passages.
    do_deduplication: whether RAG-Sequence weighs a text that was written after several passages once.
    output_retrieved: whether outputs have what was retrieved.
    index_path: a folder with an index of passages.
    dataset, dataset_split, index_name, passages_path, retrieval_vector_size, retrieval_batch_size, use_dummy_dataset:
        where Transformers 4.6 finds its passages; kept and not read.
    """

    parts: ClassVar[tuple[str, ...]] = ("question_encoder", "generator")

    vocab_size: int | None = None
    is_encoder_decoder: bool = field(default=True, kw_only=True)
    pad_token_id: int | None = None
    title_sep: str = " / "
    doc_sep: str = " // "
    n_docs: int = 5
    max_combined_length: int = 300
    retrieval_vector_size: int = 768
    retrieval_batch_size: int = 8
    dataset: str = "wiki_dpr"
    dataset_split: str = "train"
    index_name: str = "compressed"
    index_path: str | None = None
    passages_path: str | None = None
    use_dummy_dataset: bool = False
    reduce_loss: bool = False
    label_smoothing: float = 0.0
    do_deduplication: bool = True
    exclude_bos_score: bool = False
    do_marginalize: bool = False
    output_retrieved: bool = False
    use_cache: bool = True
    forced_eos_token_id: int | None = None
    question_encoder: Config = field(kw_only=True)
    generator: Config = field(kw_only=True)

    def __post_init__(self) -> None:
        if self.forced_eos_token_id is None:
            self.forced_eos_token_id = getattr(self.generator, "forced_eos_token_id", None)
        super().__post_init__()

    @classmethod
    def from_question_encoder_generator_configs(
        cls, question_encoder_config: Config, generator_config: Config, **fields: Any
    ) -> Self:
        """Of these two; fields: of RagConfig."""
        return cls(question_encoder=question_encoder_config, generator=generator_config, **fields)


# ---- the model -------------------------------------------------------------------------------------------------------


class Retrieves(Protocol):
    """What finds passages, as `RagRetriever` does: gives context_input_ids and context_attention_mask (rows * passages,
    length), retrieved_doc_embeds (rows, passages, width) and doc_ids (rows, passages)."""

    def __call__(
        self,
        question_input_ids: Tensor,
        question_hidden_states: Any,
        prefix: str | None = None,
        n_docs: int | None = None,
        return_tensors: str | None = None,
    ) -> Mapping[str, Any]: ...


class Contexts(NamedTuple):
    """Passages with the question after each, as the generator reads them.

    ids, mask: (rows * passages, length). scores: (rows, passages), of the passages.
    found: what else the retriever gave; question: what the question encoder did. None where the user brought passages.
    """

    ids: Tensor | None
    mask: Tensor | None
    scores: Tensor
    found: Mapping[str, Tensor] | None = None
    question: Any = None


class RagPreTrained(PreTrainedModel):
    """What RAG's classes share: two models, each with a vocabulary of its own."""

    config_class = RagConfig
    base_model_prefix = "rag"

    @classmethod
    def from_pretrained_question_encoder_generator(
        cls,
        question_encoder_pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        generator_pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        retriever: Retrieves | None = None,
        *,
        question_encoder_model: PreTrainedModel | None = None,
        generator_model: PreTrainedModel | None = None,
        config: RagConfig | None = None,
        **options: Any,
    ) -> Self:
        """Put together two checkpoints, folders or names on the hub, or models that are there already.

        Args:
            options: of `from_pretrained` for either part, `question_encoder_...` and `generator_...`
                (generator_revision="main"); others are fields of RagConfig.

        Raises:
            ValueError: a part that is neither named nor given.
        """
        (for_question, for_generator), own = options_by_part(options, ("question_encoder", "generator"))
        if question_encoder_model is None:
            name = question_encoder_pretrained_model_name_or_path
            question_encoder_model = part_from_pretrained("question_encoder", name, "base", for_question)
        if generator_model is None:
            name = generator_pretrained_model_name_or_path
            generator_model = part_from_pretrained("generator", name, "seq2seq-lm", for_generator)
        both = (question_encoder_model.config, generator_model.config)
        made = config or RagConfig.from_question_encoder_generator_configs(*both, **own)
        return cls(made, question_encoder_model, generator_model, retriever).eval()  # type: ignore[call-arg]

    @property
    def inner(self) -> "RagModel":
        """The model without a loss."""
        return self.base_model  # type: ignore[return-value]

    @property
    def keys(self) -> KeyMap:  # type: ignore[override]
        """The checkpoint table, which depends on the two parts."""
        question, generator = self.inner.question_encoder, self.inner.generator
        parts = [
            Part("question_encoder", "question_encoder", question.keys, base=question.is_base),
            Part("generator", "generator", generator.keys, base=False),
        ]
        return Composite(parts, optional=generator.keys.optional, prefix="rag")

    def set_retriever(self, retriever: Retrieves) -> None:
        """From now on passages are found by this one."""
        self.inner.retriever = retriever

    def get_input_embeddings(self) -> nn.Embedding:
        return self.inner.generator.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Linear | None:
        return self.inner.generator.get_output_embeddings()

    def tie_weights(self) -> None:
        """Each part's own ties."""
        self.inner.question_encoder.tie_weights()
        self.inner.generator.tie_weights()

    def resize_token_embeddings(self, new_num_tokens: int | None = None) -> nn.Embedding:
        raise TypeError("two models, two vocabularies: resize those of model.question_encoder or of model.generator.")

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        raise TypeError("two models with heads: prune those of model.question_encoder or of model.generator.")

    def gradient_checkpointing_enable(self) -> None:
        self.inner.question_encoder.gradient_checkpointing_enable()
        self.inner.generator.gradient_checkpointing_enable()

    def gradient_checkpointing_disable(self) -> None:
        self.inner.question_encoder.gradient_checkpointing_disable()
        self.inner.generator.gradient_checkpointing_disable()


class RagModel(RagPreTrained):
    """A question encoder, what finds passages, and a generator that writes with each of them.

    Args:
        config: of both; may be left out where both models are given.
        question_encoder, generator: models from before; by default from the seed, as the configuration says.
        retriever: what finds passages; without one they are given.
    """

    def __init__(
        self,
        config: RagConfig | None = None,
        question_encoder: PreTrainedModel | None = None,
        generator: PreTrainedModel | None = None,
        retriever: Retrieves | None = None,
    ) -> None:
        config = _config_of(config, question_encoder, generator)
        super().__init__(config)
        c = config
        asks, writes = c.question_encoder, c.generator
        self.question_encoder = question_encoder or task_class(asks.model_type, "base")(asks)
        self.generator = generator or task_class(writes.model_type, "seq2seq-lm")(writes)
        c.question_encoder, c.generator = self.question_encoder.config, self.generator.config
        if not c.generator.is_encoder_decoder or self.generator.get_output_embeddings() is None:
            raise TypeError(
                f"a {type(self.generator).__name__} is no generator: give one that writes for a source, say "
                "BartForConditionalGeneration."
            )
        self.retriever = retriever
        for module in self.modules():
            module.initialised = True  # type: ignore[assignment]  # from before, or by itself
        self.init_weights()

    def contexts(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        context_input_ids: Tensor | None,
        context_attention_mask: Tensor | None,
        doc_scores: Tensor | None,
        *,
        n_docs: int,
        encoded: bool = False,
        **shows: bool,
    ) -> Contexts:
        """The passages that were given, or else those that the retriever finds; arguments as of `forward`."""
        if context_input_ids is None and not encoded:
            return self.find(input_ids, attention_mask, n_docs, **shows)
        if doc_scores is None:
            raise ValueError("passages have no scores: give doc_scores (rows, passages) with context_input_ids.")
        check_given(context_input_ids, doc_scores, n_docs)
        return Contexts(context_input_ids, context_attention_mask, doc_scores)

    def find(self, input_ids: Tensor | None, attention_mask: Tensor | None, n_docs: int, **shows: bool) -> Contexts:
        """Passages for questions (rows, length), scored so that the question encoder learns."""
        if self.retriever is None or input_ids is None:
            lacking = "a retriever (set_retriever)" if self.retriever is None else "input_ids, the questions"
            raise ValueError(f"passages cannot be found without {lacking}; or give context_input_ids and doc_scores.")
        question = self.question_encoder(input_ids, attention_mask=attention_mask, **shows, return_dict=True)
        vectors: Tensor = question.pooler_output
        found = self.retriever(
            input_ids, vectors.detach().float().cpu().numpy(), prefix=self.generator.config.extra.get("prefix"),
            n_docs=n_docs, return_tensors="pt",
        )  # fmt: skip
        found = {name: value.to(vectors.device) for name, value in found.items()}
        # (rows, width), (rows, passages, width) -> (rows, passages)
        scores = torch.einsum("rw,rdw->rd", vectors, found["retrieved_doc_embeds"].to(vectors.dtype))
        return Contexts(found["context_input_ids"], found["context_attention_mask"], scores, found, question)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: Encoded | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Past | None = None,
        doc_scores: Tensor | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_retrieved: bool | None = None,
        n_docs: int | None = None,
        return_dict: bool | None = None,
    ) -> RetrievAugLMOutput | tuple[object, ...]:
        """Find passages for questions, and score the words that the generator may write with each of them.

        Args:
            input_ids, attention_mask: (rows, length) questions in the question encoder's tokens, 0 = padding.
            context_input_ids, context_attention_mask: (rows * passages, context length) in their place, each passage
                with the question after it in the generator's tokens, those of a question side by side; or
                encoder_outputs, what the generator's encoder gave for these.
            doc_scores: (rows, passages) with these, inner products of the questions' and the passages' vectors.
            decoder_input_ids, decoder_attention_mask: (rows, target length).
            past_key_values: what an earlier call gave back, whose tokens come before these.
            output_retrieved: whether to give back what was retrieved.
            n_docs: passages a question, config.n_docs by default.

        Raises:
            ValueError: neither questions and a retriever nor passages and their scores; shapes that do not fit.
        """
        c = self.config
        attentions, hidden_states, named = self.options(output_attentions, output_hidden_states, return_dict)
        shows: dict[str, Any] = {"output_attentions": attentions, "output_hidden_states": hidden_states}
        docs = c.n_docs if n_docs is None else n_docs
        given = (input_ids, attention_mask, context_input_ids, context_attention_mask, doc_scores)
        contexts = self.contexts(*given, n_docs=docs, encoded=encoder_outputs is not None, **shows)
        written: Seq2SeqLMOutput = self.generator(
            input_ids=contexts.ids if encoder_outputs is None else None, attention_mask=contexts.mask,
            encoder_outputs=encoder_outputs, decoder_input_ids=_for_each(decoder_input_ids, docs),
            decoder_attention_mask=_for_each(decoder_attention_mask, docs), past_key_values=past_key_values,
            use_cache=c.use_cache if use_cache is None else use_cache, **shows, return_dict=True,
        )  # fmt: skip
        assert written.logits is not None
        tells = c.output_retrieved if output_retrieved is None else output_retrieved
        result = RetrievAugLMOutput(
            logits=written.logits,
            doc_scores=contexts.scores,
            past_key_values=written.past_key_values,
            **(retrieved(contexts) if tells and contexts.found is not None else {}),
            **({} if contexts.question is None else asked(contexts.question)),
            generator_enc_last_hidden_state=written.encoder_last_hidden_state,
            generator_enc_hidden_states=written.encoder_hidden_states,
            generator_enc_attentions=written.encoder_attentions,
            generator_dec_hidden_states=written.decoder_hidden_states,
            generator_dec_attentions=written.decoder_attentions,
            generator_cross_attentions=written.cross_attentions,
        )
        return result if named else result.to_tuple()


RagModel.backbone = RagModel


def check_given(ids: Tensor | None, scores: Tensor, n_docs: int) -> None:
    """Raise unless there are n_docs scores (rows, n_docs) and passages (rows * n_docs, length) for every question."""
    if tracing():
        return
    if scores.dim() != 2 or scores.shape[1] != n_docs:
        raise ValueError(
            f"doc_scores have shape {tuple(scores.shape)}, but (rows, {n_docs}) was expected: one a passage, "
            "of which n_docs says the number."
        )
    if ids is not None and ids.shape[0] != scores.shape[0] * n_docs:
        raise ValueError(
            f"there are {len(ids)} rows of context_input_ids and {scores.numel()} scores: give "
            f"n_docs={n_docs} rows for every question, side by side."
        )


def retrieved(contexts: Contexts) -> dict[str, Any]:
    """What was retrieved, by the names of outputs."""
    found = contexts.found or {}
    return {
        "retrieved_doc_embeds": found["retrieved_doc_embeds"],
        "retrieved_doc_ids": found["doc_ids"],
        "context_input_ids": contexts.ids,
        "context_attention_mask": contexts.mask,
    }


def asked(question: Any) -> dict[str, Any]:
    """What the question encoder gave, by the names of outputs."""
    return {
        "question_encoder_last_hidden_state": question.pooler_output,
        "question_enc_hidden_states": question.hidden_states,
        "question_enc_attentions": question.attentions,
    }


# ---- sums over passages ----------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """What is to be written after each token of the decoder, and which of it counts; (rows, length) each."""

    words: Tensor
    real: Tensor

    @classmethod
    def of(cls, labels: Tensor, pad: int | None) -> "Target":
        """From labels (rows, length), which the decoder reads: each token's successor. Padding, or -100, counts not."""
        words = torch.cat([labels[:, 1:], labels.new_full((labels.shape[0], 1), IGNORE)], 1)
        real = (words != IGNORE) if pad is None else (words != IGNORE) & (words != pad)
        return cls(words.masked_fill(~real, 0), real)

    def after_each(self, logits: Tensor, scores: Tensor, counts: Tensor | None = None) -> Tensor:
        """log p(target, passage | question), (rows, passages); counts: (rows, length) in place of `real`."""
        words, passages = by_passage(logits, scores)
        places = self.words[:, None, :, None].expand(*scores.shape, -1, 1)
        right = words.gather(-1, places)[..., 0]  # (rows, passages, length)
        return (right * (self.real if counts is None else counts)[:, None]).sum(-1) + passages


def by_passage(logits: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """log p(word | passage), (rows, passages, length, words), and log p(passage | question), (rows, passages).

    In float32 at least: sums of so many words' probabilities are beyond half precision.
    """
    kind = torch.promote_types(logits.dtype, torch.float32)
    return logits.unflatten(0, scores.shape).log_softmax(-1, dtype=kind), scores.log_softmax(-1, dtype=kind)


def summed(logits: Tensor, scores: Tensor) -> Tensor:
    """RAG-Token: log of the sum over z of p(z | x) p(word | x, z, words before); (rows, length, words)."""
    words, passages = by_passage(logits, scores)
    return (words + passages[:, :, None, None]).logsumexp(1)


# ---- checkpoint and parts --------------------------------------------------------------------------------------------


def _config_of(
    config: RagConfig | None, question_encoder: PreTrainedModel | None, generator: PreTrainedModel | None
) -> RagConfig:
    if config is not None:
        return config
    if question_encoder is None or generator is None:
        raise ValueError("give a configuration, or both a question encoder and a generator.")
    return RagConfig.from_question_encoder_generator_configs(question_encoder.config, generator.config)


def arguments(model: nn.Module) -> tuple[str, ...]:
    """The names of what a model's forward takes."""
    return tuple(inspect.signature(model.forward).parameters)


def _for_each(tokens: Tensor | None, docs: int) -> Tensor | None:
    """(rows, ...) -> (rows * passages, ...), those of a question side by side."""
    return None if tokens is None else tokens.repeat_interleave(docs, 0)


# ---- task classes ----------------------------------------------------------------------------------------------------


class RagForGeneration(Writes, RagPreTrained):
    """What both that write share: one RagModel inside."""

    def __init__(
        self,
        config: RagConfig | None = None,
        question_encoder: PreTrainedModel | None = None,
        generator: PreTrainedModel | None = None,
        retriever: Retrieves | None = None,
    ) -> None:
        config = _config_of(config, question_encoder, generator)
        super().__init__(config)
        self.rag = RagModel(config, question_encoder, generator, retriever)

    @property
    def question_encoder(self) -> PreTrainedModel:
        return self.rag.question_encoder

    @property
    def generator(self) -> PreTrainedModel:
        return self.rag.generator

    @property
    def retriever(self) -> Retrieves | None:
        return self.rag.retriever

    def get_encoder(self) -> PreTrainedModel:
        """The generator's."""
        return self.generator.get_encoder()  # type: ignore[operator]

    def get_decoder(self) -> PreTrainedModel:
        return self.generator.get_decoder()  # type: ignore[operator]

    def run(self, given: Mapping[str, Any], labels: Tensor | None) -> tuple[RetrievAugLMOutput, Target | None]:
        """What RAG gives before it sums, of the arguments `given`, and the target.

        Without decoder_input_ids the decoder reads the labels.
        """
        inputs = {name: given[name] for name in arguments(self.rag)} | {"return_dict": True}
        if labels is None:
            return self.rag(**inputs), None
        pad = self.generator.config.pad_token_id
        if inputs["decoder_input_ids"] is None:
            inputs["decoder_input_ids"] = labels.masked_fill(labels == IGNORE, 0 if pad is None else pad)
        return self.rag(**inputs | {"use_cache": False}), Target.of(labels, pad)

    def loss(self, right: Tensor, every: Tensor, words: int, reduce_loss: bool | None) -> Tensor:
        """From the log-likelihoods of the target and of all `words`, (rows,) each, to (rows,) or their sum, ()."""
        smooth = self.config.label_smoothing
        loss = -right if not smooth else -(1 - smooth) * right - smooth / words * every
        return loss.sum() if (self.config.reduce_loss if reduce_loss is None else reduce_loss) else loss

    def read(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        context_input_ids: Tensor | None,
        context_attention_mask: Tensor | None,
        doc_scores: Tensor | None,
        n_docs: int | None,
    ) -> tuple[Contexts, Tensor]:
        """The passages, and the states of the generator's encoder for them, (rows * passages, length, width)."""
        docs = self.config.n_docs if n_docs is None else n_docs
        c = self.rag.contexts(
            input_ids, attention_mask, context_input_ids, context_attention_mask, doc_scores, n_docs=docs
        )
        assert c.ids is not None
        mask = torch.ones_like(c.ids) if c.mask is None else c.mask
        states = self.get_encoder()(input_ids=c.ids, attention_mask=mask, return_dict=True).last_hidden_state
        return c._replace(mask=mask), states

    def likelihood(
        self, logits: Tensor, scores: Tensor, target: Target, uncounted: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-likelihood of the target, (rows,), and the sum of that of all words at its places, (rows,).

        logits: (rows * passages, length, words); scores: (rows, passages). uncounted: a token that does not count where
        it is the target's first; in RAG-Token all do.
        """
        raise NotImplementedError

    @property
    def bos(self) -> int | None:
        """The token that may begin a target without counting."""
        own = self.config.bos_token_id
        return self.generator.config.bos_token_id if own is None else own

    def all_begin(self, texts: Tensor) -> bool:
        """Whether all texts, (texts, length), begin with bos after what the decoder starts with."""
        return self.bos is not None and bool((texts[:, 1] == self.bos).all())

    def weigh(self, texts: Tensor, states: Tensor, mask: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihood of texts (texts, length), (texts,), and log p(text, passage | question), (texts, passages).

        states: (passages, source length, width), mask: (passages, source length), scores: (passages,), of one question.
        """
        parts = []
        uncounted = self.bos if self.all_begin(texts) else None
        for some in texts.split(TOGETHER):
            count = len(some)
            outputs = self.rag(
                encoder_outputs=(states.repeat(count, 1, 1),), context_attention_mask=mask.repeat(count, 1),
                doc_scores=scores.expand(count, -1), decoder_input_ids=some, n_docs=len(scores), use_cache=False,
                return_dict=True,
            )  # fmt: skip
            target = Target.of(some, self.generator.config.pad_token_id)
            whole, _ = self.likelihood(outputs.logits, outputs.doc_scores, target, uncounted)
            parts.append((whole, target.after_each(outputs.logits, outputs.doc_scores)))
        wholes, shares = zip(*parts, strict=True)
        return torch.cat(wholes), torch.cat(shares)

    def how_to_write(self, given: Any) -> Any:
        """The options of writing: those of this model, and of the generator's configuration the ids of tokens."""
        from polyformer.generation.config import GenerationConfig

        if given is not None or self.generation_config is not None:
            return given or self.generation_config
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        ids = {name: getattr(self.generator.config, name, None) for name in names}
        return GenerationConfig.of_model(self.config).replaced(**ids)


class RagTokenForGeneration(RagForGeneration):
    """Writes an answer; every word may rest on another passage."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: Encoded | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Past | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        doc_scores: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_retrieved: bool | None = None,
        do_marginalize: bool | None = None,
        reduce_loss: bool | None = None,
        labels: Tensor | None = None,
        n_docs: int | None = None,
        return_dict: bool | None = None,
    ) -> RetrievAugLMMarginOutput | tuple[object, ...]:
        """Score the words that may be written; the arguments of RagModel, and

        do_marginalize: whether logits are log-probabilities summed over the passages, (rows, target length, words).
        labels: (rows, target length), what the decoder reads, whose tokens but the first are to be written; padding and
            -100 are not. reduce_loss: whether the loss is their sum over the rows.
        """
        outputs, target = self.run(locals(), labels)
        loss = None
        if target is not None:
            right, every = self.likelihood(outputs.logits, outputs.doc_scores, target)
            loss = self.loss(right, every, outputs.logits.shape[-1], reduce_loss)
        if self.config.do_marginalize if do_marginalize is None else do_marginalize:
            outputs.logits = summed(outputs.logits, outputs.doc_scores)
        result = RetrievAugLMMarginOutput(loss=loss, **outputs)
        return result if (self.config.use_return_dict if return_dict is None else return_dict) else result.to_tuple()

    def likelihood(
        self, logits: Tensor, scores: Tensor, target: Target, uncounted: int | None = None
    ) -> tuple[Tensor, Tensor]:
        words = summed(logits, scores)
        right = words.gather(-1, target.words[:, :, None])[:, :, 0]
        return (right * target.real).sum(1), (words.sum(-1) * target.real).sum(1)

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        doc_scores: Tensor | None = None,
        *,
        n_docs: int | None = None,
        generation_config: Any = None,
        **options: Any,
    ) -> Tensor | ModelOutput:
        """Write answers word by word, each word's score summed over the passages.

        Questions or passages are given as to `forward`; options: as of `polyformer.generation.generate`, any search.

        Returns:
            (rows * num_return_sequences, length) int64, or an output as of `generate`.
        """
        from polyformer.generation import generate

        c, states = self.read(input_ids, attention_mask, context_input_ids, context_attention_mask, doc_scores, n_docs)
        rows, docs = c.scores.shape
        assert c.ids is not None and c.mask is not None
        # (rows * passages, length) -> (rows, passages * length), one source a row
        return generate(
            RagTokenWriter(self.generator), c.ids.reshape(rows, -1), c.mask.reshape(rows, -1),
            encoder_outputs=BaseModelOutputWithPoolingAndCrossAttentions(states.unflatten(0, (rows, docs))),
            doc_scores=c.scores, generation_config=self.how_to_write(generation_config), **options,
        )  # fmt: skip


@dataclass
class PassagesState(State):
    """The State of a generator that writes the same text after several passages at once.

    Its rows are those of the first passage, then those of the second, and so on: texts that share a question lie side
    by side and share its projected passages.
    """

    docs: int

    def reorder(self, rows: Tensor) -> "PassagesState":
        keys = self.layers[0].own.keys
        assert keys is not None
        before = len(keys) // self.docs
        # (new rows,) -> (passages * new rows,)
        each = (torch.arange(self.docs, device=rows.device)[:, None] * before + rows).flatten()
        return PassagesState([layer.reorder(each) for layer in self.layers], self.docs)

    def upto(self, length: int) -> "PassagesState":
        return PassagesState([layer.upto(length) for layer in self.layers], self.docs)


class RagTokenWriter(nn.Module):
    """What a search sees of RAG-Token: a model of one row a text, which reads all passages of it at once."""

    causal = True
    generation_config = None

    def __init__(self, generator: PreTrainedModel) -> None:
        super().__init__()
        self.generator, self.config, self.device = generator, generator.config, generator.device

    def get_output_embeddings(self) -> nn.Linear | None:
        return self.generator.get_output_embeddings()

    def forward(
        self,
        decoder_input_ids: Tensor,
        encoder_outputs: Encoded,
        doc_scores: Tensor,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: State | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | None = None,
        return_dict: bool | None = None,
    ) -> Seq2SeqLMOutput:
        """Score the next words.

        Args:
            decoder_input_ids: (rows, new), decoder_attention_mask: (rows, length).
            encoder_outputs: states (rows, passages, source length, width); attention_mask: (rows, passages * source
                length); doc_scores: (rows, passages).
        """
        rows, docs = doc_scores.shape

        def again(tokens: Tensor | None) -> Tensor | None:
            """(rows, ...) -> (passages * rows, ...)"""
            return None if tokens is None else tokens.repeat(docs, *[1] * (tokens.dim() - 1))

        def by_row(shown: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
            """(passages * rows, ...) -> (rows, passages, ...)"""
            return None if shown is None else tuple(t.unflatten(0, (docs, rows)).transpose(0, 1) for t in shown)

        mask = attention_mask
        if mask is not None:  # (rows, passages * source length) -> (passages * rows, source length)
            mask = mask.unflatten(1, (docs, -1)).transpose(0, 1).flatten(0, 1)
        written = self.generator(
            encoder_outputs=(encoder_outputs[0].transpose(0, 1).flatten(0, 1),), attention_mask=mask,
            decoder_input_ids=again(decoder_input_ids), decoder_attention_mask=again(decoder_attention_mask),
            past_key_values=past_key_values, use_cache=use_cache, output_attentions=output_attentions,
            output_hidden_states=output_hidden_states, logits_to_keep=logits_to_keep, return_dict=True,
        )  # fmt: skip
        # (passages * rows, new, words) -> (rows * passages, new, words)
        logits = written.logits.unflatten(0, (docs, rows)).transpose(0, 1).flatten(0, 1)
        state = written.past_key_values
        return Seq2SeqLMOutput(
            logits=summed(logits, doc_scores),
            past_key_values=None if state is None else PassagesState(state.layers, docs),
            decoder_hidden_states=by_row(written.decoder_hidden_states),
            decoder_attentions=by_row(written.decoder_attentions),
            cross_attentions=by_row(written.cross_attentions),
        )


class RagSequenceForGeneration(RagForGeneration):
    """Writes an answer that as a whole rests on one passage or another."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: Encoded | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Past | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        doc_scores: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_retrieved: bool | None = None,
        exclude_bos_score: bool | None = None,
        reduce_loss: bool | None = None,
        labels: Tensor | None = None,
        n_docs: int | None = None,
        return_dict: bool | None = None,
    ) -> RetrievAugLMMarginOutput | tuple[object, ...]:
        """Score the words that may be written; the arguments of RagModel, and

        labels: (rows, target length), what the decoder reads, whose tokens but the first are to be written; padding and
            -100 are not. reduce_loss: whether the loss is their sum over the rows.
        exclude_bos_score: whether a bos that is the first to be written does not count.
        """
        outputs, target = self.run(locals(), labels)
        loss = None
        if target is not None:
            excludes = self.config.exclude_bos_score if exclude_bos_score is None else exclude_bos_score
            uncounted = self.bos if excludes else None
            right, every = self.likelihood(outputs.logits, outputs.doc_scores, target, uncounted)
            loss = self.loss(right, every, outputs.logits.shape[-1], reduce_loss)
        result = RetrievAugLMMarginOutput(loss=loss, **outputs)
        return result if (self.config.use_return_dict if return_dict is None else return_dict) else result.to_tuple()

    def likelihood(
        self, logits: Tensor, scores: Tensor, target: Target, uncounted: int | None = None
    ) -> tuple[Tensor, Tensor]:
        counts = target.real
        if uncounted is not None:
            counts = torch.cat([counts[:, :1] & (target.words[:, :1] != uncounted), counts[:, 1:]], 1)
        words, passages = by_passage(logits, scores)
        # a passage's probability is in the score of every word of one place
        every = (words.sum(-1) * target.real[:, None]).sum(-1) + words.shape[-1] * passages
        return target.after_each(logits, scores, counts).logsumexp(1), every.logsumexp(1)

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        doc_scores: Tensor | None = None,
        do_deduplication: bool | None = None,
        num_return_sequences: int | None = None,
        num_beams: int | None = None,
        n_docs: int | None = None,
        *,
        thorough: bool = True,
        return_dict_in_generate: bool | None = None,
        generation_config: Any = None,
        **options: Any,
    ) -> Tensor | ModelOutput:
        """Write texts after each passage, num_beams of them, and choose those that are likeliest over all passages.

        Questions or passages are given as to `forward`; options: as of `polyformer.generation.generate`.

        Args:
            thorough: score every text after every passage, as the paper's thorough decoding does; False: its fast one,
                where a text has no chance after a passage whose search did not find it, and nothing is read again.
            num_return_sequences: texts a question.
            do_deduplication: choose each text once.

        Returns:
            (rows * num_return_sequences, length) int64; with return_dict_in_generate an output, whose sequences_scores
            are the texts' log-likelihoods (-inf for one that comes again since there are no more).
        """
        from polyformer.generation.outputs import class_of

        o = self.how_to_write(generation_config)
        beams, count = num_beams or o.num_beams, num_return_sequences or o.num_return_sequences
        c, states = self.read(input_ids, attention_mask, context_input_ids, context_attention_mask, doc_scores, n_docs)
        rows, docs = c.scores.shape
        assert c.mask is not None
        if (allowed := options.get("prefix_allowed_tokens_fn")) is not None:  # which is told of questions
            options["prefix_allowed_tokens_fn"] = lambda number, text: allowed(number // docs, text)
        written: Any = self.generator.generate(  # type: ignore[operator]
            c.ids, attention_mask=c.mask, encoder_outputs=BaseModelOutputWithPoolingAndCrossAttentions(states),
            generation_config=o, num_beams=beams, num_return_sequences=beams, return_dict_in_generate=True,
            output_logits=not thorough, output_scores=not thorough, **options,
        )  # fmt: skip
        # (rows * passages * beams, length) -> (rows, passages * beams, length)
        texts = written.sequences.unflatten(0, (rows, docs * beams))
        once = self.config.do_deduplication if do_deduplication is None else do_deduplication
        words = None if thorough else self.as_written(written).unflatten(0, (rows, docs, beams))
        chosen, worth = [], []
        for row in range(rows):
            found, places = numbered(texts[row])
            if words is None:
                mine = slice(row * docs, (row + 1) * docs)
                scores, _ = self.weigh(found, states[mine], c.mask[mine], c.scores[row])
            else:
                likely = words[row, ..., int(self.all_begin(found)) :].sum(-1)
                scores = over_passages(likely, c.scores[row], places.view(docs, beams), len(found))
            if not once:
                found, scores = found[places], scores[places]
            best = scores.argsort(descending=True, stable=True)[:count]
            best = torch.cat([best, best[-1:].expand(count - len(best))])
            chosen.append(found[best])
            again = torch.arange(count, device=scores.device) >= len(scores)
            worth.append(scores[best].masked_fill(again, -torch.inf))
        sequences = shortened(torch.cat(chosen), 0 if o.pad_token_id is None else o.pad_token_id)
        if not (o.return_dict_in_generate if return_dict_in_generate is None else return_dict_in_generate):
            return sequences
        return class_of(True, True, bool(options.get("do_sample")), False)(
            sequences=sequences, sequences_scores=torch.cat(worth)
        )

    def as_written(self, written: Any) -> Tensor:
        """Log-likelihoods of the words of texts that `generate` gave, each after its own passage, (texts, words)."""
        steps = len(written.logits)
        rows = written.get("beam_indices")
        words = written.sequences[:, written.sequences.shape[1] - (steps if rows is None else rows.shape[1]) :]
        if rows is None:
            rows = torch.arange(len(words), device=words.device)[:, None].expand_as(words)
        target = Target.of(written.sequences, self.generator.config.pad_token_id)
        each = [
            logits.log_softmax(-1)[row.clamp(min=0), word]
            for logits, row, word in zip(written.logits, rows.unbind(1), words.unbind(1), strict=False)
        ]
        return torch.stack(each, 1) * (target.real[:, -words.shape[1] - 1 : -1] & (rows >= 0))


def numbered(texts: Tensor) -> tuple[Tensor, Tensor]:
    """Texts (texts, length) each once, in the order they first come, and the number there of each, (texts,)."""
    first: dict[tuple[int, ...], int] = {}
    places = [first.setdefault(tuple(text), len(first)) for text in texts.tolist()]
    return texts.new_tensor(list(first)), texts.new_tensor(places)


def over_passages(likely: Tensor, scores: Tensor, places: Tensor, count: int) -> Tensor:
    """Log-likelihoods of `count` texts over the passages whose searches found them, (texts,).

    likely, places: (passages, beams), log-likelihoods and which text it is. scores: (passages,).
    """
    table = likely.new_full((len(scores), count), -torch.inf).scatter(1, places, likely)
    return (table + scores.to(likely.dtype).log_softmax(-1)[:, None]).logsumexp(0)


def shortened(texts: Tensor, pad: int) -> Tensor:
    """Without the columns at the end that are padding in every row."""
    used = (texts != pad).any(0).nonzero()
    return texts[:, : int(used.max()) + 1] if len(used) else texts
