"""`polyformer ask`: an answer from your documents, and where it stands."""

import argparse
from typing import Any

from polyformer.cli.common import (
    Clock,
    Usage,
    add_device,
    add_json,
    bold,
    columns,
    command,
    filled,
    plural,
    positive,
    print_json,
    say,
)
from polyformer.cli.index import add_question_encoder

EXAMPLES = """\
  polyformer ask my-index "who pays for the journey?" --model deepset/roberta-base-squad2
  polyformer ask wiki "who sang it first?" --model facebook/dpr-reader-single-nq-base --passages 50
  polyformer ask my-index "when is it due?" --model ./my-squad --top 3 --json | jq '.answers[0]'
"""
MORE = """\
The index (polyformer index build) finds passages; the model, DPR's reader or one for extractive question answering,
reads them; RAG writes an answer from all of them. An answer comes with its document and the characters where it stands
there."""


def add(commands: Any) -> None:
    parser = command(commands, "ask", "Answer a question from your documents.", EXAMPLES, MORE)
    parser.add_argument("index", metavar="DIR", help="the index")
    parser.add_argument("question", metavar="QUESTION", type=filled, help="what you want to know")
    parser.add_argument("--model", metavar="M", help="the reader: a folder, or a name on the hub")
    parser.add_argument("--top", metavar="N", type=positive, default=1, help="how many answers; 1 by default")
    parser.add_argument("--passages", metavar="N", type=positive, default=10, help="how many are read; 10 by default")
    add_question_encoder(parser)
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if not args.model:
        raise Usage(
            "ask has no default model: name a reader, such as --model deepset/roberta-base-squad2 (`polyformer index "
            "search` shows passages without one)."
        )
    from polyformer.pipelines.factory import pipeline

    ask = pipeline("open-qa", args.model, index=args.index, question_encoder=args.question_encoder, device=args.device)
    clock = Clock()
    found = ask(args.question, top_k=args.top, passages=args.passages)
    answers = found if isinstance(found, list) else [found] if found is not None else []
    if args.json:
        print_json(
            {
                "question": args.question,
                "index": args.index,
                "model": args.model,
                "seconds": round(clock.seconds, 3),
                "answers": answers,
            }
        )
        return
    for answer in answers:
        place = f"{answer['document']}[{answer['start']}:{answer['end']}]"
        title = f"  {answer['title']}" if answer["title"] else ""
        words = bold(" ".join(answer["answer"].split()))
        print(f"{answer['score']:7.2%}  {words}\n         {place}{title}\n         {_around(answer)}\n")
    if not answers:
        print("no passage")
    say(f"read {plural(min(args.passages, len(ask.index)), 'passage')} in {clock.seconds:.1f} s.")


def _around(answer: dict[str, Any]) -> str:
    """The answer and what stands beside it, on one line."""
    text, offset = answer["passage"]["text"], answer["passage"]["start"]
    start, end = answer["start"] - offset, answer["end"] - offset
    room = max(0, columns() - 9 - 6 - (end - start)) // 2
    first, last = max(0, start - room), min(len(text), end + room)
    line = f"{text[first:start]}{bold(text[start:end])}{text[end:last]}"
    return f"{'...' if first else ''}{' '.join(line.split())}{'...' if last < len(text) else ''}"
