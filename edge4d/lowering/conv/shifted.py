"""Formulation `shifted`: one Conv2d per temporal tap on the whole clip, the results shifted and summed.

    y[o] = bias + Σ_k z_k[o + k·d − p]        z_k = conv2d(x, w[:, :, k]),  zero where there is no such frame

The clip is read as it lies, by every tap; what is copied are results. So it pays where the spatial stride makes
those small, above all for depthwise kernels, whose products cost little: of x3d's widest clip nothing is copied.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import pad_axes
from edge4d.lowering.conv.cost import Cost, frame_macs, frame_sizes
from edge4d.lowering.conv.plane import frames_conv2d
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.taps import T_AXIS, plane_spec, seen_by_taps, tap_weight, time_only
from edge4d.lowering.values import Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["applies", "cost", "rewrite"]

aten = torch.ops.aten


def applies(spec: ConvSpec) -> str | None:
    """Why the formulation does not fit, None when it does."""
    if spec.transposed:
        return "a transposed convolution"
    if spec.kernel[0] == 1:
        return "the kernel has one temporal tap"
    if spec.stride[0] != 1:
        return f"temporal stride {spec.stride[0]}: most results would be thrown away"
    if not seen_by_taps(spec):
        return "no tap sees a frame"
    return None


def cost(spec: ConvSpec) -> Cost:
    """Each tap convolves every frame, its results are copied by the shift, and added."""
    _, made = frame_sizes(spec)
    taps, frames, results = len(seen_by_taps(spec)), spec.x.shape[T_AXIS], spec.shape[T_AXIS]
    shifts = sum(_shift(spec, tap) != (0, 0) for tap, _ in seen_by_taps(spec))
    return Cost(
        frame_macs(spec) * taps * frames,
        spec.weight.shape[1],
        moved=2 * made * results * shifts + 3 * made * results * (taps - 1),
        calls=2 * taps - 1 + shifts,
        weights=math.prod(spec.weight.shape),
        groups=spec.groups,
        held=made * (results + 2 * max(frames, results)) if taps > 1 else 0,
    )


def rewrite(b: Builder, spec: ConvSpec) -> Operand:
    """The sum over taps; the bias goes with one whose results all see frames, if there is one."""
    total: Operand | None = None
    bias = spec.bias
    for tap, _ in seen_by_taps(spec):
        before, after = _shift(spec, tap)
        whole = before <= 0 and after <= 0
        weight = tap_weight(b, spec.weight, tap)
        term = frames_conv2d(b, plane_spec(spec, spec.x, weight, bias if whole else None))
        bias = None if whole else bias
        term = pad_axes(b, term, time_only(before, after))
        total = term if total is None else b.lower(aten.add.Tensor, total, term)
    assert total is not None
    if bias is not None:
        total = b.lower(aten.add.Tensor, total, b.lower(aten.view.default, bias, [1, -1, 1, 1, 1]))
    return total


def _shift(spec: ConvSpec, tap: int) -> tuple[int, int]:
    """Zero frames before and after the results of one tap; frames that are dropped where negative."""
    start = tap * spec.dilation[0] - spec.padding[0][0]
    return -start, spec.shape[T_AXIS] - spec.x.shape[T_AXIS] + start
