"""How large an error may be, by precision: the one table, so that no comparison has a limit of its own."""

from __future__ import annotations

import difflib
import math
from dataclasses import asdict, dataclass
from typing import Any

from edge4d.errors import UsageError

__all__ = ["TOLERANCES", "Tolerance", "tolerance_for"]


@dataclass(frozen=True)
class Tolerance:
    """What still counts as the same numbers.

    Attributes:
        max_error: greatest absolute error of an element, relative to the range of the reference output. Integers and
            bools are compared exactly, whatever it says.
    """

    max_error: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_error) and self.max_error >= 0):
            raise UsageError(
                f"max_error is {self.max_error}, expected a finite number of at least 0",
                hint="for example 1e-5: a hundred-thousandth of the output's range",
            )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping of the attributes."""
        return asdict(self)


# A network of float32 summed in another order stays within a few 1e-7 of the range, Winograd along time within 2e-6.
TOLERANCES = {
    "fp64": Tolerance(1e-11),
    "fp32": Tolerance(1e-5),
    "tf32": Tolerance(2e-3),
    "fp16": Tolerance(5e-3),
    "bf16": Tolerance(4e-2),
}
"""By precision of the computation."""

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
