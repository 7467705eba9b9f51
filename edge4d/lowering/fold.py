"""Batch norm taken up by the convolution before it, before any formulation is chosen.

    W'[o] = W[o] · g[o],   b'[o] = (b[o] − mean[o]) · g[o] + beta[o],   g = gamma / √(var + eps)

in float64. Only where the convolution's result has no other reader and everything is constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from edge4d.capture import Captured
from edge4d.lowering.boundaries import take_over
from edge4d.lowering.calls import argument
from edge4d.lowering.conv.combining import scaled
from edge4d.lowering.conv.overloads import OVERLOADS, is_transposed
from edge4d.lowering.values import Const

__all__ = ["fold_batch_norm"]

aten = torch.ops.aten

_STATISTICS = ("weight", "bias", "running_mean", "running_var")
_NORMS = (aten._native_batch_norm_legit_no_training.default, aten.batch_norm.default)


def fold_batch_norm(captured: Captured) -> int:
    """Fold in place in `captured` (its graph and its constants); the user's tensors are not touched.

    Returns:
        How many batch norms are gone.
    """
    pairs = [(norm, conv) for norm in captured.graph.nodes if (conv := _foldable(norm, captured.constants)) is not None]
    done: dict[Any, tuple[Const, Const]] = {}  # a module that is called twice is folded once
    for norm, conv in pairs:
        _fold(norm, conv, captured, done)
    return len(pairs)


def _foldable(norm: fx.Node, constants: Mapping[str, Const]) -> fx.Node | None:
    """The convolution that can take up this batch norm, or None."""
    if norm.op != "call_function" or norm.target not in _NORMS:
        return None
    conv = norm.args[0]
    if not (isinstance(conv, fx.Node) and conv.target in OVERLOADS and len(conv.users) == 1):
        return None
    if norm.target is aten.batch_norm.default and argument(norm, "training"):
        return None  # refused later, by its rule
    tensors = [argument(conv, "weight"), argument(conv, "bias"), *(argument(norm, name) for name in _STATISTICS)]
    constant = all(t is None or (isinstance(t, fx.Node) and t.name in constants) for t in tensors)
    if not constant or argument(norm, "running_mean") is None:
        return None
    # Without a batch axis 1, which the norm goes by, is not the channels.
    return conv if conv.meta["val"].dim() == len(constants[tensors[0].name].shape) else None


def _fold(norm: fx.Node, conv: fx.Node, captured: Captured, done: dict[Any, tuple[Const, Const]]) -> None:
    constants, graph = captured.constants, captured.graph

    def constant(node: fx.Node, name: str) -> Const | None:
        tensor = argument(node, name)
        return None if tensor is None else constants[tensor.name]

    weight = constants[argument(conv, "weight").name]
    tensors = (weight, constant(conv, "bias"), *(constant(norm, name) for name in _STATISTICS))
    eps = argument(norm, "eps")
    transposed = is_transposed(conv)
    key = (*(const and id(const.tensor) for const in tensors), eps, transposed, argument(conv, "groups"))
    if key not in done:
        done[key] = _folded(weight, tensors[1], list(tensors[2:]), eps, transposed, argument(conv, "groups"))
    new_weight, new_bias = done[key]
    with graph.inserting_before(conv):
        nodes = []
        for const, kind in ((new_weight, "weight"), (new_bias, "bias")):
            node = graph.placeholder(f"{conv.name}_folded_{kind}")
            constants[node.name] = const
            nodes.append(node)
    conv.args = (conv.args[0], *nodes, *conv.args[3:])
    conv.kwargs = {name: value for name, value in conv.kwargs.items() if name != "bias"}
    single = norm.target is aten.batch_norm.default
    take_over(conv, norm if single else next((user for user in norm.users if user.args[1] == 0), norm))
    for user in list(norm.users):
        if single:
            break
        if user.args[1] == 0:
            user.replace_all_uses_with(conv)
        graph.erase_node(user)  # the others are saved statistics that nobody reads in inference
    norm.replace_all_uses_with(conv)
    graph.erase_node(norm)


def _folded(
    weight: Const, bias: Const | None, statistics: list[Const | None], eps: float, transposed: bool, groups: int
) -> tuple[Const, Const]:
    gamma, beta, mean, var = (s.tensor.double() if s is not None else None for s in statistics)
    assert mean is not None
    assert var is not None
    scale = (var + eps).rsqrt() * (gamma if gamma is not None else 1.0)
    w = weight.tensor
    spatial = [1] * (w.dim() - 2)
    if transposed:  # (C_in, C_out / groups, …): output channel o of group g is column o
        per_group = w.shape[1]
        rows = w.shape[0] // groups
        wide = scale.reshape(groups, 1, per_group).expand(groups, rows, per_group).reshape(-1, per_group, *spatial)
    else:
        wide = scale.reshape(-1, 1, *spatial)
    w = scaled(w, wide)
    shift = (bias.tensor.double() if bias is not None else 0.0) - mean
    b = shift * scale + (beta if beta is not None else 0.0)
    name = weight.name.rsplit(".", 1)[0] if "." in weight.name else weight.name
    bias_name = bias.name if bias is not None else f"{name}.bias"
    return Const(w, weight.name), Const(b.to(weight.dtype), bias_name)
