"""What Reformer has to itself: any length, grids, memory while training, and writing from states and buckets."""

import pytest
import torch

import polyformer
import zoo
from polyformer.core.errors import ConfigError
from polyformer.parts.buckets import BucketState
from polyformer.parts.lsh import hashed
from test_parity import compare_gradients, flat, ours_with, reference_config
from zoo_reformer import GRID, READER, WRITER

MODEL, MASKED = zoo.first(READER), zoo.first(READER, "ForMaskedLM")
WRITES = zoo.first(WRITER, "ModelWithLMHead")
LONG = {"lsh_attn_chunk_length": 3, "num_hashes": 2}  # a text of more chunks than are seen at once


def close(got, want, tol=1e-9):
    torch.testing.assert_close(got, want, rtol=tol, atol=tol)


def ids_of(*shape, seed=0):
    return torch.randint(1, 47, shape, generator=torch.Generator().manual_seed(seed))


# ---- any length ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_hashes": 3, "lsh_attn_chunk_length": 4},
        {"num_buckets": None, "lsh_num_chunks_after": 1},
        {"num_buckets": [2, 4], "lsh_attn_chunk_length": 6, "lsh_num_chunks_before": 2},
        {"local_attn_chunk_length": 8, "local_num_chunks_before": 0, **GRID, "axial_pos_shape": [6, 8]},
    ],
    ids=str,
)
@pytest.mark.parametrize("causal", [False, True], ids=["reader", "writer"])
def test_every_length(changes, causal, oracle):
    """As the reference, which fills up chunks too, states of all layers included."""
    case = MODEL.but(is_decoder=causal, max_position_embeddings=64, **changes)
    weights = oracle.init(case.cls, reference_config(case), seed=3)
    model = ours_with(case, weights, torch.float64)
    for length in (1, 3, 4, 7, 13, 24, 31):
        inputs = {"input_ids": ids_of(2, length), "output_hidden_states": True}
        want = oracle.run(case.cls, reference_config(case), weights, inputs | {"use_cache": False})
        with torch.no_grad():
            got = flat(model(**inputs, use_cache=False))
        assert got.keys() == want.keys()
        for name, value in got.items():
            assert value.shape == want[name].shape
            close(value[:, :length], want[name][:, :length])


@pytest.mark.parametrize("rounds", [1, 2])
def test_gradients_of_a_whole_grid(rounds, oracle):
    """The reference trains with texts that fill the grid only."""
    changes = GRID | {"num_hashes": rounds, "lsh_attn_chunk_length": 4, "local_attn_chunk_length": 4}
    case = WRITES.but(**changes)
    weights = oracle.init(case.cls, reference_config(case), seed=4)
    inputs = {"input_ids": ids_of(2, 32), "labels": ids_of(2, 32, seed=1)}
    want = oracle.run(case.cls, reference_config(case), weights, inputs, grad=True, train=True)
    model = ours_with(case, weights, torch.float64).train()
    outputs = model(**inputs)
    close(outputs.loss, want["loss"])
    outputs.loss.backward()
    compare_gradients(model, want)


def test_more_rounds_for_one_call(oracle):
    weights = oracle.init(MODEL.cls, reference_config(MODEL), seed=5)
    model = ours_with(MODEL, weights, torch.float64)
    inputs = {"input_ids": ids_of(2, 12), "num_hashes": 4}
    want = oracle.run(MODEL.cls, reference_config(MODEL), weights, inputs)
    with torch.no_grad():
        close(model(**inputs).last_hidden_state, want["last_hidden_state"])
        four = zoo.make(MODEL, num_hashes=4)
        four.load_state_dict(model.state_dict())
        assert torch.equal(four(inputs["input_ids"]).last_hidden_state, model(**inputs).last_hidden_state)


def test_long_padded_texts_are_as_they_are_alone():
    """Many chunks, several rounds, both sides; the attention of the longest is sorted all anew by what it is beside."""
    model = zoo.make(MASKED, **LONG)
    lengths = (31, 17, 3, 25)
    rows = zoo.sentences(MASKED, lengths)
    for side in ("left", "right"):
        inputs = zoo.without_labels(zoo.batch(rows, side=side, garbage=47))
        with torch.no_grad():
            logits = model(**inputs).logits
            for row, own, real in zip(rows, logits, inputs["attention_mask"].bool(), strict=True):
                close(own[real], model(row["input_ids"][None]).logits[0])


# ---- chance ----------------------------------------------------------------------------------------------------------


