"""A report for people: the verdict in one line, then the findings by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from edge4d.validators.findings import CODES

if TYPE_CHECKING:
    from pathlib import Path

    from edge4d.validators.findings import Finding, Report
    from edge4d.validators.gate import GateReport

__all__ = ["coloured", "plain", "render", "report_text", "summary_line", "visible"]

_RED, _GREEN, _YELLOW, _BOLD, _DIM = "31", "32", "33", "1", "2"

Paint = Callable[[str, str], str]


def plain(text: str, _style: str) -> str:
    """No colour."""
    return text


def coloured(text: str, style: str) -> str:
    """ANSI colour, for a terminal."""
    return f"\x1b[{style}m{text}\x1b[0m" if text else text


def visible(text: str) -> str:
    """Text of a file as it can be shown: a line stays one line, and nothing in it can steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def report_text(
    report: Report, *, limit: int | None = 5, paint: Paint = plain, chains: bool = False, quiet: bool = False
) -> str:
    """One report.

    Args:
        report: what was found.
        limit: how many findings of a kind to show; None for all.
        paint: what gives a piece of text its colour.
        chains: show for every finding how its value came about, not only for the first of a kind.
        quiet: show nothing at all for a report without findings.
    """
    if quiet and not report.findings:
        return ""
    lines = [_headline(report, paint)]
    for code in CODES:
        lines += _group([item for item in report.findings if item.code == code], limit, paint, chains)
    return "\n".join(lines)


def summary_line(report: Report) -> str:
    """What was found, by kind: ``2 rank-over-limit, 1 rank-unknown``, or ``ok``."""
    counts = Counter(item.code for item in report.findings)
    return ", ".join(f"{counts[code]} {CODES[code].name}" for code in CODES if counts[code]) or "ok"


def checked_line(report: Report) -> str:
    """What was looked at: ``checked 1 graph, 3 nodes; highest rank 4; 2 ignored``."""
    looked = ", ".join(_counted(n, noun) for noun, n in report.checked.items() if n)
    parts = [f"checked {looked or 'nothing'}"]
    parts += [] if report.highest_rank is None else [f"highest rank {report.highest_rank}"]
    parts += [f"{n} {_ASIDE[reason]}" for reason, n in report.set_aside.items() if n]
    return "; ".join(parts)


_ASIDE = {"ignored": "ignored", "baseline": "in the baseline"}


def _headline(report: Report, paint: Paint) -> str:
    mark = {"pass": paint("✓", _GREEN), "unknown": paint("?", _YELLOW), "fail": paint("✗", _RED)}[report.verdict]
    if "profile" not in report.settings and report.verdict == "unknown":
        mark = paint("✗", _RED)
    profile = f" on {report.settings['profile']}" if "profile" in report.settings else ""
    # Of a device the verdict has three values; without one the list of findings says all.
    found = [str(report.verdict)] if profile else []
    found += [summary_line(report)] if report.findings or not profile else []
    return (
        f"{mark} {paint(visible(report.path or 'model'), _BOLD)}{profile}: {', '.join(found)} ({checked_line(report)})"
    )


def _group(items: Sequence[Finding], limit: int | None, paint: Paint, chains: bool) -> Iterator[str]:
    """The lines of one kind of finding; a hint that several share is said once, after them."""
    if not items:
        return
    kind = CODES[items[0].code]
    style = _RED if any(item.severity == "error" for item in items) else _YELLOW
    yield f"  {paint(kind.code, style)} {paint(kind.name, _BOLD)}: {kind.explanation}"
    shown = items if limit is None else items[:limit]
    for i, item in enumerate(shown):
        place = visible(item.where.to_text())
        warning = "" if item.severity == "error" else "warning: "
        yield f"    {warning}{place + ': ' if place else ''}{visible(item.message)}"
        if len(item.chain) > 1 and (chains or i == 0):
            yield paint(f"      from {visible(' → '.join(step.to_text() for step in item.chain))}", _DIM)
    if len(items) > len(shown):
        yield f"    … and {len(items) - len(shown)} more (--verbose shows all)"
    for source in dict.fromkeys(item.source for item in shown if item.source):
        yield paint(f"    source: {visible(source)}", _DIM)
    for hint in dict.fromkeys(item.hint for item in shown):
        yield f"    {paint('hint:', _BOLD)} {visible(hint)}"


def _counted(n: int, plural: str) -> str:
    return f"{n} {plural.removesuffix('s') if n == 1 else plural}"


def render(
    gate: GateReport,
    _root: Path | None = None,
    *,
    colour: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> str:
    """All reports, one after the other; of files that cannot be read nothing is said here, for that is an error."""
    paint = coloured if colour else plain
    texts = [
        report_text(report, limit=None if verbose else 5, paint=paint, chains=verbose, quiet=quiet)
        for report in gate.reports
    ]
    if len(gate.results) > 1 and not quiet:
        passed = sum(report.exit_code == 0 for report in gate.reports)
        texts.append(f"{passed} of {len(gate.results)} passed")
    return "\n".join(text for text in texts if text)
