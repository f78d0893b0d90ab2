"""The tokenizers' common base and BertTokenizer, against transformers' fast BERT tokenizer and on their own terms."""

import copy
import json
import os
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers.base import BatchEncoding, PreTrainedTokenizer
from polyformer.tokenizers.bert import BertTokenizer
from polyformer.tokenizers.limits import NO_LIMIT
from polyformer.tokenizers.truncation import cut, windows

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = (
    "the a hello world quick brown fox jump over lazy dog token naive cafe resume un want able run low new wide".split()
)
PIECES = "##ing ##ed ##er ##est ##able ##ization 中 国 的 首 都 好 é ñ й е ё ж".split()
VOCAB = [
    "[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~", *LETTERS,
    *("##" + c for c in LETTERS), *(w for w in WORDS if len(w) > 1), *PIECES,
]  # fmt: skip
LONG = "The quick brown foxes jumped over the lazy dogs; hello, worlds! Tokenization is unwanted, lowest and newest."
TEXTS = [
    "hello world",
    LONG,
    "naïve café 中国的首都",
    "",
    "run, fox!",
    "Hello [MASK] world [SEP] x",
    "  a\tb\n ",
    "ＡＢＣ \u200b é",
]

CASES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(TEXTS)
WORDY = st.lists(st.sampled_from([*WORDS, "中国", "Éa", ",", "x-y", "[MASK]", "unwantedly"]), max_size=14).map(" ".join)
TEXT = ANY_TEXT | WORDY


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("".join(token + "\n" for token in VOCAB), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tok(vocab):
    return BertTokenizer(vocab)


@pytest.fixture(scope="module")
def transformers():
    library = pytest.importorskip("transformers")
    library.logging.set_verbosity_error()
    return library


@pytest.fixture(scope="module")
def hf(vocab, transformers):
    return transformers.BertTokenizerFast.from_pretrained(vocab.parent)


def outcome(call):
    """A call's columns as plain lists, or "raises" (the Rust library panics past Exception)."""
    try:
        return {key: plain(value) for key, value in call().items()}
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return "raises"


def plain(value):
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


# ---------------------------------------------------------------------------------------------- against transformers


@settings(CASES, max_examples=200)
@given(TEXT, st.none() | TEXT.filter(bool), st.booleans())
def test_same_columns_as_transformers(tok, hf, text, pair, special):
    more = {"add_special_tokens": special, "return_offsets_mapping": True, "return_special_tokens_mask": True}
    assert outcome(lambda: tok(text, pair, **more)) == outcome(lambda: hf(text, pair, **more))


@CASES
@given(
    st.lists(st.tuples(WORDY, WORDY), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from(["longest_first", "only_first", "only_second"]),
    st.integers(3, 20),
    st.integers(0, 4),
    st.sampled_from([False, True, "max_length"]),
    st.booleans(),
    st.sampled_from(["right", "left"]),
    st.sampled_from(["right", "left"]),
)
def test_same_cutting_and_padding_as_transformers(
    tok, hf, rows, pairs, strategy, length, stride, pad, over, side, cut_side
):
    texts = rows if pairs else [a for a, _ in rows]
    more = dict(truncation=strategy, max_length=length, padding=pad, stride=stride if over else 0)
    more |= dict(return_overflowing_tokens=over, return_offsets_mapping=True)
    ours, theirs = copy.copy(tok), hf
    ours.padding_side, ours.truncation_side = side, cut_side
    theirs.padding_side, theirs.truncation_side = side, cut_side
    want = outcome(lambda: theirs(texts, **more))
    theirs.padding_side, theirs.truncation_side = "right", "right"
    room = length - tok.num_special_tokens_to_add(pairs)
    assume(room > (stride if over else 0))
    assert outcome(lambda: ours(texts, **more)) == want


@CASES
@given(st.lists(TEXT, min_size=1, max_size=5))
def test_same_tensors_words_and_decoding_as_transformers(tok, hf, texts):
    ours, theirs = (t(texts, padding=True, return_tensors="np") for t in (tok, hf))
    assert all((ours[key] == theirs[key]).all() and ours[key].dtype == theirs[key].dtype for key in theirs)
    for row in range(len(texts)):
        assert ours.word_ids(row) == theirs.word_ids(row)
        assert ours.sequence_ids(row) == theirs.sequence_ids(row)
        assert len(ours.tokens(row)) == len(theirs.tokens(row))
        for char in range(len(texts[row])):
            assert ours.char_to_token(row, char) == theirs.char_to_token(row, char)
        for word in {w for w in ours.word_ids(row) if w is not None}:
            assert ours.word_to_tokens(row, word) == theirs.word_to_tokens(row, word)
            assert ours.word_to_chars(row, word) == theirs.word_to_chars(row, word)
    for skip in (True, False):
        decoded = tok.batch_decode(ours["input_ids"], skip_special_tokens=skip)
        assert decoded == theirs_decoded(hf, ours["input_ids"], skip)


def theirs_decoded(hf, ids, skip):
    return [hf.decode(row, skip_special_tokens=skip, clean_up_tokenization_spaces=True) for row in ids]


@CASES
@given(st.lists(st.sampled_from([*WORDS, "Éa", "x-y", "[MASK]", "", "a b", "中国"]), min_size=1, max_size=8))
def test_same_words_as_transformers(tok, hf, words):
    for batch in (words, [words, words[:1]]):
        ours, theirs = (t(batch, is_split_into_words=True, return_offsets_mapping=True) for t in (tok, hf))
        assert plain([*ours.items()]) == plain([*theirs.items()])
        assert ours.word_ids() == theirs.word_ids()


@pytest.mark.parametrize("name", ["uncased", "cased", "multilingual-cased", "chinese"])
def test_real_vocabularies_match_transformers(name, transformers, shared):
    folder = shared / "vocab" / f"bert-base-{name}"
    lower = name == "uncased"
    ours = BertTokenizer.from_pretrained(folder, do_lower_case=lower)
    theirs = transformers.BertTokenizerFast.from_pretrained(folder, do_lower_case=lower)
    random.seed(name)
    pool = " ".join(TEXTS).split() + "Crème brûlée €4.50 Zoë's «東京は大きい» 😀 Straße İstanbul किताब สวัสดี".split()
    texts = TEXTS + [" ".join(random.choices(pool, k=k)) for k in (1, 5, 30, 120)]
    for more in ({}, {"truncation": True, "max_length": 24, "padding": "max_length"}, {"return_offsets_mapping": True}):
        assert outcome(lambda m=more: ours(texts, **m)) == outcome(lambda m=more: theirs(texts, **m))
    pairs = list(zip(texts, texts[::-1], strict=True))
    more = {"truncation": True, "max_length": 16, "padding": True, "return_tensors": "np"}
    assert outcome(lambda: ours(pairs, **more)) == outcome(lambda: theirs(pairs, **more))
    assert ours.vocab_size == theirs.vocab_size == len(ours.get_vocab())
    odd = {t for t in ours.get_vocab() if not t.isprintable()}  # U+2028 in bert-base-chinese: transformers 5 strips it
    assert {t: i for t, i in ours.get_vocab().items() if t not in odd}.items() <= theirs.get_vocab().items()


def test_the_published_ids_of_bert_base_uncased(shared):
    tokenizer = BertTokenizer.from_pretrained(shared / "vocab" / "bert-base-uncased")
    want = [101, 7592, 2088, 1010, 2023, 3475, 1005, 1056, 2019, 23653, 3231, 999, 102]
    assert tokenizer.encode("Hello world, this isn't an unbelievable test!") == want


# ------------------------------------------------------------------------------------------------------- properties


@CASES
@given(ANY_TEXT)
@example("e\u0301 İ ß \u200b 中a")
def test_offsets_are_exact(tok, text):
    batch = tok(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    last = 0
    for i, (start, end) in enumerate(batch.offset_mapping):
        if batch.special_tokens_mask[i]:
            assert (start, end) == (0, 0)
            continue
        assert 0 <= start < end <= len(text)
        assert last <= start, "spans run left to right and don't overlap"
        last = end
        piece = batch.tokens()[i].removeprefix("##")
        if piece not in tok.all_special_tokens and text[start:end].isascii():
            assert text[start:end].lower().strip(text_controls(text)) == piece
        assert batch.char_to_token(start) == i
    assert tok(text)["input_ids"] == batch["input_ids"], "the path without offsets gives the same ids"


def text_controls(text):
    return "".join(c for c in text if not c.isprintable())


@CASES
@given(st.lists(WORDY, min_size=1, max_size=6), st.integers(4, 12), st.integers(0, 1))
def test_overflow_covers_every_token_once_stride_is_off(tok, texts, length, stride):
    batch = tok(
        texts, truncation=True, max_length=length, stride=stride, return_overflowing_tokens=True, padding=True,
        return_tensors="np",
    )  # fmt: skip
    for i, text in enumerate(texts):
        rows = batch.input_ids[batch.overflow_to_sample_mapping == i]
        rows = [[t for t in row[1:] if t not in (tok.sep_token_id, tok.pad_token_id)] for row in rows.tolist()]
        joined = rows[0] + [t for row in rows[1:] for t in row[stride:]]
        assert joined == tok.encode(text, add_special_tokens=False)


@given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 11), st.sampled_from(["right", "left"]))
def test_windows(length, size, stride, side):
    assume(stride < size)
    spans = windows(length, size, stride, side)
    assert {i for a, b in spans for i in range(a, b)} == set(range(length))
    assert all(b - a == size for a, b in spans[:-1]) and spans[-1][1] - spans[-1][0] <= size
    for (a, b), (c, d) in pairwise(spans):
        assert (b - c if side == "right" else d - a) == stride


@given(st.lists(st.integers(0, 30), min_size=1, max_size=2), st.integers(0, 20))
def test_longest_first_is_fair_and_fits(lengths, room):
    (spans,) = cut(lengths, room, "longest_first", "right", 0, False)
    kept = [b - a for a, b in spans]
    assert sum(kept) == min(sum(lengths), room)
    for i, k in enumerate(kept):
        assert k <= lengths[i]
        if k < lengths[i]:
            assert all(other <= k + 1 for other in kept), "no text is cut while another is longer"


def test_threads_with_different_settings_do_not_disturb_each_other(vocab):
    tokenizer = BertTokenizer(vocab)
    random.seed(1)
    texts = [" ".join(random.choices(WORDS, k=k)) for k in (3, 30, 12, 1)]
    jobs = [
        {"truncation": t, "max_length": n, "padding": p, "return_overflowing_tokens": o, "return_offsets_mapping": o}
        for t in (True, "only_first") for n in (8, 12, 16) for p in (False, True, "max_length") for o in (False, True)
    ]  # fmt: skip
    want = [outcome(lambda j=j: tokenizer(texts, **j)) for j in jobs]
    assert "raises" not in want
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: outcome(lambda: tokenizer(texts, **jobs[i % len(jobs)])), range(len(jobs) * 10)))
    assert got == want * 10


