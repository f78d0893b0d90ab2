"""Labels, entities, answers and choices: pipelines against sums by hand, brute force, and the live peer."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyformer import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertTokenizer,
    pipeline,
)
from polyformer.cli import main
from polyformer.metrics.squad import exact, f1, squad
from polyformer.pipelines.question_answering import candidates, squad_examples
from polyformer.pipelines.rows import OVERLAP, Piece, merged, speaker, windows

WORDS = "the a cat dog sat ran on mat road fast slow red blue is was in of and paris france who where".split()
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *".,?!-", "##s", "##ing", "##ville", "##mat"]
SHORT = [
    "the cat sat",
    "a dog ran fast on the road .",
    "red",
    "matmat sits in parisville, the cats!",
    "Cats' mats-and zebra dogs",
]
LONG = "the cat sat on the mat . a dog was slow and red , who ran in paris ? " * 4
LIMIT = 32


@pytest.fixture(scope="module")
def tok(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizer:
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(VOCAB) + "\n")
    return BertTokenizer(path, model_max_length=LIMIT)


def tiny(cls: Any, **changes: Any) -> Any:
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(VOCAB), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=LIMIT, initializer_range=0.4, **changes,
    )  # fmt: skip
    return cls(config).eval()


def logits(model: Any, tok: BertTokenizer, text: str, pair: str | None = None) -> torch.Tensor:
    with torch.no_grad():
        return model(**tok(text, pair, return_tensors="pt")).logits[0]


def near(value: Any) -> Any:
    """The same answer but for the last digits, which batches of another shape change."""
    if isinstance(value, float):
        return pytest.approx(value, abs=1e-5)
    if isinstance(value, dict):
        return {name: near(one) for name, one in value.items()}
    return [near(one) for one in value] if isinstance(value, list) else value


def saved(model: Any, tok: BertTokenizer, folder: Path) -> Path:
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


# ---------------------------------------------------------------------------------------------------------- long texts


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 25))
def test_windows_cover_a_text_and_overlap_as_asked(count: int, room: int, overlap: int) -> None:
    cuts = windows(count, room, overlap)
    assert sorted({i for start, stop in cuts for i in range(start, stop)}) == list(range(count))
    assert all(stop - start <= room for start, stop in cuts)
    shared = min(overlap, room - 1)
    assert all(a[1] - b[0] == shared for a, b in itertools.pairwise(cuts))
    assert len(cuts) == 1 or cuts[-2][1] < count  # none in vain


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 19))
def test_every_token_is_judged_where_it_has_most_context(count: int, room: int, overlap: int) -> None:
    cuts = windows(count, room, overlap)

    def context(token: int, cut: tuple[int, int]) -> float:
        if not cut[0] <= token < cut[1]:
            return -1
        left = token - cut[0] if cut[0] else float("inf")
        right = cut[1] - 1 - token if cut[1] < count else float("inf")
        return min(left, right)

    chosen = speaker(cuts)
    for token in range(count):
        every = [context(token, cut) for cut in cuts]
        assert every[chosen[token]] == max(every)


def pieces(cuts: list[tuple[int, int]], results: list[np.ndarray]) -> list[Piece]:
    """Windows of a text with [CLS] and [SEP] around them, ids that are token numbers + 10."""
    made = []
    for (start, stop), result in zip(cuts, results, strict=True):
        places = np.array([-1, *range(start, stop), -1])
        row = Piece([2, *range(10 + start, 10 + stop), 3], places=places, cut=(start, stop))
        row.result = result
        made.append(row)
    return made


def test_windows_are_put_together_token_by_token() -> None:
    cuts = windows(23, 8, 3)
    rows = pieces(cuts, [np.arange(start - 1, stop + 1)[:, None] * [1.0, 100.0] for start, stop in cuts])
    assert merged(rows).tolist() == [[i, 100 * i] for i in range(23)]


def test_states_and_guesses_of_a_long_text_come_from_where_a_token_has_most_context(tok: BertTokenizer) -> None:
    model = tiny(BertForMaskedLM)
    text = LONG.replace("dog", "[MASK]s")
    ids = tok(text, add_special_tokens=False)["input_ids"]
    cuts = windows(len(ids), LIMIT - 2, OVERLAP)
    speaks = speaker(cuts)
    with torch.no_grad():
        rows = [torch.tensor([[2, *ids[start:stop], 3]]) for start, stop in cuts]
        states = [model.base_model(row).last_hidden_state[0] for row in rows]
        scores = [model(row).logits[0].softmax(-1) for row in rows]
    want = [states[0][0], *(states[n][1 + i - cuts[n][0]] for i, n in enumerate(speaks)), states[-1][-1]]
    got = pipeline("feature-extraction", model.base_model, tokenizer=tok)(text, on_long="window", return_tensors="pt")
    torch.testing.assert_close(got[0], torch.stack(want), rtol=1e-4, atol=1e-5)
    fill = pipeline("fill-mask", model, tokenizer=tok)
    places = [i for i, id in enumerate(ids) if id == tok.mask_token_id]
    found = fill(text, on_long="window", top_k=1)
    assert len(found) == len(places) == 4
    for (guess,), place in zip(found, places, strict=True):
        row = scores[speaks[place]][1 + place - cuts[speaks[place]][0]]
        assert (guess["token"], guess["score"]) == (int(row.argmax()), pytest.approx(float(row.max()), abs=1e-5))


def test_the_whole_word_around_a_mask(tok: BertTokenizer) -> None:
    fill = pipeline("fill-mask", tiny(BertForMaskedLM), tokenizer=tok)
    for text, target, word in (
        ("the [MASK] , sat", "cat", "cat"),
        ("in paris[MASK] .", "##ville", "parisville"),
        ("red-[MASK] ?", "mat", "mat"),
        ("parisville [MASK] the", "##ing", "parisvilleing"),
    ):
        assert fill(text, targets=target)[0]["word"] == word


# ---------------------------------------------------------------------------------------------------- labels of a text


@pytest.mark.parametrize(
    "changes, function",
    [
        ({"num_labels": 3}, lambda x: x.softmax(-1)),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, torch.sigmoid),
        ({"num_labels": 1}, torch.sigmoid),
        ({"num_labels": 1, "problem_type": "regression"}, lambda x: x),
    ],
)
def test_labels_are_the_models_own(tok: BertTokenizer, changes: Any, function: Any) -> None:
    model = tiny(BertForSequenceClassification, **changes)
    pipe = pipeline("sentiment-analysis", model, tokenizer=tok)
    pairs = [("the cat sat", "on the mat"), ("a dog", "red ?")]
    for text, pair in [*((text, None) for text in SHORT), *pairs]:
        want = function(logits(model, tok, text, pair))
        given = text if pair is None else {"text": text, "text_pair": pair}
        (got,) = pipe(given)
        assert got["label"] == f"LABEL_{int(want.argmax())}"
        assert got["score"] == pytest.approx(float(want.max()), abs=1e-5)
        every = pipe(given, top_k=None)
        assert [one["score"] for one in every] == pytest.approx(sorted(want.tolist(), reverse=True), abs=1e-5)
        inorder = pipe(given, return_all_scores=True)
        assert [one["label"] for one in inorder] == [f"LABEL_{i}" for i in range(len(want))]
    assert pipe(pairs) == near([pipe({"text": a, "text_pair": b})[0] for a, b in pairs])
    assert list(pipe(text for text in SHORT)) == near(pipe(SHORT))


def test_same_labels_as_transformers(tok: BertTokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = saved(tiny(BertForSequenceClassification, num_labels=3), tok, tmp_path)
    peer, ours = (make("text-classification", str(folder), device=-1) for make in (transformers.pipeline, pipeline))
    for text in SHORT:
        for got, want in zip(ours(text, top_k=None), peer(text, top_k=None), strict=True):
            assert got["label"] == want["label"]
            assert got["score"] == pytest.approx(want["score"], abs=1e-5)


def test_windows_of_a_long_text_weigh_as_much_as_they_have_tokens(tok: BertTokenizer) -> None:
    model = tiny(BertForSequenceClassification, num_labels=3)
    pipe = pipeline("text-classification", model, tokenizer=tok)
    ids = tok(LONG, add_special_tokens=False)["input_ids"]
    cuts = windows(len(ids), LIMIT - 2, 64)
    total, weight = torch.zeros(3), 0
    for start, stop in cuts:
        row = torch.tensor([[2, *ids[start:stop], 3]])
        with torch.no_grad():
            total += model(row).logits[0] * row.shape[1]
        weight += row.shape[1]
    want = (total / weight).softmax(-1)
    assert pipe(LONG, on_long="window")[0]["score"] == pytest.approx(float(want.max()), abs=1e-5)
    cut = tok.decode(ids[: LIMIT - 2])
    assert pipe(LONG, truncation=True)[0]["score"] == pytest.approx(pipe(cut)[0]["score"], abs=1e-5)
    with pytest.raises(ValueError, match="text 1 has 78 tokens, and this model takes 32: pass on_long='window'"):
        pipe(["red", LONG])
    with pytest.raises(ValueError, match="contradict"):
        pipe(LONG, truncation=True, on_long="window")


def test_long_pairs_are_cut_as_the_tokenizer_cuts_them(tok: BertTokenizer) -> None:
    model = tiny(BertForSequenceClassification, num_labels=3)
    pipe = pipeline("text-classification", model, tokenizer=tok)
    for a, b in ((LONG, "red dog"), ("red dog", LONG), (LONG, LONG)):
        with torch.no_grad():
            row = tok(a, b, truncation=True, max_length=LIMIT, return_tensors="pt")
            want = model(**row).logits[0].softmax(-1)
        got = pipe({"text": a, "text_pair": b}, truncation=True)[0]["score"]
        assert got == pytest.approx(float(want.max()), abs=1e-5)
    assert 0 < pipe({"text": "red dog", "text_pair": LONG}, on_long="window")[0]["score"] < 1


@pytest.mark.parametrize("wrong", [3, {"txt": "a"}, ["a", 3], {"text": "a", "text_pair": 3}])
def test_what_is_no_text_is_named(tok: BertTokenizer, wrong: Any) -> None:
    pipe = pipeline("text-classification", tiny(BertForSequenceClassification), tokenizer=tok)
    with pytest.raises(TypeError, match=r"text 1 is a (int|dict|list): give a str, a pair"):
        pipe(["the cat", wrong])


# ---------------------------------------------------------------------------------------------------------- zero shot

NLI = {0: "contradiction", 1: "neutral", 2: "entailment"}


@pytest.mark.parametrize("names", [NLI, {0: "ENTAILMENT", 1: "NEUTRAL", 2: "CONTRADICTION"}])
def test_zero_shot_reads_its_labels_by_name(tok: BertTokenizer, names: dict[int, str]) -> None:
    model = tiny(BertForSequenceClassification, id2label=names)
    pipe = pipeline("zero-shot-classification", model, tokenizer=tok)
    numbers = {name.lower()[:5]: number for number, name in names.items()}
    labels, template = ["cat", "red dog", "paris"], "the {} was in the road ."
    for text in SHORT:
        rows = torch.stack([logits(model, tok, text, template.format(label)) for label in labels])
        among = rows[:, numbers["entai"]].softmax(0)
        alone = rows[:, [numbers["contr"], numbers["entai"]]].softmax(-1)[:, 1]
        for multi, want in ((False, among), (True, alone)):
            got = pipe(text, labels, hypothesis_template=template, multi_label=multi)
            assert got["sequence"] == text
            assert dict(zip(got["labels"], got["scores"], strict=True)) == pytest.approx(
                dict(zip(labels, want.tolist(), strict=True)), abs=1e-5
            )
            assert got["scores"] == sorted(got["scores"], reverse=True)
    assert pipe(SHORT, "cat, red dog,paris", hypothesis_template=template) == near(
        [pipe(text, labels, hypothesis_template=template) for text in SHORT]
    )


def test_zero_shot_same_as_transformers(tok: BertTokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = saved(
        tiny(BertForSequenceClassification, id2label=NLI, label2id={n: i for i, n in NLI.items()}), tok, tmp_path
    )
    peer, ours = (
        make("zero-shot-classification", str(folder), device=-1) for make in (transformers.pipeline, pipeline)
    )
    for text, multi in itertools.product(SHORT, (False, True)):
        got, want = (pipe(text, ["cat", "dog", "red"], multi_label=multi) for pipe in (ours, peer))
        assert got["labels"] == want["labels"]
        assert got["scores"] == pytest.approx(want["scores"], abs=1e-5)


def test_zero_shot_refuses_a_model_of_something_else(tok: BertTokenizer) -> None:
    with pytest.raises(ValueError, match="one label called entailment"):
        pipeline("zero-shot-classification", tiny(BertForSequenceClassification), tokenizer=tok)
    pipe = pipeline("zero-shot-classification", tiny(BertForSequenceClassification, id2label=NLI), tokenizer=tok)
    with pytest.raises(ValueError, match="has no {} to put a label in"):
        pipe("red", ["cat"], hypothesis_template="about cats")
    with pytest.raises(ValueError, match="at least one label"):
        pipe("red", [])


# ------------------------------------------------------------------------------------------------------ labels of words

TAGS = dict(enumerate(("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "X")))


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_same_entities_as_transformers(tok: BertTokenizer, tmp_path: Path, strategy: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder = saved(
        tiny(BertForTokenClassification, id2label=TAGS, label2id={n: i for i, n in TAGS.items()}), tok, tmp_path
    )
    peer, ours = (make("token-classification", str(folder), device=-1) for make in (transformers.pipeline, pipeline))
    drawn = random.Random(0)
    texts = [" ".join(drawn.choices([*WORDS, "cats", "parisville", "sat,", "zebra"], k=12)) for _ in range(30)]
    for text in [*SHORT, *texts]:
        got, want = (pipe(text, aggregation_strategy=strategy) for pipe in (ours, peer))
        assert [{**one, "score": 0} for one in got] == [{**one, "score": 0} for one in want]
        assert [one["score"] for one in got] == pytest.approx([float(one["score"]) for one in want], abs=1e-5)


def test_words_given_apart_and_windows(tok: BertTokenizer) -> None:
    model = tiny(BertForTokenClassification, id2label=TAGS)
    pipe = pipeline("ner", model, tokenizer=tok)
    words = ["cats", "in", "parisville", ",", "the", "mats"]
    text = " ".join(words)
    assert pipe(words, is_split_into_words=True) == near(pipe(text))
    assert pipe([words, ["red"]], is_split_into_words=True) == near(pipe([text, "red"]))
    found = pipe(LONG, on_long="window", stride=10, ignore_labels=())
    ids = tok(LONG, add_special_tokens=False)["input_ids"]
    cuts = windows(len(ids), LIMIT - 2, 10)
    assert [LONG[one["start"] : one["end"]] for one in found] == LONG.split()
    for i, chosen in enumerate(speaker(cuts)):
        start, stop = cuts[chosen]
        with torch.no_grad():
            row = model(torch.tensor([[2, *ids[start:stop], 3]])).logits[0].softmax(-1)[1 + i - start]
        assert found[i]["score"] == pytest.approx(float(row.max()), abs=1e-5)
    with pytest.raises(ValueError, match="on_long='window' to read it piece by piece"):
        pipe(LONG)
    with pytest.raises(TypeError, match="not a list of words"):
        pipe([["a"], "the cat"], is_split_into_words=True)


# -------------------------------------------------------------------------------------------------------------- answers


def by_definition(
    model: Any, tok: BertTokenizer, question: str, context: str, longest: int
) -> list[tuple[float, int, int]]:
    """(probability, start, end) of every span of a short context: two softmaxes over its tokens and [CLS]."""
    made = tok(question, context, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**made)
    inside = [i for i, side in enumerate(made.sequence_ids(0)) if side == 1]
    spans = tok(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    start, end = (x[0, [0, *inside]].softmax(0)[1:].tolist() for x in (outputs.start_logits, outputs.end_logits))
    found = [
        (start[i] * end[j], spans[i][0], spans[j][1])
        for i in range(len(inside))
        for j in range(i, min(i + longest, len(inside)))
    ]
    return sorted(found, reverse=True)


def test_answers_are_the_best_spans(tok: BertTokenizer) -> None:
    model = tiny(BertForQuestionAnswering)
    pipe = pipeline("question-answering", model, tokenizer=tok)
    for question, context in (
        ("who sat ?", SHORT[1]),
        ("where is the cat ?", "the cat sat in paris , france ."),
        ("who ?", "red"),
    ):
        want = by_definition(model, tok, question, context, 3)
        got = pipe(question=question, context=context, top_k=50, max_answer_len=3, align_to_words=False)
        assert [(a["start"], a["end"]) for a in got] == [pair[1:] for pair in want][:50]
        assert [a["score"] for a in got] == pytest.approx([pair[0] for pair in want][:50], abs=1e-6)
        assert all(context[a["start"] : a["end"]] == a["answer"] for a in got)
        assert pipe({"question": question, "context": context}, max_answer_len=3, align_to_words=False) == near(got[0])


@given(st.integers(1, 40), st.integers(3, 12), st.integers(0, 6), st.integers(1, 6), st.integers(0, 99))
def test_windows_of_a_context_are_one_competition(count: int, room: int, overlap: int, longest: int, seed: int) -> None:
    """Every span that lies in the window where its first token has most context, under one softmax over all tokens."""
    drawn = np.random.default_rng(seed)
    cuts = windows(count, room, overlap)
    rows = pieces(cuts, [drawn.normal(size=(stop - start + 2, 2)) for start, stop in cuts])
    got, null = candidates(rows, 2, longest, 10**6)
    speaks = speaker(cuts)
    quiet = min((row.result[0] for row in rows), key=sum)  # surest that there is an answer
    whole = merged(rows)
    total = [np.log(np.exp(whole[:, side]).sum() + np.exp(quiet[side])) for side in (0, 1)]
    want = {}
    for i in range(count):
        start, stop = cuts[speaks[i]]
        result = rows[speaks[i]].result[1:-1]
        for j in range(i, min(i + longest, stop)):
            want[i, j] = result[i - start, 0] + result[j - start, 1] - sum(total)
    assert {(span.first, span.last): pytest.approx(span.score) for span in got} == want
    assert null == pytest.approx(sum(quiet) - sum(total))
    assert [span.score for span in got] == sorted((span.score for span in got), reverse=True)


def test_no_answer_and_its_threshold(tok: BertTokenizer) -> None:
    model = tiny(BertForQuestionAnswering)
    pipe = pipeline("question-answering", model, tokenizer=tok)
    example = {"question": "who ?", "context": SHORT[1]}
    best = pipe(example)
    assert best["answer"]
    silent = {"score": pytest.approx(0, abs=1), "start": 0, "end": 0, "answer": ""}
    assert pipe(example, handle_impossible_answer=True, null_threshold=-1e9) == silent
    assert pipe(example, handle_impossible_answer=True, null_threshold=1e9) == near(best)
    model.config.extra["null_score_diff_threshold"] = -1e9
    assert pipe(example, handle_impossible_answer=True) == silent
    assert pipe(example) == near(best)  # only where it is asked for
    several = pipe(example, handle_impossible_answer=True, top_k=500, align_to_words=False)
    count = len(tok(SHORT[1], add_special_tokens=False)["input_ids"])
    assert len(several) == 1 + count * (count + 1) // 2
    assert len({(a["start"], a["end"], a["answer"]) for a in several}) == len(several)


def test_answers_in_long_texts_and_whole_words(tok: BertTokenizer) -> None:
    pipe = pipeline("question-answering", tiny(BertForQuestionAnswering), tokenizer=tok)
    context = "  cats sat , parisville was red ;\n" * 12
    words = {(m.start(), m.end()) for m in __import__("re").finditer(r"\w+|[^\w\s]", context)}
    found = pipe(question="who sat ?", context=context, top_k=40)
    assert len({(a["start"], a["end"]) for a in found}) == len(found) == 40
    for answer in found:
        assert context[answer["start"] : answer["end"]] == answer["answer"] == answer["answer"].strip()
        assert answer["start"] in {start for start, _ in words} and answer["end"] in {end for _, end in words}
    batch = [{"question": "who sat ?", "context": context}, {"question": "where ?", "context": "the cat"}]
    together = pipe(batch)
    assert [a["answer"] for a in together] == [pipe(one)["answer"] for one in batch]
    assert list(pipe(iter(batch))) == near(together)
    asked = pipe(question=["who sat ?", "where ?"], context=[context, "the cat"])
    assert asked == near(together)
    with pytest.raises(ValueError, match="on_long='window'"):
        pipe(batch[0], on_long="error")


@pytest.mark.parametrize(
    "example, message",
    [
        ({"question": "who ?", "context": " "}, "the context of the text is empty"),
        ({"question": "", "context": "red"}, "the question of the text is empty"),
        ({"question": "who ?"}, "the text has no str as its context"),
        ("who ?", "the text has no str as its question"),
        ({"question": "who " * 80, "context": "red"}, "the question of the text has 80 tokens"),
    ],
)
def test_bad_questions(tok: BertTokenizer, example: Any, message: str) -> None:
    pipe = pipeline("question-answering", tiny(BertForQuestionAnswering), tokenizer=tok)
    with pytest.raises((TypeError, ValueError), match=message):
        pipe(example)


def test_squad_scores_by_hand() -> None:
    assert exact("The  Cat!", "cat") == 1 and exact("cat", "cats") == 0
    assert f1("the black cat", "a cat sat") == pytest.approx(2 * (1 / 2) * (1 / 2) / (1 / 2 + 1 / 2))
    assert f1("", "") == 1 and f1("cat", "") == 0 and f1("dog dog cat", "dog") == pytest.approx(0.5)
    examples = [{"id": 1, "answers": ["cat", "black cat"]}, {"id": 2, "answers": []}, {"id": 3, "answers": ["x"]}]
    got = squad({"1": "the black cat", "2": ""}, examples)
    assert got["exact"] == pytest.approx(200 / 3) and got["HasAns_exact"] == 50 and got["NoAns_f1"] == 100
    assert got["total"] == 3


def test_squad_scores_of_published_predictions(shared: Path) -> None:
    data = json.loads((shared / "data/qa-xquad/xquad.en.json").read_text())
    examples = list(squad_examples(data))
    said = json.loads((shared / "data/qa-squad/predictions-v1.1-bert-ensemble-dev.json").read_text())
    got = squad(said, examples)
    assert (got["total"], round(got["exact"], 2), round(got["f1"], 4)) == (1190, 74.87, 86.3247)


# -------------------------------------------------------------------------------------------------------------- choices


def test_choices_are_scored_side_by_side(tok: BertTokenizer) -> None:
    model = tiny(BertForMultipleChoice)
    pipe = pipeline("multiple-choice", model, tokenizer=tok)
    choices = ["on the mat", "red", "in paris , france ."]
    made = tok(["the cat sat"] * 3, choices, padding=True, return_tensors="pt")
    with torch.no_grad():
        want = model(**{name: value[None] for name, value in made.items()}).logits[0].softmax(0)
    got = pipe("the cat sat", choices)
    assert got["scores"] == pytest.approx(want.tolist(), abs=1e-5)
    assert got["index"] == int(want.argmax()) and got["choice"] == choices[got["index"]]
    rows = [{"text": text, "choices": choices[: 2 + i % 2]} for i, text in enumerate(SHORT)]
    assert [a["index"] for a in pipe(rows)] == [pipe(row)["index"] for row in rows]
    with pytest.raises(ValueError, match="text 0 has 1 choices: give at least two"):
        pipe([{"text": "a", "choices": ["b"]}])
    with pytest.raises(TypeError, match="no text with choices"):
        pipe(["a"])


def test_similarity_is_the_cosine_of_the_vectors(minilm: Path) -> None:
    pipe = pipeline("sentence-similarity", str(minilm), device="cpu")
    source, others = "A man is eating food.", ["A man eats.", "The sky is blue.", "A man is eating food."]
    a, b = pipe.encoder.encode(source), pipe.encoder.encode(others)
    want = (b @ a / np.linalg.norm(a) / np.linalg.norm(b, axis=1)).tolist()
    assert pipe(source, others) == pytest.approx(want, abs=1e-6)
    assert pipe(source, others)[2] == pytest.approx(1, abs=1e-5)
    assert pipe(source, others[0]) == pytest.approx(want[0], abs=1e-6)
    row = {"source_sentence": source, "sentences": others}
    assert pipe([row, row])[1] == pytest.approx(want, abs=1e-6)
    with pytest.raises(TypeError, match="text 1 is no sentence with others"):
        pipe([row, "a"])


# ---------------------------------------------------------------------------------------------------------- the command


def test_the_command_runs_a_file(tok: BertTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tiny(BertForQuestionAnswering), tok, tmp_path / "model")
    rows = [{"id": i, "question": "who ?", "context": text} for i, text in enumerate(SHORT)]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["run", "question-answering", "--model", str(folder), "--device", "cpu"]
    assert main([*given, "--input", str(source), "--output", str(target), "--set", "max_answer_len=2"]) == 0
    want = pipeline("question-answering", str(folder), device="cpu")(rows, max_answer_len=2)
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert found == near([{**row, "result": answer} for row, answer in zip(rows, want, strict=True)])
    assert main([*given[:2], SHORT[0], *given[2:], "--question", "who ?", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["text"] == SHORT[0]
    before = target.read_bytes()
    source.write_text(json.dumps(rows[0]) + "\n{broken\n")
    assert main([*given, "--input", str(source), "--output", str(target)]) == 1
    assert "line 2 of" in capsys.readouterr().err and target.read_bytes() == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["ner", "a"], "token-classification has no default model"),
        (["nothing", "a"], "there is no task 'nothing'"),
        (["ner", "--model", "x"], "give texts, or --input FILE"),
        (["ner", "a", "--model", "x", "--set", "foo=1"], "token-classification has no option 'foo=1'"),
        (["zero-shot-classification", "a", "--model", "x"], "wants --labels"),
    ],
)
def test_wrong_commands_say_so(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *arguments]) in (1, 2)
    assert message in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------- real weights


@pytest.mark.parametrize(
    ("strategy", "count"), [("simple", 200), ("none", 40), ("first", 40), ("average", 40), ("max", 40)]
)
def test_entities_of_real_sentences_are_the_peer_s(real_weights: Any, shared: Path, strategy: str, count: int) -> None:
    transformers = pytest.importorskip("transformers")
    folder = str(real_weights("rampart-bert-ner"))
    lines = (shared / "data/ner-wnut17/emerging.test.annotated").read_text(encoding="utf-8").split("\n\n")
    texts = [" ".join(row.split("\t")[0] for row in block.strip().split("\n")) for block in lines if block.strip()][
        :count
    ]
    ours = pipeline("token-classification", folder, device="cpu")(texts, aggregation_strategy=strategy)
    peer = transformers.pipeline("token-classification", folder, device="cpu", dtype=torch.float32)
    for got, want in zip(ours, peer(texts, aggregation_strategy=strategy), strict=True):
        assert [{**one, "score": 0} for one in got] == [{**one, "score": 0} for one in want]
        assert [one["score"] for one in got] == pytest.approx([float(one["score"]) for one in want], abs=1e-4)
