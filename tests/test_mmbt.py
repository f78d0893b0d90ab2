"""MMBT: the ten properties over two text encoders, against the live reference; models and checkpoints of parts."""

import copy
import inspect
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import polyformer
import zoo
from polyformer.core.composite import Verbatim
from polyformer.core.errors import CheckpointError, ConfigError
from polyformer.core.keymap import KeyMap
from polyformer.models import mmbt
from test_parity import compare_gradients, flat

WORDS, IMAGE_WIDTH, WIDTH = 47, 5, 7
TINY = dict(
    vocab_size=WORDS,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=40,
    type_vocab_size=2,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
CLASSES = ("MMBTModel", "MMBTForClassification")
RELATIVE = ("relative_key", "relative_key_query")
TEXTS = {
    "Bert": TINY,
    "Roberta": TINY,
    **{f"Bert {kind}": TINY | {"position_embedding_type": kind} for kind in RELATIVE},
}
OTHERS = {  # text encoders that the reference's MMBT cannot hold
    "Albert": TINY | {"embedding_size": 16},
    "Electra": TINY | {"embedding_size": 16},
    "DistilBert": dict(vocab_size=WORDS, dim=24, n_layers=2, n_heads=3, hidden_dim=40, max_position_embeddings=40)
    | dict(dropout=0.0, attention_dropout=0.0),
    "XLM": dict(vocab_size=WORDS, emb_dim=24, n_layers=2, n_heads=3, max_position_embeddings=40)
    | dict(dropout=0.0, attention_dropout=0.0),
    "ConvBert": TINY | {"embedding_size": 16, "num_attention_heads": 4, "conv_kernel_size": 3},
    "Longformer": TINY | {"attention_window": 4},
    "XLMRoberta": TINY,
    "Camembert": TINY,
}
each_text = pytest.mark.parametrize("text", TEXTS)
every_text = pytest.mark.parametrize("text", [*TEXTS, *OTHERS])
each_class = pytest.mark.parametrize("cls", CLASSES)


def image_encoder():
    """What tests/oracle/worker.py gives the reference."""
    return nn.Sequential(nn.Linear(IMAGE_WIDTH, WIDTH), nn.Tanh())


def text_config(text, **changes):
    name = text.split()[0]
    return getattr(polyformer, f"{name}Config")(**((TEXTS | OTHERS)[text] | changes))


def make(cls="MMBTModel", text="Bert", *, labels=3, dtype=torch.float64, seed=0, **changes):
    """A model in eval mode whose outputs are of order one."""
    torch.manual_seed(seed)
    config = polyformer.MMBTConfig(text_config(text, **changes), labels, modal_hidden_size=WIDTH)
    model = getattr(polyformer, cls)(config, None, image_encoder())
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=1.5 * p.shape[-1] ** -0.5 if p.dim() > 1 else 0.2)
    return model.to(dtype).eval()


def reference(text, labels=3):
    """What the worker makes the same model from."""
    name = text.split()[0]
    return dict(
        text=f"{name}Model",
        text_config=TEXTS[text],
        image_width=IMAGE_WIDTH,
        modal_hidden_size=WIDTH,
        num_labels=labels,
    )


def inputs_of(lengths=(9, 6, 4), *, marks=True, mask=True, labels=None, side="right", garbage=0, extra=0, seed=1):
    """Pairs of different lengths, padded; without padding ids among the words."""
    draw = torch.Generator().manual_seed(seed)
    rows, longest = len(lengths), max(lengths) + extra
    inputs = {
        "input_modal": torch.randn(rows, 4, IMAGE_WIDTH, generator=draw, dtype=torch.float64),
        "input_ids": torch.full((rows, longest), 1) if not garbage else torch.randint(0, garbage, (rows, longest)),
    }
    if marks:
        inputs["modal_start_tokens"] = torch.randint(3, WORDS, (rows,), generator=draw)
        inputs["modal_end_tokens"] = torch.randint(3, WORDS, (rows,), generator=draw)
    seen = torch.zeros(rows, longest, dtype=torch.long)
    for row, length in enumerate(lengths):
        start = longest - length if side == "left" else 0
        inputs["input_ids"][row, start : start + length] = torch.randint(3, WORDS, (length,), generator=draw)
        seen[row, start : start + length] = 1
    if mask:
        inputs["attention_mask"] = seen
    if labels == 1:
        inputs["labels"] = torch.randn(rows, 1, generator=draw, dtype=torch.float64)
    elif labels:
        inputs["labels"] = torch.randint(0, labels, (rows,), generator=draw)
    return inputs


def places(inputs):
    return inputs["input_modal"].shape[1] + sum(name in inputs for name in ("modal_start_tokens", "modal_end_tokens"))


