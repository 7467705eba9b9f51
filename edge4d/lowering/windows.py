"""Overlapping looks at an axis: sliding windows, diagonals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import slice_axis, take
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Operand
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
        x: Operand = site.take("self")
        rank = len(x.shape)
        first, second, offset = site.take("dim1") % rank, site.take("dim2") % rank, site.take("offset")
        row, column = max(0, -offset), max(0, offset)
        count = min(x.shape[first] - row, x.shape[second] - column)
        width = x.shape[second]
        return DiagonalSpec(x, first, second, tuple((row + i) * width + column + i for i in range(count)))

    def rewrite(self, b: Builder, spec: DiagonalSpec) -> Operand:
        x = spec.x
        rest = [axis for axis in range(len(x.shape)) if axis not in (spec.first, spec.second)]
        x = b.lower(aten.permute.default, x, [*rest, spec.first, spec.second])
        x = b.lower(aten.reshape.default, x, [*x.shape[:-2], x.shape[-2] * x.shape[-1]])
        return take(b, x, len(x.shape) - 1, spec.places)
