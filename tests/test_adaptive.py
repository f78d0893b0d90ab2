"""Word vectors and probabilities by clusters, word by word against their definition."""

import pytest
import torch

from polyformer.parts.adaptive import AdaptiveEmbedding, AdaptiveSoftmax, PlainEmbedding, PlainSoftmax, spans

WIDTH, WORDS, CUTOFFS = 12, 17, [4, 9]
SOFTMAXES = {
    "adaptive": lambda: AdaptiveSoftmax(WIDTH, WORDS, 8, CUTOFFS, 2),
    "one cluster": lambda: AdaptiveSoftmax(WIDTH, WORDS, 8, [], 2),
    "plain": lambda: PlainSoftmax(WIDTH, WORDS, WIDTH, CUTOFFS),
    "plain, projected": lambda: PlainSoftmax(WIDTH, WORDS, 8, CUTOFFS),
    "plain, one cluster": lambda: PlainSoftmax(WIDTH, WORDS, WIDTH, []),
}


def drawn(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.double().parameters():
            p.normal_()
    return module


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def cluster_of(word, cutoffs):
    return next(i for i, (begin, end) in enumerate(spans(WORDS, cutoffs)) if begin <= word < end)


def test_spans_of_clusters():
    assert spans(WORDS, CUTOFFS) == [(0, 4), (4, 9), (9, 17)] and spans(WORDS, []) == [(0, 17)]


def test_adaptive_vectors():
    embed = drawn(AdaptiveEmbedding(WIDTH, WORDS, 8, CUTOFFS, 2))
    assert [tuple(t.weight.shape) for t in embed.tables] == [(4, 8), (5, 4), (8, 2)]
    assert (embed.num_embeddings, embed.embedding_dim) == (WORDS, WIDTH)
    got = embed(torch.arange(WORDS).view(1, WORDS))
    for word in range(WORDS):
        i = cluster_of(word, CUTOFFS)
        own = embed.tables[i].weight[word - spans(WORDS, CUTOFFS)[i][0]]
        close(got[0, word], WIDTH**0.5 * embed.projections[i].weight @ own)


@pytest.mark.parametrize("inner", [WIDTH, 8])
def test_plain_vectors(inner):
    embed = drawn(PlainEmbedding(WIDTH, WORDS, inner))
    got = embed(torch.arange(WORDS))
    for word in range(WORDS):
        own = embed.tables[0].weight[word]
        close(got[word], WIDTH**0.5 * (own if inner == WIDTH else embed.projections[0].weight @ own))


def probability(softmax, x, word):
    """By definition: of the word's cluster beside the frequent words, times its own within the cluster."""
    bounds = spans(WORDS, softmax.cutoffs)
    i = cluster_of(word, softmax.cutoffs)

    def scores(number):
        begin, end = bounds[number]
        shared = len(softmax.layers) == 1
        layer = softmax.layers[0 if shared else number]
        rows = range(begin, end) if shared else range(end - begin)
        narrow = x @ softmax.projections[number].weight if len(softmax.projections) else x
        found = [layer.weight[row] @ narrow + layer.bias[row] for row in rows]
        if number == 0 and softmax.clusters is not None:
            pairs = zip(softmax.clusters.weight, softmax.clusters.bias, strict=True)
            found += [row @ narrow + bias for row, bias in pairs]
        return torch.stack(found)

    first = scores(0).softmax(0)
    if i == 0:
        return first[word]
    return first[bounds[0][1] + i - 1] * scores(i).softmax(0)[word - bounds[i][0]]


@pytest.mark.parametrize("kind", SOFTMAXES)
def test_probabilities(kind):
    softmax = drawn(SOFTMAXES[kind]())
    x = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    got = softmax(x)
    assert got.shape == (2, 3, WORDS) and softmax.words == WORDS
    close(got.exp().sum(-1), torch.ones(2, 3, dtype=torch.float64))
    for word in range(WORDS):
        close(got[1, 2, word].exp(), probability(softmax, x[1, 2], word))


@pytest.mark.parametrize("kind", SOFTMAXES)
@pytest.mark.parametrize("words", [[16, 0, -100, 5, 3, 9, 8, 4, 16], [2, 1, 0], [-100, -100], [12]], ids=str)
def test_losses_and_their_gradients(kind, words):
    """As those of all probabilities, in the order of clusters; also where a cluster has no word, or no token counts."""
    softmax = drawn(SOFTMAXES[kind]())
    x = torch.randn(len(words), WIDTH, dtype=torch.float64, requires_grad=True)
    order = sorted((cluster_of(word, softmax.cutoffs), i) for i, word in enumerate(words) if word >= 0)
    scores = softmax(x)
    want = torch.stack([-scores[i, words[i]] for _, i in order] + [x.new_zeros(())] * words.count(-100))
    got = softmax.losses(x, torch.tensor(words))
    close(got, want)

    def gradients(losses):
        pulled = (losses * torch.arange(1, len(words) + 1)).sum() + 0 * x.sum()
        inputs = [x, *softmax.parameters()]
        return torch.autograd.grad(pulled, inputs, allow_unused=True, materialize_grads=True)

    for a, b in zip(gradients(got), gradients(want), strict=True):
        close(a, b)


def test_losses_in_a_graph():
    """The same without a look at the words."""
    torch._dynamo.reset()
    softmax = drawn(SOFTMAXES["adaptive"]())
    x, words = torch.randn(6, WIDTH, dtype=torch.float64), torch.tensor([16, 0, -100, 5, 3, 9])
    compiled = torch.compile(softmax.losses, fullgraph=True, backend="eager")
    close(compiled(x, words), softmax.losses(x, words))


def test_a_word_that_is_none():
    with pytest.raises(ValueError, match="labels contain 17"):
        drawn(SOFTMAXES["adaptive"]()).losses(torch.zeros(1, WIDTH).double(), torch.tensor([17]))
