"""Every family of tokenizers in small: vocabularies in the family's own files, what its original promises, nasty texts.

    toks = Tokenizers(folder)         # makes the files of a family when they are first asked for
    toks["xlnet"]                     # the tokenizer
    toks.folder(BY_NAME["xlnet"])     # its files

Vocabularies are learnt from the docstrings of the standard library, which every machine has, and from a few sentences
in other languages, the same way each time.
"""

from __future__ import annotations

import io
import json
import os
import pydoc
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from filelock import FileLock

import polyformer

# ---- texts -----------------------------------------------------------------------------------------------------------

SENTENCES = [
    "Le café où l'été s'achève n'est pas à côté de la forêt ; déjà, les élèves rêvent.",
    "Größere Äpfel fallen über die Straße, während Jürgen heißen Käse ißt.",
    "El niño comió piñas en la montaña: ¿qué pasó después?",
    "Быстрая лиса прыгает через ленивую собаку, ещё один ёжик.",
    "Η γρήγορη αλεπού πηδάει πάνω από το σκυλί.",
    "私は東京に住んでいます。カタカナとひらがな、ガギグ。",
    "我们在北京学习自然语言处理，天气很好。",
    "한국어 문장을 여기에 씁니다. 좋은 아침입니다.",
    "Tiếng Việt có nhiều dấu: phở, bún chả, đường phố.",
    "السلام عليكم ورحمة الله، كيف حالك اليوم؟",
    "בוקר טוב, מה שלומך היום?",
    "हिन्दी में एक वाक्य लिखो। क्षत्रिय किताब।",
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ",
    "In 1973, 2000, 5, 1,234.56 and 3.14 € it's half ½ past №7.",
]


@cache
def docstrings() -> list[str]:
    """Lines of English about Python."""
    pages = (pydoc.plain(pydoc.render_doc(name)) for name in ("re", "json", "random", "textwrap"))
    lines = (" ".join(line.replace("|", " ").split()) for page in pages for line in page.split("\n"))
    return [line for line in dict.fromkeys(lines) if len(line) > 20]


@cache
def corpus() -> list[str]:
    return [*docstrings()[:500], *SENTENCES * 8]


LONG_WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"

