"""Prompts to texts that go on with them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from polyformer.core.pretrained import PreTrainedModel
from polyformer.generation.config import GenerationConfig, option_names, refuse_unknown
from polyformer.generation.stopping import Criterion, alike
from polyformer.generation.streaming import stream
from polyformer.pipelines.base import Pipeline
from polyformer.pipelines.rows import Row, called, check_texts


@dataclass
class Prompt(Row):
    """A row that is the `number`-th prompt."""

    number: int = 0


class TextGenerationPipeline(Pipeline):
    """A prompt to [{"generated_text"}], the prompt and what the model goes on with.

    A prompt gives a list, of as many dictionaries as num_return_sequences; a list of prompts such a list each. How it
    is written is what the model's generation_config.json or config.json says, and its task_specific_params for this
    task; options of the call count most. Prompts of any length share a batch, and a text that has ended leaves it.
    """

    task: ClassVar[str] = "text-generation"
    model_task: ClassVar[str] = "causal-lm"

    def __init__(self, model: PreTrainedModel, tokenizer: Any, **options: Any) -> None:
        if model.config.is_encoder_decoder or not hasattr(model, "generate"):
            raise TypeError(
                f"{type(model).__name__} does not go on with a text: load the model with AutoModelForCausalLM, or use "
                f"text2text-generation for an encoder-decoder."
            )
        super().__init__(model, tokenizer, **options)

    def __call__(
        self,
        inputs: Any,
        *,
        return_full_text: bool = True,
        return_text: bool = True,
        return_tensors: bool = False,
        clean_up_tokenization_spaces: bool = False,
        prefix: str | None = None,
        handle_long_generation: str | None = None,
        seed: int | None = None,
        streamer: Any = None,
        stopping_criteria: Iterable[Criterion] | None = None,
        assistant_model: Any = None,
        prefix_allowed_tokens_fn: Any = None,
        constraints: Any = None,
        show_progress: bool | None = None,
        **generation: Any,
    ) -> Any:
        """Go on with a prompt, a list of prompts or an iterable of them.

        Args:
            return_full_text: whether answers begin with the prompt. return_text, return_tensors: whether they have the
                text, "generated_text", and the ids of all its tokens, "generated_token_ids".
            prefix: a text read before every prompt and left out of the answers; one of a few hundred words gives short
                prompts to XLNet and Transformer-XL a context. By default what the model's configuration says.
            handle_long_generation: "hole" leaves out the beginning of a prompt that is too long to be gone on with;
                otherwise that is an error.
            seed: makes sampling repeatable: what a prompt draws hangs on the seed and the prompt's number alone.
            streamer: of one prompt, gets its tokens as they are written; not with beams.
            stopping_criteria, assistant_model, prefix_allowed_tokens_fn, constraints: as of `generate`.
            generation: options of `generate`: max_new_tokens, do_sample, num_beams, stop_strings ...

        Raises:
            TypeError: not a text, an unknown option. ValueError: too long a prompt, options that contradict each other.
        """
        refuse_unknown(f"the pipeline {self.task}", generation, option_names())
        if handle_long_generation not in (None, "hole"):
            raise ValueError(f"handle_long_generation is {handle_long_generation!r}; there is 'hole', or nothing.")
        one = isinstance(inputs, str)
        if streamer is not None and not one:
            raise ValueError("a streamer gets the tokens of one text: give a str.")
        engine = {
            "streamer": streamer, "stopping_criteria": stopping_criteria, "assistant_model": assistant_model,
            "prefix_allowed_tokens_fn": prefix_allowed_tokens_fn, "constraints": constraints,
        }  # fmt: skip
        options = {
            "how": self.settings(generation), "engine": engine, "before": self._before(prefix), "seed": seed,
            "hole": handle_long_generation == "hole", "full": return_full_text, "text": return_text,
            "tensors": return_tensors, "clean": clean_up_tokenization_spaces,
        }  # fmt: skip
        return self.run(inputs, options, show_progress)

    def streamed(self, prompt: str, **options: Any) -> Iterator[str]:
        """What is written for a prompt, piece by piece as it is written; options as of a call, without beams."""

        def write(prompt: str, *, tokenizer: Any, **how: Any) -> None:
            self(prompt, **how)

        return stream(write, prompt, tokenizer=self.tokenizer, **options)

    def settings(self, generation: Mapping[str, Any]) -> GenerationConfig:
        """How it is written: as the model's files say, its configuration for this task, and the call."""
        model: Any = self.model
        base = model.generation_config or GenerationConfig.of_model(model.config)
        params = (model.config.extra.get("task_specific_params") or {}).get(self.task) or {}
        own = {name: value for name, value in params.items() if name in option_names()}
        return base.replaced(**own).replaced(**generation)

    def prepare(self, texts: Sequence[Any], first: int, options: Mapping[str, Any]) -> list[list[Prompt]]:
        check_texts(texts, first)
        found = []
        for number, ids in enumerate(self._ids(texts), first):
            ids = self._begun(ids, number)
            found.append([Prompt(self._fitting(ids, number, options), number=max(number, 0))])
        return found

    def compute(self, inputs: dict[str, Tensor], rows: Sequence[Any], options: Mapping[str, Any]) -> list[list[Any]]:
        """The new tokens of each row's texts, (tokens,) each."""
        how = options["how"]
        found: dict[int, list[list[int]]] = {}
        together: dict[int, list[Prompt]] = {}
        for row in rows:  # where the prompt counts in a length, padding must not
            counts = how.max_new_tokens is None or how.min_length > 0
            together.setdefault(len(row.ids) if counts else 0, []).append(row)
        for some in together.values():
            found |= zip((row.number for row in some), self._written(some, options), strict=True)
        return [found[row.number] for row in rows]

    def _written(self, rows: list[Prompt], options: Mapping[str, Any]) -> list[list[list[int]]]:
        """The same for rows that share a batch."""
        how, model, times = options["how"], self.model, options["how"].num_return_sequences
        engine = dict(options["engine"])
        if options["seed"] is not None and how.do_sample and how.num_beams == 1:
            engine["seeds"] = [options["seed"] + row.number * times + i for row in rows for i in range(times)]
        elif options["seed"] is not None:
            engine["generator"] = torch.Generator(self.device).manual_seed(options["seed"])
        if how.stop_strings is not None:
            engine["tokenizer"] = self.tokenizer
        made: Tensor = model.generate(  # type: ignore[operator]
            [row.ids for row in rows], generation_config=how, prefix_ids=options["before"], **engine
        )
        ends, longest = set(how.eos_ids), max(len(row.ids) for row in rows)
        texts = [_until(text, ends) for text in made[:, longest:].tolist()]
        return [texts[i : i + times] for i in range(0, len(texts), times)]

    def answer(self, text: Any, rows: Sequence[Row], options: Mapping[str, Any]) -> Any:
        (row,) = rows
        found = []
        for new in row.result:
            one: dict[str, Any] = {}
            if options["text"]:
                went_on = self._after(row.ids, new, options["clean"])
                one["generated_text"] = text + went_on if options["full"] else went_on
            if options["tensors"]:
                one["generated_token_ids"] = torch.tensor(row.ids + new)
            found.append(one)
        return found

    def _after(self, prompt: list[int], new: list[int], clean: bool) -> str:
        """The text that new tokens add to that of the prompt."""

        def text(ids: list[int]) -> str:
            return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=clean))

        before, whole = text(prompt), text(prompt + new)
        return whole[len(before) if whole.startswith(before) else alike(before, whole) :]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, without special ones; segments would only tell a causal model something new."""
        made = self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False,
            verbose=False,
        )  # fmt: skip
        return list(made["input_ids"])

    def _before(self, prefix: str | None) -> list[int] | None:
        said = self.model.config.extra.get("prefix") if prefix is None else prefix
        return self._ids([said])[0] or None if said else None

    def _begun(self, ids: list[int], number: int) -> list[int]:
        """An empty prompt begins with bos."""
        if ids:
            return ids
        bos = self.model.config.bos_token_id
        if bos is None:
            raise ValueError(f"{called(number)} is empty, and this model has no token to begin with: give some text.")
        return [bos]

    def _fitting(self, ids: list[int], number: int, options: Mapping[str, Any]) -> list[int]:
        """A prompt with room for what is to be written; ValueError if there is none."""
        how, limit = options["how"], self.limit
        if limit is None:
            return ids
        room = limit - len(options["before"] or ())
        room = room - how.max_new_tokens if how.max_new_tokens is not None else min(room, how.max_length) - 1
        if len(ids) <= room:
            return ids
        if not options["hole"] or room < 1:
            said = f" and max_length is {how.max_length}" if how.max_new_tokens is None else ""
            kept = f" if it is to write for {how.max_new_tokens} more" if how.max_new_tokens is not None else ""
            cut = ", or pass handle_long_generation='hole' to leave out its beginning" if room >= 1 else ""
            raise ValueError(
                f"{called(number)} has {len(ids)} token{'s' * (len(ids) > 1)}, and there is room for {max(room, 0)} "
                f"(the model takes {limit}{said}){kept}: shorten it or ask for fewer{cut}."
            )
        return ids[-room:]


def _until(ids: list[int], ends: set[int]) -> list[int]:
    """The tokens up to the first that ends a text, that one included."""
    at = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return ids[: at + 1]
