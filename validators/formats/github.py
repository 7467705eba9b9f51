"""Annotations of GitHub Actions: one workflow command a finding, shown beside the line it is about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge4d.validators.formats.places import relative, source_place, told
from edge4d.validators.gate import Unreadable

if TYPE_CHECKING:
    from edge4d.validators.findings import Finding, Report
    from edge4d.validators.gate import GateReport

__all__ = ["render"]


def render(gate: GateReport, root: Path) -> str:
    """One line a finding; empty when there is none."""
    lines = []
    for result in gate.results:
        if isinstance(result, Unreadable):
            text = result.message + (f"\n{result.hint}" if result.hint else "")
            lines.append(_command("error", {"file": relative(result.path, root), "title": "edge4d: unreadable"}, text))
        else:
            lines += [_annotation(result, item, root) for item in result.findings]
    lines += [_command("notice", {"title": "edge4d"}, text) for text in gate.notes]
    return "\n".join(lines)


def _annotation(report: Report, item: Finding, root: Path) -> str:
    model = relative(report.path or "model", root)
    source = source_place(item.where.line, root)
    place: dict[str, str] = {"file": model} if source is None else {"file": source[0], "line": str(source[1])}
    place["title"] = f"{item.code} {item.name}"
    text = told(report, item) if source is None else f"{model}: {told(report, item)}"
    return _command(item.severity, place, f"{text}\n{item.hint}")


def _command(kind: str, properties: dict[str, str], text: str) -> str:
    listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{kind} {listed}::{_data(text)}"


def _data(text: str) -> str:
    """Percent first, or what is escaped after it would be escaped twice."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
