"""Pooling over one to three axes: spatially one 2-D pool of every frame, along time a maximum or mean of slices.

A maximum is idempotent, so a tap that falls into the padding may repeat a frame that its window sees anyway: no −inf
enters the graph. A mean is corrected by the exact count that torch divides by, found at lowering time on ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload

from edge4d.lowering.axis import concat, pad_axes, slice_axis, take
from edge4d.lowering.linear_map import linear_map
from edge4d.lowering.maxima import maxima_with_places
from edge4d.lowering.reduce import mean, reduce_axes
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Const, Operand, Value

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

aten = torch.ops.aten


@dataclass(frozen=True)
class PoolSpec:
    """A window moved over the last axes of x.

    Attributes:
        x: logical (N, C, *sizes) or, unbatched, (C, *sizes).
        kernel, stride, padding, dilation: one number a pooled axis.
        shape: logical shape of the result (ceil_mode is contained in it).
        op: the overload, asked again at lowering time for the exact divisors of a mean.
        divisor: arguments ceil_mode, count_include_pad, divisor_override of a mean.
        results: how many results the overload has.
        indices: whether the second of them, the places of the maxima, is asked for.
    """

    x: Operand
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    shape: tuple[int, ...]
    op: OpOverload
    divisor: tuple[Any, ...] = ()
    results: int = 1
    indices: bool = False

    @property
    def axes(self) -> range:
        """The pooled logical axes."""
        return range(len(self.x.shape) - len(self.kernel), len(self.x.shape))


_MAX = {
    aten.max_pool1d.default: 1,
    aten.max_pool2d.default: 2,
    aten.max_pool3d.default: 3,
    aten.max_pool1d_with_indices.default: 1,
    aten.max_pool2d_with_indices.default: 2,
    aten.max_pool3d_with_indices.default: 3,
}
_AVG = {aten.avg_pool1d.default: 1, aten.avg_pool2d.default: 2, aten.avg_pool3d.default: 3}


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * axes if len(values) == 1 else values


@lowers(*_MAX)
class MaxPool:
    """Max pooling: spatial maxima of each frame, then maxima of frames."""

    def check(self, site: Site) -> PoolSpec | Decline:
        axes = _MAX[site.op]
        kernel = _per_axis(site.take("kernel_size"), axes)
        results = len(site.result) if isinstance(site.result, tuple | list) else 1
        site.take("ceil_mode")  # contained in the result's shape
        shape = tuple((site.result[0] if results > 1 else site.result).shape)
        spec = PoolSpec(
            site.take("self"),
            kernel,
            _per_axis(site.take("stride") or kernel, axes),
            _per_axis(site.take("padding"), axes),
            _per_axis(site.take("dilation"), axes),
            shape,
            site.op,
            results=results,
            indices=1 in site.used,
        )
        for axis, k, s, p, d in zip(spec.axes, spec.kernel, spec.stride, spec.padding, spec.dilation, strict=True):
            if _places(spec.x.shape[axis], shape[axis], k, s, p, d) is None:
                return Decline(f"a window along axis {axis} lies wholly in the padding", "use a smaller padding")
        return spec

    def rewrite(self, b: Builder, spec: PoolSpec) -> Any:
        x: Operand = spec.x
        spatial = list(zip(spec.axes, spec.kernel, spec.stride, spec.padding, spec.dilation, strict=True))
        if spec.indices:
            taps = {w[0]: _require(_places(x.shape[w[0]], spec.shape[w[0]], *w[1:])) for w in spatial}
            windows = {axis: list(zip(*places, strict=True)) for axis, places in taps.items()}
            return list(maxima_with_places(b, x, windows, f"{b.at.layer}.maxima".strip(".")))
        if len(spatial) == 3:
            x = _max_plane(b, x, spatial[1:], spec.shape)
            axis, k, s, p, d = spatial[0]
            x = _max_slices(b, x, axis, _require(_places(x.shape[axis], spec.shape[axis], k, s, p, d)))
        else:
            x = _max_plane(b, x, spatial, spec.shape)
        return [x, *[None] * (spec.results - 1)] if spec.results > 1 else x


Window = tuple[int, int, int, int, int]
"""(axis, kernel, stride, padding, dilation)"""


def _places(size: int, results: int, k: int, s: int, p: int, d: int) -> list[list[int]] | None:
    """For each tap the place it reads for each result; a place outside is replaced by one that the window sees."""
    taps: list[list[int]] = [[] for _ in range(k)]
    for result in range(results):
        window = [result * s - p + tap * d for tap in range(k)]
        inside = [i for i in window if 0 <= i < size]
        if not inside:
            return None
        for tap, i in enumerate(window):
            taps[tap].append(min(max(i, inside[0]), inside[-1]) if not 0 <= i < size else i)
    return taps


def _require(places: list[list[int]] | None) -> list[list[int]]:
    assert places is not None  # the check has declined otherwise
    return places


def _max_slices(b: Builder, x: Operand, axis: int, places: list[list[int]]) -> Operand:
    """Maximum over taps along one axis."""
    result: Operand | None = None
    for indices in dict.fromkeys(tuple(p) for p in places):
        part = take(b, x, axis, indices)
        result = part if result is None else b.lower(aten.maximum.default, result, part)
    assert result is not None
    return result


def _max_plane(b: Builder, x: Operand, windows: Sequence[Window], shape: Sequence[int]) -> Operand:
    """Max pooling of the last one or two axes as one 2-D pool."""
    value = b.given(x)
    extra = [(0, 0)] * len(value.shape)
    for axis, k, s, p, d in windows:
        extra[axis] = (0, _missing(value.shape[axis], shape[axis], k, s, p, d))
    if any(after for _, after in extra):
        lowest = -float("inf") if value.dtype.is_floating_point else torch.iinfo(value.dtype).min
        value = pad_axes(b, value, extra, lowest)
    return _pool_plane(b, value, windows, aten.max_pool2d.default, with_dilation=True)


def _missing(size: int, results: int, k: int, s: int, p: int, d: int) -> int:
    """Padding after the axis, beyond p, that ceil_mode's last window needs."""
    return max(0, (results - 1) * s + (k - 1) * d + 1 - (size + 2 * p))


