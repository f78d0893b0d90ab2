"""Local and hashed attention in chunks against their definitions; steps from a memory; grid positions."""

import pytest
import torch
from torch import nn

from polyformer.parts.axial import GridPositions
from polyformer.parts.buckets import BucketMemory, BucketState, Tape
from polyformer.parts.chunks import ChunkLayout, LocalAttention, Reach, attend_local
from polyformer.parts.lsh import HashedAttention, Hashing, attend_hashed, bucket_counts, hashed, rotations

HEADS, DIM = 2, 4
REACHES = [Reach(3, 1, 0), Reach(3, 0, 0), Reach(3, 1, 1), Reach(3, 2, 1)]
LENGTHS = (11, 2, 7, 12)


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def seen_of(lengths, side, total):
    column = torch.arange(total)
    rows = [column < n if side == "right" else column >= total - n for n in lengths]
    return torch.stack(rows)


def layout_of(lengths, side, sizes, **how):
    total = max(lengths) + 2
    seen = seen_of(lengths, side, total)
    return ChunkLayout.of(total, seen, sizes, torch.device("cpu"), **how), seen


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


# ---- the definitions -------------------------------------------------------------------------------------------------


def turn(chunk, offset, count):
    return [(chunk + offset) % count] if count > 1 or offset == 0 else []


