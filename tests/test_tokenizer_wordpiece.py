"""The WordPiece families beside BERT: against transformers 4.6.1, and through each other's files."""

import json
import subprocess
import sys

import pytest

import polyformer
from polyformer import BertTokenizer, CheckpointError, FunnelTokenizer, ProphetNetTokenizer

WORDS = (
    "the a hello world quick brown fox jump over lazy dog token un want able run 中 é ##ing ##ed ##er ##able".split()
)
LETTERS = [mark + c for c in "abcdefghijklmnopqrstuvwxyz0123456789" for mark in ("", "##") if mark + c != "a"]
ANGLED = "<pad> <unk> <cls> <sep> <mask> <s> </s>".split()
SQUARE = "[PAD] [UNK] [CLS] [SEP] [MASK] [X_SEP]".split()
SQUARED = ("DistilBert", "RetriBert", "Electra", "ConvBert", "MobileBert", "Lxmert")
TEXTS = [
    "Hello world, quick dogs!",
    "naïve 中国 [MASK] tokens <mask> [SEP]",
    "",
    " x\ty ",
    "unwanted runnable " * 6,
    "[UNK] a{b}c ＡＢ\u200b ½",
]
PAIRS = [["hello", "the lazy dog"], ["a", "unwanted running fox " * 3]]

# Reads [class, folder] pairs; writes what each class makes of the texts, and saves it again beside the folder.
REFERENCE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import transformers
texts, pairs, jobs = json.loads(sys.argv[2])
answers = {}
for name, folder in jobs:
    tokenizer = getattr(transformers, name).from_pretrained(folder)
    rows = [dict(tokenizer(t)) for t in texts] + [dict(tokenizer(*p)) for p in pairs]
    text = [tokenizer.decode(r["input_ids"], skip_special_tokens=s) for r in rows for s in (True, False)]
    tokenizer.save_pretrained(folder + "-again")
    answers[name] = [rows, text, len(tokenizer), sorted(tokenizer.all_special_tokens), tokenizer.model_max_length]
print(json.dumps(answers))
"""


def vocabulary(path, specials):
    punctuation = list("!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~")
    path.write_text("".join(t + "\n" for t in [*specials, *punctuation, *LETTERS, *WORDS]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    squared, angled = vocabulary(folder / "squared", SQUARE), vocabulary(folder / "angled", ANGLED)
    made = {f"{name}TokenizerFast": getattr(polyformer, f"{name}Tokenizer")(squared) for name in SQUARED}
    made["FunnelTokenizerFast"] = FunnelTokenizer(angled, model_max_length=33)
    made["ProphetNetTokenizer"] = ProphetNetTokenizer(squared, do_lower_case=False)
    for name, tokenizer in made.items():
        tokenizer.save_pretrained(folder / name)
    return folder, made


@pytest.fixture(scope="module")
def theirs(ours, oracle):
    folder, made = ours
    request = json.dumps([TEXTS, PAIRS, [[name, str(folder / name)] for name in made]])
    arguments = [sys.executable, "-s", "-W", "ignore", "-c", REFERENCE, str(oracle.folder), request]
    return json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("name", [*(f"{n}TokenizerFast" for n in (*SQUARED, "Funnel")), "ProphetNetTokenizer"])
def test_as_the_reference(name, ours, theirs):
    """Rows, text, special tokens; also after the reference has saved what it loaded from us."""
    folder, made = ours
    rows, texts, size, specials, longest = theirs[name]
    again = type(made[name]).from_pretrained(folder / f"{name}-again")
    for tokenizer in (made[name], type(made[name]).from_pretrained(folder / name), again):
        got = [dict(tokenizer(t)) for t in TEXTS] + [dict(tokenizer(*p)) for p in PAIRS]
        assert got == rows
        ids = [row["input_ids"] for row in got]
        assert [tokenizer.decode(i, skip_special_tokens=s) for i in ids for s in (True, False)] == texts
        assert (len(tokenizer), sorted(tokenizer.all_special_tokens)) == (size, specials)
        assert tokenizer.model_max_length == longest or longest > 1e20


def test_columns_and_types(ours):
    made = ours[1]
    assert set(made["DistilBertTokenizerFast"]("a")) == {"input_ids", "attention_mask"}
    assert made["FunnelTokenizerFast"]("a", "the", padding="max_length", max_length=7).token_type_ids == [
        2, 0, 0, 1, 1, 0, 0
    ]  # fmt: skip
    assert made["ProphetNetTokenizer"]("a", "the").token_type_ids == [0, 0, 1, 1]


def test_prophetnet_keeps_its_file_and_options(ours, tmp_path):
    tokenizer = ours[1]["ProphetNetTokenizer"]
    tokenizer.add_tokens(["NewTok"])
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "prophetnet.tokenizer").read_text(encoding="utf-8").startswith("[PAD]\n[UNK]\n")
    again = ProphetNetTokenizer.from_pretrained(tmp_path)
    assert again.init_kwargs["x_sep_token"] == "[X_SEP]" and again.tokenize("Hello NewTok") == ["[UNK]", "NewTok"]
    assert ProphetNetTokenizer.from_pretrained(tmp_path, do_lower_case=True).tokenize("Hello") == ["hello"]


def test_an_accent_keeps_its_offsets_in_prophetnet(tmp_path):
    tokenizer = ProphetNetTokenizer(vocabulary(tmp_path / "v", SQUARE))
    batch = tokenizer("Nàïve [MASK] Fox", return_offsets_mapping=True)
    text = ["Nàïve [MASK] Fox"[a:b] for a, b in batch.offset_mapping]
    assert "".join(text[:5]) == "Nàïve" and text[5:7] == ["[MASK]", "Fox"]


@pytest.mark.parametrize(
    "cls,specials,lacks",
    [(FunnelTokenizer, SQUARE, "<unk>"), (ProphetNetTokenizer, ANGLED, "[UNK]"), (BertTokenizer, SQUARE[:2], "[CLS]")],
)
def test_another_family_s_vocabulary_is_named(cls, specials, lacks, tmp_path):
    path = vocabulary(tmp_path / "v", specials)
    with pytest.raises(CheckpointError) as error:
        cls(path)
    assert repr(lacks) in str(error.value) and "pass " in str(error.value)


def test_published_ids(shared):
    """The uncased vocabulary under each name gives the ids that BERT's was published with."""
    folder = shared / "vocab" / "bert-base-uncased"
    text = "Hello world, this isn't an unbelievable test!"
    want = [101, 7592, 2088, 1010, 2023, 3475, 1005, 1056, 2019, 23653, 3231, 999, 102]
    for name in SQUARED:
        assert getattr(polyformer, f"{name}Tokenizer").from_pretrained(folder).encode(text) == want
    assert ProphetNetTokenizer(folder / "vocab.txt").encode(text) == want[1:]
