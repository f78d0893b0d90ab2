"""Beams with forced words, other ends, and what they tell of themselves: against every text there is."""

import itertools

import pytest
import torch

from generation_toys import PROMPTS, every_text, logp, tiny, written
from polyformer.generation import (
    DisjunctiveConstraint,
    PhrasalConstraint,
    StoppingCriteria,
    compute_transition_scores,
    generate,
)
from polyformer.generation.beams import Hypotheses
from polyformer.generation.constraints import Progress

EOS, NEW, PROMPT = 1, 4, [2, 3]


def has(text, phrase):
    return any(tuple(text[i : i + len(phrase)]) == tuple(phrase) for i in range(len(text)))


def texts_of(found, prompt=PROMPT, eos=EOS):
    texts = [row[len(prompt) :] for row in found.sequences.tolist()]
    return [tuple(t[: t.index(eos) + 1] if eos in t else t) for t in texts]


def worth(text, total, penalty, prompt=PROMPT, eos=EOS):
    length = len(prompt) + len(text) - (text[-1] == eos)
    return total / length**penalty


FORCED = {
    "a word": [[4]],
    "a phrase": [[3, 3, 4]],
    "two words": [[4], [0]],
    "phrases that overlap": [[2, 3], [3, 4]],
    "a phrase and a part of it": [[3, 4, 3], [4]],
    "one of several": [[[4], [0, 0]]],
    "a word and one of several": [[[2]], [[4, 4], [0]]],
    "one with a border": [[3, 3, 3, 4]],
}


def meets(text, forced):
    return all(any(has(text, p) for p in (one if isinstance(one[0], list) else [one])) for one in forced)


@pytest.mark.parametrize("forced", FORCED.values(), ids=FORCED)
@pytest.mark.parametrize("penalty", [0.0, 1.5])
def test_forced_words_as_wide_as_the_tree_are_the_best_that_have_them(forced, penalty):
    model = tiny(words=5, seed=3)
    everything = every_text(model, PROMPT, NEW, EOS)
    want = sorted(((worth(t, total, penalty), t) for t, total in everything.items() if meets(t, forced)), reverse=True)[
        :5
    ]
    found = model.generate(
        torch.tensor([PROMPT]), max_new_tokens=NEW, num_beams=700, num_return_sequences=len(want), eos_token_id=EOS,
        pad_token_id=0, force_words_ids=forced, length_penalty=penalty, return_dict_in_generate=True,
        output_scores=True, early_stopping="never",
    )  # fmt: skip
    assert texts_of(found) == [text for _, text in want]
    torch.testing.assert_close(found.sequences_scores, torch.tensor([v for v, _ in want]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("beams", [2, 3, 6])
def test_few_beams_write_all_forced_words_too(beams):
    """Whatever the model thinks of them, and with little room."""
    for seed in range(6):
        model = tiny(words=12, seed=seed, std=1.0)
        forced = [[5, 9], [4], [[10, 10, 2], [3, 11]]]
        text = written(model, num_beams=beams, max_new_tokens=5 + seed, force_words_ids=forced)[:, 3:].tolist()
        assert all(meets(row, forced) for row in text)
        assert all(7 not in row or set(row[row.index(7) + 1 :]) <= {0} for row in text)


def test_forced_words_do_not_count_in_the_prompt():
    text = written(tiny(), num_beams=2, force_words_ids=[[4]], eos_token_id=None)
    assert all(4 in row for row in text[:, 3:].tolist())


def test_constraints_are_given_as_objects_too():
    model = tiny()
    asked = {"num_beams": 3, "max_new_tokens": 6}
    given = written(model, constraints=[PhrasalConstraint([5, 9]), DisjunctiveConstraint([[4], [10]])], **asked)
    assert torch.equal(given, written(model, force_words_ids=[[[5, 9]], [[4], [10]]], **asked))
    with pytest.raises(ValueError, match="a constraint takes phrases"):
        PhrasalConstraint([])


def test_forced_words_that_do_not_fit():
    with pytest.raises(ValueError, match="no text with all forced words was found"):
        written(tiny(), num_beams=2, force_words_ids=[[4, 5, 6]], max_new_tokens=2)
    with pytest.raises(ValueError, match="forced words cannot have num_beams=1: give 2 or more"):
        written(tiny(), force_words_ids=[[4]])
    with pytest.raises(ValueError, match="cannot have do_sample: leave one of the two out"):
        written(tiny(), force_words_ids=[[4]], num_beams=2, do_sample=True)


def test_progress_by_brute_force():
    """Met exactly where all phrases occur, and what remains is enough: each advance takes one off."""
    progress = Progress([PhrasalConstraint([1, 1, 2]), DisjunctiveConstraint([[2, 1], [0, 0, 0]])])
    for text in itertools.product(range(3), repeat=6):
        state = progress.after(text)
        met = has(text, [1, 1, 2]) and (has(text, [2, 1]) or has(text, [0, 0, 0]))
        left = progress.remaining(state)
        assert (left == 0) == met
        if left:
            assert min(progress.remaining(progress.after([t], state)) for t in progress.advances(state)) < left


# ---- when a search ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 2.0])
def test_never_ends_too_early(penalty):
    """A prompt's search goes on while a text that is still searched may become better, and no longer."""
    for seed in range(8):
        model = tiny(words=6, seed=seed, std=0.6)
        asked = dict(num_beams=2, length_penalty=penalty, eos_token_id=EOS, max_new_tokens=8, pad_token_id=0)
        asked |= dict(return_dict_in_generate=True, output_scores=True)
        never = model.generate(PROMPTS[:1] % 6, early_stopping="never", **asked)
        for early in (False, True):
            other = model.generate(PROMPTS[:1] % 6, early_stopping=early, **asked)
            assert len(never.scores) >= len(other.scores)
            assert never.sequences_scores[0] >= other.sequences_scores[0] - 1e-6


def test_closing_by_hand():
    for early, penalty, closed in (
        (False, 1.0, True), ("never", 1.0, False), (True, 1.0, True), ("never", -1.0, True), ("never", 0.0, True),
    ):  # fmt: skip
        one = Hypotheses(1, penalty, early, end=20)
        one.close(-1.0, 5)
        assert not one.closed  # there is no text yet
        one.add(-4.0, 5, torch.tensor([1]), torch.tensor([0]))  # worth -0.8 (penalty 1)
        one.close(-5.0, 5)  # now -1, and -0.25 at 20 tokens
        assert one.closed is closed


class Ends(StoppingCriteria):
    """A row ends with this token."""

    def __init__(self, token):
        self.token = token

    def __call__(self, ids, scores):
        return ids[:, -1] == self.token


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}, {"penalty_alpha": 0.4, "top_k": 3}])
def test_a_criterion_ends_rows_by_themselves(options, own):
    model = tiny()
    criterion = Ends(9) if own else (lambda ids, scores: ids[:, -1] == 9)
    text = written(model, stopping_criteria=[criterion], eos_token_id=None, max_new_tokens=12, **options)[:, 3:]
    assert text.shape[1] > 1
    for row in text.tolist():
        assert 9 not in row or set(row[row.index(9) + 1 :]) <= {0}
    if "num_beams" not in options:  # as if it were eos
        as_eos = written(model, eos_token_id=9, max_new_tokens=12, **options)[:, 3:]
        assert torch.equal(text, as_eos)


