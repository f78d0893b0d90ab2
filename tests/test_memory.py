"""Long memory, row by row, against lists of tokens."""

import pytest
import torch

from polyformer.parts.flush import Flush
from polyformer.parts.memory import Memory

WIDTH, LAYERS = 3, 2


def told(memory, row):
    """What a row remembers, as lists: a state or None a place, without the places before the first state."""
    real = [True] * memory.length if memory.real is None else memory.real[row].tolist()
    found = [tuple(t[row, j].tolist() for t in memory.layers) if real[j] else None for j in range(memory.length)]
    while found and found[0] is None:
        found.pop(0)
    return found


def segment(rows, length):
    return [torch.randn(rows, length, WIDTH) for _ in range(LAYERS)]


def expected(before, states, real, row, limit):
    """The row's memory by definition: old entries, then the new ones up to the last real token, the last `limit`."""
    places = [j for j in range(real.shape[1]) if real[row, j]]
    new = [
        tuple(s[row, j].tolist() for s in states) if real[row, j] else None
        for j in range(places[-1] + 1 if places else 0)
    ]
    found = (before + new)[-limit:] if limit else []
    while found and found[0] is None:
        found.pop(0)
    return found


@pytest.mark.parametrize("limit", [0, 3, 6, 100])
@pytest.mark.parametrize("begun", [0, 4])
def test_a_row_remembers_its_own_last_tokens(limit, begun):
    torch.manual_seed(0)
    memory = Memory.blank(LAYERS, 4, begun, WIDTH, torch.empty(0))
    wants = [told(memory, row) for row in range(4)]
    zero = tuple([0.0] * WIDTH for _ in range(LAYERS))
    assert wants == [[zero] * begun] * 4
    masks = ["11111 11100 10110 00000", "110 111 100 111", "1 1 0 1", "111 110 101 111"]
    for rows in masks:
        real = torch.tensor([[int(x) for x in row] for row in rows.split()]).bool()
        states = segment(4, real.shape[1])
        memory = memory.append(states, limit, None if real.all() else real)
        wants = [expected(wants[row], states, real, row, limit) for row in range(4)]
        assert [told(memory, row) for row in range(4)] == wants
        assert memory.length <= limit


def test_without_a_limit_nothing_is_forgotten():
    first, second = segment(2, 5), segment(2, 4)
    memory = Memory.blank(LAYERS, 2, 0, WIDTH, first[0]).append(first).append(second)
    for layer, a, b in zip(memory.layers, first, second, strict=True):
        assert torch.equal(layer, torch.cat([a, b], 1))


def test_reads_like_a_list_of_the_reference_and_comes_from_one():
    states = segment(2, 5)
    memory = Memory(states)
    assert len(memory) == LAYERS and memory[1].shape == (5, 2, WIDTH) and memory.length == 5
    again = Memory.of(list(memory))
    assert all(torch.equal(a, b) for a, b in zip(again.layers, states, strict=True))
    assert Memory.of(memory) is memory


@pytest.mark.parametrize(
    "wrong", [torch.ones(2, 3, 4), {"a": 1}, [torch.ones(2, 3)], [1]], ids=["tensor", "dict", "flat", "int"]
)
def test_what_is_no_memory_is_refused(wrong):
    with pytest.raises(TypeError, match="one \\(length, rows, width\\) tensor a layer"):
        Memory.of(wrong)


def test_layers_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="mems differ in shape"):
        Memory.of([torch.ones(2, 3, 4), torch.ones(3, 3, 4)])


def test_reorder_and_gradient():
    states = [s.requires_grad_() for s in segment(3, 4)]
    real = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    memory = Memory.blank(LAYERS, 3, 0, WIDTH, states[0]).append(states, None, real)
    assert not any(t.requires_grad for t in memory.layers)
    order = torch.tensor([2, 0, 0, 1])
    moved = memory.reorder(order)
    assert [told(moved, i) for i in range(4)] == [told(memory, i) for i in order.tolist()]


def test_rows_move_to_the_left_and_back():
    rows = ["0011", "1111", "0101", "1100", "0000"]
    mask = torch.tensor([[int(x) for x in row] for row in rows])
    flush = Flush.of(torch.cat([torch.ones(5, 3), mask], 1), 5, 4)  # what came before does not count
    assert flush.lead.tolist() == [2, 0, 1, 0, 4]
    assert ["".join(str(int(x)) for x in row) for row in flush.real.tolist()] == [
        "1100",
        "1111",
        "1010",
        "1100",
        "0000",
    ]
    x = torch.arange(5 * 2 * 4).view(5, 2, 4)
    moved = flush.left(x, 2)
    assert moved[0].tolist() == [[2, 3, 0, 1], [6, 7, 4, 5]] and torch.equal(moved[1], x[1])
    assert torch.equal(flush.back(moved, 2), x) and torch.equal(flush.back(flush.left(x.mT), 1), x.mT)


def test_rows_that_begin_at_once_stay():
    assert Flush.of(torch.ones(2, 3), 2, 3) == Flush(None, None) == Flush.of(None, 2, 3)
    assert Flush.of(torch.tensor([[1, 1, 0], [0, 0, 0]]), 2, 3).lead is None
    with pytest.raises(ValueError, match="attention_mask has shape"):
        Flush.of(torch.ones(2, 2), 2, 3)


def test_a_memory_crosses_a_graph():
    """It goes into a compiled function and comes out."""
    torch._dynamo.reset()
    memory = Memory(segment(2, 4), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]]).bool())
    states, real = segment(2, 3), torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    compiled = torch.compile(lambda m: m.append(states, 5, real), fullgraph=True, backend="eager")
    got, want = compiled(memory), memory.append(states, 5, real)
    assert isinstance(got, Memory)
    assert [told(got, row) for row in range(2)] == [told(want, row) for row in range(2)]
