"""Retrieval on real text with a real model, and the training loss of DPR."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from polyformer.parts.losses import retrieval_loss
from polyformer.pipelines.passage_encoder import load_passage_encoder
from polyformer.retrieval import HNSW, IVF, Int8, Passage, PassageIndex, accelerate, build

EXAMPLE = Path(__file__).parents[1] / "examples" / "train_dpr.py"


@pytest.fixture(scope="module")
def xquad(shared, minilm, tmp_path_factory):
    """The index of XQuAD's 240 English paragraphs, vectors of its 1190 questions, and the paragraph of each."""
    data = json.loads((shared / "data" / "qa-xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]
    paragraphs = [(article["title"], p) for article in data for p in article["paragraphs"]]
    passages = [Passage(p["context"], title) for title, p in paragraphs]
    encoder = load_passage_encoder(minilm, "passages")
    folder = tmp_path_factory.mktemp("xquad") / "index"
    build(folder, passages, encoder.passages, encoder=encoder.name, metric=encoder.metric)
    questions = [(asked["question"], i) for i, (_, p) in enumerate(paragraphs) for asked in p["qas"]]
    return folder, encoder.questions([text for text, _ in questions]), np.array([i for _, i in questions])


def test_questions_find_their_paragraph(xquad):
    """The figures that the reference's vectors give, over a numpy product."""
    folder, queries, gold = xquad
    found = PassageIndex(folder).search(queries, 20).ids
    assert (len(PassageIndex(folder)), len(gold)) == (240, 1190)
    hits = [int((found[:, :k] == gold[:, None]).any(1).sum()) for k in (1, 5, 20)]
    assert [round(hit / len(gold), 3) for hit in hits] == [0.885, 0.982, 0.993]
    assert hits == [1053, 1168, 1182]


@pytest.mark.parametrize("kind", [IVF(lists=15, probes=15), HNSW(), Int8()], ids=lambda kind: type(kind).__name__)
def test_faiss_and_exact_agree_on_real_text(xquad, kind):
    pytest.importorskip("faiss")
    folder, queries, _ = xquad
    exact = PassageIndex(folder, exact=True).search(queries, 5)
    fast = accelerate(folder, kind).search(queries, 5)
    assert (fast.ids == exact.ids).all() and (fast.scores == exact.scores).all()


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hard", [0, 3])
def test_the_loss_of_dpr_is_its_definition(hard):
    """- log exp(sim(q, p+)) / (exp(sim(q, p+)) + sum exp(sim(q, p-))), over the batch's passages, with loops."""
    rng = torch.Generator().manual_seed(0)
    questions = torch.randn(4, 6, dtype=torch.float64, generator=rng, requires_grad=True)
    passages = torch.randn(4 + hard, 6, dtype=torch.float64, generator=rng, requires_grad=True)
    positives = torch.tensor([2, 0, 3, 1])
    losses = []
    for question, positive in zip(questions, positives.tolist(), strict=True):
        likely = [torch.exp((question * passage).sum()) for passage in passages]
        losses.append(-torch.log(likely[positive] / sum(likely)))
    wanted = sum(losses) / 4
    got = retrieval_loss(questions, passages, positives)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(got, (questions, passages)), torch.autograd.grad(wanted, (questions, passages)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_wrong_shapes_and_positives():
    with pytest.raises(ValueError, match=r"questions have shape \(2, 3\) and passages \(4, 5\)"):
        retrieval_loss(torch.ones(2, 3), torch.ones(4, 5), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="positives contain 4, but only 0 to 3"):
        retrieval_loss(torch.ones(2, 3), torch.ones(4, 3), torch.tensor([0, 4]))


@pytest.fixture
def example():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("train_dpr", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_dpr"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["train_dpr"]


def test_the_example_learns(example, shared, tmp_path, capsys):
    """On real questions, with a tiny random BERT: after training, every question finds its passage first."""
    from polyformer import BertConfig, BertModel, BertTokenizer
    from polyformer.cli import main

    rows = json.loads((shared / "data" / "dpr-sample" / "farm_dpr_sample.json").read_text(encoding="utf-8"))
    for row in rows:
        for name in ("positive_ctxs", "hard_negative_ctxs", "negative_ctxs"):
            row[name] = row[name][:4]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    lines = (shared / "data" / "nq-open" / "NQ-open.dev.jsonl").read_text(encoding="utf-8").splitlines()[:20]
    (tmp_path / "open.jsonl").write_text("\n".join(lines))
    words = sorted({word for row in rows for c in row["positive_ctxs"] for word in c["text"].lower().split()})
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    bert = tmp_path / "bert"
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=256, initializer_range=0.2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    BertModel(config).save_pretrained(bert)
    (bert / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")
    BertTokenizer(bert / "vocab.txt", model_max_length=256).save_pretrained(bert)
    figures = example.main([
        str(tmp_path / "data.json"), "--questions", str(tmp_path / "open.jsonl"), "--model", str(bert), "--steps", "25",
        "--rate", "3e-3", "--batch", "5", "--hard", "3", "--mine", "-o", str(tmp_path / "out"),
    ])  # fmt: skip
    before, after = figures["before"], figures["after"]
    assert before["its passage among 1"] < after["its passage among 1"] == 1.0
    assert set(before) == set(after) and len(after) == 5
    assert "encoders and index are in" in capsys.readouterr().out
    assert main(["index", "search", str(tmp_path / "out" / "index"), rows[0]["question"], "-k", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["text"] in [c["text"] for c in rows[0]["positive_ctxs"]]
