"""A search engine of the documentation on every machine: the docstrings of the Python standard library it runs on.

library_passages    names and docstrings, parsed, never imported or run
Index               their vectors, and the best passages for a question
compare_padding     passages a second with and without computing on padding
draw_map            all passages and the questions on a plane
"""

import ast
import os
import random
import sysconfig
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyformer.core.atomic import AtomicFiles, explain
from polyformer.core.errors import CheckpointError
from polyformer.pipelines.base import in_batches
from polyformer.pipelines.batching import padded
from polyformer.pipelines.sentence import SentenceEncoder

QUESTIONS = (
    "how do I compress a file?",
    "on which day of the week does a date fall?",
    "make a temporary directory that deletes itself",
)

LEAST_WORDS = 8  # of a docstring
# Tests, other people's packages, what Python has dropped since, and files of encodings that all say the same.
SKIPPED = {
    "test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "distutils", "encodings", "ensurepip",
    "msilib", "pydoc_data", "turtledemo", "__pycache__", "node_modules",
}  # fmt: skip


@dataclass(frozen=True)
class Passage:
    """A docstring and what it documents, such as `gzip.open`."""

    name: str
    doc: str

    @property
    def text(self) -> str:
        """What is turned into a vector."""
        return f"{self.name}: {self.doc}"

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


def library_passages(folder: Path | None = None) -> list[Passage]:
    """Public modules, classes and functions of the standard library (or another folder) with a docstring of some words.

    Methods are left out: most say what another class's method says.
    """
    root = Path(sysconfig.get_path("stdlib")) if folder is None else folder
    found: dict[str, Passage] = {}
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith((".", "config-")))
        for name in sorted(names):
            if name.endswith(".py"):
                for passage in _of_file(root, Path(place, name)):
                    found.setdefault(passage.doc, passage)
    return list(found.values())


