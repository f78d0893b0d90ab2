"""Int8 weights and weights laid out anew: against whole-number products by hand, over every architecture."""

import copy
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import polyformer
from polyformer import GPT2Config, GPT2LMHeadModel
from polyformer.core.quantize import lay_out_for_one, prepack, quantize
from polyformer.parts.int8 import FEWER_STEPS, STEPS, Int8Linear, eight_bits, saturates
from polyformer.parts.linear import Linear, PackedLinear
from zoo import FAMILIES, batch, make, sentences, without_labels


def gpt2(**changes):
    torch.manual_seed(0)
    tiny = dict(vocab_size=61, n_positions=32, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=60)
    model = GPT2LMHeadModel(GPT2Config(**tiny | changes))
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)
    return model.eval()


def in_numbers(x, linear):
    """The product of the rounded numbers, worked out in whole numbers and float64."""
    steps = FEWER_STEPS if saturates() else STEPS
    scale_x = x.abs().amax(-1, keepdim=True).double() / steps
    scale_w = linear.weight.abs().amax(1).double() / 127
    whole_x, whole_w = (x.double() / scale_x).round().long(), (linear.weight.double() / scale_w[:, None]).round().long()
    assert (whole_x.abs().max(), whole_w.abs().max()) == (steps, 127)
    y = (whole_x @ whole_w.T).double() * scale_x * scale_w
    return y if linear.bias is None else y + linear.bias.double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 48), (3, 48), (70, 48), (2, 5, 48)])
def test_the_product_is_that_of_the_rounded_numbers(shape, bias):
    torch.manual_seed(len(shape))
    linear, x = nn.Linear(48, 37, bias), torch.randn(shape)
    with torch.no_grad():
        want = in_numbers(x, linear)
        got = Int8Linear(linear)(x)
    assert got.dtype == torch.float32
    # where float32 rounds a number to the other side of a half, one step of it
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)


def test_it_is_as_far_off_as_rounding_may_be():
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 50), torch.randn(20, 64) * torch.logspace(-3, 3, 20)[:, None]
    w = linear.weight.detach().double()
    half_x, half_w = (
        x.double().abs().amax(1, keepdim=True) / (2 * (FEWER_STEPS if saturates() else STEPS)),
        w.abs().amax(1, keepdim=True) / 254,
    )
    # |xw - (x + a)(w + b)| <= |x||b| + |w||a| + |a||b|
    most = x.double().abs().sum(1)[:, None] * half_w.T + half_x * w.abs().sum(1) + 64 * half_x * half_w.T
    with torch.no_grad():
        off = (Int8Linear(linear)(x).double() - F.linear(x.double(), w, linear.bias.double())).abs()
    assert (off <= most * 1.0001).all()
    assert (off > 0).any()


@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE", "AVX512_CORE_VNNI"])
def test_large_numbers_are_not_cut_on_older_cpus(instructions):
    """Where two products are added in 16 bits, too: all of x and W at the largest of their rows."""
    script = (
        "import torch; from polyformer.parts.int8 import Int8Linear; linear = torch.nn.Linear(64, 64, bias=False);"
        "torch.nn.init.ones_(linear.weight); y = Int8Linear(linear)(torch.ones(3, 64)); "
        "print(float((y - 64).abs().max()))"
    )
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions}
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert float(told.stdout) < 1e-4


def test_numbers_are_within_half_a_step():
    x = torch.randn(5, 33) * torch.tensor([1.0, 1e-20, 1e20, 0.0, 3.0])[:, None]
    numbers, scales = eight_bits(x)
    assert numbers.dtype == torch.int8 and scales.shape == (5, 1)
    assert ((x.double() - numbers.double() * scales.double()).abs() <= scales.double() * 0.500001).all()
    assert (numbers[3] == 0).all()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_every_architecture_answers_with_int8_maps(family):
    case = next((c for c in family.cases() if c.kind == "Model"), None) or next(iter(family.cases()))
    model = make(case, dtype=torch.float32)
    inputs = without_labels(batch(sentences(case, [7, 7])))
    with torch.no_grad():
        want = model(**inputs)[0]
        assert quantize(model) is model
        got = model(**inputs)[0]
    kept = {id(m) for p in model.modules() for n in getattr(p, "reads_weights", ()) for m in getattr(p, n).modules()}
    left = [name for name, m in model.named_modules() if type(m) in (nn.Linear, Linear) and id(m) not in kept]
    assert not left
    assert any(isinstance(m, Int8Linear) for m in model.modules())
    assert got.shape == want.shape and got.isfinite().all()
    assert F.cosine_similarity(got.flatten().double(), want.flatten().double(), 0) > (0.7 if saturates() else 0.8)


def test_the_map_to_words_is_replaced_and_the_table_kept():
    model = gpt2()
    table = model.get_input_embeddings().weight.detach().clone()
    quantize(model)
    assert isinstance(model.get_output_embeddings(), Int8Linear)
    assert torch.equal(model.get_input_embeddings().weight, table)
    assert sum(isinstance(m, Int8Linear) for m in model.modules()) == 2 * 4 + 1


