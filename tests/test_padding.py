"""Property 5: padding never changes an answer, on either side, whatever ids lie under the mask."""

import itertools

import pytest
import torch

import zoo

LENGTHS = (9, 4, 12, 7)
ALL = {"output_attentions": True, "output_hidden_states": True}
PADDINGS = {
    "right": dict(side="right", extra=3),
    "left": dict(side="left", extra=3),
    "garbage right": dict(side="right", extra=2, garbage=47),
    "garbage left": dict(side="left", extra=2, garbage=47),
}


@zoo.each(zoo.own())
def test_outputs(case):
    """Packed, padded, and with all that the layers show, which is never packed."""
    model, rows = zoo.make(case), zoo.sentences(case, LENGTHS)
    for options, ways in (({}, (True, False)), (ALL, (True,))):
        with torch.no_grad():
            alone = [model(**zoo.without_labels(zoo.batch([row], mask=False)), **options) for row in rows]
        want = [zoo.outputs_of_row(case, o, 0, n, side="right") for o, n in zip(alone, LENGTHS, strict=True)]
        for (name, how), packable in itertools.product(PADDINGS.items(), ways):
            model.base_model.packable = packable
            inputs = zoo.without_labels(zoo.batch(rows, **how))
            with torch.no_grad():
                outputs, longest = model(**inputs, **options), inputs["input_ids"].shape[-1]
            for i, length in enumerate(LENGTHS):
                got = zoo.outputs_of_row(case, outputs, i, length, side=how["side"], longest=longest)
                zoo.assert_same(got, want[i], 1e-9, f"row {i}, padded {name}, {'packed' if packable else 'not packed'}")


@zoo.each([c for c in zoo.own() if not c.base])
def test_loss_and_gradients(case):
    """However a batch is padded, its loss and every gradient are the same."""
    model = zoo.make(case)
    rows = zoo.sentences(case, LENGTHS)
    found = []
    for how in ({}, *PADDINGS.values()):
        model.zero_grad()
        inputs = zoo.batch(rows, **how)
        loss = zoo.objective(model(**inputs), inputs)
        loss.backward()
        found.append({"loss": loss.detach()} | {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    for other in found[1:]:
        zoo.assert_same(other, found[0], 1e-8)


@zoo.each([c for c in zoo.own() if c.per_token and "labels" in c.arguments])
def test_labels_under_padding_do_not_count(case):
    model = zoo.make(case)
    inputs = zoo.batch(zoo.sentences(case, LENGTHS))
    with torch.no_grad():
        want = model(**inputs).loss
        filled = inputs["labels"].where(zoo.mask_of(inputs, "labels").bool(), 1)
        torch.testing.assert_close(model(**(inputs | {"labels": filled})).loss, want)


def edged(case):
    """Whether a mask of edges can say all of who sees whom."""
    family = zoo.FAMILY[case.family]
    return family.attends_only and -1 in family.attention_tokens and not case.encodes


@zoo.each([c for c in zoo.plain(zoo.originals()) if edged(c) and c.base and "pooling" not in c.name])
def test_a_hole_in_the_mask_keeps_its_position(case):
    """A token hidden in the middle is as if nobody could attend to it: the others stay where they are."""
    model = zoo.make(case)
    ids = torch.randint(6, 47, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, 3:5] = 0
    edges = mask[:, None].expand(2, 9, 9)
    edges = edges.tril() if case.causal else edges
    with torch.no_grad():
        holed, spelled = model(ids, attention_mask=mask), model(ids, attention_mask=edges)
        torch.testing.assert_close(
            holed.last_hidden_state[mask.bool()], spelled.last_hidden_state[mask.bool()], rtol=1e-9, atol=1e-9
        )
        garbled = ids.where(mask.bool(), 5)
        again = model(garbled, attention_mask=mask).last_hidden_state[mask.bool()]
        torch.testing.assert_close(again, holed.last_hidden_state[mask.bool()], rtol=1e-9, atol=1e-9)


@zoo.each([c for c in zoo.plain(zoo.own()) if c.base])
@pytest.mark.parametrize("side", ["right", "left"])
def test_vectors_in_place_of_ids(case, side):
    """The same answer for the ids' own vectors."""
    model = zoo.make(case)
    inputs = zoo.batch(zoo.sentences(case, LENGTHS), side=side)
    vectors = {name: value for name, value in inputs.items() if not name.endswith("input_ids")}
    for name in inputs.keys() - vectors.keys():
        vectors[name.replace("input_ids", "inputs_embeds")] = zoo.FAMILY[case.family].vectors(model, inputs[name])
    with torch.no_grad():
        got, want = model(**vectors).last_hidden_state, model(**inputs).last_hidden_state
    keep = zoo.at_real_tokens(got, zoo.mask_of(inputs, "last_hidden_state"))
    torch.testing.assert_close(got[keep], want[keep], rtol=1e-9, atol=1e-9)


def test_span_logits_at_padding_never_win():
    case = zoo.Case("BertForQuestionAnswering", zoo.BERT.tiny)
    model = zoo.make(case)
    inputs = zoo.without_labels(zoo.batch(zoo.sentences(case, LENGTHS), extra=5))
    with torch.no_grad():
        outputs = model(**inputs)
    for logits in (outputs.start_logits, outputs.end_logits):
        assert (logits.softmax(-1)[inputs["attention_mask"] == 0] == 0).all()


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_feed_forward_chunks_take_any_length(chunk):
    case = zoo.Case("BertModel", zoo.BERT.tiny)
    whole, chunked = zoo.make(case), zoo.make(case, chunk_size_feed_forward=chunk)
    inputs = zoo.batch(zoo.sentences(case, LENGTHS))
    with torch.no_grad():
        for packable in (True, False):
            whole.packable = chunked.packable = packable
            torch.testing.assert_close(
                chunked(**inputs).pooler_output, whole(**inputs).pooler_output, rtol=1e-9, atol=1e-9
            )


def test_a_row_that_is_all_padding_gives_finite_numbers_and_disturbs_nobody():
    for pooling in zoo.POOLINGS:
        case = zoo.Case("BertModel", zoo.BERT.tiny | {"pooling": pooling})
        model = zoo.make(case)
        ids = torch.randint(1, 47, (3, 6))
        mask = torch.tensor([[1, 1, 1, 0, 0, 0], [0] * 6, [1] * 6])
        for packable in (True, False):
            model.packable = packable
            with torch.no_grad():
                outputs = model(ids, mask)
                alone = model(ids[2:])
            assert outputs.pooler_output.isfinite().all()
            torch.testing.assert_close(outputs.pooler_output[2], alone.pooler_output[0], rtol=1e-9, atol=1e-9)


@zoo.each([c for c in zoo.originals() if c.base and not c.name])
def test_a_batch_of_nothing_but_padding_gives_finite_numbers(case):
    """As a shard of a sweep over lengths may be."""
    inputs = zoo.without_labels(zoo.batch(zoo.sentences(case, (5, 3))))
    inputs |= {name: torch.zeros_like(value) for name, value in inputs.items() if name.endswith("attention_mask")}
    with torch.no_grad():
        outputs = zoo.make(case)(**inputs)
    assert outputs.last_hidden_state.isfinite().all()
