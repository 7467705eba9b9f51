"""Sampling at computed coordinates: a plane by its own operator, a volume by gathers of rows.

For a volume, the eight corners are one Gather of rows (N·D·H·W, C) at 8·N·D'·H'·W' places, weighted and summed; for a
large one they are read one by one, since all of them together would be eight times the result.

The lower corner of a position is kept a step off the last element, so that the other corners lie at constant distances
from it: a place is one sum, and a corner adds a number to it. A position on the last element then reads it as the upper
corner, with weight 1.
"""

from __future__ import annotations

import itertools
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
    from edge4d.lowering.builder import Builder

aten = torch.ops.aten

AT_ONCE = 2**24
"""Elements of all corners together up to which they are read at once, which is faster and takes fewer nodes."""

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
    positions = _positions(b, _laid_out(b, grid), spec)
    if spec.mode == _NEAREST:
        low, above = b.lower(aten.round.default, positions), None
    else:
        steps = _column((max(last - 1, 0) for last in _lasts(spec)), positions, "steps")
        low = b.lower(aten.minimum.default, b.lower(aten.floor.default, positions), steps)
        above = b.lower(aten.sub.Tensor, positions, low)
    corners: list[Corner] = [(0, 0, 0)] if above is None else list(itertools.product((0, 1), (0, 1), (0, 1)))
    places = _in_rows(b, low, spec, sizes, n, count)
    strides = (sizes[1] * sizes[2], sizes[2], 1)
    beyond = [sum(k * s for k, s, size in zip(at, strides, sizes, strict=True) if size > 1) for at in corners]
    whole = len(corners) * n * count * max(c, 3) <= AT_ONCE
    total = (_at_once if whole else _one_by_one)(b, rows, places, beyond, above, corners)
    total = b.lower(aten.reshape.default, total, [n, *out, c])
    result: Operand = b.lower(aten.permute.default, total, [0, 4, 1, 2, 3])
    return result


Corner = tuple[int, int, int]
"""0 for the lower, 1 for the upper end along D, H and W."""


def _at_once(
    b: Builder, rows: Operand, places: Operand, beyond: list[int], above: Operand | None, corners: list[Corner]
) -> Operand:
    """The weighted sum (places, C) of the corners, read by one gather; `places` are those of the lower corners."""
    count = places.shape[-1]
    if above is None:
        sample: Operand = select_places(b, rows, 0, b.lower(aten.reshape.default, places, [count]))
        return sample
    steps = Const(torch.tensor(beyond).unsqueeze(-1), "corners")
    all_places = b.lower(aten.reshape.default, b.lower(aten.add.Tensor, places, steps), [len(corners) * count])
    sample = b.lower(aten.reshape.default, select_places(b, rows, 0, all_places), [len(corners), count, rows.shape[1]])
    weight: Operand | None = None
    for axis, end in enumerate(_ends(b, above)):  # all at once, with the places as the innermost loop
        part = b.lower(aten.reshape.default, end, [*(2 if other == axis else 1 for other in range(3)), count])
        weight = part if weight is None else b.lower(aten.mul.Tensor, weight, part)
    weight = b.lower(aten.reshape.default, weight, [len(corners), count, 1])
    total: Operand = b.lower(aten.sum.dim_IntList, b.lower(aten.mul.Tensor, sample, weight), [0], False)
    return total


def _one_by_one(
    b: Builder, rows: Operand, places: Operand, beyond: list[int], above: Operand | None, corners: list[Corner]
) -> Operand:
    """The same in an eighth of the memory, by a gather for each corner."""
    count = places.shape[-1]
    flat = b.lower(aten.reshape.default, places, [count])
    total: Operand | None = None
    ends = None if above is None else _ends(b, above)
    for corner, step in zip(corners, beyond, strict=True):
        place = b.lower(aten.add.Scalar, flat, step) if step else flat
        sample: Operand = select_places(b, rows, 0, place)
        if ends is not None:
            depth, height, width = (b.lower(aten.select.int, end, 0, k) for end, k in zip(ends, corner, strict=True))
            weight = b.lower(aten.mul.Tensor, b.lower(aten.mul.Tensor, depth, height), width)
            sample = b.lower(aten.mul.Tensor, sample, b.lower(aten.unsqueeze.default, weight, 1))
        total = sample if total is None else b.lower(aten.add.Tensor, total, sample)
    assert total is not None
    return total


