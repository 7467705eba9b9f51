"""Sampling at computed coordinates: a plane by its own operator, a volume by one gather of rows.

For a volume, the eight corners are one Gather of rows (N·D·H·W, C) at 8·N·D'·H'·W' places, weighted and summed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.gathering import select_places
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Const, Operand
from edge4d.packing import Packing

if TYPE_CHECKING:
    from torch._ops import OpOverload

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
    x = spec.x
    if spec.padding == _ZEROS:  # a border of zeros is what the places outside read
        x = b.lower(aten.constant_pad_nd.default, x, [1, 1] * 3)
        sizes = [size + 2 for size in sizes]
    out = spec.grid.shape[1:4]
    count = math.prod(out)
    rows = b.lower(aten.permute.default, x, [0, 2, 3, 4, 1])
    rows = b.lower(aten.reshape.default, rows, [n * math.prod(sizes), c])
    grid = b.lower(aten.permute.default, b.lower(aten.reshape.default, spec.grid, [n * count, 3]), [1, 0])
    ends = _ends(b, _positions(b, _laid_out(b, grid), spec), spec)
    places = [_in_rows(b, place, spec, sizes, n, count) for place, _ in ends]
    sample = select_places(b, rows, 0, _corners(b, places, aten.add.Tensor))
    weights = [weight for _, weight in ends if weight is not None]
    if weights:
        corners = 2**3
        weight = b.lower(aten.reshape.default, _corners(b, weights, aten.mul.Tensor), [corners, n * count, 1])
        sample = b.lower(aten.reshape.default, sample, [corners, n * count, c])
        sample = b.lower(aten.sum.dim_IntList, b.lower(aten.mul.Tensor, sample, weight), [0], False)
    total = b.lower(aten.reshape.default, sample, [n, *out, c])
    result: Operand = b.lower(aten.permute.default, total, [0, 4, 1, 2, 3])
    return result


def _laid_out(b: Builder, x: Operand) -> Operand:
    """x in memory as its logical axes say, each in one piece: what follows broadcasts without a repack."""
    if isinstance(x, Const):
        return x
    return b.value(b.arrange(x, x.packing.logical), Packing.of(x.shape))


def _corners(b: Builder, ends: list[Operand], op: OpOverload) -> Operand:
    """What the ends of the three axes (3, places) give at each corner, joined by `op`: (corners · places,).

    All corners at once, the places last: one call for each axis, whose innermost loop is as long as the places.
    """
    _, count = ends[0].shape
    both = b.lower(aten.stack.default, ends, 1) if len(ends) > 1 else ends[0]
    total: Operand | None = None
    for axis in range(3):  # D first; the grid's last axis begins with that of W
        shape = [len(ends) if other == axis else 1 for other in range(3)]
        part = b.lower(aten.reshape.default, b.lower(aten.select.int, both, 0, 2 - axis), [*shape, count])
        total = part if total is None else b.lower(op, total, part)
    joined: Operand = b.lower(aten.reshape.default, total, [len(ends) ** 3 * count])
    return joined


def _row(values: Iterable[float], like: Operand, name: str) -> Const:
    """One number for each axis of the volume, D first, as a column (3, 1) that meets coordinates, W first."""
    return Const(torch.tensor([[value] for value in list(values)[::-1]], dtype=like.dtype), name)


def _positions(b: Builder, x: Operand, spec: SampleSpec) -> Operand:
    """Coordinates (3, places) in [-1, 1] as positions along each axis, brought inside as the padding says."""
    sizes = spec.x.shape[2:]
    x = b.lower(aten.add.Scalar, x, 1)
    if spec.align_corners:
        x = b.lower(aten.div.Scalar, x, 2)
        x = b.lower(aten.mul.Tensor, x, _row((size - 1 for size in sizes), x, "lengths"))
    else:
        x = b.lower(aten.mul.Tensor, x, _row(sizes, x, "sizes"))
        x = b.lower(aten.div.Scalar, b.lower(aten.sub.Scalar, x, 1), 2)
    if spec.padding == _REFLECTION:
        x = _reflected(b, x, spec)
    first = -1 if spec.padding == _ZEROS else 0
    result: Operand = b.lower(aten.minimum.default, b.lower(aten.clamp_min.default, x, first), _last(spec, x))
    return result


def _reflected(b: Builder, x: Operand, spec: SampleSpec) -> Operand:
    """Mirrored at the centres (align_corners) or the edges of the outer elements: a triangle wave."""
    low = 0.0 if spec.align_corners else -0.5
    spans = [size - 1 if spec.align_corners else size for size in spec.x.shape[2:]]
    wave = _row((2 * (span or 1) for span in spans), x, "wave")  # an axis of one element is brought inside later
    distance = b.lower(aten.abs.default, b.lower(aten.sub.Scalar, x, low))
    # |((d + span) mod 2·span) − span| is d on even flips, span − d on odd ones, seen from the far end
    turns = b.lower(aten.floor.default, b.lower(aten.div.Tensor, distance, wave))
    within = b.lower(aten.sub.Tensor, distance, b.lower(aten.mul.Tensor, turns, wave))
    back = b.lower(aten.sub.Tensor, wave, within)
    result: Operand = b.lower(aten.add.Scalar, b.lower(aten.minimum.default, within, back), low)
    return result


def _ends(b: Builder, x: Operand, spec: SampleSpec) -> list[tuple[Operand, Operand | None]]:
    """The one or two places that positions read along each axis, with the weight of each: (3, places) both."""
    if spec.mode == _NEAREST:
        return [(b.lower(aten.round.default, x), None)]
    low = b.lower(aten.floor.default, x)
    above = b.lower(aten.sub.Tensor, x, low)
    # a position on the last element reads the next one with weight 0
    high = b.lower(aten.minimum.default, b.lower(aten.add.Scalar, low, 1), _last(spec, x))
    return [(low, b.lower(aten.rsub.Scalar, above, 1)), (high, above)]


def _last(spec: SampleSpec, like: Operand) -> Const:
    """The last place along each axis: an element, or the border of zeros behind it."""
    return _row((size if spec.padding == _ZEROS else size - 1 for size in spec.x.shape[2:]), like, "last")


def _in_rows(b: Builder, place: Operand, spec: SampleSpec, sizes: list[int], n: int, count: int) -> Operand:
    """Places along each axis as what they add to the number of a row: D counts H·W rows, H counts W."""
    _, height, width = sizes
    if spec.padding == _ZEROS:
        place = b.lower(aten.add.Scalar, place, 1)  # behind the border of zeros in front
    place = b.lower(aten._to_copy.default, place, dtype=torch.int64)
    place = b.lower(aten.mul.Tensor, place, _row((height * width, width, 1), place, "rows"))
    if n > 1:  # the clips' rows lie one after another
        clips = torch.zeros(3, n * count, dtype=torch.int64)
        clips[2] = torch.arange(n).repeat_interleave(count) * math.prod(sizes)
        place = b.lower(aten.add.Tensor, place, Const(clips, f"{b.at.layer}.clips".strip(".")))
    return place
