"""XLM-R, CamemBERT, mBART, mBART-50 and XLM-ProphetNet, against the sentencepiece library and on their own terms."""

import copy
import io
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers.camembert import CamembertTokenizer
from polyformer.tokenizers.mbart import LANGUAGES, MBartTokenizer
from polyformer.tokenizers.mbart50 import LANGUAGES as FIFTY
from polyformer.tokenizers.mbart50 import MBart50Tokenizer
from polyformer.tokenizers.sentencepiece_exact import Cutter
from polyformer.tokenizers.sentencepiece_model import SentencePieceModel, parse, read_model
from polyformer.tokenizers.xlm_prophetnet import FIRST, XLMProphetNetTokenizer
from polyformer.tokenizers.xlm_roberta import XLMRobertaTokenizer

spm = pytest.importorskip("sentencepiece")

SENTENCES = [
    "The quick brown foxes jumped over the lazy dogs, and the dogs slept on.",
    "Les élèves où l'été était déjà passé n'ont pas été à l'école.",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "Die größten Übungen für schöne Mädchen kosten zwanzig Euro.",
    "東京は大きい都市です。中国的首都是北京。",
]
TEXTS = [
    *SENTENCES, "Hello world", "", "x", "a  b", "½ ﬁne ① Ａｂ", "e\u0301t\u00e9", "😀 ☃", "line\tone\nline two",
    "▁odd▁marks", "<s> is no token of the file's text </s>", "がガｶﾞ", "한글 \u1112\u1161\u11ab",
]  # fmt: skip
FAST = [XLMRobertaTokenizer, CamembertTokenizer, MBartTokenizer, MBart50Tokenizer]
FAIRSEQ = [*FAST, XLMProphetNetTokenizer]
CASES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ODD = "▁  \t\u00a0\u3000\u200bé\u0301\u0323\u00a8½ﬁＡｶﾞ한\u1161中😀\ufeff\x00aAez."
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(st.sampled_from(ODD), max_size=30)


