"""Writing at places known at lowering time: slice assignment, filled tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from edge4d.lowering.axis import concat, slice_axis
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Const, Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

aten = torch.ops.aten


@dataclass(frozen=True)
class FilledSpec:
    """A tensor of one value; it depends on the shape of an operand only, and shapes are known."""

    shape: tuple[int, ...]
    value: float
    dtype: torch.dtype


@lowers(
    aten.full_like.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.new_full.default,
    aten.new_zeros.default,
    aten.new_ones.default,
)
class Filled:
    """Constants made in the likeness of a value."""

    def check(self, site: Site) -> FilledSpec | Decline:
        given = site.take_all()
        value = 1 if "ones" in site.op._schema.name else given.get("fill_value", 0)
        return FilledSpec(site.shape, value, site.dtype)

    def rewrite(self, b: Builder, spec: FilledSpec) -> Operand:
        return Const(torch.full(spec.shape, spec.value, dtype=spec.dtype), f"{b.at.layer}.filled".strip("."))


@dataclass(frozen=True)
class ScatterSpec:
    """x with x[start:stop:step] along `axis` replaced by `source`."""

    x: Operand
    source: Operand
    axis: int
    places: tuple[int, ...]


@lowers(aten.slice_scatter.default, aten.select_scatter.default)
class SliceScatter:
    """Slice assignment: what stays and what is new, joined along the axis in order."""

    def check(self, site: Site) -> ScatterSpec | Decline:
        x, source = site.take("self"), site.take("src")
        axis = site.take("dim") % len(x.shape)
        size = x.shape[axis]
        if site.has("index"):
            return ScatterSpec(x, source, axis, (site.take("index") % size,))
        places = range(*slice(site.take("start"), site.take("end"), site.take("step")).indices(size))
        return ScatterSpec(x, source, axis, tuple(places))

    def rewrite(self, b: Builder, spec: ScatterSpec) -> Operand:
        size, source = spec.x.shape[spec.axis], spec.source
        if len(source.shape) < len(spec.x.shape):
            source = b.lower(aten.unsqueeze.default, source, spec.axis)
        if not spec.places:
            return spec.x
        if source.dtype != spec.x.dtype:
            source = b.lower(aten._to_copy.default, source, dtype=spec.x.dtype)
        parts: list[Operand] = []
        at = 0
        for number, place in enumerate(spec.places):
            if place > at:
                parts.append(slice_axis(b, spec.x, spec.axis, at, place))
            if number == 0 or place > at:
                run = number
                while run + 1 < len(spec.places) and spec.places[run + 1] == spec.places[run] + 1:
                    run += 1
                parts.append(slice_axis(b, source, spec.axis, number, run + 1))
            at = place + 1
        if at < size:
            parts.append(slice_axis(b, spec.x, spec.axis, at, size))
        return concat(b, parts, spec.axis)


@dataclass(frozen=True)
class CopySpec:
    """`source` broadcast to a shape, in another dtype perhaps."""

    source: Operand
    shape: tuple[int, ...]
    dtype: torch.dtype


@lowers(aten.copy.default, aten.fill.Scalar, aten.fill.Tensor)
class Copy:
    """Assignment of a whole tensor: the former values do not matter."""

    def check(self, site: Site) -> CopySpec | Decline:
        given: dict[str, Any] = site.take_all()
        source = given["src"] if "src" in given else given["value"]
        if not isinstance(source, Operand):
            source = Const(torch.tensor(source, dtype=site.dtype), "value")
        return CopySpec(source, site.shape, site.dtype)

    def rewrite(self, b: Builder, spec: CopySpec) -> Operand:
        source = spec.source
        if source.dtype != spec.dtype:
            source = b.lower(aten._to_copy.default, source, dtype=spec.dtype)
        result: Operand = b.lower(aten.expand.default, source, list(spec.shape))
        return result
