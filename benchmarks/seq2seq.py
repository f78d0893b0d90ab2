"""Texts that encoder-decoders write for texts, beside other libraries.

    python benchmarks/seq2seq.py                                   some minutes a model on two quiet cores
    python benchmarks/seq2seq.py --models t5-small --beams 1 --threads 1 --repeats 3
    python benchmarks/seq2seq.py --only polyformer,ctranslate2 --sources 16 --tokens 8

T5-small, BART-base and an OPUS-MT Marian with random weights; 64 sources of 5 to 128 tokens, for each of which 32
tokens are written, by greedy search and by four beams, in float32. Each library runs in a process of its own, bound to
its cores; the processes take turns, so that a slow minute of the machine hits all alike. Medians count. What everybody
writes is held against what transformers writes in float64.
"""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # this folder last: it has a tokenize.py, as Python has

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
from pathlib import Path
from typing import Any

from encode import CACHE, HERE, Worker, compare, machine
from plot import draw
from seq2seq_worker import LIBRARIES, PAD, SPECIAL, Reference, word
from tqdm import tqdm

SAME = 0.9  # of the texts, at least: float32 may decide a near tie otherwise
LONGEST = 128
Ids = list[list[int]]

# normalize_... are named because CTranslate2's converter asks for them and transformers 5 no longer has them
COMMON = dict(
    bos_token_id=0, eos_token_id=1, forced_eos_token_id=None, forced_bos_token_id=None, normalize_before=False,
    normalize_embedding=True,
)  # fmt: skip
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5-small": ("t5", dict(vocab_size=32128)),
    "bart-base": (
        "bart",
        dict(
            vocab_size=50265, d_model=768, encoder_layers=6, decoder_layers=6, encoder_ffn_dim=3072,
            decoder_ffn_dim=3072, encoder_attention_heads=12, decoder_attention_heads=12,
        ),
    ),
    "marian": (
        "marian",
        dict(
            vocab_size=58101, d_model=512, encoder_layers=6, decoder_layers=6, encoder_ffn_dim=2048,
            decoder_ffn_dim=2048, encoder_attention_heads=8, decoder_attention_heads=8, max_position_embeddings=512,
            activation_function="swish", scale_embedding=True, normalize_embedding=False,
        ),
    ),
}  # fmt: skip


class Writer(Worker):
    """A library's process."""

    script = HERE / "seq2seq_worker.py"

    def write(self, file: Path, beams: int, tokens: int) -> dict[str, Any]:
        self.process.stdin.write(json.dumps({"input": str(file), "beams": beams, "tokens": tokens}) + "\n")
        self.process.stdin.flush()
        return self.answer()


# ---- what is measured ------------------------------------------------------------------------------------------------


def random_model(name: str) -> Path:
    """A model of a published shape with random weights, and a tokenizer that has a word for every id."""
    home = CACHE / name
    if home.exists():
        return home
    import torch
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

    making = CACHE / f"{name}.making"
    shutil.rmtree(making, ignore_errors=True)
    torch.manual_seed(0)
    kind, fields = SHAPES[name]
    pad = fields["vocab_size"] - 1
    config = AutoConfig.for_model(kind, **COMMON | fields, pad_token_id=pad, decoder_start_token_id=pad)
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(making)
    vocab = {word(i): i for i in range(pad)} | {PAD: pad}
    bos, eos, unknown = SPECIAL
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocab, unknown)),
        pad_token=PAD, eos_token=eos, unk_token=unknown, bos_token=bos,
    ).save_pretrained(making)  # fmt: skip
    os.replace(making, home)
    return home


def ragged(name: str, count: int) -> Ids:
    """Sources of 5 to LONGEST tokens, eos included, in random order."""
    chance = random.Random(0)
    words = SHAPES[name][1]["vocab_size"] - 1
    lengths = [5 + round((LONGEST - 5) * i / max(count - 1, 1)) for i in range(count)]
    chance.shuffle(lengths)
    return [[*(chance.randrange(len(SPECIAL), words) for _ in range(length - 1)), 1] for length in lengths]


