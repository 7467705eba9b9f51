"""Findings that are known already: written once, and from then on only new ones count."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge4d.errors import UsageError
from edge4d.validators.findings import Finding, Report
from edge4d.validators.selection import set_aside

__all__ = ["Baseline", "fingerprint"]

_VERSION = 1
_NEVER = frozenset({"E4D004"})  # that nothing was checked is never "known and accepted"

Entry = tuple[str, ...]
"""Path, profile, code, graph, node, operator and value of a finding, ``""`` for what it does not have."""

_KEYS = ("path", "profile", "code", "graph", "node", "op", "value")


@dataclass
class Baseline:
    """The known findings of some files.

    Attributes:
        folder: what the paths within are relative to: that of the baseline's own file.
        known: the findings.
        met: those of them that were found again.
    """

    folder: Path
    known: frozenset[Entry] = frozenset()
    met: set[Entry] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> Baseline:
        """From a file that `write` made.

        Raises:
            UsageError: there is no such file, or it is no baseline.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(
                f"--baseline {path}: no such file", hint=f"write it with --write-baseline {path}"
            ) from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise UsageError(f"--baseline {path}: cannot be read: {error}") from error
        return cls(path.parent, frozenset(_entries(path, data)))

    @classmethod
    def of(cls, folder: Path, reports: Iterable[Report]) -> Baseline:
        """Of everything that these reports hold."""
        here = cls(folder)
        known = frozenset(
            here.entry(report, item) for report in reports for item in report.findings if item.code not in _NEVER
        )
        return cls(folder, known)

    def to_json(self) -> str:
        """The text of the file: sorted, one finding a line, so that a change reads well in a diff."""
        lines = [json.dumps({k: v for k, v in zip(_KEYS, entry, strict=True) if v}) for entry in sorted(self.known)]
        inner = ",\n    ".join(lines)
        body = f"[\n    {inner}\n  ]" if lines else "[]"
        return f'{{\n  "edge4d_baseline": {_VERSION},\n  "findings": {body}\n}}\n'

    def apply(self, report: Report) -> Report:
        """The report without the findings that are known."""
        kept = []
        for item in report.findings:
            entry = self.entry(report, item)
            if entry in self.known and item.code not in _NEVER:
                self.met.add(entry)
            else:
                kept.append(item)
        return set_aside(report, tuple(kept), "baseline")

    def gone(self, reports: Iterable[Report]) -> int:
        """How many known findings of the files that were checked are there no more."""
        checked = {(self._path(report), str(report.settings.get("profile", ""))) for report in reports}
        return sum(entry[:2] in checked for entry in self.known - self.met)

    def entry(self, report: Report, item: Finding) -> Entry:
        """What tells a finding from all others, whatever its message says."""
        where = item.where
        profile = str(report.settings.get("profile", ""))
        return (
            self._path(report),
            profile,
            item.code,
            where.graph,
            where.node or "",
            where.op or "",
            where.value or "",
        )

    def _path(self, report: Report) -> str:
        if report.path is None:
            return ""
        try:
            return Path(os.path.relpath(report.path, self.folder)).as_posix()
        except ValueError:  # on another drive
            return Path(report.path).as_posix()


def fingerprint(entry: Entry) -> str:
    """A short stable name of a finding."""
    return hashlib.sha256("\0".join(entry).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _entries(path: Path, data: Any) -> Iterable[Entry]:
    hint = "write it anew with --write-baseline"
    if not isinstance(data, dict) or "edge4d_baseline" not in data:
        raise UsageError(f"--baseline {path}: not a baseline of edge4d", hint=hint)
    if data["edge4d_baseline"] != _VERSION:
        raise UsageError(
            f"--baseline {path}: version {data['edge4d_baseline']}, this edge4d reads {_VERSION}", hint=hint
        )
    findings = data.get("findings")
    for item in findings if isinstance(findings, list) else [None]:
        if not isinstance(item, dict) or not all(isinstance(item.get(key, ""), str) for key in _KEYS):
            raise UsageError(f"--baseline {path}: an entry is not as it should be: {item!r:.80}", hint=hint)
        yield tuple(item.get(key, "") for key in _KEYS)
