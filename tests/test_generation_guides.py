"""Tries, regular expressions and grammars: against `re`, against enumeration, and at work on real vocabularies."""

import itertools
import json
import random
import re

import pytest
import torch

from generation_toys import PROMPTS, RAGGED, every_text, tiny, written
from polyformer.generation import GrammarGuide, RegexGuide, TrieGuide
from polyformer.generation.guides import grammar, regex
from polyformer.generation.guides.guide import _span
from polyformer.generation.guides.pieces import pieces

PATTERNS = [
    "", "a", "ab|b", "(a|b)*c?", "a{2,3}b", "(ab?){2}", "[^a]b*", "[a-b]+?c", "(a?){3}b", "(a*)*b", ".a.", r"\w\W|\s",
    "(?i:AB)c", "(?:a|ab)(?:c|bcd)", "^ab?$", r"a|\d{0,2}", "[^\\W_b]c", "x{0}a", "(|a)b", r"\Aa\Z",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_is_pythons(pattern):
    language, python = regex(pattern), re.compile(pattern)
    alphabet = sorted(set("abcAB _1\n" + "d" * ("d" in pattern)))
    for length in range(4):
        for text in map("".join, itertools.product(alphabet, repeat=length)):
            assert language.matches(text) == bool(python.fullmatch(text)), text


def test_random_patterns_are_pythons():
    chance = random.Random(0)

    def some(depth):
        kind = chance.choice("abcdefg") if depth else "a"
        if kind in "ab":
            return chance.choice(["a", "b", "[ab]", "[^b]", ".", "c"])
        if kind == "c":
            return f"(?:{some(depth - 1)}|{some(depth - 1)})"
        if kind == "d":
            return f"(?:{some(depth - 1)}){chance.choice(['*', '+', '?', '{2}', '{1,2}', '{,2}', '{2,}'])}"
        return some(depth - 1) + some(depth - 1)

    texts = ["".join(t) for n in range(5) for t in itertools.product("abc", repeat=n)]
    for _ in range(60):
        pattern = some(4)
        language, python = regex(pattern), re.compile(pattern)
        assert [language.matches(t) for t in texts] == [bool(python.fullmatch(t)) for t in texts], pattern


@pytest.mark.parametrize(
    "pattern,flags,yes,no",
    [
        ("straße", re.IGNORECASE, ["STRAßE", "STRA\u1e9eE"], ["STRASSE"]),
        (r"\w+", re.ASCII, ["az_9"], ["é"]),
        (r"\d", 0, ["٣", "7"], ["x"]),
        ("a.b", re.DOTALL, ["a\nb"], ["ab"]),
        ("a b # c", re.VERBOSE, ["ab"], ["a b"]),
        ("(?s:.)(?i:k)", 0, ["\nK", "\n\u212a"], ["\nx"]),
        ("[é-ü]+😀", 0, ["êö😀"], ["a😀"]),
    ],
)
def test_flags_and_letters_of_all_kinds(pattern, flags, yes, no):
    language = regex(pattern, flags)
    for text in (*yes, *no):
        assert language.matches(text) == bool(re.fullmatch(pattern, text, flags)) == (text in yes)


@pytest.mark.parametrize(
    "pattern,sentence",
    [
        (r"(?=a)b", "a lookahead or lookbehind here: write it without"),
        (r"(a)\1", "a reference to a group"),
        (r"a\bb", "an anchor inside"),
        (r"a^b", "an anchor inside"),
        (r"a*+b", "a possessive repetition"),
        (r"(?>a)b", "an atomic group"),
        (r"(a", "is no regular expression"),
    ],
)
def test_what_no_automaton_follows_is_refused(pattern, sentence):
    with pytest.raises(ValueError, match=sentence):
        regex(pattern)


# ---- grammars --------------------------------------------------------------------------------------------------------

JSON = r"""
    root   ::= ws value ws           # any value
    value  ::= object | array | string | /-?(0|[1-9][0-9]*)(\.[0-9]+)?/ | "true" | "false" | "null"
    object ::= "{" ws (pair (ws "," ws pair)*)? ws "}"
    pair   ::= string ws ":" ws value
    array  ::= "[" ws (value (ws "," ws value)*)? ws "]"
    string ::= '"' ([^"\\\n] | "\\" ["\\/bfnrt])* '"'
    ws     ::= [ \n]*
"""


def test_a_grammar_of_json_is_json():
    language = grammar(JSON)
    for text in (
        '{"a": [1, -2.5, {"b": "c\\"d"}], "e": null}', "[]", "01", '{"a":}', "[1,]", '"x', "true ", "nul", '"é😀"',
    ):  # fmt: skip
        try:
            json.loads(text)
            valid = True
        except ValueError:
            valid = False
        assert language.matches(text) == valid, text


def test_a_grammar_is_enumerated():
    """Balanced brackets, palindromes, a^n b^n: up to a length, those and no others."""
    cases = {
        's ::= ("(" s ")")*': lambda t: _balanced(t),
        "s ::= 'a' s 'a' | 'b' s 'b' | [ab]?": lambda t: set(t) <= set("ab") and t == t[::-1],
        "s ::= pair? \n pair ::= 'a' pair? 'b'": lambda t: t == "a" * (len(t) // 2) + "b" * (len(t) // 2),
        "s ::= x{2,3} \n x ::= 'ab' | 'a'": lambda t: bool(re.fullmatch("(ab|a){2,3}", t)),
        "top ::= 'b' \n s ::= top top": lambda t: t == "bb",
    }
    for rules, is_one in cases.items():
        language = grammar(rules, "s")
        for length in range(7):
            for text in map("".join, itertools.product("ab()", repeat=length)):
                assert language.matches(text) == is_one(text), (rules, text)


def _balanced(text):
    depth = 0
    for char in text:
        depth += {"(": 1, ")": -1}.get(char, -99)
        if depth < 0:
            return False
    return depth == 0


@pytest.mark.parametrize(
    "rules,sentence",
    [
        ("a ::= b", "the rule 'b' is not there"),
        ("a ::= a 'x' | 'x'", "'a' begins with itself: write a repetition"),
        ("a ::= 'x'? b \n b ::= a | 'y'", "begins with itself"),
        ("a ::= 'x' a", "no text can follow the rule 'a'"),
        ("a ::= 'x' \n a ::= 'y'", "'a' is there twice"),
        ("a ::= 'x' )", r"line 1 of the grammar cannot be read at '\)'"),
        ("a ::= ('x'", "line 1 of the grammar cannot be read"),
        ("a ::= 'x' \n ~", "line 2 of the grammar cannot be read at '~'"),
        ("", "a grammar has at least one rule"),
    ],
)
def test_a_grammar_that_is_none(rules, sentence):
    with pytest.raises(ValueError, match=sentence):
        grammar(rules)


# ---- bytes -----------------------------------------------------------------------------------------------------------


def test_beginnings_of_utf8():
    """For all beginnings of one to three bytes: the characters that have them, by encoding all."""
    spans = {}
    for code in (*range(0x80, 0xD800, 7), *range(0xE000, 0x110000, 63), 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF):
        raw = chr(code).encode()
        for size in range(1, len(raw) + 1):
            low, high = _span(raw[:size])
            assert low <= code <= high
            spans[raw[:size]] = low, high
    for begun, (low, high) in spans.items():
        assert chr(low).encode()[: len(begun)] == chr(high).encode()[: len(begun)] == begun
    for wrong in (b"\x80", b"\xc0", b"\xff", b"\xe2\x28", b"\xe0\x80", b"\xf0\x80", b"\xf4\x90", b"\xed\xa0"):
        assert _span(wrong) is None


# ---- at work ---------------------------------------------------------------------------------------------------------


class Letters:
    """A vocabulary of pieces, joined as they are: 0 pad, 1 eos."""

    def __init__(self, words):
        self.words, self.eos_token_id, self.all_special_ids = words, 1, [0, 1]

    def __len__(self):
        return len(self.words)

    def encode(self, text, add_special_tokens=True):
        return [self.words.index(text)]

    def decode(self, ids, **how):
        return "".join(self.words[i] for i in ids)

    def convert_ids_to_tokens(self, token):
        return self.words[token]


VOCABULARY = Letters(["<pad>", "<eos>", "a", "b", "ab", "c", " ", " b"])


@pytest.mark.parametrize("pattern", ["(ab)+c?", "a*|b+", "(a|b| )*c"])
@pytest.mark.parametrize("free", [True, False])
def test_beams_as_wide_as_the_tree_find_the_best_texts_that_match(pattern, free):
    """All texts of up to 4 tokens that `re` matches, best first; every way to cut one into tokens is a text."""
    model = tiny(words=8, seed=2)
    prompt = [3, 4]
    texts = {t: total for t, total in every_text(model, prompt, 4, 1).items() if t[-1] == 1}
    python = re.compile(pattern)
    want = []
    for tokens, total in texts.items():
        text = "\0" if 0 in tokens else VOCABULARY.decode(tokens[:-1])
        if python.fullmatch(text) or (free and text[:1] == " " and python.fullmatch(text[1:])):
            want.append((total, tokens))
    want = sorted(want, reverse=True)[:6]
    found = model.generate(
        torch.tensor([prompt]), max_new_tokens=4, num_beams=1000, num_return_sequences=6, pad_token_id=0,
        prefix_allowed_tokens_fn=RegexGuide(pattern, VOCABULARY, free_space=free), length_penalty=0.0,
        eos_token_id=1, early_stopping="never",
    )[:, 2:].tolist()  # fmt: skip
    found = [tuple(row[: row.index(1) + 1]) for row in found if 1 in row]
    ended = [tokens for _, tokens in want]
    assert found == [t for t in ended if t in found] and set(found) <= set(ended) and found


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 3.0}, {"num_beams": 3}])
def test_what_is_written_matches(options):
    guide = RegexGuide("(ab|c){2,4}b", VOCABULARY)
    for seed in range(4):
        text = written(
            tiny(words=8, seed=seed), [[3, 4], [5, 2, 2, 2], [7]], seed=seed, eos_token_id=1,
            prefix_allowed_tokens_fn=guide, max_new_tokens=15, **options,
        )  # fmt: skip
        for row in text[:, 4:].tolist():
            assert re.fullmatch(" ?(ab|c){2,4}b", VOCABULARY.decode(row[: row.index(1)]))


