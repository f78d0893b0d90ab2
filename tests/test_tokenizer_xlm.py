"""XLM and FlauBERT: the Moses rules against sacremoses, tokens against the live reference, spans against the text."""

import pickle
import re
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest
import sacremoses
from hypothesis import given
from hypothesis import strategies as st

from polyformer import FlaubertTokenizer, XLMTokenizer
from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import moses
from polyformer.tokenizers.traced import Composed, Lowercase, LowercaseEach, Outside, Rules, Trace, WithoutAccents
from tokenizer_zoo import BY_NAME, NASTY, UNITS, Tokenizers

SIGNS = "，。、”“∶：？《》）！（；」「０９．～’…━〈〉【】％«»‚„‘–—`´º° \u00a0\u2009%()?!:;.,'\"-0a"
TEXTS = st.lists(st.sampled_from([*UNITS, *SIGNS, "l'", "«\u00a0", "nº\u00a0", "\u00a0%"]), max_size=16).map("".join)
FAMILIES = ["xlm", "xlm-cased", "flaubert", "flaubert-lower", "transfo-xl"]


@pytest.fixture(scope="module")
def toks(tmp_path_factory):
    return Tokenizers(tmp_path_factory.mktemp("tokenizers"))


# ---- the rules


@given(TEXTS, st.sampled_from(["en", "fr", "de", "es", "cs", "fi", "ro", "ru"]))
def test_cleaning_is_what_sacremoses_does(text, language):
    tool = sacremoses.MosesPunctNormalizer(lang=language)
    want = tool.normalize(tool.replace_unicode_punct(text))
    want = "".join(c for c in want if unicodedata.category(c)[0] != "C")
    got, trace = text, Trace.of(text)
    for step in moses.cleaning(language):
        got, trace = step.plain(got), step.traced(trace)
    assert got == trace.text == want
    assert len(trace.spans) == len(want) and all(0 <= a <= b <= len(text) for a, b in trace.spans)


@given(TEXTS, st.sampled_from(["en", "fr", "it", "de"]), st.booleans())
def test_words_are_those_of_sacremoses_and_lie_in_the_text(text, language, dashes):
    words = moses.Words(language, dashes)
    want = sacremoses.MosesTokenizer(lang=language).tokenize(text, aggressive_dash_splits=dashes, escape=False)
    assert words.plain(text) == want
    traced = words.traced(Trace.of(text))
    assert [trace.text for trace in traced] == want
    for trace in traced:
        start, end = trace.span(0, len(trace.text))
        assert re.sub("[\x00-\x1f]", "", text[start:end]) == ("-" if dashes and trace.text == "@-@" else trace.text)


@given(TEXTS)
def test_steps_do_the_same_with_and_without_spans(text):
    for step in (Composed(), Lowercase(), LowercaseEach(), WithoutAccents(), Rules(("b+", r"<\g<0>>"), ("a", ""))):
        trace = step.traced(Trace.of(text))
        assert trace.text == step.plain(text) and len(trace.spans) == len(trace.text)
    assert Composed().plain(text) == unicodedata.normalize("NFC", text)
    assert LowercaseEach().plain(text) == "".join(c.lower() for c in text)


def test_spans_follow_what_a_rule_moves():
    trace = Trace.of('say "no".').sub(Rules(('"[.]', '."')).rules[0][0], '."')
    assert trace.text == 'say "no."'
    assert trace.spans[-2:] == [(8, 9), (7, 8)]
    assert Outside(Rules(("X", "")).rules[0][0], Lowercase()).plain("AXBX") == "aXbX"


# ---- against the reference


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_are_those_of_the_reference(name, toks, oracle):
    family, tok = BY_NAME[name], toks[name]
    texts = [*NASTY, *(f"{u}{v}a {v}b" for u in UNITS for v in ("x", "É", "Σ", "1"))]
    want = oracle.tokenize(
        family.reference, toks.folder(family), [("tokenize", [t], {}) for t in texts], family.options
    )
    assert [tok.tokenize(t) for t in texts] == want
    ids = oracle.tokenize(family.reference, toks.folder(family), [("encode", [t], {}) for t in texts], family.options)
    assert tok(texts)["input_ids"] == ids
    want = oracle.tokenize(family.reference, toks.folder(family), [("decode", [i], {}) for i in ids], family.options)
    assert tok.batch_decode(ids) == want


