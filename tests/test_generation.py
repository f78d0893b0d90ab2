"""Generation against arithmetic by hand, exhaustive search and brute force, on tiny models from a seed."""

import itertools
import json
import logging

import pytest
import torch

from generation_toys import PROMPTS, Summing, Translating, chi_square, logp, tiny, written
from polyformer import BertModel
from polyformer.core.errors import CheckpointError
from polyformer.core.outputs import CausalLMOutputWithCrossAttentions
from polyformer.generation import Decoder, GenerationConfig, generate
from polyformer.generation import decoder as decoder_module
from polyformer.generation import processors as P
from polyformer.generation.chance import draw
from polyformer.parts.state import State

NEVER = float("-inf")


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(autouse=True, scope="module")
def _one_thread():  # tiny tensors are not worth sharing, and threads that wait for each other are slow
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _forget_warnings():
    decoder_module._told.clear()


STRATEGIES = {
    "greedy": {},
    "greedy with penalties": {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "bad_words_ids": [[4], [1, 2]]},
    "sample": {"do_sample": True, "temperature": 2.0, "top_k": 6, "num_return_sequences": 3},
    "beams": {"num_beams": 4, "num_return_sequences": 3},
    "long beams": {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True, "min_length": 7},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "num_return_sequences": 2},
    "drawn beams": {"num_beams": 3, "do_sample": True, "temperature": 1.5, "num_return_sequences": 2},
}
each_strategy = pytest.mark.parametrize("options", STRATEGIES.values(), ids=STRATEGIES)


# ---- searches --------------------------------------------------------------------------------------------------------


