"""Checks of what a session is fed, for runtimes that would convert it, or read beyond its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge4d.errors import PackingError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from edge4d.ports import Port

__all__ = ["check_feeds"]


def check_feeds(path: Path, ports: Sequence[Port], feeds: Mapping[str, Any]) -> None:
    """Refuse packed arrays that a graph does not take as they are.

    Args:
        path: the engine, for messages.
        ports: its inputs; sizes of -1 take any size.
        feeds: arrays by name.

    Raises:
        UsageError: an input is missing or unknown.
        PackingError: another shape or dtype than the input's.
    """
    import numpy as np

    if feeds.keys() != {port.name for port in ports}:
        names = ", ".join(port.name for port in ports)
        raise UsageError(f"{path} takes the inputs {names}, got {', '.join(feeds) or 'none'}")
    for port in ports:
        given = np.asarray(feeds[port.name])
        wrong = len(given.shape) != len(port.physical) or any(
            size not in (-1, got) for size, got in zip(port.physical, given.shape, strict=False)
        )
        if wrong or given.dtype.name != port.dtype:
            raise PackingError(
                f"{path}: input {port.name!r} takes {port.dtype} {port.physical}, got {given.dtype.name} {given.shape}"
            )
