"""How long each runtime takes for each kind of work; `python -m benchmarks.calibrate RUNTIME` prints such a line."""

from __future__ import annotations

from edge4d.lowering.conv.cost import Rates

__all__ = ["GENERAL", "RATES"]

GENERAL = Rates(
    wide=0.01, narrow=0.03, grouped=0.04, depthwise=0.04, ragged=0.08, matrix=0.03, moved=0.16, calls=3000.0
)
"""Of a CPU with vector instructions, rounded: for a runtime that nobody has calibrated, and for a graph that is meant
for all of them."""

RATES: dict[str, Rates] = {}
"""By runtime; see docs/performance.md for the machine and the fit."""
