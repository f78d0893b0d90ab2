"""The BPE families: GPT-2, RoBERTa and its kin, OpenAI GPT, CTRL. What all tokenizers share is tested elsewhere.

The vocabularies are trained here, on a few sentences; the real ones are read from the shared folder where it is.
"""

import json
import os
import random
import subprocess
import sys
from itertools import pairwise

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from polyformer import (
    BartTokenizer,
    CTRLTokenizer,
    GPT2Tokenizer,
    LongformerTokenizer,
    OpenAIGPTTokenizer,
    RobertaTokenizer,
)
from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import bpe
from polyformer.tokenizers.byte_level import BYTE_OF
from polyformer.tokenizers.ctrl import CONTROL_CODES

SENTENCES = [
    "Hello world, this isn't an unbelievable test! Nor is it a test that the others didn't see.",
    "The quick brown foxes jumped over the lazy dogs; the dogs were lower, newer and wider than those.",
    "Crème brûlée (pre-tax) costs €4.50 — Zoë's naïve «東京は大きい» and Быстрая коричневая лиса.",
    "She said that we'll see what they've done in 2021, and I'm sure you'd rather not know it.",
]
SPECIALS = {
    GPT2Tokenizer: ["<|endoftext|>"],
    RobertaTokenizer: ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    OpenAIGPTTokenizer: ["<unk>"],
    CTRLTokenizer: ["<unk>"],
}
BYTE_LEVEL = [GPT2Tokenizer, RobertaTokenizer]
ALL = [*SPECIALS]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50) | st.lists(
    st.sampled_from([*" ".join(SENTENCES).split(), "\n", " ", "  ", "😀", "\u00a0", "\r\n", "x" * 40]), max_size=12
).map(" ".join)
CASES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(folder, vocab, merges, header="#version: 0.2\n"):
    folder.mkdir(parents=True, exist_ok=True)
    text = vocab if isinstance(vocab, str) else json.dumps(vocab)
    (folder / "vocab.json").write_text(text, encoding="utf-8")
    lines = merges if isinstance(merges, str) else "".join(f"{a} {b}\n" for a, b in merges)
    (folder / "merges.txt").write_bytes((header + lines).encode())
    return folder / "vocab.json", folder / "merges.txt"


def trained(cls):
    """A vocabulary and merges learnt from the sentences: of bytes, or of characters and `</w>` at a word's end."""
    tokenizer = Tokenizer(models.BPE())
    if cls in BYTE_LEVEL:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        more = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        more = {"end_of_word_suffix": "</w>"}
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIALS[cls], show_progress=False, **more)
    lower = cls is OpenAIGPTTokenizer
    tokenizer.train_from_iterator([s.lower() if lower else s for s in SENTENCES * 3], trainer)
    vocab, merges = tokenizer.get_vocab(), bpe.merges_of(tokenizer)
    if cls is CTRLTokenizer:
        names = [*SPECIALS[cls], *sorted({spelt(s) for s in vocab if s not in SPECIALS[cls]}), "Links", "Books", "\n"]
        vocab = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return vocab, merges


def spelt(symbol):
    return symbol.removesuffix("</w>") if symbol.endswith("</w>") else symbol + "@@"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("bpe")
    for cls in ALL:
        write(root / cls.__name__, *trained(cls))
    return {cls: root / cls.__name__ for cls in ALL}


@pytest.fixture(scope="module")
def toks(folders):
    return {cls: cls.from_pretrained(folder) for cls, folder in folders.items()}


def exactly(tokenizer, ids):
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


# ----------------------------------------------------------------------------------------------------- byte by byte


@CASES
@given(text=ANY_TEXT)
def test_decoding_gives_the_very_text(toks, text):
    tokenizer = toks[GPT2Tokenizer]
    assert exactly(tokenizer, tokenizer.encode(text)) == text


@CASES
@given(text=ANY_TEXT)
def test_tokens_spell_the_bytes_and_offsets_cover_the_text(toks, text):
    batch = toks[GPT2Tokenizer](text, return_offsets_mapping=True)
    assert bytes(BYTE_OF[c] for token in batch.tokens() for c in token) == text.encode()
    covered = [i for start, end in batch["offset_mapping"] for i in range(start, end)]
    assert set(covered) == set(range(len(text)))  # bytes of one character share its place
    assert covered == sorted(covered)


