"""Whether two models give the same numbers: a comparison that cannot pass by accident.

Names must match exactly, shapes and kinds of dtype too; what is empty, or holds nothing finite to compare, fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from edge4d.errors import UsageError
from edge4d.ports import Port
from edge4d.validators.parity_report import ParityReport, ParityRow
from edge4d.validators.statistics import Difference, kind_of, measure
from edge4d.validators.tolerances import LEAST_ROWS, Tolerance, tolerance_for

__all__ = [
    "ParityReport",
    "ParityRow",
    "Tolerance",
    "compare",
    "compare_callables",
    "merged",
    "random_inputs",
    "tolerance_for",
]

Outputs: TypeAlias = Mapping[str, np.ndarray] | Sequence[np.ndarray] | np.ndarray
"""What a model may return: arrays by name, arrays in order, or one array."""

Inputs: TypeAlias = Mapping[str, np.ndarray] | Sequence[np.ndarray]
"""One set of inputs, in the order in which the callables take them."""


def compare(
    reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray], *, tolerance: Tolerance | None = None
) -> ParityReport:
    """Compare named outputs.

    Args:
        reference: arrays of any shape by output name.
        candidate: likewise; the same names.
        tolerance: how far floats may be apart; when None, the table's entry for each reference array's dtype, or for
            the candidate's where the reference is float64: no artifact computes that closely.

    Returns:
        A report with one row for every name on either side; its `ok` is false for the least doubt.
    """
    rows = []
    for name in dict.fromkeys([*reference, *candidate]):
        if name not in candidate:
            rows.append(_failed(name, "the candidate has no output of this name", np.asarray(reference[name]), None))
        elif name not in reference:
            rows.append(_failed(name, "the reference has no output of this name", None, np.asarray(candidate[name])))
        else:
            rows.append(_row(name, np.asarray(reference[name]), np.asarray(candidate[name]), tolerance))
    return ParityReport(tuple(rows), sets=1)


def compare_callables(
    reference: Callable[..., Outputs],
    candidate: Callable[..., Outputs],
    inputs: Sequence[Inputs],
    *,
    tolerance: Tolerance | None = None,
) -> ParityReport:
    """Run two models on several sets of inputs and keep the worst of every output.

    Args:
        reference: called with the arrays of a set by position.
        candidate: likewise. Both get copies, so neither can change what the other sees.
        inputs: the sets. None at all is a failure.
        tolerance: as in `compare`.

    Returns:
        One report. When either side returns outputs without names, they are paired in order, and a note says so; they
        are paired only if there are equally many.
    """
    reports = []
    for arrays in inputs:
        given = list(arrays.values()) if isinstance(arrays, Mapping) else list(arrays)
        # Results are copied too: a runtime may reuse its buffers, or hand back a view of its input.
        a, b = (_copied(model(*[np.array(array) for array in given])) for model in (reference, candidate))
        named_a, named_b, note = _named(a, b)
        reports.append(replace(compare(named_a, named_b, tolerance=tolerance), notes=(note,) if note else ()))
    return merged(reports, tolerance=tolerance)


def random_inputs(ports: Sequence[Port], seed: int = 0) -> dict[str, np.ndarray]:
    """Logical arrays for a model's inputs, the same for the same seed.

    Args:
        ports: the inputs; every size of their logical shape must be known.
        seed: of the generator.

    Returns:
        By input name, in order: standard normal floats, integers that are 0 or 1 (an index into anything that has two
        entries, and a mask), bytes from 0 to 127, frames from 0 to 255, bools.

    Raises:
        UsageError: an open size, or a dtype that holds no numbers.
    """
    generator = np.random.default_rng(seed)
    return {port.name: _random(port, generator) for port in ports}


def _random(port: Port, generator: np.random.Generator) -> np.ndarray:
    if any(size < 0 for size in port.shape):
        shape = "x".join("?" if size < 0 else str(size) for size in port.shape)
        raise UsageError(
            f"input {port.name!r} leaves sizes open ({shape}), so no random input can be made for it",
            hint="give its shape with --input-shape, or inputs with --clips clips.npz",
        )
    dtype = _dtype(port)
    kind = kind_of(dtype)
    if kind == "float":
        return generator.standard_normal(port.shape).astype(dtype)
    if kind == "complex":
        real, imaginary = generator.standard_normal((2, *port.shape))
        return np.asarray(real + 1j * imaginary).astype(dtype)
    if kind in ("integer", "unsigned", "bool"):
        high = 128 if dtype.itemsize == 1 and kind != "bool" else 2
        if port.intake is not None and port.intake.normalize is not None:
            high = 256  # frames, in which every byte is a brightness
        return generator.integers(0, high, size=port.shape).astype(dtype)
    raise UsageError(f"input {port.name!r} is of dtype {port.dtype}, which holds no numbers", hint="use --clips")


def _dtype(port: Port) -> np.dtype[Any]:
    try:
        return np.dtype(port.dtype)
    except TypeError:
        import ml_dtypes

        if not hasattr(ml_dtypes, port.dtype):
            raise UsageError(
                f"input {port.name!r} is of dtype {port.dtype}, which numpy does not know", hint="use --clips"
            ) from None
        narrow: np.dtype[Any] = np.dtype(getattr(ml_dtypes, port.dtype))
        return narrow


# ---- one output ---------------------------------------------------------------------------------------------------


def _allowed(dtype: np.dtype[Any], limits: Tolerance) -> float:
    """The greatest error allowed, relative to the range; 0 where equality is asked for."""
    if kind_of(dtype) not in ("float", "complex"):
        return 0.0
    return limits.max_error


def _of(dtype: np.dtype[Any]) -> Tolerance:
    """The table's entry for a dtype; integers and bools, which are compared exactly, get that of float32."""
    if kind_of(dtype) not in ("float", "complex"):
        return tolerance_for("fp32")
    return tolerance_for({"complex64": "float32", "complex128": "float64"}.get(dtype.name, dtype.name))