def _pool_plane(
    b: Builder, x: Value, windows: Sequence[Window], op: OpOverload, with_dilation: bool, trailing: Sequence[Any] = ()
) -> Value:
    """One 2-D pool on [batch…, C, H, W]; a single axis is pooled as [.., L, 1]."""
    axes = [axis for axis, *_ in windows]
    own = x.packing
    pooled = [own.logical[axis] for axis in axes]
    inside = {atom for group in pooled for atom in group}
    rest = tuple(atom for atom in own.memory if atom not in inside)
    channel = own.logical[1 if len(x.shape) == 5 else axes[0] - 1]
    if b.channels_last and channel:  # as convolutions have it, or the runtime brings all into another order and back
        head, channel_group = tuple(atom for atom in rest if atom not in channel), channel
    elif channel and len(rest) > len(channel) and rest[-len(channel) :] == channel:
        head, channel_group = rest[: -len(channel)], channel
    else:
        head, channel_group = (), rest
    if not channel:
        head, channel_group = rest, ()
    groups = (head, channel_group, *pooled, *[()] * (2 - len(pooled)))
    node = b.arrange(x, groups)
    fill = [1] * (2 - len(windows))
    kernel = [k for _, k, _, _, _ in windows] + fill
    stride = [s for _, _, s, _, _ in windows] + fill
    padding = [p for _, _, _, p, _ in windows] + [0] * len(fill)
    dilation = [[d for *_, d in windows] + fill] if with_dilation else []
    if kernel == [1, 1] and stride == [1, 1]:
        return x
    out = b.emit(op, node, kernel, stride, padding, *dilation, *trailing)
    packing = own.reorder(groups)
    for dim, axis in enumerate(axes, start=2):
        packing = packing.resize(axis, dim, out.meta["val"].shape[dim])
    return b.value(out, packing)


