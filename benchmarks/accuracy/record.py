"""The log: one JSON object a line, one line a finished training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError
from edge4d.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["SCHEMA", "append", "finished", "read"]

SCHEMA = 1
_NEEDED = ("recipe", "chain", "structure", "seed", "key", "top1", "test_clips")


def read(path: Path) -> list[dict[str, Any]]:
    """All lines of a log; none when there is no file.

    Raises:
        UsageError: a line that is not one of this log.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict) or row.get("schema") != SCHEMA or (lost := [k for k in _NEEDED if k not in row]):
            said = f"lacks {', '.join(lost)}" if isinstance(row, dict) and row.get("schema") == SCHEMA else "is no line"
            raise UsageError(f"{path}:{number}: {said} of this log", hint="give another file with --out")
        rows.append(row)
    return rows


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line; a reader, or a crash, never sees half of it."""
    former = path.read_bytes() if path.exists() else b""
    atomic_write(path, former + json.dumps(row).encode() + b"\n")


def finished(rows: Iterable[Mapping[str, Any]], wanted: Mapping[str, Any]) -> bool:
    """Whether a training is in the log.

    Args:
        rows: of the log.
        wanted: recipe, chain, structure, seed and key of the training.

    Raises:
        UsageError: it is there, made with other options.
    """
    names = ("recipe", "chain", "structure", "seed")
    for row in rows:
        if all(row[name] == wanted[name] for name in names):
            if row["key"] == wanted["key"]:
                return True
            what = f"{row['recipe']} {' → '.join(row['chain'])} {row['structure']} seed {row['seed']}"
            raise UsageError(
                f"the log holds {what} as another configuration gave it ({row['key']}, now {wanted['key']})",
                hint="give a new file with --out, so that one table does not mix the two",
            )
    return False
