"""Formulation `folded`: time folded into channels, one Conv2d whose banded weights hold every pair of frames.

    y[o] = bias + Σ_t  conv2d(x[t], W[o, t])      W[o, t] = w[:, :, k] where t = o·s + k·d − p for a tap k, else 0

All frames lie side by side in the channels of one image ``[N, T·C, H, W]`` (with groups, side by side in each). Zeros
of the band are multiplied too, so it pays where T is about kT; and for depthwise kernels on runtimes that run a grouped
Conv2d of many narrow groups slowly, since a group then has T channels in place of one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.conv.cost import Cost, frame_macs, frame_sizes
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.taps import T_AXIS
from edge4d.lowering.values import Const, Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["applies", "cost", "rewrite"]

aten = torch.ops.aten

_MOST_GROWTH, _MOST_GROWTH_DEPTHWISE = 16, 128
"""How many times their own size the banded weights may get; beyond it no clip is so short that this pays. Those of a
depthwise kernel are few."""


def applies(spec: ConvSpec) -> str | None:
    """Why the formulation does not fit, None when it does."""
    if spec.transposed:
        return "a transposed convolution"
    if spec.kernel[0] == 1:
        return "the kernel has one temporal tap"
    if not isinstance(spec.weight, Const) or not (spec.bias is None or isinstance(spec.bias, Const)):
        return "weights or bias are computed while the model runs"
    if any(before != after for before, after in spec.padding[1:]):
        return "spatial padding that differs before and after"
    frames, results = spec.x.shape[T_AXIS], spec.shape[T_AXIS]
    most = _MOST_GROWTH_DEPTHWISE if spec.weight.shape[1] == 1 else _MOST_GROWTH
    if frames * results > most * spec.kernel[0]:
        return f"{frames} frames by {results}: the weights would grow {frames * results / spec.kernel[0]:.0f} times"
    return None


def cost(spec: ConvSpec) -> Cost:
    """Every result frame takes every frame; with groups, or with more clips than one, they are brought together."""
    given, made = frame_sizes(spec)
    frames, results = spec.x.shape[T_AXIS], spec.shape[T_AXIS]
    copies = spec.groups > 1
    moved = 2 * (given * frames + made * results) if copies else 0
    weights = math.prod(spec.weight.shape) // spec.kernel[0] * frames * results
    macs = frame_macs(spec) * frames * results
    held = given * frames + made * results if copies else 0
    return Cost(macs, frames * spec.weight.shape[1], moved, 0, 3 if copies else 1, weights, spec.groups, held)


def rewrite(b: Builder, spec: ConvSpec) -> Operand:
    """Channels of a group: frame by frame."""
    n, channels, frames, height, width = spec.x.shape
    outs, results, groups = spec.shape[1], spec.shape[T_AXIS], spec.groups
    x: Operand = b.lower(aten.view.default, spec.x, [n, groups, channels // groups, frames, height, width])
    x = b.lower(aten.permute.default, x, [0, 1, 3, 2, 4, 5])
    x = b.lower(aten.view.default, x, [n, frames * channels, height, width])
    y: Operand = b.lower(
        aten.conv2d.default,
        x,
        _weight(b, spec),
        _bias(b, spec),
        list(spec.stride[1:]),
        [before for before, _ in spec.padding[1:]],
        list(spec.dilation[1:]),
        groups,
    )
    sizes = spec.shape[T_AXIS + 1 :]
    y = b.lower(aten.view.default, y, [n, groups, results, outs // groups, *sizes])
    y = b.lower(aten.permute.default, y, [0, 1, 3, 2, 4, 5])
    folded: Operand = b.lower(aten.view.default, y, [n, outs, results, *sizes])
    return folded


def _weight(b: Builder, spec: ConvSpec) -> Const:
    """(groups · T_out · C_out / groups, T · C_in / groups, kH, kW)."""
    weight = spec.weight
    assert isinstance(weight, Const)
    frames, results, groups = spec.x.shape[T_AXIS], spec.shape[T_AXIS], spec.groups
    stride, dilation, before = spec.stride[0], spec.dilation[0], spec.padding[0][0]

    def make() -> torch.Tensor:
        outs, ins, taps, *kernel = weight.shape
        band = weight.tensor.new_zeros(groups, results, outs // groups, frames, ins, *kernel)
        own = weight.tensor.reshape(groups, outs // groups, ins, taps, *kernel)
        for o in range(results):
            for tap in range(taps):
                frame = o * stride + tap * dilation - before
                if 0 <= frame < frames:
                    band[:, o, :, frame] = own[:, :, :, tap]
        return band.flatten(3, 4).flatten(0, 2)

    return b.derive(
        weight, ("folded", frames, results, groups, stride, dilation, before), make, f"{weight.name}.folded"
    )


def _bias(b: Builder, spec: ConvSpec) -> Const | None:
    bias = spec.bias
    if bias is None:
        return None
    assert isinstance(bias, Const)
    results, groups = spec.shape[T_AXIS], spec.groups

    def make() -> torch.Tensor:
        return bias.tensor.reshape(groups, 1, -1).expand(groups, results, -1).flatten()

    return b.derive(bias, ("folded", results, groups), make, f"{bias.name}.folded")
