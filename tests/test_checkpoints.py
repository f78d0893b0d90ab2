"""Property 2: checkpoints both ways, bit for bit, under Hugging Face's names; the reference loads what we saved."""

import io
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

import polyformer
import zoo
from polyformer.core.errors import CheckpointError
from test_parity import TWO, flat, inputs_of, reference_config

CLASSES = [c for c in zoo.CASES if c.reference and (not c.name or c in zoo.own())]  # renames too: names are their point


def reloaded(case, model, folder, **options):
    model.save_pretrained(folder, **options)
    return case.model_class.from_pretrained(folder, torch_dtype=model.dtype)


def assert_equal_weights(a, b):
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@zoo.each(zoo.own())
def test_save_and_load(case, tmp_path):
    model = zoo.make(case)
    forms = [{}, {"max_shard_size": 9000}, *([{"safe_serialization": False}] if zoo.THOROUGH or not case.name else [])]
    for number, options in enumerate(forms):
        again = reloaded(case, model, tmp_path / str(number), **options)
        assert_equal_weights(model, again)
        assert again.config == model.config
        assert again.load_report.clean
        assert not again.load_report.unexpected
    assert (tmp_path / "1" / "model.safetensors.index.json").is_file()


@zoo.each(CLASSES)
def test_the_reference_loads_what_we_saved(case, oracle, tmp_path):
    model = zoo.make(case)
    model.save_pretrained(tmp_path, safe_serialization=False)
    inputs = inputs_of(case, torch.float64)
    if case.kind in TWO:
        config = json.loads((tmp_path / "config.json").read_text())
        config["id2label"] = {0: "start", 1: "end"}
        (tmp_path / "config.json").write_text(json.dumps(config))
    if unused := zoo.FAMILY[case.family].unused:  # the reference may not load a file that lacks them
        weights = oracle.init(case.cls, reference_config(case))
        also = {name: value for name, value in weights.items() if any(part in name for part in unused)}
        torch.save(torch.load(tmp_path / "pytorch_model.bin") | also, tmp_path / "pytorch_model.bin")
    loaded = oracle.load_dir(case.cls, tmp_path, zoo.known_there(case, inputs))
    assert not loaded.unexpected
    ignorable = ("position_ids", "predictions.decoder", "lm_head.decoder", "distance_embedding")
    assert not [name for name in loaded.missing if not any(part in name for part in ignorable)]
    with torch.no_grad():
        got = flat(model(**inputs))
    for name in ("logits", "prediction_logits", "losses", "pooler_output", "start_logits"):
        if name in got:
            keep = zoo.at_real_tokens(got[name], zoo.mask_of(inputs, name))
            torch.testing.assert_close(got[name][keep], loaded.outputs[name][keep], rtol=1e-9, atol=1e-9)


