"""What a formulation costs, in multiply-accumulates of a wide 2-D convolution: the planner's one currency.

The weights below are those of a CPU with vector instructions, rounded; they rank formulations of one layer, and predict
no milliseconds. Where a runtime is at hand, measuring beats them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge4d.lowering.conv.spec import ConvSpec

__all__ = ["Cost", "frame_macs", "frame_sizes"]

_MOVED = 16
"""Reading or writing one element, in multiply-accumulates."""

_CALL = 300_000
"""Starting one operator."""

_MATRIX = 3
"""A product with a matrix as small as a clip is long runs at a third of a convolution's speed."""

_NARROW = 16
"""Input channels a group that fill the vector units; fewer are slower in proportion, 4 times at most."""


@dataclass(frozen=True)
class Cost:
    """Of one layer for the whole batch.

    Attributes:
        macs: multiply-accumulates of its convolutions.
        channels: input channels a group of those convolutions.
        moved: elements read and written besides: slices, sums, repacks.
        matrix_macs: multiply-accumulates of matrix products along time.
        calls: operators that do work.
        weights: elements of its weights.
    """

    macs: int
    channels: int
    moved: int = 0
    matrix_macs: int = 0
    calls: int = 1
    weights: int = 0

    @property
    def total(self) -> float:
        """In multiply-accumulates of a wide convolution."""
        slower = min(4.0, max(1.0, _NARROW / self.channels))
        return self.macs * slower + self.matrix_macs * _MATRIX + self.moved * _MOVED + self.calls * _CALL


def frame_macs(spec: ConvSpec) -> int:
    """Multiply-accumulates of one temporal tap on one frame of every sample."""
    n, outs, _, height, width = spec.shape
    return n * outs * height * width * math.prod(spec.weight.shape[1:2] + spec.weight.shape[3:])


def frame_sizes(spec: ConvSpec) -> tuple[int, int]:
    """Elements of one frame of every sample: of the input, of the result."""
    n, channels, _, height, width = spec.x.shape
    return n * channels * height * width, n * spec.shape[1] * math.prod(spec.shape[3:])
