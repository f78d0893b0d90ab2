"""What GPT, GPT-2 and CTRL have to themselves: last tokens, two heads, writing from ragged prompts."""

import math

import pytest
import torch

import polyformer
import zoo
from polyformer.core.errors import ConfigError
from polyformer.parts.state import State
from test_parity import compare_gradients, inputs_of, ours_with, reference_config

FAMILIES = ("openai-gpt", "gpt2", "ctrl")
WRITERS = [zoo.first(zoo.FAMILY[name], "LMHeadModel") for name in FAMILIES]
CLASSIFIERS = [zoo.first(zoo.FAMILY[name], "ForSequenceClassification") for name in FAMILIES]
DOUBLES = [zoo.first(zoo.FAMILY[name], "DoubleHeadsModel") for name in FAMILIES[:2]]
LENGTHS = (9, 5, 7)


def ids_of(case, lengths, **how):
    inputs = zoo.batch(zoo.sentences(case, lengths), **how)
    return inputs["input_ids"], inputs["attention_mask"]


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


# ---- the last real token ---------------------------------------------------------------------------------------------


@zoo.each(CLASSIFIERS)
@pytest.mark.parametrize("pad", [0, None], ids=["pad id", "no pad id"])
def test_a_classifier_reads_the_last_real_token(case, pad):
    """Padding on either side, ids or vectors, with a padding id or without: as each text alone."""
    model = zoo.make(case)
    model.config.pad_token_id = pad
    texts = [ids_of(case, (n,), mask=True)[0] for n in LENGTHS]
    with torch.no_grad():
        want = torch.cat([model(text).logits for text in texts])
        for side in ("left", "right"):
            rows = [{"input_ids": text[0]} for text in texts]
            inputs = zoo.batch(rows, side=side, extra=2)
            close(model(**inputs).logits, want)
            vectors = model.get_input_embeddings()(inputs["input_ids"])
            close(model(inputs_embeds=vectors, attention_mask=inputs["attention_mask"]).logits, want)
            if pad is not None and side == "right":  # told by the padding id alone
                close(model(inputs["input_ids"]).logits, want)


@zoo.each(CLASSIFIERS)
def test_a_classifier_goes_on_from_a_state(case):
    model = zoo.make(case)
    ids, _ = ids_of(case, (8, 8))
    with torch.no_grad():
        past = model(ids[:, :5], use_cache=True).past_key_values
        close(model(ids[:, 5:], past_key_values=past).logits, model(ids).logits)


# ---- two heads -------------------------------------------------------------------------------------------------------


@zoo.each(DOUBLES)
def test_gradients_of_both_losses(case, oracle):
    weights = oracle.init(case.cls, reference_config(case), seed=8)
    inputs = inputs_of(case, torch.float64)
    one = torch.ones((), dtype=torch.float64)
    want = oracle.run(case.cls, reference_config(case), weights, inputs, grad={"loss": one, "mc_loss": 2 * one})
    model = ours_with(case, weights, torch.float64)
    outputs = model(**inputs)
    close(outputs.mc_loss, want["mc_loss"])
    (outputs.loss + 2 * outputs.mc_loss).backward()
    compare_gradients(model, want)
    assert model.choice.dense.weight.grad.abs().sum() > 0


@zoo.each(DOUBLES)
@pytest.mark.parametrize("kind", ["cls_index", "first", "last", "mean"])
def test_what_a_choice_is_read_off(case, kind):
    """By hand, of the states; without mc_token_ids the last real token."""
    model = zoo.make(case, summary_type=kind)
    rows = zoo.sentences(case, (6, 4))
    inputs = zoo.without_labels(zoo.batch(rows, side="left"))
    places = inputs.pop("mc_token_ids")
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states[-1]
        by_default, by_place = model(**inputs).mc_logits, model(**inputs, mc_token_ids=places).mc_logits
    for i, length in enumerate((6, 4)):
        for j in range(2):
            own = states[i, j, 6 - length :]
            read = {"first": own[0], "mean": own.mean(0)}.get(kind, own[-1])
            close(by_default[i, j], model.choice.dense(read)[0])
            read = states[i, j, places[i, j]] if kind == "cls_index" else read
            close(by_place[i, j], model.choice.dense(read)[0])


@zoo.each(DOUBLES)
def test_choices_that_are_none(case):
    model = zoo.make(case)
    ids = torch.randint(1, 47, (2, 3, 5))
    with pytest.raises(ValueError, match="places of tokens, so 0 to 4 here"):
        model(ids, mc_token_ids=torch.full((2, 3), 5))
    with pytest.raises(ValueError, match=r"mc_token_ids has shape \(2,\), but \(2, 3\) was expected"):
        model(ids, mc_token_ids=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"inputs have shape \(5,\)"):
        model(ids[0, 0])
    with pytest.raises(ConfigError, match="summary_type is 'attn'"):
        case.but(summary_type="attn").configure()


