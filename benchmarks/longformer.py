"""Time and memory of a long text: polyformer's Longformer, transformers', and full attention.

    python benchmarks/longformer.py [--lengths 512,4096,32768] [--only NAMES] [--threads N] [--repeats N] [--layers N]

The model is longformer-base (windows of 512) with random weights, the text random ids of which the first is global, one
row, float32. Full attention is polyformer's RoBERTa of the same size. Every figure comes from a process of its own, the
libraries take turns; time is the fastest pass, memory what a further pass makes the process grow by (Linux only). The
two Longformers have the same weights, and their states are compared. A library is left out from the length on at which
a pass, by its last one and the square of the lengths, would take longer than --limit seconds.
"""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # this folder last: it has a tokenize.py, as Python has

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from encode import CACHE, HERE, WRONG, machine
from tqdm import tqdm

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
LIBRARIES = ("polyformer", "transformers", "full attention")
OURS, REFERENCE = LIBRARIES[:2]
WINDOW = 512

PASS = """
import ctypes, json, sys, time
import torch
name, folder, length, repeats, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
torch.set_num_threads(threads)
if name == "transformers":
    from transformers import LongformerModel
    model = LongformerModel.from_pretrained(folder)
elif name == "polyformer":
    from polyformer import LongformerModel
    model = LongformerModel.from_pretrained(folder)
else:
    from polyformer import LongformerConfig, RobertaConfig, RobertaModel
    same = LongformerConfig.from_pretrained(folder)
    model = RobertaModel(RobertaConfig(
        num_hidden_layers=same.num_hidden_layers, max_position_embeddings=same.max_position_embeddings,
        type_vocab_size=same.type_vocab_size,
    ))
model = model.eval()

def inputs(length):
    ids = torch.randint(5, 30000, (1, length), generator=torch.Generator().manual_seed(length))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    first = (torch.arange(length) == 0).long()[None]
    return given if name == "full attention" else given | {"global_attention_mask": first}

def timed(text):
    begun = time.perf_counter()
    states = model(**text).last_hidden_state
    return time.perf_counter() - begun, states[0, :: max(length // 16, 1), ::96].tolist()

def memory(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(field + ":"))

with torch.inference_mode():
    timed(inputs(64))
    text = inputs(length)
    passes = [timed(text) for _ in range(repeats)]
    figures = {"s": min(took for took, _ in passes), "states": passes[0][1]}
    try:  # arrays go back to the system when they are dropped, so that the peak is what is needed, not what was kept
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 16)
        libc.malloc_trim(0)
        open("/proc/self/clear_refs", "w").write("5")
        before = memory("VmRSS")
        timed(text)
        figures["MB"] = memory("VmHWM") - before
    except (OSError, AttributeError):
        pass  # another system
print(json.dumps(figures))
"""


def checkpoint(layers: int, longest: int) -> Path:
    """longformer-base with random weights and positions for the longest text, saved once."""
    home = CACHE / f"longformer-{layers}-{longest}"
    if not (home / "config.json").exists():
        import torch

        from polyformer import LongformerConfig, LongformerModel

        torch.manual_seed(0)
        config = LongformerConfig(
            attention_window=WINDOW, num_hidden_layers=layers, max_position_embeddings=longest + 2, type_vocab_size=1
        )
        LongformerModel(config).save_pretrained(home)
    return home


