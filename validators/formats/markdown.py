"""A summary in Markdown for the page of a CI job."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from edge4d.validators.formats.places import relative
from edge4d.validators.formats.text import summary_line, visible
from edge4d.validators.gate import Unreadable

if TYPE_CHECKING:
    from edge4d.validators.findings import Report
    from edge4d.validators.gate import GateReport

__all__ = ["render"]

_MOST = 20  # findings of a file; the page of a job has a limit of size
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~@<>&$-])")


def render(gate: GateReport, root: Path) -> str:
    """A table of all files, then the findings of those that have some."""
    word = "pass" if gate.exit_code == 0 else "fail"
    lines = [f"### edge4d verify: {word}", "", "| file | verdict | highest rank | checked | findings |"]
    lines += ["|---|---|---|---|---|"]
    for result in gate.results:
        name = _text(relative(result.path or "model", root))
        if isinstance(result, Unreadable):
            lines.append(f"| {name} | unreadable | | | {_text(result.message)} |")
            continue
        profile = f" on {_text(str(result.settings['profile']))}" if "profile" in result.settings else ""
        values = sum(n for what, n in result.checked.items() if what in ("values", "initializers", "attributes"))
        rank = "" if result.highest_rank is None else str(result.highest_rank)
        lines.append(f"| {name}{profile} | {result.verdict} | {rank} | {values} values | {summary_line(result)} |")
    for report in gate.reports:
        lines += _findings(report, root)
    lines += ["", *(f"- {_text(note)}" for note in gate.notes)] if gate.notes else []
    return "\n".join(lines) + "\n"


def _findings(report: Report, root: Path) -> list[str]:
    if not report.findings:
        return []
    name = _text(relative(report.path or "model", root))
    lines = ["", f"<details><summary>{name}: {len(report.findings)} findings</summary>", ""]
    lines += ["| code | where | what |", "|---|---|---|"]
    for item in report.findings[:_MOST]:
        lines.append(f"| {item.code} {item.name} | {_text(item.where.to_text())} | {_text(item.message)} |")
    if len(report.findings) > _MOST:
        lines.append(f"| … | | {len(report.findings) - _MOST} more |")
    return [*lines, "", "</details>"]


def _text(text: str) -> str:
    """Names in a model may hold anything; none of it may become markup."""
    shown = visible(text)
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", shown) if _SPECIAL.search(shown) else shown
