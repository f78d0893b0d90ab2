"""Marian's tokenizer: two SentencePiece models and one vocabulary, against the sentencepiece library."""

import copy
import io
import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers.marian import MarianTokenizer
from polyformer.tokenizers.sentencepiece_model import read_model

spm = pytest.importorskip("sentencepiece")

SOURCE = [
    "The quick brown foxes jumped over the lazy dogs, and the dogs slept on.",
    "There was nobody at the school when the summer had gone.",
]
TARGET = [
    "Les renards bruns et vifs sautaient par-dessus les chiens paresseux.",
    "L'été était passé et il n'y avait personne à l'école.",
]
CODES = [">>fra<<", ">>por<<"]
CASES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ODD = "▁  \t\u00a0\u200bé\u0301\u00a8½ﬁＡｶﾞ한\u1161中😀\x00aAez.>|"
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(st.sampled_from(ODD), max_size=30)
PLAIN = ANY_TEXT.filter(lambda text: ">>" not in text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("marian")
    pieces = ["</s>", "<unk>"]
    for name, sentences in (("source", SOURCE), ("target", TARGET)):
        out = io.BytesIO()
        options = {"vocab_size": 90, "hard_vocab_limit": False, "minloglevel": 2, "num_threads": 1}
        spm.SentencePieceTrainer.train(sentence_iterator=iter(sentences * 4), model_writer=out, **options)
        (path / f"{name}.spm").write_bytes(out.getvalue())
        pieces += read_model(path / f"{name}.spm").pieces[3:]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, *CODES, "<pad>"]))}
    (path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (path / "tokenizer_config.json").write_text('{"source_lang": "en", "target_lang": "ROMANCE"}', encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return MarianTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def originals(folder):
    return [spm.SentencePieceProcessor(model_file=str(folder / f"{name}.spm")) for name in ("source", "target")]


def bare(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


# ---- text to ids


def looked_up(tokenizer, original, text):
    vocab = tokenizer.get_vocab()
    return [vocab.get(piece, vocab["<unk>"]) for piece in original.encode(text, out_type=str)]


@CASES
@given(PLAIN | st.sampled_from(SOURCE + TARGET))
def test_ids_are_the_vocabulary_s_for_the_pieces_of_sentencepiece(tokenizer, originals, text):
    assert bare(tokenizer, text) == looked_up(tokenizer, originals[0], text)
    detailed = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert detailed["input_ids"] == bare(tokenizer, text)
    with tokenizer.as_target_tokenizer():
        assert bare(tokenizer, text) == looked_up(tokenizer, originals[1], text)


def test_a_piece_that_only_the_other_file_has_is_known(folder, tokenizer):
    source, target = (read_model(folder / f"{name}.spm").ids for name in ("source", "target"))
    assert "é" in target and "é" not in source
    assert bare(tokenizer, "é")[-1] == tokenizer.get_vocab()["é"] != tokenizer.unk_token_id == bare(tokenizer, "☃")[-1]


def test_around_a_text(tokenizer):
    a, b, end = bare(tokenizer, "The fox"), bare(tokenizer, "and dogs"), tokenizer.eos_token_id
    assert tokenizer("The fox")["input_ids"] == [*a, end]
    assert tokenizer("The fox", "and dogs")["input_ids"] == [*a, *b, end]
    assert tokenizer.model_max_length == 512 and tokenizer.padding_side == "right"


def test_token_types_have_no_place_for_the_end_as_in_the_reference(tokenizer):
    one = tokenizer("The fox", "and dogs", return_token_type_ids=True)
    a, b = len(bare(tokenizer, "The fox")), len(bare(tokenizer, "and dogs"))
    assert (
        one["token_type_ids"] == [0] * a + [1] * b == tokenizer.create_token_type_ids_from_sequences([9] * a, [9] * b)
    )
    batch = tokenizer(["The fox", "x"], padding=True, return_token_type_ids=True, return_tensors="np")
    assert batch["token_type_ids"].shape == (2, batch["input_ids"].shape[1] - 1)
    whole = tokenizer("The fox", "x", add_special_tokens=False, return_token_type_ids=True)
    assert len(whole["token_type_ids"]) == len(whole["input_ids"])


# ---- language codes


def test_language_codes(tokenizer):
    fra, unknown = tokenizer.get_vocab()[">>fra<<"], tokenizer.unk_token_id
    the_fox = bare(tokenizer, "The fox")
    assert tokenizer.supported_language_codes == CODES
    for text in (">>fra<< The fox", ">>fra<<The fox", "  >>fra<<\nThe fox"):
        assert bare(tokenizer, text) == [fra, *the_fox] and tokenizer.tokenize(text)[0] == ">>fra<<"
    assert bare(tokenizer, ">>xyz<< The fox") == [unknown, *the_fox] and bare(tokenizer, ">>fra<<") == [fra]
    assert bare(tokenizer, "The >>por<<fox") == the_fox  # elsewhere than at the beginning it is taken out
    assert bare(tokenizer, ">>fra<< The >>por<<fox") == [fra, *the_fox]
    assert bare(tokenizer, "1 >> 2 << 3").count(unknown) >= 3  # no code: white space is in it
    assert tokenizer([">>fra<< The fox", "The fox"])["input_ids"] == [[fra, *the_fox, 0], [*the_fox, 0]]
    assert tokenizer([">>fra<<", "The", "fox"], is_split_into_words=True)["input_ids"] == [fra, *the_fox, 0]


@CASES
@given(st.lists(st.sampled_from([*CODES, "The fox", " ", "½", "xx"]), max_size=6).map("".join))
def test_offsets_are_in_the_text_with_its_codes(tokenizer, text):
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert encoded["input_ids"] == bare(tokenizer, text)
    for token, (a, b) in zip(encoded.tokens(), encoded["offset_mapping"], strict=True):
        inside = text[a:b].replace(">>fra<<", "").replace(">>por<<", "") if ">>" not in token else text[a:b]
        assert inside.strip() == token.strip("▁") or "½" in inside
    words = [w for w in encoded.word_ids() if w is not None]
    assert words == sorted(words)


# ---- ids to text


@CASES
@given(st.data())
def test_decoding_is_that_of_the_target_s_model(folder, tokenizer, originals, data):
    vocab, target = tokenizer.get_vocab(), read_model(folder / "target.spm")
    known = [piece for piece in target.pieces[3:] if piece in vocab]
    pieces = data.draw(st.lists(st.sampled_from([*known, "▁", "☃", "▁☃", "<unk>", "</s>"]), max_size=8))
    assert tokenizer.convert_tokens_to_string(pieces) == originals[1].decode_pieces(pieces)
    ids = [vocab[piece] for piece in pieces if piece in known]
    there = [piece for piece in pieces if piece in known]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == originals[1].decode_pieces(there)


def test_there_and_back(tokenizer):
    with tokenizer.as_target_tokenizer():
        rows = tokenizer(TARGET)["input_ids"]
    assert tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False) == TARGET


# ---- targets


def test_targets(tokenizer, originals):
    source, target = (looked_up(tokenizer, original, "Les chiens") for original in originals)
    assert source != target
    batch = tokenizer.prepare_seq2seq_batch(["Les chiens", "x"], ["Les chiens", "x"], return_tensors="np")
    assert batch["input_ids"][0].tolist() == [*source, 0] and batch["labels"][0].tolist() == [*target, 0]
    with ThreadPoolExecutor(2) as pool, tokenizer.as_target_tokenizer():
        assert pool.submit(bare, tokenizer, "Les chiens").result() == source
        assert bare(tokenizer, "Les chiens") == target
    assert bare(tokenizer, "Les chiens") == source


def test_tokens_added_while_writing_are_known_to_both(folder):
    tokenizer = MarianTokenizer.from_pretrained(folder)
    with tokenizer.as_target_tokenizer():
        assert tokenizer.add_tokens(["newtok"]) == 1 and bare(tokenizer, "newtok") == [len(tokenizer) - 1]
    assert bare(tokenizer, "newtok") == [len(tokenizer) - 1]


# ---- punctuation


def test_normalize(tokenizer):
    moses = pytest.importorskip("sacremoses")
    text = "„Hello“ – it’s  1 000 ‚fine‘ …"
    assert (
        tokenizer.normalize(text) == moses.MosesPunctNormalizer("en").normalize(text) and tokenizer.normalize("") == ""
    )


def test_normalize_without_sacremoses(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(ImportError, match=r"pip install polyformer\[xlm\]"):
        MarianTokenizer.from_pretrained(folder).normalize("x")


# ---- files


def test_saved_and_loaded(folder, tmp_path):
    tokenizer = MarianTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["newtok"])
    tokenizer.save_pretrained(tmp_path)
    for name in ("source.spm", "target.spm"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert json.loads((tmp_path / "vocab.json").read_text()) == json.loads((folder / "vocab.json").read_text())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["source_lang"], config["target_lang"], config["model_max_length"]) == ("en", "ROMANCE", 512)
    texts = [*SOURCE, ">>fra<< a newtok b", "é☃"]
    for again in (
        MarianTokenizer.from_pretrained(tmp_path),
        pickle.loads(pickle.dumps(tokenizer)),
        copy.deepcopy(tokenizer),
    ):
        assert again(texts)["input_ids"] == tokenizer(texts)["input_ids"] and len(again) == len(tokenizer)
        with again.as_target_tokenizer(), tokenizer.as_target_tokenizer():
            assert again(texts)["input_ids"] == tokenizer(texts)["input_ids"]


SCRIPT = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
import transformers
transformers.logging.set_verbosity_error()
given = json.load(sys.stdin)
tokenizer = transformers.MarianTokenizer.from_pretrained(given["folder"])
tokenizer.save_pretrained(given["save"])
rows = [tokenizer(text)["input_ids"] for text in given["texts"]]
print(json.dumps([len(tokenizer), rows, [tokenizer.decode(row, skip_special_tokens=True) for row in rows]]))
"""


def test_transformers_4_opens_what_we_save_and_we_what_it_saves(folder, oracle, tmp_path):
    ours = MarianTokenizer.from_pretrained(folder)
    ours.add_tokens(["newtok"])
    ours.save_pretrained(tmp_path)
    texts = [*SOURCE, *TARGET, ">>fra<< a newtok b", ">>xyz<< x", "½ ﬁ e\u0301\u0323 ☃☃ x", "", "The >>fra<< fox"]
    given = json.dumps({"folder": str(tmp_path), "save": str(tmp_path / "theirs"), "texts": texts})
    flags = [sys.executable, "-s", "-W", "ignore", "-c", SCRIPT, json.dumps([str(oracle.folder)])]
    done = subprocess.run(flags, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    want = json.loads(done.stdout.splitlines()[-1])
    for tokenizer in (ours, MarianTokenizer.from_pretrained(tmp_path / "theirs")):
        rows = [tokenizer(text)["input_ids"] for text in texts]
        assert [len(tokenizer), rows, tokenizer.batch_decode(rows, skip_special_tokens=True)] == want


def test_bad_files_say_what_is_wrong(folder, tmp_path):
    def files(**changes):
        paths = {"vocab": "vocab.json", "source_spm": "source.spm", "target_spm": "target.spm"}
        return {name: folder / file for name, file in paths.items()} | changes

    path = tmp_path / "some.json"
    path.write_text('{"</s>": 0, "<unk>": 1, "▁The": 2}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="the files do not belong together; take all three from one model"):
        MarianTokenizer(**files(vocab=path))
    path.write_text('{"</s>": 0}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="has no '<unk>', which is needed as the unk_token"):
        MarianTokenizer(**files(vocab=path))
    path.write_bytes((folder / "target.spm").read_bytes()[:3000])
    with pytest.raises(CheckpointError, match="is no SentencePiece model, or a damaged one"):
        MarianTokenizer(**files(target_spm=path))
    with pytest.raises(CheckpointError, match="absent"):
        MarianTokenizer(**files(source_spm=tmp_path / "absent.spm"))
    for name in ("vocab.json", "source.spm"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(CheckpointError, match=r"target\.spm"):
        MarianTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["source.spm", "target.spm"])
def test_a_model_of_an_unknown_kind_is_refused_before_any_text(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    odd = replace(read_model(folder / name), treat_whitespace_as_suffix=True, data=None)
    (tmp_path / name).write_bytes(odd.to_bytes())
    with pytest.raises(CheckpointError, match="treat_whitespace_as_suffix"):
        MarianTokenizer.from_pretrained(tmp_path)


# ---- the real vocabulary


def test_real_opus_mt(shared):
    folder = shared / "vocab" / "opus-mt-en-mg-marian"
    tokenizer = MarianTokenizer.from_pretrained(folder)
    for name in ("source", "target"):
        original = spm.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
        with tokenizer.as_target_tokenizer() if name == "target" else nullcontext():
            for text in [*SOURCE, *TARGET, "½ ﬁne e\u0301\u0323 中国 😀☃", "a  b\n"]:
                assert bare(tokenizer, text) == looked_up(tokenizer, original, text)
