"""Emits the new graph, on physical nodes: ATen calls of rank ≤ 4, repacks, parameters, and the provenance of each."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from edge4d.errors import InternalError
from edge4d.lowering.channels_last import FIRST, LAST, bridge, frames_groups
from edge4d.lowering.values import Const, Operand, Value
from edge4d.packing import MAX_RANK, Groups, Packing
from edge4d.repacking import plan_repack

__all__ = ["Emitter", "Provenance", "hashable"]

aten = torch.ops.aten


@dataclass(frozen=True)
class Provenance:
    """Where an emitted node comes from: the user's module path, Python line, the ATen call and the rule."""

    layer: str = ""
    line: str = ""
    op: str = ""
    rule: str = ""


class Emitter:
    """Appends to one graph. Identical calls are emitted once.

    Args:
        mode: under which the results of emitted calls are computed, as fake tensors.
        channels_last: whether the runtime holds the values of convolutions with their channels last in memory.

    Attributes:
        graph: the graph under construction.
        parameters: rank ≤ 4 tensors by their final name.
        at: provenance given to what is emitted.
    """

    def __init__(self, mode: FakeTensorMode, channels_last: bool = False) -> None:
        self.graph = fx.Graph()
        self.parameters: dict[str, torch.Tensor] = {}
        self.at = Provenance()
        self.channels_last = channels_last
        self._mode = mode
        self._emitted: dict[Any, fx.Node] = {}
        self._materialised: dict[Any, fx.Node] = {}
        self._anchors: list[torch.Tensor] = []  # keeps ids in the cache above from being reused

    def emit(self, op: OpOverload, *args: Any, **kwargs: Any) -> fx.Node:
        """Append one call on physical nodes, or return the node of an identical earlier call.

        Raises:
            InternalError: a result has more than four axes.
        """
        key = (op, hashable(args), hashable(kwargs))
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
        node = self._materialised[key] = self._hold(tensor, tensor, name)
        return node

    def _materialise(self, const: Const, packing: Packing) -> fx.Node:
        key = (id(const.tensor), packing)
        if (known := self._materialised.get(key)) is None:
            flat = const.tensor.reshape(packing.sizes) if packing.sizes else const.tensor
            laid = (flat.permute(packing.memory) if packing.sizes else flat).reshape(packing.physical_shape)
            known = self._materialised[key] = self._hold(laid, const.tensor, const.name)
        return known

    def _hold(self, laid: torch.Tensor, source: torch.Tensor, name: str) -> fx.Node:
        """A parameter with memory of its own, copied once at most: a large network's weights are all here."""
        if laid.dim() > MAX_RANK:
            raise InternalError(f"parameter {name!r} would have rank {laid.dim()}")
        name = _unique(name, self.parameters)
        with self._mode:
            fake = torch.empty(laid.shape, dtype=laid.dtype)
        node = self.graph.create_node("get_attr", name, name=name.replace(".", "_"))
        node.meta["val"] = fake
        node.meta["edge4d"] = self.at
        owned = laid.detach().contiguous()
        shared = owned.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
        self.parameters[name] = owned.clone() if shared else owned
        self._anchors.append(source)
        return node

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


def _axes_in_memory(packing: Packing) -> list[int]:
    """Logical axes in memory order, for a packing that keeps each axis whole."""
    return list(dict.fromkeys(packing.owner(atom) for atom in packing.memory))


def hashable(value: Any) -> Any:
    """Arguments of a call as a key: equal where the call would give the same."""
    if isinstance(value, list | tuple):
        return tuple(hashable(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, hashable(v)) for k, v in value.items())
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
