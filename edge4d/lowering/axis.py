"""Cuts, joins and pads along one axis: memory is regrouped as [before, axis, after], so that they run at rank ≤ 4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.alignment import align
from edge4d.lowering.channels_last import T_AXIS
from edge4d.lowering.values import Const, Operand, Value

if TYPE_CHECKING:
    from torch import fx

    from edge4d.lowering.builder import Builder

__all__ = ["concat", "gather_axis", "pad_axes", "pad_frames", "slice_axis", "split_axis", "take", "zeros_like_slice"]

aten = torch.ops.aten


def slice_axis(b: Builder, x: Operand, axis: int, start: int, stop: int, step: int = 1) -> Operand:
    """x[start:stop:step] along one axis, 0 ≤ start and stop ≤ size; a constant where that leaves nothing."""
    if start >= stop:
        return Const(torch.empty((*x.shape[:axis], 0, *x.shape[axis + 1 :]), dtype=x.dtype), "empty")
    if start == 0 and step == 1 and stop >= x.shape[axis]:
        return x
    if isinstance(x, Const):
        return Const(x.tensor.movedim(axis, 0)[start:stop:step].movedim(0, axis), f"{x.name}.{start}_{stop}")
    if step > 1 and b.gathers:
        return gather_axis(b, x, axis, range(start, stop, step))
    if axis == T_AXIS:
        x = b.by_frames(x)
    if step == 1 and b.channels_last:
        before, after = start, x.shape[axis] - stop
        sizes = [size for size in (before, stop - start, after) if size]
        return split_axis(b, x, axis, sizes)[1 if before else 0]
    node, dim, packing = b.isolate(x, axis)
    sliced = b.emit(aten.slice.Tensor, node, dim, start, stop, step)
    return b.value(sliced, packing.resize(axis, dim, len(range(start, stop, step))))


def split_axis(b: Builder, x: Operand, axis: int, sizes: Sequence[int]) -> list[Operand]:
    """Consecutive parts of one axis; by one Split where the runtime makes that a view of its input (OpenVINO does
    along the first axis of more than one element, whereas it copies what it slices).
    """
    if isinstance(x, Const) or not b.channels_last or len(sizes) == 1:
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        return [slice_axis(b, x, axis, start, start + size) for start, size in zip(starts, sizes, strict=True)]
    if axis == T_AXIS:
        x = b.by_frames(x)
    node, dim, packing = b.isolate(x, axis)
    cut = b.emit(aten.split_with_sizes.default, node, list(sizes), dim)
    return [b.value(b.item(cut, i), packing.resize(axis, dim, size)) for i, size in enumerate(sizes)]


def gather_axis(b: Builder, x: Operand, axis: int, places: Sequence[int]) -> Operand:
    """x at the given places along one axis, by one Gather."""
    if list(places) == list(range(x.shape[axis])):
        return x
    if isinstance(x, Const):
        return Const(x.tensor.index_select(axis, torch.tensor(list(places))), f"{x.name}.take")
    node, dim, packing = b.isolate(b.by_frames(x) if axis == T_AXIS else x, axis)
    index = b.parameter(torch.tensor(list(places)), f"{b.at.layer}.index".strip("."))
    gathered = b.emit(aten.index_select.default, node, dim, index)
    return b.value(gathered, packing.resize(axis, dim, len(places)))


def concat(b: Builder, parts: Sequence[Operand], axis: int) -> Operand:
    """Join along one axis, in the memory order of the largest part."""
    if len(parts) == 1:
        return parts[0]
    constants = [part.tensor for part in parts if isinstance(part, Const)]
    if len(constants) == len(parts):
        return Const(torch.cat(constants, axis), f"{parts[0].name}.cat" if isinstance(parts[0], Const) else "cat")
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    nodes, packing = align(b, parts, shape, alone=axis)
    dim = packing.physical.index(packing.logical[axis])
    return b.value(b.emit(aten.cat.default, nodes, dim), packing)


def take(b: Builder, x: Operand, axis: int, indices: Sequence[int]) -> Operand:
    """x at the given places along one axis: ascending runs of constant step as slices, then joined."""
    if isinstance(x, Const):
        return Const(x.tensor.index_select(axis, torch.tensor(list(indices))), f"{x.name}.take")
    runs: list[tuple[int, int, int]] = []
    at = 0
    while at < len(indices):
        end, step = at + 1, 1
        if end < len(indices) and indices[end] > indices[at]:
            step = indices[end] - indices[at]
            while end < len(indices) and indices[end] - indices[end - 1] == step:
                end += 1
        runs.append((indices[at], indices[end - 1] + 1, step))
        at = end
    if len(runs) > _GATHER_ABOVE:
        return gather_axis(b, x, axis, indices)
    return concat(b, [slice_axis(b, x, axis, start, stop, step) for start, stop, step in runs], axis)


_GATHER_ABOVE = 8
"""Above this many slices one Gather is clearer than slices joined."""


def zeros_like_slice(x: Value, axis: int, count: int, fill: float = 0.0) -> Const:
    """A constant of x's shape but `count` long along one axis."""
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    return Const(torch.full(shape, fill, dtype=x.dtype), "fill")


def pad_axes(b: Builder, x: Value, pads: Sequence[tuple[int, int]], fill: float = 0.0) -> Value:
    """Constant padding before and after along each logical axis; negative numbers crop."""
    for axis, (before, after) in enumerate(pads):
        if (before, after) == (0, 0):
            continue
        node, dim, packing = b.isolate(x, axis)
        amounts = [0] * (2 * (len(packing.physical) - dim))
        amounts[-2:] = [before, after]
        padded = b.emit(aten.constant_pad_nd.default, node, amounts, fill)
        x = b.value(padded, packing.resize(axis, dim, x.shape[axis] + before + after))
    return x


def pad_frames(b: Builder, x: Value, before: int, after: int) -> Value:
    """Zero frames before and after those of a clip (N, C, T, H, W)."""
    source, x = x.node, b.by_frames(x)
    if not (b.channels_last and x.dtype.is_floating_point):
        return pad_axes(b, x, [(0, 0), (0, 0), (before, after), (0, 0), (0, 0)])
    node, dim, packing = b.isolate(x, T_AXIS)
    shape, zero = list(packing.physical_shape), b.zero(source)

    def zeros(count: int) -> list[fx.Node]:
        one = b.reshape(zero, [1] * len(shape))
        return [b.emit(aten.expand.default, one, [*shape[:dim], count, *shape[dim + 1 :]])] if count else []

    padded = b.emit(aten.cat.default, [*zeros(before), node, *zeros(after)], dim)
    return b.value(padded, packing.resize(T_AXIS, dim, x.shape[T_AXIS] + before + after))
