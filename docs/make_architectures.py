"""Write docs/architectures.md from the code, and measure each class against the reference.

make docs        (needs the reference, `make oracle`)
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from collections.abc import Iterable, Iterator
from itertools import chain, product
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TARGET = HERE / "architectures.md"
sys.path.insert(0, str(HERE.parent / "tests"))

INTRODUCTION = """\
# The architectures

Written by `make docs` from the code; a test holds it against the code.

* **lines**: of code in the architecture's file, without docstrings, comments and empty lines.
* **off by**: the largest difference, relative to 1 + |value|, between any output of a class (loss, logits, states of
  every layer, attentions) and the reference's, transformers 4.6.1 in float64, on tiny configurations; the worst of its
  classes.
* **packed**: whether padding is left out of the computation, and if not why not.

| architecture | file | lines | off by | packed | classes |
| --- | --- | ---: | ---: | --- | --- |
"""


def code_lines(path: Path) -> int:
    """Lines that hold code."""
    source = path.read_text(encoding="utf-8")
    quiet = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in quiet:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            lines -= set(range(body[0].lineno, (body[0].end_lineno or 0) + 1))
    return len(lines)


def classes_of(module: str) -> list[type]:
    """The model classes that a user can name."""
    import polyformer

    names = polyformer._NAMES[f"models.{module}"].split()
    made = [getattr(polyformer, name) for name in names]
    return [c for c in made if isinstance(c, type) and hasattr(c, "forward") and "PreTrained" not in c.__name__]


def rows() -> Iterator[tuple[str, str, int, str, list[str]]]:
    """Of every architecture: model_type, file, lines, packed, classes."""
    from polyformer.core.registry import ARCHITECTURES

    for kind, architecture in ARCHITECTURES.items():
        classes = classes_of(architecture.module)
        path = HERE.parent / "src" / "polyformer" / "models" / f"{architecture.module}.py"
        why = classes[0].padded_because
        yield kind, architecture.module, code_lines(path), f"no: {why}" if why else "yes", [c.__name__ for c in classes]


def off_by(names: Iterable[str]) -> float | None:
    """The largest difference of these classes from the reference, over the registry's configurations; None without."""
    from oracle import Oracle

    worst: float | None = None
    with Oracle(HERE.parent / ".oracle") as reference:
        for got, want in chain(*(ask(reference, set(names)) for ask in (answers, answers_to_pairs, answers_alone))):
            for name in got.keys() & want.keys():  # what a decoder makes of a source is not kept by all of them there
                value = got[name]
                theirs = want[name][tuple(slice(0, size) for size in value.shape)].double()
                if theirs.dtype == want[name].dtype:
                    worst = max(worst or 0.0, float(((value - theirs).abs() / (1 + theirs.abs())).max()))
    return worst


def answers(reference: Any, names: set[str]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Our and the reference's outputs of every case of these classes."""
    import torch

    import zoo
    from test_parity import apart, flat, ours_with, reference_config

    for case in (case for case in zoo.CASES if case.reference and case.cls in names):
        weights = reference.init(case.cls, reference_config(case), seed=7)
        inputs = zoo.batch(zoo.sentences(case, (9, 9)), mask=False)
        inputs |= {"output_attentions": "attentions" not in zoo.FAMILY[case.family].refused}
        inputs |= {"output_hidden_states": True}
        want = apart(reference.run(case.cls, reference_config(case), weights, inputs, dtype=torch.float64))
        with torch.no_grad():
            got = flat(ours_with(case, weights, torch.float64)(**inputs))
        yield got, want


def answers_to_pairs(reference: Any, names: set[str]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The same of MMBT's classes, which read images too, over every text encoder that the reference has for them."""
    import torch

    import test_mmbt as mmbt

    for cls, text in product(names & {*mmbt.CLASSES}, mmbt.TEXTS):
        weights, ask = reference.init(cls, mmbt.reference(text), seed=7), {"return_dict": True}
        if cls == "MMBTModel":
            ask = mmbt.ASK
        inputs = mmbt.inputs_of((9, 9)) | ask
        want = reference.run(cls, mmbt.reference(text), weights, inputs, dtype=torch.float64)
        with torch.no_grad():
            got = mmbt.flat(mmbt.with_weights(cls, text, weights, torch.float64)(**inputs))
        yield got, want


def answers_alone(reference: Any, names: set[str]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The same of ProphetNet's classes, asked for one text at a time, of EncoderDecoderModel's pairs, of RAG's."""
    import torch

    import test_encoder_decoder as pairs
    import test_prophetnet as prophetnet
    import test_rag as rag

    for cls in names & {*prophetnet.NAMES}:
        config = prophetnet.config_of(cls)
        weights, inputs = reference.init(cls, config, seed=7), prophetnet.inputs_of(cls) | prophetnet.SHOW
        with torch.no_grad():
            got = prophetnet.flat(prophetnet.with_weights(cls, weights)(**inputs))
        yield got, reference.run(cls, config, weights, inputs, dtype=torch.float64)
    for pair in pairs.PAIRS if pairs.CLS in names else ():
        config = pairs.config_of(pair)
        weights, inputs = reference.init(pairs.CLS, config, seed=7), pairs.inputs_of((7, 7)) | prophetnet.SHOW
        with torch.no_grad():
            got = prophetnet.flat(pairs.with_weights(pair, weights)(**inputs))
        yield got, reference.run(pairs.CLS, config, weights, inputs, dtype=torch.float64)
    for cls in names & {rag.TOKEN, rag.SEQUENCE}:
        weights, inputs = reference.init(cls, rag.config_of(), seed=7), rag.passages() | {"labels": rag.LABELS}
        model = rag.make(cls)
        model.load_state_dict(weights)
        with torch.no_grad():
            got = prophetnet.flat(model.double().eval()(**inputs))
        want = reference.run(cls, rag.config_of(), weights, inputs, dtype=torch.float64)
        read = "generator_enc_last_hidden_state"  # zeros here where passages are padded
        got[read], want[read] = (t[read][inputs["context_attention_mask"].bool()] for t in (got, want))
        yield got, want


def page(measured: dict[str, float | None]) -> str:
    lines = []
    for kind, module, count, packed, names in rows():
        found = measured.get(kind)
        error = "not measured" if found is None else f"{found:.0e}"
        listed = ", ".join(f"`{name}`" for name in names)
        lines.append(f"| {kind} | `models/{module}.py` | {count} | {error} | {packed} | {listed} |\n")
    total = sum(count for _, _, count, _, _ in rows())
    return INTRODUCTION + "".join(lines) + f"\n{total:,} lines in all.\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    measured = {kind: off_by(names) for kind, _, _, _, names in rows()}
    TARGET.write_text(page(measured), encoding="utf-8")
    print(f"written to {TARGET}")


if __name__ == "__main__":
    main()