def test_calls_leave_nothing_behind(tok):
    before, state = tok(TEXTS), tok.backend_tokenizer.to_str()
    tok(TEXTS, truncation=True, max_length=5, padding="max_length")
    tok(
        TEXTS,
        padding=True,
        return_tensors="np",
        stride=1,
        max_length=4,
        truncation=True,
        return_overflowing_tokens=True,
    )
    assert tok(TEXTS) == before and tok.backend_tokenizer.to_str() == state
    assert tok.backend_tokenizer.truncation is None and tok.backend_tokenizer.padding is None


def test_threads_that_add_tokens_lose_none(vocab):
    tokenizer = BertTokenizer(vocab)
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda i: tokenizer.add_tokens([f"new{i}"]), range(40))) == 40
    assert len(tokenizer) == tokenizer.vocab_size + 40
    assert sorted(tokenizer.get_added_vocab().values()) == list(range(len(VOCAB), len(VOCAB) + 40))


def test_an_old_batch_keeps_the_vocabulary_it_was_made_with(vocab):
    tokenizer = BertTokenizer(vocab)
    batch = tokenizer("newtok")
    tokenizer.add_tokens("newtok")
    assert batch.tokens() != tokenizer("newtok").tokens() == ["[CLS]", "newtok", "[SEP]"]
    assert tokenizer.convert_tokens_to_ids(batch.tokens()) == batch.input_ids


