"""The reference of every table: the 3-D convolution itself.

    y = W * x,    t·d²·C·S parameters

Listed so that a table has a first row; `edge4d.lower` turns it into 2-D convolutions with the same numbers.
"""

from __future__ import annotations

from torch import Tensor, nn

from edge4d.blocks.base import Block, System
from edge4d.blocks.geometry import Geometry

__all__ = ["Conv3dBlock"]


class Conv3dBlock(Block):
    """A Conv3d in the place of a Conv3d."""

    name = "conv3d"

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        g = geometry
        even = all(before == after for before, after in g.padding)
        padding = tuple(before for before, _ in g.padding) if even else "same"  # uneven only where 'same' was asked for
        self.conv = nn.Conv3d(
            g.in_channels,
            g.out_channels,
            g.kernel,
            g.stride,
            padding,  # type: ignore[arg-type]
            g.dilation,
            g.groups,
            g.bias,
            g.padding_mode,  # type: ignore[arg-type]
        )

    def transform(self, clip: Tensor) -> Tensor:
        """The convolution."""
        result: Tensor = self.conv(clip)
        return result

    def adopt(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take the weights as they are."""
        self.conv.weight.copy_(weight)
        if bias is not None and self.conv.bias is not None:
            self.conv.bias.copy_(bias)

    def systems(self, clip: Tensor) -> tuple[System, ...]:
        """None: it is exact already."""
        return ()

    def kernel(self) -> Tensor:
        """The weight."""
        return self.conv.weight.detach().double()
