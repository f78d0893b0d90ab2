"""examples/train_gpt2.py as a user runs it, small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from polyformer.pipelines import pipeline

SCRIPT = Path(__file__).parent.parent / "examples" / "train_gpt2.py"
TEXT = "".join(f"{i} green bottles hanging on the wall, and if one of them should fall: {i - 1}.\n" for i in range(400))


@pytest.mark.slow
def test_a_gpt2_from_scratch_learns_as_the_peer_does(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    small = "--words 300 --width 16 --layers 2 --heads 2 --length 24 --rows 4 --steps 30 --peer --json".split()
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "text.txt", "-o", tmp_path / "out", *small],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["perplexity"] == pytest.approx(figures["perplexity of transformers"], rel=1e-3)
    assert figures["largest difference of a step's loss"] < 1e-4
    assert figures["perplexity"] < 200, "chance alone gives 300, the size of the vocabulary"
    write = pipeline("text-generation", tmp_path / "out")
    assert write("green", seed=1)[0]["generated_text"].startswith("green")