def test_batch_of_one_is_row_of_batch(tok):
    rows = tok(TEXTS, return_offsets_mapping=True)
    for i, text in enumerate(TEXTS):
        assert outcome(lambda i=i: {k: v[i] for k, v in rows.items()}) == outcome(
            lambda t=text: tok(t, return_offsets_mapping=True)
        )


# ---------------------------------------------------------------------------------------------------- the public face


def test_import_needs_no_torch():
    code = "import sys, polyformer.tokenizers.bert; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_special_tokens(tok):
    assert (tok.cls_token, tok.cls_token_id, tok.mask_token_id) == ("[CLS]", 3, 5)
    assert tok.bos_token is None and tok.bos_token_id is None
    assert tok.special_tokens_map["unk_token"] == "[UNK]"
    assert set(tok.all_special_tokens) == {"[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"}
    assert tok.build_inputs_with_special_tokens([7], [8]) == [3, 7, 4, 8, 4]
    assert tok.create_token_type_ids_from_sequences([7], [8]) == [0, 0, 0, 1, 1]
    assert tok.get_special_tokens_mask([7], [8]) == [1, 0, 1, 0, 1]
    assert tok.get_special_tokens_mask([3, 7, 4], already_has_special_tokens=True) == [1, 0, 1]
    assert (tok.num_special_tokens_to_add(), tok.num_special_tokens_to_add(pair=True)) == (2, 3)


def test_setting_special_tokens(vocab):
    tokenizer = BertTokenizer(vocab)
    tokenizer.bos_token_id = tokenizer.cls_token_id
    assert tokenizer.bos_token == "[CLS]"
    assert tokenizer.add_special_tokens({"eos_token": "<eos>", "additional_special_tokens": ["<x>", "<y>"]}) == 3
    assert tokenizer.tokenize("a<x>b <eos>") == ["a", "<x>", "b", "<eos>"]
    assert tokenizer.decode(tokenizer.encode("a <x>"), skip_special_tokens=True) == "a"
    assert tokenizer.additional_special_tokens_ids == [len(VOCAB) + 1, len(VOCAB) + 2]
    assert tokenizer.add_tokens(["<x>", "hello"]) == 0, "known ones are not new"
    assert tokenizer.tokenize("ahello") == ["a", "##h", "##e", "##l", "##l", "##o"], "nor found inside words"
    tokenizer.add_tokens(["hello"], special_tokens=True)
    assert tokenizer.tokenize("ahello") == ["a", "hello"]


def test_added_token_options(vocab):
    tokenizer = BertTokenizer(vocab)
    tokenizer.add_tokens([AddedToken("Able", single_word=True, normalized=False)])
    assert tokenizer.tokenize("Able unAbled") == ["Able", "un", "##able", "##d"]


def test_model_max_length(tok, vocab):
    assert tok.model_max_length is NO_LIMIT and tok.max_len_single_sentence > 10**20
    assert f"{tok.model_max_length}" == "no limit" and "no limit" in repr(tok) and "000" not in repr(tok)
    short = BertTokenizer(vocab, model_max_length=6)
    assert len(short.encode(LONG, truncation=True)) == 6 and short.max_len_sentences_pair == 3
    assert BertTokenizer(vocab, model_max_length=int(1e30)).model_max_length is NO_LIMIT
    assert pickle.loads(pickle.dumps(NO_LIMIT)) is NO_LIMIT and copy.deepcopy(NO_LIMIT) is NO_LIMIT
    with pytest.warns(UserWarning, match="pass max_length"):
        assert tok(LONG, truncation=True) == tok(LONG)


