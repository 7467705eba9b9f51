"""Checks of artifacts: what rank everything has, and whether two models give the same numbers.

Everything here is imported on first use; neither ONNX nor a runtime is needed before a check runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge4d.validators.findings import CODES, Finding, Report, Where
    from edge4d.validators.parity import (
        ParityReport,
        ParityRow,
        Tolerance,
        compare,
        compare_callables,
        random_inputs,
        tolerance_for,
    )
    from edge4d.validators.program import check_exported
    from edge4d.validators.rank import check_rank

_HOME = {
    "CODES": "findings",
    "Finding": "findings",
    "ParityReport": "parity",
    "ParityRow": "parity",
    "Report": "findings",
    "Tolerance": "parity",
    "Where": "findings",
    "check_exported": "program",
    "check_rank": "rank",
    "compare": "parity",
    "compare_callables": "parity",
    "random_inputs": "parity",
    "tolerance_for": "parity",
}

__all__ = [
    "CODES",
    "Finding",
    "ParityReport",
    "ParityRow",
    "Report",
    "Tolerance",
    "Where",
    "check_exported",
    "check_rank",
    "compare",
    "compare_callables",
    "random_inputs",
    "tolerance_for",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"edge4d.validators.{_HOME[name]}"), name)
    raise AttributeError(f"module 'edge4d.validators' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
