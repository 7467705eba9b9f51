"""Overlapping looks at an axis: sliding windows, diagonals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import slice_axis, take
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Const, Operand
from edge4d.lowering.view import reshape

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

aten = torch.ops.aten


@dataclass(frozen=True)
class WindowSpec:
    """Windows of `size` every `step` places of `axis`: (…, windows, …, size)."""

    x: Operand
    axis: int
    size: int
    step: int


@lowers(aten.unfold.default, aten.unfold_copy.default)
class Window:
    """Every window's places in a row, then seen as (windows, size)."""

    def check(self, site: Site) -> WindowSpec | Decline:
        x: Operand = site.take("self")
        if not x.shape:
            return Decline("windows of a tensor without axes", "give it one axis")
        return WindowSpec(x, site.take("dimension") % len(x.shape), site.take("size"), site.take("step"))

    def rewrite(self, b: Builder, spec: WindowSpec) -> Operand:
        x, axis = spec.x, spec.axis
        starts = range(0, x.shape[axis] - spec.size + 1, spec.step)
        if spec.step == spec.size:
            row = slice_axis(b, x, axis, 0, len(starts) * spec.size)
        else:
            row = take(b, x, axis, [start + i for start in starts for i in range(spec.size)])
        split = (*x.shape[:axis], len(starts), spec.size, *x.shape[axis + 1 :])
        cut = reshape(b, b.given(row), split)
        last: Operand = b.lower(aten.permute.default, cut, [d for d in range(len(split)) if d != axis + 1] + [axis + 1])
        return last


@dataclass(frozen=True)
class DiagonalSpec:
    """x[…, i, …, i + offset, …] over `first` and `second`, which give way to one last axis of `count`."""

    x: Operand
    first: int
    second: int
    places: tuple[int, ...]


@lowers(aten.diagonal.default, aten.diagonal_copy.default)
class Diagonal:
    """Both axes as one; every (size + 1)-th place of it."""

    def check(self, site: Site) -> DiagonalSpec | Decline:
        return _diagonal(site)

    def rewrite(self, b: Builder, spec: DiagonalSpec) -> Operand:
        flat, _ = _as_one(b, spec)
        return take(b, flat, len(flat.shape) - 1, spec.places)


def _diagonal(site: Site) -> DiagonalSpec:
    x: Operand = site.take("self")
    rank = len(x.shape)
    first, second, offset = site.take("dim1") % rank, site.take("dim2") % rank, site.take("offset")
    row, column = max(0, -offset), max(0, offset)
    count = min(x.shape[first] - row, x.shape[second] - column)
    width = x.shape[second]
    return DiagonalSpec(x, first, second, tuple((row + i) * width + column + i for i in range(count)))


def _as_one(b: Builder, spec: DiagonalSpec) -> tuple[Operand, list[int]]:
    """x with both axes as its last one, and the order that its axes had before."""
    rank = len(spec.x.shape)
    order = [*(axis for axis in range(rank) if axis not in (spec.first, spec.second)), spec.first, spec.second]
    x = b.lower(aten.permute.default, spec.x, order)
    return b.lower(aten.reshape.default, x, [*x.shape[:-2], x.shape[-2] * x.shape[-1]]), order


@dataclass(frozen=True)
class DiagonalScatterSpec(DiagonalSpec):
    """x with that diagonal replaced by `source`, whose last axis runs along it."""

    source: Operand


@lowers(aten.diagonal_scatter.default)
class DiagonalScatter:
    """The source at every place of both axes as one, chosen where the diagonal is."""

    def check(self, site: Site) -> DiagonalScatterSpec | Decline:
        along = _diagonal(site)
        return DiagonalScatterSpec(along.x, along.first, along.second, along.places, site.take("src"))

    def rewrite(self, b: Builder, spec: DiagonalScatterSpec) -> Operand:
        if not spec.places:
            return spec.x
        flat, order = _as_one(b, spec)
        size, source = flat.shape[-1], spec.source
        if source.dtype != flat.dtype:
            source = b.lower(aten._to_copy.default, source, dtype=flat.dtype)
        number = {place: i for i, place in enumerate(spec.places)}
        spread = take(b, source, len(source.shape) - 1, [number.get(place, 0) for place in range(size)])
        here = Const(torch.tensor([place in number for place in range(size)]), "diagonal")
        written = b.lower(aten.where.self, here, spread, flat)
        wide = b.lower(aten.reshape.default, written, [spec.x.shape[axis] for axis in order])
        back = [order.index(axis) for axis in range(len(order))]
        result: Operand = b.lower(aten.permute.default, wide, back)
        return result
