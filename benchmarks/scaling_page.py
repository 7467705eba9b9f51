"""A record of `benchmarks.scaling` as a page shows it: the time of each size, how it grows, and plots with the peak."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.candidates import EDGE4D, EDGE4D_FOR, NATIVE
from benchmarks.compare import circumstances, markdown, read_rows
from benchmarks.ratios import ratio
from benchmarks.sweeps import FACTORS
from edge4d.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

__all__ = ["growth", "plot", "read", "render", "sweeps_of"]

Row = dict[str, Any]
Sweep = dict[str, list[tuple[int, Row]]]

_SHOWN = (NATIVE, EDGE4D, EDGE4D_FOR)
_STYLES = {NATIVE: ("tab:gray", "s"), EDGE4D: ("tab:blue", "o"), EDGE4D_FOR: ("tab:orange", "^")}


def read(path: Path) -> list[Row]:
    """The rows of a record.

    Raises:
        UsageError: it is none, or one that `benchmarks.scaling` did not write.
    """
    rows = read_rows(path)
    for row in rows:
        known = {"network": str, "factors": dict, "varies": list, "macs": int, "gflop_s": float, "gemm": dict}
        if wrong := [name for name, kind in known.items() if not isinstance(row.get(name), kind)]:
            raise UsageError(f"{path}: a row without {', '.join(wrong)}", hint="write it with benchmarks.scaling")
    return rows


def sweeps_of(rows: Sequence[Row]) -> dict[tuple[str, str], Sweep]:
    """By network and factor: of each candidate its rows, with the factor's size, in the order of sizes."""
    found: dict[tuple[str, str], Sweep] = {}
    for row in rows:
        for factor in row["varies"]:
            sweep = found.setdefault((row["network"], factor), {})
            sweep.setdefault(row["candidate"], []).append((row["factors"][factor], row))
    for sweep in found.values():
        for line in sweep.values():
            line.sort(key=lambda entry: entry[0])
    return {key: found[key] for key in sorted(found, key=lambda key: FACTORS.index(key[1]))}


def growth(line: Sequence[tuple[int, Row]]) -> float | None:
    """The exponent p of *time ∝ size^p*, the least squares of logarithms; None where there is but one size."""
    if len(line) < 2:
        return None
    xs, ys = ([math.log(value) for value in values] for values in zip(*map(_sized, line), strict=True))
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    across = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return across / sum((x - mean_x) ** 2 for x in xs)


def render(rows: Sequence[Row], runtime: str) -> str:
    """The tables, and what was measured on what."""
    cases: dict[str, dict[str, Row]] = {}
    for row in rows:
        cases.setdefault(row["case"], {})[row["candidate"]] = row
    forms = ("native 5-D", "rank 4", f"`--for {runtime}`")
    head = ["network", *FACTORS, "G MACs", f"{forms[0]} ms"]
    head += [cell for form in forms[1:] for cell in (f"{form} ms", "ratio")]
    head += ["GFLOP/s native", "rank 4", "`--for`", "GEMM", "error of range"]
    body = [_line(found) for found in cases.values() if NATIVE in found]
    grown = [
        [network, factor, f"{_sizes(sweep)}", *(_exponent(sweep.get(form, [])) for form in _SHOWN)]
        for (network, factor), sweep in sweeps_of(rows).items()
    ]
    grown.sort(key=lambda cells: list(dict.fromkeys(row["network"] for row in rows)).index(cells[0]))
    return "\n\n".join(
        [
            markdown(["network", "factor", "sizes", *forms], grown, left=3),
            markdown(head, body, left=1),
            _peak(rows),
            "\n".join(circumstances(rows)),
        ]
    )


def plot(rows: Sequence[Row], runtime: str) -> Figure:
    """Above the time, below what is achieved of the original network's work, for each network and factor."""
    from matplotlib.figure import Figure

    sweeps = sweeps_of(rows)
    networks = list(dict.fromkeys(row["network"] for row in rows))
    order = sorted(sweeps, key=lambda key: networks.index(key[0]))
    figure = Figure(figsize=(3.1 * len(order), 6.4), layout="constrained")
    panels = figure.subplots(2, len(order), squeeze=False)
    labels = {NATIVE: "native 5-D", EDGE4D: "rank 4", EDGE4D_FOR: f"rank 4, --for {runtime}"}
    for column, key in enumerate(order):
        time, rate = panels[0][column], panels[1][column]
        for form in (form for form in _SHOWN if form in sweeps[key]):
            sizes, taken = zip(*sweeps[key][form], strict=True)
            colour, mark = _STYLES[form]
            spans = [[row["latency_ms"][name] for row in taken] for name in ("p10", "p50", "p90")]
            time.plot(sizes, spans[1], marker=mark, color=colour, label=labels[form])
            time.fill_between(sizes, spans[0], spans[2], color=colour, alpha=0.25)
            rate.plot(sizes, [row["gflop_s"] for row in taken], marker=mark, color=colour)
        sizes, taken = zip(*sweeps[key].get(NATIVE, []), strict=True)
        peaks = [row["gemm"]["gflop_s"] for row in taken]
        rate.plot(sizes, peaks, "--", color="black", label="product of matrices")
        time.set(title=f"{key[0]}: {key[1]}", xscale="log", yscale="log")
        rate.set(xlabel=key[1], xscale="log", ylim=(0, None))
        for axes in (time, rate):
            axes.set_xticks(sizes, list(map(str, sizes)))
            axes.minorticks_off()
            axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("ms a call; shaded: p10 to p90")
    panels[1][0].set_ylabel("GFLOP/s of the original network's work")
    panels[0][0].legend(fontsize=8)
    panels[1][0].legend(fontsize=8)
    return figure


def _sized(entry: tuple[int, Row]) -> tuple[float, float]:
    return entry[0], entry[1]["latency_ms"]["p50"]


def _sizes(sweep: Sweep) -> str:
    sizes = sorted({size for line in sweep.values() for size, _ in line})
    return f"{sizes[0]} to {sizes[-1]}"


def _exponent(line: Sequence[tuple[int, Row]]) -> str:
    power = growth(line)
    return "-" if power is None else f"{power:.2f}"


def _line(found: dict[str, Row]) -> list[str]:
    native = found[NATIVE]
    line = [native["network"], *(str(native["factors"].get(factor, "-")) for factor in FACTORS)]
    line += [f"{native['macs'] / 1e9:.3g}", f"{native['latency_ms']['p50']:.3g}"]
    for form in (EDGE4D, EDGE4D_FOR):
        row = found.get(form)
        line += ["-", "-"] if row is None else [f"{row['latency_ms']['p50']:.3g}", f"{ratio(row, native).median:.2f}×"]
    line += [f"{found[form]['gflop_s']:.0f}" if form in found else "-" for form in _SHOWN]
    errors = [row["parity"]["max_error_of_range"] for form, row in found.items() if form != NATIVE]
    return [*line, f"{native['gemm']['gflop_s']:.0f}", f"{max(errors):.0e}" if errors else "-"]


def _peak(rows: Sequence[Row]) -> str:
    peaks = {row["case"]: row["gemm"] for row in rows}
    rates = [found["gflop_s"] for found in peaks.values()]
    sides = "/".join(map(str, sorted({found["side"] for found in peaks.values()})))
    return (
        f"Products of square matrices of side {sides} reached {median(rates):.0f} GFLOP/s "
        f"({min(rates):.0f} to {max(rates):.0f}), in turns with every size. GFLOP/s of a network count the "
        "multiplications and additions of its original form."
    )
