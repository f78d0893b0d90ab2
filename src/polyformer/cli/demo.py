"""`polyformer demo`: see it work, on text that is on every machine."""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyformer.cli.common import (
    Clock,
    add_device,
    add_json,
    add_model,
    bold,
    columns,
    command,
    load_encoder,
    plural,
    print_json,
    say,
)

EXAMPLES = """\
  polyformer demo
  polyformer demo "how do I read a csv file?" "send an email"
  polyformer demo --map map.png
  polyformer demo --no-map --json
"""
MORE = """\
Makes a search engine of the docstrings of the Python you run: finds them, turns each into a vector with
all-MiniLM-L6-v2, answers three questions and yours, measures passages a second with and without computing on padding,
and draws a map of the passages. Takes under a minute on two cores, and no network."""


def add(commands: Any) -> None:
    parser = command(commands, "demo", "Search the Python standard library by meaning.", EXAMPLES, MORE)
    parser.add_argument("questions", metavar="QUESTION", nargs="*", help="more to ask")
    parser.add_argument("--map", metavar="FILE.png", default="out/demo-map.png", help="%(default)s by default")
    parser.add_argument("--no-map", action="store_true", help="draw none")
    add_model(parser, "all-MiniLM-L6-v2 by default")
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    clock = Clock()
    encoder, name = load_encoder(args)

    from polyformer import demo

    if not args.json:
        print("reading the docstrings of the Python standard library ...", flush=True)
    passages = demo.library_passages()
    index = demo.Index.build(encoder, passages)
    questions = [*demo.QUESTIONS, *args.questions]
    answers, asked = index.ask(questions)
    found = {
        "model": name,
        "passages": len(passages),
        "seconds_to_embed": round(index.seconds, 2),
        "answers": [
            {"question": q, "passages": [{"score": s, "name": p.name, "text": p.doc} for s, p in best]}
            for q, best in zip(questions, answers, strict=True)
        ],
    }
    if not args.json:
        print(_answers(found))
    found["speed"] = demo.compare_padding(encoder, [passage.text for passage in passages])
    found["map"] = None if args.no_map else _map(args.map, index, questions, asked)
    found["seconds"] = round(clock.seconds, 2)
    print_json(found) if args.json else print(_figures(found))


def _map(name: str, index: Any, questions: Sequence[str], asked: Any) -> str | None:
    """The name of the map drawn; None, with a note, where matplotlib is not installed."""
    from polyformer.demo import draw_map

    try:
        draw_map(Path(name), index.passages, index.vectors, questions, asked)
    except ImportError:
        say("matplotlib is not installed, so no map is drawn: pip install 'polyformer[demo]'.")
        return None
    return name


def _answers(found: dict[str, Any]) -> str:
    rate = found["passages"] / found["seconds_to_embed"]
    lines = [f"{found['passages']:,} passages, {found['seconds_to_embed']:.1f} s to embed, {rate:,.0f} a second", ""]
    for answer in found["answers"]:
        lines.append(bold(answer["question"]))
        for passage in answer["passages"]:
            lines.append(f"  {passage['score']:.3f}  {bold(passage['name'])}")
            lines += [f"         {line}" for line in _first_lines(passage["text"])]
        lines.append("")
    return "\n".join(lines)


def _first_lines(text: str, most: int = 2) -> list[str]:
    lines = textwrap.wrap(" ".join(text.split()), columns() - 9)
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1] + " ..."]


def _figures(found: dict[str, Any]) -> str:
    speed, rows = found["speed"], found["speed"]["rows"]
    rates, padding = speed["passages_per_second"], speed["padding"]
    ways = {
        "packed": "real tokens only",
        "padded": f"batches of {rows} as they come, {padding['padded']:.0%} of it padding",
        "sorted": f"batches of {rows} sorted by length, {padding['sorted']:.0%} of it padding",
    }
    threads = plural(speed["threads"], "thread")
    lines = [f"passages a second, the same {speed['passages']} passages and model each way, {threads}:"]
    for way, what in ways.items():
        ratio = "" if way == "packed" else f"   packed is {rates['packed'] / rates[way]:.2f}x as fast"
        lines.append(f"  {'packed' if way == 'packed' else 'padded'}  {rates[way]:7.1f}   {what}{ratio}")
    if found["map"]:
        lines += ["", f"map of the passages: {found['map']}"]
    lines.append(f"{found['seconds']:.1f} s in all")
    return "\n".join(lines)
