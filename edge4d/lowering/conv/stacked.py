"""Formulation `stacked`: shifted frames joined along channels, one Conv2d with kT·C_in input channels.

    y[o] = bias + conv2d(concat_k x[o·s + k·d − p], concat_k w[:, :, k])

One convolution with a longer sum; wins where C_in is small. Padded frames are zeros in the joined input.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import concat, gather_axis, pad_axes, slice_axis
from edge4d.lowering.conv.cost import Cost, frame_macs, frame_sizes
from edge4d.lowering.conv.plane import frames_conv2d
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.taps import T_AXIS, plane_spec
from edge4d.lowering.values import Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["applies", "cost", "rewrite"]

aten = torch.ops.aten


def applies(spec: ConvSpec) -> str | None:
    """Why the formulation does not fit, None when it does."""
    if spec.transposed:
        return "a transposed convolution scatters frames instead of gathering them"
    if spec.kernel[0] == 1:
        return "the kernel has one temporal tap"
    return None


def cost(spec: ConvSpec) -> Cost:
    """The clip is padded and gathered; with groups each tap's frames are copied, and then all of them joined."""
    given, _ = frame_sizes(spec)
    taps, results = spec.kernel[0], spec.shape[T_AXIS]
    copies = 2 if spec.groups > 1 else 1
    # Gathered frames move half of this; the rates were fitted, and plans timed, when each tap's were copied first.
    moved = 2 * given * (spec.x.shape[T_AXIS] + 2 * taps * results)
    macs = frame_macs(spec) * taps * results
    held = given * (spec.x.shape[T_AXIS] + copies * taps * results)
    weights = math.prod(spec.weight.shape)
    return Cost(macs, taps * spec.weight.shape[1], moved, 0, taps + 3, weights, spec.groups, held)


def rewrite(b: Builder, spec: ConvSpec) -> Operand:
    """Pad time once, bring the frames of each result together, convolve once."""
    n, channels, frames, height, width = spec.x.shape
    taps, stride, dilation = spec.kernel[0], spec.stride[0], spec.dilation[0]
    results = spec.shape[T_AXIS]
    before = spec.padding[0][0]
    after = max(0, (results - 1) * stride + (taps - 1) * dilation - before - (frames - 1))
    x = pad_axes(b, b.given(spec.x), [(0, 0), (0, 0), (before, after), (0, 0), (0, 0)])
    per_group = channels // spec.groups
    joined: Operand
    if spec.groups == 1:  # all frames of a result next to each other, by one copy
        places = [o * stride + tap * dilation for o in range(results) for tap in range(taps)]
        joined = gather_axis(b, x, T_AXIS, places)
        joined = b.lower(aten.view.default, joined, [n, channels, results, taps, height, width])
        joined = b.lower(aten.permute.default, joined, [0, 3, 1, 2, 4, 5])
    else:
        shifted = []
        for tap in range(taps):
            start = tap * dilation
            part = slice_axis(b, x, T_AXIS, start, start + (results - 1) * stride + 1, stride)
            # tap by tap within each group, as the joined weight has them
            shifted.append(b.lower(aten.view.default, part, [n, spec.groups, per_group, results, height, width]))
        joined = concat(b, shifted, 2)
    joined = b.lower(aten.view.default, joined, [n, taps * channels, results, height, width])
    weight = b.lower(aten.permute.default, spec.weight, [0, 2, 1, 3, 4])
    flat = [spec.weight.shape[0], taps * per_group, *spec.kernel[1:]]
    assert math.prod(flat) == math.prod(spec.weight.shape)
    weight = b.lower(aten.reshape.default, weight, flat, name=f"{getattr(spec.weight, 'name', 'weight')}.stacked")
    return frames_conv2d(b, plane_spec(spec, joined, weight, spec.bias))
