"""Longformer beyond what the zoo asks of everybody: long texts, who is global, recorded graphs, and its ancestors."""

import pytest
import torch

import polyformer
import zoo
from polyformer.core.errors import ConfigError
from polyformer.parts import window
from test_parity import flat, ours_with, reference_config

TINY = zoo.FAMILY["longformer"].tiny | {"max_position_embeddings": 300}
CASE = zoo.Case("LongformerModel", TINY, family="longformer")
SEP = 2


def head(kind, **changes):
    return zoo.Case(f"Longformer{kind}", TINY | changes, family="longformer")


def long_batch(lengths, marks, longest=None, seed=0):
    """ids, mask and global mask; marks: a row's global places, from its first token."""
    generator = torch.Generator().manual_seed(seed)
    longest = longest or max(lengths)
    ids = torch.randint(3, 47, (len(lengths), longest), generator=generator)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    marked = torch.zeros_like(ids)
    for row, places in enumerate(marks):
        marked[row, list(places)] = 1
    return {"input_ids": ids.where(mask == 1, 1), "attention_mask": mask, "global_attention_mask": marked}


def close(a, b, tol=1e-9):
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


# ---- long texts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("windows", [[4, 16, 8], [32, 96, 64]], ids=str)
@pytest.mark.parametrize("marks", [[(), (), ()], [(0,), (), (3, 60, 110)], [range(20), (0,), (5,)]], ids=str)
def test_long_texts_as_the_reference_has_them(windows, marks, oracle):
    """Several chunks; more global tokens than a head is wide; rows with none; a hole in the mask; every route."""
    case = head("Model", attention_window=windows)
    weights = oracle.init(case.cls, reference_config(case), seed=3)
    inputs = long_batch((192, 150, 130), marks)
    inputs["attention_mask"][1, 70:75] = 0
    options = {"output_attentions": True, "output_hidden_states": True}
    want = oracle.run(case.cls, reference_config(case), weights, inputs | options)
    model, real = ours_with(case, weights, torch.float64), inputs["attention_mask"].bool()
    with torch.no_grad():
        seen = flat(model(**inputs, **options))
        assert seen.keys() == want.keys()
        for name, value in seen.items():
            ref = want[name] if value.dim() < 3 else want[name].narrow(-2, 0, 192)
            keep = real if value.dim() == 3 else slice(None)
            if name.startswith("attentions"):
                value, ref = (t.masked_fill(~real[:, None, :, None], 0) for t in (value, ref))
            torch.testing.assert_close(value[keep], ref[keep], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
        close(model(**inputs).last_hidden_state[real], want["last_hidden_state"][real])
        inputs["attention_mask"][1, 70:75] = 1  # without the hole it is packed
        packed = model(**inputs).last_hidden_state
        model.packable = False
        close(packed[inputs["attention_mask"] == 1], model(**inputs).last_hidden_state[inputs["attention_mask"] == 1])


def test_any_length_will_do():
    """No multiple of anything, one token included; a longer batch around it changes nothing."""
    model = zoo.make(CASE)
    for length in (1, 2, 63, 64, 65, 129, 298):
        inputs = long_batch((length,), ((0,),))
        padded = long_batch((length, 298), ((0,), (1, 7)), longest=298)
        padded["input_ids"][0, :length] = inputs["input_ids"][0]
        with torch.no_grad():
            alone = model(**inputs).last_hidden_state
            assert alone.shape == (1, length, 24)
            close(model(**padded).last_hidden_state[:1, :length], alone)
    with pytest.raises(ValueError, match="299 tokens is too long for this model, which knows 298 positions"):
        model(torch.randint(3, 47, (1, 299)))


def test_who_sees_whom():
    """One layer: a token sees its window and the global tokens, a global token sees everybody; three: three windows."""
    ids, marked = torch.randint(3, 47, (1, 90)), torch.zeros(1, 90, dtype=torch.long)
    marked[0, 40] = 1
    distance = (torch.arange(90)[:, None] - torch.arange(90)).abs()
    for layers, reach in ((1, 3), (3, 9)):
        model = zoo.make(head("Model", num_hidden_layers=layers, attention_window=6))
        for globals_too in (False, True):
            options = {"global_attention_mask": marked} if globals_too else {}
            with torch.no_grad():
                before = model(ids, **options).last_hidden_state
                for j in (0, 17, 40, 63, 64, 89):
                    changed = ids.clone()
                    changed[0, j] = changed[0, j] % 44 + 3
                    moved = (model(changed, **options).last_hidden_state - before).abs().amax(-1)[0] > 1e-13
                    want = distance[j] <= reach
                    if globals_too and (j == 40 or layers > 1):
                        want = torch.ones_like(want)  # from it, or by way of it
                    elif globals_too:
                        want[40] = True
                    assert torch.equal(moved, want), (layers, globals_too, j)


# ---- which tokens are global -----------------------------------------------------------------------------------------


def pairs(rows, longest=20, seed=1):
    """Questions and texts as RoBERTa's pairs: <s> question </s></s> text </s>; rows of (question, text) lengths."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(rows), longest), 1)
    for row, (question, text) in enumerate(rows):
        words = torch.randint(3, 47, (question + text,), generator=generator).tolist()
        line = [0, *words[:question], SEP, SEP, *words[question:], SEP]
        ids[row, : len(line)] = torch.tensor(line)
    return ids, (ids != 1).long()


def on_the_left(ids, mask):
    """The same rows with their padding on the left, and padding ids that look like separators."""
    lengths = mask.sum(1)
    place = (torch.arange(ids.shape[1]) - (ids.shape[1] - lengths)[:, None]).clamp(min=0)
    mask = mask.flip(1)
    return ids.gather(1, place).where(mask == 1, SEP), mask


@pytest.mark.parametrize("kind", ["ForSequenceClassification", "ForQuestionAnswering", "ForMultipleChoice"])
def test_heads_find_their_global_tokens_as_the_reference_does(kind, oracle):
    case = head(kind)
    weights = oracle.init(case.cls, reference_config(case), seed=5)
    ids, mask = pairs([(3, 5), (6, 2), (1, 11), (2, 2)])
    if kind == "ForMultipleChoice":
        ids, mask = ids.view(2, 2, -1), mask.view(2, 2, -1)
    want = oracle.run(case.cls, reference_config(case), weights, {"input_ids": ids, "attention_mask": mask})
    model = ours_with(case, weights, torch.float64)
    names = ("start_logits", "end_logits") if kind == "ForQuestionAnswering" else ("logits",)
    left = [t.view_as(ids) for t in on_the_left(ids.flatten(0, -2), mask.flatten(0, -2))]
    with torch.no_grad():
        got, other = model(ids, attention_mask=mask), model(left[0], attention_mask=left[1])
        none = model(ids, attention_mask=mask, global_attention_mask=torch.zeros_like(ids))
    for name in names:
        tokens, moved = (m.bool() if got[name].shape == m.shape else slice(None) for m in (mask, left[1]))
        close(got[name][tokens], want[name][tokens])
        close(other[name][moved], want[name][tokens])
        assert not torch.allclose(none[name][tokens], want[name][tokens])


def test_a_question_in_bert_s_format():
    """One separator between question and text: the text alone is global where choices are compared."""
    model = zoo.make(head("ForMultipleChoice"))
    seen = []
    model.longformer.register_forward_pre_hook(
        lambda m, args, given: seen.append(given["global_attention_mask"]), with_kwargs=True
    )
    model(torch.tensor([[[5, 6, SEP, 7, 8, SEP], [5, 6, SEP, SEP, 8, SEP]]]))
    assert seen[0].tolist() == [[False] * 3 + [True] * 3, [False] * 4 + [True] * 2]


def test_twos_in_the_mask_are_global_tokens(oracle):
    inputs = long_batch((40, 33), ((0, 9), (4,)))
    weights = oracle.init(CASE.cls, reference_config(CASE), seed=6)
    model, real = ours_with(CASE, weights, torch.float64), inputs["attention_mask"].bool()
    twos = inputs["attention_mask"] + inputs["global_attention_mask"]
    with torch.no_grad():
        got = model(inputs["input_ids"], attention_mask=twos).last_hidden_state[real]
        close(got, model(**inputs).last_hidden_state[real])
        both = model(inputs["input_ids"], attention_mask=twos, global_attention_mask=inputs["global_attention_mask"])
        close(both.last_hidden_state[real], got)
    call = {"input_ids": inputs["input_ids"], "attention_mask": twos}
    close(got, oracle.run(CASE.cls, reference_config(CASE), weights, call)["last_hidden_state"][real])


def test_padding_is_never_global():
    model = zoo.make(CASE)
    inputs = long_batch((30, 20), ((0,), (0, 25)))
    clean = inputs["global_attention_mask"] * inputs["attention_mask"]
    with torch.no_grad():
        got, want = model(**inputs), model(**(inputs | {"global_attention_mask": clean}))
    close(got.last_hidden_state, want.last_hidden_state)
    nothing = model(inputs["input_ids"], attention_mask=torch.zeros(2, 30))
    assert (nothing.last_hidden_state == 0).all()


def test_what_is_refused_says_why():
    model, qa = zoo.make(CASE), zoo.make(head("ForQuestionAnswering"))
    ids = torch.randint(3, 47, (2, 6))
    with pytest.raises(ValueError, match=r"global_attention_mask has shape \(2, 5\), but \(2, 6\) was expected"):
        model(ids, global_attention_mask=torch.ones(2, 5))
    with pytest.raises(ValueError, match="a window says by itself who sees whom"):
        model(ids, attention_mask=torch.ones(2, 6, 6))
    with pytest.raises(ValueError, match=r"no separator \(id 2\).*give global_attention_mask"):
        qa(ids)
    with pytest.raises(ValueError, match="from inputs_embeds the question cannot be told"):
        qa(inputs_embeds=torch.randn(2, 6, 24, dtype=torch.float64))
    qa(ids, global_attention_mask=torch.zeros_like(ids))
    with pytest.raises(ValueError, match=r"without config\.sep_token_id"):
        zoo.make(head("ForQuestionAnswering", sep_token_id=None))(ids)
    for wrong in (5, 0, [4, 8], [4, 3, 4]):
        with pytest.raises(ConfigError, match="an even number above 0, or one for each of the 3 layers"):
            polyformer.LongformerConfig(**(TINY | {"attention_window": wrong}))
    with pytest.raises(ConfigError, match="there are absolute"):
        polyformer.LongformerConfig(position_embedding_type="relative_key")


# ---- recorded graphs -------------------------------------------------------------------------------------------------

MADE, RUN = ((90, 70), ((0,), (3, 80))), ((200, 131, 64), ((0, 5, 150), (), (63,)))


def recorded(how, model, made):
    if how == "export":
        shapes = {name: dict.fromkeys(range(2), torch.export.Dim.AUTO) for name in made}
        return torch.export.export(model, (), made, dynamic_shapes=shapes, strict=False).module()
    if how == "compile":
        torch._dynamo.reset()
        return torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    model.config.torchscript = True
    traced = torch.jit.trace(model, example_kwarg_inputs=made, check_trace=False)
    return lambda **inputs: {"last_hidden_state": traced(**inputs)[0]}


@pytest.mark.parametrize("made", [MADE, ((9, 7), ((0,), (3,)))], ids=["two chunks", "one chunk"])
@pytest.mark.parametrize("how", ["export", "compile", "trace"])
def test_a_graph_takes_other_lengths_and_other_global_tokens(how, made):
    """Another number of chunks than it was recorded with, of rows, of global tokens; and none of them marked."""
    model, short = zoo.make(CASE), ((30, 17), ((), ()))
    with torch.no_grad():
        graph = recorded(how, model, long_batch(*made))
        model.config.torchscript = False
        for lengths, marks in (RUN, short, MADE):
            inputs = long_batch(lengths, marks)
            real = inputs["attention_mask"].bool()
            close(graph(**inputs)["last_hidden_state"][real], model(**inputs).last_hidden_state[real])


@pytest.mark.parametrize("how", ["export", "compile", "trace"])
def test_more_global_tokens_than_a_graph_has_places_for(how):
    """It raises, or where it cannot (a traced graph) the row is NaN and the others are right: never a wrong answer."""
    model = zoo.make(CASE)
    model.global_places = 2
    fits, over = long_batch((90, 70), ((0,), (3, 50))), long_batch((90, 70), ((0,), (3, 50, 60)))
    with torch.no_grad():
        graph = recorded(how, model, fits)
        model.config.torchscript = False
        want = model(**over).last_hidden_state
        if how == "trace":
            got = graph(**over)["last_hidden_state"]
            assert got[1].isnan().all()
            close(got[0], want[0])
        else:
            with pytest.raises(RuntimeError, match="set the model's global_places"):
                graph(**over)


@pytest.mark.parametrize("how", ["export", "compile", "trace"])
def test_a_graph_without_a_global_mask_does_not_overlook_twos(how):
    model = zoo.make(CASE)
    inputs = long_batch((90, 70), ((), ()))
    del inputs["global_attention_mask"]
    twos = inputs | {"attention_mask": inputs["attention_mask"].index_fill(1, torch.tensor([4]), 2)}
    with torch.no_grad():
        graph = recorded(how, model, inputs)
        model.config.torchscript = False
        real = inputs["attention_mask"].bool()
        close(graph(**inputs)["last_hidden_state"][real], model(**inputs).last_hidden_state[real])
        if how == "trace":
            assert graph(**twos)["last_hidden_state"].isnan().all()
        else:
            with pytest.raises(RuntimeError, match="give global_attention_mask"):
                graph(**twos)


def test_a_text_at_a_time_on_the_other_route(monkeypatch):
    """What a graph records, run eagerly: the same, whatever the chunk."""
    model = zoo.make(CASE)
    inputs = long_batch(*RUN)
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        want = model(**inputs).last_hidden_state[real]
        monkeypatch.setattr(window, "tracing", lambda: True)
        for chunk in (1, 7, 64, 500):
            monkeypatch.setattr(window, "CHUNK", chunk)
            close(model(**inputs).last_hidden_state[real], want)


# ---- from BERT and RoBERTa -------------------------------------------------------------------------------------------

ANCESTORS = [
    case
    for name in ("bert", "roberta")
    for case in zoo.FAMILY[name].cases()
    if not case.name and f"Longformer{case.kind}" in zoo.FAMILY["longformer"].classes
]


@zoo.each(ANCESTORS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_within_a_window_it_answers_as_its_ancestor(case, side):
    """Whatever tokens are global: their projections start as everybody's."""
    model = zoo.make(case)
    long = polyformer.to_longformer(model, attention_window=24, max_position_embeddings=100)
    assert type(long).__name__ == f"Longformer{case.kind}"
    assert not long.training
    inputs = zoo.without_labels(zoo.batch(zoo.sentences(case, (9, 4, 12)), side=side))
    marked = {"global_attention_mask": (torch.rand(inputs["input_ids"].shape) > 0.7).long()}
    plain = {"global_attention_mask": torch.zeros_like(inputs["input_ids"])}
    with torch.no_grad():
        want = model(**inputs)
        for more in (plain, marked):
            zoo.assert_same(dict(long(**inputs, **more)), dict(want), 1e-10)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_its_positions_repeat_the_ancestor_s(name, tmp_path):
    case = zoo.first(zoo.FAMILY[name])
    model = zoo.make(case)
    long = polyformer.to_longformer(model, attention_window=[2, 4, 6], max_position_embeddings=100)
    own, table, pad = model.embed.positions.weight, long.embed.positions.weight, model.config.pad_token_id
    assert long.config.max_position_embeddings == len(table) == 100 + pad + 1
    first = pad + 1 if name == "roberta" else 0
    for token in range(100):
        assert torch.equal(table[pad + 1 + token], own[first + token % (32 - first)])
    long(torch.randint(6, 47, (1, 100)))
    long.save_pretrained(tmp_path)
    again = polyformer.LongformerModel.from_pretrained(tmp_path, torch_dtype=torch.float64)
    assert again.load_report.clean
    assert again.config.attention_window == [2, 4, 6]
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in long.state_dict().items())
    with torch.no_grad():  # the copy is the Longformer's own
        long.layers[0].attn.q_global.weight.zero_()
    assert (model.layers[0].attn.qkv.weight != 0).any()


