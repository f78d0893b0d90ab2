"""The reference answers: BERT's classes through it, and its errors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from oracle import Carry, Oracle, OracleError, why_not
from oracle.build import unsupported
from oracle.wire import read, write

TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
IDS = torch.tensor([[2, 5, 7, 11, 3], [2, 9, 3, 0, 0]])
MASK = (IDS != 0).long()


def test_a_tiny_bert_gives_sane_outputs(oracle: Oracle) -> None:
    weights = oracle.init("BertModel", TINY, seed=1)
    assert weights["embeddings.word_embeddings.weight"].shape == (40, 16)
    asked = {"input_ids": IDS, "attention_mask": MASK, "output_attentions": True, "output_hidden_states": True}
    got = oracle.run("BertModel", TINY, weights, asked)
    states = {f"hidden_states.{i}" for i in range(3)}
    assert set(got) == states | {"last_hidden_state", "pooler_output", "attentions.0", "attentions.1"}
    assert got["last_hidden_state"].shape == (2, 5, 16)
    assert got["last_hidden_state"].dtype == torch.float64
    assert 0.3 < got["last_hidden_state"].std() < 3
    torch.testing.assert_close(got["attentions.0"].sum(-1), torch.ones(2, 4, 5, dtype=torch.float64))
    assert got["attentions.0"][1, :, :3, 3:].max() < 1e-9
    tuples = oracle.run("BertModel", TINY, weights, asked | {"return_dict": False})
    torch.testing.assert_close(tuples["2.1"], got["hidden_states.1"], rtol=0, atol=0)
    single = oracle.run("BertModel", TINY, weights, {"input_ids": IDS[1:, :3]}, dtype=torch.float32)
    assert single["pooler_output"].dtype == torch.float32
    torch.testing.assert_close(single["pooler_output"].double(), got["pooler_output"][1:], rtol=1e-4, atol=1e-5)


def test_a_seed_repeats_and_another_does_not(oracle: Oracle) -> None:
    one, same, other = (oracle.init("BertModel", TINY, seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["pooler.dense.weight"], other["pooler.dense.weight"])


def test_pretraining_loss_and_gradients(oracle: Oracle) -> None:
    weights = oracle.init("BertForPreTraining", TINY)
    inputs = {"input_ids": IDS, "labels": IDS.masked_fill(MASK == 0, -100), "next_sentence_label": torch.tensor([0, 1])}
    got = oracle.run("BertForPreTraining", TINY, weights, inputs, grad=True, train=True)
    assert got["loss"].dim() == 0
    tied = got["grad.bert.embeddings.word_embeddings.weight"]
    assert tied.shape == (40, 16)
    assert "grad.cls.predictions.decoder.weight" not in got  # one parameter, named once
    del weights["cls.predictions.decoder.weight"]  # as files with shared tensors left out have it
    again = oracle.run("BertForPreTraining", TINY, weights, inputs, grad={"prediction_logits": torch.ones(2, 5, 40)})
    torch.testing.assert_close(again["loss"], got["loss"])
    assert not torch.equal(again["grad.bert.embeddings.word_embeddings.weight"], tied)


def test_gradient_of_an_input(oracle: Oracle) -> None:
    weights = oracle.init("BertForSequenceClassification", TINY | {"num_labels": 3})
    inputs = {"inputs_embeds": torch.randn(2, 4, 16), "labels": torch.tensor([2, 0])}
    config = TINY | {"num_labels": 3}
    got = oracle.run("BertForSequenceClassification", config, weights, inputs, grad=True, grad_inputs=["inputs_embeds"])
    assert got["logits"].shape == (2, 3)
    assert got["grad.input.inputs_embeds"].shape == (2, 4, 16)


def test_a_cache_carried_over_calls(oracle: Oracle) -> None:
    config = TINY | {"is_decoder": True}
    weights = oracle.init("BertLMHeadModel", config)
    whole = oracle.run("BertLMHeadModel", config, weights, {"input_ids": IDS[:1]})
    steps = [
        {"input_ids": IDS[:1, :3], "use_cache": True},
        {"input_ids": IDS[:1, 3:], "past_key_values": Carry("past_key_values")},
    ]
    got = oracle.run("BertLMHeadModel", config, weights, steps)
    assert got["s0.past_key_values.1.0"].shape == (1, 4, 3, 4)
    torch.testing.assert_close(torch.cat([got["s0.logits"], got["s1.logits"]], 1), whole["logits"])
    past = tuple(tuple(got[f"s0.past_key_values.{layer}.{i}"] for i in (0, 1)) for layer in (0, 1))
    alone = oracle.run("BertLMHeadModel", config, weights, steps[1] | {"past_key_values": past})
    torch.testing.assert_close(alone["logits"], got["s1.logits"], rtol=0, atol=0)


def test_cross_attention_with_a_mask(oracle: Oracle) -> None:
    config = TINY | {"is_decoder": True, "add_cross_attention": True}
    weights = oracle.init("BertLMHeadModel", config)
    seen = {
        "encoder_hidden_states": torch.randn(2, 4, 16),
        "encoder_attention_mask": torch.tensor([[1] * 4, [1, 1, 0, 0]]),
    }
    got = oracle.run("BertLMHeadModel", config, weights, {"input_ids": IDS, "output_attentions": True} | seen)
    assert got["cross_attentions.0"].shape == (2, 4, 5, 4)
    assert got["cross_attentions.0"][1, :, :, 2:].max() < 1e-9
    assert len([name for name in got if name.startswith("past_key_values.0.")]) == 4


def test_generate(oracle: Oracle) -> None:
    config = TINY | {"is_decoder": True}
    weights = oracle.init("BertLMHeadModel", config)
    got = oracle.run("BertLMHeadModel", config, weights, {"input_ids": IDS[:1], "max_length": 9}, method="generate")
    assert got["sequences"].shape == (1, 9)


def test_prune_and_resize(oracle: Oracle) -> None:
    weights = oracle.init("BertModel", TINY)
    before = [("prune_heads", {0: [1, 2]}), ("resize_token_embeddings", 30)]
    got = oracle.run("BertModel", TINY, weights, {"input_ids": IDS}, before=before, state=True)
    assert got["state.encoder.layer.0.attention.self.query.weight"].shape == (8, 16)
    assert got["state.embeddings.word_embeddings.weight"].shape == (30, 16)


def test_a_folder_saved_and_loaded(oracle: Oracle, tmp_path: Path) -> None:
    weights = oracle.init("BertForMaskedLM", TINY)
    oracle.save_dir("BertForMaskedLM", TINY, weights, tmp_path)
    loaded = oracle.load_dir("BertForMaskedLM", tmp_path, {"input_ids": IDS})
    assert (loaded.missing, loaded.unexpected, loaded.errors) == ([], [], [])
    want = oracle.run("BertForMaskedLM", TINY, weights, {"input_ids": IDS})
    torch.testing.assert_close(loaded.outputs["logits"], want["logits"], rtol=0, atol=0)
    assert all(torch.equal(loaded.state[key], tensor) for key, tensor in weights.items())
    other = oracle.load_dir("BertForTokenClassification", tmp_path)
    assert set(other.missing) == {"classifier.weight", "classifier.bias"}
    assert "cls.predictions.bias" in other.unexpected


def test_config_of_the_reference(oracle: Oracle) -> None:
    config = oracle.config("BertModel", {"hidden_size": 48, "id2label": {0: "no", 1: "yes", 2: "maybe"}})
    assert (config["hidden_size"], config["model_type"], config["id2label"][2]) == (48, "bert", "maybe")


def test_an_error_comes_back_and_the_process_stays(oracle: Oracle) -> None:
    with pytest.raises(OracleError, match="IndexError") as caught:
        oracle.run("BertModel", TINY, oracle.init("BertModel", TINY), {"input_ids": torch.tensor([[99]])})
    assert "embedding" in caught.value.trace
    weights = oracle.init("BertModel", TINY)
    lacking = {name: tensor for name, tensor in weights.items() if name != "pooler.dense.bias"}
    with pytest.raises(OracleError, match="lack .*pooler.dense.bias"):
        oracle.run("BertModel", TINY, lacking, {"input_ids": IDS})
    with pytest.raises(OracleError, match="BertForNothing"):
        oracle.init("BertForNothing", TINY)
    assert oracle.versions()["transformers"] == "4.6.1"


def test_a_process_that_ends_is_reported_and_replaced(oracle: Oracle) -> None:
    with Oracle(oracle.folder) as own:
        own.versions()
        own.process.kill()
        with pytest.raises(OracleError, match="ended"):
            own.versions()
        assert own.versions()["transformers"] == "4.6.1"


def test_values_cross_unchanged(tmp_path: Path) -> None:
    shared = torch.arange(6.0).view(2, 3)
    value = {"a": (1, [shared, shared.T], None), 3: {True: 0.5}, "c": Carry("mems"), "d": torch.bool}
    back = read(write(value, tmp_path / "x"), tmp_path / "x")
    assert torch.equal(back["a"][1][1], shared.T)
    assert (back["a"][0], back["a"][2], back[3]) == (1, None, {True: 0.5})
    assert (back["c"], back["d"]) == (Carry("mems"), torch.bool)
    with pytest.raises(TypeError, match="object cannot be sent"):
        write({"x": object()}, tmp_path / "y")


@pytest.mark.skipif(unsupported() is not None, reason="the first two answers are those of a Python that has it")
def test_it_says_why_it_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "make oracle" in why_not(tmp_path)
    (tmp_path / "BUILT.json").write_text('{"recipe": "older", "python": "cpython-311"}')
    assert "another recipe" in why_not(tmp_path)
    monkeypatch.setattr("oracle.build.sys", SimpleNamespace(version_info=(3, 13, 1)))
    assert why_not(tmp_path).endswith("not 3.13")
