"""`polyformer run TASK`: any pipeline, over a few texts or a file of them."""

import argparse
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from polyformer.cli.common import (
    Clock,
    Failure,
    Usage,
    add_device,
    add_json,
    bold,
    columns,
    command,
    kept_file,
    own_words,
    plural,
    print_json,
    say,
)
from polyformer.cli.texts import FIELD, Items, add_field
from polyformer.retrieval.readers import field_of

EXAMPLES = """\
  polyformer run sentiment-analysis "I love it." "I don't." --model ./my-bert
  polyformer run ner --model ./my-ner --set aggregation_strategy=simple --input news.txt --output entities.jsonl
  polyformer run question-answering "Ada wrote the first program." --question "Who?" --model ./my-squad
  polyformer run zero-shot-classification "Rates rose again." --model ./my-mnli --labels economy,sports,art
  polyformer run question-answering --model ./my-squad --input questions.jsonl --output answers.jsonl
  polyformer run summarization --model ./my-bart --input articles.jsonl --field body --set on_long=window
  polyformer run translation_en_to_de "The house is small." --model ./my-t5
"""
MORE = """\
{tasks}

A file has one input a line: plain text, or in a .jsonl file JSON, a str or an object: {{"text": ...}}, {{"text": ...,
"text_pair": ...}}, {{"question": ..., "context": ...}}, {{"text": ..., "choices": [...]}}, {{"image": PATH,
"text": ...}}, {{"source_sentence": ..., "sentences": [...]}} or {{"text": ..., "past_user_inputs": [...],
"generated_responses": [...]}}. --field NAME says which field is the text, where it is called something else (in
question-answering the context, in open-qa the question, in sentence-similarity the source sentence). Every line of the
output is that object with its "result". A line that cannot be answered, too long a text for one, ends the work, and so
does Ctrl-C: --output is as it was then, and what was answered before is beside it, in FILE.partial. --set passes any
option of the task's pipeline, on_long=truncate or on_long=window for texts too long; --set help lists them."""

# Tasks whose pipelines take a line's object as it is.
WHOLE = (
    "image-text-classification",
    "multiple-choice",
    "question-answering",
    "sentence-similarity",
    "text-classification",
)
# What objects call the text that a task reads, where that is not "text".
MAIN = {"open-qa": "question", "question-answering": "context", "sentence-similarity": "source_sentence"}
# What answers call the text that was written.
WRITTEN = ("generated_text", "summary_text", "translation_text")


def add(commands: Any) -> None:
    from polyformer.pipelines.factory import ALIASES, TASKS

    tasks = textwrap.fill(f"Tasks: {', '.join([*TASKS, *ALIASES])}.", 120, break_on_hyphens=False)
    parser = command(commands, "run", "Run a task.", EXAMPLES, MORE.format(tasks=tasks))
    parser.add_argument("task", metavar="TASK", help="what to do, see above")
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="texts; or --input")
    parser.add_argument("--model", metavar="M", help="a folder, or a name on the hub")
    parser.add_argument("--input", metavar="FILE", help="a file of inputs, one a line; - for standard input")
    parser.add_argument("--output", "-o", metavar="FILE", help="write JSON Lines here, complete or not at all")
    add_field(parser)
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
    from polyformer.pipelines.factory import ALIASES, TASKS, pipeline, resolve
    from polyformer.pipelines.rows import naming

    task, _ = resolve(args.task)
    if task not in TASKS:
        raise Usage(f"there is no task {args.task!r}; there are {', '.join([*TASKS, *ALIASES])}.")
    if "help" in args.set:
        print(textwrap.fill(", ".join(option_names_of(task)), columns()))
        return
    if bool(args.texts) == bool(args.input):
        raise Usage("give texts, or --input FILE with one a line, and not both.")
    if args.field and not args.input:
        raise Usage("--field names a field of the lines of a file: give one with --input.")
    _check(task, args)
    options = _options(task, args)
    clock = Clock()
    pipe = pipeline(args.task, args.model, device=args.device, index=args.index)
    count = 0
    with (
        Items(args.input, field=args.field) if args.input else nullcontext(args.texts) as items,
        own_words(dict.fromkeys(option_names_of(task), "--set {name}={value}") | FIELD),
        naming(items.called if isinstance(items, Items) else called_of(items)),
    ):
        results = zip_answers(pipe, task, items, args, options)
        if args.output:
            with kept_file(Path(args.output)) as file:
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
    wrong: list[Exception] = []

    class Given:
        """The inputs as the pipeline takes them, noted as they go by; they end before one that cannot be read."""

        def __length_hint__(self) -> int:
            return length_hint(items)

        def __iter__(self) -> Iterator[Any]:
            try:
                for number, item in enumerate(items):
                    given = adapted(task, item, args, called(number))
                    waiting.append(item)
                    yield given
            except (Failure, ValueError) as error:
                wrong.append(error)

    from operator import length_hint

    from polyformer.pipelines.rows import called

    call = pipe.stream if task == "sentence-embedding" else pipe
    for answer in call(Given(), **options):
        yield waiting.pop(0), {"generated_text": answer.generated_responses[-1]} if task == "conversational" else answer
    if wrong:
        raise wrong[0]


