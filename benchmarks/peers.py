"""The libraries that are compared, each as a class with ``setup`` and ``encode``.

Every one gets token ids and gives sentence vectors: masked mean of the last layer, normalised. All run in float32; each
is set up the way its own documentation says is fastest on a CPU. Whatever takes padded batches gets them sorted by
length, 32 rows at a time. Libraries are imported in ``setup`` only, so that one that is absent is skipped by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 32
Ids = list[list[int]]


class Peer:
    """One library. ``threads`` is the number of cores it may use; the process is bound to as many."""

    name: str
    package: str

    def __init__(self, threads: int, cache: Path) -> None:
        """cache: a folder of this checkpoint's own, for converted models."""
        self.threads, self.cache = threads, cache

    def setup(self, folder: Path) -> None:
        """Load the checkpoint in Hugging Face layout."""
        raise NotImplementedError

    def encode(self, ids: Ids) -> np.ndarray:
        """ids of every text -> (texts, width) float32, in the same order."""
        raise NotImplementedError

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Tokenising included."""
        return self.encode([encoding.ids for encoding in self.tokenizer.encode_batch(texts)])

    def load_tokenizer(self, folder: Path) -> None:
        from texts import tokenizer

        self.tokenizer = tokenizer(folder)

    def version(self) -> str:
        return version(self.package)


# ---- shared ----------------------------------------------------------------------------------------------------------


def batches(ids: Ids) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(rows, ids, mask) of batches of about the same length, longest first; ids and mask (rows, longest) int64."""
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        lengths = np.array([len(ids[row]) for row in rows])
        mask = np.arange(lengths[0])[None] < lengths[:, None]
        tokens = np.zeros(mask.shape, dtype=np.int64)
        tokens[mask] = np.concatenate([ids[row] for row in rows])
        yield np.array(rows), tokens, mask.astype(np.int64)


def in_batches(ids: Ids, vectors: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Put together what ``vectors(ids, mask)`` gives for every batch."""
    parts = [(rows, vectors(tokens, mask)) for rows, tokens, mask in batches(ids)]
    result = np.empty((len(ids), parts[0][1].shape[1]), dtype=np.float32)
    for rows, part in parts:
        result[rows] = part
    return result


def mean_of(states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(rows, tokens, width), (rows, tokens) -> normalised masked means (rows, width)."""
    vectors = np.einsum("rtw,rt->rw", states, mask.astype(states.dtype), optimize=True)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)  # the count cancels


def torch_model(folder: Path, attention: str) -> Any:
    """The checkpoint in transformers, in float32 evaluation mode."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation=attention, dtype=torch.float32)
    return model.eval()


def pooled_module(folder: Path) -> Any:
    """ids, mask -> vectors as one torch module, to be exported."""
    import torch

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = torch_model(folder, "eager")  # what fusions know how to find

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            types = torch.zeros_like(input_ids)
            out = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=types)
            vectors = (out.last_hidden_state * attention_mask[..., None].float()).sum(1)
            return torch.nn.functional.normalize(vectors, dim=1)

    return Pooled().eval()


def exported(folder: Path, cache: Path) -> Path:
    """The pooled model as an ONNX file with free batch and length, made once."""
    import torch

    file = cache / f"pooled-{version('transformers')}.onnx"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        free = {0: "rows", 1: "tokens"}
        example = (torch.ones(2, 7, dtype=torch.long), torch.ones(2, 7, dtype=torch.long))
        making = file.with_suffix(".making")
        torch.onnx.export(
            pooled_module(folder), example, str(making), dynamo=False, opset_version=17,
            input_names=["input_ids", "attention_mask"], output_names=["vectors"],
            dynamic_axes={"input_ids": free, "attention_mask": free, "vectors": {0: "rows"}},
        )  # fmt: skip
        os.replace(making, file)
    return file


def heads_and_width(folder: Path) -> tuple[int, int]:
    import json

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config["num_attention_heads"], config["hidden_size"]


# ---- the peers -------------------------------------------------------------------------------------------------------


class Polyformer(Peer):
    name = package = "polyformer"

    def setup(self, folder: Path) -> None:
        import torch

        from polyformer.pipelines import SentenceEncoder

        torch.set_num_threads(self.threads)
        self.encoder = SentenceEncoder.from_pretrained(folder)

    def encode(self, ids: Ids) -> np.ndarray:
        return np.asarray(self.encoder.encode_ids(ids))

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return np.asarray(self.encoder.encode(texts))


class Transformers(Peer):
    name = package = "transformers"

    def setup(self, folder: Path) -> None:
        import torch

        torch.set_num_threads(self.threads)
        self.model = torch_model(folder, "sdpa")
        self.load_tokenizer(folder)

    def encode(self, ids: Ids) -> np.ndarray:
        import torch

        def vectors(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
            seen = torch.from_numpy(mask)
            states = self.model(input_ids=torch.from_numpy(tokens), attention_mask=seen).last_hidden_state
            means = (states * seen[..., None].to(states.dtype)).sum(1)
            return torch.nn.functional.normalize(means, dim=1).numpy()

        with torch.inference_mode():
            return in_batches(ids, vectors)


class SentenceTransformers(Peer):
    name = package = "sentence-transformers"

    def setup(self, folder: Path) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

        torch.set_num_threads(self.threads)
        first = Transformer(str(folder), max_seq_length=256)
        modules = [first, Pooling(heads_and_width(folder)[1], "mean"), Normalize()]
        self.model = SentenceTransformer(modules=modules, device="cpu").eval()

    def encode(self, ids: Ids) -> np.ndarray:
        import torch

        def vectors(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
            features = {"input_ids": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask)}
            return self.model(features)["sentence_embedding"].numpy()

        with torch.inference_mode():
            return in_batches(ids, vectors)

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return self.model.encode(texts, batch_size=BATCH, show_progress_bar=False)


class OnnxRuntime(Peer):
    """The exported graph, its attention and norms fused by onnxruntime's own tool for BERT, all optimisations on."""

    name = package = "onnxruntime"

    def setup(self, folder: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        self.session = ort.InferenceSession(str(self.fused(folder)), options, providers=["CPUExecutionProvider"])
        self.load_tokenizer(folder)

    def fused(self, folder: Path) -> Path:
        """The graph with BERT's blocks fused, made once."""
        file = self.cache / f"fused-{self.version()}.onnx"
        if not file.exists():
            from onnxruntime.transformers.optimizer import optimize_model

            heads, width = heads_and_width(folder)
            source = str(exported(folder, self.cache))
            model = optimize_model(source, "bert", num_heads=heads, hidden_size=width, opt_level=0, use_gpu=False)
            making = file.with_suffix(".making")
            model.save_model_to_file(str(making))
            os.replace(making, file)
        return file

    def encode(self, ids: Ids) -> np.ndarray:
        return in_batches(ids, lambda tokens, mask: self.run(tokens, mask))

    def run(self, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"input_ids": tokens, "attention_mask": mask})[0]