def test_greedy_takes_the_best_word_each_time(model):
    expected = []
    for prompt in PROMPTS.tolist():
        while len(prompt) < 11 and 7 not in prompt[3:]:
            with torch.no_grad():
                prompt.append(int(model(torch.tensor([prompt]), use_cache=False).logits[0, -1].argmax()))
        expected.append(prompt)
    longest = max(map(len, expected))
    assert written(model).tolist() == [text + [0] * (longest - len(text)) for text in expected]


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_beams_as_wide_as_the_tree_find_the_best_texts(penalty):
    model, prompt, eos = tiny(words=5, seed=3), [2, 3], 1
    everything = []
    endings = [list(ending) for ending in itertools.product(range(5), repeat=3)]
    for text, scores in zip(endings, logp(model, [[*prompt, *text] for text in endings])[:, 1:], strict=True):
        text = text[: text.index(eos) + 1] if eos in text else text
        total = float(scores[torch.arange(len(text)), torch.tensor(text)].sum())
        length = len(prompt) + len(text) - (text[-1] == eos)
        everything.append((total / length**penalty, tuple(text)))
    best = sorted(set(everything), reverse=True)[:10]
    found = model.generate(
        torch.tensor([prompt]), max_length=5, num_beams=125, num_return_sequences=10, eos_token_id=eos, pad_token_id=0,
        length_penalty=penalty, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    texts = [tuple(row[2:].tolist()) for row in found.sequences]
    texts = [text[: text.index(eos) + 1] if eos in text else text for text in texts]
    assert texts == [text for _, text in best]
    assert torch.allclose(found.sequences_scores, torch.tensor([value for value, _ in best]), atol=1e-5)


def beams_by_hand(model, prompt, beams, end, eos, penalty, early):
    """One prompt's beam search, in lists: -> [(worth, tokens)], best first."""
    alive, done = [(0.0, list(prompt))], []
    for length in range(len(prompt), end):
        scores = logp(model, [text for _, text in alive])[:, -1].tolist()
        grown = [
            (total + p, text, word)
            for (total, text), words in zip(alive, scores, strict=True)
            for word, p in enumerate(words)
        ]
        grown = sorted(grown, key=lambda g: -g[0])[: 2 * beams]
        done += [(total / length**penalty, [*text, word]) for total, text, word in grown[:beams] if word == eos]
        done = sorted(done, key=lambda d: -d[0])[:beams]
        alive = [(total, [*text, word]) for total, text, word in grown if word != eos][:beams]
        if len(done) == beams and (early or done[-1][0] >= grown[0][0] / length**penalty):
            return done
    return sorted(done + [(total / end**penalty, text) for total, text in alive], key=lambda d: -d[0])


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 1.7])
def test_beams_equal_the_search_by_hand(early, penalty):
    prompts = torch.tensor([[3, 4], [6, 7], [8, 1]])
    for seed in range(2):
        model = tiny(words=9, seed=seed, std=0.2)
        found = written(
            model, prompts, max_length=8, num_beams=3, num_return_sequences=2, length_penalty=penalty,
            early_stopping=early, return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        expected = [
            best for prompt in prompts.tolist() for best in beams_by_hand(model, prompt, 3, 8, 7, penalty, early)[:2]
        ]
        longest = max(len(text) for _, text in expected)
        assert found.sequences.tolist() == [text + [0] * (longest - len(text)) for _, text in expected]
        assert torch.allclose(found.sequences_scores, torch.tensor([v for v, _ in expected]), atol=1e-5)


@each_strategy
def test_a_cache_changes_nothing(model, options):
    scored = {"return_dict_in_generate": True, "output_scores": True}
    kept, anew = (written(model, use_cache=cache, **options, **scored) for cache in (True, False))
    assert torch.equal(kept.sequences, anew.sequences)
    for a, b in zip(kept.scores, anew.scores, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@each_strategy
def test_rows_that_leave_the_batch_change_nothing(model, options):
    together = written(model, **options, return_dict_in_generate=True, output_scores=True).sequences
    assert torch.equal(written(model, **options), together)


def test_ended_rows_are_not_computed(model):
    sizes = []
    hook = model.register_forward_hook(lambda m, a, k, out: sizes.append(len(k["input_ids"])), with_kwargs=True)
    text = written(model, max_length=20)
    hook.remove()
    ends = [row.index(7, 3) + 1 if 7 in row[3:] else len(row) for row in text.tolist()]
    assert sizes == [sum(end > 3 + step for end in ends) for step in range(len(sizes))]
    assert len(set(sizes)) > 1


@each_strategy
def test_left_padding_changes_nothing(model, options):
    if options.get("do_sample"):  # without chance
        options = {**options, "do_sample": "num_beams" not in options, "top_k": 1}
    options = {k: v for k, v in options.items() if k != "min_length"} | {"length_penalty": 0.0, "max_new_tokens": 8}
    prompts = [[3, 4, 5], [8], [9, 6, 1, 10], [11, 2]]
    for eos, pad in ((7, 0), (7, 7)):  # a pad that is a word of its own must not count as one either
        padded = torch.tensor([[pad] * (4 - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (4 - len(p)) + [1] * len(p) for p in prompts])
        asked = {**options, "eos_token_id": eos, "pad_token_id": pad}
        together = written(model, padded, attention_mask=mask, **asked)
        copies = len(together) // len(prompts)
        for i, prompt in enumerate(prompts):
            alone = written(model, torch.tensor([prompt]), **asked)[:, len(prompt) :]
            mine = together[i * copies : (i + 1) * copies, 4:]
            assert torch.equal(mine[:, : alone.shape[1]], alone)
            assert (mine[:, alone.shape[1] :] == pad).all()
    assert torch.equal(written(model, padded.where(mask == 1, 0), **options), written(
        model, padded.where(mask == 1, 0), attention_mask=mask, **options
    ))  # fmt: skip


def test_one_group_is_plain_beam_search(model):
    assert torch.equal(written(model, num_beams=4, num_beam_groups=1), written(model, num_beams=4))


def test_groups_differ_by_diversity(model):
    options = {"num_beams": 4, "num_beam_groups": 4, "num_return_sequences": 4}
    options |= {"eos_token_id": None, "max_new_tokens": 1}
    alike = written(model, PROMPTS, **options)[:, 3].view(4, 4)
    assert (alike == alike[:, :1]).all()
    apart = written(model, PROMPTS, diversity_penalty=1e4, **options)[:, 3].view(4, 4)
    assert all(len(set(row)) == 4 for row in apart.tolist())
    best = model(PROMPTS).logits[:, -1].topk(4).indices
    assert torch.equal(apart.sort(1).values, best.sort(1).values)


# ---- sampling --------------------------------------------------------------------------------------------------------


def test_words_are_drawn_as_often_as_they_are_likely():
    model = tiny(words=8)
    options = {"do_sample": True, "temperature": 1.5, "top_k": 0, "max_new_tokens": 1, "num_return_sequences": 8000}
    drawn = written(model, PROMPTS[:1, :2], **options)[:, -1]
    p = (model(PROMPTS[:1, :2]).logits[0, -1].detach() / 1.5).softmax(-1)
    assert chi_square(drawn.bincount(minlength=8), p) < 24.3  # 7 degrees of freedom, 1 in 1000


def test_several_are_drawn_without_putting_back():
    scores = torch.tensor([0.0, 1.0, 2.0, 0.5])
    rows = 12000
    drawn = draw(scores.expand(rows, 4), 2, rows, torch.arange(rows), torch.Generator().manual_seed(2))
    p = scores.softmax(-1)
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    expected = torch.stack([p[i] * p[j] / (1 - p[i]) for i, j in pairs])
    counts = torch.stack([((drawn[:, 0] == i) & (drawn[:, 1] == j)).sum() for i, j in pairs])
    assert counts.sum() == rows
    assert chi_square(counts, expected) < 31.3  # 11 degrees of freedom


def test_the_seed_decides_and_torchs_own_chance_is_left_alone(model):
    state = torch.get_rng_state()
    first, again, other = (written(model, do_sample=True, temperature=3.0, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_word_at_a_time_is_torchs_multinomial():
    scores = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    ours = draw(scores, 1, 5, torch.arange(5), torch.Generator().manual_seed(3))
    theirs = torch.multinomial(scores.softmax(-1), 1, generator=torch.Generator().manual_seed(3))
    assert torch.equal(ours, theirs)


# ---- processors ------------------------------------------------------------------------------------------------------

IDS = torch.tensor([[1, 2, 3, 1, 2], [-1, -1, 4, 4, 0]])
FLAT = torch.zeros(2, 6)


def forbidden(scores):
    return [set((row == NEVER).nonzero()[:, 0].tolist()) for row in scores]


def test_repetition_penalty_by_hand():
    scores = torch.tensor([[1.0, 2.0, -2.0, 0.5, 4.0, -1.0], [1.0, 2.0, -2.0, 0.5, 4.0, -1.0]])
    expected = [[1.0, 1.0, -4.0, 0.25, 4.0, -1.0], [0.5, 2.0, -2.0, 0.5, 2.0, -1.0]]
    assert P.RepetitionPenalty(2.0)(IDS, scores).tolist() == expected


def test_no_repeated_runs_by_hand():
    assert forbidden(P.NoRepeatNGram(1)(IDS, FLAT)) == [{1, 2, 3}, {0, 4}]
    assert forbidden(P.NoRepeatNGram(2)(IDS, FLAT)) == [{3}, set()]
    assert forbidden(P.NoRepeatNGram(2)(IDS[:, :4], FLAT)) == [{2}, {4}]
    assert forbidden(P.NoRepeatNGram(3)(IDS, FLAT)) == [{3}, set()]
    assert forbidden(P.NoRepeatNGram(6)(IDS, FLAT)) == [set(), set()]
    assert forbidden(P.NoRepeatNGram(9)(IDS, FLAT)) == [set(), set()]


def test_no_runs_of_the_source_by_hand():
    source = torch.tensor([[5, 2, 4], [4, 0, -1]])
    assert forbidden(P.EncoderNoRepeatNGram(2, source)(IDS, FLAT)) == [{4}, set()]
    assert forbidden(P.EncoderNoRepeatNGram(2, source)(IDS[:, :4], FLAT)) == [set(), {0}]
    assert forbidden(P.EncoderNoRepeatNGram(2, source[:1])(IDS[:1].repeat(3, 1), FLAT[:1].repeat(3, 1))) == [{4}] * 3


def test_bad_words_by_hand():
    bad = P.BadWords([[0], [2, 5], [1, 2, 4], [4, 0, 3], [9, 9, 9, 9, 9, 9, 1], [3]], eos_ids=[3])
    bad.largest = 5  # the long one stands for a word longer than the text
    assert forbidden(bad(IDS, FLAT)) == [{0, 4, 5}, {0, 3}]
    with pytest.raises(ValueError, match="bad_words_ids has 77, but the model's words are 0 to 5"):
        P.BadWords([[77]])(IDS, FLAT)


def test_lengths_and_forced_tokens_by_hand():
    assert forbidden(P.MinLength(6, [3, 5])(IDS, FLAT)) == [{3, 5}] * 2
    assert forbidden(P.MinLength(5, [3, 5])(IDS, FLAT)) == [set()] * 2
    assert forbidden(P.ForcedToken(5, [3])(IDS, FLAT + 1)) == [{0, 1, 2, 4, 5}] * 2
    assert P.ForcedToken(5, [3])(IDS, FLAT + 1)[0, 3] == 0
    assert forbidden(P.ForcedToken(4, [3])(IDS, FLAT)) == [set()] * 2


def test_allowed_prefixes_by_hand():
    asked = []

    def allowed(prompt, tokens):
        asked.append((prompt, tokens.tolist()))
        return [prompt, 5]

    assert forbidden(P.PrefixAllowed(allowed, [0, 1], 2)(IDS, FLAT)) == [{1, 2, 3, 4}, {0, 2, 3, 4}]
    assert asked == [(0, [1, 2, 3, 1, 2]), (1, [4, 4, 0])]
    assert forbidden(P.PrefixAllowed(allowed, [0], 2)(IDS, FLAT)) == [{1, 2, 3, 4}] * 2
    left = P.PrefixAllowed(allowed, [0, 1, 2], 2)
    left.keep(torch.tensor([2, 1]))
    assert forbidden(left(IDS, FLAT)) == [{0, 1, 3, 4}, {0, 2, 3, 4}]


def test_invalid_scores_and_temperature_by_hand():
    scores = torch.tensor([[float("nan"), float("inf"), NEVER, 1.0]])
    assert P.RemoveInvalid()(IDS, scores).tolist() == [[0.0, torch.finfo(torch.float32).max, NEVER, 1.0]]
    assert P.Temperature(2.0)(IDS, torch.tensor([[1.0, -4.0]])).tolist() == [[0.5, -2.0]]


def test_top_k_and_top_p_keep_the_right_words():
    scores = torch.tensor([[0.1, 0.5, 0.05, 0.3, 0.05], [0.2, 0.2, 0.2, 0.2, 0.2]]).log()
    assert forbidden(P.TopK(2)(IDS, scores)) == [{0, 2, 4}, set()]  # what is as good as the last stays
    assert forbidden(P.TopK(99)(IDS, scores)) == [set()] * 2
    assert forbidden(P.TopP(0.6)(IDS, scores))[0] == {0, 2, 4}
    assert forbidden(P.TopP(0.4)(IDS, scores))[0] == {0, 2, 3, 4}
    assert forbidden(P.TopP(0.4, least=3)(IDS, scores))[0] == {2, 4}
    assert len(forbidden(P.TopP(0.5)(IDS, scores))[1]) == 2
    assert forbidden(P.TopP(0.9999)(IDS, scores)) == [set()] * 2


def test_diversity_by_hand():
    chosen = torch.tensor([[1, 1], [3, 0]])  # two prompts, two beams before
    scores = P.Diversity(0.5)(torch.zeros(4, 5), chosen)  # two beams each
    assert scores.tolist() == [[0, -1.0, 0, 0, 0]] * 2 + [[-0.5, 0, 0, -0.5, 0]] * 2


def test_nothing_left_to_draw_is_said():
    with pytest.raises(ValueError, match="every word is forbidden"):
        draw(torch.full((1, 3), NEVER), 1, 1, torch.arange(1), None)


# ---- options at work -------------------------------------------------------------------------------------------------


def test_options_reach_the_search(model):
    free = written(model, eos_token_id=None)
    assert free.shape == (4, 11)
    assert written(model, max_new_tokens=2).shape == (4, 5)
    assert (written(model, forced_eos_token_id=9, eos_token_id=None)[:, -1] == 9).all()
    assert not written(model, min_new_tokens=8)[:, 3:].eq(7).any()
    assert not (written(model, bad_words_ids=[[int(free[0, 3])]])[:1, 3:] == free[0, 3]).any()
    only = written(model, prefix_allowed_tokens_fn=lambda prompt, _: [prompt + 1], num_beams=2, eos_token_id=None)
    assert only[:, 3:].tolist() == [[i + 1] * 8 for i in range(4)]
    favoured = written(model, logits_processor=[lambda ids, s: s.index_fill(1, torch.tensor([2]), 1e9)])
    assert favoured[:, 3:].unique() == 2
    assert written(model, stopping_criteria=[lambda ids, scores: ids.shape[1] == 5], eos_token_id=None).shape == (4, 5)
    assert written(model, max_time=0.0, num_beams=2, eos_token_id=None).shape == (4, 4)


def test_several_eos_tokens(model):
    free = written(model, eos_token_id=None).tolist()
    for options in ({}, {"num_beams": 3}):
        text = written(model, eos_token_id=[5, 7], **options)
        for row in text.tolist():
            ends = [i for i, word in enumerate(row[3:]) if word in (5, 7)]
            assert not ends or set(row[4 + ends[0] :]) <= {0}
    assert any(5 in row[3:] or 7 in row[3:] for row in free)


def test_without_a_prompt_bos_begins(model):
    assert torch.equal(model.generate(bos_token_id=4, max_length=6), model.generate(torch.tensor([[4]]), max_length=6))


def test_segments_go_on_as_the_last_one(model):
    segments = torch.tensor([[0, 0, 1]] * 4)
    kept, anew = (written(model, token_type_ids=segments, eos_token_id=None, use_cache=c) for c in (True, False))
    assert torch.equal(kept, anew)
    with torch.no_grad():
        full = model(kept, token_type_ids=torch.cat([segments, torch.ones(4, 8, dtype=torch.int64)], 1)).logits
    assert torch.equal(full[:, 2:-1].argmax(-1), kept[:, 3:])


def test_nothing_given_is_changed_and_no_gradient_is_kept(model):
    ids, mask = PROMPTS.clone(), torch.ones_like(PROMPTS)
    options = GenerationConfig(max_length=6, eos_token_id=7)
    found = model.generate(
        ids, attention_mask=mask, generation_config=options, return_dict_in_generate=True, output_scores=True
    )
    assert torch.equal(ids, PROMPTS) and mask.all()
    assert options == GenerationConfig(max_length=6, eos_token_id=7)
    assert not found.scores[0].requires_grad


def test_half_precision_sums_in_single(model):
    found = written(tiny().bfloat16(), num_beams=2, return_dict_in_generate=True, output_scores=True)
    assert found.scores[0].dtype == torch.float32


def test_a_model_that_is_not_causal_reads_all_again(caplog):
    model = tiny(is_decoder=False)
    with caplog.at_level(logging.WARNING, "polyformer"):
        text = written(model, eos_token_id=None)
        written(model, eos_token_id=None)
    assert caplog.text.count("BertLMHeadModel is not causal") == 1
    prompt = PROMPTS
    while prompt.shape[1] < 11:
        with torch.no_grad():
            prompt = torch.cat([prompt, model(prompt).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(text, prompt)


# ---- results ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,options,rows",
    [
        ("GreedySearchDecoderOnlyOutput", {}, 4),
        ("SampleDecoderOnlyOutput", {"do_sample": True, "num_return_sequences": 2}, 8),
        ("BeamSearchDecoderOnlyOutput", {"num_beams": 3}, 12),
        ("BeamSampleDecoderOnlyOutput", {"num_beams": 3, "do_sample": True, "num_return_sequences": 2}, 24),
    ],
)
def test_named_results(model, name, options, rows):
    found = written(
        model, eos_token_id=None, max_new_tokens=2, return_dict_in_generate=True, output_scores=True,
        output_attentions=True, output_hidden_states=True, **options,
    )  # fmt: skip
    assert type(found).__name__ == name
    assert torch.equal(found["sequences"], found[0])
    assert [s.shape for s in found.scores] == [(rows, 12)] * 2
    assert [[a.shape for a in step] for step in found.attentions] == [[(rows, 2, 3, 3)] * 2, [(rows, 2, 1, 4)] * 2]
    assert [[h.shape for h in step] for step in found.hidden_states] == [[(rows, 3, 16)] * 3, [(rows, 1, 16)] * 3]
    assert ("sequences_scores" in found) == ("num_beams" in options)
    assert list(written(model, **options, return_dict_in_generate=True)) == ["sequences"]


def test_a_beams_scores_are_its_sums(model):
    scored = {"return_dict_in_generate": True, "output_scores": True}
    found = written(model, num_beams=2, max_new_tokens=1, eos_token_id=None, **scored)
    best = found.scores[0].view(4, -1).max(1).values
    assert torch.allclose(found.sequences_scores, best / 4, atol=1e-6)


# ---- the decoder and its state ---------------------------------------------------------------------------------------


def test_the_state_is_written_in_place_and_follows_the_rows(model):
    d = Decoder(model, None, 1, 9, True, {})
    with torch.no_grad():
        d.step(PROMPTS)
        buffers = d.state.layers[0].own.buffers
        ids = torch.cat([PROMPTS, torch.tensor([[1], [2], [3], [4]])], 1)
        d.step(ids)
        assert d.state.layers[0].own.buffers[0] is buffers[0]
        assert d.state.length == 4
        rows = torch.tensor([2, 2, 0])
        d.reorder(rows)
        ids = torch.cat([ids[rows], torch.tensor([[5], [6], [7]])], 1)
        assert torch.allclose(d.step(ids), model(ids).logits[:, -1], atol=1e-5)
        assert d.state.layers[0].own.keys.shape == (3, 2, 5, 8)


def test_a_prompt_is_read_once_for_all_its_beams(model):
    sizes = []
    hook = model.register_forward_hook(lambda m, a, k, out: sizes.append(tuple(k["input_ids"].shape)), with_kwargs=True)
    written(model, num_beams=3, max_new_tokens=3, eos_token_id=None)
    hook.remove()
    assert sizes == [(4, 3), (12, 1), (12, 1)]


@each_strategy
@pytest.mark.parametrize("kind", [Summing, Translating])
def test_other_states_and_encoder_decoders(kind, options):
    toy = kind()
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 2], [0, 0, 3, 4]] if kind is Summing else [[3, 4, 5, 6], [7, 8, 0, 0]])
    kept, anew = (
        generate(
            toy, ids, max_length=12, eos_token_id=7, pad_token_id=0, use_cache=cache,
            generator=torch.Generator().manual_seed(1), **options,
        )
        for cache in (True, False)
    )  # fmt: skip
    assert torch.equal(kept, anew)


def test_an_encoder_reads_once_and_its_padding_is_nothing():
    toy, source = Translating(), torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])
    options = {"max_length": 9, "num_beams": 3, "num_return_sequences": 2}
    text = generate(toy, source, **options)
    assert toy.reads == 1
    assert (text[:, 0] == 1).all()
    assert torch.equal(text[2:], generate(toy, source[1:, :2], **options))
    again = generate(toy, encoder_outputs=toy.encode(source), attention_mask=(source != 0).long(), **options)
    assert again.shape == text.shape
    begun = generate(toy, source, decoder_input_ids=text[::2, :4], **{**options, "num_return_sequences": 1})
    assert torch.equal(begun[:, :4], text[::2, :4])


def test_an_encoders_results():
    found = generate(
        Translating(), PROMPTS, max_length=5, num_beams=2, forced_bos_token_id=9, encoder_no_repeat_ngram_size=1,
        return_dict_in_generate=True, output_scores=True, output_hidden_states=True,
    )  # fmt: skip
    assert type(found).__name__ == "BeamSearchEncoderDecoderOutput"
    assert found.encoder_hidden_states[0].shape == (4, 3, 8)
    assert (found.sequences[:, 1] == 9).all()
    for source, text in zip(PROMPTS.tolist(), found.sequences[:, 2:].tolist(), strict=True):
        assert not set(source) & set(text)


# ---- options and files -----------------------------------------------------------------------------------------------


def test_options_survive_a_file(tmp_path):
    options = GenerationConfig(num_beams=4, eos_token_id=[1, 2], bad_words_ids=[[3], [4, 5]], extra={"origin": None})
    options.save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path) == options
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {
        "num_beams": 4, "eos_token_id": [1, 2], "bad_words_ids": [[3], [4, 5]], "origin": None,
    }  # fmt: skip
    assert GenerationConfig.from_pretrained(tmp_path, num_beams=2).num_beams == 2


