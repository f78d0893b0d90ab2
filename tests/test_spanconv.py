"""Span-based dynamic convolution against its definition, a token, a tap and a kernel at a time; packed or padded."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from polyformer.parts.layout import Layout
from polyformer.parts.spanconv import SpacedLayout, SpanConv, slide

F64 = torch.float64
WIDTH, HEADS, DIM = 5, 2, 3


def made(taps):
    conv = SpanConv(WIDTH, HEADS, DIM, taps).double()
    for p in conv.parameters():
        nn.init.normal_(p, std=0.6)
    return conv


def by_hand(conv, x, q, real):
    """One sequence x (length, width), q (length, heads * dim); real: list of bool, which tokens there are."""
    before, length = (conv.taps - 1) // 2, len(x)

    def read(rows, i):
        return rows[i] if 0 <= i < length and real[i] else torch.zeros_like(rows[0])

    values = torch.stack([conv.value.weight @ row + conv.value.bias for row in x])
    y = torch.zeros(length, HEADS, DIM, dtype=x.dtype)
    for i in range(length):
        near = [i + tap - before for tap in range(conv.taps)]
        span = sum(conv.depthwise[tap] * read(x, j) for tap, j in enumerate(near))
        key = conv.pointwise.weight @ span + conv.pointwise.bias
        scores = (conv.kernel.weight @ (q[i] * key) + conv.kernel.bias).view(HEADS, conv.taps)
        for h in range(HEADS):
            kernel = scores[h].exp() / scores[h].exp().sum()
            y[i, h] = sum(kernel[tap] * read(values, j)[h * DIM : (h + 1) * DIM] for tap, j in enumerate(near))
    return y.flatten(1)


def layout_of(real, taps, packable):
    layout = Layout.of(tuple(real.shape), real.long(), real.device, packable=packable)
    return SpacedLayout.around(layout, taps)


def random_batch(lengths, longest, side):
    real = torch.zeros(len(lengths), longest, dtype=torch.bool)
    for row, n in enumerate(lengths):
        real[row, longest - n if side == "left" else 0 :][:n] = True
    shape = (len(lengths), longest)
    return torch.randn(*shape, WIDTH, dtype=F64), torch.randn(*shape, HEADS * DIM, dtype=F64), real


def run(conv, x, q, real, packable):
    layout = layout_of(real, conv.taps, packable)
    return layout.unpack(conv(layout.pack(x), layout.pack(q), layout))


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=5),
    st.integers(1, 9),
    st.sampled_from(["right", "left"]),
    st.booleans(),
)
@settings(max_examples=60)
def test_the_definition(lengths, taps, side, packable):
    """Any number of taps, even or wider than the text; padding on either side; rows without a token."""
    conv = made(taps)
    x, q, real = random_batch(lengths, max([*lengths, 1]) + 2, side)
    with torch.no_grad():
        got = run(conv, x, q, real, packable)
        for row in range(len(lengths)):
            want = by_hand(conv, x[row], q[row], real[row].tolist())
            torch.testing.assert_close(got[row][real[row]], want[real[row]], rtol=1e-11, atol=1e-11)


def test_a_hole_keeps_its_place_and_is_not_read():
    conv = made(3)
    x, q, real = random_batch([7, 7], 7, "right")
    real[0, 3] = False
    with torch.no_grad():
        got = run(conv, x, q, real, True)
        want = by_hand(conv, x[0], q[0], real[0].tolist())
        torch.testing.assert_close(got[0][real[0]], want[real[0]], rtol=1e-11, atol=1e-11)
        x[0, 3] = 1e6
        assert torch.equal(run(conv, x, q, real, True)[0][real[0]], got[0][real[0]])


def test_a_token_reads_as_far_as_its_kernel():
    conv = made(4)  # one before, two after
    x, q, real = random_batch([9], 9, "right")
    with torch.no_grad():
        before = run(conv, x, q, real, True)
        for j in range(9):
            moved = x.clone()
            moved[0, j] += 1
            changed = (run(conv, moved, q, real, True) - before).abs().amax(-1)[0] > 1e-12
            assert changed.tolist() == [i - 1 <= j <= i + 2 for i in range(9)]


@pytest.mark.parametrize("side", ["right", "left"])
def test_gradients_packed_are_those_padded(side):
    conv = made(5)
    x, q, real = random_batch([6, 1, 4, 4], 8, side)
    found = []
    for packable in (True, False):
        inputs = [t.clone().requires_grad_() for t in (x, q)]
        y = run(conv, *inputs, real, packable)
        pull = torch.arange(y[real].numel(), dtype=F64).cos().view_as(y[real])
        found.append(torch.autograd.grad((y[real] * pull).sum(), [*inputs, *conv.parameters()]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_gradients_are_those_of_the_definition():
    conv = made(3)
    x, q, real = random_batch([4], 4, "right")
    inputs = [t.requires_grad_() for t in (x, q)]
    assert torch.autograd.gradcheck(lambda x, q: run(conv, x, q, real, True), inputs)
    pull = torch.randn(4, HEADS * DIM, dtype=F64)
    got = torch.autograd.grad((run(conv, x, q, real, True)[0] * pull).sum(), [*inputs, *conv.parameters()])
    want = torch.autograd.grad((by_hand(conv, x[0], q[0], [True] * 4) * pull).sum(), [*inputs, *conv.parameters()])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_slide():
    x, weights = torch.randn(2, 6, 3), torch.randn(3, 2, 4, 3)
    want = torch.stack([sum(weights[t][:, i] * x[:, i + t] for t in range(3)) for i in range(4)], 1)
    torch.testing.assert_close(slide(x, weights.unbind()), want)
    torch.testing.assert_close(slide(x, [torch.ones(3)]), x)


def test_a_packed_batch_is_one_line_with_gaps():
    x = torch.arange(1.0, 7.0).view(6, 1)
    real = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]]).bool()
    layout = layout_of(real, 3, True)  # sequences by length: one token, two, three
    assert layout.spaced(x).flatten().tolist() == [0, 1, 0, 0, 2, 3, 0, 0, 4, 5, 6, 0, 0, 0]
    assert torch.equal(layout.gathered(layout.lined_up(x)), x)
