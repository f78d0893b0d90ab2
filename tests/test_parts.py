"""Parts against dense definitions written out by hand, with loops where loops are the definition."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from polyformer.parts import losses
from polyformer.parts.attend import attend
from polyformer.parts.attention import Attention, CrossAttention
from polyformer.parts.blocks import PostNormBlock, PostNormCrossBlock, PreNormBlock, PreNormCrossBlock
from polyformer.parts.embeddings import PlacedTokens, ScaledEmbeddings, token_table
from polyformer.parts.feedforward import ACTIVATIONS, ChunkedFeedForward, Dropped, FeedForward
from polyformer.parts.heads import DenseHead, OffsetWordHead
from polyformer.parts.layout import Layout
from polyformer.parts.norms import RMSNorm
from polyformer.parts.pooling import POOLINGS, pooling
from polyformer.parts.positions import (
    OffsetPositions,
    RelativeKey,
    RelativeKeyQuery,
    SplitSinusoids,
    numbered_after_pad,
    relative_shift,
    waves,
)

F64 = torch.float64


def dense_attention(q, k, v, bias, mask, scale):
    """softmax over what may be seen, one query at a time."""
    out = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=q.dtype)
    weights = torch.zeros(*q.shape[:-1], k.shape[-2], dtype=q.dtype)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                seen = [j for j in range(k.shape[2]) if mask is None or mask[b, h, i, j]]
                if not seen:
                    continue
                scores = torch.stack([q[b, h, i] @ k[b, h, j] * scale for j in seen])
                if bias is not None:
                    scores = scores + bias[b, h, i, seen]
                p = scores.exp() / scores.exp().sum()
                weights[b, h, i, seen] = p
                out[b, h, i] = p @ v[b, h, seen]
    return out, weights


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attend(biased, masked, scale):
    q, k, v = torch.randn(2, 3, 4, 5, dtype=F64), torch.randn(2, 3, 6, 5, dtype=F64), torch.randn(2, 3, 6, 5, dtype=F64)
    bias = torch.randn(2, 3, 4, 6, dtype=F64) if biased else None
    mask = torch.rand(2, 3, 4, 6) > 0.4 if masked else None
    if masked:
        mask[0, 1, 2] = False  # a query with nothing to see
        mask[1] = False
    want, weights = dense_attention(q, k, v, bias, mask, 5**-0.5 if scale is None else scale)
    fast, none = attend(q, k, v, bias=bias, mask=mask, scale=scale)
    slow, p = attend(q, k, v, bias=bias, mask=mask, scale=scale, weights=True)
    called, _ = attend(q, k, v, bias=(lambda q, k: bias) if biased else None, mask=mask, scale=scale)
    assert none is None
    for got in (fast, slow, called):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(p, weights)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_a_query_with_nothing_to_see_gets_zeros_and_no_nan_gradient(weights, biased):
    q, k, v = (torch.randn(1, 1, 3, 4, dtype=F64, requires_grad=True) for _ in range(3))
    mask = torch.tensor([[[[True, True, False], [False, False, False], [False, True, True]]]])
    bias = torch.randn(1, 1, 3, 3, dtype=F64) if biased else None
    y, _ = attend(q, k, v, mask=mask, bias=bias, weights=weights)
    assert (y[0, 0, 1] == 0).all()
    y.sum().backward()
    for t in (q, k, v):
        assert t.grad.isfinite().all()
    assert (q.grad[0, 0, 1] == 0).all()


def test_causal_and_head_mask():
    q, k, v = torch.randn(3, 2, 2, 5, 4, dtype=F64)
    tril = torch.ones(5, 5, dtype=torch.bool).tril().expand(2, 2, 5, 5)
    want, weights = dense_attention(q, k, v, None, tril, 0.5)
    torch.testing.assert_close(attend(q, k, v, causal=True)[0], want)
    torch.testing.assert_close(attend(q, k, v, causal=True, weights=True)[1], weights)
    bias = torch.randn(2, 2, 5, 5, dtype=F64)
    torch.testing.assert_close(attend(q, k, v, causal=True, bias=bias)[0], dense_attention(q, k, v, bias, tril, 0.5)[0])
    factor = torch.tensor([0.0, 2.0], dtype=F64).view(1, 2, 1, 1)
    torch.testing.assert_close(attend(q, k, v, causal=True, head_mask=factor)[0], want * factor)


@pytest.mark.parametrize("weights", [False, True])
def test_attention_dropout_is_off_unless_training(weights):
    q, k, v = torch.randn(3, 2, 2, 5, 4)
    drop = nn.Dropout(0.5)
    drop.eval()
    assert torch.equal(attend(q, k, v, dropout=drop, weights=weights)[0], attend(q, k, v, weights=weights)[0])
    drop.train()
    mean = torch.stack([attend(q, k, v, dropout=drop, weights=weights)[0] for _ in range(3000)]).mean(0)
    torch.testing.assert_close(mean, attend(q, k, v)[0], atol=0.12, rtol=0)  # unbiased: four standard errors


@pytest.mark.parametrize("scheme", [RelativeKey, RelativeKeyQuery])
@pytest.mark.parametrize("queries", [6, 2])
def test_relative_positions(scheme, queries):
    """q_i . e(i - j) [+ k_j . e(i - j)], scaled; the last query stands at the last key."""
    positions = scheme(9, 4).double()
    q, k = torch.randn(1, 2, queries, 4, dtype=F64), torch.randn(1, 2, 6, 4, dtype=F64)
    got = positions(q, k)
    for h in range(2):
        for i in range(queries):
            for j in range(6):
                e = positions.distances.weight[(6 - queries + i) - j + 8]
                want = q[0, h, i] @ e + (k[0, h, j] @ e if scheme is RelativeKeyQuery else 0)
                torch.testing.assert_close(got[0, h, i, j], want / 2)


SHIFTS = [(5, 5, 1), (3, 7, 1), (4, 8, 2), (3, 5, 2), (1, 1, 1), (1, 2, 2)]


@pytest.mark.parametrize(("queries", "keys", "step"), SHIFTS)
@pytest.mark.parametrize("start", [0, 4, -1])
def test_relative_shift(queries, keys, step, start):
    """Query i stands at key start + step i: the score of each key is the product with the vector of that distance."""
    q = torch.randn(2, 3, queries, 6, dtype=F64)
    # one column for each distance that occurs, the largest first, and `step` more before them
    distances = start + step * queries - torch.arange(step * queries + keys)
    got = relative_shift(q @ waves(distances, 6, F64).T, keys, step)
    assert got.shape == (2, 3, queries, keys)
    for i in range(queries):
        for j in range(keys):
            angles = [(start + step * i - j) / 10000 ** (2 * k / 6) for k in range(3)]
            r = torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles], dtype=F64)
            torch.testing.assert_close(got[..., i, j], q[..., i, :] @ r)


def test_relative_shift_of_a_memory():
    """Transformer-XL's: columns for the distances from one more than the oldest key's down to 0, nothing later seen."""
    queries, keys = 3, 8
    scores = torch.randn(2, queries, keys + 1)
    got = relative_shift(scores, keys)
    for i in range(queries):
        here = keys - queries + i
        for j in range(here + 1):
            assert torch.equal(got[:, i, j], scores[:, i, keys - (here - j)])
    assert got.untyped_storage().data_ptr() == scores.untyped_storage().data_ptr()


def test_waves_are_worked_out_exactly_and_then_rounded():
    distances = torch.arange(3000, -3000, -7)
    want = waves(distances, 8, F64)
    assert torch.equal(waves(distances, 8, torch.bfloat16), waves(distances, 8, torch.float32).bfloat16())
    torch.testing.assert_close(waves(distances, 8, torch.float32).double(), want, atol=3e-4, rtol=0)


ROWS = st.lists(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=6, max_size=6), min_size=1, max_size=4)


@given(ROWS, st.integers(0, 4), st.booleans())
@settings(max_examples=200)
def test_positions_after_padding(rows, past, masked):
    """One token at a time: from pad + 1 on, past leading padding; the padding id takes none; a hole takes one."""
    pad = 1
    ids = torch.tensor([[number for number, _ in row] for row in rows])
    mask = torch.tensor([[seen for _, seen in row] for row in rows]) if masked else None
    layout = Layout.of((len(rows), 6 - past), mask, torch.device("cpu"), past=past)
    got = numbered_after_pad(layout, ids[:, past:], pad)
    got = layout.unpack(got) if layout.packing is not None else got.expand(len(rows), 6 - past)
    for i, row in enumerate(rows):
        begun, taken = False, 0
        for j, (number, seen) in enumerate(row):
            begun = begun or seen or not masked
            takes = begun and (j < past or number != pad)  # of what a cache holds only the number is known
            taken += takes
            if j >= past and (seen or not masked):
                assert got[i, j - past] == (pad + taken if takes else pad)


def test_dense_head():
    head = DenseHead(5, 4, 3, torch.tanh, 0.5).eval()
    x = torch.randn(2, 5)
    want = torch.tanh(x @ head.dense.weight.T + head.dense.bias) @ head.scores.weight.T + head.scores.bias
    torch.testing.assert_close(head(x), want)
    torch.testing.assert_close(head(x), head(x))
    assert not torch.allclose(head.train()(x), head(x))


def test_attention_is_the_textbook_s():
    attn = Attention(12, 3).double().eval()
    x = torch.randn(2, 5, 12, dtype=F64)
    w, b = attn.qkv.weight.chunk(3), attn.qkv.bias.chunk(3)
    heads = [F.linear(x, w[i], b[i]).view(2, 5, 3, 4).transpose(1, 2) for i in range(3)]
    want, _ = dense_attention(*heads, None, None, 0.5)
    layout = Layout.of((2, 5), None, x.device)
    torch.testing.assert_close(attn(x, layout), attn.out(want.transpose(1, 2).flatten(2)))


def test_a_scale_of_its_own():
    """As if queries, the first third of the projection, were longer by it."""
    x, source = torch.randn(2, 5, 12, dtype=F64), torch.randn(2, 4, 12, dtype=F64)
    layout = Layout.of((2, 5), None, x.device)
    own, cross = Attention(12, 3, scale=0.1).double().eval(), CrossAttention(12, 3, scale=0.1).double().eval()
    got = own(x, layout), cross(x, source, layout)
    with torch.no_grad():
        for linear, units in ((own.qkv, 12), (cross.q, 12)):
            linear.weight[:units] *= 0.2
            linear.bias[:units] *= 0.2
    own.scale = cross.scale = 0.5
    torch.testing.assert_close((own(x, layout), cross(x, source, layout)), got)


def test_blocks_by_hand():
    """Norms inside the residuals or after them; with attention to a source, or skipping it."""
    own, cross, ffn = Attention(12, 3).double(), CrossAttention(12, 3).double(), FeedForward(12, 20, F.relu).double()

    def norm():
        made = nn.LayerNorm(12).double()
        nn.init.normal_(made.weight)
        nn.init.normal_(made.bias)
        return made

    x, source = torch.randn(2, 5, 12, dtype=F64), torch.randn(2, 4, 12, dtype=F64)
    layout, across = Layout.of((2, 5), None, x.device, causal=True), Layout.of((2, 4), None, x.device)
    for kind in (PostNormBlock, PreNormBlock, PostNormCrossBlock, PreNormCrossBlock):
        crosses, pre = "Cross" in kind.__name__, "Pre" in kind.__name__
        block = kind(own, *([cross] if crosses else []), ffn, norm, 0.0)
        steps = [(lambda y: own(y, layout), block.attn_norm), (ffn, block.ffn_norm)]
        if crosses:
            torch.testing.assert_close(block(x, layout), by_hand(x, steps, pre))
            steps.insert(1, (lambda y: cross(y, source, across), block.cross_norm))
        got = block(x, layout, None, None, None, source, across)
        torch.testing.assert_close(got, by_hand(x, steps, pre))


def by_hand(x, steps, pre):
    for f, norm in steps:
        x = x + f(norm(x)) if pre else norm(x + f(x))
    return x


def test_placed_tokens_by_hand():
    embed = PlacedTokens(7, 5, 4, 0.0)
    ids, types, places = torch.tensor([[3, 6], [0, 1]]), torch.tensor([[2, 2], [5, 0]]), torch.tensor([[0, 4]])
    tokens, positions = embed.tokens.weight, embed.positions.weight
    for segments in (None, types):
        got, same = embed(ids, segments, places, None), embed(None, segments, places, embed.tokens(ids))
        assert torch.equal(got, same)
        for row in range(2):
            for i in range(2):
                want = tokens[ids[row, i]] + positions[places[0, i]]
                want = want if segments is None else want + tokens[types[row, i]]
                torch.testing.assert_close(got[row, i], want)


@pytest.mark.parametrize("vectors", [False, True])
def test_scaled_embeddings_by_hand(vectors):
    """norm(token * scale + position two rows on), token by token; vectors in place of ids are not scaled."""
    table, positions = token_table(9, 6, 0), OffsetPositions(5, 6)
    embed = ScaledEmbeddings(table, positions, nn.LayerNorm(6), 0.0, 3.0)
    assert positions.weight.shape == (7, 6)
    assert (table.weight[0] == 0).all()
    ids, given = torch.tensor([[4, 1, 8]]), torch.randn(1, 3, 6)
    got = embed(None if vectors else ids, torch.arange(3)[None], given if vectors else None)
    for i in range(3):
        own = given[0, i] if vectors else table.weight[ids[0, i]] * 3.0
        x = own + positions.weight[i + 2]
        torch.testing.assert_close(got[0, i], (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt())
    with pytest.raises(ValueError, match="pad_token_id 9 is outside of a vocabulary of 9 tokens"):
        token_table(9, 6, 9)


@pytest.mark.parametrize("width", [6, 7])
def test_split_sinusoids_by_hand(width):
    """Column i is the sine of rate 10000^(-2 i / width), the cosines come after all sines; read by number."""
    positions = SplitSinusoids(5, width)
    for place in range(5):
        angles = [place / 10000 ** (2 * i / width) for i in range((width + 1) // 2)]
        row = [*map(math.sin, angles), *map(math.cos, angles)][:width]
        torch.testing.assert_close(positions(torch.tensor([place]))[0], torch.tensor(row))
    assert not positions.state_dict()


def test_a_word_head_with_an_offset():
    """Added to the scores, untrained, in the file; cut or filled up with zeros where the vocabulary changes."""
    head = OffsetWordHead(4, 6)
    head.offset.copy_(torch.arange(6.0))
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(head(x), x @ head.decoder.weight.T + torch.arange(6.0))
    assert [name for name, _ in head.named_parameters()] == ["decoder.weight"]
    assert "offset" in head.state_dict()
    for words, kept in ((8, [0, 1, 2, 3, 4, 5, 0, 0]), (3, [0, 1, 2])):
        head.resize(words)
        assert head.offset.tolist() == [kept]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_explicit_attention_sums_in_single_precision(dtype):
    """Scores that half precision cannot tell apart, or hold."""
    q = torch.full((1, 1, 1, 64), 40.0, dtype=dtype)
    k = torch.full((1, 1, 3, 64), 40.0, dtype=dtype)
    k[0, 0, 1, 0] = 40.25
    v = torch.randn(1, 1, 3, 8, dtype=dtype)
    want, p = attend(q.float(), k.float(), v.float(), scale=1.0, weights=True)
    got, weights = attend(q, k, v, scale=1.0, weights=True)
    assert got.dtype == weights.dtype == dtype
    torch.testing.assert_close(weights.float(), p, rtol=0, atol=torch.finfo(dtype).eps)
    torch.testing.assert_close(got.float(), want, rtol=0, atol=4 * torch.finfo(dtype).eps)


def test_pruning_a_head_is_zeroing_its_output():
    for attn, args in (
        (Attention(12, 3).double().eval(), ()),
        (CrossAttention(12, 3).double().eval(), (torch.randn(2, 4, 12, dtype=F64),)),
    ):
        x = torch.randn(2, 5, 12, dtype=F64)
        layout = Layout.of((2, 5), None, x.device)
        args = (*args, layout) if args else (layout,)
        keep = torch.tensor([1.0, 0.0, 1.0], dtype=F64).view(1, 3, 1, 1)
        want = attn(x, *args, head_mask=keep)
        attn.prune([1])
        torch.testing.assert_close(attn(x, *args), want)
        attn.prune([1, 2])  # 1 is gone already; 2 keeps its number
        assert attn.heads == [0]
        with pytest.raises(ValueError, match="keep at least one"):
            attn.prune([0])


def test_activations():
    x = torch.linspace(-12, 12, 97, dtype=F64)
    phi = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    by_hand = {
        "gelu": x * phi,
        "gelu_10": (x * phi).clamp(-10, 10),
        "gelu_new": 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "gelu_fast": 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3))),
        "gelu_accurate": 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "relu6": x.clamp(0, 6),
        "tanh": (1 - torch.exp(-2 * x)) / (1 + torch.exp(-2 * x)),
        "sigmoid": 1 / (1 + torch.exp(-x)),
        "quick_gelu": x / (1 + torch.exp(-1.702 * x)),
        "relu": x.clamp(min=0),
        "silu": x / (1 + torch.exp(-x)),
        "mish": x * torch.tanh(torch.log1p(torch.exp(x))),
        "linear": x,
    }
    for name, want in by_hand.items():
        torch.testing.assert_close(ACTIVATIONS[name](x), want, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_an_activation_with_dropout():
    """Of what comes out of it, unbiased, in training only."""
    act, x = Dropped(F.gelu, 0.25), torch.ones(40000)
    kept = act(x) / F.gelu(x)
    assert set(kept.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    assert abs(kept.mean() - 1) < 0.02  # seven standard errors
    assert torch.equal(act.eval()(x), F.gelu(x))


@pytest.mark.parametrize("chunk", [1, 3, 7, 50])
def test_chunked_feed_forward(chunk):
    torch.manual_seed(1)
    whole, chunked = FeedForward(6, 10, F.gelu).double(), ChunkedFeedForward(6, 10, F.gelu, chunk).double()
    chunked.load_state_dict(whole.state_dict())
    for shape in ((2, 7, 6), (11, 6)):
        x = torch.randn(shape, dtype=F64)
        torch.testing.assert_close(chunked(x), whole(x))


# ---- poolings --------------------------------------------------------------------------------------------------------


def pooled_by_hand(name, module, states, real, layers):
    """Each formula for one row, on its real tokens only."""
    rows = []
    for b in range(states.shape[0]):
        own = [states[b, t] for t in range(states.shape[1]) if real[b, t]]
        first = [next(layer[b, t] for t in range(states.shape[1]) if real[b, t]) for layer in layers]
        n = len(own)
        if name == "cls":
            row = torch.tanh(module.dense.weight @ own[0] + module.dense.bias)
        elif name == "attention":
            query = module.query.weight @ sum(own) + module.query.bias
            p = torch.stack([query @ h / math.sqrt(len(query)) for h in own]).softmax(0)
            row = sum(p[i] * own[i] for i in range(n))
        elif name == "mean":
            row = sum(own) / n
        elif name == "mean_sqrt":
            row = sum(own) / math.sqrt(n)
        elif name == "max":
            row = torch.stack(own).max(0).values
        elif name == "last":
            row = own[-1]
        elif name == "last4_cls":
            row = torch.cat(first[-4:])
        else:
            share = module.layer_weights.softmax(0)
            row = sum(
                share[i] * sum(layer[b, t] for t in range(states.shape[1]) if real[b, t]) / n
                for i, layer in enumerate(layers)
            )
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings(name):
    layers = [torch.randn(4, 6, 8, dtype=F64) for _ in range(5)]
    module = pooling(name, 8, 4).double()
    if name == "weighted_layers":
        nn.init.normal_(module.layer_weights)
    real = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 1, 1, 0, 1, 0]]).bool()
    want = pooled_by_hand(name, module, layers[-1], real, layers)
    got = module(layers[-1], real, layers)
    assert got.shape == (4, module.out_width)
    torch.testing.assert_close(got, want)
    whole = module(layers[-1], None, layers)
    torch.testing.assert_close(whole, module(layers[-1], torch.ones(4, 6).bool(), layers))


@pytest.mark.parametrize("name", ["last4_cls", "weighted_layers"])
def test_poolings_of_layers_that_differ_in_length(name):
    """Each layer on its own tokens: as if every one were shortened to the row's before."""
    lengths = (6, 6, 4, 2, 2)
    layers = [torch.randn(3, length, 8, dtype=F64) for length in lengths]
    module = pooling(name, 8, 4).double()
    if name == "weighted_layers":
        nn.init.normal_(module.layer_weights)
    counts = [(6, 4, 1), (6, 4, 1), (4, 3, 1), (2, 1, 1), (2, 1, 1)]
    real = [torch.arange(n) < torch.tensor(own)[:, None] for n, own in zip(lengths, counts, strict=True)]
    got = module.mix(layers, real)
    for row in range(3):
        own = [layer[row, : count[row]] for layer, count in zip(layers, counts, strict=True)]
        want = torch.cat([x[0] for x in own[-4:]])
        if name == "weighted_layers":
            share = module.layer_weights.softmax(0)
            want = sum(share[i] * sum(x) / len(x) for i, x in enumerate(own))
        torch.testing.assert_close(got[row], want)


