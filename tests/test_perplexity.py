"""Perplexity against sums over single tokens, each predicted by a pass of its own."""

import math

import pytest
import torch

import polyformer
from polyformer.metrics.perplexity import perplexity

WORDS = 41
GPT2 = dict(vocab_size=WORDS, n_positions=12, n_embd=16, n_layer=2, n_head=2)
XL = dict(
    vocab_size=WORDS, cutoffs=[8, 20], div_val=2, d_model=16, d_embed=16, n_head=2, d_head=8, d_inner=20, n_layer=2,
    mem_len=40, clamp_len=-1, adaptive=True,
)  # fmt: skip
XLNET = dict(vocab_size=WORDS, d_model=16, n_layer=2, n_head=2, d_inner=20, mem_len=40, clamp_len=-1)


def make(cls, config, **fields):
    torch.manual_seed(1)
    model = getattr(polyformer, cls)(getattr(polyformer, config[0])(**config[1] | fields))
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=p.shape[-1] ** -0.5 if p.dim() > 1 else 0.2)
    return model.double().eval()


def gpt2(**fields):
    return make("GPT2LMHeadModel", ("GPT2Config", GPT2), **fields)


def text(length=30, seed=0):
    return torch.randint(WORDS, (length,), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def foreseen(model, before, word):
    """Log-probability of a word after those before it."""
    return float(model(before[None]).logits[0, -1].log_softmax(-1)[word])


@pytest.mark.parametrize(("window", "stride"), [(12, 6), (5, 3), (5, 4), (7, 1), (None, None)])
def test_windows(window, stride):
    """Each token once; those of the first window have all before them, others at least window - stride tokens."""
    model, ids = gpt2(), text()
    size, step = window or 12, stride or (window or 12) // 2
    want, done = 0.0, 1
    while done < len(ids):
        end = min(len(ids), size if done == 1 else done + step)
        begin = max(0, end - size)
        want -= sum(foreseen(model, ids[begin:i], ids[i]) for i in range(done, end))
        done = end
    got = perplexity(model, ids, window=window, stride=stride)
    assert got.tokens == len(ids) - 1
    assert got.nll == pytest.approx(want, rel=1e-10)
    assert float(got) == got.perplexity == pytest.approx(math.exp(want / (len(ids) - 1)))
    assert got.per(10) == pytest.approx(math.exp(want / 10))


def test_a_stride_of_one_reads_as_much_as_can_be():
    model, ids = gpt2(), text(20)
    want = -sum(foreseen(model, ids[max(0, i - 11) : i], ids[i]) for i in range(1, 20))
    assert perplexity(model, ids, stride=1).nll == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("size", [2, 7, 30, 64])
def test_memory_is_one_pass_over_all(size):
    """Transformer-XL with a memory as long as the text, in segments of any size."""
    model, ids = make("TransfoXLLMHeadModel", ("TransfoXLConfig", XL)), text()
    with torch.no_grad():
        scores = model(ids[None], model.init_mems(1)).prediction_scores[0]
    want = -float(scores[:-1].gather(1, ids[1:, None]).sum())
    model.config.mem_len = 40
    got = perplexity(model, ids, window=size)
    if size >= 30:
        assert got.nll == pytest.approx(want, rel=1e-10)
    by_hand, mems = 0.0, None
    with torch.no_grad():
        for begin in range(0, 30, size):
            out = model(ids[None, begin : begin + size], mems)
            words = ids[begin + 1 : begin + size + 1]
            by_hand -= float(out.prediction_scores[0, : len(words)].gather(1, words[:, None]).sum())
            mems = out.mems
    assert got.nll == pytest.approx(by_hand, rel=1e-10)


@pytest.mark.parametrize("size", [2, 7, 30])
def test_xlnet_reads_from_left_to_right(size):
    """As if each word were asked for alone, after those before it."""
    model, ids = make("XLNetLMHeadModel", ("XLNetConfig", XLNET)), text()
    want = 0.0
    for i in range(1, len(ids)):
        # within its segment a word sees those before it; earlier segments are remembered as they were read
        begin, mems = i // size * size, None
        with torch.no_grad():
            for at in range(0, begin, size):
                later = torch.ones(size, size, dtype=torch.float64).triu()[None]
                eye = torch.eye(size, dtype=torch.float64)[None]
                part = ids[None, at : at + size]
                mems = model(part, mems=mems, perm_mask=later, target_mapping=eye, use_mems=True).mems
            seen = ids[begin : i + 1]
            n = len(seen)
            mask, place = torch.ones(n, n, dtype=torch.float64).triu()[None], torch.zeros(1, 1, n, dtype=torch.float64)
            place[0, 0, -1] = 1
            out = model(seen[None], mems=mems, perm_mask=mask, target_mapping=place, use_mems=True)
        want -= float(out.logits[0, 0].log_softmax(-1)[ids[i]])
    got = perplexity(model, ids, window=size)
    assert got.nll == pytest.approx(want, rel=1e-9) and got.tokens == 29


def test_training_goes_on_as_it_was():
    model = gpt2().train()
    assert perplexity(model, text()).nll == perplexity(model, text()).nll, "no dropout"
    assert model.training


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"text": "some words"}, TypeError, "needs the model's tokenizer"),
        ({"text": [3]}, ValueError, "has none to foresee"),
        ({"text": [[3, 4]]}, ValueError, r"shape \(1, 2\), but \(length,\)"),
        ({"text": [3, 4], "window": 13}, ValueError, "window is 13; this model reads 2 to 12 tokens"),
        ({"text": [3, 4], "window": 5, "stride": 5}, ValueError, "a window of 5 moves by 1 to 4"),
    ],
)
def test_what_cannot_be(given, error, message):
    with pytest.raises(error, match=message):
        perplexity(gpt2(), **given)


def test_memory_takes_no_stride():
    with pytest.raises(ValueError, match="leave stride out"):
        perplexity(make("TransfoXLLMHeadModel", ("TransfoXLConfig", XL)), text(), stride=3)
