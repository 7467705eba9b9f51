"""The rows of `benchmarks.engines` as a markdown table, between two markers of a document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.compare import markdown
from edge4d.errors import UsageError
from edge4d.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BEGIN", "END", "into_document", "read_rows", "render"]

BEGIN = "<!-- `python -m benchmarks.engines` writes from here -->"
END = "<!-- to here -->"
_SCHEMA = 1
_KEYS = ("network", "runtime", "precision", "form", "build_s", "size_bytes", "parity", "fps", "failure", "needs")
_HEAD = ["network", "runtime", "form", "error / range", "top-1", "frames/s", "vs PyTorch", "vs native", "MB", "build s"]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a result file.

    Raises:
        UsageError: it cannot be read, holds no row, or one of another layout.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or row.get("schema") != _SCHEMA or any(key not in row for key in _KEYS):
            raise UsageError(f"{path}: line {number} is no row of benchmarks.engines of schema {_SCHEMA}")
    if not rows:
        raise UsageError(f"{path}: holds no row")
    return rows


def into_document(rows: Sequence[Mapping[str, Any]], document: Path) -> None:
    """Put the table between the markers, in place of what stands there.

    Raises:
        UsageError: the document does not have both markers, once and in order.
    """
    try:
        text = document.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{document}: cannot be read: {error}") from error
    if (text.count(BEGIN), text.count(END)) != (1, 1) or text.index(BEGIN) > text.index(END):
        raise UsageError(f"{document} must hold these two lines once, in this order:\n{BEGIN}\n{END}")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    atomic_write(document, f"{head}{BEGIN}\n\n{render(rows)}\n\n{END}{tail}".encode())


def render(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table, and below it on what and how it was measured."""
    body, seen, reasons = [], set(), []
    for row in rows:
        if row["form"] == "eager":
            if row["network"] in seen:  # it is timed again beside each runtime, as the ratios' base
                continue
            seen.add(row["network"])
        body.append(_cells(row))
        for why in (row["failure"], row["needs"]):
            if why is not None:
                reasons.append(f"{row['runtime']}: {' '.join(str(why).split())}")
    parts = [markdown(_HEAD, body, left=3), ""]
    parts += [f"- {why}" for why in dict.fromkeys(reasons)]
    parts += ([""] if reasons else []) + _circumstances(rows)
    return "\n".join(parts)


def _cells(row: Mapping[str, Any]) -> list[str]:
    parity, fps = row["parity"], row["fps"]
    form = {"eager": "5-D, eager", "native-5d": "5-D, fp32"}.get(row["form"], f"4-D, {row['precision']}")
    size = "-" if row["size_bytes"] is None else f"{row['size_bytes'] / 1e6:.1f}"
    build = "-" if row["build_s"] is None else f"{row['build_s']:.1f}"
    place = "needs a GPU" if row["needs"] is not None else "fails" if row["failure"] is not None else "-"
    error = top1 = "-"
    if parity is not None:
        error = f"{parity.get('max_error_of_range', float('nan')):.1e}{'' if parity['ok'] else ' ✗'}"
        top1 = f"{parity['top1']:.1%}"
    elif row["form"] == "rank-4":
        error = place
    speed = [place if row["form"] == "rank-4" else "-", "-", "-"]
    if fps is not None:
        ratios = [fps["ratio_to_pytorch"], fps["ratio_to_native"]]
        speed = [f"{fps['frames_per_s']:,.0f}", *("-" if ratio is None else f"{ratio:.2f}×" for ratio in ratios)]
    return [row["network"], row["runtime"] or "-", form, error, top1, *speed, size, build]


def _circumstances(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        if (fps := row["fps"]) is not None:
            machine = ", ".join(f"{key} {value}" for key, value in fps["machine"].items())
            lines.append(
                f"Measured {row.get('date')}, commit {row.get('commit') or 'unknown'}: {machine}; {fps['rounds']} "
                "interleaved rounds, clips of batch 1."
            )
    versions = dict.fromkeys(f"{row['runtime']} {row['version']}" for row in rows if row.get("version"))
    random = dict.fromkeys(row["network"] for row in rows if row.get("weights") == "random")
    lines = list(dict.fromkeys(lines))
    lines.append(f"Runtimes: {', '.join(versions)}.")
    if random:
        lines.append(f"Random weights with uneven batch norms: {', '.join(random)}; ✗ marks an error above the limit.")
    busy = [row["fps"]["busy"] for row in rows if row["fps"] is not None and row["fps"].get("busy") is not None]
    if busy:
        lines.append(f"Other work took up to {max(busy):.0%} of the processor just before and after the rounds.")
    return lines
