"""What Transformer-XL has to itself: segments after a memory, clusters of words, and both under padding."""

import math
from itertools import pairwise

import pytest
import torch

import polyformer
import zoo
from oracle import Carry
from polyformer.core.errors import ConfigError
from polyformer.parts.memory import Memory
from test_parity import ours_with, reference_config

FAMILY = zoo.FAMILY["transfo-xl"]
BASE, WRITER = zoo.first(FAMILY), zoo.first(FAMILY, "LMHeadModel")
LENGTH = 12


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def ids_of(*lengths, seed=1):
    return [row["input_ids"] for row in zoo.sentences(BASE, lengths, seed)]


def padded(texts, side="right", extra=0):
    inputs = zoo.batch([{"input_ids": text} for text in texts], side=side, extra=extra, garbage=47)
    return inputs["input_ids"], inputs["attention_mask"]


def run(model, cuts, ids, mask=None, mems=None):
    """The states of all tokens, read segment by segment, and the memory after the last."""
    shown = []
    for a, b in cuts:
        with torch.no_grad():
            outputs = model(ids[:, a:b], mems=mems, attention_mask=None if mask is None else mask[:, :b])
        mems = outputs.mems
        shown.append(outputs[0])
    return torch.cat(shown, 1), mems


# ---- memory is no memory ---------------------------------------------------------------------------------------------

CUTS = {
    "step by step": [(i, i + 1) for i in range(LENGTH)],
    "prompt, then steps": [(0, 9), (9, 10), (10, 12)],
    "chunks": [(0, 3), (3, 8), (8, 12)],
}


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("case", [BASE, zoo.first(FAMILY, "Model", "pre_norm")], ids=str)
def test_segments_are_the_whole_text_where_each_token_sees_as_many(case, cuts):
    """same_length: also where the text is longer than the memory, and padded on the left."""
    model = zoo.make(case)
    for ids, mask in ((torch.stack(ids_of(LENGTH, LENGTH)), None), padded(ids_of(LENGTH, 5, 8), side="left")):
        want, whole = run(model, [(0, LENGTH)], ids, mask)
        got, memory = run(model, cuts, ids, mask)
        keep = slice(None) if mask is None else mask.bool()
        close(got[keep], want[keep])
        assert memory.real is None
        for a, b in zip(memory, whole, strict=True):
            close(a, b)


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_segments_are_the_whole_text_where_memory_begins_empty_and_suffices(cuts):
    model = zoo.make(BASE, same_length=False, mem_len=LENGTH)
    empty = Memory.blank(3, 3, 0, 24, model.layers[0].attn.content_bias)
    ids, mask = padded(ids_of(LENGTH, 5, 8), side="left")
    want, _ = run(model, [(0, LENGTH)], ids, mask, empty)
    got, memory = run(model, cuts, ids, mask, empty)
    close(got[mask.bool()], want[mask.bool()])
    assert memory.real.sum(1).tolist() == [LENGTH, 5, 8]  # no pad is remembered


def test_after_a_beam_reorder():
    model = zoo.make(BASE)
    ids, mask = padded(ids_of(LENGTH, 5, 8), side="left")
    rows = torch.tensor([2, 0, 0])
    _, memory = run(model, [(0, 6), (6, 7)], ids, mask)
    got, _ = run(model, [(7, 8), (8, LENGTH)], ids[rows], mask[rows], memory.reorder(rows))
    want, _ = run(model, [(0, LENGTH)], ids[rows], mask[rows])
    close(got[mask[rows][:, 7:].bool()], want[:, 7:][mask[rows][:, 7:].bool()])


def test_a_memory_may_be_continued_twice_and_is_without_gradient():
    model = zoo.make(BASE)
    ids = torch.stack(ids_of(LENGTH, LENGTH))
    memory = model(ids[:, :7]).mems
    assert not any(t.requires_grad for t in memory)
    before = [t.clone() for t in memory]
    once, again = (model(ids[:, 7:], mems=memory).last_hidden_state for _ in range(2))
    assert torch.equal(once, again)
    assert all(torch.equal(a, b) for a, b in zip(memory, before, strict=True))
    assert torch.equal(model(ids[:, 7:], mems=list(memory)).last_hidden_state, once)  # as the reference has it


