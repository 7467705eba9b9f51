"""Frames per second as a measurement: interleaved rounds, percentiles, memory, and what was measured on what.

Candidates take turns (A B A B…), so that a machine that warms up or is disturbed disturbs all of them, and the ratio
to the reference is the median over the rounds of each round's own ratio. A candidate that fails is reported as failed,
with its reason; the others go on.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge4d.errors import Edge4dError, UsageError
from edge4d.validators.fps_floors import Floors, Shortfall

__all__ = ["CandidateFps", "FpsReport", "Samples", "bench", "machine", "percentile", "summarise"]

SCHEMA = 1
"""Version of `FpsReport.to_dict`'s layout."""

_MS = 1e-6  # nanoseconds to milliseconds


@dataclass
class Samples:
    """What one candidate gave, before statistics.

    Attributes:
        run_ns: for each round the nanoseconds of each call, the runtime's work alone.
        pack_ns: the nanoseconds of packing the inputs and unpacking the outputs, for each call.
        copy_ns: the nanoseconds of copies to and from the device, for each call, where the runtime tells them apart.
        copy_unknown: why it has none to tell.
        clips: N of the inputs: clips in one call.
        frames: N * T of the inputs: frames in one call.
        load_rss_mib: highest resident memory of the process once the model was loaded; None where it is not measured.
        peak_rss_mib: the same after all runs.
        load_s: seconds to import the runtime and to load the model, which is when some runtimes compile it.
        facts: size and build time of the file, as `edge4d.validators.fps_facts.facts_of` gives them.
        details: runtime, version, provider, threads, input shapes…
        failure: why it gave no numbers.
        exit_code: what the command ends with because of that: 1, or 2 for a file that cannot be read, …
        incomparable: why its numbers must not be set against the reference's.
        is_native: it is a native 5-D form, which was made for the comparison.
        native: name of the native 5-D form on the same runtime and device, in the same measurement.
    """

    run_ns: list[list[int]] = field(default_factory=list)
    pack_ns: list[int] = field(default_factory=list)
    copy_ns: list[int] = field(default_factory=list)
    copy_unknown: str | None = None
    clips: int = 1
    frames: int = 1
    load_rss_mib: float | None = None
    peak_rss_mib: float | None = None
    load_s: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    exit_code: int = 1
    incomparable: str | None = None
    is_native: bool = False
    native: str | None = None