class CTranslate2(Peer):
    """Its encoder drops padding by itself; pooled here, since it gives states."""

    name = package = "ctranslate2"

    def setup(self, folder: Path) -> None:
        import ctranslate2

        self.encoder = ctranslate2.Encoder(
            str(self.converted(folder)),
            device="cpu",
            compute_type="float32",
            inter_threads=1,
            intra_threads=self.threads,
        )
        self.load_tokenizer(folder)

    def converted(self, folder: Path) -> Path:
        """The checkpoint in its format, made once."""
        import ctranslate2

        home = self.cache / f"ctranslate2-{self.version()}"
        if not home.exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            making = home.with_suffix(".making")
            ctranslate2.converters.TransformersConverter(str(folder)).convert(str(making), force=True)
            os.replace(making, home)
        return home

    def encode(self, ids: Ids) -> np.ndarray:
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        result: np.ndarray | None = None
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            lengths = np.array([len(ids[row]) for row in rows])
            states = np.array(self.encoder.forward_batch([ids[row] for row in rows]).last_hidden_state)
            vectors = mean_of(states, np.arange(states.shape[1])[None] < lengths[:, None])
            if result is None:
                result = np.empty((len(ids), vectors.shape[1]), dtype=np.float32)
            result[rows] = vectors
        assert result is not None
        return result


class OpenVino(Peer):
    """One stream that uses all its cores on one batch after another."""

    name, package = "openvino", "openvino"
    hint = "LATENCY"

    def setup(self, folder: Path) -> None:
        import openvino

        settings = {
            "PERFORMANCE_HINT": self.hint,
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": "f32",  # it would take bfloat16 where the CPU has it
        }
        core = openvino.Core()
        self.model = core.compile_model(core.read_model(str(exported(folder, self.cache))), "CPU", settings)
        self.load_tokenizer(folder)

    def encode(self, ids: Ids) -> np.ndarray:
        request = self.model.create_infer_request()
        return in_batches(ids, lambda tokens, mask: np.array(request.infer([tokens, mask])[0]))


class OpenVinoThroughput(OpenVino):
    """Several streams, batches side by side; the same as the other on one core."""

    name = "openvino (throughput)"
    hint = "THROUGHPUT"

    def encode(self, ids: Ids) -> np.ndarray:
        import openvino

        queue = openvino.AsyncInferQueue(self.model)
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        queue.set_callback(lambda request, rows: parts.append((rows, np.array(request.get_output_tensor().data))))
        for rows, tokens, mask in batches(ids):
            queue.start_async([tokens, mask], rows)
        queue.wait_all()
        result = np.empty((len(ids), parts[0][1].shape[1]), dtype=np.float32)
        for rows, part in parts:
            result[rows] = part
        return result


class Reference(Peer):
    """float64, a text at a time, no padding: what every vector is held against. Never timed."""

    name, package = "reference", "transformers"

    def setup(self, folder: Path) -> None:
        self.model = torch_model(folder, "eager").double()

    def encode(self, ids: Ids) -> np.ndarray:
        import torch

        def vector(row: list[int]) -> torch.Tensor:
            return torch.nn.functional.normalize(self.model(torch.tensor([row])).last_hidden_state[0].mean(0), dim=0)

        with torch.inference_mode():
            return torch.stack([vector(row) for row in ids]).numpy()


PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (Polyformer, Transformers, SentenceTransformers, OnnxRuntime, CTranslate2, OpenVino, OpenVinoThroughput)
}
