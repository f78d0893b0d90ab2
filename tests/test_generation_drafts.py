"""Assisted decoding, prompt lookup and contrastive search."""

from types import SimpleNamespace

import pytest
import torch

import zoo
from generation_toys import PROMPTS, Answer, Reading, Summing, chi_square, logp, tiny, written
from polyformer.generation import generate
from polyformer.generation.drafts import Lookup

ASSISTANTS = {"another model": lambda: tiny(seed=9), "the same model": tiny, "lookup": None}
each_draft = pytest.mark.parametrize("assistant", ASSISTANTS.values(), ids=ASSISTANTS)


def how(assistant, **options):
    if assistant is None:
        return {"prompt_lookup_num_tokens": 3, **options}
    return {"assistant_model": assistant(), "num_assistant_tokens": 3, **options}


@each_draft
@pytest.mark.parametrize(
    "options",
    [
        {}, {"use_cache": False}, {"repetition_penalty": 1.4, "no_repeat_ngram_size": 3, "min_new_tokens": 4},
        {"prefix_allowed_tokens_fn": lambda i, ids: [i, int(ids[-1]), 5, 7]}, {"eos_token_id": None},
        {"num_assistant_tokens_schedule": "heuristic"},
    ],
    ids=["plain", "no cache", "penalties", "allowed", "to the end", "schedule"],
)  # fmt: skip
def test_what_comes_out_is_what_greedy_writes(assistant, options):
    for seed in range(2):
        model = tiny(seed=seed)
        asked = {"max_new_tokens": 14, **options}
        assert torch.equal(written(model, **how(assistant, **asked)), written(model, **asked))


@each_draft
def test_scores_are_greedy_s(assistant):
    model, asked = tiny(), dict(max_new_tokens=9, return_dict_in_generate=True, output_scores=True, output_logits=True)
    for prompt in PROMPTS[:2]:
        got, want = (written(model, prompt[None], **how(assistant, **asked)), written(model, prompt[None], **asked))
        assert torch.equal(got.sequences, want.sequences)
        for a, b in zip((*got.scores, *got.logits), (*want.scores, *want.logits), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def passes(model, run):
    """How many tokens each call of the model reads."""
    read = []
    hook = model.register_forward_hook(lambda m, a, k, out: read.append(k["input_ids"].shape[1]), with_kwargs=True)
    run()
    hook.remove()
    return read


def test_a_good_draft_saves_steps():
    """The model as its own assistant is always right: 3 guesses and one word more each time."""
    model = tiny()
    asked = dict(max_new_tokens=12, eos_token_id=None)
    assert passes(model, lambda: written(model, PROMPTS[:1], **how(tiny, **asked))) == [6, 4, 4]
    loop = torch.tensor([[3, 4, 5, 3, 4, 5, 3, 4]])
    model = tiny(std=1e-3)  # which repeats itself
    plain = written(model, loop, **asked)
    read = passes(model, lambda: written(model, loop, prompt_lookup_num_tokens=4, **asked))
    assert len(read) < 12 and torch.equal(written(model, loop, prompt_lookup_num_tokens=4, **asked), plain)


class Table(torch.nn.Module):
    """The next word hangs on the last one alone."""

    def __init__(self, seed, words=3):
        super().__init__()
        self.config = SimpleNamespace(is_encoder_decoder=False, vocab_size=words)
        self.device = torch.device("cpu")
        self.table = torch.randn(words, words, generator=torch.Generator().manual_seed(seed))

    def get_output_embeddings(self):
        return self.table

    def forward(self, input_ids, return_dict=True):
        return Answer(self.table[input_ids])


@pytest.mark.parametrize("draft", [None, 5, 4], ids=["lookup", "another model", "the same model"])
@pytest.mark.parametrize("top_k", [0, 2])
def test_sampling_has_the_models_distribution(draft, top_k):
    """All texts of three words: as often as they are likely, whatever the draft thinks; what is cut off never comes."""
    count, prompt = 600, [1, 2, 1]
    model = Table(4)
    how = {"prompt_lookup_num_tokens": 2} if draft is None else {"assistant_model": Table(draft)}
    drawn = generate(
        model, torch.tensor([prompt]), do_sample=True, top_k=top_k, temperature=1.3, max_new_tokens=3,
        num_return_sequences=count, generator=torch.Generator().manual_seed(3), num_assistant_tokens=2, **how,
    )[:, 3:]  # fmt: skip
    scores = model.table / 1.3
    cut = scores if not top_k else scores.where(scores >= scores.topk(top_k).values[:, -1:], -torch.inf)
    p = cut.softmax(-1)
    p = (p[1][:, None, None] * p[:, :, None] * p[None]).flatten()
    counts = (drawn @ torch.tensor([9, 3, 1])).bincount(minlength=27)
    # 1 in 1000, of 26 or 7 degrees of freedom
    assert chi_square(counts, p) < (24.3 if top_k else 54.1)


def test_lookup_by_hand():
    ids = torch.tensor([[1, 2, 3, 4, 2, 3, 5, 2, 3]])
    assert Lookup(2, 2).guess(ids, 9)[0].tolist() == [[5, 2]]  # the latest place where 2, 3 stood before
    assert Lookup(9, 2).guess(ids, 9)[0].tolist() == [[5, 2, 3]]
    assert Lookup(9, 2).guess(ids, 1)[0].tolist() == [[5]]
    assert Lookup(2, 3).guess(torch.tensor([[7, 2, 3, 4, 9, 3]]), 9)[0].tolist() == [[4, 9]]  # only 3 is found
    assert Lookup(2, 3).guess(torch.tensor([[1, 2, 3]]), 9)[0].tolist() == [[]]


def test_encoder_decoders_are_assisted():
    toy, other = Reading(), Reading()
    torch.manual_seed(8)
    for p in other.parameters():
        torch.nn.init.normal_(p, std=0.7)
    source = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])
    for options in ({}, {"use_cache": False}):
        want = generate(toy, source, max_length=12, **options)
        for draft in ({"assistant_model": other}, {"prompt_lookup_num_tokens": 2}):
            assert torch.equal(generate(toy, source, max_length=12, **draft, **options), want)