@dataclass(frozen=True)
class CandidateFps:
    """One line of the table; every number but those of the file is None when the candidate failed.

    Attributes:
        name: as given.
        samples: calls that were timed.
        latency_ms: p10, p50, p90, p99 and min of one call, packing and (where they are told apart) copies left out.
        turns_ms: the median call of each round, in the order of the rounds; what ratios to any other candidate, and
            their spread, are made of.
        pack_ms: median time of packing and unpacking in one call; None where there is none to do.
        copy_ms: median time of copies to and from the device in one call; None where they are not told apart.
        copy_unknown: why they are not.
        clips_per_s: clips in a call over the median latency.
        frames_per_s: frames in a call over the median latency.
        speedup: the reference's latency over this one's, median of the rounds; above 1 is faster than the reference.
        speedup_to_native: the same against the native 5-D form on the same runtime; None where there is none.
        native: that form's name.
        is_native: this is such a form.
        build_s: seconds that the runtime's compiler took to build this file, by its recipe.
        build_unknown: why they are not known.
        size_bytes: of the file, weights and engine files beside it included.
        size_unknown: why it is not known.
        load_s: seconds to import the runtime and to load the model.
        load_rss_mib: highest resident memory (MiB) of the candidate's own process once the model was loaded.
        peak_rss_mib: the same after all runs, the interpreter and the runtime's libraries included.
        details: runtime, version, provider, threads, input shapes.
        failure: why there are no numbers.
        exit_code: 0 with numbers; else what the command ends with because of that failure.
        incomparable: why there is no speedup although there are numbers.
    """

    name: str
    samples: int = 0
    latency_ms: Mapping[str, float] | None = None
    turns_ms: tuple[float, ...] = ()
    pack_ms: float | None = None
    copy_ms: float | None = None
    copy_unknown: str | None = None
    clips_per_s: float | None = None
    frames_per_s: float | None = None
    speedup: float | None = None
    speedup_to_native: float | None = None
    native: str | None = None
    is_native: bool = False
    build_s: float | None = None
    build_unknown: str | None = None
    size_bytes: int | None = None
    size_unknown: str | None = None
    load_s: float | None = None
    load_rss_mib: float | None = None
    peak_rss_mib: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None
    exit_code: int = 0
    incomparable: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping of the attributes."""
        return {name: dict(v) if isinstance(v, Mapping) else v for name, v in vars(self).items()}


@dataclass(frozen=True)
class FpsReport:
    """The measurement.

    Attributes:
        candidates: the reference first.
        rounds: how often each candidate had its turn.
        warmup: calls of each that were not timed.
        machine: processor, cores, system.
        floors: what the candidates are held to.
    """

    candidates: tuple[CandidateFps, ...]
    rounds: int
    warmup: int
    machine: Mapping[str, Any]
    floors: Floors = field(default_factory=Floors)

    @property
    def ok(self) -> bool:
        """Whether every candidate gave numbers and none is too slow; false for a report without candidates."""
        return self.exit_code == 0

    @property
    def shortfalls(self) -> tuple[Shortfall, ...]:
        """The candidates below a floor."""
        return self.floors.shortfalls(self.candidates)

    @property
    def exit_code(self) -> int:
        """What weighs most of the candidates' own: 70, 2, 1, then 3; 1 for a report without candidates.

        One that failed has its own code, and is not too slow besides; one that was measured and is too slow counts 1.
        """
        found = {candidate.exit_code for candidate in self.candidates} or {1}
        failed = {candidate.name for candidate in self.candidates if candidate.failure is not None}
        if any(shortfall.name not in failed for shortfall in self.shortfalls):
            found |= {1}
        return next((code for code in (70, 2, 1, 3) if code in found), 0)

    def held_to(self, floors: Floors) -> FpsReport:
        """The same measurement with other floors."""
        return replace(self, floors=floors)

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "schema": SCHEMA,
            "ok": self.ok,
            "reference": self.candidates[0].name if self.candidates else None,
            "rounds": self.rounds,
            "warmup": self.warmup,
            "machine": dict(self.machine),
            "floors": self.floors.to_dict(self.candidates),
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }

    def to_text(self) -> str:
        """Aligned tables of speed and of cost, and the reasons of what failed or is not known."""
        from edge4d.validators.fps_table import report_text

        return report_text(self)


def bench(
    candidates: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 20,
    warmup: int = 3,
    frames_per_call: int = 1,
    clips_per_call: int = 1,
) -> FpsReport:
    """Time callables of this process against each other; memory is not told apart here, see `bench_paths`.

    Args:
        candidates: by name, the reference first. A call must return when its work is done (synchronise a device).
        rounds: turns of each candidate, one timed call a turn.
        warmup: calls of each before the first turn.
        frames_per_call: N * T of the clip.
        clips_per_call: N of the clip.

    Raises:
        UsageError: no candidate, or counts below their minimum.
    """
    check_counts(len(candidates), rounds, warmup)
    gathered = {name: Samples(clips=clips_per_call, frames=frames_per_call) for name in candidates}

    def timed(name: str) -> int | None:
        samples = gathered[name]
        if samples.failure is not None:
            return None
        try:
            start = time.perf_counter_ns()
            candidates[name]()
            return max(1, time.perf_counter_ns() - start)  # a coarse clock may stand still
        except Exception as error:  # whatever the candidate raises is its own failure, and is reported as that
            words = error.message if isinstance(error, Edge4dError) else f"{type(error).__name__}: {error}"
            samples.failure = words
            samples.exit_code = error.exit_code if isinstance(error, Edge4dError) else 1
            return None

    for name in candidates:
        for _ in range(warmup):
            timed(name)
    for _ in range(rounds):
        for name in candidates:
            if (spent := timed(name)) is not None:
                gathered[name].run_ns.append([spent])
    return summarise(gathered, rounds=rounds, warmup=warmup)


def check_counts(candidates: int, rounds: int, warmup: int) -> None:
    """Refuse a measurement of nothing.

    Raises:
        UsageError: no candidate, no round or a negative warm-up.
    """
    if candidates < 1 or rounds < 1 or warmup < 0:
        raise UsageError(
            f"cannot measure {candidates} candidates in {rounds} rounds after {warmup} warm-up calls",
            hint="at least one candidate and one round are needed",
        )


def summarise(gathered: Mapping[str, Samples], *, rounds: int, warmup: int) -> FpsReport:
    """Statistics of the samples; the first is the reference."""
    reference = next(iter(gathered.values()))
    lines = tuple(_line(name, samples, reference, gathered) for name, samples in gathered.items())
    return FpsReport(lines, rounds, warmup, machine())


def _line(name: str, samples: Samples, reference: Samples, gathered: Mapping[str, Samples]) -> CandidateFps:
    line = CandidateFps(
        name,
        details=samples.details,
        native=samples.native,
        is_native=samples.is_native,
        load_s=samples.load_s,
        load_rss_mib=samples.load_rss_mib,
        **samples.facts,
    )
    if samples.failure is not None:
        return replace(line, failure=samples.failure, exit_code=samples.exit_code)
    calls = [ns * _MS for turn in samples.run_ns for ns in turn]
    median = percentile(calls, 50)
    return replace(
        line,
        samples=len(calls),
        latency_ms={f"p{p}": percentile(calls, p) for p in (10, 50, 90, 99)} | {"min": min(calls)},
        turns_ms=tuple(statistics.median(turn) * _MS for turn in samples.run_ns),
        pack_ms=statistics.median(samples.pack_ns) * _MS if samples.pack_ns else None,
        copy_ms=statistics.median(samples.copy_ns) * _MS if samples.copy_ns else None,
        copy_unknown=None if samples.copy_ns else samples.copy_unknown,
        clips_per_s=samples.clips / median * 1e3,
        frames_per_s=samples.frames / median * 1e3,
        speedup=_ratio(reference, samples),
        speedup_to_native=_ratio(gathered[samples.native], samples) if samples.native is not None else None,
        peak_rss_mib=samples.peak_rss_mib,
        incomparable=samples.incomparable,
    )


def _ratio(base: Samples, samples: Samples) -> float | None:
    """The median over the rounds of the base's time over this one's; None where one has no times of the same input."""
    if base.failure is not None or samples.incomparable is not None:
        return None
    turns = zip(base.run_ns, samples.run_ns, strict=True)
    return statistics.median(statistics.median(one) / statistics.median(own) for one, own in turns)


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile by linear interpolation between the two nearest samples.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a percentile of no values")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def machine() -> dict[str, Any]:
    """Processor, the cores this process may use, and the system."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"cpu": _cpu_name(), "cores": allowed, "system": f"{platform.system()} {platform.machine()}"}


def _cpu_name() -> str:
    """The kernel's name of the processor, or of the board where (as on ARM) it knows no other."""
    info, board = Path("/proc/cpuinfo"), Path("/proc/device-tree/model")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith(("model name", "Hardware")):
                return line.partition(":")[2].strip()
    if board.is_file():
        return board.read_text(errors="replace").strip("\0\n ")
    return platform.processor() or platform.machine()
