"""The ways of searching, and which one is wanted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from polyformer.generation.assisted import assisted
from polyformer.generation.beams import beam_search
from polyformer.generation.chance import Chance
from polyformer.generation.config import GenerationConfig
from polyformer.generation.constrained import constrained_beam_search
from polyformer.generation.constraints import Constraint
from polyformer.generation.contrastive import contrastive_search
from polyformer.generation.decoder import Decoder, EncodedDecoder, arguments
from polyformer.generation.drafts import Assistant, Draft, Lookup, shares_words
from polyformer.generation.inputs import Prompts
from polyformer.generation.processors import PrefixFunction, Processor, Processors, processors_for, warpers_for
from polyformer.generation.search import Found, Search, Streamer, word_by_word
from polyformer.generation.stopping import Criterion, MaxLength, Stop


@dataclass
class Writing:
    """All that a user asked for.

    end: tokens of the longest text.
    criteria: when to stop beside that.
    searches: those that were made.
    """

    model: Any
    options: GenerationConfig
    prompts: Prompts
    end: int
    allowed: PrefixFunction | None
    processors: list[Processor]
    criteria: list[Criterion]
    constraints: list[Constraint]
    assistant: Any
    streamer: Streamer | None
    chance: Chance
    searches: list[Search] = field(default_factory=list)

    @property
    def texts_a_prompt(self) -> int:
        """How many go their own way from the start."""
        return self.options.num_return_sequences if self.options.do_sample else 1

    def process(self, prompts: Prompts, numbers: Sequence[int], end: int) -> Processors:
        """What shapes the scores of texts that belong to the prompts of these numbers."""
        times = len(numbers) // len(prompts.ids)
        prompt = None
        if not self.model.config.is_encoder_decoder:
            prompt = prompts.ids if prompts.real is None else prompts.ids.masked_fill(~prompts.real, -1)
            prompt = prompt.repeat_interleave(times, 0)
        source = None if prompts.source is None else prompts.source.repeat_interleave(times, 0)
        length = prompts.ids.shape[1]
        return processors_for(self.options, length, end, numbers, source, prompt, self.allowed, self.processors)

    def search(self, keep_states: bool = False) -> Search:
        """Over all prompts at once."""
        o, p = self.options, self.prompts
        numbers = [i for i in range(len(p.ids)) for _ in range(self.texts_a_prompt)]
        return self.search_of(p, numbers, o.num_beams * self.texts_a_prompt, self.end, self.chance, keep_states)

    def search_of(
        self, p: Prompts, numbers: Sequence[int], rows: int, end: int, chance: Chance, keep_states: bool = False
    ) -> Search:
        """Over some prompts, with so many rows each."""
        o = self.options
        process, stop = self.process(p, numbers, end), Stop([MaxLength(end), *self.criteria])
        show, scored, raw = _shown(self.model, o), _wants(o, "output_scores"), _wants(o, "output_logits")
        search = Search(
            decoder_of(self.model)(self.model, p.real, rows, end, o.use_cache, p.inputs, show, keep_states),
            p.ids.repeat_interleave(rows, 0), end, o, process, warpers_for(o), stop, chance,
            compact=not (show or scored or raw or process.foreign or stop.foreign),
            scores=[] if scored else None, logits=[] if raw else None, streamer=self.streamer,
        )  # fmt: skip
        self.searches.append(search)
        return search


def decoder_of(model: Any) -> type[Decoder]:
    return EncodedDecoder if model.config.is_encoder_decoder else Decoder


def _wants(o: GenerationConfig, what: str) -> bool:
    return bool(o.return_dict_in_generate and getattr(o, what))


def _shown(model: Any, o: GenerationConfig) -> tuple[str, ...]:
    """What to keep of the model's outputs, by the names it gives them."""
    if not o.return_dict_in_generate:
        return ()
    side = "decoder_" if model.config.is_encoder_decoder else ""
    attentions = (f"{side}attentions", *(("cross_attentions",) if side else ()))
    states = (f"{side}hidden_states",)
    return (*(attentions if o.output_attentions else ()), *(states if o.output_hidden_states else ()))


# ---- strategies ------------------------------------------------------------------------------------------------------


def _by_beams(w: Writing) -> Found:
    return beam_search(w.search(), w.options.num_return_sequences if not w.options.do_sample else 1)


def _by_constrained_beams(w: Writing) -> Found:
    return constrained_beam_search(w.search(), w.options.num_return_sequences, w.constraints)


def _by_contrast(w: Writing) -> Found:
    return contrastive_search(w.search(keep_states=True))


