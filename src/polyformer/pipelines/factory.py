"""`pipeline(task, model)`: the one line that most users need."""

import os
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from polyformer.pipelines.defaults import default_encoder

if TYPE_CHECKING:
    import torch

    from polyformer.core.config import Config
    from polyformer.core.pretrained import PreTrainedModel

# A task, the module here and its class.
TASKS = {
    "feature-extraction": ("feature_extraction", "FeatureExtractionPipeline"),
    "fill-mask": ("fill_mask", "FillMaskPipeline"),
    "image-text-classification": ("image_text", "ImageTextClassificationPipeline"),
    "multiple-choice": ("multiple_choice", "MultipleChoicePipeline"),
    "question-answering": ("question_answering", "QuestionAnsweringPipeline"),
    "sentence-embedding": ("sentence", "SentenceEncoder"),
    "sentence-similarity": ("sentence_similarity", "SentenceSimilarityPipeline"),
    "text-classification": ("text_classification", "TextClassificationPipeline"),
    "token-classification": ("token_classification", "TokenClassificationPipeline"),
    "zero-shot-classification": ("zero_shot", "ZeroShotClassificationPipeline"),
}
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
) -> Any:
    """A callable that does a task with a model, from text to answer.

    Args:
        task: "feature-extraction" (a vector a token), "sentence-embedding" (a vector a text), "sentence-similarity",
            "fill-mask", "text-classification" (or "sentiment-analysis"), "zero-shot-classification",
            "token-classification" (or "ner"), "question-answering", "multiple-choice", "image-text-classification".
        model: a folder, a repository of the hub, or a loaded model. Without one, the three tasks that compare vectors
            use all-MiniLM-L6-v2 from the extra [demo].
        config: used instead of the checkpoint's.
        tokenizer: a tokenizer or its name, where it is not the model's own.
        device: "cpu", "cuda:1", a number of a GPU or -1 for the CPU; the first GPU, if there is one, by default. A
            loaded model stays where it is unless told to move.
        torch_dtype: type of the weights; float32 by default, "auto" = the file's.
        batch_tokens: how many tokens are computed at once; the default suits the device.

    Raises:
        ValueError: an unknown task; no model for a task without a default. CheckpointError: files missing or damaged.

    Example:
        >>> fill = pipeline("fill-mask", "bert-base-uncased")
        >>> fill("Paris is the [MASK] of France.")[0]["token_str"]
        'capital'
    """
    task = ALIASES.get(task, task)
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
    return made(loaded, load_tokenizer(tokenizer, loaded, where), device=device, batch_tokens=batch_tokens)