def test_a_text_answers_alone_as_in_a_batch():
    model = quantize(gpt2())
    ids = torch.randint(0, 60, (6, 9))
    with torch.no_grad():
        together = model(ids).logits
        alone = torch.cat([model(row[None]).logits for row in ids])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_it_writes():
    ids = torch.tensor([[5, 6, 7]])
    model = quantize(gpt2())
    text = model.generate(ids, max_new_tokens=6, min_new_tokens=6)
    again = ids
    for _ in range(6):  # without a cache
        with torch.no_grad():
            scores = model(again).logits[:, -1]
        scores[:, 60] = float("-inf")
        again = torch.cat([again, scores.argmax(-1)[:, None]], 1)
    assert torch.equal(text, again)


def test_what_cannot_be_done_says_so(tmp_path):
    model = quantize(gpt2())
    with pytest.raises(ValueError, match="no linear map in floating point"):
        quantize(model)
    with pytest.raises(TypeError, match="cannot be saved"):
        model.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        copy.deepcopy(model)
    with pytest.raises(TypeError, match="packed"):
        _ = model.get_output_embeddings().weight
    with pytest.raises(ValueError, match="float32 weights on the CPU"):
        polyformer.quantize(gpt2().bfloat16())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_packed_maps_give_the_same_answers_and_the_same_files(family, tmp_path):
    case = next((c for c in family.cases() if c.kind == "Model"), None) or next(iter(family.cases()))
    model = make(case, dtype=torch.float32)
    inputs = without_labels(batch(sentences(case, [7, 5])))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        want = model(**inputs)[0]
        assert prepack(model) is model
        for packed in (model, copy.deepcopy(model)):
            torch.testing.assert_close(packed(**inputs)[0], want, atol=1e-4, rtol=1e-4)
    assert any(isinstance(m, PackedLinear) for m in model.modules())
    model.save_pretrained(tmp_path)
    loaded = case.model_class.from_pretrained(tmp_path)
    assert loaded.load_report.clean
    assert before.keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("rows", [1, 2, 16, 300])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_map_is_the_map(rows, bias):
    linear, x = nn.Linear(48, 37, bias), torch.randn(rows, 2, 48)
    with torch.no_grad():
        packed = PackedLinear(linear)
        torch.testing.assert_close(packed(x), linear(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(packed(x[0, 0]), linear(x[0, 0]), atol=1e-5, rtol=1e-5)
    assert torch.equal(packed.weight, linear.weight)


def test_a_table_that_is_the_map_to_words_is_not_packed_and_nothing_is_loaded_into_a_packed_map():
    model = prepack(gpt2())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert sum(isinstance(m, PackedLinear) for m in model.modules()) == 2 * 4
    with pytest.raises(TypeError, match="load them before the model is packed"):
        model.load_state_dict(gpt2().state_dict())
    with pytest.raises(ValueError, match="packed already"):
        prepack(model)
    with pytest.raises(ValueError, match="prepack wants float32 weights on the CPU"):
        prepack(gpt2().bfloat16())


def test_weights_laid_out_for_one_are_the_same_weights(tmp_path):
    model = gpt2()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    parameters = {name: id(p) for name, p in model.named_parameters()}
    ids = torch.randint(0, 60, (3, 9))
    with torch.no_grad():
        want = model(ids).logits
        assert lay_out_for_one(model) is model
        got = model(ids).logits
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    assert model.base_model.layers[0].ffn.up.weight.stride() == (1, 128)
    assert {name: id(p) for name, p in model.named_parameters()} == parameters
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    model.save_pretrained(tmp_path)
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert all(torch.equal(p, before[name]) for name, p in loaded.named_parameters())
    model(ids, labels=ids).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_large_weights_laid_out_for_one_are_tensors_like_others():
    model = nn.Sequential(Linear(1024, 768), nn.ReLU(), nn.Linear(768, 1024))
    x, before = torch.randn(2, 1024), [p.detach().clone() for p in model.parameters()]
    want = model(x)
    lay_out_for_one(model)
    torch.testing.assert_close(model(x), want)
    assert model[0].weight.stride() == (1, 768)
    for other in (model, copy.deepcopy(model)):
        assert all(torch.equal(p, old) for p, old in zip(other.parameters(), before, strict=True))
        other(x).sum().backward()
        assert all(p.grad is not None for p in other.parameters())


@pytest.mark.parametrize("change", [prepack, quantize])
def test_what_can_no_longer_be_trained_or_made_half_says_so(change):
    """And does not answer wrongly, or let some of its weights stay behind."""
    model, ids = change(gpt2()), torch.tensor([[5, 6, 7]])
    assert model(ids).logits.shape == (1, 3, 61)
    assert not any(p.requires_grad for p in model.parameters())
    vectors = torch.randn(1, 3, 32, requires_grad=True)
    with pytest.raises(TypeError, match="no gradient goes through .*: train the model before it is packed"):
        model(inputs_embeds=vectors)
    with torch.no_grad():
        model(inputs_embeds=vectors)
    with pytest.raises(TypeError, match=r"computes in float32 alone, not torch\.bfloat16"):
        model.bfloat16()(ids)
