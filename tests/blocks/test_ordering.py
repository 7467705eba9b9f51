"""Joined branches: the numbers and gradients of cat and index_select, in the memory order of what is joined."""

from __future__ import annotations

import pytest
import torch

from edge4d.blocks.ordering import joined
from edge4d.swapping import swap

ORDER = torch.tensor([3, 0, 4, 1, 2])


def parts(*, innermost=True, sizes=(2, 3), dtype=torch.float64):
    torch.manual_seed(0)
    made = [torch.randn(2, c, 3, 4, 5, dtype=dtype) for c in sizes]
    return tuple(
        (p.contiguous(memory_format=torch.channels_last_3d) if innermost else p).requires_grad_() for p in made
    )


@pytest.mark.parametrize("innermost", [True, False])
@pytest.mark.parametrize("sizes", [(2, 3), (5,), (1, 4), (4, 1)])
def test_numbers_and_gradients_are_those_of_a_selection(sizes, innermost):
    given = parts(sizes=sizes, innermost=innermost)
    wanted = torch.cat(given, 1).index_select(1, ORDER)
    found = joined(given, ORDER)
    assert torch.equal(found, wanted)
    assert not torch.equal(found, torch.cat(given, 1)), "an order that changes nothing shows nothing"
    weight = torch.randn_like(wanted)
    for a, b in zip(torch.autograd.grad(found, given, weight), torch.autograd.grad(wanted, given, weight), strict=True):
        assert torch.equal(a, b)


def test_channels_stay_innermost_forwards_and_backwards():
    given = parts()
    found = joined(given, ORDER)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    gradients = torch.autograd.grad(found, given, torch.randn_like(found))
    assert all(g.is_contiguous(memory_format=torch.channels_last_3d) for g in gradients)
    assert joined(parts(innermost=False), ORDER).is_contiguous()


def test_gradients_hold_against_differences():
    assert torch.autograd.gradcheck(lambda *given: joined(given, ORDER), parts())


def test_a_capture_holds_a_plain_selection():
    net = swap(torch.nn.Sequential(torch.nn.Conv3d(2, 6, 3, padding=1)), "proposed-cat").eval()
    clip = torch.randn(1, 2, 4, 6, 6).contiguous(memory_format=torch.channels_last_3d)
    program = torch.export.export(net, (clip,), strict=False)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "aten.index_select.default" in called
    assert not [name for name in called if "scatter" in name]
    with torch.no_grad():
        assert torch.allclose(program.module()(clip), net(clip), atol=1e-6)


def test_a_trace_does_so_too():
    traced = torch.jit.trace(lambda a, b: joined((a, b), ORDER), parts(), check_trace=False)
    assert "aten::index_select" in str(traced.graph)
