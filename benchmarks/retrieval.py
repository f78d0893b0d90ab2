"""Search over many vectors: exact beside FAISS's IVF, HNSW and int8; time, recall and memory.

    python benchmarks/retrieval.py [--rows N] [--width N] [--sets random,narrow] [--only NAMES] [--threads N]

An index of random vectors is built by polyformer.retrieval in a streaming pass, then each kind of FAISS's is put beside
it and searched, every step in a process of its own. Set `random` is normal numbers, the hardest there is: all vectors
are about as far from each other. Set `narrow` lies in 32 directions, but for some noise, nearer to what texts give.
`faiss flat` is FAISS's own exact search, with all vectors in memory.

build s: of the index of FAISS; for `exact`, of vectors, passages and checksums on disk. ms alone: one query at a time,
the median. ms batch: a query, 256 at once. recall: how many of the 10 that exact search finds are found. heap, mapped:
what the process that searches grows by, in memory of its own and in pages of files, which the system may take back
(Linux only). Exact search reads every vector from the file; with the file in the system's cache, as here.
"""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # this folder last: it has a tokenize.py, as Python has

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from encode import CACHE, HERE, machine
from tqdm import tqdm

from polyformer.retrieval import HNSW, IVF, Int8, Passage, PassageIndex, accelerate, build

SETS = ("random", "narrow")
BLOCK = 1 << 14
DIRECTIONS = 32  # that vectors of the narrow set lie in, but for noise
TOP, ALONE, BATCH = 10, 50, 256  # passages of a query, queries one at a time, queries at once
EFFORTS: dict[str, list[Any]] = {
    "ivf": [IVF(probes=n) for n in (16, 64, 256, 1024)],
    "hnsw": [HNSW(width_search=n) for n in (32, 128, 512)],
    "int8": [Int8()],
}


