"""``python -m benchmarks.scaling``: how the cost of native 5-D and of rank 4 grows with frames, channels, side, batch.

Around a base one factor at a time is changed (`scaling.toml`). Candidates take turns as in `benchmarks.run`, checked in
the same way, and with them large products of matrices on the same runtime and threads: the machine's own peak,
then and there. What is achieved counts the work of the *original* network, whatever a formulation saves of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cases import Case
from benchmarks.peaks import GEMM, gemm_macs, gflop_s, write_gemm
from benchmarks.run import RESULTS, measure_network, say, stamp_of
from benchmarks.sweeps import SWEEPS, Point, Sweeps, load_sweeps
from edge4d.errors import Edge4dError, UsageError
from edge4d.files import atomic_write, refuse_existing, refuse_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

__all__ = ["main", "measure"]


def measure(
    point: Point, sweeps: Sweeps, gemm: Path, folder: Path, *, stamp: Mapping[str, Any], **asked: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of one point, and why a candidate has none; `asked` is of `benchmarks.run.measure_network`."""
    from edge4d.comparison import count_macs

    case = Case(point.name, point.network, point.shape, point.factors["batch"], sweeps.threads)
    macs = 0

    def build() -> nn.Module:  # to settle its batch norms takes long enough to be done once
        nonlocal macs
        network = point.build()
        macs = count_macs(network, *point.clips(0))
        return network

    rows, problems, beside = measure_network(
        case, build, point.clips, folder, stamp=stamp, beside={GEMM: gemm}, **asked
    )
    taken = beside[GEMM].latency_ms
    if taken is None:
        return [], [*problems, f"{point.name} is not recorded: the product of matrices failed: {beside[GEMM].failure}"]
    peak = {"side": sweeps.gemm, "p50_ms": taken["p50"], "gflop_s": gflop_s(gemm_macs(sweeps.gemm), taken["p50"])}
    for row in rows:
        row |= {"network": point.network, "factors": point.factors, "varies": list(point.varies), "macs": macs}
        row |= {"gflop_s": gflop_s(macs, row["latency_ms"]["p50"]), "gemm": peak}
    return rows, problems


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when every candidate of every point is recorded, 1 when one is not, 2 for wrong usage."""
    options = _parser().parse_args(argv)
    try:
        return _run(options)
    except Edge4dError as error:
        say(f"error: {error}")
        return error.exit_code


def _run(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from edge4d import exporters
    from edge4d.exporters.protocol import require
    from edge4d.validators.fps import machine

    sweeps = load_sweeps(options.sweeps, options.networks)
    if options.clock == "processor":
        sweeps = replace(sweeps, threads=1)
    if options.rounds < 1 or options.warmup < 0:
        raise UsageError(f"--rounds {options.rounds} --warmup {options.warmup}: at least one round is needed")
    stamp = stamp_of()
    place = "cpu" if options.runtime == "onnxruntime" else f"{options.runtime}-cpu"
    size = f"{machine()['cores']}core" if options.clock == "wall" else "1thread"
    out: Path = options.out or RESULTS / f"scaling-{stamp['date']}-{place}-{size}.jsonl"
    require(exporters.get(options.runtime))
    refuse_existing(out, options.force)
    refuse_folder(out)
    asked = {name: getattr(options, name) for name in ("rounds", "warmup", "runtime", "clock")}
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="edge4d-scaling-") as kept:
        gemm = write_gemm(sweeps.gemm, Path(kept), options.runtime)
        for number, point in enumerate(sweeps.points, 1):
            say(f"[{number}/{len(sweeps.points)}] {point.name}")
            with tempfile.TemporaryDirectory(prefix="edge4d-scaling-") as folder:
                found, wrong = measure(point, sweeps, gemm, Path(folder), stamp=stamp, **asked)
            rows += found
            problems += wrong
            for row in found:
                print(json.dumps(row), flush=True)
    if rows:
        atomic_write(out, "".join(json.dumps(row) + "\n" for row in rows).encode())
        say(f"wrote {out}")
    for problem in problems:
        say(f"error: {problem}")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="only these of scaling.toml")
    parser.add_argument("--sweeps", type=Path, default=SWEEPS, metavar="FILE", help="(scaling.toml)")
    parser.add_argument("--runtime", default="onnxruntime", choices=("onnxruntime", "openvino"), help="(onnxruntime)")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="turns of every candidate (9)")
    parser.add_argument("--warmup", type=int, default=2, metavar="N", help="calls of each before, not timed (2)")
    parser.add_argument(
        "--clock", default="wall", choices=("wall", "processor"), help="(wall); processor time is that of one thread"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="results/scaling-DATE-…-Ncore.jsonl when not given")
    parser.add_argument("--force", action="store_true", help="replace an existing FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
