"""Property 4: a sentence gets the same answer alone, in a batch, and wherever it stands in the batch."""

import torch

import zoo

LENGTHS = (9, 4, 12, 7, 7)
ALL = {"output_attentions": True, "output_hidden_states": True}


@zoo.each(zoo.own())
def test_batch_of_one_is_batch_of_n_is_permuted_batch(case):
    model = zoo.make(case)
    rows = zoo.sentences(case, LENGTHS)
    order = [3, 0, 4, 2, 1]
    with torch.no_grad():
        for options in ({}, ALL):
            whole = model(**zoo.without_labels(zoo.batch(rows)), **options)
            moved = model(**zoo.without_labels(zoo.batch([rows[i] for i in order])), **options)
            for i, length in enumerate(LENGTHS):
                alone = model(**zoo.without_labels(zoo.batch([rows[i]], mask=False)), **options)
                want = zoo.outputs_of_row(case, alone, 0, length, side="right")
                in_batch = zoo.outputs_of_row(case, whole, i, length, side="right")
                elsewhere = zoo.outputs_of_row(case, moved, order.index(i), length, side="right")
                zoo.assert_same(in_batch, want, 1e-9)
                zoo.assert_same(elsewhere, want, 1e-9)
