"""How alike sentences are: cosines of their vectors."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from polyformer.pipelines.batching import windows
from polyformer.pipelines.rows import called
from polyformer.pipelines.sentence import SentenceEncoder


class SentenceSimilarityPipeline:
    """A sentence and others to the cosine of each with it, between -1 and 1."""

    task: ClassVar[str] = "sentence-similarity"

    def __init__(self, encoder: SentenceEncoder) -> None:
        self.encoder = encoder

    def __call__(
        self,
        inputs: Any,
        sentences: str | Sequence[str] | None = None,
        *,
        show_progress: bool | None = None,
    ) -> Any:
        """Compare.

        Args:
            inputs: a sentence, with `sentences` beside it; or {"source_sentence": ..., "sentences": [...]}, or any
                number of those.

        Returns:
            A list of cosines; one number if `sentences` is a str; for several inputs a list (or an iterator) of such
            lists.

        Raises:
            TypeError: not a sentence and its sentences.
        """
        if sentences is not None:
            inputs = {"source_sentence": inputs, "sentences": [sentences] if isinstance(sentences, str) else sentences}
        if isinstance(inputs, Mapping):
            found = next(self.stream([inputs], show_progress, first=-1))
            return found[0] if isinstance(sentences, str) else found
        if isinstance(inputs, (list, tuple)):
            return list(self.stream(inputs, show_progress))
        if isinstance(inputs, str) or not isinstance(inputs, Iterable):
            raise TypeError("a sentence is compared with others: give sentences=[...] beside it.")
        return self.stream(inputs, show_progress)

    def stream(self, inputs: Iterable[Any], show_progress: bool | None = None, first: int = 0) -> Iterator[list[float]]:
        """The cosines of one input after another; reads some hundred ahead."""
        for window in windows(inputs, 256):
            texts: list[str] = []
            for number, given in enumerate(window, first):
                source, others = _checked(given, number)
                texts += [source, *others]
            vectors = self.encoder.encode(texts, normalize=True, show_progress=show_progress)
            at = 0
            for given in window:
                count = 1 + len(given["sentences"])
                yield (vectors[at + 1 : at + count] @ vectors[at]).tolist()
                at += count
            first += len(window)


def _checked(given: Any, number: int) -> tuple[str, Sequence[str]]:
    known = given if isinstance(given, Mapping) else {}
    source, others = known.get("source_sentence"), known.get("sentences")
    if not isinstance(source, str) or isinstance(others, str) or not isinstance(others, Sequence):
        raise TypeError(
            f'{called(number)} is no sentence with others: give {{"source_sentence": ..., "sentences": [...]}}.'
        )
    if wrong := [other for other in others if not isinstance(other, str)]:
        raise TypeError(f"{called(number)} has {wrong[0]!r} among its sentences, which is not a str.")
    return source, others
