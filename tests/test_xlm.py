"""What XLM and FlauBERT have to themselves: languages, padding by id and by length, writing at a mask, beams of spans,
summaries, adaptive softmax, layers left out."""

import itertools
import json

import pytest
import torch
from torch import nn

import polyformer
import zoo
from polyformer.core.errors import ConfigError
from polyformer.parts.blocks import PreNormBlock
from polyformer.parts.embeddings import LanguageEmbeddings
from polyformer.parts.heads import AdaptiveWordHead
from polyformer.parts.layout import seen_tokens
from polyformer.parts.state import State
from test_parity import ours_with, reference_config

BOTH = ("xlm", "flaubert")
PREFIX = {"xlm": "XLM", "flaubert": "Flaubert"}
F64 = torch.float64


def case_of(family, kind="Model", **changes):
    return zoo.first(zoo.FAMILY[family], kind).but(**changes)


def close(got, want, tol=1e-9):
    torch.testing.assert_close(got, want, rtol=tol, atol=tol)


# ---- the parts -------------------------------------------------------------------------------------------------------


def test_language_embeddings_are_a_normed_sum():
    made = LanguageEmbeddings(9, nn.Embedding(5, 4), 3, 4, nn.LayerNorm(4), 0.0, 2)
    assert (made.tokens.weight[2] == 0).all()
    ids, langs, types = torch.tensor([[1, 8, 3]]), torch.tensor([[0, 2, 2]]), torch.tensor([[0, 1, 1]])
    got = made(ids, langs, types, torch.arange(3)[None], None)
    for i, (word, lang, kind) in enumerate(zip(ids[0], langs[0], types[0], strict=True)):
        vectors = made.tokens.weight[word], made.positions.weight[i], made.languages.weight[lang]
        close(got[0, i], nn.functional.layer_norm(sum(vectors) + made.tokens.weight[kind], (4,)), 1e-6)
    assert LanguageEmbeddings(9, nn.Embedding(5, 4), 0, 4, nn.LayerNorm(4), 0.0).languages is None


def test_an_adaptive_softmax_is_its_definition():
    """log p(word) = log p(its cluster) + log p(word in the cluster); frequent words are in the head themselves."""
    head = AdaptiveWordHead(6, 11, [4, 7], 2.0).double()
    x = torch.randn(2, 3, 6, dtype=F64)
    got = head(x)
    close(got.exp().sum(-1), torch.ones(2, 3, dtype=F64))
    first = (x @ head.clusters.head.weight.T + head.clusters.head.bias).log_softmax(-1)
    close(got[..., :4], first[..., :4])
    for number, (start, end) in enumerate(((4, 7), (7, 11))):
        down, up = head.clusters.tail[number]
        assert down.out_features == 6 // 2 ** (number + 1)
        inner = (x @ down.weight.T @ up.weight.T).log_softmax(-1)
        close(got[..., start:end], first[..., 4 + number, None] + inner)


def test_a_pre_norm_block_norms_before_each_part():
    class Doubling(nn.Module):
        def forward(self, x, *_):
            return 2 * x

    block = PreNormBlock(Doubling(), Doubling(), lambda: nn.LayerNorm(4), 0.0)
    x = torch.randn(2, 3, 4)
    y = x + 2 * nn.functional.layer_norm(x, (4,))
    close(block(x, None), y + 2 * nn.functional.layer_norm(y, (4,)), 1e-6)


def test_seen_tokens():
    ids = torch.tensor([[2, 5, 6, 2], [7, 8, 9, 5]])
    assert seen_tokens(ids, None, None, 2).tolist() == [[False, True, True, False], [True] * 4]
    assert seen_tokens(ids[1:], None, None, 2) is None
    assert seen_tokens(None, torch.zeros(2, 4, 3), None, 2) is None
    assert seen_tokens(ids, None, None, 2, past=3) is None
    lengths = torch.tensor([2, 6])
    assert seen_tokens(None, torch.zeros(2, 4, 3), lengths, 2, past=2).sum(1).tolist() == [2, 6]
    assert seen_tokens(ids, None, torch.tensor([4, 4]), 2) is None


@pytest.mark.parametrize("capacity", [None, 9])
def test_a_state_is_cut(capacity):
    """As if the tokens after the cut had never been there, and the next ones take their place."""
    k, v, new = torch.randn(3, 2, 2, 5, 4)
    state = State.empty(2, capacity)
    for layer in state.layers:
        layer.own.append(k, v)
    cut = state.upto(3)
    assert (cut.length, state.length) == (3, 5)
    for layer in cut.layers:
        keys, values = layer.own.append(new[:, :, :1], new[:, :, 1:2])
        assert torch.equal(keys, torch.cat([k[:, :, :3], new[:, :, :1]], 2))
        assert torch.equal(values, torch.cat([v[:, :, :3], new[:, :, 1:2]], 2))
    assert State.empty(2, capacity).upto(0).length == 0