def adapted(task: str, item: Any, args: argparse.Namespace, called: str) -> Any:
    """An input of the command line or of a file as the task's pipeline takes it.

    called: what messages call it.
    """
    main = MAIN.get(task, "text")
    if args.field:
        item = {**item, main: field_of(item, args.field, called, (str, list))} if isinstance(item, dict) else item
    text = item.get(main, item.get("text")) if isinstance(item, dict) else item
    if task == "question-answering" and args.question is not None:
        return {"question": args.question, "context": text}
    if task == "multiple-choice" and args.choices:
        return {"text": text, "choices": args.choices}
    if task in WHOLE:
        return item
    if text is None:
        text = field_of(item, main, called, (str, list))
    return conversation(text, item if isinstance(item, dict) else {}, called) if task == "conversational" else text


def conversation(text: Any, turns: dict[str, Any], called: str) -> Any:
    """What a user says next, after the earlier turns if there are any."""
    from polyformer.pipelines.conversational import Conversation

    if not isinstance(text, str):
        raise Failure(f'{called} is not something to answer: give a str or {{"text": ...}}.')
    return Conversation(
        text, past_user_inputs=turns.get("past_user_inputs"), generated_responses=turns.get("generated_responses")
    )


def called_of(texts: Sequence[str]) -> Callable[[int], str]:
    """What messages call texts of the command line, by their numbers from 0."""
    return lambda number: f"text {number + 1}" if len(texts) > 1 else "the text"


def record(given: Any, answer: Any) -> dict[str, Any]:
    """A line of the output."""
    return {**(given if isinstance(given, dict) else {"text": given}), "result": answer}


def plain(value: Any) -> Any:
    """Arrays as lists, for JSON."""
    return value.tolist()


def show(given: Any, answer: Any) -> None:
    """An answer for people: the beginning of the input, and what was found in lines of their own."""
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    print(bold(textwrap.shorten(text, 3 * columns(), placeholder=" ...")))
    for line in found_lines(given, answer):
        print(f"  {line}")
    sys.stdout.flush()


def found_lines(given: Any, answer: Any) -> Iterator[str]:
    """What was found, a line each."""
    found = answer if isinstance(answer, list) else [answer]
    if answer is None or not len(found):
        yield "nothing"
    elif isinstance(given, dict) and len(given.get("sentences", ())) == len(found):
        for score, sentence in zip(found, given["sentences"], strict=True):
            yield f"{score:.3f}  {sentence}"
    elif all(isinstance(one, dict) for one in found):
        for one in found:
            yield from thing_lines(given, one)
    elif all(isinstance(one, list) and one and isinstance(one[0], dict) for one in found):  # of several masks
        for number, words in enumerate(found, 1):
            yield f"mask {number}"
            yield from (f"  {line}" for word in words for line in thing_lines(given, word))
    else:
        yield numbers_line(found if isinstance(answer, list) else answer)


def thing_lines(given: Any, one: dict[str, Any]) -> Iterator[str]:
    """A label, an entity, an answer, a text; or several labels with their scores."""
    if "labels" in one and "scores" in one:
        yield from (f"{score:7.2%}  {label}" for label, score in zip(one["labels"], one["scores"], strict=True))
        return
    score = f"{one['score']:7.2%}  " if "score" in one else ""
    rest = [f"{one[name]}" for name in ("label", "entity_group", "entity", "choice", "token_str") if name in one]
    rest += [" ".join(one["answer"].split())] if "answer" in one else []
    rest += [one[name] for name in WRITTEN if name in one]
    place = f"  {one.get('document', '')}[{one['start']}:{one['end']}]" if "start" in one else ""
    word = f"  {given[one['start'] : one['end']]}" if place and "word" in one and isinstance(given, str) else ""
    yield f"{score}{' '.join(rest) or '(no answer)'}{word}{place}"


def numbers_line(values: Any) -> str:
    """How many numbers an array has, and the first of them."""
    import numpy as np

    table = np.asarray(values, dtype=float)
    first = " ".join(f"{number:.4f}" for number in table.ravel()[:6])
    return f"{' x '.join(map(str, table.shape))} numbers: {first}{' ...' if table.size > 6 else ''}"


def option_names_of(task: str) -> list[str]:
    """The options that a task's pipeline takes."""
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
    return taken


def _check(task: str, args: argparse.Namespace) -> None:
    """Raise Usage for what the task cannot do without."""
    from polyformer.pipelines.factory import EMBEDDING

    if not args.model and task not in EMBEDDING:
        raise Usage(f"{task} has no default model: name one with --model, a folder or a name on the hub.")
    for wanting, option, given in (
        ("open-qa", "--index, a folder that `polyformer index build` made", args.index),
        ("question-answering", "--question, or --input with a question in every line", args.question or args.input),
        ("multiple-choice", "--choices, or --input with choices in every line", args.choices or args.input),
        ("zero-shot-classification", "--labels, with commas between them", args.labels),
    ):
        if task == wanting and not given:
            raise Usage(f"{task} wants {option}.")


def _options(task: str, args: argparse.Namespace) -> dict[str, Any]:
    """The options of --set and --labels, checked against what the task's pipeline takes."""
    taken = option_names_of(task)
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
        options["candidate_labels"] = args.labels
    return options
