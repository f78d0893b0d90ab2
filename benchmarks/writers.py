"""The libraries that generate.py compares, each a class with `setup` and `write`; and the process that runs one.

    python benchmarks/writers.py WRITER FOLDER CACHE THREADS

All get the same prompts as token ids and give the new tokens, without the end. Float32 and int8 are never compared with
each other. The process is told what to do by generate.py: a JSON object a line, there and back.
"""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # this folder last: it has a tokenize.py, as Python has

import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from worker import bind

Ids = list[list[int]]
PAD = 0
TOP_K = 50  # words that are sampled from
MEMORY = "memory"  # the name to measure that by


class Writer:
    """One library. A task has `prompts`, `new` (tokens to write at most), `beams`, `sample` and `stops` (ids that end a
    text; where there are none, all texts are of `new` tokens)."""

    name: str
    package: str
    kind = "float32"

    def __init__(self, threads: int, cache: Path) -> None:
        self.threads, self.cache = threads, cache

    def setup(self, folder: Path) -> None:
        raise NotImplementedError

    def write(self, task: dict[str, Any]) -> Ids:
        raise NotImplementedError

    def version(self) -> str:
        return version(self.package)


class TorchWriter(Writer):
    """What transformers and polyformer have in common: `generate` on a batch padded on the left."""

    model: Any

    def write(self, task: dict[str, Any]) -> Ids:
        import torch

        prompts, stops = task["prompts"], task["stops"]
        longest = max(map(len, prompts))
        ids = torch.tensor([[PAD] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        chance = dict(do_sample=True, top_k=TOP_K) if task["sample"] else dict(do_sample=False)
        with torch.inference_mode():
            texts = self.model.generate(
                ids, attention_mask=mask, max_new_tokens=task["new"], num_beams=task["beams"], pad_token_id=PAD,
                eos_token_id=stops or None, **chance,
            )  # fmt: skip
        return [until(text, stops) for text in texts[:, longest:].tolist()]


class Polyformer(TorchWriter):
    """As loaded."""

    name = package = "polyformer"

    def setup(self, folder: Path) -> None:
        import torch

        from polyformer import GPT2LMHeadModel

        torch.set_num_threads(self.threads)
        self.model = self.prepared(GPT2LMHeadModel.from_pretrained(folder))

    def prepared(self, model: Any) -> Any:
        return model


class PolyformerForOne(Polyformer):
    """With its matrices turned round in memory, which is for one row at a time."""

    name = "polyformer (laid out for one)"

    def prepared(self, model: Any) -> Any:
        from polyformer import lay_out_for_one

        return lay_out_for_one(model)


class PolyformerPacked(Polyformer):
    """With its matrices in the order that several rows want."""

    name = "polyformer (prepacked)"

    def prepared(self, model: Any) -> Any:
        from polyformer import prepack

        return prepack(model)


class PolyformerInt8(Polyformer):
    name, kind = "polyformer int8", "int8"

    def prepared(self, model: Any) -> Any:
        from polyformer import quantize

        return quantize(model)


class Transformers(TorchWriter):
    name = package = "transformers"

    def setup(self, folder: Path) -> None:
        import torch
        from transformers import GPT2LMHeadModel

        torch.set_num_threads(self.threads)
        self.model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="sdpa", dtype=torch.float32).eval()


class CTranslate2(Writer):
    name = package = "ctranslate2"

    def setup(self, folder: Path) -> None:
        import ctranslate2

        names = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        self.names = sorted(names, key=names.__getitem__)
        self.generator = ctranslate2.Generator(
            str(self.converted(folder)), device="cpu", compute_type=self.kind, inter_threads=1,
            intra_threads=self.threads,
        )  # fmt: skip

    def converted(self, folder: Path) -> Path:
        """The checkpoint in its format, made once; int8 is made of it when it is loaded."""
        import ctranslate2

        home = self.cache / f"ctranslate2-{self.version()}"
        if not home.exists():
            making = home.with_suffix(".making")
            ctranslate2.converters.TransformersConverter(str(folder)).convert(str(making), force=True)
            os.replace(making, home)
        return home

    def write(self, task: dict[str, Any]) -> Ids:
        stops = task["stops"]
        results = self.generator.generate_batch(
            [[self.names[i] for i in prompt] for prompt in task["prompts"]],
            max_length=task["new"], min_length=0 if stops else task["new"], beam_size=task["beams"],
            sampling_topk=TOP_K if task["sample"] else 1, include_prompt_in_result=False,
            **(dict(end_token=stops) if stops else {}),
        )  # fmt: skip
        return [until(result.sequences_ids[0], stops) for result in results]


class CTranslate2Int8(CTranslate2):
    name, kind = "ctranslate2 int8", "int8"


WRITERS: dict[str, type[Writer]] = {
    writer.name: writer
    for writer in (
        Polyformer,
        PolyformerForOne,
        PolyformerPacked,
        Transformers,
        CTranslate2,
        PolyformerInt8,
        CTranslate2Int8,
    )
}


def memory() -> float:
    """Bytes a second at which matrices as large as GPT-2's are read once, each for the first time since all the others.

    The better of two ways: adding them up, and a vector times each.
    """
    import torch

    weights = [torch.ones(768, 50257), *(torch.ones(768, 2304) for _ in range(48))]
    size, x = sum(w.numel() * 4 for w in weights), torch.ones(1, 768)
    best = 0.0
    for read in (torch.sum, lambda w: x @ w):
        for _ in range(15):
            began = time.perf_counter()
            for w in weights:
                read(w)
            best = max(best, size / (time.perf_counter() - began))
    return best


def until(text: list[int], stops: list[int]) -> list[int]:
    """The text before the first of these ids."""
    return text[: next((i for i, token in enumerate(text) if token in stops), len(text))]


def main() -> None:
    name, folder, cache, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    bind(int(threads))

    def tell(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    if name == MEMORY:
        tell({"bytes/s": memory()})
        return
    writer = WRITERS[name](int(threads), Path(cache))
    try:
        writer.setup(Path(folder))
        tell({"version": writer.version()})
    except Exception as error:
        tell({"failed": f"{type(error).__name__}: {error}"})
        return
    for line in sys.stdin:
        try:
            wall, busy = time.perf_counter(), time.process_time()
            texts = writer.write(json.loads(line))
            tell({"wall": time.perf_counter() - wall, "cpu": time.process_time() - busy, "texts": texts})
        except Exception as error:
            tell({"failed": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