@zoo.each(CLASSES)
def test_we_load_what_the_reference_saved(case, oracle, tmp_path):
    """Every tensor bit for bit, and none left over but what is known to be of no use."""
    weights = oracle.init(case.cls, reference_config(case), seed=7)
    oracle.save_dir(case.cls, reference_config(case), weights, tmp_path)
    model = case.model_class.from_pretrained(tmp_path)
    assert model.load_report.clean
    assert not model.load_report.unexpected
    back = model.keys.save(model.state_dict(), base=model.is_base)
    for name, value in back.items():
        assert torch.equal(value, weights[name]), name
    unused = zoo.FAMILY[case.family].unused
    lost = {name for name in weights.keys() - back.keys() if not any(part in name for part in unused)}
    ignorable = ("position_ids", "decoder.bias", "crossattention.self.distance_embedding.weight")
    assert not [n for n in lost if not n.endswith(ignorable)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_types(dtype, tmp_path):
    case = zoo.Case("BertModel", zoo.BERT.tiny)
    model = zoo.make(case, dtype=dtype)
    model.save_pretrained(tmp_path)
    assert case.model_class.from_pretrained(tmp_path).dtype == torch.float32
    assert_equal_weights(model, case.model_class.from_pretrained(tmp_path, torch_dtype="auto"))
    assert_equal_weights(model, case.model_class.from_pretrained(tmp_path, torch_dtype=dtype))


@zoo.each([c for c in zoo.CASES if not c.name and zoo.FAMILY[c.family].has_base])
def test_base_and_head_files_serve_each_other(case, tmp_path):
    """A base model's file, without prefix, under any head; a head's file in the base model."""
    base = next(c for c in zoo.FAMILY[case.family].cases() if c.model_class is case.model_class.backbone)
    base_model = zoo.make(base)
    base_model.save_pretrained(tmp_path / "base")
    head = case.model_class.from_pretrained(tmp_path / "base", torch_dtype=torch.float64, num_labels=3)
    prefix = "" if head.is_base else f"{head.base_model_prefix}."
    for name, value in head.state_dict().items():
        if name.startswith(prefix):
            assert torch.equal(value, base_model.state_dict()[name.removeprefix(prefix)]), name
    inside = base_model.keys.save(base_model.state_dict(), base=True).keys()
    assert not {n.removeprefix(f"{head.base_model_prefix}.") for n in head.load_report.missing} & inside
    model = zoo.make(case)
    model.save_pretrained(tmp_path / "head")
    alone = base.model_class.from_pretrained(tmp_path / "head", torch_dtype=torch.float64)
    for name, value in alone.state_dict().items():
        if not name.startswith("pooler."):
            assert torch.equal(value, model.base_model.state_dict()[name]), name


BOTH = (
    "Model", "ForMaskedLM", "WithLMHeadModel", "ForSequenceClassification",
    "ContextEncoder", "QuestionEncoder", "Reader",
)  # fmt: skip
RAISES = ("flaubert-pre-norm", "transfo-xl")  # in transformers 5, which has no Transformer-XL
BIASLESS = ("ReformerForMaskedLM",)  # there: it reads the bias of the words and never adds it


@zoo.each([c for c in zoo.CASES if not c.name and c.kind in BOTH and c.family not in RAISES and c.cls not in BIASLESS])
def test_transformers_5_both_ways(case, tmp_path):
    """transformers 5 reads what we save and we read what it saves; same answers."""
    transformers = pytest.importorskip("transformers", reason="transformers 5 is not installed (extra [test])")
    model = zoo.make(case, dtype=torch.float32)
    inputs = zoo.without_labels(inputs_of(case, torch.float32))
    model.save_pretrained(tmp_path / "ours")
    theirs = getattr(transformers, case.cls).from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        ours, other = model(**inputs), theirs(**inputs)
    keep = zoo.at_real_tokens(ours[0], zoo.mask_of(inputs, next(iter(ours))))
    torch.testing.assert_close(ours[0][keep], other[0][keep], rtol=1e-4, atol=1e-4)
    theirs.save_pretrained(tmp_path / "theirs")
    again = case.model_class.from_pretrained(tmp_path / "theirs")
    assert_equal_weights(model, again)


def test_load_state_dict_takes_the_names_of_files(tmp_path):
    """Also where a model is a part of somebody's own module."""
    case = zoo.Case("BertForMaskedLM", zoo.BERT.tiny)
    model = zoo.make(case)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert "cls.predictions.decoder.weight" not in tensors  # tied: once is enough
    other = zoo.make(case, seed=1)
    other.load_state_dict(tensors)
    assert_equal_weights(model, other)

    class Mine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = zoo.make(case, seed=2)

    mine = Mine()
    mine.load_state_dict({f"encoder.{name}": value for name, value in tensors.items()})
    assert_equal_weights(model, mine.encoder)
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(tensors | {"bert.embeddings.word_embeddings.weight": torch.zeros(3, 24)})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict(tensors | {"bert.embeddings.no_such.weight": torch.zeros(3)})


def test_a_head_that_a_user_wrote_is_saved_and_loaded(tmp_path, caplog):
    """Under its own names, beside the base model under the file's."""

    class Ranker(polyformer.BertPreTrainedModel):
        def __init__(self, config):
            super().__init__(config)
            self.bert = polyformer.BertModel(config, add_pooling_layer=False)
            self.score = torch.nn.Linear(config.hidden_size, 1)
            self.init_weights()

        def forward(self, input_ids):
            return self.score(self.bert(input_ids)[0][:, 0])

    zoo.make(zoo.Case("BertModel", zoo.BERT.tiny)).save_pretrained(tmp_path / "bert")
    model = Ranker.from_pretrained(tmp_path / "bert")
    assert model.load_report.missing == ["score.weight", "score.bias"]
    assert (model.score.bias == 0).all()
    model.save_pretrained(tmp_path / "ranker")
    assert {"score.weight", "bert.embeddings.LayerNorm.weight"} <= load_file(
        tmp_path / "ranker/model.safetensors"
    ).keys()
    again = Ranker.from_pretrained(tmp_path / "ranker")
    assert again.load_report.clean
    assert_equal_weights(model, again)


@zoo.each([c for c in zoo.own() if c.name in ("", "untied", "pruned")])
def test_a_state_dict_in_place_of_the_file_s(case, tmp_path):
    """Under our names or the file's."""
    zoo.make(case).save_pretrained(tmp_path)
    other = zoo.make(case, seed=8)
    for tensors in (other.state_dict(), other.keys.save(other.state_dict(), base=other.is_base)):
        loaded = case.model_class.from_pretrained(tmp_path, state_dict=tensors, torch_dtype=torch.float64)
        assert_equal_weights(other, loaded)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_a_loaded_model_is_its_own(safe, tmp_path):
    """Its weights may lie in the file, but pickles have each once, writing to them stays out of the file, and saving
    over the file leaves the model as it was."""
    case = zoo.Case("BertForMaskedLM", zoo.BERT.tiny)
    zoo.make(case, dtype=torch.float32).save_pretrained(tmp_path, safe_serialization=safe)
    path = tmp_path / ("model.safetensors" if safe else "pytorch_model.bin")
    model, before = case.model_class.from_pretrained(tmp_path), path.read_bytes()
    size = sum(p.numel() * 4 for p in model.parameters())
    for dump in (pickle.dumps, torch_bytes):
        assert size < len(dump(model.state_dict())) < 1.3 * size + 40_000
        assert len(dump(model.bert.layers[0].ffn.up.bias)) < 5000
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    assert path.read_bytes() == before
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    zoo.make(case, dtype=torch.float32, seed=5).save_pretrained(tmp_path, safe_serialization=safe)
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())


