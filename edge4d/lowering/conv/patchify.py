"""Formulation `patchify`: kernel and stride are equal along time, so clips fall apart into pieces that share no frame.

    y[o] = bias + conv2d([x[o·k], …, x[o·k + k − 1]], w)        frames of a piece side by side in the channels

``[N·T, C, H, W]`` regrouped as ``[N·T/k, k·C, H, W]`` moves nothing. Where the kernel covers the whole picture too (the
patch embedding of a video language model, which is given patches), nothing slides and one matrix product is left, whose
weights are laid out as the patches are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import slice_axis
from edge4d.lowering.conv.cost import Cost, frame_sizes
from edge4d.lowering.conv.plane import frames_conv2d, weight_node
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.taps import T_AXIS, plane_spec
from edge4d.lowering.values import Const, Operand, Value
from edge4d.packing import Packing

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
    if spec.stride[0] != spec.kernel[0] or spec.dilation[0] != 1:
        return f"temporal kernel {spec.kernel[0]}, stride {spec.stride[0]}, dilation {spec.dilation[0]}: pieces overlap"
    if spec.padding[0] != (0, 0):
        return f"temporal padding {spec.padding[0]}"
    return None


def cost(spec: ConvSpec) -> Cost:
    """One convolution; frames that no piece takes are cut off first, and channel groups want their frames together."""
    given, _ = frame_sizes(spec)
    frames, used = spec.x.shape[T_AXIS], spec.shape[T_AXIS] * spec.kernel[0]
    copies = int(used < frames) + int(spec.groups > 1)
    ins = spec.kernel[0] * spec.weight.shape[1]
    weights = math.prod(spec.weight.shape)
    return Cost(spec.macs, ins, 2 * given * used * copies, 0, 1 + copies, weights, spec.groups, given * used * copies)


def rewrite(b: Builder, spec: ConvSpec) -> Operand:
    """One Conv2d, or one matrix product."""
    n, channels, _, height, width = spec.x.shape
    taps, pieces, groups = spec.kernel[0], spec.shape[T_AXIS], spec.groups
    x = slice_axis(b, spec.x, T_AXIS, 0, taps * pieces)
    whole = pieces == 1 and spec.kernel[1:] == (height, width) and spec.padding[1:] == ((0, 0), (0, 0))
    if whole and groups == 1:
        return _product(b, spec, b.given(x))
    x = b.lower(aten.view.default, x, [n, groups, channels // groups, pieces, taps, height, width])
    x = b.lower(aten.permute.default, x, [0, 1, 4, 2, 3, 5, 6])
    x = b.lower(aten.view.default, x, [n, taps * channels, pieces, height, width])
    weight = b.lower(aten.permute.default, spec.weight, [0, 2, 1, 3, 4])
    flat = [spec.weight.shape[0], taps * spec.weight.shape[1], *spec.kernel[1:]]
    weight = b.lower(aten.reshape.default, weight, flat, name=_name(spec))
    return frames_conv2d(b, plane_spec(spec, x, weight, spec.bias))


def _product(b: Builder, spec: ConvSpec, x: Value) -> Operand:
    """(N, pixels of a patch) · (pixels of a patch, C_out): the weights follow the memory order of the patches."""
    own = x.packing
    batch = own.logical[0]
    rest = tuple(atom for atom in own.memory if atom not in batch)
    order = list(dict.fromkeys(own.owner(atom) for atom in rest))
    if tuple(atom for axis in order for atom in own.logical[axis]) != rest:  # an axis lies in pieces
        order = [T_AXIS, 1, 3, 4]
        rest = tuple(atom for axis in order for atom in own.logical[axis])
    rows = b.arrange(x, (batch, rest))
    outs = spec.shape[1]
    thin = [axis for axis in (1, T_AXIS, 3, 4) if axis not in order]  # of one element, anywhere
    weight = b.lower(aten.permute.default, spec.weight, [*thin, *order, 0])
    weight = b.lower(aten.reshape.default, weight, [math.prod(spec.weight.shape[1:]), outs], name=_name(spec))
    node = b.emit(aten.mm.default, rows, weight_node(b, weight))
    total: Operand = b.value(node, Packing.of((spec.x.shape[0], outs)))
    if spec.bias is not None:
        total = b.lower(aten.add.Tensor, total, spec.bias)
    result: Operand = b.lower(aten.view.default, total, list(spec.shape))
    return result


def _name(spec: ConvSpec) -> str | None:
    return f"{spec.weight.name}.patchify" if isinstance(spec.weight, Const) else None
