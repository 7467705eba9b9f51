"""Formulation `winograd`: fewer 2-D products than taps, by combining frames before and after one grouped Conv2d.

    y = A · conv2d_grouped(B · x, G · w)

A and B are fixed matrices along time, group j convolves with Σ_k G[j, k] · w[:, :, k]. Three calls, no padding and no
slices: the matrices hold the tiles, the zero frames and a ragged last tile. Two readings of the same algebra
(`cook_toom.fast_filter`):

- *tiled*: F(m, kT) on tiles of m result frames, m + kT − 1 products each: with three taps 4 for 2 frames, 6 for 4.
- *short*: for a clip of few frames the clip is the filter and the kernel slides: T + R − 1 products, 3 for 2 frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edge4d.lowering.axis import concat, split_axis
from edge4d.lowering.conv.combining import combined
from edge4d.lowering.conv.cook_toom import POINTS, fast_filter
from edge4d.lowering.conv.cost import Cost, frame_macs, frame_sizes
from edge4d.lowering.conv.plane import frames_conv2d
from edge4d.lowering.conv.rows import conv2d_by_rows
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.taps import T_AXIS, plane_spec
from edge4d.lowering.linear_map import matrix_product
from edge4d.lowering.values import Const, Operand
from edge4d.tile_parts import parts_of

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["Products", "Short", "Winograd"]

aten = torch.ops.aten


@dataclass(frozen=True)
class Products:
    """A convolution along time as products: frames combined, convolved group by group, combined again.

    Attributes:
        inputs: (groups · tiles, T), what goes into each product; product j of tile i is row i · groups + j.
        weights: (groups, kT), the taps of each group.
        results: (R, groups · tiles).
    """

    inputs: Tensor
    weights: Tensor
    results: Tensor

    @property
    def groups(self) -> int:
        """Different kernels."""
        return self.weights.shape[0]

    @property
    def count(self) -> int:
        """2-D convolutions of one frame, for each sample."""
        return self.inputs.shape[0]


@dataclass(frozen=True)
class Winograd:
    """Tiles of `tile` result frames."""

    tile: int

    def applies(self, spec: ConvSpec) -> str | None:
        """Why the formulation does not fit, None when it does."""
        return _unfit(spec, self.tile + spec.kernel[0] - 2)

    def products(self, spec: ConvSpec) -> Products:
        """The algorithm for this layer."""
        return _tiled(self.tile, spec.kernel[0], spec.x.shape[T_AXIS], spec.shape[T_AXIS], spec.padding[0][0])

    def cost(self, spec: ConvSpec) -> Cost:
        """See `_cost`."""
        return _cost(spec, self.products(spec))

    def rewrite(self, b: Builder, spec: ConvSpec) -> Operand:
        """Matrix, grouped Conv2d, matrix."""
        products = self.products(spec)
        held = _cost(spec, products).held * spec.x.dtype.itemsize
        # Only for ONNX Runtime where rows are transformed too, which holds most. Elsewhere graphs stay small, and
        # `edge4d build` makes parts of them (`exporters/onnxruntime_parts.py`).
        parts = parts_of(held, products.count // products.groups) if spec.rows and not b.channels_last else 1
        if parts == 1:
            return _rewrite(b, spec, products)
        made = [_rewrite(b, spec, part) for part in _in_parts(products, self.tile, parts)]
        return concat(b, made, T_AXIS)


@dataclass(frozen=True)
class Short:
    """Clip and kernel change roles: y[R−1−i] = Σ_f x[f] · w'[i + f], with w' the kernel between zeros."""

    def applies(self, spec: ConvSpec) -> str | None:
        """Why the formulation does not fit, None when it does."""
        if spec.x.shape[T_AXIS] == 1:
            return "the clip has one frame"  # nothing to combine, and no point 1 for the bias
        return _unfit(spec, spec.x.shape[T_AXIS] + spec.shape[T_AXIS] - 2)

    def products(self, spec: ConvSpec) -> Products:
        """The algorithm for this layer."""
        return _short(spec.kernel[0], spec.x.shape[T_AXIS], spec.shape[T_AXIS], spec.padding[0][0])

    def cost(self, spec: ConvSpec) -> Cost:
        """See `_cost`."""
        return _cost(spec, self.products(spec))

    def rewrite(self, b: Builder, spec: ConvSpec) -> Operand:
        """Matrix, grouped Conv2d, matrix."""
        return _rewrite(b, spec, self.products(spec))


@lru_cache(maxsize=256)
def _tiled(tile: int, taps: int, frames: int, found: int, before: int) -> Products:
    """F(tile, taps) for `found` results of `frames` frames with `before` zeros in front."""
    a, g, b = fast_filter(tile, taps)
    count, tiles = tile + taps - 1, -(-found // tile)
    inputs = torch.zeros(tiles, count, frames, dtype=torch.float64)
    results = torch.zeros(tiles * tile, tiles, count, dtype=torch.float64)
    for i in range(tiles):
        for j in range(count):
            frame = i * tile + j - before
            if 0 <= frame < frames:
                inputs[i, :, frame] = b[:, j]
        results[i * tile : (i + 1) * tile, i] = a
    return Products(inputs.flatten(0, 1), g, results.flatten(1)[:found])


def _in_parts(products: Products, tile: int, parts: int) -> list[Products]:
    """The same, tiles apart: each part reads the whole clip and gives the frames of its tiles."""
    tiles = products.count // products.groups
    cuts = [part * tiles // parts for part in range(parts + 1)]
    found = []
    for first, last in pairwise(cuts):
        columns = slice(first * products.groups, last * products.groups)
        rows = slice(first * tile, min(last * tile, len(products.results)))
        found.append(Products(products.inputs[columns], products.weights, products.results[rows, columns]))
    return found


@lru_cache(maxsize=256)
def _short(taps: int, frames: int, found: int, before: int) -> Products:
    """F(found, frames) with the kernel, `found` − 1 zeros around it, as what slides."""
    a, g, b = fast_filter(found, frames)
    shifted = torch.zeros(frames + found - 1, taps, dtype=torch.float64)
    for q in range(len(shifted)):
        tap = q - (found - 1) + before
        if 0 <= tap < taps:
            shifted[q, tap] = 1
    return Products(g, b @ shifted, a.flip(0))


def _unfit(spec: ConvSpec, points: int) -> str | None:
    if spec.transposed:
        return "a transposed convolution"
    if spec.kernel[0] == 1:
        return "the kernel has one temporal tap"
    if spec.stride[0] != 1 or spec.dilation[0] != 1:
        return f"temporal stride {spec.stride[0]}, dilation {spec.dilation[0]}; tiles need 1 and 1"
    if not isinstance(spec.weight, Const) or not (spec.bias is None or isinstance(spec.bias, Const)):
        return "weights or bias are computed while the model runs"
    if not spec.weight.dtype.is_floating_point:
        return "weights of integers, which are not combined without a remainder"
    if points > len(POINTS):
        return f"{points} evaluation points, of which float32 keeps too few digits"
    return None


def _cost(spec: ConvSpec, products: Products) -> Cost:
    given, made = frame_sizes(spec)
    return Cost(
        macs=frame_macs(spec) * products.count,
        channels=spec.weight.shape[1],
        moved=given * (spec.x.shape[T_AXIS] + products.count) + made * (spec.shape[T_AXIS] + products.count),
        matrix_macs=given * products.inputs.numel() + made * products.results.numel(),
        calls=3,
        weights=math.prod(spec.weight.shape) // spec.kernel[0] * products.groups,
        # Products lie side by side in the channels: 6 · 54 depthwise ones are a multiple of 4 where 54 are none.
        groups=spec.groups * products.groups if spec.groups > 1 else 1,
        held=(given + made) * products.count,
    )


def _rewrite(b: Builder, spec: ConvSpec, products: Products) -> Operand:
    if b.channels_last:
        return _rewrite_apart(b, spec, products)
    n, channels, *_ = spec.x.shape
    groups, tiles = products.groups, products.count // products.groups
    x = matrix_product(b, spec.x, T_AXIS, products.inputs, "winograd.inputs")
    height, width = x.shape[T_AXIS + 1 :]
    x = b.lower(aten.view.default, x, [n, channels, tiles, groups, height, width])
    x = b.lower(aten.permute.default, x, [0, 3, 1, 2, 4, 5])
    x = b.lower(aten.view.default, x, [n, groups * channels, tiles, height, width])
    outs = spec.shape[1]
    plane = replace(
        spec,
        x=x,
        weight=_weight(b, spec, products),
        bias=_bias(b, spec, products),
        stride=spec.stride[1:],
        padding=spec.padding[1:],
        dilation=spec.dilation[1:],
        output_padding=spec.output_padding[1:],
        groups=groups * spec.groups,
        shape=(n, groups * outs, tiles, *spec.shape[T_AXIS + 1 :]),
    )
    y: Operand = frames_conv2d(b, plane)
    y = b.lower(aten.view.default, y, [n, groups, outs, tiles, *spec.shape[T_AXIS + 1 :]])
    y = b.lower(aten.permute.default, y, [0, 2, 3, 1, 4, 5])
    y = b.lower(aten.view.default, y, [n, outs, tiles * groups, *spec.shape[T_AXIS + 1 :]])
    return matrix_product(b, y, T_AXIS, products.results, "winograd.results")


def _rewrite_apart(b: Builder, spec: ConvSpec, products: Products) -> Operand:
    """One Conv2d for each group: with channels last in memory those of one group of products are not neighbours."""
    groups, tiles = products.groups, products.count // products.groups
    by_group = products.inputs.view(tiles, groups, -1).transpose(0, 1).flatten(0, 1)
    x = matrix_product(b, spec.x, T_AXIS, by_group, "winograd.inputs")
    plane = plane_spec(spec, x, _weight(b, spec, products), spec.bias)

    def apart(plane: ConvSpec) -> Operand:
        """The frames of each group with its part of the weights, and the bias with the products of point 1."""
        outs, weight = spec.shape[1], plane.weight
        assert isinstance(weight, Const)
        made: list[Operand] = []
        for j, part in enumerate(split_axis(b, plane.x, T_AXIS, [tiles] * groups)):
            own: Operand = b.lower(aten.narrow.default, weight, 0, j * outs, outs, name=f"{weight.name}{j}")
            shape = (*plane.shape[:T_AXIS], tiles, *plane.shape[T_AXIS + 1 :])
            bias = plane.bias if j == 1 else None
            made.append(frames_conv2d(b, replace(plane, x=part, weight=own, bias=bias, shape=shape)))
        return concat(b, made, T_AXIS)

    # Rows of all groups are transformed at once, so that only the products are as many as there are groups.
    y: Operand = conv2d_by_rows(b, plane, apart) if spec.rows else apart(plane)
    results = products.results.view(-1, tiles, groups).transpose(1, 2).flatten(1, 2)
    return matrix_product(b, y, T_AXIS, results, "winograd.results")


def _weight(b: Builder, spec: ConvSpec, products: Products) -> Const:
    """(groups · C_out, C_in / conv groups, kH, kW), combined in float64."""
    weight = spec.weight
    assert isinstance(weight, Const)

    def make() -> Tensor:
        return combined(products.weights, weight.tensor, T_AXIS).flatten(0, 1)

    return b.derive(weight, ("winograd", _key(products)), make, f"{weight.name}.winograd")


def _bias(b: Builder, spec: ConvSpec, products: Products) -> Const | None:
    """The bias goes with the products of point 1, which enter every result once."""
    bias = spec.bias
    if bias is None:
        return None
    assert isinstance(bias, Const)

    def make() -> Tensor:
        own = torch.zeros(products.groups, *bias.shape, dtype=bias.dtype)
        own[1] = bias.tensor
        return own.flatten()

    return b.derive(bias, ("winograd", products.groups), make, f"{bias.name}.winograd")


def _key(products: Products) -> tuple[float, ...]:
    return (*products.weights.shape, *products.weights.flatten().tolist())
