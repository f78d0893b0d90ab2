"""Property 3: every key of a reference config is consumed, or kept and named; slips in code name the right field."""

import dataclasses
import json

import pytest

import polyformer
import zoo
from polyformer.core.config import PASSENGERS, Config
from polyformer.core.errors import CheckpointError, ConfigError
from polyformer.core.registry import ARCHITECTURES, config_class

WRITER = {"model_type": "bert", "is_decoder": True, "add_cross_attention": True}
PARTS_OF = {
    "encoder-decoder": {"encoder": {"model_type": "bert"}, "decoder": WRITER},
    "rag": {"question_encoder": {"model_type": "dpr"}, "generator": {"model_type": "bart"}},
}  # what a composite has no default for
SINGLE = [kind for kind in ARCHITECTURES if not config_class(kind).parts]  # a composite's fields are its own


@pytest.mark.parametrize("kind", SINGLE)
def test_every_key_of_the_reference_is_known(kind, oracle):
    config = polyformer.AutoConfig.for_model(kind)
    theirs = oracle.config(ARCHITECTURES[kind].class_name("base"))
    fields = {f.name for f in dataclasses.fields(config)}
    assert not [key for key in theirs if key not in fields | PASSENGERS]
    for key, value in theirs.items():
        if key in fields and key not in ("id2label", "label2id", "architectures"):
            assert getattr(config, key) == value, key


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_unknown_keys_are_kept_and_written_back(kind, tmp_path):
    values = {"model_type": kind, "our_own_key": [1, {"a": None}], "max_length": 20, "transformers_version": "4.6.1"}
    (tmp_path / "config.json").write_text(json.dumps(values | PARTS_OF.get(kind, {})))
    config = polyformer.AutoConfig.from_pretrained(tmp_path)
    assert config.our_own_key == [1, {"a": None}]
    config.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {key: written[key] for key in values} == values


def test_a_slip_in_code_raises_with_the_right_name():
    with pytest.raises(TypeError, match=r"no field 'hiden_size'; did you mean 'hidden_size'\?"):
        polyformer.BertConfig(hiden_size=8)
    config = polyformer.BertConfig()
    with pytest.raises(TypeError, match="did you mean 'num_attention_heads'"):
        config.num_atention_heads = 3
    with pytest.raises(AttributeError, match="did you mean 'hidden_size'"):
        _ = config.hidden_sise
    assert polyformer.BertConfig(my_own_thing=3).my_own_thing == 3


def test_a_slip_in_a_file_is_named_in_the_report(tmp_path):
    model = zoo.make(zoo.Case("BertModel", zoo.BERT.tiny))
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"hiden_size": 24}))
    report = polyformer.BertModel.from_pretrained(tmp_path).load_report
    assert report.config_suspects == {"hiden_size": "hidden_size"}
    assert "hiden_size for hidden_size" in str(report)
    with pytest.raises(TypeError, match="hidden_size"):
        polyformer.BertModel.from_pretrained(tmp_path, hiden_size=3)


def test_positions_of_arguments_and_labels():
    config = polyformer.BertConfig(100, 16, 2, 4, num_labels=3)
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (
        100,
        16,
        2,
        4,
    )
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    named = polyformer.BertConfig(id2label={"0": "no", "1": "yes"})
    assert named.num_labels == 2
    assert named.label2id == {"no": 0, "yes": 1}


def test_round_trip(tmp_path):
    config = polyformer.BertConfig(
        hidden_size=24, num_attention_heads=3, pooling="attention", pruned_heads={1: [0]}, mine=1
    )
    config.save_pretrained(tmp_path)
    assert polyformer.BertConfig.from_pretrained(tmp_path) == config
    assert polyformer.BertConfig.from_pretrained(tmp_path / "config.json") == config
    assert polyformer.BertConfig.from_dict(config.to_dict()) == config


def test_changes_given_to_from_pretrained(tmp_path):
    polyformer.BertConfig().save_pretrained(tmp_path)
    config = polyformer.BertConfig.from_pretrained(tmp_path, num_labels=5, output_attentions=True, torchscript=True)
    assert (config.num_labels, config.output_attentions, config.use_return_dict) == (5, True, False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 10, "num_attention_heads": 3}, "no multiple of num_attention_heads 3"),
        ({"position_embedding_type": "rotary"}, "there are absolute, relative_key"),
        ({"pooling": "avg"}, "there are cls, attention, mean"),
        ({"hidden_act": "gleu"}, "no activation function is called 'gleu'"),
        ({"add_cross_attention": True}, "set is_decoder=True"),
        ({"num_hidden_layers": 2, "pooling": "last4_cls", "hidden_size": 12}, "reads four layers"),
    ],
)
def test_impossible_configurations(fields, message):
    with pytest.raises(ValueError, match=message):
        polyformer.BertModel(polyformer.BertConfig(**({"vocab_size": 9, "num_hidden_layers": 1} | fields)))


def test_a_config_that_is_not_json(tmp_path):
    (tmp_path / "config.json").write_text("{'hidden_size': 3}")
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON .*fetch or write the file again"):
        polyformer.BertConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="is not JSON"):
        polyformer.AutoConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[1, 2]")
    with pytest.raises(CheckpointError, match="holds a list"):
        polyformer.AutoConfig.from_pretrained(tmp_path)


def test_other_architectures(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "swin"}')
    with pytest.raises(ConfigError, match="model_type 'swin', not 'bert'"):
        polyformer.BertConfig.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="'swin' is not an architecture of this library"):
        polyformer.AutoModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    with pytest.raises(ConfigError, match="has no model_type"):
        polyformer.AutoModel.from_pretrained(tmp_path)


def test_update():
    config = polyformer.BertConfig()
    config.update({"hidden_size": 24, "num_labels": 4, "mine": 1})
    assert (config.hidden_size, config.num_labels, config.mine) == (24, 4, 1)
    with pytest.raises(TypeError, match="did you mean 'hidden_size'"):
        config.update({"hidden_sizee": 1})


def test_aliases_give_the_uniform_names():
    from polyformer.core.config import config

    @config("toy")
    class ToyConfig(Config):
        aliases = {"hidden_size": "n_embd"}  # noqa: RUF012
        n_embd: int = 3

    made = ToyConfig(hidden_size=5)
    assert (made.n_embd, made.hidden_size) == (5, 5)
    made.hidden_size = 7
    assert made.n_embd == 7
    assert ToyConfig.from_dict({"hidden_size": 4}).n_embd == 4
    assert "hidden_size" not in made.to_dict()