def local_by_hand(q, k, v, reach, size, causal):
    """One text and head, q k v (length, dim); chunks of the text filled up to multiples of `size`."""
    length = len(q)
    count = max(-(-length // size) * size // reach.size, 1)
    found = []
    for i in range(length):
        chunks = [c for o in range(-reach.before, reach.after + 1) for c in turn(i // reach.size, o, count)]
        keys = [j for c in chunks for j in range(c * reach.size, (c + 1) * reach.size) if j < length]
        keys = [j for j in keys if j <= i or not causal]
        weights = torch.stack([q[i] @ k[j] for j in keys]).softmax(0)
        found.append(sum(w * v[j] for w, j in zip(weights, keys, strict=True)))
    return torch.stack(found)


def hashed_by_hand(q, k, v, buckets, reach, size, causal):
    """One text and head, buckets (rounds, length): one softmax over all that any round shows."""
    length = len(q)
    filled = -(-length // size) * size if length > size else length
    order = []
    for row in buckets.tolist():
        order += sorted(range(length), key=lambda j: (row[j], j)) + [None] * (filled - length)
    width = min(reach.size, filled)
    count = len(order) // width
    if filled <= reach.size:
        order, count = order[:filled], 1
    found = []
    for i in range(length):
        keys = []
        for place, token in enumerate(order):
            if token == i:
                for offset in range(-reach.before, reach.after + 1):
                    for c in turn(place // width, offset, count):
                        keys += order[c * width : (c + 1) * width]
        keys = [j for j in keys if j is not None and (j <= i or not causal)]
        scores = [q[i] @ k[j] if j != i else q[0, 0] * 0 - 1e5 for j in keys]
        weights = torch.stack(scores).softmax(0)
        found.append(sum(w * v[j] for w, j in zip(weights, keys, strict=True)))
    return torch.stack(found)


def each_text(by_hand, tensors, seen, heads=HEADS):
    """The definition for every row and head, where it stands in the batch: (rows, columns, heads, dim)."""
    rows = []
    for i, real in enumerate(seen):
        alone = [by_hand(i, h, *(t[i, real, h] for t in tensors)) for h in range(heads)]
        rows.append(torch.stack(alone, 1))
    return rows


# ---- attention -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("reach", REACHES, ids=str)
@pytest.mark.parametrize("side", ["right", "left"])
def test_local_attention(reach, causal, side):
    """Texts of different lengths side by side: each as if it were alone, gradients too."""
    sizes = (3, 6)
    layout, seen = layout_of(LENGTHS, side, sizes, causal=causal)
    tensors = [random(len(LENGTHS), layout.total, HEADS, DIM) for _ in range(3)]
    y, weights = attend_local(*(layout.align(t) for t in tensors), layout, reach, weights=True)
    fast, none = attend_local(*(layout.align(t) for t in tensors), layout, reach)
    assert none is None
    assert weights.shape == (4, HEADS, layout.slots // 3, 3, 3 * reach.near)
    got = layout.restore(y)[:, : layout.total]
    close(layout.restore(fast)[:, : layout.total][seen], got[seen])

    def by_hand(i, h, q, k, v):
        return local_by_hand(q / DIM**0.5, k, v, reach, 6 if len(q) > 3 else len(q), causal)

    rows = each_text(by_hand, tensors, seen)
    close(got[seen], torch.cat(rows))
    pull = torch.randn_like(got[seen])
    close(
        torch.autograd.grad((got[seen] * pull).sum(), tensors),
        torch.autograd.grad((torch.cat(rows) * pull).sum(), tensors),
    )


@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("reach", REACHES, ids=str)
@pytest.mark.parametrize("side, rounds", [("left", 1), ("right", 2), ("left", 2)])
def test_hashed_attention(reach, rounds, causal, side):
    layout, seen = layout_of(LENGTHS, side, (3,), causal=causal, rounds=rounds)
    q, v = (random(len(LENGTHS), layout.total, HEADS, DIM) for _ in range(2))
    k = q / q.square().mean(-1, keepdim=True).add(1e-6).sqrt() / DIM**0.5
    buckets = torch.randint(0, 4, (len(LENGTHS), HEADS, rounds, layout.total))
    by_slot = layout.align(buckets.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    aligned = [layout.align(t) for t in (q, v)]
    y, weights = attend_hashed(*aligned, by_slot, layout, reach, weights=True)
    assert weights.shape == (4, HEADS, rounds * layout.slots // 3, 3, 3 * reach.near)
    got = layout.restore(y)[:, : layout.total]
    with torch.no_grad():  # some chunks at a time
        fast, _ = attend_hashed(*aligned, by_slot, layout, reach)
        close(layout.restore(fast)[:, : layout.total][seen], got[seen])

    def by_hand(i, h, q, k, v):
        return hashed_by_hand(q, k, v, buckets[i, h][:, seen[i]], reach, 3, causal)

    rows = torch.cat(each_text(by_hand, (q, k, v), seen))
    close(got[seen], rows)
    pull = torch.randn_like(rows)
    found = torch.autograd.grad((got[seen] * pull).sum(), (q, v), retain_graph=True)  # keys are shared
    close(found, torch.autograd.grad((rows * pull).sum(), (q, v)))


def test_blocks_of_chunks_are_all_chunks(monkeypatch):
    layout = ChunkLayout.of(24, None, (3,), torch.device("cpu"), rounds=2)
    q, v = (random(2, 24, HEADS, DIM) for _ in range(2))
    buckets = torch.randint(0, 4, (2, HEADS, 2, 24))
    want, _ = attend_hashed(q, v, buckets, layout, Reach(3, 1, 0))
    for block in (1, 200, 500):
        monkeypatch.setattr("polyformer.parts.lsh.BLOCK", block)
        with torch.no_grad():
            close(attend_hashed(q, v, buckets, layout, Reach(3, 1, 0))[0], want)


def test_a_token_sees_itself_only_where_it_sees_nothing_else():
    """Single precision too, where such scores leave no room for their logarithms."""
    layout = ChunkLayout.of(6, None, (3,), torch.device("cpu"), causal=True, rounds=2)
    q, v = torch.randn(1, 6, 1, DIM), torch.randn(1, 6, 1, DIM)
    y, _ = attend_hashed(q, v, torch.zeros(1, 1, 2, 6, dtype=torch.long), layout, Reach(3, 1, 0))
    torch.testing.assert_close(y[:, 0], v[:, 0])
    torch.testing.assert_close(y[:, 1], v[:, 0])


def test_a_head_mask_scales_heads():
    layout = ChunkLayout.of(9, None, (3,), torch.device("cpu"))
    q, v = random(2, 9, HEADS, DIM), random(2, 9, HEADS, DIM)
    mask = torch.tensor([0.5, 2.0], dtype=torch.float64).view(1, HEADS, 1, 1)
    buckets = torch.randint(0, 4, (2, HEADS, 1, 9))
    for run in (
        lambda **how: attend_hashed(q, v, buckets, layout, Reach(3, 1, 0), **how)[0],
        lambda **how: attend_local(q, q, v, layout, Reach(3, 1, 0), **how)[0],
    ):
        close(run(head_mask=mask), run() * mask.view(1, 1, HEADS, 1))


# ---- hashing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buckets", [[4], [2, 4], [6, 2]], ids=str)
def test_buckets_are_the_nearest_directions(buckets):
    x = torch.randn(2, 5, HEADS, DIM, dtype=torch.float64)
    directions = rotations(x, 3, HEADS, DIM, 2, buckets)
    assert directions.shape == (HEADS, DIM, 2, sum(buckets) // 2)
    got = hashed(x, directions, buckets)
    for row in range(2):
        for head in range(HEADS):
            for turn in range(2):
                for i in range(5):
                    along, bucket, worth = x[row, i, head] @ directions[head, :, turn], 0, 1
                    for part, count in zip(along.split([n // 2 for n in buckets]), buckets, strict=True):
                        both = [*part.tolist(), *(-part).tolist()]
                        bucket, worth = bucket + worth * both.index(max(both)), worth * count
                    assert got[row, head, turn, i] == bucket + turn * worth


def test_rotations_follow_their_seed_and_leave_torch_s_own_alone():
    like = torch.zeros(1, dtype=torch.float64)
    before = torch.get_rng_state()
    one = rotations(like, 5, 2, 3, 1, [4])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(one, torch.randn(2, 3, 1, 2, dtype=torch.float64))
    one.zero_()
    assert rotations(like, 5, 2, 3, 1, [4]).abs().min() > 0
    torch.manual_seed(6)
    assert torch.equal(rotations(like, None, 2, 3, 1, [4]), rotations(like, 6, 2, 3, 1, [4]))


@pytest.mark.parametrize(
    "slots, size, longest, want",
    [(128, 64, 4096, [4]), (4096, 64, 4096, [128]), (8192, 64, 8192, [16, 16]), (65536, 64, 65536, [32, 64])],
)
def test_how_many_buckets(slots, size, longest, want):
    """Twice as many as chunks; numbers past twice the chunk and twice the root of the chunks are split."""
    assert bucket_counts(slots, size, longest) == want


# ---- steps -----------------------------------------------------------------------------------------------------------


def layers(kind):
    torch.manual_seed(1)
    if kind == "local":
        return LocalAttention(10, HEADS, DIM, Reach(3, 1, 0)).double().eval()
    hashing = Hashing([2, 4], 7, 64) if kind == "hashed" else Hashing(None, 7, 64)
    return HashedAttention(10, HEADS, DIM, Reach(3, 1, 0), hashing).double().eval()


@pytest.mark.parametrize("kind", ["local", "hashed"])
@pytest.mark.parametrize("side", [None, "left"], ids=["full", "left-padded"])
@pytest.mark.parametrize("capacity", [None, 20], ids=["growing", "preallocated"])
def test_a_step_is_the_last_token_of_the_whole(kind, side, capacity):
    """Whatever came before: one token after another, after a chunk of several, in texts of many chunks."""
    layer, total, device = layers(kind), 14, torch.device("cpu")
    x = torch.randn(3, total, 10, dtype=torch.float64)
    seen = None if side is None else seen_of((14, 9, 5), "left", total)
    how = dict(causal=True, rounds=2)
    memory = BucketMemory(Tape(1, capacity), Tape(3, capacity))
    for a, b in ((0, 3), (3, 4), (4, 5), (5, 9), (9, 10), (10, 11), (11, 14)):
        now = None if seen is None else seen[:, :b]
        whole = ChunkLayout.of(b, now, (3,), device, **how)
        part = ChunkLayout.of(b, now, (3,), device, past=a, **how)
        with torch.no_grad():
            want = whole.restore(layer(whole.align(x[:, :b]), whole))[:, :b]
            if a == 0:
                got = whole.restore(layer(whole.align(x[:, :b]), whole, memory))[:, :b]
            else:
                got = layer(x[:, a:b], part, memory)
        real = torch.ones(3, b - a, dtype=torch.bool) if seen is None else seen[:, a:b]
        close(got[real], want[:, a:b][real])
        assert memory.length == b
    if kind == "hashed":
        assert memory.buckets.length == total
        assert memory.buckets.data.shape == (3, HEADS, 2, total)


def test_a_step_hashes_with_the_numbers_that_the_text_began_with():
    """Without a number of buckets it hangs on the length; those in memory stay comparable."""
    layer, device = layers("open"), torch.device("cpu")
    x = torch.randn(1, 13, 10, dtype=torch.float64)
    memory = BucketMemory()
    how = dict(causal=True)
    with torch.no_grad():
        layer(x[:, :6], ChunkLayout.of(6, None, (3,), device, **how), memory)
        assert memory.counts == [4]
        for i in range(6, 13):
            layer(x[:, i : i + 1], ChunkLayout.of(i + 1, None, (3,), device, past=i, **how), memory)
    q = layer.projected(x)[0]
    assert torch.equal(memory.buckets.data, hashed(q, rotations(q, 7, HEADS, DIM, 1, [4]), [4]))


def test_dropout_of_weights():
    """Unbiased, and the same for the same seed."""
    layout = ChunkLayout.of(9, None, (3,), torch.device("cpu"))
    drop = nn.Dropout(0.5).train()
    q, v = torch.randn(1, 9, HEADS, DIM), torch.rand(1, 9, HEADS, DIM) + 1
    buckets = torch.randint(0, 4, (1, HEADS, 1, 9))
    for run in (
        lambda d: attend_hashed(q, v, buckets, layout, Reach(3, 1, 0), dropout=d)[0],
        lambda d: attend_local(q, q, v, layout, Reach(3, 1, 0), dropout=d)[0],
    ):
        want, many = run(None), torch.stack([run(drop) for _ in range(400)])
        assert (many.mean(0) / want - 1).abs().max() < 0.25
        torch.manual_seed(0)
        one = run(drop)
        torch.manual_seed(0)
        assert torch.equal(run(drop), one)


# ---- what is remembered ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [None, 9], ids=["growing", "preallocated"])
def test_a_tape_against_plain_concatenation(capacity):
    x = torch.randn(3, 2, 7)
    tape = Tape(2, capacity)
    assert tape.data is None
    for a, b in ((0, 3), (3, 4), (4, 7)):
        assert torch.equal(tape.append(x[:, :, a:b]), x[:, :, :b])
    rows = torch.tensor([1, 1, 0, 2])
    moved = tape.reorder(rows)
    assert torch.equal(moved.data, x[rows])
    assert torch.equal(moved.append(x[rows]), torch.cat([x, x], 2)[rows]) if capacity is None else moved.length == 7
    shorter = tape.upto(4)
    assert torch.equal(shorter.append(x[:, :, :1]), torch.cat([x[:, :, :4], x[:, :, :1]], 2))
    if capacity:
        with pytest.raises(ValueError, match="do not fit a state made for 9"):
            tape.append(x)


def test_a_state_from_pairs_and_back():
    pairs = ((None, torch.randn(2, 5, 3)), (torch.randint(0, 4, (2, 2, 1, 5)), torch.randn(2, 5, 3)))
    state = BucketState.of(pairs)
    assert (state.length, len(state)) == (5, 2)
    assert state[0][0] is None
    assert all(a is b for ours, theirs in zip(state, pairs, strict=True) for a, b in zip(ours, theirs, strict=True))
    state.layers[1].counts = [2, 4]
    leaves, spec = torch.utils._pytree.tree_flatten(state)
    again = torch.utils._pytree.tree_unflatten(leaves, spec)
    assert again.layers[1].counts == [2, 4]
    assert again[0][0] is None
    assert torch.equal(again[1][0], pairs[1][0])
    assert state.upto(3).length == 3
    assert state.upto(3)[1][0].shape == (2, 2, 1, 3)
    with pytest.raises(TypeError, match="a pair"):
        BucketState.of(pairs[0][1])


# ---- positions -------------------------------------------------------------------------------------------------------


def test_grid_positions_by_hand():
    grid = GridPositions((2, 3, 4), (1, 2, 3))
    assert [tuple(axis.shape) for axis in grid.axes] == [(2, 1, 1, 1), (1, 3, 1, 2), (1, 1, 4, 3)]
    table = grid(torch.arange(24))
    for p in range(24):
        x, y, z = p // 12, p // 4 % 3, p % 4
        want = torch.cat([grid.axes[0][x, 0, 0], grid.axes[1][0, y, 0], grid.axes[2][0, 0, z]])
        assert torch.equal(table[p], want)
