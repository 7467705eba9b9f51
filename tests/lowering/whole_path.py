"""A random network the whole way that a user's takes: `edge4d.export`, the gate, `edge4d.open` on ONNX Runtime.

In float32, as ONNX Runtime has convolutions in no wider type. What is true is the same network in float64, with the
very numbers that float32 holds; eager float32 is the referee where float32 has too few digits for the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import edge4d

__all__ = ["WITHIN", "Distance", "distance", "whole_path"]

WITHIN = 1e-5
"""Of each output's range, the limit of `edge4d.export`'s own parity check: float32 summed in another order stays within
a few 1e-7, Winograd along time within 2e-6; beyond it lies what is wrong, or what float32 cannot hold."""

_AS_COARSE = 2
"""Times what eager float32 errs, beyond `WITHIN`: both round, each in its own order."""

_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Distance:
    """From float64, relative to the output's range, of the output where it is worst.

    Attributes:
        ours: of the artifact.
        eager: of float32 PyTorch, on the same output.
    """

    ours: float
    eager: float

    @property
    def exact(self) -> bool:
        """Whether the artifact is as close as is promised."""
        return self.ours <= WITHIN

    @property
    def coarse(self) -> bool:
        """Whether float32 is at fault and not the artifact."""
        return not self.exact and self.ours <= _AS_COARSE * self.eager


class _SideBySide(nn.Module):
    """Several networks as one, each with an input of its own: what an export costs by itself is then paid once."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, *clips: Tensor) -> list[list[Tensor]]:
        return [network(clip) for network, clip in zip(self.networks, clips, strict=True)]


def whole_path(networks: Sequence[nn.Module], clips: Sequence[Tensor], folder: Path) -> list[Distance]:
    """Export networks side by side, gate at rank 4, and run on ONNX Runtime, with its optimisations, other inputs.

    Args:
        networks: float64; left so, their numbers rounded to those of float32. Each returns a list of tensors.
        clips: the example of each.
        folder: where the files go.

    Returns:
        How far each of them is off.

    Raises:
        LoweringError: one is refused by name.
        AssertionError: a value above rank 4, or outputs of other shapes, types or number.
    """
    model = _SideBySide(networks).float().eval()
    report = edge4d.export(model, tuple(clip.float() for clip in clips), output=folder / "networks.onnx", sets=1)
    assert report.gate.ok, report.gate.to_text()
    generator = torch.Generator().manual_seed(1)
    given = [torch.randn(clip.shape, generator=generator) for clip in clips]
    with edge4d.open(report.path) as opened:
        got = list(opened(*(clip.numpy() for clip in given)).values())
    with torch.no_grad():
        eager = [[y.numpy() for y in outputs] for outputs in model(*given)]
        true = [[y.numpy() for y in outputs] for outputs in model.double()(*(clip.double() for clip in given))]
    assert len(got) == sum(map(len, true)), f"{len(got)} outputs, expected {sum(map(len, true))}"
    own = [[got.pop(0) for _ in outputs] for outputs in true]
    return [distance(*sides) for sides in zip(own, eager, true, strict=True)]


def distance(got: Sequence[np.ndarray], eager: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> Distance:
    """How far the artifact and float32 PyTorch are from the float64 run; shapes and types are those of PyTorch.

    Raises:
        AssertionError: another number of outputs, another shape or type, something not finite, or nothing at all.
    """
    assert len(got) == len(eager) == len(true) > 0, f"{len(got)} outputs, expected {len(true)}"
    worst = Distance(0.0, 0.0)
    for g, e, t in zip(got, eager, true, strict=True):
        assert g.shape == e.shape == t.shape, f"shape {g.shape}, expected {t.shape}"
        assert g.dtype == e.dtype == np.float32, f"type {g.dtype}, expected {e.dtype}"
        assert g.size > 0
        assert np.isfinite(t).all(), "the reference itself is not finite"
        assert np.isfinite(g).all(), "the result is not finite"
        magnitude = np.abs(t).max() or 1.0
        spread = t.max() - t.min()
        if spread <= 64 * _EPS * magnitude:  # sums of a softmax: the range is rounding alone
            spread = magnitude
        ours, eagers = (float(np.abs(side - t).max() / spread) for side in (g, e))
        worst = max(worst, Distance(ours, eagers), key=lambda one: one.ours / max(WITHIN, _AS_COARSE * one.eager))
    return worst