def test_beams_that_a_criterion_ends_are_found_as_texts():
    """As wide as the tree: the best of all texts, cut after the token."""
    model = tiny(words=5, seed=3)
    everything = every_text(model, PROMPT, 3, EOS)  # cut after token 1, which here is no eos
    want = sorted(((total, text) for text, total in everything.items()), reverse=True)[:6]
    found = generate(
        model, torch.tensor([PROMPT]), max_new_tokens=3, num_beams=130, num_return_sequences=6, length_penalty=0.0,
        stopping_criteria=[Ends(EOS)], pad_token_id=0, return_dict_in_generate=True, output_scores=True,
        early_stopping="never",
    )  # fmt: skip
    assert texts_of(found) == [text for _, text in want]


def test_a_search_without_any_text_says_so():
    with pytest.raises(ValueError, match="every word is forbidden"):
        written(tiny(), num_beams=2, prefix_allowed_tokens_fn=lambda i, ids: [])


# ---- what a search tells ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"num_beam_groups": 2, "diversity_penalty": 0.3}, {"length_penalty": 0.0}])
def test_a_texts_transitions_are_its_log_probabilities(options):
    model = tiny()
    found = written(
        model, num_beams=4, num_return_sequences=3, return_dict_in_generate=True, output_scores=True, **options
    )
    each = compute_transition_scores(found.sequences, found.scores, found.beam_indices)
    new = found.sequences[:, 3:]
    assert found.beam_indices.shape == new.shape == each.shape
    for text, score, value, trail in zip(new.tolist(), each, found.sequences_scores, found.beam_indices, strict=True):
        length = text.index(7) + 1 if 7 in text else len(text)
        assert (trail[:length] >= 0).all() and (trail[length:] == -1).all() and not score[length:].any()
        counted = 3 + length - (text[length - 1] == 7)
        worth = score.sum() / counted ** options.get("length_penalty", 1.0)
        torch.testing.assert_close(worth, value, rtol=0, atol=1e-5)
    if "num_beam_groups" not in options:  # else a penalty is in them
        prompt = PROMPTS.repeat_interleave(3, 0).tolist()
        for i, text in enumerate(new.tolist()):
            want = logp(model, [[*prompt[i], *text]])[0, 2:-1].gather(1, new[i][:, None])[:, 0]
            length = text.index(7) + 1 if 7 in text else len(text)
            torch.testing.assert_close(each[i, :length], want[:length], rtol=0, atol=1e-4)


def test_transitions_word_by_word():
    model = tiny()
    asked = dict(eos_token_id=None, return_dict_in_generate=True, output_scores=True, output_logits=True)
    found = written(model, logits_processor=[lambda ids, s: s * 2], **asked)
    for scores, logits in zip(found.scores, found.logits, strict=True):
        torch.testing.assert_close(scores, logits * 2)
    each = compute_transition_scores(found.sequences, found.logits, normalize_logits=True)
    want = logp(model, found.sequences.tolist())[:, 2:-1].gather(2, found.sequences[:, 3:, None])[..., 0]
    torch.testing.assert_close(each, want, rtol=0, atol=1e-5)
    raw = compute_transition_scores(found.sequences, found.scores)
    torch.testing.assert_close(raw, torch.stack(found.scores, 1).gather(2, found.sequences[:, 3:, None])[..., 0])
    with pytest.raises(ValueError, match="give beam_indices too"):
        compute_transition_scores(found.sequences[:2], found.scores)