def test_max_length_alone_truncates_as_in_transformers(tok):
    assert len(tok.encode(LONG, max_length=6)) == 6


def test_single_word_options(vocab):
    assert BertTokenizer(vocab, do_lower_case=False).tokenize("Hello é") == ["[UNK]", "é"]
    assert BertTokenizer(vocab, strip_accents=False).tokenize("é") == ["é"]
    assert BertTokenizer(vocab).tokenize("é") == ["e"]
    assert BertTokenizer(vocab).tokenize("中国") == ["中", "国"]
    assert BertTokenizer(vocab, tokenize_chinese_chars=False).tokenize("中国") == ["[UNK]"]
    assert BertTokenizer(vocab, do_basic_tokenize=False).tokenize("hello, Fox fox") == ["[UNK]", "[UNK]", "fox"]
    assert BertTokenizer(vocab, never_split=["[unused0]"]).tokenize("x [unused0]") == ["x", "[unused0]"]
    assert BertTokenizer(vocab).tokenize("x [unused0]")[1] == "["


def test_batch_encoding(tok):
    batch = tok(["hello world", "a"], ["fox", "b"], padding=True)
    assert isinstance(batch, BatchEncoding) and list(batch) == ["input_ids", "token_type_ids", "attention_mask"]
    assert batch.input_ids is batch["input_ids"] and dict(**batch).keys() == batch.keys()
    assert batch[1].tokens == ["[CLS]", "a", "[SEP]", "b", "[SEP]", "[PAD]"] and batch[1].attention_mask[-1] == 0
    assert batch[:1]["input_ids"] == batch.input_ids[:1]
    assert batch.n_sequences == 2 and batch.is_fast
    assert batch.sequence_ids(0) == [None, 0, 0, None, 1, None]
    assert batch.char_to_token(0, 6) == 2 and batch.char_to_token(0, 0, sequence_index=1) == 4
    assert batch.token_to_chars(0, 2) == (6, 11) and batch.token_to_chars(0, 0) is None
    assert batch.token_to_word(0, -2) == 0 and batch.token_to_sequence(0, 4) == 1
    assert batch.word_to_tokens(0, 1) == (2, 3) and batch.word_to_chars(0, 1) == (6, 11)
    assert batch.char_to_word(0, 7) == 1
    with pytest.raises(AttributeError, match="input_ids"):
        batch.inputs_ids  # noqa: B018
    with pytest.raises(IndexError, match="0 to 5"):
        batch.token_to_word(0, 6)
    again = pickle.loads(pickle.dumps(batch))
    assert again == batch and again.tokens() == batch.tokens()
    fresh = pickle.loads(pickle.dumps(tok("a")))
    with pytest.raises(ValueError, match="return_offsets_mapping"):
        fresh.tokens()


def test_tensors(tok):
    torch = pytest.importorskip("torch")
    batch = tok(
        ["hello world", "a"], padding=True, return_tensors="pt", return_offsets_mapping=True, return_length=True
    )
    assert batch.input_ids.dtype == torch.int64 and batch.offset_mapping.shape == (2, 4, 2)
    assert batch.length.tolist() == [4, 4]
    assert batch.to("cpu") is batch and batch.to("meta").input_ids.is_meta
    assert tok.encode("a", return_tensors="pt").shape == (1, 3)
    assert tok("", add_special_tokens=False, return_tensors="np")["input_ids"].shape == (1, 0)
    assert BatchEncoding({"x": [[1, 2], [3, 4]]}, tensor_type="pt").x.shape == (2, 2)


def test_pad(tok):
    rows = [{**tok("hello world"), "labels": 1}, {**tok("a"), "labels": 0}]
    for kind in (None, "np", "pt"):
        batch = tok.pad(rows, return_tensors=kind)
        assert plain(batch["input_ids"]) == tok(["hello world", "a"], padding=True).input_ids
        assert plain(batch["labels"]) == [1, 0]
    assert tok.pad({"input_ids": [1, 2]}, padding="max_length", max_length=3).input_ids == [1, 2, tok.pad_token_id]
    assert tok.pad({"input_ids": np.array([[1, 2]])}, pad_to_multiple_of=4)["attention_mask"] == [[1, 1, 0, 0]]
    kept = tok.pad(
        [{"input_ids": [1, 2], "attention_mask": [0, 1]}, {"input_ids": [1, 2, 3], "attention_mask": [1] * 3}]
    )
    assert kept["attention_mask"] == [[0, 1, 0], [1, 1, 1]], "a mask that was given is kept"
    assert plain(tok.pad(tok(["hello world", "a"]), return_tensors="np")["token_type_ids"]) == [[0] * 4] * 2


