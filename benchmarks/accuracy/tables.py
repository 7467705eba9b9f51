"""The paper's tables III and IV beside what was measured here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from edge4d import blocks
from edge4d.errors import UsageError
from edge4d.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["COLUMNS", "Cell", "Column", "cells_of", "render", "write"]


@dataclass(frozen=True)
class Column:
    """One column of the paper.

    Attributes:
        title: here.
        recipe, chain: which trainings it is.
        paper: where it stands there.
        values: top-1 there, in percent, in the order of `blocks.names`.
    """

    title: str
    recipe: str
    chain: tuple[str, ...]
    paper: str
    values: tuple[float, ...]


COLUMNS = (
    Column(
        "source, from scratch", "scratch", ("source",), "Kinetics-400, Table III",
        (55.63, 57.91, 59.41, 57.90, 56.77, 57.83, 59.40, 56.14),
    ),
    Column(
        "target, from scratch", "scratch", ("target",), "UCF-101, Table III",
        (72.85, 69.00, 70.15, 75.79, 67.88, 69.62, 71.56, 64.12),
    ),
    Column(
        "target, fine-tuned", "finetune", ("source", "target"), "UCF-101, Table IV",
        (88.48, 90.31, 91.21, 90.62, 90.44, 90.31, 91.01, 86.41),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One structure's top-1 in percent.

    Attributes:
        mean: over seeds.
        spread: sample standard deviation over seeds; None for one seed.
        seeds: how many.
    """

    mean: float
    spread: float | None
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + (f" ± {self.spread:.1f}" if self.spread is not None else "")


def cells_of(rows: Sequence[Mapping[str, Any]], column: Column) -> dict[str, Cell]:
    """Mean and spread of each structure that has a line in the log."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["recipe"] == column.recipe and tuple(row["chain"]) == column.chain:
            found.setdefault(row["structure"], []).append(100 * row["top1"])
    return {
        name: Cell(mean(values), stdev(values) if len(values) > 1 else None, len(values))
        for name, values in found.items()
    }


def render(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line a structure, and how far the order is the paper's.

    Raises:
        UsageError: the log holds none of the three columns.
    """
    columns = [(column, cells) for column in COLUMNS if (cells := cells_of(rows, column))]
    if not columns:
        raise UsageError("the log holds no training of the recipes scratch and finetune on source and target")
    parameters = {row["structure"]: row["parameters"] for row in rows}
    head = ["structure", "parameters"]
    for column, _ in columns:
        head += [column.title, f"*{column.paper}*"]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for number, name in enumerate(blocks.names()):
        if name not in parameters:
            continue
        line = [blocks.get(name).title, f"{parameters[name]:,}"]
        for column, found in columns:
            line += [str(found[name]) if name in found else "", f"*{column.values[number]:.2f}*"]
        lines.append(_line(line))
    lines.append("")
    lines += [f"- {column.title}: {_order(column, found)}" for column, found in columns]
    tested = sorted({row["test_clips"] for row in rows})
    lines.append(
        f"- Top-1 in percent, mean ± standard deviation over seeds; {' or '.join(map(str, tested))} test clips, on "
        f"which chance alone moves a value near 80 % by {100 * math.sqrt(0.16 / min(tested)):.1f} points."
    )
    return "\n".join(lines)


def _order(column: Column, cells: Mapping[str, Cell]) -> str:
    """How the order of the structures agrees with the paper's."""
    paper = dict(zip(blocks.names(), column.values, strict=True))
    seeds = sorted({cell.seeds for cell in cells.values()})
    said = f"{'–'.join(map(str, seeds))} seed{'s' if seeds != [1] else ''}"
    pairs = [(a, b) for a, b in combinations(cells, 2) if paper[a] != paper[b]]
    if not pairs:
        return said
    agreeing = [_agree(cells, paper, pair) for pair in pairs]
    apart = [agree for agree, (a, b) in zip(agreeing, pairs, strict=True) if _apart(cells[a], cells[b])]
    said += f"; {sum(agreeing)} of {len(pairs)} pairs of structures stand in the paper's order"
    if max(seeds) > 1:
        said += f", and {sum(apart)} of the {len(apart)} pairs that lie further apart than their seeds do"
    if "conv3d" in cells:
        above = [blocks.get(n).title for n, c in cells.items() if c.mean > cells["conv3d"].mean]
        there = [blocks.get(n).title for n in cells if paper[n] > paper["conv3d"]]
        said += f". Above Conv3D here: {', '.join(above) or 'none'}; in the paper: {', '.join(there) or 'none'}"
    return said


def _agree(cells: Mapping[str, Cell], paper: Mapping[str, float], pair: tuple[str, str]) -> bool:
    a, b = pair
    return (cells[a].mean - cells[b].mean) * (paper[a] - paper[b]) > 0


def _apart(a: Cell, b: Cell) -> bool:
    """Whether the means differ by more than both spreads together (as independent errors add)."""
    return abs(a.mean - b.mean) > math.hypot(a.spread or 0.0, b.spread or 0.0)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write(path: Path, text: str, name: str) -> None:
    """Put `text` between ``<!-- NAME -->`` and ``<!-- /NAME -->`` of a page.

    Raises:
        UsageError: the page has no such pair of markers.
        ExportError: it cannot be written.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    try:
        page = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UsageError(f"{path} has no place for the table", hint=f"write {begin} and {end} on lines of their own")
    atomic_write(path, f"{before}{begin}\n\n{text}\n\n{end}{after}".encode())