def _ends(b: Builder, above: Operand) -> list[Operand]:
    """Weights (2, places) of the lower and upper end along D, H and W, from how far positions lie above the lower."""
    # |above − 1| is the lower end's weight, |above − 0| the upper one's; the grid's order of axes is W first
    lower_upper = Const(torch.tensor([[1], [0]], dtype=above.dtype), "ends")
    apart = b.lower(aten.sub.Tensor, b.lower(aten.unsqueeze.default, above, 1), lower_upper)
    ends = b.lower(aten.abs.default, apart)
    return [b.lower(aten.select.int, ends, 0, axis) for axis in (2, 1, 0)]


def _laid_out(b: Builder, x: Operand) -> Operand:
    """x in memory as its logical axes say, each in one piece: what follows broadcasts without a repack."""
    if isinstance(x, Const):
        return x
    return b.value(b.arrange(x, x.packing.logical), Packing.of(x.shape))


def _column(values: Iterable[float], like: Operand, name: str) -> Const:
    """One number for each axis of the volume, D first, as (3, 1) that meets coordinates, W first."""
    return Const(torch.tensor([[value] for value in list(values)[::-1]], dtype=like.dtype), name)


def _positions(b: Builder, x: Operand, spec: SampleSpec) -> Operand:
    """Coordinates (3, places) in [-1, 1] as positions along each axis, brought inside as the padding says.

    A half taken beforehand changes no bit of torch's ((x + 1) · size − 1) / 2.
    """
    sizes = spec.x.shape[2:]
    if spec.padding == _BORDER and spec.align_corners:  # the border lies at ±1
        x = b.lower(aten.clamp.default, x, -1, 1)
        x = b.lower(aten.add.Scalar, x, 1)
        inside: Operand = b.lower(aten.mul.Tensor, x, _column(((size - 1) / 2 for size in sizes), x, "lengths"))
        return inside
    x = b.lower(aten.add.Scalar, x, 1)
    if spec.align_corners:
        x = b.lower(aten.mul.Tensor, x, _column(((size - 1) / 2 for size in sizes), x, "lengths"))
    else:
        x = b.lower(aten.mul.Tensor, x, _column((size / 2 for size in sizes), x, "sizes"))
        x = b.lower(aten.sub.Scalar, x, 0.5)
    if spec.padding == _REFLECTION:
        x = _reflected(b, x, spec)
    first = -1 if spec.padding == _ZEROS else 0
    result: Operand = b.lower(
        aten.minimum.default, b.lower(aten.clamp_min.default, x, first), _column(_lasts(spec), x, "last")
    )
    return result


def _reflected(b: Builder, x: Operand, spec: SampleSpec) -> Operand:
    """Mirrored at the centres (align_corners) or the edges of the outer elements: a triangle wave."""
    low = 0.0 if spec.align_corners else -0.5
    spans = [size - 1 if spec.align_corners else size for size in spec.x.shape[2:]]
    wave = _column((2 * (span or 1) for span in spans), x, "wave")  # an axis of one element is brought inside later
    distance = b.lower(aten.abs.default, b.lower(aten.sub.Scalar, x, low))
    # |((d + span) mod 2·span) − span| is d on even flips, span − d on odd ones, seen from the far end
    turns = b.lower(aten.floor.default, b.lower(aten.div.Tensor, distance, wave))
    within = b.lower(aten.sub.Tensor, distance, b.lower(aten.mul.Tensor, turns, wave))
    back = b.lower(aten.sub.Tensor, wave, within)
    result: Operand = b.lower(aten.add.Scalar, b.lower(aten.minimum.default, within, back), low)
    return result


def _lasts(spec: SampleSpec) -> list[int]:
    """The last place along each axis: an element, or the border of zeros behind it."""
    return [size if spec.padding == _ZEROS else size - 1 for size in spec.x.shape[2:]]


def _in_rows(b: Builder, place: Operand, spec: SampleSpec, sizes: list[int], n: int, count: int) -> Operand:
    """Places (3, places) along each axis as numbers of rows (1, places): D counts H·W rows, H counts W."""
    _, height, width = sizes
    strides = (height * width, width, 1)
    place = b.lower(aten._to_copy.default, place, dtype=torch.int64)
    place = b.lower(aten.mul.Tensor, place, _column(strides, place, "rows"))
    place = b.lower(aten.sum.dim_IntList, place, [0], True)
    first = torch.arange(n).repeat_interleave(count) * math.prod(sizes)  # the clips' rows lie one after another
    if spec.padding == _ZEROS:
        first = first + sum(strides)  # behind the border of zeros in front
    if bool(first.any()):
        name = f"{b.at.layer}.clips".strip(".")
        place = b.lower(aten.add.Tensor, place, Const((first if n > 1 else first[:1]).unsqueeze(0), name))
    result: Operand = place
    return result
