"""Reductions over any axes: kept and reduced atoms form at most four groups, or the axes are reduced one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload

from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.squares import as_before, widened
from edge4d.lowering.values import Operand, Value
from edge4d.lowering.view import reshape, with_axis
from edge4d.packing import MAX_RANK

if TYPE_CHECKING:
    from torch.fx import Node

    from edge4d.lowering.builder import Builder

__all__ = ["axes_apart", "mean", "reduce_axes"]

aten = torch.ops.aten


def reduce_axes(b: Builder, x: Value, axes: Sequence[int], op: OpOverload, **keywords: Any) -> Value:
    """Reduce whole logical axes, which stay with size 1.

    Args:
        op: an overload called as ``op(node, dims, True, **keywords)`` whose result over several axes is that of
            reducing them one after another (sum, mean, amax, amin, any, all, logsumexp).
    """
    apart = axes_apart(b, x, axes)
    if apart is None:
        for axis in axes:
            x = reduce_axes(b, _alone(b, x, axis), [axis], op, **keywords)
        return x
    node, packing = apart.node, apart.packing
    reduced = {atom for axis in axes for atom in packing.logical[axis]}
    dims = [dim for dim, group in enumerate(packing.physical) if group and set(group) <= reduced]
    if not dims:  # every reduced axis has size 1; the operator still applies (a logsumexp, an `any`, a dtype)
        flat = b.reshape(node, (1, math.prod(packing.sizes)))
        return b.value(b.reshape(b.emit(op, flat, [0], True, **keywords), packing.physical_shape), packing)
    frames = packing.physical_shape[0]
    if op is aten.mean.dim and dims == _CHANNEL and frames > 1 and _is_of_a_pool(node):
        return b.value(_channel_mean(b, node, frames, **keywords), packing.drop(axes))
    return b.value(b.emit(op, node, dims, True, **keywords), packing.drop(axes))


_CHANNEL = [0, 2, 3]
"""The axes of one channel in values packed (t, c, h, w)."""


def _channel_mean(b: Builder, node: Node, frames: int, **keywords: Any) -> Node:
    """Each frame's mean, and then that of the frames as a sum.

    On CPUs with AVX2 alone OpenVINO keeps what a pool gives in blocks of 8 channels, and one mean over these three axes
    is wrong there from a compiled model's second call on (docs/engines.md). It joins two means that follow each other
    into that one, but not this. A sum of all places would do as well, but may leave the range of float16.
    """
    means = b.emit(aten.mean.dim, node, _CHANNEL[1:], True, **keywords)
    total = b.emit(aten.sum.dim_IntList, means, _CHANNEL[:1], True)
    return b.emit(aten.mul.Tensor, total, 1 / frames)


def _is_of_a_pool(node: Node) -> bool:
    """Whether a pool is upstream, with nothing between that lays its result out anew: no convolution, no product."""
    found, open_, seen = False, [node], {node}
    while open_ and not found:
        here = open_.pop()
        found = here.target in _POOLS
        if here.target not in _LAID_OUT_ANEW:
            open_ += [above for above in here.all_input_nodes if above not in seen]
            seen.update(open_)
    return found


_POOLS = frozenset({aten.max_pool2d.default, aten.avg_pool2d.default})
_LAID_OUT_ANEW = frozenset(
    {
        aten.conv1d.default,
        aten.conv2d.default,
        aten.conv_transpose1d.default,
        aten.conv_transpose2d.input,
        aten.bmm.default,
        aten.linear.default,
        aten.matmul.default,
        aten.mm.default,
    }
)


def axes_apart(b: Builder, x: Value, axes: Sequence[int]) -> Value | None:
    """x with no physical axis of which some is in the given logical axes and some is not; None where that needs five.

    Where there is room, the last logical axis stands by itself: H and W, as a convolution wants them next.
    """
    packing = x.packing
    inside = {atom for axis in axes for atom in packing.logical[axis]}
    if all(len({atom in inside for atom in group}) <= 1 for group in packing.physical):
        return x
    groups = [tuple(run) for _, run in itertools.groupby(packing.memory, lambda atom: atom in inside)]
    if len(groups) > MAX_RANK:
        return None
    last = groups[-1]
    tail = tuple(atom for atom in last if packing.owner(atom) == packing.owner(last[-1]))
    if len(groups) < MAX_RANK and len(tail) < len(last):
        groups[-1:] = [last[: -len(tail)], tail]
    packing = packing.reorder(tuple(groups))
    return Value(b.arrange(x, packing.physical), packing, x.dtype)


def _alone(b: Builder, x: Value, axis: int) -> Value:
    node, _, packing = b.isolate(x, axis)
    return Value(node, packing, x.dtype)


def mean(b: Builder, x: Operand, axes: Sequence[int]) -> Operand:
    """The mean over logical axes, which stay with size 1."""
    result: Operand = b.lower(aten.mean.dim, x, list(axes), True)
    return result


@dataclass(frozen=True)
class ReduceSpec:
    """x reduced over `axes` by `op`; `shape` is the result's logical shape, with or without the reduced axes."""

    x: Operand
    axes: tuple[int, ...]
    op: OpOverload
    keywords: tuple[tuple[str, Any], ...]
    shape: tuple[int, ...]