# ---- padding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [("right", "right"), ("left", "right"), ("right", "left"), ("left", "left")], ids=str)
@pytest.mark.parametrize("changes", [{}, {"same_length": False}], ids=str)
def test_ragged_segments_go_on_as_each_text_alone(sides, changes):
    """Three segments of texts of different lengths, one of nothing but padding: pads leave no trace in a memory."""
    model = zoo.make(BASE, **changes)
    segments = [ids_of(5, 2, 9, seed=2), ids_of(6, 4, 1, seed=3), ids_of(3, 4, 5, seed=4)]
    memory, shown = None, []
    for number, texts in enumerate(segments):
        ids, mask = padded(texts, sides[number % 2], extra=2)
        if number == 1:
            mask[2] = 0  # the third text has no second segment
        with torch.no_grad():
            outputs = model(ids, mems=memory, attention_mask=mask)
        memory = outputs.mems
        shown.append([state[seen.bool()] for state, seen in zip(outputs.last_hidden_state, mask, strict=True)])
    for row in range(3):
        alone = None
        for number, texts in enumerate(segments):
            if (row, number) == (2, 1):
                continue
            with torch.no_grad():
                outputs = model(texts[row][None], mems=alone)
            alone = outputs.mems
            close(shown[number][row], outputs.last_hidden_state[0])
        for whole, own in zip(memory.layers, alone.layers, strict=True):
            close(whole[row], own[0])


def test_a_hole_keeps_its_position_and_is_not_seen_then_or_later():
    model = zoo.make(BASE)
    ids, later = torch.stack(ids_of(9, 9)), torch.stack(ids_of(4, 4, seed=5))
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, 4:6] = 0
    with torch.no_grad():
        outputs = model(ids, attention_mask=mask)
        after = model(later, mems=outputs.mems).last_hidden_state
        garbled = model(ids.where(mask.bool(), 3), attention_mask=mask)
        close(garbled.last_hidden_state[mask.bool()], outputs.last_hidden_state[mask.bool()])
        close(model(later, mems=garbled.mems).last_hidden_state, after)
        cut = model(ids[:1, [0, 1, 2, 3, 6, 7, 8]])
    assert outputs.mems.real.tolist() == [[True] * 2 + [False] * 2 + [True] * 3, [True] * 7]
    assert not torch.allclose(cut.last_hidden_state[0, -1], outputs.last_hidden_state[0, -1])
    close(model(ids[1:]).last_hidden_state, outputs.last_hidden_state[1:])


def test_a_token_sees_a_window_of_the_last_ones():
    """Of one layer, whatever the segments: mem_len tokens, itself among them."""
    model = zoo.make(BASE, n_layer=1, mem_len=3)
    ids = torch.stack(ids_of(8))
    with torch.no_grad():
        weights = torch.stack(model(ids, output_attentions=True).attentions)[0, 0, 0]
    places = torch.arange(11)
    back = 3 + torch.arange(8)[:, None] - places
    assert torch.equal(weights > 0, (back >= 0) & (back < 3))


