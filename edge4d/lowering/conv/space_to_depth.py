"""Formulation `space-to-depth`: few input channels become more, from frames and pixels nearby; then one Conv2d.

    x'[o] = Σ_k conv2d(x[o·s + k·d − p], E_k)      E_k puts every fH x fW block of pixels of frame k into channels
    y     = bias + conv2d(x', w')                  w' is w with its taps where E_k put what they multiply

An NPU takes channels in blocks of 32 or so and multiplies zeros where there are fewer: an RGB stem uses a tenth of it.
Joined along channels by `cat`, the frames would be taken apart again by Rockchip's compiler, which makes a convolution
of each part; small convolutions with ones and zeros it leaves alone. They are exact: every sum has one term that is
not zero. A block of pixels is as large as the stride, so kernel and stride shrink by that factor.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import pad_axes, slice_axis
from edge4d.lowering.conv.cost import Cost, frame_sizes
from edge4d.lowering.conv.plane import frames_conv2d
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.taps import T_AXIS, plane_spec, seen_by_taps, time_only
from edge4d.lowering.values import Const, Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["applies", "cost", "rewrite"]

aten = torch.ops.aten

WIDTH = 32
"""Channels that an NPU multiplies at once."""


@dataclass(frozen=True)
class _Axis:
    """How one spatial axis is cut.

    Attributes:
        factor: pixels a block.
        shift: zeros before the first block and after the last.
        padding: blocks of zeros around.
        kernel: blocks that w' spans.
        size: blocks in x'.
        stride: of w', in blocks.
    """

    factor: int
    shift: int
    padding: int
    kernel: int
    size: int
    stride: int


def applies(spec: ConvSpec) -> str | None:
    """Why the formulation does not fit, None when it does."""
    if spec.transposed:
        return "a transposed convolution"
    if spec.groups > 1:
        return "channel groups"
    if not isinstance(spec.weight, Const):
        return "the weights are computed while the model runs"
    if any(before != after for before, after in spec.padding[1:]):
        return "spatial padding that differs before and after"
    if spec.dilation[1:] != (1, 1):
        return "spatial dilation"
    if not seen_by_taps(spec):
        return "every window lies in the padding"
    found = _axes(spec)
    if spec.kernel[0] * math.prod(axis.factor for axis in found) == 1:
        return "there are no frames or pixels to join, or not with so many channels"
    return None if _wide(spec, found) <= WIDTH else f"{spec.x.shape[1]} channels are many"


def cost(spec: ConvSpec) -> Cost:
    """Frames are cut, blocks made, filled up and added; then one convolution."""
    axes = _axes(spec)
    n, outs, results = spec.shape[:3]
    wide, taps = _wide(spec, axes), spec.kernel[0]
    given, _ = frame_sizes(spec)
    joined = n * wide * axes[0].size * axes[1].size
    area = math.prod(axis.kernel for axis in axes)
    macs = n * outs * results * math.prod(spec.shape[3:]) * wide * area
    macs += joined * taps * results * math.prod(axis.factor for axis in axes) * spec.x.shape[1]
    moved = given * 2 * (taps - 1) * results + joined * results * (1 + 5 * (taps - 1))
    return Cost(macs, wide, moved, 0, 4 * taps - 2, outs * wide * area, 1, joined * results * taps)


def rewrite(b: Builder, spec: ConvSpec) -> Operand:
    """Small convolutions of the frames that each tap sees, their sum, one convolution."""
    axes, results = _axes(spec), spec.shape[T_AXIS]
    wide = _wide(spec, axes)
    blocks = replace(
        spec,
        bias=None,
        stride=(spec.stride[0], *(axis.factor for axis in axes)),
        padding=(spec.padding[0], *((axis.shift, axis.shift) for axis in axes)),
        shape=(spec.shape[0], wide, results, *(axis.size for axis in axes)),
    )
    joined: Operand | None = None
    for tap, seen in seen_by_taps(spec):
        x = slice_axis(b, spec.x, T_AXIS, seen.start, seen.stop + 1, spec.stride[0])
        part = frames_conv2d(b, plane_spec(blocks, x, _blocks(spec, axes, tap), None))
        term = pad_axes(b, part, time_only(seen.first, results - 1 - seen.last))
        joined = term if joined is None else b.lower(aten.add.Tensor, joined, term)
    assert joined is not None
    last = replace(
        spec,
        stride=(1, *(axis.stride for axis in axes)),
        padding=((0, 0), *((axis.padding, axis.padding) for axis in axes)),
    )
    return frames_conv2d(b, plane_spec(last, joined, _weight(b, spec, axes), spec.bias))


def _wide(spec: ConvSpec, axes: tuple[_Axis, ...]) -> int:
    """Channels of x'."""
    return spec.kernel[0] * spec.x.shape[1] * math.prod(axis.factor for axis in axes)


def _axes(spec: ConvSpec) -> tuple[_Axis, ...]:
    """Height and width: of the ways that make no more than `WIDTH` channels the one with the smallest kernel."""
    ways = [_ways(spec, axis) for axis in (1, 2)]
    fitting = [pair for pair in itertools.product(*ways) if _wide(spec, pair) <= WIDTH]
    return min(fitting or [(ways[0][0], ways[1][0])], key=lambda pair: math.prod(axis.kernel for axis in pair))


def _ways(spec: ConvSpec, axis: int) -> list[_Axis]:
    """Blocks of one pixel, and blocks as large as the stride if they bring forth a result of the same size.

    What the blocks leave over behind the last of them must be pixels that no window reads: further on are zeros.
    """
    size, kernel, stride = spec.x.shape[2 + axis], spec.kernel[axis], spec.stride[axis]
    before, made = spec.padding[axis][0], spec.shape[2 + axis]
    ways = [_Axis(1, 0, before, kernel, size, stride)]
    if stride > 1:
        shift = before % stride
        found = _Axis(stride, shift, before // stride, -(-kernel // stride), (size + 2 * shift) // stride, 1)
        read = min(size, (made - 1) * stride - before + kernel)
        if found.size + 2 * found.padding - found.kernel + 1 == made and read <= found.size * stride - shift:
            ways.append(found)
    return ways


def _blocks(spec: ConvSpec, axes: tuple[_Axis, ...], tap: int) -> Const:
    """E_tap, (channels of x', C_in, fH, fW)."""
    channels, (high, wide) = spec.x.shape[1], (axis.factor for axis in axes)
    ones = torch.eye(channels * high * wide).reshape(-1, channels, high, wide)
    whole = torch.zeros(spec.kernel[0], *ones.shape)
    whole[tap] = ones
    return Const(whole.flatten(0, 1).to(spec.x.dtype), f"{getattr(spec.weight, 'name', 'weight')}.blocks{tap}")


def _weight(b: Builder, spec: ConvSpec, axes: tuple[_Axis, ...]) -> Const:
    """w', (C_out, channels of x', kernel blocks high, wide)."""
    weight = spec.weight
    assert isinstance(weight, Const)
    high, wide = axes

    def make() -> torch.Tensor:
        outs, ins, taps, rows, columns = weight.shape
        room = weight.tensor.new_zeros(outs, ins, taps, high.kernel * high.factor, wide.kernel * wide.factor)
        room[..., :rows, :columns] = weight.tensor
        cut = room.reshape(outs, ins, taps, high.kernel, high.factor, wide.kernel, wide.factor)
        return cut.permute(0, 2, 1, 4, 6, 3, 5).reshape(outs, -1, high.kernel, wide.kernel)

    return b.derive(weight, ("space-to-depth", axes), make, f"{weight.name}.blocks")