NASTY = [
    "",
    " ",
    "      ",
    "\t",
    "\n\n",
    " \t\r\n \v\f ",
    "a",
    "Z",
    "7",
    ".",
    "  two  leading,   three inside  and trailing  ",
    "CRLF\r\nand CR\rand LF\nand NEL\x85and\u2028line\u2029paragraph",
    "no\u00a0break thin\u2009space hair\u200aspace ideographic\u3000space narrow\u202fone ogham\u1680mark",
    "NUL\x00inside, \x00\x01\x02 and bell\x07 delete\x7f escape\x1b[31m",
    "\ufeffBOM first and \ufeff later",
    "zero\u200bwidth\u200cnon\u200djoiner word\u2060joiner soft\u00adhyphen",
    "replacement \ufffd\ufffd and private \ue123 \U000f0000 and unassigned \u0378 \U000e0080",
    "noncharacters \ufdd0 \ufffe \U0001ffff",
    "▁ lower one eighth block ▁▁ x▁y ▁",
    "▁begins with one",
    "a ▁b ▁ c",
    "Ġ ĊĠthe spelling Ã© of bytes Ġ",
    "##ing ## #hash ##",
    "the@@ @@ @-@ @,@ @.@ </w> a</w>",
    "e\u0301 A\u030a o\u0302\u0323 n\u0303 u\u0308 \u0301alone x\u0300\u0301\u0302\u0303\u0304\u0305",
    "Z̸̡͓̟̈́̚a̵̢̛̱͑l̷̡̫̈́g̴̨͙̑o̵̡̕",
    "İstanbul ıIiİ ß ẞ ſ ŉ ǰ ΐ Σίσυφος ΣΑΣ ς",
    "ﬁ ﬂ ﬀ ﬆ Ǆ ǅ ǆ ĳ ŀ № ℡ ㎏ ㍿ ½ ¾ ² ³ ™ ℠ Ⅷ ⑦ ⒜",
    "ＦＵＬＬ ｗｉｄｔｈ １２３！？ ｶﾞｷﾞｸﾞ ﾊﾟﾋﾟ ﾊﾝｶｸ",
    "가각힣 \u1100\u1161\u11a8 \u1112\u1161\u11ab ㄱㅏ \u1100\u1100\u1161",
    "か\u3099 ハ\u309a が パ 葛\U000e0100 辻",
    "𠮷野家 㐀㐁 龘 𝓗𝓮𝓵𝓵𝓸 𝔘𝔫𝔦 𐍈 𐤀𐤁",
    "👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 ❤️ 🇫🇷🇩🇪 #️⃣ 😀😀",
    "\u202eright to left\u202c עברית RTL العربية ١٢٣ \u200f\u200e \u2067x\u2069",
    "क्षि त्र ক্ষ ക്ഷ กำ ไทย ລາວ မြန်မာ ខ្មែរ བོད་",
    "“curly” ‘single’ „low“ «guillemets» ``ticks'' ´acute` ′prime″",
    "dash - hyphen ‐ nonbreaking ‑ figure ‒ en – em — bar ― minus −",
    "1,234.56 1.234,56 12,34, 5, 1973, (1973,) 3.14.15 10:30 1/2 50% $9.99 −5 1e-9 0x1F",
    "don't can't I'll we've you're she'd 'tis o'clock rock'n'roll y'all's dogs'",
    "a-b-c state-of-the-art x--y x - y -dash dash- ... .. …",
    "http://example.org/a_b?c=d&e=%20f#g me@example.org @user #tag C:\\dir\\file /usr/bin",
    "def f(x):\n\treturn x ** 2  # x²\n\n\nclass A: pass",
    "<b>bold</b> &amp; &lt; &#39; &nbsp; <!-- x --> ]]>",
    "( a ) [ b ] { c } < d > | ~ ^ _ \\ = + * / % $ # @ !",
    "?!?!?! ;;; :-) ¯\\_(ツ)_/¯ (╯°□°)╯︵ ┻━┻",
    LONG_WORD,
    "x" * 300,
    "ab" * 150 + " " + "7" * 120,
    "é" * 130 + "中" * 130,
    "the " * 200,
    "[CLS] [SEP] [MASK] [PAD] [UNK] <s> </s> <pad> <unk> <mask> <cls> <sep> <eod> <eop>",
    "x[MASK]y<mask>z[SEP]w</s>v<sep>u",
    "[mask] <MASK> [ MASK ] < mask > [CLS <s [unused1] [X_SEP] <|endoftext|>",
    "<extra_id_0> <extra_id_99> <mask_1> <mask_2> <unk_7> <special1> >>fra<< hello >>fra<<",
    "en_XX ro_RO __en__ <eos> <formula> <s>NOTUSED </s>NOTUSED",
    "an <mask> , a <mask>. a<mask>b  <mask>  [MASK]  <pad>",
    "ALLCAPS MiXeD camelCase snake_case UPPER_SNAKE PascalCaseHTTPServer",
    "Ünïcödé Ḧëävÿ Mëtäl Ûmläût ÀÁÂÃÄÅ ç Ç ñ Ñ ø Ø ł Ł đ Đ æ Æ œ Œ þ Þ ð",
    *SENTENCES,
]

PAIRS = [
    ("how many", "The quick brown foxes jumped over the lazy dogs; none of them returned."),
    ("A first text that is by far the longer one, with commas, and more.", "short"),
    ("", "only the second"),
    ("e\u0301tat 中文", "👍🏽 <mask> [SEP] end"),
]

# What a fuzzer puts texts together from, beside any character at all.
UNITS = [
    *"aeixAEIXßİıσΣ0159.,;:!?'\"`-–—_/()[]<>@#$%&*=+~^|\\",
    *" \t\n\r\u00a0\u3000\u2028\u200b\u200c\u200d\ufeff\u00ad\x00\x01\x7f\x85\ufffd\ue000▁Ġ中文漢の가ไдё",
    *(
        "  ",
        "   ",
        "\r\n",
        "''",
        "``",
        "...",
        "--",
        "##",
        "@@",
        "</w>",
        "1,",
        "2,000",
        "3.5",
        "n't",
        "'s",
        "I'm",
        "é",
        "É",
    ),
    *(
        "e\u0301",
        "o\u0302\u0323",
        "\u0301",
        "\u0300\u0301",
        "\u1112\u1161\u11ab",
        "ｶﾞ",
        "か\u3099",
        "\u0915\u094d\u0937",
    ),
    *("ﬁ", "½", "Ａ", "™", "№", "👍🏽", "👩\u200d💻", "❤\ufe0f", "🇫🇷", "ב\u05bc", "กำ"),
    *(
        "the",
        "The",
        " the",
        "return",
        "string",
        "random",
        "pattern",
        "été",
        "Straße",
        "東京",
        "한국어",
        "лиса",
        "1973,",
    ),
]

# ---- vocabularies ----------------------------------------------------------------------------------------------------


