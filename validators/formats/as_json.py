"""One JSON document, whose schema is `docs/schemas/verify.schema.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge4d.validators.gate import GateReport

__all__ = ["render"]


def render(gate: GateReport, _root: Path) -> str:
    """The result for programs."""
    return json.dumps(gate.to_dict(), indent=2, allow_nan=False)
