"""Any encoder with any decoder: the reference's numbers, files both ways, padding, the cache, writing."""

import itertools
import json

import pytest
import torch

import polyformer
from polyformer.core.errors import ConfigError
from polyformer.parts.state import State
from test_parity import compare_gradients

WORDS, WIDTH = 37, 24
TINY = dict(
    vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=3, intermediate_size=28,
    max_position_embeddings=30, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
WRITES = dict(is_decoder=True, add_cross_attention=True)
GPT2 = dict(
    vocab_size=WORDS, n_embd=WIDTH, n_layer=2, n_head=3, n_positions=30, bos_token_id=1, eos_token_id=2,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, model_type="gpt2",
)  # fmt: skip
DISTIL = dict(
    vocab_size=WORDS, dim=WIDTH, n_layers=2, n_heads=3, hidden_dim=28, max_position_embeddings=30, dropout=0.0,
    attention_dropout=0.0, model_type="distilbert",
)  # fmt: skip
BERT, ROBERTA = TINY | {"model_type": "bert"}, TINY | {"model_type": "roberta", "pad_token_id": 1}
PAIRS = {
    "bert2bert": (BERT, BERT | WRITES),
    "roberta2roberta": (ROBERTA, ROBERTA | WRITES),
    "bert2gpt2": (BERT, GPT2 | WRITES),
    "distilbert2bert": (DISTIL, BERT | WRITES),
}
CLS = "EncoderDecoderModel"
each_pair = pytest.mark.parametrize("pair", PAIRS)


def config_of(pair, **changes):
    encoder, decoder = PAIRS[pair]
    own = {"decoder_start_token_id": 3, "pad_token_id": 1, "eos_token_id": 2, "is_encoder_decoder": True}
    return {"encoder": encoder, "decoder": decoder, "model_type": "encoder-decoder"} | own | changes


def with_weights(pair, weights, dtype=torch.float64, **changes):
    model = polyformer.EncoderDecoderModel(polyformer.EncoderDecoderConfig.from_dict(config_of(pair, **changes)))
    model.load_state_dict({k: v for k, v in weights.items() if k in known(model)})
    return model.to(dtype).eval()


def known(model):
    return {file for match in model.keys.names(model.state_dict(), base=True)[0].values() for file in match.theirs}


def make(pair="bert2bert", seed=0, **changes):
    torch.manual_seed(seed)
    model = polyformer.EncoderDecoderModel(polyformer.EncoderDecoderConfig.from_dict(config_of(pair, **changes)))
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=p.shape[-1] ** -0.5 if p.dim() > 1 else 0.2)
    return model.double().eval()


def inputs_of(lengths=(7, 4), targets=(5, 5), *, seed=1):
    draw = torch.Generator().manual_seed(seed)
    rows = len(lengths)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {
        "input_ids": torch.randint(4, WORDS, (rows, max(lengths)), generator=draw) * mask + (1 - mask),
        "attention_mask": mask,
        "decoder_input_ids": torch.randint(4, WORDS, (rows, max(targets)), generator=draw),
    }


@each_pair
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_outputs(pair, dtype, tol, oracle):
    weights = oracle.init(CLS, config_of(pair), seed=3)
    model = with_weights(pair, weights, dtype)
    inputs = inputs_of() | {"output_attentions": True, "output_hidden_states": True, "return_dict": True}
    want = oracle.run(CLS, config_of(pair), weights, inputs, dtype=dtype)
    got = model(**inputs)
    torch.testing.assert_close(got.logits, want["logits"], rtol=0, atol=tol)
    for name in ("decoder_hidden_states", "decoder_attentions", "cross_attentions"):
        for i, tensor in enumerate(got[name]):
            torch.testing.assert_close(tensor, want[f"{name}.{i}"], rtol=0, atol=tol)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(
        got.encoder_last_hidden_state[real], want["encoder_last_hidden_state"][real], rtol=0, atol=tol
    )


