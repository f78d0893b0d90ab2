"""Answers from your documents: a question finds passages in an index, and a reader answers from them.

question -> question encoder -> vector -> index -> k passages -> reader -> answers, each with where it stands
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import length_hint
from typing import Any, ClassVar, Self

import torch

from polyformer.core.config import Config, read_config
from polyformer.models.dpr import DPRReader
from polyformer.models.rag import RagForGeneration, RagSequenceForGeneration, RagTokenForGeneration
from polyformer.pipelines.batching import windows
from polyformer.pipelines.loading import Where, device_of, load_model, load_tokenizer
from polyformer.pipelines.passage_encoder import PassageEncoder, load_passage_encoder
from polyformer.pipelines.passage_reader import Answer, Asked, DPRSpanReader, Reader, SpanReader
from polyformer.pipelines.passage_writer import RagWriter
from polyformer.pipelines.progress import Progress
from polyformer.pipelines.question_answering import QuestionAnsweringPipeline
from polyformer.pipelines.rows import called, check_texts
from polyformer.retrieval.index import PassageIndex
from polyformer.retrieval.retriever import Retriever

WINDOW = 16  # questions at a time; the reader has passages for each


class OpenQAPipeline:
    """A question to its answer, found in an index of passages, with characters that point into the documents.

    An answer is {"answer", "score", "document", "title", "start", "end", "passage"}: characters [start, end) of the
    document are the answer (all of the passage, where a reader writes its answers), and "passage" is {"id", "text",
    "start", "score"}, the passage it was found in, where that begins in the document, and its score in the search.
    """

    task: ClassVar[str] = "open-qa"

    def __init__(self, index: Retriever, encoder: PassageEncoder, reader: Reader) -> None:
        """index: where passages are found. encoder: makes the vectors of questions. reader: answers from passages."""
        self.index, self.encoder, self.reader = index, encoder, reader

    @classmethod
    def from_pretrained(
        cls,
        model: Any,
        index: str | os.PathLike[str] | Retriever,
        question_encoder: "str | os.PathLike[str] | PassageEncoder | None" = None,
        *,
        config: Config | None = None,
        tokenizer: Any = None,
        device: torch.device | str | int | None = None,
        torch_dtype: torch.dtype | str | None = None,
        batch_tokens: int | None = None,
        where: Where | None = None,
    ) -> Self:
        """From a reader and an index.

        model: DPR's reader, a model for extractive question answering, or RAG, loaded or by name; or any `Reader`.
        index: a folder, or a `Retriever`. question_encoder: by default the reader's own, as RAG has one, or what the
            index names.
        """
        where = where or Where()
        found = PassageIndex(index) if isinstance(index, (str, os.PathLike)) else index
        reader = reader_of(
            model, tokenizer, where, config=config, device=device, torch_dtype=torch_dtype, batch_tokens=batch_tokens
        )
        question_encoder = question_encoder or getattr(reader, "question_encoder", None)
        if question_encoder is None:
            if not isinstance(found, PassageIndex):
                raise ValueError("this index names no model for questions: give one as question_encoder=...")
            question_encoder = found.meta.question_encoder
        if isinstance(question_encoder, (str, os.PathLike)):
            question_encoder = load_passage_encoder(
                question_encoder, "questions", device=device, batch_tokens=batch_tokens,
                where=Where(cache_dir=where.cache_dir, token=where.token, local_files_only=where.local_files_only),
            )  # fmt: skip
        return cls(found, question_encoder, reader)

    def __call__(
        self,
        inputs: str | Iterable[str],
        *,
        top_k: int = 1,
        passages: int = 10,
        max_answer_len: int = 15,
        show_progress: bool | None = None,
    ) -> Any:
        """Answer a question, a list of them, or an iterable of them.

        Args:
            top_k: how many answers at most. With 1 a question gives its answer, None if there is no passage; with more
                a list.
            passages: how many the reader reads.
            max_answer_len: tokens of an answer at most.

        Raises:
            TypeError: not a text. ValueError: an empty question, or the vectors of another model than the index's.
        """
        for name, value in (("top_k", top_k), ("passages", passages), ("max_answer_len", max_answer_len)):
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1.")
        options = {"top_k": top_k, "passages": passages, "max_answer_len": max_answer_len}
        if isinstance(inputs, str):
            return next(self._stream([inputs], options, False, first=-1))
        if isinstance(inputs, (list, tuple)):
            return list(self._stream(inputs, options, show_progress))
        return self._stream(inputs, options, show_progress)

    def find(self, questions: Sequence[str], count: int) -> list[Asked]:
        """The passages for every question."""
        vectors = self.encoder.questions(questions)
        found = self.index.search(vectors, count)
        made = []
        for row, question in enumerate(questions):
            there = found.ids[row] >= 0
            passages = self.index.passages(found.ids[row][there])
            made.append(Asked(question, vectors[row], passages, found.scores[row][there]))
        return made

    def _stream(
        self, questions: Iterable[str], options: Mapping[str, int], show_progress: bool | None, first: int = 0
    ) -> Iterator[Any]:
        with Progress(length_hint(questions) or None, "questions", show_progress) as progress:
            for window in windows(questions, WINDOW):
                _check(window, first)
                asked = self.find(window, options["passages"])
                answers = self.reader.read(asked, options["top_k"], options["max_answer_len"])
                for one, found in zip(asked, answers, strict=True):
                    progress.advance(1)
                    cited = [citation(one, answer) for answer in found]
                    yield cited if options["top_k"] > 1 else next(iter(cited), None)
                first += len(window)

    def __repr__(self) -> str:
        return f"OpenQAPipeline({self.index!r}, {type(self.reader).__name__})"


def citation(asked: Asked, answer: Answer) -> dict[str, Any]:
    """An answer with where it stands."""
    passage = asked.passages[answer.passage]
    start, end = answer.span or (0, len(passage.text))
    return {
        "answer": answer.text,
        "score": answer.score,
        "document": passage.document,
        "title": passage.title,
        "start": passage.start + start,
        "end": passage.start + end,
        "passage": {
            "id": passage.id,
            "text": passage.text,
            "start": passage.start,
            "score": float(asked.scores[answer.passage]),
        },
    }


def reader_of(
    model: Any,
    tokenizer: Any,
    where: Where,
    *,
    config: Config | None = None,
    device: torch.device | str | int | None = None,
    torch_dtype: torch.dtype | str | None = None,
    batch_tokens: int | None = None,
) -> Reader:
    """The reader that a model is: a name or a loaded model; what has `read` is one already.

    Raises:
        CheckpointError: files missing or damaged, or no head that answers questions.
    """
    if hasattr(model, "read"):
        reader: Reader = model
        return reader
    if isinstance(model, (str, os.PathLike)):
        kind = config.model_type if config is not None else read_config(model, **where.options()).get("model_type")
        given: dict[str, Any] = {"config": config, "torch_dtype": torch_dtype}
        if kind == "rag":
            model = _rag(model, where).from_pretrained(model, device=device_of(device), **given, **where.options())
        elif kind == "dpr":
            model = DPRReader.from_pretrained(model, device=device_of(device), strict=True, **given, **where.options())
        else:
            model = load_model(model, where, task="question-answering", device=device, **given)
    tokenizer = load_tokenizer(tokenizer, model, where)
    if isinstance(model, RagForGeneration):
        return RagWriter(model, tokenizer, device=device, batch_tokens=batch_tokens)
    if isinstance(model, DPRReader):
        return DPRSpanReader(model, tokenizer, device=device, batch_tokens=batch_tokens)
    return SpanReader(QuestionAnsweringPipeline(model, tokenizer, device=device, batch_tokens=batch_tokens))


def _rag(name: str | os.PathLike[str], where: Where) -> type[RagForGeneration]:
    """The class that a checkpoint of RAG was saved by; RAG-Token where it does not say."""
    saved = read_config(name, **where.options()).get("architectures") or []
    return RagSequenceForGeneration if RagSequenceForGeneration.__name__ in saved else RagTokenForGeneration


def _check(questions: Sequence[str], first: int) -> None:
    check_texts(questions, first)
    for number, question in enumerate(questions, first):
        if not question.strip():
            raise ValueError(f"{called(number)} is empty: ask something.")