def once(name: str, folder: Path, length: int, args: argparse.Namespace) -> dict[str, Any]:
    """What one process found, or why it failed."""
    threads = str(args.threads)
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", PASS, name, str(folder), str(length), str(args.repeats), threads],
        capture_output=True, text=True, env=os.environ | quiet | {"OMP_NUM_THREADS": threads}, cwd=HERE.parent,
    )  # fmt: skip
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A dict for each length: {"tokens", "libraries": {name: figures}}."""
    folder = checkpoint(args.layers, max(args.lengths))
    results: list[dict[str, Any]] = []
    with tqdm(total=len(args.lengths) * len(args.only), disable=None) as bar:
        for length in args.lengths:
            found: dict[str, Any] = {}
            for name in args.only:
                bar.set_postfix_str(f"{length} tokens, {name}")
                last = results[-1]["libraries"].get(name, {}) if results else {}
                growth = (length / results[-1]["tokens"]) ** 2 if results else 1
                if not results or ("s" in last and last["s"] * growth < args.limit):
                    found[name] = once(name, folder, length, args)
                bar.update()
            check(found)
            results.append({"tokens": length, "libraries": found})
            show(results[-1])
    return results


def check(found: dict[str, Any]) -> None:
    """Hold the two Longformers' states against each other, in place."""
    states = {name: entry.pop("states") for name, entry in found.items() if "states" in entry}
    if OURS in states and REFERENCE in states:
        pairs = zip(states[OURS], states[REFERENCE], strict=True)
        off = max(abs(a - b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))
        found[OURS] |= {"off by": off, "wrong": off > WRONG}


def show(part: dict[str, Any]) -> None:
    """Lines of one length."""
    ours = part["libraries"].get(OURS, {})
    for name, entry in part["libraries"].items():
        if "failed" in entry:
            print(f"{part['tokens']:7} tokens  {name:16}failed: {entry['failed'][:100]}")
            continue
        line = f"{part['tokens']:7} tokens  {name:16}{entry['s']:9.3f} s{entry.get('MB', float('nan')):9.0f} MB"
        if name != OURS and "s" in ours:
            line += f"   x {entry['s'] / ours['s']:.2f} time"
            line += f", x {entry['MB'] / ours['MB']:.2f} memory" if "MB" in entry and ours.get("MB") else ""
        if "off by" in entry:
            line += f"   off by {entry['off by']:.0e}{'  WRONG' if entry['wrong'] else ''}"
        print(line)


def draw(results: list[dict[str, Any]], names: list[str], file: Path) -> None:
    """Seconds and megabytes over tokens, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10.4, 4.2), layout="constrained")
    for axis, key, label in zip(axes, ("s", "MB"), ("seconds a text", "MB beyond the model"), strict=True):
        for name, colour in zip(LIBRARIES, ("#d1495b", "#3d6f96", "#8a8a8a"), strict=True):
            points = [
                (part["tokens"], part["libraries"][name][key])
                for part in results
                if name in names and key in part["libraries"].get(name, {})
            ]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", color=colour, label=name)
        axis.set(xscale="log", yscale="log", xlabel="tokens", title=label)
        axis.set_xticks([part["tokens"] for part in results], [str(part["tokens"]) for part in results])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.suptitle("a long text through a model of base size, float32 on a CPU (lower is better)")
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of a long text.", epilog=", ".join(LIBRARIES))

    def split(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument("--lengths", type=lambda text: [int(n) for n in split(text)], default=list(LENGTHS))
    parser.add_argument("--only", type=split, default=list(LIBRARIES), metavar="NAMES", help="these, by commas")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--layers", type=int, default=12, metavar="N", help="12 is base size")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="passes, of which the fastest counts")
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS", help="of a pass (default 300)")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "longformer.json", metavar="FILE")
    args = parser.parse_args()
    if unknown := [name for name in args.only if name not in LIBRARIES]:
        parser.error(f"no such library: {', '.join(unknown)}")
    args.lengths = sorted(args.lengths)
    results = measure(args)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    settings = {"layers": args.layers, "window": WINDOW, "threads": args.threads, "repeats": args.repeats}
    args.output.write_text(json.dumps(settings | {"machine": machine(), "results": results}, indent=1) + "\n")
    draw(results, args.only, args.output.with_suffix(".png"))
    print(f"\n{args.output}\n{args.output.with_suffix('.png')}")


if __name__ == "__main__":
    main()
