"""Passages with random vectors, for test_retrieval_index.py and for the processes that it starts and kills.

python retrieval_worker.py build|add|change FOLDER
"""

import sys
import time
from collections.abc import Sequence

import numpy as np

from polyformer.retrieval import Passage, add, build, delete, write

WIDTH = 8


def vector(text: str) -> np.ndarray:
    """A random vector, the same for the same text."""
    seed = int.from_bytes(text.encode()[-8:], "little")
    return np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)


def encode(passages: Sequence[Passage]) -> np.ndarray:
    return np.stack([vector(passage.text) for passage in passages])


def some(count: int, start: int = 0) -> list[Passage]:
    return [Passage(f"text {i}", f"doc {i // 5}", f"title {i // 5}", 7 * (i % 5)) for i in range(start, start + count)]


def slowly(passages: Sequence[Passage]) -> np.ndarray:
    time.sleep(0.01)
    return encode(passages)


def main(what: str, folder: str) -> None:
    """Build or add 400 passages slowly; or add 20 and delete one, many times."""
    write.SECONDS = 0.02  # so that a kill hits every stage
    if what == "build":
        build(folder, some(400), slowly, encoder="random", block=4)
    elif what == "add":
        add(folder, some(400, 40), slowly, block=4)
    else:
        for turn in range(20):
            add(folder, some(20, 40 + 20 * turn), encode, block=8)
            delete(folder, [turn])


if __name__ == "__main__":
    main(*sys.argv[1:])