def test_what_cannot_be_assisted():
    model = tiny()
    for options, sentence in (
        ({"num_beams": 2}, "assisted decoding cannot have num_beams over 1: leave one of the two out"),
        ({"assistant_model": tiny(words=13)}, "assistant_model knows 13 words, but the model 12"),
        (
            {"return_dict_in_generate": True, "output_attentions": True},
            "cannot have output_attentions or output_hidden_states",
        ),
    ):
        with pytest.raises(ValueError, match=sentence):
            written(
                model, prompt_lookup_num_tokens=2 if len(options) != 1 or "num_beams" in options else None, **options
            )
    with pytest.raises(ValueError, match="Summing cannot take back tokens that it has read: give use_cache=False"):
        generate(Summing(), torch.tensor([[3, 4, 3, 4, 3]]), prompt_lookup_num_tokens=2, max_length=12)
    again = generate(Summing(), PROMPTS, prompt_lookup_num_tokens=2, max_length=12, use_cache=False)
    assert torch.equal(again, generate(Summing(), PROMPTS, max_length=12))


def test_a_model_of_places_scores_no_several_words():
    model = zoo.make(zoo.first(zoo.FAMILY["xlm"], "WithLMHeadModel").but(causal=True))
    for options in ({"prompt_lookup_num_tokens": 2}, {"penalty_alpha": 0.5}):
        with pytest.raises(ValueError, match="cannot have a model that guesses one place at a time"):
            model.generate(PROMPTS, **options)


# ---- contrastive search ----------------------------------------------------------------------------------------------


def contrastive_by_hand(model, prompt, k, alpha, new, eos):
    """Su et al. 2022, equation 5, without a cache."""
    text = list(prompt)
    for _ in range(new):
        p = logp(model, [text])[0, -1].exp()
        best = None
        for word in p.topk(k).indices.tolist():
            with torch.no_grad():
                states = model(torch.tensor([[*text, word]]), output_hidden_states=True).hidden_states[-1][0]
            cosines = torch.cosine_similarity(states[-1:], states[:-1])
            score = float((1 - alpha) * p[word] - alpha * cosines.max())
            if best is None or score > best[0]:
                best = score, word
        text.append(best[1])
        if best[1] == eos:
            break
    return text


@pytest.mark.parametrize("alpha", [0.3, 0.8])
@pytest.mark.parametrize("cache", [True, False])
def test_contrastive_search_by_hand(alpha, cache):
    model = tiny(std=0.3)
    found = written(model, penalty_alpha=alpha, top_k=4, max_new_tokens=8, use_cache=cache)
    differs = False
    for prompt, row in zip(PROMPTS.tolist(), found.tolist(), strict=True):
        want = contrastive_by_hand(model, prompt, 4, alpha, 8, 7)
        assert row == want + [0] * (len(row) - len(want))
        differs |= row != written(model, torch.tensor([prompt]), max_new_tokens=8)[0].tolist()
    assert differs


def test_without_a_penalty_it_is_greedy():
    model = tiny()
    assert torch.equal(written(model, penalty_alpha=1e-9, top_k=4), written(model))
    assert torch.equal(written(model, penalty_alpha=0.0, top_k=4), written(model))


def test_contrastive_search_shows_what_greedy_does():
    """Its scores are of the words before the choice; attentions and states those of the chosen words alone."""
    model = tiny()
    asked = dict(max_new_tokens=4, eos_token_id=None, return_dict_in_generate=True, output_scores=True)
    asked |= dict(output_attentions=True, output_hidden_states=True, output_logits=True)
    found = written(model, penalty_alpha=0.6, top_k=3, **asked)
    assert type(found).__name__ == "ContrastiveSearchDecoderOnlyOutput"
    with torch.no_grad():
        whole = model(found.sequences, output_hidden_states=True, output_attentions=True)
    assert len(found.scores) == len(found.logits) == len(found.hidden_states) == len(found.attentions) == 4
    for i in range(4):
        torch.testing.assert_close(found.logits[i], whole.logits[:, 2 + i], rtol=0, atol=1e-5)
        torch.testing.assert_close(
            found.hidden_states[i][-1][:, -1], whole.hidden_states[-1][:, 2 + i], rtol=0, atol=1e-5
        )
        torch.testing.assert_close(
            found.attentions[i][0][:, :, -1], whole.attentions[0][:, :, 2 + i, : 3 + i], rtol=0, atol=1e-5
        )


def test_contrastive_search_of_an_encoder_decoder():
    toy, source = Reading(), torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])
    asked = dict(penalty_alpha=0.6, top_k=3, max_length=9, pad_token_id=0)
    together = generate(toy, source, **asked)
    assert torch.equal(together[1:], generate(toy, source[1:, :2], **asked))
    assert torch.equal(together, generate(toy, source, use_cache=False, **asked))
    with pytest.raises(ValueError, match="contrastive search cannot have do_sample"):
        generate(toy, source, do_sample=True, **asked)
