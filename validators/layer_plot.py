"""The error of each layer as a picture: where it begins, and how it goes on."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from edge4d.errors import RuntimeUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge4d.validators.layers import LayersReport

__all__ = ["layer_svg", "require_matplotlib"]

_LEAST = 1e-9
"""What is drawn for an error of nothing, on a logarithmic axis."""
_LABELS = 60
"""Above so many layers only every so manieth is named."""


def require_matplotlib(what: str) -> None:
    """Say before the work what would be missing after it.

    Raises:
        RuntimeUnavailable: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401, RUF100 - only whether it is there
    except ImportError as error:
        raise RuntimeUnavailable(f"{what} needs matplotlib", hint='pip install "edge4d[plots]"') from error


def layer_svg(reports: Mapping[str, LayersReport]) -> str:
    """Error over range of each layer, in the order in which they finish, as an ``<svg>`` element.

    Args:
        reports: by the candidate's name; those whose layers were not compared are left out by the caller.

    Raises:
        RuntimeUnavailable: matplotlib is not installed.
    """
    require_matplotlib("the plot of the layers")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.name for report in reports.values() for row in report.report.rows))
    places = {name: place for place, name in enumerate(names)}
    # Words stay words, and the same numbers give the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "edge4d"}):
        figure = Figure(figsize=(max(7.0, min(len(names), _LABELS) * 0.24), 5.2), layout="constrained")
        axes = figure.subplots()
        limits: dict[int, float] = {}
        for candidate, report in reports.items():
            rows = [row for row in report.report.rows if row.difference is not None]
            at = [places[row.name] for row in rows]
            errors = [max(row.difference.relative, _LEAST) for row in rows if row.difference is not None]
            (line,) = axes.plot(at, errors, ".-", linewidth=1, label=candidate)
            bad = [(x, y) for x, y, row in zip(at, errors, rows, strict=True) if not row.ok]
            if bad:
                axes.plot(*zip(*bad, strict=True), "x", color="crimson", markersize=8)
            if (first := report.first) is not None and first.difference is not None:
                peak = max(first.difference.relative, _LEAST)
                axes.annotate(
                    first.name,
                    (places[first.name], peak),
                    xytext=(-8, 4),
                    textcoords="offset points",
                    horizontalalignment="right",
                    color=line.get_color(),
                    fontsize=9,
                )
            limits |= {x: row.allowed for x, row in zip(at, rows, strict=True) if row.allowed}
        if limits:
            axes.step([*limits], [*limits.values()], where="mid", color="grey", linestyle="--", linewidth=1)
            axes.plot([], [], "--", color="grey", linewidth=1, label="allowed")
        step = -(-len(names) // _LABELS)
        axes.set_xticks(range(0, len(names), step), names[::step], rotation=90, fontsize=7)
        axes.set_yscale("log")
        axes.set_ylabel("greatest error / range of the layer's output")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]
