"""Amounts as people write them: ``10m`` of time, ``64MiB`` of memory."""

from __future__ import annotations

import re

from edge4d.errors import UsageError

__all__ = ["parse_bytes", "parse_duration"]

_TIMES = {"": 1, "s": 1, "m": 60, "h": 3600}
_SIZES = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_duration(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``10m``, ``1.5h``.

    Raises:
        UsageError: anything else, or nothing above 0.
    """
    seconds = _amount(text, _TIMES)
    if seconds is None or not seconds > 0:
        raise UsageError(f"{text!r} is no duration", hint="for example 90s, 10m or 1.5h")
    return seconds


def parse_bytes(text: str) -> int:
    """Bytes of ``64MiB``, ``2GiB``, ``100MB`` or ``4096``.

    Raises:
        UsageError: anything else.
    """
    size = _amount(text, _SIZES)
    if size is None:
        raise UsageError(f"{text!r} is not an amount of memory", hint="e.g. 64MiB")
    return int(size)


def _amount(text: str, units: dict[str, int]) -> float | None:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2] not in units:
        return None
    return float(match[1]) * units[match[2]]
