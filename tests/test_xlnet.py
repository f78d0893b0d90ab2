"""XLNet's own: two streams, memory, reading backwards, writing; against the reference, and rows in a batch alone."""

import pytest
import torch

import polyformer
import zoo
from polyformer.models.xlnet import XLNetAttention
from polyformer.parts.memory import Memory
from test_parity import compare, flat, inputs_of, ours_with, reference_config

TINY = zoo.FAMILY["xlnet"].tiny
LENGTH, TARGETS = 7, 3


def case(kind="Model", **changes):
    return zoo.Case(f"XLNet{kind}", TINY | changes, family="xlnet")


def ids_of(rows, length, seed=0):
    return torch.randint(6, 47, (rows, length), generator=torch.Generator().manual_seed(seed))


def orders(rows, length, seed=0):
    """A mask of a random order each: i may not see j unless j comes before it; and whom each comes before."""
    draw = torch.Generator().manual_seed(seed)
    rank = torch.stack([torch.randperm(length, generator=draw) for _ in range(rows)])
    return (rank[:, None] >= rank[:, :, None]).double(), rank


def streams(rows, seed=0, length=LENGTH):
    """Inputs that tell the last words of a random order, as in pretraining: everybody sees all words before those."""
    _, rank = orders(rows, length, seed)
    rank[:, 0] = -1  # from left to right the first would see nobody
    last = rank.argsort(1)[:, -TARGETS:]
    rank = rank.where(rank >= rank.gather(1, last[:, :1]), -1)
    perm_mask = ((rank[:, None] >= rank[:, :, None]) & (rank[:, None] >= 0)).double()
    mapping = torch.nn.functional.one_hot(last, length).double()
    ids = ids_of(rows, length, seed)
    types = (torch.arange(length) > seed + 2).long().expand(rows, -1)
    inputs = {"input_ids": ids, "perm_mask": perm_mask, "target_mapping": mapping, "token_type_ids": types}
    return inputs, ids.gather(1, last)


# ---- against the reference -------------------------------------------------------------------------------------------
# Its second stream runs in single precision only, and reading from left to right takes an order for one row only.

SINGLE = {"dtype": torch.float32}

