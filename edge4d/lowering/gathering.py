"""Reading at places: integer indices known at lowering time or computed from the input, along any axes.

Indices along several axes become one index into those axes merged: i·size(j) + j. So everything is a selection along
one axis (ONNX Gather) or, where each element has a place of its own, `gather` (ONNX GatherElements) in a common frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.alignment import align
from edge4d.lowering.axis import slice_axis, take
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Const, Operand, Value
from edge4d.lowering.view import with_axis

if TYPE_CHECKING:
    from torch.fx import Node

    from edge4d.lowering.builder import Builder
    from edge4d.packing import Packing

__all__ = ["as_integers", "merged_places", "select_places", "side_by_side", "without_masks"]

aten = torch.ops.aten


def select_places(b: Builder, x: Operand, axis: int, places: Operand) -> Operand:
    """x at 1-D places (count,) along one axis; they must not be negative unless they are constant."""
    if isinstance(places, Const):
        return take(b, x, axis, [int(i) % x.shape[axis] for i in places.tensor.reshape(-1).tolist()])
    node, dim, packing = b.isolate(b.given(x), axis)
    flat = b.arrange(places, (places.packing.logical[0],))
    picked = b.emit(aten.index_select.default, node, dim, flat)
    return b.value(picked, packing.resize(axis, dim, places.shape[0]))


def not_negative(b: Builder, places: Operand, size: int) -> Operand:
    """Python's places from the end, counted from the start."""
    if isinstance(places, Const):
        return Const(places.tensor % size, places.name)
    from_end = b.lower(aten.add.Scalar, places, size)
    counted: Operand = b.lower(aten.where.self, b.lower(aten.lt.Scalar, places, 0), from_end, places)
    return counted


def as_integers(index: Operand) -> list[Operand] | Decline:
    """An index as integer ones: itself, or the axes of a constant mask's true places."""
    if index.dtype not in (torch.bool, torch.uint8):
        return [index]
    if isinstance(index, Const):
        return [Const(places, f"{index.name}.places") for places in index.tensor.nonzero(as_tuple=True)]
    return Decline(
        "indexing by a mask computed from the input gives a shape that depends on values",
        "use torch.where, or multiply by the mask",
    )


def without_masks(indices: Sequence[Operand | None]) -> list[Operand | None]:
    """Indices in which a constant mask is replaced by the integers that it stands for."""
    result: list[Operand | None] = []
    for index in indices:
        integers = as_integers(index) if isinstance(index, Const) else [index]
        result.extend(integers if isinstance(integers, list) else [index])
    return result


def merged_places(b: Builder, indices: Sequence[Operand], sizes: Sequence[int]) -> tuple[Operand, tuple[int, ...]]:
    """Indices along neighbouring axes of the given sizes as one flat index (count,), and their common shape."""
    shape = tuple(torch.broadcast_shapes(*(index.shape for index in indices)))  # type: ignore[no-untyped-call]
    place: Operand | None = None
    for index, size in zip(indices, sizes, strict=True):
        own = index
        if own.dtype != torch.int64:
            own = b.lower(aten._to_copy.default, own, dtype=torch.int64)
        own = not_negative(b, own, size)
        if place is not None:
            own = b.lower(aten.add.Tensor, b.lower(aten.mul.Scalar, place, size), own)
        place = own
    assert place is not None
    if place.shape != shape:
        place = b.lower(aten.expand.default, place, list(shape))
    flat: Operand = b.lower(aten.reshape.default, place, [math.prod(shape)])
    return flat, shape


@dataclass(frozen=True)
class IndexSpec:
    """x[…, i, j, …]: integer `indices` at `axes`; `first` when their common shape comes first in the result."""

    x: Operand
    axes: tuple[int, ...]
    indices: tuple[Operand, ...]
    first: bool
    shape: tuple[int, ...]


def index_axes(x: Operand, indices: Sequence[Operand | None]) -> tuple[tuple[int, ...], tuple[Operand, ...]] | Decline:
    """The axes that are indexed and their integer indices; a mask stands for as many axes as it has."""
    axes: list[int] = []
    found: list[Operand] = []
    axis = 0
    for index in indices:
        if index is None:
            axis += 1
            continue
        integers = as_integers(index)
        if isinstance(integers, Decline):
            return integers
        for one in integers:
            axes.append(axis)
            found.append(one)
            axis += 1
    if any(0 in index.shape for index in found):
        return Decline("indexing by no places gives a tensor without elements", "leave it out")
    return tuple(axes), tuple(found)


@lowers(aten.index.Tensor)
class Index:
    """x[:, i, j]: integers along any axes."""

    def check(self, site: Site) -> IndexSpec | Decline:
        x: Operand = site.take("self")
        found = index_axes(x, site.take("indices"))
        if isinstance(found, Decline):
            return found
        axes, indices = found
        apart = axes != tuple(range(axes[0], axes[0] + len(axes)))
        return IndexSpec(x, axes, indices, apart, site.shape)

    def rewrite(self, b: Builder, spec: IndexSpec) -> Operand:
        x, start = spec.x, spec.axes[0]
        if spec.first:
            order = [*spec.axes, *(axis for axis in range(len(x.shape)) if axis not in spec.axes)]
            x, start = b.lower(aten.permute.default, x, order), 0
        count = len(spec.axes)
        sizes = x.shape[start : start + count]
        if count > 1:
            x = b.lower(aten.reshape.default, x, [*x.shape[:start], math.prod(sizes), *x.shape[start + count :]])
        places, _ = merged_places(b, spec.indices, sizes)
        taken: Operand = b.lower(aten.reshape.default, select_places(b, x, start, places), list(spec.shape))
        return taken


