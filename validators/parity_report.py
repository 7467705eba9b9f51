"""The result of a comparison: one row an output, a verdict, a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge4d.tables import table

if TYPE_CHECKING:
    from edge4d.validators.layers import LayersReport
    from edge4d.validators.statistics import Difference

__all__ = ["ParityReport", "ParityRow"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ParityRow:
    """One output; where several sets of inputs were run, the worst of them.

    Attributes:
        name: the output's.
        ok: the numbers are the same within the limit.
        reason: why not; None when they are.
        shape, candidate_shape: sizes on either side; None where the output is missing.
        dtype, candidate_dtype: numpy's names, likewise.
        elements: how many were compared; 0 when they could not be.
        allowed: greatest error allowed, relative to the reference's range; 0 asks for equality.
        difference: the statistics; None when nothing could be measured.
        input_set: which set of inputs these numbers come from.
    """

    name: str
    ok: bool
    reason: str | None
    shape: tuple[int, ...] | None
    candidate_shape: tuple[int, ...] | None
    dtype: str | None
    candidate_dtype: str | None
    elements: int = 0
    allowed: float | None = None
    difference: Difference | None = None
    input_set: int = 0

    @property
    def badness(self) -> tuple[bool, bool, int, float]:
        """Orders rows of one output from good to bad."""
        if self.difference is None:
            return not self.ok, True, 0, 0.0
        relative = self.difference.relative
        return not self.ok, False, self.difference.misplaced, math.inf if math.isnan(relative) else relative

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping. A statistic that is not finite, such as the SNR of equal arrays, is None."""
        found = self.difference
        statistics: dict[str, Any] = {}
        if found is not None:
            statistics = {
                "max_abs": _finite(found.max_abs),
                "mean_abs": _finite(found.mean_abs),
                "relative": _finite(found.relative),
                "cosine": _finite(found.cosine),
                "snr_db": _finite(found.snr_db),
                "top1": found.top1,
                "differing": found.differing,
                "nan": list(found.nan),
                "inf": list(found.inf),
                "misplaced": found.misplaced,
                "first": None if found.first is None else list(found.first),
            }
        return {
            "name": self.name,
            "ok": self.ok,
            "reason": self.reason,
            "shape": None if self.shape is None else list(self.shape),
            "candidate_shape": None if self.candidate_shape is None else list(self.candidate_shape),
            "dtype": self.dtype,
            "candidate_dtype": self.candidate_dtype,
            "elements": self.elements,
            "allowed": self.allowed,
            "input_set": self.input_set,
            "statistics": statistics or None,
        }


@dataclass(frozen=True)
class ParityReport:
    """All outputs of two models.

    Attributes:
        rows: one for every output on either side.
        sets: how many sets of inputs were run.
        notes: what a reader should know, e.g. that outputs were paired by position.
        layers: the comparison of the source's layers; None where it was not asked for or is not possible.
    """

    rows: tuple[ParityRow, ...]
    sets: int
    notes: tuple[str, ...] = ()
    layers: LayersReport | None = None

    @property
    def ok(self) -> bool:
        """Every output is the same, and every layer where they were compared; and there was at least one."""
        same = bool(self.rows) and self.sets > 0 and all(row.ok for row in self.rows)
        return same and (self.layers is None or self.layers.ok)

    @property
    def exit_code(self) -> int:
        """0 when `ok`, else 1."""
        return 0 if self.ok else 1

    @property
    def worst(self) -> float | None:
        """Greatest error of any output relative to its range; None when nothing was measured."""
        errors = [row.difference.relative for row in self.rows if row.difference is not None]
        return max(errors, default=None)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {
            "schema_version": SCHEMA_VERSION,
            "ok": self.ok,
            "exit_code": self.exit_code,
            "sets": self.sets,
            "worst": None if self.worst is None else _finite(self.worst),
            "notes": list(self.notes),
            "outputs": [row.to_dict() for row in self.rows],
            **({"layers": self.layers.to_dict()} if self.layers is not None else {}),
        }

    def to_text(self) -> str:
        """The verdict in one line, a table of the outputs, and what is wrong with those that fail."""
        failed = [row for row in self.rows if not row.ok]
        on = f"on {self.sets} input {'set' if self.sets == 1 else 'sets'}"
        if not self.rows:
            return f"✗ parity: nothing was compared ({self.sets} input sets, no outputs)"
        if failed:
            verdict = f"✗ {len(failed)} of {len(self.rows)} outputs differ {on}"
        else:
            verdict = f"✓ {len(self.rows)} {'output agrees' if len(self.rows) == 1 else 'outputs agree'} {on}"
        columns = ["", "output", "shape", "max error", "of range", "allowed", "mean error", "cosine", "SNR dB", "top-1"]
        lines = [verdict, table(columns, [_cells(row) for row in self.rows], right=tuple(range(3, len(columns))))]
        lines += [f"  {row.name!r}: {row.reason}" for row in failed]
        lines += [f"  note: {note}" for note in self.notes]
        if self.layers is not None:
            lines.append(self.layers.to_text())
        return "\n".join(lines)


def _cells(row: ParityRow) -> list[str]:
    sizes = row.shape if row.shape is not None else row.candidate_shape
    shape = "x".join(map(str, sizes or ())) or "scalar"
    head = ["✓" if row.ok else "✗", row.name, shape]
    if row.difference is None:
        return [*head, *["-"] * 7]
    found = row.difference
    allowed = "exact" if row.allowed == 0 else f"{row.allowed:.1e}"
    top1 = "-" if found.top1 is None else f"{100 * found.top1:.1f}%"
    numbers = [f"{found.max_abs:.2e}", f"{found.relative:.2e}", allowed, f"{found.mean_abs:.2e}"]
    return [*head, *numbers, f"{found.cosine:.6f}", f"{found.snr_db:.1f}", top1]


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
