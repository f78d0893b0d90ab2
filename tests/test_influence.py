"""Property 6: what must not see a token does not change when it does, and what should see it does."""

import pytest
import torch

import zoo


def reach(model, ids, **options):
    """[i, j]: whether state i changes when token j does."""
    length = ids.shape[1]
    with torch.no_grad():
        before = model(ids, **options).last_hidden_state
        found = torch.zeros(before.shape[1], length, dtype=torch.bool)
        for j in range(length):
            changed = ids.clone()
            changed[0, j] = changed[0, j] % 44 + 2
            found[:, j] = (model(changed, **options).last_hidden_state - before).abs().amax(-1)[0] > 1e-12
    return found


@zoo.each([c for c in zoo.plain(zoo.originals()) if c.base and not c.encodes and "pooling" not in c.name])
def test_who_sees_whom(case):
    model = zoo.make(case)
    ids = torch.randint(2, 46, (1, 7))
    found = reach(model, ids)
    want = torch.ones_like(found)
    if case.causal:
        want = want.tril()
    assert torch.equal(found, want)
    assert torch.equal(reach(model, ids, output_attentions=True), want)


def test_a_mask_of_edges_is_obeyed():
    """One layer: a state depends on exactly the tokens its row of the mask allows, and on its own residual."""
    model = zoo.make(zoo.Case("BertModel", zoo.BERT.tiny | {"num_hidden_layers": 1}))
    edges = torch.rand(1, 7, 7) > 0.5
    want = edges[0] | torch.eye(7, dtype=torch.bool)
    assert torch.equal(reach(model, torch.randint(1, 46, (1, 7)), attention_mask=edges.long()), want)


def test_the_encoder_s_padding_is_not_seen():
    case = next(c for c in zoo.CASES if c.name == "cross" and c.cls == "BertModel")
    model = zoo.make(case)
    inputs = zoo.without_labels(zoo.batch(zoo.sentences(case, (6, 5))))
    hidden = inputs["encoder_hidden_states"].clone()
    hidden[inputs["encoder_attention_mask"] == 0] += 9
    with torch.no_grad():
        want = model(**inputs).last_hidden_state
        assert torch.equal(model(**(inputs | {"encoder_hidden_states": hidden})).last_hidden_state, want)
        hidden[:, 0] += 1
        assert not torch.allclose(model(**(inputs | {"encoder_hidden_states": hidden})).last_hidden_state, want)


@pytest.mark.parametrize("pooling", zoo.POOLINGS)
def test_what_a_pooling_reads(pooling):
    """A pooled vector depends on the tokens its formula names, and on no padding."""
    model = zoo.make(zoo.Case("BertModel", zoo.BERT.tiny | {"pooling": pooling}))
    mask = torch.tensor([[0, 1, 1, 1, 0]])
    states = torch.randn(1, 5, 24, dtype=torch.float64)
    layers = [torch.randn(1, 5, 24, dtype=torch.float64) for _ in range(4)]
    reads = []
    with torch.no_grad():
        before = model.pooler(states, mask.bool(), layers)
        for j in range(5):
            moved, moved_layers = states.clone(), [layer.clone() for layer in layers]
            moved[0, j] += torch.randn(24, dtype=torch.float64)
            for layer in moved_layers:
                layer[0, j] += 1
            reads.append(not torch.allclose(model.pooler(moved, mask.bool(), moved_layers), before))
    only = {"cls": [1], "last4_cls": [1], "last": [3]}.get(pooling, [1, 2, 3])
    assert reads == [j in only for j in range(5)]