def test_a_grammar_at_work():
    guide = GrammarGuide("s ::= 'a' s 'b' | 'c'", VOCABULARY)
    for seed in range(6):
        row = written(
            tiny(words=8, seed=seed), [[3, 4]], seed=seed, eos_token_id=1, prefix_allowed_tokens_fn=guide,
            max_new_tokens=40, do_sample=True, temperature=2.0,
        )[0, 2:].tolist()  # fmt: skip
        text = VOCABULARY.decode(row[: row.index(1)]).strip() if 1 in row else "c"
        assert re.fullmatch("a*cb*", text) and text.count("a") == text.count("b")


def test_a_trie_at_work():
    names = [[5, 6], [5, 6, 8], [9], [4, 4, 4]]
    for options in ({}, {"num_beams": 4, "num_return_sequences": 4}, {"do_sample": True}):
        text = written(tiny(), RAGGED, max_new_tokens=6, prefix_allowed_tokens_fn=TrieGuide(names, 7), **options)
        for row in text[:, 4:].tolist():
            assert row[: row.index(7)] in names
    four = written(tiny(), PROMPTS, max_new_tokens=6, num_beams=4, num_return_sequences=4, length_penalty=0.0,
                   prefix_allowed_tokens_fn=TrieGuide(names, 7), early_stopping="never")  # fmt: skip
    for rows in four[:, 3:].view(4, 4, -1).tolist():
        assert sorted(row[: row.index(7)] for row in rows) == sorted(names)


