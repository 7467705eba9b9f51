"""Formulation `taps`: one Conv2d per temporal tap on the frames that tap sees, summed.

    y[o] = bias + Σ_k  conv2d(x[o·s + k·d − p], w[:, :, k])        (frames outside the clip contribute nothing)

The number of convolutions is kT and never depends on T; no zero frame is convolved.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import pad_axes, slice_axis
from edge4d.lowering.conv.cost import Cost, frame_macs, frame_sizes
from edge4d.lowering.conv.plane import by_planes, frames_conv2d
from edge4d.lowering.conv.spec import ConvSpec, TapRange, tap_range
from edge4d.lowering.values import Const, Operand, Value

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["T_AXIS", "applies", "cost", "plane_spec", "rewrite", "seen_by_taps", "tap_weight", "time_only"]

aten = torch.ops.aten
T_AXIS = 2


def applies(spec: ConvSpec) -> str | None:
    """Why the formulation does not fit, None when it does."""
    return "a transposed convolution scatters frames" if spec.transposed else None


def cost(spec: ConvSpec) -> Cost:
    """Each tap but the widest copies its frames, is filled up and added."""
    seen = [found.last - found.first + 1 for _, found in seen_by_taps(spec)]
    given, made = frame_sizes(spec)
    others, results = sum(seen) - max(seen, default=0), spec.shape[T_AXIS]
    copied = sum(seen) if spec.stride[0] > 1 else others
    moved = 2 * given * copied + (2 * made * others + 3 * made * results * (len(seen) - 1) if len(seen) > 1 else 0)
    calls = max(1, 4 * len(seen) - 3)
    macs, weights = frame_macs(spec) * sum(seen), math.prod(spec.weight.shape)
    held = given * max(seen, default=0) + 2 * made * results if len(seen) > 1 else 0
    return Cost(macs, spec.weight.shape[1], moved, 0, calls, weights, spec.groups, held)


def tap_weight(b: Builder, weight: Operand, tap: int) -> Operand:
    """w[:, :, tap], named after the weight and the tap."""
    name = None
    if isinstance(weight, Const):
        name = weight.name if weight.shape[T_AXIS] == 1 else f"{weight.name}.tap{tap}"
    result: Operand = b.lower(aten.select.int, weight, T_AXIS, tap, name=name)
    return result


def rewrite(b: Builder, spec: ConvSpec) -> Operand:
    """The sum over taps; the bias goes with a tap that every output frame sees, if there is one."""
    results = spec.shape[T_AXIS]
    total: Operand | None = None
    bias, planes = spec.bias, by_planes(b, spec.x)
    for tap, found in seen_by_taps(spec):
        x = slice_axis(b, planes, T_AXIS, found.start, found.stop + 1, spec.stride[0])
        whole = (found.first, found.last) == (0, results - 1)
        part = frames_conv2d(b, plane_spec(spec, x, tap_weight(b, spec.weight, tap), bias if whole else None))
        if whole:
            bias = None
        term: Value = pad_axes(b, part, time_only(found.first, results - 1 - found.last))
        total = term if total is None else b.lower(aten.add.Tensor, total, term)
    if total is None:  # every window lies in the padding
        total = Const(torch.zeros(spec.shape, dtype=spec.x.dtype), f"{b.at.layer}.zeros".strip("."))
    if bias is not None:
        total = b.lower(aten.add.Tensor, total, b.lower(aten.view.default, bias, [1, -1, 1, 1, 1]))
    return total


def seen_by_taps(spec: ConvSpec) -> list[tuple[int, TapRange]]:
    """Taps that see any frame, those that all results take first."""
    frames, results = spec.x.shape[T_AXIS], spec.shape[T_AXIS]
    ranges = (
        (tap, tap_range(tap, frames, results, spec.stride[0], spec.padding[0][0], spec.dilation[0]))
        for tap in range(spec.kernel[0])
    )
    return sorted(((tap, r) for tap, r in ranges if r is not None), key=lambda pair: pair[1].first - pair[1].last)


def plane_spec(spec: ConvSpec, x: Operand, weight: Operand, bias: Operand | None) -> ConvSpec:
    """The spatial part of a 3-D convolution, for one tap."""
    return replace(
        spec,
        x=x,
        weight=weight,
        bias=bias,
        stride=spec.stride[1:],
        padding=spec.padding[1:],
        dilation=spec.dilation[1:],
        output_padding=spec.output_padding[1:],
        shape=(*spec.shape[:T_AXIS], x.shape[T_AXIS], *spec.shape[T_AXIS + 1 :]),
    )


def time_only(before: int, after: int) -> list[tuple[int, int]]:
    """Padding of (N, C, T, H, W) along T alone."""
    return [(0, 0), (0, 0), (before, after), (0, 0), (0, 0)]
