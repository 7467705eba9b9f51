"""Channels of depthwise convolutions filled up with zeros, to as many as vector layouts take.

ONNX Runtime keeps values in blocks of channels and leaves that layout for a depthwise kernel whose channels are no
multiple of `ALIGNED`: x3d has 54 of them in its widest layers, which then lie in memory three times over. With 56 they
stay where they are, the block being filled up anyway. The zeros start as rows of the weights of the convolution before,
and end at columns of the one behind:

    conv(54 → 54 + zeros) → relu → depthwise(56, zero kernels) → … → conv(columns of zeros)

In between are only operators that keep channels apart, and give a finite number for a finite one. Sums get terms of 0,
so every number of the network stays what it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx

from edge4d.lowering.calls import argument
from edge4d.lowering.conv.overloads import OVERLOADS, is_transposed
from edge4d.lowering.values import Const

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge4d.capture import Captured

__all__ = ["ALIGNED", "FILLED", "fill_channels"]

aten = torch.ops.aten

ALIGNED = 4
"""Channels that a depthwise kernel must have a multiple of."""

FILLED = "edge4d_filled"
"""Mark in a node's `meta`, of a value with more channels than the model's own: how many those are."""

_FEWEST = 4 * ALIGNED
"""Channels below which the zeros would be too many."""

_APART = {
    aten.relu.default,
    aten.sigmoid.default,
    aten.silu.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.hardtanh.default,
    aten.relu6.default,
    aten.clamp.default,
    aten.tanh.default,
    aten.gelu.default,
    aten.elu.default,
    aten.leaky_relu.default,
}
"""Of one tensor, element by element, finite wherever that is."""

_OF_TWO = {aten.mul.Tensor, aten.add.Tensor}

_OVER_PLACES = {aten.mean.dim, aten._adaptive_avg_pool3d.default, aten.adaptive_avg_pool3d.default}
"""Of a channel's places."""


def fill_channels(captured: Captured) -> int:
    """Change graph and constants in place; batch norms are folded already.

    Returns:
        How many values have more channels now.
    """
    done = 0
    for node in list(captured.graph.nodes):
        if _ragged(node, captured.constants) and FILLED not in node.meta:
            found = _Filling(captured, node)
            done += found.apply() if found.close() else 0
    return done


def _channels(node: object) -> int:
    val = node.meta.get("val") if isinstance(node, fx.Node) else None
    return int(val.shape[1]) if isinstance(val, torch.Tensor) and val.dim() == 5 else 0


def _constant(node: object, constants: Mapping[str, Const]) -> bool:
    return node is None or (isinstance(node, fx.Node) and node.name in constants)


def _is_conv(node: fx.Node, constants: Mapping[str, Const]) -> bool:
    """A plain 3-D convolution with known weights, of one group or depthwise."""
    if node.op != "call_function" or node.target not in OVERLOADS or is_transposed(node) or not _channels(node):
        return False
    if not all(_constant(argument(node, name), constants) for name in ("weight", "bias")):
        return False
    return argument(node, "groups") == 1 or _is_depthwise(node)


def _is_depthwise(node: fx.Node) -> bool:
    groups = int(argument(node, "groups"))
    return groups == _channels(node) == _channels(node.args[0]) > 1


def _ragged(node: fx.Node, constants: Mapping[str, Const]) -> bool:
    if not _is_conv(node, constants) or not _is_depthwise(node):
        return False
    return _channels(node) >= _FEWEST and _channels(node) % ALIGNED != 0


class _Filling:
    """Values that get more channels together, and the convolutions at which the zeros start and end."""

    def __init__(self, captured: Captured, start: fx.Node) -> None:
        self.captured, self.own = captured, _channels(start)
        self.more = -self.own % ALIGNED
        self.wide: dict[fx.Node, None] = {}
        self.ends: dict[fx.Node, None] = {}
        self.todo = [start]

    def close(self) -> bool:
        """Follow values forwards and backwards; whether convolutions bound them on all sides."""
        while self.todo:
            node = self.todo.pop()
            if node in self.wide:
                continue
            self.wide[node] = None
            if _channels(node) != self.own or not self._made(node):
                return False
            if not all(self._read(user, node) for user in node.users):
                return False
        return all(node not in self.wide or _is_depthwise(node) for node in self.ends)

    def _made(self, node: fx.Node) -> bool:
        """Whether the zeros can come from where a value is made; its operands are followed."""
        if _is_conv(node, self.captured.constants):
            if _is_depthwise(node):
                self.todo.append(node.args[0])  # type: ignore[arg-type]
            return True
        return self._passes(node)

    def _read(self, user: fx.Node, node: fx.Node) -> bool:
        """Whether a reader can do with the zeros."""
        if _is_conv(user, self.captured.constants):
            if user.args[0] is not node:
                return False
            if _is_depthwise(user):
                self.todo.append(user)
            else:
                self.ends[user] = None
            return True
        if not self._passes(user):
            return False
        self.todo.append(user)
        return True

    def _passes(self, node: fx.Node) -> bool:
        """Whether an operator keeps channels apart; all its operands are then followed."""
        operands = node.all_input_nodes
        if node.op != "call_function" or any(_channels(operand) != self.own for operand in operands):
            return False
        known = (node.target in _APART and len(operands) == 1) or (node.target in _OF_TWO and 1 <= len(operands) <= 2)
        if node.target is aten.mean.dim:
            axes = argument(node, "dim")
            known = bool(axes) and bool(argument(node, "keepdim")) and all(axis % 5 >= 2 for axis in axes)
        elif node.target in _OVER_PLACES:
            known = True
        self.todo += operands if known else []
        return known

    def apply(self) -> int:
        """Write the zeros into weights, and the new shapes into the graph."""
        for node in self.wide:
            if _is_conv(node, self.captured.constants):
                self._replace(node, "weight", 0)
                if argument(node, "bias") is not None:
                    self._replace(node, "bias", 0)
                if _is_depthwise(node) and argument(node, "groups") == self.own:
                    _set(node, "groups", self.own + self.more)
        for node in self.ends:
            self._replace(node, "weight", 1)
        for node in self.wide:
            val = node.meta["val"]
            shape = (val.shape[0], self.own + self.more, *val.shape[2:])
            node.meta["val"] = torch.empty(shape, dtype=val.dtype, device="meta")
            node.meta[FILLED] = self.own
        return len(self.wide)

    def _replace(self, conv: fx.Node, name: str, axis: int) -> None:
        constants, graph = self.captured.constants, self.captured.graph
        old = constants[argument(conv, name).name]
        shape = list(old.tensor.shape)
        shape[axis] = self.more
        tensor = torch.cat([old.tensor, old.tensor.new_zeros(shape)], axis)
        with graph.inserting_before(conv):
            node = graph.placeholder(f"{conv.name}_filled_{name}")
        node.meta["val"] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        constants[node.name] = Const(tensor, old.name)
        _set(conv, name, node)


def _set(call: fx.Node, name: str, value: object) -> None:
    """Give one argument of a call another value."""
    assert isinstance(call.target, torch._ops.OpOverload)
    place = next(i for i, schema in enumerate(call.target._schema.arguments) if schema.name == name)
    if place < len(call.args):
        call.update_arg(place, value)  # type: ignore[arg-type]
    else:
        call.update_kwarg(name, value)  # type: ignore[arg-type]
