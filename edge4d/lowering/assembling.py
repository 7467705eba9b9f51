"""The new graph as a module, and the promise proved on it."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from edge4d.errors import InternalError
from edge4d.lowering.builder import Builder
from edge4d.packing import MAX_RANK

__all__ = ["assemble", "prove"]


def assemble(b: Builder) -> fx.GraphModule:
    """A module of the graph and of those parameters that it uses, under their names in the source."""
    root = nn.Module()
    used = {node.target for node in b.graph.nodes if node.op == "get_attr"}
    for name, tensor in b.parameters.items():
        if name not in used:
            continue
        *path, leaf = name.split(".")
        owner = root
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
        if tensor.is_floating_point():
            owner.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
        else:
            owner.register_buffer(leaf, tensor)
    module = fx.GraphModule(root, b.graph)
    module.eval()
    return module


def prove(module: fx.GraphModule) -> None:
    """No value above rank 4, no operator on three axes.

    Raises:
        InternalError: a rule broke that; says which.
    """
    for node in module.graph.nodes:
        for tensor in pytree.tree_leaves(node.meta.get("val")):
            if isinstance(tensor, torch.Tensor) and tensor.dim() > MAX_RANK:
                raise InternalError(f"{node.name} has rank {tensor.dim()} after lowering: {node.meta.get('edge4d')}")
        name = getattr(node.target, "__name__", str(node.target))
        if node.op == "call_function" and any(mark in name for mark in ("3d", "convolution")):
            raise InternalError(f"{node.name} is {name}, an operator on three axes: {node.meta.get('edge4d')}")
    for name, tensor in module.state_dict().items():
        if tensor.dim() > MAX_RANK:
            raise InternalError(f"parameter {name} has rank {tensor.dim()} after lowering")
