"""Property 1: what the reference answers, to 1e-9 in float64 and 1e-5 in float32; loss and gradients too."""

import re

import pytest
import torch

import zoo

LENGTHS = (9, 6, 4)


TWO = (
    "ForQuestionAnswering",
    "ForQuestionAnsweringSimple",
    "ForPreTraining",
)  # where num_labels must be 2 there: start and end, in order or not


def reference_config(case):
    config = dict(case.config)
    labels = config.pop("num_labels", 2)
    labels = 2 if case.kind in TWO else labels
    config["id2label"] = {i: f"LABEL_{i}" for i in range(labels)}
    return {k: v for k, v in config.items() if k != "pooling"}


def ours_with(case, weights, dtype):
    model = zoo.make(case, dtype=dtype)
    found = model.load_state_dict({k: v.to(dtype) for k, v in weights.items()})
    assert not found.missing_keys
    assert not found.unexpected_keys
    return model


def inputs_of(case, dtype):
    """Padded where the reference wants it; not where it reads padding, as its span losses' softmax does."""
    family = zoo.FAMILY[case.family]
    rows = zoo.sentences(case, LENGTHS[:1] * 3 if case.spans or family.unpadded else LENGTHS)
    inputs = zoo.batch(rows, side=family.side)
    if "mc_token_ids" in inputs:  # rows and choices as one axis: GPT's mask there, and any mask here
        inputs["attention_mask"] = inputs["attention_mask"].flatten(0, 1)
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}


def flat(outputs):
    found = {}
    for name, value in outputs.items():
        if name in ("past_key_values", "past_buckets_states"):
            for i, layer in enumerate(value):
                found |= {f"{name}.{i}.{j}": t for j, t in enumerate(layer) if t is not None}
        elif isinstance(value, tuple):
            found |= {f"{name}.{i}": t for i, t in enumerate(value)}
        else:
            found[name] = value
    return found


def apart(want):
    """The reference's outputs, keys and values one by one also where it has them in one tensor."""
    found = {}
    for name, value in want.items():
        stacked = name.startswith("past_key_values.") and value.dim() == 5
        found |= {f"{name}.{j}": part for j, part in enumerate(value)} if stacked else {name: value}
    return found


def compare(case, got, want, inputs, tol):
    """At real tokens only: what lies at padding means nothing and differs."""
    family, want = zoo.FAMILY[case.family], apart(want)
    if not family.keeps_source:
        got = {name: value for name, value in got.items() if not re.fullmatch(r"past_key_values\.\d\.[23]", name)}
    assert got.keys() == {k for k in want if not k.startswith(("grad.", *family.unkept))}
    for name, value in got.items():
        if name == "loss" and want[name].dtype != value.dtype:  # ELECTRA's, by hand further down
            continue
        ref = want[name]
        real = zoo.mask_of(inputs, name).bool().flatten(0, -2)
        source = inputs.get("encoder_attention_mask", inputs["attention_mask"]).bool()
        if name.startswith(family.reference_pads):
            ref = ref.narrow(1 if name.startswith("hidden") else 2, 0, real.shape[1])
        assert value.shape == ref.shape, name
        if family.unpadded:
            keep = torch.ones([1] * value.dim(), dtype=torch.bool)
        elif name.startswith("mems"):
            keep = remembered(real, case, len(value))[:, :, None]
        elif name.startswith("cross_attentions"):
            keep = real[:, None, :, None] & source[:, None, None]
        elif "attentions" in name:
            keep = real[:, None, :, None]
            keep = keep & real[:, None, None] if -1 in family.attention_tokens else keep
        elif name.startswith("past_key_values"):
            side = real if name[-1] in "01" else source if case.encodes else torch.ones_like(source)
            keep = side[:, None, :, None]
        else:
            keep = zoo.at_real_tokens(value, real)
        keep = keep.expand(value.shape)
        torch.testing.assert_close(value[keep], ref[keep], rtol=tol, atol=tol, msg=lambda m, n=name: f"{n}: {m}")