def trained(**options):
    """The bytes of a model that the sentencepiece library learnt from SENTENCES."""
    out = io.BytesIO()
    options = {"vocab_size": 160, "hard_vocab_limit": False, "minloglevel": 2, "num_threads": 1} | options
    spm.SentencePieceTrainer.train(sentence_iterator=iter(SENTENCES * 4), model_writer=out, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("spm") / "sentencepiece.bpe.model"
    path.write_bytes(trained())
    return path


@pytest.fixture(scope="module")
def original(model_file):
    return spm.SentencePieceProcessor(model_file=str(model_file))


def bare(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


# ---- ids


@pytest.mark.parametrize(("cls", "offset"), [(c, 4 if c is CamembertTokenizer else 1) for c in FAST])
def test_ids_are_those_of_sentencepiece_moved_on(model_file, original, cls, offset):
    tokenizer = cls(model_file)
    for text in [t for t in TEXTS if "<s>" not in t]:
        want = [3 if i == 0 else i + offset for i in original.encode(text)]
        assert bare(tokenizer, text) == want, text


@pytest.mark.parametrize("cls", FAIRSEQ)
def test_special_tokens_in_text_and_around_it(model_file, cls):
    tokenizer = cls(model_file)
    mask, sep = tokenizer.mask_token_id, tokenizer.sep_token_id
    assert bare(tokenizer, f"the {tokenizer.mask_token} dogs").count(mask) == 1
    a, b = bare(tokenizer, "the"), bare(tokenizer, "dogs")
    start = [tokenizer.cls_token_id]
    language = [tokenizer.convert_tokens_to_ids("en_XX")]
    single, pair = {
        XLMRobertaTokenizer: ([*start, *a, sep], [*start, *a, sep, sep, *b, sep]),
        CamembertTokenizer: ([*start, *a, sep], [*start, *a, sep, sep, *b, sep]),
        MBartTokenizer: ([*a, sep, *language], [*a, *b, sep, *language]),
        MBart50Tokenizer: ([*language, *a, sep], [*language, *a, *b, sep]),
        XLMProphetNetTokenizer: ([*a, sep], [*a, sep, *b, sep]),
    }[cls]
    assert tokenizer("the")["input_ids"] == single and tokenizer("the", "dogs")["input_ids"] == pair
    assert set(tokenizer("the", "dogs", return_token_type_ids=True)["token_type_ids"][: len(single)]) == {0}


def test_layouts(model_file, original):
    count = len(original)
    for cls, languages in ((XLMRobertaTokenizer, ()), (MBartTokenizer, LANGUAGES), (MBart50Tokenizer, FIFTY)):
        tokenizer = cls(model_file)
        first = tokenizer.convert_ids_to_tokens([0, 1, 2, 3])
        assert first == ["<s>", "<pad>", "</s>", "<unk>"] and len(tokenizer) == count + 2 + len(languages)
        assert tokenizer.convert_ids_to_tokens(range(count + 1, len(tokenizer))) == [*languages, "<mask>"]
    assert (len(LANGUAGES), len(FIFTY), len(set(FIFTY))) == (25, 52, 52)
    camembert = CamembertTokenizer(model_file)
    assert camembert.convert_ids_to_tokens([0, 1, 2, 3, 5, 6]) == [
        "<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<s>", "</s>",
    ]  # fmt: skip
    assert camembert.mask_token_id == count + 4 == len(camembert) - 1
    prophet = XLMProphetNetTokenizer(model_file)
    assert prophet.convert_ids_to_tokens(range(15)) == list(FIRST) and len(prophet) == count + 12


# ---- what the sentencepiece library makes of any text


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalization_rule_name": "identity"},
        {"normalization_rule_name": "nmt_nfkc_cf"},
        {"add_dummy_prefix": False},
        {"remove_extra_whitespaces": False},
        {"user_defined_symbols": ["<sep>", "<x>"]},
        {"byte_fallback": True, "vocab_size": 420},
        {"model_type": "bpe"},
    ],
    ids=str,
)
def test_exactly_sentencepiece(tmp_path_factory, options):
    path = tmp_path_factory.mktemp("exact") / "m.model"
    path.write_bytes(trained(**options))
    original, cutter = spm.SentencePieceProcessor(model_file=str(path)), Cutter(read_model(path))

    def check(text):
        want = original.encode(text)
        ((ids, texts),) = cutter.cut([text])
        assert ids == want, text
        assert texts is None or texts == original.encode(text, out_type=str)
        normal, starts, ends = cutter.normalizer.aligned(text)
        assert normal == cutter.normalizer(text) and len(normal) == len(starts) == len(ends)
        assert all(0 <= a <= b <= len(text) for a, b in zip(starts, ends, strict=True)) and starts == sorted(starts)

    for text in TEXTS:
        check(text)
    CASES(given(ANY_TEXT)(check))()


@CASES
@given(ANY_TEXT)
def test_prophetnet_is_sentencepiece_moved_on_with_offsets_in_the_text(model_file, original, text):
    tokenizer = cached(XLMProphetNetTokenizer, model_file)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert encoded["input_ids"] == [3 if i == 0 else i + 12 for i in original.encode(text)] == bare(tokenizer, text)
    plain = text.isascii() and text.isprintable()
    for token, (a, b) in zip(encoded.tokens(), encoded["offset_mapping"], strict=True):
        assert not plain or text[a:b].strip() == token.strip("▁")


_CACHE = {}


def cached(cls, path):
    return _CACHE.setdefault((cls, path), cls(path))


# ---- languages


