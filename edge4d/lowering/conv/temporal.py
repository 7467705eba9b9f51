"""Formulation `temporal`: a (kT, 1, 1) kernel as a (kT, 1) Conv2d on the *temporal* packing `n c t (h w)`.

    y[n, :, o, hw] = bias + Σ_k w[:, :, k] · x[n, :, o·s + k·d − p, hw]

One convolution for all taps, at the price of a repack where the neighbours want *frames*.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import pad_axes, slice_axis
from edge4d.lowering.conv.cost import Cost, frame_macs, frame_sizes
from edge4d.lowering.conv.plane import weight_node
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.taps import T_AXIS
from edge4d.lowering.values import Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["applies", "cost", "rewrite"]

aten = torch.ops.aten


def applies(spec: ConvSpec) -> str | None:
    """Why the formulation does not fit, None when it does."""
    if spec.transposed:
        return "a transposed convolution"
    if spec.kernel[1:] != (1, 1):
        return f"the kernel {spec.kernel} has spatial extent"
    return None


def cost(spec: ConvSpec) -> Cost:
    """A repack before and one after."""
    given, made = frame_sizes(spec)
    frames, results = spec.x.shape[T_AXIS], spec.shape[T_AXIS]
    macs = frame_macs(spec) * spec.kernel[0] * results
    moved = 2 * (given * frames + made * results)
    held = given * frames + made * results
    return Cost(macs, spec.weight.shape[1], moved, 0, 3, math.prod(spec.weight.shape), spec.groups, held)


def rewrite(b: Builder, spec: ConvSpec) -> Operand:
    """Spatial padding and stride, which a 1×1 kernel only selects by, come first; then one Conv2d over time."""
    x: Operand = pad_axes(b, b.given(spec.x), [(0, 0), (0, 0), (0, 0), *spec.padding[1:]])
    for axis, stride in zip((3, 4), spec.stride[1:], strict=True):
        x = slice_axis(b, x, axis, 0, x.shape[axis], stride)
    value = b.given(x)
    before, after = spec.padding[0]
    if before != after:
        value = pad_axes(b, value, [(0, 0), (0, 0), (before, after), (0, 0), (0, 0)])
        before = 0
    value = b.by_frames(value)
    own = value.packing
    batch, channel, time, *_ = own.logical
    plane = {atom for axis in (3, 4) for atom in own.logical[axis]}
    groups = (batch, channel, time, tuple(a for a in own.memory if a in plane))
    name = f"{spec.weight.name}.temporal" if hasattr(spec.weight, "name") else None
    weight = b.lower(aten.reshape.default, spec.weight, [*spec.weight.shape[:3], 1], name=name)
    bias = b.given(spec.bias).node if spec.bias is not None else None
    node = b.emit(
        aten.conv2d.default,
        b.arrange(value, groups),
        weight_node(b, weight),
        bias,
        [spec.stride[0], 1],
        [before, 0],
        [spec.dilation[0], 1],
        spec.groups,
    )
    packing = own.reorder(groups).resize(1, 1, spec.shape[1]).resize(T_AXIS, 2, spec.shape[T_AXIS])
    return b.value(node, packing)