WAYS = {
    "bi": {},
    "uni": {"attn_type": "uni"},
    "same_length": {"attn_type": "uni", "same_length": True},
    "backwards": {"bi_data": True, "clamp_len": 4},
    "reuse": {"reuse_len": 3, "mem_len": None},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("two", [True, False], ids=["two streams", "one stream"])
def test_three_segments_one_after_another(way, two, oracle):
    """Every output of each call, memories and both streams' states and attentions among them."""
    from oracle import Carry

    made = case(**WAYS[way])
    dtype, tol = (torch.float32, 1e-5) if two else (torch.float64, 1e-9)
    weights = oracle.init(made.cls, reference_config(made), seed=3)
    calls = []
    for seed, length in enumerate((5, 4, 7)):
        inputs, _ = streams(1 if two and made.causal else 2, seed, length)
        if not two or (made.config.get("same_length") and not calls):  # where a word would see itself alone
            inputs = {name: inputs[name] for name in ("input_ids", "token_type_ids")}
        calls.append(inputs | {"output_hidden_states": True, "output_attentions": True, "use_mems": True})
    carried = [calls[0], *[call | {"mems": Carry("mems")} for call in calls[1:]]]
    want = oracle.run(made.cls, reference_config(made), weights, carried, dtype=dtype)
    model, mems = ours_with(made, weights, dtype), None
    for step, call in enumerate(calls):
        with torch.no_grad():
            outputs = model(**call, mems=mems)
        got, mems = deep(outputs), outputs.mems
        assert got.keys() == {name[3:] for name in want if name.startswith(f"s{step}.")}
        for name, value in got.items():
            torch.testing.assert_close(
                value, want[f"s{step}.{name}"], rtol=tol, atol=tol, msg=lambda m, n=name: f"{n}: {m}"
            )


def deep(outputs):
    """Outputs by the reference's names, pairs of attentions one by one."""
    found = {}
    for name, value in flat(outputs).items():
        found |= {f"{name}.{i}": t for i, t in enumerate(value)} if isinstance(value, tuple) else {name: value}
    return found


@pytest.mark.parametrize("way", ["bi", "uni"])
def test_loss_and_gradients_of_the_second_stream(way, oracle):
    made = case("LMHeadModel", **WAYS[way])
    weights = oracle.init(made.cls, reference_config(made), seed=4)
    inputs, labels = streams(1 if made.causal else 2)
    inputs["labels"] = labels
    want = oracle.run(made.cls, reference_config(made), weights, inputs, grad=True, train=True, **SINGLE)
    model = ours_with(made, weights, torch.float32).train()
    outputs = model(**inputs)
    outputs.loss.backward()
    grads = {f"grad.{name}": p.grad for name, p in model.named_parameters()}
    names, _ = model.keys.names([name.removeprefix("grad.") for name in grads], base=False)
    got = {"loss": outputs.loss, "logits": outputs.logits}
    for name, match in names.items():
        got |= {f"grad.{n}": g for n, g in zip(match.theirs, match.views(grads[f"grad.{name}"]), strict=True)}
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_a_target_may_be_a_mixture_of_places(oracle):
    made = case()
    weights = oracle.init(made.cls, reference_config(made), seed=5)
    inputs, _ = streams(2)
    inputs["target_mapping"] = torch.rand(2, TARGETS, LENGTH, dtype=torch.float64)
    want = oracle.run(made.cls, reference_config(made), weights, inputs, **SINGLE)
    with torch.no_grad():
        got = ours_with(made, weights, torch.float32)(**inputs).last_hidden_state
    torch.testing.assert_close(got, want["last_hidden_state"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("summary", ["mean", "first", "last"])
def test_summaries(summary, oracle):
    made = case("ForSequenceClassification", summary_type=summary)
    weights = oracle.init(made.cls, reference_config(made), seed=6)
    inputs = {"input_ids": ids_of(2, LENGTH)}
    want = oracle.run(made.cls, reference_config(made), weights, inputs)
    with torch.no_grad():
        got = ours_with(made, weights, torch.float64)(**inputs).logits
    torch.testing.assert_close(got, want["logits"], rtol=1e-9, atol=1e-9)


# ---- who sees whom ---------------------------------------------------------------------------------------------------


def moved(model, inputs, j, what):
    """Which rows of an output change when word j does."""
    other = inputs["input_ids"].clone()
    other[0, j] = (other[0, j] + 1) % 47
    with torch.no_grad():
        before, after = (what(model(**(inputs | {"input_ids": ids}))) for ids in (inputs["input_ids"], other))
    return (before - after).abs().amax(-1)[0] > 1e-12


def test_a_target_never_sees_its_own_word_nor_later_ones():
    """With any order: each content state sees itself and those before it, each target those before it alone."""
    model = zoo.make(case())
    perm_mask, rank = orders(1, LENGTH, 2)
    every = torch.eye(LENGTH, dtype=torch.float64)[None]
    inputs = {"input_ids": ids_of(1, LENGTH), "perm_mask": perm_mask, "target_mapping": every}
    inputs["output_hidden_states"] = True
    for j in range(LENGTH):
        later, itself = rank[0] > rank[0, j], torch.arange(LENGTH) == j
        assert torch.equal(moved(model, inputs, j, lambda o: o.last_hidden_state), later)
        assert torch.equal(moved(model, inputs, j, lambda o: o.hidden_states[-2]), later | itself)


def test_who_may_see_nobody_attends_to_nothing():
    """The first word of an order: what attention adds is zero, by hand."""
    model = zoo.make(case(n_layer=1))
    perm_mask, rank = orders(1, LENGTH)
    first = torch.nn.functional.one_hot(rank.argmin(1), LENGTH).double()[:, None]
    with torch.no_grad():
        for options in ({}, {"output_attentions": True}):
            got = model(ids_of(1, LENGTH), perm_mask=perm_mask, target_mapping=first, **options).last_hidden_state
            layer = model.layers[0]
            x = layer.attn_norm(model.blank)
            x = layer.ffn_norm(x + layer.ffn(x))
            torch.testing.assert_close(got, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("way", ["bi", "backwards", "uni"])
@pytest.mark.parametrize("side", [None, "left"])
def test_waves_are_mapped_or_queries_are(way, side, monkeypatch):
    """The same either way, packed or not."""
    model = zoo.make(case(**WAYS[way]))
    inputs = zoo.batch(zoo.sentences(case(), (6, 4) if side else (6, 6)), side=side or "right", extra=2 if side else 0)
    found = []
    for answer in (True, False):
        monkeypatch.setattr(XLNetAttention, "few", lambda *_, answer=answer: answer)
        with torch.no_grad():
            found.append(model(**inputs).last_hidden_state)
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("tokens", "distances"), [(1, 60), (3, 14), (6, 12), (40, 80), (12, 600)])
def test_which_of_them_is_counted_in_products(tokens, distances):
    """Either way every product of numbers once: heads are 8 wide, 3 of them as wide as the states."""
    to_waves = tokens * 24 * 24 + tokens * 3 * distances * 24
    to_heads = distances * 24 * 24 + tokens * distances * 24
    few = XLNetAttention(24, 3, 8, 0.0).few(torch.zeros(tokens, 24), torch.zeros(1, distances, 24))
    assert few == (to_waves < to_heads)


# ---- padding ---------------------------------------------------------------------------------------------------------

SEGMENTS = ((6, 4, 1), (2, 5, 3), (4, 4, 7))  # tokens of each row in each call


def padded(rows, side, garbage):
    """Inputs of streams() side by side: orders and targets go with the tokens."""
    longest = max(row["input_ids"].shape[1] for row in rows) + 2
    found = []
    for row in rows:
        length = row["input_ids"].shape[1]
        lead = longest - length if side == "left" else 0
        own = slice(lead, lead + length)
        made = {
            "input_ids": torch.randint(0, 47, (1, longest)) if garbage else torch.full((1, longest), 5),
            "token_type_ids": torch.randint(0, 3, (1, longest)),
            "attention_mask": torch.zeros(1, longest, dtype=torch.long),
            "perm_mask": torch.randint(0, 2, (1, longest, longest)).double(),
            "target_mapping": torch.zeros(1, TARGETS, longest, dtype=torch.float64),
        }
        made["attention_mask"][:, own] = 1
        made["perm_mask"][:, own, own] = row["perm_mask"]
        made["target_mapping"][:, :, own] = row["target_mapping"]
        for name in ("input_ids", "token_type_ids"):
            made[name][:, own] = row[name]
        found.append(made)
    return {name: torch.cat([made[name] for made in found]) for name in found[0]}


def cut(value, side, length):
    return value[:, :length] if side == "right" else value[:, value.shape[1] - length :]


@pytest.mark.parametrize("way", ["bi", "uni", "same_length"])
@pytest.mark.parametrize("two", [True, False], ids=["two streams", "one stream"])
@pytest.mark.parametrize(("side", "garbage"), [("left", True), ("right", True), ("right", False)])
def test_segments_of_a_padded_batch_are_those_of_its_rows(way, two, side, garbage):
    """States, hidden states, attentions and what is remembered, call after call, each row by its own."""
    model = zoo.make(case(**WAYS[way]))
    options = {"output_hidden_states": True, "output_attentions": True}
    mems, alone = None, [None] * 3
    for step, lengths in enumerate(SEGMENTS):
        rows = [streams(1, 3 * step + r, n)[0] for r, n in enumerate(lengths)]
        for row in rows:  # a short row has fewer than three: the same place again
            short = torch.zeros(1, TARGETS, row["input_ids"].shape[1], dtype=torch.float64)
            short[:, : row["target_mapping"].shape[1]] = row["target_mapping"]
            row["target_mapping"] = short
        inputs = padded(rows, side, garbage)
        names = None if two else ("input_ids", "token_type_ids", "attention_mask")
        inputs, *rows = ({n: v for n, v in i.items() if names is None or n in names} for i in (inputs, *rows))
        with torch.no_grad():
            outputs = model(**inputs, mems=mems, **options)
        mems = outputs.mems
        for r, row in enumerate(rows):
            with torch.no_grad():
                want = model(**row, mems=alone[r], **options)
            alone[r] = want.mems
            told = mems.real[r] if mems.real is not None else torch.ones(mems.length, dtype=torch.bool)
            for got, ref in zip(mems.layers, want.mems.layers, strict=True):
                torch.testing.assert_close(got[r][told], ref[0], rtol=1e-9, atol=1e-9)
            own, ref = outputs.last_hidden_state[r : r + 1], want.last_hidden_state
            torch.testing.assert_close(own if two else cut(own, side, lengths[r]), ref, rtol=1e-9, atol=1e-9)
            for number, (got, ref) in enumerate(zip(outputs.hidden_states, want.hidden_states, strict=True)):
                got = got[r : r + 1] if two and number % 2 else cut(got[r : r + 1], side, lengths[r])
                torch.testing.assert_close(got, ref, rtol=1e-9, atol=1e-9)
            for got, ref in zip(outputs.attentions, want.attentions, strict=True):
                for a, b in zip(got if two else [got], ref if two else [ref], strict=True):
                    width, past = inputs["input_ids"].shape[1], a.shape[3] - inputs["input_ids"].shape[1]
                    a = cut(a[r].transpose(0, 1)[None], side, lengths[r])[0].transpose(0, 1)  # queries
                    earlier, now = a[..., :past], a[..., past : past + width]
                    now = cut(now.permute(2, 0, 1)[None], side, lengths[r])[0].permute(1, 2, 0)  # keys
                    earlier = earlier[..., past - (b.shape[3] - lengths[r]) :]
                    torch.testing.assert_close(torch.cat([earlier, now], -1), b[0], rtol=1e-9, atol=1e-9)


def test_without_orders_too_in_packed_execution():
    """A call whose padding is left out of the computation remembers the same."""
    model = zoo.make(case())
    rows = zoo.sentences(case(), (6, 4, 1))
    found = []
    for side in ("left", "right"):
        for packable in (True, False):
            model.packable = packable
            with torch.no_grad():
                found.append(model(**zoo.batch(rows, side=side, extra=2)).mems)
    for other in found[1:]:
        for layer, want in zip(other.layers, found[0].layers, strict=True):
            torch.testing.assert_close(layer[other.real][-11:], want[found[0].real][-11:], rtol=1e-9, atol=1e-9)


def test_what_is_reused_of_padded_rows_is_the_reference_s(oracle):
    made = case(reuse_len=6, mem_len=5)
    weights = oracle.init(made.cls, reference_config(made), seed=9)
    inputs = inputs_of(made, torch.float64)
    want = oracle.run(made.cls, reference_config(made), weights, inputs)
    with torch.no_grad():
        got = flat(ours_with(made, weights, torch.float64)(**inputs))
    compare(made, got, want, inputs, 1e-9)


def test_places_are_what_is_reused():
    """reuse_len counts places with the padding before, as the reference does; what is padding is not remembered."""
    model = zoo.make(case(reuse_len=4))
    ids = ids_of(2, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]])
    memory = model(ids, attention_mask=mask).mems
    assert memory.length == 4
    assert memory.real.tolist() == [[False, False, True, True], [True] * 4]
    assert torch.equal(memory.layers[0][0, 2:], model.tokens(ids[0, 2:4]))
    assert torch.equal(memory.layers[0][1], model.tokens(ids[1, :4]))


def test_a_hole_in_the_mask_is_an_order_in_which_nobody_sees_it():
    model = zoo.make(case())
    ids, mask = ids_of(2, LENGTH), torch.ones(2, LENGTH, dtype=torch.long)
    mask[0, 3:5] = 0
    hidden = (mask == 0)[:, None].expand(-1, LENGTH, -1).double()
    with torch.no_grad():
        holed, spelled = model(ids, attention_mask=mask), model(ids, perm_mask=hidden)
        keep = mask.bool()
        torch.testing.assert_close(holed.last_hidden_state[keep], spelled.last_hidden_state[keep], rtol=1e-9, atol=1e-9)
        same = model(ids, input_mask=1 - mask).last_hidden_state
        assert torch.equal(same, holed.last_hidden_state)


# ---- memory ----------------------------------------------------------------------------------------------------------

CUTS = {"steps": [(i, i + 1) for i in range(10)], "chunks": [(0, 4), (4, 7), (7, 10)]}


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("left", [False, True], ids=["full", "left-padded"])
def test_reading_from_left_to_right_memory_is_the_text_itself(cuts, left):
    """Rows move in between, as in a beam search."""
    model = zoo.make(case("LMHeadModel", attn_type="uni", mem_len=None))
    inputs = zoo.without_labels(
        zoo.batch(zoo.sentences(case("LMHeadModel"), (10, 6, 8) if left else (10,) * 3), side="left")
    )
    inputs.pop("token_type_ids")  # what is remembered is of segment 0
    order = torch.tensor([2, 0, 0])
    with torch.no_grad():
        want = model(**{n: v[order] for n, v in inputs.items()}).logits
        mems, shown = None, []
        for step, (a, b) in enumerate(CUTS[cuts]):
            outputs = model(**{n: v[:, a:b] for n, v in inputs.items()}, mems=mems)
            mems = outputs.mems
            shown.append(outputs.logits if step else outputs.logits[order])
            if not step:
                mems, inputs = mems.reorder(order), {n: v[order] for n, v in inputs.items()}
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(torch.cat(shown, 1)[real], want[real], rtol=1e-9, atol=1e-9)


def test_mems_of_the_reference_s_shape_are_understood_and_left_as_they_are():
    model = zoo.make(case())
    first = model(ids_of(2, 5))
    assert isinstance(first.mems, Memory)
    assert [tuple(t.shape) for t in first.mems] == [(5, 2, 24)] * 3
    plain = [t.clone() for t in first.mems]
    a, b = (model(ids_of(2, 6, 1), mems=m) for m in (first.mems, plain))
    assert torch.equal(a.last_hidden_state, b.last_hidden_state)
    assert all(torch.equal(x, y) for x, y in zip(first.mems, plain, strict=True))
    assert a.mems.length == TINY["mem_len"]
    assert not torch.allclose(a.last_hidden_state, model(ids_of(2, 6, 1)).last_hidden_state)


def test_when_a_memory_is_given_back():
    ids = ids_of(2, 5)
    model = zoo.make(case())
    assert model(ids).mems is not None
    assert model(ids, use_mems=False).mems is None
    assert model.train()(ids).mems is None
    assert model(ids, use_mems=True).mems is not None
    assert zoo.make(case(use_mems_train=True)).train()(ids).mems is not None
    assert zoo.make(case(use_mems_eval=False))(ids).mems is None


def test_gradients_do_not_reach_what_is_remembered():
    model = zoo.make(case(use_mems_train=True)).train()
    memory = model(ids_of(2, 5)).mems
    assert not any(t.requires_grad for t in memory)


# ---- heads -----------------------------------------------------------------------------------------------------------


def test_pruned_heads_are_heads_of_weight_zero():
    model = zoo.make(case())
    inputs = zoo.batch(zoo.sentences(case(), (7, 5)))
    mask = torch.ones(3, 3, dtype=torch.float64)
    mask[0, 1] = mask[2, 0] = mask[2, 2] = 0
    want = model(**inputs, head_mask=mask)
    model.prune_heads({0: [1]})
    model.prune_heads({2: [0, 2]})
    got, real = model(**inputs), inputs["attention_mask"].bool()
    torch.testing.assert_close(got.last_hidden_state[real], want.last_hidden_state[real], rtol=1e-9, atol=1e-9)


# ---- writing ---------------------------------------------------------------------------------------------------------

PROMPTS = (5, 1, 3)
SEARCHES = {
    "greedy": {},
    "beam": {"num_beams": 3, "num_return_sequences": 2},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.7},
}


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("use_cache", [True, False])
def test_prompts_of_a_padded_batch_are_written_on_as_each_alone(search, use_cache):
    model = zoo.make(case("LMHeadModel"))
    options = SEARCHES[search] | {"max_new_tokens": 6, "eos_token_id": 2, "pad_token_id": 5, "use_cache": use_cache}
    rows = [ids_of(1, n, n) for n in PROMPTS]
    longest = max(PROMPTS)
    ids = torch.cat(
        [torch.cat([torch.full((1, longest - n), 5), row], 1) for row, n in zip(rows, PROMPTS, strict=True)]
    )
    mask = torch.tensor([[0] * (longest - n) + [1] * n for n in PROMPTS])
    together = model.generate(ids, attention_mask=mask, **options).unflatten(0, (len(PROMPTS), -1))
    for got, row, n in zip(together, rows, PROMPTS, strict=True):
        want = model.generate(row, **options)[:, n:]
        written = got[:, longest:]
        assert torch.equal(written[:, : want.shape[1]], want)
        assert (written[:, want.shape[1] :] == 5).all()


