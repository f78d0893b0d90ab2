"""What encoder-decoders have to themselves: two texts, how a decoder begins, EOS, writing, Marian's own files."""

import json
import re

import numpy as np
import pytest
import torch

import polyformer
import zoo
from polyformer.core.errors import CheckpointError, ConfigError
from polyformer.core.marian_file import read_marian_vocabulary
from polyformer.core.seq2seq import begun_by, shift_right
from test_parity import apart, compare, compare_gradients, flat, inputs_of, ours_with, reference_config

KINDS = ("bart", "mbart", "pegasus", "marian")
MODELS = [zoo.first(zoo.FAMILY[kind]) for kind in KINDS]
WRITERS = [zoo.first(zoo.FAMILY[kind], "MTModel" if kind == "marian" else "ForConditionalGeneration") for kind in KINDS]
READERS = [zoo.first(zoo.FAMILY[kind], "ForSequenceClassification") for kind in KINDS[:2]]
ANSWERERS = [zoo.first(zoo.FAMILY[kind], "ForQuestionAnswering") for kind in KINDS[:2]]
ALONE = [zoo.first(zoo.FAMILY[f"{kind}-decoder"], "ForCausalLM") for kind in KINDS]
LENGTHS = (9, 5, 7)


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


# ---- who sees whom ---------------------------------------------------------------------------------------------------


@zoo.each(MODELS)
def test_a_target_sees_the_whole_source_and_what_was_written_before_it(case):
    model = zoo.make(case)
    texts = {"input_ids": torch.randint(3, 46, (1, 6)), "decoder_input_ids": torch.randint(3, 46, (1, 5))}

    def reach(name, output):
        with torch.no_grad():
            before = model(**texts)[output]
            found = torch.zeros(before.shape[1], texts[name].shape[1], dtype=torch.bool)
            for j in range(found.shape[1]):
                changed = texts[name].clone()
                changed[0, j] = 3 + (changed[0, j] - 2) % 43
                moved = model(**(texts | {name: changed}))[output] - before
                found[:, j] = moved.abs().amax(-1)[0] > 1e-12
        return found

    assert reach("input_ids", "last_hidden_state").all()
    assert reach("input_ids", "encoder_last_hidden_state").all()
    assert torch.equal(reach("decoder_input_ids", "last_hidden_state"), torch.ones(5, 5).tril().bool())
    assert not reach("decoder_input_ids", "encoder_last_hidden_state").any()


@zoo.each(MODELS)
def test_a_decoder_s_mask_of_edges_and_its_holes(case):
    """A hidden target is as if nobody could attend to it; positions stay."""
    model = zoo.make(case)
    source, target = torch.randint(3, 46, (2, 2, 7))
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[0, 3:5] = 0
    edges = mask[:, None].expand(2, 7, 7).tril()
    with torch.no_grad():
        holed, spelled = (model(source, None, target, m).last_hidden_state[mask.bool()] for m in (mask, edges))
    close(holed, spelled)


# ---- inputs ----------------------------------------------------------------------------------------------------------


