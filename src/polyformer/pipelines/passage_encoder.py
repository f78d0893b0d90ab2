"""Questions and passages to the vectors by which an index finds one from the other: DPR's, or any embedding model's."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from polyformer.core.config import read_config
from polyformer.core.errors import CheckpointError
from polyformer.models.dpr import DPRContextEncoder, DPREncoder, DPRQuestionEncoder
from polyformer.pipelines.base import check_budget, default_budget, in_batches
from polyformer.pipelines.defaults import default_encoder
from polyformer.pipelines.loading import Where, device_of, load_tokenizer, longest_input
from polyformer.pipelines.rows import check_texts
from polyformer.pipelines.sentence import SentenceEncoder
from polyformer.retrieval.passage import Passage
from polyformer.retrieval.write import BLOCK

DEFAULT = "all-MiniLM-L6-v2"  # the name of the model of the extra [demo]
QUESTION_PROMPTS, PASSAGE_PROMPTS = ("query", "question"), ("document", "passage", "corpus")


# Passages that are written to an index at a time on a CPU, which is what an interruption loses: one core reads five a
# second with a model of BERT's size. More at a time is no faster there: MiniLM, one thread, seconds for 1000 passages
# of Wikipedia in blocks of 32, 64, 256: 25.0 26.3 26.7.
CPU_BLOCK = 32


class PassageEncoder(Protocol):
    """name: by which `load_passage_encoder` finds it again. metric: by which its vectors are compared.

    block: passages to write to an index at a time, so that an interruption loses some seconds of work.
    """

    name: str
    block: int
    metric: ClassVar[str]

    def questions(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, width) float32."""
        ...

    def passages(self, passages: Sequence[Passage]) -> np.ndarray:
        """(passages, width) float32."""
        ...


class EmbeddingVectors:
    """An embedding model: one for both sides. Titles are not read.

    A model that has a prompt for questions or for passages among its prompts gets it.
    """

    metric: ClassVar[str] = "cosine"

    def __init__(self, encoder: SentenceEncoder, name: str = "") -> None:
        self.encoder, self.name, self.block = encoder, name, block_on(encoder.device)

    def questions(self, texts: Sequence[str]) -> np.ndarray:
        return self._encode(texts, QUESTION_PROMPTS)

    def passages(self, passages: Sequence[Passage]) -> np.ndarray:
        return self._encode([passage.text for passage in passages], PASSAGE_PROMPTS)

    def _encode(self, texts: Sequence[str], prompts: Sequence[str]) -> np.ndarray:
        prompt = next((name for name in prompts if name in self.encoder.prompts), None)
        return self.encoder.encode(list(texts), prompt_name=prompt, show_progress=False)


class DPRVectors:
    """An encoder of DPR, of either side: questions alone, passages as a pair of title and text, all in one segment.

    What is longer than the model takes is cut there, as in the original.
    """

    metric: ClassVar[str] = "inner-product"

    def __init__(self, model: DPREncoder, tokenizer: Any, name: str = "", *, batch_tokens: int | None = None) -> None:
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.batch_tokens = check_budget(batch_tokens) or default_budget(model)
        self.block = block_on(model.device)

    def questions(self, texts: Sequence[str]) -> np.ndarray:
        check_texts(texts)
        return self._encode(self._rows(list(texts)))

    def passages(self, passages: Sequence[Passage]) -> np.ndarray:
        rows: list[list[int]] = [[]] * len(passages)
        for titled in (False, True):  # a passage without a title is no pair
            some = [i for i, passage in enumerate(passages) if bool(passage.title) == titled]
            texts = [passages[i].text for i in some]
            made = self._rows([passages[i].title for i in some], texts) if titled else self._rows(texts)
            for i, row in zip(some, made, strict=True):
                rows[i] = row
        return self._encode(rows)

    def _rows(self, *columns: list[str]) -> list[list[int]]:
        if not columns[0]:
            return []
        limit = longest_input(self.tokenizer, self.model)
        cut: dict[str, Any] = {} if limit is None else {"truncation": True, "max_length": limit}
        made: list[list[int]] = self.tokenizer(*columns, return_attention_mask=False, verbose=False, **cut)["input_ids"]
        return made

    def _encode(self, rows: list[list[int]]) -> np.ndarray:
        made = torch.zeros(len(rows), self.model.embeddings_size)
        with torch.inference_mode():
            for numbers, inputs in in_batches({"input_ids": rows}, self.batch_tokens, self.model.device):
                vectors: Tensor = self.model(**inputs, return_dict=True).pooler_output
                made[torch.from_numpy(numbers)] = vectors.float().cpu()
        return made.numpy()


def block_on(device: torch.device) -> int:
    """How many passages to write to an index at a time."""
    return CPU_BLOCK if device.type == "cpu" else BLOCK


def load_passage_encoder(
    name: str | os.PathLike[str] | None,
    side: str,
    *,
    device: torch.device | str | int | None = None,
    torch_dtype: torch.dtype | str | None = None,
    batch_tokens: int | None = None,
    where: Where | None = None,
) -> PassageEncoder:
    """The model that makes vectors of one side.

    name: a folder, a repository of the hub; None = all-MiniLM-L6-v2 of the extra [demo].
    side: "questions" or "passages": DPR has a model for each.

    Raises:
        CheckpointError: files missing or damaged, or DPR's encoder of the other side.
    """
    where = where or Where()
    source = default_encoder() if name is None or str(name) == DEFAULT else name
    kept = DEFAULT if name is None else str(Path(name).resolve() if Path(name).is_dir() else name)
    if read_config(source, **where.options()).get("model_type") == "dpr":
        kind = DPRQuestionEncoder if side == "questions" else DPRContextEncoder
        try:
            model = kind.from_pretrained(
                source, device=device_of(device), torch_dtype=torch_dtype, strict=True, **where.options()
            )
        except CheckpointError as error:
            raise CheckpointError(f"{name} cannot be the encoder of {side}: {error}") from error
        return DPRVectors(model, load_tokenizer(None, model, where), kept, batch_tokens=batch_tokens)
    encoder = SentenceEncoder.from_pretrained(
        source, device=device, torch_dtype=torch_dtype, batch_tokens=batch_tokens, **where.options()
    )
    return EmbeddingVectors(encoder, kept)
