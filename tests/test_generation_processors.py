"""Score processors and warpers: by hand, against their definitions in loops, and against transformers 5."""

import math

import pytest
import torch

from generation_toys import PROMPTS, chi_square, tiny, written
from polyformer.generation import GenerationConfig
from polyformer.generation import processors as P

NEVER = float("-inf")
IDS = torch.tensor([[1, 2, 3, 1, 2], [-1, -1, 4, 4, 0]])
FLAT = torch.zeros(2, 6)


def kept(scores):
    return [set((row > NEVER).nonzero()[:, 0].tolist()) for row in scores]


def some(rows=20, words=30, scale=3.0):
    return torch.randn(rows, words, generator=torch.Generator().manual_seed(1)) * scale


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_biases_of_sequences():
    """One token always, several where they would be completed; what falls on one word adds up."""
    bias = P.SequenceBias([[[0], 1.0], [[2, 5], 2.0], [[1, 2, 5], 4.0], [[4, 4], 8.0], [[9, 9, 9, 9, 9, 9, 3], 1.0]])
    bias.largest = 5  # the long one stands for words longer than the text
    assert bias(IDS, FLAT).tolist() == [[1, 0, 0, 0, 0, 6], [1, 0, 0, 0, 0, 0]]
    assert bias(IDS[:, :4], FLAT).tolist() == [[1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 8, 0]]
    assert not FLAT.any()
    as_mapping = P.SequenceBias({(0,): 1.0, (2, 5): 2.0})
    assert as_mapping(IDS, FLAT)[0].tolist() == [1, 0, 0, 0, 0, 2]
    with pytest.raises(ValueError, match="sequence_bias has 77, but the model's words are 0 to 5"):
        P.SequenceBias([[[77], 1.0]])(IDS, FLAT)


def test_suppressed_tokens():
    assert kept(P.Suppress([1, 4])(IDS, FLAT)) == [{0, 2, 3, 5}] * 2
    assert kept(P.Suppress([1, 4], 5)(IDS, FLAT)) == [{0, 2, 3, 5}] * 2
    assert kept(P.Suppress([1, 4], 4)(IDS, FLAT)) == [{0, 1, 2, 3, 4, 5}] * 2


def test_words_of_the_source_are_made_likelier():
    source = torch.tensor([[5, 2, -1], [4, 4, 0]])
    scores = torch.tensor([[1.0, 2.0, -2.0, 0.5, 4.0, -1.0]]).repeat(2, 1)
    more = P.EncoderRepetitionPenalty(2.0, source)
    assert more(IDS, scores).tolist() == [[1, 2, -1, 0.5, 4, -0.5], [2, 2, -2, 0.5, 8, -1]]
    assert (
        more(IDS.repeat_interleave(2, 0), scores.repeat_interleave(2, 0))[2:].tolist() == [[2, 2, -2, 0.5, 8, -1]] * 2
    )
    more.keep(torch.tensor([1]))
    assert more(IDS[1:], scores[1:]).tolist() == [[2, 2, -2, 0.5, 8, -1]]


def test_eos_grows_likelier():
    scores = torch.tensor([[-2.0, 3.0, 1.0]])
    grown = P.LengthDecay(3, 1.5, [0, 1])
    assert grown(IDS[:, :3], scores) is scores
    assert grown(IDS[:, :4], scores).tolist() == [[-1.0, 4.5, 1.0]]
    assert grown(IDS[:, :5], scores).tolist() == [[0.5, 6.75, 1.0]]


# ---- cuts, against their definitions ---------------------------------------------------------------------------------


def test_typical_words():
    """The fewest words nearest to the entropy that together reach the mass."""
    scores = some()
    for mass in (0.1, 0.5, 0.9, 0.999):
        for row, left in zip(scores, kept(P.Typical(mass)(IDS, scores)), strict=True):
            p = row.double().softmax(-1).tolist()
            entropy = -sum(q * math.log(q) for q in p)
            nearest = sorted(range(len(p)), key=lambda w: abs(-math.log(p[w]) - entropy))
            want, total = set(), 0.0
            for word in nearest:
                want.add(word)
                total += p[word]
                if total >= mass:
                    break
            assert left == want
    assert all(len(one) >= 3 for one in kept(P.Typical(1e-6, least=3)(IDS, scores)))


