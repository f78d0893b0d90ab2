"""Summaries, translations and other texts for texts: pipelines against the tokenizer and `generate` called by hand."""

from __future__ import annotations

import json
from copy import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import polyformer
from polyformer import pipeline
from polyformer.cli import main
from polyformer.generation import GenerationConfig
from polyformer.pipelines.languages import LANGUAGES, choose, english_name, short_code
from polyformer.pipelines.text2text import ENDS, pieces
from tokenizer_zoo import BY_NAME

TEXTS = ["The house is small.", "A dog ran on the road and the cat sat.", "Who?", "It was in Paris, they say."]
LONG = "The house is small. A dog ran on the road! Who was in Paris? They say that it was cold; nobody knows. " * 3
HALF = dict(d_model=24, vocab_size=0, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2)
HALF |= dict(decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64)
PARAMS = {
    "summarization": {"prefix": "summarize: ", "max_length": 9, "num_beams": 2, "no_such_option": 1},
    "translation_en_to_de": {"prefix": "translate English to German: ", "max_length": 7},
}


def alive(model):
    """Weights with which a model writes this and that."""
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(std=1.5 * p.shape[-1] ** -0.5)
    return model.eval()


@pytest.fixture
def t5(toks):
    torch.manual_seed(5)
    tokenizer = copy(toks["t5"])
    config = polyformer.T5Config(
        vocab_size=len(tokenizer), d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0,
        task_specific_params=PARAMS, max_length=12,
    )  # fmt: skip
    return alive(polyformer.T5ForConditionalGeneration(config)), tokenizer


def half(toks, prefix, family, **changes):
    """A tiny model of BART's kin with its tokenizer."""
    torch.manual_seed(6)
    tokenizer = copy(toks[family])
    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    config = getattr(polyformer, f"{prefix}Config")(
        **HALF | {"vocab_size": len(tokenizer), "decoder_start_token_id": tokenizer.pad_token_id} | ids | changes
    )
    writer = "MTModel" if prefix == "Marian" else "ForConditionalGeneration"
    return alive(getattr(polyformer, f"{prefix}{writer}")(config)), tokenizer


def by_hand(model, tokenizer, text, **options):
    """What is written for a text alone."""
    made = model.generate(**tokenizer(text, return_tensors="pt", return_token_type_ids=False), **options)
    return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in made]


class Seen:
    """What a model's encoder is given, and what its decoder begins with, while a pipeline runs."""

    def __init__(self, model):
        self.sources, self.begun = [], []
        model.get_encoder().register_forward_hook(self.source, with_kwargs=True)
        model.get_decoder().register_forward_hook(self.begin, with_kwargs=True)

    def source(self, _, args, kwargs, outputs):
        self.sources += kwargs["input_ids"].tolist()

    def begin(self, _, args, kwargs, outputs):
        self.begun += kwargs["input_ids"].tolist()


# ---- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 20, 4000])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}], ids=str)
def test_every_shape_of_inputs(t5, budget, options):
    """A text, a list, a generator; whatever goes into a batch together: as `generate` of each text alone."""
    model, tokenizer = t5
    pipe = pipeline("text2text-generation", model, tokenizer=tokenizer, batch_tokens=budget)
    want = [[{"generated_text": text} for text in by_hand(model, tokenizer, text, **options)] for text in TEXTS]
    assert pipe(TEXTS[0], **options) == want[0]
    each = [one[0] if len(one) == 1 else one for one in want]
    assert pipe(TEXTS, **options) == each
    lazy = pipe((text for text in TEXTS), **options)
    assert iter(lazy) is lazy
    assert list(lazy) == each
    assert pipe([], **options) == []


def test_how_it_is_written(t5):
    """Options: the call's, before those of the task in config.json, before the model's; the prefix likewise."""
    model, tokenizer = t5
    pipe = pipeline("summarization", model, tokenizer=tokenizer)
    said = "summarize: " + TEXTS[1]
    assert pipe(TEXTS[1])[0]["summary_text"] == by_hand(model, tokenizer, said, max_length=9, num_beams=2)[0]
    assert pipe(TEXTS[1], num_beams=1, max_length=5)[0]["summary_text"] == by_hand(
        model, tokenizer, said, max_length=5
    )[0]  # fmt: skip
    assert pipe(TEXTS[1], prefix="", num_beams=1)[0]["summary_text"] == by_hand(
        model, tokenizer, TEXTS[1], max_length=9
    )[0]  # fmt: skip
    other = pipeline("text2text-generation", model, tokenizer=tokenizer)
    model.generation_config = GenerationConfig.of_model(model.config).replaced(max_length=4)
    assert other(TEXTS[1])[0]["generated_text"] == by_hand(model, tokenizer, TEXTS[1], max_length=4)[0]
    assert "task_specific_params" in model.config.extra  # untouched


