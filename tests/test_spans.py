"""The beam of answer spans, against its definition written with loops."""

import pytest
import torch

from polyformer.parts.spans import SpanHead, likeliest

F64 = torch.float64
LOWEST = torch.finfo(F64).min


def head(starts=3, ends=2):
    made = SpanHead(8, 1e-5, starts, ends).double()
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return made


def by_hand(head, states, allowed, whole):
    """Row by row: (start p, place), for every rank of ends and every start (end p, place), and the answer's score."""
    found = []
    for h, may, w in zip(states, allowed, whole, strict=True):
        places = [i for i in range(len(h)) if may[i]]

        def ranked(scores, places=places):
            """(probability, place), the best first, of scores by place."""
            total = sum(scores[i].exp() for i in places)
            return sorted(((scores[i].exp() / total, i) for i in places), key=lambda pair: -pair[0])

        start = ranked([head.start.weight[0] @ x + head.start.bias[0] for x in h])
        ends = []
        for _, s in start[: head.starts]:
            scores = []
            for x in h:
                inner = torch.tanh(head.end.dense.weight @ torch.cat([x, h[s]]) + head.end.dense.bias)
                inner = (inner - inner.mean()) / (inner.var(correction=0) + head.end.norm.eps).sqrt()
                inner = inner * head.end.norm.weight + head.end.norm.bias
                scores.append(head.end.out.weight[0] @ inner + head.end.out.bias[0])
            ends.append(ranked(scores))
        expected = sum(p * h[i] for p, i in start)
        inner = torch.tanh(head.answer.dense.weight @ torch.cat([expected, w]) + head.answer.dense.bias)
        score = head.answer.out.weight[0] @ inner
        flat = [ranks[rank] for rank in range(head.ends) for ranks in ends]
        found.append((start[: head.starts], flat, score))
    return found


@pytest.mark.parametrize("limited", [False, True])
def test_the_best_spans(limited):
    made, states, whole = head(), torch.randn(4, 9, 8, dtype=F64), torch.randn(4, 8, dtype=F64)
    allowed = torch.ones(4, 9, dtype=torch.bool)
    if limited:
        allowed[0, 5:] = allowed[1, :3] = allowed[2, 4] = False
    with torch.no_grad():
        got = made.best(states, allowed if limited else None, whole)
        want = by_hand(made, states, allowed, whole)
    assert got.start_index.tolist() == [[i for _, i in start] for start, _, _ in want]
    assert got.end_index.tolist() == [[i for _, i in ends] for _, ends, _ in want]
    for values, which in ((got.start_probabilities, 0), (got.end_probabilities, 1)):
        torch.testing.assert_close(values, torch.tensor([[p for p, _ in row[which]] for row in want], dtype=F64))
    torch.testing.assert_close(got.answer, torch.stack([score for _, _, score in want]))


def test_scores_where_no_answer_may_be_are_lowest():
    made, states = head(), torch.randn(2, 5, 8, dtype=F64)
    allowed = torch.tensor([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0]]).bool()
    with torch.no_grad():
        start = made.start_scores(states, allowed)
        end = made.end_scores(states, torch.tensor([[1, 3], [2, 1]]), allowed)
    assert start.shape == (2, 5)
    assert end.shape == (2, 5, 2)
    assert torch.equal(start == LOWEST, ~allowed)
    assert torch.equal(end == LOWEST, ~allowed[:, :, None].expand(2, 5, 2))


def test_fewer_places_than_wanted():
    """What is not there has no probability and stands at the first token, however long the row is."""
    p = torch.tensor([[0.3, 0.7]])
    values, index = likeliest(p, 4)
    assert torch.equal(values, torch.tensor([[0.7, 0.3, 0, 0]]))
    assert index.tolist() == [[1, 0, 0, 0]]
    longer = torch.tensor([[0, 0, 0.3, 0.7, 0, 0]])
    assert likeliest(longer, 4)[1].tolist() == [[3, 2, 0, 0]]
    made, states, whole = head(5, 4), torch.randn(1, 3, 8, dtype=F64), torch.randn(1, 8, dtype=F64)
    padded = torch.cat([states, torch.randn(1, 4, 8, dtype=F64)], 1)
    with torch.no_grad():
        alone = made.best(states, None, whole)
        among = made.best(padded, torch.arange(7)[None] < 3, whole)
    for a, b in zip(alone, among, strict=True):
        torch.testing.assert_close(a, b)