@zoo.each(MODELS)
def test_other_inputs(case, oracle):
    """Embeddings in place of ids, three head masks, the encoder's states in place of the source; as the reference."""
    weights = oracle.init(case.cls, reference_config(case), seed=5)
    model = ours_with(case, weights, torch.float64)
    rows = zoo.batch(zoo.sentences(case, LENGTHS))
    draw = torch.Generator().manual_seed(2)

    def noise(*shape):
        return torch.rand(shape, generator=draw, dtype=torch.float64)

    masks = {"head_mask": noise(2, 2), "decoder_head_mask": noise(3, 3), "cross_attn_head_mask": noise(3, 3)}
    whole = {"input_ids": rows["input_ids"], "decoder_input_ids": rows["decoder_input_ids"]}
    calls = {
        "no masks": whole,
        "vectors": {"inputs_embeds": noise(2, 9, 24), "decoder_inputs_embeds": noise(2, 4, 24)},
        "head masks": whole | masks,
        "the decoder's head mask alone": whole | {"decoder_head_mask": masks["decoder_head_mask"]},
        "the cross-attention's head mask alone": whole | {"cross_attn_head_mask": masks["cross_attn_head_mask"]},
        "encoder_outputs": {
            "encoder_outputs": (noise(3, 9, 24),),
            "attention_mask": rows["attention_mask"],
            "decoder_input_ids": rows["decoder_input_ids"],
        },
        "no state": rows | {"use_cache": False},
    }
    for name, inputs in calls.items():
        want = apart(oracle.run(case.cls, reference_config(case), weights, inputs))
        with torch.no_grad():
            got = flat(model(**inputs))
        if name == "no state":
            compare(case, got, want, inputs, 1e-9)
        else:
            assert got.keys() == want.keys()
            for key, value in got.items():
                torch.testing.assert_close(value, want[key], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@zoo.each(MODELS)
def test_the_encoder_s_outputs_stand_for_the_source(case):
    """In every form that a user may have them in, with what its layers showed."""
    model = zoo.make(case)
    inputs = zoo.batch(zoo.sentences(case, LENGTHS))
    ask = {"output_hidden_states": True, "output_attentions": True}
    source = {name: inputs.pop(name) for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        want = model(**source, **inputs, **ask)
        named = model.get_encoder()(**source, **ask)
        plain = model.get_encoder()(**source, **ask, return_dict=False)
        assert isinstance(plain, tuple)
        for outputs in (named, plain):
            got = model(encoder_outputs=outputs, attention_mask=source["attention_mask"], **inputs, **ask)
            assert got.keys() == want.keys()
            close(got.last_hidden_state, want.last_hidden_state)
            close(got.encoder_attentions[1], want.encoder_attentions[1])
            close(got.encoder_hidden_states[2], want.encoder_hidden_states[2])
        alone = model(encoder_outputs=plain[:1], attention_mask=source["attention_mask"], **inputs, **ask)
        close(alone.last_hidden_state, want.last_hidden_state)
        assert "encoder_attentions" not in alone


@zoo.each(MODELS)
def test_the_halves_are_models_of_their_own(case):
    model = zoo.make(case)
    inputs = zoo.batch(zoo.sentences(case, LENGTHS))
    with torch.no_grad():
        whole = model(**inputs)
        encoded = model.get_encoder()(inputs["input_ids"], inputs["attention_mask"])
        decoded = model.get_decoder()(
            inputs["decoder_input_ids"], inputs["decoder_attention_mask"], encoded[0], inputs["attention_mask"]
        )
    close(encoded.last_hidden_state, whole.encoder_last_hidden_state)
    close(decoded.last_hidden_state, whole.last_hidden_state)
    assert model.get_input_embeddings() is model.shared is model.encoder.embed.tokens is model.decoder.embed.tokens


def test_the_encoder_runs_on_real_tokens_only():
    model = zoo.make(MODELS[0])
    inputs = zoo.batch(zoo.sentences(MODELS[0], LENGTHS))
    seen = []
    model.encoder.layers[1].ffn.register_forward_hook(lambda _, args, y: seen.append(tuple(args[0].shape)))
    with torch.no_grad():
        model(**inputs)
        model.packable = False
        model(**inputs)
    assert seen == [(sum(LENGTHS), 24), (3, 9, 24)]


@zoo.each(MODELS)
def test_the_source_is_projected_once(case):
    model = zoo.make(case)
    inputs = zoo.batch(zoo.sentences(case, LENGTHS), mask=False)
    calls = []
    model.decoder.layers[0].cross.kv.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        encoded = model.get_encoder()(inputs["input_ids"])
        past = None
        for i in range(4):
            new = inputs["decoder_input_ids"][:, i : i + 1]
            past = model(decoder_input_ids=new, encoder_outputs=encoded, past_key_values=past).past_key_values
    assert calls == [1]
    assert [tuple(t.shape[1:]) for t in past[0]] == [(3, 4, 8), (3, 4, 8), (3, 9, 8), (3, 9, 8)]


@pytest.mark.parametrize("call", ["too long", "nothing", "unknown id", "two texts", "wide"])
def test_what_cannot_be_read_says_so(call):
    model = zoo.make(MODELS[2])
    ids = torch.randint(3, 46, (2, 5))
    inputs, message = {
        "too long": (
            {"input_ids": ids, "decoder_input_ids": ids.repeat(1, 7)},
            "35 tokens is too long .* 32 positions",
        ),
        "nothing": ({"input_ids": ids}, "the decoder has nothing to read: give decoder_input_ids"),
        "unknown id": ({"input_ids": ids + 40, "decoder_input_ids": ids}, "only 0 to 46 are known"),
        "two texts": ({"input_ids": ids, "inputs_embeds": torch.zeros(2, 5, 24), "decoder_input_ids": ids}, "one of"),
        "wide": ({"inputs_embeds": torch.zeros(2, 5, 9), "decoder_input_ids": ids}, "9 wide, .* 24 wide"),
    }[call]
    with pytest.raises(ValueError, match=message):
        model(**inputs)


def test_configurations_that_cannot_be():
    with pytest.raises(ConfigError, match="d_model 24 is no multiple of decoder_attention_heads 5"):
        MODELS[0].but(decoder_attention_heads=5).configure()
    with pytest.raises(ValueError, match="pad_token_id 58100 is outside of a vocabulary of 50265 tokens"):
        polyformer.MarianModel(polyformer.MarianConfig(encoder_layers=1, decoder_layers=1))
    assert polyformer.BartConfig(force_bos_token_to_be_generated=True).forced_bos_token_id == 0
    assert polyformer.BartConfig(encoder_layers=3).num_hidden_layers == 3
    assert polyformer.BartConfig().num_labels == 3


# ---- what the decoder begins with ------------------------------------------------------------------------------------


@zoo.each(MODELS[:2])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_decoder_that_is_given_nothing_reads_the_source_moved(case, side, oracle):
    """BART begins with decoder_start_token_id, mBART with the source's last token; as the reference for each alone."""
    weights = oracle.init(case.cls, reference_config(case), seed=6)
    model = ours_with(case, weights, torch.float64)
    rows = [{"input_ids": row["input_ids"]} for row in zoo.sentences(case, LENGTHS)]
    inputs = zoo.batch(rows, side=side, extra=2, garbage=47)
    with torch.no_grad():
        got = model(**inputs).last_hidden_state
    for i, row in enumerate(rows):
        want = oracle.run(case.cls, reference_config(case), weights, {"input_ids": row["input_ids"][None]})
        close(got[i][inputs["attention_mask"][i].bool()], want["last_hidden_state"][0])


def test_moving_to_the_right():
    labels = torch.tensor([[5, 6, 2, -100], [7, -100, 8, 2]])
    assert shift_right(labels, 3, 0).tolist() == [[3, 5, 6, 2], [3, 7, 0, 8]]
    with pytest.raises(ConfigError, match=r"set config\.decoder_start_token_id, or give decoder_input_ids"):
        shift_right(labels, None, 0)
    with pytest.raises(ConfigError, match=r"set config\.pad_token_id"):
        shift_right(labels, 3, None)
    ids, first = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 8]]), torch.tensor([[1], [2]])
    assert begun_by(first, ids, None).tolist() == [[1, 5, 6, 7], [2, 5, 6, 7]]
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])
    moved = begun_by(first, ids, mask)
    assert moved[0, :2].tolist() == [1, 5]
    assert moved[1, 2:].tolist() == [2, 7]


