"""`polyformer search`: the passages of your files that answer a question, by meaning."""

import argparse
import textwrap
from typing import Any

from polyformer.cli.common import (
    Clock,
    Failure,
    add_device,
    add_json,
    add_model,
    bold,
    columns,
    command,
    filled,
    load_encoder,
    own_words,
    plural,
    positive,
    print_json,
    say,
)
from polyformer.cli.passages import Corpus, Passage, read_corpus
from polyformer.cli.texts import FIELD, add_field

EXAMPLES = """\
  polyformer search "who pays for the journey?" contract.txt
  polyformer search "how do I undo a commit?" docs/ README.md -k 3
  polyformer search "retry after a timeout" src/ --json | jq '.results[0]'
"""
MORE = """\
Files are cut into passages of about 100 words, which are ranked by how near in meaning they are to the query (cosine, 1
at most). Folders are searched for .txt .md .rst .py and .jsonl (objects with "text", or what --field names); what is
not text is skipped."""
SHOWN_LINES = 12  # of a passage


def add(commands: Any) -> None:
    parser = command(commands, "search", "Search files by meaning.", EXAMPLES, MORE)
    parser.add_argument("query", metavar="QUERY", type=filled, help="a question, or what you are looking for")
    parser.add_argument("files", metavar="FILES", nargs="+", help="files and folders")
    parser.add_argument("-k", metavar="N", type=positive, default=5, help="how many passages to show; 5 by default")
    add_field(parser, "a line of .jsonl")
    add_model(parser, "all-MiniLM-L6-v2 by default")
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    with own_words(FIELD):
        corpus = read_corpus(args.files, field=args.field or "text")
    if corpus.skipped:
        say(_skipped(corpus.skipped, args.field or "text"))
    if not corpus.passages:
        raise Failure(f"there is no text in {' '.join(args.files)}.")
    encoder, name = load_encoder(args)
    clock = Clock()
    vectors = encoder.encode([passage.text for passage in corpus.passages], normalize=True)
    scores = vectors @ encoder.encode(args.query, normalize=True)
    best = (-scores).argsort(kind="stable")[: args.k]
    results = [(float(scores[i]), corpus.passages[i]) for i in best]
    if args.json:
        print_json(
            {
                "query": args.query,
                "model": name,
                "files": corpus.files,
                "passages": len(corpus.passages),
                "skipped": corpus.skipped,
                "seconds": round(clock.seconds, 3),
                "results": [{"score": s, "file": p.file, "line": p.line, "text": p.text} for s, p in results],
            }
        )
        return
    for score, passage in results:
        print(_shown(score, passage))
    say(_summary(corpus, clock.seconds))


def _shown(score: float, passage: Passage) -> str:
    """A passage for people: score and place, then the text, wrapped."""
    width = columns() - 4
    if passage.code:
        lines = [line[:width] for line in textwrap.dedent(passage.text).splitlines()]
    else:
        lines = [
            line
            for paragraph in passage.text.split("\n\n")
            for line in textwrap.wrap(" ".join(paragraph.split()), width)
        ]
    if len(lines) > SHOWN_LINES:
        lines = [*lines[: SHOWN_LINES - 1], "..."]
    head = f"{score:.3f}  {bold(f'{passage.file}:{passage.line}')}"
    return "\n".join([head, *(f"    {line}".rstrip() for line in lines), ""])


def _skipped(names: list[str], field: str) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f'skipped {plural(len(names), "file")} without text in UTF-8, or a "{field}" in JSON Lines: {shown}.'


def _summary(corpus: Corpus, seconds: float) -> str:
    found = f"{plural(len(corpus.passages), 'passage')} in {plural(corpus.files, 'file')}"
    return f"searched {found} in {seconds:.1f} s."