def test_prepare_for_model(tok):
    a, b = tok.encode(LONG, add_special_tokens=False), tok.encode("fox dog", add_special_tokens=False)
    assert tok.prepare_for_model(a, b) == tok(LONG, "fox dog")
    row = tok.prepare_for_model(a, max_length=6, truncation=True, stride=1, return_overflowing_tokens=True)
    assert row["input_ids"] == tok.encode(LONG, truncation=True, max_length=6)
    assert row["overflowing_tokens"] == a[3:] and row["num_truncated_tokens"] == len(a) - 4
    padded = tok.prepare_for_model(b, padding="max_length", max_length=6, return_tensors="np", prepend_batch_axis=True)
    assert padded["input_ids"].shape == (1, 6)


def test_decoding(tok):
    assert tok.decode(tok.encode("hello, worlds!"), skip_special_tokens=True) == "hello, worlds!"
    assert tok.decode(np.array([3, 4])) == "[CLS] [SEP]" and tok.decode(3) == "[CLS]"
    assert tok.convert_tokens_to_string(["world", "##s"]) == "worlds"
    assert tok.convert_ids_to_tokens([3, 2, 10**6], skip_special_tokens=True) == [None]
    assert tok.convert_tokens_to_ids(["hello", "no such token"]) == [tok.vocab["hello"], tok.unk_token_id]


def test_an_added_token_is_given_back_as_it_was_added(vocab):
    tokenizer = BertTokenizer(vocab)
    tokenizer.add_tokens(["NewTok", "Other"])
    tokenizer.add_special_tokens({"mask_token": AddedToken("<Mask>", normalized=True)})
    ids = tokenizer.encode("a NewTok <Mask> other")
    assert ids == tokenizer.encode("A NEWTOK <mask> Other")
    assert tokenizer.decode(ids) == "[CLS] a NewTok <Mask> Other [SEP]"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a NewTok Other"
    assert tokenizer.convert_ids_to_tokens(ids[2:4]) == ["NewTok", "<Mask>"]


def test_older_names_give_the_same(tok):
    pairs = [("hello", "world"), ("a", "b c")]
    assert (
        tok.batch_encode_plus(pairs)
        == tok([p[0] for p in pairs], [p[1] for p in pairs])
        == tok([list(p) for p in pairs])
    )
    assert tok.encode_plus("hello", "world") == tok("hello", "world")
    assert tok.encode_plus("a", max_length=5, pad_to_max_length=True) == tok("a", max_length=5, padding="max_length")
    with tok.as_target_tokenizer():
        assert tok.prepare_seq2seq_batch(["a"], ["b"], max_length=9)["labels"] == tok(["b"]).input_ids


def test_a_tokenizer_can_be_copied_and_pickled(vocab):
    tokenizer = BertTokenizer(vocab, model_max_length=9, padding_side="left")
    tokenizer.add_tokens("newtok")
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert other("newtok a", padding="max_length") == tokenizer("newtok a", padding="max_length")


# ------------------------------------------------------------------------------------------------------ save and load


def grown(vocab, **more):
    tokenizer = BertTokenizer(vocab, model_max_length=77, **more)
    tokenizer.add_tokens(["newtok", "Other tok", AddedToken("Kept", normalized=False)])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<sp>"]})
    return tokenizer


NEW = ["a newtok other tok b", "Kept kept <sp>x", *TEXTS]


@pytest.mark.parametrize("keep", ["everything", "vocab.txt", "tokenizer.json"])
def test_save_and_load(vocab, tmp_path, keep):
    old = grown(vocab, padding_side="left", strip_accents=False)
    old.truncation_side = "left"
    paths = old.save_pretrained(tmp_path)
    assert {Path(p).name for p in paths} == {p.name for p in tmp_path.iterdir()} and "vocab.txt" in os.listdir(tmp_path)
    drop = {"vocab.txt": ["tokenizer.json"], "tokenizer.json": ["vocab.txt", "added_tokens.json"]}.get(keep, [])
    for name in drop:
        (tmp_path / name).unlink()
    new = BertTokenizer.from_pretrained(tmp_path)
    texts = [t for t in NEW if keep != "vocab.txt" or "Kept" not in t]  # added_tokens.json knows no options
    assert new(texts, padding=True) == old(texts, padding=True) and len(new) == len(old)
    for name in ("model_max_length", "padding_side", "truncation_side", "special_tokens_map", "all_special_ids"):
        assert getattr(new, name) == getattr(old, name)
    assert new.init_kwargs["strip_accents"] is False


def test_transformers_loads_what_we_save(vocab, tmp_path, transformers):
    ours = grown(vocab)
    ours.save_pretrained(tmp_path)
    for theirs in (
        transformers.BertTokenizerFast.from_pretrained(tmp_path),
        transformers.AutoTokenizer.from_pretrained(tmp_path),
    ):
        assert theirs(NEW)["input_ids"] == ours(NEW)["input_ids"] and len(theirs) == len(ours)
        assert theirs.model_max_length == 77 and set(theirs.all_special_tokens) == set(ours.all_special_tokens)


OLD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from transformers import BertTokenizer, BertTokenizerFast
texts, answers = json.loads(sys.argv[4]), []
for cls in (BertTokenizerFast, BertTokenizer):
    tokenizer = cls.from_pretrained(sys.argv[2])
    ids = [tokenizer(text)["input_ids"] for text in texts]
    answers.append([ids, len(tokenizer), tokenizer.model_max_length, sorted(tokenizer.all_special_tokens)])
    tokenizer.save_pretrained(sys.argv[3] + "/" + cls.__name__)
