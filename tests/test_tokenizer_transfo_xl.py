"""Transformer-XL: words and figures against the live reference, and vocabularies that were pickled."""

import os
import pickle
import shutil
from collections import Counter, OrderedDict

import pytest
import torch

from polyformer import TransfoXLTokenizer
from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import pickled
from tokenizer_zoo import BY_NAME, NASTY, PAIRS, Tokenizers

FAMILY = BY_NAME["transfo-xl"]
WORDS = ["<eos>", "<unk>", "<formula>", "the", "a", "x", "y", "1", "000", "@-@", "@,@", "@.@", ",", "."]
FIGURES = ["1,000 and 3.14.", "x-y x--y -x", "1,000,000.5", "a,b 5,", "10:30 1.", "(5,5)", "-1,5-2", "state-of-the-art"]


@pytest.fixture(scope="module")
def toks(tmp_path_factory):
    return Tokenizers(tmp_path_factory.mktemp("tokenizers"))


@pytest.mark.parametrize(
    "options", [{"lower_case": True}, {}, {"delimiter": ""}, {"language": "de"}, {"never_split": ["x-y"]}], ids=str
)
def test_words_are_those_of_the_reference(options, toks, oracle):
    tok = TransfoXLTokenizer.from_pretrained(toks.folder(FAMILY), **options)
    texts = [*NASTY, *FIGURES, "the <eos> a <FORMULA> x<eos>y"]
    calls = [(method, [text], {}) for method in ("tokenize", "encode") for text in texts]
    want = oracle.tokenize("TransfoXLTokenizer", toks.folder(FAMILY), calls, options)
    assert [tok.tokenize(t) for t in texts] + [tok.encode(t) for t in texts] == want


def test_figures_and_dashes_come_back(toks, oracle):
    tok = toks[FAMILY]
    rows = [
        ["1", "@,@", "000", "@.@", "5", "x", "@-@", "y", "(", "a", ")", "'s", "n't", ",", "<eos>"],
        WORDS,
        WORDS[::-1],
    ]
    calls = [("convert_tokens_to_string", [row], {}) for row in rows]
    want = oracle.tokenize("TransfoXLTokenizer", toks.folder(FAMILY), calls, FAMILY.options)
    assert [tok.convert_tokens_to_string(row) for row in rows] == want
    assert want[0].startswith("1,000.5 x-y (a)")


def test_spans_of_figures_and_dashes(toks):
    text = "It's 1,000.5 X-Y, <eos>"
    row = toks[FAMILY](text, return_offsets_mapping=True)
    assert row.tokens() == ["it", "'s", "1", "@,@", "000", "@.@", "5", "x", "@-@", "y", ",", "<eos>"]
    assert [text[a:b] for a, b in row["offset_mapping"]] == [
        *("It", "'s", "1", ",", "000", ".", "5", "X", "-", "Y", ",", "<eos>")
    ]


def test_no_padding_token_until_one_is_named(toks):
    tok = toks.fresh(FAMILY)
    with pytest.raises(ValueError, match="padding needs a padding token"):
        tok(list(PAIRS[1]), padding=True)
    tok.pad_token = tok.eos_token
    assert len({len(row) for row in tok(list(PAIRS[1]), padding=True)["input_ids"]}) == 1


# ---- vocabularies


def test_a_vocabulary_that_the_reference_pickled(toks, oracle, tmp_path):
    want = toks[FAMILY].get_vocab()
    call = ("save_pretrained", [str(tmp_path)], {})
    oracle.tokenize("TransfoXLTokenizer", toks.folder(FAMILY), [call], FAMILY.options)
    assert (tmp_path / "vocab.pkl").exists() and not (tmp_path / "vocab.txt").exists()
    tok = TransfoXLTokenizer.from_pretrained(tmp_path)
    assert tok.get_vocab() == want and tok("The", add_special_tokens=False) == toks[FAMILY]("The")
    tok.save_pretrained(tmp_path / "again")
    assert TransfoXLTokenizer.from_pretrained(tmp_path / "again").get_vocab() == want
    texts = [*NASTY, *FIGURES]
    calls = [("encode", [t], {}) for t in texts]
    assert oracle.tokenize("TransfoXLTokenizer", tmp_path / "again", calls) == tok(texts)["input_ids"]


class Bomb:
    def __reduce__(self):
        return os.mkdir, (self.path,)


def saved(**more):
    return {"sym2idx": OrderedDict(zip(WORDS, range(len(WORDS)), strict=True)), "counter": Counter("aab"), **more}


@pytest.mark.parametrize("kind", ["pickle0", "pickle1", "pickle2", "pickle3", "pickle4", "pickle5", "zip", "legacy"])
def test_nothing_in_a_pickle_is_run(kind, tmp_path):
    bomb = Bomb()
    bomb.path = str(tmp_path / "gone-off")
    value = saved(
        bomb=bomb, tensor=torch.ones(2) if "pickle" not in kind else {1, 2}, tools=[pickle.Pickler, shutil.rmtree]
    )
    path = tmp_path / ("vocab.pkl" if "pickle" in kind else "vocab.bin")
    if "pickle" in kind:
        path.write_bytes(pickle.dumps(value, protocol=int(kind[-1])))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=kind == "zip")
    for source in (tmp_path, path):
        tok = TransfoXLTokenizer.from_pretrained(source)
        assert tok.convert_ids_to_tokens(list(range(len(WORDS)))) == WORDS
    found = pickled.read(path)
    assert found["counter"] == Counter("aab") and type(found["bomb"]) is pickled._Placeholder
    assert not (tmp_path / "gone-off").exists()
    pickle.loads(pickle.dumps(bomb))  # it would have
    assert (tmp_path / "gone-off").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.pkl", b"", "not a pickled vocabulary"),
        ("vocab.pkl", b"\x80\x04junk", "not a pickled vocabulary"),
        ("vocab.bin", b"PK\x03\x04junk", "not a pickled vocabulary"),
        ("vocab.pkl", pickle.dumps([1]), "holds no dict but a list"),
        ("vocab.pkl", pickle.dumps({"a": 1}), "has no words"),
        ("vocab.pkl", pickle.dumps({"sym2idx": {"a": "b"}}), "not a word and its number"),
        ("vocab.pkl", pickle.dumps({"sym2idx": {"<unk>": 0, "b": 2}}), "from 0 on, each once"),
        ("vocab.txt", b"<unk>\na\na\n", "the word 'a' on lines 2 and 3"),
        ("vocab.txt", b"<unk>\n\na\n", "nothing on line 2"),
        ("vocab.txt", b"<UNK>\na\n", "has no '<unk>', which is needed"),
        ("vocab.txt", b"\xff\xfe", "not UTF-8"),
        ("vocab.json", b"{}", "it needs vocab.pkl or vocab.bin or vocab.txt, but has only vocab.json"),
    ],
)
def test_damaged_vocabularies_are_named(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        TransfoXLTokenizer.from_pretrained(tmp_path)


def test_what_is_no_text_or_no_vocabulary(toks):
    with pytest.raises(ValueError, match="needs a vocabulary: give vocab_file or pretrained_vocab_file"):
        TransfoXLTokenizer()
    with pytest.raises(ValueError, match="lone surrogate"):
        toks[FAMILY]("a \ud800")
    with pytest.raises(TypeError, match="must be a str"):
        toks[FAMILY](["a", None])