@lowers(*_AVG)
class AvgPool:
    """Mean pooling with torch's exact divisors."""

    def check(self, site: Site) -> PoolSpec | Decline:
        axes = _AVG[site.op]
        if not site.dtype.is_floating_point:
            return Decline("a mean of integers, which torch rounds towards 0", "convert to a floating type first")
        kernel = _per_axis(site.take("kernel_size"), axes)
        divisor = [site.take("ceil_mode"), site.take("count_include_pad")]
        if site.has("divisor_override"):
            divisor.append(site.take("divisor_override"))
        return PoolSpec(
            site.take("self"),
            kernel,
            _per_axis(site.take("stride") or kernel, axes),
            _per_axis(site.take("padding"), axes),
            (1,) * axes,
            site.shape,
            site.op,
            tuple(divisor),
        )

    def rewrite(self, b: Builder, spec: PoolSpec) -> Operand:
        x = b.given(spec.x)
        windows = list(zip(spec.axes, spec.kernel, spec.stride, spec.padding, spec.dilation, strict=True))
        # padding the windows explicitly on the right only where ceil_mode reaches beyond
        pads = [(0, 0)] * len(x.shape)
        for axis, k, s, p, d in windows:
            pads[axis] = (0, _missing(x.shape[axis], spec.shape[axis], k, s, p, d))
        y: Operand = _pool_plane(
            b, pad_axes(b, x, pads), windows[-2:], aten.avg_pool2d.default, with_dilation=False, trailing=[False, True]
        )
        if len(windows) == 3:
            axis, k, s, p, _ = windows[0]
            y = _mean_slices(
                b, pad_axes(b, b.given(y), _only(len(x.shape), axis, (p, p))), axis, k, s, spec.shape[axis]
            )
        correction = _correction(spec)
        if correction is None:
            return y
        scaled: Operand = b.lower(aten.mul.Tensor, y, correction)
        return scaled


def _only(rank: int, axis: int, pad: tuple[int, int]) -> list[tuple[int, int]]:
    return [pad if a == axis else (0, 0) for a in range(rank)]


def _mean_slices(b: Builder, x: Operand, axis: int, k: int, s: int, results: int) -> Operand:
    """Mean over the taps of a window along one axis."""
    if k == 1:
        return slice_axis(b, x, axis, 0, (results - 1) * s + 1, s)
    if s == k and x.shape[axis] == k * results:
        split = [*x.shape[:axis], results, k, *x.shape[axis + 1 :]]
        folded = mean(b, b.lower(aten.view.default, x, split), [axis + 1])
        merged: Operand = b.lower(aten.squeeze.dim, folded, axis + 1)
        return merged
    total: Operand | None = None
    for tap in range(k):
        part = slice_axis(b, x, axis, tap, tap + (results - 1) * s + 1, s)
        total = part if total is None else b.lower(aten.add.Tensor, total, part)
    result: Operand = b.lower(aten.mul.Tensor, total, 1.0 / k)
    return result


def _correction(spec: PoolSpec) -> Const | float | None:
    """Torch's mean divided by ours (which always divides by the whole window), place by place; None when they agree."""
    sizes = spec.x.shape[spec.axes.start :]
    ones = torch.ones(1, 1, *sizes, dtype=torch.float64)
    stride, padding, kernel = list(spec.stride), list(spec.padding), list(spec.kernel)
    theirs = spec.op(ones, kernel, stride, padding, *spec.divisor)
    pads: list[int] = []
    for axis, k, s, p in reversed(list(zip(spec.axes, kernel, stride, padding, strict=True))):
        pads += [p, p + _missing(spec.x.shape[axis], spec.shape[axis], k, s, p, 1)]
    ours = spec.op(torch.nn.functional.pad(ones, pads), kernel, stride)
    ratio = (theirs / ours).reshape(theirs.shape)
    if torch.equal(ratio, torch.ones_like(ratio)):
        return None
    if bool((ratio == ratio.flatten()[0]).all()):
        return float(ratio.flatten()[0])
    shape = (1,) * (len(spec.x.shape) - len(sizes)) + tuple(ratio.shape[2:])
    return Const(ratio.reshape(shape).to(spec.x.dtype), "pool.count")


