"""RAG: the reference's numbers, likelihoods summed by hand, searches against all there is to find, gradients, files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import polyformer
from polyformer import BartConfig, DPRConfig, RagConfig, RagRetriever, RagTokenizer, pipeline
from polyformer.models.rag import PassagesState, RagTokenWriter
from polyformer.pipelines.passage_writer import RagWriter
from polyformer.retrieval import Document, PassageIndex, build, passages_of
from test_parity import compare_gradients

WORDS, WIDTH, DOCS, LONG = 8, 12, 3, 20
PAD, START, EOS, BOS = 1, 2, 2, 0
ASKS = dict(
    vocab_size=30, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=LONG, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, model_type="dpr",
)  # fmt: skip
BART = dict(
    vocab_size=WORDS, d_model=WIDTH, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
    decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=LONG, dropout=0.0,
    forced_eos_token_id=None, model_type="bart",
)  # fmt: skip
T5 = dict(
    vocab_size=WORDS, d_model=WIDTH, d_kv=6, num_layers=1, num_decoder_layers=1, num_heads=2, d_ff=16, dropout_rate=0.0,
    eos_token_id=2, pad_token_id=1, decoder_start_token_id=1, model_type="t5",
)  # fmt: skip
TOKEN, SEQUENCE = "RagTokenForGeneration", "RagSequenceForGeneration"
each_class = pytest.mark.parametrize("cls", [TOKEN, SEQUENCE])


def config_of(generator: dict[str, Any] = BART, **changes: Any) -> dict[str, Any]:
    return {"question_encoder": ASKS, "generator": generator, "n_docs": DOCS, "model_type": "rag"} | changes


def make(cls: str, generator: dict[str, Any] = BART, *, seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    model = getattr(polyformer, cls)(RagConfig.from_dict(config_of(generator, **changes)))
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(std=1.6 * p.shape[-1] ** -0.5 if p.dim() > 1 else 0.3)
            if "norm.weight" in name:
                p.add_(1)
            elif "cross" in name:
                p.mul_(3)  # passages are to make a difference
    return model.double().eval()


def passages(rows: int = 2, length: int = 7, *, seed: int = 1) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, length + 1, (rows * DOCS,), generator=draw)
    lengths[0] = length
    mask = (torch.arange(length) < lengths[:, None]).long()
    return {
        "context_input_ids": torch.randint(3, WORDS, (rows * DOCS, length), generator=draw) * mask + PAD * (1 - mask),
        "context_attention_mask": mask,
        "doc_scores": torch.randn(rows, DOCS, generator=draw, dtype=torch.float64),
    }


def words_of(model: Any, given: dict[str, torch.Tensor], row: int, doc: int, text: list[int]) -> torch.Tensor:
    """log p(every word | passage, words before), (length, words), of one passage alone and unpadded."""
    at = row * DOCS + doc
    ids = given["context_input_ids"][at][given["context_attention_mask"][at].bool()]
    with torch.no_grad():
        return model.generator(ids[None], decoder_input_ids=torch.tensor([text])).logits[0].log_softmax(-1)


def likelihood(model: Any, given: dict[str, torch.Tensor], row: int, text: list[int], skip: int = 0) -> float:
    """p(text | question) by loops over passages and words; the first token is only read, `skip` more do not count."""
    prior = given["doc_scores"][row].softmax(0).tolist()
    each = [words_of(model, given, row, doc, text[:-1]).exp().tolist() for doc in range(DOCS)]
    places = list(enumerate(text[1:]))[skip:]
    if type(model).__name__ == TOKEN:
        return math.prod(sum(prior[z] * each[z][t][word] for z in range(DOCS)) for t, word in places)
    return sum(prior[z] * math.prod(each[z][t][word] for t, word in places) for z in range(DOCS))


def all_texts(length: int) -> list[list[int]]:
    """Every text of up to `length` tokens: it ends at eos or at the length."""
    done, open_ = [], [[START]]
    while open_:
        longer = [[*text, word] for text in open_ for word in range(WORDS)]
        done += [t for t in longer if t[-1] == EOS or len(t) == length]
        open_ = [t for t in longer if t[-1] != EOS and len(t) < length]
    return done


# ---- the reference ---------------------------------------------------------------------------------------------------

LABELS = torch.tensor([[2, 0, 4, 5, 3, 2], [2, 0, 6, 7, 2, PAD]])


@each_class
@pytest.mark.parametrize("changes", [{}, {"label_smoothing": 0.1}, {"reduce_loss": True}, {"exclude_bos_score": True}])
def test_losses_and_gradients(cls: str, changes: dict[str, Any], oracle: Any) -> None:
    config = config_of(**changes)
    weights = oracle.init(cls, config, seed=3)
    model = getattr(polyformer, cls)(RagConfig.from_dict(config))
    model.load_state_dict(weights)
    model.double().eval()
    inputs = passages() | {"labels": LABELS}
    want = oracle.run(cls, config, weights, inputs)
    got = model(**inputs)
    torch.testing.assert_close(got.loss, want["loss"], rtol=0, atol=1e-9)
    torch.testing.assert_close(got.logits, want["logits"], rtol=0, atol=1e-9)
    want = oracle.run(cls, config, weights, inputs | {"reduce_loss": True}, grad=True)
    model(**inputs, reduce_loss=True).loss.backward()
    compare_gradients(model, want)


@each_class
@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}])
def test_it_writes_as_the_reference(cls: str, options: dict[str, Any], oracle: Any) -> None:
    weights = oracle.init(cls, config_of(), seed=5)
    model = getattr(polyformer, cls)(RagConfig.from_dict(config_of()))
    model.load_state_dict(weights)
    model.double().eval()
    inputs = passages() | {"n_docs": DOCS, "max_length": 8}
    want = oracle.run(cls, config_of(), weights, inputs | options, method="generate")["sequences"]
    got = model.generate(**inputs, **options)
    assert torch.equal(got, want[:, : got.shape[1]]) and bool((want[:, got.shape[1] :] == PAD).all())


def test_sharper_than_the_reference() -> None:
    """A row's loss is its own: a bos in another row, padding behind it, a target of one word."""
    model = make(SEQUENCE, exclude_bos_score=True)
    given, labels = passages(3), torch.tensor([[2, 0, 4, 2], [2, 5, 2, PAD], [2, 2, -100, -100]])
    losses = model(**given, labels=labels).loss
    for row, (text, skip) in enumerate([([2, 0, 4, 2], 1), ([2, 5, 2], 0), ([2, 2], 0)]):
        assert losses[row].item() == pytest.approx(-math.log(likelihood(model, given, row, text, skip)))


