"""train_new_from_iterator: a learnt vocabulary under the old pipeline, special tokens and class."""

import json
import pydoc
import sys

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from polyformer import BertTokenizer, FunnelTokenizer, PreTrainedTokenizer, ProphetNetTokenizer

TEXTS = [line for module in ("argparse", "json") for line in pydoc.plain(pydoc.render_doc(module)).split("\n")]
SPECIALS = "[PAD] [UNK] [CLS] [SEP] [MASK]".split()


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert") / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[unused0]", *SPECIALS[1:], "a", "b", "##b"]), encoding="utf-8")
    return BertTokenizer(path, strip_accents=False, model_max_length=99, padding_side="left")


def byte_level():
    """Special tokens before and after the learnt ones, inside the model's vocabulary, as RoBERTa has them."""
    tokens = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "<mask>"]
    rust = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [("h", "e")]))
    rust.pre_tokenizer, rust.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    rust.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=False)
    mask = AddedToken("<mask>", lstrip=True, normalized=False, special=True)
    return PreTrainedTokenizer(tokenizer_object=rust, cls_token="<s>", sep_token="</s>", mask_token=mask)


def end_of_word():
    rust = Tokenizer(models.BPE({"<unk>": 0, "a</w>": 1}, [], unk_token="<unk>", end_of_word_suffix="</w>"))
    rust.normalizer, rust.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    rust.decoder = decoders.BPEDecoder()
    return PreTrainedTokenizer(tokenizer_object=rust, unk_token="<unk>")


