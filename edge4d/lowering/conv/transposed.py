"""Formulation `phases` of a transposed convolution: one ConvTranspose2d per temporal tap, interleaved by phase.

    y[i·s + k·d − p] += conv_transpose2d(x[i], w[:, :, k])

Output frames of equal remainder modulo the temporal stride form a phase; within a phase the taps are shifted sums as in
`taps`, and the phases are interleaved by one join along a new axis.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import concat, pad_axes, slice_axis
from edge4d.lowering.conv.cost import Cost
from edge4d.lowering.conv.plane import frames_conv2d
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.taps import T_AXIS, plane_spec, tap_weight
from edge4d.lowering.values import Const, Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["applies", "cost", "rewrite"]

aten = torch.ops.aten


def applies(spec: ConvSpec) -> str | None:
    """Why the formulation does not fit, None when it does."""
    return None if spec.transposed else "not a transposed convolution"


def cost(spec: ConvSpec) -> Cost:
    """It is the only one that fits, so its convolutions are all that counts."""
    return Cost(spec.macs, spec.x.shape[1] // spec.groups, weights=math.prod(spec.weight.shape))


def rewrite(b: Builder, spec: ConvSpec) -> Operand:
    """Sum each phase, interleave the phases, add the bias."""
    results, stride = spec.shape[T_AXIS], spec.stride[0]
    length = -(-results // stride)  # frames of the longest phase; shorter ones are filled up and cut again
    phases = [_phase(b, spec, phase, length) for phase in range(min(stride, results))]
    total = phases[0]
    if len(phases) > 1:
        fresh = [b.lower(aten.unsqueeze.default, phase, T_AXIS + 1) for phase in phases]
        n, channels, _, height, width = spec.shape
        total = concat(b, fresh, T_AXIS + 1)
        total = b.lower(aten.view.default, total, [n, channels, length * len(phases), height, width])
    total = slice_axis(b, total, T_AXIS, 0, results)
    if spec.bias is not None:
        total = b.lower(aten.add.Tensor, total, b.lower(aten.view.default, spec.bias, [1, -1, 1, 1, 1]))
    return total


def _phase(b: Builder, spec: ConvSpec, phase: int, length: int) -> Operand:
    """Output frames phase, phase + stride, …: `length` of them, zeros where no tap lands."""
    frames, stride = spec.x.shape[T_AXIS], spec.stride[0]
    total: Operand | None = None
    for tap in range(spec.kernel[0]):
        offset = tap * spec.dilation[0] - spec.padding[0][0]
        if (offset - phase) % stride:
            continue
        shift = (offset - phase) // stride  # frame i lands on frame i + shift of the phase
        first, last = max(0, -shift), min(frames - 1, length - 1 - shift)
        if first > last:
            continue
        x = slice_axis(b, spec.x, T_AXIS, first, last + 1)
        part = frames_conv2d(b, plane_spec(spec, x, tap_weight(b, spec.weight, tap), None))
        around = (first + shift, length - 1 - (last + shift))
        term = pad_axes(b, part, [(0, 0), (0, 0), around, (0, 0), (0, 0)])
        total = term if total is None else b.lower(aten.add.Tensor, total, term)
    if total is None:
        shape = (*spec.shape[:T_AXIS], length, *spec.shape[T_AXIS + 1 :])
        return Const(torch.zeros(shape, dtype=spec.x.dtype), f"{b.at.layer}.zeros".strip("."))
    return total
