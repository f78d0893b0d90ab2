"""Texts that belong to texts: whatever an encoder-decoder was taught to write, summaries among it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from polyformer.core.pretrained import PreTrainedModel
from polyformer.generation.config import GenerationConfig, option_names, refuse_unknown
from polyformer.generation.stopping import Criterion
from polyformer.generation.streaming import stream
from polyformer.pipelines.base import Pipeline
from polyformer.pipelines.rows import Row, called, check_texts, policy, tokens_of

ENDS = tuple(".!?:;…。！？：；")  # of a sentence or a part of one, where a long text may be cut


@dataclass(frozen=True)
class Task:
    """How a model is told what to do.

    tokenizer: of what it reads. prefix: what stands before every text. settings: options of generation.
    """

    tokenizer: Any
    prefix: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


class Text2TextGenerationPipeline(Pipeline):
    """A text to the text that an encoder-decoder writes for it.

    A text gives [{"generated_text"}], as many as num_return_sequences; a list of texts such a dictionary each, or, for
    several, a list of them each. How it is written is what the model's generation_config.json or config.json says, and
    its task_specific_params for this task; options of the call count most.
    """

    task: ClassVar[str] = "text2text-generation"
    model_task: ClassVar[str] = "seq2seq-lm"
    result: ClassVar[str] = "generated"  # what the keys of an answer begin with

    def __init__(self, model: PreTrainedModel, tokenizer: Any, **options: Any) -> None:
        if not (model.config.is_encoder_decoder and hasattr(model, "generate")):
            raise TypeError(
                f"{type(model).__name__} does not write texts for texts: load the model with AutoModelForSeq2SeqLM."
            )
        super().__init__(model, tokenizer, **options)

    def __call__(
        self,
        inputs: Any,
        *,
        prefix: str | None = None,
        truncation: bool = False,
        on_long: str | None = None,
        return_text: bool = True,
        return_tensors: bool = False,
        clean_up_tokenization_spaces: bool = False,
        streamer: Any = None,
        stopping_criteria: Iterable[Criterion] | None = None,
        show_progress: bool | None = None,
        **generation: Any,
    ) -> Any:
        """Write for a text, a list of texts or an iterable of them.

        Args:
            prefix: what to put before every text; by default what the model's configuration says for the task.
            on_long: a text longer than the model takes is an "error", or "truncate" it (also truncation=True), or
                "window": cut it, at the ends of sentences if may be, and put together what is written for the pieces.
            return_text: whether answers have the text; return_tensors: whether they have its token ids.
            streamer: of one text, gets its tokens as they are written; not with beams.
            stopping_criteria: as of `generate`.
            generation: options of `generate`: max_length, num_beams, do_sample ...

        Raises:
            TypeError: not a text, an unknown option. ValueError: too long a text, options that contradict each other.
        """
        return self.write(
            inputs, self.told(prefix), policy(on_long, truncation, "error"), show_progress, generation,
            return_text=return_text, return_tensors=return_tensors, clean=clean_up_tokenization_spaces,
            streamer=streamer, stopping_criteria=stopping_criteria,
        )  # fmt: skip

    def streamed(self, text: str, **options: Any) -> Iterator[str]:
        """What is written for a text, piece by piece as it is written; options as of a call, without beams."""

        def write(text: str, *, tokenizer: Any, **how: Any) -> None:
            self(text, **how)

        return stream(write, text, tokenizer=self.tokenizer, **options)

    def told(self, prefix: str | None) -> Task:
        """How the model is told what to do."""
        return self.by_params(self.task, prefix)

    def by_params(self, task: str, prefix: str | None) -> Task:
        """As the configuration's task_specific_params say for this task."""
        extra = self.model.config.extra
        params = (extra.get("task_specific_params") or {}).get(task) or {}
        settings = {name: value for name, value in params.items() if name in option_names()}
        said = params.get("prefix") or extra.get("prefix") or ""
        return Task(self.tokenizer, said if prefix is None else prefix, settings)

    def write(
        self,
        inputs: Any,
        task: Task,
        on_long: str,
        show_progress: bool | None,
        generation: Mapping[str, Any],
        *,
        return_text: bool,
        return_tensors: bool,
        clean: bool,
        **engine: Any,
    ) -> Any:
        """What a call does, once it is known how the model is told what to do.

        engine: further arguments of `generate`, streamer among them.
        """
        refuse_unknown(f"the pipeline {self.task}", generation, option_names())
        one = isinstance(inputs, str)
        if engine["streamer"] is not None and not one:
            raise ValueError("a streamer gets the tokens of one text: give a str.")
        model: Any = self.model
        base = model.generation_config or GenerationConfig.of_model(model.config)
        how = base.replaced(**task.settings).replaced(**generation)
        options = {
            "task": task,
            "on_long": on_long,
            "how": how,
            "engine": engine,
            "text": return_text,
            "tensors": return_tensors,
            "clean": clean,
        }
        found = self.run(inputs, options, show_progress)
        return [found] if one and how.num_return_sequences == 1 else found

    def prepare(self, texts: Sequence[Any], first: int, options: Mapping[str, Any]) -> list[list[Row]]:
        check_texts(texts, first)
        task, on_long, limit = options["task"], options["on_long"], self.limit
        cut = on_long == "truncate" and limit is not None
        found = []
        for number, (text, ids) in enumerate(zip(texts, self._ids(task, texts, cut), strict=True), first):
            if limit is None or len(ids) <= limit:
                found.append([Row(ids)])
            elif on_long == "window":
                found.append([Row(piece) for piece in self._pieces(task, text, limit)])
            else:
                raise ValueError(
                    f"{called(number)} has {len(ids)} tokens, and this model takes {limit}: pass on_long='window' to "
                    "write for it piece by piece, or on_long='truncate' to leave out the rest."
                )
        if options["engine"]["streamer"] is not None and len(found[0]) > 1:
            raise ValueError("a text that is written for piece by piece cannot be streamed: leave streamer out.")
        return found

    def compute(self, inputs: dict[str, Tensor], rows: Sequence[Row], options: Mapping[str, Any]) -> list[Tensor]:
        ids: Tensor = inputs["input_ids"]
        mask = inputs.get("attention_mask", torch.ones_like(ids, dtype=torch.bool))
        model: Any = self.model
        made = model.generate(ids, attention_mask=mask, generation_config=options["how"], **options["engine"])
        return list(made.cpu().unflatten(0, (len(rows), -1)))

    def answer(self, text: Any, rows: Sequence[Row], options: Mapping[str, Any]) -> Any:
        found = []
        for pieces in zip(*(row.result for row in rows), strict=True):
            one: dict[str, Any] = {}
            if options["text"]:
                written = (
                    self.tokenizer.decode(
                        ids, skip_special_tokens=True, clean_up_tokenization_spaces=options["clean"]
                    ).strip()
                    for ids in pieces
                )
                one[f"{self.result}_text"] = " ".join(filter(None, written))
            if options["tensors"]:
                one[f"{self.result}_token_ids"] = torch.cat(pieces)
            found.append(one)
        return found[0] if len(found) == 1 else found

    def _ids(self, task: Task, texts: Sequence[str], cut: bool) -> list[list[int]]:
        how = {"truncation": True, "max_length": self.limit} if cut else {}
        made = task.tokenizer(
            [task.prefix + text for text in texts], return_attention_mask=False, return_token_type_ids=False,
            verbose=False, **how,
        )  # fmt: skip
        return list(made["input_ids"])

    def _pieces(self, task: Task, text: str, limit: int) -> list[list[int]]:
        """The rows of a text that is too long; a piece may have a token more or less than in the whole text."""
        (tokens,) = tokens_of(task.tokenizer, [text])
        room = limit - len(self._ids(task, [""], False)[0])
        while room > 0:
            rows = self._ids(task, pieces(text, tokens.spans, room), False)
            if (over := max(map(len, rows)) - limit) <= 0:
                return rows
            room -= over
        raise ValueError(f"a row of {limit} tokens has no room for a text beside its prefix: shorten that one.")


class SummarizationPipeline(Text2TextGenerationPipeline):
    """A text to its summary, [{"summary_text"}]; the rest as of text2text-generation."""

    task: ClassVar[str] = "summarization"
    result: ClassVar[str] = "summary"


def pieces(text: str, spans: Sequence[tuple[int, int]], room: int) -> list[str]:
    """A text in pieces of at most `room` tokens, of about the same size, cut where a sentence ends if one does nearby.

    spans: characters [start, end) of its tokens.
    """
    found = []
    while len(spans) > room:
        goal = -(-len(spans) // -(-len(spans) // room))
        ends = [i for i in range(goal // 2 + 1, room + 1) if text[: spans[i - 1][1]].endswith(ENDS)]
        cut = min(ends, key=lambda i: abs(i - goal), default=goal)
        found.append(text[spans[0][0] : spans[cut - 1][1]])
        spans = spans[cut:]
    return [*found, text[spans[0][0] :]]