def _with_a_draft(w: Writing) -> Found:
    """Text by text, since each takes as much of its draft as is right."""
    p, times = w.prompts, w.texts_a_prompt
    new, texts = w.end - p.ids.shape[1], []
    for i in range(len(p.ids) * times):
        one = p.alone(i // times)
        end = one.ids.shape[1] + new
        chance = [w.chance[i]] if isinstance(w.chance, Sequence) else w.chance
        search = w.search_of(one, [i // times], 1, end, chance)
        texts.append(assisted(search, _draft(w, one, search)).sequences[0, one.ids.shape[1] :])
    sequences = p.ids.new_full((len(texts), p.ids.shape[1] + max(map(len, texts))), w.searches[0].pad)
    sequences[:, : p.ids.shape[1]] = p.ids.repeat_interleave(times, 0)
    for row, text in zip(sequences, texts, strict=True):
        row[p.ids.shape[1] : p.ids.shape[1] + len(text)] = text
    return Found(sequences)


def _draft(w: Writing, p: Prompts, s: Search) -> Draft:
    o, model = w.options, w.assistant
    if model is None:
        return Lookup(o.prompt_lookup_num_tokens or 0, o.max_matching_ngram_size)
    shares_words(w.model, model)
    inputs = {name: value for name, value in p.inputs.items() if name in arguments(model)}
    if model.config.is_encoder_decoder and w.model.config.is_encoder_decoder:
        source = p.source
        if source is None:
            raise ValueError("assistant_model reads the source itself: give input_ids, not encoder_outputs.")
        real = source >= 0
        ids = source[:, real[0]]
        inputs = {"encoder_outputs": model.get_encoder()(input_ids=ids, return_dict=True), "attention_mask": None}
    decoder = decoder_of(model)(model, None, 1, s.end, o.use_cache, inputs)
    return Assistant(decoder, o, s.process, s.warp, s.generator)


@dataclass(frozen=True)
class Strategy:
    """A way of searching: when it is wanted, how it is done, and what it cannot have (option -> what is the matter)."""

    wanted: Callable[[Writing], bool]
    run: Callable[[Writing], Found]
    cannot: Mapping[str, Callable[[Writing], bool]]

    def check(self, name: str, w: Writing) -> None:
        """Raise ValueError for the first thing that it cannot have."""
        for what, given in self.cannot.items():
            if given(w):
                raise ValueError(f"{name} cannot have {what}" + ("." if ":" in what else ": leave one of the two out."))


def _beams(w: Writing) -> bool:
    return w.options.num_beams > 1


def _sampling(w: Writing) -> bool:
    return w.options.do_sample


def _streamed(w: Writing) -> bool:
    return w.streamer is not None


def _contrasted(w: Writing) -> bool:
    return bool(w.options.penalty_alpha) and w.options.top_k > 1


def _assisted(w: Writing) -> bool:
    return w.assistant is not None or w.options.prompt_lookup_num_tokens is not None


def _of_places(w: Writing) -> bool:
    return hasattr(w.model, "prepare_inputs_for_generation")


def _constrained(w: Writing) -> bool:
    return bool(w.constraints)


CONTRAST = "contrastive search"

# the first that is wanted is taken
STRATEGIES: dict[str, Strategy] = {
    "assisted decoding": Strategy(
        _assisted,
        _with_a_draft,
        {
            "num_beams over 1": _beams,
            "forced words": _constrained,
            "penalty_alpha": _contrasted,
            "a streamer for several texts": lambda w: _streamed(w) and len(w.prompts.ids) * w.texts_a_prompt > 1,
            "output_scores or output_logits for several texts": lambda w: (
                (_wants(w.options, "output_scores") or _wants(w.options, "output_logits"))
                and len(w.prompts.ids) * w.texts_a_prompt > 1
            ),
            "output_attentions or output_hidden_states": lambda w: bool(_shown(w.model, w.options)),
            "a model that guesses one place at a time": _of_places,
        },
    ),
    "beam search with forced words": Strategy(
        _constrained,
        _by_constrained_beams,
        {
            "num_beams=1: give 2 or more": lambda w: not _beams(w),
            "do_sample": _sampling,
            "num_beam_groups over 1": lambda w: w.options.num_beam_groups > 1,
            "penalty_alpha": _contrasted,
            "a streamer": _streamed,
        },
    ),
    CONTRAST: Strategy(
        _contrasted,
        _by_contrast,
        {
            "num_beams over 1": _beams,
            "do_sample": _sampling,
            "a model that guesses one place at a time": _of_places,
        },
    ),
    "beam search": Strategy(
        _beams, _by_beams, {"a streamer: its texts change to the last word, so set num_beams=1": _streamed}
    ),
    "word by word": Strategy(lambda w: True, lambda w: word_by_word(w.search()), {}),
}