def test_floors():
    scores = some()
    for row, by_best, by_bound, by_entropy in zip(
        scores,
        kept(P.MinP(0.1)(IDS, scores)),
        kept(P.EpsilonCutoff(0.02)(IDS, scores)),
        kept(P.EtaCutoff(0.02)(IDS, scores)),
        strict=True,
    ):
        p = row.double().softmax(-1).tolist()
        entropy = -sum(q * math.log(q) for q in p)
        assert by_best == {w for w, q in enumerate(p) if q >= 0.1 * max(p)}
        assert by_bound == {w for w, q in enumerate(p) if q >= 0.02}
        eta = min(0.02, math.sqrt(0.02) * math.exp(-entropy))
        assert by_entropy == {w for w, q in enumerate(p) if q >= eta}


def test_a_floor_that_no_word_reaches_leaves_the_best():
    scores = some(scale=0.01)
    best = [set(row.topk(2).indices.tolist()) for row in scores]
    for cut in (P.EpsilonCutoff(0.9, 2), P.MinP(0.9999999, 2)):
        assert all(two <= left for two, left in zip(best, kept(cut(IDS, scores)), strict=True))
    assert kept(P.EpsilonCutoff(0.9, 2)(IDS, scores)) == best


CUTS = {
    "typical": ({"typical_p": 0.6}, P.Typical(0.6)),
    "min p": ({"min_p": 0.3}, P.MinP(0.3)),
    "epsilon": ({"epsilon_cutoff": 0.12}, P.EpsilonCutoff(0.12)),
    "top p": ({"top_p": 0.7}, P.TopP(0.7)),
}


@pytest.mark.parametrize("options,cut", CUTS.values(), ids=CUTS)
def test_words_are_drawn_as_often_as_the_cut_distribution_says(options, cut):
    model = tiny(words=8, std=0.6)
    drawn = written(
        model, PROMPTS[:1, :2], do_sample=True, top_k=0, max_new_tokens=1, num_return_sequences=4000, **options
    )[:, -1]
    left = cut(PROMPTS[:1, :2], model(PROMPTS[:1, :2]).logits[:, -1].detach())[0]
    assert 1 < (left > NEVER).sum() < 8
    assert chi_square(drawn.bincount(minlength=8), left.softmax(-1)) < 22.5  # 6 degrees of freedom, 1 in 1000


# ---- transformers 5 --------------------------------------------------------------------------------------------------

WARPERS = {
    "typical": (P.Typical(0.7), lambda L: L.TypicalLogitsWarper(0.7)),
    "min p": (P.MinP(0.08), lambda L: L.MinPLogitsWarper(0.08)),
    "min p, two": (P.MinP(0.8, 2), lambda L: L.MinPLogitsWarper(0.8, min_tokens_to_keep=2)),
    "epsilon": (P.EpsilonCutoff(0.03), lambda L: L.EpsilonLogitsWarper(0.03)),
    "eta": (P.EtaCutoff(0.05), lambda L: L.EtaLogitsWarper(0.05)),
    "top p": (P.TopP(0.8), lambda L: L.TopPLogitsWarper(0.8)),
    "bias": (
        P.SequenceBias([[[3], 1.0], [[2, 5], -2.0], [[1, 2, 5], 4.0]]),
        lambda L: L.SequenceBiasLogitsProcessor([[[3], 1.0], [[2, 5], -2.0], [[1, 2, 5], 4.0]]),
    ),
    "bad words": (P.BadWords([[3], [1, 2, 4]]), lambda L: L.NoBadWordsLogitsProcessor([[3], [1, 2, 4]])),
    "decay": (
        P.LengthDecay(3, 1.3, [4]),
        lambda L: L.ExponentialDecayLengthPenalty((1, 1.3), torch.tensor([4]), input_ids_seq_length=2),
    ),
    "source": (
        P.EncoderRepetitionPenalty(1.7, torch.tensor([[7, 9, 9]])),
        lambda L: L.EncoderRepetitionPenaltyLogitsProcessor(1.7, torch.tensor([[7, 9, 9]])),
    ),
    "suppress": (P.Suppress([3, 4]), lambda L: L.SuppressTokensLogitsProcessor([3, 4])),
    "not first": (P.Suppress([3, 4], 5), lambda L: L.SuppressTokensAtBeginLogitsProcessor([3, 4], 5)),
}


