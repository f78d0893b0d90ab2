"""Changing a model after it is made: vocabulary, heads, embeddings, gradient checkpointing, types."""

import pytest
import torch

import polyformer
import zoo

TINY = zoo.BERT.tiny


@pytest.mark.parametrize("size", [60, 30])
@pytest.mark.parametrize("tied", [True, False])
def test_resize_token_embeddings(size, tied):
    case = zoo.Case("BertForMaskedLM", TINY | {"tie_word_embeddings": tied})
    model = zoo.make(case)
    ids = torch.randint(1, 30, (2, 6))
    before = model(ids).logits
    old = model.get_input_embeddings().weight
    table = model.resize_token_embeddings(size)
    assert table is model.get_input_embeddings()
    assert (table.num_embeddings, model.config.vocab_size) == (size, size)
    assert torch.equal(table.weight[:30], old[:30])
    assert (model.get_output_embeddings().weight is table.weight) == tied
    after = model(ids).logits
    assert after.shape == (2, 6, size)
    torch.testing.assert_close(after[..., :30], before[..., :30])
    assert model.resize_token_embeddings() is table
    with pytest.raises(ValueError, match="at least 1"):
        model.resize_token_embeddings(0)


def test_new_rows_come_from_the_seed_and_learn():
    def grown():
        model = zoo.make(zoo.Case("BertForMaskedLM", TINY))
        torch.manual_seed(5)
        return model, model.resize_token_embeddings(50)

    (model, a), (_, b) = grown(), grown()
    assert torch.equal(a.weight, b.weight)
    model(torch.tensor([[48, 49]]), labels=torch.tensor([[48, 49]])).loss.backward()
    assert a.weight.grad[48:].abs().sum() > 0


def test_prune_heads_is_zeroing_them():
    case = zoo.Case("BertModel", TINY)
    model = zoo.make(case)
    inputs = zoo.batch(zoo.sentences(case, (7, 5)))
    mask = torch.ones(3, 3, dtype=torch.float64)
    mask[0, 1] = mask[2, 0] = mask[2, 2] = 0
    want = model(**inputs, head_mask=mask)
    model.prune_heads({0: [1]})
    model.prune_heads({2: {0}})
    model.prune_heads({2: [2]})  # numbers are those of the unpruned model
    got = model(**inputs)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(got.last_hidden_state[real], want.last_hidden_state[real])
    assert model.config.pruned_heads == {0: [1], 2: [0, 2]}
    with pytest.raises(ValueError, match="heads 0 to 2"):
        model.prune_heads({0: [3]})


@zoo.each([c for c in zoo.plain(zoo.originals()) if not c.name and not c.base])
def test_gradient_checkpointing_changes_memory_not_numbers(case):
    model = zoo.make(case).train()
    inputs = zoo.batch(zoo.sentences(case, (9, 5)))
    calls = []
    model.base_model.blocks()[-1].register_forward_pre_hook(lambda *_: calls.append(1))

    def states_of(outputs):
        return len(outputs.decoder_hidden_states if case.encodes else outputs.hidden_states)

    with torch.no_grad():
        states = states_of(model(**inputs, output_hidden_states=True))

    def grads():
        calls.clear()
        model.zero_grad()
        outputs = model(**inputs, output_hidden_states=True)
        zoo.objective(outputs, inputs).backward()
        assert states_of(outputs) == states >= 4
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}, len(calls)

    plain, once = grads()
    model.gradient_checkpointing_enable()
    again, twice = grads()
    assert 0 < once == twice / 2
    zoo.assert_same(again, plain, 1e-12)
    model.gradient_checkpointing_disable()
    assert grads()[1] == once


def test_gradient_checkpointing_replays_dropout():
    case = zoo.Case("BertForMaskedLM", TINY | {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3})
    model = zoo.make(case).train()
    inputs = zoo.batch(zoo.sentences(case, (9, 5)))
    found = []
    for on in (False, True):
        (model.gradient_checkpointing_enable if on else model.gradient_checkpointing_disable)()
        model.zero_grad()
        torch.manual_seed(3)
        model(**inputs).loss.backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    zoo.assert_same(found[1], found[0], 1e-12)


def test_names_that_users_know():
    model = zoo.make(zoo.Case("BertForSequenceClassification", TINY))
    assert model.base_model is model.bert
    assert model.bert.base_model is model.bert
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())
    assert model.dtype == torch.float64
    assert model.device.type == "cpu"
    outputs = model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([1]))
    loss, logits = outputs[:2]
    assert loss is outputs.loss is outputs["loss"] is outputs[0]
    assert logits is outputs.logits
    assert list(outputs) == ["loss", "logits"]
    assert isinstance(model(torch.tensor([[1, 2]]), return_dict=False), tuple)
    outputs.logits = logits + 1
    assert torch.equal(outputs["logits"], logits + 1)
    with pytest.raises(TypeError, match="dict\\(outputs\\)"):
        del outputs["logits"]


def test_signatures_are_explicit():
    import inspect

    def names(cls):
        return list(inspect.signature(getattr(polyformer, cls).forward).parameters)[1:]

    inputs = "input_ids attention_mask token_type_ids position_ids head_mask inputs_embeds".split()
    encoder = ["encoder_hidden_states", "encoder_attention_mask"]
    options = ["output_attentions", "output_hidden_states", "return_dict"]
    cache = ["past_key_values", "use_cache"]
    assert names("BertModel") == [*inputs, *encoder, *cache, *options]
    assert names("BertForMaskedLM") == [*inputs, *encoder, "labels", *options]
    assert names("BertLMHeadModel") == [*inputs, *encoder, "labels", *cache, *options, "logits_to_keep"]
    assert names("BertForPreTraining") == [*inputs, "labels", "next_sentence_label", *options]
    assert names("BertForQuestionAnswering") == [*inputs, "start_positions", "end_positions", *options]
    for cls in ("SequenceClassification", "TokenClassification", "MultipleChoice", "NextSentencePrediction"):
        assert names(f"BertFor{cls}") == [*inputs, "labels", *options]


@zoo.each([c for c in zoo.CASES if c.reference and not c.name])
def test_arguments_are_the_reference_s(case, oracle):
    """All of them and in its order, so that calls by position mean the same; ours alone come after them."""
    theirs = oracle.arguments(case.cls)
    assert list(case.arguments[: len(theirs)]) == theirs


def test_arguments_by_position():
    model = zoo.make(zoo.Case("BertForTokenClassification", TINY))
    inputs = zoo.batch(zoo.sentences(zoo.Case("BertForTokenClassification", TINY), (6, 4)))
    by_name = model(**inputs)
    ids, mask, types, labels = (inputs[n] for n in ("input_ids", "attention_mask", "token_type_ids", "labels"))
    by_place = model(ids, mask, types, None, None, None, labels)
    assert torch.equal(by_name.loss, by_place.loss)
    with pytest.raises(TypeError, match="twice"):
        model(inputs["input_ids"], input_ids=inputs["input_ids"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    """Runs packed and padded, and stays near float32: within a few units of the type's last place."""
    case = zoo.Case("BertForMaskedLM", TINY)
    model = zoo.make(case, dtype=torch.float32)
    inputs = zoo.batch(zoo.sentences(case, (9, 5, 5)))
    real = inputs["attention_mask"].bool()
    want = model(**inputs).logits[real]
    half = zoo.make(case, dtype=dtype)
    for packable in (True, False):
        half.bert.packable = packable
        got = half(**inputs).logits[real].float()
        assert got.isfinite().all()
        assert (got - want).abs().max() < 60 * torch.finfo(dtype).eps * want.abs().max()