def _of_file(root: Path, path: Path) -> Iterator[Passage]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):  # a template, or a file for another version
        return
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
    if any(part.startswith("_") for part in name.split(".")):
        return
    for thing in (tree, *tree.body):
        if isinstance(thing, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            own = getattr(thing, "name", "")
            doc = ast.get_docstring(thing)
            if doc and len(doc.split()) >= LEAST_WORDS and not own.startswith("_"):
                yield Passage(f"{name}.{own}".rstrip("."), doc)


@dataclass
class Index:
    """Passages with their vectors (passages, width), of length 1."""

    encoder: SentenceEncoder
    passages: list[Passage]
    vectors: np.ndarray = field(repr=False)
    seconds: float = 0.0

    @classmethod
    def build(cls, encoder: SentenceEncoder, passages: list[Passage], show_progress: bool | None = None) -> "Index":
        begun = time.perf_counter()
        vectors = encoder.encode([p.text for p in passages], normalize=True, show_progress=show_progress)
        return cls(encoder, passages, vectors, time.perf_counter() - begun)

    def ask(self, questions: Sequence[str], count: int = 3) -> tuple[list[list[tuple[float, Passage]]], np.ndarray]:
        """For every question the best passages with their cosine, the best first; and the questions' vectors."""
        asked = self.encoder.encode(list(questions), normalize=True)
        scores = asked @ self.vectors.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        answers = [[(float(row[i]), self.passages[i]) for i in top] for row, top in zip(scores, best, strict=True)]
        return answers, asked


# ---- speed -----------------------------------------------------------------------------------------------------------


def compare_padding(
    encoder: SentenceEncoder, texts: Sequence[str], *, rows: int = 32, most: int = 96, repeats: int = 2
) -> dict[str, Any]:
    """Passages a second of the same model on the same texts, computed three ways, ids to vectors.

    packed: this library's way, real tokens only. padded: batches of `rows` texts as they come, each filled up to its
    longest. sorted: the same after sorting by length, which wastes least. A sample of `most` texts, the ways in turn,
    the best of `repeats` runs of each.
    """
    sample = random.Random(0).sample(list(texts), min(most, len(texts)))
    ids = encoder.rows_of(sample)["input_ids"]
    by_length = sorted(ids, key=len)
    ways = {
        "packed": lambda: _packed(encoder, ids),
        "padded": lambda: _padded(encoder, ids, rows),
        "sorted": lambda: _padded(encoder, by_length, rows),
    }
    best = dict.fromkeys(ways, float("inf"))
    encoder.encode_ids(ids[:8])  # the first call of a kernel is slower
    for _ in range(repeats):
        for way, run in ways.items():
            begun = time.perf_counter()
            run()
            best[way] = min(best[way], time.perf_counter() - begun)
    tokens = sum(map(len, ids))
    return {
        "passages": len(ids),
        "tokens": tokens,
        "padding": {"padded": _padding(ids, rows), "sorted": _padding(by_length, rows)},
        "passages_per_second": {way: len(ids) / seconds for way, seconds in best.items()},
        "threads": torch.get_num_threads(),
        "rows": rows,
    }


def _packed(encoder: SentenceEncoder, ids: list[list[int]]) -> None:
    with torch.inference_mode():
        for _, inputs in in_batches({"input_ids": ids}, encoder.batch_tokens, encoder.device):
            encoder.vectors_of(inputs).cpu()


def _padded(encoder: SentenceEncoder, ids: list[list[int]], rows: int) -> None:
    packable, encoder.model.packable = encoder.model.packable, False
    try:
        with torch.inference_mode():
            for start in range(0, len(ids), rows):
                part = ids[start : start + rows]
                table, real = padded(part, np.array([len(row) for row in part]))
                inputs = {"input_ids": torch.from_numpy(table).to(encoder.device)}
                if real is not None:
                    inputs["attention_mask"] = torch.from_numpy(real).to(encoder.device)
                encoder.vectors_of(inputs).cpu()
    finally:
        encoder.model.packable = packable


def _padding(ids: list[list[int]], rows: int) -> float:
    """The share of a padded run that is padding."""
    parts = [ids[start : start + rows] for start in range(0, len(ids), rows)]
    computed = sum(len(part) * max(map(len, part)) for part in parts)
    return 1 - sum(map(len, ids)) / computed


# ---- the map ---------------------------------------------------------------------------------------------------------

COLOURED = 9  # packages: as many as tab10 has colours without its grey


BESIDE = [(9, 5), (-17, -14), (9, -14), (-17, 5)]  # a star, where its number may be, in points


def plane(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (width,) and the two directions (width, 2) in which vectors (n, width) differ most: PCA."""
    mean = vectors.mean(0)
    _, _, directions = np.linalg.svd(vectors - mean, full_matrices=False)
    return mean, directions[:2].T


def draw_map(
    path: Path, passages: Sequence[Passage], vectors: np.ndarray, questions: Sequence[str], asked: np.ndarray
) -> None:
    """A PNG: every passage a dot, the packages with most of them in colour, every question a star.

    Raises:
        ImportError: matplotlib is not installed. CheckpointError: the folder cannot be written.
    """
    from matplotlib.figure import Figure  # a figure of its own needs no display and no global state

    mean, axes = plane(vectors)
    dots, stars = (vectors - mean) @ axes, (asked - mean) @ axes
    packages = np.array([p.package for p in passages])
    figure = Figure(figsize=(13, 8), dpi=110, layout="constrained")
    ax = figure.add_subplot()
    _draw_passages(ax, dots, packages)
    _draw_questions(ax, stars, questions)
    _label_packages(ax, dots, packages, stars)
    _draw_legends(ax)
    ax.set_title(f"{len(passages):,} docstrings of the Python standard library, by meaning", fontsize=14, loc="left")
    ax.set_xlabel("first principal component of the sentence vectors")
    ax.set_ylabel("second")
    ax.set(xticks=[], yticks=[])
    ax.spines[["top", "right"]].set_visible(False)
    try:
        with AtomicFiles(path.parent) as files:
            figure.savefig(files.path_for(path.name), format="png")
            files.commit()
    except CheckpointError:
        raise
    except OSError as error:
        raise explain(path.parent, error) from error


def _largest(packages: np.ndarray) -> list[str]:
    return [name for name, _ in Counter(packages.tolist()).most_common(COLOURED)]


def _draw_passages(ax: Any, dots: np.ndarray, packages: np.ndarray) -> None:
    import matplotlib

    colours = matplotlib.colormaps["tab10"]([i for i in range(10) if i != 7])
    most = _largest(packages)
    rest = ~np.isin(packages, most)
    ax.scatter(*dots[rest].T, s=9, c="#c4c4c4", linewidths=0, label=f"{len(set(packages[rest])):,} others")
    for name, colour in zip(most, colours, strict=False):
        mine = dots[packages == name]
        ax.scatter(*mine.T, s=17, color=colour, linewidths=0, alpha=0.85, label=f"{name} ({len(mine)})")


def _label_packages(ax: Any, dots: np.ndarray, packages: np.ndarray, stars: np.ndarray) -> None:
    """The name of a package at the middle of its dots, moved up where it would meet another or a star."""
    taken = [(float(x), float(y)) for x, y in stars]
    high, wide = np.ptp(dots[:, 1]) * 0.035, np.ptp(dots[:, 0]) * 0.10
    for name in _largest(packages):
        x, y = np.median(dots[packages == name], axis=0)
        while any(abs(x - a) < wide and abs(y - b) < high for a, b in taken):
            y += high / 2
        taken.append((x, y))
        ax.text(x, y, name, ha="center", va="center", fontsize=10, weight="bold", path_effects=_halo(), zorder=4)


def _draw_questions(ax: Any, stars: np.ndarray, questions: Sequence[str]) -> None:
    """Numbered stars, and beside the map which question each is."""
    for number, ((x, y), question) in enumerate(zip(stars, questions, strict=True), 1):
        shown = textwrap.fill(textwrap.shorten(question, 90, placeholder=" ..."), 26)
        label = f"{number}  {shown}".replace("\n", "\n    ")
        ax.plot(x, y, "*", ms=19, c="black", mec="white", mew=1.0, zorder=5, ls="", label=label)
        near = sum(np.hypot(*(star - (x, y))) < 0.04 for star in stars[: number - 1])
        ax.annotate(
            str(number), (x, y), xytext=BESIDE[near % 4], textcoords="offset points", fontsize=13, weight="bold",
            path_effects=_halo(), zorder=6,
        )  # fmt: skip


def _draw_legends(ax: Any) -> None:
    """Packages at the top right, outside of the map, questions at the bottom right."""
    handles, labels = ax.get_legend_handles_labels()
    packages = [i for i, handle in enumerate(handles) if not hasattr(handle, "get_marker")]
    questions = [i for i, handle in enumerate(handles) if hasattr(handle, "get_marker")]
    packages = packages[1:] + packages[:1]  # the others last
    outside: dict[str, Any] = dict(frameon=False, alignment="left", borderaxespad=0)
    first = ax.legend(
        [handles[i] for i in packages], [labels[i] for i in packages], title="package (passages)",
        loc="upper left", bbox_to_anchor=(1.02, 1), markerscale=1.8, **outside,
    )  # fmt: skip
    ax.add_artist(first)
    ax.legend(
        [handles[i] for i in questions], [labels[i] for i in questions], title="questions",
        loc="lower left", bbox_to_anchor=(1.02, 0), markerscale=0.6, labelspacing=0.8, **outside,
    )  # fmt: skip


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3, foreground="white")]