# ---- adaptive pools ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AdaptiveSpec:
    """x pooled to fixed sizes along its last axes; result i of an axis sees floor(i·in/out) … ceil((i+1)·in/out)."""

    x: Operand
    sizes: tuple[int, ...]
    maximum: bool
    results: int
    indices: bool


_ADAPTIVE = (
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    aten._adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool3d.default,
    aten.adaptive_max_pool1d.default,
    aten.adaptive_max_pool2d.default,
    aten.adaptive_max_pool3d.default,
)


@lowers(*_ADAPTIVE)
class AdaptivePool:
    """Divisible sizes are plain pools, size 1 a reduction, other sizes a small matrix or slices along each axis."""

    def check(self, site: Site) -> AdaptiveSpec | Decline:
        x: Operand = site.take("self")
        count = len(site.take("output_size"))
        results = len(site.result) if isinstance(site.result, tuple | list) else 1
        shape = (site.result[0] if results > 1 else site.result).shape
        return AdaptiveSpec(x, tuple(shape[-count:]), "max" in site.op._schema.name, results, 1 in site.used)

    def rewrite(self, b: Builder, spec: AdaptiveSpec) -> Any:
        x: Operand = spec.x
        first = len(x.shape) - len(spec.sizes)
        if spec.indices:
            windows = {first + i: _adaptive_places(x.shape[first + i], size) for i, size in enumerate(spec.sizes)}
            return list(maxima_with_places(b, x, windows, f"{b.at.layer}.maxima".strip(".")))
        whole = [first + i for i, size in enumerate(spec.sizes) if size == 1]
        if whole:
            x = reduce_axes(b, b.given(x), whole, aten.amax.default) if spec.maximum else mean(b, x, whole)
        even = [x.shape[first + i] % size == 0 for i, size in enumerate(spec.sizes)]
        kernel = [
            x.shape[first + i] // size if e else 1 for i, (size, e) in enumerate(zip(spec.sizes, even, strict=True))
        ]
        if any(k > 1 for k in kernel):
            op = {False: list(_AVG), True: list(_MAX)[:3]}[spec.maximum][len(kernel) - 1]
            x = b.lower(op, x, kernel, kernel)
        for i, size in enumerate(spec.sizes):
            if not even[i]:
                x = _adapt_axis(b, x, first + i, size, spec.maximum)
        return [x, *[None] * (spec.results - 1)] if spec.results > 1 else x


def _adaptive_places(have: int, size: int) -> list[list[int]]:
    """What each result of an axis sees, the last one again where others see more."""
    seen = [list(range(i * have // size, -(-(i + 1) * have // size))) for i in range(size)]
    width = max(map(len, seen))
    return [one + one[-1:] * (width - len(one)) for one in seen]


def _adapt_axis(b: Builder, x: Operand, axis: int, size: int, maximum: bool) -> Operand:
    have = x.shape[axis]
    if not maximum:
        matrix = aten.adaptive_avg_pool1d.default(torch.eye(have, dtype=torch.float64).unsqueeze(1), [size])
        return linear_map(b, x, axis, matrix.squeeze(1).T)
    parts = []
    for i in range(size):
        start, stop = i * have // size, -(-(i + 1) * have // size)
        part = b.given(slice_axis(b, x, axis, start, stop))
        parts.append(reduce_axes(b, part, [axis], aten.amax.default))
    return concat(b, parts, axis)
