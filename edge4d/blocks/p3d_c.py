"""P3D-C: Qiu et al., *Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks*, ICCV 2017, fig. 2(c).

    y = S(x) + T(S(x)),    d²·C·S + t·S² parameters

The compromise of A and B: S reaches the sum directly and through T. What is left out here is as for P3D-A. Where the
Conv3d strides time, the direct path takes the frames under the middle tap of T.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edge4d.blocks.base import System, pick_frames
from edge4d.blocks.geometry import Geometry
from edge4d.blocks.serial import Serial, compose

__all__ = ["P3dC"]


class P3dC(Serial):
    """Spatial convolution C → S, plus the temporal convolution S → S of its result.

    The direct path is T with a one at its middle tap, so the family of kernels is that of P3D-A: the fit is the
    same SVD, less that one.

    Args:
        geometry: of the Conv3d.
        activation: None, or ``relu`` after S, before both paths.
    """

    name = "p3d-c"

    def __init__(self, geometry: Geometry, *, activation: str | None = None) -> None:
        super().__init__(geometry, geometry.out_channels, activation)

    def transform(self, clip: Tensor) -> Tensor:
        """Both paths, added."""
        between = self.between(clip)
        result: Tensor = pick_frames(between, self.geometry) + self.temporal(between)
        return result

    def adopt(self, weight: Tensor, bias: Tensor | None) -> None:
        """The SVD of P3D-A; T gives up what the direct path adds."""
        super().adopt(weight, bias)
        self.temporal.weight.sub_(self._direct())

    def systems(self, clip: Tensor) -> tuple[System, ...]:
        """The temporal convolution, given the spatial one and the direct path."""
        between = self.between(clip)
        direct = pick_frames(between, self.geometry)
        return (System((self.temporal,), (self.temporal.columns(between),), self.temporal.bias, offset=direct),)

    def kernel(self) -> Tensor | None:
        """Σ_m (T[s, m, t] + [s = m, t middle])·S[m, c, h, w]."""
        if self.activation is not None:
            return None
        both = self.temporal.weight.detach().double() + self._direct()
        return compose(both, self.spatial.weight, self.geometry)

    def _direct(self) -> Tensor:
        """The direct path as a temporal weight (S, S/groups, kT, 1), float64."""
        g = self.geometry
        eye = torch.zeros(self.temporal.weight.shape, dtype=torch.float64, device=self.temporal.weight.device)
        per_group = g.out_channels // g.groups
        channels = torch.arange(g.out_channels, device=eye.device)
        eye[channels, channels % per_group, g.centre[0], 0] = 1
        return eye
