"""Windows and global tokens against their definition, a query and a key at a time; and that they cost what they say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from polyformer.parts import window
from polyformer.parts.layout import Layout
from polyformer.parts.window import Globals, Span, WindowAttention, WindowLayout, WindowTaps, attend_window

F64 = torch.float64


def softmax(scores):
    e = (scores - scores.max()).exp()
    return e / e.sum()


def by_hand(attn, x, real, marked):
    """One sequence (length, width): what each real token gets, and its weights on every token, (heads, length, length).

    real, marked: lists of bool, which tokens are no padding and which are global.
    """
    length, heads, dim = len(x), len(attn.heads), attn.dim
    q, k, v = (attn.qkv(x)).view(length, 3, heads, dim).unbind(1)
    q_global = attn.q_global(x).view(length, heads, dim)
    k_global, v_global = attn.kv_global(x).view(length, 2, heads, dim).unbind(1)
    mixed, weights = torch.zeros(length, heads, dim, dtype=x.dtype), torch.zeros(heads, length, length, dtype=x.dtype)
    for i in range(length):
        if not real[i]:
            continue
        near = [j for j in range(length) if real[j] and (marked[i] or marked[j] or abs(i - j) <= attn.reach)]
        queries, keys, values = (q_global, k_global, v_global) if marked[i] else (q, k, v)
        for h in range(heads):
            p = softmax(torch.stack([queries[i, h] @ keys[j, h] * dim**-0.5 for j in near]))
            mixed[i, h] = p @ values[near, h]
            weights[h, i, near] = p
    return attn.out(mixed.flatten(1)), weights


def layer(reach, heads=2, dim=3, dropout=0.0):
    attn = WindowAttention(heads * dim, heads, reach, dropout).double()
    for p in attn.parameters():
        nn.init.normal_(p, std=0.6)
    return attn.eval()


def layout_of(real, marked, packable=False):
    shape = (real.shape[0], real.shape[1])
    mask = None if bool(real.all()) else real
    layout = Layout.of(shape, mask, real.device, packable=packable)
    return WindowLayout.around(layout, marked, shape, 0)


def random_batch(lengths, longest, globals_each, width, side="right"):
    rows = len(lengths)
    real = torch.zeros(rows, longest, dtype=torch.bool)
    marked = torch.zeros_like(real)
    for row, length in enumerate(lengths):
        first = longest - length if side == "left" else 0
        real[row, first : first + length] = True
        count = min(globals_each[row % len(globals_each)], length)
        marked[row, first + torch.randperm(length)[:count]] = True
    return torch.randn(rows, longest, width, dtype=F64), real, marked


ROUTES = ("chunk by chunk", "all chunks", "packed")


def run(attn, x, real, marked, route, monkeypatch, chunk=4):
    monkeypatch.setattr(window, "CHUNK", chunk)
    if route == "all chunks":
        monkeypatch.setattr(window, "_chunk_by_chunk", lambda *args: window._all_chunks(*args, None, False)[0])
    layout = layout_of(real, marked, packable=route == "packed")
    assert (layout.packing is None) != (route == "packed" and not bool(real.all()))
    return layout.unpack(attn(layout.pack(x), layout))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("globals_each", [(0,), (1,), (3, 0, 1), (13,)], ids=str)
@pytest.mark.parametrize(("reach", "chunk"), [(1, 1), (2, 4), (3, 2), (5, 3), (30, 4)])
def test_against_the_definition(route, side, globals_each, reach, chunk, monkeypatch):
    """Lengths below, at and past chunk and window edges; globals none, few (folded), and more than a head is wide."""
    attn = layer(reach)
    x, real, marked = random_batch((13, 9, 1, 12), 14, globals_each, 6, side)
    with torch.no_grad():
        got = run(attn, x, real, marked, route, monkeypatch, chunk)
        for row in range(len(x)):
            want, _ = by_hand(attn, x[row], real[row].tolist(), marked[row].tolist())
            torch.testing.assert_close(got[row][real[row]], want[real[row]], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("globals_each", [(0,), (2, 1), (9,)], ids=str)
def test_gradients_against_the_definition(route, globals_each, monkeypatch):
    attn = layer(2)
    x, real, marked = random_batch((11, 6), 11, globals_each, 6)
    signal = torch.randn(2, 11, 6, dtype=F64).masked_fill(~real[:, :, None], 0)
    found = []
    for how in ("by hand", route):
        attn.zero_grad()
        leaf = x.clone().requires_grad_()
        if how == "by hand":
            y = torch.stack([by_hand(attn, leaf[r], real[r].tolist(), marked[r].tolist())[0] for r in range(2)])
        else:
            y = run(attn, leaf, real, marked, how, monkeypatch)
        y.backward(signal)
        found.append({"x": leaf.grad[real]} | {n: p.grad for n, p in attn.named_parameters() if p.grad is not None})
    want, got = found
    for name in got:
        torch.testing.assert_close(got[name], want[name], rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    idle = want.keys() - got.keys()
    assert all(name.startswith(("q_global", "kv_global")) and (want[name] == 0).all() for name in idle)


@pytest.mark.parametrize("globals_each", [(0,), (2, 1, 0), (7,)], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_weights_against_the_definition(globals_each, masked, monkeypatch):
    """Columns: the global tokens, then from `reach` before the query to `reach` after it; a head mask scales them."""
    monkeypatch.setattr(window, "CHUNK", 4)
    reach, heads = 2, 2
    attn = layer(reach)
    x, real, marked = random_batch((10, 7, 8), 10, globals_each, 6)
    layout = layout_of(real, marked)
    taps = WindowTaps(layout, hidden_states=False, attentions=True)
    factor = torch.tensor([0.5, 2.0], dtype=F64).view(1, 2, 1, 1) if masked else None
    with torch.no_grad():
        attn(x, layout, None, factor, taps)
        places = int(marked.sum(1).max())
        (p,) = taps.attentions
        assert p.shape == (3, heads, 10, places + 2 * reach + 1)
        from_globals = taps.global_weights(16)
        assert (from_globals is None) == (places == 0)
        for row in range(3):
            _, dense = by_hand(attn, x[row], real[row].tolist(), marked[row].tolist())
            dense = dense if factor is None else dense * factor[0]
            where = marked[row].nonzero().flatten().tolist()
            want = torch.zeros(heads, 10, places + 2 * reach + 1, dtype=F64)
            for i in range(10):
                if marked[row, i]:
                    continue
                want[:, i, : len(where)] = dense[:, i, where]
                for offset in range(2 * reach + 1):
                    j = i + offset - reach
                    if 0 <= j < 10 and not marked[row, j]:
                        want[:, i, places + offset] = dense[:, i, j]
            torch.testing.assert_close(p[row][:, real[row]], want[:, real[row]], rtol=1e-10, atol=1e-12)
            if places:
                seen = from_globals[0][row]
                assert seen.shape == (heads, 10, places)
                torch.testing.assert_close(seen[:, :, : len(where)], dense[:, where].mT, rtol=1e-10, atol=1e-12)
                assert (seen[:, :, len(where) :] == 1 / 16).all()


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=4), st.integers(0, 8))
@settings(max_examples=200)
def test_places_of_global_tokens(marks, places):
    """In order, each once; with too few places the first of them; put is the inverse of pick."""
    marked = torch.tensor(marks)
    counted = Globals.of(marked)
    most = max(sum(row) for row in marks)
    assert (counted.places if counted else 0) == most
    for found in (counted, Globals.of(marked, places)):
        if found is None:
            continue
        assert found.index.shape == found.taken.shape == (len(marks), found.places)
        for row, index, taken in zip(marks, found.index.tolist(), found.taken.tolist(), strict=True):
            want = [j for j, mark in enumerate(row) if mark][: found.places]
            assert [j for j, t in zip(index, taken, strict=True) if t] == want
    if counted is not None:
        x, y = torch.randn(len(marks), 7, 3), torch.randn(len(marks), 7, 3)
        want = torch.where(marked[:, :, None], y, x)
        assert torch.equal(counted.put(x, counted.pick(y)), want)
        with torch.no_grad():
            assert torch.equal(counted.put(x, counted.pick(y)), want)


def test_the_two_ways_from_a_global_token_agree_in_training():
    """With dropout and a head mask the weights no longer sum to one: the bias of the values feels it either way."""
    attn = layer(2, dim=4, dropout=0.4).train()
    x, real, marked = random_batch((9, 8), 9, (2,), 8)
    layout = layout_of(real, marked)
    found = layout.spans[0].globals
    factor = torch.tensor([0.5, 3.0], dtype=F64).view(1, 2, 1, 1)
    results = []
    for places in (2, 4):  # 4 = dim: the text is projected
        padded = Globals(
            found.marked, *(nn.functional.pad(t, (0, places - 2)) for t in (found.index, found.taken)), places
        )
        kept = torch.zeros(2, 2, places, 9)
        kept[:, :, :2] = torch.rand(2, 2, 2, 9, generator=torch.Generator().manual_seed(1)) > 0.4

        def dropped(p, rate, training, kept=kept):
            return p * kept.view(p.shape) / (1 - rate)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("polyformer.parts.attend.F.dropout", dropped)
            y, _ = attn._from_globals(x, padded, real, factor, True)
        results.append(y[:, :2])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("route", ROUTES)
def test_dropout_drops_in_training_only(route, monkeypatch):
    attn = layer(2, dropout=0.5)
    x, real, marked = random_batch((10, 7), 10, (2,), 6)
    assert torch.equal(*(run(attn, x, real, marked, route, monkeypatch) for _ in range(2)))
    attn.train()
    assert not torch.allclose(*(run(attn, x, real, marked, route, monkeypatch) for _ in range(2)))


def test_no_array_grows_with_the_square_of_the_length():
    """The largest array that any operation makes: four times as long a text, four times as large, on either route."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple | list) else (out,):
                if isinstance(t, torch.Tensor):
                    self.size = max(self.size, t.untyped_storage().nbytes())
            return out

    attn = layer(8).float()
    for weights in (False, True):
        sizes = []
        for length in (512, 2048):
            marked = torch.zeros(1, length, dtype=torch.bool)
            marked[0, [0, 5]] = True
            layout = layout_of(torch.ones_like(marked), marked)
            taps = WindowTaps(layout, hidden_states=False, attentions=weights)
            with torch.no_grad(), Largest() as largest:
                attn(torch.randn(1, length, 6), layout, None, None, taps)
            sizes.append(largest.size)
        assert sizes[1] <= 4.1 * sizes[0]


