"""Convolutions of one and two axes: one call at rank 3 or 4, whatever logical axes lie in the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edge4d.errors import InternalError
from edge4d.lowering.axis import pad_axes, slice_axis
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.values import Const, Operand, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx

    from edge4d.lowering.builder import Builder

__all__ = ["by_planes", "frames_conv2d", "plane_conv", "weight_node"]

aten = torch.ops.aten

_CONV = {1: aten.conv1d.default, 2: aten.conv2d.default}
_TRANSPOSED = {1: aten.conv_transpose1d.default, 2: aten.conv_transpose2d.input}


def weight_node(b: Builder, weight: Operand) -> fx.Node:
    """A weight of rank ≤ 4 with its physical axes equal to its logical ones."""
    value = b.given(weight)
    return b.arrange(value, value.packing.logical)


def plane_conv(b: Builder, spec: ConvSpec) -> Value:
    """A convolution of one or two axes on logical (N, C, *sizes)."""
    return _emit(b, spec, b.given(spec.x), batch_axes=(0,))


def frames_conv2d(b: Builder, spec: ConvSpec) -> Value:
    """A 2-D convolution of every frame: x is logical (N, C, T, H, W), every other part of the spec two-dimensional."""
    if spec.rows:
        from edge4d.lowering.conv.rows import conv2d_by_rows  # it is made of these very calls

        return conv2d_by_rows(b, spec)
    return _emit(b, spec, b.given(spec.x), batch_axes=(0, 2))


def by_planes(b: Builder, x: Operand) -> Operand:
    """x, logical (N, C, T, H, W), laid as `frames_conv2d` takes it, if a reshape does that and time has its own axis.

    Several cuts along time then need one reshape together, not one each.
    """
    if isinstance(x, Const) or b.channels_last:
        return x
    own = x.packing
    planes = tuple(own.logical[axis] for axis in (2, 1, 3, 4))
    if own.logical[0] or not planes[0] or own.reorder(planes).memory != own.memory:
        return x
    return b.value(b.arrange(x, planes), own.reorder(planes))


def _emit(b: Builder, spec: ConvSpec, x: Value, batch_axes: tuple[int, ...]) -> Value:
    axes = len(spec.stride)
    spatial = range(len(x.shape) - axes, len(x.shape))
    padding = [before for before, _ in spec.padding]
    if any(before != after for before, after in spec.padding):
        if spec.transposed:
            raise InternalError(f"a transposed convolution crops evenly in torch, got {spec.padding}")
        x = pad_axes(b, x, [*[(0, 0)] * (len(x.shape) - axes), *spec.padding])
        padding = [0] * axes
    output_padding = list(spec.output_padding)
    pairs = zip(output_padding, spec.stride, strict=True)
    beyond = [-(-more // step) if more >= step else 0 for more, step in pairs]
    if any(beyond):  # of a transposed one
        x, output_padding = _longer(b, x, beyond, output_padding)
    own = x.packing
    batch = {atom for axis in batch_axes for atom in own.logical[axis]}
    groups = (tuple(a for a in own.memory if a in batch), own.logical[1], *(own.logical[s] for s in spatial))
    node = b.arrange(x, groups)
    weight = weight_node(b, spec.weight)
    bias = b.given(spec.bias).node if spec.bias is not None else None
    stride, dilation = list(spec.stride), list(spec.dilation)
    if spec.transposed:
        out = b.emit(_TRANSPOSED[axes], node, weight, bias, stride, padding, output_padding, spec.groups, dilation)
    else:
        out = b.emit(_CONV[axes], node, weight, bias, stride, padding, dilation, spec.groups)
    packing = own.reorder(groups)
    sizes = out.meta["val"].shape
    for dim, axis in enumerate((1, *spatial), start=1):
        packing = packing.resize(axis, dim, sizes[dim])
    made = b.value(out, packing)
    for axis, size in zip(spatial, spec.shape[-axes:], strict=True) if any(beyond) else ():
        made = b.given(slice_axis(b, made, axis, 0, size))
    return made


def _longer(b: Builder, x: Value, rows: Sequence[int], output_padding: Sequence[int]) -> tuple[Value, list[int]]:
    """x with zeros behind it in place of an output padding of a stride or more, which only a dilation admits and ONNX
    Runtime takes for a fault: each adds a stride of results, of which those that are wanted are kept.
    """
    x = pad_axes(b, x, [*[(0, 0)] * (len(x.shape) - len(rows)), *((0, more) for more in rows)])
    return x, [0 if more else own for more, own in zip(rows, output_padding, strict=True)]