def test_ids_in_place_of_text(t5):
    model, tokenizer = t5
    pipe = pipeline("text2text-generation", model, tokenizer=tokenizer)
    (both,) = pipe(TEXTS[0], return_tensors=True)
    want = model.generate(**tokenizer(TEXTS[0], return_tensors="pt"))[0]
    assert torch.equal(both["generated_token_ids"], want)
    assert set(pipe(TEXTS, return_tensors=True, return_text=False)[1]) == {"generated_token_ids"}


def test_a_text_as_it_is_written(t5):
    model, tokenizer = t5
    pipe = pipeline("text2text-generation", model, tokenizer=tokenizer)
    for text in TEXTS:
        found = list(pipe.streamed(text, max_length=12))
        assert "".join(found).strip() == pipe(text, max_length=12)[0]["generated_text"]
    with pytest.raises(ValueError, match="a streamer gets the tokens of one text: give a str"):
        pipe(TEXTS, streamer=object())


def test_refusals(t5, toks):
    model, tokenizer = t5
    pipe = pipeline("summarization", model, tokenizer=tokenizer)
    with pytest.raises(TypeError, match="has no option 'num_beam'; did you mean 'num_beams'"):
        pipe("x", num_beam=3)
    with pytest.raises(TypeError, match="text 1 is a int, not a str"):
        pipe(["x", 3])
    bert = polyformer.BertForMaskedLM(polyformer.BertConfig(vocab_size=9, hidden_size=12, num_hidden_layers=1))
    with pytest.raises(TypeError, match="does not write texts for texts: load the model with AutoModelForSeq2SeqLM"):
        pipeline("summarization", bert, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="summarization has no src_lang: only translation has"):
        pipeline("summarization", model, tokenizer=tokenizer, src_lang="en")


# ---- long texts ------------------------------------------------------------------------------------------------------


def test_a_text_that_is_too_long(t5):
    model, tokenizer = t5
    tokenizer.model_max_length = limit = 24
    pipe, seen = pipeline("summarization", model, tokenizer=tokenizer), Seen(model)
    count = len(tokenizer("summarize: " + LONG, verbose=False).input_ids)
    with pytest.raises(ValueError, match=rf"text 1 has {count} tokens, and this model takes 24: pass on_long='window'"):
        pipe([TEXTS[0], LONG])
    pipe(LONG, on_long="truncate")
    cut = tokenizer("summarize: " + LONG, truncation=True, max_length=limit).input_ids
    assert seen.sources == [cut]
    assert pipe(LONG, truncation=True) == pipe(LONG, on_long="truncate")
    seen.sources.clear()
    (whole,) = pipe(LONG, on_long="window")
    read = [ids[: ids.index(1) + 1] for ids in seen.sources]
    texts = sorted((tokenizer.decode(ids, skip_special_tokens=True) for ids in read), key=lambda t: LONG.find(t[11:40]))
    assert all(len(ids) <= limit and text.startswith("summarize: ") for ids, text in zip(read, texts, strict=True))
    ordered = [tokenizer.decode(tokenizer(p).input_ids, skip_special_tokens=True) for p in split(tokenizer, limit)]
    assert sorted(text.removeprefix("summarize: ") for text in texts) == sorted(ordered)
    written = [
        by_hand(model, tokenizer, f"summarize: {p}", max_length=9, num_beams=2)[0] for p in split(tokenizer, limit)
    ]
    assert whole["summary_text"] == " ".join(filter(None, written))
    with pytest.raises(ValueError, match="has no room for a text beside its prefix"):
        pipe(LONG, on_long="window", prefix="summarize in a way that nobody has ever been able to do before: " * 2)


