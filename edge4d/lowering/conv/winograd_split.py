"""Formulation `winograd-split`: Winograd along time with slices and sums in place of matrices, for NPUs.

    y = A · conv2d(B · x, G · w)                              (Lavin & Gray 2016; `*` is the 2-D convolution)

    F(2, 3):  m1 = (d0 − d2) * g0                y0 = m1 + m2 + m3
              m2 = (d1 + d2) * (g0 + g1 + g2)/2  y1 = m2 − m3 + m4
              m3 = (d2 − d1) * (g0 − g1 + g2)/2
              m4 = (d3 − d1) * g2

An NPU's compiler makes a product along time a 1x1 convolution between changes of layout, which it runs on the CPU when
they are large. Here no value leaves the layout [frames, C, H, W]: one gather puts the frames of a clip in the order
d0 of every tile, d1 of every tile, …; slices of whole frames, sums and multiples follow; another gather brings the
results into order. Sums that two points ±p share are made once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import concat, gather_axis, pad_axes, slice_axis
from edge4d.lowering.conv.combining import combined
from edge4d.lowering.conv.cook_toom import fast_filter
from edge4d.lowering.conv.cost import Cost, frame_macs, frame_sizes
from edge4d.lowering.conv.plane import frames_conv2d
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.taps import T_AXIS, plane_spec, time_only
from edge4d.lowering.values import Const, Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["Split"]

aten = torch.ops.aten

Row = tuple[float, ...]

_TAPS = 3


@dataclass(frozen=True)
class Split:
    """F(tile, 3): tiles of `tile` result frames, `tile` + 2 convolutions each."""

    tile: int

    def applies(self, spec: ConvSpec) -> str | None:
        """Why the formulation does not fit, None when it does."""
        if spec.transposed:
            return "a transposed convolution"
        if spec.kernel[0] != _TAPS:
            return f"the kernel has {spec.kernel[0]} temporal taps, F({self.tile}, 3) takes 3"
        if spec.stride[0] != 1 or spec.dilation[0] != 1:
            return f"temporal stride {spec.stride[0]}, dilation {spec.dilation[0]}; tiles need 1 and 1"
        if not isinstance(spec.weight, Const):
            return "the weights are computed while the model runs"
        if not spec.weight.dtype.is_floating_point:
            return "weights of integers, which are not combined without a remainder"
        return None

    def cost(self, spec: ConvSpec) -> Cost:
        """The clip is padded, gathered, cut and combined; results are combined, joined and put in order."""
        given, made = frame_sizes(spec)
        tiles, count = -(-spec.shape[T_AXIS] // self.tile), self.tile + 2
        sums = 4 if self.tile == 2 else 18
        moved = given * tiles * (6 * count + 3 * sums) + made * tiles * (3 * sums + 4 * self.tile)
        weights = math.prod(spec.weight.shape) // _TAPS * count
        held = (given + made) * tiles * count * 2
        calls = 2 * sums + count + 4
        return Cost(frame_macs(spec) * count * tiles, spec.weight.shape[1], moved, 0, calls, weights, spec.groups, held)

    def rewrite(self, b: Builder, spec: ConvSpec) -> Operand:
        """`tile` + 2 convolutions of one frame a tile."""
        frames, results, before = spec.x.shape[T_AXIS], spec.shape[T_AXIS], spec.padding[0][0]
        results_of, weights, inputs_of = fast_filter(self.tile, _TAPS)
        tiles, count = -(-results // self.tile), self.tile + 2
        after = max(0, tiles * self.tile + 2 - before - frames)
        x: Operand = pad_axes(b, b.given(spec.x), time_only(before, after))
        x = gather_axis(b, x, T_AXIS, [i * self.tile + j for j in range(count) for i in range(tiles)])
        frame = [slice_axis(b, x, T_AXIS, j * tiles, (j + 1) * tiles) for j in range(count)]
        products = [
            frames_conv2d(b, plane_spec(spec, taken, _weight(b, spec, weights, j), spec.bias if j == 1 else None))
            for j, taken in enumerate(_paired_rows(b, inputs_of.tolist(), frame))
        ]
        y = concat(b, _paired_columns(b, results_of.tolist(), products), T_AXIS)
        order = [(i % self.tile) * tiles + i // self.tile for i in range(results)]
        return gather_axis(b, y, T_AXIS, order)


def _paired_rows(b: Builder, matrix: Sequence[Row], parts: Sequence[Operand]) -> list[Operand]:
    """matrix · parts. Rows 1 and 2, 3 and 4, … belong to points ±p: a sum of two halves, and their difference."""
    made = [_combine(b, matrix[0], parts)]
    for plus, minus in zip(matrix[1:-1:2], matrix[2:-1:2], strict=True):
        even = _combine(b, [(p + m) / 2 for p, m in zip(plus, minus, strict=True)], parts)
        odd = _combine(b, [(p - m) / 2 for p, m in zip(plus, minus, strict=True)], parts)
        made += [b.lower(aten.add.Tensor, even, odd), b.lower(aten.sub.Tensor, even, odd)]
    return [*made, _combine(b, matrix[-1], parts)]


def _paired_columns(b: Builder, matrix: Sequence[Row], parts: Sequence[Operand]) -> list[Operand]:
    """matrix · parts. Columns 1 and 2, 3 and 4, … are equal in one row and opposite in the next."""
    shared = [parts[0]]
    for plus, minus in zip(parts[1:-1:2], parts[2:-1:2], strict=True):
        shared += [b.lower(aten.add.Tensor, plus, minus), b.lower(aten.sub.Tensor, plus, minus)]
    shared.append(parts[-1])
    made = []
    for row in matrix:
        factors = [row[0]]
        for one, other in zip(row[1:-1:2], row[2:-1:2], strict=True):
            factors += [(one + other) / 2, (one - other) / 2]
        made.append(_combine(b, [*factors, row[-1]], shared))
    return made


def _combine(b: Builder, row: Sequence[float], parts: Sequence[Operand]) -> Operand:
    """Σ row[i] · parts[i], added where a factor is positive and taken away where it is negative."""
    terms = sorted(((factor, part) for factor, part in zip(row, parts, strict=True) if factor), key=lambda t: t[0] < 0)
    sizes = {abs(factor) for factor, _ in terms}
    common = sizes.pop() if len(sizes) == 1 else 1.0
    total = _multiple(b, terms[0][0] / common, terms[0][1])
    for factor, part in terms[1:]:
        operator = aten.add.Tensor if factor > 0 else aten.sub.Tensor
        total = b.lower(operator, total, _multiple(b, abs(factor) / common, part))
    return _multiple(b, common, total)


def _multiple(b: Builder, factor: float, part: Operand) -> Operand:
    return part if factor == 1 else b.lower(aten.mul.Scalar, part, factor)


def _weight(b: Builder, spec: ConvSpec, kernels: torch.Tensor, product: int) -> Const:
    """Σ_k kernels[product, k] · w[:, :, k] in float64, (C_out, C_in / groups, kH, kW)."""
    weight = spec.weight
    assert isinstance(weight, Const)

    def make() -> torch.Tensor:
        return combined(kernels[product][None], weight.tensor, T_AXIS)[0]

    recipe = ("winograd-split", len(kernels), product)
    return b.derive(weight, recipe, make, f"{weight.name}.winograd{product}")
