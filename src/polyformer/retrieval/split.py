"""Documents to passages of a hundred words, one after the other, as in DPR (Karpukhin et al. 2020, section 4.1)."""

import re
from collections.abc import Iterable, Iterator

from polyformer.retrieval.passage import Document, Passage

WORDS = 100  # of a passage

# A word, or a character of a script that writes none apart.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\s\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


def passages_of(items: Iterable[Document | Passage], words: int = WORDS) -> Iterator[Passage]:
    """The passages of documents, in their order; what is a passage already stays as it is.

    A passage has `words` words, the last one of a document what is left, and begins and ends with one.

    Raises:
        ValueError: fewer than one word.
    """
    if words < 1:
        raise ValueError(f"words is {words}: a passage has at least 1.")
    for item in items:
        if isinstance(item, Passage):
            yield item
        else:
            for start, end in cuts(item.text, words):
                yield Passage(item.text[start:end], item.name, item.title, start, item.meta)


def cuts(text: str, words: int) -> Iterator[tuple[int, int]]:
    """Characters [start, end) of every piece of so many words."""
    start, end, count = 0, 0, 0
    for match in WORD.finditer(text):
        if count == 0:
            start = match.start()
        end, count = match.end(), count + 1
        if count == words:
            yield start, end
            count = 0
    if count:
        yield start, end
