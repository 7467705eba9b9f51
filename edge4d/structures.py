"""Dataclasses as inputs and outputs: `torch.export` takes them once they are registered, which is done here."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.utils import _pytree as pytree

__all__ = ["register_dataclasses"]


def register_dataclasses(tree: Any) -> bool:
    """Register the types of all dataclasses in a structure, and of those in their fields; whether any was new.

    Types that are registered already, by their own library or by the user, keep their way.
    """
    found = False
    for leaf in pytree.tree_leaves(tree):
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            # Until here a dataclass is a leaf; once its type is registered it is a node.
            torch.export.register_dataclass(type(leaf))
            found = True
    if found:
        register_dataclasses(tree)
    return found
