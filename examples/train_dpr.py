"""Train DPR's two encoders from a BERT, index passages with them, and ask questions.

    python examples/train_dpr.py biencoder-nq-dev.json --questions NQ-open.dev.jsonl -o out/dpr
    polyformer index search out/dpr/index "who sings does he love me with reba"

DATA is in DPR's format (facebookresearch/DPR): a list of {"question", "answers", "positive_ctxs", "hard_negative_ctxs",
"negative_ctxs"}, a context being {"title", "text"}. Training is Karpukhin et al. 2020, section 3.2: in a batch every
question's passage is a negative for the others (in-batch negatives), and each question brings hard negatives, first
those of the file, which BM25 found, then, with --mine, what the encoders themselves find and what holds no answer.

The lines of --questions, {"question", "answer": [...]} as in NQ-open, are asked before and after: how often is an
answer's text in one of the passages found? All passages of DATA are searched.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from polyformer import AutoModel, AutoTokenizer, DPRConfig, DPRContextEncoder, DPRQuestionEncoder
from polyformer.metrics.squad import normalized
from polyformer.parts.losses import retrieval_loss
from polyformer.pipelines.defaults import default_encoder
from polyformer.pipelines.passage_encoder import DPRVectors
from polyformer.retrieval import Passage, PassageIndex, build

LENGTH = 256  # tokens of a passage, as in the paper


@dataclass
class Asked:
    """A question, texts that answer it, and numbers of passages that hold an answer, and that do not."""

    question: str
    answers: list[str]
    positives: list[int]
    negatives: list[int]


def read(path: Path) -> tuple[list[Passage], list[Asked]]:
    """All passages of a file in DPR's format, each once, and its questions."""
    passages: list[Passage] = []
    number: dict[tuple[str, str], int] = {}

    def numbers(contexts: Sequence[dict[str, Any]]) -> list[int]:
        for context in contexts:
            key = context["title"], context["text"]
            if key not in number:
                number[key] = len(passages)
                passages.append(Passage(context["text"], str(context.get("passage_id", "")), context["title"]))
        return [number[context["title"], context["text"]] for context in contexts]

    asked = []
    for row in json.loads(path.read_text(encoding="utf-8")):
        positives, hard = numbers(row["positive_ctxs"]), numbers(row["hard_negative_ctxs"])
        numbers(row.get("negative_ctxs", ()))
        if positives:
            asked.append(Asked(row["question"], row["answers"], positives, hard))
    return passages, asked


def encoders(folder: str) -> tuple[DPRQuestionEncoder, DPRContextEncoder]:
    """Two encoders that begin as the same BERT."""
    bert = AutoModel.from_pretrained(folder)
    fields = {name: value for name, value in bert.config.to_dict().items() if name in DPRConfig.__dataclass_fields__}
    made = []
    for kind in (DPRQuestionEncoder, DPRContextEncoder):
        encoder = kind(DPRConfig(**fields | {"pooling": None}))
        encoder.bert.load_state_dict({k: v for k, v in bert.state_dict().items() if not k.startswith("pooler.")})
        made.append(encoder)
    return made[0], made[1]


def vectors(model: Any, tokenizer: Any, *texts: list[str]) -> Tensor:
    """(texts, width), with a gradient; one list of questions, or one of titles and one of texts."""
    batch = tokenizer(
        *texts, padding=True, truncation=True, max_length=LENGTH, return_token_type_ids=False, return_tensors="pt"
    )
    return model(**batch).pooler_output


def step_loss(models: Any, tokenizer: Any, batch: list[Asked], passages: list[Passage], hard: int) -> Tensor:
    """The loss of some questions: their passages first, then hard negatives of all."""
    chosen = [random.choice(one.positives) for one in batch]
    for one in batch:
        chosen += random.sample(one.negatives, min(hard, len(one.negatives)))
    some = [passages[i] for i in chosen]
    questions = vectors(models[0], tokenizer, [one.question for one in batch])
    contexts = vectors(models[1], tokenizer, [p.title for p in some], [p.text for p in some])
    return retrieval_loss(questions, contexts, torch.arange(len(batch)))


def indexed(models: Any, tokenizer: Any, passages: list[Passage], folder: Path, names: tuple[str, str]) -> PassageIndex:
    """An index of all passages by the context encoder as it is."""
    context = DPRVectors(models[1], tokenizer)
    with tqdm(total=len(passages), desc="index", unit=" passages", leave=False, disable=None) as bar:
        return build(
            folder, passages, context.passages, encoder=names[1], question_encoder=names[0], metric="inner-product",
            advance=bar.update,
        )  # fmt: skip


def holds(passage: Passage, answers: Sequence[str]) -> bool:
    """Whether one of the answers is in the passage, word for word."""
    text = f" {normalized(passage.text)} "
    return any(f" {normalized(answer)} " in text for answer in answers if normalized(answer))


