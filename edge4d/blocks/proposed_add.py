"""Proposed-Add: the paper's structure, section II and figure 3, with an adding block.

    y = P(S(x)) + T(x),    d²·C·S + t·C·S parameters (12/27 of the Conv3d's at 3×3×3), and S² where time is strided

S filters every frame, T every pixel's history; P pools time "if necessary", see `SpatialBranch` for how that is read
and counted. The paper says nothing of normalisation or activation between; there is none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edge4d.blocks.base import Block, System
from edge4d.blocks.geometry import Geometry
from edge4d.blocks.parallel import SpatialBranch, TemporalBranch

__all__ = ["ProposedAdd"]


class ProposedAdd(Block):
    """A spatial and a temporal branch of S channels each, added.

    It equals a Conv3d whose weight is zero off the cross of the middle temporal tap (all its pixels) and the middle
    pixel (all its taps). The fit keeps the trained weight on that cross. Both branches hold the one tap where the arms
    meet; any split gives the same sum, and the least-squares solution of least norm gives each half.

    Args:
        geometry: of the Conv3d.
        alignment: ``spatial`` or ``paper``, see `TemporalBranch`.
        temporal_pool: ``conv`` or ``select``, see `SpatialBranch`.
    """

    name = "proposed-add"

    def __init__(self, geometry: Geometry, *, alignment: str = "spatial", temporal_pool: str = "conv") -> None:
        super().__init__(geometry)
        g = geometry
        widths = (g.in_channels, g.out_channels)
        # One bias is enough for a sum. The temporal branch has it, as padded frames pass through the spatial one.
        self.spatial = SpatialBranch(g, *widths, groups=g.groups, bias=False, pool=temporal_pool)
        self.temporal = TemporalBranch(g, *widths, groups=g.groups, bias=g.bias, alignment=alignment)

    def transform(self, clip: Tensor) -> Tensor:
        """Both branches, added."""
        result: Tensor = self.spatial(clip) + self.temporal(clip)
        return result

    def adopt(self, weight: Tensor, bias: Tensor | None) -> None:
        """Restrict the weight to the cross."""
        t, h, w = self.geometry.centre
        spatial, temporal = weight[:, :, t].clone(), weight[:, :, :, h, w].clone()
        spatial[:, :, h, w] /= 2
        temporal[:, :, t] /= 2
        self.spatial.adopt(spatial, None)
        self.temporal.adopt(temporal, bias)

    def systems(self, clip: Tensor) -> tuple[System, ...]:
        """Both branches at once."""
        columns = (self.spatial.columns(clip), self.temporal.columns(clip))
        return (System((self.spatial.conv, self.temporal.conv), columns, self.temporal.conv.bias),)

    def kernel(self) -> Tensor | None:
        """The cross; None where paper alignment looks at other pixels than a Conv3d would."""
        if not self.temporal.aligned:
            return None
        g = self.geometry
        t, h, w = g.centre
        spatial, temporal = self.spatial.tap(), self.temporal.tap()
        whole = torch.zeros((*spatial.shape[:2], *g.kernel), dtype=torch.float64, device=spatial.device)
        whole[:, :, t] += spatial
        whole[:, :, :, h, w] += temporal
        return whole
