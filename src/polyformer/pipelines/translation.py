"""Texts in one language to texts in another. How a model is told which differs: by a word before the text, by a token
of the vocabulary around it or at the beginning of what is written, or not at all."""

from collections.abc import Callable, Iterable
from copy import copy
from typing import Any, ClassVar

from polyformer.core.pretrained import PreTrainedModel
from polyformer.generation.stopping import Criterion
from polyformer.pipelines.languages import choose, english_name, known, short_code
from polyformer.pipelines.rows import policy
from polyformer.pipelines.text2text import Task, Text2TextGenerationPipeline
from polyformer.tokenizers.languages import LanguageTokenizer
from polyformer.tokenizers.marian import MarianTokenizer
from polyformer.tokenizers.mbart50 import MBart50Tokenizer


class TranslationPipeline(Text2TextGenerationPipeline):
    """A text to its translation, [{"translation_text"}]; the rest as of text2text-generation.

    src_lang, tgt_lang: the languages, where calls do not say: "English", "en", "eng" or the model's own code, "en_XX".
    """

    task: ClassVar[str] = "translation"
    result: ClassVar[str] = "translation"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        *,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, tokenizer, **options)
        self.src_lang, self.tgt_lang = src_lang, tgt_lang

    def __call__(
        self,
        inputs: Any,
        *,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
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
        """Translate a text, a list of texts or an iterable of them.

        Args:
            src_lang, tgt_lang: the languages, by name or code; what the pipeline was made with by default. A model of
                one pair needs neither.
            others: as of text2text-generation.

        Raises:
            TypeError: not a text, an unknown option. ValueError: languages that the model does not have or that have to
                be given, too long a text.
        """
        task = self.between(src_lang or self.src_lang, tgt_lang or self.tgt_lang, prefix)
        return self.write(
            inputs, task, policy(on_long, truncation, "error"), show_progress, generation,
            return_text=return_text, return_tensors=return_tensors, clean=clean_up_tokenization_spaces,
            streamer=streamer, stopping_criteria=stopping_criteria,
        )  # fmt: skip

    def between(self, src: str | None, tgt: str | None, prefix: str | None) -> Task:
        """How the model is told to translate from one language to the other."""
        way = next((way for kind, way in WAYS.items() if isinstance(self.tokenizer, kind)), by_words)
        return way(self, src, tgt, prefix)


def by_code(pipe: TranslationPipeline, src: str | None, tgt: str | None, prefix: str | None) -> Task:
    """mBART: each text has its language's token; the decoder begins with that of the other, in mBART-50 after eos."""
    own = copy(pipe.tokenizer)
    if src is not None:
        own.src_lang = choose(src, own.lang_code_to_id, "src_lang")
    task = pipe.by_params(pipe.task, prefix)
    target = tgt or own.tgt_lang
    settings = dict(task.settings)
    if target is not None:
        token = own.lang_code_to_id[choose(target, own.lang_code_to_id, "tgt_lang")]
        settings["forced_bos_token_id" if isinstance(own, MBart50Tokenizer) else "decoder_start_token_id"] = token
    return Task(own, task.prefix, settings)


def by_first_token(pipe: TranslationPipeline, src: str | None, tgt: str | None, prefix: str | None) -> Task:
    """Marian: a model for several languages is told the other one by a token, `>>fra<<`, before the text."""
    tokenizer, task = pipe.tokenizer, pipe.by_params(pipe.task, prefix)
    codes = [code.strip("<>") for code in tokenizer.supported_language_codes]
    if not codes:
        for name, asked in (("source_lang", src), ("target_lang", tgt)):
            _check_pair(name, asked, tokenizer.init_kwargs[name])
        return task
    if prefix is not None:
        return task
    if tgt is None:
        raise ValueError(f"say which language to translate to: tgt_lang=..., one of {', '.join(sorted(codes))}.")
    return Task(tokenizer, f">>{choose(tgt, codes, 'tgt_lang')}<< ", task.settings)


def by_words(pipe: TranslationPipeline, src: str | None, tgt: str | None, prefix: str | None) -> Task:
    """T5: "translate English to German: " (Raffel et al. 2019, appendix D), or what the configuration says."""
    pair = "" if src is None or tgt is None else f"_{short_code(src)}_to_{short_code(tgt)}"
    task = pipe.by_params(pipe.task + pair, prefix)
    if task.prefix or prefix is not None or pipe.model.config.model_type != "t5":
        return task
    if not pair:
        raise ValueError(
            "this model is told in words what to do: say src_lang='English', tgt_lang='German', or prefix='...', which "
            "may be ''."
        )
    return Task(task.tokenizer, f"translate {english_name(str(src))} to {english_name(str(tgt))}: ", task.settings)


# By kind of tokenizer; others are told in words, if at all.
WAYS: dict[type[Any], Callable[[TranslationPipeline, str | None, str | None, str | None], Task]] = {
    LanguageTokenizer: by_code,
    MarianTokenizer: by_first_token,
}


def _check_pair(name: str, asked: str | None, has: str | None) -> None:
    """Raise for a language that is not the one of a model of one pair, as far as both are known."""
    if asked is not None and has is not None and known(asked) is not None and known(has) not in (None, known(asked)):
        raise ValueError(f"this model's {name} is {has!r}, not {asked!r}: it translates between one pair of languages.")
