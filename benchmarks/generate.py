"""Tokens a second that are written, beside other libraries and beside what the memory allows.

    python benchmarks/generate.py               everything: an hour on one core
    python benchmarks/generate.py --quick       few and short texts: minutes
    python benchmarks/generate.py --only polyformer,ctranslate2 --tasks greedy-1x64,ragged-16
    python benchmarks/generate.py --perplexity FOLDER     what int8 weights cost: a trained GPT-2 checkpoint

GPT-2 of the small shape with random weights, made once. Each library runs in a process of its own, bound to its cores;
the processes take turns, so that a slow minute of the machine hits all alike. Medians count. The texts that the
libraries write are compared, token by token. README.md beside this file says how to read the results.
"""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # this folder last: it has a tokenize.py, as Python has

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

from encode import CACHE, machine
from tqdm import tqdm
from writers import MEMORY, WRITERS

HERE = Path(__file__).resolve().parent
OURS = {"float32": "polyformer", "int8": "polyformer int8"}
WORDS, PROMPT, LONGEST = 50257, 32, 256
CANDIDATES = 24  # prompts, of which those with the clearest choices are kept
STOPS = (8, LONGEST)  # tokens of the shortest and the longest ragged text


# ---- what is written -------------------------------------------------------------------------------------------------


def gpt2() -> Path:
    """GPT-2 small in Hugging Face's layout, with a vocabulary of made-up words and the prompts, made once."""
    home = CACHE / "gpt2-small"
    if home.exists():
        return home
    import torch

    from polyformer import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    making = CACHE / "gpt2-small.making"
    shutil.rmtree(making, ignore_errors=True)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, bos_token_id=None, eos_token_id=None)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 2 and "layers" in name:
                p.normal_(std=0.05)  # with the usual 0.02 it says its last word again and again
    model.save_pretrained(making)
    vocabulary(making)
    (making / "prompts.json").write_text(json.dumps(prompts(model)))
    os.replace(making, home)
    return home