def pieces_of_words(lower: bool, specials: Iterable[str]) -> list[str]:
    """A WordPiece vocabulary: special tokens, characters inside and at the start of words, frequent words and ends."""
    text = "\n".join(corpus())
    words = Counter(re.findall(r"\w+", simple(text) if lower else text))
    ends = Counter("##" + w[i:] for w, n in words.items() for i in range(1, len(w) - 1) for _ in range(n))
    characters = sorted({c for c in (simple(text) if lower else text) if not c.isspace()} | set("#[]<>@▁"))
    made = [*specials, *characters, *("##" + c for c in characters if c.isalnum())]
    made += [w for w, _ in words.most_common(400)] + [e for e, _ in ends.most_common(300)]
    return list(dict.fromkeys(made))


def simple(text: str) -> str:
    """Lower case, without accents."""
    parts = unicodedata.normalize("NFD", text.lower())
    return "".join(c for c in parts if unicodedata.category(c) != "Mn")


def merges_of(words: Counter[tuple[str, ...]], count: int) -> list[tuple[str, str]]:
    """The first merges of byte pair encoding (Sennrich et al. 2016): the most frequent pair, again and again."""
    made: list[tuple[str, str]] = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, n in words.items():
            for pair in pairwise(word):
                pairs[pair] += n
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        made.append(best)
        words = Counter({joined(word, best): n for word, n in words.items()})
    return made


def joined(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def frequent(pattern: str, lower: bool = False) -> Counter[str]:
    text = "\n".join(corpus())
    return Counter(dict(Counter(re.findall(pattern, simple(text) if lower else text)).most_common(700)))


@cache
def byte_merges() -> list[tuple[str, str]]:
    spelt = {" " * (word[0] == " ") + word.strip(): n for word, n in frequent(r" ?\w+| ?[^\w\s]+").items()}
    return merges_of(Counter({tuple(SPELLING[b] for b in w.encode()): n for w, n in spelt.items()}), 250)


# GPT-2's spelling of bytes: those that Latin-1 can print as they are, the others in order from U+0100 on.
SPELLING = {b: chr(b) for b in (*range(33, 127), *range(161, 173), *range(174, 256))}
SPELLING |= {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in SPELLING)}


@cache
def word_merges(lower: bool) -> tuple[list[tuple[str, str]], list[str]]:
    """Merges over characters, `</w>` at the end of a word, and the characters."""
    words = frequent(r"\w+|[^\w\s]", lower)
    merges = merges_of(Counter({(*w[:-1], w[-1] + "</w>"): n for w, n in words.items()}), 250)
    characters = sorted({c for w in words for c in w} | set("!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~0123456789"))
    return merges, characters


@cache
def sentencepiece_model(**options: Any) -> bytes:
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=file, hard_vocab_limit=False, minloglevel=5, num_threads=1,
        **{"vocab_size": 1500, "model_type": "unigram", "character_coverage": 1.0} | options,
    )  # fmt: skip
    return file.getvalue()


def lines(path: Path, tokens: Iterable[str]) -> None:
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


def numbered(path: Path, tokens: Iterable[str]) -> None:
    path.write_text(json.dumps({token: i for i, token in enumerate(dict.fromkeys(tokens))}), encoding="utf-8")


# ---- the files of each kind


def wordpiece(lower: bool = True, name: str = "vocab.txt", specials: str = "[PAD] [UNK] [CLS] [SEP] [MASK]") -> Maker:
    return lambda folder: lines(folder / name, pieces_of_words(lower, specials.split()))


def byte_bpe(specials: str) -> Maker:
    def make(folder: Path) -> None:
        merges = byte_merges()
        numbered(folder / "vocab.json", [*specials.split(), *SPELLING.values(), *map("".join, merges)])
        lines(folder / "merges.txt", ["#version: 0.2", *map(" ".join, merges)])

    return make


def word_bpe(lower: bool, specials: str, spell: Callable[[str], str] = str, numbers: bool = False) -> Maker:
    """spell: how the vocabulary has a symbol of the merges. numbers: each merge with how often it was seen."""

    def make(folder: Path) -> None:
        merges, characters = word_merges(lower)
        symbols = [*characters, *(c + "</w>" for c in characters), *map("".join, merges)]
        numbered(folder / "vocab.json", [*specials.split(), *map(spell, symbols)])
        rows = [f"{a} {b}" + f" {1000 - i}" * numbers for i, (a, b) in enumerate(merges)]
        lines(folder / "merges.txt", rows if numbers else ["#version: 0.2", *rows])

    return make


def ctrl_piece(symbol: str) -> str:
    return symbol.removesuffix("</w>") if symbol.endswith("</w>") else symbol + "@@"


