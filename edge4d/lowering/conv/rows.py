"""Formulation `…+rows`: the 2-D convolutions of another formulation by Winograd's algorithm along their rows.

    y = A · conv2d(B · x, G · w)        A, B along H; kernels of kH rows become m + kH − 1 kernels of one row each

F(m, kH) of `cook_toom.fast_filter` on tiles of m result rows: F(4, 3) takes half of the products, F(2, 3) two thirds.
Both transforms are depthwise convolutions, B with stride m and A with kernels of one element, and sums. ONNX Runtime's
fast layout of a Conv2d takes all of them as they are, so that nothing is repacked between the first transform and
the last sum; a matrix product along H, or slices of rows, leaves that layout and loses what Winograd saves.

In OpenVINO, which has channels last, depthwise convolutions are as good a transform; factors and sums are written as
such, which it makes one pass a row, and rows are put together where channels are last, one copy and no reorder.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from edge4d.lowering.axis import concat, slice_axis
from edge4d.lowering.channels_last import LAST, is_plane
from edge4d.lowering.conv.combining import combined
from edge4d.lowering.conv.cook_toom import POINTS, fast_filter
from edge4d.lowering.conv.cost import Cost, frame_macs, frame_sizes
from edge4d.lowering.conv.plane import frames_conv2d
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.values import Const, Operand, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge4d.lowering.builder import Builder

__all__ = ["Reading", "Rows", "conv2d_by_rows", "reading"]

aten = torch.ops.aten

BLOCK = 16
"""Channels side by side in ONNX Runtime's fast layout on AVX-512; a multiple of it is one on narrower processors."""

_OUTSIDE = 10
"""How many times as long the transforms take in the plain layout, which channels of no multiple of `BLOCK` stay in."""

_H = -2
_KERNEL_ROWS = 2
_H_AXIS = 3
_W_AXIS = 4


class _Inner(Protocol):
    """A formulation whose convolutions are 2-D and see whole frames."""

    def applies(self, spec: ConvSpec) -> str | None: ...

    def cost(self, spec: ConvSpec) -> Cost: ...

    def rewrite(self, b: Builder, spec: ConvSpec) -> Operand: ...


