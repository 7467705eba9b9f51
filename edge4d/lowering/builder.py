"""Emits the new graph: ATen calls of rank ≤ 4, repacks, parameters, and the provenance of each.

Rules speak to the builder on two levels. `lower` takes an ATen operator on *logical* operands and finds its rule, so a
rule may be written as a small program of other operators. `emit` appends one call on *physical* nodes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import fx
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from edge4d.errors import InternalError
from edge4d.lowering import registry
from edge4d.lowering.channels_last import FIRST, LAST, bridge, frames_groups
from edge4d.lowering.registry import Decline, Site
from edge4d.lowering.unknown import unknown
from edge4d.lowering.values import Const, Operand, Value
from edge4d.offers import CHANNELS_LAST, GATHERS
from edge4d.packing import MAX_RANK, Groups, Packing
from edge4d.planning import Planner, choose, estimates
from edge4d.repacking import plan_repack

if TYPE_CHECKING:
    from edge4d.lowering.conv.spec import ConvSpec

__all__ = ["Builder", "Declined", "Provenance"]

aten = torch.ops.aten

Planned: TypeAlias = "tuple[str | None, int, dict[str, float], bool]"
"""Formulation, multiply-accumulates, milliseconds of each formulation weighed, whether those are measured."""

_NOTHING: Planned = (None, 0, {}, False)


@dataclass(frozen=True)
class Provenance:
    """Where an emitted node comes from: the user's module path, Python line, the ATen call and the rule."""

    layer: str = ""
    line: str = ""
    op: str = ""
    rule: str = ""


class Declined(Exception):
    """A call that no rule takes; not an error yet, the driver collects them."""

    def __init__(self, op: str, decline: Decline) -> None:
        super().__init__(decline.reason)
        self.op = op
        self.decline = decline


