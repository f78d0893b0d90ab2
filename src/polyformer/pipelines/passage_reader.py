"""Reading the passages that were found for a question: DPR's reader, or any model for extractive question answering.

A reader for `pipeline("open-qa")` is anything with `read`, as the protocol `Reader` has it: one that writes its answers
(RAG) says which passage they rest on and gives no span.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from polyformer.pipelines.base import Pipeline
from polyformer.pipelines.question_answering import QuestionAnsweringPipeline, Span, candidates, characters
from polyformer.pipelines.rows import OVERLAP, Piece, Row, naming, tokens_of, windows
from polyformer.retrieval.passage import Passage


class Asked(NamedTuple):
    """A question, its vector (width,), the passages found for it, best first, and their scores (passages,)."""

    question: str
    vector: np.ndarray
    passages: list[Passage]
    scores: np.ndarray


class Answer(NamedTuple):
    """An answer from passage number `passage` of those found.

    span: characters [start, end) of the passage's text; None where the answer was written, not found.
    """

    text: str
    score: float
    passage: int
    span: tuple[int, int] | None


class Reader(Protocol):
    def read(self, asked: Sequence[Asked], top_k: int, max_answer_len: int) -> list[list[Answer]]:
        """At most top_k answers to each question, best first; max_answer_len in tokens."""
        ...


class SpanReader:
    """Any model for extractive question answering. Every passage is read alone; the surest answers come first."""

    def __init__(self, answering: QuestionAnsweringPipeline) -> None:
        self.answering = answering

    def read(self, asked: Sequence[Asked], top_k: int, max_answer_len: int) -> list[list[Answer]]:
        pairs = [
            (number, rank, {"question": one.question, "context": passage.text})
            for number, one in enumerate(asked)
            for rank, passage in enumerate(one.passages)
            if passage.text.strip()
        ]
        found: list[list[Answer]] = [[] for _ in asked]
        examples = [example for _, _, example in pairs]
        with naming(lambda pair: repr(examples[pair]["question"])):
            several = self.answering(examples, top_k=top_k, max_answer_len=max_answer_len, show_progress=False)
        for (number, rank, _), answers in zip(pairs, several, strict=True):
            for answer in [answers] if isinstance(answers, dict) else answers:
                span = (answer["start"], answer["end"])
                found[number].append(Answer(answer["answer"], answer["score"], rank, span))
        return [sorted(answers, key=lambda answer: -answer.score)[:top_k] for answers in found]


class DPRSpanReader(Pipeline):
    """DPR's reader (Karpukhin et al. 2020, section 6.1), rows `[CLS] question [SEP] title [SEP] text`.

    The best span of the most relevant passage comes first, then that of the next passage, and so on; with more answers
    wanted than there are passages, second spans. A score is the probability of the passage among those found, times
    that of the span's beginning and end in it; answers are in the order of passages, as in the paper, not of scores.
    A passage longer than a row is read by window.
    """

    task: ClassVar[str] = "open-qa"
    model_task: ClassVar[str] = "base"

    def read(self, asked: Sequence[Asked], top_k: int, max_answer_len: int) -> list[list[Answer]]:
        made: list[list[Answer]] = self.run(list(asked), {"top_k": top_k, "longest": max_answer_len}, False)
        return made

    def prepare(self, texts: Sequence[Any], first: int, options: Mapping[str, Any]) -> list[list[Piece]]:
        pairs = [(one.question.strip(), passage) for one in texts for passage in one.passages]
        if not pairs:
            return [[] for _ in texts]
        heads = self.tokenizer(
            [question for question, _ in pairs], [passage.title for _, passage in pairs], return_attention_mask=False,
            verbose=False,
        )["input_ids"]  # fmt: skip
        bodies = iter(zip(heads, tokens_of(self.tokenizer, [passage.text for _, passage in pairs]), strict=True))
        return [
            [row for number in range(len(one.passages)) for row in self._rows(*next(bodies), number)] for one in texts
        ]

    def _rows(self, head: list[int], tokens: Any, number: int) -> list[Piece]:
        """The rows of a passage, one or several windows."""
        count = len(tokens.ids)
        room = count if self.limit is None else self.limit - len(head)
        if room < min(count, 1):
            raise ValueError(f"a question and a title have {len(head)} tokens, and this model takes {self.limit}.")
        return [
            Piece(
                [*head, *tokens.ids[start:stop]], tokens=tokens, cut=(start, stop), number=number,
                places=np.concatenate([np.full(len(head), -1), np.arange(start, stop)]),
            )
            for start, stop in windows(count, room, min(OVERLAP, room // 2))
            if count
        ]  # fmt: skip

    def compute(self, inputs: dict[str, Tensor], rows: Sequence[Row], options: Mapping[str, Any]) -> list[Any]:
        outputs = self.model(**inputs, return_dict=True)
        starts, ends, relevance = (
            x.double().cpu().numpy() for x in (outputs.start_logits, outputs.end_logits, outputs.relevance_logits)
        )
        spans = [np.stack([starts[i, : len(row.ids)], ends[i, : len(row.ids)]], 1) for i, row in enumerate(rows)]
        return list(zip(spans, relevance, strict=True))

    def answer(self, text: Any, rows: Sequence[Piece], options: Mapping[str, Any]) -> list[Answer]:
        passages: dict[int, list[Piece]] = {}
        relevance: dict[int, float] = {}
        for row in rows:
            row.result, score = row.result
            relevance[row.number] = max(score, relevance.get(row.number, -np.inf))
            passages.setdefault(row.number, []).append(row)
        total = np.logaddexp.reduce(list(relevance.values())) if relevance else 0.0
        order = sorted(passages, key=lambda number: -relevance[number])
        each = max(1, -(-options["top_k"] // max(1, len(order))))  # spans of a passage
        found: list[list[Answer]] = []
        for number in order:
            likely, tokens = relevance[number] - total, passages[number][0].tokens
            spans = apart(candidates(passages[number], None, options["longest"], 64 * each)[0], each)
            context = text.passages[number].text
            answers: dict[tuple[int, int], Answer] = {}  # parts of one word are one answer
            for span in spans:
                start, end = characters(tokens, span, context, words=True)
                made = Answer(context[start:end], float(np.exp(likely + span.score)), number, (start, end))
                answers.setdefault((start, end), made)
            found.append(list(answers.values()))
        ranked = [answers[rank] for rank in range(each) for answers in found if rank < len(answers)]
        return ranked[: options["top_k"]]


def apart(spans: Sequence[Span], count: int) -> list[Span]:
    """The first so many spans of which none holds another."""
    chosen: list[Span] = []
    for span in spans:
        inside = (
            a.first <= span.first <= span.last <= a.last or span.first <= a.first <= a.last <= span.last for a in chosen
        )
        if len(chosen) < count and not any(inside):
            chosen.append(span)
    return chosen