def split(tokenizer, limit):
    room = limit - len(tokenizer("summarize: ").input_ids)
    spans = tokenizer(LONG, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    while True:
        found = pieces(LONG, spans, room)
        if all(len(tokenizer("summarize: " + piece).input_ids) <= limit for piece in found):
            return found
        room -= 1


@given(st.lists(st.sampled_from(["a", "bc", ".", "!", " ", "x"]), max_size=40), st.integers(1, 9))
def test_pieces(words, room):
    """All of the text in order, none with too many tokens, and cut behind a sentence where there is one to choose."""
    text, spans = "".join(words), []
    for word in words:
        start = spans[-1][1] if spans else 0
        spans.append((start, start + len(word)))
    found = pieces(text, spans, room) if spans else []
    assert "".join(found) == text
    place = 0
    for piece in found:
        inside = [span for span in spans if place <= span[0] < place + len(piece)]
        assert len(inside) <= room
        if piece is not found[-1] and not piece.endswith(ENDS):
            later = sum(place <= span[0] for span in spans)
            goal = -(-later // -(-later // room))
            assert len(inside) == goal
            assert not any(text[place : inside[i][1]].endswith(ENDS) for i in range(goal // 2, len(inside)))
        place += len(piece)


# ---- languages -------------------------------------------------------------------------------------------------------


def test_languages_by_name_and_code():
    words = [word for words in LANGUAGES for word in words if word != "-"]
    assert len(words) == len(set(words))
    codes = ("en_XX", "ro_RO", "de_DE", "zh_CN", "pt_XX")
    for word in ("English", "english", "en", "EN", "eng", "en_XX", "en-XX", "en_GB"):
        assert choose(word, codes, "src_lang") == "en_XX"
    assert choose("Chinese", codes, "src_lang") == "zh_CN"
    assert choose("pt", ("pt", "pt_br", "por"), "tgt_lang") == "pt"
    assert choose("pt-br", ("pt", "pt_br"), "tgt_lang") == "pt_br"
    assert choose("fr", ("fra", "deu"), "tgt_lang") == "fra"
    assert (english_name("de_DE"), short_code("German"), short_code("ceb"), english_name("tlh")) == (
        "German", "de", "ceb", "tlh",
    )  # fmt: skip
    with pytest.raises(ValueError, match="tgt_lang='Klingon' is no language of this model, which has de_DE, en_XX"):
        choose("Klingon", codes, "tgt_lang")
    with pytest.raises(ValueError, match="tgt_lang='Chinese' may be zho_Hans or zho_Hant here"):
        choose("Chinese", ("zho_Hans", "zho_Hant"), "tgt_lang")


def test_the_table_of_languages_has_mbart_s():
    from polyformer.tokenizers.mbart50 import LANGUAGES as CODES

    for code in CODES:
        assert choose(english_name(code), CODES, "src_lang") == code
        assert choose(short_code(code), CODES, "src_lang") == code


def test_t5_is_told_in_words(t5):
    model, tokenizer = t5
    seen = Seen(model)

    def told():
        return tokenizer.decode(seen.sources.pop(), skip_special_tokens=True)

    pipeline("translation_en_to_de", model, tokenizer=tokenizer)("Who?")
    assert told() == tokenizer.decode(
        tokenizer("translate English to German: Who?").input_ids, skip_special_tokens=True
    )
    pipe = pipeline("translation", model, tokenizer=tokenizer, src_lang="English", tgt_lang="German")
    (found,) = pipe(["Who?"])
    assert found["translation_text"] == by_hand(model, tokenizer, "translate English to German: Who?", max_length=7)[0]
    seen.sources.clear()
    pipe("Who?", tgt_lang="ro")
    assert told() == tokenizer.decode(
        tokenizer("translate English to Romanian: Who?").input_ids, skip_special_tokens=True
    )
    bare = pipeline("translation", model, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="this model is told in words what to do: say src_lang='English'"):
        bare("Who?")
    bare("Who?", prefix="")
    assert told() == tokenizer.decode(tokenizer("Who?").input_ids, skip_special_tokens=True)


@pytest.mark.parametrize("family", ["mbart", "mbart50"])
def test_mbart_is_told_by_tokens(toks, family):
    model, tokenizer = half(toks, "MBart", family)
    tokenizer.src_lang = "en_XX"
    seen, code = Seen(model), tokenizer.lang_code_to_id
    pipe = pipeline("translation", model, tokenizer=tokenizer)
    pipe("Who?", src_lang="German", tgt_lang="fr", max_length=6)
    own = copy(tokenizer)
    own.src_lang = "de_DE"
    assert seen.sources == [own("Who?").input_ids]
    first = [code["fr_XX"]] if family == "mbart" else [model.config.decoder_start_token_id]
    assert seen.begun[0] == first
    if family == "mbart50":
        assert seen.begun[1] == [code["fr_XX"]]
    assert tokenizer.src_lang == "en_XX"  # of the one that was given
    with pytest.raises(ValueError, match="tgt_lang='Klingon' is no language of this model"):
        pipe("Who?", tgt_lang="Klingon")


def test_marian_is_told_by_the_first_token(toks):
    model, tokenizer = half(toks, "Marian", "marian")
    seen = Seen(model)
    pipe = pipeline("translation_en_to_fr", model, tokenizer=tokenizer)
    pipe("Who?", max_length=6)
    pipe("Who?", tgt_lang="German", max_length=6)
    assert seen.sources == [tokenizer(f">>{code}<< Who?").input_ids for code in ("fra", "deu")]
    with pytest.raises(ValueError, match="say which language to translate to: tgt_lang=..., one of deu, fra"):
        pipeline("translation", model, tokenizer=tokenizer)("Who?")


def test_marian_for_one_pair_of_languages(toks, tmp_path):
    """Needs no languages, and takes no others."""
    folder = toks.copy(BY_NAME["marian"], tmp_path / "pair")
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    (folder / "vocab.json").write_text(json.dumps({word: i for word, i in vocab.items() if ">>" not in word}))
    tokenizer = polyformer.MarianTokenizer.from_pretrained(folder, source_lang="en", target_lang="de")
    model, _ = half(toks, "Marian", "marian")
    want = by_hand(model, tokenizer, "Who?", max_length=6)
    for task in ("translation", "translation_en_to_de", "translation_English_to_deu"):
        found = pipeline(task, model, tokenizer=tokenizer)("Who?", max_length=6)
        assert [one["translation_text"] for one in found] == want
    with pytest.raises(ValueError, match="this model's target_lang is 'de', not 'fr': it translates between one pair"):
        pipeline("translation_en_to_fr", model, tokenizer=tokenizer)("Who?")


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command(t5, tmp_path, capsys):
    model, tokenizer = t5
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(TEXTS)))
    pipe = pipeline("summarization", tmp_path / "model")
    folder, out = str(tmp_path / "model"), tmp_path / "out.jsonl"
    options = ["--model", folder, "--input", str(source), "-o", str(out), "--set", "max_length=6"]
    assert main(["run", "summarization", *options]) == 0
    written = [json.loads(line) for line in out.read_text().splitlines()]
    want = pipe(TEXTS, max_length=6)
    assert written == [{"text": t, "id": i, "result": r} for i, (t, r) in enumerate(zip(TEXTS, want, strict=True))]
    capsys.readouterr()
    assert main(["run", "translation_en_to_de", "Who?", "--model", folder, "--set", "num_beams=2"]) == 0
    shown = capsys.readouterr().out.splitlines()
    found = pipeline("translation_en_to_de", folder)("Who?", num_beams=2)[0]["translation_text"]
    assert shown == ["Who?", f"  {found}"]
    assert main(["run", "summarization", "x", "--model", folder, "--set", "num_beam=2"]) == 2
    capsys.readouterr()
    assert main(["run", "translation", "x", "--model", folder]) == 1
    assert "say --set src_lang=English, --set tgt_lang=German, or --set prefix=..., wh" in capsys.readouterr().err
    assert main(["generate", "x", "--model", folder]) == 2
    assert "`polyformer run text2text-generation` asks it to" in capsys.readouterr().err


def test_vectors_are_those_of_the_encoder_alone(t5, tmp_path):
    """Without a decoder, which would want something to go on with."""
    model, tokenizer = t5
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = polyformer.T5EncoderModel.from_pretrained(tmp_path).eval()
    vectors = pipeline("sentence-embedding", tmp_path).encode(TEXTS)
    states = pipeline("feature-extraction", tmp_path)(TEXTS, return_tensors="pt")
    for text, vector, table in zip(TEXTS, vectors, states, strict=True):
        with torch.no_grad():
            want = encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        torch.testing.assert_close(table, want)
        torch.testing.assert_close(torch.from_numpy(vector), want.mean(0))
