"""What the subcommands share: errors, models by name, printing, files that appear all at once."""

import argparse
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyformer.pipelines.sentence import SentenceEncoder


class Failure(Exception):
    """The work cannot be done; the message is one sentence for the user. Exit code 1."""


class Usage(Exception):
    """The command was called wrongly. Exit code 2."""


def say(message: str) -> None:
    """One line to the user, on stderr."""
    print(f"polyformer: {message}", file=sys.stderr, flush=True)


class _Says(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


@contextmanager
def speaking() -> Iterator[None]:
    """Within it, the library's warnings go to stderr as the command's own words, and no character fails to print."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logger, handler = logging.getLogger("polyformer"), _Says(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def own_words(options: Mapping[str, str]) -> Iterator[None]:
    """Within it, errors that name arguments of the library, on_long='window', name the command's options.

    options: how each argument is written here, "--set {name}={value}".
    """
    given = re.compile(rf"\b({'|'.join(options)})=('[^']*'|\.\.\.|True|False)")

    def said(found: re.Match[str]) -> str:
        value = found[2].lower() if found[2] in ("True", "False") else found[2].strip("'") or "''"
        return options[found[1]].format(name=found[1], value=value)

    try:
        yield
    except (ValueError, TypeError) as error:
        raise Failure(given.sub(said, str(error))) from error


# ---- arguments ----


def command(commands: Any, name: str, summary: str, examples: str, more: str = "") -> argparse.ArgumentParser:
    """A subcommand with its help: a sentence, details, examples."""
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:].rstrip("."),
        description=f"{summary}\n\n{more}".rstrip(),
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return made


def add_model(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--model", metavar="M", help=f"a folder, or a name on the hub; {default}")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 ...; the first GPU if there is one by default")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON on stdout instead of text for people")


def positive(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def filled(text: str) -> str:
    """An argument that says something."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: ask something")
    return text


# ---- models ----


def load_encoder(args: argparse.Namespace) -> "tuple[SentenceEncoder, str]":
    """The encoder that the arguments name, or the default one; and its name."""
    from polyformer.pipelines.defaults import default_encoder

    source = args.model or default_encoder()
    from polyformer.pipelines.sentence import SentenceEncoder

    encoder = SentenceEncoder.from_pretrained(source, device=args.device)
    return encoder, str(args.model) if args.model else "all-MiniLM-L6-v2"


# ---- results ----


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    json.dump(value, sys.stdout, ensure_ascii=not unicode, allow_nan=False)
    sys.stdout.write("\n")


def bold(text: str) -> str:
    """The text in bold on a terminal, plain elsewhere and where NO_COLOR is set."""
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


def columns() -> int:
    """How wide text may be: that of the terminal, between 40 and 100."""
    return max(40, min(100, shutil.get_terminal_size((88, 24)).columns))


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Bytes for people."""
    for unit, power in (("GB", 9), ("MB", 6)):
        if count >= 10**power:
            return f"{count / 10**power:,.1f} {unit}"
    return f"{count / 1000:,.1f} kB"


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begun


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes its name when all is written: after an error, what was there before is still there.

    Raises:
        CheckpointError: the folder cannot be written, or the name is a folder's.
    """
    from polyformer.core.atomic import AtomicFiles, explain
    from polyformer.core.errors import CheckpointError

    try:
        with AtomicFiles(path.parent) as files:
            with files.path_for(path.name).open("wb") as file:
                yield file
            files.commit()
    except CheckpointError:
        raise
    except OSError as error:
        raise explain(path.parent, error) from error


@contextmanager
def kept_file(path: Path) -> Iterator[IO[bytes]]:
    """The same, but what was written before an error, or Ctrl-C, is kept in PATH.partial, and that is said."""
    partial = path.with_name(f"{path.name}.partial")
    with new_file(path) as file:
        try:
            yield file
        except BaseException:
            written = file.tell()
            file.close()
            if written:
                os.replace(file.name, partial)
                say(f"what was done before is kept in {partial}.")
            raise
