"""Batch norm taken up by the convolution before it, before any formulation is chosen.

    W'[o] = W[o] · g[o],   b'[o] = (b[o] − mean[o]) · g[o] + beta[o],   g = gamma / √(var + eps)

in float64. Only where the convolution's result has no other reader and everything is constant.
"""

from __future__ import annotations

import operator

import torch
from torch import fx

from edge4d.capture import Captured
from edge4d.lowering.values import Const

__all__ = ["fold_batch_norm"]

aten = torch.ops.aten

_CONVS = {
    aten.conv1d.default: False,
    aten.conv2d.default: False,
    aten.conv3d.default: False,
    aten.conv1d.padding: False,
    aten.conv2d.padding: False,
    aten.conv3d.padding: False,
    aten.conv_transpose1d.default: True,
    aten.conv_transpose2d.input: True,
    aten.conv_transpose3d.input: True,
}
_NORMS = (aten._native_batch_norm_legit_no_training.default, aten.batch_norm.default)


def fold_batch_norm(captured: Captured) -> int:
    """Fold in place in `captured` (its graph and its constants); the user's tensors are not touched.

    Returns:
        How many batch norms are gone.
    """
    graph, constants, folded = captured.graph, captured.constants, 0
    for norm in list(graph.nodes):
        if norm.op != "call_function" or norm.target not in _NORMS:
            continue
        conv = norm.args[0]
        if not (isinstance(conv, fx.Node) and conv.target in _CONVS and len(conv.users) == 1):
            continue
        if norm.target is aten.batch_norm.default and norm.args[5]:
            continue  # training mode: refused later by its rule
        weight, bias = conv.args[1], conv.args[2] if len(conv.args) > 2 else conv.kwargs.get("bias")
        statistics = norm.args[1:5]
        operands = [weight, *([bias] if bias is not None else []), *(s for s in statistics if s is not None)]
        if statistics[2] is None or not all(isinstance(o, fx.Node) and o.name in constants for o in operands):
            continue
        eps = norm.args[-1] if norm.target is _NORMS[0] else norm.args[7]
        groups = _groups(conv)
        new_weight, new_bias = _folded(
            constants[weight.name],
            constants[bias.name] if bias is not None else None,
            [constants[s.name] if s is not None else None for s in statistics],
            eps,
            _CONVS[conv.target],
            groups,
        )
        with graph.inserting_before(conv):
            nodes = []
            for const, kind in ((new_weight, "weight"), (new_bias, "bias")):
                node = graph.placeholder(f"{conv.name}_folded_{kind}")
                constants[node.name] = const
                nodes.append(node)
        conv.args = (conv.args[0], nodes[0], nodes[1], *conv.args[3:])
        conv.kwargs = {k: v for k, v in conv.kwargs.items() if k != "bias"}
        if norm.target is _NORMS[0]:
            for user in list(norm.users):
                if user.target is operator.getitem and user.args[1] == 0:
                    user.replace_all_uses_with(conv)
                    graph.erase_node(user)
        else:
            norm.replace_all_uses_with(conv)
        for user in list(norm.users):  # saved statistics that nobody reads
            graph.erase_node(user)
        graph.erase_node(norm)
        folded += 1
    return folded


def _groups(conv: fx.Node) -> int:
    names = [a.name for a in conv.target._schema.arguments]  # type: ignore[union-attr]
    at = names.index("groups")
    return conv.args[at] if len(conv.args) > at else conv.kwargs.get("groups", 1)  # type: ignore[return-value]


def _folded(
    weight: Const, bias: Const | None, statistics: list[Const | None], eps: float, transposed: bool, groups: int
) -> tuple[Const, Const]:
    gamma, beta, mean, var = (s.tensor.double() if s is not None else None for s in statistics)
    assert mean is not None and var is not None
    scale = (var + eps).rsqrt() * (gamma if gamma is not None else 1.0)
    w = weight.tensor.double()
    spatial = [1] * (w.dim() - 2)
    if transposed:  # (C_in, C_out / groups, …): output channel o of group g is column o
        per_group = w.shape[1]
        rows = w.shape[0] // groups
        wide = scale.reshape(groups, 1, per_group).expand(groups, rows, per_group).reshape(-1, per_group, *spatial)
        w = w * wide
    else:
        w = w * scale.reshape(-1, 1, *spatial)
    shift = (bias.tensor.double() if bias is not None else 0.0) - mean
    b = shift * scale + (beta if beta is not None else 0.0)
    name = weight.name.rsplit(".", 1)[0] if "." in weight.name else weight.name
    bias_name = bias.name if bias is not None else f"{name}.bias"
    return Const(w.to(weight.dtype), weight.name), Const(b.to(weight.dtype), bias_name)
