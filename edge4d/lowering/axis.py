"""Operators along one axis: the memory is regrouped as [before, axis, after] and the operator runs at rank ≤ 4."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload

from edge4d.lowering.alignment import align
from edge4d.lowering.channels_last import T_AXIS
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Const, Operand, Value
from edge4d.lowering.view import reshape, with_axis

if TYPE_CHECKING:
    from torch import fx

    from edge4d.lowering.builder import Builder

__all__ = ["concat", "gather_axis", "pad_axes", "pad_frames", "slice_axis", "split_axis", "take"]

aten = torch.ops.aten


def slice_axis(b: Builder, x: Operand, axis: int, start: int, stop: int, step: int = 1) -> Operand:
    """x[start:stop:step] along one axis, 0 ≤ start and stop ≤ size; a constant where that leaves nothing."""
    if start >= stop:
        return Const(torch.empty((*x.shape[:axis], 0, *x.shape[axis + 1 :]), dtype=x.dtype), "empty")
    if start == 0 and step == 1 and stop >= x.shape[axis]:
        return x
    if isinstance(x, Const):
        return Const(x.tensor.movedim(axis, 0)[start:stop:step].movedim(0, axis), f"{x.name}.{start}_{stop}")
    if step > 1 and b.gathers:
        return gather_axis(b, x, axis, range(start, stop, step))
    if axis == T_AXIS:
        x = b.by_frames(x)
    if step == 1 and b.channels_last:
        before, after = start, x.shape[axis] - stop
        sizes = [size for size in (before, stop - start, after) if size]
        return split_axis(b, x, axis, sizes)[1 if before else 0]
    node, dim, packing = b.isolate(x, axis)
    sliced = b.emit(aten.slice.Tensor, node, dim, start, stop, step)
    return b.value(sliced, packing.resize(axis, dim, len(range(start, stop, step))))


def split_axis(b: Builder, x: Operand, axis: int, sizes: Sequence[int]) -> list[Operand]:
    """Consecutive parts of one axis; by one Split where the runtime makes that a view of its input (OpenVINO does
    along the first axis of more than one element, whereas it copies what it slices).
    """
    if isinstance(x, Const) or not b.channels_last or len(sizes) == 1:
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        return [slice_axis(b, x, axis, start, start + size) for start, size in zip(starts, sizes, strict=True)]
    if axis == T_AXIS:
        x = b.by_frames(x)
    node, dim, packing = b.isolate(x, axis)
    cut = b.emit(aten.split_with_sizes.default, node, list(sizes), dim)
    return [b.value(b.item(cut, i), packing.resize(axis, dim, size)) for i, size in enumerate(sizes)]


def gather_axis(b: Builder, x: Operand, axis: int, places: Sequence[int]) -> Operand:
    """x at the given places along one axis, by one Gather."""
    if list(places) == list(range(x.shape[axis])):
        return x
    if isinstance(x, Const):
        return Const(x.tensor.index_select(axis, torch.tensor(list(places))), f"{x.name}.take")
    node, dim, packing = b.isolate(b.by_frames(x) if axis == T_AXIS else x, axis)
    index = b.parameter(torch.tensor(list(places)), f"{b.at.layer}.index".strip("."))
    gathered = b.emit(aten.index_select.default, node, dim, index)
    return b.value(gathered, packing.resize(axis, dim, len(places)))


def concat(b: Builder, parts: Sequence[Operand], axis: int) -> Operand:
    """Join along one axis, in the memory order of the largest part."""
    if len(parts) == 1:
        return parts[0]
    constants = [part.tensor for part in parts if isinstance(part, Const)]
    if len(constants) == len(parts):
        return Const(torch.cat(constants, axis), f"{parts[0].name}.cat" if isinstance(parts[0], Const) else "cat")
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    nodes, packing = align(b, parts, shape, alone=axis)
    dim = packing.physical.index(packing.logical[axis])
    return b.value(b.emit(aten.cat.default, nodes, dim), packing)


def take(b: Builder, x: Operand, axis: int, indices: Sequence[int]) -> Operand:
    """x at the given places along one axis: ascending runs of constant step as slices, then joined."""
    if isinstance(x, Const):
        return Const(x.tensor.index_select(axis, torch.tensor(list(indices))), f"{x.name}.take")
    runs: list[tuple[int, int, int]] = []
    at = 0
    while at < len(indices):
        end, step = at + 1, 1
        if end < len(indices) and indices[end] > indices[at]:
            step = indices[end] - indices[at]
            while end < len(indices) and indices[end] - indices[end - 1] == step:
                end += 1
        runs.append((indices[at], indices[end - 1] + 1, step))
        at = end
    if len(runs) > _GATHER_ABOVE:
        return gather_axis(b, x, axis, indices)
    return concat(b, [slice_axis(b, x, axis, start, stop, step) for start, stop, step in runs], axis)


_GATHER_ABOVE = 8
"""Above this many slices one Gather is clearer than slices joined."""


def zeros_like_slice(x: Value, axis: int, count: int, fill: float = 0.0) -> Const:
    """A constant of x's shape but `count` long along one axis."""
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    return Const(torch.full(shape, fill, dtype=x.dtype), "fill")


def pad_axes(b: Builder, x: Value, pads: Sequence[tuple[int, int]], fill: float = 0.0) -> Value:
    """Constant padding before and after along each logical axis; negative numbers crop."""
    for axis, (before, after) in enumerate(pads):
        if (before, after) == (0, 0):
            continue
        node, dim, packing = b.isolate(x, axis)
        amounts = [0] * (2 * (len(packing.physical) - dim))
        amounts[-2:] = [before, after]
        padded = b.emit(aten.constant_pad_nd.default, node, amounts, fill)
        x = b.value(padded, packing.resize(axis, dim, x.shape[axis] + before + after))
    return x


def pad_frames(b: Builder, x: Value, before: int, after: int) -> Value:
    """Zero frames before and after those of a clip (N, C, T, H, W)."""
    source, x = x.node, b.by_frames(x)
    if not (b.channels_last and x.dtype.is_floating_point):
        return pad_axes(b, x, [(0, 0), (0, 0), (before, after), (0, 0), (0, 0)])
    node, dim, packing = b.isolate(x, T_AXIS)
    shape, zero = list(packing.physical_shape), b.zero(source)

    def zeros(count: int) -> list[fx.Node]:
        one = b.reshape(zero, [1] * len(shape))
        return [b.emit(aten.expand.default, one, [*shape[:dim], count, *shape[dim + 1 :]])] if count else []

    padded = b.emit(aten.cat.default, [*zeros(before), node, *zeros(after)], dim)
    return b.value(padded, packing.resize(T_AXIS, dim, x.shape[T_AXIS] + before + after))


# ---- rules ------------------------------------------------------------------------------------------------------


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
    """The place that each padded position repeats."""
    result = []
    for i in range(-before, size + after):
        if mode == "circular":
            result.append(i % size)
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