# ---- losses ----------------------------------------------------------------------------------------------------------


def nll(logits, label):
    return torch.logsumexp(logits, 0) - logits[label]


def test_token_losses_by_hand():
    logits = torch.randn(2, 4, 5, dtype=F64)
    labels = torch.tensor([[1, -100, 3, 0], [4, 2, 2, 2]])
    real = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    counted = [(0, 0), (0, 2), (0, 3), (1, 0), (1, 1)]
    want = sum(nll(logits[b, t], labels[b, t]) for b, t in counted) / len(counted)
    torch.testing.assert_close(losses.token_loss(logits, labels, real), want)
    shifted = [(0, 1), (0, 2), (1, 0)]  # t predicts t + 1, where that is a real token with a label
    want = sum(nll(logits[b, t], labels[b, t + 1]) for b, t in shifted) / len(shifted)
    torch.testing.assert_close(losses.next_token_loss(logits, labels, real), want)
    left = losses.next_token_loss(logits.roll(2, 1)[1:], labels.roll(2, 1)[1:], real.flip(1)[1:])
    torch.testing.assert_close(left, nll(logits[1, 0], labels[1, 1]))  # a pad does not predict the first token


def test_replaced_loss_by_hand():
    """Padding and tokens without a label are left out."""
    logits = torch.tensor([[0.0, 2.0, -1.0, 5.0]], dtype=F64)
    labels = torch.tensor([[1, 0, losses.IGNORE, 1]])
    real = torch.tensor([[True, True, True, False]])
    want = (math.log(2) + math.log(1 + math.exp(2.0))) / 2
    assert abs(losses.replaced_loss(logits, labels, real) - want) < 1e-12
    with pytest.raises(ValueError, match="labels contain 2, but only 0 to 1"):
        losses.replaced_loss(logits, labels * 0 + 2, None)


