"""``python -m benchmarks.scaling``: how the cost of native 5-D and of rank 4 grows with frames, channels, side, batch.

Around a base one factor at a time is changed (`scaling.toml`). Candidates take turns as in `benchmarks.run`, checked in
the same way, and with them large products of matrices on the same runtime and threads: the machine's own peak,
then and there. What is achieved counts the work of the *original* network, whatever a formulation saves of it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cases import Case
from benchmarks.measuring import measure_network, say, stamp_of
from benchmarks.peaks import GEMM, gemm_macs, gflop_s, write_gemm
from benchmarks.recording import Row, asked_of, parser_of, place_of, recorded, with_exit_code
from benchmarks.sweeps import SWEEPS, Point, Sweeps, load_sweeps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

__all__ = ["main", "measure"]


def measure(
    point: Point, sweeps: Sweeps, gemm: Path, folder: Path, *, stamp: Mapping[str, Any], **asked: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of one point, and why a candidate has none; `asked` is of `benchmarks.measuring.measure_network`."""
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
    parser = parser_of("python -m benchmarks.scaling", __doc__, rounds=9, warmup=2, record=_RECORD)
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="only these of scaling.toml")
    parser.add_argument("--sweeps", type=Path, default=SWEEPS, metavar="FILE", help="(scaling.toml)")
    options = parser.parse_args(argv)
    return with_exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    sweeps = load_sweeps(options.sweeps, options.networks)
    if options.clock == "processor":
        sweeps = replace(sweeps, threads=1)
    return recorded(_measured(sweeps, options), place_of(options, _RECORD))


def _measured(sweeps: Sweeps, options: argparse.Namespace) -> Iterator[tuple[list[Row], list[str]]]:
    stamp = stamp_of(options.date)
    with tempfile.TemporaryDirectory(prefix="edge4d-scaling-") as kept:
        gemm = write_gemm(sweeps.gemm, Path(kept), options.runtime)
        for number, point in enumerate(sweeps.points, 1):
            say(f"[{number}/{len(sweeps.points)}] {point.name}")
            with tempfile.TemporaryDirectory(prefix="edge4d-scaling-") as folder:
                yield measure(point, sweeps, gemm, Path(folder), stamp=stamp, **asked_of(options))


_RECORD = "scaling-"

if __name__ == "__main__":
    sys.exit(main())