@each_pair
def test_loss_and_gradients_as_in_version_4(pair, oracle):
    """With decoder_input_ids, labels are these tokens, each predicted from those before it."""
    weights = oracle.init(CLS, config_of(pair), seed=4)
    inputs = inputs_of()
    inputs |= {"labels": inputs["decoder_input_ids"].clone(), "return_dict": True}
    want = oracle.run(CLS, config_of(pair), weights, inputs, grad=True)
    model = with_weights(pair, weights)
    outputs = model(**inputs)
    torch.testing.assert_close(outputs.loss, want["loss"], rtol=0, atol=1e-9)
    outputs.loss.backward()
    compare_gradients(model, want)


def test_labels_alone_are_what_is_to_be_written():
    model, inputs = make(), inputs_of()
    labels = inputs.pop("decoder_input_ids")
    labels[0, -1] = -100
    got = model(**inputs, labels=labels)
    begun = torch.cat([torch.full((2, 1), 3), labels[:, :-1]], 1)
    logits = model(**inputs, decoder_input_ids=begun).logits
    chosen = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(got.loss, -chosen[labels >= 0].mean())
    torch.testing.assert_close(got.logits, logits)


@each_pair
def test_files_both_ways(pair, oracle, tmp_path):
    weights = oracle.init(CLS, config_of(pair), seed=5)
    model = with_weights(pair, weights)
    model.save_pretrained(tmp_path)
    again = polyformer.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, torch_dtype="auto")
    assert type(again) is polyformer.EncoderDecoderModel and not again.load_report.unexpected
    inputs = inputs_of() | {"return_dict": True}
    got = model(**inputs).logits
    assert torch.equal(again(**inputs).logits, got)
    from safetensors.torch import load_file

    saved = json.loads((tmp_path / "config.json").read_text())
    want = oracle.run(CLS, saved, dict(load_file(tmp_path / "model.safetensors")), inputs, strict=False)
    torch.testing.assert_close(got, want["logits"], rtol=0, atol=1e-9)


@each_pair
@pytest.mark.parametrize("beams", [1, 3])
def test_it_writes_as_the_reference(pair, beams, oracle):
    weights = oracle.init(CLS, config_of(pair), seed=6)
    model = with_weights(pair, weights)
    inputs = {k: v for k, v in inputs_of().items() if k != "decoder_input_ids"}
    options = {"max_length": 9, "num_beams": beams, "decoder_start_token_id": 3, "eos_token_id": 2, "pad_token_id": 1}
    want = oracle.run(CLS, config_of(pair), weights, inputs | options, method="generate", strict=False)
    assert torch.equal(model.generate(**inputs, **options), want["sequences"])


@each_pair
def test_padding_and_batch_change_nothing(pair):
    model, inputs = make(pair), inputs_of((7, 4, 6), (5, 5, 5))
    together = model(**inputs).logits
    for row, length in enumerate((7, 4, 6)):
        alone = model(inputs["input_ids"][row : row + 1, :length], decoder_input_ids=inputs["decoder_input_ids"][[row]])
        torch.testing.assert_close(together[[row]], alone.logits, rtol=0, atol=1e-10)


@each_pair
def test_word_by_word_with_a_cache_is_all_at_once(pair):
    model, inputs = make(pair), inputs_of()
    whole = model(**inputs).logits
    source = {"encoder_outputs": model.encoder(inputs["input_ids"], attention_mask=inputs["attention_mask"])}
    past, rows = None, torch.tensor([1, 0])
    for at in range(5):
        ids = inputs["decoder_input_ids"][:, at : at + 1]
        out = model(
            attention_mask=inputs["attention_mask"],
            decoder_input_ids=ids,
            past_key_values=past,
            use_cache=True,
            **source,
        )
        torch.testing.assert_close(out.logits[:, 0], whole[:, at], rtol=0, atol=1e-10)
        past = out.past_key_values
    assert isinstance(past, State) and past.reorder(rows).length == 5


