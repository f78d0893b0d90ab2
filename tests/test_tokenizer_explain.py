"""explain: every step of a tokenizer, and all of them lead to the tokens it gives."""

import json
from itertools import pairwise, product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from polyformer import BertTokenizer, PreTrainedTokenizer, ProphetNetTokenizer
from polyformer.cli import main
from polyformer.tokenizers.table import table, visible, width

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["the", "hello", "##lo", "un", "##able", "world", "中", *(f"##{c}" for c in LETTERS), *LETTERS, "!", "fi"]
SPECIALS = "[PAD] [UNK] [CLS] [SEP] [MASK]".split()
MERGES = [("l", "l"), ("h", "e"), ("ll", "o"), ("he", "llo"), ("Ġ", "w"), ("Ġw", "o"), ("a", "b")]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.lists(
    st.sampled_from(
        [*"abhelowrd !", "hello", "Hello world", " [MASK] ", "NewTok", "ﬁ", "é", "e\u0301", "中国", "\x00", "<m>"]
    ),
    max_size=8,
).map("".join)


def bert(folder):
    (folder / "vocab.txt").write_text("\n".join([*SPECIALS, *WORDS]), encoding="utf-8")
    tokenizer = BertTokenizer(folder / "vocab.txt")
    tokenizer.add_tokens(["NewTok"])
    return tokenizer


def byte_level():
    symbols = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in MERGES)]
    rust = Tokenizer(models.BPE({s: i for i, s in enumerate(symbols)}, MERGES))
    rust.pre_tokenizer, rust.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizer(tokenizer_object=rust, mask_token=AddedToken("<m>", lstrip=True, special=True))


def end_of_word():
    vocab = ["<unk>", *LETTERS, *(c + "</w>" for c in LETTERS), "he", "lo</w>"]
    merges = [("l", "o</w>"), ("h", "e")]
    model = models.BPE({s: i for i, s in enumerate(vocab)}, merges, unk_token="<unk>", end_of_word_suffix="</w>")
    rust = Tokenizer(model)
    rust.normalizer, rust.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizer(tokenizer_object=rust, unk_token="<unk>")


def unigram():
    pieces = [("<unk>", 0.0), ("▁", -2.0), ("▁hello", -4.0), ("lo", -2.5), ("▁he", -1.5), *((c, -3.0) for c in LETTERS)]
    rust = Tokenizer(models.Unigram(pieces, 0))
    rust.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    rust.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizer(tokenizer_object=rust, unk_token="<unk>", mask_token="<m>")


def whole():
    """Neither normaliser nor splitter."""
    return PreTrainedTokenizer(tokenizer_object=Tokenizer(models.WordLevel({"?": 0, "hello": 1}, "?")), unk_token="?")


@pytest.fixture(scope="module", params=["bert", "byte_level", "end_of_word", "unigram", "whole"])
def tokenizer(request, tmp_path_factory):
    made = globals()[request.param]
    return made(tmp_path_factory.mktemp("bert")) if made is bert else made()


@settings(max_examples=150, deadline=None)
@given(TEXT, st.none() | TEXT.filter(bool))
@example("Hello[MASK] ﬁ\x00e\u0301 中 NewTok", "  <m> hello")
@example("", None)
@example("a" * 101, "!")
def test_every_step_leads_to_the_tokens(tokenizer, text, pair):
    explained = tokenizer.explain(text, pair)
    batch = tokenizer(text, pair, return_offsets_mapping=True, return_token_type_ids=True)
    rows = explained["tokens"]
    assert [row["id"] for row in rows] == batch["input_ids"] and [row["token"] for row in rows] == batch.tokens()
    assert [row["type"] for row in rows] == batch["token_type_ids"]
    assert [row["characters"] or (0, 0) for row in rows] == batch["offset_mapping"]
    texts = {"": text, "A": text, "B": pair}
    assert all(row["text"] == texts[row["of"]][slice(*row["characters"])] for row in rows if row["characters"])
    normal = tokenizer.backend_tokenizer.normalizer is not None
    names = ["text", *(["normalise", "changes"] if normal else []), "split", "cut", "template", "tokens"]
    assert [step.name for step in explained.steps] == names
    # what was cut and what was found as an added token, in order, is all there is
    for name in ("A", "B") if pair is not None else ("",):
        cut = iter(row for row in explained["cut"] if row["of"] == name)
        made = []
        for row in explained["split"]:
            if row["of"] == name:
                assert row["text"] == texts[name][slice(*row["characters"])]
                made += [row["piece"]] if row["note"] else next(cut)["tokens"]
        got = [row["token"] for row in rows if row["of"] == (name or "A")]
        assert [t.lower() for t in made] == [t.lower() for t in got], "the library normalises added tokens"
        if normal:
            assert apply(texts[name], [r for r in explained["changes"] if r["of"] == name]) == next(
                row["text"] for row in explained["normalise"] if row["of"] == name
            )
    assert json.loads(explained.to_json())["steps"][-1]["rows"] == json.loads(json.dumps(rows))
    assert str(explained) == repr(explained)


def apply(text, changes):
    made, end = "", 0
    for change in changes:
        start, stop = change["characters"]
        assert text[start:stop] == change["from"] != change["to"]
        made, end = made + text[end:start] + change["to"], stop
    return made + text[end:]


