"""What RAG reads: passages found by the question's vector, each as a text with the question after it."""

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from polyformer.retrieval.index import PassageIndex
from polyformer.retrieval.passage import Passage
from polyformer.retrieval.retriever import Retriever


def context(question: str, passage: Passage, config: Any, prefix: str | None = None) -> str:
    """A passage with the question after it, as RAG's generator reads it (Lewis et al. 2020, section 2.3).

    config: a RagConfig, of which title_sep and doc_sep are read. prefix: what the generator wants before any text.
    """
    title = passage.title.strip('"')
    text = f"{prefix or ''}{title}{config.title_sep}{passage.text}{config.doc_sep}{question}"
    return text.replace("  ", " ")


def contexts(
    questions: Sequence[str],
    passages: Sequence[Sequence[Passage]],
    config: Any,
    tokenizer: Any,
    prefix: str | None = None,
    return_tensors: str | None = None,
) -> dict[str, Any]:
    """context_input_ids and context_attention_mask, (all passages, length), of questions and the passages of each.

    config: a RagConfig; what is longer than its max_combined_length is cut there. tokenizer: the generator's.
    """
    pairs = zip(questions, passages, strict=True)
    texts = [context(question, one, config, prefix) for question, several in pairs for one in several]
    made = tokenizer(
        texts, max_length=config.max_combined_length, padding=True, truncation=True, verbose=False,
        return_tensors=return_tensors, return_attention_mask=True,
    )  # fmt: skip
    return {"context_input_ids": made["input_ids"], "context_attention_mask": made["attention_mask"]}


class RagRetriever:
    """Finds passages for RAG in any index, and makes them the generator's input.

    Args:
        config: a RagConfig.
        question_encoder_tokenizer, generator_tokenizer: of the two models; `RagTokenizer` holds both.
        index: of passages whose vectors belong to the question encoder's; a folder, or any `Retriever`.

    Raises:
        CheckpointError: no index in that folder.
    """

    def __init__(
        self,
        config: Any,
        question_encoder_tokenizer: Any,
        generator_tokenizer: Any,
        index: str | os.PathLike[str] | Retriever | None = None,
    ) -> None:
        found = config.index_path if index is None else index
        if found is None:
            raise ValueError("there is no index: give index=FOLDER, as `polyformer index build` makes it.")
        self.config = config
        self.question_encoder_tokenizer, self.generator_tokenizer = question_encoder_tokenizer, generator_tokenizer
        self.index = PassageIndex(found) if isinstance(found, (str, os.PathLike)) else found

    @classmethod
    def from_pretrained(
        cls,
        retriever_name_or_path: str | os.PathLike[str],
        index: str | os.PathLike[str] | Retriever | None = None,
        **options: Any,
    ) -> Self:
        """With the configuration and the tokenizers of a RAG checkpoint, and its config.index_path unless `index` says.

        options: where the files are found, as of any from_pretrained (revision, cache_dir, ...).
        """
        from polyformer.models.rag import RagConfig
        from polyformer.tokenizers.rag import RagTokenizer

        config = RagConfig.from_pretrained(retriever_name_or_path, **options)
        both = RagTokenizer.from_pretrained(retriever_name_or_path, config=config, **options)
        return cls(config, both.question_encoder, both.generator, index)

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write the configuration and both tokenizers; the index stays where it is."""
        from polyformer.tokenizers.rag import RagTokenizer

        self.config.save_pretrained(save_directory)
        RagTokenizer(self.question_encoder_tokenizer, self.generator_tokenizer).save_pretrained(save_directory)

    def retrieve(self, question_hidden_states: Any, n_docs: int) -> tuple[np.ndarray, np.ndarray, list[list[Passage]]]:
        """The passages nearest to questions.

        question_hidden_states: (rows, width), an array or a tensor.

        Returns:
            vectors (rows, n_docs, width) float32, ids (rows, n_docs) int64, and the passages, best first.

        Raises:
            ValueError: the index has fewer passages than that.
        """
        found = self.index.search(question_hidden_states, n_docs)
        if (found.ids < 0).any():
            there = int((found.ids >= 0).sum(1).min())
            raise ValueError(f"the index has {there} passages and {n_docs} are wanted: set n_docs to {there} or fewer.")
        return found.vectors, found.ids, [self.index.passages(row) for row in found.ids]

    def __call__(
        self,
        question_input_ids: Any,
        question_hidden_states: Any,
        prefix: str | None = None,
        n_docs: int | None = None,
        return_tensors: str | None = None,
    ) -> dict[str, Any]:
        """Passages for questions, as the generator reads them.

        Args:
            question_input_ids: (rows, length) in the question encoder's tokens; question_hidden_states: (rows, width).
            prefix: what the generator wants before any text.
            return_tensors: "pt", "np"; lists and arrays otherwise.

        Returns:
            context_input_ids and context_attention_mask (rows * n_docs, length), those of a question side by side;
            retrieved_doc_embeds (rows, n_docs, width) and doc_ids (rows, n_docs).
        """
        count = self.config.n_docs if n_docs is None else n_docs
        vectors, ids, passages = self.retrieve(question_hidden_states, count)
        questions = self.question_encoder_tokenizer.batch_decode(question_input_ids, skip_special_tokens=True)
        read = contexts(questions, passages, self.config, self.generator_tokenizer, prefix, return_tensors)
        if return_tensors == "pt":
            import torch

            return read | {"retrieved_doc_embeds": torch.from_numpy(vectors), "doc_ids": torch.from_numpy(ids)}
        return read | {"retrieved_doc_embeds": vectors, "doc_ids": ids}