def _failed(name: str, reason: str, a: np.ndarray | None, b: np.ndarray | None) -> ParityRow:
    """A row without statistics: there was nothing that could be measured."""
    return ParityRow(
        name=name,
        ok=False,
        reason=reason,
        shape=None if a is None else a.shape,
        candidate_shape=None if b is None else b.shape,
        dtype=None if a is None else a.dtype.name,
        candidate_dtype=None if b is None else b.dtype.name,
    )


def _row(name: str, a: np.ndarray, b: np.ndarray, tolerance: Tolerance | None) -> ParityRow:
    if (mismatch := _mismatch(a, b)) is not None:
        return _failed(name, mismatch, a, b)
    limits = tolerance or _of(b.dtype if a.dtype == np.float64 and kind_of(b.dtype) == "float" else a.dtype)
    allowed = _allowed(a.dtype, limits)
    difference = measure(a, b)
    reason = _verdict(a, b, difference, allowed, limits)
    row = _failed(name, "", a, b)
    return replace(row, ok=reason is None, reason=reason, elements=a.size, allowed=allowed, difference=difference)


def _mismatch(a: np.ndarray, b: np.ndarray) -> str | None:
    """Why two arrays cannot even be measured against each other."""
    if a.shape != b.shape:
        return f"shape {_x(b.shape)}, expected {_x(a.shape)}"
    kinds = kind_of(a.dtype), kind_of(b.dtype)
    if None in kinds:
        return f"dtype {b.dtype.name} against {a.dtype.name}: only numbers and bools can be compared"
    if kinds[0] != kinds[1]:
        return f"dtype {b.dtype.name}, expected a {kinds[0]} like the reference's {a.dtype.name}"
    if a.size == 0:
        return "no elements, so nothing was compared"
    return None


