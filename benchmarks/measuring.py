"""Candidates of a network, made, checked and timed in turns, as rows of a record."""

from __future__ import annotations

import datetime
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.candidates import LIMIT, NATIVE, check, make, parity_sets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from benchmarks.cases import Case
    from edge4d.validators.fps import CandidateFps, FpsReport
    from edge4d.validators.parity import ParityReport

__all__ = [
    "RESULTS",
    "SCHEMA",
    "busy",
    "commit",
    "date_of",
    "measure_network",
    "most",
    "rounded",
    "rows_of",
    "say",
    "stage",
    "stamp_of",
]

SCHEMA = 1
"""Version of a row's layout."""

RESULTS = Path(__file__).with_name("results")
_PACKAGES = (
    "edge4d",
    "torch",
    "torchvision",
    "pytorchvideo",
    "onnx",
    "onnxscript",
    "onnxsim",
    "onnxruntime",
    "openvino",
    "numpy",
)


def rows_of(
    case: Case, report: FpsReport, parity: Mapping[str, ParityReport], stamp: Mapping[str, Any], clock: str = "wall"
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of one case for the record, and why a candidate has none.

    Args:
        case: what was measured.
        report: the measurement, its candidates named as in `parity`, the reference first.
        parity: of each candidate against eager PyTorch.
        stamp: date, versions and whatever else every row states.
        clock: what was measured with, as `edge4d.validators.fps_paths.bench_paths` takes it.

    Returns:
        JSON-ready rows; a candidate whose numbers are wrong, or that gave no time, is in the list of problems instead.
        Where that is the reference, nothing is recorded, since a ratio to it would mean nothing.
    """
    rows, problems = [], []
    reference = report.candidates[0].name
    for line in report.candidates:
        compared = parity.get(line.name)
        worst = None if compared is None else compared.worst
        why = None
        if compared is None or worst is None or not compared.ok or not worst <= LIMIT:
            why = "parity was not checked" if compared is None else f"parity fails at {LIMIT:g}\n{compared.to_text()}"
        elif line.failure is not None or line.speedup is None or line.latency_ms is None:
            why = line.failure or line.incomparable or "there is no ratio to the reference"
        if why is not None:
            problems.append(f"{case.name}/{line.name} is not recorded: {why}")
            if line.name == reference:
                return [], [*problems, f"{case.name}: nothing is recorded without {reference}"]
            continue
        assert compared is not None
        rows.append(
            {
                "schema": SCHEMA,
                "case": case.name,
                "candidate": line.name,
                "model": case.model,
                "shape": [case.batch, *case.shape],
                "dtype": "float32",
                "threads": case.threads,
                "clock": clock,
                "latency_ms": {key: rounded(value) for key, value in (line.latency_ms or {}).items()},
                "turns_ms": [rounded(value) for value in line.turns_ms],
                "frames_per_s": rounded(line.frames_per_s),
                "ratio": rounded(line.speedup),
                "ratio_to": reference,
                "peak_rss_mib": rounded(line.peak_rss_mib),
                "load_rss_mib": rounded(line.load_rss_mib),
                "pack_ms": rounded(line.pack_ms),
                "parity": {"max_error_of_range": worst, "limit": LIMIT, "sets": compared.sets},
                "runtime": {key: line.details.get(key) for key in ("runtime", "version", "providers")},
                "rounds": report.rounds,
                "warmup": report.warmup,
                "samples": line.samples,
                "machine": dict(report.machine),
                **stamp,
            }
        )
    return rows, problems


def measure_network(
    case: Case,
    build: Callable[[], nn.Module],
    clips: Callable[[int], tuple[Tensor, ...]],
    folder: Path,
    *,
    rounds: int,
    warmup: int,
    stamp: Mapping[str, Any],
    runtime: str = "onnxruntime",
    clock: str = "wall",
    eager: bool = False,
    beside: Mapping[str, Path] | None = None,
) -> tuple[list[dict[str, Any]], list[str], dict[str, CandidateFps]]:
    """Make, check and time the candidates of any network.

    Args:
        case: its name, batch and threads.
        build: gives the network, in evaluation mode.
        clips: gives its inputs, others for every seed.
        folder: for the files.
        rounds, warmup, clock: as `edge4d.validators.fps_paths.bench_paths` takes them.
        stamp: what every row states.
        runtime: what all but eager PyTorch run on.
        eager: time eager PyTorch, too.
        beside: files that take their turns with the candidates and are neither checked nor recorded, by name.

    Returns:
        Rows and problems as `rows_of` gives them, and what `beside` took.
    """
    from dataclasses import replace

    import torch

    from edge4d.validators.fps_paths import bench_paths

    torch.set_num_threads(case.threads)
    with stage(f"{case.name}: making the candidates"):
        network = build()
        files = make(network, clips(0), folder, runtime, case.peer, eager=eager)
    with stage(f"{case.name}: parity"):
        parity = check(network, files, parity_sets(clips))
    del network  # its memory is not the candidates', but the machine is one
    sound = [name for name in files if parity[name].ok]
    if NATIVE not in sound:
        sound = [NATIVE]  # nothing can be recorded; `rows_of` says why
    placed = {name: files[name] for name in sound} | dict(beside or {})
    shares = [busy()]
    with stage(f"{case.name}: {rounds} rounds of {', '.join(placed)}"):
        asked: dict[str, Any] = {"rounds": rounds, "warmup": warmup, "threads": case.threads, "clock": clock}
        report = bench_paths(list(placed.values()), **asked)
    shares.append(busy())
    named = tuple(replace(line, name=name) for line, name in zip(report.candidates, placed, strict=True))
    stamp = {**stamp, "busy": most(shares)}
    report = replace(report, candidates=named[: len(sound)])
    rows, problems = rows_of(case, report, parity, stamp, clock)
    problems += [
        f"{case.name}/{name} was not timed: parity fails at {LIMIT:g}\n{parity[name].to_text()}"
        for name in files
        if name not in sound
    ]
    return rows, problems, {line.name: line for line in named[len(sound) :]}


def stamp_of(date: str | None = None) -> dict[str, Any]:
    """What every row of every record states: the day (today when None), the commit and the versions in use."""
    from edge4d.recipe import versions

    return {"date": date or date_of(), "commit": commit(), "versions": versions(_PACKAGES)}


def date_of(text: str | None = None) -> str:
    return (datetime.date.today() if text is None else datetime.date.fromisoformat(text)).isoformat()


def rounded(value: float | None) -> float | None:
    """Four significant digits; the rest is noise."""
    return None if value is None else float(f"{value:.4g}")


def commit() -> str | None:
    """The commit that is measured, marked where files differ from it; None outside a checkout."""
    if (git := shutil.which("git")) is None:
        return None
    words = [git, "-C", str(RESULTS.parent), "describe", "--always", "--dirty", "--exclude=*"]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    return told.stdout.strip() or None


def busy(seconds: float = 1.0) -> float | None:
    """Share of all processors that other work takes (stolen time too), while this process waits; None where unknown."""
    statistics = Path("/proc/stat")
    if not statistics.is_file():
        return None

    def ticks() -> tuple[int, int]:
        # user nice system idle iowait irq softirq steal, and two that are part of the first ones
        counts = [int(count) for count in statistics.read_text().split("\n", 1)[0].split()[1:9]]
        return sum(counts), counts[3] + counts[4]

    before = ticks()
    time.sleep(seconds)
    after = ticks()
    return 1 - (after[1] - before[1]) / max(1, after[0] - before[0])


def most(shares: Sequence[float | None]) -> float | None:
    return max((round(share, 3) for share in shares if share is not None), default=None)


@contextmanager
def stage(label: str) -> Iterator[None]:
    begun = time.perf_counter()
    say(f"{label} …")
    yield
    say(f"{label}: {time.perf_counter() - begun:.1f} s")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
