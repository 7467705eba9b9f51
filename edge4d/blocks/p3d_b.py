"""P3D-B: Qiu et al., *Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks*, ICCV 2017, fig. 2(b).

    y = S(x) + T(x),    d²·C·S + t·C·S parameters

The parallel design, (I + S + T)·x in the paper; what is left out here is as for P3D-A. Both convolutions stride like
the Conv3d, S by taking the frames under its middle tap. So at stride 1 it is Proposed-Add, and elsewhere Proposed-Add
without the learned pooling: the paper's structure differs by P, by the flattened stride and by its 4-D tensors.
"""

from __future__ import annotations

from edge4d.blocks.geometry import Geometry
from edge4d.blocks.proposed_add import ProposedAdd

__all__ = ["P3dB"]


class P3dB(ProposedAdd):
    """Spatial and temporal convolution C → S, added.

    Args:
        geometry: of the Conv3d.
    """

    name = "p3d-b"

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry, alignment="spatial", temporal_pool="select")
