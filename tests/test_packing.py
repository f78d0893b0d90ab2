"""Property 8: packed = padded; fast attention = explicit attention; forward and backward, eval and train."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from polyformer.parts.layout import Layout, Packing

LENGTHS = (9, 4, 12, 7, 4)


def answer(model, inputs, **options):
    model.zero_grad()
    outputs = model(**inputs, **options)
    result = {n: v for n, v in outputs.items() if isinstance(v, torch.Tensor)}
    zoo.objective(outputs, inputs).backward()
    return result, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def at_real_tokens(outputs, inputs):
    return {n: v[zoo.at_real_tokens(v, zoo.mask_of(inputs, n))] for n, v in outputs.items()}


@zoo.each(zoo.plain(zoo.own()))
def test_packed_is_padded_is_explicit(case):
    """In training, where dropout is 0, and not."""
    model, rows = zoo.make(case), zoo.sentences(case, LENGTHS)
    for train, side in (
        (False, "right"),
        (True, "left"),
        *(((False, "left"), (True, "right")) if zoo.THOROUGH else ()),
    ):
        model.train(train)
        inputs = zoo.batch(rows, side=side)
        model.base_model.packable = True
        packed, packed_grads = answer(model, inputs)
        model.base_model.packable = False
        padded, padded_grads = answer(model, inputs)
        explicit, explicit_grads = answer(model, inputs, output_attentions=True)
        for outputs, grads in ((padded, padded_grads), (explicit, explicit_grads)):
            zoo.assert_same(at_real_tokens(packed, inputs), at_real_tokens(outputs, inputs), 1e-9, f"{side}, {train}")
            zoo.assert_same(packed_grads, grads, 1e-8, f"{side}, {train}")


def test_packed_execution_really_runs_on_real_tokens_only():
    model = zoo.make(zoo.Case("BertModel", zoo.BERT.tiny))
    seen = []
    model.layers[1].ffn.register_forward_hook(lambda m, args, y: seen.append(tuple(args[0].shape)))
    inputs = zoo.batch(zoo.sentences(zoo.Case("BertModel", zoo.BERT.tiny), LENGTHS))
    with torch.no_grad():
        outputs = model(**inputs)
    assert seen == [(sum(LENGTHS), 24)]
    assert (outputs.last_hidden_state[inputs["attention_mask"] == 0] == 0).all()


@pytest.mark.parametrize("packable", [True, False], ids=["packed", "padded"])
def test_dropout_drops_in_training_only_and_follows_the_seed(packable):
    case = zoo.Case("BertModel", zoo.BERT.tiny | {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3})
    model = zoo.make(case)
    model.packable = packable
    inputs = zoo.batch(zoo.sentences(case, LENGTHS))

    def run(seed):
        torch.manual_seed(seed)
        return model(**inputs).pooler_output

    with torch.no_grad():
        assert torch.equal(run(1), run(2))
        model.train()
        assert torch.equal(run(1), run(1))
        assert not torch.allclose(run(1), run(2))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.sampled_from(["right", "left", "middle"]))
@settings(max_examples=100)
def test_packing_and_unpacking(lengths, side):
    """Every real token once, sequences whole and in order, those of a length side by side; unpacking is the inverse."""
    width = max([*lengths, 1]) + 2
    start = {"right": lambda n: 0, "left": lambda n: width - n, "middle": lambda n: 1}[side]
    real = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, n in enumerate(lengths):
        real[row, start(n) : start(n) + n] = True
    packing = Packing.of(real)
    assert sorted(packing.index.tolist()) == real.flatten().nonzero().squeeze(1).tolist()
    tokens = []
    for first, count, length in packing.groups:
        assert first == len(tokens)
        for s in range(count):
            places = packing.index[first + s * length : first + (s + 1) * length]
            assert (places.diff() == 1).all()
            assert real.flatten()[places].all()
            tokens += places.tolist()
    assert len(tokens) == int(real.sum())
    x = torch.randn(len(lengths), width, 3)
    layout = Layout(real, None, False, torch.zeros(0), packing)
    torch.testing.assert_close(layout.unpack(layout.pack(x)), x.masked_fill(~real[:, :, None], 0))


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5))
@settings(max_examples=200)
def test_a_batch_is_packed_exactly_where_no_row_has_a_hole(mask):
    def holed(row):
        text = "".join("x" if seen else "." for seen in row).strip(".")
        return "." in text

    mask = torch.tensor(mask)
    layout = Layout.of((mask.shape[0], 6), mask.long(), torch.device("cpu"))
    packed = layout.packing is not None
    assert packed == (not bool(mask.all()) and not any(holed(row) for row in mask.tolist()))
    places = layout.unpack(layout.positions) if packed else layout.positions.expand(mask.shape)
    for row, seen in zip(places.tolist(), mask.tolist(), strict=True):
        first = seen.index(True) if any(seen) else 0
        assert [p for p, s in zip(row, seen, strict=True) if s] == [j - first for j, s in enumerate(seen) if s]


def test_a_mask_of_the_wrong_shape_says_so():
    model = zoo.make(zoo.Case("BertModel", zoo.BERT.tiny))
    with pytest.raises(ValueError, match=r"attention_mask has shape \(2, 3\), but \(2, 4\) was expected"):
        model(torch.ones(2, 4, dtype=torch.long), attention_mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match="one row a sequence"):
        model(torch.ones(2, 4, dtype=torch.long), attention_mask=torch.ones(3, 4))