# ---- against the reference -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"same_length": False, "clamp_len": 5}], ids=str)
@pytest.mark.parametrize("given", [None, 3, 11], ids=lambda n: f"mems of {n}")
def test_segments_as_the_reference_reads_them(changes, given, oracle):
    """From no memory of the caller's, a shorter and a longer one than mem_len."""
    case = BASE.but(**changes)
    weights = oracle.init(case.cls, reference_config(case), seed=6)
    ids = torch.stack(ids_of(13, 13))
    cuts = ((0, 6), (6, 7), (7, 13))
    calls = [{"input_ids": ids[:, a:b]} for a, b in cuts]
    for call in calls[1:]:
        call["mems"] = Carry("mems")
    if given is not None:
        calls[0]["mems"] = [torch.randn(given, 2, 24, dtype=torch.float64) for _ in range(3)]
    want = oracle.run(case.cls, reference_config(case), weights, calls)
    model, memory = ours_with(case, weights, torch.float64), calls[0].get("mems")
    for step, (a, b) in enumerate(cuts):
        with torch.no_grad():
            outputs = model(ids[:, a:b], mems=memory)
        memory = outputs.mems
        close(outputs.last_hidden_state, want[f"s{step}.last_hidden_state"])
        for i, states in enumerate(memory):
            close(states, want[f"s{step}.mems.{i}"])


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "early_stopping": True}], ids=["greedy", "beams"])
def test_the_reference_writes_the_same(options, oracle):
    case = WRITER.but(same_length=False)
    weights = oracle.init(case.cls, reference_config(case), seed=9)
    asked = {"input_ids": torch.stack(ids_of(6, 6, 6)), "max_length": 16, "eos_token_id": 7, "pad_token_id": 0}
    asked |= {"do_sample": False, **options}
    want = oracle.run(case.cls, reference_config(case), weights, asked, method="generate")["sequences"]
    assert torch.equal(ours_with(case, weights, torch.float64).generate(**asked), want)


# ---- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 2}], ids=["greedy", "beams"])
@pytest.mark.parametrize("changes", [{}, {"same_length": False}], ids=str)
def test_ragged_prompts_go_on_as_each_alone(options, changes):
    model = zoo.make(WRITER, eos_token_id=None, **changes)
    texts = ids_of(9, 5, 7)
    ids, mask = padded(texts, side="left")
    count = options.get("num_return_sequences", 1)
    got = model.generate(ids, attention_mask=mask, max_new_tokens=6, **options)
    for i, text in enumerate(texts):
        want = model.generate(text[None], max_new_tokens=6, **options)
        assert torch.equal(got[i * count : (i + 1) * count, 9:], want[:, len(text) :])


def test_a_step_reads_one_token_and_without_a_memory_all():
    model = zoo.make(WRITER, eos_token_id=None)
    ids, lengths = torch.stack(ids_of(5, 5)), []
    model.transformer.layers[0].ffn.register_forward_hook(lambda _, args, y: lengths.append(args[0].shape[1]))
    cached = model.generate(ids, max_new_tokens=4)
    assert lengths == [5, 1, 1, 1]
    lengths.clear()
    assert torch.equal(model.generate(ids, max_new_tokens=4, use_cache=False), cached)  # for same_length
    assert lengths == [5, 6, 7, 8]
    with pytest.raises(ValueError, match="generate looks after mems itself"):
        model.generate(ids, mems=model(ids).mems)


# ---- scores and losses -----------------------------------------------------------------------------------------------


@zoo.each([c for c in FAMILY.cases() if c.kind == "LMHeadModel"])
def test_losses_are_of_the_scores_cluster_by_cluster(case):
    model = zoo.make(case)
    ids, mask = padded(ids_of(9, 6, 4), side="left")
    labels = torch.randint(0, 47, ids.shape)
    labels[0, 5] = -100
    with torch.no_grad():
        scores = model(ids, attention_mask=mask).prediction_scores
        outputs = model(ids, attention_mask=mask, labels=labels)
    close(scores.exp().sum(-1), torch.ones(scores.shape[:2], dtype=torch.float64))
    bounds = [0, *model.config.cutoffs, 47]
    want = [
        -scores[row, place, labels[row, place + 1]]
        for low, high in pairwise(bounds)
        for row in range(3)
        for place in range(8)
        if mask[row, place] and mask[row, place + 1] and low <= labels[row, place + 1] < high
    ]
    assert len(want) == 8 + 5 + 3 - 1
    close(outputs.losses.flatten()[: len(want)], torch.stack(want))
    assert (outputs.losses.flatten()[len(want) :] == 0).all()
    close(outputs.loss, torch.stack(want).mean())
    assert outputs.prediction_scores == () and outputs.logits == ()


