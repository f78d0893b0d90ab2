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

logger = logging.getLogger("polyformer")

GENERATION_CONFIG_NAME = "generation_config.json"


@dataclass(kw_only=True)
class GenerationConfig:
    """How to write. Lengths are in tokens and count the prompt, `max_new_tokens` and `min_new_tokens` do not.

    max_length: of prompt and text; `max_new_tokens` counts more where both are given.
    min_length: eos may not come earlier.
    max_time: seconds after which no further token is begun.
    do_sample: draw from the distribution instead of taking the best word.
    num_beams: hypotheses kept a prompt; num_beam_groups of them search apart and are pushed apart by
        diversity_penalty, taken off a word's score for every beam of an earlier group that just chose it.
    early_stopping: end a prompt's search as soon as num_beams hypotheses are complete.
    length_penalty: a hypothesis is worth its log-probability / length ** length_penalty.
    temperature, top_k, top_p: flatten or cut the distribution that is sampled from; top_k = 0 cuts nothing.
    repetition_penalty: over 1, makes words that already occur less likely.
    no_repeat_ngram_size: no run of so many tokens comes twice; encoder_no_repeat_ngram_size: none of the source's.
    bad_words_ids: sequences of tokens that may not be written.
    eos_token_id: one id or several; pad_token_id: what stands after it.
    extra: what a file holds beyond these, kept and written back.
    """

    max_length: int = 20
    max_new_tokens: int | None = None
    min_length: int = 0
    min_new_tokens: int | None = None
    max_time: float | None = None
    do_sample: bool = False
    num_beams: int = 1
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    early_stopping: bool = False
    length_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    bad_words_ids: list[list[int]] | None = None
    num_return_sequences: int = 1
    bos_token_id: int | None = None
    pad_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    decoder_start_token_id: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    remove_invalid_values: bool = False
    use_cache: bool = True
    output_attentions: bool = False
    output_hidden_states: bool = False
    output_scores: bool = False
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
        _check_numbers(self)
        _check_strategy(self)

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


_FROM_ONE = ("num_beams", "num_beam_groups", "num_return_sequences", "max_length", "max_new_tokens")
_FROM_ZERO = ("min_length", "min_new_tokens", "top_k", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size")


def _check_numbers(o: GenerationConfig) -> None:
    for name in (*_FROM_ONE, *_FROM_ZERO):
        least = int(name in _FROM_ONE)
        value = getattr(o, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ValueError(f"{name} is {value!r}; give a whole number, at least {least}.")
    for name in ("temperature", "repetition_penalty"):
        if not getattr(o, name) > 0:
            raise ValueError(f"{name} is {getattr(o, name)!r}; give a number above 0 (1 changes nothing).")
    if not 0 < o.top_p <= 1:
        raise ValueError(f"top_p is {o.top_p!r}; give a probability above 0 and up to 1 (1 cuts nothing).")
    if not isinstance(o.early_stopping, bool):
        raise ValueError(f"early_stopping is {o.early_stopping!r}; give True or False.")
    if o.bad_words_ids is not None and not all(
        isinstance(word, list | tuple) and word and all(isinstance(i, int) and i >= 0 for i in word)
        for word in o.bad_words_ids
    ):
        raise ValueError("bad_words_ids takes a list of words, each a list of at least one token id: [[5], [6, 8]].")


def _check_strategy(o: GenerationConfig) -> None:
    if o.num_beam_groups > o.num_beams or o.num_beams % o.num_beam_groups:
        raise ValueError(
            f"{o.num_beams} beams cannot be shared by {o.num_beam_groups} groups: make num_beams a multiple of "
            f"num_beam_groups."
        )
    if o.num_beam_groups > 1 and o.do_sample:
        raise ValueError("groups of beams are not sampled: set do_sample=False or num_beam_groups=1.")
    if o.diversity_penalty < 0:
        raise ValueError(f"diversity_penalty is {o.diversity_penalty!r}; give a number of at least 0.")
    if o.diversity_penalty and o.num_beam_groups == 1:
        raise ValueError("diversity_penalty pushes groups of beams apart: set num_beam_groups to 2 or more.")
    if o.num_return_sequences > o.num_beams and not o.do_sample:
        raise ValueError(
            f"{o.num_return_sequences} sequences cannot come out of {o.num_beams} beam{'s' * (o.num_beams > 1)}: raise "
            f"num_beams to num_return_sequences or more, or set do_sample=True."
        )
