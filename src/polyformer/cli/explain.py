"""`polyformer explain`: why a text becomes these tokens."""

import argparse
from typing import Any

from polyformer.cli.common import add_json, command, print_json

EXAMPLES = """\
  polyformer explain bert-base-uncased "unbelievable!"
  polyformer explain ./my-model "a question" "and its passage"
  polyformer explain gpt2 "Hello  wörld" --json
"""
MORE = """\
Shows what each step of the tokenizer made of the text: normalisation and what it changed, the pieces it was split into,
the tokens of each piece with merges or scores, special tokens, and the row of ids with the characters of each. Spaces
are shown as \u2423."""


def add(commands: Any) -> None:
    parser = command(commands, "explain", "Show how a text is cut into tokens.", EXAMPLES, MORE)
    parser.add_argument("model", metavar="MODEL", help="a folder with a tokenizer, or a name on the hub")
    parser.add_argument("text", metavar="TEXT", help="the text")
    parser.add_argument("pair", metavar="PAIR", nargs="?", help="a second text, for models that take two")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from polyformer.core.auto_tokenizer import AutoTokenizer

    explained = AutoTokenizer.from_pretrained(args.model).explain(args.text, args.pair)
    if args.json:
        print_json({"model": args.model} | explained.to_dict())
    else:
        print(explained)
