"""AutoTokenizer: which class a folder is opened with, whoever saved it."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

import polyformer
from polyformer import AutoTokenizer, BertConfig, CheckpointError, PreTrainedTokenizer
from polyformer.core.registry import TOKENIZERS

VOCAB = "[PAD] [UNK] [CLS] [SEP] [MASK] the a dog fox run ##s".split()
ANGLED = "<pad> <unk> <cls> <sep> <mask> <s> </s> the a dog fox run ##s".split()
TEXT = "The dogs run a fox"


@pytest.fixture(scope="module")
def transformers():
    library = pytest.importorskip("transformers")
    library.logging.set_verbosity_error()
    return library


def folder_with(folder, vocab=VOCAB, name="vocab.txt", config=None, tokenizer_config=None):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(vocab), encoding="utf-8")
    for file, values in (("config.json", config), ("tokenizer_config.json", tokenizer_config)):
        if values is not None:
            (folder / file).write_text(json.dumps(values))
    return folder


def word_level(folder, **config):
    """A tokenizer.json of no family."""
    rust = Tokenizer(models.WordLevel({"the": 0, "dog": 1, "?": 2}, unk_token="?"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir(exist_ok=True)
    rust.save(str(folder / "tokenizer.json"))
    for file, values in config.items():
        (folder / f"{file}.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("name", ["BertTokenizer", "BertTokenizerFast", "ElectraTokenizerFast", "DistilBertTokenizer"])
@pytest.mark.parametrize("where", ["tokenizer_config", "config"])
def test_the_class_that_is_named(name, where, tmp_path):
    folder = folder_with(tmp_path, **{where: {"tokenizer_class": name}})
    assert type(AutoTokenizer.from_pretrained(folder)).__name__ == name.removesuffix("Fast")


def test_a_named_class_comes_before_the_model_s(tmp_path):
    config = {"model_type": "distilbert", "tokenizer_class": "ElectraTokenizer"}
    assert type(AutoTokenizer.from_pretrained(folder_with(tmp_path, config=config))).__name__ == "ElectraTokenizer"
    folder_with(tmp_path, tokenizer_config={"tokenizer_class": "ConvBertTokenizerFast"})
    assert type(AutoTokenizer.from_pretrained(tmp_path)).__name__ == "ConvBertTokenizer"


@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra", "convbert", "mobilebert", "lxmert", "dpr"])
def test_the_model_s_class(kind, tmp_path):
    for config in ({"model_type": kind}, {"model_type": "encoder-decoder", "encoder": {"model_type": kind}}):
        tokenizer = AutoTokenizer.from_pretrained(folder_with(tmp_path, config=config))
        assert type(tokenizer).__name__ == TOKENIZERS[kind][1]
        assert tokenizer.tokenize(TEXT) == ["the", "dog", "##s", "run", "a", "fox"]


def test_every_model_type_has_its_class():
    for kind, (module, name) in TOKENIZERS.items():
        made = getattr(polyformer, name)
        assert made.__module__ == f"polyformer.tokenizers.{module}", kind
        assert getattr(polyformer, f"{name}Fast", made) is made


def test_a_configuration_given_beside_it(tmp_path):
    folder = folder_with(tmp_path)
    for config in (BertConfig(), {"model_type": "bert"}):
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, use_fast=False, model_max_length=9)
        assert type(tokenizer).__name__ == "BertTokenizer" and tokenizer.model_max_length == 9


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend", "LlamaTokenizerFast", None])
def test_a_tokenizer_json_of_no_family(name, tmp_path):
    saved = {"tokenizer_class": name} if name else {}
    tokenizer = AutoTokenizer.from_pretrained(word_level(tmp_path, tokenizer_config=saved))
    assert type(tokenizer) is PreTrainedTokenizer and tokenizer("the dog")["input_ids"] == [0, 1]


def test_a_generic_tokenizer_gives_the_columns_of_the_model(tmp_path):
    config = {"model_type": "distilbert"}
    saved = {"tokenizer_class": "PreTrainedTokenizerFast"}
    tokenizer = AutoTokenizer.from_pretrained(word_level(tmp_path, config=config, tokenizer_config=saved))
    assert type(tokenizer) is PreTrainedTokenizer and len(tokenizer) == 3
    assert set(tokenizer("the dog")) == {"input_ids", "attention_mask"}
    saved["model_input_names"] = ["input_ids"]
    tokenizer = AutoTokenizer.from_pretrained(word_level(tmp_path, config=config, tokenizer_config=saved))
    assert set(tokenizer("the dog")) == {"input_ids"}, "what was saved wins"


@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra", "convbert", "mobilebert", "lxmert", "funnel", "dpr"])
def test_what_transformers_5_saves(kind, tmp_path, transformers):
    vocab = ANGLED if kind == "funnel" else VOCAB
    theirs = transformers.AutoTokenizer.from_pretrained(folder_with(tmp_path / "a", vocab, config={"model_type": kind}))
    theirs.add_tokens(["newtok"])
    theirs.save_pretrained(tmp_path / "b")
    assert not (tmp_path / "b" / "vocab.txt").exists()
    (tmp_path / "b" / "config.json").write_text(json.dumps({"model_type": kind}))
    ours = AutoTokenizer.from_pretrained(tmp_path / "b")
    for pair in (None, "a fox newtok"):
        assert ours(TEXT, pair)["input_ids"] == theirs(TEXT, pair)["input_ids"]
    own = getattr(polyformer, TOKENIZERS[kind][1])
    assert tuple(ours.model_input_names) == tuple(own.model_input_names)
    assert isinstance(ours, own) or issubclass(own, type(ours))
    assert ours.all_special_tokens == theirs.all_special_tokens or set(ours.all_special_tokens) == set(
        theirs.all_special_tokens
    )


def test_what_transformers_5_saves_of_no_family(tmp_path, transformers):
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(word_level(tmp_path / "a"), pad_token="?")
    theirs.save_pretrained(tmp_path / "b")
    ours = AutoTokenizer.from_pretrained(tmp_path / "b")
    assert type(ours) is PreTrainedTokenizer and ours.pad_token == "?"
    assert ours(["the dog", "x"], padding=True)["input_ids"] == [[0, 1], [2, 2]]


def test_our_own_come_back_as_they_were(tmp_path):
    for name in ("BertTokenizer", "DistilBertTokenizer", "DPRReaderTokenizer"):
        made = getattr(polyformer, name)(folder_with(tmp_path / "v") / "vocab.txt")
        made.save_pretrained(tmp_path / name)
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": "dpr"}))
        again = AutoTokenizer.from_pretrained(tmp_path / name)
        assert type(again) is type(made) and again(TEXT) == made(TEXT)


@pytest.mark.parametrize(
    "config,tokenizer_config,said",
    [
        (None, None, "Nothing in .* tells which tokenizer"),
        ({"model_type": "resnet"}, None, "model_type 'resnet', which no tokenizer of this library belongs to"),
        ({"model_type": "bert"}, {"tokenizer_class": "BertJapaneseTokenizer"}, "was saved by BertJapaneseTokenizer"),
        (None, {"tokenizer_class": "BertModel"}, "was saved by BertModel"),
        (None, {"tokenizer_class": "PreTrainedTokenizerFast"}, "it needs tokenizer.json"),
    ],
)
def test_what_cannot_be_told_is_said(config, tokenizer_config, said, tmp_path):
    with pytest.raises(CheckpointError, match=said):
        AutoTokenizer.from_pretrained(folder_with(tmp_path, config=config, tokenizer_config=tokenizer_config))


def test_damaged_and_missing(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="not made but loaded"):
        AutoTokenizer()
