"""SentencePiece models and the families over them: against the sentencepiece library and against transformers 4.6.1."""

import dataclasses
import io
import json
import pickle
import pydoc
import random
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyformer
from polyformer import (
    AlbertTokenizer,
    CheckpointError,
    PegasusTokenizer,
    ReformerTokenizer,
    T5Tokenizer,
    XLNetTokenizer,
)
from polyformer.tokenizers.charsmap import Charsmap
from polyformer.tokenizers.sentencepiece import SentencePieceBackend, assemble
from polyformer.tokenizers.sentencepiece_model import Kind, SentencePieceModel, parse, read_model

spm = pytest.importorskip("sentencepiece", reason="the sentencepiece library, which is the oracle here, is missing")

CORPUS = [line for name in ("re", "json", "random") for line in pydoc.plain(pydoc.render_doc(name)).split("\n")]
CORPUS = [" ".join(line.replace("-", " ").split()) for line in CORPUS if line.strip()]
CORPUS += [
    "crème brûlée naïve",
    "Việt Nam phở",
    "カタカナ ガギグ",
    "한국어 문장",
    "Ωmega № 5",
    "In 1973, 1993, 2000, 5, it",
] * 30

# What each family's own model files have in front.
LAYOUTS = {
    "Albert": {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": ["[CLS]", "[SEP]", "[MASK]"]},
    "XLNet": {
        "control_symbols": ["<cls>", "<sep>", "<pad>", "<mask>", "<eod>"],
        "user_defined_symbols": ["<eop>", "("],
    },
    "T5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "MT5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "Pegasus": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "Reformer": {"model_type": "bpe"},
}
FAMILIES = list(LAYOUTS)

# Texts are made of these: what a reader sees as one character, and words.
UNITS = [
    *"aeoxE0159.,() \t\n\u3000\u200b\x00\x7f\ufffd中漢ß▁",
    *("e\u0301", "e\u0323\u0302", "u\u031b\u0309", "E\u0302\u0301", "\uff21\u0301", "ﬁ\u0301", "½", "²", "™", "\u2126"),
    *("\u1112\u1161\u11ab", "\u1100\u1161", "각", "ｶﾞ", "ﾊﾟ", "か\u3099", "\u0915\u093c\u093f", "\u0b95\u0bc6\u0bbe"),
    *("👍🏽", "👩\u200d👧", "🇫🇷", "❤\ufe0f", "\r\n", "ב\u05bc", "م\u064b", "กำ", "the ", "Return", "random", "1973,"),
]
TEXTS = [
    "Hello world, it's the value of 1973, 5, and 2000.",
    "  crème brûlée  (naïve)  ",
    "``quoted'' ＡＢ\u200b½ <unk> x",
    "a\u0300\u0301\u0302 stacked, e\u0301 not",
    "",
    " ",
    "return the object " * 4,
]
PAIRS = [["hello", "the lazy dog"], ["a", "return the value " * 3]]


def train(**options):
    file = io.BytesIO()
    options = {"vocab_size": 500, "model_type": "unigram"} | options
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=file, hard_vocab_limit=False, minloglevel=5, num_threads=1,
        character_coverage=1.0, **options,
    )  # fmt: skip
    return file.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Family to its model file."""
    folder = tmp_path_factory.mktemp("models")
    paths = {name: folder / name / "spiece.model" for name in FAMILIES}
    for name, path in paths.items():
        path.parent.mkdir()
        path.write_bytes(train(**LAYOUTS[name]))
    return paths


def tokenizer(name, path, **options):
    return getattr(polyformer, f"{name}Tokenizer")(path, **options)


# ---- the file


def test_read_as_sentencepiece(files):
    """Pieces, scores, kinds and special ids; and what is written afresh gives sentencepiece the same."""
    for path in files.values():
        model, theirs = read_model(path), spm.SentencePieceProcessor(model_file=str(path))
        ids = range(len(theirs))
        assert model.pieces == [theirs.id_to_piece(i) for i in ids]
        assert model.scores == [theirs.get_score(i) for i in ids]
        assert [i for i in ids if model.kinds[i] == Kind.CONTROL] == [i for i in ids if theirs.is_control(i)]
        special = (theirs.unk_id(), theirs.bos_id(), theirs.eos_id(), theirs.pad_id())
        assert (
            tuple(-1 if i is None else i for i in (model.unk_id, model.bos_id, model.eos_id, model.pad_id)) == special
        )
        written = dataclasses.replace(model, data=None).to_bytes()
        again = spm.SentencePieceProcessor(model_proto=written)
        assert parse(written) == model and model.to_bytes() == path.read_bytes()
        assert [again.encode(t) for t in CORPUS[::9]] == [theirs.encode(t) for t in CORPUS[::9]]


def test_damaged_files(files, tmp_path):
    """Cut short, something else, or with wrong bytes: one sentence, or a model that works; never a panic."""
    whole, path, draw = files["T5"].read_bytes(), tmp_path / "spiece.model", random.Random(0)
    charsmap = whole.index(read_model(files["T5"]).charsmap)
    damaged = [b"", b"<html></html>", b"{}", bytes(99), bytes(range(256)), *(whole[:n] for n in (1, 9, 999, 9999, -1))]
    for first, last in [(0, charsmap), (charsmap, len(whole)), (charsmap, charsmap + 2000)] * 25:
        file = bytearray(whole)
        for _ in range(3):
            file[draw.randrange(first, last)] = draw.randrange(256)
        damaged.append(bytes(file))
    refused = 0
    for file in damaged:
        path.write_bytes(file)
        try:
            made = ReformerTokenizer(path)
        except CheckpointError as e:
            refused += 1
            assert str(path) in str(e) or "SentencePiece" in str(e)
        else:
            made(["".join(UNITS), *TEXTS], return_offsets_mapping=True)
    assert refused >= 10
    with pytest.raises(CheckpointError, match="no file"):
        T5Tokenizer(tmp_path / "none.model")
    with pytest.raises(ValueError, match="vocab_file or tokenizer_file"):
        T5Tokenizer()


@pytest.mark.parametrize(("algorithm", "suffix"), [("word", False), ("char", False), ("unigram", True)])
def test_unknown_kinds_of_model(algorithm, suffix, tmp_path):
    model = SentencePieceModel(
        ["<unk>", "▁a"], [0.0, -1.0], [2, 1], algorithm, treat_whitespace_as_suffix=suffix
    )  # fmt: skip
    path = tmp_path / "spiece.model"
    path.write_bytes(model.to_bytes())
    with pytest.raises(CheckpointError, match="SentencePiece model"):
        ReformerTokenizer(path)


# ---- cutting text as sentencepiece does

KINDS = {
    "unigram": {},
    "bpe": {"model_type": "bpe"},
    "user-defined": {"user_defined_symbols": ["the", "(", "é", "中"]},
    "bytes": {"byte_fallback": True, "vocab_size": 800},
    "bytes-bpe": {"byte_fallback": True, "vocab_size": 800, "model_type": "bpe"},
    "no-prefix": {"add_dummy_prefix": False},
    "all-spaces": {"remove_extra_whitespaces": False},
    "identity": {"normalization_rule_name": "identity"},
    "case-folded": {"normalization_rule_name": "nmt_nfkc_cf"},
    "nfkc-bpe": {"normalization_rule_name": "nfkc", "model_type": "bpe"},
    "across-words": {"split_by_whitespace": False},
}


# What the library cannot do there, and no family's model file asks for: it takes CR LF for one space, and puts none
# before a text of which nothing is left; without a character that the table deletes, a ligature loses its accent.
BEYOND = {"all-spaces": {"\r\n", "\x00", "\x7f"}, "nfkc-bpe": {"ﬁ\u0301"}}


@pytest.fixture(scope="module", params=KINDS)
def engines(request):
    file = train(**KINDS[request.param])
    beyond = BEYOND.get(request.param, set())
    return SentencePieceBackend(assemble(parse(file))), spm.SentencePieceProcessor(model_proto=file), beyond


@given(units=st.lists(st.sampled_from(UNITS) | st.sampled_from(CORPUS), max_size=12))
def test_ids_as_sentencepiece(engines, units):
    """The same pieces. A space at the end is a token (published fast tokenizers have it, sentencepiece drops it).

    Among rows of pieces whose scores sum to the same, rounding decides: sentencepiece sums in float32, ours in float64.
    """
    ours, theirs, beyond = engines
    text = "".join(unit for unit in units if unit not in beyond)
    got, want = list(ours.encode([text], False, False)[0].ids), theirs.encode(text)
    while len(got) > len(want) and theirs.id_to_piece(got[-1]) == "▁":
        got.pop()
    if got != want:
        assert ours.decode(got, False) == ours.decode(want, False)
        assert sum(map(theirs.get_score, got)) == pytest.approx(sum(map(theirs.get_score, want)), abs=1e-4)


@given(st.data())
def test_merges_as_sentencepiece(data):
    """BPE over two letters, where one piece can be made in several ways and places."""
    words = data.draw(st.lists(st.text("ab", min_size=2, max_size=5), unique=True, max_size=12))
    pieces = data.draw(st.permutations([*{*words, "▁a", "▁", "a", "b"}]))
    scores = [0.0, *(-float(i) for i in range(len(pieces)))]
    model = SentencePieceModel(["<unk>", *pieces], scores, [2] + [1] * len(pieces), "bpe")
    ours, theirs = SentencePieceBackend(assemble(model)), spm.SentencePieceProcessor(model_proto=model.to_bytes())
    text = data.draw(st.text("aab", max_size=16))
    assert list(ours.encode([text], False, False)[0].ids) == theirs.encode(text)


def test_a_pile_of_accents_stays(files):
    """Two accents left over after composition: as in published fast tokenizers, the pile stays as it was."""
    charsmap = Charsmap(read_model(files["T5"]).charsmap)
    assert charsmap.changes("a\u0300\u0301\u0302") == {}
    assert charsmap.changes("e\u0323\u0302") == {"e\u0323\u0302": "ệ"}
    assert charsmap.normalize("a\u0300\u0301\u0302ﬁ") == "à\u0301\u0302fi"


@given(st.lists(st.sampled_from(UNITS), max_size=8))
def test_offsets_after_rewriting(files, units):
    """Offsets are in order and within the text, alone and in a list of words; a pickled copy does the same."""
    made = tokenizer("T5", files["T5"])
    texts = ["".join(units), "e\u0323\u0302 x"]
    batch = made(texts, return_offsets_mapping=True, add_special_tokens=False)
    words = made(texts, is_split_into_words=True, return_offsets_mapping=True, add_special_tokens=False)
    for i, text in enumerate(texts):
        starts, ends = zip(*batch["offset_mapping"][i], strict=True) if batch["input_ids"][i] else ((), ())
        assert list(starts) == sorted(starts) and list(ends) == sorted(ends) and max(ends, default=0) <= len(text)
        ours = [s for s, word in zip(words["offset_mapping"], words.word_ids(), strict=True) if word == i]
        assert ours == batch["offset_mapping"][i]
    assert pickle.loads(pickle.dumps(made))(texts) == made(texts)


def test_offsets_of_a_composed_letter(files):
    made = tokenizer("T5", files["T5"])
    got = made("Vie\u0323\u0302t x", return_offsets_mapping=True, add_special_tokens=False)
    assert got["input_ids"] == made("Việt x", add_special_tokens=False)["input_ids"]
    composed = made("Việt x", return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    move = [0, 1, 2, 5, 6, 7, 8]  # where each character of the composed text ends
    assert got["offset_mapping"] == [(move[a] if a < 3 else a + 2, move[b]) for a, b in composed]


# ---- the families

# Reads [class, folder] pairs; writes what each class makes of the texts, and saves it again beside the folder.
REFERENCE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import transformers
texts, pairs, jobs = json.loads(sys.argv[2])
answers = {}
for name, folder in jobs:
    tokenizer = getattr(transformers, name + "TokenizerFast").from_pretrained(folder)
    rows = [dict(tokenizer(t, return_offsets_mapping=True)) for t in texts] + [dict(tokenizer(*p)) for p in pairs]
    text = [tokenizer.decode(r["input_ids"], skip_special_tokens=s) for r in rows for s in (True, False)]
    tokenizer.save_pretrained(folder + "-again", legacy_format=None if tokenizer.vocab_file else False)
    answers[folder] = [rows, text, len(tokenizer), sorted(tokenizer.all_special_tokens), tokenizer.padding_side]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def saved(files, tmp_path_factory):
    """Family to the folder we saved it in."""
    folders = {name: tmp_path_factory.mktemp("saved") / name for name in FAMILIES}
    for name, folder in folders.items():
        tokenizer(name, files[name]).save_pretrained(folder)
    return folders


@pytest.fixture(scope="module")
def theirs(files, saved, oracle):
    """Folder to what the reference makes of it: the model file alone, what we saved, and its tokenizer.json alone."""
    jobs = []
    for name, folder in saved.items():
        bare = shutil.copytree(folder, folder.with_name(f"{name}-json"))
        (bare / "spiece.model").unlink()
        jobs += [(name, str(path)) for path in (files[name].parent, folder, bare)]
    request = json.dumps([TEXTS, PAIRS, jobs])
    arguments = [sys.executable, "-s", "-W", "ignore", "-c", REFERENCE, str(oracle.folder), request]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("form", ["model", "saved", "json"])
@pytest.mark.parametrize("name", FAMILIES)
def test_as_the_reference(name, form, files, saved, theirs):
    """Rows, offsets, text, special tokens; also after the reference has saved what it loaded from us."""
    folder = {"model": files[name].parent, "saved": saved[name], "json": saved[name].with_name(f"{name}-json")}[form]
    rows, texts, size, specials, side = theirs[str(folder)]
    for path in (folder, f"{folder}-again"):
        made = getattr(polyformer, f"{name}TokenizerFast").from_pretrained(path)
        got = [dict(made(t, return_offsets_mapping=True)) for t in TEXTS] + [dict(made(*p)) for p in PAIRS]
        assert json.loads(json.dumps(got)) == rows
        assert [made.decode(r["input_ids"], skip_special_tokens=s) for r in got for s in (True, False)] == texts
        assert (len(made), sorted(made.all_special_tokens), made.padding_side) == (size, specials, side)


@pytest.mark.parametrize("name", FAMILIES)
def test_model_file_is_written_again(name, files, saved, tmp_path):
    """Byte for byte where there was one; from tokenizer.json alone, one with the same ids for sentencepiece and us."""
    cls = getattr(polyformer, f"{name}Tokenizer")
    want = cls(files[name])(CORPUS)["input_ids"]
    assert (saved[name] / "spiece.model").read_bytes() == files[name].read_bytes()
    cls(tokenizer_file=saved[name] / "tokenizer.json").save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert cls.from_pretrained(tmp_path)(CORPUS)["input_ids"] == want
    old, new = (spm.SentencePieceProcessor(model_file=str(f)) for f in (files[name], tmp_path / "spiece.model"))
    assert [new.encode(t) for t in CORPUS] == [old.encode(t) for t in CORPUS]


def test_model_file_of_other_vocabulary_is_not_kept(files, saved, tmp_path):
    """A model file beside a tokenizer.json that it does not belong to is replaced when saving."""
    folder = shutil.copytree(saved["T5"], tmp_path / "mixed")
    for wrong in (files["Reformer"].read_bytes(), b"damaged"):
        (folder / "spiece.model").write_bytes(wrong)
        T5Tokenizer.from_pretrained(folder).save_pretrained(tmp_path / "out")
        assert T5Tokenizer(tmp_path / "out" / "spiece.model")(CORPUS[:50]) == T5Tokenizer(files["T5"])(CORPUS[:50])


def test_options_win_over_tokenizer_json(files, saved):
    """Lower case and accents asked for explicitly, as from the model file itself."""
    for cls, name in ((AlbertTokenizer, "Albert"), (XLNetTokenizer, "XLNet")):
        for options in (
            {"do_lower_case": True},
            {"do_lower_case": False, "keep_accents": True},
            {"keep_accents": False},
        ):
            ours, bare = cls.from_pretrained(saved[name], **options), cls(files[name], **options)
            assert ours("Crème BRÛLÉE ``x''") == bare("Crème BRÛLÉE ``x''")
            assert {k: ours.init_kwargs[k] for k in options} == options


def test_digit_and_comma_are_parted(files):
    """As ALBERT's and XLNet's authors do it, and the reference after them; T5 keeps such pieces."""
    assert any(piece.endswith("3,") for piece in read_model(files["Albert"]).pieces)
    for name, parted in (("Albert", True), ("XLNet", True), ("T5", False)):
        tokens = tokenizer(name, files[name]).tokenize("in 1973, 1993, it")
        assert parted == (not any(token[-2:-1].isdigit() and token[-1] == "," for token in tokens))


def test_sentinels(files):
    made = T5Tokenizer(files["T5"], extra_ids=3, additional_special_tokens=["<x>"])
    size = len(read_model(files["T5"]))
    assert made.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_2>", "<x>"]) == [size + 2, size, size + 3]
    assert made("<extra_id_1> a")["input_ids"][0] == size + 1
    assert len(T5Tokenizer(files["T5"], extra_ids=0)) == size
    with pytest.raises(ValueError, match="pass extra_ids=1"):
        T5Tokenizer(files["T5"], additional_special_tokens=["<extra_id_0>"])


def test_reserved_ids(files, tmp_path):
    """Pegasus's offset, and files that have the reserved tokens themselves."""
    size = len(read_model(files["Pegasus"]))
    made = PegasusTokenizer(files["Pegasus"], offset=5, mask_token="<m>")
    assert (len(made), made.mask_token_id, made.unk_token_id) == (size + 5, 3, 7)
    assert made.convert_ids_to_tokens(range(8)) == "<pad> </s> <mask_1> <m> <unk_2> <unk_3> <unk_4> <unk>".split()
    bare = spm.SentencePieceProcessor(model_file=str(files["Pegasus"])).encode("the value")
    assert made("the value", add_special_tokens=False)["input_ids"] == [i + 5 for i in bare]
    whole = tmp_path / "spiece.model"
    whole.write_bytes(train(**LAYOUTS["Pegasus"], user_defined_symbols=["<mask_1>", "<mask_2>"]))
    ids = PegasusTokenizer(whole, offset=0)("a <mask_2>", add_special_tokens=False)["input_ids"]
    assert ids[-1] == read_model(whole).ids["<mask_2>"]
    with pytest.raises(CheckpointError, match="offset=0"):
        PegasusTokenizer(whole)
    with pytest.raises(ValueError, match="offset=1"):
        PegasusTokenizer(files["Pegasus"], offset=1)


def test_a_vocabulary_of_another_family(files):
    with pytest.raises(CheckpointError, match="cls_token"):
        AlbertTokenizer(files["T5"])
