"""Sums of squares, and of other powers, of narrow types: in float32, as torch's own kernels take them.

float16 ends at 255 squared. A norm or a deviation of larger numbers is far from there itself, and torch gives it; by
products in float16 it would be infinite, and what is divided by it 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edge4d.lowering.values import Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["as_before", "widened"]

aten = torch.ops.aten


def widened(b: Builder, x: Operand) -> Operand:
    """x in float32 where it has fewer bits."""
    return as_before(b, x, torch.float32) if x.dtype in (torch.float16, torch.bfloat16) else x


def as_before(b: Builder, x: Operand, dtype: torch.dtype) -> Operand:
    """A result in the type that the operator gives."""
    if x.dtype == dtype:
        return x
    narrow: Operand = b.lower(aten._to_copy.default, x, dtype=dtype)
    return narrow