def torch_bytes(thing):
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def test_a_config_that_is_passed_in_is_not_changed(tmp_path):
    case = zoo.Case("BertModel", zoo.BERT.tiny)
    zoo.make(case).save_pretrained(tmp_path)
    config = case.configure()
    model = case.model_class.from_pretrained(tmp_path, config=config, output_attentions=True)
    assert model.config.output_attentions
    assert not config.output_attentions


def test_old_names(tmp_path):
    """Norms of 2018 are gamma and beta; a file may lack the base model's prefix, or have the tied matrix once."""
    case = zoo.Case("BertForMaskedLM", zoo.BERT.tiny)
    model = zoo.make(case)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    spelling = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta", "bert.": ""}
    old = {}
    for name, value in tensors.items():
        for new, former in spelling.items():
            name = name.replace(new, former)
        old[name] = value
    old["cls.predictions.decoder.weight"] = old.pop("embeddings.word_embeddings.weight")
    old["cls.predictions.decoder.bias"] = old.pop("cls.predictions.bias")
    old["embeddings.position_ids"] = torch.arange(32)[None]
    save_file(old, tmp_path / "model.safetensors")
    again = case.model_class.from_pretrained(tmp_path, torch_dtype=torch.float64)
    assert_equal_weights(model, again)
    assert again.load_report.clean
    assert again.load_report.dropped == ["embeddings.position_ids"]


