"""Order along one axis: top-k, sorting, medians, and running products and extrema by doubling steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload

from edge4d.lowering.axis import concat, slice_axis, zeros_like_slice
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Operand
from edge4d.lowering.view import reshape, with_axis

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

aten = torch.ops.aten


@dataclass(frozen=True)
class SortSpec:
    """The `keep` first elements of x along `axis` in the given order, with their places.

    `only` names one rank of the order (a k-th value), whose axis is then dropped unless `shape` keeps it. `whole` takes
    all elements of x as one axis, and gives no places.
    """

    x: Operand
    axis: int
    keep: int
    descending: bool
    only: int | None
    shape: tuple[int, ...]
    whole: bool = False


@lowers(
    aten.topk.default,
    aten.sort.default,
    aten.sort.stable,
    aten.kthvalue.default,
    aten.median.dim,
    aten.median.default,
)
class Sort:
    """One TopK or sort along the axis. Equal elements keep their order, which torch promises of a stable sort only."""

    def check(self, site: Site) -> SortSpec | Decline:
        x: Operand = site.take("self")
        if site.op is aten.median.default:
            if x.dtype == torch.bool:
                return Decline("a median of booleans", "convert to integers first")
            size = math.prod(x.shape)
            return SortSpec(x, 0, size, False, (size - 1) // 2, (), whole=True)
        rank = max(1, len(x.shape))
        axis = site.take("dim") % rank
        size = x.shape[axis] if x.shape else 1
        if x.dtype == torch.bool:
            return Decline("an order of booleans, which runtimes do not sort", "convert to integers first")
        for settled in ("stable", "sorted", "keepdim"):  # sorted and stable results serve callers that ask for less
            if site.has(settled):
                site.take(settled)
        shape = tuple(site.result[0].shape)
        if site.op is aten.topk.default:
            keep = site.take("k")
            return SortSpec(x, axis, keep, site.take("largest"), None, shape)
        if site.op is aten.kthvalue.default:
            keep = site.take("k")
            return SortSpec(x, axis, keep, False, keep - 1, shape)
        if site.op is aten.median.dim:
            return SortSpec(x, axis, size, False, (size - 1) // 2, shape)
        return SortSpec(x, axis, size, site.take("descending"), None, shape)

    def rewrite(self, b: Builder, spec: SortSpec) -> Any:
        x = with_axis(b, spec.x)
        if spec.whole:
            x = reshape(b, x, (spec.keep,))
        node, dim, packing = b.isolate(x, spec.axis)
        if spec.keep == x.shape[spec.axis]:
            pair = b.emit(aten.sort.default, node, dim, spec.descending)
        else:
            pair = b.emit(aten.topk.default, node, spec.keep, dim, spec.descending, True)
        after = packing.resize(spec.axis, dim, spec.keep)
        both: list[Operand] = [b.value(b.item(pair, i), after) for i in range(2)]
        if spec.only is not None:
            both = [slice_axis(b, part, spec.axis, spec.only, spec.only + 1) for part in both]
        results = [reshape(b, b.given(part), spec.shape) for part in both]
        return results[0] if spec.whole else results


@dataclass(frozen=True)
class RunningSpec:
    """y[i] = x[0] ∘ … ∘ x[i] along `axis` for an associative `combine` whose neutral element is `neutral`."""

    x: Operand
    axis: int
    combine: OpOverload
    neutral: float
    dtype: torch.dtype
    places: bool


@lowers(aten.cumprod.default, aten.cummax.default, aten.cummin.default)
class Running:
    """After step s, y[i] combines the 2ˢ elements up to i; log₂(size) steps of slice, join and one operator each."""

    def check(self, site: Site) -> RunningSpec | Decline:
        x: Operand = site.take("self")
        axis = site.take("dim") % max(1, len(x.shape))
        if site.op is aten.cumprod.default:
            site.take("dtype")
            return RunningSpec(x, axis, aten.mul.Tensor, 1, site.dtype, places=False)
        if x.dtype == torch.bool:
            return Decline("running extrema of booleans", "convert to integers first")
        low, high = _limits(x.dtype)
        if site.op is aten.cummax.default:
            return RunningSpec(x, axis, aten.maximum.default, low, x.dtype, places=True)
        return RunningSpec(x, axis, aten.minimum.default, high, x.dtype, places=True)

    def rewrite(self, b: Builder, spec: RunningSpec) -> Any:
        y: Operand = spec.x
        if y.dtype != spec.dtype:
            y = b.lower(aten._to_copy.default, y, dtype=spec.dtype)
        size = y.shape[spec.axis] if y.shape else 1
        step = 1
        while step < size:
            enters = zeros_like_slice(b.given(y), spec.axis, step, spec.neutral)
            earlier = concat(b, [enters, slice_axis(b, y, spec.axis, 0, size - step)], spec.axis)
            y = b.lower(spec.combine, y, earlier)
            step *= 2
        return [y, None] if spec.places else y  # where the extremum stands is not followed; its use is refused


def _limits(dtype: torch.dtype) -> tuple[float, float]:
    if dtype.is_floating_point:
        return float("-inf"), float("inf")
    return torch.iinfo(dtype).min, torch.iinfo(dtype).max
