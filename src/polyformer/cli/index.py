"""`polyformer index`: passages of your documents with their vectors, on disk: build, search, add, delete, speed up."""

import argparse
import textwrap
from typing import TYPE_CHECKING, Any

from polyformer.cli.common import (
    Clock,
    Failure,
    Usage,
    add_device,
    add_json,
    bold,
    columns,
    command,
    filled,
    own_words,
    plural,
    positive,
    print_json,
    say,
    size,
)
from polyformer.cli.texts import FIELD, add_field

if TYPE_CHECKING:
    from polyformer.retrieval import Passage, PassageIndex

EXAMPLES = """\
  polyformer index build docs/ notes.jsonl -o my-index
  polyformer index search my-index "how do I undo a commit?"
  polyformer index add my-index more-docs/ --replace
  polyformer index info my-index --verify
"""
BUILD = """\
  polyformer index build docs/ -o my-index
  polyformer index build psgs_w100.tsv -o wiki --model facebook/dpr-ctx_encoder-single-nq-base \\
      --question-encoder facebook/dpr-question_encoder-single-nq-base
  polyformer index build articles.jsonl --field body -o my-index --faiss hnsw
"""
SEARCH = """\
  polyformer index search my-index "how do I undo a commit?"
  polyformer index search my-index "retry after a timeout" -k 20 --json | jq '.results[0].text'
"""
ADD = """\
  polyformer index add my-index more-docs/
  polyformer index add my-index docs/changed.md --replace
"""
DELETE = """\
  polyformer index delete my-index --document docs/old.md
  polyformer index delete my-index --id 17 18
"""
FAISS = """\
  polyformer index faiss my-index hnsw
  polyformer index faiss my-index none
"""
INFO = """\
  polyformer index info my-index
  polyformer index info my-index --verify --json
"""
DOCUMENTS = """\
Documents are folders (searched for .txt .md .rst .jsonl .tsv), text files, JSON Lines (objects with "text", or what
--field names, and perhaps "id" and "title"), and DPR's TSV (id, text, title). They are cut into passages of 100 words,
but for TSV, which has passages already."""
RESUME = """
A build that is interrupted goes on where it was when it is started again with the same documents and model."""
TWICE = """
Without --replace, documents that are in the index already are in it twice."""
KINDS = ("ivf", "hnsw", "int8")
SHOWN_LINES = 8  # of a passage


def add(commands: Any) -> None:
    group = command(commands, "index", "Build and search an index of your documents.", EXAMPLES, DOCUMENTS)
    actions = group.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)

    parser = command(actions, "build", "Build an index of documents.", BUILD, DOCUMENTS + RESUME)
    parser.add_argument("documents", metavar="DOCS", nargs="+", help="files and folders")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the index: a new folder")
    parser.add_argument(
        "--model", metavar="M", help="makes the vectors; all-MiniLM-L6-v2 by default, or DPR's for contexts"
    )
    parser.add_argument("--question-encoder", metavar="M", help="makes those of questions, where it is another (DPR)")
    parser.add_argument("--words", metavar="N", type=positive, default=100, help="words of a passage; 100 by default")
    parser.add_argument("--faiss", choices=KINDS, help="faster search that may miss some; needs the extra [retrieval]")
    add_field(parser, "a line of .jsonl")
    _finish(parser, build)

    parser = command(actions, "search", "Find the passages that answer a question.", SEARCH)
    parser.add_argument("index", metavar="DIR", help="the index")
    parser.add_argument("query", metavar="QUERY", type=filled, help="a question, or what you are looking for")
    parser.add_argument("-k", metavar="N", type=positive, default=5, help="how many passages to show; 5 by default")
    parser.add_argument("--exact", action="store_true", help="look at every vector, without FAISS")
    add_question_encoder(parser)
    _finish(parser, search)

    parser = command(actions, "add", "Add documents to an index.", ADD, DOCUMENTS + TWICE)
    parser.add_argument("index", metavar="DIR", help="the index")
    parser.add_argument("documents", metavar="DOCS", nargs="+", help="files and folders")
    parser.add_argument("--model", metavar="M", help="the model that built the index, where that has moved")
    parser.add_argument("--replace", action="store_true", help="delete what the index had of the same documents")
    parser.add_argument("--words", metavar="N", type=positive, default=100, help="words of a passage; 100 by default")
    add_field(parser, "a line of .jsonl")
    _finish(parser, add_documents)

    parser = command(actions, "delete", "Delete passages from an index.", DELETE)
    parser.add_argument("index", metavar="DIR", help="the index")
    parser.add_argument("--id", metavar="N", type=int, nargs="+", default=[], help="ids of passages")
    parser.add_argument("--document", metavar="NAME", nargs="+", default=[], help="all passages of these documents")
    _finish(parser, delete, device=False)

    parser = command(actions, "faiss", "Put an index of FAISS beside the vectors, or take it away.", FAISS)
    parser.add_argument("index", metavar="DIR", help="the index")
    parser.add_argument("kind", choices=[*KINDS, "none"], help="which kind; none = exact search")
    _finish(parser, faiss, device=False)

    parser = command(actions, "info", "Say what is in an index.", INFO)
    parser.add_argument("index", metavar="DIR", help="the index")
    parser.add_argument("--verify", action="store_true", help="read all of it and compare checksums")
    _finish(parser, info, device=False)


