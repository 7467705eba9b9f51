"""Formulation `regrouped`: a stride along time without strided slices, for NPUs that fall back on them.

    y[o] = bias + Σ_q conv2d(P[o + q], w_q)      P[i] = frames i·s, …, i·s + s − 1 side by side in the channels

``[T, C, H, W]`` regrouped as ``[T/s, s·C, H, W]`` moves nothing. Tap k reads frame o·s + k·d − p = s·(o + q) + r, so it
becomes the channels of frame r in w_q; channels that no tap of w_q reads at either end are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import pad_axes, slice_axis
from edge4d.lowering.conv.cost import Cost, frame_macs, frame_sizes
from edge4d.lowering.conv.plane import frames_conv2d
from edge4d.lowering.conv.spec import ConvSpec, TapRange, tap_range
from edge4d.lowering.conv.taps import T_AXIS, plane_spec, time_only
from edge4d.lowering.values import Const, Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["applies", "cost", "rewrite"]

aten = torch.ops.aten


@dataclass(frozen=True)
class _Group:
    """Taps that read one piece: pieces `seen`, frames [low, high) of each; `taps` are (frame − low, tap)."""

    shift: int
    seen: TapRange
    low: int
    high: int
    taps: tuple[tuple[int, int], ...]


def applies(spec: ConvSpec) -> str | None:
    """Why the formulation does not fit, None when it does."""
    if spec.transposed:
        return "a transposed convolution"
    if spec.stride[0] == 1:
        return "the temporal stride is 1"
    if spec.groups > 1:
        return "channel groups: frames side by side would have to be sorted into them"
    if not isinstance(spec.weight, Const):
        return "the weights are computed while the model runs"
    if not _groups(spec):
        return "every window lies in the padding"
    return None


def _groups(spec: ConvSpec) -> list[_Group]:
    """Pieces by how far they are from the result's own, those that all results take first."""
    stride, results = spec.stride[0], spec.shape[T_AXIS]
    pieces = -(-spec.x.shape[T_AXIS] // stride)
    taps: dict[int, list[tuple[int, int]]] = {}
    for tap in range(spec.kernel[0]):
        shift, frame = divmod(tap * spec.dilation[0] - spec.padding[0][0], stride)
        taps.setdefault(shift, []).append((frame, tap))
    found = []
    for shift, read in taps.items():
        seen = tap_range(0, pieces, results, 1, -shift, 1)
        if seen is not None:
            low, high = min(read)[0], max(read)[0] + 1
            found.append(_Group(shift, seen, low, high, tuple((frame - low, tap) for frame, tap in read)))
    return sorted(found, key=lambda group: group.seen.first - group.seen.last)


def cost(spec: ConvSpec) -> Cost:
    """Partly read pieces are copied; results are filled up and added."""
    given, made = frame_sizes(spec)
    stride, frames, results = spec.stride[0], spec.x.shape[T_AXIS], spec.shape[T_AXIS]
    groups = _groups(spec)
    moved, macs, weights = (2 * given * frames if frames % stride else 0), 0, 0
    for at, group in enumerate(groups):
        pieces, wide = group.seen.last - group.seen.first + 1, group.high - group.low
        macs += frame_macs(spec) * pieces * wide
        weights += math.prod(spec.weight.shape) // spec.kernel[0] * wide
        if wide < stride or pieces * stride < frames:
            moved += 2 * given * pieces * wide
        if at:
            moved += 2 * made * pieces + 3 * made * results
    calls = 4 * len(groups) - 3
    held = given * frames + 2 * made * results
    return Cost(macs, stride * spec.weight.shape[1], moved, 0, calls, weights, 1, held)


def rewrite(b: Builder, spec: ConvSpec) -> Operand:
    """The sum over pieces; the bias goes with one that every result takes, if there is one."""
    n, channels, frames, height, width = spec.x.shape
    stride, results = spec.stride[0], spec.shape[T_AXIS]
    pieces = -(-frames // stride)
    x: Operand = pad_axes(b, b.given(spec.x), time_only(0, pieces * stride - frames))
    x = b.lower(aten.view.default, x, [n, channels, pieces, stride, height, width])
    x = b.lower(aten.permute.default, x, [0, 3, 1, 2, 4, 5])
    x = b.lower(aten.view.default, x, [n, stride * channels, pieces, height, width])
    total: Operand | None = None
    bias = spec.bias
    for group in _groups(spec):
        part = slice_axis(b, x, T_AXIS, group.seen.start, group.seen.stop + 1)
        part = slice_axis(b, part, 1, group.low * channels, group.high * channels)
        whole = (group.seen.first, group.seen.last) == (0, results - 1)
        plane = plane_spec(spec, part, _weight(b, spec, group), bias if whole else None)
        bias = None if whole else bias
        term = pad_axes(b, frames_conv2d(b, plane), time_only(group.seen.first, results - 1 - group.seen.last))
        total = term if total is None else b.lower(aten.add.Tensor, total, term)
    assert total is not None
    if bias is not None:
        total = b.lower(aten.add.Tensor, total, b.lower(aten.view.default, bias, [1, -1, 1, 1, 1]))
    return total


def _weight(b: Builder, spec: ConvSpec, group: _Group) -> Const:
    """(C_out, frames · C_in, kH, kW); zeros for frames between that no tap reads."""
    weight = spec.weight
    assert isinstance(weight, Const)

    def make() -> torch.Tensor:
        outs, ins, _, *kernel = weight.shape
        wide = weight.tensor.new_zeros(outs, group.high - group.low, ins, *kernel)
        for frame, tap in group.taps:
            wide[:, frame] = weight.tensor[:, :, tap]
        return wide.flatten(1, 2)

    return b.derive(weight, ("regrouped", group), make, f"{weight.name}.piece{group.shift}")
