"""The linear map of the large layers answers as torch's own, whichever kernel runs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from polyformer.parts import linear as module
from polyformer.parts.linear import FEW, MANY, Linear

WIDE = (1024, 1030)


@pytest.fixture(scope="module")
def large():
    torch.manual_seed(0)
    return Linear(*WIDE)


def fits(x, layer):
    with torch.no_grad():
        return module._inner_product_fits(x, layer.weight)


@pytest.mark.parametrize("rows", [1, FEW - 1, FEW, 9, MANY, MANY + 1])
def test_any_number_of_rows(large, rows):
    x = torch.randn(rows, WIDE[0])
    with torch.no_grad():
        want = F.linear(x.double(), large.weight.double(), large.bias.double())
        torch.testing.assert_close(large(x).double(), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", ["batched", "strided", "shared", "turned"])
def test_any_layout(large, make):
    x = {
        "batched": lambda: torch.randn(2, 5, WIDE[0]),
        "strided": lambda: torch.randn(7, 2 * WIDE[0])[:, ::2],
        "shared": lambda: torch.randn(1, WIDE[0]).expand(6, -1),
        "turned": lambda: torch.randn(WIDE[0], 6).T,
    }[make]()
    with torch.no_grad():
        got, want = large(x), F.linear(x, large.weight, large.bias)
    assert got.shape == want.shape and got.is_contiguous()
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_gradients_autocast_and_other_types_keep_torch_s_kernel(large):
    x = torch.randn(8, WIDE[0])
    assert large(x).requires_grad
    assert not module._inner_product_fits(x, large.weight)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert large(x).dtype == torch.bfloat16
        assert not fits(x.double(), Linear(8, 8).double())
        turned = nn.Parameter(large.weight.data.T.contiguous().T)
        assert not module._inner_product_fits(x, turned)


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available(),
    reason="the other kernel is for CPUs with AVX-512",
)
def test_the_other_kernel_runs_where_it_is_meant_to(large):
    with torch.no_grad(), torch.profiler.profile() as seen:
        large(torch.randn(FEW, WIDE[0]))
        large(torch.randn(FEW - 1, WIDE[0]))
    assert [e.count for e in seen.key_averages() if e.key == "mkldnn::_linear_pointwise"] == [1]


def test_a_graph_has_torch_s_map(large):
    exported = torch.export.export(large, (torch.randn(8, WIDE[0]),))
    assert not [n for n in exported.graph.nodes if "mkldnn" in str(n.target)]
