"""Formulation `padded`: `taps` on a clip with its zero frames in place, so that every tap sees as many frames.

    y[o] = bias + Σ_k conv2d(xp[o·s + k·d], w[:, :, k])        xp = x between p zero frames

Zero frames are convolved, which `taps` avoids. In return no result is filled up before it is added, and runtimes add a
sum of equal convolutions inside the next one. Pays for depthwise kernels, whose products cost little beside that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import pad_frames, slice_axis
from edge4d.lowering.conv.cost import Cost, frame_macs, frame_sizes
from edge4d.lowering.conv.plane import by_planes, frames_conv2d
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.taps import T_AXIS, plane_spec, tap_weight
from edge4d.lowering.values import Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["applies", "cost", "rewrite"]

aten = torch.ops.aten


def applies(spec: ConvSpec) -> str | None:
    """Why the formulation does not fit, None when it does."""
    if spec.transposed:
        return "a transposed convolution"
    if spec.kernel[0] == 1:
        return "the kernel has one temporal tap"
    if not any(spec.padding[0]):
        return "no frames are padded"
    return None


def cost(spec: ConvSpec) -> Cost:
    """The clip is copied between zeros, and once more for each tap; sums are the convolutions' own."""
    given, made = frame_sizes(spec)
    taps, results = spec.kernel[0], spec.shape[T_AXIS]
    moved = 2 * given * (spec.x.shape[T_AXIS] + taps * results) + made * results * (taps - 1)
    macs = frame_macs(spec) * taps * results
    held = given * (spec.x.shape[T_AXIS] + sum(spec.padding[0]) + results) + made * results
    weights = math.prod(spec.weight.shape)
    return Cost(macs, spec.weight.shape[1], moved, 0, 1 + 2 * taps, weights, spec.groups, held)


def rewrite(b: Builder, spec: ConvSpec) -> Operand:
    """One Conv2d for each tap, the bias with the first."""
    stride, dilation, results = spec.stride[0], spec.dilation[0], spec.shape[T_AXIS]
    x = pad_frames(b, b.given(by_planes(b, spec.x)), *spec.padding[0])
    total: Operand | None = None
    for tap in range(spec.kernel[0]):
        start = tap * dilation
        seen = slice_axis(b, x, T_AXIS, start, start + (results - 1) * stride + 1, stride)
        bias = spec.bias if total is None else None
        term = frames_conv2d(b, plane_spec(spec, seen, tap_weight(b, spec.weight, tap), bias))
        total = term if total is None else b.lower(aten.add.Tensor, total, term)
    assert total is not None
    return total
