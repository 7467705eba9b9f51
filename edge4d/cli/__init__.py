"""The command line; `main` is what the `edge4d` script calls. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the words after the program's name; those of the process when None.

    Returns:
        The exit code: 0 ok, 1 a finding or a failed parity, 2 usage or unreadable input, 3 a runtime is missing,
        70 a bug of edge4d, 130 interrupted.
    """
    try:
        from edge4d.cli.app import run

        return run(argv)
    except KeyboardInterrupt:  # while this much was imported, or a second time while the first was dealt with
        return 130