@pytest.mark.parametrize("changes", [{}, {"mem_len": None}, {"reuse_len": 4}], ids=str)
@pytest.mark.parametrize("prompt", [1, 6])
def test_writing_is_the_reference_s(changes, prompt, oracle):
    made = case("LMHeadModel", **changes)
    weights = oracle.init(made.cls, reference_config(made), seed=8)
    inputs = {"input_ids": ids_of(2, prompt), "max_length": prompt + 9, "pad_token_id": 5, "eos_token_id": 2}
    model = ours_with(made, weights, torch.float32)
    for options in ({}, {"num_beams": 3}):
        want = oracle.run(made.cls, reference_config(made), weights, inputs | options, method="generate", **SINGLE)
        assert torch.equal(model.generate(**(inputs | options)), want["sequences"])


def test_reading_from_left_to_right_it_writes_the_same_with_and_without_memory():
    model = zoo.make(case("LMHeadModel", attn_type="uni", mem_len=None, pruned_heads={1: [0]}))
    options = {"max_new_tokens": 8, "pad_token_id": 5}
    ids = ids_of(3, 4)
    want = model.generate(ids, use_cache=False, **options)
    assert torch.equal(model.generate(ids, **options), want)
    for step in range(4, 12):  # by hand: a blank after the text that nobody sees
        text = torch.cat([want[:, :step], torch.zeros(3, 1, dtype=torch.long)], 1)
        blank = torch.zeros(3, 1, step + 1, dtype=torch.float64)
        blank[:, :, -1] = 1
        logits = model(text, perm_mask=blank.expand(-1, step + 1, -1), target_mapping=blank).logits
        assert torch.equal(logits[:, -1].argmax(-1), want[:, step])


