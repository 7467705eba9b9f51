"""How large an error may be, by precision: the one table, so that no comparison has a limit of its own."""

from __future__ import annotations

import difflib
import math
from dataclasses import asdict, dataclass
from typing import Any

from edge4d.errors import UsageError

__all__ = ["LEAST_ROWS", "TOLERANCES", "Tolerance", "loosest", "tolerance_for"]


LEAST_ROWS = 20
"""Rows of scores below which an agreement in the first place tells nothing: one tie would be a twentieth."""


@dataclass(frozen=True)
class Tolerance:
    """What still counts as the same numbers. Integers and bools are compared exactly, whatever it says.

    Attributes:
        max_error: greatest absolute error of an element, relative to the range of the reference output.
        cosine: least cosine between the two outputs; None for no limit.
        snr_db: least ratio of signal to noise, in decibels; None for no limit.
        top1: least share of rows (N, classes) with the same greatest column, over all sets of inputs together, where
            they are at least `LEAST_ROWS`; None for no limit.
    """

    max_error: float
    cosine: float | None = None
    snr_db: float | None = None
    top1: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_error) and self.max_error >= 0):
            raise UsageError(
                f"max_error is {self.max_error}, expected a finite number of at least 0",
                hint="for example 1e-5: a hundred-thousandth of the output's range",
            )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping of the attributes."""
        return asdict(self)

    def to_text(self) -> str:
        """The limits as people read them."""
        said = [f"error at most {self.max_error:g} of the range"]
        if self.cosine is not None:
            said.append(f"cosine at least {self.cosine:g}")
        if self.snr_db is not None:
            said.append(f"SNR at least {self.snr_db:g} dB")
        if self.top1 is not None:
            said.append(f"top-1 at least {self.top1:.0%} of {LEAST_ROWS} rows or more")
        return ", ".join(said)


# A network of float32 summed in another order stays within a few 1e-7 of the range, Winograd along time within 2e-6.
# Where the greatest error is that small it implies the rest. The limits of fp16 and int8 leave about twice what
# docs/precision.md shows for trained and for random networks.
TOLERANCES = {
    "fp64": Tolerance(1e-11),
    "fp32": Tolerance(1e-5),
    "tf32": Tolerance(2e-3),
    "fp16": Tolerance(5e-3, cosine=0.9999, snr_db=40, top1=0.98),
    "bf16": Tolerance(4e-2, cosine=0.99, snr_db=25, top1=0.95),
    "int8": Tolerance(0.2, cosine=0.98, snr_db=15, top1=0.95),
}
"""By precision of the computation."""

_FULL = TOLERANCES["fp32"].max_error
_ALIASES = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def tolerance_for(precision: str) -> Tolerance:
    """The table's entry for a precision such as ``fp32``, or for a dtype such as ``float32``.

    Raises:
        UsageError: a precision that the table does not have.
    """
    name = _ALIASES.get(precision, precision)
    if name not in TOLERANCES:
        near = difflib.get_close_matches(name, TOLERANCES, 1)
        raise UsageError(
            f"no tolerance for precision {precision!r}, expected one of: {', '.join(TOLERANCES)}",
            hint=f"did you mean {near[0]!r}?" if near else None,
        )
    return TOLERANCES[name]


def loosest(*precisions: str | None) -> str | None:
    """Of what several places say about one file (its description, its engine) the one that allows most.

    Args:
        precisions: names or None; those of at least float32 are left to the dtypes of the outputs.

    Raises:
        UsageError: a precision that the table does not have.
    """
    reduced = [name for name in precisions if name is not None and tolerance_for(name).max_error > _FULL]
    return max(reduced, key=lambda name: tolerance_for(name).max_error, default=None)
