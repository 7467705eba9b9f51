"""Writing at integer places, known or computed: scatter in a common frame, and index assignment through it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import concat, slice_axis
from edge4d.lowering.gathering import index_axes, merged_places, side_by_side
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Const, Operand, Value

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

aten = torch.ops.aten


@dataclass(frozen=True)
class ScatterSpec:
    """y = x; y[…, index[…, i, …], …] ∘= source[…, i, …] along `axis`; a number for `source` is a tensor of it.

    `reduce` is None where the source replaces; else sum, prod, amax or amin, with x among what is reduced.
    """

    x: Operand
    axis: int
    index: Operand
    source: Operand
    reduce: str | None


@lowers(
    aten.scatter.src,
    aten.scatter.value,
    aten.scatter.reduce,
    aten.scatter.value_reduce,
    aten.scatter_add.default,
    aten.scatter_reduce.two,
)
class Scatter:
    """A place for each element: x, index and source share a frame; what the index does not reach is cut off first."""

    def check(self, site: Site) -> ScatterSpec | Decline:
        x, index = site.take("self"), site.take("index")
        if not x.shape or not index.shape:
            return Decline("scatter into a tensor without axes", "give it one axis")
        axis = site.take("dim") % len(x.shape)
        named = str(site.take("reduce")) if site.has("reduce") else ""
        reduce = {"add": "sum", "multiply": "prod"}.get(named, named) or None
        if site.op is aten.scatter_add.default:
            reduce = "sum"
        if site.has("include_self") and not site.take("include_self"):
            return Decline("scatter_reduce that leaves out the former values", "use include_self=True")
        if reduce == "mean":
            return Decline("scatter_reduce with a mean", "divide a scattered sum by a scattered count")
        source = site.take("src") if site.has("src") else site.take("value")
        if not isinstance(source, Operand):
            source = Const(torch.full(index.shape, source, dtype=x.dtype), "value")
        return ScatterSpec(x, axis, index, source, reduce)

    def rewrite(self, b: Builder, spec: ScatterSpec) -> Operand:
        source = spec.source
        if 0 in spec.index.shape:
            return spec.x
        for axis, size in enumerate(spec.index.shape):
            source = slice_axis(b, source, axis, 0, size)
        return scatter(b, spec.x, spec.axis, spec.index, source, spec.reduce)


def scatter(b: Builder, x: Operand, axis: int, index: Operand, source: Operand, reduce: str | None) -> Operand:
    """`index` and `source` of one shape, which along the other axes may be shorter than x."""
    for other, size in enumerate(index.shape):
        if other != axis and size < x.shape[other]:
            head = slice_axis(b, x, other, 0, size)
            tail = slice_axis(b, x, other, size, x.shape[other])
            return concat(b, [scatter(b, head, axis, index, source, reduce), tail], other)
    (onto, places, from_), dim, packing = side_by_side(b, [b.given(x), b.given(index), b.given(source)], axis)
    packing = packing.resize(axis, dim, x.shape[axis])
    if reduce is None:
        return b.value(b.emit(aten.scatter.src, onto, dim, places, from_), packing)
    return b.value(b.emit(aten.scatter_reduce.two, onto, dim, places, from_, reduce), packing)


@dataclass(frozen=True)
class AssignSpec:
    """y = x; y[…, i, j, …] = values, or += where `add`; integer `indices` at neighbouring `axes`."""

    x: Operand
    axes: tuple[int, ...]
    indices: tuple[Operand, ...]
    values: Operand
    add: bool


@dataclass(frozen=True)
class MaskedSpec:
    """x where not `mask`, else the one value; the mask has as many leading axes of x as it has axes."""

    x: Operand
    mask: Operand
    values: Operand


@lowers(aten.index_put.default)
class IndexPut:
    """Assignment at places: the axes are merged, the index repeated over the others, and scattered."""

    def check(self, site: Site) -> AssignSpec | MaskedSpec | Decline:
        x, values, add = site.take("self"), site.take("values"), bool(site.take("accumulate"))
        given = site.take("indices")
        masks = [index for index in given if index is not None]
        if len(masks) == 1 and masks[0].dtype == torch.bool and isinstance(masks[0], Value):
            if math.prod(values.shape) == 1 and given[0] is not None and not add:
                return MaskedSpec(x, masks[0], values)
            return Decline(
                "assignment of several values through a mask computed from the input",
                "assign one number, or use torch.where",
            )
        found = index_axes(x, given)
        if isinstance(found, Decline):
            return found
        axes, indices = found
        if axes != tuple(range(axes[0], axes[0] + len(axes))):
            return Decline("assignment at indices along axes that are not neighbours", "permute the axes first")
        return AssignSpec(x, axes, indices, values, add)

    def rewrite(self, b: Builder, spec: AssignSpec | MaskedSpec) -> Operand:
        if isinstance(spec, MaskedSpec):
            under = [*spec.mask.shape, *[1] * (len(spec.x.shape) - len(spec.mask.shape))]
            mask = b.lower(aten.reshape.default, spec.mask, under)
            value = b.lower(aten.reshape.default, spec.values, [])
            masked: Operand = b.lower(aten.where.self, mask, value, spec.x)
            return masked
        shape, start, count = spec.x.shape, spec.axes[0], len(spec.axes)
        before, sizes, after = shape[:start], shape[start : start + count], shape[start + count :]
        x: Operand = b.lower(aten.reshape.default, spec.x, [*before, math.prod(sizes), *after])
        places, common = merged_places(b, spec.indices, sizes)
        number = places.shape[0]
        values = b.lower(aten.expand.default, spec.values, [*before, *common, *after])
        values = b.lower(aten.reshape.default, values, [*before, number, *after])
        index = b.lower(aten.reshape.default, places, [*[1] * start, number, *[1] * len(after)])
        index = b.lower(aten.expand.default, index, [*before, number, *after])
        put = scatter(b, x, start, index, values, "sum" if spec.add else None)
        result: Operand = b.lower(aten.reshape.default, put, list(spec.x.shape))
        return result
