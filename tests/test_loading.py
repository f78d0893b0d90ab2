"""What fails says so in one sentence with the remedy, executes nothing and leaves nothing half-done."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

import polyformer
import zoo
from polyformer.core.errors import CheckpointError

CASE = zoo.Case("BertForMaskedLM", zoo.BERT.tiny)


@pytest.fixture
def folder(tmp_path):
    zoo.make(CASE).save_pretrained(tmp_path)
    return tmp_path


def refused(folder, match, cls="BertForMaskedLM", error=CheckpointError, **options):
    """Loading raises this, in one sentence or two without a line break."""
    with pytest.raises(error, match=match) as caught:
        getattr(polyformer, cls).from_pretrained(folder, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_missing_weights_of_the_base_model_are_named(folder):
    change(folder, lambda t: t.pop("bert.encoder.layer.1.output.dense.weight"))
    refused(folder, r"lacks 1 weights .* without: bert\.encoder\.layer\.1\.output\.dense\.weight\. .*incomplete")


def test_a_part_of_a_fused_weight_is_missing(folder):
    change(folder, lambda t: t.pop("bert.encoder.layer.0.attention.self.key.weight"))
    refused(folder, r"cannot do without: .*attention\.self\.(query|key)\.weight")


def test_a_config_of_more_layers_than_the_file_has(folder):
    values = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 5}
    (folder / "config.json").write_text(json.dumps(values))
    refused(folder, r"lacks 32 weights .*or config\.json describes a larger model than it holds")


def test_a_checkpoint_of_something_else(folder):
    save_file({"conv.weight": torch.zeros(3)}, folder / "model.safetensors")
    refused(folder, r"has none of the weights of a bert model")


def test_wrong_shapes_name_key_shapes_and_remedy(folder):
    key = r"bert\.embeddings\.word_embeddings\.weight"
    match = rf"{key} has shape \(47, 24\) .* wants \(60, 24\).*correct config\.json .*ignore_mismatched_sizes=True"
    refused(folder, match, vocab_size=60)
    model, info = polyformer.BertForMaskedLM.from_pretrained(
        folder, vocab_size=60, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert model.bert.embed.tokens.weight.shape == (60, 24)
    assert ("bert.embeddings.word_embeddings.weight", (47, 24), (60, 24)) in info["mismatched_keys"]
    assert info["missing_keys"] == []


def test_unexpected_keys_are_listed(folder):
    change(folder, lambda t: t.update({"strange.weight": torch.zeros(2)}))
    model, info = polyformer.BertForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert info["unexpected_keys"] == ["strange.weight"]
    assert "strange.weight" in str(model.load_report)


def test_truncated_and_flipped_files(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(folder, r"model\.safetensors")
    path.write_bytes(bytes([whole[0] ^ 0x40]) + whole[1:])
    refused(folder, r"model\.safetensors")
    path.write_bytes(whole[:20] + b"\x00" + whole[21:])
    refused(folder, r"model\.safetensors")


def test_a_pickle_with_code_is_not_run(folder, tmp_path):
    witness = tmp_path / "witness"

    class Attack:
        def __reduce__(self):
            return (open, (str(witness), "w"))

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Attack()}))
    refused(folder, r"pytorch_model\.bin")
    torch.save({"a": Attack()}, folder / "pytorch_model.bin")
    refused(folder, r"pytorch_model\.bin")
    assert not witness.exists()


def test_an_index_that_points_outside(folder):
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"bert.embeddings.word_embeddings.weight": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "outside")


def test_missing_files(tmp_path):
    refused(tmp_path, r"config\.json")
    zoo.make(CASE).config.save_pretrained(tmp_path)
    refused(tmp_path, r"model\.safetensors")
    (tmp_path / "tf_model.h5").write_bytes(b"")
    refused(tmp_path, r"tf_model\.h5")
    refused(tmp_path / "nowhere", "nowhere")


def test_saving_a_config_leaves_the_weights_alone(folder):
    before = (folder / "model.safetensors").read_bytes()
    polyformer.BertConfig(vocab_size=47, my_note="x").save_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == before


def test_other_frameworks_and_types(folder):
    refused(folder, "only PyTorch weights", from_tf=True)
    refused(folder, "give a torch.dtype, its name, or 'auto'", error=ValueError, torch_dtype="flaot16")
    refused(folder, "did you mean 'num_labels'|did you mean 'pooling'", error=TypeError, poolling="mean")


def test_a_failed_save_leaves_the_old_checkpoint_whole(folder, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    model = zoo.make(CASE, seed=9)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="The disk is full .* free some space and save again"):
        model.save_pretrained(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_too_long_ids_outside_and_other_inputs():
    model = zoo.make(CASE)
    with pytest.raises(ValueError, match=r"33 tokens is too long for this model, which knows 32 positions: truncate"):
        model(torch.ones(1, 33, dtype=torch.long))
    with pytest.raises(ValueError, match=r"input_ids has 47, but only 0 to 46 are known"):
        model(torch.tensor([[1, 47]]))
    with pytest.raises(ValueError, match=r"input_ids has -1, but only 0 to 46"):
        model(torch.tensor([[1, -1]]))
    with pytest.raises(ValueError, match=r"token_type_ids has 2, but only 0 to 1"):
        model(torch.tensor([[1, 2]]), token_type_ids=torch.tensor([[0, 2]]))
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model()
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(torch.ones(1, 2, dtype=torch.long), inputs_embeds=torch.ones(1, 2, 24))
    with pytest.raises(ValueError, match=r"input_ids must have shape \(rows, length\), not \(3,\)"):
        model(torch.ones(3, dtype=torch.long))
    ids = torch.ones(2, 3, dtype=torch.long)
    for inputs, error, match in (
        ({"position_ids": torch.tensor([[0, 1, 32]])}, ValueError, "position_ids has 32, but only 0 to 31 are known"),
        ({"position_ids": torch.tensor([[0, 1]])}, ValueError, r"position_ids has shape \(1, 2\), but \(2, 3\) was"),
        ({"token_type_ids": torch.zeros(2, 2).long()}, ValueError, r"token_type_ids has shape \(2, 2\), but \(2, 3\)"),
        (
            {"head_mask": torch.ones(5)},
            ValueError,
            r"head_mask has shape \(5,\), but the 3 layers have 3, 3, 3 heads",
        ),
        ({"head_mask": torch.ones(2, 3)}, ValueError, r"head_mask has shape \(2, 3\), but the 3 layers"),
    ):
        with pytest.raises(error, match=match):
            model(ids, **inputs)
    with pytest.raises(TypeError, match=r"input_ids are torch\.float32, but ids are integers"):
        model(torch.ones(1, 3))
    with pytest.raises(ValueError, match="have no tokens: give at least one"):
        model(torch.ones(1, 0, dtype=torch.long))
    with pytest.raises(ValueError, match="inputs_embeds are 5 wide, but this model's embeddings are 24 wide"):
        model(inputs_embeds=torch.ones(1, 2, 5))
    with pytest.raises(ValueError, match="cannot prune layer 7: there are layers 0 to 2"):
        model.prune_heads({7: [0]})
    with pytest.raises(ValueError, match="need a decoder with cross-attention"):
        model(torch.ones(1, 2, dtype=torch.long), encoder_hidden_states=torch.ones(1, 2, 24))
    with pytest.raises(TypeError, match=r"no argument 'atention_mask'; did you mean 'attention_mask'\?"):
        model(torch.ones(1, 3, dtype=torch.long), atention_mask=torch.ones(1, 3))
    with pytest.raises(TypeError, match="takes a BertConfig, not a str"):
        polyformer.BertModel("bert-base-uncased")


def test_labels_outside_of_their_range():
    ids = torch.tensor([[1, 2, 3]])
    for cls, labels in (
        ("BertForTokenClassification", torch.tensor([[0, 3, 1]])),
        ("BertForSequenceClassification", torch.tensor([3])),
        ("BertForSequenceClassification", torch.tensor([-1])),
    ):
        with pytest.raises(ValueError, match=r"labels contain -?\d, but only 0 to 2 \(or -100 for none\)"):
            zoo.make(zoo.Case(cls, zoo.BERT.tiny))(ids, labels=labels)
    with pytest.raises(ValueError, match=r"labels have shape \(2,\), but \(1,\) was expected"):
        zoo.make(zoo.Case("BertForSequenceClassification", zoo.BERT.tiny))(ids, labels=torch.tensor([0, 1]))
    qa = zoo.make(zoo.Case("BertForQuestionAnswering", zoo.BERT.tiny))
    with pytest.raises(ValueError, match="start_positions and end_positions contain -5"):
        qa(ids, start_positions=torch.tensor([-5]), end_positions=torch.tensor([1]))
    choice = zoo.make(zoo.Case("BertForMultipleChoice", zoo.BERT.tiny))
    with pytest.raises(ValueError, match=r"\(rows, choices, length\)"):
        choice(ids[0])
    assert torch.equal(choice(ids).logits, choice(ids[:, None]).logits)  # one choice


def test_arguments_of_the_class(folder):
    model = polyformer.BertModel.from_pretrained(folder, add_pooling_layer=False)
    assert model.pooler is None
    assert model.load_report.clean
    assert "add_pooling_layer" not in model.config.to_dict()


def test_auto_classes(folder):
    assert type(polyformer.AutoModel.from_pretrained(folder)) is polyformer.BertModel
    assert type(polyformer.AutoModelForMaskedLM.from_pretrained(folder)) is polyformer.BertForMaskedLM
    assert type(polyformer.AutoModelForCausalLM.from_pretrained(folder)) is polyformer.BertLMHeadModel
    model = polyformer.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5, pooling="attention")
    assert model.classifier.out.out_features == 5
    assert type(model.bert.pooler).__name__ == "AveragePooler"
    config = polyformer.AutoConfig.from_pretrained(folder)
    assert type(polyformer.AutoModelForTokenClassification.from_config(config)) is polyformer.BertForTokenClassification
    with pytest.raises(TypeError, match=r"AutoModel\.from_pretrained"):
        polyformer.AutoModel()
    with pytest.raises(TypeError, match=r"AutoConfig\.from_pretrained"):
        polyformer.AutoConfig()
