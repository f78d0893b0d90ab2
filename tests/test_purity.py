"""Property 10: inputs are not touched; eval is deterministic whatever the dropout; a seed reproduces a run."""

import copy
import math
import pickle

import torch

import zoo

DROPOUT = {"hidden_dropout_prob": 0.4, "attention_probs_dropout_prob": 0.4}


def tensors(outputs):
    return {n: v for n, v in outputs.items() if isinstance(v, torch.Tensor)}


@zoo.each(zoo.own())
def test_inputs_and_weights_stay_as_they_are(case):
    model = zoo.make(case)
    inputs = zoo.batch(zoo.sentences(case, (7, 4)))
    before = copy.deepcopy(inputs), {n: p.clone() for n, p in model.state_dict().items()}, model.config.to_dict()
    for options in ({}, {"output_attentions": True, "output_hidden_states": True}):
        model(**inputs, **options)
    assert before[0].keys() == inputs.keys()
    assert all(torch.equal(before[0][n], v) for n, v in inputs.items())
    assert all(torch.equal(before[1][n], v) for n, v in model.state_dict().items())
    assert before[2] == model.config.to_dict()


@zoo.each(zoo.own())
def test_eval_is_deterministic_and_a_seed_reproduces_training(case):
    model = zoo.make(case, **DROPOUT)
    inputs = zoo.batch(zoo.sentences(case, (7, 4)))

    def run(seed):
        torch.manual_seed(seed)
        return tensors(model(**inputs))

    one, two = run(1), run(2)
    assert all(torch.equal(one[n], two[n]) for n in one)
    model.train()
    again = [run(seed) for seed in (1, 1, 2)]
    assert all(torch.equal(again[0][n], again[1][n]) for n in one)
    assert not all(torch.allclose(again[0][n], again[2][n]) for n in one)


@zoo.each([c for c in zoo.CASES if not c.name])
def test_a_new_model_follows_the_seed(case):
    def new(seed):
        torch.manual_seed(seed)
        return case.model_class(case.configure()).state_dict()

    one, same, other = new(3), new(3), new(4)
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert any(not torch.equal(one[n], other[n]) for n in one)


@zoo.each([c for c in zoo.own() if zoo.FAMILY[c.family].starts_alike])
def test_initial_weights_are_the_paper_s(case):
    """Normal with config.initializer_range, biases zero, norms one, the padding vector zero (BERT, appendix A.2)."""
    family = zoo.FAMILY[case.family]
    torch.manual_seed(0)
    model = case.model_class(case.configure())
    for name, p in model.named_parameters():
        if name.endswith("norm.weight"):
            assert (p == 1).all(), name
        elif not p.requires_grad:  # fixed positions (Vaswani et al. 2017, section 3.5)
            for place in range(p.shape[0]):
                for i in range(p.shape[1]):
                    angle = place / 10000 ** (2 * (i // 2) / p.shape[1])
                    assert abs(p[place, i] - (math.cos(angle) if i % 2 else math.sin(angle))) < 1e-6
        elif p.dim() == 1:
            assert (p == 0).all(), name
        else:
            n = p.numel()  # within five standard errors
            std = 0.02 * next((factor for ending, factor in family.narrower.items() if name.endswith(ending)), 1)
            assert abs(p.mean()) < 5 * std / n**0.5, name
            assert abs(p.std() / std - 1) < 5 / (2 * n) ** 0.5 + 0.03, name  # the padding row is zero
    assert (model.get_input_embeddings().weight[model.config.pad_token_id] == 0).all() == family.padding_row


@zoo.each([c for c in zoo.own() if not c.name or "pooling" in c.name])
def test_copies_and_pickles_answer_alike(case):
    model = zoo.make(case)
    inputs = zoo.batch(zoo.sentences(case, (7, 4)))
    want = tensors(model(**inputs))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        got = tensors(other(**inputs))
        assert all(torch.equal(got[n], want[n]) for n in want)
    again = pickle.loads(pickle.dumps(model(**inputs)))
    assert all(torch.equal(again[n], want[n]) for n in want)