def unigram():
    """Sentinels behind the learnt tokens, some of them not in the model's vocabulary, as in T5."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("a", -3.0), ("<x1>", 0.0)]
    rust = Tokenizer(models.Unigram(pieces, 2))
    rust.pre_tokenizer, rust.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    rust.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizer(tokenizer_object=rust, additional_special_tokens=["<x1>", "<x0>"], **names)


def words():
    rust = Tokenizer(models.WordLevel({"?": 0, "a": 1}, unk_token="?"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizer(tokenizer_object=rust, unk_token="?")


def part(tokenizer, name):
    """A part of the pipeline, as JSON."""
    return json.loads(tokenizer.backend_tokenizer.to_str())[name]


@pytest.mark.parametrize(
    "make", [byte_level, end_of_word, unigram, words, None], ids=lambda m: getattr(m, "__name__", "bert")
)
def test_the_pipeline_stays_and_the_vocabulary_is_new(make, bert, tmp_path):
    old = make() if make else bert
    before = old.backend.json()
    new = old.train_new_from_iterator(iter(TEXTS), 450)
    assert old.backend.json() == before and type(new) is type(old) and new.name_or_path == ""
    assert len(new) == 450 and sorted(new.get_vocab().values()) == list(range(450))
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        assert part(new, name) == part(old, name)
    kept = ("special_tokens_map", "padding_side", "model_max_length", "model_input_names")
    assert [str(getattr(new, name)) for name in kept] == [str(getattr(old, name)) for name in kept]
    assert {str(t): repr(t) for t in new.added_tokens_decoder.values()} == {
        str(t): repr(t) for t in old.added_tokens_decoder.values() if t.special
    }
    assert new.vocab_size - old.vocab_size == len(new) - len(old), "what lay beside the model's vocabulary still does"
    # the same template, of the new ids
    one, two = new("json parser", "encoder")["input_ids"], new.encode("json parser", add_special_tokens=False)
    assert set(two) <= set(one) and new.init_kwargs.keys() == old.init_kwargs.keys()
    assert new.decode(two) == "json parser"
    for pair in (False, True):
        old_form, new_form = old._template.form(pair), new._template.form(pair)
        assert [p._replace(id=0) for p in new_form.pieces] == [p._replace(id=0) for p in old_form.pieces]
        assert all(new.convert_ids_to_tokens(p.id) == p.token for p in new_form.pieces if p.text is None)
    assert len(new.tokenize("argument parser")) < len(old.tokenize("argument parser")) or make in (
        words,
        end_of_word,
        None,
    )
    new.save_pretrained(tmp_path)
    again = type(new).from_pretrained(tmp_path)
    assert again.get_vocab() == new.get_vocab() and again(TEXTS[:50]) == new(TEXTS[:50])


def test_what_is_learnt_is_what_the_texts_have(bert):
    """Against the texts: a frequent word becomes one token, every character is known, and nothing else is."""
    new = bert.train_new_from_iterator([TEXTS[i : i + 7] for i in range(0, len(TEXTS), 7)], 500)
    assert new.tokenize("argument parser") == ["argument", "parser"]
    text = " ".join(TEXTS).lower()
    for token in new.get_vocab().keys() - {*SPECIALS}:
        assert token.removeprefix("##") in text
    assert "[UNK]" not in new.tokenize(" ".join(TEXTS)) and new.tokenize("\u4e2d") == ["[UNK]"]


def test_ids_before_and_after_stay_so():
    new = byte_level().train_new_from_iterator(TEXTS, 300)
    assert new.convert_tokens_to_ids(["<s>", "</s>", "<mask>"]) == [0, 1, 299]
    assert new.tokenize("a <mask>") == ["a", " <mask>"], "the mask still takes the space before it"
    assert new("ab")["input_ids"][0] == 0 and new("ab")["input_ids"][-1] == 1
    assert new.decode(new.encode("né 😀\n"), skip_special_tokens=True) == "né 😀\n", "every byte is known"
    new = unigram().train_new_from_iterator(TEXTS, 200)
    assert new.convert_tokens_to_ids(["<pad>", "</s>", "<unk>", "<x1>", "<x0>"]) == [0, 1, 2, 198, 199]
    assert new.encode("\u4e2d", add_special_tokens=False)[-1] == 2 and "<x1>" not in new.get_added_vocab()


def test_special_tokens_renamed_and_added(bert):
    more = {"new_special_tokens": ["<new>", AddedToken("<left>", lstrip=True), "[SEP]"]}
    new = bert.train_new_from_iterator(TEXTS, 400, special_tokens_map={"[CLS]": "<cls>", "[UNK]": "<unk>"}, **more)
    assert new.cls_token == "<cls>" and new.unk_token == "<unk>" and new.sep_token == "[SEP]"
    assert new.tokenize("parser \u4e2d", add_special_tokens=True) == ["<cls>", "parser", "<unk>", "[SEP]"]
    assert new.additional_special_tokens == ["<new>", "<left>"]
    assert "[CLS]" not in new.get_vocab() and "[UNK]" not in new.get_vocab()
    assert new.tokenize("parser <left>") == ["parser", " <left>"]
    assert [new.convert_ids_to_tokens(i) for i in range(7)] == "[PAD] <unk> <cls> [SEP] [MASK] <new> <left>".split()


def test_options_reach_the_trainer(bert):
    few = bert.train_new_from_iterator(["ab ab ab cd"] * 3, 99, min_frequency=9)
    assert {"ab"} <= few.get_vocab().keys() and "cd" not in few.get_vocab()
    assert "\u4e2d" in bert.train_new_from_iterator(TEXTS, 400, initial_alphabet=["\u4e2d"]).get_vocab()


def test_funnel_keeps_its_type(tmp_path):
    (tmp_path / "v").write_text("\n".join("<pad> <unk> <cls> <sep> <mask> <s> </s> a".split()), encoding="utf-8")
    new = FunnelTokenizer(tmp_path / "v").train_new_from_iterator(TEXTS, 300)
    assert new("json").token_type_ids == [2, 0, 0]


def test_no_progress_bar_without_a_terminal(bert, capfd):
    bert.train_new_from_iterator(TEXTS, 300, len(TEXTS))
    assert capfd.readouterr() == ("", "") and not sys.stderr.isatty()


@pytest.mark.parametrize(
    "texts,size,more,error,said",
    [
        ("a text", 99, {}, TypeError, "put a single one in a list"),
        ([], 99, {}, ValueError, "no text to learn from"),
        (TEXTS, 5, {}, ValueError, "leaves no room beside the 5 special tokens"),
        (TEXTS, 5.5, {}, ValueError, "vocab_size=5.5"),
        (TEXTS, 30, {}, ValueError, "too small for the special tokens and every character"),
        (["a", 3], 99, {}, TypeError, "text 1 is 3"),
        ([["a", None]], 99, {}, TypeError, "text 1 is None"),
        (["a\ud800"], 99, {}, ValueError, "lone surrogate"),
        (TEXTS, 99, {"min_freq": 2}, TypeError, "did you mean 'min_frequency'"),
        (TEXTS, 99, {"special_tokens_map": {"[CSL]": "x"}}, ValueError, r"renames '\[CSL\]', which is no special"),
    ],
)
def test_what_cannot_be_done_is_said(bert, texts, size, more, error, said):
    with pytest.raises(error, match=said):
        bert.train_new_from_iterator(texts, size, **more)


def test_an_error_of_the_iterator_comes_through(bert):
    def broken():
        yield "a"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        bert.train_new_from_iterator(broken(), 99)


def test_unigram_says_when_the_vocabulary_is_too_small():
    with pytest.raises(ValueError, match="too small for the special tokens and every character"):
        unigram().train_new_from_iterator(TEXTS, 12)


def test_a_family_of_its_own_says_so(tmp_path):
    (tmp_path / "v").write_text("\n".join(SPECIALS), encoding="utf-8")
    with pytest.raises(ValueError, match="ProphetNetTokenizer does not run on the tokenizers library"):
        ProphetNetTokenizer(tmp_path / "v").train_new_from_iterator(TEXTS, 99)
