"""ProphetNet's properties. The reference mixes the texts of a batch, so it is asked for one at a time; its masks and
states of several streams have shapes of their own, so these tests stand beside the registry's."""

import inspect
import itertools
import json

import pytest
import torch
from safetensors.torch import load_file

import polyformer
from polyformer.core.errors import ConfigError
from polyformer.parts.positions import spread
from polyformer.parts.state import State

WORDS = 43
TINY = dict(
    vocab_size=WORDS, hidden_size=24, num_encoder_layers=2, num_decoder_layers=2, num_encoder_attention_heads=2,
    num_decoder_attention_heads=3, encoder_ffn_dim=40, decoder_ffn_dim=36, max_position_embeddings=30, dropout=0.0,
    attention_dropout=0.0, activation_dropout=0.0, ngram=2, num_buckets=8, relative_max_distance=16,
)  # fmt: skip
CLASSES = {
    "Model": {}, "ForConditionalGeneration": {}, "Encoder": {}, "Decoder": {},
    "ForCausalLM": {"is_decoder": True, "is_encoder_decoder": False},
}  # fmt: skip
NAMES = [f"{family}{kind}" for family in ("ProphetNet", "XLMProphetNet") for kind in CLASSES]
each_class = pytest.mark.parametrize("cls", NAMES)
own = pytest.mark.parametrize("cls", NAMES[: len(CLASSES)])
SHOW = {"output_attentions": True, "output_hidden_states": True, "return_dict": True}


def kind_of(cls):
    return cls.removeprefix("XLM").removeprefix("ProphetNet")


def config_of(cls, **changes):
    return TINY | CLASSES[kind_of(cls)] | changes


def with_weights(cls, weights, dtype=torch.float64, **changes):
    made = getattr(polyformer, cls)
    model = made(made.config_class(**config_of(cls, **changes)))
    model.load_state_dict(weights)
    return model.to(dtype).eval()


def make(cls, seed=0, **changes):
    torch.manual_seed(seed)
    made = getattr(polyformer, cls)
    model = made(made.config_class(**config_of(cls, **changes)))
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=p.shape[-1] ** -0.5 if p.dim() > 1 else 0.2)
    return model.double().eval()


def inputs_of(cls, source=7, target=5, rows=1, labels=False, seed=1):
    draw = torch.Generator().manual_seed(seed)

    def words(length):
        return torch.randint(4, WORDS, (rows, length), generator=draw)

    if kind_of(cls) in ("Model", "ForConditionalGeneration"):
        inputs = {"input_ids": words(source), "decoder_input_ids": words(target)}
    else:
        inputs = {"input_ids": words(target)}
    if labels:
        inputs["labels"] = words(target)
        inputs["labels"][:, 1] = -100
    return inputs


def flat(outputs):
    found = {}
    for name, value in outputs.items():
        if torch.is_tensor(value):
            found[name] = value
        elif isinstance(value, tuple):
            found |= {f"{name}.{i}": tensor for i, tensor in enumerate(value)}
    return found


# ---- the reference ---------------------------------------------------------------------------------------------------


@each_class
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_outputs(cls, dtype, tol, oracle):
    weights = oracle.init(cls, config_of(cls), seed=3)
    inputs = inputs_of(cls) | SHOW
    want = oracle.run(cls, config_of(cls), weights, inputs, dtype=dtype)
    got = flat(with_weights(cls, weights, dtype)(**inputs))
    compared = {name for name in want if not name.startswith("past_key_values")}
    assert compared <= got.keys()
    for name in compared:
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=tol, msg=lambda m, n=name: f"{n}: {m}")


@own
def test_arguments_are_the_reference_s(cls, oracle):
    ours = [*inspect.signature(getattr(polyformer, cls).forward).parameters][1:]
    assert ours[: len(oracle.arguments(cls))] == [*oracle.arguments(cls)]


