"""The README's Python is run as it stands, block after block, in one session; its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_quick_tour(minilm, tmp_path, monkeypatch):
    """Blocks that begin with `# needs:` want what is not on every machine; they are compiled only."""
    monkeypatch.chdir(tmp_path)
    session: dict = {}
    assert len(BLOCKS) >= 5
    for block in BLOCKS:
        code = compile(block, "README.md", "exec")
        if not block.startswith("# needs:"):
            exec(code, session)
    assert (tmp_path / "out" / "my-classifier" / "model.safetensors").is_file()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^    polyformer (\w+)", README, re.MULTILINE))))
def test_commands_exist(command):
    done = subprocess.run([sys.executable, "-m", "polyformer.cli", command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "examples:" in done.stdout


def test_links_and_make_targets_lead_somewhere():
    root = Path(__file__).parents[1]
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / link).exists(), link
    targets = (root / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake (\w+)", README)):
        assert re.search(rf"^{target}:", targets, re.MULTILINE) or target not in ("demo", "test", "lint"), target