def test_segments_are_left_out_of_writing():
    model = zoo.make(case("LMHeadModel"))
    ids = ids_of(2, 4)
    options = {"max_new_tokens": 5, "pad_token_id": 5}
    types = torch.tensor([[0, 0, 0, 2]] * 2)
    assert torch.equal(model.generate(ids, token_type_ids=types, **options), model.generate(ids, **options))


# ---- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"attention_mask": torch.ones(2, 5), "input_mask": torch.zeros(2, 5)}, "one of the two"),
        ({"attention_mask": torch.ones(2, 5, 5)}, r"attention_mask has shape \(2, 5, 5\), but \(2, 5\) was expected"),
        ({"perm_mask": torch.zeros(2, 5)}, r"perm_mask has shape \(2, 5\), but \(2, 5, 5\) was expected"),
        ({"target_mapping": torch.zeros(2, 1, 4)}, r"\(2, 1, 4\), but \(2, targets, 5\) was expected"),
        ({"mems": [torch.zeros(3, 2, 24)]}, r"mems are 1 tensors of shape \(3, 2, 24\), but 3 of shape"),
        ({"mems": [torch.zeros(3, 4, 24)] * 3}, "with the same rows"),
        ({"mems": []}, "mems are 0 tensors"),
    ],
)
def test_wrong_inputs_say_so(inputs, message):
    model = zoo.make(case(), dtype=torch.float32)
    with pytest.raises(ValueError, match=message):
        model(ids_of(2, 5), **inputs)