def test_short_texts_need_no_mask(monkeypatch):
    """Where the window shows everything, the kernel gets the plain attention of a whole text."""
    asked = []
    real_attend = window.attend

    def spy(*args, **options):
        asked.append((args[0].shape[2], args[1].shape[2], options.get("mask")))
        return real_attend(*args, **options)

    monkeypatch.setattr(window, "attend", spy)
    q, k, v = torch.randn(3, 2, 40, 2, 4)
    attend_window(q, k, v, Span(0, 2, 40, None, None), 39)
    assert asked == [(40, 40, None)]


def test_pruning_is_zeroing():
    attn = layer(2, heads=3)
    x, real, marked = random_batch((9, 5), 9, (1,), 9)
    layout = layout_of(real, marked)
    with torch.no_grad():
        want = attn(x, layout, None, torch.tensor([1.0, 0.0, 1.0], dtype=F64).view(1, 3, 1, 1))
        attn.prune([1])
        assert (attn.q_global.out_features, attn.kv_global.out_features) == (6, 12)
        torch.testing.assert_close(attn(x, layout)[real], want[real])
        attn.prune([0])
        assert attn.heads == [2]


def test_a_wrapped_projection_is_called():
    """Few global tokens fold the text's projection away, but not one that somebody hooked or put in its place."""
    attn = layer(2, dim=4)
    x, real, marked = random_batch((9, 8), 9, (2,), 8)
    layout, calls = layout_of(real, marked), []
    with torch.no_grad():
        want = attn(x, layout)
        handle = attn.kv_global.register_forward_hook(lambda *_: calls.append(1))
        torch.testing.assert_close(attn(x, layout), want)
        handle.remove()
        attn.kv_global = nn.Sequential(attn.kv_global)
        torch.testing.assert_close(attn(x, layout), want)
    assert calls == [1]
