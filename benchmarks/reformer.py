"""Time and memory of long texts: polyformer's Reformer, transformers', full attention; reading, and a training step.

    python benchmarks/reformer.py [--lengths 1024,8192,65536] [--only NAMES] [--modes MODES] [--threads N] [--repeats N]

The model is Reformer's default (six layers, local and LSH in turn, 12 heads of 64, states of 256) that writes, with
random weights, no dropout and one round of hashing; one row of random ids that fills its grid of positions, float32. A
training step is forward and backward; layers are run backwards, so that memory is that of one layer. Full attention is
the same model whose six layers are local with one chunk, the whole text. Every figure comes from a process of its own,
the libraries take turns; time is the fastest pass, memory what a further pass makes the process grow by (Linux only).
The two Reformers have the same weights, and their logits and losses are compared. A library is left out from the length
on at which a pass, by its last one and the square of the lengths, would take longer than --limit seconds.
"""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # this folder last: it has a tokenize.py, as Python has

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from encode import CACHE, HERE, WRONG, machine
from tqdm import tqdm

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
LIBRARIES = ("polyformer", "transformers", "full attention")
OURS, REFERENCE, FULL = LIBRARIES
MODES = {"forward": "reading", "training": "a training step"}

PASS = """
import ctypes, json, sys, time
import torch
name, mode, folder, repeats, threads = sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:])
torch.set_num_threads(threads)
if name == "transformers":
    from transformers import ReformerModelWithLMHead
else:
    from polyformer import ReformerConfig, ReformerModelWithLMHead
if name == "full attention":
    config = ReformerConfig.from_pretrained(folder)
    whole = {"attn_layers": ["local"] * config.num_hidden_layers, "local_attn_chunk_length": config.longest}
    model = ReformerModelWithLMHead(ReformerConfig(**config.to_dict() | whole))
else:
    model = ReformerModelWithLMHead.from_pretrained(folder)
length = torch.Size(model.config.axial_pos_shape).numel()
ids = torch.randint(1, model.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(length))
train = mode == "training"
model.train(train)
if train and name != "transformers":
    model.gradient_checkpointing_enable()

def timed():
    begun = time.perf_counter()
    if train:
        model.zero_grad()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        return time.perf_counter() - begun, [loss.item()]
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits
    return time.perf_counter() - begun, logits[0, :: max(length // 16, 1), ::40].flatten().tolist()

def memory(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(field + ":"))

passes = [timed() for _ in range(repeats)]
figures = {"s": min(took for took, _ in passes), "seen": passes[0][1]}
try:  # arrays go back to the system when they are dropped, so that the peak is what is needed, not what was kept
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 1 << 16)
    libc.malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")
    before = memory("VmRSS")
    timed()
    figures["MB"] = memory("VmHWM") - before
except (OSError, AttributeError):
    pass  # another system
print(json.dumps(figures))
"""


