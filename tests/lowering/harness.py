"""Lowers a module in float64 and holds it against eager PyTorch."""

from __future__ import annotations

import torch
from torch.utils import _pytree as pytree

from edge4d.lowered import Lowered, lower

RANGE = 1e-12
"""Largest error, relative to the output's range, between float64 eager and float64 lowered."""


class Fn(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Seeded weights and batch-norm statistics far from their defaults, so that folding errors show."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            with torch.no_grad():
                tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else noise)
    return module


def lowered_equals_eager(module, *args, tolerance: float = RANGE) -> Lowered:
    """Lower `module` and compare; returns the lowered model for further assertions."""
    module = module.double().eval()
    args = tuple(a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args)
    with torch.no_grad():
        expected = module(*args)
    lowered = lower(module, args)
    with torch.no_grad():
        got = lowered.unpack(lowered.module(*lowered.pack(*args)))
    assert_close(got, expected, tolerance)
    return lowered


def assert_close(got, expected, tolerance: float) -> None:
    """Same structure, shapes, dtypes; floating values within `tolerance` of the expected range."""
    worst = worst_error(got, expected)
    assert worst <= tolerance, f"off by {worst:.3g} of the output's range, allowed {tolerance:.3g}"


def worst_error(got, expected) -> float:
    """The largest difference, relative to its output's range; structure, shapes, dtypes and integers must be equal."""
    got_leaves, got_spec = pytree.tree_flatten(got)
    want_leaves, want_spec = pytree.tree_flatten(expected)
    assert got_spec == want_spec
    assert got_leaves
    worst = 0.0
    for g, w in zip(got_leaves, want_leaves, strict=True):
        assert g.shape == w.shape
        assert g.dtype == w.dtype
        assert g.numel() > 0
        if not w.is_floating_point():
            assert torch.equal(g, w)
            continue
        assert torch.isfinite(w).all(), "the reference itself is not finite"
        assert torch.isfinite(g).all(), "the result is not finite"
        magnitude = w.abs().max().item() or 1.0
        spread = (w.max() - w.min()).item()
        if spread <= 64 * torch.finfo(w.dtype).eps * magnitude:  # sums of a softmax: the range is rounding alone
            spread = magnitude
        worst = max(worst, (g - w).abs().max().item() / spread)
    return worst


def ops_of(lowered: Lowered) -> list[str]:
    """ATen calls of the lowered graph."""
    return [str(node.target) for node in lowered.module.graph.nodes if node.op == "call_function"]