# ---- padding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("kind", ["Model", "WithLMHeadModel", "ForQuestionAnsweringSimple", "ForMultipleChoice"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_is_told_by_mask_by_id_or_by_length(family, kind, side):
    case = case_of(family, kind, summary_type="mean")
    model = zoo.make(case)
    inputs = zoo.batch(zoo.sentences(case, (9, 4, 6)), side=side)
    mask = inputs.pop("attention_mask")
    inputs["input_ids"] = inputs["input_ids"].masked_fill(mask == 0, 2)
    ways = [{"attention_mask": mask}, {}]
    if side == "right":
        ways.append({"lengths": mask.sum(-1)})
    with torch.no_grad():
        want, *others = (model(**inputs, **way) for way in ways)
    for other in others:
        assert other.keys() == want.keys()
        assert all(torch.equal(other[name], want[name]) for name in want)


@pytest.mark.parametrize("family", BOTH)
def test_lengths_of_vectors_and_after_a_cache(family):
    model = zoo.make(case_of(family, causal=True))
    ids, lengths = torch.randint(3, 47, (2, 7)), torch.tensor([7, 4])
    with torch.no_grad():
        want = model(ids, lengths=lengths).last_hidden_state
        vectors = model(inputs_embeds=model.get_input_embeddings()(ids), lengths=lengths).last_hidden_state
        first = model(ids[:, :3], cache=State.empty(3))
        second = model(ids[:, 3:], cache=first.past_key_values, lengths=lengths).last_hidden_state
    assert torch.equal(vectors, want)
    close(second[0], want[0, 3:])
    close(second[1, :1], want[1, 3:4])


@pytest.mark.parametrize("family", BOTH)
def test_a_recorded_graph_knows_padding_by_its_id(family):
    model = zoo.make(case_of(family, "ForSequenceClassification", summary_type="last"))
    made, ids = torch.randint(3, 47, (2, 5)), torch.randint(3, 47, (3, 9))
    auto = torch.export.Dim.AUTO
    program = torch.export.export(model, (), {"input_ids": made}, dynamic_shapes={"input_ids": {0: auto, 1: auto}})
    ids[0, 6:] = 2
    with torch.no_grad():
        close(program.module()(input_ids=ids).logits, model(ids).logits)
        close(model(ids).logits[:1], model(ids[:1, :6]).logits)


# ---- writing ---------------------------------------------------------------------------------------------------------

