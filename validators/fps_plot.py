"""A measurement of speed as one picture: frames per second of each model, their spread, and the ratios."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from edge4d.errors import UsageError
from edge4d.plotting import check_plot

if TYPE_CHECKING:
    from edge4d.validators.fps import CandidateFps, FpsReport

__all__ = ["plot_fps"]

_REFERENCE, _NATIVE, _CANDIDATE = "0.45", "tab:orange", "tab:blue"


def plot_fps(report: FpsReport, path: str | Path) -> Path:
    """Draw a bar of frames per second for each model.

    A bar ends at the frames per second of the median latency; its whisker spans those of the latencies from p90 to p10.
    Models that failed have their place without a bar.

    Args:
        report: with numbers of at least one model.
        path: ending in .png, .svg or .pdf.

    Raises:
        UsageError: a path that cannot be a plot, or nothing to draw.
        RuntimeUnavailable: matplotlib is not installed.
        ExportError: it cannot be written.
    """
    check_plot(path)
    if not any(line.frames_per_s for line in report.candidates):
        raise UsageError(f"{path} is not drawn: no model gave numbers", hint="see the reasons above")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from edge4d.files import atomic_write

    lines = report.candidates
    drawn = io.BytesIO()
    # Words stay words, and the same numbers give the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "edge4d"}):
        figure = Figure(figsize=(9, 1.4 + 0.55 * len(lines)), layout="constrained")
        axes = figure.subplots()
        for place, line in enumerate(lines):
            color = _NATIVE if line.is_native else _REFERENCE if place == 0 else _CANDIDATE
            _bar(axes, place, line, color)
        axes.set_yticks(range(len(lines)), [line.name for line in lines])
        axes.set_ylim(len(lines) - 0.5, -0.5)  # the reference on top
        fastest = max(line.frames_per_s for line in lines if line.frames_per_s)
        axes.set_xlim(0, 1.75 * fastest)  # labels stand to the right of their bars
        axes.set_xlabel("frames per second (median latency; whiskers: latencies from p90 to p10)")
        axes.set_title(f"{report.rounds} interleaved rounds on {report.machine.get('cpu')}", fontsize=9)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        kind = Path(path).suffix.lower().lstrip(".")
        figure.savefig(drawn, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    atomic_write(path, drawn.getvalue())
    return Path(path)


def _bar(axes: object, place: int, line: CandidateFps, color: str) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    if line.frames_per_s is None or line.latency_ms is None:
        axes.annotate(
            "failed", (0, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9, color="crimson"
        )
        return
    low, high = (line.frames_per_s * line.latency_ms["p50"] / line.latency_ms[p] for p in ("p90", "p10"))
    # Rounding alone may put the median outside.
    spread = [[max(0.0, line.frames_per_s - low)], [max(0.0, high - line.frames_per_s)]]
    axes.barh(place, line.frames_per_s, height=0.6, color=color)
    axes.errorbar(line.frames_per_s, place, xerr=spread, fmt="none", ecolor="0.15", capsize=3, linewidth=1)
    axes.annotate(_label(line), (high, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9)


def _label(line: CandidateFps) -> str:
    words = [f"{line.frames_per_s:,.0f}"]
    if line.speedup is not None:
        words.append(f"{line.speedup:.2f}× reference")
    if line.speedup_to_native is not None and not line.is_native:
        words.append(f"{line.speedup_to_native:.2f}× native")
    return "  ".join(words)
