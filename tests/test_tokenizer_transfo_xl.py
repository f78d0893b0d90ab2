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


# ---- building one


LINES = "the cat sat\nthe dog the end\n\nA cat\n"


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text(LINES)
    return tmp_path / "text.txt"


def built(text, special=("<unk>", "<eos>"), **options):
    tok = TransfoXLTokenizer(special=special, **options)
    found = tok.count_file(text)
    tok.count_sents([["x", "x"], ["the"]])
    tok.build_vocab()
    return tok, found


@pytest.mark.parametrize(
    "options, words",
    [  # by frequency, then by who comes first: the 4, cat 2, x 2, sat 1, dog 1, end 1, A 1
        ({}, "the cat x sat dog end A"),
        ({"max_size": 2}, "the cat"),
        ({"min_freq": 2}, "the cat x"),
        ({"min_freq": 2, "max_size": 2}, "the cat"),
        ({"lower_case": True, "special": ("<eos>", "<unk>", "dog")}, "the cat x sat end a"),
    ],
    ids=str,
)
def test_a_vocabulary_is_built_of_what_was_counted(options, words, text, tmp_path):
    tok, found = built(text, **options)
    a = "a" if options.get("lower_case") else "A"
    assert found == [["the", "cat", "sat"], ["the", "dog", "the", "end"], [], [a, "cat"]]
    want = [*options.get("special", ("<unk>", "<eos>")), *words.split(), "<formula>"]  # added, as it is to any
    assert tok.convert_ids_to_tokens(list(range(len(tok)))) == want
    assert tok.unk_token_id == want.index("<unk>") and tok("the zzz")["input_ids"] == [
        want.index("the"),
        tok.unk_token_id,
    ]
    tok.save_pretrained(tmp_path / "saved")
    again = TransfoXLTokenizer.from_pretrained(tmp_path / "saved")
    assert again.get_vocab() == tok.get_vocab()
    again.count_sents([["new"] * 9])
    again.build_vocab()  # a file's stays
    assert again.get_vocab() == tok.get_vocab()


def test_characters_may_be_counted_too(text):
    tok = TransfoXLTokenizer(special=["<unk>"], delimiter="")
    assert tok.count_file(text, add_eos=True)[3] == [*"A cat", "<eos>"]
    tok.build_vocab()
    assert list(tok.get_vocab())[:3] == ["<unk>", "t", " "]


def test_a_corpus_as_ids(text):
    tok, _ = built(text)
    ids = tok.get_vocab()
    line = [ids[w] for w in "the dog the end <eos>".split()]
    rows = tok.encode_file(text)
    assert rows[1].tolist() == line and rows[2].tolist() == [ids["<eos>"]] and rows[1].dtype == torch.int64
    assert torch.equal(tok.encode_file(text, ordered=True), torch.cat(rows))
    assert tok.encode_file(text, add_eos=False)[2].shape == (0,)
    assert tok.encode_file(text, add_double_eos=True)[1].tolist() == [0, *line[:-1], 0]  # no "<S>" in it
    assert [row.tolist() for row in tok.encode_sents([["cat"], ["?", "the"]])] == [[ids["cat"]], [0, ids["the"]]]


def test_an_added_token_takes_a_place_among_the_words(text):
    tok, _ = built(text)
    before = tok.convert_ids_to_tokens(list(range(len(tok))))
    tok.add_tokens(["new", "newer"])
    tok.move_added_token("newer", 3)
    assert tok.convert_ids_to_tokens(list(range(len(tok)))) == [*before[:3], "newer", *before[3:], "new"]
    assert tok("the newer cat new")["input_ids"] == [2, 3, 4, len(tok) - 1]
    for token, place in (("the", 3), ("new", 99), ("none", 3)):
        with pytest.raises(ValueError, match="cannot be moved"):
            tok.move_added_token(token, place)


def test_a_vocabulary_without_the_unknown_token(text):
    tok = TransfoXLTokenizer(special=["<eos>"])
    tok.count_file(text)
    with pytest.raises(ValueError, match="begin special with it"):
        tok.build_vocab()
    tok.count_sents([["<unk>"]])  # as WikiText has it
    tok.build_vocab()
    assert tok("zzz")["input_ids"] == [tok.unk_token_id]