# ---- by hand ---------------------------------------------------------------------------------------------------------


@each_class
@pytest.mark.parametrize("generator", [BART, T5], ids=["bart", "t5"])
def test_likelihoods_are_the_sums_of_the_paper(cls: str, generator: dict[str, Any]) -> None:
    model, given = make(cls, generator), passages()
    labels = torch.tensor([[2, 3, 4, 2, PAD], [2, 7, 5, 6, 2]])
    losses = model(**given, labels=labels).loss
    assert losses.shape == (2,)
    for row, text in enumerate([[2, 3, 4, 2], [2, 7, 5, 6, 2]]):
        assert losses[row].item() == pytest.approx(-math.log(likelihood(model, given, row, text)))


@each_class
def test_likelihoods_of_all_texts_are_one(cls: str) -> None:
    model, given = make(cls), passages(1)
    texts = [text for text in all_texts(4) if PAD not in text]
    alone = {n: v.repeat(len(texts), *[1] * (v.dim() - 1)) for n, v in given.items()}
    padded = torch.full((len(texts), 4), -100)
    for row, text in enumerate(texts):
        padded[row, : len(text)] = torch.tensor(text)
    with_pad = [text for text in all_texts(4) if PAD in text]
    by_hand = sum(likelihood(model, given, 0, text) for text in with_pad)
    total = (-model(**alone, labels=padded).loss).exp().sum().item() + by_hand
    assert total == pytest.approx(1, abs=1e-9)


def test_do_marginalize_gives_the_words_of_all_passages() -> None:
    model, given = make(TOKEN), passages()
    text = [2, 3, 4, 6]
    got = model(**given, decoder_input_ids=torch.tensor([text] * 2), do_marginalize=True).logits
    for row in range(2):
        prior = given["doc_scores"][row].softmax(0)
        want = sum(prior[z] * words_of(model, given, row, z, text).exp() for z in range(DOCS)).log()
        torch.testing.assert_close(got[row], want)


# ---- searches --------------------------------------------------------------------------------------------------------


def test_rag_token_s_beams_find_what_all_texts_hold() -> None:
    model, given = make(TOKEN), passages()
    out = model.generate(
        **given, max_length=4, num_beams=300, num_return_sequences=5, length_penalty=0.0, return_dict_in_generate=True,
        output_scores=True,
    )  # fmt: skip
    for row in range(2):
        ranked = sorted(((likelihood(model, given, row, text), text) for text in all_texts(4)), reverse=True)
        for place, (chance, text) in enumerate(ranked[:5]):
            found = out.sequences[5 * row + place].tolist()
            assert found == text + [PAD] * (4 - len(text))
            assert float(out.sequences_scores[5 * row + place]) == pytest.approx(math.log(chance), abs=1e-6)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("generator", [BART, T5], ids=["bart", "t5"])