def vectors(kind: str, rows: int, width: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks (rows, width) of a set, float32; another seed gives others of the same set."""
    basis = np.random.default_rng(0).standard_normal((DIRECTIONS, width), np.float32)
    for start in range(0, rows, BLOCK):
        rng = np.random.default_rng([seed, start])
        made = rng.standard_normal((min(BLOCK, rows - start), width), np.float32)
        yield made if kind == "random" else made + rng.standard_normal((len(made), DIRECTIONS), np.float32) @ basis


def some_queries(kind: str, width: int) -> np.ndarray:
    """(BATCH, width) of the set, not in the index."""
    return next(vectors(kind, BATCH, width, 2))


# ---- what a process of its own does ----------------------------------------------------------------------------------


def make(args: argparse.Namespace, kind: str, folder: Path) -> dict[str, Any]:
    """The index itself."""
    blocks = vectors(kind, args.rows, args.width, 1)
    passages = (Passage(f"passage {i}", f"document {i // 10}", start=i % 10) for i in range(args.rows))
    start = time.perf_counter()
    build(folder, passages, lambda batch: next(blocks), encoder="random", block=BLOCK)
    seconds = time.perf_counter() - start
    return {"build s": seconds, "disk": sum(path.stat().st_size for path in folder.iterdir())}


def make_faiss(folder: Path, name: str) -> dict[str, Any]:
    start = time.perf_counter()
    accelerate(folder, EFFORTS[name][0])
    return {"build s": time.perf_counter() - start, "disk": (folder / f"faiss-{name}.index").stat().st_size}


def timed(search: Any, queries: np.ndarray) -> dict[str, Any]:
    """Milliseconds of queries alone and together, and what was found."""
    search(queries[:2])
    alone = []
    for query in queries[:ALONE]:
        start = time.perf_counter()
        search(query[None])
        alone.append(1e3 * (time.perf_counter() - start))
    start = time.perf_counter()
    ids = search(queries)
    together = 1e3 * (time.perf_counter() - start) / len(queries)
    return {"ms alone": statistics.median(alone), "ms batch": together, "ids": ids.tolist()}


def query(folder: Path, name: str, queries: np.ndarray) -> list[dict[str, Any]]:
    """Searches of one kind, at every effort."""
    before = memory()
    index = PassageIndex(folder, exact=name == "exact")
    found = []
    for effort in EFFORTS.get(name, [None]):
        if effort is not None:
            index.meta = replace(index.meta, faiss=effort.description())
        figures = timed(lambda some: index.search(some, TOP).ids, queries)
        options = {} if effort is None else effort.description()
        found.append(figures | {"options": options} | grown(before))
    return found


def query_flat(folder: Path, queries: np.ndarray) -> list[dict[str, Any]]:
    """FAISS's own exact search."""
    import faiss

    before, start = memory(), time.perf_counter()
    stored = PassageIndex(folder).vectors
    index = faiss.IndexFlatIP(stored.shape[1])
    for first in range(0, len(stored), BLOCK):
        index.add(np.ascontiguousarray(stored[first : first + BLOCK]))
    seconds = time.perf_counter() - start
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    figures = timed(lambda some: index.search(some, TOP)[1], unit)
    return [figures | {"options": {}, "build s": seconds} | grown(before)]


def memory() -> dict[str, int]:
    """Bytes of this process: its own, and pages of files."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {}
    fields = {"heap": "RssAnon:", "mapped": "RssFile:"}
    return {name: int(line.split()[1]) * 1024 for name, key in fields.items() for line in lines if line.startswith(key)}


def grown(before: dict[str, int]) -> dict[str, int]:
    return {name: value - before[name] for name, value in memory().items()}


def child(args: argparse.Namespace) -> None:
    """One step, its figures as the last line."""
    kind, what, name = args.step
    folder = CACHE / "retrieval" / kind
    queries = some_queries(kind, args.width)
    if what == "build":
        made: Any = make(args, kind, folder) if name == "exact" else make_faiss(folder, name)
    else:
        made = query_flat(folder, queries) if name == "faiss flat" else query(folder, name, queries)
    print(json.dumps(made))


# ---- the whole -------------------------------------------------------------------------------------------------------


def step(args: argparse.Namespace, *names: str) -> Any:
    """A step in a process of its own."""
    threads = str(args.threads)
    env = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, __file__, "--rows", str(args.rows), "--width", str(args.width), "--step", *names]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(args: argparse.Namespace, kind: str) -> list[dict[str, Any]]:
    """All searches of a set, `exact` first."""
    folder = CACHE / "retrieval" / kind
    shutil.rmtree(folder, ignore_errors=True)
    made = {"exact": step(args, kind, "build", "exact")}
    rows: list[dict[str, Any]] = []
    wanted: list[list[int]] = []
    for name in tqdm(["exact", *args.only], desc=kind, disable=None):
        try:
            if name in EFFORTS:
                made[name] = step(args, kind, "build", name)
            for figures in step(args, kind, "query", name):
                ids = figures.pop("ids")
                wanted = wanted or ids
                hits = sum(len(set(a) & set(b)) for a, b in zip(ids, wanted, strict=True))
                recall = hits / sum(map(len, wanted))
                rows.append({"set": kind, "search": name, "recall": recall} | made.get(name, {}) | figures)
        except RuntimeError as error:
            print(f"skipped: {kind}, {name}: {error}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    return rows


def label(row: dict[str, Any]) -> str:
    """A search and its effort."""
    options = row["options"]
    effort = options.get("probes") or options.get("width_search")
    return f"{row['search']} {effort}" if effort else row["search"]


def show(rows: list[dict[str, Any]]) -> None:
    columns = ("build s", "ms alone", "ms batch", "recall", "disk MB", "heap MB", "mapped MB")
    for kind in dict.fromkeys(row["set"] for row in rows):
        print(f"\n{kind:14}{''.join(f'{name:>12}' for name in columns)}")
        for row in rows:
            if row["set"] == kind:
                megabytes = {f"{name} MB": row[name] / 1e6 for name in ("disk", "heap", "mapped") if name in row}
                cells = (row | megabytes).get
                values = (f"{cells(name):>12.3f}" if cells(name) is not None else f"{'-':>12}" for name in columns)
                print(f"{label(row):14}{''.join(values)}")


def draw(rows: list[dict[str, Any]], file: Path, title: str) -> None:
    """Recall over the time of a query, a panel a set, a line a kind of search."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sets = list(dict.fromkeys(row["set"] for row in rows))
    figure, axes = plt.subplots(1, len(sets), figsize=(5.2 * len(sets), 4.2), squeeze=False, layout="constrained")
    for axis, kind in zip(axes[0], sets, strict=True):
        for number, name in enumerate(dict.fromkeys(row["search"] for row in rows)):
            points = [row for row in rows if row["set"] == kind and row["search"] == name]
            times, recalls = [row["ms alone"] for row in points], [row["recall"] for row in points]
            colour = "#d1495b" if name == "exact" else f"C{number}"
            axis.plot(times, recalls, "o-", color=colour, label=name)
            for row in points:
                effort = label(row).removeprefix(name).strip()
                axis.annotate(
                    effort, (row["ms alone"], row["recall"]), xytext=(3, -9), textcoords="offset points", size=7
                )
        axis.set_xscale("log")
        axis.set_ylim(-0.03, 1.05)
        axis.set_xlabel("milliseconds a query, one at a time")
        axis.set_ylabel(f"recall of the best {TOP}")
        axis.set_title(kind, fontsize=11)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0][0].legend(frameon=False, fontsize=9)
    figure.suptitle(title)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    def split(text: str) -> list[str]:
        return text.split(",")

    kinds = ["faiss flat", *EFFORTS]
    parser = argparse.ArgumentParser(description="Exact search beside FAISS: time, recall, memory.")
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="vectors (default 1,000,000)")
    parser.add_argument("--width", type=int, default=384, metavar="N", help="numbers in a vector (default 384)")
    parser.add_argument("--sets", type=split, default=list(SETS), metavar="NAMES", help="of random, narrow")
    parser.add_argument("--only", type=split, default=kinds, metavar="NAMES", help=f"of {', '.join(kinds)}; and exact")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N", help="threads (default: all cores)")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "retrieval.json", metavar="FILE")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        child(args)
        return
    rows = [row for kind in args.sets for row in measure(args, kind)]
    show(rows)
    about = {"rows": args.rows, "width": args.width, "threads": args.threads, "machine": machine()}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"results": rows} | about, indent=1) + "\n", encoding="utf-8")
    title = f"{args.rows:,} vectors of {args.width} numbers, {args.threads} thread{'s' if args.threads > 1 else ''}"
    draw(rows, args.output.with_suffix(".png"), title)
    print(f"\n{args.output}, {args.output.with_suffix('.png')}")


if __name__ == "__main__":
    main()
