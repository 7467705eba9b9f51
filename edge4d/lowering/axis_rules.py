"""Rules of operators along one axis: slices, splits, joins, rotations, padding, softmax and running sums."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload

from edge4d.lowering.axis import concat, pad_axes, slice_axis, take
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Operand, Value
from edge4d.lowering.view import reshape, with_axis

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

aten = torch.ops.aten


@dataclass(frozen=True)
class SliceSpec:
    """x[start:stop:step] along `axis`; `drop` removes the axis afterwards (select)."""

    x: Operand
    axis: int
    start: int
    stop: int
    step: int
    drop: bool


@lowers(aten.slice.Tensor, aten.select.int, aten.narrow.default, aten.narrow_copy.default)
class Slice:
    """One range of one axis."""

    def check(self, site: Site) -> SliceSpec | Decline:
        x: Operand = site.take("self")
        axis = site.take("dim") % len(x.shape)
        size = x.shape[axis]
        if site.has("index"):
            start = site.take("index") % size
            return SliceSpec(x, axis, start, start + 1, 1, drop=True)
        if site.has("length"):
            start = site.take("start") % size
            return SliceSpec(x, axis, start, start + site.take("length"), 1, drop=False)
        start, stop, step = slice(site.take("start"), site.take("end"), site.take("step")).indices(size)
        return SliceSpec(x, axis, start, stop, step, drop=False)

    def rewrite(self, b: Builder, spec: SliceSpec) -> Operand:
        cut = slice_axis(b, spec.x, spec.axis, spec.start, spec.stop, spec.step)
        if not spec.drop:
            return cut
        return reshape(b, b.given(cut), (*cut.shape[: spec.axis], *cut.shape[spec.axis + 1 :]))


@dataclass(frozen=True)
class SplitSpec:
    """x cut along `axis` into consecutive sizes; `drop` removes the axis of each part (unbind)."""

    x: Operand
    axis: int
    sizes: tuple[int, ...]
    drop: bool


@lowers(aten.split.Tensor, aten.split_with_sizes.default, aten.split.sizes, aten.chunk.default, aten.unbind.int)
class Split:
    """Consecutive parts of one axis; the sizes are read off the result."""

    def check(self, site: Site) -> SplitSpec | Decline:
        given = site.take_all()
        x, axis = given["self"], given["dim"] % len(given["self"].shape)
        drop = site.op is aten.unbind.int
        return SplitSpec(x, axis, tuple(1 if drop else part.shape[axis] for part in site.result), drop)

    def rewrite(self, b: Builder, spec: SplitSpec) -> list[Operand]:
        parts, start = [], 0
        for size in spec.sizes:
            part = slice_axis(b, spec.x, spec.axis, start, start + size)
            if spec.drop:
                part = reshape(b, b.given(part), (*part.shape[: spec.axis], *part.shape[spec.axis + 1 :]))
            parts.append(part)
            start += size
        return parts


@dataclass(frozen=True)
class JoinSpec:
    """Parts joined along `axis`; `fresh` when the axis is new (stack)."""

    parts: tuple[Operand, ...]
    axis: int
    fresh: bool
    dtype: torch.dtype


@lowers(aten.cat.default, aten.stack.default, aten.concat.default)
class Join:
    """`cat` and `stack`; parts of another dtype are converted as torch's type promotion does."""

    def check(self, site: Site) -> JoinSpec | Decline:
        parts = [part for part in site.take("tensors") if 0 not in part.shape]
        return JoinSpec(tuple(parts), site.take("dim") % len(site.shape), site.op is aten.stack.default, site.dtype)

    def rewrite(self, b: Builder, spec: JoinSpec) -> Operand:
        parts: list[Operand] = []
        for part in spec.parts:
            if spec.fresh:
                part = b.lower(aten.unsqueeze.default, part, spec.axis)
            if part.dtype != spec.dtype:
                part = b.lower(aten._to_copy.default, part, dtype=spec.dtype)
            parts.append(part)
        return concat(b, parts, spec.axis)


@dataclass(frozen=True)
class TakeSpec:
    """x, under the shape `seen`, at the given places along each named axis."""

    x: Operand
    places: tuple[tuple[int, tuple[int, ...]], ...]
    seen: tuple[int, ...]


