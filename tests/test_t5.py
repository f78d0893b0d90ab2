"""What T5 and mT5 have to themselves: buckets of distances, norms that only scale, half precision; a real Flan-T5."""

import itertools
import json
import os
from fractions import Fraction

import pytest
import torch

import polyformer
from polyformer.core.errors import ConfigError
from polyformer.parts.feedforward import Dropped, FeedForward, GatedFeedForward, activation, gelu_tanh
from polyformer.parts.norms import RMSNorm
from polyformer.parts.positions import Buckets, PastBuckets

TINY = dict(
    vocab_size=47,
    d_model=24,
    d_kv=6,
    d_ff=40,
    num_layers=2,
    num_decoder_layers=3,
    num_heads=3,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=20,
    dropout_rate=0.0,
    decoder_start_token_id=0,
)
V11 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
ABSTRACTS = 100 if os.environ.get("POLYFORMER_TESTS") == "all" else 3
TITLER = "flan-t5-small-titler"


def make(**changes):
    torch.manual_seed(3)
    return polyformer.T5ForConditionalGeneration(polyformer.T5Config(**TINY | changes)).eval()


def ids(*shape):
    return torch.randint(2, 47, shape)


# ---- parts -----------------------------------------------------------------------------------------------------------


def share(distance, buckets, reach):
    """The paper's rule in whole numbers: half of the buckets one distance each, then logarithmically up to `reach`."""
    near = buckets // 2
    if distance < near:
        return distance
    bucket = near
    # bucket b begins where log(distance / near) / log(reach / near) is (b - near) / (buckets - near)
    while bucket < buckets - 1 and Fraction(distance, near) ** (buckets - near) >= Fraction(reach, near) ** (
        bucket + 1 - near
    ):
        bucket += 1
    return bucket


@pytest.mark.parametrize(("buckets", "reach"), [(32, 128), (8, 20), (12, 100)])
@pytest.mark.parametrize("queries", [1, 4, 300])
def test_buckets(buckets, reach, queries):
    """One number a head and bucket; half of an encoder's are for what comes later, none of a decoder's."""
    keys = 300
    for scheme in (Buckets(buckets, 2, reach), PastBuckets(buckets, 2, reach)):
        bias = scheme(queries, keys)
        assert bias.shape == (1, 2, queries, keys)
        places = [0, 1, 2, queries // 2, queries - 1]
        for i in {p for p in places if p < queries}:
            for j in range(0, keys, 7 if queries > 1 else 1):
                distance = keys - queries + i - j
                if isinstance(scheme, PastBuckets):
                    bucket = share(max(distance, 0), buckets, reach)
                else:
                    bucket = share(abs(distance), buckets // 2, reach) + (buckets // 2 if distance < 0 else 0)
                assert torch.equal(bias[0, :, i, j], scheme.numbers.weight[bucket])


def test_a_stack_works_its_bias_out_once():
    model, counts = make(), {"encoder": 0, "decoder": 0}

    def counter(name):
        def count(*_):
            counts[name] += 1

        return count

    for name in counts:
        getattr(model.base_model, name).positions.register_forward_hook(counter(name))
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 4:] = 0
    model(ids(3, 9), mask, labels=ids(3, 5))
    assert counts == {"encoder": 1, "decoder": 1}


def test_rms_norm_by_hand():
    norm = RMSNorm(24, 1e-6).double()
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    want = x / (x.pow(2).sum(-1, keepdim=True) / 24 + 1e-6).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), want, rtol=1e-12, atol=1e-12)
    half = RMSNorm(24, 1e-6).half()
    large = (x * 6000).half()  # whose squares half precision cannot hold
    wide = large.double()
    want = wide / wide.pow(2).mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(half(large).double(), want, rtol=2e-3, atol=1e-3)


