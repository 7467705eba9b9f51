"""Formulation `ranges`: `taps` without filling up: results that see every tap, those before, those after, joined.

    y[o] = bias + Σ_k conv2d(x[o + k − p], w[:, :, k])                       over k with 0 ≤ o + k − p < T

Tap k reads x[k … T − K + k] for the results p … T − K + p, which see all K taps. The k frames before that it reads for
the results before, p − k … p − 1, and the K − 1 − k frames after for those after. So a tap cuts the clip into at most
three pieces and convolves each of them once; what comes out for results that there are not (k > p) is dropped.

No zero frame is convolved, nothing is copied but the joined result, and sums are the convolutions' own. Pays where cuts
are views: in OpenVINO, whose memory of a piece that nobody reads would stay taken until the network ends, which is why
every piece is read here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import concat, pad_axes, split_axis
from edge4d.lowering.conv.cost import Cost, frame_macs, frame_sizes
from edge4d.lowering.conv.plane import frames_conv2d
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.taps import T_AXIS, plane_spec, tap_weight, time_only
from edge4d.lowering.values import Const, Operand, Value

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["applies", "cost", "rewrite"]

aten = torch.ops.aten


def applies(spec: ConvSpec) -> str | None:
    """Why the formulation does not fit, None when it does."""
    if spec.transposed:
        return "a transposed convolution scatters frames"
    taps, (before, after) = spec.kernel[0], spec.padding[0]
    if taps == 1:
        return "the kernel has one temporal tap"
    if spec.stride[0] != 1 or spec.dilation[0] != 1:
        return f"temporal stride {spec.stride[0]}, dilation {spec.dilation[0]}; ranges need 1 and 1"
    if not (0 < before < taps and 0 < after < taps):
        return f"{before} and {after} frames are padded; ranges need 1 to {taps - 1} on either side"
    if spec.x.shape[T_AXIS] < taps:
        return f"no result sees all {taps} taps"
    return None


def cost(spec: ConvSpec) -> Cost:
    """Each tap cuts the clip, all but one are added to what is there, and the ranges are joined."""
    given, made = frame_sizes(spec)
    taps, frames, results = spec.kernel[0], spec.x.shape[T_AXIS], spec.shape[T_AXIS]
    return Cost(
        frame_macs(spec) * taps * frames,
        spec.weight.shape[1],
        moved=(taps + 1) * made * results,
        calls=3 * taps + 1,
        weights=math.prod(spec.weight.shape),
        groups=spec.groups,
        held=given * frames + 2 * made * results,
    )


def rewrite(b: Builder, spec: ConvSpec) -> Operand:
    """The sum over taps of each range, the bias with a tap that all its results see."""
    taps, frames, (before, after) = spec.kernel[0], spec.x.shape[T_AXIS], spec.padding[0]
    whole = frames - taps + 1
    x: Value = b.given(spec.x)
    sums: list[Operand | None] = [None, None, None]
    biased = [False, False, False]
    for tap in range(taps):
        sizes = (tap, whole, taps - 1 - tap)
        pieces = iter(split_axis(b, x, T_AXIS, [size for size in sizes if size]))
        for place, (size, results) in enumerate(zip(sizes, (before, whole, after), strict=True)):
            if not size:
                continue
            given = size >= results and not biased[place]
            biased[place] = biased[place] or given
            bias = _own_bias(b, spec, place) if given else None
            term = frames_conv2d(b, plane_spec(spec, next(pieces), tap_weight(b, spec.weight, tap), bias))
            if place == 0:  # its last frame is for result p − 1
                term = _fitted(b, term, results - size, 0)
            elif place == 2:  # its first frame is for result T − K + p + 1
                term = _fitted(b, term, 0, results - size)
            earlier = sums[place]
            sums[place] = term if earlier is None else b.lower(aten.add.Tensor, earlier, term)
    return concat(b, [total for total in sums if total is not None], T_AXIS)


def _own_bias(b: Builder, spec: ConvSpec, place: int) -> Operand | None:
    """The bias as a parameter of one range: OpenVINO adds one of several users by itself, not in the convolution."""
    bias = spec.bias
    if not isinstance(bias, Const):
        return bias
    return b.derive(bias, ("range", place), bias.tensor.clone, bias.name)


def _fitted(b: Builder, x: Value, before: int, after: int) -> Value:
    """Zero frames put before and after, or where the numbers are negative frames dropped; few, so they are copied."""
    start, stop = max(0, -before), x.shape[T_AXIS] - max(0, -after)
    if (start, stop) != (0, x.shape[T_AXIS]):
        node, dim, packing = b.isolate(x, T_AXIS)
        cut = b.emit(aten.slice.Tensor, node, dim, start, stop, 1)
        x = b.value(cut, packing.resize(T_AXIS, dim, stop - start))
    return pad_axes(b, x, time_only(max(0, before), max(0, after)))
