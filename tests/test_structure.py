"""The tree of DESIGN section 1: arrows point down, importing costs nothing, sizes stay readable."""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import polyformer

SOURCE = Path(polyformer.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
MAY_IMPORT = {  # what a package may import at module level, besides itself
    "parts": set(),
    "core": {"parts"},
    "models": {"core", "parts"},
    "tokenizers": {"core"},
    "generation": {"core", "parts"},
    "retrieval": {"core"},
    "pipelines": {"core", "parts", "generation", "retrieval", "tokenizers", "models"},
}
RENAMES = {  # models that are another under a new name
    ("xlm_roberta", "roberta"),
    ("camembert", "roberta"),
    ("mt5", "t5"),
    ("xlm_prophetnet", "prophetnet"),
    ("dpr", "bert"),  # a BERT with a projection
}


def imported(path, *, everywhere=False):
    """Modules of ours that a file imports, at module level or anywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else tree.body
    package = path.relative_to(SOURCE.parent).with_suffix("").parts
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level]) if node.level else ""
            names = [".".join(filter(None, (base, node.module)))]
        else:
            continue
        yield from (name.split(".")[1:] for name in names if name.split(".")[0] == "polyformer")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_arrows_point_down(path):
    layer = path.relative_to(SOURCE).parts[0]
    if layer not in MAY_IMPORT:
        return
    for name in imported(path):
        assert name, f"{path.name} imports the whole package"
        assert name[0] == layer or name[0] in MAY_IMPORT[layer], f"{layer} must not import {'.'.join(name)}"
        if layer == "models" and name[0] == "models":
            assert (path.stem, name[1]) in RENAMES, f"{path.stem} imports another model"
    if layer == "parts":
        assert all(name[0] == "parts" for name in imported(path, everywhere=True))


def run(code):
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout


def test_importing_loads_neither_torch_nor_tokenizers():
    heavy = "torch tokenizers numpy safetensors huggingface_hub transformers tqdm".split()
    code = f"import sys, polyformer; dir(polyformer); print([m for m in {heavy} if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_a_tokenizer_needs_no_torch():
    assert run("import sys; from polyformer import BertTokenizer; print('torch' in sys.modules)").strip() == "False"


def test_every_name_can_be_had_and_has_a_docstring():
    for name in polyformer.__all__:
        thing = getattr(polyformer, name)
        assert inspect.getdoc(thing), name
        if inspect.isclass(thing) and thing.__module__.startswith("polyformer"):
            assert thing.__doc__ or not thing.__dict__.get("__init__"), name
    with pytest.raises(AttributeError, match="no attribute 'BretModel'"):
        _ = polyformer.BretModel


def test_part_constructors_stay_small():
    """At most eight parameters (DESIGN section 1)."""
    import importlib

    for path in (SOURCE / "parts").glob("*.py"):
        module = importlib.import_module(f"polyformer.parts.{path.stem}")
        for name, thing in vars(module).items():
            if inspect.isclass(thing) and thing.__module__ == module.__name__:
                assert len(inspect.signature(thing).parameters) <= 8, name


def test_nothing_names_a_machine_s_paths():
    for path in [*MODULES, *Path(__file__).parent.rglob("*.py")]:
        if path.name != Path(__file__).name:
            text = path.read_text(encoding="utf-8")
            assert "/home/" not in text, path
            assert "/root/" not in text, path