@pytest.mark.parametrize("cls", [MBartTokenizer, MBart50Tokenizer])
def test_languages(model_file, cls):
    tokenizer = cls(model_file, src_lang="de_DE", tgt_lang="fr_XX")
    code = tokenizer.lang_code_to_id
    assert len(code) == len(cls.extra) and tokenizer.cur_lang_code == code["de_DE"]
    place = -1 if cls is MBartTokenizer else 0
    assert tokenizer("x")["input_ids"][place] == code["de_DE"]
    with tokenizer.as_target_tokenizer():
        assert tokenizer("x")["input_ids"][place] == code["fr_XX"] == tokenizer.cur_lang_code
        assert tokenizer.build_inputs_with_special_tokens([9])[place] == code["fr_XX"]
    tokenizer.src_lang = "ru_RU"
    assert tokenizer("x")["input_ids"][place] == code["ru_RU"] and tokenizer.src_lang == "ru_RU"
    batch = tokenizer.prepare_seq2seq_batch(["x", "the dogs"], "it_IT", ["y"] * 2, "zh_CN", return_tensors="np")
    assert code["it_IT"] in batch["input_ids"] and code["zh_CN"] in batch["labels"]
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("ru_RU", "fr_XX")
    with pytest.raises(ValueError, match="src_lang='en_xx' is not known: did you mean 'en_XX'"):
        tokenizer.src_lang = "en_xx"
    with pytest.raises(ValueError, match="tgt_lang='the' is not known: use one of 'ar_AR', "):
        tokenizer.tgt_lang = "the"
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("ru_RU", "fr_XX")


def test_a_target_needs_a_language_and_the_mode_ends_with_an_error(model_file):
    tokenizer = MBart50Tokenizer(model_file)
    with pytest.raises(ValueError, match="set tgt_lang"), tokenizer.as_target_tokenizer():
        tokenizer("x")
    assert tokenizer("x")["input_ids"][0] == tokenizer.lang_code_to_id["en_XX"]


def test_target_mode_and_languages_are_of_one_thread_and_one_tokenizer(model_file):
    tokenizer, other = (MBartTokenizer(model_file, tgt_lang="ro_RO") for _ in range(2))
    source, code = tokenizer("x")["input_ids"], tokenizer.lang_code_to_id
    with ThreadPoolExecutor(4) as pool, tokenizer.as_target_tokenizer():
        assert all(row == source for row in pool.map(lambda _: tokenizer("x")["input_ids"], range(20)))
        assert other("x")["input_ids"] == source != tokenizer("x")["input_ids"]

    def calls(language):
        tokenizer.src_lang = language
        return tokenizer(["x", "the dogs"])["input_ids"]

    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(calls, ["fr_XX", "ru_RU"] * 50):
            assert {row[-1] for row in rows} in ({code["fr_XX"]}, {code["ru_RU"]})


def test_languages_are_saved(model_file, tmp_path):
    tokenizer = MBart50Tokenizer(model_file, tgt_lang="fr_XX")
    tokenizer.src_lang = "uk_UA"
    tokenizer.save_pretrained(tmp_path)
    again = MBart50Tokenizer.from_pretrained(tmp_path)
    assert (again.src_lang, again.tgt_lang) == ("uk_UA", "fr_XX") and again("x") == tokenizer("x")
    spec = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert "uk_UA" in spec["post_processor"]["special_tokens"]
    assert MBart50Tokenizer.from_pretrained(tmp_path, src_lang="hi_IN").src_lang == "hi_IN"


# ---- files