def add_question_encoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--question-encoder", metavar="M", help="makes the question's vector; the index names it")


def _finish(parser: argparse.ArgumentParser, run: Any, device: bool = True) -> None:
    if device:
        add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def build(args: argparse.Namespace) -> None:
    from polyformer.pipelines.passage_encoder import DPRVectors, load_passage_encoder
    from polyformer.pipelines.progress import Progress
    from polyformer.retrieval import accelerate, faiss_kinds
    from polyformer.retrieval import build as build_index

    if args.faiss:
        faiss_kinds.require()  # before the work
    encoder = load_passage_encoder(args.model, "passages", device=args.device)
    if isinstance(encoder, DPRVectors) and not args.question_encoder:
        raise Usage("DPR has a model for each side: name that for questions, too, with --question-encoder.")
    asking = (
        load_passage_encoder(args.question_encoder, "questions", device=args.device)
        if args.question_encoder
        else encoder
    )
    clock = Clock()
    with Progress(None, "passages") as progress, _interrupted(args.output), own_words(FIELD):
        index = build_index(
            args.output, _passages(args), encoder.passages, encoder=encoder.name, question_encoder=asking.name,
            metric=encoder.metric, block=encoder.block, advance=progress.advance,
        )  # fmt: skip
    if args.faiss:
        index = accelerate(args.output, faiss_kinds.KINDS[args.faiss]())
    _report(args, index, clock, f"{args.output}: {plural(len(index), 'passage')}, {size(_bytes(index))}")


def add_documents(args: argparse.Namespace) -> None:
    from polyformer.pipelines.passage_encoder import load_passage_encoder
    from polyformer.pipelines.progress import Progress
    from polyformer.retrieval import PassageIndex
    from polyformer.retrieval import add as add_passages

    before = PassageIndex(args.index)
    encoder = load_passage_encoder(args.model or before.meta.encoder, "passages", device=args.device)
    clock = Clock()
    with Progress(None, "passages") as progress, _interrupted(args.index), own_words(FIELD):
        index = add_passages(
            args.index, _passages(args), encoder.passages, replacing=args.replace, block=encoder.block,
            advance=progress.advance,
        )  # fmt: skip
    more = index.meta.whole.rows - before.meta.whole.rows
    if not more:
        raise Failure(f"there is no text in {' '.join(args.documents)}.")
    _report(args, index, clock, f"{args.index}: {plural(more, 'passage')} more, now {len(index):,}", added=more)


def delete(args: argparse.Namespace) -> None:
    if not args.id and not args.document:
        raise Usage("say what to delete: --id or --document.")
    from polyformer.retrieval import PassageIndex
    from polyformer.retrieval import delete as delete_passages

    clock = Clock()
    count = delete_passages(args.index, args.id, args.document)
    index = PassageIndex(args.index)
    _report(args, index, clock, f"{args.index}: {plural(count, 'passage')} fewer, now {len(index):,}", deleted=count)


def faiss(args: argparse.Namespace) -> None:
    from polyformer.retrieval import accelerate, faiss_kinds

    clock = Clock()
    index = accelerate(args.index, None if args.kind == "none" else faiss_kinds.KINDS[args.kind]())
    _report(args, index, clock, f"{args.index}: {'exact search' if args.kind == 'none' else args.kind}")


