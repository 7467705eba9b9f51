"""Fast algorithms for short filters along one axis (Cook 1966, Toom 1963; Winograd 1980; Lavin & Gray 2016).

F(m, r) gives m results of an r-tap filter with m + r − 1 products where the plain sums take m·r:

    y = A [ (G g) ⊙ (B d) ]          d: m + r − 1 inputs, g: r taps, y[i] = Σ_k g[k] · d[i + k]

The matrices come from evaluating polynomials at m + r − 2 points and at infinity, exactly, in rational numbers.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["POINTS", "fast_filter"]

POINTS = tuple(Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2"))
"""In order of use: those whose powers stay small, so that float32 loses little."""

Matrix = list[list[Fraction]]


@lru_cache(maxsize=32)
def fast_filter(results: int, taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """The matrices of F(results, taps).

    Returns:
        A (m, m + r − 1), G (m + r − 1, r), B (m + r − 1, m + r − 1), float64.

    Raises:
        ValueError: sizes below 1, or more points needed than `POINTS` has.
    """
    count = results + taps - 1
    if results < 1 or taps < 1 or count - 1 > len(POINTS):
        raise ValueError(f"F({results}, {taps}) needs {count - 1} points, 0 to {len(POINTS)} are known")
    points = POINTS[: count - 1]
    # Transposed polynomial product: evaluate, multiply, interpolate; its transpose in the inputs is the filter.
    evaluate_taps = [_powers(p, taps) for p in points] + [_last(taps)]
    evaluate_results = [_powers(p, results) for p in points] + [_last(results)]
    interpolate = _inverse([_powers(p, count) for p in points] + [_last(count)])
    scales = [_denominator(column) for column in zip(*interpolate, strict=True)]
    a = _tensor(evaluate_results).T.contiguous()
    g = _tensor([[value / scale for value in row] for row, scale in zip(evaluate_taps, scales, strict=True)])
    b = _tensor([[v * s for v in column] for column, s in zip(zip(*interpolate, strict=True), scales, strict=True)])
    return a, g, b


def _powers(point: Fraction, count: int) -> list[Fraction]:
    return [point**i for i in range(count)]


def _last(count: int) -> list[Fraction]:
    """A polynomial's value at infinity is its leading coefficient."""
    return [Fraction(int(i == count - 1)) for i in range(count)]


def _denominator(values: tuple[Fraction, ...]) -> Fraction:
    """What makes all of them integers, so that inputs are combined without rounding and the weights carry the rest."""
    return Fraction(math.lcm(*(value.denominator for value in values)))


def _inverse(matrix: Matrix) -> Matrix:
    """Gauss-Jordan over the rationals."""
    size = len(matrix)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(size))] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = next(i for i in range(column, size) if rows[i][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        lead = rows[column][column]
        rows[column] = [value / lead for value in rows[column]]
        for i in range(size):
            if i != column and (factor := rows[i][column]):
                rows[i] = [v - factor * w for v, w in zip(rows[i], rows[column], strict=True)]
    return [row[size:] for row in rows]


def _tensor(matrix: Matrix) -> Tensor:
    return torch.tensor([[float(value) for value in row] for row in matrix], dtype=torch.float64)
