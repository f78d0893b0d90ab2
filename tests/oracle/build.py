"""Build the reference: transformers 4.6.1 and what it needs, from PyPI, into a folder beside the virtual environment.

    python tests/oracle/build.py [FOLDER]      default: .oracle in the repository

The folder holds no torch: the worker runs on this Python with the folder first on its path, so torch (and safetensors)
come from the environment that the tests run in. 150 MB, about half a minute. It is made aside and moved into place when
it has answered a question, so a folder that is there is whole; a second call finds it and does nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAMP = "BUILT.json"

# numpy, tokenizers and huggingface_hub are the last that 4.6.1 runs with; the rest is what those and slow tokenizers
# import. All are named here, since `--no-deps` keeps 4.6.1 from asking for the versions of 2021.
PINS = """
transformers==4.6.1 numpy==1.23.5 tokenizers==0.13.3
huggingface_hub==0.19.4 protobuf==3.20.3 sentencepiece==0.2.1 sacremoses==0.1.1
filelock==3.20.0 packaging==25.0 pyyaml==6.0.3 regex==2025.11.3 tqdm==4.67.1 joblib==1.5.2 click==8.3.1
requests==2.32.5 charset_normalizer==3.4.4 idna==3.11 urllib3==2.5.0 certifi==2025.11.12 six==1.17.0
""".split()

# (file, what is there, what shall be there). Import pins, a write in place on a leaf that torch now refuses, and
# float64 where only narrower types were foreseen: nothing that changes an answer.
PATCHES = [
    ("dependency_versions_table.py", '"tokenizers>=0.10.1,<0.11",', '"tokenizers",'),
    ("dependency_versions_table.py", '"huggingface-hub==0.0.8",', '"huggingface-hub",'),
    ("dependency_versions_table.py", '"numpy>=1.17",', '"numpy",'),
    (  # masks of cross attention and of T5 refuse float64
        "modeling_utils.py",
        "elif self.dtype == torch.float32:\n",
        "elif self.dtype in (torch.float32, torch.float64):\n",
    ),
    (
        "models/xlm/modeling_xlm.py",
        "def create_sinusoidal_embeddings(n_pos, dim, out):\n",
        "def create_sinusoidal_embeddings(n_pos, dim, out):\n    out.requires_grad = False  # first\n",
    ),
]

CHECK = """
import sys
sys.path.insert(0, sys.argv[1])
import torch, transformers
assert transformers.__file__.startswith(sys.argv[1]), transformers.__file__
sizes = dict(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
bert = transformers.BertModel(transformers.BertConfig(**sizes)).eval()
assert bert(torch.tensor([[1, 2]]))[0].shape == (1, 2, 8)
sizes = dict(vocab_size=9, emb_dim=8, n_layers=1, n_heads=2)
transformers.XLMModel(transformers.XLMConfig(sinusoidal_embeddings=True, **sizes))
print(f"transformers {transformers.__version__} on torch {torch.__version__}")
"""


def unsupported() -> str | None:
    """Why this Python cannot have the reference, or None."""
    if sys.version_info[:2] in ((3, 10), (3, 11)):
        return None
    here = ".".join(map(str, sys.version_info[:2]))
    return f"the reference, transformers 4.6.1, needs Python 3.10 or 3.11 (its numpy and tokenizers do), not {here}"


def recipe() -> dict[str, str]:
    """What a finished folder was made from: another recipe or another Python means building it again."""
    text = json.dumps([PINS, PATCHES])
    return {"recipe": hashlib.sha256(text.encode()).hexdigest()[:16], "python": sys.implementation.cache_tag}


def why_not(folder: Path) -> str | None:
    """Why the reference in this folder cannot be used, or None."""
    if (reason := unsupported()) is not None:
        return reason
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"no reference in {folder}: build it with `make oracle`"
    if stamp != recipe():
        return f"the reference in {folder} is of another recipe or Python: build it again with `make oracle`"
    return None


def install(folder: Path) -> None:
    """Put the pinned wheels into the folder (never a source build, never a dependency of theirs)."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--no-deps"]
    subprocess.run([*pip, "--only-binary=:all:", "--target", str(folder), *PINS], check=True)


def patch(package: Path) -> None:
    """Apply PATCHES to the package; one that is there already is left alone."""
    for name, old, new in PATCHES:
        file = package / name
        text = file.read_text(encoding="utf-8")
        if new in text:
            continue
        if text.count(old) != 1:
            raise SystemExit(f"oracle: {name} is not the file of 4.6.1: it has {old!r} {text.count(old)} times")
        file.write_text(text.replace(old, new), encoding="utf-8")


def check(folder: Path) -> str:
    """Ask the reference in the folder for a vector; its versions."""
    done = subprocess.run([sys.executable, "-s", "-c", CHECK, str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"oracle: what was built does not run:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def build(folder: Path) -> None:
    """Make the folder, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-making-", dir=folder.parent) as work:
        new = Path(work).resolve() / "new"
        print(f"oracle: installing transformers 4.6.1 into {folder} ...", flush=True)
        install(new)
        patch(new / "transformers")
        versions = check(new)
        (new / STAMP).write_text(json.dumps(recipe()), encoding="utf-8")
        if folder.exists():
            folder.rename(Path(work) / "old")
        new.rename(folder)
    print(f"oracle: {versions}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the reference that the tests compare with.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".oracle", metavar="FOLDER")
    parser.add_argument("--if-possible", action="store_true", help="a Python that it cannot be built for is no failure")
    args = parser.parse_args()
    folder = args.folder
    if (reason := unsupported()) is not None:
        print(f"oracle: {reason}; tests that ask it will be skipped", file=sys.stderr)
        return 0 if args.if_possible else 1
    if folder.exists() and not (folder / STAMP).exists() and any(folder.iterdir()):
        print(f"oracle: {folder} holds something else; name another folder or remove it", file=sys.stderr)
        return 1
    if why_not(folder) is None:
        print(f"oracle: {folder} is there")
    else:
        build(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