def test_shared_weights_are_shared_and_saved_once(tmp_path):
    model = make("bert2bert", tie_encoder_decoder=True)
    ours, theirs = dict(model.encoder.named_parameters()), dict(model.decoder.bert.named_parameters())
    assert (
        all(theirs[name] is p for name, p in ours.items() if name in theirs) and len(ours.keys() & theirs.keys()) > 20
    )
    model.save_pretrained(tmp_path)
    again = polyformer.EncoderDecoderModel.from_pretrained(tmp_path, torch_dtype="auto")
    assert again.num_parameters() == model.num_parameters()
    assert torch.equal(again(**inputs_of()).logits, model(**inputs_of()).logits)


def test_from_two_checkpoints(tmp_path, caplog):
    for name, kind in (("one", BERT), ("two", GPT2)):
        values = {k: v for k, v in kind.items() if k != "model_type"}
        polyformer.AutoModel.from_config(polyformer.AutoConfig.for_model(kind["model_type"], **values)).save_pretrained(
            tmp_path / name
        )
    model = polyformer.EncoderDecoderModel.from_encoder_decoder_pretrained(
        tmp_path / "one", tmp_path / "two", encoder_output_attentions=False, decoder_start_token_id=3
    )
    assert isinstance(model.decoder, polyformer.GPT2LMHeadModel) and model.config.decoder_start_token_id == 3
    assert "cross" in caplog.text and not model.training
    fresh = polyformer.BertModel.from_pretrained(tmp_path / "one")
    ids = torch.randint(4, WORDS, (2, 5))
    assert torch.equal(model.encoder(ids).last_hidden_state, fresh(ids).last_hidden_state)
    assert model.generate(ids, max_length=6).shape[0] == 2


def test_two_widths():
    decoder = polyformer.BertConfig(**TINY | WRITES | {"hidden_size": 36})
    config = polyformer.EncoderDecoderConfig(encoder=polyformer.BertConfig(**TINY), decoder=decoder)
    model = polyformer.EncoderDecoderModel(config)
    assert model(**inputs_of()).logits.shape == (2, 5, WORDS)
    assert "enc_to_dec_proj.weight" in known(model)


@pytest.mark.parametrize(
    ("make_it", "error", "message"),
    [
        (lambda: polyformer.EncoderDecoderModel(), ValueError, "give a configuration, or both"),
        (
            lambda: polyformer.EncoderDecoderConfig(
                encoder=polyformer.BertConfig(**TINY), decoder=polyformer.BertConfig(**TINY)
            ),
            ConfigError,
            "set is_decoder=True and add_cross_attention=True",
        ),
        (
            lambda: polyformer.EncoderDecoderModel(
                None, polyformer.BertForMaskedLM(polyformer.BertConfig(**TINY)), make().decoder
            ),
            TypeError,
            "is no encoder: give a model without a head",
        ),
        (
            lambda: polyformer.EncoderDecoderModel.from_encoder_decoder_pretrained(
                "x", None, encoder_model=make().encoder
            ),
            ValueError,
            "there is no decoder",
        ),
        (lambda: make()(input_ids=torch.ones(1, 3, dtype=torch.long)), ValueError, "the decoder has nothing to read"),
        (lambda: make().resize_token_embeddings(40), TypeError, "two vocabularies"),
        (lambda: make().prune_heads({0: [0]}), TypeError, "model.encoder.prune_heads"),
        (lambda: make("bert2gpt2", tie_encoder_decoder=True), ConfigError, "of one architecture"),
    ],
)
def test_what_cannot_be(make_it, error, message):
    with pytest.raises(error, match=message):
        make_it()


def test_every_pair_of_kinds():
    """Encoders of other kinds, decoders of other kinds."""
    electra = polyformer.ElectraConfig(**TINY, embedding_size=16)
    albert = polyformer.AlbertConfig(**TINY, embedding_size=16)
    camembert = polyformer.CamembertConfig(**TINY | WRITES, pad_token_id=1)
    gpt2 = polyformer.GPT2Config(**{k: v for k, v in GPT2.items() if k != "model_type"}, **WRITES)
    for encoder, decoder in itertools.product((electra, albert), (camembert, gpt2)):
        model = polyformer.EncoderDecoderModel(polyformer.EncoderDecoderConfig(encoder=encoder, decoder=decoder)).eval()
        assert model(**inputs_of()).logits.shape == (2, 5, WORDS)