def test_odd_rows_cannot_be_read_half_backwards():
    with pytest.raises(ValueError, match="there are 3: give an even number"):
        zoo.make(case(bi_data=True))(ids_of(3, 5))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attn_type": "left"}, "there are bi, uni"),
        ({"summary_type": "attn"}, "there are first, last"),
        ({"d_model": 25}, "no multiple of num_attention_heads"),
        ({"d_head": 7}, "d_head is 7, but 3 heads share a d_model of 24"),
        ({"d_model": 15, "d_head": 5}, "it must be even"),
    ],
)
def test_impossible_configurations(fields, message):
    with pytest.raises(polyformer.ConfigError, match=message):
        polyformer.XLNetConfig(**(TINY | fields))


def test_auto_classes():
    config = polyformer.XLNetConfig(**TINY)
    for auto, cls in (
        ("AutoModel", "XLNetModel"),
        ("AutoModelForPreTraining", "XLNetLMHeadModel"),
        ("AutoModelForCausalLM", "XLNetLMHeadModel"),
        ("AutoModelForQuestionAnswering", "XLNetForQuestionAnsweringSimple"),
        ("AutoModelForMultipleChoice", "XLNetForMultipleChoice"),
    ):
        assert type(getattr(polyformer, auto).from_config(config)).__name__ == cls


