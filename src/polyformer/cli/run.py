"""`polyformer run TASK`: any pipeline, over a few texts or a file of them."""

import argparse
import inspect
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from polyformer.cli.common import Clock, Usage, add_device, add_json, bold, command, new_file, plural, print_json, say
from polyformer.cli.texts import Items

EXAMPLES = """\
  polyformer run sentiment-analysis "I love it." "I don't." --model ./my-bert
  polyformer run ner --model ./my-ner --set aggregation_strategy=simple --input news.txt --output entities.jsonl
  polyformer run question-answering "Ada wrote the first program." --question "Who?" --model ./my-squad
  polyformer run zero-shot-classification "Rates rose again." --model ./my-mnli --labels economy,sports,art
  polyformer run question-answering --model ./my-squad --input questions.jsonl --output answers.jsonl
  polyformer run summarization --model ./my-bart --input articles.jsonl --set num_beams=4 --set on_long=window
  polyformer run translation_en_to_de "The house is small." --model ./my-t5
"""
MORE = """\
Tasks: {tasks}.

A file has one input a line: plain text, or in a .jsonl file JSON, a str or an object: {{"text": ...}}, {{"text": ...,
"text_pair": ...}}, {{"question": ..., "context": ...}}, {{"text": ..., "choices": [...]}}, {{"image": PATH,
"text": ...}} or {{"source_sentence": ..., "sentences": [...]}}. Every line of the output is that object with its
"result". --set passes any option of the task's pipeline; --set help lists them."""

# Tasks whose pipelines take a line's object as it is.
WHOLE = (
    "image-text-classification",
    "multiple-choice",
    "question-answering",
    "sentence-similarity",
    "text-classification",
)
# What answers call the text that was written.
WRITTEN = ("generated_text", "summary_text", "translation_text")


def add(commands: Any) -> None:
    from polyformer.pipelines.factory import ALIASES, TASKS

    parser = command(commands, "run", "Run a task.", EXAMPLES, MORE.format(tasks=", ".join([*TASKS, *ALIASES])))
    parser.add_argument("task", metavar="TASK", help="what to do, see above")
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="texts; or --input")
    parser.add_argument("--model", metavar="M", help="a folder, or a name on the hub")
    parser.add_argument("--input", metavar="FILE", help="a file of inputs, one a line; - for standard input")
    parser.add_argument("--output", "-o", metavar="FILE", help="write JSON Lines here; it appears when all is done")
    parser.add_argument("--question", metavar="Q", help="question-answering: what to ask of each TEXT")
    parser.add_argument("--labels", metavar="A,B", help="zero-shot-classification: the labels to choose from")
    parser.add_argument("--index", metavar="DIR", help="open-qa: where answers are found (polyformer index build)")
    parser.add_argument("--choices", metavar="C", nargs="+", help="multiple-choice: what to choose from for each TEXT")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="an option of the pipeline; a JSON value or text",
    )
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if bool(args.texts) == bool(args.input):
        raise Usage("give texts, or --input FILE with one a line, and not both.")
    from polyformer.pipelines.factory import ALIASES, TASKS, pipeline, resolve

    task, _ = resolve(args.task)
    if task not in TASKS:
        raise Usage(f"there is no task {args.task!r}; there are {', '.join([*TASKS, *ALIASES])}.")
    options = _options(task, args)
    clock = Clock()
    pipe = pipeline(args.task, args.model, device=args.device, index=args.index)
    count = 0
    with Items(args.input) if args.input else nullcontext(args.texts) as items:
        results = zip_answers(pipe, task, items, args, options)
        if args.output:
            with new_file(Path(args.output)) as file:
                for given, answer in results:
                    line = json.dumps(record(given, answer), ensure_ascii=False, allow_nan=False, default=plain)
                    file.write(line.encode() + b"\n")
                    count += 1
            say(f"{plural(count, 'result')} in {clock.seconds:.1f} s, written to {args.output}.")
            return
        if args.json:
            print_json([json.loads(json.dumps(record(given, answer), default=plain)) for given, answer in results])
            return
        for given, answer in results:
            show(given, answer)