def vocabulary(folder: Path) -> None:
    """Tokenizer files, which CTranslate2's converter wants: the 256 bytes, then words nobody knows."""
    from tokenizers.pre_tokenizers import ByteLevel

    names = sorted(ByteLevel.alphabet())
    names += [f"word{i}" for i in range(WORDS - len(names) - 1)] + ["<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')


def prompts(model: Any) -> dict[str, Any]:
    """16 prompts whose best next words are clearly best, so that rounding changes no text; and ids for ragged texts.

    The ids are such that, when each of them ends a text, the 16 texts have evenly spread lengths.
    """
    import torch

    ids = torch.randint(256, WORDS - 1, (CANDIDATES, PROMPT))
    texts = model.generate(ids, max_new_tokens=LONGEST, do_sample=False, pad_token_id=0)
    with torch.no_grad():
        best = torch.cat([model(text[None]).logits[:, PROMPT - 1 : -1].topk(2).values for text in texts])
    clear = (best[..., 0] - best[..., 1]).amin(1).argsort(descending=True)[:16]
    kept, written = ids[clear].tolist(), texts[clear, PROMPT:].tolist()
    return {"prompts": kept, "stops": stops_for(written)}


def stops_for(texts: list[list[int]]) -> list[int]:
    """Ids that, when each of them ends a text, leave these with evenly spread lengths, or a little more."""
    shortest, longest = STOPS
    lengths = [shortest + row * (longest - shortest) // (len(texts) - 1) for row in range(len(texts))]
    early = {token for text, length in zip(texts, lengths, strict=True) for token in text[:length]}
    found = (
        next((t for t in text[length:] if t not in early), None) for text, length in zip(texts, lengths, strict=True)
    )
    return [token for token in found if token is not None]


def tasks(folder: Path) -> dict[str, dict[str, Any]]:
    known = json.loads((folder / "prompts.json").read_text())
    rows, stops = known["prompts"], known["stops"]

    def task(count: int, new: int, beams: int = 1, sample: bool = False) -> dict[str, Any]:
        return {"prompts": rows[:count], "new": new, "beams": beams, "sample": sample, "stops": []}

    return {
        "greedy-1x64": task(1, 64),
        "greedy-1x256": task(1, 256),
        "greedy-8x64": task(8, 64),
        "greedy-8x256": task(8, 256),
        "ragged-16": {**task(16, LONGEST), "stops": stops},
        "sampling-1x64": task(1, 64, sample=True),
        "sampling-8x64": task(8, 64, sample=True),
        "beam4-1x64": task(1, 64, beams=4),
        "beam4-8x64": task(8, 64, beams=4),
    }


QUICK = ("greedy-1x64", "greedy-8x64", "beam4-1x64")


# ---- what the memory allows ------------------------------------------------------------------------------------------


def bandwidth(folder: Path, threads: int) -> dict[str, float]:
    """Bytes a second at which the weights are read, measured in a process of its own; and what bounds that sets."""
    worker = Worker(MEMORY, folder, folder, threads)
    worker.close()
    told = worker.told
    size = (folder / "model.safetensors").stat().st_size
    return told | {"float32": told["bytes/s"] / size, "int8": told["bytes/s"] / size * 4}


# ---- the processes ---------------------------------------------------------------------------------------------------


def environment(threads: int) -> dict[str, str]:
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    return os.environ | limits | quiet | {"PYTHONWARNINGS": "ignore"}


class Worker:
    """A library's process."""

    def __init__(self, name: str, folder: Path, cache: Path, threads: int) -> None:
        self.name = name
        command = [sys.executable, str(HERE / "writers.py"), name, str(folder), str(cache), str(threads)]
        with (cache.parent / f"{name.split()[0]}.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment(threads)
            )
        self.told = self.answer()

    def answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"failed": "its process ended"}

    def write(self, task: dict[str, Any]) -> dict[str, Any]:
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


# ---- measuring -------------------------------------------------------------------------------------------------------


def measure(name: str, task: dict[str, Any], workers: list[Worker], repeats: int, bar: tqdm) -> dict[str, Any]:
    """Warm up, take turns; results by library."""
    result: dict[str, Any] = {
        w.name: {"version": w.told["version"], "times": [], "cpu": [], "tokens": []} for w in workers
    }
    for turn in range(repeats + 1):
        for worker in workers:
            bar.set_postfix_str(f"{name}, {worker.name}")
            entry = result[worker.name]
            if "failed" not in entry:
                told = worker.write(task)
                if "failed" in told:
                    entry["failed"] = told["failed"]
                elif turn:
                    entry["times"].append(told["wall"])
                    entry["cpu"].append(told["cpu"])
                    entry["tokens"].append(sum(map(len, told["texts"])))
                entry["texts"] = told.get("texts")
            bar.update()
    for writer, entry in result.items():
        summarise(writer, entry, result, task)
    for entry in result.values():
        entry.pop("texts")
    return result


def summarise(name: str, entry: dict[str, Any], result: dict[str, Any], task: dict[str, Any]) -> None:
    """Rates, ratios to ours of the same number type (above 1 ours is faster), and the share of tokens that is ours."""
    if not entry["times"]:
        return
    kind = WRITERS[name].kind
    rates = {clock: [n / t for n, t in zip(entry["tokens"], entry[clock], strict=True)] for clock in ("times", "cpu")}
    entry["tokens/s"], entry["tokens/cpu s"] = (statistics.median(rates[clock]) for clock in ("times", "cpu"))
    ours = result.get(OURS[kind], {"times": []})
    if not ours["times"]:
        return
    for field, clock in (("ratio", "times"), ("cpu ratio", "cpu")):
        turns = zip(rates[clock], ours["tokens"], ours[clock], strict=True)
        entry[field] = statistics.median(tokens / seconds / rate for rate, tokens, seconds in turns)
    if not task["sample"]:
        entry["same"] = alike(entry["texts"], ours["texts"])


def alike(texts: list[list[int]], others: list[list[int]]) -> float:
    """The share of tokens before two texts part."""
    same = total = 0
    for text, other in zip(texts, others, strict=True):
        parted = next(
            (i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other))
        )
        same, total = same + parted, total + max(len(text), len(other))
    return same / total


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    folder, results = gpt2(), []
    cache = CACHE / "gpt2-small-made"
    cache.mkdir(parents=True, exist_ok=True)
    known = tasks(folder)
    for threads in args.threads:
        bound = bandwidth(folder, threads)
        print(f"{threads} thread(s): memory {bound['bytes/s'] / 1e9:.1f} GB/s, enough for {bound['float32']:.1f} "
              f"tokens a second and text in float32, {bound['int8']:.1f} in int8")  # fmt: skip
        workers = [Worker(name, folder, cache, threads) for name in args.only]
        absent = {w.name: w.told["failed"] for w in workers if "failed" in w.told}
        workers = [w for w in workers if w.name not in absent]
        for name, why in absent.items():
            print(f"skipped: {name}: {why}", file=sys.stderr)
        with tqdm(total=len(args.tasks) * len(workers) * (args.repeats + 1), disable=None) as bar:
            for name in args.tasks:
                found = measure(name, known[name], workers, args.repeats, bar)
                results.append({"task": name, "threads": threads, "memory": bound, "libraries": found})
                show(results[-1])
        for worker in workers:
            worker.close()
    return results


