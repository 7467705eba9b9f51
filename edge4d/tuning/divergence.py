"""A loss that is no longer a number, and where that began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edge4d.errors import Edge4dError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Diverged", "first_not_finite"]


class Diverged(Edge4dError):
    """The loss is no longer a number."""

    exit_code = 1


def first_not_finite(network: nn.Module, clips: Iterable[Tensor]) -> str:
    """Name of the first layer that gives a NaN or an infinite value for some of the clips; empty if none does.

    Args:
        network: run as it is, without gradients.
        clips: batches (N, C, T, H, W), where the network is.
    """
    found = ""

    def look(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            nonlocal found
            values = (leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))
            if not found and not all(bool(torch.isfinite(value).all()) for value in values):
                found = name

        return hook

    leaves = [(name, m) for name, m in network.named_modules() if name and not list(m.children())]
    handles = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            for batch in clips:
                network(batch)
                if found:
                    break
    finally:
        for handle in handles:
            handle.remove()
    return found
