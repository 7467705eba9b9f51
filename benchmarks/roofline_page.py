"""The rooflines of a record as a page shows them: how near to its bound each network runs, and what that leaves."""

from __future__ import annotations

from statistics import geometric_mean, median
from typing import TYPE_CHECKING, Any

from benchmarks.candidates import EDGE4D_FOR, NATIVE
from benchmarks.compare import circumstances, markdown, read_rows
from benchmarks.ratios import TARGETS, Target, ratio
from edge4d.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

__all__ = ["plot", "read", "reach", "render"]

Row = dict[str, Any]

_KNOWN = ("gflop_s", "gb_s", "macs", "least_macs", "direct_ms", "least_ms", "memory_share")


def read(path: Path) -> list[Row]:
    """The rows of a record that have a roofline; none in records from before there was one.

    Raises:
        UsageError: it is no record, or a roofline lacks something.
    """
    rows = [row for row in read_rows(path) if "roofline" in row]
    for row in rows:
        roof = row["roofline"]
        wrong = [name for name in _KNOWN if not isinstance(roof, dict) or not isinstance(roof.get(name), int | float)]
        if wrong:
            raise UsageError(f"{path}: a roofline without {', '.join(wrong)}", hint="write it with benchmarks.run")
    return rows


def reach(target: Target, cases: Mapping[str, Mapping[str, Row]]) -> str:
    """What a target asks, beside what the bound leaves and what is measured; as one sentence."""
    if gone := [name for name in target.networks if not {NATIVE, EDGE4D_FOR} <= set(cases.get(name, {}))]:
        return f"not in this record: {', '.join(gone)}"
    most = {name: _most(cases[name][NATIVE]) for name in target.networks}
    reached = [ratio(cases[name][EDGE4D_FOR], cases[name][NATIVE]).median for name in target.networks]
    asked = target.least if target.mean is None else target.mean
    beyond = [f"{name} ({value:.2f}×)" for name, value in most.items() if value < asked]
    told = f"at most {geometric_mean(most.values()):.2f}× geometric mean, reached {geometric_mean(reached):.2f}×; "
    return told + (f"{asked:g}× out of reach for {', '.join(beyond)}" if beyond else f"none is bound below {asked:g}×")


def render(rows: Sequence[Row], runtime: str) -> str:
    """The tables, and what was measured on what."""
    cases = _by_case(rows)
    head = ["network", "G MACs", "least", "by memory", "native 5-D ms", "direct bound ms", "native over it"]
    head += [f"`--for {runtime}` ms", "least bound ms", "rank 4 over it", "at most", "reached"]
    body = [_line(name, found) for name, found in cases.items() if NATIVE in found]
    targets = [
        [f"{target.least if target.mean is None else target.mean:g}×", ", ".join(target.networks), reach(target, cases)]
        for target in TARGETS.get(runtime, ())
        if target.over == NATIVE
    ]
    parts = [markdown(head, body, left=1)]
    if targets:
        parts.append(markdown(["target", "networks", "what the bound says"], targets, left=3))
    return "\n\n".join([*parts, _rates(rows), "\n".join(circumstances(rows))])


def plot(rows: Sequence[Row], runtime: str) -> Figure:
    """Times as multiples of the direct bound, network by network: native, rank 4, and the lowest bound."""
    from matplotlib.figure import Figure

    cases = {name: found for name, found in _by_case(rows).items() if NATIVE in found}
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots()
    for place, (form, label, colour) in enumerate(
        ((NATIVE, "native 5-D", "tab:gray"), (EDGE4D_FOR, f"rank 4, --for {runtime}", "tab:orange"))
    ):
        there = [(at, found[form]) for at, found in enumerate(cases.values()) if form in found]
        heights = [row["latency_ms"]["p50"] / row["roofline"]["direct_ms"] for _, row in there]
        axes.bar([at + 0.4 * (place - 0.5) for at, _ in there], heights, 0.38, color=colour, label=label)
    for at, found in enumerate(cases.values()):
        roof = found[NATIVE]["roofline"]
        height = roof["least_ms"] / roof["direct_ms"]
        label = "bound with the fewest multiplications" if at == 0 else None
        axes.plot([at - 0.45, at + 0.45], [height, height], color="tab:red", linewidth=2, label=label)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(cases)), list(cases), rotation=25, ha="right")
    threads = "/".join(map(str, sorted({row["threads"] for row in rows})))
    axes.set(ylabel="times the bound of direct convolutions", title=f"{runtime}, threads: {threads}")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def _by_case(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    cases: dict[str, dict[str, Row]] = {}
    for row in rows:
        cases.setdefault(row["case"], {})[row["candidate"]] = row
    return cases


def _most(native: Row) -> float:
    """How many times as fast as native anything could be that computes its layers by formulations of ours."""
    most: float = native["latency_ms"]["p50"] / native["roofline"]["least_ms"]
    return most


def _line(name: str, found: Mapping[str, Row]) -> list[str]:
    native, row = found[NATIVE], found.get(EDGE4D_FOR)
    roof, taken = native["roofline"], native["latency_ms"]["p50"]
    line = [name, f"{roof['macs'] / 1e9:.3g}", f"{roof['least_macs'] / 1e9:.3g}", f"{roof['memory_share']:.0%}"]
    line += [f"{taken:.3g}", f"{roof['direct_ms']:.3g}", f"{taken / roof['direct_ms']:.2f}"]
    if row is None:
        return [*line, "-", f"{roof['least_ms']:.3g}", "-", f"{_most(native):.2f}×", "-"]
    own = row["latency_ms"]["p50"]
    line += [f"{own:.3g}", f"{roof['least_ms']:.3g}", f"{own / roof['least_ms']:.2f}"]
    return [*line, f"{_most(native):.2f}×", f"{ratio(row, native).median:.2f}×"]


def _rates(rows: Sequence[Row]) -> str:
    roofs = {row["case"]: row["roofline"] for row in rows}.values()
    peaks, bandwidths = ([roof[name] for roof in roofs] for name in ("gflop_s", "gb_s"))
    first = next(iter(roofs))
    return (
        f"Products of square matrices of side {first['side']} reached {median(peaks):.0f} GFLOP/s "
        f"({min(peaks):.0f} to {max(peaks):.0f}), a number added to {first['mebibytes']} MiB {median(bandwidths):.1f} "
        f"GB/s ({min(bandwidths):.1f} to {max(bandwidths):.1f}), in turns with every network."
    )