print(json.dumps(answers))
"""


def test_transformers_4_loads_what_we_save_and_back(vocab, tmp_path, oracle):
    ours = BertTokenizer(vocab, model_max_length=77)
    ours.add_tokens(["newtok", "other tok"])
    ours.add_special_tokens({"additional_special_tokens": ["<sp>"]})
    ours.save_pretrained(tmp_path)
    texts = [t for t in NEW if t]
    arguments = [sys.executable, "-s", "-c", OLD, oracle.folder, tmp_path, tmp_path, json.dumps(texts)]
    run = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=True)
    want = [ours(texts)["input_ids"], len(ours), 77, sorted(ours.all_special_tokens)]
    assert json.loads(run.stdout) == [want, want]
    for name in ("BertTokenizerFast", "BertTokenizer"):
        (tmp_path / name).mkdir(exist_ok=True)
        again = BertTokenizer.from_pretrained(tmp_path / name)
        assert again(texts)["input_ids"] == want[0] and again.all_special_ids == ours.all_special_ids


def test_we_load_what_transformers_saves(vocab, tmp_path, transformers):
    theirs = transformers.BertTokenizerFast.from_pretrained(vocab.parent, model_max_length=55, padding_side="left")
    theirs.add_tokens(["newtok", "Other tok"])
    theirs.add_special_tokens({"additional_special_tokens": ["<sp>"]})
    theirs(NEW, truncation=True, padding="max_length", max_length=5)  # leaves its mark in tokenizer.json
    theirs.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["truncation"]
    ours = BertTokenizer.from_pretrained(tmp_path)
    theirs = transformers.BertTokenizerFast.from_pretrained(tmp_path)
    assert ours(NEW)["input_ids"] == theirs(NEW)["input_ids"] and max(map(len, ours(NEW)["input_ids"])) > 5
    assert ours.model_max_length == 55 and ours.padding_side == "left" and "<sp>" in ours.all_special_tokens


def test_old_files(vocab, tmp_path):
    (tmp_path / "vocab.txt").write_bytes(vocab.read_bytes().replace(b"\n", b"\r\n") + b"\n\n")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"second": len(VOCAB) + 1, "first": len(VOCAB)}))
    specials = {
        "mask_token": {"content": "[MASK]", "lstrip": True, "rstrip": False, "single_word": False, "normalized": True}
    }
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(specials))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {"do_lower_case": False, "model_max_length": int(1e30), "max_len": 512, "tokenizer_class": "BertTokenizer"}
        )
    )
    tokenizer = BertTokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode("first second", add_special_tokens=False) == [len(VOCAB), len(VOCAB) + 1]
    assert tokenizer.tokenize("Fox a [MASK]") == ["[UNK]", "a", " [MASK]"]
    assert tokenizer("a [MASK]", return_offsets_mapping=True).offset_mapping[2] == (1, 8), "takes the space on its left"
    assert tokenizer.model_max_length is NO_LIMIT
    tokenizer.save_pretrained(tmp_path / "again")
    config = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    assert config["max_len"] == 512 and config["do_lower_case"] is False and "model_max_length" not in config
    assert BertTokenizer.from_pretrained(tmp_path / "again")("a [MASK] first") == tokenizer("a [MASK] first")


def test_files_of_transformers_5(vocab, tmp_path):
    (tmp_path / "vocab.txt").write_bytes(vocab.read_bytes())
    token = {
        "content": "NewTok",
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": False,
    }
    config = {
        "added_tokens_decoder": {str(len(VOCAB)): token},
        "extra_special_tokens": ["[unused0]"],
        "backend": "tokenizers",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = BertTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("NewTok newtok")[0] == "NewTok" and len(tokenizer) == len(VOCAB) + 1
    assert tokenizer.additional_special_tokens == ["[unused0]"]


def test_overrides_win(vocab, tmp_path):
    BertTokenizer(vocab, model_max_length=9).save_pretrained(tmp_path)
    tokenizer = BertTokenizer.from_pretrained(tmp_path, model_max_length=5, do_lower_case=False, mask_token="<M>")
    assert tokenizer.model_max_length == 5 and tokenizer.tokenize("Fox <M>") == ["[UNK]", "<M>"]
    assert BertTokenizer.from_pretrained(tmp_path).tokenize("Fox") == ["fox"]
    assert BertTokenizer.from_pretrained(vocab).tokenize("Fox") == ["fox"], "a vocabulary file by its path"
    assert BertTokenizer.from_pretrained(tmp_path / "tokenizer.json").tokenize("Fox") == ["fox"]


def test_saving_replaces_what_was_there(vocab, tmp_path):
    grown(vocab).save_pretrained(tmp_path)
    plain_one = BertTokenizer(vocab)
    plain_one.save_pretrained(tmp_path)
    assert not (tmp_path / "added_tokens.json").exists()
    assert len(BertTokenizer.from_pretrained(tmp_path)) == len(VOCAB)
    assert plain_one.save_vocabulary(tmp_path / "v", "my") == (str(tmp_path / "v" / "my-vocab.txt"),)
    assert (tmp_path / "v" / "my-vocab.txt").read_text(encoding="utf-8").split("\n")[:-1] == VOCAB


def test_a_save_that_fails_leaves_the_old_files(vocab, tmp_path, monkeypatch):
    BertTokenizer(vocab).save_pretrained(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    replace, calls = os.replace, []

    def full_once(*names):
        calls.append(names)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        replace(*names)

    monkeypatch.setattr(os, "replace", full_once)
    with pytest.raises(CheckpointError, match="disk is full"):
        grown(vocab).save_pretrained(tmp_path)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "name", ["all-MiniLM-L6-v2", "bert-tiny-splade", "rampart-bert-ner", "antiberty-bert", "rxnfp-bert-base"]
)
def test_real_checkpoints(name, real_weights):
    tokenizer = BertTokenizer.from_pretrained(real_weights(name))
    ids = tokenizer(["hello", "C C O " * 700])["input_ids"]
    assert len(ids[0]) < 12 and len(ids[1]) > 700, "neither padded nor truncated"
    assert repr(tokenizer.model_max_length) in ("512", "no limit")


def test_any_tokenizer_json(tmp_path):
    rust = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    rust.enable_truncation(2)
    rust.save(str(tmp_path / "tokenizer.json"))
    for tokenizer in (
        PreTrainedTokenizer.from_pretrained(tmp_path),
        PreTrainedTokenizer(tokenizer_object=rust, unk_token="?"),
        PreTrainedTokenizer(tokenizer_file=tmp_path / "tokenizer.json"),
    ):
        assert tokenizer("a b c")["input_ids"] == [0, 1, 2]
        assert tokenizer("a", "b")["token_type_ids"] == [0, 1]


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "call,error,message",
    [
        (lambda t: t(None), TypeError, r"text is None, of type NoneType.*must be a str"),
        (lambda t: t(5), TypeError, r"text is 5, of type int"),
        (lambda t: t(b"a"), TypeError, r"of type bytes.*decode"),
        (lambda t: t(["a", None]), TypeError, r"text 1 is None.*replace a missing value by ''"),
        (lambda t: t("a", 5), TypeError, r"text 1 is 5"),
        (lambda t: t(["a", ["b", "c", "d"]]), TypeError, r"text 1 is a list of 3.*is_split_into_words=True"),
        (lambda t: t("a b", is_split_into_words=True), TypeError, r"list of words"),
        (lambda t: t(["a", None], is_split_into_words=True), TypeError, r"word 1 is None"),
        (lambda t: t("ab\ud800"), ValueError, r"lone surrogate '\\ud800' at position 2.*'replace'"),
        (lambda t: t(["a", "\udc00"], return_offsets_mapping=True), ValueError, r"text 1 holds the lone surrogate"),
        (lambda t: t([]), ValueError, r"batch is empty"),
        (lambda t: t(["a", "b"], ["c"]), ValueError, r"batch of 2 but text_pair is 1"),
        (lambda t: t(["a", "b"], "c"), ValueError, r"batch of 2 but text_pair is a str"),
        (lambda t: t(["a", "a b"], return_tensors="np"), ValueError, r"\(3 to 4\).*padding=True.*truncation=True"),
        (lambda t: t(["a"], return_tensors="tf"), ValueError, r"return_tensors='tf' is not known.*'pt', 'np'"),
        (lambda t: t("a", truncation="longest-first"), ValueError, r"truncation=.*did you mean 'longest_first'"),
        (lambda t: t("a", padding="max"), ValueError, r"padding='max' is not known"),
        (lambda t: t("a", padding=7), ValueError, r"padding=7 is not known: use one of 'longest', 'max_length'"),
        (lambda t: t("a", paddding=True), TypeError, r"no argument 'paddding': did you mean 'padding'"),
        (lambda t: t("a", max_len=3), TypeError, r"did you mean 'max_length'"),
        (lambda t: t("a b", truncation=True, max_length=1), ValueError, r"not hold the 2 special tokens.*at least 3"),
        (lambda t: t("a", truncation=True, max_length=-1), ValueError, r"max_length=-1 must be a whole number"),
        (lambda t: t("a", truncation=True, max_length=3.5), ValueError, r"max_length=3.5 must be a whole number"),
        (lambda t: t("a b c", "d", truncation="only_second", max_length=5), ValueError, r"only_second.*longest_first"),
        (lambda t: t("a b c", truncation="only_second", max_length=4), ValueError, r"needs a second text"),
        (
            lambda t: t("a", truncation=True, max_length=5, stride=3, return_overflowing_tokens=True),
            ValueError,
            r"stride=3 must be smaller than the 3 tokens",
        ),
        (
            lambda t: t("a", truncation=True, padding=True, max_length=9, pad_to_multiple_of=4),
            ValueError,
            r"not a multiple of pad_to_multiple_of=4.*max_length=8",
        ),
        (lambda t: t.decode([3, -100]), ValueError, r"-100 is not an id.*pad_token_id"),
        (lambda t: t.add_special_tokens({"msk_token": "x"}), TypeError, r"'msk_token': did you mean 'mask_token'"),
        (lambda t: t.add_tokens([5]), TypeError, r"5, of type int, is not a token"),
        (lambda t: setattr(t, "pad_token", 0), TypeError, r"pad_token is 0.*pad_token_id"),
        (lambda t: setattr(t, "padding_side", "rigth"), ValueError, r"did you mean 'right'"),
        (lambda t: t.pad({"labels": [1]}), ValueError, r"pad needs 'input_ids' but got only 'labels'"),
        (lambda t: t.pad([]), ValueError, r"batch is empty"),
        (lambda t: t.pad(["text"]), TypeError, r"pad takes a dict"),
        (
            lambda t: t.pad({"input_ids": [[1], [1]], "labels": [[1], [1, 2]]}, return_tensors="np"),
            ValueError,
            r"rows of labels have different lengths \(1 to 2\)",
        ),
        (lambda t: t.prepare_for_model([5], return_offsets_mapping=True), ValueError, r"pass the text itself"),
    ],
)  # fmt: skip
def test_bad_input_is_named_with_its_remedy(vocab, call, error, message):
    with pytest.raises(error, match=message) as caught:
        call(BertTokenizer(vocab))
    said = str(caught.value)
    assert "\n" not in said and len(said) < 330


def test_padding_without_a_padding_token(vocab):
    tokenizer = BertTokenizer(vocab)
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match=r"none: name one of its tokens.*add_special_tokens"):
        tokenizer(["a"], padding=True)
    tokenizer.pad_token = "<nope>"
    with pytest.raises(ValueError, match=r"'<nope>' is not in the vocabulary"):
        tokenizer(["a"], padding=True)
    assert tokenizer("a")["input_ids"]


@pytest.mark.parametrize(
    "content,message",
    [
        ("[PAD]\n[CLS]\n[SEP]\na\n", r"no '\[UNK\]'.*unk_token"),
        ("[PAD]\n[UNK]\n[SEP]\na\n", r"no '\[CLS\]'.*cls_token="),
        ("[UNK]\n[CLS]\n[SEP]\na\nb\na\n", r"'a' on lines 4 and 6"),
        ("", "is empty"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_bad_vocabulary_is_named(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for load in (BertTokenizer, BertTokenizer.from_pretrained, lambda p: BertTokenizer.from_pretrained(p.parent)):
        with pytest.raises(CheckpointError, match=message):
            load(path)


ODD_LINES = [
    "",
    " ",
    "a",
    "a ",
    " a",
    "a b",
    "a\t",
    "中\u3000",
    "\u2028",
    "b\u2028c",
    "\x85",
    "d\x85e",
    "f\x1f",
    "\ufeffg",
    "h",
]


@CASES
@given(st.lists(st.sampled_from(ODD_LINES), max_size=6), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_a_line_is_a_token_whatever_it_holds(tmp_path, odd, end, data):
    lines = ["[UNK]", "[CLS]", *odd, "[SEP]", *data.draw(st.sampled_from([[], ["i"], ["i "], ["\u2028j"]]))]
    (tmp_path / "vocab.txt").write_bytes((end.join(lines) + data.draw(st.sampled_from(["", end, end * 3]))).encode())
    if len({*lines}) < len(lines):
        with pytest.raises(CheckpointError, match="so that one id would be lost"):
            BertTokenizer(tmp_path / "vocab.txt")
    else:
        made = BertTokenizer(tmp_path / "vocab.txt").backend.vocab(with_added_tokens=False)
        assert made == {line: i for i, line in enumerate(lines)}


def test_missing_and_damaged_files_are_named(vocab, tmp_path):
    with pytest.raises(CheckpointError, match=r"no tokenizer: it needs vocab.txt \(or tokenizer.json\), but is empty"):
        BertTokenizer.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"There is no vocabulary file"):
        BertTokenizer(tmp_path / "vocab.txt")
    with pytest.raises(ValueError, match=r"give vocab_file"):
        BertTokenizer()
    for content, message in (
        ("{nope", "not valid JSON"),
        ("{}", 'no "model"'),
        ("[1]", 'no "model"'),
        ("<html>", "web page"),
    ):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(CheckpointError, match=message):
            BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_bytes(vocab.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="holds a JSON list"):
        BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "added_tokens.json").write_text('{"x": 5000}')
    with pytest.raises(CheckpointError, match=r"'x' has id 5000 .* would get"):
        BertTokenizer.from_pretrained(tmp_path)


def test_unknown_options_are_named(vocab):
    with pytest.raises(TypeError, match=r"'do_lowercase': did you mean 'do_lower_case'"):
        BertTokenizer(vocab, do_lowercase=True)
    with pytest.raises(TypeError, match=r"did you mean 'model_max_length'"):
        BertTokenizer.from_pretrained(vocab, model_maxlength=5)
    assert BertTokenizer.from_pretrained(vocab, add_prefix_space=True, use_fast=True), "what other families take"


def test_tokenizer_json_knows_the_options_of_its_tokens(vocab, tmp_path):
    old = BertTokenizer(vocab, mask_token=AddedToken("[MASK]", lstrip=True))
    old.save_pretrained(tmp_path)
    for name, content in (("special_tokens_map.json", {"mask_token": "[MASK]"}), ("tokenizer_config.json", {})):
        (tmp_path / name).write_text(json.dumps(content))
    new = BertTokenizer.from_pretrained(tmp_path)
    assert new("a [MASK]", return_offsets_mapping=True).offset_mapping[2] == (1, 8)
