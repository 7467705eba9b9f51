"""Operators that only look at the same elements otherwise: they rewrite the packing and leave the data alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Operand, Value
from edge4d.packing import Groups, Packing

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["broadcast", "permute", "reshape", "with_axis"]

aten = torch.ops.aten


def permute(x: Value, dims: tuple[int, ...]) -> Value:
    """Logical axes in another order."""
    return x.packed(x.packing.permute(dims))


def reshape(b: Builder, x: Value, shape: tuple[int, ...]) -> Value:
    """Another logical shape, row-major; repacks only what has no common refinement and is not adjacent in memory."""
    packing = x.packing
    if needs := packing.reshape_needs(shape):
        groups = _gathered(packing, needs)
        packing = packing.reorder(groups)
        x = Value(b.arrange(x, groups), packing, x.dtype)
    packing = packing.reshape(shape)
    return b.value(b.reshape(x.node, packing.physical_shape), packing)


def with_axis(b: Builder, x: Operand) -> Value:
    """x, a single number as a row of one: torch takes axis 0 of it, which has none."""
    value = b.given(x)
    return value if value.shape else reshape(b, value, (1,))


def _gathered(packing: Packing, runs: Groups) -> Groups:
    """Physical axes, at most four, in which each run of atoms lies together, where its first atom lay."""
    order = list(packing.memory)
    for run in runs:
        place = min(order.index(atom) for atom in run)
        rest = [atom for atom in order if atom not in run]
        order = [*rest[:place], *run, *rest[place:]]
    return (tuple(order),)


def broadcast(b: Builder, x: Value, shape: tuple[int, ...]) -> Value:
    """x with axes of size 1 repeated up to a logical shape of the same rank; one axis at a time, at rank 3."""
    for axis, (have, want) in enumerate(zip(x.shape, shape, strict=True)):
        if have == want:
            continue
        node, dim, packing = b.isolate(x, axis)
        sizes = list(packing.physical_shape)
        sizes[dim] = want
        x = b.value(b.emit(aten.expand.default, node, sizes), packing.resize(axis, dim, want))
    return x


@dataclass(frozen=True)
class ViewSpec:
    """The same elements of x under the logical shape of the result."""

    x: Operand
    shape: tuple[int, ...]


@lowers(
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.view_as.default,
    aten.reshape_as.default,
)
class Reshape:
    """Any row-major view: the result's logical shape says everything that sizes and axes said."""

    def check(self, site: Site) -> ViewSpec | Decline:
        return ViewSpec(site.take_all()["self"], site.shape)

    def rewrite(self, b: Builder, spec: ViewSpec) -> Value:
        return reshape(b, b.given(spec.x), spec.shape)


@dataclass(frozen=True)
class PermuteSpec:
    """x with its logical axes in the given order."""

    x: Operand
    dims: tuple[int, ...]


@lowers(aten.permute.default, aten.transpose.int, aten.t.default, aten.numpy_T.default)
class Permute:
    """Axes in another order."""

    def check(self, site: Site) -> PermuteSpec | Decline:
        x: Operand = site.take("self")
        rank = len(x.shape)
        dims = list(range(rank))
        if site.has("dims"):
            dims = [d % rank for d in site.take("dims")]
        elif site.has("dim0"):
            a, c = site.take("dim0") % rank, site.take("dim1") % rank
            dims[a], dims[c] = dims[c], dims[a]
        else:
            dims.reverse()
        return PermuteSpec(x, tuple(dims))

    def rewrite(self, b: Builder, spec: PermuteSpec) -> Value:
        return permute(b.given(spec.x), spec.dims)


@dataclass(frozen=True)
class IdentitySpec:
    """x itself."""

    x: Operand


@lowers(
    aten.clone.default,
    aten.detach.default,
    aten.alias.default,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
    aten.detach_.default,
)
class Identity:
    """Operators that change no number: memory formats have no meaning in a graph whose layout is explicit."""

    def check(self, site: Site) -> IdentitySpec | Decline:
        return IdentitySpec(site.take_all()["self"])

    def rewrite(self, b: Builder, spec: IdentitySpec) -> Operand:
        return spec.x


@lowers(aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default)
class Dropout:
    """Dropout outside training is the identity."""

    def check(self, site: Site) -> IdentitySpec | Decline:
        site.take("p")
        if site.take("train"):
            return Decline("dropout in training mode is random", "call model.eval() before exporting")
        return IdentitySpec(site.take("input"))

    def rewrite(self, b: Builder, spec: IdentitySpec) -> Operand:
        return spec.x


@dataclass(frozen=True)
class ExpandSpec:
    """x broadcast to a logical shape."""

    x: Operand
    shape: tuple[int, ...]


@lowers(aten.expand.default, aten.expand_as.default)
class Expand:
    """Broadcasting made explicit."""

    def check(self, site: Site) -> ExpandSpec | Decline:
        return ExpandSpec(site.take_all()["self"], site.shape)

    def rewrite(self, b: Builder, spec: ExpandSpec) -> Value:
        x = b.given(spec.x)
        padded = (1,) * (len(spec.shape) - len(x.shape)) + x.shape
        return broadcast(b, reshape(b, x, padded), spec.shape)


@dataclass(frozen=True)
class RepeatSpec:
    """x tiled along each axis of the result.

    Attributes:
        inner: repeat every element in place, else the whole axis.
        flat: flatten x first.
    """

    x: Operand
    repeats: tuple[int, ...]
    inner: bool
    flat: bool = False


@lowers(aten.repeat.default)
class Repeat:
    """Tiling: a new axis of the repeats before each axis, broadcast and merged."""

    def check(self, site: Site) -> RepeatSpec | Decline:
        return RepeatSpec(site.take("self"), tuple(site.take("repeats")), inner=False)

    def rewrite(self, b: Builder, spec: RepeatSpec) -> Value:
        x = b.given(spec.x)
        shape = (math.prod(x.shape),) if spec.flat else (1,) * (len(spec.repeats) - len(x.shape)) + x.shape
        x = reshape(b, x, shape)
        for axis, times in enumerate(spec.repeats):
            if times == 1:
                continue
            lead, tail = x.shape[:axis], x.shape[axis + 1 :]
            pair = (x.shape[axis], 1) if spec.inner else (1, x.shape[axis])
            wide = (x.shape[axis], times) if spec.inner else (times, x.shape[axis])
            x = reshape(b, x, (*lead, *pair, *tail))
            x = broadcast(b, x, (*lead, *wide, *tail))
            x = reshape(b, x, (*lead, wide[0] * wide[1], *tail))
        return x


@lowers(aten.repeat_interleave.self_int)
class RepeatInterleave(Repeat):
    """Each element repeated in place along one axis."""

    def check(self, site: Site) -> RepeatSpec | Decline:
        x, times, dim = site.take("self"), site.take("repeats"), site.take("dim")
        site.take("output_size")
        repeats = [1] * len(x.shape)
        if dim is None:
            return RepeatSpec(x, (times,), inner=True, flat=True)
        repeats[dim] = times
        return RepeatSpec(x, tuple(repeats), inner=True)