@pytest.mark.parametrize("ours,theirs", WARPERS.values(), ids=WARPERS)
def test_transformers_5_has_the_same(ours, theirs):
    module = pytest.importorskip(
        "transformers.generation.logits_process", reason="transformers 5 is not installed (extra [test])"
    )
    scores = some(rows=1 if isinstance(ours, P.EncoderRepetitionPenalty) else 20)
    ids = torch.tensor([[7, 8, 9, 1, 2]]).repeat(len(scores), 1)
    torch.testing.assert_close(ours(ids, scores), theirs(module)(ids, scores.clone()))


# ---- from options ----------------------------------------------------------------------------------------------------


def names(**options):
    o = GenerationConfig(eos_token_id=4, **options)
    ids = torch.tensor([[1, 2]])
    chains = P.processors_for(o, 2, 9, [0], None, ids), P.warpers_for(o)
    return [[type(p).__name__ for p in chain.all] for chain in chains]


def test_every_option_has_its_processor():
    assert names(
        sequence_bias=[[[1], 1.0]], encoder_repetition_penalty=1.2, repetition_penalty=1.1, no_repeat_ngram_size=2,
        bad_words_ids=[[3]], min_new_tokens=2, forced_bos_token_id=1, forced_eos_token_id=[4], suppress_tokens=[1],
        begin_suppress_tokens=[2], exponential_decay_length_penalty=(2, 1.1), renormalize_logits=True,
        remove_invalid_values=True,
    ) == [
        [
            "SequenceBias", "EncoderRepetitionPenalty", "RepetitionPenalty", "NoRepeatNGram", "BadWords", "MinLength",
            "ForcedToken", "ForcedToken", "RemoveInvalid", "LengthDecay", "Suppress", "Suppress", "Renormalized",
        ],
        [],
    ]  # fmt: skip
    assert names(
        do_sample=True, temperature=2.0, top_p=0.9, min_p=0.1, typical_p=0.8, epsilon_cutoff=0.01, eta_cutoff=0.01,
        renormalize_logits=True,
    ) == [
        [], ["Temperature", "TopK", "TopP", "MinP", "Typical", "EpsilonCutoff", "EtaCutoff", "Renormalized"]
    ]  # fmt: skip
    assert names(num_beams=2, do_sample=True, top_k=1, renormalize_logits=True)[0] == ["Renormalized"]
    assert P.warpers_for(GenerationConfig(num_beams=2, do_sample=True, top_k=1)).all[0].k == 2


@pytest.mark.parametrize(
    "options,sentence",
    [
        ({"min_p": 1.5}, "min_p is 1.5; give a probability"),
        ({"typical_p": 0.0}, "typical_p is 0.0; give a probability above 0"),
        ({"epsilon_cutoff": -0.1}, "epsilon_cutoff is -0.1"),
        ({"penalty_alpha": 2.0}, "penalty_alpha is 2.0; give a number from 0"),
        ({"encoder_repetition_penalty": 0}, "encoder_repetition_penalty is 0; give a number above 0"),
        ({"sequence_bias": [[5], 1.0]}, "sequence_bias takes pairs"),
        ({"suppress_tokens": [1.5]}, "suppress_tokens takes a list of token ids"),
        ({"force_words_ids": [[]]}, "force_words_ids takes a list of words"),
        ({"force_words_ids": [[1], 2]}, "force_words_ids takes a list of words"),
        ({"exponential_decay_length_penalty": (3,)}, "exponential_decay_length_penalty is"),
        ({"num_assistant_tokens_schedule": "guess"}, "num_assistant_tokens_schedule is 'guess'; give one of constant"),
        ({"prompt_lookup_num_tokens": 0}, "prompt_lookup_num_tokens is 0; give a whole number, at least 1"),
    ],
)
def test_what_an_option_cannot_be(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        GenerationConfig(**options).check()


def test_biases_survive_a_file(tmp_path):
    options = GenerationConfig(sequence_bias={(1, 2): -0.5}, stop_strings=["\n"], typical_p=0.9)
    options.save_pretrained(tmp_path)
    again = GenerationConfig.from_pretrained(tmp_path)
    assert again.sequence_bias == [[[1, 2], -0.5]] and again.typical_p == 0.9
    assert P.SequenceBias(again.sequence_bias)(IDS[:, :1], FLAT)[0, 2] == -0.5
