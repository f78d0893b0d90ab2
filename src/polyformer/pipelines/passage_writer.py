"""Answering from the passages that were found for a question by writing: RAG."""

from collections.abc import Sequence
from typing import Any

import torch

from polyformer.models.rag import RagForGeneration
from polyformer.pipelines.loading import device_of
from polyformer.pipelines.passage_encoder import DPRVectors
from polyformer.pipelines.passage_reader import Answer, Asked
from polyformer.retrieval.rag import contexts

BEAMS = 4  # at least
SPECIAL = 2  # tokens of a text that are no answer: what it may begin with, its end


class RagWriter:
    """RAG as a reader: it writes answers to a question from all of its passages at once.

    Passages count as the search scored them. An answer's score is its probability, summed over the passages as the
    model does, by word or by text; its passage is the one that most of that comes from.
    """

    def __init__(
        self,
        model: RagForGeneration,
        tokenizer: Any,
        *,
        device: torch.device | str | int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        """model: either class that writes; tokenizer: a RagTokenizer."""
        self.model: Any = model.eval()
        self.tokenizer = tokenizer
        if device is not None:
            self.model.to(device_of(device))
        self.batch_tokens = batch_tokens

    @property
    def question_encoder(self) -> DPRVectors:
        """What makes the vectors of questions."""
        tokenizer = self.tokenizer.question_encoder
        return DPRVectors(self.model.question_encoder, tokenizer, batch_tokens=self.batch_tokens)

    def read(self, asked: Sequence[Asked], top_k: int, max_answer_len: int) -> list[list[Answer]]:
        return [self.answers(one, top_k, max_answer_len) if one.passages else [] for one in asked]

    @torch.inference_mode()
    def answers(self, asked: Asked, count: int, longest: int) -> list[Answer]:
        """At most `count` to one question, the likeliest first."""
        model, prefix = self.model, self.model.generator.config.extra.get("prefix")
        read = contexts([asked.question], [asked.passages], model.config, self.tokenizer.generator, prefix, "pt")
        read = {name: ids.to(model.device) for name, ids in read.items()}
        scores = torch.from_numpy(asked.scores)[None].to(model.device)
        beams = max(count, BEAMS, model.how_to_write(None).num_beams)
        texts = model.generate(
            **read, doc_scores=scores, n_docs=len(asked.passages), num_beams=beams, num_return_sequences=beams,
            max_new_tokens=longest + SPECIAL,
        ).unique(dim=0)  # fmt: skip
        c, states = model.read(None, None, **read, doc_scores=scores, n_docs=len(asked.passages))
        worth, shares = model.weigh(texts, states, c.mask, c.scores[0])
        found: dict[str, Answer] = {}
        for i in worth.argsort(descending=True, stable=True).tolist():
            text = self.tokenizer.decode(texts[i], skip_special_tokens=True).strip()
            if text:
                found.setdefault(text, Answer(text, float(worth[i].exp()), int(shares[i].argmax()), None))
        return list(found.values())[:count]
