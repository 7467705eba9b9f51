"""Tables for people, of plain text."""

from __future__ import annotations

__all__ = ["table"]


def table(columns: list[str], rows: list[list[str]], *, right: tuple[int, ...] = ()) -> str:
    """Aligned columns of plain text.

    Args:
        columns: the headings.
        rows: one list of cells a line.
        right: the columns that are flushed right (numbers).
    """
    widths = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]
    lines = [
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in [columns, ["-" * w for w in widths], *rows]
    ]
    return "\n".join(line.rstrip() for line in lines)
