"""What a user can ask of generation: every option with Hugging Face's name and default.

An option given to `generate` counts most; then the model's `generation_config` (generation_config.json, where newer
checkpoints keep them); then the model's own config (where Transformers 4.6 kept them); then the defaults below.
"""

import dataclasses
import difflib
import json
import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from polyformer.core.atomic import write_all
from polyformer.core.config import Config
from polyformer.core.errors import CheckpointError
from polyformer.generation.checks import check_options

logger = logging.getLogger("polyformer")

GENERATION_CONFIG_NAME = "generation_config.json"


@dataclass(kw_only=True)
class GenerationConfig:
    """How to write. Lengths are in tokens and count the prompt, `max_new_tokens` and `min_new_tokens` do not.

    Length and end:
        max_length: of prompt and text; `max_new_tokens` counts more where both are given.
        min_length: eos may not come earlier.
        max_time: seconds after which no further token is begun.
        stop_strings: a text ends once it has one of these; needs `tokenizer` among the arguments of generate.
        eos_token_id: one id or several; pad_token_id: what stands after it.

    How words are chosen:
        do_sample: draw from the distribution instead of taking the best word.
        num_beams: hypotheses kept a prompt; num_beam_groups of them search apart and are pushed apart by
            diversity_penalty, taken off a word's score for every beam of an earlier group that just chose it.
        early_stopping: end a prompt's search as soon as num_beams hypotheses are complete; "never": not before none
            that is still searched could become better; False: not before the best is worse as it stands.
        length_penalty: a hypothesis is worth its log-probability / length ** length_penalty.
        force_words_ids: what beams must write: words, each a list of ids, or lists of words one of which is enough.
        penalty_alpha: over 0, contrastive search among the top_k best words.
        prompt_lookup_num_tokens: up to so many tokens are guessed from what followed the last few earlier in the text
            (at most max_matching_ngram_size of them); num_assistant_tokens: so many by the `assistant_model` at first,
            with num_assistant_tokens_schedule="heuristic" two more after a guess that was all right, else one fewer.

    The distribution that is sampled from:
        temperature: above 1 flattens it; top_k: the k best words, 0 cuts nothing; top_p: the fewest words that
            together are so likely; min_p: words at least so likely compared with the best one; typical_p: the words
            nearest to the distribution's entropy that together are so likely; epsilon_cutoff: words at least so likely;
            eta_cutoff: the same, less strict where the distribution is flat.

    Scores of words:
        repetition_penalty: over 1, makes words that already occur less likely; encoder_repetition_penalty: over 1,
            makes words of the source (of the prompt, where there is no encoder) more likely.
        no_repeat_ngram_size: no run of so many tokens comes twice; encoder_no_repeat_ngram_size: none of the source's.
        bad_words_ids: sequences of tokens that may not be written; sequence_bias: pairs of such a sequence and what is
            added to its last token's score; suppress_tokens: tokens that may not come, begin_suppress_tokens: not as
            the first.
        forced_bos_token_id: the first token after the decoder's start; forced_eos_token_id: the last one at max_length.
        exponential_decay_length_penalty: (start, factor): eos grows likelier from so many new tokens on.
        renormalize_logits: make the processed scores log-probabilities again; remove_invalid_values: NaN and infinity
            do no harm.
    extra: what a file holds beyond these, kept and written back.
    """

    max_length: int = 20
    max_new_tokens: int | None = None
    min_length: int = 0
    min_new_tokens: int | None = None
    max_time: float | None = None
    stop_strings: str | list[str] | None = None
    do_sample: bool = False
    num_beams: int = 1
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    early_stopping: bool | str = False
    length_penalty: float = 1.0
    force_words_ids: list[Any] | None = None
    penalty_alpha: float | None = None
    prompt_lookup_num_tokens: int | None = None
    max_matching_ngram_size: int = 2
    num_assistant_tokens: int = 5
    num_assistant_tokens_schedule: str = "constant"
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float | None = None
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    repetition_penalty: float = 1.0
    encoder_repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    bad_words_ids: list[list[int]] | None = None
    sequence_bias: Mapping[tuple[int, ...], float] | list[Any] | None = None
    suppress_tokens: list[int] | None = None
    begin_suppress_tokens: list[int] | None = None
    exponential_decay_length_penalty: tuple[int, float] | None = None
    renormalize_logits: bool = False
    remove_invalid_values: bool = False
    num_return_sequences: int = 1
    bos_token_id: int | None = None
    pad_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    decoder_start_token_id: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | list[int] | None = None
    use_cache: bool = True
    output_attentions: bool = False
    output_hidden_states: bool = False
    output_scores: bool = False
    output_logits: bool = False
    return_dict_in_generate: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def __new__(cls, **options: Any) -> Self:
        refuse_unknown(cls.__name__, options, option_names() | {"extra"})
        return super().__new__(cls)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end a text; none = only the length does."""
        if self.eos_token_id is None:
            return ()
        return tuple(self.eos_token_id) if isinstance(self.eos_token_id, list | tuple) else (self.eos_token_id,)

    def replaced(self, **options: Any) -> Self:
        """With these options instead; None leaves one as it is. Unknown ones raise TypeError with the likely name."""
        return dataclasses.replace(self, **{name: value for name, value in options.items() if value is not None})

    def check(self) -> None:
        """Raise ValueError, in one sentence, for what cannot be done."""
        check_options(self)

    # ---- where options come from ----

    @classmethod
    def of_model(cls, config: Config) -> Self:
        """The options that a model's own config holds, as Transformers 4.6 kept them."""
        held = {**vars(config).get("extra", {}), **vars(config)}
        return cls(**{name: held[name] for name in option_names() if held.get(name) is not None})

    from_model_config = of_model

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What a generation_config.json holds; unknown keys are kept, and named in a warning."""
        known = {name: value for name, value in values.items() if name in option_names() and value is not None}
        extra = {name: value for name, value in values.items() if name not in option_names()}
        asked = [name for name, value in extra.items() if value and not name.startswith(("_", "transformers_version"))]
        if asked:
            logger.warning(
                "%s has options that are unknown here and change nothing: %s.", GENERATION_CONFIG_NAME, ", ".join(asked)
            )
        return cls(**known, extra=extra)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        subfolder: str = "",
        **options: Any,
    ) -> Self:
        """Read generation_config.json from a folder, a file or the hub; `options` replace what it says.

        Raises:
            CheckpointError: no such file, or it is not JSON.
            TypeError: an unknown option.
        """
        path = Path(name_or_path)
        if path.is_dir():
            path = path / subfolder / GENERATION_CONFIG_NAME
        elif not path.is_file():
            from polyformer.core.hub import cached_file

            found = cached_file(
                name_or_path, GENERATION_CONFIG_NAME, revision=revision, cache_dir=cache_dir, token=token,
                local_files_only=local_files_only, force_download=force_download, subfolder=subfolder,
            )  # fmt: skip
            assert found is not None
            path = found
        return cls.from_dict(_read(path)).replaced(**options)

    def to_dict(self) -> dict[str, Any]:
        """What goes into the file: the options that differ from the default, and the extra."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "extra"}
        if isinstance(self.sequence_bias, Mapping):  # JSON has no tuples as keys
            plain["sequence_bias"] = [[list(ids), bias] for ids, bias in self.sequence_bias.items()]
        return {**self.extra, **{name: value for name, value in plain.items() if value != _DEFAULTS[name]}}

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write generation_config.json into the folder, made if need be; a crash leaves the old file whole."""
        write_all(folder, {GENERATION_CONFIG_NAME: self.to_json_string()})


_DEFAULTS = {f.name: f.default for f in dataclasses.fields(GenerationConfig) if f.name != "extra"}


def option_names() -> frozenset[str]:
    """The names of all options."""
    return frozenset(_DEFAULTS)


def refuse_unknown(who: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise TypeError for the first name that is not known, with the one that was likely meant."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise TypeError(f"{who} has no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else "."))


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}): fetch or write the file again.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, not the options of generation.")
    return values