@pytest.mark.parametrize("language", ["ro", "fr", "de", "fi", "ru"])
def test_a_call_cuts_by_the_rules_of_its_language(language, toks, oracle):
    texts = ["Șase ţări, 'Înapoi' și Âncă. 5,5", "l'eau d'été n'est pas aujourd'hui z.B. 3.", "Mr. No. 7 ca. 1.5 U.S."]
    for name in ("xlm", "xlm-cased"):
        family = BY_NAME[name]
        calls = [("_tokenize", [t.lower() if name == "xlm" else t], {"lang": language}) for t in texts]
        want = oracle.tokenize(family.reference, toks.folder(family), calls, family.options)
        assert [toks[family].tokenize(t, lang=language) for t in texts] == want
    assert toks["xlm"].tokenize("a b") == toks["xlm"].tokenize("a b", lang="en")


def test_a_language_that_the_model_lacks_is_said(toks):
    tok = toks.fresh(BY_NAME["xlm"], lang2id={"en": 0, "fr": 1}, id2lang={"0": "en", "1": "fr"})
    assert tok.id2lang == {0: "en", 1: "fr"}
    with pytest.warns(UserWarning, match="knows no language 'qq', only en, fr"):
        tok("a", lang="qq")


def test_text_that_is_cut_already_stays_as_it_is(toks):
    for name in ("xlm", "xlm-cased", "flaubert"):
        tok = toks[name]
        assert "".join(tok.tokenize("don't  Été, (x)", bypass_tokenizer=True)) == "don't</w>Été,</w>(x)</w>"
    got = toks["xlm"]("the the", "the", bypass_tokenizer=True, return_offsets_mapping=True)
    assert got["input_ids"] == toks["xlm"]("the the", "the")["input_ids"]


# ---- spans


def letters(text: str) -> list[str]:
    """The letters and digits of ASCII in a text, without case and accents."""
    return [c for c in unicodedata.normalize("NFKD", text.lower()) if c.isascii() and c.isalnum()]


@pytest.mark.parametrize("name", FAMILIES)
@given(text=TEXTS)
def test_tokens_lie_where_their_letters_are(name, text, toks):
    tok = toks[name]
    row = tok(text, return_offsets_mapping=True)
    assert row["input_ids"] == tok(text)["input_ids"]
    for token, (start, end), special in zip(
        row.tokens(), row["offset_mapping"], row.encodings[0].special_tokens_mask, strict=True
    ):
        if special:
            continue
        assert 0 <= start < end <= len(text)
        found = letters(token.replace("</w>", ""))
        assert found == letters(text[start:end]) or not found  # a mark of a letter that lower case took apart


def test_spans_of_a_text_that_everything_is_done_to(toks):
    text = "Le  «Café»… İl, l’eau ''x''\n\tend. <special1>  É"
    row = toks["xlm"](text, return_offsets_mapping=True, add_special_tokens=False)
    words: dict[int, list[tuple[int, int]]] = {}
    for word, span in zip(row.word_ids(), row["offset_mapping"], strict=True):
        words.setdefault(word, []).append(span)
    found = [text[min(a for a, _ in spans) : max(b for _, b in spans)] for spans in words.values()]
    assert found[:8] == ["Le", "«", "Café", "…", "»", "İ", "l", ","]  # the rules put the dots inside the quotes
    assert found[8:] == ["l", "’eau", "''", "x", "''", "end", ".", "<special1>", "É"]


# ---- case, added tokens


def test_added_tokens_of_an_uncased_vocabulary_are_found_in_any_case(toks):
    tok = toks.fresh(BY_NAME["xlm"])
    assert tok.add_tokens(["NewTok", "THE</w>"]) == 1  # the vocabulary has the other
    tok.add_special_tokens({"additional_special_tokens": ["<SP>"]})
    assert tok.tokenize("a NEWTOK <SP> <sp>")[:3] == ["a</w>", "newtok", "<SP>"]
    assert tok.tokenize("x <sp>")[-1] != "<SP>"
    text = "İ NEWTOK İx"
    row = tok(text, return_offsets_mapping=True, add_special_tokens=False)
    assert [text[a:b] for a, b in row["offset_mapping"]][1] == "NEWTOK"


# ---- files


def test_files_are_written_as_they_were_read(toks, tmp_path, oracle):
    for name in ("xlm", "flaubert-lower"):
        family = BY_NAME[name]
        tok = toks.fresh(family, lang2id={"en": 0}, id2lang={0: "en"})
        tok.add_tokens(["newtok"])
        tok.save_pretrained(tmp_path / name)
        again = family.tokenizer_class.from_pretrained(tmp_path / name)
        assert again.id2lang == {0: "en"} and again.get_vocab() == tok.get_vocab()
        texts = [*NASTY, "a newtok b"]
        want = tok(texts)["input_ids"]
        assert again(texts)["input_ids"] == want
        assert oracle.tokenize(family.reference, tmp_path / name, [("encode", [t], {}) for t in texts]) == want
        assert pickle.loads(pickle.dumps(tok))(texts)["input_ids"] == want


