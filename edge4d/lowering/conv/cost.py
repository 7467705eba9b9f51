"""What a formulation costs: the work it consists of, and how long a runtime takes for each kind of work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge4d.lowering.conv.spec import ConvSpec

__all__ = ["WORK", "Cost", "Rates", "frame_macs", "frame_sizes"]

WORK = ("wide", "narrow", "grouped", "depthwise", "ragged", "matrix", "moved", "rowed", "weights", "calls")
"""Kinds of work. The first five are multiply-accumulates of 2-D convolutions: of at least 16 input channels a group;
of fewer; of fewer in more than one group; of one channel a group; and the same where the channels are no multiple of 4,
which vector layouts take in fours. Then those of products along time, elements read or written besides, elements of
transformed rows, of weights, calls."""

_FULL = 16
"""Input channels a group that fill the vector units."""


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
        groups: channel groups of those convolutions.
        rowed: elements of rows that are transformed for its convolutions, and back.
        held: elements of what lies between its input and its result, all at once.
    """

    macs: int
    channels: int
    moved: int = 0
    matrix_macs: int = 0
    calls: int = 1
    weights: int = 0
    groups: int = 1
    held: int = 0
    rowed: int = 0

    @property
    def kind(self) -> str:
        """Which of the first five kinds of `WORK` its convolutions are."""
        if self.channels == 1 and self.groups > 1:
            return "ragged" if self.groups % 4 else "depthwise"
        if self.channels >= _FULL:
            return "wide"
        return "grouped" if self.groups > 1 else "narrow"

    @property
    def work(self) -> tuple[float, ...]:
        """Amounts in the order of `WORK`; few channels fill the vector units in part, and count for more."""
        filled = min(4.0, max(1.0, _FULL / self.channels)) if self.kind in ("narrow", "grouped") else 1.0
        convolved = tuple(self.macs * filled if kind == self.kind else 0 for kind in WORK[:5])
        return (*convolved, self.matrix_macs, self.moved, self.rowed, self.weights, self.calls)


@dataclass(frozen=True)
class Rates:
    """Nanoseconds for one of each kind of `WORK` on one runtime, on one core of the machine it was fitted on.

    Only their proportions matter: they rank formulations of one layer. `benchmarks/calibrate.py` fits them.
    """

    wide: float
    narrow: float
    grouped: float
    depthwise: float
    ragged: float
    matrix: float
    moved: float
    rowed: float
    weights: float
    calls: float

    def milliseconds(self, cost: Cost) -> float:
        """The prediction for one layer."""
        rates: tuple[float, ...] = tuple(getattr(self, kind) for kind in WORK)
        return sum(rate * amount for rate, amount in zip(rates, cost.work, strict=True)) / 1e6


def frame_macs(spec: ConvSpec) -> int:
    """Multiply-accumulates of one temporal tap on one frame of every sample."""
    n, outs, _, height, width = spec.shape
    return n * outs * height * width * math.prod(spec.weight.shape[1:2] + spec.weight.shape[3:])


def frame_sizes(spec: ConvSpec) -> tuple[int, int]:
    """Elements of one frame of every sample: of the input, of the result."""
    n, channels, _, height, width = spec.x.shape
    return n * channels * height * width, n * spec.shape[1] * math.prod(spec.shape[3:])