def remembered(real, case, count):
    """Which of `count` places of a memory hold real tokens, (count, rows)."""
    return real[:, : case.configure().reuse_len or real.shape[1]][:, -count:].T


@zoo.each([c for c in zoo.CASES if c.reference])
def test_outputs(case, oracle):
    same_outputs(case, oracle, torch.float64, 1e-9)


@zoo.each([c for c in zoo.CASES if c.reference and (zoo.THOROUGH or not c.name)])
def test_outputs_in_float32(case, oracle):
    same_outputs(case, oracle, torch.float32, 1e-5)


def same_outputs(case, oracle, dtype, tol):
    weights = oracle.init(case.cls, reference_config(case), seed=3)
    inputs = inputs_of(case, dtype) | {"output_hidden_states": True}
    inputs["output_attentions"] = "attentions" not in zoo.FAMILY[case.family].refused
    want = oracle.run(case.cls, reference_config(case), weights, zoo.known_there(case, inputs), dtype=dtype)
    with torch.no_grad():
        got = flat(ours_with(case, weights, dtype)(**inputs))
    compare(case, got, want, inputs, tol)


HEADS = [c for c in zoo.CASES if c.reference and not c.base and not c.replaced]
EVAL_AND_TRAIN = [
    *((case, False) for case in HEADS),
    *((case, True) for case in HEADS if zoo.THOROUGH or not case.name),  # with dropout 0 it is the same
]


@pytest.mark.parametrize(("case", "train"), EVAL_AND_TRAIN, ids=lambda v: v if isinstance(v, bool) else str(v))
def test_loss_and_gradients(case, train, oracle):
    """Every parameter's gradient, under the reference's name, with dropout 0: of the loss, or of weighted outputs."""
    weights = oracle.init(case.cls, reference_config(case), seed=4)
    inputs = inputs_of(case, torch.float64)
    model = ours_with(case, weights, torch.float64).train(train)
    outputs = model(**inputs)
    grad = "loss" in outputs or zoo.pull(outputs, inputs)
    known = zoo.known_there(case, inputs)
    refuses = "eval gradients" in zoo.FAMILY[case.family].refused  # without dropout training is the same
    want = oracle.run(case.cls, reference_config(case), weights, known, grad=grad, train=train or refuses)
    theirs = {name: want[name] for name in outputs.keys() & want.keys()}
    loss = zoo.objective(outputs, inputs)
    torch.testing.assert_close(loss, zoo.objective(theirs, inputs), rtol=1e-9, atol=1e-9)
    loss.backward()
    compare_gradients(model, want)


@zoo.each([c for c in zoo.CASES if c.reference and c.replaced])
def test_loss_and_gradients_of_replaced_tokens(case, oracle):
    """The reference has this loss in float32 only, so: the loss by hand, the gradients from the logits' on by it."""
    weights = oracle.init(case.cls, reference_config(case), seed=4)
    inputs = inputs_of(case, torch.float64)
    model = ours_with(case, weights, torch.float64)
    outputs = model(**inputs)
    outputs.logits.retain_grad()
    outputs.loss.backward()
    # minus log of the probability of what is so: sigmoid(x) = 1 / (1 + exp(-x)) that the token is replaced
    right = outputs.logits.sigmoid().where(inputs["labels"] == 1, 1 - outputs.logits.sigmoid())
    by_hand = -right.log()[inputs["attention_mask"] == 1].mean()
    torch.testing.assert_close(outputs.loss, by_hand, rtol=1e-9, atol=1e-9)
    signal = {"logits": outputs.logits.grad}
    compare_gradients(model, oracle.run(case.cls, reference_config(case), weights, inputs, grad=signal))
    rough = oracle.run(case.cls, reference_config(case), weights, inputs)["loss"]
    torch.testing.assert_close(outputs.loss.float(), rough, rtol=1e-6, atol=1e-6)


