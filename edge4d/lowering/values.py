"""What flows through the lowering: packed values of the new graph, and constants known at lowering time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import fx

from edge4d.packing import Packing

__all__ = ["Const", "Operand", "Value"]


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the new graph: a node of rank ≤ 4 and the packing that says which logical tensor it carries."""

    node: fx.Node
    packing: Packing
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape."""
        return self.packing.shape

    def packed(self, packing: Packing) -> Value:
        """The same memory under another description."""
        return replace(self, packing=packing)


@dataclass(frozen=True, eq=False)
class Const:
    """A tensor that depends on no input, in its logical shape of any rank; it becomes a parameter of rank ≤ 4 only
    where a packed operator uses it.

    Attributes:
        tensor: the logical tensor.
        name: the fully qualified name it came from, e.g. ``layer1.0.conv1.weight``.
    """

    tensor: torch.Tensor
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Element type."""
        return self.tensor.dtype


Operand: TypeAlias = Value | Const
Result: TypeAlias = "Operand | list[Operand] | Any"
