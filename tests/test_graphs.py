"""Property 9: export with dynamic shapes, compile in one graph, trace; each run at a shape it was not made with."""

import pytest
import torch

import zoo

# Recording a graph takes seconds. By default each family's backbone is recorded, each kind of head on the first family
# that has it, and variants of a backbone whose forward takes another way; `make test-all` records every class.
NEW_KINDS = {case.kind: case.family for case in reversed(zoo.CASES)}
OTHER_WAYS = (
    "decoder", "causal", "langs", "relative_key_query", "pooling=last4_cls", "pooling=weighted_layers", "head_ratio",
    "groups", "one_window", "uni", "forgets", "grid", "v1.1",
)  # fmt: skip
WITHIN_ANOTHER = ("FunnelBaseModel", "T5EncoderModel", "MarianMTModel")  # FunnelModel begins with it, and so on


def recorded(case):
    if zoo.THOROUGH:
        return not case.name or case.base or case.name in ("decoder", "causal", "asm", "relative_key_query")
    if case.cls in WITHIN_ANOTHER:
        return False
    if case.base:
        return case.name in ("", *OTHER_WAYS)
    return NEW_KINDS[case.kind] == case.family and case.name in ("", "decoder")


GRAPHED = [case for case in zoo.plain(zoo.own(zoo.originals())) if recorded(case)]
COMPILED = [c for c in GRAPHED if zoo.THOROUGH or (not c.name and (c.base or c.family == "bert"))]
MADE, RUN = (7, 5, 7), (11, 6, 3, 11)


def two_batches(case):
    made, run = (zoo.without_labels(zoo.batch(zoo.sentences(case, lengths), extra=1)) for lengths in (MADE, RUN))
    return made, run


def same(case, got, want, inputs):
    real = inputs["attention_mask"].bool()
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        keep = real if a.shape[: real.dim()] == real.shape else slice(None)
        torch.testing.assert_close(a[keep], b[keep], rtol=1e-9, atol=1e-9)


def tensors(outputs):
    return [v for v in outputs.values() if isinstance(v, torch.Tensor)]


def padded(model, inputs):
    """What the model says on the path that a graph records."""
    with torch.no_grad():
        return tensors(model(**inputs, **zoo.forgetting(model)))


@zoo.each(GRAPHED)
def test_export(case):
    model = zoo.make(case)
    made, run = two_batches(case)
    auto = torch.export.Dim.AUTO
    shapes = {name: dict.fromkeys(range(value.dim()), auto) for name, value in made.items()}
    if case.choices:
        shapes = {name: axes | {1: torch.export.Dim.STATIC} for name, axes in shapes.items()}
    options = zoo.forgetting(model)
    program = torch.export.export(
        model, (), made | options, dynamic_shapes=shapes | dict.fromkeys(options), strict=False
    )
    with torch.no_grad():
        outputs = program.module()(**run, **options)
    assert type(outputs) is type(model(**run))
    same(case, tensors(outputs), padded(model, run), run)


@zoo.each(COMPILED)
def test_compile(case):
    torch._dynamo.reset()
    model = zoo.make(case)
    made, run = two_batches(case)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    with torch.no_grad():
        for inputs in (made, run):
            same(case, tensors(compiled(**inputs)), tensors(model(**inputs)), inputs)


@zoo.each(GRAPHED)
def test_trace(case):
    model = zoo.make(case, torchscript=True, **({"use_cache": False} if case.causal or case.encodes else {}))
    made, run = two_batches(case)
    with torch.no_grad():
        traced = torch.jit.trace(model, example_kwarg_inputs=made, check_trace=False)
        got = traced(**run)
    got = [t for t in (got if isinstance(got, tuple) else (got,)) if isinstance(t, torch.Tensor)]
    same(case, got, padded(model, run | {"return_dict": True}), run)


def test_compile_with_everything_asked_for():
    torch._dynamo.reset()
    case = zoo.Case("BertForSequenceClassification", zoo.BERT.tiny)
    model = zoo.make(case)
    made, run = two_batches(case)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    ask = {"output_attentions": True, "output_hidden_states": True}
    with torch.no_grad():
        for inputs in (made, run):
            got, want = compiled(**inputs, **ask), model(**inputs, **ask)
            assert got.keys() == want.keys()
            same(case, got.hidden_states, want.hidden_states, inputs)


def test_compiled_training_step():
    torch._dynamo.reset()
    case = zoo.Case("BertForMaskedLM", zoo.BERT.tiny)
    model = zoo.make(case)
    inputs = zoo.batch(zoo.sentences(case, MADE))
    want = torch.autograd.grad(model(**inputs).loss, model.lm.dense.weight)[0]
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(**inputs).loss, model.lm.dense.weight)[0]
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_state_crosses_a_graph():
    """A decoder's cache is a pytree: it goes into a compiled model and comes out."""
    torch._dynamo.reset()
    case = zoo.Case("BertLMHeadModel", zoo.BERT.tiny | {"is_decoder": True})
    model = zoo.make(case)
    ids = torch.randint(1, 47, (2, 8))
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    with torch.no_grad():
        first = compiled(ids[:, :5], use_cache=True)
        second = compiled(ids[:, 5:], past_key_values=first.past_key_values, use_cache=True)
        torch.testing.assert_close(second.logits, model(ids, use_cache=False).logits[:, 5:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("what", ["mask", "no mask"])
def test_nothing_is_stored_on_a_module(what):
    case = zoo.Case("BertForMaskedLM", zoo.BERT.tiny)
    model = zoo.make(case)

    def snapshot():
        return {f"{n}.{k}": id(v) for n, m in model.named_modules() for k, v in vars(m).items()}

    before = snapshot()
    inputs = zoo.batch(zoo.sentences(case, RUN), mask=True)
    model(**(inputs if what == "mask" else {"input_ids": inputs["input_ids"]}))
    assert snapshot() == before
