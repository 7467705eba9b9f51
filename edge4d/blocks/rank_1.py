"""Rank-1: filters along one direction each, one after the other.

Jin et al., *Flattened Convolutional Neural Networks for Feedforward Acceleration*, 2014 (channels, then vertical, then
horizontal, one filter a channel), and Kim et al., *Rank-1 Convolutional Neural Network*, 2018 (the outer product of
three vectors a filter) both make each kernel rank 1. The paper (sections I, III) only says "a consecutive sequence of
one-dimensional filters across all directions". Its 13.7 M parameters exclude one filter a channel (that would leave
about 3 M) and are near what *full* 1-D convolutions give, so that is our reading:

    y = T(H(W(x))),    w·C·S + h·S² + t·S² parameters

W mixes channels C → S along the width, H and T mix S → S along height and time. Each is rank 1 in space and time for a
pair of channels; their chain is a tensor train with S channels at both joints. No activation stands between.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edge4d.blocks.base import Block, SpatialConv, System, TemporalConv
from edge4d.blocks.factors import best_factors, leading_basis
from edge4d.blocks.geometry import Geometry
from edge4d.errors import UsageError

__all__ = ["Rank1"]

SWEEPS = 1
"""Alternating sweeps after the first truncation: each gains less than a percent, for two eigendecompositions."""


class Rank1(Block):
    """One-dimensional convolutions along W, H and T in turn.

    Args:
        geometry: of the Conv3d.
        rank: channels at each joint in each group; S (of the group) when None.
    """

    name = "rank-1"

    def __init__(self, geometry: Geometry, *, rank: int | None = None) -> None:
        super().__init__(geometry)
        g = geometry
        per_group = g.out_channels // g.groups if rank is None else rank
        if per_group < 1:
            raise UsageError(f"rank-1: rank must be a positive number, got {rank}")
        width = per_group * g.groups
        self.width = width
        self.along_w = SpatialConv(g, g.in_channels, width, groups=g.groups, bias=False, axes="w")
        self.along_h = SpatialConv(g, width, width, groups=g.groups, bias=False, axes="h")
        self.along_t = TemporalConv(g, width, g.out_channels, groups=g.groups, bias=g.bias)

    def transform(self, clip: Tensor) -> Tensor:
        """Two convolutions in frames packing, one in temporal packing."""
        result: Tensor = self.along_t(self.along_h(self.along_w(clip)))
        return result

    def adopt(self, weight: Tensor, bias: Tensor | None) -> None:
        """The tensor train (s t)·(h)·(c w) of each group: two truncated SVDs, then alternating least squares."""
        g = self.geometry
        rank = self.width // g.groups
        split = weight.reshape(g.groups, -1, *weight.shape[1:]).permute(0, 1, 3, 4, 2, 5)  # g s t h c w
        groups, s, kt, kh, c, kw = split.shape
        target = split.reshape(groups, s * kt, kh, c * kw)
        left, rest = best_factors(target.flatten(2), rank)
        middle, right = best_factors(rest.reshape(groups, rank * kh, c * kw), rank)
        middle = middle.reshape(groups, rank, kh, rank)
        if rank < min(s * kt, c * kw):
            left, middle, right = _sweeps(target, left, middle, right)
        left = left.reshape(groups, s, kt, rank).movedim(2, 3)
        self.along_t.weight.copy_(left.reshape(self.along_t.weight.shape))
        self.along_h.weight.copy_(middle.movedim(2, 3).reshape(self.along_h.weight.shape))
        self.along_w.weight.copy_(right.reshape(self.along_w.weight.shape))
        if bias is not None and self.along_t.bias is not None:
            self.along_t.bias.copy_(bias)

    def systems(self, clip: Tensor) -> tuple[System, ...]:
        """The last convolution, given the first two."""
        columns = self.along_t.columns(self.along_h(self.along_w(clip)))
        return (System((self.along_t,), (columns,), self.along_t.bias),)

    def kernel(self) -> Tensor:
        """Σ_ab T[s, a, t]·H[a, b, h]·W[b, c, w] within each group."""
        groups = self.geometry.groups
        t, h, w = (
            conv.weight.detach().double().reshape(groups, -1, conv.weight.shape[1], max(conv.weight.shape[2:]))
            for conv in (self.along_t, self.along_h, self.along_w)
        )
        return torch.einsum("gsat,gabh,gbcw->gscthw", t, h, w).flatten(0, 1)


def _sweeps(target: Tensor, left: Tensor, middle: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Improve left[p, a]·middle[a, h, b]·right[b, q] ≈ target[p, h, q], one factor at a time.

    With the other two orthonormal each step is a projection, so the error never grows.
    """
    rank = left.shape[-1]
    for _ in range(SWEEPS):
        left = torch.linalg.qr(left).Q
        inner = torch.einsum("gpa,gphq->gahq", left, target)  # the best middle·right for this left
        right = leading_basis(inner.flatten(1, 2).mT, rank).mT
        outer = torch.einsum("gphq,gbq->gphb", target, right)  # the best left·middle for this right
        left, rest = best_factors(outer.flatten(2), rank)
        middle = rest.reshape(*rest.shape[:2], *outer.shape[2:])
    return left, middle, right
