"""What `benchmarks.accuracy.tune_budget` recorded, as a table, as curves, and held against the targets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge4d import blocks
from edge4d.files import atomic_write

__all__ = ["CASES", "conditions", "plot", "recipe_of", "render", "verdicts"]

CASES = ("moving-digits", "small-r3d")
DROP, DROP_INT8 = 1.0, 1.5
"""Points below the original that a tuned network, and its int8 export, may lie (without labels)."""
ABOVE = ("proposed-add", "proposed-cat")
"""Structures that should reach the original when there are labels."""


def verdicts(row: dict[str, Any]) -> list[str]:
    """Which of the targets a run misses."""
    said = []
    drop, drop_int8 = (100 * (row["top1_original"] - row[name]) for name in ("top1", "top1_int8"))
    most = 0.0 if row["labels"] and row["block"] in ABOVE else DROP
    if drop > most + 1e-9:
        said.append(f"{drop:.2f} points below the original, at most {most:g}")
    if drop_int8 > DROP_INT8 + 1e-9:
        said.append(f"int8 {drop_int8:.2f} points below it, at most {DROP_INT8:g}")
    return said


def render(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a line a run."""
    lines = [
        "| network | structure | clips | test | original | fitted | tuned | int8 | minutes | steps | ended | target |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    order = {name: place for place, name in enumerate((*CASES, *blocks.names()))}

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        return order[row["case"]], order[row["block"]], row["labels"], recipe_of(row), row["clips"], row["test_clips"]

    for row in sorted(rows, key=place):
        shares = [f"{100 * share:.2f}" for share in _shares(row)]
        given = f"{row['clips']:,}{' with labels' if row['labels'] else ''}"
        given += f", `{recipe_of(row)}`" if recipe_of(row) != "match" else ""
        spent = [f"{row['seconds'] / 60:.1f}", f"{row['steps']:,}"]
        judged = f"{row['test_clips']:,}"
        cells = [row["case"], blocks.get(row["block"]).title, given, judged, *shares, *spent]
        lines.append(f"| {' | '.join([*cells, row['ended'], '; '.join(verdicts(row)) or 'met'])} |")
    return "\n".join(lines)


def conditions(rows: Sequence[dict[str, Any]]) -> str:
    """Under what the runs were made, and how many of them reach their targets."""
    met = sum(not verdicts(row) for row in rows)
    threads = "/".join(map(str, sorted({row["threads"] for row in rows})))
    minutes = ", ".join(
        f"{name} {'/'.join(f'{m:g}' for m in sorted({row['minutes'] for row in rows if row['case'] == name}))}"
        for name in CASES
        if any(row["case"] == name for row in rows)
    )
    return (
        f"{met} of {len(rows)} runs reach their target. CPU threads: {threads}. Minutes of budget: {minutes}. "
        f"Test clips: {', '.join(f'{n:,}' for n in sorted({row['test_clips'] for row in rows}))}; "
        f"seeds {', '.join(map(str, sorted({row['seed'] for row in rows})))}."
    )


def _shares(row: dict[str, Any]) -> tuple[float, float, float, float]:
    return row["top1_original"], row["curve"][0]["top1"], row["top1"], row["top1_int8"]


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy against the time spent: solid without labels, dashed with them, dots between by `train`."""
    import io

    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["case"] for row in rows))
    figure = Figure(figsize=(6.5 * len(names), 5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        colours: dict[str, str] = {}
        for row in (row for row in rows if row["case"] == name):
            at = [point["seconds"] / 60 for point in row["curve"]]
            title = blocks.get(row["block"]).title
            (line,) = axes.plot(
                at,
                [100 * point["top1"] for point in row["curve"]],
                ("-." if recipe_of(row) == "train" else "--") if row["labels"] else "-",
                color=colours.get(title),
                label=title if title not in colours else None,
            )
            colours.setdefault(title, line.get_color())
        originals = {row["test_clips"]: row["top1_original"] for row in rows if row["case"] == name}
        for (count, original), style in zip(sorted(originals.items()), itertools.cycle(("-", ":"))):
            label = f"original, on {count:,} clips"
            axes.axhline(100 * original, color="black", linewidth=0.8, linestyle=style, label=label)
        axes.set(
            title=f"{name} (dashed: with labels; dots between: train)",
            xlabel="minutes of tuning",
            ylabel="top-1 of test clips, %",
        )
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix.lstrip("."), dpi=110)
    atomic_write(path, drawn.getvalue())


def recipe_of(row: dict[str, Any]) -> str:
    """Of a run; the first ones were made before there was another."""
    name: str = row.get("recipe", "match")
    return name
