"""Low-rank factors of a kernel, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["best_factors", "leading_basis", "rank_for_energy", "widened"]


def best_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The two factors whose product is the best approximation of a matrix at that rank (Eckart–Young).

    Args:
        matrix: (..., m, n), float64.
        rank: may exceed min(m, n): the product is then exact, the surplus is filled by `widened`.

    Returns:
        (..., m, rank) and (..., rank, n), the singular values shared evenly between them.
    """
    kept = min(rank, *matrix.shape[-2:])
    if matrix.shape[-2] <= matrix.shape[-1]:
        basis = leading_basis(matrix, kept)
        return widened(*_balanced(basis, basis.mT @ matrix), rank)
    basis = leading_basis(matrix.mT, kept)
    return widened(*_balanced(matrix @ basis, basis.mT), rank)


def leading_basis(matrix: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors of (..., m, n) as (..., m, rank), from the Gram matrix.

    That is several times faster than an SVD. It blurs singular values below 1e-8 of the greatest; as the other factor
    is a projection of the matrix itself, a blurred vector costs no more than such a value, and at full rank nothing.
    """
    vectors: Tensor = torch.linalg.eigh(matrix @ matrix.mT).eigenvectors  # ascending
    leading: Tensor = vectors[..., -rank:].flip(-1)
    return leading


def _balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product with the columns of one as long as the rows of the other, which training likes."""
    ratio = left.norm(dim=-2) / right.norm(dim=-1).clamp_min(torch.finfo(left.dtype).tiny)
    usable = (ratio > 1e-12) & (ratio < 1e12)
    root = torch.where(usable, ratio, torch.ones_like(ratio)).sqrt()
    return left / root[..., None, :], right * root[..., :, None]


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
    wide = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
    squares = torch.linalg.eigvalsh(wide @ wide.mT).clamp_min(0).flip(-1)
    total = squares.sum(-1, keepdim=True)
    # A share of exactly 1 must not be missed by rounding, nor reached early by it.
    kept = squares.cumsum(-1) / total.clamp_min(torch.finfo(squares.dtype).tiny)
    short = kept < energy - 1e-15
    most = int(short.sum(-1).max()) + 1
    return min(most, int(squares.shape[-1]))