def test_no_label_at_all_costs_nothing():
    outputs = zoo.make(WRITER)(torch.stack(ids_of(5, 5)), labels=torch.full((2, 5), -100))
    assert outputs.losses.shape == (2, 4) and outputs.loss == 0


def test_only_the_last_words_are_scored_where_that_is_asked():
    model, ids = zoo.make(WRITER), torch.stack(ids_of(8, 8))
    with torch.no_grad():
        close(model(ids, logits_to_keep=2).logits, model(ids).logits[:, -2:])


# ---- making, tying, resizing -----------------------------------------------------------------------------------------


def test_what_is_tied():
    for name, tables, projections in (
        ("", True, [False, True, True]),
        ("untied", False, [False] * 3),
        ("projected", True, [False, True, True]),
    ):
        model = zoo.make(zoo.first(FAMILY, "LMHeadModel", name))
        embed, head = model.transformer.embed, model.lm
        shared = [*embed.projections] * (3 if name == "projected" else 1)
        pairs = zip(head.layers, embed.tables, strict=True)
        assert [a.weight is b.weight for a, b in pairs] == [tables] * len(embed.tables)
        assert [a.weight is b.weight for a, b in zip(head.projections, shared, strict=True)] == projections
    shared = zoo.make(zoo.first(FAMILY, "LMHeadModel", "shared_biases")).transformer
    assert {id(layer.attn.content_bias) for layer in shared.layers} == {id(shared.content_bias)}


@pytest.mark.parametrize("init", ["normal", "uniform"])
def test_initial_weights_are_the_original_s(init):
    """kimiyoung/transformer-xl, pytorch/train.py: norms around one, projections narrower, biases of zero."""
    torch.manual_seed(0)
    config = WRITER.but(init=init, d_inner=400, init_range=0.05, proj_init_std=0.005, untie_r=False).configure()
    for name, p in polyformer.TransfoXLLMHeadModel(config).named_parameters():
        if "norm.weight" in name:
            assert abs(p.mean() - 1) < 0.02 and abs(p.std() - 0.02) < 0.01, name
        elif name.endswith(".bias"):
            assert (p == 0).all(), name
        elif init == "uniform":
            assert p.abs().max() <= 0.05 and abs(p.std() / (0.05 / 3**0.5) - 1) < 6 / (2 * p.numel()) ** 0.5, name
        else:
            std = 0.005 if "projections" in name else 0.02
            assert abs(p.std() / std - 1) < 5 / (2 * p.numel()) ** 0.5, name


@pytest.mark.parametrize(
    "name, layer, size, cutoffs",
    [("", -1, 52, [9, 21]), ("", 0, 52, [14, 26]), ("", 1, 40, [9, 14]), ("one_table", -1, 52, [9, 21])],
)
def test_resizing_a_cluster(name, layer, size, cutoffs, tmp_path):
    """Words that stay keep their vectors, and how likely they are within their cluster; the rest is one off."""
    model = zoo.make(zoo.first(FAMILY, "LMHeadModel", name))
    grown = zoo.make(zoo.first(FAMILY, "LMHeadModel", name))
    embed = grown.resize_token_embeddings(size, layer)
    assert embed is grown.get_input_embeddings() and embed.num_embeddings == grown.config.vocab_size == size
    assert grown.config.cutoffs == cutoffs and grown.lm.words == size
    end = {0: 9, 1: 21, -1: 47}[layer]  # of the cluster, before
    kept = torch.tensor([*range(min(end, end + size - 47)), *range(end, 47)])
    moved = kept + (size - 47) * (kept >= end)
    with torch.no_grad():
        close(embed(moved), model.get_input_embeddings()(kept))
        ids, moved_ids = kept[:8][None], moved[:8][None]
        a, b = model(ids).logits[..., kept], grown(moved_ids).logits[..., moved]
        close(b[..., :8] - b[..., :1], a[..., :8] - a[..., :1])
        close(grown(moved_ids).logits.exp().sum(-1), torch.ones(1, 8, dtype=torch.float64))
    grown.save_pretrained(tmp_path)
    again = polyformer.TransfoXLLMHeadModel.from_pretrained(tmp_path, torch_dtype=torch.float64)
    assert torch.equal(again(moved_ids).logits, grown(moved_ids).logits)
    with pytest.raises(ValueError, match="without a word: give at least"):
        grown.resize_token_embeddings(5)
    with pytest.raises(ValueError, match="there is no table 3"):
        grown.resize_token_embeddings(60, 3)