def reference(name: str, folder: Path, file: Path, beams: int, tokens: int) -> Ids:
    """What is written in float64, kept between runs."""
    key = hashlib.sha256(f"{file.read_text()} {beams} {tokens}".encode()).hexdigest()[:16]
    kept = CACHE / f"{name}-made" / f"written-{key}.json"
    if not kept.exists():
        worker = Writer(Reference.name, folder, kept.parent, os.cpu_count() or 1)
        told = worker.write(file, beams, tokens) if "version" in worker.told else worker.told
        worker.close()
        if "written" not in told:
            sys.exit(f"the float64 reference of {name} could not be made: {told}")
        kept.write_text(json.dumps(told["written"]), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


# ---- measuring -------------------------------------------------------------------------------------------------------


def measure(libraries: list[Writer], file: Path, beams: int, tokens: int, want: Ids, repeats: int) -> dict[str, Any]:
    """Warm up and check everybody, then take turns; results by library."""
    result: dict[str, Any] = {}
    for library in libraries:
        told = library.write(file, beams, tokens)
        result[library.name] = entry = {"version": library.told["version"], "times": [], "cpu": []}
        if "written" in told:
            entry["same"] = sum(a == b for a, b in zip(told["written"], want, strict=True)) / len(want)
            entry["wrong"] = entry["same"] < SAME
        else:
            entry["failed"] = told.get("failed", "no answer")
    for _ in tqdm(range(repeats), desc=f"{beams} beam(s)", disable=None, leave=False):
        for library in libraries:
            entry = result[library.name]
            if "failed" not in entry:
                told = library.write(file, beams, tokens)
                entry["times"].append(told["wall"])
                entry["cpu"].append(told["cpu"])
    for entry in result.values():
        if entry["times"]:
            entry["median"] = statistics.median(entry["times"])
            entry["texts/s"] = len(want) / entry["median"]
    compare(result)
    return result


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Everything asked for; a dict for each model, number of threads and of beams."""
    results = []
    work = CACHE / "work"
    work.mkdir(parents=True, exist_ok=True)
    for name in args.models:
        folder, cache = random_model(name), CACHE / f"{name}-made"
        cache.mkdir(parents=True, exist_ok=True)
        sources, file = ragged(name, args.sources), work / f"{name}-sources.json"
        file.write_text(json.dumps(sources), encoding="utf-8")
        wants = {beams: reference(name, folder, file, beams, args.tokens) for beams in args.beams}
        for threads in args.threads:
            libraries = [Writer(library, folder, cache, threads) for library in args.only]
            up = [library for library in libraries if "version" in library.told]
            absent = {library.name: library.told for library in libraries if library not in up}
            for library, why in absent.items():
                print(f"skipped: {library}: {why}", file=sys.stderr)
            for beams, want in wants.items():
                found = measure(up, file, beams, args.tokens, want, args.repeats)
                results.append(
                    {"model": name, "threads": threads, "set": f"{beams} beam{'s' * (beams > 1)}", "texts": len(want)}
                    | {"tokens": sum(map(len, sources)), "written": args.tokens, "libraries": found, "skipped": absent}
                )
                show(results[-1])
            for library in libraries:
                library.close()
    return results


def show(part: dict[str, Any]) -> None:
    """A table of one measurement, fastest first."""
    print(
        f"\n{part['model']}, {part['set']}: {part['texts']} sources, {part['tokens']} tokens, {part['written']} tokens "
        f"written for each, {part['threads']} thread(s)"
    )
    heads = ("texts/s", "median s", "range", "same", "ours x", "ours x cpu")
    print(f"  {'':24}{''.join(f'{head:>12}' for head in heads)}")
    for name, entry in sorted(part["libraries"].items(), key=lambda item: item[1].get("median", 1e9)):
        if "median" not in entry:
            print(f"  {name:24}failed: {entry['failed'][:100]}")
            continue
        cells = (
            f"{entry['texts/s']:.2f}",
            f"{entry['median']:.3f}",
            f"{min(entry['times']):.2f}-{max(entry['times']):.2f}",
            f"{entry['same']:.3f}",
            *(f"{entry[ratio]:.2f}" if ratio in entry else "" for ratio in ("ratio", "cpu ratio")),
        )
        print(f"  {name:24}{''.join(f'{cell:>12}' for cell in cells)}{'  WRONG' if entry['wrong'] else ''}")


# ---- the command -----------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Texts written for texts, a second, beside other libraries.",
        epilog=f"libraries: {', '.join(LIBRARIES)}",
    )

    def split(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument(
        "--only", type=split, default=list(LIBRARIES), metavar="NAMES", help="these libraries, by commas"
    )
    parser.add_argument("--models", type=split, default=list(SHAPES), metavar="NAMES", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--beams", type=split, default=["1", "4"], metavar="N,..", help="default 1,4")
    parser.add_argument("--threads", type=split, default=["1", "all"], metavar="N,..", help="numbers, or all")
    parser.add_argument("--sources", type=int, default=64, metavar="N", help="how many (default 64)")
    parser.add_argument("--tokens", type=int, default=32, metavar="N", help="written for each (default 32)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="timed turns (default 5)")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "seq2seq.json", metavar="FILE")
    args = parser.parse_args()
    for given, known in ((args.only, LIBRARIES), (args.models, SHAPES)):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
    args.beams = [int(n) for n in args.beams]
    args.threads = sorted({(os.cpu_count() or 1) if n == "all" else int(n) for n in args.threads})
    return args


def main() -> None:
    args = arguments()
    results = run(args)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n", encoding="utf-8")
    picture = args.output.with_suffix(".png")
    draw(results, picture, f"texts of {args.tokens} tokens")
    print(f"\n{args.output}\n{picture}")


if __name__ == "__main__":
    main()
