"""Element by element operators, with any broadcasting and any rank: every ATen overload tagged pointwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from edge4d.lowering.alignment import align
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Const, Operand, Value

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["Pointwise"]

aten = torch.ops.aten


def _tagged() -> Iterator[OpOverload]:
    """ATen's functional overloads that torch itself tags as pointwise."""
    for name in dir(aten):
        packet = getattr(aten, name)
        if not hasattr(packet, "overloads"):
            continue
        for overload in packet.overloads():
            op = getattr(packet, overload)
            mutates = op._schema.is_mutable or any(a.is_out for a in op._schema.arguments)
            random = torch.Tag.nondeterministic_seeded in op.tags
            tensors = any(isinstance(a.type, torch.TensorType) for a in op._schema.arguments)
            if torch.Tag.pointwise in op.tags and tensors and not mutates and not random and op not in _OWN_RULE:
                yield op


_OWN_RULE = {
    aten.clone.default,  # the identity
    aten.detach.default,
    aten.alias.default,
    aten.prelu.default,  # its weight belongs to axis 1, not to the last
}
_ALSO = (
    aten.nan_to_num.default,
    aten.hardtanh.default,
    aten.hardswish.default,
    aten.rsub.Tensor,
    aten.floor_divide.default,
    aten.masked_fill.Tensor,
)


@dataclass(frozen=True)
class PointwiseSpec:
    """The call itself: operands by position in `arguments`, everything else passed on unchanged."""

    op: OpOverload
    arguments: tuple[tuple[str, Any], ...]
    shape: tuple[int, ...]


@lowers(*dict.fromkeys([*_tagged(), *_ALSO]))
class Pointwise:
    """f(x, y, …) element by element: all operands in one physical frame, all attributes handed on as they are."""

    def check(self, site: Site) -> PointwiseSpec | Decline:
        given = site.take_all()
        if isinstance(site.result, tuple | list):
            return Decline("an operator of several results, which ONNX has not", "compute each by its own operator")
        if site.op is aten.add.Tensor and site.dtype == torch.bool:  # ONNX adds no booleans
            if given["alpha"] != 1:
                return Decline("a sum of booleans with a factor", "use logical_or")
            other = given["other"]
            either = other if isinstance(other, Operand) else Const(torch.tensor(other), "other")
            return PointwiseSpec(aten.logical_or.default, (("self", given["self"]), ("other", either)), site.shape)
        return PointwiseSpec(site.op, tuple(given.items()), site.shape)

    def rewrite(self, b: Builder, spec: PointwiseSpec) -> Value:
        names = {a.name: a.kwarg_only for a in spec.op._schema.arguments}
        leaves, tree = pytree.tree_flatten(dict(spec.arguments))
        operands: list[Operand] = [leaf for leaf in leaves if isinstance(leaf, Value | Const)]
        nodes, packing = align(b, operands, spec.shape)
        replaced = iter(nodes)
        physical = pytree.tree_unflatten(
            [next(replaced) if isinstance(leaf, Value | Const) else leaf for leaf in leaves], tree
        )
        positional = [physical[name] for name, keyword in names.items() if not keyword]
        defaults = {a.name: a.default_value for a in spec.op._schema.arguments}
        needed = {a.name for a in spec.op._schema.arguments if not a.has_default_value()}
        keywords = {
            n: physical[n] for n, keyword in names.items() if keyword and (n in needed or physical[n] != defaults[n])
        }
        return b.value(b.emit(spec.op, *_trimmed(spec.op, positional), **keywords), packing)


def _trimmed(op: OpOverload, positional: list[Any]) -> list[Any]:
    """Without trailing arguments that equal their defaults, so that the graph reads as people write it."""
    arguments = [a for a in op._schema.arguments if not a.kwarg_only]
    while positional and arguments[len(positional) - 1].has_default_value():
        default = arguments[len(positional) - 1].default_value
        if isinstance(positional[-1], torch.fx.Node) or positional[-1] != default:
            break
        positional.pop()
    return positional


@dataclass(frozen=True)
class PreluSpec:
    """max(0, x) + weight * min(0, x), one weight a channel (axis 1) or one for all."""

    x: Operand
    weight: Operand


@lowers(aten.prelu.default)
class Prelu:
    """PReLU in the fewest and fastest calls that give the same numbers, infinities included."""

    def check(self, site: Site) -> PreluSpec | Decline:
        return PreluSpec(site.take("self"), site.take("weight"))

    def rewrite(self, b: Builder, spec: PreluSpec) -> Value:
        weight, rank = spec.weight, len(spec.x.shape)
        known = weight.tensor.double() if isinstance(weight, Const) else None
        if known is not None and bool((known == known.flatten()[0]).all()):
            return b.lower(aten.leaky_relu.default, spec.x, known.flatten()[0].item())  # type: ignore[no-any-return]
        if rank > 1:
            weight = b.lower(aten.view.default, weight, [1, *weight.shape, *[1] * (rank - 2)])
        if known is not None and bool(((known <= 1) & (known != 0)).all()):
            # up to a slope of 1 the larger of x and weight · x is the right one; 0 · inf would be no number
            scaled = b.lower(aten.mul.Tensor, spec.x, weight)
            return b.lower(aten.maximum.default, spec.x, scaled)  # type: ignore[no-any-return]
        below = b.lower(aten.mul.Tensor, b.lower(aten.clamp_max.default, spec.x, 0), weight)
        result: Value = b.lower(aten.add.Tensor, b.lower(aten.relu.default, spec.x), below)
        return result


@dataclass(frozen=True)
class RreluSpec:
    """x, or slope · x where that is negative."""

    x: Operand
    slope: float
    results: int


@lowers(aten.rrelu.default, aten.rrelu_with_noise.default, aten.rrelu_with_noise_functional.default)
class Rrelu:
    """RReLU in inference: a leaky ReLU of the mean slope. The noise is passed on by training alone."""

    def check(self, site: Site) -> RreluSpec | Decline:
        given = site.take_all()
        if given["training"]:
            return Decline("draws random slopes", "call model.eval() before exporting")
        results = len(site.result) if isinstance(site.result, tuple | list) else 1
        return RreluSpec(given["self"], (given["lower"] + given["upper"]) / 2, results)

    def rewrite(self, b: Builder, spec: RreluSpec) -> Any:
        leaky = b.lower(aten.leaky_relu.default, spec.x, spec.slope)
        return [leaky, *[None] * (spec.results - 1)] if spec.results > 1 else leaky


@dataclass(frozen=True)
class CastSpec:
    """x in another element type."""

    x: Operand
    dtype: torch.dtype


@lowers(aten._to_copy.default, aten.to.dtype, aten.to.dtype_layout, aten.type_as.default)
class Cast:
    """Conversions of element type; devices and memory formats have no meaning in the exported graph."""

    def check(self, site: Site) -> CastSpec | Decline:
        return CastSpec(site.take_all()["self"], site.dtype)

    def rewrite(self, b: Builder, spec: CastSpec) -> Operand:
        if spec.x.dtype == spec.dtype or isinstance(spec.x, Const):
            return Const(spec.x.tensor.to(spec.dtype), spec.x.name) if isinstance(spec.x, Const) else spec.x
        return b.value(b.emit(aten._to_copy.default, spec.x.node, dtype=spec.dtype), spec.x.packing)
