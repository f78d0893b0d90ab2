"""DPR's three tokenizers and RAG's pair, against transformers 4.6.1 and by hand."""

import json
import random
import subprocess
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest

import polyformer
from polyformer import AutoTokenizer, BertTokenizer, DPRQuestionEncoderTokenizer, DPRReaderTokenizer, RagTokenizer

WORDS = "who what is it the quick brown fox jumps over a lazy dog ? . ##s ##es".split()
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"bcdefghijklmnopqrstuvwxyz"]
Output = namedtuple("Output", "start_logits end_logits relevance_logits")

REFERENCE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from types import SimpleNamespace
import torch, transformers
folder, cases = json.loads(sys.stdin.read())
reader = transformers.DPRReaderTokenizerFast.from_pretrained(folder)
class Output(tuple):
    start_logits, end_logits, relevance_logits = (property(lambda s, i=i: s[i]) for i in range(3))
answers = []
for columns, options, logits, limits in cases:
    batch = reader(*columns, **options)
    best = None
    if logits:
        best = reader.decode_best_spans(batch, Output(torch.tensor(x, dtype=torch.float64) for x in logits), **limits)
        best = [[*map(float, s[:2]), *s[2:]] for s in best]
    answers.append([dict(batch), best])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("dpr")
    (made / "vocab.txt").write_text("\n".join(VOCAB), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def reader(folder):
    return DPRReaderTokenizer.from_pretrained(folder)


def passages(seed):
    pick = random.Random(seed)
    count = pick.choice([1, 2, 5])
    titles = [pick.choice(["Fox", "a lazy dog", "brown"]) for _ in range(count)]
    texts = [" ".join(pick.choices(WORDS[4:13], k=pick.randint(1, 14))) for _ in range(count)]
    return ["who is it ?"] * count, titles, texts


def scores(reader, batch, seed):
    """Random logits, with ties, so low outside the passage's text that nothing there is chosen."""
    draw = np.random.default_rng(seed)
    shape = np.array(batch["input_ids"]).shape
    starts, ends = (draw.normal(size=shape).round(6 if seed % 3 else 0) for _ in range(2))
    for row, ids in enumerate(batch["input_ids"]):
        second = [i for i, token in enumerate(ids) if token == reader.sep_token_id][1]
        starts[row, : second + 1] = ends[row, : second + 1] = -1e9
    return [starts.tolist(), ends.tolist(), draw.normal(size=shape[0]).tolist()]


def test_as_the_reference(folder, reader, oracle):
    """Rows of triples, cut and padded; the best spans of random scores. Where the reference has run out of spans of the
    text it goes on with the title's, whose scores are hopeless here; those are left out."""
    cases = []
    for seed in range(40):
        batch = reader(*passages(seed), padding=True)
        spans, longest, each = random.Random(seed).choice(list(product([1, 4, 16], [1, 3, 64], [1, 4, 9])))
        limits = {"num_spans": spans, "max_answer_length": longest, "num_spans_per_passage": each}
        cases.append([passages(seed), {"padding": True}, scores(reader, batch, seed), limits])
        more = {"padding": "max_length", "truncation": True, "max_length": 9 + seed % 9}
        cases.append([passages(seed), more, None, None])
    cases.append([["who ?", ["Fox", "a"], ["the dog", "it is ."]], {}, None, None])
    cases.append([["who ?", "Fox"], {}, None, None])
    arguments = [sys.executable, "-s", "-W", "ignore", "-c", REFERENCE, str(oracle.folder)]
    sent = json.dumps([str(folder), cases])
    done = subprocess.run(arguments, input=sent, capture_output=True, text=True, check=True)
    compared = 0
    for (columns, options, logits, limits), (rows, best) in zip(cases, json.loads(done.stdout), strict=True):
        batch = reader(*columns, **options)
        assert dict(batch) == rows
        if best is not None:
            got = [list(span) for span in reader.decode_best_spans(batch, logits, **limits)]
            inside = [span for span in best if span[0] > -1e8]
            if len(inside) == len(best):
                compared += 1
                assert got == inside
    assert compared > 20


def test_spans_by_hand(reader):
    batch = reader("who ?", ["Fox", "a"], ["the quick dog jumps", "it is ."], padding=True)
    assert batch.input_ids[1][:3] == reader.convert_tokens_to_ids(["[CLS]", "who", "?"])
    length = len(batch.input_ids[0])
    starts, ends = np.zeros((2, length)), np.zeros((2, length))
    at = batch.input_ids[0].index(reader.convert_tokens_to_ids("quick"))
    starts[0, at], ends[0, at + 1] = 5, 4
    title = batch.input_ids[0].index(reader.convert_tokens_to_ids("fox"))
    starts[0, title] = ends[0, title] = 99
    best = reader.decode_best_spans(batch, Output(starts, ends, np.array([1.0, -1.0])), num_spans=1)
    assert best == [polyformer.DPRSpanPrediction(9.0, 1.0, 0, at, at + 1, "quick dog")], "answers are not in titles"
    rest = reader.decode_best_spans(batch, (starts, ends, np.array([1.0, -1.0])), 99, 2, 99)
    for one, other in product(rest, rest):
        nested = one.start_index <= other.start_index and other.end_index <= one.end_index
        assert one is other or one.doc_id != other.doc_id or not nested
    assert all(span.end_index - span.start_index < 2 for span in rest)
    assert [span.relevance_score for span in rest] == sorted((s.relevance_score for s in rest), reverse=True)


def test_the_reader_s_call(reader):
    assert set(reader("who ?", "a", "the dog")) == {"input_ids", "attention_mask"}
    assert reader.tokenize("Who is it?") == ["who", "is", "it", "?"]
    assert reader.encode("who", "it") == reader("who", texts="it")["input_ids"] == reader("who", "it")["input_ids"]
    assert reader("who ?", "a", "the dog", return_tensors="pt").input_ids.shape == (1, 8)
    assert len(reader("who ?", "a", "dog " * 99, truncation=True, max_length=20).input_ids[0]) == 20
    assert len(reader("who ?", "a", "dog " * 99, max_length=20).input_ids[0]) == 105, "max_length alone does not cut"
    with pytest.raises(ValueError, match="there are 1 questions, 2 titles and 1 texts"):
        reader(["who"], ["a", "b"], ["x"])
    with pytest.raises(TypeError, match="title 0 is 3"):
        reader("who", [3], ["x"])
    with pytest.raises(TypeError, match="no argument 'stride'"):
        reader("who", "a", "x", stride=1)
    with pytest.raises(ValueError, match="no second"):
        reader.decode_best_spans({"input_ids": [[2, 5, 3]]}, ([[0] * 3], [[0] * 3], [0]))
    with pytest.raises(ValueError, match="has 1 passages"):
        reader.decode_best_spans(reader("who", "a", "x"), ([], [], []))


# ------------------------------------------------------------------------------------------------------------ RAG


@pytest.fixture
def rag(folder, tmp_path):
    (tmp_path / "cased.txt").write_text("\n".join([*VOCAB, "Fox"]), encoding="utf-8")
    asks = DPRQuestionEncoderTokenizer(folder / "vocab.txt", model_max_length=12)
    return RagTokenizer(asks, BertTokenizer(tmp_path / "cased.txt", do_lower_case=False, model_max_length=6))


def test_rag_asks_with_one_and_writes_with_the_other(rag):
    written = rag.generator("Fox dog")["input_ids"]
    assert rag("Fox")["input_ids"] == rag.question_encoder("fox")["input_ids"]
    assert rag.decode(written, skip_special_tokens=True) == "Fox dog"
    assert rag.batch_decode([written], skip_special_tokens=True) == ["Fox dog"]
    with rag.as_target_tokenizer():
        assert rag("Fox")["input_ids"] == rag.generator("Fox")["input_ids"]
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(rag, "Fox").result() == rag.question_encoder("Fox"), "another thread asks"
    assert rag.current_tokenizer is rag.question_encoder
    batch = rag.prepare_seq2seq_batch(["who is it ?", "a " * 30], ["Fox", "dog " * 30], return_tensors="np")
    assert batch.input_ids.shape == (2, 12) and batch.labels.shape == (2, 6)
    assert batch.labels[0].tolist()[:3] == rag.generator("Fox")["input_ids"]


@pytest.mark.parametrize("told_by", ["tokenizer_config.json", "config.json"])
def test_rag_saves_and_loads(rag, told_by, tmp_path):
    paths = rag.save_pretrained(tmp_path)
    assert {p.split("/")[-2] for p in paths} == {"question_encoder_tokenizer", "generator_tokenizer"}
    kinds = {"model_type": "rag", "question_encoder": {"model_type": "dpr"}, "generator": {"model_type": "bert"}}
    (tmp_path / "config.json").write_text(json.dumps(kinds if told_by == "config.json" else {"model_type": "rag"}))
    if told_by == "config.json":
        for part in ("question_encoder", "generator"):
            path = tmp_path / f"{part}_tokenizer" / "tokenizer_config.json"
            path.write_text(
                json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "tokenizer_class"})
            )
    for loaded in (RagTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert type(loaded.question_encoder) is DPRQuestionEncoderTokenizer and type(loaded.generator) is BertTokenizer
        assert loaded("Fox ?") == rag("Fox ?") and loaded.generator("Fox") == rag.generator("Fox")
