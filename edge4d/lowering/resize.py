"""Upsampling over one to three axes: a 2-D resize of every frame where that is exact, a fixed map an axis else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload

from edge4d.lowering.linear_map import linear_map
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Operand, Value

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

aten = torch.ops.aten


@dataclass(frozen=True)
class ResizeSpec:
    """x resampled along its last axes.

    Attributes:
        x: logical (N, C, *sizes).
        sizes: result sizes of the resampled axes.
        scales: the scale torch's formula uses for each axis, None where it is result size / input size.
        mode: nearest, nearest-exact, linear, cubic, linear-antialias or cubic-antialias.
        align_corners: linear and cubic: whether first and last samples coincide.
    """

    x: Operand
    sizes: tuple[int, ...]
    scales: tuple[float | None, ...]
    mode: str
    align_corners: bool


_MODES: dict[OpOverload, str] = {}
for _axes, _linear in ((1, "linear"), (2, "bilinear"), (3, "trilinear")):
    for _name, _mode in (
        (f"upsample_nearest{_axes}d", "nearest"),
        (f"_upsample_nearest_exact{_axes}d", "nearest-exact"),
        (f"upsample_{_linear}{_axes}d", "linear"),
    ):
        for _overload in ("default", "vec"):
            _MODES[getattr(getattr(aten, _name), _overload)] = _mode
for _name, _mode in (
    ("upsample_bicubic2d", "cubic"),
    ("_upsample_bilinear2d_aa", "linear-antialias"),
    ("_upsample_bicubic2d_aa", "cubic-antialias"),
):
    for _overload in ("default", "vec"):
        _MODES[getattr(getattr(aten, _name), _overload)] = _mode


@lowers(*_MODES)
class Resize:
    """Every mode is separable: axes are resampled one after another."""

    def check(self, site: Site) -> ResizeSpec | Decline:
        given: dict[str, Any] = site.take_all()
        x: Operand = given["input"] if "input" in given else given["self"]
        if not x.dtype.is_floating_point and not _MODES[site.op].startswith("nearest"):
            return Decline("a resize of integers, which torch rounds", "convert to a floating type first, and back")
        sizes = site.shape[2:]
        if "scale_factors" in given:
            scales = tuple(given["scale_factors"] or [None] * len(sizes))
        else:
            names = ["scales"] if len(sizes) == 1 else [f"scales_{axis}" for axis in "dhw"[-len(sizes) :]]
            scales = tuple(given.get(name) for name in names)
        return ResizeSpec(x, sizes, scales, _MODES[site.op], bool(given.get("align_corners", False)))

    def rewrite(self, b: Builder, spec: ResizeSpec) -> Operand:
        x: Operand = spec.x
        first = len(x.shape) - len(spec.sizes)
        plane = len(spec.sizes) >= 2 and _exact_sizes(spec, first)
        if len(spec.sizes) == 3 or not plane:
            for i in range(len(spec.sizes) - (2 if plane else 0)):
                x = _resample_axis(b, x, first + i, spec.sizes[i], spec.scales[i], spec)
        if plane:
            x = _resample_plane(b, b.given(x), spec)
        return x


def _exact_sizes(spec: ResizeSpec, first: int) -> bool:
    """Whether the scale in torch's formula is the ratio of sizes for the last two axes, as an ONNX Resize assumes."""
    if spec.mode not in ("nearest", "linear"):
        return False
    for i in (-2, -1):
        scale, have, want = spec.scales[i], spec.x.shape[i], spec.sizes[i]
        if scale is not None and not spec.align_corners and scale * have != want:
            return False
        if spec.mode == "nearest" and want % have:  # rounding of nearest differs between runtimes unless exact
            return False
    return True


def _resample_plane(b: Builder, x: Value, spec: ResizeSpec) -> Value:
    """The last two axes by one 2-D resize on [(rest), C, H, W]."""
    own = x.packing
    *_, height, width = own.logical
    inside = {*height, *width}
    rest = tuple(atom for atom in own.memory if atom not in inside)
    channel = own.logical[1]
    split = len(rest) - len(channel) if channel and rest[len(rest) - len(channel) :] == channel else len(rest)
    groups = (rest[:split], rest[split:], height, width)
    node = b.arrange(x, groups)
    size = list(spec.sizes[-2:])
    if spec.mode == "linear":
        out = b.emit(aten.upsample_bilinear2d.vec, node, size, spec.align_corners, None)
    else:
        out = b.emit(aten.upsample_nearest2d.vec, node, size, None)
    packing = own.reorder(groups)
    axes = len(own.logical)
    return b.value(out, packing.resize(axes - 2, 2, size[0]).resize(axes - 1, 3, size[1]))


_PLANAR: dict[str, Callable[..., torch.Tensor]] = {
    "cubic": aten.upsample_bicubic2d.default,
    "linear-antialias": aten._upsample_bilinear2d_aa.default,
    "cubic-antialias": aten._upsample_bicubic2d_aa.default,
}


def _resample_axis(b: Builder, x: Operand, axis: int, size: int, scale: float | None, spec: ResizeSpec) -> Operand:
    """One axis by the matrix that torch's own 1-D resize applies to the identity."""
    if size == x.shape[axis] and (scale is None or scale == 1):
        return x
    eye = torch.eye(x.shape[axis], dtype=torch.float32 if x.dtype != torch.float64 else x.dtype).unsqueeze(1)
    if spec.mode in _PLANAR:  # torch has them for planes only, and is wrong (2.13) on some that are one element wide
        plane = eye.unsqueeze(3).expand(-1, -1, -1, 2).contiguous()
        columns = _PLANAR[spec.mode](plane, [size, 2], spec.align_corners, scale, None)[..., 0]
        return linear_map(b, x, axis, columns.squeeze(1).T.to(torch.float64))
    resample: Callable[..., torch.Tensor] = {
        "nearest": aten.upsample_nearest1d.default,
        "nearest-exact": aten._upsample_nearest_exact1d.default,
        "linear": aten.upsample_linear1d.default,
    }[spec.mode]
    arguments = [spec.align_corners] if spec.mode == "linear" else []
    matrix = resample(eye, [size], *arguments, scale)
    return linear_map(b, x, axis, matrix.squeeze(1).T.to(torch.float64))
