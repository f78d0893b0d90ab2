"""Property 1: what the reference answers, to 1e-9 in float64 and 1e-5 in float32; loss and gradients too."""

import pytest
import torch

import zoo

LENGTHS = (9, 6, 4)


def reference_config(case):
    config = dict(case.config)
    labels = config.pop("num_labels", 2) if "QuestionAnswering" not in case.cls else 2  # there it means start and end
    config["id2label"] = {i: f"LABEL_{i}" for i in range(labels)}
    return {k: v for k, v in config.items() if k != "pooling"}


def ours_with(case, weights, dtype):
    model = zoo.make(case, dtype=dtype)
    found = model.load_state_dict({k: v.to(dtype) for k, v in weights.items()})
    assert not found.missing_keys
    assert not found.unexpected_keys
    return model


def inputs_of(case, dtype):
    """Padded on the right, as the reference wants it; span losses alone, since there padding enters its softmax."""
    rows = zoo.sentences(case, LENGTHS[:1] * 3 if "QuestionAnswering" in case.cls else LENGTHS)
    inputs = zoo.batch(rows)
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}


def flat(outputs):
    found = {}
    for name, value in outputs.items():
        if name == "past_key_values":
            for i, layer in enumerate(value):
                found |= {f"{name}.{i}.{j}": t for j, t in enumerate(layer)}
        elif isinstance(value, tuple):
            found |= {f"{name}.{i}": t for i, t in enumerate(value)}
        else:
            found[name] = value
    return found


def compare(got, want, inputs, tol):
    """At real tokens only: what lies at padding means nothing and differs."""
    real = inputs["attention_mask"].bool()
    real = real.flatten(0, -2) if real.dim() == 3 else real
    assert got.keys() == {k for k in want if not k.startswith("grad.")}
    for name, value in got.items():
        ref = want[name].to(value.dtype)
        assert value.shape == ref.shape, name
        if name.startswith("attentions"):
            keep = real[:, None, :, None] & real[:, None, None]
        elif name.startswith("cross_attentions"):
            keep = real[:, None, :, None] & inputs["encoder_attention_mask"].bool()[:, None, None]
        elif name.startswith("past_key_values"):
            side = real if name[-1] in "01" else inputs["encoder_attention_mask"].bool()
            keep = torch.ones_like(side)[:, None, :, None] if name[-1] in "23" else side[:, None, :, None]
        elif value.shape[:2] == real.shape:
            keep = real.view(*real.shape, *[1] * (value.dim() - 2))
        else:
            keep = torch.ones([1] * value.dim(), dtype=torch.bool)
        keep = keep.expand(value.shape)
        torch.testing.assert_close(value[keep], ref[keep], rtol=tol, atol=tol, msg=lambda m, n=name: f"{n}: {m}")


@zoo.each([c for c in zoo.CASES if c.reference])
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=["float64", "float32"])
def test_outputs(case, dtype, tol, oracle):
    weights = oracle.init(case.cls, reference_config(case), seed=3)
    inputs = inputs_of(case, dtype) | {"output_attentions": True, "output_hidden_states": True}
    want = oracle.run(case.cls, reference_config(case), weights, inputs, dtype=dtype)
    with torch.no_grad():
        got = flat(ours_with(case, weights, dtype)(**inputs))
    compare(got, want, inputs, tol)


@zoo.each([c for c in zoo.CASES if c.reference and c.cls != "BertModel"])
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_loss_and_gradients(case, train, oracle):
    """Every parameter's gradient, under the reference's name, with dropout 0."""
    weights = oracle.init(case.cls, reference_config(case), seed=4)
    inputs = inputs_of(case, torch.float64)
    want = oracle.run(case.cls, reference_config(case), weights, inputs, grad=True, train=train)
    model = ours_with(case, weights, torch.float64).train(train)
    loss = model(**inputs).loss
    torch.testing.assert_close(loss, want["loss"], rtol=1e-9, atol=1e-9)
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    theirs = model.keys.save(grads, base=model.is_base)
    wanted = {name.removeprefix("grad."): g for name, g in want.items() if name.startswith("grad.")}
    wanted = {name: g for name, g in wanted.items() if g.abs().max() > 0}
    assert wanted.keys() <= theirs.keys()
    for name in wanted:
        torch.testing.assert_close(theirs[name], wanted[name], rtol=1e-8, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@zoo.each([c for c in zoo.plain() if c.reference and c.cls in ("BertModel", "BertForMaskedLM")])
def test_other_inputs(case, oracle):
    """Embeddings in place of ids, a head mask, given positions, a mask with three axes."""
    weights = oracle.init(case.cls, reference_config(case), seed=5)
    model = ours_with(case, weights, torch.float64)
    ids = zoo.batch(zoo.sentences(case, (9, 9)))["input_ids"]
    heads = [model.config.num_attention_heads - len(model.config.pruned_heads.get(i, ())) for i in range(3)]
    edges = torch.rand(2, 9, 9).gt(0.4).long() | torch.eye(9).long()
    calls = {
        "embeds": {"inputs_embeds": torch.randn(2, 9, 24, dtype=torch.float64)},
        "positions": {"input_ids": ids, "position_ids": torch.randint(0, 32, (2, 9))},
        "edges": {"input_ids": ids, "attention_mask": edges},
    }
    if len(set(heads)) == 1:
        calls["head_mask"] = {"input_ids": ids, "head_mask": torch.rand(3, heads[0], dtype=torch.float64)}
        calls["one head_mask"] = {"input_ids": ids, "head_mask": torch.rand(heads[0], dtype=torch.float64)}
    for name, inputs in calls.items():
        want = oracle.run(case.cls, reference_config(case), weights, inputs)
        with torch.no_grad():
            got = flat(model(**inputs))
        for key, value in got.items():
            torch.testing.assert_close(value, want[key], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_cached_steps_with_a_hole_in_the_mask(oracle):
    """A hole keeps its position; three calls, each with what the one before left."""
    from oracle import Carry

    case = zoo.Case("BertLMHeadModel", zoo.BERT.tiny | {"is_decoder": True})
    weights = oracle.init(case.cls, reference_config(case), seed=6)
    ids = torch.randint(1, 47, (2, 9))
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