@pytest.mark.parametrize("cls", ["ProphetNetForConditionalGeneration", "ProphetNetForCausalLM"])
@pytest.mark.parametrize("changes", [{}, {"eps": 0.1}, {"disable_ngram_loss": True}, {"ngram": 3}, {"ngram": 1}])
@pytest.mark.parametrize("train", [False, True])
def test_loss_and_gradients(cls, changes, train, oracle):
    weights = oracle.init(cls, config_of(cls, **changes), seed=4)
    inputs = inputs_of(cls, labels=True) | {"return_dict": True}
    want = oracle.run(cls, config_of(cls, **changes), weights, inputs, grad=True, train=train)
    model = with_weights(cls, weights, **changes).train(train)
    outputs = model(**inputs)
    # the reference takes its logarithms in float32, whatever the model's type
    torch.testing.assert_close(outputs.loss.float(), want["loss"], rtol=0, atol=2e-6)
    outputs.loss.backward()
    grads = model.keys.save({n: p.grad for n, p in model.named_parameters() if p.grad is not None}, base=model.is_base)
    wanted = {n.removeprefix("grad."): g for n, g in want.items() if n.startswith("grad.") and g.abs().max() > 0}
    assert wanted.keys() <= grads.keys()
    for name, grad in wanted.items():
        torch.testing.assert_close(grads[name], grad, rtol=0, atol=5e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_weights_of_streams():
    cls = "ProphetNetForConditionalGeneration"
    inputs = inputs_of(cls, labels=True)
    model = make(cls)
    losses = []
    for weights in ([1.0, 0.0], [0.0, 1.0], [3.0, 1.0]):
        model.config.ngram_weights = weights
        losses.append(model(**inputs).loss)
    torch.testing.assert_close(losses[2], (3 * losses[0] + losses[1]) / 4)
    with pytest.raises(ConfigError, match="give 2 numbers"):
        polyformer.ProphetNetConfig(ngram_weights=[1.0])


def test_labels_alone_are_what_is_to_be_written(oracle):
    cls = "ProphetNetForConditionalGeneration"
    weights = oracle.init(cls, config_of(cls), seed=4)
    inputs = inputs_of(cls, labels=True)
    del inputs["decoder_input_ids"]
    want = oracle.run(cls, config_of(cls), weights, inputs | {"return_dict": True})
    torch.testing.assert_close(with_weights(cls, weights)(**inputs).loss.float(), want["loss"], rtol=0, atol=2e-6)


@own
def test_head_masks(cls, oracle):
    weights = oracle.init(cls, config_of(cls), seed=5)
    model, inputs = with_weights(cls, weights), inputs_of(cls) | SHOW
    draw = torch.Generator().manual_seed(2)
    for name, heads in (("head_mask", None), ("decoder_head_mask", 3), ("cross_attn_head_mask", 3)):
        if name not in oracle.arguments(cls) or (
            name == "cross_attn_head_mask" and "decoder_head_mask" not in oracle.arguments(cls)
        ):
            continue
        heads = heads or (3 if kind_of(cls) in ("Decoder", "ForCausalLM") else 2)
        inputs[name] = torch.rand(2, heads, generator=draw, dtype=torch.float64)
    want = oracle.run(cls, config_of(cls), weights, inputs)
    got = flat(model(**inputs))
    for name in want:
        if not name.startswith("past_key_values"):
            torch.testing.assert_close(got[name], want[name], rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@each_class
def test_files_both_ways(cls, oracle, tmp_path):
    weights = oracle.init(cls, config_of(cls), seed=6)
    model, inputs = with_weights(cls, weights), inputs_of(cls) | {"return_dict": True}
    model.save_pretrained(tmp_path)
    again = getattr(polyformer, cls).from_pretrained(tmp_path, torch_dtype="auto")
    assert again.load_report.clean and not again.load_report.unexpected
    got, twice = flat(model(**inputs)), flat(again(**inputs))
    assert all(torch.equal(got[name], twice[name]) for name in got)
    saved = json.loads((tmp_path / "config.json").read_text())
    want = oracle.run(cls, saved, dict(load_file(tmp_path / "model.safetensors")), inputs, strict=False)
    for name in got.keys() & want.keys():
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=1e-9)


def test_halves_out_of_a_whole(tmp_path):
    model = make("ProphetNetForConditionalGeneration")
    model.save_pretrained(tmp_path)
    encoder = polyformer.ProphetNetEncoder.from_pretrained(tmp_path, torch_dtype="auto")
    ids = inputs_of("ProphetNetEncoder")["input_ids"]
    assert torch.equal(encoder(ids).last_hidden_state, model.get_encoder()(ids).last_hidden_state)
    decoder = polyformer.ProphetNetDecoder.from_pretrained(tmp_path, torch_dtype="auto")
    states = torch.randn(1, 4, 24, dtype=torch.float64)
    got = decoder(ids, encoder_hidden_states=states).last_hidden_state_ngram
    assert torch.equal(got, model.get_decoder()(ids, encoder_hidden_states=states).last_hidden_state_ngram)
    assert isinstance(
        polyformer.AutoModelForSeq2SeqLM.from_pretrained(tmp_path), polyformer.ProphetNetForConditionalGeneration
    )


# ---- batches ---------------------------------------------------------------------------------------------------------


def both_sides(lengths, rows, seed, side, garbage):
    draw = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.randint(4, WORDS, (rows, longest), generator=draw)
    place = torch.arange(longest)
    real = torch.stack([place < n if side == "right" else place >= longest - n for n in lengths])
    return torch.where(real, ids, ids if garbage else torch.zeros_like(ids)), real.long()


@own
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("garbage", [False, True])
def test_a_batch_is_its_texts_alone(cls, side, garbage):
    """Which the reference's is not; padding on either side, and garbage under it, change nothing."""
    model = make(cls)
    ids, real = both_sides((7, 4, 6), 3, 2, side, garbage)
    texts, there = both_sides((3, 5, 4), 3, 3, side, garbage)
    if kind_of(cls) in ("Model", "ForConditionalGeneration"):
        together = model(ids, real, texts, there)
    elif kind_of(cls) == "Encoder":
        together, there = model(ids, real), real
        texts = ids
    else:
        together = model(texts, there)
    for row in range(3):
        seen, mine = real[row].bool(), there[row].bool()
        if kind_of(cls) in ("Model", "ForConditionalGeneration"):
            alone = model(ids[row, seen][None], None, texts[row, mine][None])
        else:
            alone = model(texts[row, mine][None])
        for name, tensor in flat(alone).items():
            got = together[name][row]
            if name in ("last_hidden_state_ngram",):
                tensor, got = tensor[0].unflatten(0, (2, -1)), got.unflatten(0, (2, -1))[:, mine]
            elif name == "logits_ngram":
                tensor, got = tensor[0], got[:, mine]
            else:
                tensor, got = tensor[0], got[seen if name.startswith("encoder") else mine]
            torch.testing.assert_close(got, tensor, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_who_sees_whom():
    """Stream n at place i reads the main stream up to i + 1 - n, and the first token."""
    model = make("ProphetNetDecoder", ngram=3, add_cross_attention=False)
    ids = inputs_of("ProphetNetDecoder", target=6)["input_ids"]
    before = model(ids).last_hidden_state_ngram.unflatten(1, (3, 6))[0]
    for j in range(1, 6):
        other = ids.clone()
        other[0, j] = (ids[0, j] + 1 - 4) % (WORDS - 4) + 4
        changed = (model(other).last_hidden_state_ngram.unflatten(1, (3, 6))[0] - before).abs().amax(-1) > 1e-9
        for n, i in itertools.product(range(3), range(6)):
            assert bool(changed[n, i]) == (j <= i - n), (j, n, i)


def test_buckets_by_their_definition():
    """Of 8 buckets, 4 are of one distance; the rest share 4 to 16 by logarithm."""
    got = spread(torch.arange(20), 8, 16).tolist()
    assert got[:4] == [0, 1, 2, 3] and got[16:] == [7] * 4 and got == sorted(got)
    assert got[4] == 4 and got[8] == 4 + int(4 * 0.5)


# ---- the cache, and writing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ["ProphetNetForConditionalGeneration", "ProphetNetForCausalLM"])
@pytest.mark.parametrize("steps", [[1] * 6, [3, 1, 2], [6]])
def test_piece_by_piece_is_all_at_once(cls, steps):
    model, inputs = make(cls), inputs_of(cls, target=6, rows=2)
    name = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
    whole, past, at = model(**inputs), None, 0
    for size in steps:
        out = model(**inputs | {name: inputs[name][:, at : at + size]}, past_key_values=past, use_cache=True)
        torch.testing.assert_close(out.logits, whole.logits[:, at : at + size], rtol=0, atol=1e-10)
        torch.testing.assert_close(out.logits_ngram, whole.logits_ngram[:, :, at : at + size], rtol=0, atol=1e-10)
        past, at = out.past_key_values, at + size
    assert isinstance(past, State) and past.length == 6
    turned = past.reorder(torch.tensor([1, 0]))
    more = torch.full((2, 1), 9)
    straight = (
        model(**inputs | {name: more}, past_key_values=past, use_cache=True).logits if name == "input_ids" else None
    )
    if straight is not None:
        again = model(input_ids=more, past_key_values=turned, use_cache=True).logits
        torch.testing.assert_close(again, straight.flip(0), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}]
)
def test_it_writes_as_the_reference(options, oracle):
    """From one token, where the reference's beams do not mix."""
    cls = "ProphetNetForConditionalGeneration"
    dtype = torch.float32 if "num_beam_groups" in options else torch.float64  # the reference's groups know no other
    weights = oracle.init(cls, config_of(cls), seed=7)
    model, inputs = with_weights(cls, weights, dtype), {"input_ids": inputs_of(cls)["input_ids"]}
    options = {"max_length": 10, "eos_token_id": 2} | options
    want = oracle.run(cls, config_of(cls), weights, inputs | options, method="generate", dtype=dtype)
    assert torch.equal(model.generate(**inputs, **options), want["sequences"])


