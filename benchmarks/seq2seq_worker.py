"""The libraries that seq2seq.py compares, each in a process of its own, told what to do and when by lines of JSON.

    python benchmarks/seq2seq_worker.py LIBRARY FOLDER CACHE THREADS

Every one gets the token ids of the sources and writes a fixed number of tokens for each, by greedy search or by beams,
in float32. Sources are sorted by length and written for 32 at a time.
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

BATCH = 32
Ids = list[list[int]]


class Library:
    """What writes."""

    name: str

    def __init__(self, folder: Path, cache: Path, threads: int) -> None:
        """folder: the checkpoint in Hugging Face's layout. cache: for converted models."""
        raise NotImplementedError

    def write(self, sources: Ids, beams: int, tokens: int) -> Ids:
        """The best text for each source, of so many tokens, without what the decoder begins with."""
        raise NotImplementedError


class Torch(Library):
    """A model with `generate`."""

    dtype = "float32"

    def __init__(self, folder: Path, cache: Path, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.model = self.load(folder, getattr(torch, self.dtype))

    def load(self, folder: Path, dtype: Any) -> Any:
        raise NotImplementedError

    def write(self, sources: Ids, beams: int, tokens: int) -> Ids:
        import torch

        order = sorted(range(len(sources)), key=lambda row: -len(sources[row]))
        written: Ids = [[] for _ in sources]
        pad = self.model.config.pad_token_id
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            longest = len(sources[rows[0]])
            ids = torch.tensor([sources[row] + [pad] * (longest - len(sources[row])) for row in rows])
            mask = torch.tensor([[1] * len(sources[row]) + [0] * (longest - len(sources[row])) for row in rows])
            with torch.inference_mode():
                made = self.model.generate(
                    ids, attention_mask=mask, num_beams=beams, do_sample=False, max_length=tokens + 1,
                    min_length=tokens + 1,
                )  # fmt: skip
            for row, text in zip(rows, made.tolist(), strict=True):
                written[row] = text[1:]
        return written


class Polyformer(Torch):
    name = "polyformer"

    def load(self, folder: Path, dtype: Any) -> Any:
        from polyformer import AutoModelForSeq2SeqLM

        return AutoModelForSeq2SeqLM.from_pretrained(folder, torch_dtype=dtype)


class PolyformerPacked(Polyformer):
    """With its matrices in the order that several rows want, as CTranslate2 has them."""

    name = "polyformer (prepacked)"

    def load(self, folder: Path, dtype: Any) -> Any:
        from polyformer import prepack

        return prepack(super().load(folder, dtype))


class Transformers(Torch):
    name = "transformers"

    def load(self, folder: Path, dtype: Any) -> Any:
        from transformers import AutoModelForSeq2SeqLM

        return AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype).eval()


class Reference(Transformers):
    """What everybody should write; not timed."""

    name, dtype = "reference", "float64"


class CTranslate2(Library):
    name = "ctranslate2"

    def __init__(self, folder: Path, cache: Path, threads: int) -> None:
        import ctranslate2

        home = cache / f"ctranslate2-{version('ctranslate2')}"
        if not home.exists():
            making = home.with_suffix(".making")
            ctranslate2.converters.TransformersConverter(str(folder)).convert(str(making), force=True)
            os.replace(making, home)
        self.pad = json.loads((folder / "config.json").read_text())["pad_token_id"]
        self.translator = ctranslate2.Translator(
            str(home), device="cpu", compute_type="float32", inter_threads=1, intra_threads=threads
        )

    def write(self, sources: Ids, beams: int, tokens: int) -> Ids:
        texts = [[word(i) for i in source] for source in sources]
        found = self.translator.translate_batch(
            texts, max_batch_size=BATCH, beam_size=beams, max_decoding_length=tokens, min_decoding_length=tokens,
            max_input_length=0,
        )  # fmt: skip
        return [[self.pad if token == PAD else number(token) for token in one.hypotheses[0]] for one in found]


# ---- words: every id has one, so that CTranslate2, which takes words, is given ids ----------------------------------

SPECIAL = ("<s>", "</s>", "<unk>")
PAD = "<pad>"  # the last id, where CTranslate2 looks for it


def word(i: int) -> str:
    return SPECIAL[i] if i < len(SPECIAL) else f"w{i}"


def number(token: str) -> int:
    return SPECIAL.index(token) if token in SPECIAL else int(token.removeprefix("w"))


LIBRARIES: dict[str, type[Library]] = {
    made.name: made for made in (Polyformer, PolyformerPacked, Transformers, CTranslate2)
}


def set_up(name: str, folder: Path, cache: Path, threads: int) -> tuple[Library | None, dict[str, Any]]:
    made = Reference if name == Reference.name else LIBRARIES[name]
    try:
        return made(folder, cache, threads), {
            "version": version(Transformers.name if made is Reference else name.split()[0])
        }
    except ImportError as error:
        return None, {"missing": f"{type(error).__name__}: {error}"}
    except Exception as error:
        return None, {"failed": f"{type(error).__name__}: {error}"}


def write(library: Library, request: dict[str, Any]) -> dict[str, Any]:
    """Write for all sources once."""
    sources = json.loads(Path(request["input"]).read_text(encoding="utf-8"))
    try:
        wall, busy = time.perf_counter(), time.process_time()
        made = library.write(sources, request["beams"], request["tokens"])
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    return {"wall": wall, "cpu": busy, "written": made}


def main() -> None:
    name, folder, cache, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    bind(int(threads))
    library, told = set_up(name, Path(folder), Path(cache), int(threads))
    print(json.dumps(told), file=answers, flush=True)
    for line in sys.stdin:
        assert library is not None
        print(json.dumps(write(library, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