@zoo.each(WRITERS)
def test_labels_are_what_the_decoder_reads(case, oracle):
    """Loss and gradients of labels alone, some of them -100, are the reference's.

    For mBART at the end alone: the reference counts labels to find the last.
    """
    weights = oracle.init(case.cls, reference_config(case), seed=7)
    weights["final_logits_bias"] = torch.randn(1, 47)
    inputs = inputs_of(case, torch.float64)
    real = inputs.pop("decoder_attention_mask").bool()
    inputs["labels"] = inputs.pop("decoder_input_ids").masked_fill(~real, -100)
    if "MBart" not in case.cls:
        inputs["labels"][:, 1] = -100
    want = oracle.run(case.cls, reference_config(case), weights, inputs, grad=True)
    model = ours_with(case, weights, torch.float64)
    outputs = model(**inputs)
    close(outputs.loss, want["loss"])
    close(outputs.logits, want["logits"])
    outputs.loss.backward()
    compare_gradients(model, want)
    read = model.prepare_decoder_input_ids_from_labels(inputs["labels"])
    del inputs["labels"]
    close(model(**inputs, decoder_input_ids=read).logits, outputs.logits)


def test_mbart_begins_a_label_with_its_own_last_token():
    model = zoo.make(WRITERS[1])
    labels = torch.tensor([[5, 6, 2, 40, -100], [7, 2, 41, -100, -100]])
    got = model.prepare_decoder_input_ids_from_labels(labels)
    assert got[0, :4].tolist() == [40, 5, 6, 2]
    assert got[1, :3].tolist() == [41, 7, 2]