def test_a_beam_s_score_is_its_likelihood(generator: dict[str, Any], use_cache: bool) -> None:
    """Beams move between steps, with what is remembered of every passage."""
    model, given = make(TOKEN, generator, seed=4), passages(3)
    start = generator.get("decoder_start_token_id", START)
    out = model.generate(
        **given, max_length=9, num_beams=4, num_return_sequences=4, length_penalty=0.0, use_cache=use_cache,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    for number, worth in enumerate(out.sequences_scores.tolist()):
        text = out.sequences[number].tolist()
        end = next((i for i in range(1, len(text)) if text[i] == EOS), len(text) - 1)
        assert text[0] == start
        assert worth == pytest.approx(math.log(likelihood(model, given, number // 4, text[: end + 1])), abs=1e-6)


def test_beams_share_the_passages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a passage was projected to is held once, however many beams read it."""
    states = []
    plain = PassagesState.reorder

    def kept(self: PassagesState, rows: torch.Tensor) -> PassagesState:
        states.append(plain(self, rows))
        return states[-1]

    monkeypatch.setattr(PassagesState, "reorder", kept)
    make(TOKEN).generate(**passages(), max_length=7, num_beams=4, eos_token_id=7, forced_eos_token_id=None)
    assert states
    for state in states:
        cross = state.layers[0].cross
        assert cross.shared[0] is not None and len(cross.shared[0]) * cross.copies == len(state.layers[0].own.keys)
        assert cross.copies == 4


def test_greedy_sampling_and_options_of_the_engine() -> None:
    model, given = make(TOKEN), passages()
    greedy = model.generate(**given, max_length=6)
    text = torch.full((2, 1), START)
    for _ in range(5):
        nearest = model(**given, decoder_input_ids=text, do_marginalize=True).logits[:, -1].argmax(-1, keepdim=True)
        text = torch.cat([text, nearest], 1)
    for row, want in zip(greedy.tolist(), text.tolist(), strict=True):
        end = next((i for i in range(1, len(want)) if want[i] == EOS), len(want) - 1)
        assert row[: end + 1] == want[: end + 1]
    banned = model.generate(**given, max_length=6, num_beams=3, bad_words_ids=[[greedy[0, 1].item()]])
    assert greedy[0, 1] not in banned[0]
    torch.manual_seed(0)
    drawn = model.generate(**given, max_length=6, do_sample=True, num_return_sequences=3)
    assert drawn.shape[0] == 6
    shown = model.generate(**given, max_length=4, return_dict_in_generate=True, output_attentions=True)
    assert shown.cross_attentions[0][0].shape[:3] == (2, DOCS, 2)
    with pytest.raises(TypeError, match="has no option 'num_beamz'; did you mean 'num_beams'"):
        model.generate(**given, num_beamz=3)


def candidates(model: Any, given: dict[str, torch.Tensor], row: int, beams: int, length: int) -> list[list[list[int]]]:
    """The texts that a search with each passage finds, cut after their end."""
    found = []
    for doc in range(DOCS):
        at = row * DOCS + doc
        ids = given["context_input_ids"][at][given["context_attention_mask"][at].bool()]
        texts = model.generator.generate(
            ids[None], max_length=length, num_beams=beams, num_return_sequences=beams, bad_words_ids=[[PAD]]
        ).tolist()
        found.append([t[: t.index(EOS, 1) + 1] if EOS in t[1:] else t for t in texts])
    return found


@pytest.mark.parametrize("thorough", [True, False])
@pytest.mark.parametrize("beams", [1, 3])
def test_rag_sequence_chooses_among_what_passages_gave(thorough: bool, beams: int) -> None:
    """Thorough: by the sum over all passages. Fast: over those whose search found the text."""
    model, given = make(SEQUENCE, seed=2), passages()
    out = model.generate(
        **given, max_length=6, num_beams=beams, thorough=thorough, return_dict_in_generate=True, num_return_sequences=2,
        bad_words_ids=[[PAD]],
    )  # fmt: skip
    for row in range(2):
        found = candidates(model, given, row, beams, 6)
        prior = given["doc_scores"][row].softmax(0).tolist()
        worth, once = {}, {tuple(t) for texts in found for t in texts}
        skip = int(all(text[1] == BOS for text in once))
        for text in once:
            worth[text] = 0.0
            for doc in range(DOCS):
                if thorough or list(text) in found[doc]:
                    words = words_of(model, given, row, doc, list(text[:-1])).exp().tolist()
                    rest = list(enumerate(text[1:]))[skip:]
                    worth[text] += prior[doc] * math.prod(words[t][word] for t, word in rest)
        ranked = sorted(worth, key=lambda text: -worth[text])
        assert beams == 1 or len(ranked) > 2
        for place, text in enumerate(ranked[:2]):
            assert out.sequences[2 * row + place].tolist()[: len(text)] == list(text)
            assert float(out.sequences_scores[2 * row + place]) == pytest.approx(math.log(worth[text]), abs=1e-6)


def test_fast_is_thorough_where_every_search_finds_every_text() -> None:
    model, given = make(SEQUENCE, seed=3), passages()
    options = {"max_length": 4, "num_beams": 300, "num_return_sequences": 4, "return_dict_in_generate": True}
    options |= {"length_penalty": 0.0, "bad_words_ids": [[PAD], [BOS]]}
    fast = model.generate(**given, **options, thorough=False)
    slow = model.generate(**given, **options, thorough=True)
    assert torch.equal(fast.sequences, slow.sequences)
    torch.testing.assert_close(fast.sequences_scores, slow.sequences_scores)
    for row in range(2):
        texts = [text for text in all_texts(4) if PAD not in text and BOS not in text]
        best = max(texts, key=lambda text: likelihood(model, given, row, text))
        assert slow.sequences[4 * row].tolist()[: len(best)] == best


def test_texts_are_chosen_once_unless_told_otherwise() -> None:
    model, given = make(SEQUENCE, seed=2), passages(1)
    given["context_input_ids"][:] = given["context_input_ids"][:1]
    given["context_attention_mask"][:] = given["context_attention_mask"][:1]
    once = model.generate(**given, max_length=5, num_beams=2, num_return_sequences=2)
    again = model.generate(**given, max_length=5, num_beams=2, num_return_sequences=2, do_deduplication=False)
    assert not torch.equal(once[0], once[1]) and torch.equal(again[0], again[1])


@each_class
def test_a_row_does_not_hang_on_the_others(cls: str) -> None:
    model, given = make(cls), passages(3)
    together = model.generate(**given, max_length=7, num_beams=3)
    for row in range(3):
        alone = {n: v[row : row + 1] if n == "doc_scores" else v[DOCS * row :][:DOCS] for n, v in given.items()}
        mine = model.generate(**alone, max_length=7, num_beams=3)[0]
        assert together[row, : len(mine)].tolist() == mine.tolist() and bool((together[row, len(mine) :] == PAD).all())


# ---- retrieval -------------------------------------------------------------------------------------------------------

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"the a cat dog sat ran on mat road fast slow red".split()]
TEXTS = ["the cat sat on the mat", "a red dog ran fast", "the slow cat ran on the road", "a dog on a mat", "red mat"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, toks: Any) -> Path:
    """A RAG checkpoint with its tokenizers, and an index."""
    root = tmp_path_factory.mktemp("rag")
    (root / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    asks, writes = polyformer.BertTokenizer(root / "vocab.txt"), toks["bart"]
    model = make(TOKEN, BART | {"vocab_size": len(writes), "max_position_embeddings": 80}, max_combined_length=60)
    model.float().save_pretrained(root / "model")
    RagTokenizer(asks, writes).save_pretrained(root / "model")
    draw = np.random.default_rng(0)
    vectors = {text: draw.normal(size=WIDTH) for text in TEXTS}
    documents = [Document(f"doc {i}", text, '"cats"' if i == 0 else "a title") for i, text in enumerate(TEXTS)]
    build(
        root / "index", passages_of(documents), lambda some: np.stack([vectors[p.text] for p in some]),
        encoder="by hand", metric="inner-product",
    )  # fmt: skip
    return root


def questions(place: Path) -> dict[str, torch.Tensor]:
    tok = polyformer.RagTokenizer.from_pretrained(place / "model")
    return dict(tok(["the cat", "a red dog ran"], padding=True, return_tensors="pt"))


@each_class
def test_the_question_encoder_learns(cls: str, place: Path) -> None:
    """Down to its weights, and for RAG-Sequence by what the paper's sum says: prior less posterior, times passages."""
    retriever = RagRetriever.from_pretrained(place / "model", place / "index")
    model = getattr(polyformer, cls).from_pretrained(place / "model", retriever=retriever).double()
    inputs = {k: v for k, v in questions(place).items() if k != "token_type_ids"}
    labels = torch.tensor([[2, 0, 9, 12, 2], [2, 0, 7, 2, PAD]])
    vectors = []

    def keep(module: Any, args: Any, out: Any) -> None:
        out.pooler_output.retain_grad()
        vectors.append(out.pooler_output)

    model.question_encoder.register_forward_hook(keep)
    out = model(**inputs, labels=labels, reduce_loss=True, output_retrieved=True)
    out.loss.backward()
    gradients = [p.grad for p in model.question_encoder.parameters()]
    assert all(g is not None and bool(g.abs().sum() > 0) for g in gradients[:5])
    found = out.retrieved_doc_embeds.double()
    torch.testing.assert_close(out.doc_scores, torch.einsum("rw,rdw->rd", vectors[0], found))
    if cls == SEQUENCE:
        target = torch.cat([labels[:, 1:], torch.full((2, 1), PAD)], 1).repeat_interleave(DOCS, 0)
        words = out.logits.log_softmax(-1).gather(-1, target[:, :, None])[:, :, 0]
        each = (words * (target != PAD)).sum(1).view(2, DOCS) + out.doc_scores.log_softmax(1)
        pull = out.doc_scores.softmax(1) - each.softmax(1)
        torch.testing.assert_close(vectors[0].grad, torch.einsum("rd,rdw->rw", pull, found))


def test_the_retriever_reads_as_the_paper(place: Path) -> None:
    retriever = RagRetriever.from_pretrained(place / "model", place / "index")
    index = PassageIndex(place / "index")
    query = index.vectors[[0, 3]]
    ids = questions(place)["input_ids"]
    got = retriever(ids, query, n_docs=2, return_tensors="pt")
    want = index.search(query, 2)
    assert got["doc_ids"].tolist() == want.ids.tolist()
    np.testing.assert_array_equal(got["retrieved_doc_embeds"].numpy(), want.vectors)
    read = retriever.generator_tokenizer.batch_decode(got["context_input_ids"], skip_special_tokens=True)
    first = index.passages(want.ids[0])[0]
    assert first.text == TEXTS[0] and read[0] == "cats / the cat sat on the mat // the cat"
    assert len(read) == 4 and all(text.endswith("// a red dog ran") for text in read[2:])
    assert got["context_input_ids"].shape == got["context_attention_mask"].shape
    plain = retriever(ids.tolist(), query, prefix="ask: ", n_docs=1)
    assert isinstance(plain["context_input_ids"], list) and isinstance(plain["doc_ids"], np.ndarray)
    first_text = retriever.generator_tokenizer.decode(plain["context_input_ids"][0], skip_special_tokens=True)
    assert first_text.startswith("ask: cats")
    short = RagRetriever(
        RagConfig.from_dict(config_of(max_combined_length=9)), retriever.question_encoder_tokenizer,
        retriever.generator_tokenizer, index,
    )  # fmt: skip
    assert short(ids, query, return_tensors="pt")["context_input_ids"].shape == (2 * DOCS, 9)
    with pytest.raises(ValueError, match="the index has 5 passages and 9 are wanted: set n_docs to 5"):
        retriever(ids, query, n_docs=9)
    with pytest.raises(ValueError, match="there is no index"):
        RagRetriever(retriever.config, None, None)


def test_retrieved_is_given(place: Path) -> None:
    """A retriever inside, or what it finds given: the same answers; written too."""
    retriever = RagRetriever.from_pretrained(place / "model", place / "index")
    model = polyformer.RagTokenForGeneration.from_pretrained(place / "model")
    model.set_retriever(retriever)
    inputs = {k: v for k, v in questions(place).items() if k != "token_type_ids"}
    got = model(**inputs, decoder_input_ids=torch.tensor([[2, 5]] * 2), output_retrieved=True)
    given = {name: got[name] for name in ("context_input_ids", "context_attention_mask", "doc_scores")}
    again = model(**given, decoder_input_ids=torch.tensor([[2, 5]] * 2))
    torch.testing.assert_close(got.logits, again.logits)
    written = model.generate(**inputs, num_beams=3, max_length=7)
    assert torch.equal(written, model.generate(**given, num_beams=3, max_length=7))


@each_class
def test_open_qa_with_rag(cls: str, place: Path, tmp_path: Path) -> None:
    model = getattr(polyformer, cls).from_pretrained(place / "model")
    model.save_pretrained(tmp_path)
    RagTokenizer.from_pretrained(place / "model").save_pretrained(tmp_path)
    ask = pipeline("open-qa", str(tmp_path), index=place / "index")
    assert isinstance(ask.reader, RagWriter) and type(ask.reader.model) is type(model)
    several = ask("the red dog", top_k=3, passages=DOCS, max_answer_len=4)
    assert 1 <= len(several) <= 3
    assert [a["score"] for a in several] == sorted((a["score"] for a in several), reverse=True)
    assert ask(["the red dog", "a cat"], passages=DOCS, max_answer_len=4)[0] == several[0]
    best = several[0]
    assert (best["start"], best["end"]) == (0, len(best["passage"]["text"])) and best["answer"]
    one = ask.find(["the red dog"], DOCS)[0]
    answer = ask.reader.read([one], 1, 4)[0][0]
    assert (answer.text, answer.span) == (best["answer"], None)
    assert one.passages[answer.passage].id == best["passage"]["id"]
    assert ask.reader.read([one._replace(passages=[], scores=one.scores[:0])], 1, 4) == [[]]


def test_a_pipeline_s_score_is_the_answer_s_likelihood(place: Path) -> None:
    """By loops, and the passage is the one that most of it comes from."""
    model = polyformer.RagSequenceForGeneration.from_pretrained(place / "model").double()
    tok = RagTokenizer.from_pretrained(place / "model")
    reader = RagWriter(model, tok)
    ask = polyformer.pipelines.OpenQAPipeline(PassageIndex(place / "index"), reader.question_encoder, reader)
    one = ask.find(["the cat"], DOCS)[0]
    one = one._replace(scores=one.scores.astype(np.float64))
    texts = []
    plain = model.generate
    model.generate = lambda **inputs: texts.append((inputs, plain(**inputs))) or texts[-1][1]
    answer = reader.read([one], 1, 4)[0][0]
    ((given, written),) = texts
    worth: list[tuple[float, int]] = []
    rows = written.unique(dim=0).tolist()
    skip = int(all(row[1] == BOS for row in rows))
    for row in rows:
        text = row[: row.index(EOS, 1) + 1] if EOS in row[1:] else row
        prior = given["doc_scores"][0].softmax(0).tolist()
        shares = []
        for doc in range(DOCS):
            words = words_of(model, given, 0, doc, text[:-1]).exp().tolist()
            rest = [(t, word) for t, word in enumerate(text[1:]) if t >= skip and word != PAD]
            shares.append(prior[doc] * math.prod(words[t][word] for t, word in rest))
        if tok.decode(text, skip_special_tokens=True).strip():
            worth.append((sum(shares), int(np.argmax(shares))))
    assert (answer.score, answer.passage) == (pytest.approx(max(worth)[0]), max(worth)[1])


# ---- files and parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ["RagModel", TOKEN, SEQUENCE])
def test_files_both_ways(cls: str, oracle: Any, tmp_path: Path) -> None:
    weights = oracle.init(cls, config_of(), seed=5)
    model = getattr(polyformer, cls)(RagConfig.from_dict(config_of()))
    model.load_state_dict(weights)
    model.double().eval().save_pretrained(tmp_path)
    again, info = getattr(polyformer, cls).from_pretrained(tmp_path, torch_dtype="auto", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    inputs = passages() | {"decoder_input_ids": LABELS}
    got = model(**inputs).logits
    assert torch.equal(again(**inputs).logits, got)
    saved = dict(load_file(tmp_path / "model.safetensors"))
    lead = "" if cls == "RagModel" else "rag."
    assert f"{lead}question_encoder.question_encoder.bert_model.embeddings.word_embeddings.weight" in saved
    assert f"{lead}generator.model.shared.weight" in saved
    config = json_of(tmp_path / "config.json")
    want = oracle.run(cls, config, saved, inputs, strict=False)["logits"]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


def json_of(path: Path) -> dict[str, Any]:
    import json

    return json.loads(path.read_text())


def test_a_base_model_s_file_makes_a_writer_and_back(tmp_path: Path) -> None:
    model, inputs = make(TOKEN), passages() | {"decoder_input_ids": LABELS}
    model.rag.save_pretrained(tmp_path / "base")
    writer = polyformer.RagSequenceForGeneration.from_pretrained(tmp_path / "base", torch_dtype="auto")
    assert torch.equal(writer(**inputs).logits, model(**inputs).logits)
    writer.save_pretrained(tmp_path / "whole")
    base = polyformer.RagModel.from_pretrained(tmp_path / "whole", torch_dtype="auto")
    assert torch.equal(base(**inputs).logits, model(**inputs).logits)


def test_from_two_checkpoints(tmp_path: Path) -> None:
    parts = make(TOKEN)
    parts.question_encoder.save_pretrained(tmp_path / "asks")
    parts.generator.save_pretrained(tmp_path / "writes")
    make_of = polyformer.RagSequenceForGeneration.from_pretrained_question_encoder_generator
    model = make_of(tmp_path / "asks", tmp_path / "writes", n_docs=DOCS, generator_torch_dtype=torch.float64)
    assert model.config.n_docs == DOCS and not model.training
    inputs = passages() | {"decoder_input_ids": LABELS}
    assert torch.equal(model(**inputs).logits, parts(**inputs).logits)
    other = make_of(question_encoder_model=parts.question_encoder, generator_model=parts.generator)
    assert other.generator is parts.generator and other.config.n_docs == RagConfig.from_dict(config_of(n_docs=5)).n_docs
    with pytest.raises(ValueError, match="there is no generator: name a checkpoint"):
        make_of(tmp_path / "asks")


def test_defaults_are_the_reference_s(oracle: Any) -> None:
    theirs = oracle.config("RagModel", {"question_encoder": {"model_type": "dpr"}, "generator": {"model_type": "bart"}})
    ours = RagConfig(question_encoder=DPRConfig(), generator=BartConfig())
    for name in RagConfig.__dataclass_fields__:
        if name in theirs and name not in ("question_encoder", "generator"):
            assert theirs[name] == getattr(ours, name), name


def test_outputs_read_like_tuples() -> None:
    model, given = make(TOKEN), passages()
    named = model(**given, labels=LABELS, output_attentions=True, output_hidden_states=True)
    plain = model(**given, labels=LABELS, output_attentions=True, output_hidden_states=True, return_dict=False)
    assert isinstance(plain, tuple) and len(plain) == len(named)
    assert torch.equal(plain[0], named.loss) and torch.equal(plain[1], named.logits)
    assert len(named.generator_enc_hidden_states) == 2 and len(named.generator_cross_attentions) == 1


def test_steps_with_a_cache_are_one_pass() -> None:
    model, given = make("RagModel"), passages()
    text = torch.tensor([[2, 3, 4, 5], [2, 6, 7, 3]])
    whole = model(**given, decoder_input_ids=text).logits
    past = None
    for at in range(4):
        out = model(**given, decoder_input_ids=text[:, at : at + 1], past_key_values=past)
        torch.testing.assert_close(out.logits[:, 0], whole[:, at])
        past = out.past_key_values


def test_a_writer_s_state_follows_rows_and_is_cut() -> None:
    model, given = make(TOKEN), passages()
    writer = RagTokenWriter(model.generator)
    states = model.get_encoder()(given["context_input_ids"], attention_mask=given["context_attention_mask"])
    inputs = {
        "encoder_outputs": (states.last_hidden_state.unflatten(0, (2, DOCS)),),
        "attention_mask": given["context_attention_mask"].reshape(2, -1),
        "doc_scores": given["doc_scores"],
    }
    text = torch.tensor([[2, 3, 4, 5], [2, 6, 7, 3]])
    whole = writer(text, **inputs).logits
    state = writer(text[:, :3], **inputs, use_cache=True).past_key_values.upto(2)
    rows = torch.tensor([1, 1, 0])
    moved = {n: v[rows] if torch.is_tensor(v) else v for n, v in inputs.items()}
    out = writer(text[rows, 2:], **moved, past_key_values=state.reorder(rows), use_cache=True)
    torch.testing.assert_close(out.logits, whole[rows, 2:])


def test_padding_of_passages_on_either_side_and_of_targets() -> None:
    model, given = make(TOKEN), passages()
    mask = given["context_attention_mask"]
    moved = {n: torch.stack([row.roll(int(7 - m.sum())) for row, m in zip(given[n], mask, strict=True)]) for n in given
             if n != "doc_scores"}  # fmt: skip
    text = torch.tensor([[2, 3, 4], [2, 6, 7]])
    want = model(**given, decoder_input_ids=text).logits
    torch.testing.assert_close(model(**given | moved, decoder_input_ids=text).logits, want)
    padded = torch.cat([torch.full((2, 2), PAD), text], 1)
    got = model(**given, decoder_input_ids=padded, decoder_attention_mask=(padded != PAD).long()).logits
    torch.testing.assert_close(got[:, 2:], want)


def two_shapes() -> tuple[Any, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A model, what a graph of it is made with, and what it is run on."""
    made = passages() | {"decoder_input_ids": LABELS}
    run = passages(3, 5, seed=4) | {"decoder_input_ids": LABELS[[0, 1, 0], :4]}
    return make(TOKEN, do_marginalize=True, use_cache=False), made, run


def test_export_and_trace_run_at_another_shape() -> None:
    model, made, run = two_shapes()
    want = model(**run).logits
    rows, length, targets = torch.export.Dim("rows", min=2), torch.export.Dim("length"), torch.export.Dim("targets")
    context = {0: DOCS * rows, 1: length}
    shapes = {"context_input_ids": context, "context_attention_mask": context, "doc_scores": {0: rows}}
    shapes |= {"decoder_input_ids": {0: rows, 1: targets}}
    program = torch.export.export(model, (), made, dynamic_shapes=shapes, strict=False)
    torch.testing.assert_close(program.module()(**run).logits, want)
    model.config.torchscript = True
    with torch.no_grad():
        traced = torch.jit.trace(model, example_kwarg_inputs=made, check_trace=False)
        torch.testing.assert_close(traced(**run)[0], want)


def test_compile_makes_one_graph() -> None:
    torch._dynamo.reset()
    model, made, run = two_shapes()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    with torch.no_grad():
        for inputs in (made, run):
            torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits)


def test_half_precision_sums_in_float32() -> None:
    model, given = make(TOKEN).to(torch.bfloat16), passages()
    given["doc_scores"] = given["doc_scores"].bfloat16()
    outputs = model(**given, labels=LABELS, do_marginalize=True)
    assert outputs.loss.dtype == outputs.logits.dtype == torch.float32
    torch.testing.assert_close(outputs.logits.exp().sum(-1), torch.ones(2, 6))
    assert model.generate(**given, max_length=5, num_beams=2).shape[0] == 2


def test_inputs_are_left_alone_and_dropout_is_off() -> None:
    dropping = {"question_encoder": ASKS, "generator": BART | {"dropout": 0.5}}
    model, given = make(SEQUENCE, **dropping), passages()
    kept = {name: value.clone() for name, value in given.items()}
    first = model(**given, labels=LABELS).loss
    assert torch.equal(model(**given, labels=LABELS).loss, first)
    assert all(torch.equal(given[name], kept[name]) for name in given)
    model.train()
    torch.manual_seed(1)
    drawn = model(**given, labels=LABELS).loss
    torch.manual_seed(1)
    assert torch.equal(model(**given, labels=LABELS).loss, drawn) and not torch.equal(drawn, first)


def test_any_encoder_asks(tmp_path: Path) -> None:
    """A BERT with a pooling in DPR's place: found by its vector, saved under its own names."""
    asks = ASKS | {"model_type": "bert", "pooling": "mean"}
    model = make(SEQUENCE, question_encoder=asks)
    table = torch.randn(4, WIDTH, dtype=torch.float64)

    def retriever(ids: Any, vectors: Any, prefix: Any = None, n_docs: int = 5, return_tensors: Any = None) -> Any:
        best = (torch.as_tensor(vectors).double() @ table.T).topk(n_docs, 1).indices
        contexts = 3 + best.flatten()[:, None].expand(-1, 4) % 5
        return {
            "context_input_ids": contexts, "context_attention_mask": torch.ones_like(contexts),
            "retrieved_doc_embeds": table[best], "doc_ids": best,
        }  # fmt: skip

    model.set_retriever(retriever)
    ids = torch.tensor([[3, 4, 5], [6, 7, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    out = model(ids, mask, labels=LABELS, reduce_loss=True)
    out.loss.backward()
    assert model.question_encoder.embed.tokens.weight.grad.abs().sum() > 0
    model.save_pretrained(tmp_path)
    assert "rag.question_encoder.embeddings.word_embeddings.weight" in load_file(tmp_path / "model.safetensors")
    again = polyformer.RagSequenceForGeneration.from_pretrained(tmp_path, retriever=retriever, torch_dtype="auto")
    assert torch.equal(again(ids, mask, labels=LABELS, reduce_loss=True).loss, out.loss)


def test_allowed_words_are_asked_by_question() -> None:
    asked = set()

    def allowed(number: int, text: torch.Tensor) -> list[int]:
        asked.add(number)
        return [3 + number]

    for cls in (TOKEN, SEQUENCE):
        texts = make(cls).generate(**passages(), max_length=5, num_beams=2, prefix_allowed_tokens_fn=allowed)
        assert texts[:, 1:].tolist() == [[3] * 4, [4] * 4]
    assert asked == {0, 1}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, g: m(decoder_input_ids=LABELS), ValueError, "without a retriever"),
        (lambda m, g: m(**g | {"doc_scores": None}, labels=LABELS), ValueError, "passages have no scores"),
        (lambda m, g: m(**g, labels=LABELS, n_docs=2), ValueError, r"\(rows, 2\) was expected"),
        (
            lambda m, g: m(**g | {"context_input_ids": g["context_input_ids"][:4]}, labels=LABELS),
            ValueError,
            "there are 4 rows of context_input_ids and 6 scores",
        ),
        (lambda m, g: m(**g, labels=LABELS + 6), ValueError, "but only 0 to 7 are known"),
        (lambda m, g: m.resize_token_embeddings(40), TypeError, "two vocabularies"),
        (lambda m, g: m.prune_heads({0: [0]}), TypeError, "two models with heads"),
        (lambda m, g: type(m)(), ValueError, "give a configuration, or both"),
        (
            lambda m, g: type(m)(None, m.question_encoder, m.question_encoder),
            TypeError,
            "is no generator",
        ),
    ],
)
def test_what_cannot_be(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(make(TOKEN), passages())