WAYS = {
    "greedy": {"max_length": 14},
    "beams": {"max_length": 14, "num_beams": 3, "num_return_sequences": 2, "eos_token_id": 9, "length_penalty": 1.5},
    "groups": {"max_length": 12, "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.6},
}


def written(case, model, ids, **options):
    with torch.no_grad():
        return model.generate(ids, pad_token_id=2, **options)


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_what_it_writes_is_what_the_reference_writes(family, causal, way, oracle):
    """In the configuration's language."""
    case = case_of(family, "WithLMHeadModel", causal=causal, n_langs=3, lang_id=1, mask_token_id=5)
    weights = oracle.init(case.cls, reference_config(case), seed=2)
    model = ours_with(case, weights, torch.float32)
    ids = torch.randint(6, 47, (2, 5))
    calls = {"input_ids": ids, "pad_token_id": 2, **WAYS[way]}
    want = oracle.run(case.cls, reference_config(case), weights, calls, method="generate", dtype=torch.float32)
    assert torch.equal(written(case, model, ids, **WAYS[way]), want["sequences"])


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("way", WAYS)
def test_a_causal_one_writes_the_same_with_and_without_its_state(family, way):
    """The mask is not remembered; prompts padded on the left, in languages of their own."""
    case = case_of(family, "WithLMHeadModel", causal=True, n_langs=3, mask_token_id=5)
    model = zoo.make(case)
    ids = torch.randint(6, 47, (3, 5))
    ids[1, :2] = 2
    langs = torch.tensor([[0], [1], [2]]).expand(3, 5)
    read = []
    model.transformer.embed.register_forward_pre_hook(lambda _, args: read.append(args[0].shape[-1]))
    kept = written(case, model, ids, langs=langs, **WAYS[way])
    assert max(read[1:]) == 2  # a new word and the mask
    anew = written(case, model, ids, langs=langs, use_cache=False, **WAYS[way])
    assert torch.equal(kept, anew)
    options = WAYS[way]
    if "eos_token_id" not in options:
        alone = written(
            case, model, ids[1:2, 2:], langs=langs[1:2, 2:], **options | {"max_length": options["max_length"] - 2}
        )
        assert torch.equal(kept[1:2, 2:], alone)


def test_a_step_of_writing_by_hand():
    case = case_of("xlm", "WithLMHeadModel", mask_token_id=5)
    model = zoo.make(case)
    ids = torch.randint(6, 47, (1, 4))
    text = ids
    for _ in range(3):
        with torch.no_grad():
            logits = model(torch.cat([text, torch.tensor([[5]])], 1)).logits
        text = torch.cat([text, logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(written(case, model, ids, max_length=7), text)


def test_what_has_no_cache():
    ids = torch.tensor([[5, 6, 7]])
    with pytest.raises(ValueError, match="a cache is for models that read from left to right"):
        zoo.make(case_of("xlm"))(ids, cache=State.empty(3))
    with pytest.raises(TypeError, match="a cache is no dictionary"):
        zoo.make(case_of("flaubert", causal=True))(ids, cache={"slen": 0})


# ---- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize(("p_mask", "cls_index"), list(itertools.product([True, False], repeat=2)))
def test_beams_of_spans_are_the_reference_s(family, p_mask, cls_index, oracle):
    """Of each row alone, and the same in a padded batch."""
    case = case_of(family, "ForQuestionAnswering")
    weights = oracle.init(case.cls, reference_config(case), seed=2)
    model = ours_with(case, weights, F64)
    left_out = {name for name, wanted in (("p_mask", p_mask), ("cls_index", cls_index)) if not wanted}
    rows = [{n: v for n, v in row.items() if n not in left_out} for row in zoo.sentences(case, (9, 5, 7))]
    padded = zoo.without_labels(zoo.batch(rows, side="left"))
    with torch.no_grad():
        outputs = model(**padded)
    for i, row in enumerate(rows):
        alone = zoo.without_labels(zoo.batch([row]))
        want = oracle.run(case.cls, reference_config(case), weights, alone)
        length = row["input_ids"].shape[0]
        got = zoo.outputs_of_row(case, outputs, i, length, side="left", longest=9)
        zoo.assert_same(got, {name: value[0] for name, value in want.items()}, 1e-9)


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize(
    "given", [(), ("cls_index",), ("is_impossible",), ("cls_index", "is_impossible", "p_mask")], ids=str
)
def test_losses_of_spans(family, given, oracle):
    case = case_of(family, "ForQuestionAnswering")
    weights = oracle.init(case.cls, reference_config(case), seed=2)
    model = ours_with(case, weights, F64)
    inputs = zoo.batch(zoo.sentences(case, (8, 8, 8)))
    kept = ("input_ids", "attention_mask", "start_positions", "end_positions", *given)
    inputs = {name: value for name, value in inputs.items() if name in kept}
    want = oracle.run(case.cls, reference_config(case), weights, inputs)
    outputs = model(**inputs)
    close(outputs.loss, want["loss"])
    assert outputs.keys() == want.keys()
    cut_off = inputs["start_positions"].clone()
    cut_off[0] = 8  # an answer that was cut off is left out
    assert model(**(inputs | {"start_positions": cut_off})).loss.isfinite()


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("kind", ["ForSequenceClassification", "ForMultipleChoice"])
@pytest.mark.parametrize("summary", ["first", "last", "mean", "cls_index"])
def test_summaries(family, kind, summary, oracle):
    """The reference's on unpadded rows, of which padding changes nothing."""
    case = case_of(family, kind, summary_type=summary, summary_activation="tanh")
    weights = oracle.init(case.cls, reference_config(case), seed=2)
    # multiple choice has a map to num_labels scores and one of these to one
    model = ours_with(case, weights, F64)
    rows = zoo.sentences(case, (9, 5))
    with torch.no_grad():
        got = model(**zoo.without_labels(zoo.batch(rows, side="left", extra=2))).logits
    for row, logits in zip(rows, got, strict=True):
        alone = zoo.without_labels(zoo.batch([row]))
        close(logits, oracle.run(case.cls, reference_config(case), weights, alone)["logits"][0])


@pytest.mark.parametrize("name", ["summary_first_dropout", "summary_last_dropout"])
def test_dropouts_of_a_summary(name):
    case = case_of("xlm", "ForSequenceClassification", **{name: 0.5})
    model = zoo.make(case).train()
    ids = torch.randint(3, 47, (1, 5))
    assert not torch.equal(model(ids).logits, model(ids).logits)
    assert torch.equal(model.eval()(ids).logits, model(ids).logits)


@pytest.mark.parametrize("family", BOTH)
def test_an_adaptive_softmax_trains_writes_and_is_saved(family, tmp_path):
    case = zoo.first(zoo.FAMILY[family], "WithLMHeadModel", "asm")
    model = zoo.make(case)
    ids = torch.randint(3, 47, (2, 6))
    labels = ids.clone()
    labels[0, :3] = -100
    outputs = model(ids, labels=labels)
    close(outputs.logits.exp().sum(-1), torch.ones(2, 6, dtype=F64))
    chosen = outputs.logits.gather(-1, ids[..., None]).squeeze(-1)
    close(outputs.loss, -chosen[labels >= 0].mean())
    clusters = model.lm.clusters
    close(outputs.loss, clusters(model.transformer(ids).last_hidden_state[labels >= 0], ids[labels >= 0]).loss)
    outputs.loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in clusters.parameters())
    assert written(case, model, ids, max_length=9).shape == (2, 9)
    model.save_pretrained(tmp_path)
    again = case.model_class.from_pretrained(tmp_path, torch_dtype=F64)
    assert again.load_report.clean
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert json.loads((tmp_path / "config.json").read_text())["asm_cutoffs"] == [9, 20]
    with pytest.raises(ValueError, match="clusters of an adaptive softmax hold a fixed vocabulary"):
        model.resize_token_embeddings(60)
    assert model.resize_token_embeddings().num_embeddings == 47


@pytest.mark.parametrize("family", BOTH)
def test_the_vocabulary_grows(family):
    model = zoo.make(case_of(family, "WithLMHeadModel"))
    model.resize_token_embeddings(53)
    assert model(torch.tensor([[5, 52]])).logits.shape == (1, 2, 53)
    assert model.lm.decoder.weight is model.get_input_embeddings().weight


# ---- FlauBERT's layers -----------------------------------------------------------------------------------------------


def test_layers_are_left_out_in_training_alone():
    model = zoo.make(case_of("flaubert", layerdrop=0.5))
    ran = []
    for number, block in enumerate(model.layers):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    ids = torch.randint(3, 47, (1, 5))

    def run(seed):
        ran.clear()
        torch.manual_seed(seed)
        with torch.no_grad():
            return model(ids, output_hidden_states=True), list(ran)

    assert all(run(seed)[1] == [0, 1, 2] for seed in range(5))
    model.train()
    counts = torch.zeros(3)
    for seed in range(200):
        outputs, layers = run(seed)
        assert run(seed)[1] == layers
        assert len(outputs.hidden_states) == 4
        for number in range(3):
            before, after = outputs.hidden_states[number : number + 2]
            assert torch.equal(before, after) == (number not in layers)
        counts[layers] += 1
    assert ((counts - 100).abs() < 36).all()  # five standard deviations


# ---- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", BOTH)
def test_configurations(family):
    config_class = getattr(polyformer, f"{PREFIX[family]}Config")
    old = config_class.from_dict(
        {"n_words": 20, "emb_dim": 8, "n_heads": 2, "lang2id": {"en": 0}, "id2lang": {"0": "en"}}
    )
    assert (old.vocab_size, old.n_words, old.hidden_size, old.num_attention_heads) == (20, 20, 8, 2)
    assert old.lang2id == {"en": 0}
    assert old.to_dict()["id2lang"] == {"0": "en"}
    assert not old.suspects
    with pytest.raises(ConfigError, match="is_encoder is False"):
        config_class(is_encoder=False)
    with pytest.raises(ConfigError, match="there are first, last, mean, cls_index"):
        config_class(summary_type="attn")
    with pytest.raises(ConfigError, match="set both to True"):
        zoo.make(case_of(family, "ForSequenceClassification", summary_use_proj=False))


@pytest.mark.parametrize("family", BOTH)
def test_languages_out_of_range_say_so(family):
    model = zoo.make(case_of(family, n_langs=3))
    ids = torch.tensor([[5, 6]])
    with pytest.raises(
        ValueError, match="langs has 3, but only 0 to 2 are known: this model knows that many languages"
    ):
        model(ids, langs=torch.tensor([[0, 3]]))
    assert not torch.equal(model(ids, langs=ids * 0)[0], model(ids, langs=ids * 0 + 1)[0])
    silent = zoo.make(case_of(family, n_langs=3, use_lang_emb=False))
    assert silent.embed.languages is None


@pytest.mark.parametrize("family", BOTH)
def test_auto_classes(family):
    config = case_of(family).configure()
    p = PREFIX[family]
    for auto, cls in {
        "AutoModel": f"{p}Model",
        "AutoModelForPreTraining": f"{p}WithLMHeadModel",
        "AutoModelForMaskedLM": f"{p}WithLMHeadModel",
        "AutoModelForCausalLM": f"{p}WithLMHeadModel",
        "AutoModelForQuestionAnswering": f"{p}ForQuestionAnsweringSimple",
    }.items():
        assert type(getattr(polyformer, auto).from_config(config)).__name__ == cls
