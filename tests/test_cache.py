"""Property 7: with a cache or without, token by token or in chunks, after a beam reorder: the same answers."""

import itertools

import pytest
import torch

import zoo
from polyformer.parts.state import KV, PreallocatedKV, State


def steps_through(case):
    """Whether it goes on from a state and has an answer for every token."""
    stateful = {"past_key_values", "cache"} & {*case.arguments}
    answers = (case.base or case.per_token) and not (case.choices or "pooling" in case.name)
    return (case.causal or case.writes) and stateful and answers


DECODERS = [c for c in zoo.CASES if steps_through(c)]
LENGTH = 10


def setup(case, *, left=False):
    model = zoo.make(case)
    rows = zoo.sentences(
        case, (LENGTH, LENGTH - 4, LENGTH - 2) if left else (LENGTH,) * 3, targets=lambda length: length
    )
    inputs = zoo.without_labels(zoo.batch(rows, side="left"))
    if not left:
        inputs.pop(grows(inputs)[1])
    return model, inputs


def grows(inputs):
    """The inputs that have an entry for every new token, and the mask that has one for the earlier ones too."""
    if "decoder_input_ids" in inputs:
        return ("decoder_input_ids",), "decoder_attention_mask"
    return zoo.PER_TOKEN, "attention_mask"


def steps(model, inputs, cuts, past=None):
    """Run the cuts one after another; last hidden states (or logits) of all tokens, and what is remembered."""
    shown = []
    for a, b in cuts:
        new, mask = grows(inputs)
        part = {n: v[:, a:b] if n in new else v for n, v in inputs.items()}
        if mask in inputs:
            part[mask] = inputs[mask][:, :b]
        with torch.no_grad():
            outputs = model(**part, **zoo.remembering(model, past))
        past = outputs.past_key_values
        shown.append(outputs[0])
    return torch.cat(shown, 1), past


CUTS = {
    "step by step": [(i, i + 1) for i in range(LENGTH)],
    "prompt, then steps": [(0, 6), (6, 7), (7, 8), (8, 9), (9, 10)],
    "chunks": [(0, 4), (4, 7), (7, 10)],
    "whole": [(0, 10)],
}


@zoo.each(DECODERS)
@pytest.mark.parametrize("left", [False, True], ids=["full", "left-padded"])
def test_cache_is_no_cache(case, left):
    """However the text is cut, and whether the cache grows or is there from the start."""
    model, inputs = setup(case, left=left)
    with torch.no_grad():
        want = model(**inputs, **zoo.forgetting(model))[0]
    real = inputs.get(grows(inputs)[1], torch.ones(3, LENGTH)).bool()
    for (name, cuts), capacity in itertools.product(CUTS.items(), (None, 13)):
        past = None if capacity is None else State.empty(3, capacity)
        got, _ = steps(model, inputs, cuts, past)
        zoo.assert_same({name: got[real]}, {name: want[real]}, 1e-9, f"capacity {capacity}")


@zoo.each(DECODERS)
@pytest.mark.parametrize("capacity", [None, 13], ids=["growing", "preallocated"])
def test_after_a_beam_reorder(case, capacity):
    """Rows move, one is taken twice: as if the batch had been so from the start."""
    model, inputs = setup(case, left=True)
    rows = torch.tensor([2, 0, 0])
    moved = {n: v[rows] for n, v in inputs.items()}
    with torch.no_grad():
        want = model(**moved, **zoo.forgetting(model))[0]
    past = None if capacity is None else State.empty(3, capacity)
    _, past = steps(model, inputs, [(0, 5), (5, 6)], past)
    got, _ = steps(model, moved, [(6, 7), (7, 10)], past.reorder(rows))
    real = moved[grows(inputs)[1]].bool()[:, 6:]
    torch.testing.assert_close(got[real], want[:, 6:][real], rtol=1e-9, atol=1e-9)


@zoo.each(DECODERS)
def test_what_is_passed_in_stays_as_it_was(case):
    """The same past may be continued twice, with different tokens."""
    model, inputs = setup(case)
    _, past = steps(model, inputs, [(0, 6)])
    before = [[t.clone() for t in layer] for layer in past]
    steps(model, inputs, [(6, 8), (8, 10)], past)
    assert past.length == 6
    for layer, old in zip(past, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(layer, old, strict=True))


@zoo.each(DECODERS)
def test_old_style_tuples(case):
    model, inputs = setup(case)
    _, past = steps(model, inputs, [(0, 6)])
    tuples = tuple(past[i] for i in range(len(past)))
    blocks = getattr(model.base_model, "decoder", model.base_model).blocks()
    assert tuples[0][0].shape == (3, len(blocks[0].attn.heads), 6, 8)
    want, _ = steps(model, inputs, [(6, 10)], past)
    got, _ = steps(model, inputs, [(6, 10)], tuples)
    assert torch.equal(got, want)


def test_encoders_keep_nothing():
    model = zoo.make(zoo.Case("BertModel", zoo.BERT.tiny))
    assert model(torch.tensor([[1, 2]]), use_cache=True).past_key_values is None


@pytest.mark.parametrize("make", [KV, lambda: PreallocatedKV(9)], ids=["growing", "preallocated"])
def test_keys_and_values(make):
    """Against plain concatenation."""
    k, v = torch.randn(2, 2, 3, 7, 4)
    memory = make()
    assert memory.length == 0
    for a, b in ((0, 3), (3, 4), (4, 7)):
        keys, values = memory.append(k[:, :, a:b], v[:, :, a:b])
        assert torch.equal(keys, k[:, :, :b])
        assert torch.equal(values, v[:, :, :b])
    rows = torch.tensor([1, 1, 0])
    moved = memory.reorder(rows)
    assert moved.length == memory.length == 7
    assert torch.equal(moved.keys, k[rows])
    assert torch.equal(moved.values, v[rows])
    assert make().reorder(rows).length == 0


def test_a_full_preallocated_cache_says_so():
    memory = PreallocatedKV(3)
    with pytest.raises(ValueError, match=r"0 \+ 4 tokens do not fit a cache made for 3"):
        memory.append(torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2))