def test_the_alphabet_is_that_of_the_library():
    assert set(BYTE_OF) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(BYTE_OF.values()) == [*range(256)]
    for char, byte in BYTE_OF.items():
        if byte < 128:
            assert decoders.ByteLevel().decode([char]) == chr(byte)


@CASES
@given(text=ANY_TEXT, cut=st.integers(0, 200))
def test_errors_are_those_of_bytes_decode(folders, toks, text, cut):
    ids = toks[GPT2Tokenizer].encode(text)[cut // 2 : cut]
    spelling = bytes(BYTE_OF[c] for t in toks[GPT2Tokenizer].convert_ids_to_tokens(ids) for c in t)
    assert exactly(toks[GPT2Tokenizer], ids) == spelling.decode("utf-8", "replace")
    for errors in ("ignore", "backslashreplace"):
        tokenizer = loaded(folders[GPT2Tokenizer], errors)
        assert exactly(tokenizer, ids) == spelling.decode("utf-8", errors)
        assert tokenizer.convert_tokens_to_string(tokenizer.convert_ids_to_tokens(ids)) == exactly(tokenizer, ids)


_LOADED = {}


def loaded(folder, errors):
    if errors not in _LOADED:
        _LOADED[errors] = GPT2Tokenizer.from_pretrained(folder, errors=errors)
    return _LOADED[errors]


def test_strict_errors_raise_and_unknown_ones_are_refused(folders):
    tokenizer = GPT2Tokenizer.from_pretrained(folders[GPT2Tokenizer], errors="strict")
    half = tokenizer.convert_tokens_to_ids(["Ã"])
    with pytest.raises(UnicodeDecodeError):
        tokenizer.decode(half)
    with pytest.raises(ValueError, match="errors='loose' is no way"):
        GPT2Tokenizer.from_pretrained(folders[GPT2Tokenizer], errors="loose")


@pytest.mark.parametrize("errors", ["replace", "ignore"])
def test_added_tokens_are_text_and_no_spelling_of_bytes(folders, errors):
    tokenizer = GPT2Tokenizer.from_pretrained(folders[GPT2Tokenizer], errors=errors)
    tokenizer.add_tokens(["éé", "ĠĠx", "中国"])
    text = "a éé ĠĠx中国 éa<|endoftext|>"
    ids = tokenizer.encode(text)
    assert {"éé", "ĠĠx", "中国"} <= set(tokenizer.tokenize(text))
    assert exactly(tokenizer, ids) == text
    assert exactly(tokenizer, [*ids[:-1]]) == text.removesuffix("<|endoftext|>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == text.removesuffix("<|endoftext|>")


# ---------------------------------------------------------------------------------------------- spaces before words


@pytest.mark.parametrize("cls", BYTE_LEVEL)
def test_prefix_space(folders, cls):
    plain = cls.from_pretrained(folders[cls])
    spaced = cls.from_pretrained(folders[cls], add_prefix_space=True)
    assert spaced.tokenize("the dogs") == plain.tokenize(" the dogs")
    assert spaced.tokenize(" the dogs") == plain.tokenize(" the dogs")
    words = ["the", "dogs", "didn't"]
    assert spaced(words, is_split_into_words=True)["input_ids"] == spaced("the dogs didn't")["input_ids"]
    assert set(spaced(words, is_split_into_words=True).word_ids()) - {None} == {0, 1, 2}
    with pytest.raises(ValueError, match="add_prefix_space=True"):
        plain(words, is_split_into_words=True)
    with pytest.raises(ValueError, match="add_prefix_space=True"):
        plain.encode_plus(words, is_split_into_words=True)


@pytest.mark.parametrize("cls", BYTE_LEVEL)
@pytest.mark.parametrize("space", [False, True])
@pytest.mark.parametrize("trim", [False, True])
def test_trimmed_offsets_leave_the_space_out(folders, tmp_path, cls, space, trim):
    tokenizer = cls.from_pretrained(folders[cls], add_prefix_space=space, trim_offsets=trim)
    tokenizer.save_pretrained(tmp_path)
    for text in ("the lazy  dogs ", "a  東 the", *([] if space else [" the dogs"])):
        for again in (tokenizer, cls.from_pretrained(tmp_path)):
            batch = again(text, return_offsets_mapping=True, add_special_tokens=False)
            for place, (token, (start, end)) in enumerate(zip(batch.tokens(), batch["offset_mapping"], strict=True)):
                spelling = token.replace("Ġ", " ")
                if spelling.isascii() and spelling.strip():
                    invented = space and place == 0
                    assert text[start:end] == (spelling.lstrip() if trim or invented else spelling)


def test_settings_of_a_tokenizer_json_stand_until_others_are_asked_for(folders, tmp_path):
    GPT2Tokenizer.from_pretrained(folders[GPT2Tokenizer], add_prefix_space=True).save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    kept, changed = (
        GPT2Tokenizer.from_pretrained(tmp_path),
        GPT2Tokenizer.from_pretrained(tmp_path, add_prefix_space=False),
    )
    assert (kept.tokenize("the")[0][0], changed.tokenize("the")[0][0]) == ("Ġ", "t")


@pytest.mark.parametrize("cls", [RobertaTokenizer, LongformerTokenizer, BartTokenizer])
def test_roberta_and_kin(folders, cls):
    tokenizer = cls.from_pretrained(folders[RobertaTokenizer])
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    a, b = (tokenizer.encode(t, add_special_tokens=False) for t in ("the dogs", " newer"))
    assert tokenizer.encode("the dogs") == [first, *a, last]
    assert tokenizer.encode("the dogs", " newer") == [first, *a, last, last, *b, last]
    assert set(tokenizer("the dogs", " newer", return_token_type_ids=True)["token_type_ids"]) == {0}
    assert list(tokenizer("the dogs")) == ["input_ids", "attention_mask"]


def test_a_mask_takes_the_space_before_it_unless_told_otherwise(folders):
    folder = folders[RobertaTokenizer]
    eats = RobertaTokenizer.from_pretrained(folder)
    renamed = RobertaTokenizer.from_pretrained(folder, mask_token="<M>")
    keeps = RobertaTokenizer.from_pretrained(folder, mask_token=AddedToken("<mask>", lstrip=False))
    assert ids(eats, "a <mask>") == [*ids(eats, "a"), eats.mask_token_id]
    assert ids(renamed, "a <M>") == [*ids(renamed, "a"), renamed.mask_token_id]
    assert ids(keeps, "a <mask>") == [*ids(keeps, "a "), keeps.mask_token_id]


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


# ----------------------------------------------------------------------------------------------------------- words


def test_gpt_cleans_and_lowers(toks):
    tokenizer = toks[OpenAIGPTTokenizer]
    assert tokenizer.encode("The  DOGS\n") == tokenizer.encode("the dogs")
    assert tokenizer.decode(tokenizer.encode("the lazy dogs")) == "the lazy dogs"
    assert tokenizer.encode("☃") == [tokenizer.unk_token_id]
    text = "Dogs\u0301 lower"
    batch = tokenizer(text, return_offsets_mapping=True)
    assert "".join(text[a:b] for a, b in batch["offset_mapping"]).replace("\u0301", "") == "Dogslower"


def bpe_by_definition(word, ranks):
    """Join the pair of lowest rank, everywhere, until there is none: the tokens of a word of CTRL."""
    symbols = [*word[:-1], word[-1] + "</w>"]
    while known := [pair for pair in pairwise(symbols) if pair in ranks]:
        best, joined = min(known, key=ranks.__getitem__), []
        while symbols:
            if tuple(symbols[:2]) == best:
                joined.append(symbols[0] + symbols[1])
                symbols = symbols[2:]
            else:
                joined.append(symbols[0])
                symbols = symbols[1:]
        symbols = joined
    return [spelt(s) if i + 1 < len(symbols) else s.removesuffix("</w>") for i, s in enumerate(symbols)]


# what the expression \S of the original's `regex` leaves out: Unicode's White_Space
SPACES = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"


def words_by_definition(text):
    words, word = [], ""
    for char in text:
        if char not in SPACES:
            word += char
        elif word:
            words.append(word + ("\n" if char == "\n" else ""))
            word = ""
    return [*words, word] if word else words


@CASES
@given(text=ANY_TEXT)
def test_ctrl_is_bpe_by_definition(toks, folders, text):
    tokenizer = toks[CTRLTokenizer]
    ranks = {pair: i for i, pair in enumerate(bpe.read_merges(folders[CTRLTokenizer] / "merges.txt"))}
    words = words_by_definition(text.replace("<unk>", ""))
    want = [bpe_by_definition(word, ranks) for word in words]
    batch = tokenizer(text.replace("<unk>", ""), return_offsets_mapping=True)
    assert batch.tokens() == [token for word in want for token in word]
    assert batch["input_ids"] == [tokenizer.convert_tokens_to_ids(t) for t in batch.tokens()]
    assert batch.word_ids() == [i for i, word in enumerate(want) for _ in word]
    for token, (start, end) in zip(batch.tokens(), batch["offset_mapping"], strict=True):
        assert text.replace("<unk>", "")[start:end] in (token, token.removesuffix("@@"))


def test_ctrl_white_space_is_unicodes(toks):
    chars = [chr(i) for i in range(0x3100)]  # the last of them is U+3000
    batch = toks[CTRLTokenizer]([f"a{c}b" for c in chars])
    apart = {c for i, c in enumerate(chars) if max(batch.word_ids(i)) == 1}
    assert apart == set(SPACES)


def test_ctrl_added_tokens(toks, folders):
    tokenizer = CTRLTokenizer.from_pretrained(folders[CTRLTokenizer])
    size = len(tokenizer)
    assert tokenizer.add_tokens(["lower", "low", "new tok", AddedToken("cat", single_word=True)]) == 4
    assert tokenizer.convert_tokens_to_ids(["lower", "low", "new tok"]) == [size, size + 1, size + 2]
    text = "the lower\nlowest new tok x cat cats\n<unk> end"
    batch = tokenizer(text, return_offsets_mapping=True)
    tokens = batch.tokens()
    assert [t for t in tokens if t in ("lower", "low", "new tok", "cat", "<unk>")] == [
        "lower",
        "low",
        "new tok",
        "cat",
        "<unk>",
    ]
    for token, (start, end) in zip(tokens, batch["offset_mapping"], strict=True):
        assert text[start:end] in (token, token.removesuffix("@@"))
    assert [*dict.fromkeys(batch.word_ids())] == [*range(len(set(batch.word_ids())))]
    assert tokenizer.decode(tokenizer.encode("the lower dogs")) == "the lower dogs"
    assert toks[CTRLTokenizer].convert_tokens_to_ids("new tok") == toks[CTRLTokenizer].unk_token_id
    words = tokenizer(["the", "lower dogs"], is_split_into_words=True)
    assert words["input_ids"] == tokenizer("the lower dogs")["input_ids"]
    assert set(words.word_ids()) == {0, 1}


def test_ctrl_joins_by_pieces_that_the_vocabulary_lacks(tmp_path):
    pieces = "<unk> a@@ b@@ c abc b xx@@ xx xxx@@ xxx xxxx@@ xxxx x@@ x".split()
    merges = "a b, ab c</w>, ☃ b</w>, x x, x x</w>, xx x, xx x</w>, xx xx, xx xx</w>".split(", ")
    files = write(tmp_path, {piece: i for i, piece in enumerate(pieces)}, "\n".join(merges))
    tokenizer = CTRLTokenizer(*files)
    assert tokenizer.tokenize("abc ab ☃b abb") == ["abc", "a@@", "b", "☃b", "ab@@", "b"]
    assert tokenizer.encode("abc ab ☃b abb") == [4, 1, 5, 0, 0, 5]


def test_control_codes_are_ids_of_this_vocabulary(toks, folders):
    tokenizer = toks[CTRLTokenizer]
    codes = tokenizer.control_codes
    assert codes.keys() == {"Links", "Books"} <= set(CONTROL_CODES)
    assert all(tokenizer.convert_ids_to_tokens(i) == code for code, i in codes.items())


def test_a_text_after_its_control_codes(toks):
    tokenizer = toks[CTRLTokenizer]
    assert tokenizer.prompt("an egg", "Links") == "Links an egg"
    assert tokenizer.prompt("an egg", ["Links", "Books"]) == "Links Books an egg"
    assert tokenizer.prompt("", ["Books"]) == "Books"
    with pytest.raises(ValueError, match=r"'Link' is no control code of this vocabulary; did you mean 'Links'\?"):
        tokenizer.prompt("an egg", ["Books", "Link"])
    with pytest.raises(ValueError, match="'Horror' is no control code of this vocabulary; there are Books, Links"):
        tokenizer.prompt("an egg", "Horror")  # CTRL's, but not in these files
    with pytest.raises(ValueError, match="give one or several of Books, Links"):
        tokenizer.prompt("an egg", [])


# ----------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("cls", ALL)
def test_files_come_back_as_they_were(folders, toks, tmp_path, cls):
    toks[cls].save_pretrained(tmp_path, legacy_format=True)
    for name in ("vocab.json", "merges.txt"):
        old, new = ((folder / name).read_text(encoding="utf-8") for folder in (folders[cls], tmp_path))
        assert (json.loads(new), json.loads(old)) == (json.loads(old),) * 2 if name == "vocab.json" else new == old
    assert not (tmp_path / "tokenizer.json").exists()


@pytest.mark.parametrize("legacy", [True, False, None])
@pytest.mark.parametrize("cls", ALL)
def test_a_vocabulary_is_saved_in_whichever_form_there_is(folders, tmp_path, cls, legacy):
    tokenizer = cls.from_pretrained(folders[cls])
    tokenizer.add_tokens(["newer token"])
    tokenizer.save_pretrained(tmp_path / "one", legacy_format=legacy)
    again = cls.from_pretrained(tmp_path / "one")
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.encode("a newer token") == tokenizer.encode("a newer token")


@pytest.mark.parametrize("cls", [c for c in ALL if c is not CTRLTokenizer])
def test_tokenizer_json_spells_merges_for_every_version(toks, tmp_path, cls):
    tokenizer = toks[cls]
    merges = json.loads(tokenizer.backend.json())["model"]["merges"]
    assert merges and all(isinstance(merge, str) and merge.count(" ") == 1 for merge in merges)
    same = Tokenizer.from_str(tokenizer.backend.json())
    assert bpe.merges_of(same) == bpe.merges_of(tokenizer.backend_tokenizer)
    assert same.get_vocab() == tokenizer.get_vocab()


def test_pieces_with_a_space_are_written_as_pairs_and_only_in_tokenizer_json(tmp_path):
    model = models.BPE({"a": 0, " ": 1, "a ": 2, "<|endoftext|>": 3}, [("a", " ")])
    Tokenizer(model).save(str(tmp_path / "in.json"))
    tokenizer = GPT2Tokenizer(tokenizer_file=tmp_path / "in.json")
    assert json.loads(tokenizer.backend.json())["model"]["merges"] == [["a", " "]]
    tokenizer.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "merges.txt").exists()
    assert GPT2Tokenizer.from_pretrained(tmp_path / "out").tokenize("a a ") == ["a ", "a "]


SCRIPT = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
import transformers
transformers.logging.set_verbosity_error()
given = json.load(sys.stdin)
tokenizer = getattr(transformers, given["cls"]).from_pretrained(given["folder"])
if given.get("save"):
    tokenizer.save_pretrained(given["save"])
print(json.dumps([tokenizer(text)["input_ids"] for text in given["texts"]]))
"""


def ask(libraries, **given):
    """The ids of texts by transformers in a process of its own; it may also save what it loaded."""
    flags = [sys.executable, "-s", "-W", "ignore", "-c", SCRIPT, json.dumps(libraries)]
    done = subprocess.run(flags, input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    return json.loads(done.stdout.splitlines()[-1])


NAMES = [(c, n) for c in ALL for n in (c.__name__, c.__name__ + "Fast") if n != "CTRLTokenizerFast"]
PLAIN = [s for s in SENTENCES if "東" not in s] + ["", "a", "  the   dogs\n", "☃"]


@pytest.mark.parametrize(("cls", "name"), NAMES)
def test_transformers_4_opens_what_we_save_and_we_what_it_saves(oracle, toks, tmp_path, cls, name):
    check_exchange([str(oracle.folder)], toks[cls], tmp_path, cls, name)


@pytest.mark.parametrize(("cls", "name"), [(cls, name) for cls, name in NAMES if not name.endswith("Fast")])
def test_transformers_5_opens_what_we_save_and_we_what_it_saves(toks, tmp_path, cls, name):
    pytest.importorskip("transformers")
    check_exchange([], toks[cls], tmp_path, cls, name)


def check_exchange(libraries, ours, tmp_path, cls, name):
    ours.save_pretrained(tmp_path / "ours")
    theirs = ask(libraries, cls=name, folder=str(tmp_path / "ours"), save=str(tmp_path / "theirs"), texts=PLAIN)
    assert [ours.encode(text) for text in PLAIN] == theirs
    again = cls.from_pretrained(tmp_path / "theirs")
    assert [again.encode(text) for text in PLAIN] == theirs
    assert again.get_vocab() == ours.get_vocab()
    if cls is not CTRLTokenizer:
        for file in ("vocab.json", "merges.txt"):
            (tmp_path / "ours" / file).unlink()
        if name.endswith("Fast") or not libraries:
            assert ask(libraries, cls=name, folder=str(tmp_path / "ours"), texts=PLAIN) == theirs


# ------------------------------------------------------------------------------------------------------- bad input


BYTES = {char: i for i, char in enumerate(BYTE_OF)}
BAD_VOCAB = {
    "{bad": "is not valid JSON",
    "[1, 2]": "holds a JSON list",
    "{}": "empty object",
    '{"a": "1"}': "gives the token 'a' the id '1'",
    '{"a": 1.0}': "gives the token 'a' the id 1.0",
    '{"a": true}': "gives the token 'a' the id True",
    '{"a": -1}': "gives the token 'a' the id -1",
    '{"a": 1, "b": 1}': "'a' and 'b' the same id 1",
    r'{"\ud800": 1}': "half a character",
}
BAD_MERGES = {
    "": "is empty",
    "#version: 0.2\na b\nab\n": r"on line 3 'ab'",
    "#version: 0.2\na b c\n": r"on line 2 'a b c'",
    "a  b\n": r"on line 1 'a  b'",
    "#version: 0.2\n\na b\n": r"on line 2 ''",
    "#version: 0.2\na 東\n": "joins 'a' and '東', but '東' is not in the vocabulary",
    "#version: 0.2\na c\n": "joins 'a' and 'c', but 'ac' is not in the vocabulary",
}


@pytest.mark.parametrize("text", BAD_VOCAB)
@pytest.mark.parametrize("cls", ALL)
def test_bad_vocabularies_are_refused_in_a_sentence(tmp_path, cls, text):
    with pytest.raises(CheckpointError, match=BAD_VOCAB[text].replace("[", r"\[")) as error:
        cls(*write(tmp_path, text, "a b\n"))
    assert "vocab.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", BAD_MERGES)
@pytest.mark.parametrize("cls", [GPT2Tokenizer, OpenAIGPTTokenizer])
def test_bad_merges_are_refused_in_a_sentence(tmp_path, cls, text):
    vocab = {**BYTES, "ab": 256, "<unk>": 257}
    with pytest.raises(CheckpointError, match=BAD_MERGES[text]) as error:
        cls(*write(tmp_path, vocab, text, header=""))
    assert "merges.txt" in str(error.value) and "\n" not in str(error.value)


def test_ctrl_refuses_merges_of_another_model(tmp_path, folders):
    vocab = folders[CTRLTokenizer] / "vocab.json"
    with pytest.raises(CheckpointError, match="do not belong together"):
        CTRLTokenizer(vocab, folders[GPT2Tokenizer] / "merges.txt")


@pytest.mark.parametrize("cls", ALL)
def test_one_file_without_the_other(folders, cls):
    folder = folders[cls]
    with pytest.raises(ValueError, match="needs a vocabulary"):
        cls()
    with pytest.raises(ValueError, match="give merges_file beside it"):
        cls(folder / "vocab.json")
    with pytest.raises(ValueError, match="give vocab_file beside it"):
        cls(merges_file=folder / "merges.txt")
    with pytest.raises(CheckpointError, match=r"none\.txt"):
        cls(folder / "vocab.json", folder / "none.txt")


@pytest.mark.parametrize(
    ("cls", "name"), [(RobertaTokenizer, "cls_token"), (OpenAIGPTTokenizer, "unk_token"), (CTRLTokenizer, "unk_token")]
)
def test_a_needed_token_is_missing(tmp_path, cls, name):
    with pytest.raises(CheckpointError, match=name):
        cls(*write(tmp_path, {**BYTES, "ab": 256}, "a b\n"))


def test_a_vocabulary_with_gaps_cannot_grow(tmp_path):
    tokenizer = GPT2Tokenizer(*write(tmp_path, {**BYTES, "<|endoftext|>": 256, "ab": 258}, "a b\n"))
    assert tokenizer.tokenize("abc") == ["ab", "c"]
    with pytest.raises(CheckpointError, match="'new' would get the id 258"):
        tokenizer.add_tokens(["new"])


def test_lines_may_end_as_on_windows_and_the_header_may_be_missing(tmp_path):
    vocab = {**BYTES, "ab": 256, "<|endoftext|>": 257}
    for header, lines in (("", "a b\r\n"), ("#version: 0.2\r\n", "a b\r\n\r\n"), ("", "a b")):
        assert GPT2Tokenizer(*write(tmp_path, vocab, lines, header)).tokenize("abc") == ["ab", "c"]


def test_the_sign_of_the_header_is_also_a_piece(tmp_path):
    vocab = {**BYTES, "##": 256, "<|endoftext|>": 257}
    assert GPT2Tokenizer(*write(tmp_path, vocab, "# #\n", header="")).tokenize("##a") == ["##", "a"]


# ------------------------------------------------------------------------------------------------ real vocabularies


A = "Hello world, this isn't an unbelievable test!"
B = "Crème brûlée (pre-tax) costs €4.50 — Zoë's  naïve «東京は大きい» 😀\n\tend."
REAL = {
    "gpt2": (GPT2Tokenizer, "vocab.json", "merges.txt"),
    "roberta-base": (RobertaTokenizer, "vocab.json", "merges.txt"),
    "openai-gpt": (OpenAIGPTTokenizer, "encoder_bpe_40000.json", "vocab_40000.bpe"),
    "ctrl": (CTRLTokenizer, "ctrl-vocab.json", "ctrl-merges.txt"),
}


def real(shared, name):
    cls, *files = REAL[name]
    return cls(*(shared / "vocab" / name / file for file in files))


def listed_ids(shared, name):
    """The ids of A and B in the list of the folder's README: a line of each, longer ones going on indented."""
    listing = (shared / "vocab" / "README.md").read_text(encoding="utf-8").split("\n```\n")[1].replace("\n ", " ")
    lines = listing.splitlines()
    at = lines.index(name)
    return [[int(i) for i in line.split()[1:]] for line in lines[at + 1 : at + 3]]


@pytest.mark.parametrize("name", REAL)
def test_ids_of_real_vocabularies(shared, name):
    tokenizer, (a, b) = real(shared, name), listed_ids(shared, name)
    assert (tokenizer.encode(A), tokenizer.encode(B)) == (a, b)
    if name in ("gpt2", "roberta-base"):
        assert tokenizer.decode(b, skip_special_tokens=True, clean_up_tokenization_spaces=False) == B


def test_control_codes_of_the_real_ctrl(shared):
    tokenizer = real(shared, "ctrl")
    codes = tokenizer.control_codes
    assert tuple(codes) == CONTROL_CODES
    for code, number in codes.items():
        assert tokenizer.encode(tokenizer.prompt("A knife", ["Links", code]))[:2] == [codes["Links"], number]
    assert {k: codes[k] for k in ("Links", "Wikipedia", "Horror", "Reviews")} == {
        "Links": 63674, "Wikipedia": 37583, "Horror": 37793, "Reviews": 41671,
    }  # fmt: skip


def test_real_ctrl_is_the_reference_on_words_of_all_kinds(shared, oracle, tmp_path):
    """Compounds of its own pieces and random letters: where merges compete."""
    folder = shared / "vocab" / "ctrl"
    tokenizer = real(shared, "ctrl")
    for new, old in (("vocab.json", "ctrl-vocab.json"), ("merges.txt", "ctrl-merges.txt")):
        (tmp_path / new).symlink_to(folder / old)
    pieces = [t.removesuffix("@@") for t in tokenizer.get_vocab() if not any(c.isspace() for c in t)]
    words = ["".join(random.choices(pieces, k=random.randint(1, 4))) for _ in range(20_000)]
    words += ["".join(random.choices("etaoinshrdluETAOIN.,'\"-_()0123456789", k=9)) for _ in range(5_000)]
    texts = ["\n".join(words[i : i + 20]).replace("<unk>", "") for i in range(0, len(words), 20)]
    theirs = ask([str(oracle.folder)], cls="CTRLTokenizer", folder=str(tmp_path), texts=texts)
    assert tokenizer(texts)["input_ids"] == theirs


def test_merges_are_the_lines_of_their_file_however_many(tmp_path):
    """There are more than are read at a time."""
    pairs = [(chr(0x100 + i % 700) * (i % 9 + 1), f"{i}") for i in range(20_000)]
    file = tmp_path / "merges.txt"
    file.write_text("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in pairs), encoding="utf-8")
    merges = bpe.read_merges(file)
    assert list(merges) == list(merges) == pairs
    assert len(merges) == len(pairs)
    assert merges[-1] == pairs[-1]