def test_gated_feed_forward_by_hand():
    ffn = GatedFeedForward(6, 10, gelu_tanh, 0.0).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    gate, up = ffn.gate_up.weight[:10], ffn.gate_up.weight[10:]
    want = (gelu_tanh(x @ gate.T) * (x @ up.T)) @ ffn.down.weight.T
    for train, grad in itertools.product((True, False), repeat=2):
        ffn.train(train)
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(ffn(x), want, rtol=1e-12, atol=1e-12)
    ffn.eval().drop.p = 0.5
    with torch.no_grad():
        torch.testing.assert_close(ffn(x), want, rtol=1e-12, atol=1e-12)
        seen = []
        ffn.gate_up.register_forward_hook(lambda module, args, y: seen.append(y))
        torch.testing.assert_close(ffn(x), want, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(seen[0], x @ ffn.gate_up.weight.T)  # what a hook kept is whole
        drops = FeedForward(6, 10, Dropped(activation("relu"), 0.5), biased=False).double().eval()
        want = (x @ drops.up.weight.T).relu() @ drops.down.weight.T
        torch.testing.assert_close(drops(x), want, rtol=1e-12, atol=1e-12)


# ---- the model -------------------------------------------------------------------------------------------------------


def test_initial_weights_are_the_authors():
    """mesh-tensorflow: the reciprocal of the inputs as variance, of queries by the width of a head less, of words 1."""
    c = polyformer.T5Config(vocab_size=300, d_model=96, d_kv=16, d_ff=200, num_layers=1, num_heads=5, **V11)
    model = polyformer.T5ForConditionalGeneration(c)
    q, kv, ff = (96 * 16) ** -0.5, 96**-0.5, 200**-0.5
    want = {"shared": 1.0, "attn.qkv": None, "cross.q.": q, "cross.kv": kv, "gate_up": kv, "down": ff, "lm.": kv}
    want |= {"out.weight": 80**-0.5, "positions": kv}
    for name, p in model.named_parameters():
        if "norm" in name:
            assert (p == 1).all()
        elif "qkv" in name:
            for part, std in zip(p.chunk(3), (q, kv, kv), strict=True):
                assert abs(part.std() / std - 1) < 0.05, name
        else:
            std = next(std for part, std in want.items() if part in name)
            assert abs(p.std() / std - 1) < (0.25 if "positions" in name else 0.05), name
    doubled = polyformer.T5Model(polyformer.T5Config(**TINY, initializer_factor=2.0))
    assert (doubled.encoder.norm.weight == 2).all()


def test_configurations():
    c = polyformer.T5Config(**TINY)
    assert (c.gated, c.inner_activation, c.hidden_size, c.num_hidden_layers) == (False, "relu", 24, 2)
    for name, act in (("gated-gelu", "gelu_new"), ("gated-silu", "silu")):
        c = polyformer.T5Config(**TINY | {"feed_forward_proj": name})
        assert (c.gated, c.inner_activation) == (True, act)
        polyformer.T5Model(c)
    assert polyformer.T5Config(num_layers=4).num_decoder_layers == 4
    assert polyformer.MT5Config().tie_word_embeddings is False
    with pytest.raises(ValueError, match="no activation function is called 'gleu'"):
        polyformer.T5Model(polyformer.T5Config(**TINY | {"feed_forward_proj": "gated-gleu"}))
    with pytest.raises(ConfigError, match="set config.decoder_start_token_id"):
        make(decoder_start_token_id=None)(ids(1, 4), labels=ids(1, 3))


@pytest.mark.parametrize("version", [{}, V11], ids=["1.0", "1.1"])
def test_resizing_the_vocabulary(version):
    """All tables grow together; tied scores are those of the same matrix."""
    model = make(**version)
    source, target = ids(2, 6), ids(2, 4)
    with torch.no_grad():
        before = model(source, decoder_input_ids=target).logits
        model.resize_token_embeddings(60)
        after = model(source, decoder_input_ids=target).logits
    assert after.shape == (2, 4, 60)
    torch.testing.assert_close(after[..., :47], before)
    base = model.base_model
    assert base.shared is base.encoder.embed.tokens
    assert base.shared is base.decoder.embed.tokens
    assert (model.lm.decoder.weight is base.shared.weight) == (not version)
    model.generate(source, max_new_tokens=3)


@pytest.mark.parametrize("packable", [True, False], ids=["packed", "padded"])
def test_half_precision_does_not_overflow(packable):
    """Feed-forward sums past 65504: the states are cut, as the published weights need; single precision's would not."""
    model = make()
    with torch.no_grad():
        model.base_model.encoder.layers[0].ffn.down.weight *= 3e4
        model.base_model.decoder.layers[0].ffn.down.weight *= 3e4
    model.base_model.packable = packable
    source, target, mask = ids(2, 6), ids(2, 4), torch.ones(2, 6, dtype=torch.long)
    mask[1, 3:] = 0
    with torch.no_grad():
        wide = model(source, mask, target, output_hidden_states=True).encoder_hidden_states[1].abs().max()
        outputs = model.half()(source, mask, target, output_hidden_states=True)
    assert wide > 65504
    assert all(states.isfinite().all() for states in outputs.encoder_hidden_states + outputs.decoder_hidden_states)
    assert outputs.logits.isfinite().all()


def test_pruned_heads_take_their_biases_with_them():
    """As if the head's output were zero; layers are the encoder's, then the decoder's."""
    source, target = ids(2, 6), ids(2, 4)
    masks = torch.ones(2, 3), torch.ones(3, 3)
    masks[0][1, 0] = masks[1][2, 1] = 0
    with torch.no_grad():
        want = make()(source, decoder_input_ids=target, head_mask=masks[0], decoder_head_mask=masks[1]).logits
        pruned = make()
        pruned.prune_heads({1: [0], 4: [1]})
        torch.testing.assert_close(pruned(source, decoder_input_ids=target).logits, want)


def test_an_old_file_has_a_table_that_nobody_reads(tmp_path):
    model = make()
    model.save_pretrained(tmp_path, safe_serialization=False)
    weights = torch.load(tmp_path / "pytorch_model.bin")
    extra = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    torch.save(weights | {extra: torch.zeros(8, 3)}, tmp_path / "pytorch_model.bin")
    report = polyformer.T5ForConditionalGeneration.from_pretrained(tmp_path).load_report
    assert report.clean
    assert extra in report.dropped
    encoder = polyformer.T5EncoderModel.from_pretrained(tmp_path)
    assert encoder.load_report.clean
    source = ids(2, 6)
    with torch.no_grad():
        torch.testing.assert_close(encoder(source).last_hidden_state, model.get_encoder()(source).last_hidden_state)


# ---- a real one ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def titler(real_weights):
    folder = real_weights(TITLER)
    model = polyformer.T5ForConditionalGeneration.from_pretrained(folder)
    return folder, model, polyformer.T5Tokenizer.from_pretrained(folder)


def test_titles_of_the_notes(titler):
    folder, model, tokenizer = titler
    assert model.load_report.clean
    expect = json.loads((folder / "NOTES.json").read_text(encoding="utf-8"))["expect"]
    for text, want in expect["greedy and beam 4, up to 24 new tokens"].items():
        source = tokenizer(text, return_tensors="pt")
        for beams in (1, 4):
            assert model.generate(**source, max_new_tokens=24, num_beams=beams).tolist() == [want]
    source = tokenizer("Translate to German: The house is small.", return_tensors="pt")
    with torch.no_grad():
        logits = model(**source, decoder_input_ids=torch.tensor([[0]])).logits[0, 0, :4]
    name = "logits[0,0,:4] of the German one for decoder_input_ids [[0]]"
    torch.testing.assert_close(logits, torch.tensor(expect[name]), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_titles_of_real_abstracts(titler, shared, oracle):
    """Tokens of greedy and of beam search, logits within 1e-4, and ROUGE-L: as the live reference."""
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=True)
    folder, model, tokenizer = titler
    lines = (shared / "data/summ-scitldr-A/test.jsonl").read_text(encoding="utf-8").splitlines()[:ABSTRACTS]
    papers = [json.loads(line) for line in lines]
    weights, config = folder / "model.safetensors", folder / "config.json"

    def rouge(text, paper):
        title = tokenizer.decode(text, skip_special_tokens=True)
        return max(scorer.score(target, title)["rougeL"].fmeasure for target in paper["target"])

    def ask(inputs, **how):
        return oracle.run(type(model).__name__, config, weights, inputs, dtype=torch.float32, strict=False, **how)

    for start in range(0, len(papers), 10):
        batch = papers[start : start + 10]
        texts = ["summarize: " + " ".join(paper["source"]) for paper in batch]
        source = dict(tokenizer(texts, padding=True, return_tensors="pt"))
        for beams in (1, 4):
            options = source | {"max_length": 25, "num_beams": beams, "do_sample": False}
            want, got = ask(options, method="generate")["sequences"], model.generate(**options)
            assert torch.equal(got, want)
            for a, b, paper in zip(got, want, batch, strict=True):
                assert rouge(a, paper) == rouge(b, paper)
        read = source | {"decoder_input_ids": got}
        with torch.no_grad():
            torch.testing.assert_close(model(**read).logits, ask(read)["logits"], rtol=1e-4, atol=1e-4)