def test_a_beam_s_score_is_the_reference_s_of_the_text_alone(oracle):
    """The reference's own beams start from a prompt that it mixes among them."""
    cls = "ProphetNetForCausalLM"
    weights = oracle.init(cls, config_of(cls), seed=8)
    model, prompt = with_weights(cls, weights), inputs_of(cls, target=4)["input_ids"]
    made = model.generate(
        prompt, num_beams=4, num_return_sequences=3, max_length=10, eos_token_id=None, pad_token_id=0,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    for text, score in zip(made.sequences, made.sequences_scores, strict=True):
        if (text[4:] == 2).any():
            continue
        logits = oracle.run(cls, config_of(cls), weights, {"input_ids": text[None], "return_dict": True})["logits"][0]
        chosen = logits.log_softmax(-1)[3:-1].gather(-1, text[4:, None]).sum()
        torch.testing.assert_close(score.double(), chosen / len(text), rtol=0, atol=1e-6)


# ---- graphs and the rest ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["trace", "export"])
def test_a_graph_at_a_second_shape(how):
    cls = "ProphetNetForConditionalGeneration"
    model = make(cls, use_cache=False)

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, ids, mask, texts):
            return self.model(ids, mask, texts).logits

    def given(source, target, rows):
        inputs = inputs_of(cls, source, target, rows)
        mask = torch.ones_like(inputs["input_ids"])
        mask[0, -2:] = 0
        return inputs["input_ids"], mask, inputs["decoder_input_ids"]

    first, second = given(7, 5, 2), given(9, 6, 3)
    if how == "trace":
        graph = torch.jit.trace(Logits(), first, check_trace=False)
    else:
        rows, source, target = (torch.export.Dim(name, min=2, max=20) for name in ("rows", "source", "target"))
        shapes = ({0: rows, 1: source}, {0: rows, 1: source}, {0: rows, 1: target})
        graph = torch.export.export(Logits(), first, dynamic_shapes=shapes).module()
    torch.testing.assert_close(graph(*second), model(*second).logits, rtol=0, atol=1e-10)