def _verdict(a: np.ndarray, b: np.ndarray, found: Difference, allowed: float, limits: Tolerance) -> str | None:
    """What is wrong; None when nothing is."""
    at = "" if found.first is None else f" at [{', '.join(map(str, found.first))}]"
    got = "" if found.first is None else f": got {b[found.first]}, expected {a[found.first]}"
    if found.misplaced:
        return f"{found.misplaced} of {a.size} elements differ in NaN or infinity, first{at}{got}"
    if kind_of(a.dtype) not in ("float", "complex"):
        return f"{found.differing} of {a.size} elements differ, e.g.{at}{got}" if found.differing else None
    if not found.finite:
        return "the reference holds no finite number, so nothing was compared"
    # Written so that a NaN among the statistics fails.
    if not found.relative <= allowed:
        return f"error {found.relative:.2g} of the range, expected at most {allowed:.2g}; worst{at}{got}"
    if limits.cosine is not None and not found.cosine >= limits.cosine:
        return f"cosine {found.cosine:.6f}, expected at least {limits.cosine:g}; worst{at}{got}"
    if limits.snr_db is not None and not found.snr_db >= limits.snr_db:
        return f"SNR {found.snr_db:.1f} dB, expected at least {limits.snr_db:g}; worst{at}{got}"
    return None


def _x(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


# ---- several runs -------------------------------------------------------------------------------------------------


def _copied(outputs: Outputs) -> dict[str, np.ndarray] | list[np.ndarray]:
    if isinstance(outputs, Mapping):
        return {name: np.array(array) for name, array in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        return [np.array(array) for array in outputs]
    return [np.array(outputs)]


def _named(
    a: dict[str, np.ndarray] | list[np.ndarray], b: dict[str, np.ndarray] | list[np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], str]:
    """Both as mappings, and a note when the names of one side had to do for the other."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a, b, ""
    count = max(len(a), len(b))
    names = list(a if isinstance(a, dict) else b if isinstance(b, dict) else [])
    names = [names[i] if i < len(names) else f"#{i}" for i in range(count)]
    both = [dict(zip(names, side.values() if isinstance(side, dict) else side, strict=False)) for side in (a, b)]
    if len(a) != len(b):
        return both[0], both[1], f"the reference has {len(a)} outputs, the candidate {len(b)}"
    return both[0], both[1], "outputs were paired by position, since the reference or the candidate names none"


def merged(reports: Sequence[ParityReport], *, tolerance: Tolerance | None = None) -> ParityReport:
    """The worst row of every output: one that fails before one that passes, then by error.

    Its top-1 agreement is that of all sets together, and is held against the limit where there are rows enough.
    """
    worst: dict[str, ParityRow] = {}
    agreeing: dict[str, list[tuple[int, float]]] = {}
    for i, report in enumerate(reports):
        for row in report.rows:
            before = worst.get(row.name)
            if before is None or row.badness > before.badness:
                worst[row.name] = replace(row, input_set=i)
            if row.difference is not None and row.difference.top1 is not None and row.shape:
                agreeing.setdefault(row.name, []).append((row.shape[0], row.difference.top1))
    for name, shares in agreeing.items():
        rows = sum(count for count, _ in shares)
        worst[name] = _with_top1(worst[name], sum(count * share for count, share in shares) / rows, rows, tolerance)
    notes = tuple(dict.fromkeys(note for report in reports for note in report.notes))
    return ParityReport(tuple(worst.values()), sets=len(reports), notes=notes)


def _with_top1(row: ParityRow, share: float, rows: int, tolerance: Tolerance | None) -> ParityRow:
    if row.difference is None:
        return row
    row = replace(row, difference=replace(row.difference, top1=share))
    known = row.dtype in ("float64", "float32", "float16", "bfloat16")
    limits = tolerance if tolerance is not None or not known else tolerance_for(row.dtype or "")
    least = limits.top1 if limits is not None else None
    if not row.ok or least is None or rows < LEAST_ROWS or share >= least:
        return row
    return replace(row, ok=False, reason=f"top-1 agrees on {share:.1%} of {rows} rows, expected at least {least:.0%}")