def test_span_loss_by_hand():
    start, end = torch.randn(2, 3, 4, dtype=F64)
    starts, ends = torch.tensor([0, 3, 4]), torch.tensor([[1], [9], [2]])  # 4 and 9 were cut off
    want = (nll(start[0], 0) + nll(start[1], 3)) / 2 + (nll(end[0], 1) + nll(end[2], 2)) / 2
    torch.testing.assert_close(losses.span_loss(start, end, starts, ends), want / 2)


def test_sequence_losses_by_hand():
    logits = torch.randn(3, 2, dtype=F64)
    labels = torch.tensor([1, 0, 1])
    want = sum(nll(logits[i], labels[i]) for i in range(3)) / 3
    torch.testing.assert_close(losses.sequence_loss(logits, labels, None), want)
    many = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    p = torch.sigmoid(logits)
    want = -(many * p.log() + (1 - many) * (1 - p).log()).mean()
    torch.testing.assert_close(losses.sequence_loss(logits, many, None), want)
    torch.testing.assert_close(losses.sequence_loss(logits, many.long(), "multi_label_classification"), want)
    one, target = torch.randn(3, 1, dtype=F64), torch.randn(3)
    want = sum((one[i, 0] - target[i]) ** 2 for i in range(3)) / 3
    torch.testing.assert_close(losses.sequence_loss(one, target, None), want)
    torch.testing.assert_close(losses.sequence_loss(one, target[:, None], "regression"), want)
    with pytest.raises(ValueError, match="problem_type is 'ranking'"):
        losses.sequence_loss(logits, many, "ranking")
    with pytest.raises(ValueError, match=r"regression with 2 outputs wants \(3, 2\)"):
        losses.sequence_loss(logits, target, "regression")


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "relu", "silu", "mish", "quick_gelu"])
def test_the_activation_writes_over_inner_states_only_where_nobody_sees_them(name):
    from polyformer.parts.feedforward import activation

    ffn = FeedForward(6, 10, activation(name)).double()
    x = torch.randn(3, 4, 6, dtype=F64)
    want = ffn.down(ACTIVATIONS[name](ffn.up(x)))
    before = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(ffn(x), want)
        seen = []
        handle = ffn.up.register_forward_hook(lambda module, args, y: seen.append(y))
        torch.testing.assert_close(ffn(x), want)
        torch.testing.assert_close(seen[0], F.linear(x, ffn.up.weight, ffn.up.bias))  # what a hook kept is whole
        handle.remove()
        kept = torch.randn(3, 4, 10, dtype=F64)

        class Fixed(nn.Module):
            def forward(self, x):
                return kept

        ffn.up, old, copy = Fixed(), ffn.up, kept.clone()
        ffn(x)
        assert torch.equal(kept, copy)  # what another module gives may be its own
        ffn.up = old
    torch.testing.assert_close(ffn(x), want)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rms_norm_by_hand_with_gradients_and_without(dtype):
    """x / sqrt(mean of squares + eps) * weight; a row of zeros stays one."""
    norm = RMSNorm(7, 1e-6).to(dtype)
    with torch.no_grad():
        norm.weight.normal_()
    x = torch.randn(2, 5, 7, dtype=dtype)
    x[1, 3] = 0
    wide = x.double()
    want = wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight.double()
    tol = {torch.float32: 1e-6, torch.float64: 1e-12, torch.bfloat16: 2e-2}[dtype]
    before = x.clone()
    torch.testing.assert_close(norm(x).double(), want, rtol=tol, atol=tol)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(norm(x).double(), want, rtol=tol, atol=tol)
    assert torch.equal(x, before)