def compare_gradients(model, want):
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    theirs = model.keys.save(grads, base=model.is_base)
    wanted = {name.removeprefix("grad."): g for name, g in want.items() if name.startswith("grad.")}
    wanted = {name: g for name, g in wanted.items() if g.abs().max() > 0}
    assert wanted.keys() <= theirs.keys()
    for name in wanted:
        torch.testing.assert_close(theirs[name], wanted[name], rtol=1e-8, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@zoo.each([c for c in zoo.plain() if c.reference and (c.base or c.kind == "ForMaskedLM") and not c.encodes])
def test_other_inputs(case, oracle):
    """Embeddings in place of ids, head masks, given positions, a mask with three axes, padding ids without a mask."""
    weights = oracle.init(case.cls, reference_config(case), seed=5)
    model = ours_with(case, weights, torch.float64)
    ids = zoo.batch(zoo.sentences(case, (9, 9)))["input_ids"]
    width = model.get_input_embeddings().embedding_dim
    edges = torch.rand(2, 9, 9).gt(0.4).long() | torch.eye(9).long()
    calls = {
        "embeds": {"inputs_embeds": torch.randn(2, 9, width, dtype=torch.float64)},
        "position_ids": {"input_ids": ids, "position_ids": torch.randint(0, 32, (2, 9))},
        "edges": {"input_ids": ids, "attention_mask": edges},
        "pads": {"input_ids": torch.cat([ids, torch.full((2, 2), model.config.pad_token_id or 0), ids[:, :1]], 1)},
        "one head_mask": {"input_ids": ids, "head_mask": torch.rand(3, dtype=torch.float64)},
        "head_mask": {"input_ids": ids, "head_mask": torch.rand(3, 3, dtype=torch.float64)},
    }
    skipped = set(zoo.FAMILY[case.family].refused)
    if model.config.pruned_heads:
        skipped |= {"head_mask", "one head_mask"}
    if "position_ids" not in case.arguments:
        skipped.add("position_ids")
    for name in calls.keys() - skipped:
        inputs = calls[name]
        want = oracle.run(case.cls, reference_config(case), weights, inputs)
        with torch.no_grad():
            got = flat(model(**inputs))
        want = apart(want)
        for key, value in got.items():
            torch.testing.assert_close(value, want[key], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def writes_from_a_cache(case):
    """Whether it has scores of words and the reference's class keeps a state, under its usual name."""
    named = case.name == "decoder" or (case.cls in ("GPT2LMHeadModel", "CTRLLMHeadModel") and not case.name)
    return named and not case.base


@zoo.each([c for c in zoo.originals() if writes_from_a_cache(c)])
def test_cached_steps_with_a_hole_in_the_mask(case, oracle):
    """A hole keeps its position; three calls, each with what the one before left."""
    from oracle import Carry

    weights = oracle.init(case.cls, reference_config(case), seed=6)
    ids = zoo.batch(zoo.sentences(case, (9, 9)))["input_ids"]
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 2] = 0
    cuts = ((0, 5), (5, 6), (6, 9))
    calls = [{"input_ids": ids[:, a:b], "attention_mask": mask[:, :b], "use_cache": True} for a, b in cuts]
    for call in calls[1:]:
        call["past_key_values"] = Carry("past_key_values")
    want = oracle.run(case.cls, reference_config(case), weights, calls)
    model, past = ours_with(case, weights, torch.float64), None
    for step, call in enumerate(calls):
        with torch.no_grad():
            outputs = model(**(call | {"past_key_values": past}))
        past = outputs.past_key_values
        keep = mask[:, cuts[step][0] : cuts[step][1]].bool()
        torch.testing.assert_close(outputs.logits[keep], want[f"s{step}.logits"][keep], rtol=1e-9, atol=1e-9)
