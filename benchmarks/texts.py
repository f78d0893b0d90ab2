"""What is encoded: real English that every machine has, the docstrings of Python's standard library."""

from __future__ import annotations

import ast
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

LONGEST = 256  # tokens, [CLS] and [SEP] included: what MiniLM was made for
TESTS = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings() -> list[str]:
    """Every docstring of the standard library once, in the order of its files."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = (path for path in sorted(library.rglob("*.py")) if not TESTS & set(path.relative_to(library).parts))
    return list(dict.fromkeys(text for path in files for text in docstrings_of(path)))


def docstrings_of(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # templates and test data
        return
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield text


def tokenizer(folder: Path) -> Tokenizer:
    """The checkpoint's tokenizer: cuts at LONGEST tokens, pads nothing."""
    found = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found.no_padding()
    found.enable_truncation(LONGEST)
    return found


def mixed(folder: Path, count: int) -> tuple[list[str], list[list[int]]]:
    """(texts, their ids): a random sample in random order, as long as they happen to be, 3 to 256 tokens."""
    texts = docstrings()
    random.Random(0).shuffle(texts)
    texts = texts[:count]
    return texts, [encoding.ids for encoding in tokenizer(folder).encode_batch(texts)]


def equal(folder: Path, count: int, length: int = 128) -> list[list[int]]:
    """ids of rows that are all as long: pieces cut from the library's text."""
    cls, *_, sep = tokenizer(folder).encode("a").ids
    found = tokenizer(folder)
    found.no_truncation()
    stream: list[int] = []
    for text in docstrings():
        stream += found.encode(text, add_special_tokens=False).ids
        if len(stream) >= count * (length - 2):
            break
    step = length - 2
    return [[cls, *stream[i * step : (i + 1) * step], sep] for i in range(count)]