def info(args: argparse.Namespace) -> None:
    from polyformer.retrieval import PassageIndex

    index = PassageIndex(args.index)
    if args.verify:
        index.verify()
    if args.json:
        print_json(_described(index) | ({"verified": True} if args.verify else {}))
        return
    meta = index.meta
    print(f"{bold(args.index)}: {plural(len(index), 'passage')}, {size(_bytes(index))}")
    print(f"  vectors   {index.width} numbers, {meta.metric}, by {meta.encoder}")
    if meta.question_encoder != meta.encoder:
        print(f"  questions by {meta.question_encoder}")
    print(f"  search    {meta.faiss['kind'] + ' (FAISS)' if meta.faiss else 'exact'}")
    print(f"  ids       0 to {meta.whole.rows - 1}, {meta.whole.rows - len(index):,} of them deleted")
    if meta.run is not None:
        print(
            f"  an addition of {plural(meta.run.rows - meta.whole.rows, 'passage')} or more is not finished: repeat it"
        )
    for name, value in meta.metadata.items():
        print(f"  {name}: {value}")
    if args.verify:
        print("  every byte is what was written")


def search(args: argparse.Namespace) -> None:
    from polyformer.pipelines.passage_encoder import load_passage_encoder
    from polyformer.retrieval import PassageIndex

    index = PassageIndex(args.index, exact=args.exact)
    encoder = load_passage_encoder(
        args.question_encoder or index.meta.question_encoder, "questions", device=args.device
    )
    clock = Clock()
    found = index.search(encoder.questions([args.query]), min(args.k, max(1, len(index))))
    scores = found.scores[0][found.ids[0] >= 0]
    results = list(zip(scores.tolist(), index.passages(found.ids[0][: len(scores)]), strict=True))
    if args.json:
        print_json(
            {
                "query": args.query,
                "index": args.index,
                "model": encoder.name,
                "passages": len(index),
                "seconds": round(clock.seconds, 3),
                "results": [{"score": score, **_fields(passage)} for score, passage in results],
            }
        )
        return
    for score, passage in results:
        print(f"{score:.3f}  {heading(passage, passage.start, passage.end)}")
        print("\n".join(wrapped(passage.text)) + "\n")
    say(f"searched {plural(len(index), 'passage')} in {clock.seconds:.2f} s.")


def heading(passage: "Passage", start: int, end: int) -> str:
    """Where a piece of text stands."""
    title = f"  {passage.title}" if passage.title else ""
    return f"{bold(f'{passage.document}[{start}:{end}]')}{title}"


def wrapped(text: str) -> list[str]:
    """A passage for people, its first lines."""
    lines = textwrap.wrap(" ".join(text.split()), columns() - 4, initial_indent="    ", subsequent_indent="    ")
    return lines if len(lines) <= SHOWN_LINES else [*lines[: SHOWN_LINES - 1], "    ..."]


def _passages(args: argparse.Namespace) -> Any:
    from polyformer.retrieval import passages_of, read_documents

    return passages_of(read_documents(args.documents, args.field or "text"), args.words)


def _fields(passage: "Passage") -> dict[str, Any]:
    fields: dict[str, Any] = {"id": passage.id, "document": passage.document, "title": passage.title}
    fields |= {"start": passage.start, "end": passage.end, "text": passage.text}
    return fields | ({"meta": dict(passage.meta)} if passage.meta else {})


def _described(index: "PassageIndex") -> dict[str, Any]:
    meta = index.meta
    return {
        "index": str(index.folder),
        "passages": len(index),
        "ids": meta.whole.rows,
        "width": meta.width,
        "metric": meta.metric,
        "encoder": meta.encoder,
        "question_encoder": meta.question_encoder,
        "faiss": meta.faiss,
        "unfinished": meta.run is not None,
        "bytes": _bytes(index),
        "metadata": meta.metadata,
    }


def _report(args: argparse.Namespace, index: "PassageIndex", clock: Clock, text: str, **more: Any) -> None:
    if args.json:
        print_json(_described(index) | more | {"seconds": round(clock.seconds, 3)})
    else:
        print(f"{text}, {clock.seconds:.1f} s.")


def _bytes(index: "PassageIndex") -> int:
    return sum(path.stat().st_size for path in index.folder.iterdir())


class _interrupted:
    """Within it, Ctrl-C says what is not lost."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is KeyboardInterrupt:
            from polyformer.retrieval.write import kept

            rows = plural(kept(self.folder), "passage")
            say(f"{rows} of this work kept in {self.folder}: the same command goes on from there.")