@zoo.each(DOUBLES)
def test_one_text_a_row_is_one_choice(case):
    """As it is while writing."""
    model = zoo.make(case)
    ids = torch.randint(1, 47, (3, 6))
    with torch.no_grad():
        one, several = model(ids), model(ids[:, None])
    close(one.logits, several.logits[:, 0])
    close(one.mc_logits, several.mc_logits[:, 0])


# ---- options of later versions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "GPT2ForTokenClassification"])
@pytest.mark.parametrize("by_layer", [False, True])
def test_gpt2_is_transformers_5_s(name, by_layer, tmp_path):
    """What 4.6 has not: a tagger, and scores that are divided by the number of the layer."""
    transformers = pytest.importorskip("transformers", reason="transformers 5 is not installed (extra [test])")
    case = zoo.Case(name, zoo.FAMILY["gpt2"].tiny, family="gpt2").but(scale_attn_by_inverse_layer_idx=by_layer)
    model = zoo.make(case, scale_attn_weights=not by_layer)
    inputs = inputs_of(case, torch.float64)
    model.save_pretrained(tmp_path)
    theirs = getattr(transformers, name).from_pretrained(tmp_path, dtype=torch.float64, attn_implementation="eager")
    want, got = theirs.eval()(**inputs), model(**inputs)
    real = inputs["attention_mask"].bool()
    close(got.logits[real], want.logits[real])
    if name == "GPT2ForTokenClassification":  # their loss counts padding's -100 out, as ours
        close(got.loss, want.loss)


# ---- positions and dropout -------------------------------------------------------------------------------------------


def test_ctrl_s_positions_by_hand():
    """sin(place / 10000^(2 i / width)) in column i, the cosines in the second half."""
    waves = zoo.make(zoo.first(zoo.FAMILY["ctrl"])).embed.waves
    assert waves.shape == (32, 24)
    for place in range(32):
        for i in range(12):
            angle = place / 10000 ** (2 * i / 24)
            assert abs(waves[place, i] - math.sin(angle)) < 1e-7
            assert abs(waves[place, 12 + i] - math.cos(angle)) < 1e-7


def test_ctrl_s_positions_are_there_after_loading(tmp_path):
    model = zoo.make(zoo.first(zoo.FAMILY["ctrl"]), dtype=torch.float32)
    model.save_pretrained(tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        again = polyformer.CTRLModel.from_pretrained(tmp_path, torch_dtype=dtype)
        assert torch.equal(again.embed.waves, model.embed.waves)
        assert again(torch.tensor([[1, 2, 3]])).last_hidden_state.dtype == dtype


def test_ctrl_drops_no_attention_weights():
    model = zoo.make(zoo.first(zoo.FAMILY["ctrl"]), attn_pdrop=0.9)
    ids = torch.randint(1, 47, (2, 8))
    assert torch.equal(model.train()(ids).last_hidden_state, model.eval()(ids).last_hidden_state)


# ---- states ----------------------------------------------------------------------------------------------------------


@zoo.each([zoo.first(zoo.FAMILY[name]) for name in FAMILIES])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("capacity", [None, 14], ids=["growing", "preallocated"])
def test_a_ragged_batch_is_read_packed_and_remembered(case, side, capacity):
    """Real tokens only, and what is kept of them is what the padded run keeps."""
    model = zoo.make(case)
    ids, mask = ids_of(case, LENGTHS, side=side)
    seen = []
    model.layers[1].ffn.register_forward_hook(lambda _, args, y: seen.append(tuple(args[0].shape)))
    empty = None if capacity is None else State.empty(3, capacity)
    with torch.no_grad():
        packed = model(ids, attention_mask=mask, past_key_values=empty, use_cache=True)
        model.packable = False
        padded = model(ids, attention_mask=mask, use_cache=True)
    assert seen == [(sum(LENGTHS), 24), (3, 9, 24)]
    for got, want in zip(packed.past_key_values, padded.past_key_values, strict=True):
        for a, b in zip(got, want, strict=True):
            close(a.transpose(1, 2)[mask.bool()], b.transpose(1, 2)[mask.bool()])


def test_ctrl_takes_the_reference_s_past():
    """One tensor a layer there, (2, rows, heads, length, dim)."""
    model = zoo.make(WRITERS[2])
    ids = torch.randint(1, 47, (2, 8))
    with torch.no_grad():
        past = model(ids[:, :5], use_cache=True).past_key_values
        stacked = tuple(torch.stack(layer) for layer in past)
        close(model(ids[:, 5:], past_key_values=stacked).logits, model(ids).logits[:, 5:])


@zoo.each([*WRITERS, *CLASSIFIERS])
def test_who_gets_a_state(case):
    """GPT only if asked, as its reference has none; the others unless told not to; in training only if asked."""
    model = zoo.make(case)
    ids = torch.randint(1, 47, (2, 4))
    default = case in (*WRITERS[1:], CLASSIFIERS[1])
    assert ("past_key_values" in model(ids)) == default
    assert "past_key_values" in model(ids, use_cache=True)
    assert "past_key_values" not in model(ids, use_cache=False)
    model.train()
    assert "past_key_values" not in model(ids)
    assert "past_key_values" in model(ids, use_cache=True)


def test_a_mask_in_the_place_of_a_past_says_so():
    with pytest.raises(TypeError, match="past_key_values is a tensor, maybe one meant for another place"):
        zoo.make(WRITERS[1])(torch.ones(1, 3).long(), torch.ones(1, 3).long())


# ---- writing ---------------------------------------------------------------------------------------------------------

STRATEGIES = {
    "greedy": {},
    "sample": {"do_sample": True, "temperature": 2.0, "top_k": 7, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.0},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "length_penalty": 0.0},
}
each_strategy = pytest.mark.parametrize("options", STRATEGIES.values(), ids=STRATEGIES)