@lowers(aten.flip.default, aten.roll.default)
class Take:
    """Reversals and rotations: places along an axis that are known at lowering time."""

    def check(self, site: Site) -> TakeSpec | Decline:
        x: Operand = site.take("self")
        seen = x.shape or (1,)
        dims = [d % len(seen) for d in site.take("dims")]
        if site.op is aten.flip.default:
            return TakeSpec(x, tuple((d, tuple(reversed(range(seen[d])))) for d in dims), seen)
        shifts = site.take("shifts")
        if not dims:
            dims, seen = [0], (math.prod(x.shape),)
        places = [(d, tuple((i - s) % seen[d] for i in range(seen[d]))) for d, s in zip(dims, shifts, strict=True)]
        return TakeSpec(x, tuple(places), seen)

    def rewrite(self, b: Builder, spec: TakeSpec) -> Operand:
        x: Operand = spec.x if spec.seen == spec.x.shape else reshape(b, b.given(spec.x), spec.seen)
        for axis, indices in spec.places:
            x = take(b, x, axis, indices)
        return x if spec.seen == spec.x.shape else reshape(b, b.given(x), spec.x.shape)


@dataclass(frozen=True)
class PadSpec:
    """x padded by (before, after) along each axis: with a number, or at places of x itself."""

    x: Operand
    pads: tuple[tuple[int, int], ...]
    fill: float | None
    mode: str


_PADS = {
    aten.reflection_pad1d.default: "reflect",
    aten.reflection_pad2d.default: "reflect",
    aten.reflection_pad3d.default: "reflect",
    aten.replication_pad1d.default: "replicate",
    aten.replication_pad2d.default: "replicate",
    aten.replication_pad3d.default: "replicate",
    aten._pad_circular.default: "circular",
    aten.constant_pad_nd.default: "constant",
}


@lowers(aten.pad.default, *_PADS)
class Pad:
    """Padding of every mode along any axes; the edges of other modes are slices of x, joined axis by axis."""

    def check(self, site: Site) -> PadSpec | Decline:
        x: Operand = site.take("self")
        flat = list(site.take("pad") if site.has("pad") else site.take("padding"))
        mode = _PADS.get(site.op) or site.take("mode")
        fill = site.take("value") if site.has("value") else None
        pads = [(0, 0)] * len(x.shape)
        for i in range(len(flat) // 2):
            pads[-1 - i] = (flat[2 * i], flat[2 * i + 1])
        if mode not in ("constant", "reflect", "replicate", "circular"):
            return Decline(f"padding mode {mode!r} is not known", "use constant, reflect, replicate or circular")
        return PadSpec(x, tuple(pads), float(fill or 0.0) if mode == "constant" else None, mode)

    def rewrite(self, b: Builder, spec: PadSpec) -> Operand:
        if spec.fill is not None:
            return pad_axes(b, b.given(spec.x), spec.pads, spec.fill)
        x = spec.x
        for axis, (before, after) in enumerate(spec.pads):
            if (before, after) != (0, 0):
                x = take(b, x, axis, _padded_places(x.shape[axis], before, after, spec.mode))
        return x


def _padded_places(size: int, before: int, after: int, mode: str) -> list[int]:
    """The place that each padded position repeats. Negative numbers crop; what goes round is what they leave."""
    result = []
    first, left = max(0, -before), size + min(0, before) + min(0, after)
    for i in range(-before, size + after):
        if mode == "circular":
            result.append(first + (i - first) % left)
        elif mode == "replicate":
            result.append(min(max(i, 0), size - 1))
        else:
            i = abs(i)
            result.append(i if i < size else 2 * (size - 1) - i)
    return result


@dataclass(frozen=True)
class AlongSpec:
    """`op(x, axis, *rest)`, shape unchanged."""

    x: Operand
    axis: int
    op: OpOverload
    rest: tuple[Any, ...]


@lowers(
    aten.softmax.int,
    aten._softmax.default,
    aten.log_softmax.int,
    aten._log_softmax.default,
    aten.cumsum.default,
)
class Along:
    """Softmax and running sums along any axis."""

    def check(self, site: Site) -> AlongSpec | Decline:
        x: Operand = site.take("self")
        axis = site.take("dim") % max(1, len(x.shape))
        if site.has("dtype"):
            return AlongSpec(x, axis, site.op, (site.take("dtype"),))
        if site.take("half_to_float"):
            return Decline("softmax that converts half to float", "convert to float32 before the softmax")
        return AlongSpec(x, axis, site.op, (False,))

    def rewrite(self, b: Builder, spec: AlongSpec) -> Value:
        node, dim, packing = b.isolate(with_axis(b, spec.x), spec.axis)
        if spec.op is aten.cumsum.default:
            narrow = spec.x.dtype == torch.float16 and spec.rest[0] in (None, torch.float16)  # ONNX has no such sum
            made = b.emit(spec.op, node, dim, dtype=torch.float32 if narrow else spec.rest[0])
            if narrow:
                made = b.emit(aten._to_copy.default, made, dtype=torch.float16)
        else:
            made = b.emit(spec.op, node, dim, *spec.rest)
        return reshape(b, b.value(made, packing), spec.x.shape)