def test_remembering_more_and_nothing():
    model = zoo.make(BASE, same_length=False)
    model.reset_memory_length(3)
    ids = torch.stack(ids_of(6))
    assert torch.equal(model(ids, mems=model.init_mems(1)).last_hidden_state, model(ids).last_hidden_state)
    assert model(ids).mems[0].shape == (3, 1, 24)
    model.reset_memory_length(0)
    assert model(ids).mems is None and model.init_mems(1) is None
    assert model(ids, use_cache=False).mems is None
    with pytest.raises(ConfigError, match="mem_len is -1"):
        model.reset_memory_length(-1)
    assert model.config.mem_len == 0


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"cutoffs": [21, 9]}, "must rise"),
        ({"cutoffs": [9, 47]}, "must rise"),
        ({"tie_projs": [True]}, "one entry a cluster"),
        ({"div_val": 5}, "no width"),
        ({"d_model": 23}, "must be even"),
        ({"mem_len": 0}, "with same_length"),
        ({"attn_type": 1}, "attn_type must be 0"),
        ({"init": "xavier"}, "init is 'xavier'"),
    ],
)
def test_impossible_models(changes, message):
    with pytest.raises(ConfigError, match=message):
        BASE.but(**changes).configure()


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"mems": [torch.zeros(2, 1, 24)] * 2}, "mems are 2 layers of .2, 1, 24., but 3 of"),
        ({"mems": [torch.zeros(2, 2, 24)] * 3}, "but 3 of .tokens, 1, 24. were expected"),
        ({"input_ids": torch.tensor([[47]])}, "only 0 to 46 are known"),
        ({"attention_mask": torch.ones(1, 1)}, "attention_mask has shape"),
        ({"inputs_embeds": torch.zeros(1, 2, 24)}, "either input_ids or inputs_embeds"),
    ],
)
def test_inputs_that_do_not_fit(inputs, message):
    with pytest.raises(ValueError, match=message):
        zoo.make(BASE)(**({"input_ids": torch.tensor([[1, 2]])} | inputs))


@pytest.mark.parametrize(
    "labels, message", [(torch.full((1, 3), 47), "labels contain 47"), (torch.ones(1, 2).long(), "labels have shape")]
)
def test_labels_that_do_not_fit(labels, message):
    with pytest.raises(ValueError, match=message):
        zoo.make(WRITER)(torch.tensor([[1, 2, 3]]), labels=labels)


def test_distances_are_waves():
    """The bias of a layer, by hand: (q + v) . W r, r of the clamped distance (section 3.3)."""
    model = zoo.make(BASE, clamp_len=4, same_length=False)
    attn, ids = model.layers[0].attn, torch.stack(ids_of(5))
    with torch.no_grad():
        weights = model(ids, output_attentions=True).attentions[0][0]
        x = torch.cat([torch.zeros(7, 24), model.embed(ids)[0]]).double()
        q, k, _ = attn.qkv(x).unflatten(-1, (3, 3, 8)).unbind(1)
        for i in range(5):
            scores = torch.empty(3, 8 + i, dtype=torch.float64)
            for j in range(8 + i):
                far = min(7 + i - j, 4)
                angles = [far * float(torch.tensor(10000.0 ** (-2 * n / 24))) for n in range(12)]
                wave = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)
                r = attn.distances(wave).view(3, 8)
                by_content = (q[7 + i] + attn.content_bias) * k[j]
                by_distance = (q[7 + i] + attn.distance_bias) * r
                scores[:, j] = (by_content + by_distance).sum(-1) / 8**0.5
            torch.testing.assert_close(weights[:, i, : 8 + i], scores.softmax(-1), rtol=1e-6, atol=1e-6)