def test_what_a_guide_cannot_do():
    with pytest.raises(ValueError, match="a text must be able to end: give eos_token_id"):
        TrieGuide([[1]], None)
    with pytest.raises(ValueError, match="a trie holds at least one"):
        TrieGuide([], 1)
    with pytest.raises(ValueError, match="no token of the vocabulary goes on"):
        RegexGuide("x", VOCABULARY, free_space=False)(0, torch.tensor([]))


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_pieces_of_real_kinds_of_vocabulary(name, toks):
    """What each token is said to add is what decoding behind another word adds."""
    tokenizer = toks[name]
    found = pieces(tokenizer)
    how = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    text = "a café, naïve 12 words 😀!"
    ids = [i for i in tokenizer.encode(text, add_special_tokens=False) if i in found]
    first, rest = ids[:1], ids[1:]
    joined = tokenizer.decode(first, **how).encode() + b"".join(found[i] for i in rest)
    assert joined.decode(errors="replace") == tokenizer.decode(ids, **how)
    assert len(found) > 0.9 * (len(tokenizer) - len(tokenizer.all_special_ids)) - 10


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_pattern_holds_on_real_kinds_of_vocabulary(name, toks):
    """Random walks along what is allowed end in texts that match."""
    tokenizer = toks[name]
    guide = RegexGuide("[a-z]{2,5}( [a-zé]{1,3}){0,2}", tokenizer)
    chance = random.Random(0)
    for _ in range(20):
        tokens = []
        while guide.eos[0] not in tokens:
            tokens.append(chance.choice(guide(0, torch.tensor(tokens, dtype=torch.int64)).tolist()))
        raw = b"".join(guide.pieces[i] for i in tokens[:-1])
        assert re.fullmatch(" ?[a-z]{2,5}( [a-zé]{1,3}){0,2}", raw.decode())
