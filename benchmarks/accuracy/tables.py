"""The paper's tables III and IV beside what was measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def render(rows: Sequence[Mapping[str, Any]]) -> str:
    """To come."""
    return f"{len(rows)} trainings"


def write(path: Path, rows: Sequence[Mapping[str, Any]], log: str) -> None:
    """To come."""