# ---- graphs ----------------------------------------------------------------------------------------------------------


def test_two_streams_are_exported_and_run_at_another_shape():
    model = zoo.make(case("LMHeadModel", n_layer=1))
    made, run = (
        padded([streams(1, r, n)[0] for r, n in enumerate(lengths)], "left", True) for lengths in ((5, 7), (8, 4, 9))
    )
    shapes = {name: dict.fromkeys(range(value.dim()), torch.export.Dim.AUTO) for name, value in made.items()}
    shapes["target_mapping"][1] = torch.export.Dim.STATIC
    program = torch.export.export(model, (), made, dynamic_shapes=shapes, strict=False)
    with torch.no_grad():
        got, want = program.module()(**run), model(**run)
    assert type(got) is type(want)
    torch.testing.assert_close(got.logits, want.logits, rtol=1e-9, atol=1e-9)
    for a, b in zip(got.mems.layers, want.mems.layers, strict=True):
        torch.testing.assert_close(a[got.mems.real], b[want.mems.real], rtol=1e-9, atol=1e-9)


def test_a_memory_crosses_a_graph():
    torch._dynamo.reset()
    model = zoo.make(case(n_layer=1))
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    mems = remembered = None
    with torch.no_grad():
        for seed, length in enumerate((5, 4)):
            ids = ids_of(2, length, seed)
            got, want = compiled(ids, mems=mems), model(ids, mems=remembered)
            mems, remembered = got.mems, want.mems
            torch.testing.assert_close(got.last_hidden_state, want.last_hidden_state, rtol=1e-9, atol=1e-9)
