"""Formulation `winograd-split`: F(2, 3) along time with slices and sums in place of matrices, for NPUs.

    m1 = (d0 − d2) * g0                y0 = m1 + m2 + m3
    m2 = (d1 + d2) * (g0 + g1 + g2)/2  y1 = m2 − m3 − m4
    m3 = (d2 − d1) * (g0 − g1 + g2)/2
    m4 = (d1 − d3) * g2                            (Lavin & Gray 2016; `*` is the 2-D convolution)

d0 … d3 are frames 2i … 2i + 3 of the padded clip. Even and odd frames come apart as halves of the channels of
``[T/2, 2C, H, W]``, since a strided slice, like a product along time, makes RKNN's compiler fall back to the CPU.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import concat, pad_axes, slice_axis
from edge4d.lowering.conv.cost import Cost, frame_macs, frame_sizes
from edge4d.lowering.conv.plane import frames_conv2d
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.taps import T_AXIS, plane_spec, time_only
from edge4d.lowering.values import Const, Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["applies", "cost", "rewrite"]

aten = torch.ops.aten

_KERNELS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, -1.0))
"""The taps of each product; the last is negated, so that its result is added."""


def applies(spec: ConvSpec) -> str | None:
    """Why the formulation does not fit, None when it does."""
    if spec.transposed:
        return "a transposed convolution"
    if spec.kernel[0] != 3:
        return f"the kernel has {spec.kernel[0]} temporal taps, F(2, 3) takes 3"
    if spec.stride[0] != 1 or spec.dilation[0] != 1:
        return f"temporal stride {spec.stride[0]}, dilation {spec.dilation[0]}; tiles need 1 and 1"
    if not isinstance(spec.weight, Const):
        return "the weights are computed while the model runs"
    return None


def cost(spec: ConvSpec) -> Cost:
    """The clip is padded, split, shifted and combined; results are combined and joined."""
    given, made = frame_sizes(spec)
    tiles = -(-spec.shape[T_AXIS] // 2)
    moved = given * tiles * (4 + 4 + 8 + 12) + made * tiles * (12 + 4)
    weights = math.prod(spec.weight.shape) // 3 * 4
    held = given * tiles * 8 + made * tiles * 8
    return Cost(frame_macs(spec) * 4 * tiles, spec.weight.shape[1], moved, 0, 20, weights, spec.groups, held)


def rewrite(b: Builder, spec: ConvSpec) -> Operand:
    """Four convolutions of half as many frames."""
    n, channels, frames, height, width = spec.x.shape
    results, before = spec.shape[T_AXIS], spec.padding[0][0]
    tiles = -(-results // 2)
    after = 2 * (tiles + 1) - before - frames
    x: Operand = pad_axes(b, b.given(spec.x), time_only(before, max(0, after)))
    x = slice_axis(b, x, T_AXIS, 0, 2 * (tiles + 1))
    x = b.lower(aten.view.default, x, [n, channels, tiles + 1, 2, height, width])
    x = b.lower(aten.permute.default, x, [0, 3, 1, 2, 4, 5])
    x = b.lower(aten.view.default, x, [n, 2 * channels, tiles + 1, height, width])
    even, odd = (slice_axis(b, x, 1, half * channels, (half + 1) * channels) for half in (0, 1))
    d0, d2 = (slice_axis(b, even, T_AXIS, shift, tiles + shift) for shift in (0, 1))
    d1, d3 = (slice_axis(b, odd, T_AXIS, shift, tiles + shift) for shift in (0, 1))
    inputs = (
        b.lower(aten.sub.Tensor, d0, d2),
        b.lower(aten.add.Tensor, d1, d2),
        b.lower(aten.sub.Tensor, d2, d1),
        b.lower(aten.sub.Tensor, d1, d3),
    )
    first, plus, minus, last = (
        frames_conv2d(b, plane_spec(spec, taken, _weight(b, spec, j), spec.bias if j == 1 else None))
        for j, taken in enumerate(inputs)
    )
    y0 = b.lower(aten.add.Tensor, first, b.lower(aten.add.Tensor, plus, minus))
    y1 = b.lower(aten.add.Tensor, last, b.lower(aten.sub.Tensor, plus, minus))
    outs, sizes = spec.shape[1], spec.shape[T_AXIS + 1 :]
    y: Operand = concat(b, [y0, y1], 1)
    y = b.lower(aten.view.default, y, [n, 2, outs, tiles, *sizes])
    y = b.lower(aten.permute.default, y, [0, 2, 3, 1, 4, 5])
    y = b.lower(aten.view.default, y, [n, outs, 2 * tiles, *sizes])
    return slice_axis(b, y, T_AXIS, 0, results)


def _weight(b: Builder, spec: ConvSpec, product: int) -> Const:
    """Σ_k kernel[k] · w[:, :, k] in float64, (C_out, C_in / groups, kH, kW)."""
    weight = spec.weight
    assert isinstance(weight, Const)
    kernel = torch.tensor(_KERNELS[product], dtype=torch.float64)

    def make() -> torch.Tensor:
        return torch.einsum("k,sckhw->schw", kernel, weight.tensor.double()).to(weight.dtype)

    return b.derive(weight, ("winograd-split", product), make, f"{weight.name}.winograd{product}")
