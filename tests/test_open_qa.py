"""Questions to answers over an index: DPR's reader and extractive heads, by hand; citations point right."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyformer import (
    BertConfig,
    BertForQuestionAnswering,
    BertModel,
    BertTokenizer,
    CheckpointError,
    DPRConfig,
    DPRContextEncoder,
    DPRQuestionEncoder,
    DPRReader,
    DPRReaderTokenizer,
    pipeline,
)
from polyformer.cli import index as index_command
from polyformer.cli import main
from polyformer.pipelines.open_qa import OpenQAPipeline
from polyformer.pipelines.passage_encoder import DPRVectors, EmbeddingVectors, block_on, load_passage_encoder
from polyformer.pipelines.passage_reader import Answer, Asked, DPRSpanReader
from polyformer.retrieval import Document, Found, Passage, PassageIndex, build, delete, faiss_kinds, passages_of
from polyformer.retrieval.write import BLOCK

WORDS = "the a cat dog sat ran on mat road fast slow red blue is was in of and paris france who where fox".split()
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *".,?!", "##s", "##ing"]
LIMIT = 48
QUESTIONS = ["who sat on the mat ?", "where is paris", "is a fast dog red or blue?"]


def config(kind: Any, **changes: Any) -> Any:
    return kind(
        vocab_size=len(VOCAB), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=LIMIT, initializer_range=0.7, **changes,
    )  # fmt: skip


def saved(folder: Path, model: Any) -> str:
    model.eval().save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    BertTokenizer(folder / "vocab.txt", model_max_length=LIMIT).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of random models."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    return {
        "bert": saved(root / "bert", BertModel(config(BertConfig, pooling="mean"))),
        "qa": saved(root / "qa", BertForQuestionAnswering(config(BertConfig))),
        "question": saved(root / "question", DPRQuestionEncoder(config(DPRConfig))),
        "context": saved(root / "context", DPRContextEncoder(config(DPRConfig, projection_dim=16))),
        "context16": saved(root / "context16", DPRContextEncoder(config(DPRConfig))),
        "reader": saved(root / "reader", DPRReader(config(DPRConfig))),
    }


def documents(count: int = 6) -> list[Document]:
    pick = random.Random(3)
    return [
        Document(f"doc {i}", "  " + " ".join(pick.choices([*WORDS, ".", ","], k=pick.randint(5, 50))) + "\n", title)
        for i, title in enumerate(pick.choices(["the fox", "", "red dog", "paris"], k=count))
    ]


@pytest.fixture(scope="module")
def dpr_index(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    encoder = load_passage_encoder(models["context16"], "passages")
    folder = tmp_path_factory.mktemp("index") / "dpr"
    build(
        folder, passages_of(documents(), 20), encoder.passages, encoder=encoder.name,
        question_encoder=models["question"], metric=encoder.metric,
    )  # fmt: skip
    return str(folder)


# ---- encoders --------------------------------------------------------------------------------------------------------


def test_dpr_s_vectors_are_the_model_s(models: dict[str, str]) -> None:
    """A row at a time, as published: title and text a pair, no segments; without a title the text alone."""
    encoder = load_passage_encoder(models["context"], "passages")
    assert isinstance(encoder, DPRVectors) and encoder.name == models["context"]
    some = [Passage("the cat sat", title="red"), Passage("a dog ran fast on the road"), Passage("x " * 90, title="fox")]
    tok = BertTokenizer.from_pretrained(models["context"])
    for passage, vector in zip(some, encoder.passages(some), strict=True):
        parts = [passage.title, passage.text] if passage.title else [passage.text]
        ids = tok(*parts, truncation=True, max_length=LIMIT, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            wanted = encoder.model(ids).pooler_output[0]
        np.testing.assert_allclose(vector, wanted.numpy(), atol=1e-5)
    with pytest.raises(CheckpointError, match="cannot be the encoder of questions"):
        load_passage_encoder(models["context"], "questions")


def test_an_embedding_model_s_vectors(models: dict[str, str]) -> None:
    encoder = load_passage_encoder(models["bert"], "passages")
    assert isinstance(encoder, EmbeddingVectors) and encoder.metric == "cosine"
    plain = encoder.encoder.encode(["the cat"])
    np.testing.assert_allclose(encoder.questions(["the cat"]), plain)
    np.testing.assert_allclose(encoder.passages([Passage("the cat", title="not read")]), plain)
    encoder.encoder.prompts = {"query": "who ", "passage": "paris "}
    np.testing.assert_allclose(encoder.questions(["the cat"]), encoder.encoder.encode(["the cat"], prompt="who "))
    np.testing.assert_allclose(
        encoder.passages([Passage("the cat")]), encoder.encoder.encode(["the cat"], prompt="paris ")
    )


# ---- DPR's reader ----------------------------------------------------------------------------------------------------


def by_hand(folder: str, question: str, passages: Sequence[Passage], longest: int) -> list[dict[str, Any]]:
    """The best span of every passage that fits, the most relevant passage first; the tokenizer's decoder chooses."""
    reader, tok = DPRReader.from_pretrained(folder).eval(), DPRReaderTokenizer.from_pretrained(folder)
    batch = tok(question, [p.title for p in passages], [p.text for p in passages], padding=True, return_tensors="pt")
    with torch.no_grad():
        outputs = reader(**batch)
    relevance = outputs.relevance_logits.double().softmax(0)
    found = []
    for span in tok.decode_best_spans(batch, outputs, len(passages), longest, num_spans_per_passage=1):
        row, text = span.doc_id, passages[span.doc_id].text
        ids = batch["input_ids"][row].tolist()
        first = [i for i, token in enumerate(ids) if token == tok.sep_token_id][1] + 1
        length = int(batch["attention_mask"][row].sum())
        starts, ends = (x[row, first:length].double().softmax(0) for x in (outputs.start_logits, outputs.end_logits))
        i, j = span.start_index - first, span.end_index - first
        places = tok(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        start, end = places[i][0], places[j][1]
        score = float(relevance[row] * starts[i] * ends[j])
        found.append({"passage": passages[row].id, "answer": text[start:end], "score": score})
    return found


@pytest.mark.parametrize("longest", [1, 4, 15])
def test_dpr_s_reader_is_the_paper_s(models: dict[str, str], dpr_index: str, longest: int) -> None:
    ask = pipeline("open-qa", models["reader"], index=dpr_index)
    assert isinstance(ask, OpenQAPipeline) and isinstance(ask.reader, DPRSpanReader)
    together = ask(QUESTIONS, top_k=5, passages=5, max_answer_len=longest)
    originals = {document.name: document.text for document in documents()}
    for question, answers in zip(QUESTIONS, together, strict=True):
        assert len(answers) == 5
        (asked,) = ask.find([question], 5)
        wanted = by_hand(models["reader"], question, asked.passages, longest)
        assert [a["passage"]["id"] for a in answers] == [w["passage"] for w in wanted]
        assert [a["answer"] for a in answers] == [w["answer"] for w in wanted]
        np.testing.assert_allclose([a["score"] for a in answers], [w["score"] for w in wanted], rtol=1e-4)
        for answer in answers:
            assert originals[answer["document"]][answer["start"] : answer["end"]] == answer["answer"]
            there = answer["passage"]
            assert originals[answer["document"]][there["start"] :].startswith(there["text"])
        alone = ask(question, top_k=5, passages=5, max_answer_len=longest)
        assert [a | {"score": 0, "passage": 0} for a in alone] == [a | {"score": 0, "passage": 0} for a in answers]
        first = ask(question, passages=5, max_answer_len=longest)
        assert first["answer"] == answers[0]["answer"] and first["start"] == answers[0]["start"]


def test_more_answers_than_passages(models: dict[str, str], dpr_index: str) -> None:
    """The best of every passage, then the second best of every passage; none holds another of its passage."""
    answers = pipeline("open-qa", models["reader"], index=dpr_index)(QUESTIONS[0], top_k=6, passages=2)
    ids = [a["passage"]["id"] for a in answers]
    assert len(answers) == 6 and ids[0] != ids[1] and ids == ids[:2] * 3
    for i, a in enumerate(answers):
        for b in answers[:i]:
            nested = (
                a["start"] <= b["start"] <= b["end"] <= a["end"] or b["start"] <= a["start"] <= a["end"] <= b["end"]
            )
            assert a["passage"]["id"] != b["passage"]["id"] or not nested


def test_a_passage_longer_than_a_row_is_read_to_its_end(models: dict[str, str]) -> None:
    """By window: what the reader says of the window with the answer counts."""
    text = "cat dog " * 60
    reader = DPRSpanReader(
        DPRReader.from_pretrained(models["reader"]), DPRReaderTokenizer.from_pretrained(models["reader"])
    )
    asked = Asked("who ran ?", np.zeros(1), [Passage(text), Passage("paris")], np.zeros(2))
    rows = reader.prepare([asked], 0, {})[0]
    assert max(row.cut[1] for row in rows) == 120 and all(len(row.ids) <= LIMIT for row in rows)
    assert {place for row in rows if row.number == 0 for place in row.places if place >= 0} == set(range(120))
    answers = reader.read([asked], 2, 3)[0]
    relevance = []
    for row in rows:
        with torch.no_grad():
            relevance.append(reader.model(torch.tensor([row.ids])).relevance_logits.item())
    best = 0 if max(relevance[:-1]) > relevance[-1] else 1
    assert answers[0].passage == best and {a.passage for a in answers} == {0, 1}


# ---- other readers ---------------------------------------------------------------------------------------------------


def test_an_extractive_head_reads_every_passage_alone(models: dict[str, str], tmp_path: Path) -> None:
    encoder = load_passage_encoder(models["bert"], "passages")
    index = build(tmp_path / "x", passages_of(documents(), 20), encoder.passages, encoder=encoder.name)
    ask, single = pipeline("open-qa", models["qa"], index=tmp_path / "x"), pipeline("question-answering", models["qa"])
    originals = {document.name: document.text for document in documents()}
    for question, answers in zip(QUESTIONS, ask(iter(QUESTIONS), top_k=4, passages=5), strict=True):
        ids = index.search(encoder.questions([question]), 5).ids[0]
        wanted = []
        for passage in index.passages(ids):
            for found in single(question=question, context=passage.text, top_k=4):
                wanted.append((found["score"], passage.document, passage.start + found["start"], found["answer"]))
        wanted.sort(key=lambda one: -one[0])
        assert [(a["document"], a["start"], a["answer"]) for a in answers] == [w[1:] for w in wanted[:4]]
        np.testing.assert_allclose([a["score"] for a in answers], [w[0] for w in wanted[:4]], rtol=1e-4)
        for answer in answers:
            assert originals[answer["document"]][answer["start"] : answer["end"]] == answer["answer"]
    assert ask(QUESTIONS[0], passages=5)["answer"] == ask(QUESTIONS[0], passages=5, top_k=2)[0]["answer"]
    long = "cat " * 70
    with pytest.raises(ValueError, match=f"the question of '{long}' has 70 tokens: shorten it"):  # not a pair's number
        ask([QUESTIONS[0], long])


class Writer:
    """A reader that writes: all it has of an answer is the passage it rests on."""

    def read(self, asked: Sequence[Asked], top_k: int, max_answer_len: int) -> list[list[Answer]]:
        assert all(one.vector.shape == (2,) and len(one.scores) == len(one.passages) for one in asked)
        return [[Answer(f"{one.question}: {len(one.passages)}", 0.5, 1, None)] for one in asked]


class Memory:
    """A retriever and an encoder that are no files at all."""

    width, name, metric = 2, "x", "inner-product"
    texts = ("one", "two", "three")

    def search(self, vectors: Any, k: int) -> Found:
        ids = np.where(np.arange(k) < 3, np.arange(k), -1)[None].repeat(len(vectors), 0)
        return Found(ids, np.where(ids >= 0, 1.0, -np.inf), np.zeros((*ids.shape, 2)))

    def passages(self, ids: Any) -> list[Any]:
        return [Passage(self.texts[i], "d", start=10 * i, id=i) for i in ids]

    def questions(self, texts: Sequence[str]) -> np.ndarray:
        return np.zeros((len(texts), 2))


def test_any_retriever_encoder_and_reader_will_do() -> None:
    ask = pipeline("open-qa", Writer(), index=Memory(), question_encoder=Memory())
    wanted = {"answer": "what?: 3", "score": 0.5, "document": "d", "title": "", "start": 10, "end": 13}
    assert ask("what?") == wanted | {"passage": {"id": 1, "text": "two", "start": 10, "score": 1.0}}
    seen = []

    def endless() -> Iterator[str]:
        for i in range(10**9):
            seen.append(i)
            yield "what?"

    assert next(ask(endless()))["answer"] == "what?: 3" and len(seen) <= 16
    assert ask([]) == []
    with pytest.raises(ValueError, match="this index names no model for questions"):
        pipeline("open-qa", Writer(), index=Memory())


def test_what_makes_no_sense(models: dict[str, str], dpr_index: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="open-qa wants index=FOLDER"):
        pipeline("open-qa", models["reader"])
    with pytest.raises(ValueError, match="no other task does"):
        pipeline("fill-mask", models["bert"], index=dpr_index)
    with pytest.raises(ValueError, match="open-qa has no default model"):
        pipeline("open-qa", index=dpr_index)
    with pytest.raises(CheckpointError):
        pipeline("open-qa", models["bert"], index=dpr_index)
    ask = pipeline("open-qa", models["reader"], index=dpr_index)
    for inputs, error, said in [
        ("  ", ValueError, "the text is empty: ask something"),
        (["who?", 3], TypeError, "text 1 is a int, not a str"),
        (["who?", ""], ValueError, "text 1 is empty"),
    ]:
        with pytest.raises(error, match=said):
            ask(inputs)
    for name in ("top_k", "passages", "max_answer_len"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            ask("who?", **{name: 0})
    other = pipeline("open-qa", models["reader"], index=dpr_index, question_encoder=models["question"])
    other.encoder.model = DPRQuestionEncoder(config(DPRConfig, projection_dim=4)).eval()
    with pytest.raises(ValueError, match=r"queries have shape \(1, 4\), but \(queries, 16\) was expected"):
        other("who?")


def test_an_index_without_passages_has_no_answer(models: dict[str, str], tmp_path: Path) -> None:
    encoder = load_passage_encoder(models["bert"], "passages")
    build(tmp_path / "x", [Passage("the cat", "d")], encoder.passages, encoder=encoder.name)
    delete(tmp_path / "x", [0])
    for reader in ("qa", "reader"):
        ask = pipeline("open-qa", models[reader], index=tmp_path / "x")
        assert ask("who?") is None and ask("who?", top_k=2) == []


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*argv: object) -> tuple[int, str, str]:
        code = main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for document in documents():
        (folder / f"{document.name[-1]}.txt").write_text(document.text)
    return folder


def test_the_command_from_documents_to_an_answer(
    call: Callable[..., Any], models: dict[str, str], docs: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    code, out, err = call(
        "index", "build", docs, "-o", index, "--model", models["context16"], "--question-encoder", models["question"],
        "--words", 20, "--json",
    )  # fmt: skip
    made = json.loads(out)
    assert code == 0 and err == "" and made["passages"] == made["ids"] == len(list(passages_of(documents(), 20)))
    assert (made["encoder"], made["question_encoder"], made["metric"], made["width"]) == (
        models["context16"], models["question"], "inner-product", 16,
    )  # fmt: skip
    code, out, _ = call("ask", index, QUESTIONS[0], "--model", models["reader"], "--top", 3, "--passages", 4, "--json")
    answers = json.loads(out)["answers"]
    assert code == 0 and answers == pipeline("open-qa", models["reader"], index=index)(
        QUESTIONS[0], top_k=3, passages=4
    )
    for answer in answers:
        assert Path(answer["document"]).read_text()[answer["start"] : answer["end"]] == answer["answer"]
    code, out, err = call("ask", index, QUESTIONS[0], "--model", models["qa"])
    assert (
        code == 0 and "%" in out and "docs/" in out and f"read {min(10, len(PassageIndex(index)))} passages in" in err
    )
    code, out, _ = call("index", "search", index, QUESTIONS[1], "-k", 2, "--json")
    results = json.loads(out)["results"]
    encoder = load_passage_encoder(models["question"], "questions")
    wanted = PassageIndex(index).search(encoder.questions([QUESTIONS[1]]), 2)
    assert code == 0 and [r["id"] for r in results] == wanted.ids[0].tolist()
    assert all(Path(r["document"]).read_text()[r["start"] : r["end"]] == r["text"] for r in results)
    code, out, err = call("index", "search", index, QUESTIONS[1])
    assert code == 0 and results[0]["document"] in out and "searched" in err


def test_run_answers_a_file_of_questions(
    call: Callable[..., Any], models: dict[str, str], dpr_index: str, tmp_path: Path
) -> None:
    """{"question", "answer"} a line, as NQ-open has it."""
    lines = [{"question": question, "answer": ["x"]} for question in QUESTIONS]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, _, _ = call(
        "run", "open-qa", "--model", models["reader"], "--index", dpr_index, "--input", tmp_path / "q.jsonl",
        "--output", tmp_path / "a.jsonl", "--set", "passages=3",
    )  # fmt: skip
    found = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    wanted = pipeline("open-qa", models["reader"], index=dpr_index)(QUESTIONS, passages=3)
    assert code == 0 and found == [line | {"result": answer} for line, answer in zip(lines, wanted, strict=True)]
    code, out, _ = call("run", "open-qa", QUESTIONS[0], "--model", models["reader"], "--index", dpr_index)
    assert code == 0 and "doc " in out
    code, _, err = call("run", "open-qa", QUESTIONS[0], "--model", models["reader"])
    assert code == 2 and "open-qa wants --index" in err


def test_the_command_adds_deletes_and_speeds_up(
    call: Callable[..., Any], models: dict[str, str], docs: Path, tmp_path: Path
) -> None:
    pytest.importorskip("faiss")
    assert tuple(faiss_kinds.KINDS) == index_command.KINDS
    index = tmp_path / "index"
    assert call("index", "build", docs, "-o", index, "--model", models["bert"], "--faiss", "hnsw")[0] == 0
    count = len(PassageIndex(index))
    (docs / "0.txt").write_text("a new text")
    code, out, _ = call("index", "add", index, docs / "0.txt", "--replace", "--json")
    made = json.loads(out)
    assert code == 0 and made["added"] == 1 and made["passages"] == count and made["ids"] == count + 1
    assert made["faiss"]["kind"] == "hnsw"
    code, out, _ = call("index", "delete", index, "--document", docs / "1.txt", "--id", 0, "--json")
    assert code == 0 and json.loads(out)["deleted"] == 1
    code, out, _ = call("index", "faiss", index, "none")
    assert code == 0 and "exact search" in out and not list(index.glob("faiss*"))
    code, out, _ = call("index", "info", index, "--verify")
    assert code == 0 and "every byte is what was written" in out and "2 of them deleted" in out
    code, out, _ = call("index", "info", index, "--json", "--verify")
    assert json.loads(out)["verified"] is True


def test_the_command_says_what_is_wrong(
    call: Callable[..., Any], models: dict[str, str], docs: Path, tmp_path: Path
) -> None:
    index, empty = tmp_path / "index", tmp_path / "empty"
    empty.mkdir()
    assert call("index", "build", docs, "-o", index, "--model", models["bert"])[0] == 0
    for argv, code, said in [
        (("index",), 2, "required: ACTION"),
        (("index", "build", docs), 2, "required: -o/--output"),
        (("index", "build", docs, "-o", "y", "--model", models["context"]), 2, "DPR has a model for each side"),
        (("index", "delete", index), 2, "say what to delete: --id or --document"),
        (("ask", index, "who?"), 2, "ask has no default model: name a reader"),
        (("index", "build", docs, "-o", index, "--model", models["bert"]), 1, "already has an index: add to it"),
        (("index", "build", docs, "-o", docs, "--model", models["bert"]), 1, "has other files"),
        (("index", "build", empty, "-o", tmp_path / "y", "--model", models["bert"]), 1, "there is no passage"),
        (("index", "build", tmp_path / "no", "-o", tmp_path / "y", "--model", models["bert"]), 1, "there is no file"),
        (("index", "add", index, empty), 1, "there is no text in"),
        (("index", "search", docs, "x"), 1, "there is no index in"),
        (("index", "delete", index, "--document", "nope"), 1, "no passage of a document 'nope'"),
        (("ask", index, "who?", "--model", models["bert"]), 1, "polyformer: "),
    ]:
        got, out, err = call(*argv)
        assert (got, out) == (code, ""), (argv, err)
        assert said in err and err.count("\n") == 1 and "Traceback" not in err, err


def test_ctrl_c_keeps_what_is_done(
    call: Callable[..., Any], models: dict[str, str], docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingVectors, "passages", interrupted)
        code, out, err = call("index", "build", docs, "-o", tmp_path / "x", "--model", models["bert"])
    assert code == 130 and out == "" and "the same command goes on from there" in err
    assert call("index", "build", docs, "-o", tmp_path / "x", "--model", models["bert"])[0] == 0


def test_an_interrupted_build_loses_a_block_that_suits_the_device(
    call: Callable[..., Any], models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, sizes = EmbeddingVectors.passages, []

    def interrupted(self: EmbeddingVectors, passages: list[Passage]) -> np.ndarray:
        if len(sizes) == 2:
            raise KeyboardInterrupt
        sizes.append(len(passages))
        return encode(self, passages)

    monkeypatch.setattr(EmbeddingVectors, "passages", interrupted)
    (tmp_path / "a.jsonl").write_text('{"text": "the red fox"}\n' * 100)
    argv = ("index", "build", tmp_path / "a.jsonl", "-o", tmp_path / "x", "--model", models["bert"], "--device", "cpu")
    code, _, err = call(*argv)
    assert code == 130 and sizes == [block_on(torch.device("cpu"))] * 2 and f"{sum(sizes)} passages of this work" in err
    assert block_on(torch.device("cpu")) < block_on(torch.device("cuda")) == BLOCK


@pytest.mark.parametrize(
    "argv", [("index",), ("ask",), *(("index", a) for a in "build search add delete faiss info".split())]
)
def test_help_has_examples(call: Callable[..., Any], argv: tuple[str, ...]) -> None:
    code, out, err = call(*argv, "--help")
    assert code == 0 and err == "" and out.partition("examples:")[2].count("polyformer ") >= 2
    assert all(len(line) <= 120 for line in out.splitlines())


def test_questions_that_were_asked_of_folders_with_relative_names(
    call: Callable[..., Any], models: dict[str, str], docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index names its model so that it is found from anywhere."""
    monkeypatch.chdir(Path(models["bert"]).parent)
    assert call("index", "build", docs, "-o", tmp_path / "x", "--model", "bert")[0] == 0
    monkeypatch.chdir(tmp_path)
    assert call("index", "search", "x", "who?", "--json")[0] == 0
    assert os.path.isabs(PassageIndex("x").meta.encoder)