_PHYSICAL = {
    aten.sum.dim_IntList: aten.sum.dim_IntList,
    aten.sum.default: aten.sum.dim_IntList,
    aten.mean.dim: aten.mean.dim,
    aten.mean.default: aten.mean.dim,
    aten.amax.default: aten.amax.default,
    aten.amin.default: aten.amin.default,
    aten.max.default: aten.amax.default,
    aten.min.default: aten.amin.default,
    aten.any.dims: aten.any.dims,
    aten.any.dim: aten.any.dims,
    aten.any.default: aten.any.dims,
    aten.all.dims: aten.all.dims,
    aten.all.dim: aten.all.dims,
    aten.all.default: aten.all.dims,
    aten.logsumexp.default: aten.logsumexp.default,
}

_OF_BOOLEANS = {aten.amax.default: aten.any.dims, aten.amin.default: aten.all.dims}
"""ONNX has no extrema of booleans."""


_NO_AXES_ARE_NONE = (aten.any.dims, aten.all.dims)
"""Over an empty list of axes these reduce nothing; to all others it stands for every axis."""


def _extremes_of(b: Builder, x: Value) -> Value:
    """x in a type that ONNX has extrema of and every value of x fits: it has none of booleans and 16-bit integers."""
    if x.dtype not in (torch.bool, torch.int16):
        return x
    wider: Value = b.lower(aten._to_copy.default, x, dtype=torch.int32)
    return wider


@lowers(*_PHYSICAL)
class Reduce:
    """Sums, means, extrema and logical reductions over any axes."""

    def check(self, site: Site) -> ReduceSpec | Decline:
        given = site.take_all()
        keywords = {"dtype": given["dtype"]} if given.get("dtype") is not None else {}
        x, op = given["self"], _PHYSICAL[site.op]
        if x.dtype == torch.bool:
            op = _OF_BOOLEANS.get(op, op)
        none = given.get("dim") == [] and site.op in _NO_AXES_ARE_NONE
        return ReduceSpec(x, () if none else _axes(x, given.get("dim")), op, tuple(keywords.items()), site.shape)

    def rewrite(self, b: Builder, spec: ReduceSpec) -> Value:
        x, dtype = with_axis(b, spec.x), dict(spec.keywords).get("dtype")
        if dtype not in (None, x.dtype):  # as torch does; ONNX has no mean of booleans
            x = b.lower(aten._to_copy.default, x, dtype=dtype)
        own = x.dtype
        if spec.op in _OF_BOOLEANS:
            x = _extremes_of(b, x)
        reduced = reduce_axes(b, x, spec.axes, spec.op, **dict(spec.keywords))
        if x.dtype != own:
            reduced = b.lower(aten._to_copy.default, reduced, dtype=own)
        return reshape(b, reduced, spec.shape)


