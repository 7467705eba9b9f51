"""Where a finding can be shown: in the model's file, or at the Python line that its layer was written at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from edge4d.validators.findings import Finding, Report

__all__ = ["relative", "source_place", "told", "uri"]


def relative(path: str, root: Path) -> str:
    """A path as seen from `root`, with forward slashes; as it is when it does not lie below."""
    full = Path(os.path.abspath(Path(root, path)))  # noqa: PTH100 - links stay what they are called
    try:
        return full.relative_to(Path(os.path.abspath(root))).as_posix()  # noqa: PTH100
    except ValueError:
        return full.as_posix()


def source_place(line: str | None, root: Path) -> tuple[str, int] | None:
    """``("net.py", 9)`` of ``net.py:9``; None unless such a file lies below `root` and is so long.

    Metadata of a model is not to be trusted: it must not make a report point to somewhere else.
    """
    path, _, number = (line or "").rpartition(":")
    if not path or not number.isascii() or not number.isdigit() or len(number) > 7 or int(number) == 0:
        return None
    shown = relative(path, root)
    if shown.startswith("/") or ":" in shown or "\0" in shown or not Path(root, shown).is_file():
        return None
    return shown, int(number)


def uri(path: str) -> str:
    """A path as a URI reference."""
    return quote(path, safe="/", errors="surrogateescape")  # file names may hold bytes that are no text


def told(report: Report, item: Finding) -> str:
    """Profile, place and message in one line, for forms that show a finding by itself."""
    parts = (str(report.settings.get("profile", "")), item.where.to_text(), item.message)
    return ": ".join(part for part in parts if part)