class Builder:
    """Appends to one graph. Identical calls are emitted once.

    Attributes:
        graph: the graph under construction.
        parameters: rank ≤ 4 tensors by their final name.
        at: provenance given to what is emitted.
    """

    def __init__(self, mode: FakeTensorMode, planner: Planner | None = None) -> None:
        self.graph = fx.Graph()
        self.parameters: dict[str, torch.Tensor] = {}
        self.at = Provenance()
        self._planned = _NOTHING
        self._mode = mode
        self._planner = planner or Planner()
        self._emitted: dict[Any, fx.Node] = {}
        self._materialised: dict[Any, fx.Node] = {}
        self._folded: dict[Any, Const] = {}
        self._anchors: list[torch.Tensor] = []  # keeps ids in the caches above from being reused

    # ---- logical level ------------------------------------------------------------------------------------------

    def lower(self, op: OpOverload, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        """Lower one ATen call on logical operands; computed at once where every operand is constant.

        Args:
            op: the overload.
            args: operands (`Value`, `Const`, plain tensors are not allowed) and attributes, as the schema has them.
            name: the name of a constant result.
            kwargs: likewise.

        Raises:
            Declined: no rule takes the call.
        """
        leaves = pytree.tree_leaves((args, kwargs))
        if not any(isinstance(leaf, Value) for leaf in leaves):
            return self._fold(op, args, kwargs, name)
        return self.dispatch(op, args, kwargs, self.logical_result(op, args, kwargs))

    def dispatch(self, op: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> Any:
        """Find the rule, check the call, rewrite it, and hold the outcome against the expected logical result."""
        rule = registry.find(op)
        if rule is None:
            raise Declined(str(op), unknown(op))
        site = Site(op, _by_schema(op, args, kwargs), result)
        spec = rule.check(site)
        if isinstance(spec, Decline):
            raise Declined(str(op), spec)
        if site.unread:
            raise InternalError(f"rule {type(rule).__name__} for {op} ignores its arguments {site.unread}")
        before, self.at = self.at, replace(self.at, rule=self.at.rule or type(rule).__name__)
        try:
            lowered = rule.rewrite(self, spec)
        finally:
            self.at = before
        self._hold_against(op, lowered, result)
        return lowered

    def logical_result(self, op: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Fake tensors with the logical shape(s) and dtype(s) a call would return."""

        def fake(leaf: Any) -> Any:
            if isinstance(leaf, Value | Const):
                return torch.empty(leaf.shape, dtype=leaf.dtype)
            return leaf

        with self._mode:
            fakes, named = pytree.tree_map(fake, (tuple(args), dict(kwargs)))
            return op(*fakes, **named)

    def _fold(self, op: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], name: str | None) -> Any:
        """Compute a call on constants; a random one is no constant."""
        if torch.Tag.nondeterministic_seeded in op.tags:
            reason = "draws random numbers, so no two runs of the model agree"
            raise Declined(str(op), Decline(reason, "make the model deterministic, e.g. model.eval()"))
        names = [leaf.name for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Const)]
        key = ("const", op, *(_hashable(_identity(leaf)) for leaf in pytree.tree_leaves((args, kwargs))), name)
        if (known := self._folded.get(key)) is not None:
            return known
        label = name or (f"{names[0]}.{op._schema.name.split('::')[-1]}" if names else self._label("constant"))
        plain, named = pytree.tree_map(
            lambda leaf: leaf.tensor if isinstance(leaf, Const) else leaf, (tuple(args), dict(kwargs))
        )
        with torch.no_grad():
            result = op(*plain, **named)
        self._anchors += [leaf.tensor for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Const)]
        if isinstance(result, torch.Tensor):
            return self._folded.setdefault(key, Const(result, label))
        if isinstance(result, tuple | list):
            return [Const(r, f"{label}.{i}") if isinstance(r, torch.Tensor) else r for i, r in enumerate(result)]
        return result

    def derive(self, source: Const, recipe: Hashable, make: Callable[[], torch.Tensor], name: str) -> Const:
        """A constant made of another one: once, however often the same recipe is asked for."""
        key = ("derived", id(source.tensor), recipe)
        if (known := self._folded.get(key)) is None:
            known = self._folded[key] = Const(make(), name)
            self._anchors.append(source.tensor)
        return known

    def _hold_against(self, op: OpOverload, lowered: Any, result: Any) -> None:
        got = lowered if isinstance(lowered, list) else [lowered]
        want = list(result) if isinstance(result, tuple | list) else [result]
        if len(got) != len(want):
            raise InternalError(f"rule for {op} returned {len(got)} results, expected {len(want)}")
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            if g is None:  # a result that the rule does not provide; using it is refused by the driver
                continue
            if tuple(g.shape) != tuple(w.shape) or g.dtype != w.dtype:
                raise InternalError(
                    f"rule for {op} at {self.at.layer!r}, result {i}: got {tuple(g.shape)} {g.dtype}, "
                    f"expected {tuple(w.shape)} {w.dtype}"
                )

    @property
    def gathers(self) -> bool:
        """Whether every n-th place along an axis is taken by a Gather, not by a slice with a step."""
        return self._planner.runtime in GATHERS

    @property
    def channels_last(self) -> bool:
        """Whether the runtime holds the values of convolutions with their channels last in memory."""
        return self._planner.runtime in CHANNELS_LAST

    def plan(self, spec: ConvSpec) -> str:
        """The formulation of a 3-D convolution, remembered for the report."""
        name = choose(spec, self._planner, self.at.layer)
        self._planned = (name, self._planned[1] + spec.macs, *estimates(spec, self._planner))
        return name

    def take_plan(self) -> Planned:
        """What was planned of convolutions since the last call."""
        planned, self._planned = self._planned, _NOTHING
        return planned

    # ---- physical level -----------------------------------------------------------------------------------------

    def emit(self, op: OpOverload, *args: Any, **kwargs: Any) -> fx.Node:
        """Append one call on physical nodes, or return the node of an identical earlier call.

        Raises:
            InternalError: a result has more than four axes.
        """
        key = (op, _hashable(args), _hashable(kwargs))
        if (known := self._emitted.get(key)) is not None:
            return known
        with self._mode:
            fakes, named = pytree.tree_map(
                lambda leaf: leaf.meta["val"] if isinstance(leaf, fx.Node) else leaf, (args, kwargs)
            )
            result = op(*fakes, **named)
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.dim() > MAX_RANK:
                raise InternalError(f"{op} at {self.at.layer!r} would emit a value of rank {tensor.dim()}")
        node = self.graph.create_node("call_function", op, args, kwargs, name=self._label(op._schema.name))
        node.meta["val"] = result
        node.meta["edge4d"] = self.at
        self._emitted[key] = node
        return node

    def item(self, node: fx.Node, index: int) -> fx.Node:
        """One result of a call that returns several."""
        key = (operator.getitem, node, index)
        if (known := self._emitted.get(key)) is None:
            known = self.graph.call_function(operator.getitem, (node, index))
            known.meta["val"] = node.meta["val"][index]
            known.meta["edge4d"] = self.at
            self._emitted[key] = known
        return known

    def _label(self, op_name: str) -> str:
        base = op_name.split("::")[-1].strip("_")
        return f"{self.at.layer}.{base}".strip(".").replace(".", "_")

    def value(self, node: fx.Node, packing: Packing) -> Value:
        """The logical value that a node carries; the node's shape must be the packing's physical shape."""
        val: FakeTensor = node.meta["val"]
        if tuple(val.shape) != packing.physical_shape:
            raise InternalError(f"{node} has shape {tuple(val.shape)}, its packing says {packing.physical_shape}")
        return Value(node, packing.coalesce(), val.dtype)

    def reshape(self, node: fx.Node, shape: Sequence[int]) -> fx.Node:
        """A free reshape; chains of them collapse."""
        while node.target is aten.reshape.default:
            node = node.args[0]  # type: ignore[assignment]
        if tuple(node.meta["val"].shape) == tuple(shape):
            return node
        return self.emit(aten.reshape.default, node, list(shape))

    def arrange(self, x: Operand, physical: Groups, packing: Packing | None = None) -> fx.Node:
        """A node that carries x in the given physical axes; repacked by transposes of rank ≤ 4 if need be.

        Args:
            x: the value; a constant is laid out at lowering time and costs nothing.
            physical: atoms of `packing` for each physical axis.
            packing: what x's atoms are; needed for a constant, x's own packing (or a split of it) for a value.
        """
        own = packing or (x.packing if isinstance(x, Value) else Packing.of(x.shape))
        target = own.reorder(physical)
        if isinstance(x, Const):
            return self._materialise(x, target)
        node = x.node
        first, last = bridge(own, target) if self.channels_last else (False, False)
        if first or last:
            if first:
                before, channels, height, width = own.physical_shape
                node = self.reshape(node, (before, channels, height * width))
                node = self.emit(aten.permute.default, node, [0, 2, 1])
            if not last:
                return self.reshape(node, target.physical_shape)
            shape = target.physical_shape
            return self.emit(aten.permute.default, self.reshape(node, [shape[i] for i in LAST]), list(FIRST))
        for step in plan_repack(own.sizes, own.memory, target.memory):
            node = self.emit(aten.permute.default, self.reshape(node, step.shape), list(step.perm))
        return self.reshape(node, target.physical_shape)

    def by_frames(self, x: Value) -> Value:
        """x as [before, T, H·W·C] where the runtime holds it with channels last; else as it is."""
        groups = frames_groups(x.packing) if self.channels_last else None
        if groups is None:
            return x
        return self.value(self.arrange(x, groups), x.packing.reorder(groups))

    def zero(self, node: fx.Node) -> fx.Node:
        """A node of one element that is 0 whatever a float node holds, but no constant: nothing exceeds infinity.

        OpenVINO lets what makes a value write it into the middle of a joined one, but not where it is joined with a
        constant: then it copies all of it. Made of that very value, zeros are not there long before it either, which
        would keep memory of their own for every joined value.
        """
        first = node
        for dim, size in enumerate(node.meta["val"].shape):
            if size > 1:
                first = self.emit(aten.slice.Tensor, first, dim, 0, 1)
        return self.emit(
            aten._to_copy.default, self.emit(aten.gt.Scalar, first, math.inf), dtype=node.meta["val"].dtype
        )

    def parameter(self, tensor: torch.Tensor, name: str) -> fx.Node:
        """A tensor of rank ≤ 4 as a parameter of the new graph, under its name or the nearest free one."""
        key = (id(tensor), tuple(tensor.shape))
        if (known := self._materialised.get(key)) is not None:
            return known
        if tensor.dim() > MAX_RANK:
            raise InternalError(f"parameter {name!r} would have rank {tensor.dim()}")
        name = _unique(name, self.parameters)
        with self._mode:
            fake = torch.empty(tensor.shape, dtype=tensor.dtype)
        node = self.graph.create_node("get_attr", name, name=name.replace(".", "_"))
        node.meta["val"] = fake
        node.meta["edge4d"] = self.at
        self.parameters[name] = tensor.detach().contiguous().clone()
        self._materialised[key] = node
        self._anchors.append(tensor)
        return node

    def _materialise(self, const: Const, packing: Packing) -> fx.Node:
        key = (id(const.tensor), packing)
        if (known := self._materialised.get(key)) is None:
            flat = const.tensor.reshape(packing.sizes) if packing.sizes else const.tensor
            laid = (flat.permute(packing.memory) if packing.sizes else flat).reshape(packing.physical_shape)
            known = self._materialised[key] = self.parameter(laid.contiguous().clone(), const.name)
            self._anchors.append(const.tensor)
        return known

    def placeholder(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> fx.Node:
        """An input of the new graph."""
        node = self.graph.create_node("placeholder", name, name=name)
        with self._mode:
            node.meta["val"] = torch.empty(tuple(shape), dtype=dtype)
        node.meta["edge4d"] = self.at
        return node

    def arrange_as(self, x: Operand, packing: Packing) -> fx.Node:
        """A node that carries x exactly in the given packing of its logical shape."""
        if isinstance(x, Const):
            return self._materialise(x, packing)
        position, groups = 0, []
        order = [atom for axis in _axes_in_memory(packing) for atom in x.packing.logical[axis]]
        for size in packing.physical_shape:
            group: list[int] = []
            product = 1
            while product < size:
                product *= x.packing.sizes[order[position]]
                group.append(order[position])
                position += 1
            groups.append(tuple(group))
        return self.arrange(x, tuple(groups))

    def given(self, x: Operand) -> Value:
        """x as a value of the graph; a constant in the packing that graph inputs have."""
        if isinstance(x, Value):
            return x
        packing = Packing.frames(x.shape)
        return self.value(self._materialise(x, packing), packing)

    def isolate(self, x: Value, axis: int) -> tuple[fx.Node, int, Packing]:
        """x with one logical axis as a physical axis of its own: the node, that axis's place, the packing."""
        groups, dim = x.packing.isolate(axis)
        return self.arrange(x, groups), dim, x.packing.reorder(groups)


def _by_schema(op: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by schema name, defaults filled in."""
    bound: dict[str, Any] = {}
    for i, argument in enumerate(op._schema.arguments):
        if i < len(args) and not argument.kwarg_only:
            bound[argument.name] = args[i]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value
    return bound


def _axes_in_memory(packing: Packing) -> list[int]:
    """Logical axes in memory order, for a packing that keeps each axis whole."""
    return list(dict.fromkeys(packing.owner(atom) for atom in packing.memory))


def _identity(leaf: Any) -> Any:
    return id(leaf.tensor) if isinstance(leaf, Const) else leaf


def _hashable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_hashable(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, _hashable(v)) for k, v in value.items())
    # 1, 1.0 and True are equal to Python but not to a type-promoting operator; so are 0.0 and -0.0
    return (type(value), repr(value)) if isinstance(value, bool | int | float) else value


def _unique(name: str, taken: dict[str, Any]) -> str:
    """`name`, or `name_2`, … such that it neither equals a taken name nor is a prefix of one (or the reverse)."""

    def clashes(candidate: str) -> bool:
        return any(
            other == candidate or other.startswith(candidate + ".") or candidate.startswith(other + ".")
            for other in taken
        )

    for other in sorted(taken, key=len):  # what is made of a tensor that is itself there cannot lie below it
        if name.startswith(other + "."):
            name = f"{other}_{name[len(other) + 1 :]}"
    candidate, serial = name, 1
    while clashes(candidate):
        serial += 1
        candidate = f"{name}_{serial}"
    return candidate