# ---- reading off the EOS, answering ----------------------------------------------------------------------------------


@zoo.each(READERS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_classifier_reads_the_last_eos(case, side):
    """By hand, of the states: rows with none (their last token), one and three of them."""
    model = zoo.make(case)
    eos = model.config.eos_token_id
    texts = [torch.tensor([5, 6, 7, 8]), torch.tensor([5, eos, 9]), torch.tensor([eos, 4, eos, 6, 7, eos, 8])]
    places = [3, 1, 5]
    inputs = zoo.batch([{"input_ids": text} for text in texts], side=side)
    under = ~inputs["attention_mask"].bool()
    inputs["input_ids"][under] = eos  # padding is none, whatever its id
    with torch.no_grad():
        got = model(**inputs).logits
        for i, (text, place) in enumerate(zip(texts, places, strict=True)):
            state = model.model(text[None]).last_hidden_state[0, place]
            close(got[i], model.classifier(state))


@zoo.each(READERS)
def test_a_classifier_of_given_targets_reads_their_last_token(case):
    """Where the decoder has another text than the source, or vectors, there is no EOS to look for."""
    model = zoo.make(case)
    source, target = torch.randint(3, 46, (2, 6)), torch.randint(3, 46, (2, 4))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        states = model.model(source, decoder_input_ids=target, decoder_attention_mask=mask).last_hidden_state
        got = model(source, decoder_input_ids=target, decoder_attention_mask=mask).logits
        close(got, model.classifier(states[[0, 1], [3, 1]]))


@zoo.each(ANSWERERS)
def test_span_logits_at_padding_never_win(case):
    model = zoo.make(case)
    inputs = zoo.without_labels(zoo.batch(zoo.sentences(case, LENGTHS), extra=2))
    with torch.no_grad():
        outputs = model(**inputs)
    for logits in (outputs.start_logits, outputs.end_logits):
        assert (logits.softmax(-1)[inputs["attention_mask"] == 0] == 0).all()


@zoo.each([*READERS, *ANSWERERS])
def test_what_is_remembered_of_a_source_that_is_read(case):
    """As the reference: a state unless there are labels."""
    model = zoo.make(case)
    inputs = zoo.batch(zoo.sentences(case, LENGTHS))
    assert "past_key_values" not in model(**inputs)
    assert "past_key_values" in model(**zoo.without_labels(inputs))
    assert "past_key_values" not in model(**zoo.without_labels(inputs), use_cache=False)


# ---- the decoder alone -----------------------------------------------------------------------------------------------


@zoo.each(ALONE)
def test_a_decoder_alone_with_a_source_of_another_s(case, oracle):
    weights = oracle.init(case.cls, reference_config(case), seed=8)
    model = ours_with(case, weights, torch.float64)
    inputs = zoo.batch(zoo.sentences(case, LENGTHS))
    inputs["encoder_hidden_states"] = torch.randn(3, 6, 24, dtype=torch.float64)
    inputs["encoder_attention_mask"] = (torch.arange(6) < torch.tensor([[6], [4], [1]])).long()
    inputs["cross_attn_head_mask"] = torch.rand(3, 3, dtype=torch.float64)
    want = oracle.run(case.cls, reference_config(case), weights, inputs | {"output_attentions": True})
    with torch.no_grad():
        got = flat(model(**inputs, output_attentions=True))
    compare(case, got, apart(want), inputs, 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_alone_is_loaded_from_the_whole(kind, tmp_path):
    """From files that have the table once, as ours and transformers 5's, or three times, as transformers 4's."""
    writer, alone = WRITERS[KINDS.index(kind)], ALONE[KINDS.index(kind)]
    whole = zoo.make(writer, dtype=torch.float32)
    ids, states = torch.randint(3, 46, (2, 6)), torch.randn(2, 5, 24)
    with torch.no_grad():
        want = whole.get_decoder()(ids, encoder_hidden_states=states).last_hidden_state
    for safe in (True, False):
        whole.save_pretrained(tmp_path, safe_serialization=safe)
        model = alone.model_class.from_pretrained(tmp_path)
        assert model.config.is_decoder
        assert not model.config.is_encoder_decoder
        assert model.load_report.clean
        with torch.no_grad():
            got = model.model(ids, encoder_hidden_states=states).last_hidden_state
            assert torch.equal(got, want)
            assert torch.equal(model.lm.decoder.weight, whole.model.shared.weight)
        (tmp_path / ("model.safetensors" if safe else "pytorch_model.bin")).unlink()


# ---- files, surgery, training ----------------------------------------------------------------------------------------


@zoo.each(WRITERS)
def test_a_file_of_the_base_model_has_all_that_a_writer_needs(case, tmp_path, caplog):
    """final_logits_bias is zero without one, and nothing to warn of."""
    base = zoo.make(zoo.first(zoo.FAMILY[case.family]), dtype=torch.float32)
    base.save_pretrained(tmp_path)
    model = case.model_class.from_pretrained(tmp_path)
    assert model.load_report.clean
    assert not caplog.records
    assert (model.lm.offset == 0).all()
    assert torch.equal(model.lm.decoder.weight, base.shared.weight)


@zoo.each(WRITERS)
@pytest.mark.parametrize("size", [60, 30])
def test_resizing_the_vocabulary(case, size, tmp_path):
    model = zoo.make(case, dtype=torch.float32)
    inputs = {name: torch.randint(3, 30, (2, 6)) for name in ("input_ids", "decoder_input_ids")}
    with torch.no_grad():
        before = model(**inputs).logits
        table = model.resize_token_embeddings(size)
        after = model(**inputs).logits
    assert after.shape == (2, 6, size)
    torch.testing.assert_close(after[..., :30], before[..., :30])
    assert table is model.model.shared is model.model.encoder.embed.tokens is model.model.decoder.embed.tokens
    assert model.lm.decoder.weight is table.weight
    assert (model.lm.offset[:, 47:] == 0).all()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(case.model_class.from_pretrained(tmp_path)(**inputs).logits, after)


@zoo.each(MODELS)
def test_pruned_heads_are_heads_that_count_for_nothing(case):
    """Numbers go through the encoder's layers, then the decoder's."""
    model = zoo.make(case)
    inputs = zoo.batch(zoo.sentences(case, LENGTHS))
    first, second = torch.ones(2, 2, dtype=torch.float64), torch.ones(3, 3, dtype=torch.float64)
    first[1, 0] = second[0, 2] = second[2, 1] = 0
    with torch.no_grad():
        want = model(**inputs, head_mask=first, decoder_head_mask=second).last_hidden_state
        model.prune_heads({1: [0], 2: [2], 4: [1]})
        got = model(**inputs).last_hidden_state
    real = inputs["decoder_attention_mask"].bool()
    close(got[real], want[real])
    with pytest.raises(ValueError, match="heads 0 to 1"):
        model.prune_heads({0: [2]})
    with pytest.raises(ValueError, match="layers 0 to 4"):
        model.prune_heads({5: [0]})


def test_layers_are_left_out_by_chance_in_training():
    """All of them with a chance of one, whatever is in them; none in eval; a seed brings the same ones."""
    case = MODELS[0].but(encoder_layerdrop=1.0, decoder_layerdrop=1.0)
    model = zoo.make(case)
    inputs = zoo.batch(zoo.sentences(case, LENGTHS))
    with torch.no_grad():
        outputs = model.train()(**inputs, output_hidden_states=True)
        assert torch.equal(outputs.last_hidden_state, outputs.decoder_hidden_states[0])
        assert len(outputs.decoder_hidden_states) == 4
        assert not torch.allclose(model.eval()(**inputs).last_hidden_state, outputs.last_hidden_state)
        half = zoo.make(MODELS[0], encoder_layerdrop=0.5, decoder_layerdrop=0.5).train()

        def run(seed):
            torch.manual_seed(seed)
            return half(**inputs).last_hidden_state

        assert torch.equal(run(1), run(1))
        assert len({float(run(seed).sum()) for seed in range(8)}) > 2


def test_activation_dropout_drops_in_training_only():
    model = zoo.make(MODELS[0], activation_dropout=0.5)
    inputs = zoo.batch(zoo.sentences(MODELS[0], LENGTHS))
    with torch.no_grad():
        want = zoo.make(MODELS[0])(**inputs).last_hidden_state
        close(model(**inputs).last_hidden_state, want)
        assert not torch.allclose(model.train()(**inputs).last_hidden_state, want)


@pytest.mark.parametrize("kind", ["pegasus", "marian"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fixed_positions_by_hand(kind, dtype, tmp_path):
    """sin(place / 10000^(2 i / width)) in column i, the cosines in the second half; they are there after loading."""
    model = zoo.make(zoo.first(zoo.FAMILY[kind]), dtype=torch.float32)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, torch_dtype=dtype)
    place, i = torch.arange(32, dtype=torch.float64)[:, None], torch.arange(12, dtype=torch.float64)
    angles = place / 10000 ** (2 * i / 24)
    want = torch.cat([angles.sin(), angles.cos()], 1)
    for half in (again.encoder, again.decoder):
        assert (half.embed.positions.table - want).abs().max() < 1e-7
    assert again(torch.tensor([[3, 4]]), decoder_input_ids=torch.tensor([[5]])).last_hidden_state.dtype == dtype


def test_auto_classes(tmp_path):
    for case in (*WRITERS, *READERS):
        zoo.make(case, dtype=torch.float32).save_pretrained(tmp_path)
        auto = polyformer.AutoModelForSequenceClassification if case in READERS else polyformer.AutoModelForSeq2SeqLM
        assert type(auto.from_pretrained(tmp_path)) is case.model_class
        assert type(polyformer.AutoModel.from_pretrained(tmp_path)) is case.model_class.backbone
    for case in WRITERS:
        config = case.configure()
        assert type(polyformer.AutoModelForPreTraining.from_config(config)) is case.model_class
        alone = polyformer.AutoModelForCausalLM.from_config(config)
        assert type(alone).__name__ == case.cls.replace("MTModel", "ForCausalLM").replace(
            "ForConditionalGeneration", "ForCausalLM"
        )
        assert alone.config.is_decoder
        assert not config.is_decoder
    assert type(polyformer.AutoModelForMaskedLM.from_config(WRITERS[0].configure())) is WRITERS[0].model_class


# ---- writing ---------------------------------------------------------------------------------------------------------

STRATEGIES = {
    "greedy": {},
    "beams": {"num_beams": 3, "early_stopping": True},
    "forced": {"num_beams": 2, "forced_bos_token_id": 9, "forced_eos_token_id": 7, "no_repeat_ngram_size": 2},
}


@zoo.each(WRITERS)
@pytest.mark.parametrize("options", STRATEGIES.values(), ids=STRATEGIES)
def test_the_reference_writes_the_same(case, options, oracle):
    weights = oracle.init(case.cls, reference_config(case), seed=9)
    inputs = {name: value for name, value in inputs_of(case, torch.float64).items() if name in SOURCE}
    asked = inputs | {"max_length": 10, "eos_token_id": 7, "pad_token_id": 0, "do_sample": False, **options}
    want = oracle.run(case.cls, reference_config(case), weights, asked, method="generate")["sequences"]
    model = ours_with(case, weights, torch.float64)
    assert torch.equal(model.generate(**asked), want)
    assert torch.equal(model.generate(**asked, use_cache=False), want)


SOURCE = ("input_ids", "attention_mask")


@zoo.each(WRITERS)
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_ragged_sources_are_written_for_as_each_alone(case, options):
    model = zoo.make(case)
    rows = [{"input_ids": row["input_ids"]} for row in zoo.sentences(case, LENGTHS)]
    asked = {"max_length": 10, "eos_token_id": 7, "pad_token_id": 0, "forced_eos_token_id": 7, **options}

    def texts(written):
        return [re.sub(r"( 0)*$", "", " ".join(map(str, text))) for text in written.tolist()]

    alone = [texts(model.generate(row["input_ids"][None], **asked))[0] for row in rows]
    for side in ("right", "left"):
        assert texts(model.generate(**zoo.batch(rows, side=side), **asked)) == alone


@zoo.each(WRITERS)
def test_the_encoder_runs_once(case):
    model = zoo.make(case)
    calls = []
    model.model.encoder.register_forward_hook(lambda *_: calls.append(1))
    source = torch.randint(3, 46, (2, 6))
    model.generate(source, num_beams=3, max_length=8, eos_token_id=7, pad_token_id=0)
    assert calls == [1]


def test_marian_never_writes_padding():
    """Though its score be the highest."""
    model = zoo.make(WRITERS[3])
    model.lm.offset[:, 0] = 1e4
    source = torch.randint(3, 46, (2, 6))
    for beams in (1, 3):
        asked = {"num_beams": beams, "eos_token_id": 7, "pad_token_id": 0, "forced_eos_token_id": 7}
        for text in model.generate(source, max_length=9, **asked).tolist():
            assert 0 not in text[1 : text.index(7) if 7 in text else None]


# ---- Marian's own files ----------------------------------------------------------------------------------------------

YML = """\
type: transformer
dim-emb: {d_model}
enc-depth: {encoder_layers}
dec-depth: {decoder_layers}
transformer-heads: {encoder_attention_heads}
transformer-dim-ffn: {encoder_ffn_dim}
transformer-decoder-dim-ffn: {decoder_ffn_dim}
transformer-ffn-activation: {activation_function}
transformer-preprocess: ""
transformer-postprocess: dan
transformer-postprocess-emb: d
transformer-dropout: 0.1
tied-embeddings-all: true
beam-size: 6
"""
ATTENTIONS = {"self": "self_attn", "context": "encoder_attn"}


def as_marian_has_it(model):
    """Its arrays by the names of marian-nmt's transformer.h: matrices (in, out), vectors (1, width), layers from 1."""
    theirs = model.keys.save(model.state_dict(), base=False)
    numpy = {name.removeprefix("model."): value.detach().numpy() for name, value in theirs.items()}
    arrays = {"Wemb": numpy["shared.weight"][:-1], "decoder_ff_logit_out_b": numpy["final_logits_bias"][:, :-1]}
    for half, layers in (("encoder", model.config.encoder_layers), ("decoder", model.config.decoder_layers)):
        for i in range(layers):
            ours, lead = f"{half}.layers.{i}", f"{half}_l{i + 1}"
            for short, long in list(ATTENTIONS.items())[: 1 if half == "encoder" else 2]:
                for letter in "qkv":
                    arrays[f"{lead}_{short}_W{letter}"] = numpy[f"{ours}.{long}.{letter}_proj.weight"].T
                    arrays[f"{lead}_{short}_b{letter}"] = numpy[f"{ours}.{long}.{letter}_proj.bias"][None]
                arrays[f"{lead}_{short}_Wo"] = numpy[f"{ours}.{long}.out_proj.weight"].T
                arrays[f"{lead}_{short}_bo"] = numpy[f"{ours}.{long}.out_proj.bias"][None]
                arrays[f"{lead}_{short}_Wo_ln_scale"] = numpy[f"{ours}.{long}_layer_norm.weight"][None]
                arrays[f"{lead}_{short}_Wo_ln_bias"] = numpy[f"{ours}.{long}_layer_norm.bias"][None]
            for n in (1, 2):
                arrays[f"{lead}_ffn_W{n}"] = numpy[f"{ours}.fc{n}.weight"].T
                arrays[f"{lead}_ffn_b{n}"] = numpy[f"{ours}.fc{n}.bias"][None]
            arrays[f"{lead}_ffn_ffn_ln_scale"] = numpy[f"{ours}.final_layer_norm.weight"][None]
            arrays[f"{lead}_ffn_ffn_ln_bias"] = numpy[f"{ours}.final_layer_norm.bias"][None]
    return arrays


@pytest.fixture
def marian():
    """A model whose padding is the last token, with nothing of its own, as those made from Marian's files."""
    case = WRITERS[3].but(
        encoder_attention_heads=3, pad_token_id=46, decoder_start_token_id=46, eos_token_id=0, bos_token_id=None
    )
    model = zoo.make(case, dtype=torch.float32)
    with torch.no_grad():
        model.model.shared.weight[46] = 0
        model.lm.offset[:, 46] = 0
    return model


def write_marian(model, path, *, options="", without=(), **more):
    arrays = {name: value for name, value in as_marian_has_it(model).items() if name not in without} | more
    text = (YML.format(**vars(model.config)) + options).encode() + b"\0"
    np.savez(path, **arrays, **{"special:model.yml": np.frombuffer(text, np.int8)})


@pytest.mark.parametrize("where", ["file", "folder"])
def test_marian_s_own_files(marian, where, tmp_path):
    """Bit for bit; and what is then saved is Hugging Face's."""
    write_marian(marian, tmp_path / "opus.npz")
    model = polyformer.MarianMTModel.from_marian(tmp_path if where == "folder" else tmp_path / "opus.npz")
    assert model.load_report.clean
    assert not model.load_report.unexpected
    for name, value in marian.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    same = "vocab_size d_model encoder_layers decoder_layers encoder_attention_heads decoder_ffn_dim encoder_ffn_dim "
    for field in (same + "activation_function scale_embedding pad_token_id decoder_start_token_id").split():
        assert getattr(model.config, field) == getattr(marian.config, field), field
    assert (model.config.dropout, model.config.num_beams, model.config.bad_words_ids) == (0.1, 6, [[46]])
    source = torch.randint(1, 46, (2, 7))
    with torch.no_grad():
        outputs = [m(source, decoder_input_ids=source).logits for m in (model, marian)]
    assert torch.equal(*outputs)
    model.save_pretrained(tmp_path / "hf")
    again = polyformer.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "hf")
    asked = {"max_length": 9, "num_beams": 2}
    assert torch.equal(again.generate(source, **asked), marian.generate(source, **asked))


def test_marian_s_own_positions(marian, tmp_path):
    """The rates that Marian NMT trains with go down to 1 / 10000."""
    write_marian(marian, tmp_path / "opus.npz")
    model = polyformer.MarianMTModel.from_marian(tmp_path, native_positions=True)
    for place in (0, 1, 30):
        for i in range(12):
            angle = torch.tensor(place / 10000 ** (i / 11), dtype=torch.float64)
            row = model.model.encoder.embed.positions.table[place]
            assert abs(row[i] - angle.sin()) < 1e-6
            assert abs(row[12 + i] - angle.cos()) < 1e-6
    model.save_pretrained(tmp_path / "hf")
    again = polyformer.MarianMTModel.from_pretrained(tmp_path / "hf")
    assert torch.equal(again.model.encoder.embed.positions.table, model.model.encoder.embed.positions.table)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"options": "transformer-decoder-autoreg: average-attention"},
            "trained with transformer-decoder-autoreg: 'aver",
        ),
        ({"without": ("encoder_l2_self_Wk",)}, "lacks encoder_l2_self_Wk: the file is incomplete"),
        ({"without": ("Wemb",)}, "has no Wemb: only one table for both languages"),
        ({"Wpos": np.zeros((3, 3))}, "has Wpos, for which this network has no place"),
        ({"options": "enc-depth: many"}, "an option in .* is no number"),
        ({"options": "- a list"}, "special:model.yml of .* is not YAML"),
        (
            {"decoder_ff_logit_out_b": np.zeros((1, 3), np.float32)},
            "46 token vectors but decoder_ff_logit_out_b of shape",
        ),
    ],
)
def test_a_file_of_marian_s_that_cannot_be_read(how, message, marian, tmp_path):
    write_marian(marian, tmp_path / "opus.npz", **how)
    with pytest.raises(CheckpointError, match=message):
        polyformer.MarianMTModel.from_marian(tmp_path / "opus.npz")


