"""Sampling at computed coordinates: a plane by its own operator, a volume by eight (or one) gathers of rows.

For a volume, every corner is one Gather of rows (N·D·H·W, C) at N·D'·H'·W' places, weighted as torch weights it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.gathering import select_places
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Const, Operand
from edge4d.packing import Packing

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

aten = torch.ops.aten

_NEAREST, _BICUBIC = 1, 2
_ZEROS, _BORDER, _REFLECTION = 0, 1, 2


@dataclass(frozen=True)
class SampleSpec:
    """x (N, C, *sizes) at `grid` (N, *out, axes) of coordinates in [-1, 1], the last axis of x first.

    Attributes:
        mode: 0 linear, 1 nearest, 2 bicubic.
        padding: 0 zeros, 1 border, 2 reflection.
    """

    x: Operand
    grid: Operand
    mode: int
    padding: int
    align_corners: bool


@lowers(aten.grid_sampler_2d.default, aten.grid_sampler_3d.default)
class GridSample:
    """grid_sample of every mode and padding that torch has for it."""

    def check(self, site: Site) -> SampleSpec | Decline:
        return SampleSpec(
            site.take("input"),
            site.take("grid"),
            site.take("interpolation_mode"),
            site.take("padding_mode"),
            bool(site.take("align_corners")),
        )

    def rewrite(self, b: Builder, spec: SampleSpec) -> Operand:
        if len(spec.x.shape) == 5:
            return _volume(b, spec)
        x, grid = b.given(spec.x), b.given(spec.grid)
        nodes = [b.arrange(side, side.packing.logical) for side in (x, grid)]
        sampled = b.emit(aten.grid_sampler_2d.default, *nodes, spec.mode, spec.padding, spec.align_corners)
        return b.value(sampled, Packing.of((*x.shape[:2], *grid.shape[1:3])))


def _volume(b: Builder, spec: SampleSpec) -> Operand:
    n, c, *sizes = spec.x.shape
    out = spec.grid.shape[1:4]
    count = n * math.prod(out)
    rows = b.lower(aten.permute.default, spec.x, [0, 2, 3, 4, 1])
    rows = b.lower(aten.reshape.default, rows, [n * math.prod(sizes), c])
    clips = torch.arange(n).repeat_interleave(math.prod(out)) * sizes[0]  # the clips' depths lie one after another
    corners: list[list[tuple[Operand, Operand | None, Operand | None]]] = []
    for axis, size in enumerate(sizes):
        coordinate = b.lower(aten.select.int, spec.grid, 4, 2 - axis)
        coordinate = b.lower(aten.reshape.default, coordinate, [count])
        corners.append(_corners(b, _position(b, coordinate, size, spec), size, spec))
    total: Operand | None = None
    for combination in itertools.product(*corners):
        place: Operand | None = None
        factor: Operand | None = None
        for size, (index, weight, inside) in zip(sizes, combination, strict=True):
            if place is None:
                first = Const(clips, f"{b.at.layer}.clips".strip("."))
                place = b.lower(aten.add.Tensor, index, first) if n > 1 else index
            else:
                place = b.lower(aten.add.Tensor, b.lower(aten.mul.Scalar, place, size), index)
            for part in (weight, inside):
                if part is not None:
                    factor = part if factor is None else b.lower(aten.mul.Tensor, factor, part)
        assert place is not None
        sample = select_places(b, rows, 0, place)
        if factor is not None:
            sample = b.lower(aten.mul.Tensor, sample, b.lower(aten.unsqueeze.default, factor, 1))
        total = sample if total is None else b.lower(aten.add.Tensor, total, sample)
    assert total is not None
    total = b.lower(aten.reshape.default, total, [n, *out, c])
    result: Operand = b.lower(aten.permute.default, total, [0, 4, 1, 2, 3])
    return result


def _position(b: Builder, x: Operand, size: int, spec: SampleSpec) -> Operand:
    """Coordinates in [-1, 1] as positions along an axis of `size`, brought inside as the padding says."""
    if spec.align_corners:
        x = b.lower(aten.mul.Scalar, b.lower(aten.div.Scalar, b.lower(aten.add.Scalar, x, 1), 2), size - 1)
    else:
        x = b.lower(aten.mul.Scalar, b.lower(aten.add.Scalar, x, 1), size)
        x = b.lower(aten.div.Scalar, b.lower(aten.sub.Scalar, x, 1), 2)
    if spec.padding == _REFLECTION:
        x = _reflected(b, x, size, spec.align_corners)
    if spec.padding in (_BORDER, _REFLECTION):
        x = b.lower(aten.clamp.default, x, 0, size - 1)
    return x


def _reflected(b: Builder, x: Operand, size: int, align_corners: bool) -> Operand:
    """Mirrored at the centres (align_corners) or the edges of the outer elements: a triangle wave."""
    low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
    span = high - low
    if span == 0:
        return b.lower(aten.mul.Scalar, x, 0)  # type: ignore[no-any-return]
    distance = b.lower(aten.abs.default, b.lower(aten.sub.Scalar, x, low))
    # |((d + span) mod 2·span) − span| is d on even flips, span − d on odd ones, seen from the far end
    turns = b.lower(aten.floor.default, b.lower(aten.div.Scalar, distance, 2 * span))
    within = b.lower(aten.sub.Tensor, distance, b.lower(aten.mul.Scalar, turns, 2 * span))
    back = b.lower(aten.rsub.Scalar, within, 2 * span)
    result: Operand = b.lower(aten.add.Scalar, b.lower(aten.minimum.default, within, back), low)
    return result


def _corners(
    b: Builder, x: Operand, size: int, spec: SampleSpec
) -> list[tuple[Operand, Operand | None, Operand | None]]:
    """The one or two places that a position reads along an axis: (place inside the axis, weight, 1 where inside)."""
    if spec.mode == _NEAREST:
        ends: list[tuple[Operand, Operand | None]] = [(b.lower(aten.round.default, x), None)]
    else:
        low = b.lower(aten.floor.default, x)
        above = b.lower(aten.sub.Tensor, x, low)
        ends = [(low, b.lower(aten.rsub.Scalar, above, 1)), (b.lower(aten.add.Scalar, low, 1), above)]
    result = []
    for end, weight in ends:
        inside = None
        if spec.padding == _ZEROS:
            within = b.lower(
                aten.logical_and.default, b.lower(aten.ge.Scalar, end, 0), b.lower(aten.lt.Scalar, end, size)
            )
            inside = b.lower(aten._to_copy.default, within, dtype=x.dtype)
        place = b.lower(aten._to_copy.default, b.lower(aten.clamp.default, end, 0, size - 1), dtype=torch.int64)
        result.append((place, weight, inside))
    return result
