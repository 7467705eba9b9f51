"""Spatial, then temporal: what R(2+1)D and P3D-A have in common, for any width between the two."""

from __future__ import annotations

import torch
from torch import Tensor

from edge4d.blocks.base import Block, SpatialConv, System, TemporalConv, activation_of
from edge4d.blocks.factors import best_factors
from edge4d.blocks.geometry import Geometry
from edge4d.errors import UsageError

__all__ = ["Serial", "as_matrices", "compose"]


class Serial(Block):
    """y = T(a(S(x))): S is kH×kW without a bias, C → M; T is kT×1 with the Conv3d's bias, M → S.

    As S has no bias, zero frames stay zero, and the structure equals one Conv3d exactly when `activation` is None:
    its weight is Σ_m T[s, m, t]·S[m, c, h, w], any weight of rank M between (s, t) and (c, h, w).

    Args:
        geometry: of the Conv3d.
        width: M, divisible by the groups.
        activation: None, or ``relu`` between the two.

    Parameters: kH·kW·C·M/groups + kT·M·S/groups (and S of the bias).
    """

    def __init__(self, geometry: Geometry, width: int, activation: str | None) -> None:
        super().__init__(geometry)
        g = geometry
        if width < g.groups or width % g.groups:
            raise UsageError(f"{self.name}: a width of {width} between the convolutions does not fit {g.groups} groups")
        self.width = width
        self.spatial = SpatialConv(g, g.in_channels, width, groups=g.groups, bias=False)
        self.activation = activation_of(activation)
        self.temporal = TemporalConv(g, width, g.out_channels, groups=g.groups, bias=g.bias)

    def transform(self, clip: Tensor) -> Tensor:
        """Frames packing, then temporal packing."""
        result: Tensor = self.temporal(self.between(clip))
        return result

    def adopt(self, weight: Tensor, bias: Tensor | None) -> None:
        """The truncated SVD of each group's weight as a matrix (s t) × (c h w): the best fit, exact at full rank."""
        g = self.geometry
        left, right = best_factors(as_matrices(weight, g), self.width // g.groups)
        per_group = self.width // g.groups
        left = left.reshape(g.groups, -1, g.kernel[0], per_group).movedim(2, 3)
        self.temporal.weight.copy_(left.reshape(self.temporal.weight.shape))
        self.spatial.weight.copy_(right.reshape(self.spatial.weight.shape))
        if bias is not None and self.temporal.bias is not None:
            self.temporal.bias.copy_(bias)

    def systems(self, clip: Tensor) -> tuple[System, ...]:
        """The temporal convolution, given the spatial one."""
        between = self.between(clip)
        return (System((self.temporal,), (self.temporal.columns(between),), self.temporal.bias),)

    def between(self, clip: Tensor) -> Tensor:
        """What lies between the two convolutions, (N, M, T, H', W')."""
        between: Tensor = self.spatial(clip)
        return between if self.activation is None else self.activation(between)

    def kernel(self) -> Tensor | None:
        """Σ_m T[s, m, t]·S[m, c, h, w] within each group."""
        if self.activation is not None:
            return None
        return compose(self.temporal.weight, self.spatial.weight, self.geometry)


def as_matrices(weight: Tensor, geometry: Geometry) -> Tensor:
    """(S, C/groups, kT, kH, kW) → (groups, S/groups·kT, C/groups·kH·kW)."""
    g = geometry
    split = weight.reshape(g.groups, g.out_channels // g.groups, -1, *g.kernel)
    return split.movedim(3, 2).reshape(g.groups, g.out_channels // g.groups * g.kernel[0], -1)


def compose(temporal: Tensor, spatial: Tensor, geometry: Geometry) -> Tensor:
    """The weight of the one Conv3d that `spatial` followed by `temporal` equals, (S, C/groups, kT, kH, kW), float64."""
    groups = geometry.groups
    t = temporal.detach().double()[..., 0].reshape(groups, -1, *temporal.shape[1:3])
    s = spatial.detach().double().reshape(groups, -1, *spatial.shape[1:])
    return torch.einsum("gsmt,gmchw->gscthw", t, s).flatten(0, 1)
