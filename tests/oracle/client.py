"""What a test asks the reference with.

    weights = oracle.init("BertModel", config, seed=1)
    want = oracle.run("BertModel", config, weights, {"input_ids": ids, "output_attentions": True})
    want["last_hidden_state"], want["attentions.0"]

Everything is answered in float64 unless told otherwise. Output names are dotted paths, ``hidden_states.0``,
``past_key_values.1.0``; with ``return_dict=False`` among the inputs they are positions, ``0``, ``2.1``.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .build import why_not
from .wire import Carry, read, write

__all__ = ["Carry", "Loaded", "Oracle", "OracleError", "why_not"]

Tensors = dict[str, torch.Tensor]

QUIET = {  # for the worker: no network, no other frameworks, one thread, no chatter
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "USE_TORCH": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
}


class OracleError(RuntimeError):
    """The reference raised, or its process ended; the message is its own, ``trace`` its traceback."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


@dataclass(frozen=True)
class Loaded:
    """What the reference made of a folder: keys it lacked, keys it had no place for, its weights and its outputs."""

    missing: list[str]
    unexpected: list[str]
    errors: list[str]
    state: Tensors
    outputs: Tensors


class Oracle:
    """A running reference. Use as a context manager, or ``close()`` it."""

    def __init__(self, folder: Path, *, timeout: float = 300) -> None:
        """folder: what ``build.py`` made; timeout: seconds a single answer may take."""
        self.folder, self.timeout = Path(folder), timeout
        self.scratch = tempfile.TemporaryDirectory(prefix="oracle-")
        self.count = 0
        self.process: subprocess.Popen[str] | None = None
        self.start()

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- questions ----

    def init(
        self, cls: str, config: Mapping[str, Any], seed: int = 0, *, build: Mapping[str, Any] | None = None
    ) -> Tensors:
        """Weights by Hugging Face name (float32, buffers included) for this class, all drawn to be of use in a test.

        build: further arguments of the class's constructor, here and in ``run``.
        """
        return self.ask("init", cls=cls, config=config, seed=seed, build=dict(build or {}))

    def run(
        self,
        cls: str,
        config: Mapping[str, Any] | Path,
        weights: Mapping[str, torch.Tensor] | Path,
        inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        dtype: torch.dtype = torch.float64,
        train: bool = False,
        grad: bool | Mapping[str, torch.Tensor] = False,
        grad_inputs: Sequence[str] = (),
        method: str = "forward",
        seed: int = 0,
        strict: bool = True,
        state: bool = False,
        build: Mapping[str, Any] | None = None,
        before: Sequence[Sequence[Any]] = (),
    ) -> Tensors:
        """Outputs by dotted name.

        Args:
            config: a config's dict, or the path of a config.json.
            weights: by Hugging Face name, or the path of a safetensors file.
            inputs: the call's arguments; several calls in a row as a list, whose outputs are ``s0.logits``,
                ``s1.logits`` ... and whose arguments may be ``Carry("past_key_values")`` of the call before.
            grad: adds ``grad.NAME`` for every parameter: True of the loss, a dict of output gradients by output name.
            grad_inputs: names of float inputs whose gradients are wanted too, as ``grad.input.NAME``.
            method: another method than forward, say ``generate`` (its tokens are ``sequences``).
            strict: weights too many or too few are an error (tied ones and position_ids excepted).
            state: adds ``state.NAME``, the weights afterwards.
            before: method calls after loading, ``[("resize_token_embeddings", 20)]``.
        """
        calls = [dict(inputs)] if isinstance(inputs, Mapping) else [dict(i) for i in inputs]
        return self.ask(
            "run", cls=cls, config=config, weights=weights, calls=calls, dtype=dtype, train=train, grad=grad,
            grad_inputs=list(grad_inputs), method=method, seed=seed, strict=strict, state=state,
            build=dict(build or {}), before=[tuple(step) for step in before],
        )  # fmt: skip

    def load_dir(
        self, cls: str, folder: Path, inputs: Mapping[str, Any] | None = None, *, dtype: torch.dtype = torch.float64
    ) -> Loaded:
        """``from_pretrained`` on a folder (config.json, pytorch_model.bin: it reads no safetensors), then a call."""
        calls = [] if inputs is None else [dict(inputs)]
        options = {"train": False, "grad": False, "grad_inputs": [], "method": "forward", "seed": 0}
        return Loaded(**self.ask("load_dir", cls=cls, folder=Path(folder), calls=calls, dtype=dtype, **options))

    def save_dir(self, cls: str, config: Mapping[str, Any], weights: Mapping[str, torch.Tensor], folder: Path) -> None:
        """``save_pretrained`` of these weights into a folder: a checkpoint as the reference writes it."""
        self.ask("save_dir", cls=cls, config=config, weights=weights, folder=Path(folder), build={})

    def config(self, cls: str, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The config of this class as the reference writes it: every key, with its default."""
        return self.ask("config", cls=cls, config=dict(config or {}))

    def arguments(self, cls: str) -> list[str]:
        """Names of the arguments that the class's ``forward`` takes, in order."""
        return self.ask("arguments", cls=cls)

    def tokenize(
        self, cls: str, folder: Path, calls: Sequence[Sequence[Any]], options: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """What a tokenizer answers to calls such as ("__call__", ["some text"], {"truncation": True}).

        Answers are dicts, lists and plain values; one that raised is {"raises": "ValueError: ..."}.
        options: of its constructor, beside what the folder says.
        """
        calls = [list(call) for call in calls]
        return self.ask("tokenize", cls=cls, folder=Path(folder), calls=calls, options=dict(options or {}))

    def versions(self) -> dict[str, str]:
        return self.ask("hello")

    # ---- the process ----

    def ask(self, op: str, **request: Any) -> Any:
        """Send one request, wait for its answer."""
        self.start()
        self.count += 1
        there, back = (Path(self.scratch.name) / f"{self.count}.{way}.safetensors" for way in ("in", "out"))
        plain = {key: dict(value) if isinstance(value, Mapping) else value for key, value in request.items()}
        packed = write({"op": op} | plain, there)
        line = self.exchange(json.dumps({"request": packed, "tensors": str(there), "reply": str(back)}))
        answer = json.loads(line)
        if "error" in answer:
            raise OracleError(answer["error"], answer["trace"])
        return read(answer["value"], back)

    def exchange(self, line: str) -> str:
        """A line there, a line back."""
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            reply = self.replies.get(timeout=self.timeout)
        except (OSError, queue.Empty) as error:
            reply, cause = None, error
        else:
            cause = None
        if reply is None:
            why = f"gave no answer in {self.timeout:g} s" if isinstance(cause, queue.Empty) else "ended"
            tail = self.stop()
            raise OracleError(f"the reference's process {why}. Its last words:\n{tail}") from cause
        return reply

    def start(self) -> None:
        """Start the worker unless it runs."""
        if self.process is not None:
            return
        worker = [sys.executable, "-s", str(Path(__file__).with_name("worker.py")), str(self.folder.resolve())]
        surroundings = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSTARTUP")}
        self.log = Path(self.scratch.name) / "stderr"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=surroundings | QUIET
            )
        self.replies: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=listen, args=(self.process.stdout, self.replies), daemon=True).start()

    def stop(self) -> str:
        """End the worker; the end of what it wrote to stderr."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:]

    def close(self) -> None:
        self.stop()
        self.scratch.cleanup()


def listen(stream: Any, replies: queue.Queue[str | None]) -> None:
    """Put every line of the stream into the queue, and None at its end."""
    for line in stream:
        replies.put(line)
    replies.put(None)