def test_a_new_head_comes_from_the_seed_and_is_said_once(tmp_path, caplog):
    zoo.make(zoo.Case("BertModel", zoo.BERT.tiny)).save_pretrained(tmp_path)
    cls = zoo.Case("BertForTokenClassification", zoo.BERT.tiny).model_class
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        caplog.clear()
        made.append(cls.from_pretrained(tmp_path).classifier.out.weight)
        assert len(caplog.records) == 1
        assert "classifier.weight, classifier.bias" in caplog.text
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    with pytest.raises(
        CheckpointError, match="no trained head for BertForTokenClassification, it lacks classifier.weight"
    ):
        cls.from_pretrained(tmp_path, strict=True)
    report = cls.from_pretrained(tmp_path).load_report
    assert report.missing == ["classifier.weight", "classifier.bias"]
    assert report.unexpected == ["pooler.dense.bias", "pooler.dense.weight"]
    assert "classifier.weight" in str(report)


def test_resized_and_pruned_models_come_back(tmp_path):
    case = zoo.Case("BertForMaskedLM", zoo.BERT.tiny)
    model = zoo.make(case)
    model.resize_token_embeddings(60)
    model.prune_heads({1: [0, 2]})
    again = reloaded(case, model, tmp_path)
    assert_equal_weights(model, again)
    assert again.config.vocab_size == 60
    assert again.config.pruned_heads == {1: [0, 2]}


def test_every_operation_of_the_key_table_reads_and_writes_its_definition():
    """Fused, transposed and (width, heads, dim) tensors: read as the definition says, and writing undoes it."""
    from polyformer.core.keymap import FromHeads, Fuse, Heads, KeyMap, same, transposed

    table = KeyMap(
        [
            ("a.{i}.{q|k|v}.{p}", "x.{i}.qkv.{p}", Fuse()),
            ("wide.{k|v}", "kv", Fuse(1)),
            ("conv.{i}.{p}", "lin.{i}.{p}", transposed),
            ("rel.{q|k}", "rel.weight", Heads(3)),
            ("back.{i}", "back.{i}.weight", FromHeads(3)),
            ("plain", "ours", same),
        ],
        prefix="m",
    )
    theirs = {f"a.{i}.{n}.{p}": torch.randn(4, 3) for i in (0, 11) for n in "qkv" for p in ("weight", "bias")}
    theirs |= {
        "wide.k": torch.randn(4, 3),
        "wide.v": torch.randn(4, 3),
        "conv.7.weight": torch.randn(5, 2),
        "conv.7.bias": torch.randn(2),
    }
    theirs |= {"rel.q": torch.randn(5, 2, 3), "rel.k": torch.randn(5, 2, 3), "plain": torch.randn(2)}
    theirs["back.4"] = torch.randn(5, 2, 3)
    want = {
        f"x.{i}.qkv.{p}": torch.cat([theirs[f"a.{i}.{n}.{p}"] for n in "qkv"])
        for i in (0, 11)
        for p in ("weight", "bias")
    }
    want |= {"kv": torch.cat([theirs["wide.k"], theirs["wide.v"]], 1), "lin.7.weight": theirs["conv.7.weight"].T}
    want |= {"rel.weight": torch.cat([theirs[f"rel.{n}"].reshape(5, 6).T for n in "qk"]), "ours": theirs["plain"]}
    want["back.4.weight"] = theirs["back.4"].reshape(5, 6)
    want["lin.7.bias"] = theirs["conv.7.bias"]
    shapes = {name: value.shape for name, value in want.items()}
    for prefix in ("", "m."):
        got = table.load({prefix + name: value for name, value in theirs.items()}, shapes, base=True)
        assert got.keys() == want.keys()
        assert all(torch.equal(got[name], value) for name, value in want.items())
    back = table.save(want, base=True)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], value) for name, value in theirs.items())
    assert table.plan(["a.0.q.weight", "nobody"], base=True).unclaimed == ["nobody"]
    assert "x.0.qkv.weight" in table.plan(["a.0.q.weight"], base=True).incomplete


def test_key_table_errors_are_found_at_import_time():
    from polyformer.core.keymap import KeyMap

    with pytest.raises(ValueError, match="same holes"):
        KeyMap([("a.{i}.{p}", "b.{i}")], prefix="x")