@dataclass(frozen=True)
class SelectionSpec:
    """x at places along `axis`; the result's logical shape puts the places' own shape there."""

    x: Operand
    axis: int
    places: Operand
    shape: tuple[int, ...]


@lowers(aten.index_select.default, aten.embedding.default)
class Selection:
    """One index along one axis: index_select, the rows of an embedding."""

    def check(self, site: Site) -> SelectionSpec | Decline:
        if site.op is aten.embedding.default:
            for only_in_training in ("padding_idx", "scale_grad_by_freq", "sparse"):  # they shape gradients
                site.take(only_in_training)
            return SelectionSpec(site.take("weight"), 0, site.take("indices"), site.shape)
        x: Operand = site.take("self")
        return SelectionSpec(x, site.take("dim") % max(1, len(x.shape)), site.take("index"), site.shape)

    def rewrite(self, b: Builder, spec: SelectionSpec) -> Operand:
        x = spec.x if spec.x.shape else with_axis(b, spec.x)
        places, _ = merged_places(b, [spec.places], [x.shape[spec.axis]])
        picked = select_places(b, x, spec.axis, places)
        taken: Operand = b.lower(aten.reshape.default, picked, list(spec.shape))
        return taken


@dataclass(frozen=True)
class GatherSpec:
    """y[…, i, …] = x[…, index[…, i, …], …] along `axis`."""

    x: Operand
    axis: int
    index: Operand


@lowers(aten.gather.default)
class Gather:
    """A place for each element: x is cut to the index along the other axes, then both share a frame."""

    def check(self, site: Site) -> GatherSpec | Decline:
        x, index = site.take("self"), site.take("index")
        site.take("sparse_grad")  # gradients only
        if not x.shape or not index.shape:
            return Decline("gather from a tensor without axes", "give it one axis")
        return GatherSpec(x, site.take("dim") % len(x.shape), index)

    def rewrite(self, b: Builder, spec: GatherSpec) -> Value:
        x = spec.x
        for axis, size in enumerate(spec.index.shape):
            if axis != spec.axis and size < x.shape[axis]:
                x = slice_axis(b, x, axis, 0, size)
        (source, places), dim, packing = side_by_side(b, [x, spec.index], spec.axis)
        gathered = b.emit(aten.gather.default, source, dim, places)
        return b.value(gathered, packing.resize(spec.axis, dim, spec.index.shape[spec.axis]))


def side_by_side(b: Builder, operands: Sequence[Operand], axis: int) -> tuple[list[Node], int, Packing]:
    """Operands of one shape but for `axis`, in one physical frame: nodes, that axis's place, and a packing in which it
    has yet to be given its size.
    """
    shape = list(operands[0].shape)
    shape[axis] = sum(operand.shape[axis] for operand in operands)  # above 1, so that it has a place to be found by
    nodes, packing = align(b, operands, shape, alone=axis)
    return nodes, packing.physical.index(packing.logical[axis]), packing


@dataclass(frozen=True)
class BucketSpec:
    """How many of the sorted `boundaries` lie below x (`right`: at or below)."""

    x: Operand
    boundaries: Operand
    right: bool
    dtype: torch.dtype


@lowers(aten.bucketize.Tensor, aten.searchsorted.Tensor)
class Bucketize:
    """Places in a sorted row of numbers: comparisons with all of them, counted."""

    def check(self, site: Site) -> BucketSpec | Decline:
        x: Operand = site.take("self")
        site.take("out_int32")
        right = site.take("right")
        if site.has("side"):
            if site.take("sorter") is not None:
                return Decline("searchsorted with a sorter", "sort the boundaries beforehand")
            side = site.take("side")
            right = right if side is None else side == "right"
            boundaries = site.take("sorted_sequence")
        else:
            boundaries = site.take("boundaries")
        if len(boundaries.shape) != 1:
            return Decline("boundaries with several rows", "use one row of boundaries, or compare and sum")
        return BucketSpec(x, boundaries, bool(right), site.dtype)

    def rewrite(self, b: Builder, spec: BucketSpec) -> Operand:
        each = b.lower(aten.unsqueeze.default, spec.x, len(spec.x.shape))
        # not "below or equal": of what is no number none is, and torch puts it behind all of them
        above = b.lower(aten.gt.Tensor if spec.right else aten.ge.Tensor, spec.boundaries, each)
        below = b.lower(aten.logical_not.default, above)
        counted: Operand = b.lower(aten.sum.dim_IntList, below, [-1], False, dtype=spec.dtype)
        return counted
