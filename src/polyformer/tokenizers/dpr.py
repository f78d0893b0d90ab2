"""The tokenizers of Dense Passage Retrieval (Karpukhin et al. 2020, facebookresearch/DPR): BERT's, three times.

The encoders' are BERT's as they are. The reader's also takes triples: `[CLS] question [SEP] title [SEP] text`, a row a
passage, and turns the reader's scores back into answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from polyformer.tokenizers.base import BatchEncoding
from polyformer.tokenizers.bert import BertTokenizer
from polyformer.tokenizers.checks import check_text, reject_unknown
from polyformer.tokenizers.files import Saved
from polyformer.tokenizers.plan import check_tensors, plan_lengths
from polyformer.tokenizers.tensors import to_lists


class _DPRTokenizer(BertTokenizer):
    @classmethod
    def _options_of(cls, saved: Saved) -> dict[str, Any]:
        # transformers 5 notes do_lower_case=False beside each of these; what its tokenizer.json does is what counts
        ignored = {"do_lower_case"} if "tokenizer_file" in saved.files else set()
        return {name: value for name, value in saved.options.items() if name not in ignored}


class DPRContextEncoderTokenizer(_DPRTokenizer):
    """BERT's, for passages: `tokenizer(titles, texts)`."""


class DPRQuestionEncoderTokenizer(_DPRTokenizer):
    """BERT's, for questions."""


class DPRSpanPrediction(NamedTuple):
    """An answer that the reader found.

    span_score: the start's and the end's logit together, to compare spans of one passage.
    relevance_score: the passage's logit, to compare passages.
    doc_id: the row of the passage. start_index, end_index: first and last token of the span in that row.
    text: the span, decoded.
    """

    span_score: float
    relevance_score: float
    doc_id: int
    start_index: int
    end_index: int
    text: str


class DPRReaderTokenizer(_DPRTokenizer):
    """BERT's, for the reader: a call takes questions, titles and texts."""

    model_input_names = ("input_ids", "attention_mask")

    def __call__(  # type: ignore[override]
        self,
        questions: str | Sequence[Any],
        titles: str | Sequence[Any] | None = None,
        texts: str | Sequence[Any] | None = None,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool | None = None,
        **more: Any,
    ) -> BatchEncoding:
        """Rows `[CLS] question [SEP] title [SEP] text`, one a passage; always a batch.

        questions: one for each passage, or a single one for all. titles, texts: of the passages, as many of each.
        truncation: anything but False cuts the end of the row, which is the passage, to max_length (else
            model_max_length). padding, return_tensors: as in any tokenizer's call.

        Without titles or without texts this is BERT's call with what is there, and takes all its arguments.
        Raises ValueError if the numbers of questions, titles and texts do not match.
        """
        shared: dict[str, Any] = {"padding": padding, "max_length": max_length, "return_tensors": return_tensors}
        if titles is None or texts is None:
            shared |= {"truncation": truncation, "return_attention_mask": return_attention_mask}
            return super().__call__(questions, texts if titles is None else titles, **shared, **more)
        known = ("padding", "truncation", "max_length", "return_tensors", "return_attention_mask")
        reject_unknown(more, known, "a call with titles and texts")
        check_tensors(return_tensors)
        triples = _triples(questions, titles, texts)
        want = plan_lengths(False, truncation or None, max_length, 0, None, self.model_max_length)
        cut = want.max_length if want.truncation else None
        heads = super().__call__([q for q, _, _ in triples], [t for _, t, _ in triples])["input_ids"]
        bodies = super().__call__([text for _, _, text in triples], add_special_tokens=False)["input_ids"]
        rows = [(head + body)[:cut] for head, body in zip(heads, bodies, strict=True)]
        return self.pad({"input_ids": rows}, return_attention_mask=return_attention_mask, **shared)

    def decode_best_spans(
        self,
        reader_input: Mapping[str, Any],
        reader_output: Any,
        num_spans: int = 16,
        max_answer_length: int = 64,
        num_spans_per_passage: int = 4,
    ) -> list[DPRSpanPrediction]:
        """The best answers, those of the most relevant passage first, within a passage the highest scores first.

        reader_input: what a call returned, `input_ids` of shape (passages, length).
        reader_output: start_logits and end_logits of that shape and relevance_logits (passages,), by attribute or in
            this order. Spans lie in the passage's text, as in the original (Transformers 4.6 looks in the title too),
            are at most max_answer_length tokens long, and none holds another; at most num_spans_per_passage of a
            passage and num_spans in all.
        """
        starts, ends, relevance = (to_lists(x) for x in _logits(reader_output))
        rows: list[list[int]] = to_lists(reader_input["input_ids"])
        if not len(rows) == len(starts) == len(ends) == len(relevance):
            raise ValueError(
                f"reader_input has {len(rows)} passages but reader_output scores {len(relevance)}: give the output for "
                "this very input."
            )
        found: list[DPRSpanPrediction] = []
        for row in sorted(range(len(rows)), key=lambda i: relevance[i], reverse=True):
            first, last = self._passage(rows[row])
            scores = (starts[row][first:last], ends[row][first:last])
            for score, start, end in _best_spans(*scores, max_answer_length, num_spans_per_passage):
                start, end = start + first, end + first
                text = self.decode(rows[row][start : end + 1])
                found.append(DPRSpanPrediction(score, relevance[row], row, start, end, text))
                if len(found) >= num_spans:
                    return found
        return found

    def _passage(self, row: Sequence[int]) -> tuple[int, int]:
        """Where the text lies in a row: after the second `[SEP]`, up to the padding."""
        seps = [place for place, i in enumerate(row) if i == self.sep_token_id]
        if len(seps) < 2:
            raise ValueError(
                "a row has no second [SEP], so that the passage's text cannot be found in it: make rows by a call "
                "with questions, titles and texts, and with a larger max_length if they were cut."
            )
        pads = (place for place in range(seps[1], len(row)) if row[place] == self.pad_token_id)
        return seps[1] + 1, next(pads, len(row))


def _triples(questions: Any, titles: Any, texts: Any) -> list[tuple[str, str, str]]:
    """Question, title and text of each passage."""
    titles = [titles] if isinstance(titles, str) else list(titles)
    texts = [texts] if isinstance(texts, str) else list(texts)
    questions = [questions] * len(titles) if isinstance(questions, str) else list(questions)
    if not len(questions) == len(titles) == len(texts):
        raise ValueError(
            f"there are {len(questions)} questions, {len(titles)} titles and {len(texts)} texts: give one of each for "
            "every passage, or a single question."
        )
    for name, column in (("question", questions), ("title", titles), ("text", texts)):
        for i, value in enumerate(column):
            check_text(value, f"{name} {i}")
    return list(zip(questions, titles, texts, strict=True))


def _logits(output: Any) -> Iterator[Any]:
    names = ("start_logits", "end_logits", "relevance_logits")
    return (getattr(output, name) if hasattr(output, name) else output[i] for i, name in enumerate(names))


def _best_spans(
    starts: Sequence[float], ends: Sequence[float], longest: int, count: int
) -> list[tuple[float, int, int]]:
    """(score, first token, last token) of the best spans, none within another; ties keep the order of the text."""
    spans = [(starts[i] + ends[j], i, j) for i in range(len(starts)) for j in range(i, min(i + longest, len(starts)))]
    chosen: list[tuple[float, int, int]] = []
    for score, i, j in sorted(spans, key=lambda span: span[0], reverse=True):
        if len(chosen) >= count:
            break
        if not any(a <= i <= j <= b or i <= a <= b <= j for _, a, b in chosen):
            chosen.append((score, i, j))
    return chosen
