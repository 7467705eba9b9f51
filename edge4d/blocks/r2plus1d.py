"""R(2+1)D: Tran et al., *A Closer Look at Spatiotemporal Convolutions for Action Recognition*, CVPR 2018, section 3.5.

    y = T(S(x)),    M = ⌊t·d²·C·S / (d²·C + t·S)⌋ channels between

M makes d²·C·M + t·M·S parameters, as many as the Conv3d has (t·d²·C·S), to within rounding down. The original puts
batch norm and a ReLU between the two; here ``activation="relu"`` puts the ReLU, and the default puts nothing: a trained
Conv3d is then matched as well as the rank allows, and exactly at full rank, min(t·S, d²·C).
"""

from __future__ import annotations

from typing import Any

from torch import nn

from edge4d.blocks.factors import rank_for_energy
from edge4d.blocks.geometry import Geometry
from edge4d.blocks.serial import Serial, as_matrices
from edge4d.errors import UsageError

__all__ = ["R2Plus1d", "full_rank", "matched_width"]


class R2Plus1d(Serial):
    """Spatial then temporal convolution, by default of as many parameters as the Conv3d.

    Args:
        geometry: of the Conv3d.
        rank: M, channels between the two in each group; ``"full"`` for the rank at which any Conv3d is matched
            exactly; the parameter-matched width when None.
        energy: for `fit`: the least M that keeps this share of the weight's squared norm, e.g. 0.99.
        activation: None, or ``relu`` between the two.
    """

    name = "r2plus1d"

    def __init__(
        self,
        geometry: Geometry,
        *,
        rank: int | str | None = None,
        energy: float | None = None,
        activation: str | None = None,
    ) -> None:
        if energy is not None:
            raise UsageError("r2plus1d: energy needs a trained weight", hint="use fit, or give rank=")
        if rank is None:
            width = matched_width(geometry)
        elif rank == "full":
            width = full_rank(geometry)
        elif isinstance(rank, int) and rank >= 1:
            width = rank
        else:
            raise UsageError(f"r2plus1d: rank must be a positive number or 'full', got {rank!r}")
        super().__init__(geometry, width * geometry.groups, activation)

    @classmethod
    def options_for(cls, conv: nn.Conv3d, options: dict[str, Any]) -> dict[str, Any]:
        """Turn `energy` into the rank that keeps it."""
        energy = options.get("energy")
        if energy is None:
            return options
        if options.get("rank") is not None:
            raise UsageError("r2plus1d: rank and energy exclude each other")
        if not 0 < energy <= 1:
            raise UsageError(f"r2plus1d: energy must be above 0 and at most 1, got {energy}")
        rank = rank_for_energy(as_matrices(conv.weight.detach().double(), Geometry.of(conv)), energy)
        return {**options, "energy": None, "rank": rank}


def matched_width(geometry: Geometry) -> int:
    """M of one group: ⌊t·d²·C·S / (d²·C + t·S)⌋ with the group's C and S, at least 1."""
    taps, height, width = geometry.kernel
    c, s = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    area = height * width
    return max(1, taps * area * c * s // (area * c + taps * s))


def full_rank(geometry: Geometry) -> int:
    """The greatest rank that one group's weight can have: min(t·S, d²·C)."""
    taps, height, width = geometry.kernel
    c, s = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    return min(taps * s, height * width * c)