def test_unknown_options_of_a_file_are_kept_and_said(tmp_path, caplog):
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"top_k": 3, "guidance_scale": 0.6, "transformers_version": "4.30.2", "_x": 1}))
    with caplog.at_level(logging.WARNING, "polyformer"):
        options = GenerationConfig.from_pretrained(tmp_path)
    assert options.top_k == 3
    assert options.to_dict()["guidance_scale"] == 0.6
    assert "change nothing: guidance_scale." in caplog.text
    path.write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        GenerationConfig.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError):
        GenerationConfig.from_pretrained(tmp_path)


def test_an_unknown_option_names_the_likely_one(model):
    with pytest.raises(TypeError, match="'num_beam'; did you mean 'num_beams'"):
        GenerationConfig(num_beam=3)
    with pytest.raises(TypeError, match="did you mean 'temperature'"):
        GenerationConfig().replaced(temprature=3)
    with pytest.raises(TypeError, match=r"BertLMHeadModel.generate has no option 'num_beam'; did you mean 'num_beams'"):
        model.generate(PROMPTS, num_beam=3)


def test_the_nearest_place_counts_most():
    model = tiny(max_length=6, eos_token_id=None, num_beams=2)
    assert GenerationConfig.of_model(model.config).num_beams == 2
    assert model.generate(PROMPTS).shape == (4, 6)
    model.generation_config = GenerationConfig(max_length=7)
    assert model.generate(PROMPTS).shape == (4, 7)
    assert model.generate(PROMPTS, generation_config=GenerationConfig(max_length=8)).shape == (4, 8)
    assert model.generate(PROMPTS, 9, generation_config=GenerationConfig(max_length=8)).shape == (4, 9)


