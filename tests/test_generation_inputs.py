"""Prompts of any length, on either side of their padding, behind a prefix; and draws that belong to a row."""

import pytest
import torch

from generation_toys import PROMPTS, RAGGED, Reading, Summing, Translating, chi_square, tiny, written
from polyformer.generation import generate

WAYS = {
    "greedy": {},
    "penalties": {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "encoder_repetition_penalty": 1.3},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.0},
    "forced words": {"num_beams": 3, "force_words_ids": [[5, 9]], "length_penalty": 0.0},
    "contrastive": {"penalty_alpha": 0.5, "top_k": 4},
    "lookup": {"prompt_lookup_num_tokens": 3},
}
each_way = pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)


def alone(model, options, **asked):
    return [written(model, torch.tensor([p]), **options, **asked)[:, len(p) :] for p in RAGGED]


@each_way
@pytest.mark.parametrize("given", ["lists", "tensors", "left", "right"])
def test_ragged_prompts_are_each_alone(options, given):
    model, asked = tiny(), {"max_new_tokens": 7, "pad_token_id": 0}
    mask = None
    ids = RAGGED
    if given == "tensors":
        ids = [torch.tensor(p) for p in RAGGED]
    elif given in ("left", "right"):
        left = given == "left"
        ids = torch.tensor([[0] * (4 - len(p)) * left + p + [0] * (4 - len(p)) * (not left) for p in RAGGED])
        mask = (ids != 0).long()
    together = written(model, ids, attention_mask=mask, **options, **asked)
    copies = len(together) // len(RAGGED)
    for i, (prompt, want) in enumerate(zip(RAGGED, alone(model, options, **asked), strict=True)):
        mine = together[i * copies : (i + 1) * copies]
        assert mine[:, :4].tolist() == [[0] * (4 - len(prompt)) + prompt] * copies
        assert torch.equal(mine[:, 4 : 4 + want.shape[1]], want)
        assert (mine[:, 4 + want.shape[1] :] == 0).all()


def test_segments_of_ragged_prompts_go_with_them():
    model = tiny()
    segments = [[0, 0, 1], [1], [0, 1, 1, 1], [0, 0]]
    together = written(model, RAGGED, token_type_ids=segments, max_new_tokens=5, eos_token_id=None)
    for prompt, segment, row in zip(RAGGED, segments, together, strict=True):
        want = written(
            model, torch.tensor([prompt]), token_type_ids=torch.tensor([segment]), max_new_tokens=5, eos_token_id=None
        )
        assert torch.equal(row[4:], want[0, len(prompt) :])
    right = torch.tensor([p + [0] * (4 - len(p)) for p in RAGGED])
    padded = torch.tensor([s + [0] * (4 - len(s)) for s in segments])
    again = written(model, right, token_type_ids=padded, max_new_tokens=5, eos_token_id=None)
    assert torch.equal(again, together)


def test_sources_of_any_length():
    for toy in (Translating(), Reading()):
        for options in ({}, {"num_beams": 3}):
            together = generate(toy, RAGGED, max_length=8, **options)
            for prompt, row in zip(RAGGED, together, strict=True):
                assert torch.equal(generate(toy, torch.tensor([prompt]), max_length=8, **options)[0], row)


def test_what_a_list_cannot_be():
    model = tiny()
    with pytest.raises(ValueError, match="leave attention_mask out"):
        model.generate(RAGGED, attention_mask=torch.ones(4, 4))
    for wrong in ([], [[]], [[1], []], [[0.5]], [PROMPTS]):
        with pytest.raises(ValueError, match="a list of prompts holds"):
            model.generate(wrong)


# ---- a prefix --------------------------------------------------------------------------------------------------------


@each_way
def test_a_prefix_is_read_and_left_out(options):
    model, prefix = tiny(), [10, 4, 11]
    asked = {**options, "max_new_tokens": 6, "encoder_repetition_penalty": 1.0}
    found = written(model, RAGGED, prefix_ids=prefix, **asked)
    longer = written(model, [prefix + p for p in RAGGED], **asked)
    assert torch.equal(found[:, 4:], longer[:, 7:])
    rows = len(found) // len(RAGGED)
    assert found[::rows, :4].tolist() == [[0] * (4 - len(p)) + p for p in RAGGED]
    assert written(model, prefix_ids=torch.tensor(prefix), eos_token_id=None).shape == (4, 11)  # not in max_length


def test_a_prefix_keeps_a_hole():
    model, mask = tiny(), torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1]])
    longer = torch.cat([torch.tensor([[9], [0], [9], [9]]), PROMPTS], 1)
    longer[1, 1] = 9
    seen = torch.cat([torch.tensor([[1], [0], [1], [1]]), mask], 1)
    seen[1, 1] = 1
    want = written(model, longer, attention_mask=seen, max_new_tokens=4)[:, 4:]
    assert torch.equal(written(model, attention_mask=mask, prefix_ids=[9], max_new_tokens=4)[:, 3:], want)
    with pytest.raises(ValueError, match="prefix_ids go before prompts; this model reads a source"):
        generate(Reading(), PROMPTS, prefix_ids=[1])


# ---- seeds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2}, {"prompt_lookup_num_tokens": 2}], ids=["", "beams", "lookup"]
)
def test_a_row_with_a_seed_does_not_hang_on_the_others(options):
    model = tiny()
    asked = dict(do_sample=True, temperature=2.0, max_new_tokens=8, eos_token_id=7, pad_token_id=0, **options)
    seeds = [11, 12, 13, 14]
    together = model.generate(PROMPTS, seeds=seeds, **asked)
    for rows in ([2], [3, 0], [1, 1, 2]):
        some = model.generate(PROMPTS[rows], seeds=[seeds[i] for i in rows], **asked)
        want = together[rows]
        assert torch.equal(want[:, : some.shape[1]], some) and not want[:, some.shape[1] :].any()
    several = model.generate(PROMPTS[:1], seeds=seeds, num_return_sequences=4, **asked)
    apart = [model.generate(PROMPTS[:1], seeds=[seed], **asked)[0] for seed in seeds]
    for row, one in zip(several, apart, strict=True):
        assert torch.equal(row[: len(one)], one) and not row[len(one) :].any()
    with pytest.raises(ValueError, match="one for each text that is sampled: 4 here"):
        model.generate(PROMPTS, seeds=[1], **asked)


def test_seeds_draw_words_as_often_as_they_are_likely():
    model = tiny(words=8)
    drawn = model.generate(
        PROMPTS[:1, :2], do_sample=True, top_k=0, max_new_tokens=1, num_return_sequences=2000, seeds=range(2000),
        eos_token_id=None,
    )[:, -1]  # fmt: skip
    p = model(PROMPTS[:1, :2]).logits[0, -1].detach().softmax(-1)
    assert chi_square(drawn.bincount(minlength=8), p) < 24.3  # 7 degrees of freedom, 1 in 1000


def test_other_states_take_ragged_prompts():
    together = generate(Summing(), RAGGED, max_new_tokens=6, eos_token_id=7, pad_token_id=0)
    for prompt, row in zip(RAGGED, together, strict=True):
        want = generate(Summing(), torch.tensor([prompt]), max_new_tokens=6, eos_token_id=7, pad_token_id=0)
        want = want[0, len(prompt) :]
        assert torch.equal(row[4 : 4 + len(want)], want)
