"""How far two arrays are from each other, in float64, with whatever is not a number counted apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Difference", "kind_of", "measure"]


@dataclass(frozen=True)
class Difference:
    """Of one candidate array from its reference, over the elements that are finite in both.

    Attributes:
        max_abs: greatest absolute error.
        mean_abs: mean absolute error.
        relative: greatest absolute error over the reference's range (max - min); over max(abs) where that is 0, over 1
            where both are.
        cosine: of the angle between the two, flattened.
        snr_db: signal to noise in decibels; infinite when there is no noise.
        top1: share of rows with the same greatest column, for 2-D outputs of more than one column.
        differing: elements that are not exactly equal.
        nan: elements that are NaN in (reference, candidate).
        inf: elements that are infinite in (reference, candidate).
        finite: elements (parts of them, where complex) that are finite in both: those that were measured.
        misplaced: elements that are not finite in one and something else in the other.
        first: index of the first misplaced or else of the worst element; None when all are equal.
    """

    max_abs: float
    mean_abs: float
    relative: float
    cosine: float
    snr_db: float
    top1: float | None
    differing: int
    nan: tuple[int, int]
    inf: tuple[int, int]
    finite: int
    misplaced: int
    first: tuple[int, ...] | None


def kind_of(dtype: np.dtype) -> str | None:
    """``float``, ``complex``, ``integer``, ``unsigned`` or ``bool``; None for what is no number."""
    name = {"f": "float", "c": "complex", "i": "integer", "u": "unsigned", "b": "bool"}.get(dtype.kind)
    # The narrow floats of machine learning are extension types, which numpy files under "void".
    return "float" if name is None and dtype.name.startswith(("bfloat", "float")) else name


def measure(reference: np.ndarray, candidate: np.ndarray) -> Difference:
    """Compare two arrays of one shape and kind.

    Args:
        reference: any shape but an empty one; floats, complex numbers, integers or bools.
        candidate: likewise.
    """
    ndim = reference.ndim
    reference, candidate = np.atleast_1d(reference), np.atleast_1d(candidate)
    exact = kind_of(reference.dtype) not in ("float", "complex")
    # Integers of 64 bits do not all fit float64: equality is decided on what was given.
    unequal = reference != candidate if exact else None
    a, b = _as_float64(reference), _as_float64(candidate)
    finite = np.isfinite(a) & np.isfinite(b)
    with np.errstate(invalid="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
    misplaced = ~finite & ~same
    if unequal is None:
        unequal = ~same
    error = _absolute(a, b, finite)
    signal, noise = a[finite], error[finite]
    return Difference(
        max_abs=float(noise.max(initial=0.0)),
        mean_abs=float(noise.mean()) if noise.size else 0.0,
        relative=float(noise.max(initial=0.0) / _range(a)),
        cosine=_cosine(signal, b[finite]),
        snr_db=_snr(signal, noise),
        top1=_top1(a, b) if ndim == 2 and not np.iscomplexobj(reference) else None,
        differing=int(unequal.sum()),
        nan=(int(np.isnan(a).sum()), int(np.isnan(b).sum())),
        inf=(int(np.isinf(a).sum()), int(np.isinf(b).sum())),
        finite=int(finite.sum()),
        misplaced=int(misplaced.sum()),
        first=_first(ndim, misplaced, unequal, error),
    )


def _as_float64(array: np.ndarray) -> np.ndarray:
    """Float64; a complex array gains a last axis of real and imaginary part."""
    if np.iscomplexobj(array):
        array = np.stack([array.real, array.imag], axis=-1)
    converted: np.ndarray = array.astype(np.float64)
    return converted


def _absolute(a: np.ndarray, b: np.ndarray, finite: np.ndarray) -> np.ndarray:
    error: np.ndarray = np.zeros_like(a)
    with np.errstate(over="ignore"):
        np.subtract(a, b, out=error, where=finite)
    np.abs(error, out=error)
    return error


def _range(a: np.ndarray) -> float:
    """What an error is held against; always finite and above 0, or an error would vanish in it."""
    numbers = a[np.isfinite(a)]
    if not numbers.size:
        return 1.0
    with np.errstate(over="ignore"):
        spread = float(numbers.max() - numbers.min())
    greatest = float(np.abs(numbers).max())
    if np.isfinite(spread) and spread > 0:
        return spread
    return greatest or 1.0


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """1 for two zero vectors, 0 when only one is zero; scaled first, so that squares do not overflow."""
    scale_a, scale_b = np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0)
    if scale_a == 0 or scale_b == 0:
        return float(scale_a == scale_b)
    a, b = a / scale_a, b / scale_b
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def _snr(signal: np.ndarray, noise: np.ndarray) -> float:
    loud, quiet = np.abs(signal).max(initial=0.0), noise.max(initial=0.0)
    if quiet == 0:
        return float("inf")
    if loud == 0 or not np.isfinite(quiet):
        return float("-inf")
    s, n = signal / loud, noise / quiet
    return float(10 * np.log10((s @ s) / (n @ n)) + 20 * (np.log10(loud) - np.log10(quiet)))


def _top1(a: np.ndarray, b: np.ndarray) -> float | None:
    """A row that holds a NaN on either side has no greatest column and never agrees."""
    if a.shape[1] < 2:
        return None
    whole = ~(np.isnan(a).any(axis=1) | np.isnan(b).any(axis=1))
    return float(np.mean(whole & (a.argmax(axis=1) == b.argmax(axis=1))))


def _first(ndim: int, misplaced: np.ndarray, unequal: np.ndarray, error: np.ndarray) -> tuple[int, ...] | None:
    if misplaced.any():
        at = np.unravel_index(int(misplaced.argmax()), misplaced.shape)
    elif error.any():
        at = np.unravel_index(int(error.argmax()), error.shape)
    elif unequal.any():
        at = np.unravel_index(int(unequal.argmax()), unequal.shape)
    else:
        return None
    return tuple(int(i) for i in at[:ndim])
