"""P3D-A: Qiu et al., *Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks*, ICCV 2017, fig. 2(a).

    y = T(S(x)),    d²·C·S + t·S² parameters

The serial one of the three designs, (I + T·S)·x in the paper, whose identity is the shortcut of the residual unit. In a
network whose Conv3d layers are replaced one by one that shortcut is the network's own, so it is left out here; so are
the 1×1×1 convolutions around S and T of the bottleneck form (figure 3(a)) and the batch norm and ReLU after S
(``activation="relu"`` puts the ReLU back). The width between is the number of output channels, as in the original.
"""

from __future__ import annotations

from edge4d.blocks.geometry import Geometry
from edge4d.blocks.serial import Serial

__all__ = ["P3dA"]


class P3dA(Serial):
    """Spatial convolution C → S, then temporal convolution S → S.

    Fitted by the SVD at rank S of S·t × C·d² matrices.

    Args:
        geometry: of the Conv3d.
        activation: None, or ``relu`` between the two.
    """

    name = "p3d-a"

    def __init__(self, geometry: Geometry, *, activation: str | None = None) -> None:
        super().__init__(geometry, geometry.out_channels, activation)