def test_without_a_seed_rotations_are_new_while_training_alone():
    model = zoo.make(MODEL, hash_seed=None, **LONG)
    ids = ids_of(2, 30)
    with torch.no_grad():
        one, two = model(ids).last_hidden_state, model(ids).last_hidden_state
        assert torch.equal(one, two)
        model.train()
        torch.manual_seed(1)
        one, two = model(ids).last_hidden_state, model(ids).last_hidden_state
        assert not torch.allclose(one, two)
        torch.manual_seed(1)
        assert torch.equal(model(ids).last_hidden_state, one)


# ---- memory while training -------------------------------------------------------------------------------------------


def step(model, inputs, seed=3):
    model.zero_grad()
    torch.manual_seed(seed)
    model(**inputs).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


DROPOUT = dict.fromkeys(
    ("hidden_dropout_prob", "local_attention_probs_dropout_prob", "lsh_attention_probs_dropout_prob"), 0.3
)


@pytest.mark.parametrize("seed", [7, None], ids=["one hash", "new hashes"])
def test_running_backwards_changes_memory_not_gradients(seed):
    model = zoo.make(MASKED, **DROPOUT, **LONG, hash_seed=seed, chunk_size_feed_forward=4).train()
    inputs = zoo.batch(zoo.sentences(MASKED, (25, 11)))
    plain = step(model, inputs)
    model.gradient_checkpointing_enable()
    calls = []
    model.base_model.layers[0].attn.register_forward_pre_hook(lambda *_: calls.append(1))
    again = step(model, inputs)
    assert len(calls) == 2
    zoo.assert_same(again, plain, 1e-10)
    assert again.keys() == dict(model.named_parameters()).keys()


def test_running_backwards_keeps_buckets(monkeypatch):
    """In bfloat16 an input found again is not quite what it was: its bucket must be."""
    model = zoo.make(MASKED, dtype=torch.bfloat16, **LONG).train()
    model.gradient_checkpointing_enable()
    hashes = []
    monkeypatch.setattr("polyformer.parts.lsh.hashed", lambda *given: hashes.append(1) or hashed(*given))
    step(model, zoo.batch(zoo.sentences(MASKED, (25, 11))))
    assert len(hashes) == 2  # one an LSH layer


def test_what_training_keeps_does_not_grow_with_the_layers():
    def kept(layers):
        model = zoo.make(MODEL, attn_layers=["local", "lsh"] * layers, **LONG).train()
        model.gradient_checkpointing_enable()
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        sizes = []

        def note(t):
            sizes.append(0 if t.untyped_storage().data_ptr() in weights else t.numel())
            return t

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            model(ids_of(2, 30))
        return sum(sizes)

    assert kept(1) == kept(4)


# ---- writing ---------------------------------------------------------------------------------------------------------

CUTS = {
    "step by step": [(i, i + 1) for i in range(10)],
    "prompt, then steps": [(0, 6), *((i, i + 1) for i in range(6, 10))],
    "chunks": [(0, 4), (4, 7), (7, 10)],
}


def setup(left, **changes):
    model = zoo.make(WRITES, **changes)
    rows = zoo.sentences(WRITES, (10, 6, 8) if left else (10,) * 3)
    inputs = zoo.batch(rows, side="left")
    return model, inputs["input_ids"], inputs["attention_mask"] if left else None


def run(model, ids, mask, cuts, past=None):
    shown = []
    for a, b in cuts:
        with torch.no_grad():
            outputs = model(
                ids[:, a:b], attention_mask=None if mask is None else mask[:, :b], past_buckets_states=past,
                use_cache=True,
            )  # fmt: skip
        past = outputs.past_buckets_states
        shown.append(outputs.logits)
    return torch.cat(shown, 1), past


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("left", [False, True], ids=["full", "left-padded"])
@pytest.mark.parametrize("changes", [{}, GRID, {"lsh_attn_chunk_length": 6}], ids=["row", "grid", "two chunks"])
def test_cache_is_no_cache(cuts, left, changes):
    """Where LSH attention sees a text at once; longer ones in tests/test_lsh.py, a layer at a time."""
    model, ids, mask = setup(left, **changes)
    with torch.no_grad():
        want = model(ids, attention_mask=mask, use_cache=False).logits
    real = slice(None) if mask is None else mask.bool()
    for capacity in (None, 12):
        past = None if capacity is None else BucketState.empty(3, capacity)
        got, past = run(model, ids, mask, CUTS[cuts], past)
        close(got[real], want[real])
        assert past.length == 10