def test_normalised_is_what_the_normaliser_gives(tmp_path):
    for made in (bert(tmp_path), unigram()):
        for text in ("Crème  ﬁ\x00 中国", " İstanbul ẞ", "e\u0301\u0300"):
            want = made.backend_tokenizer.normalizer.normalize_str(text)
            assert made.explain(text)["normalise"][0]["text"] == want


@settings(max_examples=60, deadline=None)
@given(st.text("helowab", min_size=1, max_size=9))
def test_merges_make_the_tokens(text):
    """Each merge is the best that is possible when it is made, and after the last no other is."""
    (row,) = byte_level().explain(text)["cut"]
    symbols, ranks = list(row["piece"]), {f"{a}+{b}": rank for rank, (a, b) in enumerate(MERGES)}
    for merge in row["merges"]:
        possible = [f"{a}+{b}" for a, b in pairwise(symbols) if f"{a}+{b}" in ranks]
        assert merge == min(possible, key=ranks.__getitem__)
        at = [f"{a}+{b}" for a, b in pairwise(symbols)].index(merge)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    assert symbols == row["tokens"] and not any(f"{a}+{b}" in ranks for a, b in pairwise(symbols))


@settings(max_examples=40, deadline=None)
@given(st.text("helo", min_size=1, max_size=7))
def test_scores_are_the_best_there_are(text):
    made = unigram()
    (row,) = made.explain(text)["cut"]
    scores = dict(json.loads(made.backend_tokenizer.to_str())["model"]["vocab"])
    assert row["scores"] == [scores[token] for token in row["tokens"]] and row["sum"] == sum(row["scores"])
    piece, best = row["piece"], -1e9
    for ends in product([True, False], repeat=len(piece) - 1):
        at = [0, *(i + 1 for i, end in enumerate(ends) if end), len(piece)]
        parts = [piece[a:b] for a, b in pairwise(at)]
        if all(part in scores for part in parts):
            best = max(best, sum(scores[part] for part in parts))
    assert row["sum"] == best


def test_why_a_word_is_unknown(tmp_path):
    made = bert(tmp_path)
    rows = {row["piece"]: row for row in made.explain("the unю " + "a" * 101)["cut"]}
    assert rows["the"]["why"] == ""
    assert rows["unю"]["tokens"] == ["[UNK]"] and rows["unю"]["why"] == "no token is the start of ##ю"
    assert rows["a" * 101]["why"] == "longer than 100 characters"


def test_a_backend_of_its_own_shows_its_words(tmp_path):
    (tmp_path / "v").write_text("\n".join([*SPECIALS, *WORDS]), encoding="utf-8")
    explained = ProphetNetTokenizer(tmp_path / "v").explain("Hello [MASK] unable", "the")
    assert [step.name for step in explained.steps] == ["text", "cut", "template", "tokens"]
    assert [(r["of"], r["text"], r["tokens"]) for r in explained["cut"]] == [
        ("A", "Hello", ["hello"]),
        ("A", "[MASK]", ["[MASK]"]),
        ("A", "unable", ["un", "##able"]),
        ("B", "the", ["the"]),
    ]


def test_what_is_printed(tmp_path):
    printed = str(bert(tmp_path).explain("Hello  中国[MASK]"))
    assert "Hello␣␣中国[MASK]" in printed and "0-1" in printed and "H" in printed
    lines = printed.split("\n")
    head = next(line for line in lines if line.split()[:2] == ["characters", "text"])
    rows = lines[lines.index(head) + 1 :][:4]
    column = head.index("piece")
    starts = [
        width(line[: line.rindex(piece)]) for line, piece in zip(rows, ("hello", "中", "国", "[MASK]"), strict=True)
    ]
    assert starts == [column] * 4, "columns line up though some characters are two wide"


def test_tables():
    rows = [{"a": "x y", "b": "", "c": (1, 2), "why": "so it is"}, {"a": "中\n", "b": None, "c": None, "why": ""}]
    assert table(rows, "") == ["a     c    why", "x␣y   1-2  so it is", "中\\n"]
    assert table([]) == [] and visible("\u200b a") == "\\u200b␣a" and width("e\u0301中") == 3


def test_what_is_no_text_is_said():
    with pytest.raises(TypeError, match="text is 3"):
        whole().explain(3)
    with pytest.raises(TypeError, match="pair is 3"):
        whole().explain("a", 3)
    with pytest.raises(ValueError, match="lone surrogate"):
        whole().explain("a\ud800")
    with pytest.raises(KeyError, match="no step 'normalise'"):
        whole().explain("a")["normalise"]


def test_the_command(tmp_path, capsys):
    bert(tmp_path).save_pretrained(tmp_path / "model")
    assert main(["explain", str(tmp_path / "model"), "Hello world"]) == 0
    out, err = capsys.readouterr()
    assert "hello␣world" in out and "[CLS]" in out and err == ""
    assert main(["explain", str(tmp_path / "model"), "Hello", "world", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["token"] for row in said["steps"][-1]["rows"]] == ["[CLS]", "hello", "[SEP]", "world", "[SEP]"]
    assert main(["explain", str(tmp_path / "nothing"), "Hello"]) == 1
    assert main(["explain"]) == 2
