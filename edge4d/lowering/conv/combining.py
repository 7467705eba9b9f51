"""Kernels combined and scaled in float64, a slice of them at a time."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["combined", "scaled"]

_SLICE = 2**20
"""Elements that are held in float64 at once: all of a large layer's would take several times the memory of its weights,
and the C library gives little of that back."""


def combined(factors: Tensor, weight: Tensor, axis: int) -> Tensor:
    """Σ_k factors[j, k] · weight[…, k, …], in float64, rounded once.

    Args:
        factors: (products, K), float64.
        weight: (C_out, …, K, …), floating point, with K at `axis`, not the first.
        axis: counted from the front.

    Returns:
        (products, C_out, …) without the axis, in the weight's type.
    """
    rest = [size for i, size in enumerate(weight.shape) if i != axis]
    found = torch.empty(factors.shape[0], *rest, dtype=weight.dtype)
    step = max(1, _SLICE // max(1, weight[0].numel()))
    for start in range(0, weight.shape[0], step):
        part = slice(start, start + step)
        found[:, part] = torch.tensordot(factors, weight[part].double(), dims=([1], [axis])).to(weight.dtype)
    return found


def scaled(weight: Tensor, factors: Tensor) -> Tensor:
    """weight · factors in float64, rounded once to the weight's type.

    Args:
        weight: floating point.
        factors: float64, of a shape that broadcasts to the weight's, as long along the first axis.
    """
    found = torch.empty_like(weight)
    step = max(1, _SLICE // max(1, weight[0].numel()))
    for start in range(0, weight.shape[0], step):
        part = slice(start, start + step)
        found[part] = weight[part].double() * factors[part]
    return found
