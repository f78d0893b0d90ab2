"""`polyformer fill`: the words that fit into a gap."""

import argparse
from typing import Any

from polyformer.cli.common import Usage, add_device, add_json, bold, command, own_words, positive, print_json

EXAMPLES = """\
  polyformer fill "Paris is the [MASK] of France." --model bert-base-uncased
  polyformer fill "[MASK] is the capital of [MASK]." --model ./my-bert -k 3
  polyformer fill "The food was [MASK]." --model ./my-bert --targets good bad --json
"""
MORE = """\
Write the model's mask token, [MASK] for BERT, where a word is missing; with several, each is guessed by itself. No
model comes with polyformer for this: name a masked language model, a folder or one on the hub."""


def add(commands: Any) -> None:
    parser = command(commands, "fill", "Fill in masked words.", EXAMPLES, MORE)
    parser.add_argument("text", metavar="TEXT", help="a text with one or more masks")
    parser.add_argument(
        "--model", metavar="M", help="a masked language model: a folder, or a name on the hub; required"
    )
    parser.add_argument("-k", metavar="N", type=positive, default=5, help="how many words a mask; 5 by default")
    parser.add_argument(
        "--on-long", choices=("error", "truncate", "window"), help="what to do with a text longer than the model takes"
    )
    parser.add_argument("--targets", metavar="WORD", nargs="+", help="choose among these words only")
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if not args.model:
        raise Usage("fill has no default model: name one, such as --model bert-base-uncased or --model FOLDER.")
    from polyformer.pipelines import pipeline

    fill = pipeline("fill-mask", args.model, device=args.device)
    with own_words({"on_long": "--on-long {value}"}):
        found = fill(args.text, top_k=args.k, targets=args.targets, on_long=args.on_long)
    masks = found if isinstance(found[0], list) else [found]
    if args.json:
        print_json({"text": args.text, "model": args.model, "masks": masks})
        return
    for number, words in enumerate(masks, 1):
        if len(masks) > 1:
            print(("\n" if number > 1 else "") + f"mask {number}")
        width = max(len(word["token_str"]) for word in words)
        for word in words:
            sentence = f"   {word['sequence']}" if len(masks) == 1 else ""
            space = " " * (width - len(word["token_str"])) if sentence else ""
            print(f"{word['score']:7.2%}  {bold(word['token_str'])}{space}{sentence}")