@dataclass(frozen=True)
class Rows:
    """`inner`, its convolutions in tiles of `tile` result rows."""

    tile: int
    inner: _Inner

    def applies(self, spec: ConvSpec) -> str | None:
        """Why the formulation does not fit, None when it does."""
        if (reason := self.inner.applies(spec)) is not None:
            return reason
        rows = spec.kernel[_H]
        if rows == 1:
            return "the kernel has one row"
        if spec.stride[_H] != 1 or spec.dilation[_H] != 1:
            return f"stride {spec.stride[_H]} and dilation {spec.dilation[_H]} along rows; tiles need 1 and 1"
        if not isinstance(spec.weight, Const):
            return "the weights are computed while the model runs"
        if not spec.weight.dtype.is_floating_point:
            return "weights of integers, which are not combined without a remainder"
        if self.tile + rows - 2 > len(POINTS):
            return f"{self.tile + rows - 2} evaluation points, of which float32 keeps too few digits"
        return None

    def cost(self, spec: ConvSpec) -> Cost:
        """Fewer products and more weights than `inner`, and frames that are transformed on their way in and out."""
        found, rows = self.inner.cost(spec), spec.kernel[_H]
        count, tiles = self.tile + rows - 1, -(-spec.shape[_H] // self.tile)
        given, made = frame_sizes(spec)
        frames = found.macs // max(1, frame_macs(spec))
        rowed = held = frames * (given + made) * count * tiles // spec.shape[_H]
        if spec.weight.shape[1] % BLOCK:
            rowed *= _OUTSIDE
        return replace(
            found,
            macs=found.macs * count * tiles // (rows * spec.shape[_H]),
            rowed=rowed,
            calls=found.calls + 2 * count + 4 * self.tile,
            weights=found.weights * count // rows,
            held=found.held + held,
        )

    def rewrite(self, b: Builder, spec: ConvSpec) -> Operand:
        """What `inner` makes, its `frames_conv2d` being `conv2d_by_rows`."""
        return self.inner.rewrite(b, replace(spec, rows=self.tile))


@dataclass(frozen=True)
class Reading:
    """A depthwise kernel along rows that reads every tile.

    Attributes:
        taps: factors of successive rows, `dilation` rows apart.
        dilation: see there.
        padding: zero rows before and, as torch has it, as many after.
    """

    taps: tuple[float, ...]
    dilation: int
    padding: int


def reading(factors: tuple[float, ...], tile: int, tiles: int, rows: int, before: int) -> Reading:
    """Tile i combines rows i·tile + q − before with the factors q.

    Zeros at both ends of the factors are left out where what remains needs no uneven padding, which would be a copy.

    Args:
        factors: at least one of them not zero.
        tile: distance of two tiles.
        tiles: how many there are.
        rows: of the picture.
        before: zero rows above it.
    """
    places = [q for q, factor in enumerate(factors) if factor]
    first, last = places[0], places[-1]
    above, below = before - first, (tiles - 1) * tile + last - before - (rows - 1)
    padding = max(above, below, 0)
    earlier, later = padding - above, (padding - below) // tile * tile
    gaps = {b - a for a, b in pairwise(places)}
    if earlier == later == 0 and len(gaps) == 1:
        (step,) = gaps
        return Reading(tuple(factors[first : last + 1 : step]), step, padding)
    return Reading((*(0.0,) * earlier, *factors[first : last + 1], *(0.0,) * later), 1, padding)


def conv2d_by_rows(b: Builder, spec: ConvSpec, product: Callable[[ConvSpec], Operand] | None = None) -> Value:
    """`frames_conv2d` with `spec.rows` result rows a tile; x is logical (N, C, T, H, W).

    Args:
        b: the new graph.
        spec: as `frames_conv2d` takes it, with rows.
        product: convolves one row of every tile, as `frames_conv2d` does, which it is when None.
    """
    n, _, frames, height, _ = spec.x.shape
    outs, found, width = spec.shape[1], *spec.shape[_H_AXIS:]
    tile, taps = spec.rows, spec.kernel[0]
    tiles = -(-found // tile)
    a, g, into = fast_filter(tile, taps)
    products: list[Operand] = []
    for j, factors in enumerate(into.tolist()):
        read = reading(tuple(factors), tile, tiles, height, spec.padding[0][0])
        x = _depthwise(b, spec, spec.x, read.taps, f"in{j}", stride=tile, dilation=read.dilation, padding=read.padding)
        plane = replace(
            spec,
            x=x,
            weight=_weight(b, spec, g[j], j),
            bias=spec.bias if j == 1 else None,  # the products of point 1 enter every result once
            padding=((0, 0), spec.padding[1]),
            shape=(n, outs, frames, tiles, width),
            rows=0,
        )
        products.append(frames_conv2d(b, plane) if product is None else product(plane))
    results = _results(b, spec, a, products)
    y: Operand = concat(b, [_last(b, row) for row in results] if b.channels_last else results, _W_AXIS)
    y = b.lower(aten.view.default, y, [n, outs, frames, tiles * tile, width])
    return b.given(slice_axis(b, y, _H_AXIS, 0, found))


def _results(b: Builder, spec: ConvSpec, a: Tensor, products: list[Operand]) -> list[Operand]:
    """Σ_j a[r, j] · products[j] for each row r of a tile.

    Points p and −p share sum and difference: p^r times the one for even r, the other for odd. Whatever is used
    once ends in a convolution plus a sum, which ONNX Runtime makes one call.
    """

    def times(x: Operand, factor: float) -> Operand:
        if factor == 1:
            return x
        scaled: Operand = (
            b.lower(aten.mul.Scalar, x, factor)
            if b.channels_last
            else _depthwise(b, spec, x, (factor,), f"times{factor:g}")
        )
        return scaled

    def plus(x: Operand, y: Operand) -> Operand:
        total: Operand = b.lower(aten.add.Tensor, x, y)
        return total

    def minus(x: Operand, y: Operand) -> Operand:
        if not b.channels_last:
            return plus(times(y, -1.0), x)
        total: Operand = b.lower(aten.sub.Tensor, x, y)
        return total

    tile, count = a.shape
    terms: list[list[tuple[float, Operand]]] = [[] for _ in range(tile)]
    j = 0
    while j < count:
        column = a[:, j].tolist()
        paired = j + 1 < count and tile > 1 and column[1] != 0 and a[1, j + 1].item() == -column[1]
        if paired:
            even = plus(products[j], products[j + 1])
            odd = minus(products[j], products[j + 1])
            for r in range(tile):
                terms[r].append((column[r], odd if r % 2 else even))
        else:
            for r in range(tile):
                if column[r]:
                    terms[r].append((column[r], products[j]))
        j += 2 if paired else 1
    results = []
    for row in terms:
        total: Operand | None = None
        for factor, x in sorted(row, key=lambda term: term[0] != 1):
            total = times(x, factor) if total is None else plus(times(x, factor), total)
        assert total is not None
        results.append(total)
    return results


def _last(b: Builder, row: Operand) -> Operand:
    """A convolution's result with channels last, so that rows lie side by side in memory as they do in the picture."""
    x = b.given(row)
    if not is_plane(x.packing):
        return x
    groups = tuple(x.packing.physical[place] for place in LAST)
    return b.value(b.arrange(x, groups), x.packing.reorder(groups))


def _depthwise(
    b: Builder,
    spec: ConvSpec,
    x: Operand,
    taps: tuple[float, ...],
    label: str,
    stride: int = 1,
    dilation: int = 1,
    padding: int = 0,
) -> Value:
    """Every channel's rows combined with the same factors."""
    n, channels, frames, height, width = x.shape
    assert isinstance(spec.weight, Const)

    def make() -> Tensor:
        kernel = torch.tensor(taps, dtype=torch.float64).view(1, 1, -1, 1)
        return kernel.expand(channels, 1, len(taps), 1).to(spec.weight.dtype).contiguous()

    name = f"{b.at.layer}.rows.{label}".strip(".")
    rows = (height + 2 * padding - dilation * (len(taps) - 1) - 1) // stride + 1
    kernel = b.derive(spec.weight, ("rows transform", channels, taps), make, name)
    plane = replace(
        spec,
        x=x,
        weight=kernel,
        bias=None,
        stride=(stride, 1),
        padding=((padding, padding), (0, 0)),
        dilation=(dilation, 1),
        groups=channels,
        shape=(n, channels, frames, rows, width),
        rows=0,
    )
    return frames_conv2d(b, plane)


def _weight(b: Builder, spec: ConvSpec, factors: Tensor, product: int) -> Const:
    """Σ_k factors[k] · w[:, :, k] in float64, (C_out, C_in / groups, 1, kW)."""
    weight = spec.weight
    assert isinstance(weight, Const)

    def make() -> Tensor:
        return combined(factors[None], weight.tensor, _KERNEL_ROWS)[0].unsqueeze(2)

    return b.derive(weight, ("rows product", tuple(factors.tolist())), make, f"{weight.name}.row{product}")