def test_steps_as_the_reference_s(oracle):
    """Within one chunk of LSH attention: after that the reference's steps are not what it says of the whole text."""
    from oracle import Carry

    changes = {"lsh_attn_chunk_length": 12}
    case = WRITES.but(**changes)
    weights = oracle.init(case.cls, reference_config(case), seed=6)
    ids = ids_of(2, 10)
    cuts = CUTS["prompt, then steps"]
    calls = [{"input_ids": ids[:, a:b], "use_cache": True} for a, b in cuts]
    for call in calls[1:]:
        call["past_buckets_states"] = Carry("past_buckets_states")
    want = oracle.run(case.cls, reference_config(case), weights, calls)
    model, past = ours_with(case, weights, torch.float64), None
    for i, (a, b) in enumerate(cuts):
        logits, past = run(model, ids, None, [(a, b)], past)
        close(logits, want[f"s{i}.logits"])
        for layer, (_, states) in enumerate(past):
            close(states, want[f"s{i}.past_buckets_states.{layer}.1"])


@pytest.mark.parametrize("capacity", [None, 12], ids=["growing", "preallocated"])
def test_after_a_beam_reorder(capacity):
    model, ids, mask = setup(True, lsh_attn_chunk_length=6)
    rows = torch.tensor([2, 0, 0])
    with torch.no_grad():
        want = model(ids[rows], attention_mask=mask[rows], use_cache=False).logits[:, 6:]
    past = None if capacity is None else BucketState.empty(3, capacity)
    _, past = run(model, ids, mask, [(0, 5), (5, 6)], past)
    got, _ = run(model, ids[rows], mask[rows], [(6, 7), (7, 10)], past.reorder(rows))
    real = mask[rows].bool()[:, 6:]
    close(got[real], want[real])


def test_what_is_passed_in_stays_as_it_was():
    model, ids, _ = setup(False, lsh_attn_chunk_length=3)
    _, past = run(model, ids, None, [(0, 6)])
    before = [[None if t is None else t.clone() for t in layer] for layer in past]
    run(model, ids, None, [(6, 7), (7, 10)], past)
    want, _ = run(model, ids, None, [(6, 10)], past)
    assert past.length == 6
    for layer, old in zip(past, before, strict=True):
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(layer, old, strict=True))
    pairs = tuple(past)
    got, _ = run(model, ids, None, [(6, 10)], pairs)
    assert torch.equal(got, want)


def test_readers_keep_nothing():
    assert zoo.make(MODEL)(ids_of(1, 4), use_cache=True).past_buckets_states is None


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 2}], ids=["greedy", "beams"])
def test_writing(options):
    """With and without a state; ragged prompts as each alone."""
    model = zoo.make(WRITES, lsh_attn_chunk_length=15)
    rows = zoo.sentences(WRITES, (3, 6, 5))
    inputs = {n: v for n, v in zoo.batch(rows, side="left").items() if n != "labels"}
    options = {"max_new_tokens": 12, "eos_token_id": 7, "pad_token_id": 0} | options
    text = model.generate(**inputs, **options)
    assert torch.equal(model.generate(**inputs, **options, use_cache=False), text)
    count = options.get("num_return_sequences", 1)
    for i, row in enumerate(rows):
        alone = model.generate(row["input_ids"][None], **options)
        own = text[i * count : (i + 1) * count, 6 - len(row["input_ids"]) :]
        width = min(alone.shape[1], own.shape[1])
        assert torch.equal(own[:, :width], alone[:, :width])
        assert not own[:, width:].any()


# ---- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"attn_layers": ["lhs"]}, "attn_layers has 'lhs'; layers are local or lsh"),
        ({"axial_pos_embds_dim": [64, 64]}, "sum up to 128, but hidden_size 256"),
        ({"axial_pos_shape": [4, 4, 4]}, "a number for every axis"),
        ({"num_buckets": 5}, "num_buckets is 5, but directions have opposites"),
        ({"num_buckets": [4, 3]}, "give even numbers"),
        ({"tie_word_embeddings": True}, "twice as wide as the embeddings"),
        ({"pooling": "avg"}, "there are cls, attention"),
    ],
)
def test_impossible_configurations(fields, message):
    with pytest.raises(ConfigError, match=message):
        polyformer.ReformerConfig(**fields)


def test_inputs_that_do_not_fit():
    model = zoo.make(MODEL, **GRID)
    with pytest.raises(ValueError, match=r"33 tokens is too long for this model, which knows 32 positions"):
        model(ids_of(1, 33))
    with pytest.raises(ValueError, match=r"attention_mask is \(rows, length\)"):
        model(ids_of(1, 4), attention_mask=torch.ones(1, 4, 4))
    model = zoo.make(WRITES)
    with pytest.raises(TypeError, match=r"a pair \(buckets, states\) a layer"):
        model(ids_of(1, 4), past_buckets_states=ids_of(1, 4))


def test_layers_are_as_many_as_are_named():
    config = polyformer.ReformerConfig(attn_layers=["local", "lsh"])
    assert config.num_hidden_layers == 2
    assert polyformer.ReformerConfig.from_dict(config.to_dict()) == config
