"""A comparison as one HTML file that needs nothing else: no network, no script, no font."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from edge4d._version import __version__
from edge4d.validators.layer_plot import layer_svg

if TYPE_CHECKING:
    from edge4d.validators.layers import LayersReport
    from edge4d.validators.parity_report import ParityReport, ParityRow

__all__ = ["parity_html"]

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .6rem 0; font-size: 13px }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: right }
th:nth-child(2), td:nth-child(2), th:first-child, td:first-child { text-align: left }
tr.bad td { background: #fde8e8 } .ok { color: #17722b } .bad { color: #b3151f }
svg { max-width: 100%; height: auto } details { margin: .6rem 0 } p.note { color: #555 }
"""

_COLUMNS = ("", "name", "shape", "max error", "of range", "allowed", "mean error", "cosine", "SNR dB", "top-1", "set")


def parity_html(reference: str, reports: Mapping[str, ParityReport]) -> str:
    """The page: a summary, the plot of the layers where they were compared, a section for each candidate.

    Args:
        reference: its name.
        reports: by the candidate's or the stage's name.

    Raises:
        RuntimeUnavailable: there are layers to plot, and matplotlib is not installed.
    """
    ok = all(report.ok for report in reports.values()) and bool(reports)
    title = f"edge4d parity: {reference}"
    layers = {name: report.layers for name, report in reports.items() if report.layers is not None}
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='{_class(ok)}'>{'✓ everything agrees' if ok else '✗ not everything agrees'}</p>",
        _summary(reports),
    ]
    drawn = {name: found for name, found in layers.items() if any(row.difference for row in found.report.rows)}
    if drawn:
        parts += ["<h2>Error of each layer</h2>", layer_svg(drawn)]
    for name, report in reports.items():
        parts.append(f"<h2>{escape(name)}</h2>")
        parts.append(_table(report.rows))
        parts += [f"<p class='note'>{escape(note)}</p>" for note in report.notes]
        if report.layers is not None:
            parts.append(_layers(report.layers))
    parts.append(f"<p class='note'>edge4d {escape(__version__)}</p>")
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _summary(reports: Mapping[str, ParityReport]) -> str:
    rows = []
    for name, report in reports.items():
        worst = "-" if report.worst is None else f"{report.worst:.2e}"
        first = "-"
        if report.layers is not None:
            first = "none" if report.layers.first is None else report.layers.first.name
        cells = ["✓" if report.ok else "✗", name, str(report.sets), str(len(report.rows)), worst, first]
        rows.append((report.ok, cells))
    return _tabled(("", "candidate", "input sets", "outputs", "worst / range", "first layer out of tolerance"), rows)


def _layers(found: LayersReport) -> str:
    folded = {row.name: ", ".join(found.folded.get(row.name, ())) for row in found.report.rows}
    parts = [
        f"<h3>Layers</h3><p class='{_class(found.ok)}'>{escape(found.sentence)}</p>",
        f"<details{'' if found.ok else ' open'}><summary>{len(found.report.rows)} layers</summary>",
        _table(found.report.rows, folded),
        "</details>",
    ]
    parts += [f"<p class='note'>{escape(note)}</p>" for note in found.report.notes]
    if found.unseen:
        parts.append(f"<p class='note'>no single tensor in the reference: {escape(', '.join(found.unseen))}</p>")
    return "\n".join(parts)


def _table(rows: Sequence[ParityRow], folded: Mapping[str, str] | None = None) -> str:
    columns = (*_COLUMNS, "folded in") if folded is not None else _COLUMNS
    lines = [(row.ok, [*_cells(row), *([folded[row.name]] if folded is not None else [])]) for row in rows]
    reasons = "".join(
        f"<p class='bad'>{escape(row.name)}: {escape(row.reason or '')}</p>" for row in rows if not row.ok
    )
    return _tabled(columns, lines) + reasons


def _cells(row: ParityRow) -> list[str]:
    shape = row.shape if row.shape is not None else row.candidate_shape or ()
    head = ["✓" if row.ok else "✗", row.name, "x".join(map(str, shape)) or "scalar"]
    if row.difference is None:
        return [*head, *["-"] * 7, str(row.input_set)]
    d = row.difference
    allowed = "exact" if row.allowed == 0 else f"{row.allowed:.1e}"
    top1 = "-" if d.top1 is None else f"{100 * d.top1:.1f}%"
    numbers = [f"{d.max_abs:.2e}", f"{d.relative:.2e}", allowed, f"{d.mean_abs:.2e}", f"{d.cosine:.6f}"]
    return [*head, *numbers, f"{d.snr_db:.1f}", top1, str(row.input_set)]


def _tabled(columns: Sequence[str], rows: Sequence[tuple[bool, Sequence[str]]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "\n".join(
        f"<tr{'' if ok else ' class=bad'}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for ok, cells in rows
    )
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _class(ok: bool) -> str:
    return "ok" if ok else "bad"