def _axes(x: Operand, dim: Any) -> tuple[int, ...]:
    rank = max(1, len(x.shape))
    if dim is None or dim == []:
        return tuple(range(rank))
    return tuple(sorted(d % rank for d in (dim if isinstance(dim, list | tuple) else [dim])))


@dataclass(frozen=True)
class MomentSpec:
    """Variance over `axes` with Bessel-like `correction`: optionally its root, optionally with the mean."""

    x: Operand
    axes: tuple[int, ...]
    correction: float
    root: bool
    with_mean: bool
    shape: tuple[int, ...]


@lowers(aten.var.correction, aten.std.correction, aten.var_mean.correction, aten.std_mean.correction)
class Moment:
    """var = Σ(x − mean)² / max(0, n − correction), the two-pass form."""

    def check(self, site: Site) -> MomentSpec | Decline:
        x: Operand = site.take("self")
        axes = _axes(x, site.take("dim"))
        correction = site.take("correction")
        site.take("keepdim")
        with_mean = site.op in (aten.var_mean.correction, aten.std_mean.correction)
        root = site.op in (aten.std.correction, aten.std_mean.correction)
        shape = tuple((site.result[0] if with_mean else site.result).shape)
        return MomentSpec(x, axes, 1 if correction is None else float(correction), root, with_mean, shape)

    def rewrite(self, b: Builder, spec: MomentSpec) -> Any:
        x = b.given(widened(b, with_axis(b, spec.x)))
        count = math.prod(x.shape[axis] for axis in spec.axes)
        center = mean(b, x, spec.axes)
        deviation = b.lower(aten.sub.Tensor, x, center)
        total = b.lower(aten.sum.dim_IntList, b.lower(aten.mul.Tensor, deviation, deviation), list(spec.axes), True)
        divisor = max(0.0, count - spec.correction)
        spread = b.lower(aten.div.Tensor, total, divisor)
        if spec.root:
            spread = b.lower(aten.sqrt.default, spread)
        found = [as_before(b, reshape(b, b.given(one), spec.shape), spec.x.dtype) for one in (spread, center)]
        return found if spec.with_mean else found[0]


@dataclass(frozen=True)
class PickSpec:
    """An extremum of one axis with its place, or the place alone."""

    x: Operand
    axis: int | None
    op: OpOverload
    shape: tuple[int, ...]


@lowers(aten.max.dim, aten.min.dim, aten.argmax.default, aten.argmin.default)
class Pick:
    """Extrema with places along one axis (or of the flattened tensor)."""

    def check(self, site: Site) -> PickSpec | Decline:
        x: Operand = site.take("self")
        dim = site.take("dim")
        site.take("keepdim")
        result = site.result[0] if isinstance(site.result, tuple | list) else site.result
        return PickSpec(x, None if dim is None else dim % max(1, len(x.shape)), site.op, tuple(result.shape))

    def rewrite(self, b: Builder, spec: PickSpec) -> Any:
        x, axis = with_axis(b, spec.x), spec.axis
        if axis is None:
            x, axis = reshape(b, x, (math.prod(x.shape),)), 0
        own = x.dtype
        x = _extremes_of(b, x)
        node, dim, packing = b.isolate(x, axis)
        picked = b.emit(spec.op, node, dim, True)
        after = packing.resize(axis, dim, 1)
        if spec.op in (aten.argmax.default, aten.argmin.default):
            return reshape(b, b.value(picked, after), spec.shape)
        both = [reshape(b, b.value(b.item(picked, i), after), spec.shape) for i in range(2)]
        return both if x.dtype == own else [b.lower(aten._to_copy.default, both[0], dtype=own), both[1]]


@dataclass(frozen=True)
class NormSpec:
    """The vector p-norm over `axes`."""

    x: Operand
    order: float
    axes: tuple[int, ...]
    shape: tuple[int, ...]


