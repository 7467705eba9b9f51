"""A record of `benchmarks.run` as a page shows it: a line a network, what was aimed at, and a plot with its spread."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import geometric_mean, median
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.candidates import EDGE4D, EDGE4D_FOR, NATIVE
from benchmarks.compare import circumstances, markdown
from edge4d.validators.fps import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

__all__ = ["TARGETS", "Ratio", "Target", "plot", "ratio", "render", "verdict"]

Row = dict[str, Any]
Cases = dict[str, dict[str, Row]]

_SHOWN = (EDGE4D, EDGE4D_FOR)
_COLOURS = {EDGE4D: "tab:blue", EDGE4D_FOR: "tab:orange"}


@dataclass(frozen=True)
class Target:
    """What a group of networks should reach, times as fast as another candidate.

    Attributes:
        networks: names of cases.
        least: of each of them.
        mean: geometric, over all of them; none is asked where it is None.
        over: the candidate that they are held against.
    """

    networks: tuple[str, ...]
    least: float
    mean: float | None = None
    over: str = NATIVE


_HEAVY = ("r3d_18", "mc3_18", "slow_r50", "i3d_r50", "slowfast_r50", "c3d")
_LIGHT = ("x3d_s", "x3d_m", "csn_r101", "r2plus1d_18", "s3d", "c2d_r50")
_PEER = Target(("x3d_xs",), 1.2, over="efficient_x3d")

TARGETS: Mapping[str, tuple[Target, ...]] = {
    "onnxruntime": (Target(_HEAVY, 1.25, 1.6), Target(("r3d_18", "c3d"), 1.8), Target(_LIGHT, 1.05, 1.25), _PEER),
    "openvino": (Target((*_HEAVY, *_LIGHT), 0.95, 1.15), _PEER),
}
"""By runtime; of what ``--for`` gives."""


class Ratio(NamedTuple):
    """How many times as fast, as the median over the rounds, and where eight of ten rounds lie.

    Attributes:
        median: above 1 is faster.
        low, high: tenth and ninetieth percentile; None where the record does not hold its rounds.
    """

    median: float
    low: float | None = None
    high: float | None = None

    @property
    def spread(self) -> str:
        """``1.90–1.97``, or a dash."""
        return "-" if self.low is None or self.high is None else f"{self.low:.2f}–{self.high:.2f}"


def ratio(row: Row, reference: Row) -> Ratio:
    """A candidate against another of the same case, round by round.

    Where a record of old does not hold its rounds, the ratio is that to the native form in it, or a quotient of two.
    """
    own, other = row.get("turns_ms") or [], reference.get("turns_ms") or []
    if own and len(own) == len(other):
        turns = [theirs / ours for ours, theirs in zip(own, other, strict=True)]
        return Ratio(median(turns), percentile(turns, 10), percentile(turns, 90))
    return Ratio(row["ratio"] / reference["ratio"])


def render(rows: Sequence[Row], runtime: str) -> str:
    """The tables, and what was measured on what.

    Args:
        rows: of one record.
        runtime: what it was measured on.
    """
    cases = _by_case(rows)
    head = ["network", "native 5-D ms"]
    for name in ("rank 4", f"`--for {runtime}`"):
        head += [f"{name} ms", "ratio", "p10–p90"]
    head += ["peak MiB native", "rank 4", "`--for`", "error of range"]
    body = [_line(name, found) for name, found in cases.items() if NATIVE in found]
    targets = [
        [_asked(target), ", ".join(target.networks), verdict(target, cases)] for target in TARGETS.get(runtime, ())
    ]
    parts = [markdown(head, body, left=1)]
    if targets:
        parts.append(markdown(["target", "networks", f"measured with `--for {runtime}`"], targets, left=3))
    return "\n\n".join([*parts, "\n".join(circumstances(rows))])


def verdict(target: Target, cases: Cases) -> str:
    """What the networks of a target reach with ``--for``, and whether that is enough."""
    if gone := [name for name in target.networks if not {target.over, *_SHOWN} <= set(cases.get(name, {}))]:
        return f"not in this record: {', '.join(gone)}"
    reached, plain = (
        {name: ratio(cases[name][form], cases[name][target.over]).median for name in target.networks}
        for form in (EDGE4D_FOR, EDGE4D)
    )
    lowest = min(reached, key=lambda name: reached[name])
    mean, mean_plain = geometric_mean(reached.values()), geometric_mean(plain.values())
    met = reached[lowest] >= target.least and (target.mean is None or mean >= target.mean)
    said = f"least {reached[lowest]:.2f}× ({lowest})" if len(reached) > 1 else f"{mean:.2f}×"
    if target.mean is not None:
        said = f"{mean:.2f}× geometric mean, {said}"
    return f"{said}: {'met' if met else '**not met**'} ({mean_plain:.2f}×{_mean(target)} without `--for`)"


def plot(rows: Sequence[Row], runtime: str) -> Figure:
    """Bars of the ratios to native 5-D, network by network, with the spread over the rounds; peers as marks."""
    from matplotlib.figure import Figure

    cases = {name: found for name, found in _by_case(rows).items() if NATIVE in found}
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots()
    labelled = {EDGE4D: "rank 4", EDGE4D_FOR: f"rank 4, --for {runtime}"}
    for number, form in enumerate(_SHOWN):
        there = [(place, found) for place, found in enumerate(cases.values()) if form in found]
        ratios = [ratio(found[form], found[NATIVE]) for _, found in there]
        at = [place + 0.4 * (number - 0.5) for place, _ in there]
        axes.bar(at, [r.median for r in ratios], 0.38, color=_COLOURS[form], label=labelled[form])
        for x, r in zip(at, ratios, strict=True):
            if r.low is not None and r.high is not None:
                axes.plot([x, x], [r.low, r.high], color="black", linewidth=1.2)
    for place, found in enumerate(cases.values()):
        for name in set(found) & {target.over for target in TARGETS.get(runtime, ())} - {NATIVE}:
            axes.plot(place, ratio(found[name], found[NATIVE]).median, "D", color="tab:green", label=name)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(cases)), list(cases), rotation=25, ha="right")
    threads = "/".join(map(str, sorted({row["threads"] for row in rows})))
    axes.set(ylabel="times as fast as native 5-D", title=f"{runtime}, threads: {threads}; lines: p10 to p90 of rounds")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def _by_case(rows: Sequence[Row]) -> Cases:
    cases: Cases = {}
    for row in rows:
        cases.setdefault(row["case"], {})[row["candidate"]] = row
    return cases


def _line(name: str, found: Mapping[str, Row]) -> list[str]:
    native = found[NATIVE]
    line = [name, _ms(native)]
    for form in _SHOWN:
        if form in found:
            reached = ratio(found[form], native)
            line += [_ms(found[form]), f"{reached.median:.2f}×", reached.spread]
        else:
            line += ["-", "-", "-"]
    line += [_mib(found.get(form)) for form in (NATIVE, *_SHOWN)]
    errors = [found[form]["parity"]["max_error_of_range"] for form in _SHOWN if form in found]
    return [*line, f"{max(errors):.0e}" if errors else "-"]


def _ms(row: Row) -> str:
    value = row["latency_ms"]["p50"]
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _mib(row: Row | None) -> str:
    value = math.nan if row is None else row.get("peak_rss_mib") or math.nan
    return "-" if math.isnan(value) else f"{value:.0f}"


def _asked(target: Target) -> str:
    over = "" if target.over == NATIVE else f" against `{target.over}`"
    each = f"none below {target.least:g}×" if len(target.networks) > 1 else f"{target.least:g}×"
    return (f"mean {target.mean:g}×, " if target.mean is not None else "") + each + over


def _mean(target: Target) -> str:
    return " geometric mean" if len(target.networks) > 1 else ""