def spm(name: str = "spiece.model", **options: Any) -> Maker:
    return lambda folder: void((folder / name).write_bytes(sentencepiece_model(**options)))


def marian(folder: Path) -> None:
    pieces = ["</s>", "<unk>"]
    for name, size in (("source.spm", 500), ("target.spm", 400)):
        (folder / name).write_bytes(sentencepiece_model(vocab_size=size))
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / name))
        pieces += [model.id_to_piece(i) for i in range(3, len(model))]
    numbered(folder / "vocab.json", [*pieces, ">>fra<<", ">>deu<<", "<pad>"])


def words(folder: Path) -> None:
    found = [w for w, _ in frequent(r"\w+|[^\w\s]", lower=True).most_common(600)]
    lines(folder / "vocab.txt", dict.fromkeys(["<eos>", "<unk>", "<formula>", *found, "@-@", "@,@", "@.@"]))


def void(_: Any) -> None:
    """For a maker that is an expression."""


# ---- the families ----------------------------------------------------------------------------------------------------

Maker = Callable[[Path], None]


@dataclass(frozen=True)
class Family:
    """A kind of tokenizer.

    cls: of polyformer; the reference has the same, with "Fast" behind it if `fast`: then that is the contract.
    make: writes its vocabulary files. options: of the constructor, for the reference as well.
    exact: decode(encode(text)) gives back the very text. modern: transformers 5 reads it right.
    spm: the SentencePiece model among its files, which cuts what it is given.
    """

    name: str
    cls: str
    make: Maker
    options: Mapping[str, Any] = field(default_factory=dict)
    fast: bool = True
    exact: bool = False
    modern: bool = False
    spm: str | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def tokenizer_class(self) -> Any:
        return getattr(polyformer, self.cls)

    @property
    def reference(self) -> str:
        """The class of the reference."""
        return self.cls + "Fast" * self.fast


ROBERTA = "<s> <pad> </s> <unk> <mask>"
XLM = "<s> </s> <pad> <unk> " + " ".join(f"<special{i}>" for i in range(10))
T5_IDS = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
ALBERT_IDS = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1}
XLMR = {"spm": "sentencepiece.bpe.model"}
FUNNEL = wordpiece(specials="<unk> <sep> <pad> <cls> <mask> <s> </s>")

