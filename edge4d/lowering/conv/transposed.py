"""Formulation `phases` of a transposed convolution: one ConvTranspose2d per temporal tap, interleaved by phase.

    y[i·s + k·d − p] += conv_transpose2d(x[i], w[:, :, k])

Output frames of equal remainder modulo the temporal stride form a phase; within a phase the taps are shifted sums as in
`taps`, and the phases are interleaved by one join along a new axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import concat, pad_axes, slice_axis
from edge4d.lowering.conv.cost import Cost, frame_sizes
from edge4d.lowering.conv.plane import frames_conv2d
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.taps import T_AXIS, plane_spec, tap_weight, time_only
from edge4d.lowering.values import Const, Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["SCATTERED", "Tap", "applies", "cost", "landing", "longest", "rewrite"]

aten = torch.ops.aten


SCATTERED = 3
"""Products of a transposed convolution take as long as so many of a plain one, since each is added to its place.

Between the times of both formulations that CPUs took for kernels of 2, 3 and 4 on 48 to 256 channels.
"""


def applies(spec: ConvSpec) -> str | None:
    """Why the formulation does not fit, None when it does."""
    return None if spec.transposed else "not a transposed convolution"


def cost(spec: ConvSpec) -> Cost:
    """Short terms are filled up, taps of a phase summed, phases joined and brought into the order of frames."""
    taps, length = landing(spec), longest(spec)
    frames, results = spec.x.shape[T_AXIS], spec.shape[T_AXIS]
    _, made = frame_sizes(spec)
    phases = {tap.phase for tap in taps}
    filled = sum(_around(tap, frames, length) != (0, 0) for tap in taps)
    sums = len(taps) - len(phases)
    moved = made * length * (2 * filled + 3 * sums) + (4 * made * results if spec.stride[0] > 1 else 0)
    calls = len(taps) + filled + sums + (3 if spec.stride[0] > 1 else 0)
    weights, channels = math.prod(spec.weight.shape), spec.x.shape[1] // spec.groups
    return Cost(SCATTERED * spec.macs, channels, moved, 0, calls, weights, spec.groups)


@dataclass(frozen=True)
class Tap:
    """A temporal tap: frame i lands on frame i + `shift` of `phase`."""

    number: int
    phase: int
    shift: int


def longest(spec: ConvSpec) -> int:
    """Frames of the longest phase; shorter ones are filled up and cut again."""
    return -(-spec.shape[T_AXIS] // spec.stride[0])


def landing(spec: ConvSpec) -> list[Tap]:
    """The taps of which any frame lands on the result."""
    offsets = [tap * spec.dilation[0] - spec.padding[0][0] for tap in range(spec.kernel[0])]
    taps = [Tap(tap, offset % spec.stride[0], offset // spec.stride[0]) for tap, offset in enumerate(offsets)]
    phases, frames, length = min(spec.stride[0], spec.shape[T_AXIS]), spec.x.shape[T_AXIS], longest(spec)
    return [tap for tap in taps if tap.phase < phases and -frames < tap.shift < length]


def rewrite(b: Builder, spec: ConvSpec) -> Operand:
    """Sum each phase, the bias with a tap that all its frames see; interleave the phases."""
    results, length = spec.shape[T_AXIS], longest(spec)
    phases = [_phase(b, spec, phase, length) for phase in range(min(spec.stride[0], results))]
    total = phases[0]
    if len(phases) > 1:
        fresh = [b.lower(aten.unsqueeze.default, phase, T_AXIS + 1) for phase in phases]
        n, channels, _, height, width = spec.shape
        total = concat(b, fresh, T_AXIS + 1)
        total = b.lower(aten.view.default, total, [n, channels, length * len(phases), height, width])
    return slice_axis(b, total, T_AXIS, 0, results)


def _around(tap: Tap, frames: int, length: int) -> tuple[int, int]:
    """How many frames of its phase lie before and behind those that a tap gives."""
    return max(0, tap.shift), max(0, length - frames - tap.shift)


def _phase(b: Builder, spec: ConvSpec, phase: int, length: int) -> Operand:
    """Output frames phase, phase + stride, …: `length` of them, the bias alone where no tap lands."""
    frames = spec.x.shape[T_AXIS]
    total: Operand | None = None
    bias = spec.bias
    for tap in landing(spec):
        if tap.phase != phase:
            continue
        around = _around(tap, frames, length)
        whole = around == (0, 0)
        x = slice_axis(b, spec.x, T_AXIS, max(0, -tap.shift), min(frames, length - tap.shift))
        part = frames_conv2d(b, plane_spec(spec, x, tap_weight(b, spec.weight, tap.number), bias if whole else None))
        if whole:
            bias = None
        term = pad_axes(b, part, time_only(*around))
        total = term if total is None else b.lower(aten.add.Tensor, total, term)
    if total is None:
        shape = (*spec.shape[:T_AXIS], length, *spec.shape[T_AXIS + 1 :])
        total = Const(torch.zeros(shape, dtype=spec.x.dtype), f"{b.at.layer}.zeros".strip("."))
    if bias is not None:
        total = b.lower(aten.add.Tensor, total, b.lower(aten.view.default, bias, [1, -1, 1, 1, 1]))
    return total
