"""``python -m benchmarks.run``: time every candidate of every case in turns, and record what was measured."""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.candidates import LIMIT, NATIVE, check, clips_of, make, network_of, parity_sets
from benchmarks.cases import Case, load_cases, select
from benchmarks.compare import render
from edge4d.errors import Edge4dError, UsageError
from edge4d.files import atomic_write, refuse_existing, refuse_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from edge4d.validators.fps import CandidateFps, FpsReport
    from edge4d.validators.parity import ParityReport

__all__ = ["RESULTS", "SCHEMA", "main", "measure", "measure_network", "rows_of", "say", "stamp_of"]

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
                "latency_ms": {key: _rounded(value) for key, value in (line.latency_ms or {}).items()},
                "turns_ms": [_rounded(value) for value in line.turns_ms],
                "frames_per_s": _rounded(line.frames_per_s),
                "ratio": _rounded(line.speedup),
                "ratio_to": reference,
                "peak_rss_mib": _rounded(line.peak_rss_mib),
                "load_rss_mib": _rounded(line.load_rss_mib),
                "pack_ms": _rounded(line.pack_ms),
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


def measure(case: Case, folder: Path, **asked: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Make, check and time the candidates of one case; `asked` is of `measure_network`, and returns as `rows_of`."""
    rows, problems, _ = measure_network(
        case, partial(network_of, case), partial(clips_of, case), folder, eager=True, **asked
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
    with _stage(f"{case.name}: making the candidates"):
        network = build()
        files = make(network, clips(0), folder, runtime, case.peer, eager=eager)
    with _stage(f"{case.name}: parity"):
        parity = check(network, files, parity_sets(clips))
    del network  # its memory is not the candidates', but the machine is one
    sound = [name for name in files if parity[name].ok]
    if NATIVE not in sound:
        sound = [NATIVE]  # nothing can be recorded; `rows_of` says why
    placed = {name: files[name] for name in sound} | dict(beside or {})
    busy = [_busy()]
    with _stage(f"{case.name}: {rounds} rounds of {', '.join(placed)}"):
        asked: dict[str, Any] = {"rounds": rounds, "warmup": warmup, "threads": case.threads, "clock": clock}
        report = bench_paths(list(placed.values()), **asked)
    busy.append(_busy())
    named = tuple(replace(line, name=name) for line, name in zip(report.candidates, placed, strict=True))
    stamp = {**stamp, "busy": _most(busy)}
    report = replace(report, candidates=named[: len(sound)])
    rows, problems = rows_of(case, report, parity, stamp, clock)
    problems += [
        f"{case.name}/{name} was not timed: parity fails at {LIMIT:g}\n{parity[name].to_text()}"
        for name in files
        if name not in sound
    ]
    return rows, problems, {line.name: line for line in named[len(sound) :]}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when every candidate of every case is recorded, 1 when one is not, 2 for wrong usage."""
    options = _parser().parse_args(argv)
    try:
        return _run(options)
    except Edge4dError as error:
        say(f"error: {error}")
        return error.exit_code


def stamp_of(date: str | None = None) -> dict[str, Any]:
    """What every row of every record states: the day (today when None), the commit and the versions in use."""
    from edge4d.recipe import versions

    return {"date": date or _date(), "commit": commit(), "versions": versions(_PACKAGES)}


def _run(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from edge4d import exporters
    from edge4d.exporters.protocol import require
    from edge4d.validators.fps import machine

    cases = select(load_cases(), options.cases)
    if options.clock == "processor":
        cases = tuple(replace(case, threads=1) for case in cases)
    if options.rounds < 1 or options.warmup < 0:
        raise UsageError(f"--rounds {options.rounds} --warmup {options.warmup}: at least one round is needed")
    place = "cpu" if options.runtime == "onnxruntime" else f"{options.runtime}-cpu"
    size = f"{machine()['cores']}core" if options.clock == "wall" else "1thread"
    out: Path = options.out or RESULTS / f"{options.date}-{place}-{size}.jsonl"
    require(exporters.get(options.runtime))
    # Before an hour of work: a record is not lost to a mistyped name, nor a committed one replaced unasked.
    refuse_existing(out, options.force)
    refuse_folder(out)
    stamp = stamp_of(options.date)
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="edge4d-bench-") as folder:
            asked = {"rounds": options.rounds, "warmup": options.warmup, "runtime": options.runtime}
            asked["clock"] = options.clock
            found, wrong = measure(case, Path(folder), stamp=stamp, **asked)
        rows += found
        problems += wrong
        for row in found:
            print(json.dumps(row), flush=True)
    if rows:
        atomic_write(out, "".join(json.dumps(row) + "\n" for row in rows).encode())
        print("\n" + render(rows))
        say(f"wrote {out}")
    for problem in problems:
        say(f"error: {problem}")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="only these of cases.toml")
    parser.add_argument("--runtime", default="onnxruntime", choices=("onnxruntime", "openvino"), help="(onnxruntime)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="turns of every candidate (20)")
    parser.add_argument(
        "--clock", default="wall", choices=("wall", "processor"), help="(wall); processor time is that of one thread"
    )
    parser.add_argument("--warmup", type=int, default=3, metavar="N", help="calls of each before, not timed (3)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="results/DATE-[RUNTIME-]cpu-Ncore.jsonl (or -1thread) when not given"
    )
    parser.add_argument("--date", type=_date, default=_date(), metavar="YYYY-MM-DD", help="what the rows state (today)")
    parser.add_argument("--force", action="store_true", help="replace an existing FILE")
    return parser


def _date(text: str | None = None) -> str:
    return (datetime.date.today() if text is None else datetime.date.fromisoformat(text)).isoformat()


def _rounded(value: float | None) -> float | None:
    """Four significant digits; the rest is noise."""
    return None if value is None else float(f"{value:.4g}")


def commit() -> str | None:
    """The commit that is measured, marked where files differ from it; None outside a checkout."""
    if (git := shutil.which("git")) is None:
        return None
    words = [git, "-C", str(RESULTS.parent), "describe", "--always", "--dirty", "--exclude=*"]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    return told.stdout.strip() or None


def _busy(seconds: float = 1.0) -> float | None:
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


def _most(shares: Sequence[float | None]) -> float | None:
    return max((round(share, 3) for share in shares if share is not None), default=None)


@contextmanager
def _stage(label: str) -> Iterator[None]:
    begun = time.perf_counter()
    say(f"{label} …")
    yield
    say(f"{label}: {time.perf_counter() - begun:.1f} s")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
