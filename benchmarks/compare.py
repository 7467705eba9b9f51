"""``python -m benchmarks.compare FILE [AFTER]``: a result file as a markdown table, or two of them side by side."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import Edge4dError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["circumstances", "compare", "main", "markdown", "read_rows", "render"]

Row = dict[str, Any]

_SCHEMA = 1
_NUMBERS = (
    ("latency_ms", "p50"),
    ("latency_ms", "p90"),
    ("frames_per_s",),
    ("ratio",),
    ("parity", "max_error_of_range"),
)


def read_rows(path: Path) -> list[Row]:
    """The rows of a result file.

    Raises:
        UsageError: it cannot be read, holds no row, a line that is none, or one candidate of a case twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    rows: list[Row] = []
    seen: set[tuple[str, str]] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{path}:{number}: not JSON: {error}") from error
        if (wrong := _wrong(row)) is not None:
            raise UsageError(f"{path}:{number}: {wrong}", hint="write the file with python -m benchmarks.run")
        if _key(row) in seen:
            raise UsageError(f"{path}:{number}: {'/'.join(_key(row))} stands there twice")
        seen.add(_key(row))
        rows.append(row)
    if not rows:
        raise UsageError(f"{path}: holds no rows")
    return rows


def render(rows: Sequence[Row]) -> str:
    """Rows as a markdown table, and below it what they were measured on."""
    references = ", ".join(dict.fromkeys(row["ratio_to"] for row in rows))
    head = ["case", "clip", "candidate", "p50 ms", "p90 ms", "frames/s", f"vs {references}", "peak MiB", "max error"]
    body = [
        [
            row["case"],
            "×".join(map(str, row["shape"])),
            row["candidate"],
            f"{row['latency_ms']['p50']:.1f}",
            f"{row['latency_ms']['p90']:.1f}",
            f"{row['frames_per_s']:.1f}",
            f"{row['ratio']:.2f}×",
            "-" if row.get("peak_rss_mib") is None else f"{row['peak_rss_mib']:.0f}",
            f"{row['parity']['max_error_of_range']:.1e}",
        ]
        for row in rows
    ]
    return "\n".join([markdown(head, body, left=3), "", *circumstances(rows)])


def compare(before: Sequence[Row], after: Sequence[Row]) -> str:
    """Two result files as a markdown table: medians, and the ratios to the reference of the same run.

    Milliseconds of two runs differ for many reasons; a ratio was taken within one run, round by round, and is what
    can be held against the other's.
    """
    old, new = ({_key(row): row for row in rows} for rows in (before, after))
    head = ["case", "candidate", "p50 ms before", "after", "speedup", "ratio before", "after", "change"]
    body = []
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        cells = [_number(row, "latency_ms", "p50") for row in (a, b)] + [_number(row, "ratio") for row in (a, b)]
        p50, later, ratio, since = cells
        body.append(
            [
                *key,
                _said(p50, ".1f"),
                _said(later, ".1f"),
                _said(p50 / later, ".2f", "×"),
                _said(ratio, ".2f", "×"),
                _said(since, ".2f", "×"),
                _said(100 * (since / ratio - 1), "+.1f", " %"),
            ]
        )
    lines = [markdown(head, body, left=2), "", "Before:", "", *circumstances(before), "", "After:", ""]
    lines += circumstances(after)
    shared = [(old[key], new[key]) for key in old if key in new]
    differing = [
        field
        for field in ("machine", "versions", "shape", "threads", "rounds", "ratio_to")
        if any(a.get(field) != b.get(field) for a, b in shared)
    ]
    if differing:
        lines += ["", f"The two runs differ in {', '.join(differing)}."]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 when a file cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("after", type=Path, nargs="?", help="a second file to hold against the first")
    options = parser.parse_args(argv)
    try:
        rows = read_rows(options.file)
        print(render(rows) if options.after is None else compare(rows, read_rows(options.after)))
    except Edge4dError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _key(row: Row) -> tuple[str, str]:
    return row["case"], row["candidate"]


def _wrong(row: object) -> str | None:
    """Why this is no row; None when it is one."""
    if not isinstance(row, dict):
        return "not a JSON object"
    if row.get("schema") != _SCHEMA:
        return f"schema is {row.get('schema')!r}, expected {_SCHEMA}"
    for name in ("case", "candidate", "ratio_to", "date"):
        if not isinstance(row.get(name), str):
            return f"{name!r} is missing"
    for name, kind in (("shape", list), ("machine", dict), ("versions", dict), ("latency_ms", dict), ("parity", dict)):
        if not isinstance(row.get(name), kind):
            return f"{name!r} is missing"
    for names in _NUMBERS:
        value = _number(row, *names)
        if not math.isfinite(value) or value < 0:
            return f"{'.'.join(names)} is no number"
    if _number(row, "latency_ms", "p50") == 0 or row["ratio"] == 0:
        return "a latency or a ratio of 0"
    return None


def _number(row: Row | None, *names: str) -> float:
    """A number of the row; NaN where it is missing."""
    value: Any = row
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _said(value: float, form: str, unit: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{form}}{unit}"


def circumstances(rows: Sequence[Row]) -> list[str]:
    """One line for each machine, date and set of versions among the rows."""
    lines = []
    for row in rows:
        machine = ", ".join(str(row["machine"].get(key)) for key in ("cpu", "system") if row["machine"].get(key))
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items() if version)
        lines.append(
            f"{row['date']}, commit {row.get('commit') or 'unknown'}: {machine}, {row['machine'].get('cores')} cores; "
            f"{row.get('threads')} threads, "
            f"{'processor time, ' if row.get('clock') == 'processor' else ''}"
            f"{row.get('dtype')}, {row.get('rounds')} interleaved rounds after {row.get('warmup')} warm-up calls; "
            f"{versions}"
        )
    busy = [row["busy"] for row in rows if isinstance(row.get("busy"), int | float)]
    if busy:
        lines.append(f"Other work took up to {max(busy):.0%} of the processor just before and after the measurements.")
    return list(dict.fromkeys(lines))


def markdown(head: list[str], body: list[list[str]], *, left: int) -> str:
    """A markdown table whose source is aligned too; the first `left` columns are flushed left."""
    widths = [max(3, *(len(line[i]) for line in [head, *body])) for i in range(len(head))]
    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = [
        [cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))]
        for line in (head, rule, *body)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
