"""What a captured call's own result says before it is lowered: sizes alone, shapes, and whether values decide them."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

__all__ = ["data_dependent", "is_arithmetic", "shapes_of"]

_ON_SIZES = {torch.sym_int, torch.sym_max, torch.sym_min, torch.sym_not, torch.sym_float}


def is_arithmetic(target: Any) -> bool:
    """Python's own arithmetic on sizes, which the capture writes where a size was once unknown."""
    return getattr(target, "__module__", "") in ("_operator", "math", "builtins") or target in _ON_SIZES


def data_dependent(result: Any) -> bool:
    """Whether a size, or a number, of the result hangs on the values of the input."""
    return any(
        isinstance(leaf, torch.SymInt | torch.SymFloat | torch.SymBool)
        or (isinstance(leaf, torch.Tensor) and any(isinstance(size, torch.SymInt) for size in leaf.shape))
        for leaf in pytree.tree_leaves(result)
    )


def shapes_of(node: fx.Node) -> list[tuple[Any, ...]]:
    """Shapes of a node's results; ``?`` for a size that depends on values."""
    return [
        tuple("?" if isinstance(size, torch.SymInt) else int(size) for size in leaf.shape)
        for leaf in pytree.tree_leaves(node.meta.get("val"))
        if hasattr(leaf, "shape")
    ]