def zip_answers(
    pipe: Any, task: str, items: Iterable[Any], args: argparse.Namespace, options: dict[str, Any]
) -> Iterator[tuple[Any, Any]]:
    """(input, answer) one by one; inputs are read as far ahead as the pipeline wants and no further."""
    waiting: list[Any] = []

    class Given:
        """The inputs as the pipeline takes them, noted as they go by."""

        def __length_hint__(self) -> int:
            return length_hint(items)

        def __iter__(self) -> Iterator[Any]:
            for item in items:
                waiting.append(item)
                yield adapted(task, item, args)

    from operator import length_hint

    call = pipe.stream if task == "sentence-embedding" else pipe
    for answer in call(Given(), **options):
        yield waiting.pop(0), answer


def adapted(task: str, item: Any, args: argparse.Namespace) -> Any:
    """An input of the command line or of a file as the task's pipeline takes it."""
    text = item.get("text") if isinstance(item, dict) else item
    if task == "question-answering" and args.question is not None:
        return {"question": args.question, "context": text}
    if task == "multiple-choice" and args.choices:
        return {"text": text, "choices": args.choices}
    if task == "open-qa" and isinstance(item, dict):
        return item.get("question", text)
    if task in WHOLE:
        return item
    return text if text is not None else item


def record(given: Any, answer: Any) -> dict[str, Any]:
    """A line of the output."""
    return {**(given if isinstance(given, dict) else {"text": given}), "result": answer}


def plain(value: Any) -> Any:
    """Arrays as lists, for JSON."""
    return value.tolist()


def show(given: Any, answer: Any) -> None:
    """An answer for people: the input, and what was found in lines of their own."""
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    print(bold(text))
    found = answer if isinstance(answer, list) else [answer]
    if found and not isinstance(found[0], dict):
        print("  " + json.dumps(found, default=plain)[:200])
        return
    for one in found:
        if "labels" in one and "scores" in one:
            for label, score in zip(one["labels"], one["scores"], strict=True):
                print(f"  {score:7.2%}  {label}")
            continue
        score = f"{one['score']:7.2%}  " if "score" in one else ""
        rest = [
            f"{one[name]}"
            for name in ("label", "entity_group", "entity", "answer", "choice", "token_str", *WRITTEN)
            if name in one
        ]
        place = f"  {one.get('document', '')}[{one['start']}:{one['end']}]" if "start" in one else ""
        word = f"  {text[one['start'] : one['end']]}" if "word" in one and isinstance(given, str) else ""
        print(f"  {score}{' '.join(rest) or '(no answer)'}{word}{place}")
    if not found:
        print("  nothing")
    sys.stdout.flush()


def _options(task: str, args: argparse.Namespace) -> dict[str, Any]:
    """The options of --set and --labels, checked against what the task's pipeline takes."""
    from importlib import import_module

    from polyformer.pipelines.factory import TASKS

    module, name = TASKS[task]
    made = getattr(import_module(f"polyformer.pipelines.{module}"), name)
    call = made.stream if task == "sentence-embedding" else made.__call__
    arguments = inspect.signature(call).parameters.values()
    taken = [p.name for p in arguments if p.kind is p.KEYWORD_ONLY]
    if any(p.kind is p.VAR_KEYWORD for p in arguments):  # of a task that writes
        from polyformer.generation.config import option_names

        taken += sorted(option_names())
    options: dict[str, Any] = {}
    for pair in args.set:
        key, sign, value = pair.partition("=")
        if not sign or key not in taken:
            raise Usage(f"{task} has no option {pair!r}: --set takes NAME=VALUE with {', '.join(taken)}.")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    if task == "zero-shot-classification":
        if not args.labels:
            raise Usage("zero-shot-classification wants --labels, with commas between them.")
        options["candidate_labels"] = args.labels
    return options
