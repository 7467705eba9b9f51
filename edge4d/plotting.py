"""Something like the paper's figure 4: how much smaller against how much faster."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import RuntimeUnavailable, UsageError

if TYPE_CHECKING:
    from edge4d.comparison_table import Comparison

__all__ = ["check_plot", "plot"]

_FORMATS = (".png", ".svg", ".pdf")
_BASE = "conv3d"


def check_plot(path: str | Path) -> None:
    """Refuse before the long work what `plot` would refuse after it.

    Raises:
        UsageError: an ending other than .png, .svg or .pdf, or a folder that does not exist.
        RuntimeUnavailable: matplotlib is not installed.
    """
    target = Path(path)
    if target.suffix.lower() not in _FORMATS:
        raise UsageError(f"{target}: a plot ends in {', '.join(_FORMATS)}", hint="write --plot out.png")
    if not target.parent.is_dir():
        raise UsageError(f"{target}: there is no folder {target.parent}", hint="create it first")
    try:
        import matplotlib.figure  # noqa: F401, RUF100 - only whether it is there
    except ImportError as error:
        raise RuntimeUnavailable("a plot needs matplotlib", hint='pip install "edge4d[plots]"') from error


def plot(comparison: Comparison, path: str | Path) -> Path:
    """Draw compression (parameters of Conv3D over a structure's) against speed (frames per second over Conv3D's).

    Filled marks are measured, hollow ones are the paper's (on a V100; its figure multiplies speed by accuracy, which
    untrained networks do not have). Without a measured speed, multiply-accumulates stand for it.

    Args:
        comparison: with a line for Conv3D.
        path: ending in .png, .svg or .pdf.

    Raises:
        UsageError: a path that cannot be a plot, or no Conv3D to compare with.
        RuntimeUnavailable: matplotlib is not installed.
    """
    check_plot(path)
    base = comparison.row(_BASE)
    if base is None:
        raise UsageError("a plot compares with Conv3D, which is not among the structures", hint="add --block conv3d")
    from matplotlib.figure import Figure

    from edge4d.files import atomic_write

    timed = base.frames_per_s is not None
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    for row in comparison.rows:
        speed = _over(row.frames_per_s, base.frames_per_s) if timed else base.macs / row.macs
        if speed is None:
            continue
        small = base.parameters / row.parameters
        (mark,) = axes.plot(speed, small, "o", markersize=8, label=row.title)
        axes.annotate(row.title, (speed, small), xytext=(6, 5), textcoords="offset points", fontsize=9)
        if row.paper is not None and base.paper is not None:
            at = _paper(row.paper, base.paper, timed)
            axes.plot(*at, "o", markersize=8, markerfacecolor="none", color=mark.get_color())
            axes.plot([speed, at[0]], [small, at[1]], ":", linewidth=0.8, color=mark.get_color())
    measured = "frames per second, times those of Conv3D" if timed else "MACs of Conv3D over those of the structure"
    axes.set_xlabel(measured)
    axes.set_ylabel("parameters of Conv3D over those of the structure")
    hollow = "; hollow: the paper" if base.paper is not None else ""
    axes.set_title(f"{comparison.model}, {comparison.input_shape[2]} frames (up and right is better{hollow})")
    axes.grid(alpha=0.3)
    axes.margins(x=0.12)  # names stand to the right of their marks
    drawn = io.BytesIO()
    figure.savefig(drawn, format=Path(path).suffix.lower().lstrip("."), dpi=150)
    atomic_write(path, drawn.getvalue())
    return Path(path)


def _over(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def _paper(own: Any, base: Any, timed: bool) -> tuple[float, float]:
    speed = own.frames_per_s / base.frames_per_s if timed else base.macs / own.macs
    return speed, base.parameters / own.parameters