def test_a_file_that_is_not_marian_s(tmp_path):
    def refused(path, message):
        with pytest.raises(CheckpointError, match=message):
            polyformer.MarianMTModel.from_marian(path)

    refused(tmp_path, "there is none: name the file")
    refused(tmp_path / "opus.npz", "is not there")
    (tmp_path / "opus.npz").write_bytes(b"PK\x03\x04 and then nothing")
    refused(tmp_path, "damaged")
    np.savez(tmp_path / "opus.npz", Wemb=np.zeros((3, 3)))
    refused(tmp_path, "has no special:model.yml")
    np.savez(tmp_path / "other.npz", code=np.array([{}], dtype=object))
    refused(tmp_path / "other.npz", "damaged")
    refused(tmp_path, "there is opus.npz, other.npz: name the file")


def test_marian_s_vocabulary(tmp_path):
    """Tokens that YAML takes for other things than texts stay texts; `<pad>` comes last."""
    path = tmp_path / "opus.vocab.yml"
    path.write_text('"</s>": 0\n"<unk>": 1\nyes: 2\n1.50: 3\n▁the: 4\n"~": 5\n', encoding="utf-8")
    ids = read_marian_vocabulary(path)
    assert ids == {"</s>": 0, "<unk>": 1, "yes": 2, "1.50": 3, "▁the": 4, "~": 5, "<pad>": 6}
    json.dumps(ids)
    path.write_text("a: b\n")
    with pytest.raises(CheckpointError, match="each line is to be a token and its id"):
        read_marian_vocabulary(path)
    with pytest.raises(CheckpointError, match="is not there"):
        read_marian_vocabulary(tmp_path / "none.yml")
