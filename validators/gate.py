"""The gate over several files: one result each, and the one exit code that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge4d.validators.findings import SCHEMA_VERSION, Report

__all__ = ["SCHEMA_URL", "GateReport", "Unreadable"]

SCHEMA_URL = "docs/schemas/verify.schema.json"
"""Where the schema of `GateReport.to_dict` stands in the repository."""


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be checked at all.

    Attributes:
        path: the file.
        kind: name of the error's class.
        message: what is wrong with the file, one line.
        hint: what to do; None when there is nothing to say.
        exit_code: what the command ends with because of it.
    """

    path: str
    kind: str
    message: str
    hint: str | None
    exit_code: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        error = {"type": self.kind, "message": self.message, "hint": self.hint}
        return {"path": self.path, "ok": False, "exit_code": self.exit_code, "error": error}


@dataclass(frozen=True)
class GateReport:
    """What became of every file.

    Attributes:
        results: in the order of the files.
        notes: what a person should know besides, e.g. that a baseline is out of date.
    """

    results: Sequence[Report | Unreadable]
    notes: tuple[str, ...] = ()

    @property
    def reports(self) -> list[Report]:
        """Of the files that could be read."""
        return [result for result in self.results if isinstance(result, Report)]

    @property
    def unreadable(self) -> list[Unreadable]:
        """The other files."""
        return [result for result in self.results if isinstance(result, Unreadable)]

    @property
    def exit_code(self) -> int:
        """The worst of the files' own; 2 when there is none, for then nothing was checked."""
        return max((result.exit_code for result in self.results), default=2)

    @property
    def ok(self) -> bool:
        """Whether every file was read and passes."""
        return bool(self.results) and not self.unreadable and all(report.ok for report in self.reports)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {
            "schema_version": SCHEMA_VERSION,
            "ok": self.ok,
            "exit_code": self.exit_code,
            "notes": list(self.notes),
            "reports": [result.to_dict() for result in self.results],
        }
