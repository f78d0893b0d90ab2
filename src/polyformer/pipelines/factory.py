"""`pipeline(task, model)`: the one line that most users need."""

import os
import re
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from polyformer.pipelines.defaults import default_encoder

if TYPE_CHECKING:
    import torch

    from polyformer.core.config import Config
    from polyformer.core.pretrained import PreTrainedModel
    from polyformer.retrieval.retriever import Retriever

# A task, the module here and its class.
TASKS = {
    "conversational": ("conversational", "ConversationalPipeline"),
    "feature-extraction": ("feature_extraction", "FeatureExtractionPipeline"),
    "fill-mask": ("fill_mask", "FillMaskPipeline"),
    "image-text-classification": ("image_text", "ImageTextClassificationPipeline"),
    "multiple-choice": ("multiple_choice", "MultipleChoicePipeline"),
    "open-qa": ("open_qa", "OpenQAPipeline"),
    "question-answering": ("question_answering", "QuestionAnsweringPipeline"),
    "sentence-embedding": ("sentence", "SentenceEncoder"),
    "sentence-similarity": ("sentence_similarity", "SentenceSimilarityPipeline"),
    "summarization": ("text2text", "SummarizationPipeline"),
    "text-classification": ("text_classification", "TextClassificationPipeline"),
    "text-generation": ("text_generation", "TextGenerationPipeline"),
    "text2text-generation": ("text2text", "Text2TextGenerationPipeline"),
    "token-classification": ("token_classification", "TokenClassificationPipeline"),
    "translation": ("translation", "TranslationPipeline"),
    "zero-shot-classification": ("zero_shot", "ZeroShotClassificationPipeline"),
}
PAIR = re.compile("translation_([A-Za-z-]+)_to_([A-Za-z-]+)")  # a translation with its languages
ALIASES = {"ner": "token-classification", "sentiment-analysis": "text-classification"}
EMBEDDING = ("feature-extraction", "sentence-embedding", "sentence-similarity")  # they have a default model


def pipeline(
    task: str,
    model: "str | os.PathLike[str] | PreTrainedModel | None" = None,
    config: "Config | None" = None,
    tokenizer: Any = None,
    *,
    device: "torch.device | str | int | None" = None,
    torch_dtype: "torch.dtype | str | None" = None,
    batch_tokens: int | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    subfolder: str = "",
    index: "str | os.PathLike[str] | Retriever | None" = None,
    question_encoder: Any = None,
    src_lang: str | None = None,
    tgt_lang: str | None = None,
) -> Any:
    """A callable that does a task with a model, from text to answer.

    Args:
        task: "feature-extraction" (a vector a token), "sentence-embedding" (a vector a text), "sentence-similarity",
            "fill-mask", "text-classification" (or "sentiment-analysis"), "zero-shot-classification",
            "token-classification" (or "ner"), "question-answering", "multiple-choice", "image-text-classification",
            "open-qa", "text-generation", "conversational", "summarization", "translation" (or
            "translation_en_to_de"), "text2text-generation".
        model: a folder, a repository of the hub, or a loaded model. Without one, the three tasks that compare vectors
            use all-MiniLM-L6-v2 from the extra [demo].
        config: used instead of the checkpoint's.
        tokenizer: a tokenizer or its name, where it is not the model's own.
        device: "cpu", "cuda:1", a number of a GPU or -1 for the CPU; the first GPU, if there is one, by default. A
            loaded model stays where it is unless told to move.
        torch_dtype: type of the weights; float32 by default, "auto" = the file's.
        index, question_encoder: of "open-qa", whose model is the reader: the passages, a folder or a `Retriever`, and
            the model that makes vectors of questions, by default the one that the index names.
        src_lang, tgt_lang: of "translation": the languages by name or code, where calls do not say.
        batch_tokens: how many tokens are computed at once; the default suits the device.

    Raises:
        ValueError: an unknown task; no model for a task without a default. CheckpointError: files missing or damaged.

    Example:
        >>> fill = pipeline("fill-mask", "bert-base-uncased")
        >>> fill("Paris is the [MASK] of France.")[0]["token_str"]
        'capital'
    """
    task, pair = resolve(task)
    if task not in TASKS:
        raise ValueError(f"there is no task {task!r} here; there are {', '.join([*TASKS, *ALIASES])}.")
    if model is None:
        if task not in EMBEDDING:
            raise ValueError(f"{task} has no default model: name one, as in pipeline({task!r}, 'FOLDER').")
        model = default_encoder()

    from polyformer.pipelines.loading import Where, load_model, load_states_model, load_tokenizer

    where = Where(revision, cache_dir, token, local_files_only, subfolder=subfolder)
    module, name = TASKS[task]
    made = getattr(import_module(f"polyformer.pipelines.{module}"), name)
    given = {"src_lang": src_lang, "tgt_lang": tgt_lang}
    languages = pair | {name: value for name, value in given.items() if value is not None}
    if languages and task != "translation":
        raise ValueError(f"{task} has no {' and '.join(languages)}: only translation has.")
    if (task == "open-qa") != (index is not None):
        raise ValueError("open-qa wants index=FOLDER, as `polyformer index build` makes it, and no other task does.")
    if task == "open-qa":
        return made.from_pretrained(
            model, index, question_encoder, config=config, tokenizer=tokenizer, device=device,
            torch_dtype=torch_dtype, batch_tokens=batch_tokens, where=where,
        )  # fmt: skip
    if task == "sentence-similarity":
        from polyformer.pipelines.sentence import SentenceEncoder

        if not isinstance(model, SentenceEncoder):
            model = pipeline(
                "sentence-embedding", model, config, tokenizer, device=device, torch_dtype=torch_dtype,
                batch_tokens=batch_tokens, revision=revision, cache_dir=cache_dir, token=token,
                local_files_only=local_files_only, subfolder=subfolder,
            )  # fmt: skip
        return made(model)
    if task == "sentence-embedding" and isinstance(model, (str, os.PathLike)):
        return made.from_pretrained(
            model, config=config, tokenizer=tokenizer, device=device, torch_dtype=torch_dtype,
            batch_tokens=batch_tokens, **where.options(),
        )  # fmt: skip
    if isinstance(model, (str, os.PathLike)):
        load = load_states_model if made.model_task == "base" else partial(load_model, task=made.model_task)
        loaded = load(model, where, config=config, device=device, torch_dtype=torch_dtype)
    elif torch_dtype is not None or config is not None:
        raise ValueError("torch_dtype and config say how to load a model; this one is loaded: use model.to(dtype).")
    else:
        loaded = model
    own = load_tokenizer(tokenizer, loaded, where)
    return made(loaded, own, device=device, batch_tokens=batch_tokens, **languages)


def resolve(task: str) -> tuple[str, dict[str, str]]:
    """What a task is called in TASKS, and the languages that its name may hold."""
    pair = PAIR.fullmatch(task)
    return ("translation", {"src_lang": pair[1], "tgt_lang": pair[2]}) if pair else (ALIASES.get(task, task), {})
