"""Which words fit at the masked places of a text."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.tasks import WordScores
from polyformer.pipelines.base import Pipeline
from polyformer.pipelines.rows import Piece, Row, called, policy, speaker

_LETTERS = re.compile(r"[\w#]+")  # "#": a piece that begins the pair keeps its mark
logger = logging.getLogger("polyformer")


class FillMaskPipeline(Pipeline):
    """Text with one or more mask tokens to the words that fit, the likeliest first.

    An answer is a list of dictionaries: score (probability among all words), token (its id), token_str, word, the whole
    word that the token makes with its neighbours, and sequence, the text with it put in. A text with several masks
    gives such a list for each of them, each guessed with the others still masked, and its sequences keep the special
    tokens. As in Transformers, a list of one text gives what the text alone gives.
    """

    task: ClassVar[str] = "fill-mask"
    model_task: ClassVar[str] = "masked-lm"

    def __init__(self, model: PreTrainedModel, tokenizer: Any, **options: Any) -> None:
        if model.get_output_embeddings() is None:
            raise TypeError(f"{type(model).__name__} gives no words: load the model with AutoModelForMaskedLM.")
        super().__init__(model, tokenizer, **options)

    def __call__(
        self,
        inputs: str | Iterable[str],
        *,
        top_k: int | None = None,
        targets: str | Sequence[str] | None = None,
        truncation: bool = False,
        on_long: str | None = None,
        show_progress: bool | None = None,
    ) -> Any:
        """Fill in the masks of a text, a list of texts or an iterable of them.

        Args:
            top_k: how many words, 5 by default.
            targets: only these words come into question; of a word that is no token, its first piece, with a warning.
            on_long: a text longer than the model takes is an "error", or "truncate" it (also truncation=True), or
                "window": pieces that overlap, every mask filled where it has most context.

        Raises:
            TypeError: not a text. ValueError: no mask in a text, too long a text, no usable target.
        """
        if self.tokenizer.mask_token_id is None:
            raise ValueError(
                "this tokenizer has no mask token: fill-mask wants a masked language model and its tokenizer."
            )
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}: ask for at least 1 word.")
        ids = None if targets is None else self._target_ids([targets] if isinstance(targets, str) else targets)
        options = {
            "top_k": 5 if top_k is None else top_k,
            "targets": ids,
            "on_long": policy(on_long, truncation, "error"),
        }
        result = self.run(inputs, options, show_progress)
        return result[0] if isinstance(inputs, (list, tuple)) and len(inputs) == 1 else result

    def prepare(self, texts: Sequence[Any], first: int, options: Mapping[str, Any]) -> Sequence[Sequence[Row]]:
        found = self.rows(texts, first, options["on_long"])
        mask = self.tokenizer.mask_token
        for number, rows in enumerate(found, first):
            if not any(self.tokenizer.mask_token_id in row.ids for row in rows):
                raise ValueError(f"{called(number)} has no {mask}: write {mask} where a word is to be guessed.")
        return found

    def compute(
        self, inputs: dict[str, Tensor], rows: Sequence[Row], options: Mapping[str, Any]
    ) -> list[tuple[list[list[float]], list[list[int]]]]:
        """Scores and ids of the best words, (masks, words) each, for every row."""
        masked = inputs["input_ids"] == self.tokenizer.mask_token_id
        scores = self._word_scores(inputs, masked).float().softmax(-1)  # (all masks, words)
        targets: Tensor | None = options["targets"]
        if targets is not None:
            targets = targets.to(scores.device)
            scores = scores[:, targets]
        best, places = scores.topk(min(options["top_k"], scores.shape[-1]))
        ids = places if targets is None else targets[places]
        counts = masked.sum(1).tolist()
        parts = zip(best.split(counts), ids.split(counts), strict=True)
        return [(part.tolist(), words.tolist()) for part, words in parts]

    def _word_scores(self, inputs: dict[str, Tensor], masked: Tensor) -> Tensor:
        """(masks, words) logits of the masked places alone: the head is wide, and nobody asks for the other places."""
        model = self.model
        if isinstance(model, WordScores):
            return model.lm(model.base_model(**inputs, return_dict=True).last_hidden_state[masked])
        return model(**inputs, return_dict=True).logits[masked]

    def answer(self, text: Any, rows: Sequence[Any], options: Mapping[str, Any]) -> Any:
        mask = self.tokenizer.mask_token_id
        ids, guesses = rows[0].ids, list(zip(*rows[0].result, strict=True))
        if len(rows) > 1:
            ids, guesses = self._of_windows(rows)
        places = [i for i, token in enumerate(ids) if token == mask]
        found = []
        for place, (best, tokens) in zip(places, guesses, strict=True):
            filled = [(*ids[:place], token, *ids[place + 1 :]) for token in tokens]
            found.append(
                [
                    {
                        "score": score,
                        "token": token,
                        "token_str": self.tokenizer.decode([token]),
                        "word": self._word(sequence, place),
                        "sequence": self.tokenizer.decode(list(sequence), skip_special_tokens=len(places) == 1),
                    }
                    for score, token, sequence in zip(best, tokens, filled, strict=True)
                ]
            )
        return found[0] if len(found) == 1 else found

    def _of_windows(self, rows: Sequence[Piece]) -> tuple[list[int], list[tuple[list[float], list[int]]]]:
        """The row that the model could not take in one, and the guesses for its masks."""
        mask = self.tokenizer.mask_token_id
        speaks = speaker([row.cut for row in rows])
        guesses = {}
        for number, row in enumerate(rows):
            masked = [place for place, id in zip(row.places.tolist(), row.ids, strict=True) if id == mask]
            for place, guess in zip(masked, zip(*row.result, strict=True), strict=True):
                if speaks[place] == number:
                    guesses[place] = guess
        return self.tokenizer.build_inputs_with_special_tokens(rows[0].tokens.ids), [
            guesses[i] for i in sorted(guesses)
        ]

    def _word(self, ids: Sequence[int], place: int) -> str:
        """The whole word that the token at this place is now part of."""

        def joined(left: int) -> bool:
            """Whether the tokens at `left` and after it are of one word: nothing stands between them in the text."""
            pair = ids[left : left + 2]
            special = self.tokenizer.all_special_ids
            return (
                not {*pair} & {*special} and _LETTERS.fullmatch(self.tokenizer.decode(list(pair)).strip()) is not None
            )

        first, last = place, place
        while first > 0 and joined(first - 1):
            first -= 1
        while last + 1 < len(ids) and joined(last):
            last += 1
        return str(self.tokenizer.decode(list(ids[first : last + 1]))).strip()

    def _target_ids(self, targets: Sequence[str]) -> Tensor:
        """(targets,) int64 without repetitions."""
        vocabulary = self.tokenizer.get_vocab()
        found: dict[int, None] = {}
        for target in targets:
            if target in vocabulary:
                found[vocabulary[target]] = None
                continue
            pieces = self.tokenizer(target, add_special_tokens=False, verbose=False)["input_ids"]
            if not pieces or pieces[0] == self.tokenizer.unk_token_id:
                logger.warning("the target %r is not in the vocabulary and is left out.", target)
                continue
            piece = self.tokenizer.convert_ids_to_tokens(pieces[0])
            logger.warning("the target %r is not in the vocabulary; its first piece %r stands for it.", target, piece)
            found[pieces[0]] = None
        if not found:
            raise ValueError("none of the targets is in the vocabulary: give at least one word that is.")
        return torch.tensor(list(found))