def real(inputs):
    """(rows, places + length) bool: what is no padding."""
    rows, length = inputs["input_ids"].shape
    seen = inputs.get("attention_mask", torch.ones(rows, length)).bool()
    return torch.cat([torch.ones(rows, places(inputs), dtype=torch.bool), seen], 1)


def at_real(outputs, inputs):
    """Everything that an output says of real tokens, one flat tensor each."""
    keep, found = real(inputs), {}
    for name, value in flat(outputs).items():
        if name.startswith("attentions"):
            pairs = keep[:, None, :, None] & (keep[:, None, None] if value.shape[2] == value.shape[3] else True)
            value = value[pairs.expand(value.shape)]
        elif value.shape[:2] == keep.shape:
            value = value[keep]
        found[name] = value
    return found


def assert_same(got, want, tol=1e-9):
    assert got.keys() == want.keys()
    for name, value in got.items():
        torch.testing.assert_close(value, want[name], rtol=tol, atol=tol, msg=lambda m, n=name: f"{n}: {m}")


# ---- what the reference says -----------------------------------------------------------------------------------------

ASK = {"return_dict": True, "output_attentions": True, "output_hidden_states": True}


def with_weights(cls, text, weights, dtype, labels=3):
    model = make(cls, text, labels=labels, dtype=dtype)
    found = model.load_state_dict({name: value.to(dtype) for name, value in weights.items()})
    assert not found.missing_keys
    assert not found.unexpected_keys
    return model


@each_class
def test_arguments_are_the_reference_s(cls, oracle):
    """In its order; what we take beyond them comes after."""
    theirs = oracle.arguments(cls)
    ours = inspect.signature(getattr(polyformer, cls).forward).parameters
    assert list(ours)[1 : 1 + len(theirs)] == theirs
    assert all(p.default is None for name, p in ours.items() if name not in ("self", "input_modal"))


@each_text
@each_class
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=["float64", "float32"])
def test_outputs(cls, text, dtype, tol, oracle):
    """Every way to call it: marks of the image, one, or none; padding; given segments, positions, vectors, heads."""
    weights = oracle.init(cls, reference(text), seed=3)
    model = with_weights(cls, text, weights, dtype)
    marked, plain = inputs_of(), inputs_of(marks=False, mask=False)
    start_only = {name: value for name, value in marked.items() if name != "modal_end_tokens"}
    draw = torch.Generator().manual_seed(2)

    def numbers(high, *shape):
        return torch.randint(0, high, shape, generator=draw)

    vectors = torch.randn(3, 9, 24, generator=draw, dtype=torch.float64)
    calls = {
        "marked": marked,
        "plain": plain,
        "start only": start_only,
        "segments": marked | {"token_type_ids": numbers(2, 3, 9), "modal_token_type_ids": numbers(2, 3, 6)},
        "positions": marked | {"position_ids": numbers(30, 3, 9), "modal_position_ids": numbers(30, 3, 6)},
        "head_mask": marked | {"head_mask": torch.rand(2, 3, generator=draw, dtype=torch.float64)},
        "vectors": {name: value for name, value in marked.items() if name != "input_ids"} | {"inputs_embeds": vectors},
    }
    ask = ASK if cls == "MMBTModel" else {"return_dict": True}
    for name, inputs in calls.items():
        inputs = {n: v.to(dtype) if v.is_floating_point() else v for n, v in inputs.items()}
        want = oracle.run(cls, reference(text), weights, inputs | ask, dtype=dtype)
        with torch.no_grad():
            got = model(**inputs, **ask)
        assert flat(got).keys() == want.keys(), name
        like = inputs | {"input_ids": marked["input_ids"]}
        assert_same(at_real(got, like), at_real(want, like), tol)


@each_text
@pytest.mark.parametrize("labels", [3, 1])
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_loss_and_gradients(text, labels, train, oracle):
    """Every parameter's, under the reference's name; the tables that image and text share gather both."""
    cls = "MMBTForClassification"
    weights = oracle.init(cls, reference(text, labels), seed=4)
    inputs = inputs_of(labels=labels)
    want = oracle.run(cls, reference(text, labels), weights, inputs | {"return_dict": True}, grad=True, train=train)
    model = with_weights(cls, text, weights, torch.float64, labels).train(train)
    loss = model(**inputs).loss
    torch.testing.assert_close(loss, want["loss"], rtol=1e-9, atol=1e-9)
    loss.backward()
    compare_gradients(model, want)


