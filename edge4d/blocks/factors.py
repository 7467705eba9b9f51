"""Low-rank factors of a kernel, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["best_factors", "rank_for_energy", "widened"]


def best_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The two factors whose product is the best approximation of a matrix at that rank (Eckart–Young).

    Args:
        matrix: (..., m, n), float64.
        rank: may exceed min(m, n): the product is then exact, the surplus is filled by `widened`.

    Returns:
        (..., m, rank) and (..., rank, n), the singular values shared evenly between them.
    """
    full = min(matrix.shape[-2:])
    kept = min(rank, full)
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    root = s[..., :kept].sqrt()
    return widened(u[..., :, :kept] * root[..., None, :], root[..., :, None] * vt[..., :kept, :], rank)


def widened(left: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Columns of zeros on the left and small rows on the right, until there are `rank`: the product stays the same.

    The rows are not zero too, for then no gradient would ever reach either.
    """
    missing = rank - left.shape[-1]
    if missing <= 0:
        return left, right
    scale = float(right.abs().mean()) if right.numel() else 0.0
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((*right.shape[:-2], missing, right.shape[-1]), generator=generator, dtype=torch.float64)
    zeros = left.new_zeros((*left.shape[:-1], missing))
    return torch.cat([left, zeros], -1), torch.cat([right, noise.to(right) * (scale or 1.0)], -2)


def rank_for_energy(matrix: Tensor, energy: float) -> int:
    """The least rank whose best approximation keeps that share of the squared norm, in every matrix of a batch.

    Args:
        matrix: (..., m, n), float64.
        energy: in (0, 1].
    """
    squares = torch.linalg.svdvals(matrix).square()
    total = squares.sum(-1, keepdim=True)
    # A share of exactly 1 must not be missed by rounding, nor reached early by it.
    kept = squares.cumsum(-1) / total.clamp_min(torch.finfo(squares.dtype).tiny)
    short = kept < energy - 1e-15
    return min(int(short.sum(-1).max()) + 1, squares.shape[-1])