def evaluate(
    models: Any, tokenizer: Any, index: PassageIndex, asked: list[Asked], open_questions: Any
) -> dict[str, float]:
    """Shares of questions: whose passage comes first or among five; an answer of which is among 1, 5, 20 passages."""
    encoder = DPRVectors(models[0], tokenizer)
    shares: dict[str, float] = {}
    found = index.search(encoder.questions([one.question for one in asked]), 5).ids
    for k in (1, 5):
        hits = [bool(set(ids[:k]) & set(one.positives)) for ids, one in zip(found.tolist(), asked, strict=True)]
        shares[f"its passage among {k}"] = sum(hits) / len(hits)
    if open_questions:
        found = index.search(encoder.questions([question for question, _ in open_questions]), 20).ids
        rows = [
            [holds(passage, answers) for passage in index.passages(ids)]
            for ids, (_, answers) in zip(found, open_questions, strict=True)
        ]
        for k in (1, 5, 20):
            shares[f"open questions: an answer among {k}"] = sum(any(row[:k]) for row in rows) / len(rows)
    return shares


def mine(models: Any, tokenizer: Any, index: PassageIndex, asked: list[Asked], count: int = 20) -> None:
    """Make what the encoders find for a question, and what holds no answer, its hard negatives."""
    found = index.search(DPRVectors(models[0], tokenizer).questions([one.question for one in asked]), 2 * count).ids
    for ids, one in zip(found.tolist(), asked, strict=True):
        wrong = [p.id for p in index.passages(ids) if p.id not in one.positives and not holds(p, one.answers)]
        one.negatives = wrong[:count] or one.negatives


def train(models: Any, tokenizer: Any, asked: list[Asked], passages: list[Passage], args: argparse.Namespace) -> None:
    """Steps of AdamW with a learning rate that falls to zero."""
    parameters = [p for model in models for p in model.train().parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, args.steps)
    with tqdm(range(args.steps), desc="train", disable=None) as steps:
        for _ in steps:
            loss = step_loss(models, tokenizer, random.sample(asked, min(args.batch, len(asked))), passages, args.hard)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 2.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            steps.set_postfix(loss=f"{loss.item():.3f}")
    for model in models:
        model.eval()


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="questions and passages in DPR's format")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="open questions with answers, JSON Lines")
    parser.add_argument("--limit", type=int, default=300, metavar="N", help="how many of those (default 300)")
    parser.add_argument("--model", metavar="M", help="a BERT to begin with (default: all-MiniLM-L6-v2's)")
    parser.add_argument("--steps", type=int, default=40, metavar="N", help="steps of training (default 40)")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="questions of a step (default 4)")
    parser.add_argument("--hard", type=int, default=1, metavar="N", help="hard negatives a question (default 1)")
    parser.add_argument("--rate", type=float, default=2e-5, metavar="R", help="learning rate (default 2e-5)")
    parser.add_argument("--mine", action="store_true", help="a second round, with negatives that the encoders find")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/dpr"), metavar="DIR", help="(default out/dpr)")
    args = parser.parse_args(argv)
    if (args.output / "index").exists():
        parser.error(f"{args.output / 'index'} exists: name another --output.")

    random.seed(0)
    torch.manual_seed(0)
    passages, asked = read(args.data)
    lines = args.questions.read_text(encoding="utf-8").splitlines() if args.questions else []
    open_questions = [(row["question"], row["answer"]) for row in map(json.loads, islice(lines, args.limit))]
    source = args.model or str(default_encoder())
    models, tokenizer = encoders(source), AutoTokenizer.from_pretrained(source)
    names = tuple(str((args.output / name).resolve()) for name in ("question_encoder", "ctx_encoder"))
    print(f"{len(asked)} questions, {len(passages)} passages, {len(open_questions)} open questions")

    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        index = indexed(models, tokenizer, passages, Path(folder) / "0", names)
        figures["before"] = evaluate(models, tokenizer, index, asked, open_questions)
        train(models, tokenizer, asked, passages, args)
        if args.mine:
            mine(models, tokenizer, indexed(models, tokenizer, passages, Path(folder) / "1", names), asked)
            train(models, tokenizer, asked, passages, args)
    for model, name in zip(models, names, strict=True):
        model.save_pretrained(name)
        tokenizer.save_pretrained(name)
    index = indexed(models, tokenizer, passages, args.output / "index", names)
    figures["after"] = evaluate(models, tokenizer, index, asked, open_questions)
    for name, before in figures["before"].items():
        print(f"{name:40} {before:6.1%} -> {figures['after'][name]:6.1%}")
    print(f"encoders and index are in {args.output}")
    return figures


if __name__ == "__main__":
    main()