FAMILIES = [
    Family("bert", "BertTokenizer", wordpiece(), modern=True),
    Family("bert-cased", "BertTokenizer", wordpiece(lower=False), {"do_lower_case": False}, modern=True),
    Family("bert-words", "BertTokenizer", wordpiece(), {"tokenize_chinese_chars": False, "strip_accents": False}),
    Family("distilbert", "DistilBertTokenizer", wordpiece(), modern=True),
    Family("electra", "ElectraTokenizer", wordpiece(), modern=True),
    Family("convbert", "ConvBertTokenizer", wordpiece(), modern=True),
    Family("mobilebert", "MobileBertTokenizer", wordpiece(), modern=True),
    Family("lxmert", "LxmertTokenizer", wordpiece(), modern=True),
    Family("funnel", "FunnelTokenizer", FUNNEL, modern=True),
    Family("retribert", "RetriBertTokenizer", wordpiece()),
    Family("dpr-context", "DPRContextEncoderTokenizer", wordpiece(), modern=True),
    Family("dpr-question", "DPRQuestionEncoderTokenizer", wordpiece(), modern=True),
    Family("dpr-reader", "DPRReaderTokenizer", wordpiece()),
    Family("prophetnet", "ProphetNetTokenizer", wordpiece(name="prophetnet.tokenizer"), fast=False),
    Family("gpt2", "GPT2Tokenizer", byte_bpe("<|endoftext|>"), exact=True, modern=True),
    Family("gpt2-prefix", "GPT2Tokenizer", byte_bpe("<|endoftext|>"), {"add_prefix_space": True}, modern=True),
    Family("roberta", "RobertaTokenizer", byte_bpe(ROBERTA), exact=True, modern=True),
    Family("longformer", "LongformerTokenizer", byte_bpe(ROBERTA), exact=True),
    Family("bart", "BartTokenizer", byte_bpe(ROBERTA), exact=True),
    Family("openai-gpt", "OpenAIGPTTokenizer", word_bpe(True, "<unk>"), modern=True),
    Family("ctrl", "CTRLTokenizer", word_bpe(False, "<unk> Links Wikipedia", ctrl_piece), fast=False),
    Family("xlm", "XLMTokenizer", word_bpe(True, XLM, numbers=True), fast=False),
    Family(
        "xlm-cased",
        "XLMTokenizer",
        word_bpe(False, XLM, numbers=True),
        {"do_lowercase_and_remove_accent": False},
        False,
    ),
    Family("flaubert", "FlaubertTokenizer", word_bpe(False, XLM, numbers=True), fast=False),
    Family("flaubert-lower", "FlaubertTokenizer", word_bpe(True, XLM, numbers=True), {"do_lowercase": True}, False),
    Family("transfo-xl", "TransfoXLTokenizer", words, {"lower_case": True}, False),
    Family("albert", "AlbertTokenizer", spm(**ALBERT_IDS, control_symbols="[CLS],[SEP],[MASK]"), spm="spiece.model"),
    Family(
        "albert-cased",
        "AlbertTokenizer",
        spm(**ALBERT_IDS, control_symbols="[CLS],[SEP],[MASK]"),
        {"do_lower_case": False, "keep_accents": True},
        spm="spiece.model",
    ),
    Family(
        "xlnet",
        "XLNetTokenizer",
        spm(control_symbols="<cls>,<sep>,<pad>,<mask>,<eod>", user_defined_symbols="<eop>,."),
        spm="spiece.model",
    ),
    Family("t5", "T5Tokenizer", spm(**T5_IDS), spm="spiece.model"),
    Family("mt5", "MT5Tokenizer", spm(**T5_IDS), spm="spiece.model"),
    Family("pegasus", "PegasusTokenizer", spm(**T5_IDS), spm="spiece.model"),
    Family("reformer", "ReformerTokenizer", spm(model_type="bpe"), spm="spiece.model"),
    Family("xlm-roberta", "XLMRobertaTokenizer", spm(XLMR["spm"]), **XLMR),
    Family("mbart", "MBartTokenizer", spm(XLMR["spm"]), {"src_lang": "en_XX", "tgt_lang": "ro_RO"}, **XLMR),
    Family("mbart50", "MBart50Tokenizer", spm(XLMR["spm"]), {"src_lang": "en_XX", "tgt_lang": "ro_RO"}, **XLMR),
    Family("camembert", "CamembertTokenizer", spm(XLMR["spm"]), **XLMR),
    Family(
        "xlm-prophetnet", "XLMProphetNetTokenizer", spm("prophetnet.tokenizer"), fast=False, spm="prophetnet.tokenizer"
    ),
    Family(
        "marian", "MarianTokenizer", marian, {"source_lang": "en", "target_lang": "ROMANCE"}, False, spm="source.spm"
    ),
]
BY_NAME = {family.name: family for family in FAMILIES}


def each(*wanted: Callable[[Family], bool]) -> pytest.MarkDecorator:
    """Run a test for every family, or for those of which all this is true."""
    chosen = [family for family in FAMILIES if all(test(family) for test in wanted)]
    return pytest.mark.parametrize("family", chosen, ids=str)


class Tokenizers:
    """The tokenizers of this session. Files lie in `root`, made once for all of pytest's processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._loaded: dict[str, Any] = {}

    def folder(self, family: Family) -> Path:
        """The family's original files, and nothing else."""
        folder = self.root / family.name
        with FileLock(self.root / f"{family.name}.lock"):
            if not folder.exists():
                making = self.root / f"{family.name}.making"
                making.mkdir()
                family.make(making)
                os.replace(making, folder)
        return folder

    def fresh(self, family: Family, **options: Any) -> Any:
        """A tokenizer that a test may change."""
        return family.tokenizer_class.from_pretrained(self.folder(family), **{**family.options, **options})

    def __getitem__(self, family: Family | str) -> Any:
        """One that it may not."""
        family = BY_NAME[family] if isinstance(family, str) else family
        if family.name not in self._loaded:
            self._loaded[family.name] = self.fresh(family)
        return self._loaded[family.name]

    def copy(self, family: Family, folder: Path) -> Path:
        """The files once more, to be damaged."""
        return Path(shutil.copytree(self.folder(family), folder))


# ---- answers ---------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """What a call gave, in dicts and lists."""
    if hasattr(value, "items"):
        return {key: plain(v) for key, v in value.items()}
    value = value.tolist() if hasattr(value, "tolist") else value
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def answer(call: Callable[[], Any]) -> Any:
    """What a call gave, or that it raised: {"raises": ...}, equal to any other of its kind."""
    try:
        return plain(call())
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the Rust library panics past Exception
        return {"raises": Anything(error)}


class Anything:
    """Equal to everything: which of two libraries' errors is better said is tested elsewhere."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __eq__(self, other: object) -> bool:
        return True

    def __repr__(self) -> str:
        return repr(self.error)
