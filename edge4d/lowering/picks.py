"""A place that is one number of a tensor, ``x[:, i]``: what the capture reads as a number stays a tensor.

`torch.export` writes such an index as the number read from it and a `select` there. The same is an `index_select` at
a row of one place, which a graph can compute. Where the number is used otherwise nothing changes: it is refused.
"""

from __future__ import annotations

import torch
from torch import fx
from torch._ops import OpOverload

__all__ = ["CHECKS", "select_by_tensors"]

aten = torch.ops.aten

CHECKS = {
    aten._assert_tensor_metadata.default,
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten.sym_constrain_range_for_size.default,
}
"""Calls of the capture itself; they compute nothing."""


def select_by_tensors(graph: fx.Graph) -> None:
    """Change selections at a number read from a tensor in place; drop the checks of numbers that nothing else reads."""
    for node in list(graph.nodes):
        if node.target is aten.select.int and _is_read(node.args[2]):
            _select(graph, node)
    for node in list(graph.nodes):
        if _is_read(node) and all(map(_checks_only, node.users)):
            _erase(graph, node)


def _is_read(node: object) -> bool:
    return isinstance(node, fx.Node) and node.target is aten._local_scalar_dense.default


def _select(graph: fx.Graph, node: fx.Node) -> None:
    source, dim, read = node.args
    assert isinstance(source, fx.Node)
    assert isinstance(dim, int)
    assert isinstance(read, fx.Node)
    place, val = read.args[0], node.meta["val"]
    assert isinstance(place, fx.Node)
    dim %= len(source.meta["val"].shape)
    with graph.inserting_before(node):
        row = _call(graph, node, aten.reshape.default, (place, [1]), place.meta["val"].dtype, (1,))
        wide = (*val.shape[:dim], 1, *val.shape[dim:])
        picked = _call(graph, node, aten.index_select.default, (source, dim, row), val.dtype, wide)
        result = _call(graph, node, aten.squeeze.dim, (picked, dim), val.dtype, tuple(val.shape))
    node.replace_all_uses_with(result)
    graph.erase_node(node)


def _call(
    graph: fx.Graph, like: fx.Node, op: OpOverload, args: tuple[object, ...], dtype: torch.dtype, shape: tuple[int, ...]
) -> fx.Node:
    made = graph.call_function(op, args)  # type: ignore[arg-type]
    made.meta = dict(like.meta) | {"val": torch.empty(shape, dtype=dtype, device="meta")}
    return made


def _checks_only(node: fx.Node) -> bool:
    """Whether nothing but checks hangs on a node."""
    if node.op != "call_function":
        return False
    return node.target in CHECKS or (not isinstance(node.target, OpOverload) and all(map(_checks_only, node.users)))


def _erase(graph: fx.Graph, node: fx.Node) -> None:
    """A node and what hangs on it; a check may hang on several."""
    for user in list(node.users):
        if user in node.users:
            _erase(graph, user)
    graph.erase_node(node)