def show(part: dict[str, Any]) -> None:
    """A table of one measurement, fastest first."""
    print(f"\n{part['task']}, {part['threads']} thread(s)")
    heads = ("tokens/s", "range s", "per cpu s", "of memory", "same", "ours x", "ours x cpu")
    print(f"  {'':32}{''.join(f'{head:>12}' for head in heads)}")
    for name, entry in sorted(part["libraries"].items(), key=lambda item: -item[1].get("tokens/s", 0)):
        if "tokens/s" not in entry:
            print(f"  {name:32}failed: {entry['failed'][:100]}")
            continue
        one = "-1x" in part["task"] and not part["task"].startswith("beam")
        share = entry["tokens/s"] / part["memory"][WRITERS[name].kind]
        cells = (
            f"{entry['tokens/s']:.1f}",
            f"{min(entry['times']):.2f}-{max(entry['times']):.2f}",
            f"{entry['tokens/cpu s']:.1f}",
            f"{share:.0%}" if one else "",
            f"{entry['same']:.1%}" if "same" in entry else "",
            *(f"{entry[ratio]:.2f}" if ratio in entry else "" for ratio in ("ratio", "cpu ratio")),
        )
        print(f"  {name:32}{''.join(f'{cell:>12}' for cell in cells)}")


def draw(results: list[dict[str, Any]], file: Path) -> None:
    """A panel a task, a bar a library; the longest bar on top."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(3, len(results))
    lines = math.ceil(len(results) / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(5.2 * columns, 2.8 * lines), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(results) :]:
        axis.set_axis_off()
    for axis, part in zip(axes.flat, results, strict=False):
        rates = {name: e["tokens/s"] for name, e in part["libraries"].items() if "tokens/s" in e}
        order = sorted(rates, key=rates.__getitem__)
        colours = ["#d1495b" if name.startswith("polyformer") else "#8fb8d8" for name in order]
        axis.barh(order, [rates[name] for name in order], color=colours)
        for i, name in enumerate(order):
            axis.text(rates[name], i, f" {rates[name]:.3g}", va="center", fontsize=8)
        axis.margins(x=0.15)
        axis.set_title(f"{part['task']}, {part['threads']} thread(s)", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("GPT-2 small on a CPU: tokens a second (longer is better)")
    figure.savefig(file, dpi=120)
    plt.close(figure)


# ---- what int8 costs -------------------------------------------------------------------------------------------------


def perplexities(folder: Path, rows: int = 128, new: int = 160) -> dict[str, float]:
    """Of texts that the float32 model has drawn: of itself, and of the model with int8 weights."""
    import torch

    from polyformer import GPT2LMHeadModel, quantize

    model = GPT2LMHeadModel.from_pretrained(folder)
    torch.manual_seed(0)
    begin = torch.full((rows, 1), model.config.bos_token_id)
    texts = model.generate(begin, do_sample=True, top_k=0, max_new_tokens=new, pad_token_id=-1)
    real = texts >= 0
    ids, mask = texts.clamp(min=0), real.long()

    def perplexity() -> float:
        with torch.inference_mode():
            scores = model(ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
        return math.exp(-scores.gather(2, ids[:, 1:, None])[..., 0][real[:, 1:]].double().mean())

    before = perplexity()
    quantize(model)
    return {"tokens": int(real[:, 1:].sum()), "float32": before, "int8": perplexity()}


# ---- the command -----------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Tokens a second that are written, beside other libraries.",
        epilog=f"libraries: {', '.join(WRITERS)}",
    )

    def split(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}, two turns")
    parser.add_argument("--only", type=split, default=list(WRITERS), metavar="NAMES", help="these libraries, by commas")
    parser.add_argument("--tasks", type=split, metavar="NAMES", help="such as greedy-8x64 (all are in the README)")
    parser.add_argument("--threads", type=split, default=["1"], metavar="N,..", help="numbers, or all (default 1)")
    parser.add_argument("--repeats", type=int, metavar="N", help="timed turns (default 3, quick 2)")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default results/generate.json (generate-quick.json)"
    )
    parser.add_argument("--perplexity", type=Path, metavar="FOLDER", help="measure only what int8 costs this GPT-2")
    args = parser.parse_args()
    if unknown := [name for name in args.only if name not in WRITERS]:
        parser.error(f"no such library: {', '.join(unknown)}")
    args.threads = sorted({(os.cpu_count() or 1) if n == "all" else int(n) for n in args.threads})
    args.repeats = args.repeats or (2 if args.quick else 3)
    args.output = args.output or HERE / "results" / ("generate-quick.json" if args.quick else "generate.json")
    return args


def main() -> None:
    args = arguments()
    if args.perplexity:
        found = perplexities(args.perplexity)
        change = found["int8"] / found["float32"] - 1
        print(f"{found['tokens']} tokens: perplexity {found['float32']:.4f} in float32, {found['int8']:.4f} in int8 "
              f"({change:+.3%})")  # fmt: skip
        return
    known = tasks(gpt2())
    args.tasks = args.tasks or list(QUICK if args.quick else known)
    if unknown := [name for name in args.tasks if name not in known]:
        sys.exit(f"no such task: {', '.join(unknown)}; there are {', '.join(known)}")
    results = run(args)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n", encoding="utf-8")
    draw(results, args.output.with_suffix(".png"))
    print(f"\n{args.output}\n{args.output.with_suffix('.png')}")


if __name__ == "__main__":
    main()
