"""``python -m benchmarks.accuracy.processes``: how much faster `edge4d tune` is with a second process.

The example's network is tuned in turns by one process with one thread, one process with two, and two processes under
``torchrun`` with one thread each, over gloo. All take the same steps on the same clips, in parts of the same size (one
process computes each batch in two): smaller parts stay in caches, and would be faster by themselves. What is compared
is the time between the first measurement and the last, so that starting up does not count. The held-out losses at the
end are held against each other, since more processes must change no result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.accuracy import tables
from benchmarks.compare import markdown
from benchmarks.measuring import RESULTS, say, stamp_of
from edge4d.errors import Edge4dError, UsageError
from edge4d.files import atomic_write, refuse_existing, refuse_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["WAYS", "clips_a_second", "furthest", "main", "table"]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "moving_digits" / "moving_digits.pt"
WAYS = ((1, 1), (1, 2), (2, 1))
"""(processes, threads of each)."""
FURTHEST = 0.02
"""By what share the held-out loss may differ between ways. Sums of another order differ in rounding, and AdamW, which
takes steps of one size however small a gradient is, makes that grow; `tests/tuning/test_processes.py` holds weights
against each other after a few steps."""

_PARTS = 2  # of a batch, whoever computes them

Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 when the ways do not give the same network, or the exit code of an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.processes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each way takes its turn (3)")
    parser.add_argument("--steps", type=int, default=60, metavar="N", help="optimiser steps of a run (60)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="clips a step, over all processes (32)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results/tune-processes-DATE.jsonl when not given")
    parser.add_argument("--force", action="store_true", help="replace an existing FILE")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the table between the markers of this page")
    options = parser.parse_args(argv)
    try:
        return _run(options)
    except Edge4dError as error:
        say(f"error: {error}")
        return error.exit_code


def clips_a_second(report: dict[str, Any], batch: int) -> float:
    """Of the steps between the first measurement and the last, by `TuneReport.to_dict`."""
    first, last = report["history"][0], report["history"][-1]
    return float(batch * (last["step"] - first["step"]) / (last["seconds"] - first["seconds"]))


def furthest(losses: Iterable[float]) -> float:
    """The largest difference of losses, as a share of the least."""
    least, *_, most = sorted(losses)
    return (most - least) / least


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line a way; faster is the median over the rounds of the ratio to one process within a round."""
    alone = {row["round"]: row["clips_per_second"] for row in rows if (row["processes"], row["threads"]) == WAYS[0]}
    body = []
    for processes, threads in WAYS:
        mine = [row for row in rows if (row["processes"], row["threads"]) == (processes, threads)]
        ratios = [row["clips_per_second"] / alone[row["round"]] for row in mine]
        speed = median(row["clips_per_second"] for row in mine)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        body.append([str(processes), str(threads), f"{speed:.1f}", f"{median(ratios):.2f}×", spread])
    return markdown(["processes", "threads of each", "clips a second", "times one", "least and most"], body, left=0)


def _run(options: argparse.Namespace) -> int:
    from edge4d.validators.fps import machine

    if min(options.rounds, options.steps, options.batch) < 1 or options.batch % 2:
        raise UsageError("--rounds and --steps must be above 0, --batch an even number above 0")
    stamp = stamp_of() | {"machine": dict(machine())}
    out: Path = options.out or RESULTS / f"tune-processes-{stamp['date']}.jsonl"
    refuse_existing(out, options.force)
    refuse_folder(out)
    asked = {"steps": options.steps, "batch": options.batch}
    rows: list[Row] = []
    losses: dict[tuple[int, int], float] = {}
    with tempfile.TemporaryDirectory(prefix="edge4d-processes-") as folder:
        place = Path(folder)
        np.save(place / "clips.npy", _clips(10 * options.batch))
        for turn in range(options.rounds):
            for processes, threads in WAYS:
                report = _tune(place, processes, threads, **asked)
                speed = clips_a_second(report, options.batch)
                way = {"schema": 1, "round": turn, "processes": processes, "threads": threads}
                rows.append({**way, **asked, "clips_per_second": speed, **stamp})
                say(f"round {turn + 1}: {processes} × {threads} threads: {speed:.1f} clips a second")
                losses[processes, threads] = report["history"][-1]["loss"]
    apart = furthest(losses.values())
    atomic_write(out, "".join(json.dumps(row | {"apart": apart}) + "\n" for row in rows).encode())
    print(text := table(rows))
    say(f"the held-out losses at the end are at most {apart:.2%} apart; wrote {out}")
    if options.docs is not None:
        tables.write(options.docs, text, "tune-processes")
    return 0 if apart <= FURTHEST else 1


def _clips(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    from examples.moving_digits.data import load_images, make_clips

    return make_clips(load_images()[0], count, seed=7)[0]


def _tune(place: Path, processes: int, threads: int, *, steps: int, batch: int) -> dict[str, Any]:
    """One run of the command, as a user gives it; what ``--json`` printed."""
    words = ["edge4d", "tune", str(EXAMPLE), "--factory", "examples.moving_digits.model:build"]
    words += ["--input-shape", "1x1x16x32x32", "--block", "proposed-add", "--data", "clips.npy", "--no-labels"]
    words += ["--steps", str(steps), "--batch", str(batch), "--json", "--force"]
    words += ["--accumulate", str(_PARTS // processes)]
    words += ["-o", f"{processes}x{threads}.pt2"]
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    done = subprocess.run(
        [sys.executable, "-m", *(launcher if processes > 1 else []), *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UsageError(f"{processes} processes: `edge4d tune` ended with {done.returncode}\n{done.stderr[-2000:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


if __name__ == "__main__":
    sys.exit(main())
