"""What is remembered between steps: moved in place, shared between beams, never read twice."""

import pytest
import torch

from generation_toys import Reading, Translating, tiny, written
from polyformer.generation import generate
from polyformer.parts.state import KV, CrossKV, LayerState, PreallocatedKV, State


def test_rows_that_stay_are_not_moved():
    memory = PreallocatedKV(6)
    k, v = torch.randn(2, 4, 2, 3, 5)
    memory.append(k, v)
    buffers = memory.buffers
    for rows in ([0, 3], [1, 0], [0, 0, 1, 1], [0, 2, 2, 1, 3]):
        index = torch.tensor(rows)
        memory = memory.reorder(index)
        k, v = k[index], v[index]
        assert torch.equal(memory.keys, k) and torch.equal(memory.values, v)
        assert (memory.buffers[0] is buffers[0]) == (len(rows) <= 4)
        more = torch.randn(2, len(rows), 2, 1, 5)
        if memory.length < 6:
            keys, _ = memory.append(*more)
            k, v = torch.cat([k, more[0]], 2), torch.cat([v, more[1]], 2)
            assert torch.equal(keys, k)


@pytest.mark.parametrize(
    "rows,sources,copies",
    [
        ([0, 0, 1, 1], 2, 2), ([1, 1, 0], 3, 1), ([2, 2, 2, 2], 1, 4), ([0, 0, 2, 2, 2, 2], 3, 2), ([3, 1], 2, 1),
        ([0, 1, 2, 3], 4, 1),
    ],
)  # fmt: skip
def test_beams_of_a_source_share_it(rows, sources, copies):
    """As many rows as read the same source side by side hold it once; seen from outside each has its own."""
    k, v = torch.randn(2, 4, 2, 3, 5)
    rows = torch.tensor(rows)
    memory = CrossKV(k, v).reorder(rows)
    assert (len(memory.shared[0]), memory.copies) == (sources, copies)
    assert torch.equal(memory.keys, k[rows]) and torch.equal(memory.values, v[rows])
    again = torch.randint(len(rows), (7,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(memory.reorder(again).keys, k[rows][again])


def test_moving_among_the_beams_of_a_prompt_copies_nothing():
    memory = CrossKV(*torch.randn(2, 2, 2, 3, 5)).reorder(torch.tensor([0, 0, 0, 1, 1, 1]))
    moved = memory.reorder(torch.tensor([2, 0, 0, 4, 4, 5]))
    assert moved.copies == 3
    assert moved.shared[0].data_ptr() == memory.shared[0].data_ptr()
    one = memory.reorder(torch.tensor([3, 5, 4]))
    assert (len(one.shared[0]), one.copies) == (1, 3)


def test_a_state_of_layers():
    k = torch.randn(4, 2, 3, 5)
    state = State([LayerState(KV(k, k), CrossKV(k, k, 2))])
    own, _, cross, _ = state[0]
    assert own.shape[0] == 4 and cross.shape[0] == 8
    assert State.of(((k, k, k, k),)).layers[0].cross.shared[0] is k


STRATEGIES = {
    "greedy": {},
    "sampling": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "drawn beams": {"num_beams": 3, "do_sample": True, "num_return_sequences": 2},
    "forced words": {"num_beams": 3, "force_words_ids": [[5, 9]]},
    "contrastive": {"penalty_alpha": 0.5, "top_k": 3},
}
SOURCE = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0], [9, 2, 4, 0]])


@pytest.mark.parametrize("options", STRATEGIES.values(), ids=STRATEGIES)
def test_a_source_is_projected_once_a_prompt(options):
    """However many beams there are; and what they write is what they would without a cache."""
    toy = Reading()
    asked = dict(max_length=10, eos_token_id=7, pad_token_id=0, **options)
    kept = generate(toy, SOURCE, generator=torch.Generator().manual_seed(1), **asked)
    assert toy.projected == [3]
    anew = generate(toy, SOURCE, generator=torch.Generator().manual_seed(1), use_cache=False, **asked)
    assert torch.equal(kept, anew)


def test_attention_to_a_shared_source_is_shown_for_every_beam():
    toy = Reading()
    asked = dict(max_length=6, num_beams=3, return_dict_in_generate=True, output_attentions=True, output_scores=True)
    kept, anew = (generate(toy, SOURCE, use_cache=cache, **asked) for cache in (True, False))
    for a, b in zip(kept.cross_attentions, anew.cross_attentions, strict=True):
        torch.testing.assert_close(a[0][:, :, -1], b[0][:, :, -1], rtol=0, atol=1e-5)
    for a, b in zip(kept.scores, anew.scores, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", [Reading, Translating])
def test_beams_of_a_batch_are_each_alone(make):
    toy = make()
    asked = dict(max_length=9, num_beams=3, num_return_sequences=2, eos_token_id=7, pad_token_id=0)
    together = generate(toy, SOURCE, **asked)
    for i, row in enumerate(SOURCE):
        alone = generate(toy, row[row != 0][None], **asked)
        mine = together[2 * i : 2 * i + 2]
        assert torch.equal(mine[:, : alone.shape[1]], alone) and not mine[:, alone.shape[1] :].any()


def test_rows_that_leave_leave_the_processors_too():
    """Each row is held to its own source and its own allowed words, whichever rows are still there."""
    model = tiny()
    asked = dict(max_new_tokens=12, prefix_allowed_tokens_fn=lambda i, ids: [i + 1, i + 5, 7], repetition_penalty=1.1)
    for options in ({}, {"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2}):
        together = written(model, **asked, **options)
        apart = written(model, **asked, **options, return_dict_in_generate=True, output_scores=True).sequences
        assert torch.equal(together, apart)
        copies = len(together) // 4
        for i, row in enumerate(together[:, 3:].tolist()):
            assert set(row) <= {i // copies + 1, i // copies + 5, 7, 0}
