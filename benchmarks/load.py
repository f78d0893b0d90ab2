"""What starting costs, beside transformers: importing the package, and loading BERT-base from safetensors.

    python benchmarks/load.py [--repeats N] [--output FILE]

Every figure comes from a process of its own; the two libraries take turns. Peak memory is what the process grew by
while loading (VmHWM after, less VmRSS before, pages mapped from the file included), as a multiple of the file; so that
nothing is gained by putting the reading off, it is also taken, like the time, after a first answer.
"""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # this folder last: it has a tokenize.py, as Python has

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from encode import HERE, bert_base, machine
from tqdm import tqdm

LIBRARIES = ("polyformer", "transformers")
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

LOAD = """
import importlib, json, sys, time
import torch
library, folder = sys.argv[1:]
model_class = importlib.import_module(library).BertModel

def memory(field):
    try:
        lines = open("/proc/self/status").read().splitlines()
    except OSError:
        return None  # no such figures on this system
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))

try:
    open("/proc/self/clear_refs", "w").write("5")  # the peak so far was that of the imports: forget it
except OSError:
    pass
before = memory("VmRSS")
start = time.perf_counter()
model = model_class.from_pretrained(folder).eval()
loaded, peak_loaded = time.perf_counter() - start, memory("VmHWM")
with torch.inference_mode():
    answer = model(torch.tensor([[101, 7592, 102]]))[0]
answered, peak = time.perf_counter() - start, memory("VmHWM")
figures = {"load s": loaded, "first answer s": answered, "sum": float(answer.double().sum())}
if before is not None:
    figures |= {"peak": peak_loaded - before, "peak after first answer": peak - before}
print(json.dumps(figures))
"""

IMPORT = "import time; t = time.perf_counter(); import {library}; print(time.perf_counter() - t)"


def child(*arguments: str) -> str:
    """Run Python on this, one thread, no network; its last line."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=os.environ | THREADS, cwd=HERE.parent
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message")
    return done.stdout.strip().splitlines()[-1]


def once(library: str, folder: Path) -> dict[str, float]:
    """All figures of one library, once."""
    figures = json.loads(child("-c", LOAD, library, str(folder)))
    return figures | {"import s": float(child("-c", IMPORT.format(library=library)))}


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """Figures of every library: lists of what the turns gave. The first turn warms the disk's cache and is dropped."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in LIBRARIES}
    failed: dict[str, str] = {}
    for turn in tqdm(range(repeats + 1), desc="turns", disable=None):
        for name in LIBRARIES:
            if name in failed:
                continue
            try:
                figures = once(name, folder)
            except RuntimeError as error:
                failed[name] = str(error)
                continue
            if turn:
                runs[name].append(figures)
    found = {name: {key: [run[key] for run in of] for key in of[0]} for name, of in runs.items() if of}
    return {"libraries": found, "failed": failed}


def show(result: dict[str, Any]) -> None:
    """A table of medians."""
    size = result["weights"]
    print(f"\nBERT-base, {size / 1e6:.0f} MB of weights\n  {'':26}{''.join(f'{name:>14}' for name in LIBRARIES)}")
    found = {name: result["libraries"].get(name, {}) for name in LIBRARIES}
    for key in ("import s", "load s", "first answer s", "peak", "peak after first answer"):
        values = [statistics.median(found[name][key]) if key in found[name] else None for name in LIBRARIES]
        scale, unit = (size, " x") if key.startswith("peak") else (1, "  ")
        cells = ("-" if value is None else f"{value / scale:.3f}{unit}" for value in values)
        print(f"  {key:26}{''.join(f'{cell:>14}' for cell in cells)}")
    sums = {name: statistics.median(of["sum"]) for name, of in found.items() if of}
    if len(sums) == len(LIBRARIES) and abs(sums[LIBRARIES[0]] - sums[LIBRARIES[1]]) > 1e-2:
        print(f"  WRONG: the sums of the first answers differ: {sums}")
    for name, why in result["failed"].items():
        print(f"skipped: {name}: {why}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description="What starting costs, beside transformers.")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="timed turns (default 7)")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "load.json", metavar="FILE")
    args = parser.parse_args()
    folder = bert_base()
    result = measure(folder, args.repeats)
    result |= {"weights": (folder / "model.safetensors").stat().st_size, "machine": machine()}
    show(result)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\n{args.output}")


if __name__ == "__main__":
    main()
