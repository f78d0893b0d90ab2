"""The best words block by block, against torch's own way over all of them; and beams that may not write some words."""

import pytest
import torch

from generation_toys import chi_square
from polyformer import GenerationConfig, GPT2Config, GPT2LMHeadModel
from polyformer.generation.best import BLOCK, first_best, largest, log_total
from polyformer.generation.processors import LogitsProcessor

WIDTHS = (1, 5, BLOCK - 1, BLOCK, 2 * BLOCK, 9 * BLOCK, 9 * BLOCK + 1, 40 * BLOCK + 37)


def rows(width, kind):
    x = torch.randn(7, width, dtype=torch.float64)
    if kind == "ties":
        x = torch.randint(0, 3, (7, width)).double()
    if kind == "infinite":
        x = x.where(torch.rand(7, width) > 0.7, float("-inf"))
        x[0] = float("-inf")
    return x


@pytest.mark.parametrize("kind", ["apart", "ties", "infinite"])
@pytest.mark.parametrize("width", WIDTHS)
def test_as_torch_has_it(width, kind):
    for _ in range(5):
        x = rows(width, kind)
        assert torch.equal(first_best(x), x.argmax(-1))
        torch.testing.assert_close(log_total(x), x.logsumexp(-1, keepdim=True), rtol=1e-12, atol=1e-12)
        for count in {1, min(4, width), min(17, width), width}:
            values, places = largest(x, count)
            assert torch.equal(values, x.topk(count).values)
            assert torch.equal(x.gather(1, places), values)
            assert all(len(set(row)) == count for row in places.tolist())


def test_the_largest_in_the_last_place_and_the_first():
    for width in WIDTHS:
        for place in (0, width - 1, width // 2):
            x = torch.zeros(2, width)
            x[1, place] = 1
            assert first_best(x).tolist() == [0, place]
            assert largest(x, 1)[1][1].item() == place


class Through(LogitsProcessor):
    """Changes nothing, and does not say so: beams then take the way for processors that may change scores."""

    def __call__(self, ids, scores):
        return scores


@pytest.mark.parametrize(
    "forbidding",
    [
        {"min_new_tokens": 5},
        {"no_repeat_ngram_size": 2},
        {"bad_words_ids": [[3], [4, 5], [7, 8, 9]]},
        {"suppress_tokens": [1, 2, 3, 40]},
        {"prefix_allowed_tokens_fn": lambda row, ids: list(range(10 + len(ids) % 3, 90))},
    ],
    ids=lambda options: next(iter(options)),
)
def test_beams_that_may_not_write_some_words_are_those_that_look_at_every_score(forbidding):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=200, n_positions=32, n_embd=16, n_layer=2, n_head=2, eos_token_id=9))
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.4)
    model.double().eval()
    how = GenerationConfig(
        max_new_tokens=10, num_beams=4, num_return_sequences=4, do_sample=False, eos_token_id=[9, 60], pad_token_id=0
    )
    ids = torch.randint(10, 200, (3, 4))
    with pytest.raises(TypeError, match="give it by name"):
        model.generate(ids, how)
    quick = model.generate(ids, generation_config=how, return_dict_in_generate=True, **forbidding)
    slow = model.generate(
        ids, generation_config=how, return_dict_in_generate=True, logits_processor=[Through()], **forbidding
    )
    assert torch.equal(quick.sequences, slow.sequences)
    torch.testing.assert_close(quick.sequences_scores, slow.sequences_scores, rtol=1e-12, atol=1e-12)


# ---- drawing among a few ----


def bigram(words=400):
    """A model whose next word hangs on the last one alone, and is known in advance."""

    class Bigram(GPT2LMHeadModel):
        def forward(self, input_ids=None, **options):
            outputs = super().forward(input_ids, **options)
            outputs.logits = self.table[input_ids[:, -outputs.logits.shape[1] :]]
            return outputs

    torch.manual_seed(0)
    model = Bigram(GPT2Config(vocab_size=words, n_positions=16, n_embd=8, n_layer=1, n_head=1, eos_token_id=None))
    model.table = 2 * torch.randn(words, words)
    return model.eval()


@pytest.mark.parametrize("cut", [{}, {"top_p": 0.7}, {"min_p": 0.2}, {"typical_p": 0.6}], ids=str)
def test_what_is_drawn_among_a_few_has_the_distribution_of_all_words_cut_down(cut):
    model, rows = bigram(), 20_000
    how = {"do_sample": True, "temperature": 1.5, "top_k": 12, "max_new_tokens": 1, "pad_token_id": 0} | cut
    torch.manual_seed(1)
    drawn = model.generate(torch.full((rows, 1), 7), **how)[:, 1]
    seen = model.generate(torch.tensor([[7]]), **how, output_scores=True, return_dict_in_generate=True)
    p = seen.scores[0][0].double().softmax(-1)  # cut down from all 400 words
    assert 1 < (p > 0).sum() <= 12
    counts = torch.bincount(drawn, minlength=400)
    assert (counts[p == 0] == 0).all()
    assert chi_square(counts[p > 0], p[p > 0]) < 31.3  # 11 degrees of freedom at most, 1 in 1000


def test_a_row_with_its_seed_draws_the_same_among_a_few_whoever_is_beside_it():
    model = bigram()
    how = {
        "do_sample": True,
        "top_k": 9,
        "top_p": 0.9,
        "max_new_tokens": 12,
        "pad_token_id": 0,
        "eos_token_id": [1, 2, 3],
    }
    ids = torch.tensor([[5], [6], [5], [8]])
    together = model.generate(ids, **how, seeds=[3, 4, 5, 6])
    for row, seed in enumerate([3, 4, 5, 6]):
        alone = model.generate(ids[row : row + 1], **how, seeds=[seed])[0]
        assert torch.equal(together[row, : len(alone)], alone)
