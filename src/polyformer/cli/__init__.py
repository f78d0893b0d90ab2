"""The command `polyformer`: a subcommand a file, each with `add(subcommands)` and `run(args)`.

Help and errors of usage are instant: torch, tokenizers and models are imported when the work begins.
Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 stopped with Ctrl-C. An error is one sentence on stderr;
POLYFORMER_DEBUG=1 adds the traceback.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from polyformer import __version__
from polyformer.cli import ask, demo, embed, explain, fill, generate, index, info, run, search
from polyformer.cli.common import Failure, Usage, say, speaking

EXAMPLES = """\
examples:
  polyformer demo                                       see it work on the Python documentation you have
  polyformer search "how are errors handled?" docs/     search your own files by meaning
  polyformer index build docs/ -o my-index              an index of many documents, on disk
  polyformer ask my-index "who pays?" --model M         an answer from them, and where it stands
  polyformer embed sentences.txt -o vectors.npy         a vector a line
  polyformer fill "Paris is the [MASK] of France." --model bert-base-uncased
  polyformer generate "Once upon a time" --model gpt2 --stream
  polyformer run ner "Ada lives in Paris." --model M    a task of many: labels, entities, answers, choices
  polyformer explain bert-base-uncased "Hello!"         how a text is cut into tokens
  polyformer info bert-base-uncased                     what is in a checkpoint

Models are folders in Hugging Face's layout or names on the hub. `polyformer COMMAND --help` has more examples.
"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence instead of printing the whole usage; options may stand before texts."""

    _mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._mixing or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._mixing = True  # argparse itself would end `run ner --model M TEXT` at M: TEXT may be nothing
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False

    def error(self, message: str) -> NoReturn:
        raise Usage(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="polyformer",
        description="Transformers at work: vectors, search and words from text, offline if need be.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"polyformer {__version__}")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for module in (embed, search, index, ask, fill, generate, explain, run, info, demo):
        module.add(commands)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (by default the process's) and give its exit code."""
    try:
        with speaking():
            args = parser().parse_args(argv)
            args.run(args)
            sys.stdout.flush()
        return 0
    except SystemExit as done:  # --help, --version
        return int(done.code or 0)
    except KeyboardInterrupt:
        say("stopped.")
        return 130
    except BrokenPipeError:
        _silence_stdout()
        return 0
    except Usage as error:
        return _fail(error, str(error), 2)
    except (Failure, OSError, ValueError, TypeError, MemoryError, ImportError) as error:
        return _fail(error, str(error) or type(error).__name__, 1)
    except Exception as error:  # a defect of ours, but still one sentence
        known = f"{type(error).__name__}: {error}"
        return _fail(error, f"an unexpected error, {known} (POLYFORMER_DEBUG=1 shows where).", 1)


def _fail(error: BaseException, message: str, code: int) -> int:
    if os.environ.get("POLYFORMER_DEBUG"):
        traceback.print_exception(error)
    say(" ".join(message.split()))
    return code


def _silence_stdout() -> None:
    """The reader has gone: what is still in the buffer must not raise again when the interpreter ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