def files(folder, vocab, merges):
    folder.mkdir()
    (folder / "vocab.json").write_text(vocab)
    (folder / "merges.txt").write_text(merges)
    return folder


VOCAB = '{"<s>": 0, "</s>": 1, "<pad>": 2, "<unk>": 3, "a": 4, "b</w>": 5, "ab</w>": 6}'


def test_merges_may_make_pieces_that_the_vocabulary_lacks(tmp_path, oracle):
    folder = files(tmp_path / "x", VOCAB.replace("}", ', "bb</w>": 7}'), "a b</w> 9\na a 8\nb b</w>\n")
    texts = ["ab", "aab", "aaab", "bb", "q", "abq", "aa", "a"]
    tok = XLMTokenizer.from_pretrained(folder)
    want = oracle.tokenize("XLMTokenizer", folder, [("encode", [t], {}) for t in texts])
    assert [tok.encode(t) for t in texts] == want
    assert tok.tokenize("aaab") == ["aa", "ab</w>"] and tok.encode("aaab")[1:3] == [3, 6]


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        (VOCAB, "a b</w>\nx\n", "on line 2 'x', where two pieces belong"),
        (VOCAB, "x y\ny z\n", "do not belong together"),
        (VOCAB.replace("<unk>", "<u>"), "a b</w>\n", "has no '<unk>'"),
        ("[]", "a b</w>\n", "a JSON list where an object was expected"),
    ],
)
def test_damaged_files_are_named(tmp_path, vocab, merges, message):
    folder = files(tmp_path / "x", vocab, merges)
    for cls in (XLMTokenizer, FlaubertTokenizer):
        with pytest.raises(CheckpointError, match=message):
            cls.from_pretrained(folder)
    with pytest.raises(ValueError, match="needs a vocabulary: give vocab_file and merges_file"):
        FlaubertTokenizer()
    with pytest.raises(ValueError, match="lone surrogate"):
        XLMTokenizer.from_pretrained(files(tmp_path / "y", VOCAB, "a b</w>\n"))("a\ud800")


# ---- what may be missing, and what may be shared


def test_without_sacremoses_the_remedy_is_named(toks, monkeypatch):
    tok = toks.fresh(BY_NAME["xlm"])
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    monkeypatch.setattr(moses._MADE, "tools", {})
    with pytest.raises(ImportError, match=r"pip install polyformer\[xlm\]"):
        tok("some text", lang="pl")
    assert tok("the", bypass_tokenizer=True)["input_ids"]


@pytest.mark.parametrize(("language", "module"), [("zh", "jieba"), ("th", "pythainlp")])
def test_programs_that_cut_languages_without_spaces(language, module, toks, monkeypatch):
    tok = toks["xlm-cased"]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"need[s]? {module} to be cut into words: `pip install"):
        tok("文", lang=language)

    def cut(text: str) -> list[str]:
        return [text[i : i + 2] for i in range(0, len(text), 2)]

    program = ModuleType(module)
    program.cut = program.word_tokenize = cut
    monkeypatch.setitem(sys.modules, module, program)
    text = "ＡB我（爱）。中\n国“É"
    # what the reference makes of this text, given the same program
    want = {"zh": ["ＡB", "我", "(爱).", "中", "国", '"É'], "th": ["ＡB", "我", "(爱", ").", "中", '国"', "É"]}[
        language
    ]
    assert "".join(tok.tokenize(text, lang=language)).split("</w>")[:-1] == want
    row = tok(text, lang=language, return_offsets_mapping=True, add_special_tokens=False)
    assert row["input_ids"] == tok.encode(text, lang=language, add_special_tokens=False)
    assert {text[a:b] for a, b in row["offset_mapping"]} >= set("ＡB我爱中国É")


def test_japanese_asks_for_kytea(toks):
    with pytest.raises((CheckpointError, ImportError), match="Japanese text needs"):
        toks["xlm"]("文", lang="ja")


def test_threads_get_the_same_answers(toks):
    tok = toks["xlm"]
    texts = [t for t in NASTY if t]
    want = [tok.encode(t, lang="fr") for t in texts]
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda _: [tok.encode(t, lang="fr") for t in texts], range(16)):
            assert got == want