@pytest.mark.parametrize("cls", FAIRSEQ)
def test_saved_and_loaded(model_file, tmp_path, cls):
    tokenizer = cls(model_file)
    tokenizer.add_tokens(["newtok"])
    tokenizer.save_pretrained(tmp_path)
    name = cls.vocab_files_names["vocab_file"]
    assert (tmp_path / name).read_bytes() == model_file.read_bytes()
    texts = [*TEXTS, "a newtok b <mask> c"]
    for again in (cls.from_pretrained(tmp_path), pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert again(texts)["input_ids"] == tokenizer(texts)["input_ids"] and again.get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("cls", FAST)
def test_a_tokenizer_json_alone_gives_back_the_model_file(model_file, original, tmp_path, cls):
    cls(model_file).save_pretrained(tmp_path / "fast", legacy_format=False)
    assert not (tmp_path / "fast" / "sentencepiece.bpe.model").exists()
    cls.from_pretrained(tmp_path / "fast").save_pretrained(tmp_path / "both")
    rebuilt = spm.SentencePieceProcessor(model_file=str(tmp_path / "both" / "sentencepiece.bpe.model"))
    assert [rebuilt.id_to_piece(i) for i in range(len(rebuilt))] == [
        original.id_to_piece(i) for i in range(len(original))
    ]
    assert [rebuilt.encode(text) for text in TEXTS] == [original.encode(text) for text in TEXTS]


SCRIPT = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
import transformers
transformers.logging.set_verbosity_error()
given = json.load(sys.stdin)
tokenizer = getattr(transformers, given["cls"]).from_pretrained(given["folder"])
tokenizer.save_pretrained(given["save"])
print(json.dumps([len(tokenizer), [tokenizer(text)["input_ids"] for text in given["texts"]]]))
"""


def ask(libraries, **given):
    flags = [sys.executable, "-s", "-W", "ignore", "-c", SCRIPT, json.dumps(libraries)]
    done = subprocess.run(flags, input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("cls", FAIRSEQ)
def test_transformers_4_opens_what_we_save_and_we_what_it_saves(model_file, oracle, tmp_path, cls):
    """Its fast tokenizer is ours on any text, its slow one where no white space is at an end or beside a token."""
    ours = cls(model_file)
    ours.add_tokens(["newtok"])
    ours.save_pretrained(tmp_path)
    fast = [] if cls is XLMProphetNetTokenizer else [cls.__name__ + "Fast"]
    for name in (cls.__name__, *fast):
        texts = [*TEXTS, "a newtok b"] if name.endswith("Fast") else SENTENCES
        want = [len(ours), [ours(text)["input_ids"] for text in texts]]
        folder = tmp_path / name
        assert ask([str(oracle.folder)], cls=name, folder=str(tmp_path), save=str(folder), texts=texts) == want
        again = cls.from_pretrained(folder)
        assert [len(again), [again(text)["input_ids"] for text in texts]] == want


@pytest.mark.parametrize("cls", FAIRSEQ)
def test_bad_files_say_what_is_wrong(tmp_path, model_file, cls):
    path = tmp_path / "m.model"
    path.write_bytes(model_file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"m\.model is no SentencePiece model, or a damaged one"):
        cls(path)
    with pytest.raises(CheckpointError, match="absent"):
        cls(tmp_path / "absent.model")
    path.write_bytes(SentencePieceModel(["a", "<unk>", "▁"], [0.0, -1.0, -2.0], [1, 2, 1]).to_bytes())
    with pytest.raises(CheckpointError, match="use the tokenizer class that it was made for"):
        cls(path)
    with pytest.raises(CheckpointError, match="needs"):
        cls.from_pretrained(tmp_path)


def test_a_class_that_has_no_vocabulary_says_so():
    with pytest.raises(ValueError, match="XLMRobertaTokenizer needs a vocabulary"):
        XLMRobertaTokenizer()


def test_a_special_token_that_the_vocabulary_lacks(model_file):
    with pytest.raises(CheckpointError, match=r"has no '\[CLS\]', which is needed as the cls_token"):
        XLMRobertaTokenizer(model_file, cls_token="[CLS]")


# ---- the real vocabulary


def test_real_xlm_r(shared):
    path = shared / "vocab" / "xlm-roberta-base-unigram" / "sentencepiece.bpe.model"
    original, model = spm.SentencePieceProcessor(model_file=str(path)), read_model(path)
    tokenizer, prophet = XLMRobertaTokenizer(path), XLMProphetNetTokenizer(path)
    assert (len(model), len(tokenizer)) == (250000, 250002) and parse(model.to_bytes()) == model
    for text in TEXTS:
        assert bare(prophet, text) == [3 if i == 0 else i + 12 for i in original.encode(text)]
        if "<s>" not in text:
            assert bare(tokenizer, text) == [3 if i == 0 else i + 1 for i in original.encode(text)]