@lowers(aten.linalg_vector_norm.default)
class VectorNorm:
    """‖x‖ₚ = (Σ|x|ᵖ)^(1/p); ‖x‖₁ = Σ|x|, ‖x‖₂ = √Σx², ‖x‖∞ = max|x|."""

    def check(self, site: Site) -> NormSpec | Decline:
        x, order, dim = site.take("self"), site.take("ord"), site.take("dim")
        site.take("keepdim")
        if site.take("dtype") not in (None, x.dtype):
            return Decline("a norm in another dtype than its input", "convert the input first")
        if order <= 0:
            return Decline(f"a norm of order {order}", "edge4d lowers positive orders and inf")
        return NormSpec(x, float(order), _axes(x, dim), site.shape)

    def rewrite(self, b: Builder, spec: NormSpec) -> Value:
        axes = list(spec.axes)
        if spec.order == 2:
            x = widened(b, spec.x)
            total = b.lower(aten.sum.dim_IntList, b.lower(aten.mul.Tensor, x, x), axes, True)
            result = b.lower(aten.sqrt.default, total)
        elif spec.order not in (1, math.inf):
            power = b.lower(aten.pow.Tensor_Scalar, b.lower(aten.abs.default, widened(b, spec.x)), spec.order)
            total = b.lower(aten.sum.dim_IntList, power, axes, True)
            result = b.lower(aten.pow.Tensor_Scalar, total, 1 / spec.order)
        else:
            size = b.lower(aten.abs.default, spec.x)
            op = aten.sum.dim_IntList if spec.order == 1 else aten.amax.default
            result = b.lower(op, size, axes, True)
        return reshape(b, b.given(as_before(b, result, spec.x.dtype)), spec.shape)


@dataclass(frozen=True)
class ProdSpec:
    """The product over `axes`."""

    x: Operand
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype


@lowers(aten.prod.dim_int, aten.prod.default)
class Product:
    """Products, one axis at a time."""

    def check(self, site: Site) -> ProdSpec | Decline:
        given = site.take_all()
        return ProdSpec(given["self"], _axes(given["self"], given.get("dim")), site.shape, site.dtype)

    def rewrite(self, b: Builder, spec: ProdSpec) -> Value:
        x = with_axis(b, spec.x)
        for axis in spec.axes:
            node, dim, packing = b.isolate(x, axis)
            x = b.value(b.emit(aten.prod.dim_int, node, dim, True, dtype=spec.dtype), packing.resize(axis, dim, 1))
        return reshape(b, x, spec.shape)


@dataclass(frozen=True)
class DistanceSpec:
    """The p-norm distance of every row of x (…, R, M) to every row of y (…, S, M): (…, R, S); or of x to y."""

    x: Operand
    y: Operand
    order: float


@lowers(aten.dist.default)
class DistanceOfTwo:
    """The p-norm of a difference."""

    def check(self, site: Site) -> DistanceSpec | Decline:
        order = float(site.take("p"))
        if order <= 0:
            return Decline(f"a distance of order {order}", "edge4d lowers positive orders and inf")
        return DistanceSpec(site.take("self"), site.take("other"), order)

    def rewrite(self, b: Builder, spec: DistanceSpec) -> Operand:
        apart = b.lower(aten.sub.Tensor, spec.x, spec.y)
        result: Operand = b.lower(aten.linalg_vector_norm.default, apart, spec.order)
        return result


@lowers(aten._cdist_forward.default)
class Distance:
    """The differences of all pairs, and their norm."""

    def check(self, site: Site) -> DistanceSpec | Decline:
        site.take("compute_mode")  # which formula, not which result
        order = site.take("p")
        if order <= 0:
            return Decline(f"distances of order {order}", "edge4d lowers positive orders and inf")
        return DistanceSpec(site.take("x1"), site.take("x2"), order)

    def rewrite(self, b: Builder, spec: DistanceSpec) -> Operand:
        x = b.lower(aten.unsqueeze.default, spec.x, -2)
        y = b.lower(aten.unsqueeze.default, spec.y, -3)
        apart = b.lower(aten.sub.Tensor, x, y)
        result: Operand = b.lower(aten.linalg_vector_norm.default, apart, spec.order, [-1])
        return result