@own
def test_pruned_heads_are_masked_ones(cls):
    if kind_of(cls) == "Encoder":
        pruned, mask_name, width = {1: [0]}, "head_mask", 2
    elif kind_of(cls) in ("Model", "ForConditionalGeneration"):
        pruned, mask_name, width = {3: [0]}, "decoder_head_mask", 3
    else:
        pruned, mask_name, width = {1: [0]}, "head_mask", 3
    model, inputs = make(cls), inputs_of(cls)
    mask = torch.ones(2, width, dtype=torch.float64)
    mask[1, 0] = 0
    want = model(**inputs, **{mask_name: mask})[0]
    model.prune_heads(pruned)
    torch.testing.assert_close(model(**inputs)[0], want, rtol=0, atol=1e-10)


@own
def test_gradient_checkpointing_changes_no_number(cls):
    model = make(cls).train()
    inputs = inputs_of(cls)
    found = []
    for on in (False, True):
        (model.gradient_checkpointing_enable if on else model.gradient_checkpointing_disable)()
        model.zero_grad()
        model(**inputs)[0].pow(2).sum().backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][name], found[1][name], rtol=0, atol=1e-12) for name in found[0])


@pytest.mark.parametrize(
    ("cls", "changes", "message"),
    [
        ("ProphetNetModel", {"decoder_input_ids": None}, "the decoder has nothing to read"),
        ("ProphetNetDecoder", {"input_ids": torch.ones(1, 29, dtype=torch.long)}, "29 tokens is too long .* knows 28"),
        ("ProphetNetEncoder", {"input_ids": torch.ones(1, 30, dtype=torch.long)}, "30 tokens is too long .* knows 29"),
        ("ProphetNetDecoder", {"input_ids": torch.tensor([[WORDS]])}, "input_ids has 43"),
        ("ProphetNetDecoder", {"attention_mask": torch.ones(1, 5, 5)}, "of shape \\(rows, length\\)"),
    ],
)
def test_inputs_that_do_not_fit(cls, changes, message):
    with pytest.raises(ValueError, match=message):
        make(cls)(**inputs_of(cls) | changes)