@pytest.mark.parametrize(
    "options,sentence",
    [
        ({"max_length": 3}, "the prompt has 3 tokens, which leaves no room for more under max_length=3"),
        ({"num_return_sequences": 2}, "2 sequences cannot come out of 1 beam: raise num_beams"),
        ({"num_beams": 2, "num_return_sequences": 3}, "3 sequences cannot come out of 2 beams"),
        ({"num_beams": 3, "num_beam_groups": 2}, "3 beams cannot be shared by 2 groups"),
        ({"num_beams": 4, "num_beam_groups": 2, "do_sample": True}, "groups of beams are not sampled"),
        ({"diversity_penalty": 1.0}, "set num_beam_groups to 2 or more"),
        ({"temperature": -1.0, "do_sample": True}, "temperature is -1.0; give a number above 0"),
        ({"top_p": 1.5}, "top_p is 1.5; give a probability"),
        ({"num_beams": 0}, "num_beams is 0; give a whole number, at least 1"),
        ({"num_beams": 2.0}, "num_beams is 2.0; give a whole number"),
        ({"early_stopping": "soon"}, "early_stopping is 'soon'; give True, False or 'never'"),
        ({"bad_words_ids": [3]}, "bad_words_ids takes a list of words"),
        ({"encoder_no_repeat_ngram_size": 2}, "this one reads no source"),
        ({"attention_mask": torch.ones(4, 2)}, r"attention_mask has shape \(4, 2\), but input_ids \(4, 3\)"),
        ({"position_ids": PROMPTS}, "generate looks after position_ids itself"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(model, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        model.generate(PROMPTS, **options)


def test_prompts_that_are_none(model):
    with pytest.raises(ValueError, match="there is no prompt: give input_ids, or a bos_token_id"):
        model.generate()
    for wrong in (PROMPTS[0], PROMPTS[:, :0], PROMPTS.float()):
        with pytest.raises(ValueError, match="but token ids of shape"):
            model.generate(wrong)
    with pytest.raises(TypeError, match="BertModel has no language model head"):
        generate(BertModel(model.config), PROMPTS)


def test_what_is_said_once(caplog):
    model = tiny(pad_token_id=None)
    with caplog.at_level(logging.WARNING, "polyformer"):
        for _ in range(2):
            text = model.generate(PROMPTS, eos_token_id=7, max_length=9)
    assert caplog.text.count("filled with eos_token_id, 7") == 1
    for row in text.tolist():
        assert 7 not in row[3:] or set(row[row.index(7, 3) :]) == {7}


def test_an_empty_state_is_a_first_step(model):
    with torch.no_grad():
        found = model(PROMPTS, past_key_values=State.empty(2, 5), use_cache=True)
        assert isinstance(found, CausalLMOutputWithCrossAttentions)
        assert torch.allclose(found.logits, model(PROMPTS, use_cache=False).logits, atol=1e-6)
        assert found.past_key_values.length == 3
