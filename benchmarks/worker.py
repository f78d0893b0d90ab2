"""One library in a process of its own, told by encode.py what to do and when: a JSON object a line, there and back.

    python benchmarks/worker.py PEER FOLDER CACHE THREADS

Libraries bring thread pools that get in each other's way, so they never share a process; the processes take turns.
"""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # this folder last: it has a tokenize.py, as Python has

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS, Peer, Reference


def bind(threads: int) -> None:
    """Keep this process to as many cores as it has threads, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def set_up(name: str, folder: Path, cache: Path, threads: int) -> tuple[Peer | None, dict[str, Any]]:
    peer = Reference(threads, cache) if name == Reference.name else PEERS[name](threads, cache)
    try:
        began = time.perf_counter()
        peer.setup(folder)
        return peer, {"version": peer.version(), "setup": time.perf_counter() - began}
    except ImportError as error:
        return None, {"missing": f"{type(error).__name__}: {error}"}
    except Exception as error:
        return None, {"failed": f"{type(error).__name__}: {error}"}


def encode(peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
    """Encode one set once; vectors go to a file if one is named, outside the time."""
    data = json.loads(Path(request["input"]).read_text(encoding="utf-8"))
    work = peer.encode_texts if request["texts"] else peer.encode
    try:
        wall, busy = time.perf_counter(), time.process_time()
        vectors = work(data)
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    if request["output"]:
        np.save(request["output"], vectors)
    return {"wall": wall, "cpu": busy}


def main() -> None:
    name, folder, cache, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    bind(int(threads))
    peer, told = set_up(name, Path(folder), Path(cache), int(threads))
    print(json.dumps(told), file=answers, flush=True)
    for line in sys.stdin:
        assert peer is not None
        print(json.dumps(encode(peer, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