@each_text
@each_class
def test_checkpoints_of_the_reference_both_ways(cls, text, oracle, tmp_path):
    """Bit for bit: what it has we read and would write; what we write it computes the same with."""
    weights = oracle.init(cls, reference(text), seed=7)
    config = polyformer.MMBTConfig(text_config(text), 3, WIDTH, image_layers=None)
    config.save_pretrained(tmp_path)
    save_file({name: value.clone() for name, value in weights.items()}, tmp_path / "model.safetensors")
    made = getattr(polyformer, cls)
    model, found = made.from_pretrained(tmp_path, encoder=image_encoder(), output_loading_info=True)
    assert model.load_report.clean
    assert not found["unexpected_keys"]
    back = model.keys.save(model.state_dict(), base=model.is_base)
    assert all(torch.equal(back[name], weights[name]) for name in back)
    shared = ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm")
    second = {name for name in weights if name.split(".")[-2] in shared and "modal_encoder" in name}
    assert len(second) == 5
    assert {name for name in weights.keys() - back.keys() if "position_ids" not in name} == second
    assert set(model.load_report.dropped) >= second
    model.save_pretrained(tmp_path / "ours")
    saved = load_file(tmp_path / "ours" / "model.safetensors")
    inputs = inputs_of()
    want = oracle.run(cls, reference(text), saved, inputs | {"return_dict": True})
    with torch.no_grad():
        got = model.double()(**inputs)
    assert_same(at_real(got, inputs), at_real(want, inputs))


def test_a_source_s_mask_may_leave_out_the_image_s_places(oracle):
    """The reference takes no other; we take the mask of the whole source too."""
    decoder = {"is_decoder": True, "add_cross_attention": True}
    there = reference("Bert") | {"text_config": TINY | decoder}
    weights = oracle.init("MMBTModel", there, seed=3)
    model = make(**decoder)
    model.load_state_dict({name: value.double() for name, value in weights.items()})
    inputs = inputs_of() | {"encoder_hidden_states": torch.randn(3, 11, 24, dtype=torch.float64)}
    short = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])  # 6 places are the image's
    want = oracle.run("MMBTModel", there, weights, inputs | {"encoder_attention_mask": short, "return_dict": True})
    whole = torch.cat([torch.ones(3, 6, dtype=torch.long), short], 1)
    for mask in (short, whole):
        with torch.no_grad():
            got = model(**inputs, encoder_attention_mask=mask)
        assert_same(at_real(got, inputs), at_real(want, inputs))


# ---- batches, padding, packing ---------------------------------------------------------------------------------------

LENGTHS = (9, 4, 7, 4)


def alone(model, inputs, row, length, side):
    """The same pair without any padding."""
    count = inputs["input_ids"].shape[1]
    cut = slice(count - length, None) if side == "left" else slice(0, length)
    one = {name: value[row : row + 1] for name, value in inputs.items() if name != "attention_mask"}
    one["input_ids"] = one["input_ids"][:, cut]
    with torch.no_grad():
        return one, model(**one, **ASK)


@every_text
@each_class
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("ask", [{}, ASK], ids=["fast", "explicit"])
def test_padding_never_changes_an_answer(cls, text, side, ask):
    """On either side, whatever ids lie under it, packed or not: each pair answers as it does alone."""
    model = make(cls, text)
    for garbage in (0, WORDS):
        inputs = inputs_of(LENGTHS, side=side, extra=3, garbage=garbage)
        with torch.no_grad():
            together = model(**inputs, **ask)
        for row, length in enumerate(LENGTHS):
            one, want = alone(model, inputs, row, length, side)
            mine = {n: v[row : row + 1] for n, v in inputs.items()}
            got = at_real({n: v[row : row + 1] for n, v in flat(together).items()}, mine)
            wanted = at_real(want, one)
            assert_same(got, {name: wanted[name] for name in got})


@every_text
def test_a_batch_is_its_rows_in_any_order(text):
    model = make("MMBTForClassification", text)
    inputs = inputs_of(LENGTHS)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        whole, mixed = (model(**i).logits for i in (inputs, {n: v[order] for n, v in inputs.items()}))
    torch.testing.assert_close(whole[order], mixed, rtol=1e-9, atol=1e-9)


@each_text
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_packed_is_padded(text, side, train):
    """Answers and gradients; and a layer really sees real tokens only."""
    model = make("MMBTForClassification", text).train(train)
    inputs = inputs_of(LENGTHS, side=side, labels=3)
    seen = []
    hook = model.mmbt.transformer.layers[1].ffn.register_forward_hook(
        lambda m, args, y: seen.append(args[0].shape[:-1])
    )

    def answer(packable):
        model.packable = packable
        model.zero_grad()
        outputs = model(**inputs)
        outputs.loss.backward()
        return {"logits": outputs.logits, **{n: p.grad.clone() for n, p in model.named_parameters()}}

    assert_same(answer(True), answer(False), 1e-8)
    hook.remove()
    assert seen == [(int(real(inputs).sum()),), (4, 6 + 9)]


