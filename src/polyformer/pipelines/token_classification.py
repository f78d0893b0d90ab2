"""Labels of words: named entities, parts of speech."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from polyformer.core.pretrained import PreTrainedModel
from polyformer.pipelines.base import Pipeline
from polyformer.pipelines.rows import (
    OVERLAP,
    Piece,
    Row,
    Tokens,
    called,
    check_texts,
    merged,
    policy,
    rows_of,
    tokens_of,
)

STRATEGIES = ("none", "simple", "first", "average", "max")


class TokenClassificationPipeline(Pipeline):
    """A text to its tagged tokens or, put together, its entities, with their characters in the text.

    A text gives a list of dictionaries, a list of texts such a list each. Without aggregation a dictionary is a token:
    entity, score, index (place in the model's input, special tokens counted), word, start, end. With it: entity_group,
    score, word, start, end. text[start:end] is what was tagged.
    """

    task: ClassVar[str] = "token-classification"
    model_task: ClassVar[str] = "token-classification"

    def __init__(self, model: PreTrainedModel, tokenizer: Any, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        self.prefix = _continuing_prefix(tokenizer)

    def __call__(
        self,
        inputs: Any,
        *,
        aggregation_strategy: str = "none",
        ignore_labels: Iterable[str] = ("O",),
        is_split_into_words: bool = False,
        on_long: str | None = None,
        truncation: bool = False,
        stride: int = OVERLAP,
        grouped_entities: bool | None = None,
        show_progress: bool | None = None,
    ) -> Any:
        """Tag a text, a list of texts or an iterable of them.

        Args:
            aggregation_strategy: "none" = every token by itself. "simple" = neighbours with the same label are one
                entity (B- begins a new one, I- goes on). The others first give every word one label, that of its
                "first" token, of the "average" of its tokens' scores, or of the token with the "max" score.
            ignore_labels: labels that are left out.
            is_split_into_words: a text is a list of words; start and end are places in the words joined by spaces.
            on_long: a text longer than the model takes is an "error", or "truncate" it, or "window": pieces that share
                `stride` tokens, every token judged where it has most context.
            grouped_entities: Transformers' older name: True is aggregation_strategy="simple".

        Raises:
            TypeError: not a text. ValueError: an unknown strategy, too long a text.
        """
        if grouped_entities is not None and aggregation_strategy == "none":
            aggregation_strategy = "simple" if grouped_entities else "none"
        if aggregation_strategy not in STRATEGIES:
            raise ValueError(
                f"aggregation_strategy is {aggregation_strategy!r}; there are {', '.join(map(repr, STRATEGIES))}."
            )
        options = {
            "strategy": aggregation_strategy,
            "ignore": frozenset(ignore_labels),
            "split": is_split_into_words,
            "on_long": policy(on_long, truncation, "error"),
            "stride": stride,
        }
        if is_split_into_words and isinstance(inputs, (list, tuple)) and inputs and isinstance(inputs[0], str):
            return self.run([inputs], options, show_progress)[0]
        return self.run(inputs, options, show_progress)

    def prepare(self, texts: Sequence[Any], first: int, options: Mapping[str, Any]) -> list[list[Piece]]:
        if options["split"]:
            _check_words(texts, first)
        else:
            check_texts(texts, first)
        found = []
        for number, tokens in enumerate(tokens_of(self.tokenizer, texts, options["split"]), first):
            on_long, overlap = options["on_long"], options["stride"]
            found.append(rows_of(self.tokenizer, tokens, self.limit, on_long, number, overlap=overlap))
        return found

    def compute(self, inputs: dict[str, Tensor], rows: Sequence[Row], options: Mapping[str, Any]) -> list[np.ndarray]:
        scores = self.model(**inputs, return_dict=True).logits.float().softmax(-1).cpu().numpy()
        return [scores[i, : len(row.ids)] for i, row in enumerate(rows)]

    def answer(self, text: Any, rows: Sequence[Piece], options: Mapping[str, Any]) -> list[dict[str, Any]]:
        text = " ".join(text) if options["split"] else text
        scores, tokens = merged(rows), rows[0].tokens
        names, strategy, ignore = self.model.config.id2label, options["strategy"], options["ignore"]
        # in a single row that begins with special tokens, the place of token 0
        offset = int(np.flatnonzero(rows[0].places >= 0)[0]) if len(scores) else 0
        pieces = self._pieces(text, tokens)[: len(scores)]
        if strategy == "none":
            best = scores.argmax(-1)
            return [
                {
                    "entity": names[label],
                    "score": float(scores[i, label]),
                    "index": i + offset,
                    "word": word,
                    "start": start,
                    "end": end,
                }
                for i, ((word, start, end, _), label) in enumerate(zip(pieces, best.tolist(), strict=True))
                if names[label] not in ignore
            ]
        words = self._words(pieces, scores, strategy)
        return [entity for entity in self._entities(words, names) if entity["entity_group"] not in ignore]

    def _pieces(self, text: str, tokens: Tokens) -> list[tuple[str, int, int, bool]]:
        """Of every token: its text, its characters, and whether it goes on with the word before it."""
        names = self.tokenizer.convert_ids_to_tokens(tokens.ids)
        unknown = self.tokenizer.unk_token_id
        found = []
        for id, name, (start, end) in zip(tokens.ids, names, tokens.spans, strict=True):
            if id == unknown:
                found.append((text[start:end], start, end, False))
            elif self.prefix:
                found.append((name, start, end, len(name) != end - start))
            else:  # white space belongs to the token after it, or lies between the two
                joined = start > 0 and not any(map(str.isspace, text[start - 1 : start + 1]))
                found.append((name, start, end, joined))
        return found

    def _words(
        self, pieces: Sequence[tuple[str, int, int, bool]], scores: np.ndarray, strategy: str
    ) -> list[tuple[list[str], int, int, int, float]]:
        """Units with one label each, tokens or whole words: (their texts, start, end, label, score)."""
        if strategy == "simple":
            best = scores.argmax(-1)
            return [
                ([word], start, end, int(label), float(scores[i, label]))
                for i, ((word, start, end, _), label) in enumerate(zip(pieces, best, strict=True))
            ]
        begins = [i for i, piece in enumerate(pieces) if i == 0 or not piece[3]]
        found = []
        for first, last in zip(begins, [*begins[1:], len(pieces)], strict=True):
            own = scores[first:last]
            if strategy == "average":
                row = own.mean(0)
            else:
                row = own[0] if strategy == "first" else own[own.max(-1).argmax()]
            label = int(row.argmax())
            text = self.tokenizer.convert_tokens_to_string([piece[0] for piece in pieces[first:last]])
            found.append(([text], pieces[first][1], pieces[last - 1][2], label, float(row[label])))
        return found

    def _entities(
        self, words: Sequence[tuple[list[str], int, int, int, float]], names: Mapping[int, str]
    ) -> list[dict[str, Any]]:
        """Neighbours with the same label put together; a label that begins with B- begins anew."""
        groups: list[list[tuple[list[str], int, int, int, float]]] = []
        for word in words:
            name = names[word[3]]
            goes_on = groups and not name.startswith("B-") and _kind(name) == _kind(names[groups[-1][-1][3]])
            if goes_on:
                groups[-1].append(word)
            else:
                groups.append([word])
        return [
            {
                "entity_group": _kind(names[group[0][3]]),
                "score": float(np.mean([word[4] for word in group])),
                "word": self.tokenizer.convert_tokens_to_string([text for word in group for text in word[0]]),
                "start": group[0][1],
                "end": group[-1][2],
            }
            for group in groups
        ]


def _kind(name: str) -> str:
    """The label without its B- or I-."""
    return name[2:] if name.startswith(("B-", "I-")) else name


def _continuing_prefix(tokenizer: Any) -> str:
    """What tokens that go on with a word begin with, "##" in WordPiece; "" where it is white space that tells."""
    model = getattr(tokenizer.backend_tokenizer, "model", None)
    return getattr(model, "continuing_subword_prefix", None) or ""


def _check_words(texts: Sequence[Any], first: int) -> None:
    for number, text in enumerate(texts, first):
        if isinstance(text, str) or not all(isinstance(word, str) for word in text):
            raise TypeError(f"{called(number)} is not a list of words, which is_split_into_words=True promises.")
