"""Formulation `interleaved` of a transposed convolution: one ConvTranspose2d that gives every frame.

Frames of the result of equal remainder modulo the temporal stride form a phase, and each tap carries the frames,
shifted by a whole number, to one phase. So the shifted frames go in side by side as channels, and the phases come out
side by side as channels. In memory those are the interleaved frames already: no sum, no join, and the bias is the
convolution's own. The weights have a block of zeros for each shift that a phase does not have: none where the kernel
is as long as the stride, a third of what counts for a kernel of 3 at stride 2, half for one of 4.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import concat, pad_axes, slice_axis
from edge4d.lowering.conv.cost import Cost, frame_sizes
from edge4d.lowering.conv.plane import frames_conv2d
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.taps import T_AXIS, plane_spec, time_only
from edge4d.lowering.conv.transposed import SCATTERED, landing, longest
from edge4d.lowering.values import Const, Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["applies", "cost", "rewrite"]

aten = torch.ops.aten


def applies(spec: ConvSpec) -> str | None:
    """Why the formulation does not fit, None when it does."""
    if not spec.transposed:
        return "not a transposed convolution"
    if spec.groups > 1:
        return f"{spec.groups} groups, whose phases do not lie side by side"
    if not isinstance(spec.weight, Const) or not (spec.bias is None or isinstance(spec.bias, Const)):
        return "its weights depend on the input"
    return None if landing(spec) else "no tap lands on the result"


def cost(spec: ConvSpec) -> Cost:
    """The shifted frames are copied and joined; products with zeros take as long as others."""
    shifts, phases, length = _shifts(spec), _phases(spec), longest(spec)
    given, _ = frame_sizes(spec)
    blocks = len(shifts) * phases
    moved = given * length * 2 * (2 * len(shifts) - 1) if len(shifts) > 1 else 0
    one = math.prod(spec.weight.shape) // spec.kernel[0]
    macs = SCATTERED * (given // spec.x.shape[1]) * length * blocks * one
    calls = 2 * len(shifts) if len(shifts) > 1 else 1
    held = given * length * len(shifts) if len(shifts) > 1 else 0
    return Cost(macs, spec.x.shape[1] * len(shifts), moved, 0, calls, blocks * one, held=held)


def rewrite(b: Builder, spec: ConvSpec) -> Operand:
    """Shift, join, convolve, and see the phases as frames."""
    shifts, phases, length = _shifts(spec), _phases(spec), longest(spec)
    inner, outer = spec.x.shape[1], spec.shape[1]
    assert isinstance(spec.weight, Const)
    weight = torch.zeros(len(shifts) * inner, phases * outer, *spec.kernel[1:], dtype=spec.weight.dtype)
    for tap in landing(spec):
        row, column = shifts.index(tap.shift) * inner, tap.phase * outer
        weight[row : row + inner, column : column + outer] = spec.weight.tensor[:, :, tap.number]
    bias = None
    if isinstance(spec.bias, Const):
        bias = Const(spec.bias.tensor.repeat(phases), f"{spec.bias.name}.phases" if phases > 1 else spec.bias.name)
    seen = [_shifted(b, spec.x, shift, length) for shift in shifts]
    x = concat(b, seen, 1) if len(seen) > 1 else seen[0]
    plane = plane_spec(spec, x, Const(weight, f"{spec.weight.name}.phases"), bias)
    made = frames_conv2d(b, replace(plane, shape=(plane.shape[0], phases * outer, *plane.shape[2:])))
    n, _, _, height, width = made.shape
    apart = b.lower(aten.view.default, made, [n, phases, outer, length, height, width])
    joined = b.lower(aten.permute.default, apart, [0, 2, 3, 1, 4, 5])
    whole = b.lower(aten.reshape.default, joined, [n, outer, length * phases, height, width])
    return slice_axis(b, whole, T_AXIS, 0, spec.shape[T_AXIS])


def _shifts(spec: ConvSpec) -> list[int]:
    return sorted({tap.shift for tap in landing(spec)})


def _phases(spec: ConvSpec) -> int:
    return min(spec.stride[0], spec.shape[T_AXIS])


def _shifted(b: Builder, x: Operand, shift: int, length: int) -> Operand:
    """Frames −shift … length − 1 − shift of x, zeros outside of it."""
    first, last = max(0, -shift), min(x.shape[T_AXIS], length - shift)
    return pad_axes(b, b.given(slice_axis(b, x, T_AXIS, first, last)), time_only(first + shift, length - shift - last))