def written(model, ids, mask=None, **options):
    options = {"max_new_tokens": 6, "eos_token_id": 7, "pad_token_id": 0, **options}
    return model.generate(ids, attention_mask=mask, generator=torch.Generator().manual_seed(3), **options)


def new(texts, start):
    """What came after the prompts, cut at eos."""
    found = [text[start:] for text in texts.tolist()]
    return [text[: text.index(7) + 1] if 7 in text else text for text in found]


@zoo.each([*WRITERS, *DOUBLES])
@each_strategy
def test_ragged_prompts_are_gone_on_from_as_each_alone(case, options):
    model = zoo.make(case)
    texts = [ids_of(WRITERS[0], (n,))[0] for n in LENGTHS]
    rows = [{"input_ids": text[0]} for text in texts]
    inputs = zoo.batch(rows, side="left")
    got = new(written(model, inputs["input_ids"], inputs["attention_mask"], **options), 9)
    many = len(got) // len(texts)
    for i, text in enumerate(texts):  # chance is of a row: in a batch of this prompt alone, what comes out of row i
        alone = new(written(model, text.repeat(3, 1), **options), text.shape[1])
        assert got[many * i : many * (i + 1)] == alone[many * i : many * (i + 1)]


@zoo.each([*WRITERS, *DOUBLES])
@each_strategy
def test_a_cache_changes_nothing_and_saves_reading(case, options):
    model = zoo.make(case)
    ids, mask = ids_of(WRITERS[0], LENGTHS, side="left")
    lengths = []
    model.transformer.layers[0].attn.qkv.register_forward_hook(lambda _, args, y: lengths.append(args[0].shape[-2]))
    without = written(model, ids, mask, use_cache=False, eos_token_id=None, **options)
    lengths.clear()
    cached = written(model, ids, mask, eos_token_id=None, **options)
    assert torch.equal(cached, without)
    assert lengths == [sum(LENGTHS), 1, 1, 1, 1, 1]  # the prompts packed, then a token a step


@zoo.each([*WRITERS, *DOUBLES, zoo.first(zoo.FAMILY["bert"], "LMHeadModel", "decoder")])
def test_only_the_last_token_is_scored_while_writing(case):
    model = zoo.make(case)
    ids, mask = ids_of(WRITERS[0], LENGTHS, side="left")
    shapes = []
    model.lm.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    written(model, ids, mask, eos_token_id=None)
    assert shapes == [(3, 1, 24)] * 6
    with torch.no_grad():
        whole = model(ids, attention_mask=mask).logits
        for keep in (1, 4, 9):
            close(model(ids, attention_mask=mask, logits_to_keep=keep).logits, whole[:, -keep:])
        assert torch.equal(model(ids, attention_mask=mask, logits_to_keep=0).logits, whole)
    with pytest.raises(ValueError, match="leave logits_to_keep out"):
        model(ids, labels=ids, logits_to_keep=1)
    with pytest.raises(ValueError, match="generate looks after logits_to_keep itself"):
        model.generate(ids, logits_to_keep=2)


@zoo.each(WRITERS)
@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "early_stopping": True}], ids=["greedy", "beams"])
def test_the_reference_writes_the_same(case, options, oracle):
    weights = oracle.init(case.cls, reference_config(case), seed=9)
    ids, _ = ids_of(case, (6, 6, 6))
    asked = {"input_ids": ids, "max_length": 14, "eos_token_id": 7, "pad_token_id": 0, "do_sample": False, **options}
    want = oracle.run(case.cls, reference_config(case), weights, asked, method="generate")["sequences"]
    assert torch.equal(ours_with(case, weights, torch.float64).generate(**asked), want)