def test_a_hole_in_the_mask_keeps_its_position():
    model = make()
    inputs = inputs_of((7,), mask=False)
    mask = torch.tensor([[1, 1, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        got = model(**inputs, attention_mask=mask).last_hidden_state
        kept = mask[0].bool()
        numbers = torch.arange(7)[None, kept]
        want = model(**(inputs | {"input_ids": inputs["input_ids"][:, kept]}), position_ids=numbers).last_hidden_state
    torch.testing.assert_close(got[:, real(inputs | {"attention_mask": mask})[0]], want, rtol=1e-9, atol=1e-9)


# ---- influence -------------------------------------------------------------------------------------------------------


@every_text
def test_image_and_text_see_each_other_and_not_other_rows(text):
    model = make(text=text)
    inputs = inputs_of((6, 6), mask=False)
    if text == "Longformer":  # whose window is narrower than the distance
        inputs["input_ids"] = inputs["input_ids"][:, :2]
    with torch.no_grad():
        before = model(**inputs).last_hidden_state
        image = inputs["input_modal"].clone()
        image[0, -1] += 1
        word = inputs["input_ids"].clone()
        word[0, 0] = 3 + (word[0, 0] - 2) % (WORDS - 3)
        for changed in ({"input_modal": image}, {"input_ids": word}):
            after = model(**(inputs | changed)).last_hidden_state
            moved = (after - before).abs().amax(-1) > 1e-12
            assert moved[0, -1] and moved[0, 5]
            assert not moved[1].any()


# ---- graphs ----------------------------------------------------------------------------------------------------------


@each_text
@pytest.mark.parametrize("cls", CLASSES if zoo.THOROUGH else CLASSES[-1:])  # the head's graph holds the model's
@pytest.mark.parametrize("way", ["export", "compile", "trace"])
def test_graphs_at_a_second_shape(cls, text, way):
    model = make(cls, text)
    made, run = inputs_of((7, 5, 7), extra=1), inputs_of((11, 6, 3, 11), side="left", extra=1)
    with torch.no_grad():
        want = model(**run)
        if way == "export":
            auto = torch.export.Dim.AUTO
            shapes = {name: {0: auto, 1: auto} if value.dim() == 2 else {0: auto} for name, value in made.items()}
            program = torch.export.export(model, (), made, dynamic_shapes=shapes, strict=False)
            got = program.module()(**run)
            assert type(got) is type(want)
        elif way == "compile":
            torch._dynamo.reset()
            compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
            compiled(**made)
            got = compiled(**run)
        else:
            model.config.torchscript = True
            traced = torch.jit.trace(model, example_kwarg_inputs=made, check_trace=False)
            got = traced(**run)
            got = dict(zip(want, got if isinstance(got, tuple) else (got,), strict=True))
    assert_same(at_real(got, run), at_real(want, run))


# ---- purity ----------------------------------------------------------------------------------------------------------


@each_class
def test_nothing_is_changed_and_eval_is_deterministic(cls):
    model = make(cls, hidden_dropout_prob=0.4, attention_probs_dropout_prob=0.4)
    inputs = inputs_of(LENGTHS, side="left")
    before = copy.deepcopy((inputs, model.state_dict(), model.config.to_dict()))

    def run(seed):
        torch.manual_seed(seed)
        return model(**inputs)[0]

    assert torch.equal(run(1), run(2))
    model.train()
    assert torch.equal(run(1), run(1))
    assert not torch.allclose(run(1), run(2))
    model.eval()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(**inputs)[0], run(1))
        assert other.config == model.config
    assert all(torch.equal(value, before[0][name]) for name, value in inputs.items())
    assert all(torch.equal(value, before[1][name]) for name, value in model.state_dict().items())
    assert model.config.to_dict() == before[2]


@each_text
def test_given_encoders_keep_their_weights(text, tmp_path):
    """A loaded text encoder, an image encoder of the user's: nothing is drawn anew but the projection and the head."""
    name = text.split()[0]
    torch.manual_seed(5)
    original = getattr(polyformer, f"{name}Model")(text_config(text))
    original.save_pretrained(tmp_path)
    loaded = getattr(polyformer, f"{name}Model").from_pretrained(tmp_path)
    image = image_encoder()
    image_before = copy.deepcopy(image.state_dict())
    config = polyformer.MMBTConfig(loaded.config, num_labels=4, modal_hidden_size=WIDTH)
    model = polyformer.MMBTForClassification(config, loaded, image)
    assert model.mmbt.transformer is loaded
    assert all(torch.equal(v, loaded.state_dict()[n]) for n, v in original.state_dict().items())
    assert all(torch.equal(v, image.state_dict()[n]) for n, v in image_before.items())
    assert abs(model.mmbt.projection.weight.std() / 0.02 - 1) < 0.3
    assert (model.classifier.out.bias == 0).all()


# ---- files -----------------------------------------------------------------------------------------------------------


def assert_equal_weights(a, b):
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@every_text
@each_class
@pytest.mark.parametrize("options", [{}, {"safe_serialization": False}, {"max_shard_size": 9000}], ids=str)
def test_save_and_load(cls, text, options, tmp_path):
    model = make(cls, text)
    model.save_pretrained(tmp_path, **options)
    again = type(model).from_pretrained(tmp_path, encoder=image_encoder(), torch_dtype=torch.float64)
    assert_equal_weights(model, again)
    assert again.config == model.config
    assert again.load_report.clean
    assert not again.load_report.unexpected
    assert type(again.config.text_config) is type(model.config.text_config)


def test_each_class_reads_the_other_s_files(tmp_path):
    for cls in CLASSES:
        make(cls, seed=1).save_pretrained(tmp_path / cls)
    base = polyformer.MMBTModel.from_pretrained(
        tmp_path / "MMBTForClassification", encoder=image_encoder(), torch_dtype=torch.float64
    )
    assert_equal_weights(base, make("MMBTForClassification", seed=1).mmbt)
    head = polyformer.MMBTForClassification.from_pretrained(
        tmp_path / "MMBTModel", encoder=image_encoder(), torch_dtype=torch.float64
    )
    assert_equal_weights(head.mmbt, make(seed=1))
    assert head.load_report.missing == ["classifier.weight", "classifier.bias"]


def test_auto_classes_and_the_state_dict_of_another(tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    assert polyformer.AutoConfig.from_pretrained(tmp_path) == model.config
    again = polyformer.AutoModel.from_pretrained(tmp_path, encoder=image_encoder(), torch_dtype=torch.float64)
    assert_equal_weights(model, again)
    other = make(seed=9)
    for tensors in (other.state_dict(), other.keys.save(other.state_dict(), base=True)):
        loaded = polyformer.MMBTModel.from_pretrained(
            tmp_path, encoder=image_encoder(), state_dict=tensors, torch_dtype=torch.float64
        )
        assert_equal_weights(other, loaded)


def test_files_that_do_not_fit(tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="image encoder of its maker's own: give it, encoder="):
        polyformer.MMBTModel.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"modal_encoder\.encoder\.2\.weight"):
        polyformer.MMBTModel.from_pretrained(tmp_path, encoder=nn.Sequential(*image_encoder(), nn.Linear(WIDTH, WIDTH)))
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["modal_encoder.encoder.stem.gamma"] = torch.zeros(3)
    del tensors["transformer.encoder.layer.0.attention.self.key.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"transformer\.encoder\.layer\.0\.attention\.self\.query\.bias"):
        polyformer.MMBTModel.from_pretrained(tmp_path, encoder=image_encoder())
    tensors["transformer.encoder.layer.0.attention.self.key.bias"] = torch.zeros(24)
    save_file(tensors, tmp_path / "model.safetensors")
    report = polyformer.MMBTModel.from_pretrained(tmp_path, encoder=image_encoder()).load_report
    assert report.unexpected == ["modal_encoder.encoder.stem.gamma"]


class Normed(nn.Module):
    """An image encoder with running means, and with a buffer that is in no file."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(IMAGE_WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)
        self.register_buffer("one", torch.ones(()), persistent=False)

    def forward(self, x):
        return self.norm(self.linear(x).transpose(1, 2)).transpose(1, 2) * self.one


@pytest.mark.parametrize("options", [{}, {"safe_serialization": False}, {"max_shard_size": 9000}], ids=str)
def test_running_means_are_saved_and_loaded(options, tmp_path):
    """They are weights to a file, whatever type the model is loaded in; the count of batches stays an integer."""
    config = polyformer.MMBTConfig(text_config("Bert"), 3, WIDTH)
    model = polyformer.MMBTForClassification(config, None, Normed()).train()
    model(**{n: v.float() if v.is_floating_point() else v for n, v in inputs_of().items()})
    norm = model.mmbt.encoder.norm
    assert norm.num_batches_tracked == 1
    assert not (norm.running_mean == 0).any()
    model.save_pretrained(tmp_path, **options)
    again = polyformer.MMBTForClassification.from_pretrained(tmp_path, encoder=Normed(), torch_dtype=torch.float64)
    found = again.mmbt.encoder.norm
    assert torch.equal(found.running_mean, norm.running_mean.double())
    assert torch.equal(found.running_var, norm.running_var.double())
    assert found.num_batches_tracked.dtype == torch.long
    assert found.num_batches_tracked == 1
    again.load_state_dict(model.double().state_dict())
    assert_equal_weights(model, again)


def test_a_file_without_counts_of_batches(tmp_path):
    """As torch wrote them before 0.4.1: the count starts at 0, the means are the file's."""
    config = polyformer.MMBTConfig(text_config("Bert"), 3, WIDTH)
    model = polyformer.MMBTModel(config, None, Normed())
    nn.init.normal_(model.encoder.norm.running_mean)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["modal_encoder.encoder.norm.num_batches_tracked"]
    save_file(tensors, tmp_path / "model.safetensors")
    again = polyformer.MMBTModel.from_pretrained(tmp_path, encoder=Normed())
    assert_equal_weights(model, again)
    assert again.load_report.missing == ["modal_encoder.encoder.norm.num_batches_tracked"]


def test_a_resnet_inside(tmp_path):
    """Without encoder=: under the names that the original keeps it, a list of its parts."""
    config = polyformer.MMBTConfig(text_config("Bert"), 3, image_layers=50, num_image_embeds=3)
    torch.manual_seed(0)
    model = polyformer.MMBTForClassification(config).train()
    pairs = inputs_of() | {"input_modal": torch.randn(3, 3, 64, 70)}
    model(**pairs)
    model.eval()
    model.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    inside = {name.removeprefix("mmbt.modal_encoder.encoder.") for name in names if "modal_encoder.encoder" in name}
    original = nn.Module()  # the list: convolution, norm, two without weights, four stages
    net = model.mmbt.encoder.resnet
    original.model = nn.Sequential(
        net.conv1, net.bn1, nn.ReLU(), net.pool, net.layer1, net.layer2, net.layer3, net.layer4
    )
    assert inside == original.state_dict().keys()
    again = polyformer.MMBTForClassification.from_pretrained(tmp_path)
    assert_equal_weights(model, again)
    assert again.load_report.clean
    assert (again.config.image_layers, again.config.num_image_embeds) == (50, 3)
    with torch.no_grad():
        outputs = again(**pairs, output_hidden_states=True)
        assert torch.equal(outputs.logits, model(**pairs).logits)
    assert outputs.hidden_states[0].shape == (3, 2 + 3 + 9, 24)
    given = polyformer.MMBTModel(
        polyformer.MMBTConfig(text_config("Bert")), None, polyformer.ImageEncoder(50, tokens=4)
    )
    assert (given.config.image_layers, given.config.num_image_embeds) == (50, 4)


# ---- configuration ---------------------------------------------------------------------------------------------------


@every_text
def test_a_configuration_inside_another(text, tmp_path):
    inner = text_config(text, pruned_heads={1: [0]}, our_own=[1])
    config = polyformer.MMBTConfig(inner, 5, WIDTH, image_layers=101, mine_too=2)
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == "mmbt"
    assert written["text_config"]["model_type"] == inner.model_type
    for again in (
        polyformer.MMBTConfig.from_pretrained(tmp_path),
        polyformer.AutoConfig.from_pretrained(tmp_path),
        polyformer.MMBTConfig.from_dict(config.to_dict()),
        copy.deepcopy(config),
        pickle.loads(pickle.dumps(config)),
        polyformer.MMBTConfig(written["text_config"], 5, WIDTH, image_layers=101),
    ):
        assert again == config
        assert type(again.text_config) is type(inner)
        assert again.text_config is not inner
        assert again.our_own == [1]
    assert config.text_config is inner
    assert config.to_dict()["text_config"]["pruned_heads"] is not inner.pruned_heads


def test_what_is_not_here_is_the_text_encoder_s():
    inner = text_config("Bert")
    config = polyformer.MMBTConfig(config=inner)
    assert config.hidden_size == 24
    config.hidden_dropout_prob = 0.5
    config.something = 3
    assert (inner.hidden_dropout_prob, inner.something) == (0.5, 3)
    assert not config.extra
    with pytest.raises(AttributeError, match="did you mean 'hidden_size'"):
        _ = config.hidden_sise
    with pytest.raises(TypeError, match="did you mean 'hidden_size'"):
        config.hiden_size = 3
    with pytest.raises(TypeError, match="did you mean 'modal_hidden_size'"):
        config.modal_hiden_size = 3
    assert polyformer.MMBTConfig().text_config == polyformer.BertConfig()


def test_changes_reach_the_text_encoder(tmp_path):
    make().save_pretrained(tmp_path)
    model = polyformer.MMBTModel.from_pretrained(
        tmp_path, encoder=image_encoder(), hidden_dropout_prob=0.25, num_labels=7, output_hidden_states=True
    )
    assert model.transformer.embed.drop.p == 0.25
    assert model.config.num_labels == 7
    assert model(torch.randn(1, 4, IMAGE_WIDTH), torch.tensor([[5, 6]])).hidden_states is not None
    pooled = polyformer.MMBTForClassification.from_pretrained(tmp_path, encoder=image_encoder(), pooling="mean")
    assert type(pooled.mmbt.pooler).__name__ == "MeanPooling"


def test_labels_are_the_text_encoder_s_unless_given(tmp_path):
    inner = text_config("Bert", id2label={0: "no", 1: "yes", 2: "maybe"})
    assert polyformer.MMBTConfig(inner).id2label == {0: "no", 1: "yes", 2: "maybe"}
    config = polyformer.MMBTConfig(inner, 2)
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    config.save_pretrained(tmp_path)
    assert polyformer.MMBTConfig.from_pretrained(tmp_path).num_labels == 2
    assert polyformer.MMBTConfig(inner, num_labels=4).num_labels == 4
    assert polyformer.MMBTConfig(inner, None, 7).modal_hidden_size == 7


def test_a_slip_inside_is_named_in_the_report(tmp_path):
    make().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    values["text_config"]["hiden_size"] = 24
    (tmp_path / "config.json").write_text(json.dumps(values))
    report = polyformer.MMBTModel.from_pretrained(tmp_path, encoder=image_encoder()).load_report
    assert report.config_suspects == {"text_config.hiden_size": "text_config.hidden_size"}


@pytest.mark.parametrize(
    ("make_it", "error", "message"),
    [
        (
            lambda: polyformer.MMBTConfig({"model_type": "swin"}),
            ConfigError,
            "text_config: model_type 'swin' is not an",
        ),
        (lambda: polyformer.MMBTConfig({"hidden_size": 8}), ConfigError, "text_config: config.json has no model_type"),
        (lambda: polyformer.MMBTConfig(3), ConfigError, "text_config is a int: it is a configuration"),
        (lambda: polyformer.MMBTConfig(image_layers=18), ConfigError, "there are 50, 101, 152"),
        (lambda: polyformer.MMBTConfig(num_image_embeds=10), ConfigError, "1 to 9 tokens"),
        (lambda: polyformer.MMBTConfig(text_config("Bert"), 2, 3, 4), TypeError, "by position; name the other"),
        (
            lambda: polyformer.MMBTConfig(text_config("Bert"), text_config=text_config("Bert")),
            TypeError,
            "text_config twice",
        ),
        (
            lambda: polyformer.MMBTModel(polyformer.MMBTConfig(text_config("Bert"), 2, WIDTH)),
            ConfigError,
            "a ResNet gives 2048 features",
        ),
        (
            lambda: polyformer.MMBTModel(
                polyformer.MMBTConfig(text_config("Bert")), polyformer.BertForMaskedLM(text_config("Bert"))
            ),
            TypeError,
            "a BertForMaskedLM is no text encoder",
        ),
        (
            lambda: polyformer.MMBTModel(polyformer.MMBTConfig(text_config("Bert")), nn.Linear(2, 2)),
            TypeError,
            "a Linear is no text encoder",
        ),
    ],
)
def test_impossible_models(make_it, error, message):
    with pytest.raises(error, match=message):
        make_it()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_ids": torch.full((3, 9), WORDS)}, "input_ids has 47, but only 0 to 46"),
        ({"modal_start_tokens": torch.full((3,), WORDS)}, "modal_start_tokens has 47, but only 0 to 46"),
        ({"modal_end_tokens": torch.full((2,), 3)}, r"modal_end_tokens has shape \(2, 1\), but \(3, 1\)"),
        ({"token_type_ids": torch.full((3, 9), 2)}, "token_type_ids has 2, but only 0 to 1"),
        ({"position_ids": torch.full((3, 9), 40)}, "position_ids has 40, but only 0 to 39"),
        ({"modal_position_ids": torch.zeros(3, 9)}, r"modal_position_ids has shape \(3, 9\), but \(3, 6\)"),
        ({"attention_mask": torch.ones(3, 15)}, r"attention_mask has shape \(3, 15\), but \(3, 9\)"),
        ({"attention_mask": torch.ones(3, 9, 9)}, "of the text alone"),
        ({"input_ids": torch.full((2, 9), 3), "attention_mask": None}, "there are 3 images and 2 texts"),
        ({"inputs_embeds": torch.zeros(3, 9, 24)}, "either input_ids or inputs_embeds"),
        ({"input_ids": torch.full((3, 41), 3), "attention_mask": None}, "sequence of 41 tokens is too long"),
    ],
)
def test_inputs_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        make()(**(inputs_of() | changes))


def test_the_image_takes_no_positions_from_the_text():
    """A text may be as long as the text encoder knows positions, whatever the image adds."""
    model, roomy = make(), make(max_position_embeddings=80)
    roomy.load_state_dict({k: v for k, v in model.state_dict().items() if "positions" not in k}, strict=False)
    inputs = inputs_of() | {"input_ids": torch.arange(120).view(3, 40) % WORDS, "attention_mask": None}
    with torch.no_grad():
        roomy.text.embed.positions.weight[:40] = model.text.embed.positions.weight
        want, got = roomy(**inputs).last_hidden_state, model(**inputs).last_hidden_state
    assert got.shape[1] > 40
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_an_image_encoder_that_gives_something_else():
    config = polyformer.MMBTConfig(text_config("Bert"), 2, WIDTH)
    for encoder in (nn.Linear(IMAGE_WIDTH, WIDTH + 1), nn.Flatten(1)):
        model = polyformer.MMBTModel(config, None, encoder).double()
        with pytest.raises(ValueError, match="set config.modal_hidden_size to the width"):
            model(**inputs_of())


def test_a_text_encoder_without_segments_or_positions_takes_none():
    model = make(text="DistilBert")
    for name in ("token_type_ids", "position_ids", "modal_position_ids"):
        with pytest.raises(ValueError, match=f"{name} cannot be given: a DistilBertModel takes none"):
            model(**inputs_of(), **{name: torch.zeros(3, 9).long()})
    one_segment = make("MMBTForClassification", "Roberta", type_vocab_size=1)
    assert one_segment(**inputs_of()).logits.shape == (3, 3)


# ---- what a model is asked for ---------------------------------------------------------------------------------------


def test_operations_are_the_text_encoder_s(tmp_path):
    model = make("MMBTForClassification")
    inputs = inputs_of()
    before = model(**inputs).logits
    table = model.resize_token_embeddings(60)
    assert model.config.vocab_size == model.config.text_config.vocab_size == 60
    assert model.get_input_embeddings() is table is model.mmbt.transformer.embed.tokens
    torch.testing.assert_close(model(**inputs).logits, before, rtol=1e-12, atol=1e-12)
    head_mask = torch.ones(2, 3, dtype=torch.float64)
    head_mask[1, 0] = 0
    masked = model(**inputs, head_mask=head_mask).logits
    model.prune_heads({1: [0]})
    torch.testing.assert_close(model(**inputs).logits, masked, rtol=1e-9, atol=1e-9)
    model.save_pretrained(tmp_path)
    again = polyformer.MMBTForClassification.from_pretrained(
        tmp_path, encoder=image_encoder(), torch_dtype=torch.float64
    )
    assert_equal_weights(model, again)
    model.train()
    want = torch.autograd.grad(model(**inputs).logits.sum(), model.mmbt.projection.weight)[0]
    model.gradient_checkpointing_enable()
    assert model.config.text_config.gradient_checkpointing
    got = torch.autograd.grad(model(**inputs).logits.sum(), model.mmbt.projection.weight)[0]
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    model.gradient_checkpointing_disable()
    assert not model.config.text_config.gradient_checkpointing


def test_the_text_encoder_s_own_settings_hold():
    model = make(output_attentions=True)
    assert model(**inputs_of()).attentions is not None
    assert model(**inputs_of(), output_attentions=False).attentions is None
    assert isinstance(model(**inputs_of(), return_dict=False), tuple)
    assert isinstance(make(torchscript=True)(**inputs_of()), tuple)


@pytest.mark.parametrize("pooling", ["attention", "mean", "max", "last", "last4_cls", "weighted_layers"])
def test_poolings_read_image_and_text(pooling):
    from polyformer.parts.pooling import POOLINGS

    model = make("MMBTForClassification", pooling=pooling, num_hidden_layers=3)
    inputs = inputs_of(LENGTHS, side="left")
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True)
        vector = model.mmbt.pooler(outputs.hidden_states[-1], real(inputs), outputs.hidden_states)
        assert isinstance(model.mmbt.pooler, POOLINGS[pooling])
        if pooling == "last":  # of the text, wherever its padding lies
            assert torch.equal(vector, outputs.hidden_states[-1][:, -1])
        torch.testing.assert_close(outputs.logits, model.classifier(vector), rtol=1e-9, atol=1e-9)


def test_the_table_of_an_instance_is_of_what_it_holds():
    for text in ("Bert", "DistilBert"):
        model = make(text=text)
        assert isinstance(model.keys, KeyMap)
        assert model.keys.parts[0].table is model.transformer.keys
        assert isinstance(model.keys.parts[1].table, Verbatim)
    own = polyformer.MMBTModel(polyformer.MMBTConfig(text_config("Bert"), image_layers=50))
    assert own.keys.parts[1].table is mmbt.IMAGE
