"""`polyformer embed`: a vector for every line of a file."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyformer.cli.common import (
    Clock,
    Failure,
    Usage,
    add_device,
    add_json,
    add_model,
    command,
    load_encoder,
    new_file,
    own_words,
    plural,
    print_json,
)
from polyformer.cli.texts import FIELD, Texts, add_field

if TYPE_CHECKING:
    import numpy as np

    from polyformer.pipelines.sentence import SentenceEncoder

EXAMPLES = """\
  polyformer embed sentences.txt                        writes vectors.npy
  polyformer embed reviews.jsonl -o reviews.npy         the "text" of every line
  polyformer embed papers.jsonl --field abstract
  head -3 sentences.txt | polyformer embed - --json     the vectors as JSON on stdout
  python -c "import numpy; print(numpy.load('vectors.npy').shape)"
"""
MORE = """\
FILE has a text a line; row i of the result is line i, and an empty line counts too. A name that ends in .jsonl has
JSON objects with "text", or what --field names. Vectors are float32; their cosine says how much two texts mean the
same."""


def add(commands: Any) -> None:
    parser = command(commands, "embed", "Turn texts into vectors.", EXAMPLES, MORE)
    parser.add_argument("file", metavar="FILE", help="texts, one a line; - is standard input")
    parser.add_argument("-o", "--output", metavar="FILE.npy", help="where the vectors go; vectors.npy by default")
    parser.add_argument("--jsonl", action="store_true", help='every line is JSON with "text", whatever the name says')
    add_field(parser)
    add_model(parser, "all-MiniLM-L6-v2 by default")
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    output = _output(args)
    with Texts(args.file, args.jsonl, args.field) as texts, own_words(FIELD):
        encoder, name = load_encoder(args)
        clock = Clock()
        vectors = _encode(encoder, texts) if output is None else _write(encoder, texts, output)
    count, width = vectors.shape
    summary = {"model": name, "texts": count, "width": width, "seconds": round(clock.seconds, 3)}
    if output is None:
        print_json(summary | {"vectors": vectors.tolist()})
    elif args.json:
        print_json(summary | {"output": str(output)})
    else:
        rate = f"{count / clock.seconds:,.0f} a second"
        print(f"{output}: {plural(count, 'vector')} of {width} numbers, {clock.seconds:.1f} s, {rate}.")


def _encode(encoder: "SentenceEncoder", texts: Texts) -> "np.ndarray":
    vectors = encoder.encode(texts)
    if not len(vectors):
        raise Failure(f"{texts.name} has no text.")
    return vectors


def _write(encoder: "SentenceEncoder", texts: Texts, output: Path) -> "np.ndarray":
    import numpy as np

    with new_file(output) as file:  # before the work, so that a place that cannot be written is known at once
        vectors = _encode(encoder, texts)
        np.save(file, vectors)
    return vectors


def _output(args: argparse.Namespace) -> Path | None:
    """The file to write; None = the vectors go to stdout."""
    if args.output is None:
        return None if args.json else Path("vectors.npy")
    if not args.output.endswith(".npy"):
        raise Usage(f"the vectors are written in numpy's format, so call the file something.npy, not {args.output!r}.")
    return Path(args.output)