def test_an_ancestor_s_settings_go_along():
    config = polyformer.BertConfig(
        **(zoo.BERT.tiny | {"pruned_heads": {1: [0]}, "num_labels": 5, "hidden_act": "relu"})
    )
    model = polyformer.BertForTokenClassification(config).train()
    long = polyformer.to_longformer(model, attention_window=30, max_position_embeddings=50)
    assert long.training
    assert (long.config.num_labels, long.config.hidden_act, long.config.pad_token_id) == (5, "relu", 0)
    assert (long.config.pruned_heads, long.longformer.layers[1].attn.q_global.out_features) == ({1: [0]}, 16)
    ids = torch.randint(1, 47, (2, 9))
    torch.testing.assert_close(long.eval()(ids).logits, model.eval()(ids).logits)


@pytest.mark.parametrize(
    ("cls", "changes", "message"),
    [
        ("BertForNextSentencePrediction", {}, "no class for the task of BertForNextSentencePrediction"),
        ("BertLMHeadModel", {"is_decoder": True}, "no class for the task of BertLMHeadModel"),
        ("BertModel", {"is_decoder": True}, "not built as BERT's and RoBERTa's encoders"),
        ("BertModel", {"position_embedding_type": "relative_key"}, "there are absolute"),
        ("BertForMaskedLM", {"hidden_act": "relu"}, "not built as BERT's and RoBERTa's encoders"),
        ("BertForSequenceClassification", {"pooling": "mean"}, "two layers, one more than pooling 'mean'"),
        ("AlbertModel", {}, "not built as BERT's and RoBERTa's encoders"),
    ],
)
def test_models_that_are_no_ancestors(cls, changes, message):
    family = "albert" if cls.startswith("Albert") else "bert"
    model = zoo.make(zoo.Case(cls, zoo.FAMILY[family].tiny | changes, family=family))
    with pytest.raises(ValueError, match=message):
        polyformer.to_longformer(model)