def checkpoint(length: int) -> Path:
    """The model with random weights and a grid of positions of this length, saved once."""
    home = CACHE / f"reformer-{length}"
    if not (home / "config.json").exists():
        import torch

        from polyformer import ReformerConfig, ReformerModelWithLMHead
        from polyformer.parts.lsh import bucket_counts

        torch.manual_seed(0)
        config = ReformerConfig(
            is_decoder=True, hash_seed=0, num_buckets=bucket_counts(length, 64, length), max_position_embeddings=length,
            axial_pos_shape=[length // 64, 64], hidden_dropout_prob=0.0, local_attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        ReformerModelWithLMHead(config).save_pretrained(home)
    return home


def once(name: str, mode: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """What one process found, or why it failed."""
    threads = str(args.threads)
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", PASS, name, mode, str(folder), str(args.repeats), threads],
        capture_output=True, text=True, env=os.environ | quiet | {"OMP_NUM_THREADS": threads}, cwd=HERE.parent,
    )  # fmt: skip
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A dict for each length: {"tokens", mode: {name: figures}}."""
    results: list[dict[str, Any]] = []
    with tqdm(total=len(args.lengths) * len(args.only) * len(args.modes), disable=None) as bar:
        for length in args.lengths:
            part: dict[str, Any] = {"tokens": length}
            for mode in args.modes:
                found = part[mode] = {}
                for name in args.only:
                    bar.set_postfix_str(f"{length} tokens, {mode}, {name}")
                    last = results[-1][mode].get(name, {}) if results else {}
                    growth = (length / results[-1]["tokens"]) ** 2 if results else 1
                    if not results or ("s" in last and last["s"] * growth < args.limit):
                        found[name] = once(name, mode, checkpoint(length), args)
                    bar.update()
                check(found)
                show(length, mode, found)
            results.append(part)
    return results


def check(found: dict[str, Any]) -> None:
    """Hold what the two Reformers say against each other, in place."""
    seen = {name: entry.pop("seen") for name, entry in found.items() if "seen" in entry}
    if OURS in seen and REFERENCE in seen:
        off = max(abs(a - b) for a, b in zip(seen[OURS], seen[REFERENCE], strict=True))
        found[OURS] |= {"off by": off, "wrong": off > WRONG}


def show(length: int, mode: str, found: dict[str, Any]) -> None:
    """Lines of one length and mode."""
    ours = found.get(OURS, {})
    for name, entry in found.items():
        if "failed" in entry:
            print(f"{length:7} tokens  {mode:10}{name:16}failed: {entry['failed'][:100]}")
            continue
        line = f"{length:7} tokens  {mode:10}{name:16}{entry['s']:9.3f} s{entry.get('MB', float('nan')):9.0f} MB"
        if name != OURS and "s" in ours:
            line += f"   x {entry['s'] / ours['s']:.2f} time"
            line += f", x {entry['MB'] / ours['MB']:.2f} memory" if "MB" in entry and ours.get("MB") else ""
        if "off by" in entry:
            line += f"   off by {entry['off by']:.0e}{'  WRONG' if entry['wrong'] else ''}"
        print(line)


def draw(results: list[dict[str, Any]], modes: list[str], file: Path) -> None:
    """Seconds and megabytes over tokens, a row a mode, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(len(modes), 2, figsize=(10.4, 4 * len(modes)), layout="constrained", squeeze=False)
    for axes, mode in zip(grid, modes, strict=True):
        for axis, key, label in zip(axes, ("s", "MB"), ("seconds a text", "MB beyond the model"), strict=True):
            for name, colour in zip(LIBRARIES, ("#d1495b", "#3d6f96", "#8a8a8a"), strict=True):
                points = [
                    (part["tokens"], part[mode][name][key]) for part in results if key in part[mode].get(name, {})
                ]
                if points:
                    axis.plot(*zip(*points, strict=True), marker="o", color=colour, label=name)
            axis.set(xscale="log", yscale="log", xlabel="tokens", title=f"{MODES[mode]}: {label}")
            axis.set_xticks([part["tokens"] for part in results], [str(part["tokens"]) for part in results])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    grid[0][0].legend(frameon=False)
    figure.suptitle("a long text through Reformer's default model, float32 on a CPU (lower is better)")
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of long texts.", epilog=", ".join(LIBRARIES))

    def split(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument("--lengths", type=lambda text: [int(n) for n in split(text)], default=list(LENGTHS))
    parser.add_argument("--only", type=split, default=list(LIBRARIES), metavar="NAMES", help="these, by commas")
    parser.add_argument("--modes", type=split, default=list(MODES), metavar="MODES", help=" or ".join(MODES))
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="passes, of which the fastest counts")
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS", help="of a pass (default 300)")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "reformer.json", metavar="FILE")
    args = parser.parse_args()
    for given, known in ((args.only, LIBRARIES), (args.modes, MODES)):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"no such library or mode: {', '.join(unknown)}")
    if wrong := [n for n in args.lengths if n % 64]:
        parser.error(f"grids of positions have rows of 64, so lengths are multiples of that: {wrong}")
    args.lengths = sorted(args.lengths)
    results = measure(args)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    settings = {"threads": args.threads, "repeats": args.repeats}
    args.output.write_text(json.dumps(settings | {"machine": machine(), "results": results}, indent=1) + "\n")
    draw(results, args.modes, args.output.with_suffix(".png"))
    print(f"\n{args.output}\n{args.output.with_suffix('.png')}")


if __name__ == "__main__":
    main()
