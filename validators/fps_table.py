"""A measurement of speed for people: a table of speed, one of cost, and what the dashes in them stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge4d.tables import table

if TYPE_CHECKING:
    from edge4d.validators.fps import CandidateFps, FpsReport

__all__ = ["report_text"]

_SPEED = ["model", "frames/s", "clips/s", "p50 ms", "p90 ms", "p99 ms", "min ms", "pack ms", "copy ms", "speedup"]
_COST = ["model", "runs on", "build s", "load s", "size MB", "peak MiB"]


def report_text(report: FpsReport) -> str:
    """See `edge4d.validators.fps.FpsReport.to_text`."""
    lines = report.candidates
    native = any(line.native is not None for line in lines)
    head = [*_SPEED, "vs native"] if native else _SPEED
    speed = [[line.name, *_speed(line, native)] for line in lines]
    cost = [[line.name, *_cost(line)] for line in lines]
    right = tuple(range(1, len(head)))
    parts = [table(head, speed, right=right), "", table(_COST, cost, right=(2, 3, 4, 5)), ""]
    for line in lines:
        if line.failure is not None:
            parts.append(f"{line.name} failed: {line.failure}")
        elif line.incomparable is not None:
            parts.append(f"{line.name}: no speedup, {line.incomparable}")
    parts += _unknown(lines)
    said = ", ".join(f"{key} {value}" for key, value in report.machine.items())
    parts.append(f"{report.rounds} interleaved rounds after {report.warmup} warm-up calls; {said}")
    return "\n".join(parts)


def _speed(line: CandidateFps, native: bool) -> list[str]:
    if line.latency_ms is None:
        return ["failed", *["-"] * (len(_SPEED) - 2 + native)]
    latency = [_number(line.latency_ms[key], 2) for key in ("p50", "p90", "p99", "min")]
    return [
        _number(line.frames_per_s, 1),
        _number(line.clips_per_s, 2),
        *latency,
        _number(line.pack_ms, 2),
        _number(line.copy_ms, 2),
        _times(line.speedup),
        *([_times(line.speedup_to_native)] if native else []),
    ]


def _cost(line: CandidateFps) -> list[str]:
    told = [line.details.get("runtime"), line.details.get("version"), line.details.get("precision")]
    size = None if line.size_bytes is None else line.size_bytes / 1e6
    return [
        " ".join(str(word) for word in told if word is not None) or "-",
        _number(line.build_s, 2),
        _number(line.load_s, 2),
        _number(size, 2),
        _number(line.peak_rss_mib, 0),
    ]


def _unknown(lines: tuple[CandidateFps, ...]) -> list[str]:
    """One line for each reason behind a dash, with the models that it holds for."""
    reasons: dict[str, list[str]] = {}
    for line in lines:
        known = {"copy ms": line.copy_unknown, "build s": line.build_unknown, "size MB": line.size_unknown}
        for column, why in known.items():
            if why is not None and (column != "copy ms" or line.failure is None):
                reasons.setdefault(f"no {column}: {why}", []).append(line.name)
    return [f"{why} ({', '.join(names)})" for why, names in reasons.items()]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"
