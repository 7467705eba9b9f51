"""The forms in which `edge4d verify` tells what it found, one a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge4d.validators.gate import GateReport

__all__ = ["FORMATS", "render"]

FORMATS: Mapping[str, str] = {
    "text": "text",
    "json": "as_json",
    "sarif": "sarif",
    "github": "github",
    "junit": "junit",
    "markdown": "markdown",
}
"""Name of the form, and the module that has its `render`."""


def render(form: str, gate: GateReport, *, root: Path | None = None) -> str:
    """The whole result as one text.

    Args:
        form: a key of `FORMATS`.
        gate: what was found.
        root: the folder that paths in the result are relative to, where the form wants that; the working folder by
            default.
    """
    made: Callable[[GateReport, Path], str] = import_module(f"edge4d.validators.formats.{FORMATS[form]}").render
    return made(gate, root or Path.cwd())
