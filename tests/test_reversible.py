"""Layers run backwards: the same values and gradients as by keeping everything, and nothing kept."""

import pytest
import torch
from torch import nn

from polyformer.parts.reversible import Couple, run_reversibly


def branch(width):
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Dropout(0.3), nn.Linear(width, width)).double()


def couples(count, width=6):
    torch.manual_seed(1)
    pairs = [(branch(width), branch(width)) for _ in range(count)]
    return [Couple(f, g, list(f.parameters()), list(g.parameters())) for f, g in pairs]


def plainly(layers, x1, x2):
    for c in layers:
        x1 = x1 + c.f(x2)
        x2 = x2 + c.g(x1)
    return x1, x2


def weights_of(layers):
    return [w for c in layers for w in (*c.f_weights, *c.g_weights)]


def kept(run):
    """How many numbers autograd keeps for the backward pass."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        run()
    return sum(sizes)


def test_values_and_gradients_are_those_of_the_plain_layers():
    """In training, whose dropout is drawn again as it was; torch's random state afterwards is that of a plain run."""
    layers = couples(4)
    layers[1].g_weights[0].requires_grad_(False)
    x = torch.randn(3, 5, 6, dtype=torch.float64, requires_grad=True)
    found = []
    for run in (plainly, run_reversibly):
        torch.manual_seed(2)
        y1, y2 = run(layers, x, x * 2)
        learns = [x, *(w for w in weights_of(layers) if w.requires_grad)]
        grads = torch.autograd.grad((y1.sin() * y2).sum(), learns)
        found.append(((y1, y2), grads, torch.get_rng_state()))
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-11, atol=1e-11)
    assert torch.equal(found[0][2], found[1][2])


def test_what_is_kept_does_not_grow_with_the_layers():
    x = torch.randn(3, 5, 6, dtype=torch.float64, requires_grad=True)
    few, many = couples(2), couples(8)
    own = [sum(w.numel() for w in weights_of(layers)) for layers in (few, many)]
    assert kept(lambda: run_reversibly(few, x, x)) == kept(lambda: run_reversibly(many, x, x)) == 2 * x.numel()
    assert kept(lambda: plainly(many, x, x)) - own[1] > 2 * (kept(lambda: plainly(few, x, x)) - own[0])


def test_a_weight_in_two_branches_gets_both_gradients():
    torch.manual_seed(1)
    shared = branch(4).eval()
    layers = [Couple(shared, shared, list(shared.parameters()), list(shared.parameters())) for _ in range(2)]
    x = torch.randn(2, 4, dtype=torch.float64)
    found = []
    for run in (plainly, run_reversibly):
        shared.zero_grad()
        sum(y.square().sum() for y in run(layers, x, x)).backward()
        found.append([p.grad.clone() for p in shared.parameters()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-11, atol=1e-11)


def test_a_second_run_is_as_precise_as_the_first():
    """Autocast holds for both."""
    layers = [Couple(c.f.float().eval(), c.g.float().eval(), c.f_weights, c.g_weights) for c in couples(2)]
    x = torch.randn(3, 6, requires_grad=True)
    found = []
    for run in (plainly, run_reversibly):
        with torch.autocast("cpu", torch.bfloat16):
            y1, y2 = run(layers, x, x)
        found.append(torch.autograd.grad((y1 + y2).sum(), x)[0])
    torch.testing.assert_close(found[1], found[0], rtol=2e-2, atol=2e-2)


def test_no_gradient_of_gradients():
    layers = couples(1)
    x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    grad = torch.autograd.grad(run_reversibly(layers, x, x)[0].square().sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
