"""Sums of two convolutions, the one that is computed last written first.

    add(shortcut, branch) → add(branch, shortcut)

ONNX Runtime adds within the convolution that a sum names first, which therefore has to wait for the other. Named last,
a shortcut is computed while what it reads is there for its branch anyway; named first, it keeps that in memory until
the branch is through.
"""

from __future__ import annotations

import torch
from torch import fx

__all__ = ["later_first"]

aten = torch.ops.aten


def later_first(graph: fx.Graph) -> int:
    """Change the graph in place; gives how many sums are written the other way round now."""
    places = {node: place for place, node in enumerate(graph.nodes)}
    turned = 0
    for node in graph.nodes:
        if node.target is not aten.add.Tensor or node.kwargs or len(node.args) != 2:
            continue
        first, second = node.args
        if not (_convolved(first) and _convolved(second)):
            continue
        if first.meta["val"].shape == second.meta["val"].shape and places[first] < places[second]:
            node.args = (second, first)
            turned += 1
    return turned


def _convolved(node: object) -> bool:
    return isinstance(node, fx.Node) and node.target is aten.conv2d.default and len(node.users) == 1
