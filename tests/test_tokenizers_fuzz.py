"""A differential fuzzer: texts of any characters, to ids here and in the original.

500 texts for every kind of tokenizer; POLYFORMER_FUZZ names another number, and `make fuzz` takes 20,000.
"""

import os
import re
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tokenizer_references import Pieces, same_pieces, xlm_ids
from tokenizer_zoo import BY_NAME, SENTENCES, UNITS, each, plain

CASES = settings(
    max_examples=int(os.environ.get("POLYFORMER_FUZZ", 500)),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
CHARACTERS = st.characters(exclude_categories=["Cs"])
WORDS = st.sampled_from([*UNITS, *" ".join(SENTENCES).split()])
TEXTS = st.lists(WORDS | CHARACTERS, max_size=15).map("".join) | st.text(CHARACTERS, max_size=30)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def special(tokenizer, text):
    """Whether a special token stands in the text, or will once it is normalised."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return any(unicodedata.normalize("NFKC", token).casefold() in text for token in tokenizer.all_special_tokens)


# ---- transformers


@each(lambda f: f.name in ("bert", "bert-cased", "bert-words", "gpt2", "gpt2-prefix", "openai-gpt"))
@CASES
@given(text=TEXTS)
def test_as_transformers_5(family, toks, modern, text):
    """All columns, offsets too."""
    options = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    assert plain(toks[family](text, **options)) == plain(modern(family)(text, **options))


@each(lambda f: f.name in ("roberta", "ctrl", "xlm", "flaubert", "flaubert-lower", "transfo-xl", "prophetnet"))
@CASES
@given(text=TEXTS)
def test_as_transformers_4(family, toks, oracle, text):
    """All columns, of families that transformers 5 lacks or has otherwise."""
    assume(all(unicodedata.category(c) != "Cn" for c in text))  # what is assigned depends on the version of Unicode
    assume(family.name != "ctrl" or not re.search("[\x1c-\x1f]", text))  # white space to Python, a word to Rust
    assume(family.name != "prophetnet" or not OTHER_SCRIPTS.search(text))
    call = ("__call__", [text], {"return_special_tokens_mask": True})
    (want,) = oracle.tokenize(family.reference, toks.folder(family), [call], family.options)
    assert plain(toks[family](text, return_special_tokens_mask=True)) == want


# ProphetNet's text is cleaned by Rust, whose tables lack what Unicode got late, there by Python: 759 characters differ.
OTHER_SCRIPTS = re.compile("[^\0-\u036f\u0391-\u052f\u3000-\u9fff]")


@pytest.fixture(scope="module")
def modern(toks):
    """The same tokenizers of transformers 5."""
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    made = {}

    def of(family):
        if family.name not in made:
            cls = getattr(transformers, family.reference)
            made[family.name] = cls.from_pretrained(toks.folder(family), **family.options)
        return made[family.name]

    return of


# ---- sacremoses


@CASES
@given(text=TEXTS)
def test_as_sacremoses(toks, text):
    family = BY_NAME["xlm-cased"]
    assume(not special(toks[family], text))
    assert ids(toks[family], text) == xlm_ids(text, toks.folder(family), lower=False)


# ---- sentencepiece

KINDS = ("albert", "albert-cased", "xlnet", "t5", "pegasus", "reformer", "xlm-roberta", "camembert", "xlm-prophetnet")


@each(lambda f: f.name in (*KINDS, "marian"))
@CASES
@given(text=TEXTS)
def test_as_sentencepiece(family, toks, originals, text):
    assume(not special(toks[family], text) and ">>" not in text)
    original = originals(family)
    assume(not (family.fast and unlike_original(family, original, text)))
    assert same_pieces(original, ids(toks[family], text), text)


@pytest.fixture(scope="module")
def originals(toks):
    made = {}

    def of(family):
        if family.name not in made:
            made[family.name] = Pieces(family, toks.folder(family), toks[family])
        return made[family.name]

    return of


def unlike_original(family, original, text):
    """Whether published fast tokenizers, which are the contract, are known to differ from the original."""
    accents = [unicodedata.combining(c) > 0 for c in original.model.normalize(text)]
    if any(a and b for a, b in pairwise(accents)):
        return True  # a pile of them stays as it is
    if family.name == "pegasus":
        return bool(re.search("[\x1c-\x1f\x85]", text))  # white space
    if family.cls not in ("AlbertTokenizer", "XLNetTokenizer"):
        return False
    if re.search("[\x00-\x1f\x7f-\x9f]", text):
        return True  # Python takes more of them for white space
    if family.options.get("keep_accents"):
        return False
    parts = unicodedata.normalize(
        "NFKD", text
    )  # all marks are dropped, also those that are letters; Hangul stays apart
    marks = any(unicodedata.category(c)[0] == "M" and not unicodedata.combining(c) for c in parts)
    return marks or bool(re.search("[\u1100-\u11ffΣ]", parts))
