"""Texts to vectors whose cosine says how much they mean the same (Reimers and Gurevych 2019, arXiv 1908.10084)."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from operator import length_hint
from typing import Any, ClassVar, Literal, Self, overload

import numpy as np
import torch
from tokenizers.normalizers import Lowercase
from torch import Tensor, nn

from polyformer.core.auto import AutoConfig
from polyformer.core.config import Config
from polyformer.core.pretrained import PreTrainedModel
from polyformer.pipelines.base import check_budget, default_budget, in_batches
from polyformer.pipelines.batching import WINDOW, windows
from polyformer.pipelines.loading import Where, device_of, load_model, load_states_model, load_tokenizer, longest_input
from polyformer.pipelines.progress import Progress
from polyformer.pipelines.rows import check_texts
from polyformer.pipelines.sentence_files import Recipe, read_recipe
from polyformer.pipelines.sentence_modules import Normalize, TokenPooling

LOWERCASE = Lowercase()
logger = logging.getLogger("polyformer")


class SentenceEncoder:
    """A transformer, a pooling and what comes after: one vector a text.

    `from_pretrained` reads models of sentence-transformers and gives their vectors. A model without modules.json (a
    plain BERT) gets what its config.pooling says, or else, with a warning, the mean over all its tokens, not
    normalised. Texts longer than `max_length` tokens are cut there, as sentence-transformers does.
    """

    task: ClassVar[str] = "sentence-embedding"
    model_task: ClassVar[str] = "base"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        recipe: Recipe | None = None,
        *,
        device: torch.device | str | int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        """From a loaded base model and its tokenizer.

        recipe: pooling, further layers, limits; by default those of a plain model.
        batch_tokens: tokens that are computed at once; the default suits the device.
        """
        recipe = recipe or Recipe()
        self.model = (model if device is None else model.to(device_of(device))).eval()
        self.tokenizer = tokenizer
        own_pooling = recipe.pooling is None and bool(model.config.pooling)
        self.pooling = None if own_pooling else recipe.pooling or TokenPooling()
        self.layers = nn.ModuleList(recipe.layers).to(self.device).eval()
        self.prompts, self.default_prompt, self.lower = recipe.prompts, recipe.prompt, recipe.lower
        self.batch_tokens = check_budget(batch_tokens) or default_budget(self.model)
        limits = [recipe.max_length, longest_input(tokenizer, model)]
        self.max_length: int | None = min((limit for limit in limits if limit), default=None)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        config: Config | None = None,
        tokenizer: Any = None,
        device: torch.device | str | int | None = None,
        torch_dtype: torch.dtype | str | None = None,
        batch_tokens: int | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        subfolder: str = "",
    ) -> Self:
        """Load a model in the layout of sentence-transformers, or a plain one, from a folder or the hub.

        Args:
            config, tokenizer: used instead of the checkpoint's.
            device: "cpu", "cuda:1", a number of a GPU, -1 for the CPU; the first GPU, if there is one, by default.
            torch_dtype: type of the weights, float32 by default; vectors are float32 whatever it is.
            batch_tokens: tokens that are computed at once; the default suits the device.

        Raises:
            CheckpointError: files missing or damaged, a module that is not known here.
        """
        where = Where(revision, cache_dir, token, local_files_only, force_download, subfolder)
        recipe = read_recipe(name_or_path, where)
        inside = where.inside(recipe.folder)
        given = config or AutoConfig.from_pretrained(name_or_path, **inside.options())
        if recipe.pooling is None and not given.pooling:
            logger.warning(
                "%s was not trained to give vectors of texts, as far as its files say (no modules.json, no pooling in "
                "config.json): the mean over its tokens is taken, which often ranks texts poorly.", name_or_path,
            )  # fmt: skip
        load = partial(load_model, task="base") if recipe.pooling is None and given.pooling else load_states_model
        model = load(name_or_path, inside, config=given, device=device, torch_dtype=torch_dtype)
        if tokenizer is None:
            tokenizer = load_tokenizer(name_or_path, model, inside)
        return cls(model, load_tokenizer(tokenizer, model, where), recipe, batch_tokens=batch_tokens)

    # ---- texts ----

    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        *,
        batch_tokens: int | None = ...,
        normalize: bool | None = ...,
        show_progress: bool | None = ...,
        convert_to: Literal["numpy"] = ...,
        prompt: str | None = ...,
        prompt_name: str | None = ...,
    ) -> np.ndarray: ...
    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        *,
        batch_tokens: int | None = ...,
        normalize: bool | None = ...,
        show_progress: bool | None = ...,
        convert_to: Literal["torch"],
        prompt: str | None = ...,
        prompt_name: str | None = ...,
    ) -> Tensor: ...
    def encode(
        self,
        texts: str | Iterable[str],
        *,
        batch_tokens: int | None = None,
        normalize: bool | None = None,
        show_progress: bool | None = None,
        convert_to: Literal["numpy", "torch"] = "numpy",
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> np.ndarray | Tensor:
        """Vectors of texts, in their order.

        Args:
            texts: a list or any iterable of texts; a single str gives a single vector (width,).
            batch_tokens: tokens that are computed at once. It changes speed and memory, not the vectors.
            normalize: True = length 1, False = as they come out, None = as the model says.
            show_progress: True or False; None = on a terminal, when it takes a moment.
            convert_to: "numpy", or "torch" for a tensor on the model's device.
            prompt, prompt_name: a text to put before every text, itself or by its name in the model's prompts; a model
                may have one by default, and prompt="" is none.

        Returns:
            (texts, width) float32.

        Raises:
            TypeError: not a text. ValueError: an unknown prompt.
        """
        if convert_to not in ("numpy", "torch"):
            raise ValueError(f"convert_to is {convert_to!r}; there are 'numpy' and 'torch'.")
        total = length_hint([texts] if isinstance(texts, str) else texts) or None
        before = self._prompt(prompt, prompt_name)
        several = [texts] if isinstance(texts, str) else texts
        with Progress(total, "texts", show_progress) as progress:
            parts = list(self._windows(several, WINDOW, before, batch_tokens, normalize, progress))
        made = torch.cat(parts) if parts else torch.zeros(0, self.width, device=self.device)
        made = made[0] if isinstance(texts, str) else made
        return made if convert_to == "torch" else made.cpu().numpy()

    __call__ = encode

    def stream(
        self,
        texts: Iterable[str],
        *,
        window: int = WINDOW // 4,
        batch_tokens: int | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> Iterator[np.ndarray]:
        """Vectors (width,) float32 one by one, in the order of the texts, for input without end.

        window: texts that are read ahead, and all that is held in memory; 1 answers every text at once, slowly.
        """
        if window < 1:
            raise ValueError(f"window is {window}: read at least 1 text ahead.")
        before = self._prompt(prompt, prompt_name)
        for vectors in self._windows(texts, window, before, batch_tokens, normalize, Progress(None, "texts", False)):
            yield from vectors.cpu().numpy()

    def encode_ids(
        self, ids: Sequence[Sequence[int]], *, batch_tokens: int | None = None, normalize: bool | None = None
    ) -> np.ndarray:
        """Vectors (rows, width) float32 of token ids, special tokens included, none longer than the model takes.

        A row without any token gives zeros.
        """
        return self._encode({"input_ids": ids}, batch_tokens, normalize).cpu().numpy()

    # ---- what the above stand on ----

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        with torch.inference_mode():
            probe = {"input_ids": torch.zeros(1, 1, dtype=torch.int64, device=self.device)}
            return int(self.vectors_of(probe).shape[1])

    @property
    def normalizes(self) -> bool:
        """Whether vectors come out with length 1."""
        return any(isinstance(layer, Normalize) for layer in self.layers)

    def vectors_of(self, inputs: dict[str, Tensor], normalize: bool | None = None, skip: int = 0) -> Tensor:
        """One batch: the model's arguments, (rows, length) each, to (rows, width) float32.

        skip: tokens of a prompt that begin every row.
        """
        outputs = self.model(**inputs, return_dict=True)
        if self.pooling is None:
            x = outputs.pooler_output.float()
        else:
            x = self.pooling(outputs.last_hidden_state, inputs.get("attention_mask"), skip)
        for layer in self.layers:
            if normalize is not False or not isinstance(layer, Normalize):
                x = layer(x)
        return nn.functional.normalize(x, dim=-1) if normalize else x

    def rows_of(self, texts: Sequence[str]) -> dict[str, list[list[int]]]:
        """The model's columns, a list of ids a text, cut to `max_length`."""
        if self.lower:
            texts = [LOWERCASE.normalize_str(text) for text in texts]
        cut = {} if self.max_length is None else {"truncation": True, "max_length": self.max_length}
        made = self.tokenizer(list(texts), return_attention_mask=False, verbose=False, **cut)
        columns = {"input_ids": made["input_ids"]}
        if any(map(any, made.get("token_type_ids", ()))):
            columns["token_type_ids"] = made["token_type_ids"]
        return columns

    def _windows(
        self,
        texts: Iterable[str],
        size: int,
        prompt: str,
        batch_tokens: int | None,
        normalize: bool | None,
        progress: Progress,
    ) -> Iterator[Tensor]:
        """Vectors (window, width) of one window of texts after another."""
        skip = self._prompt_tokens(prompt) if prompt and self.pooling is not None and not self.pooling.prompt else 0
        first = 0
        for window in windows(texts, size):
            check_texts(window, first)
            first += len(window)
            rows = self.rows_of([prompt + text for text in window] if prompt else window)
            yield self._encode(rows, batch_tokens, normalize, skip, progress)

    def _encode(
        self,
        columns: dict[str, Any],
        batch_tokens: int | None,
        normalize: bool | None,
        skip: int = 0,
        progress: Progress | None = None,
    ) -> Tensor:
        """Vectors (rows, width) of rows of ids, in their order, on the model's device."""
        budget = check_budget(batch_tokens) or self.batch_tokens
        made: Tensor | None = None
        with torch.inference_mode():
            for numbers, inputs in in_batches(columns, budget, self.device):
                vectors = self.vectors_of(inputs, normalize, skip)
                if made is None:
                    made = vectors.new_zeros(len(columns["input_ids"]), vectors.shape[1])
                made[torch.from_numpy(numbers).to(self.device)] = vectors
                if progress is not None:
                    progress.advance(len(numbers))
        return torch.zeros(len(columns["input_ids"]), self.width, device=self.device) if made is None else made

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        if prompt is not None:
            return prompt
        if name is not None and name not in self.prompts:
            known = ", ".join(self.prompts) or "none"
            raise ValueError(f"the model has no prompt called {name!r}; it has {known}. Give its text as prompt=...")
        return self.prompts.get(name or self.default_prompt or "", "")

    def _prompt_tokens(self, prompt: str) -> int:
        """How many tokens a prompt takes at the beginning of a row."""
        ids = self.tokenizer(prompt, verbose=False)["input_ids"]
        return len(ids) - (ids[-1] in self.tokenizer.all_special_ids)

    def __repr__(self) -> str:
        pooling = "its own" if self.pooling is None else "+".join(self.pooling.modes)
        return f"SentenceEncoder({type(self.model).__name__} on {self.device}, {pooling} pooling, {self.width} wide)"
