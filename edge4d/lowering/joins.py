"""Activations moved before the join of frames that they follow, for runtimes whose convolutions take them up.

    relu(cat(conv(a), conv(b))) = cat(relu(conv(a)), relu(conv(b)))

A runtime computes an activation within the convolution before it, but not across a join.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

__all__ = ["activations_before_joins"]

aten = torch.ops.aten

_SIGMOID = aten.sigmoid.default

_ACTIVATIONS = {
    aten.relu.default,
    aten.silu.default,
    _SIGMOID,
    aten.tanh.default,
    aten.gelu.default,
    aten.elu.default,
    aten.clamp.default,
    aten.hardtanh.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.leaky_relu.default,
}
"""Element by element, with numbers for all other arguments."""


def activations_before_joins(graph: fx.Graph) -> int:
    """Change the graph in place where a join of convolutions is used by an activation alone; gives how many there were.

    The activation's last node becomes the join, so that what is known of its value stays right. An activation is a call
    of `_ACTIVATIONS`, or x · sigmoid(x), as SiLU is often written.
    """
    moved = 0
    for node in list(graph.nodes):
        join = _activated(node)
        if join is None or not all(map(_convolved, join.args[0])):
            continue
        parts = []
        with graph.inserting_before(node):
            for part in join.args[0]:
                if node.target is aten.mul.Tensor:
                    own = _call(graph, node, part, aten.mul.Tensor, part, _call(graph, node, part, _SIGMOID, part))
                else:
                    own = _call(graph, node, part, node.target, part, *node.args[1:], **node.kwargs)
                parts.append(own)
        node.target, node.args, node.kwargs = aten.cat.default, (parts, *join.args[1:]), {}
        moved += 1
    return moved


def _activated(node: fx.Node) -> Any:
    """The join of which a node is the activation, if nothing else uses it; else None."""
    args: tuple[Any, ...] = node.args
    users = 1
    if node.target in _ACTIVATIONS:
        join = args[0]
    elif node.target is aten.mul.Tensor and all(isinstance(arg, fx.Node) for arg in args):
        gates = [arg for arg in args if arg.target is _SIGMOID and len(arg.users) == 1]
        if len(gates) != 1:
            return None
        join, users = gates[0].args[0], 2
        if join not in args:
            return None
    else:
        return None
    fits = isinstance(join, fx.Node) and join.target is aten.cat.default and len(join.users) == users
    return join if fits else None


def _call(graph: fx.Graph, node: fx.Node, like: fx.Node, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A call in the place of `node` whose value has the shape of `like`."""
    made = graph.call_function(target, args, kwargs)
    made.meta = {**node.meta, "val": like.meta["val"]}
    return made


def _convolved(part: Any) -> bool:
    """Whether a part is a convolution, or a sum that ends in one."""
    if not isinstance(part, fx.Node) or len(part.users) > 1:
        return False
    if part.target is aten.add.Tensor:
        return any(isinstance(term, fx.Node) and term.target is aten.conv2d.default for term in part.args)
    return part.target is aten.conv2d.default
