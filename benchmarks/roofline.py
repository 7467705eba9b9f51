"""``python -m benchmarks.roofline [NETWORK...]``: the least time that networks can take here, beside what they take.

The bound (`benchmarks.bounds`) stands on the machine's own rates, then and there: products of matrices and a large
sum take turns with the candidates on the same runtime and threads. There are two bounds: of direct convolutions, and of
the formulation of each layer that has the lowest one.

A bound is too low where a network has other layers, which it leaves out, and too high where a value is still in a
cache when it is read: bytes cost less there than the large sum pays for them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bounds import Work, bound, layers_of
from benchmarks.candidates import clips_of, network_of
from benchmarks.cases import Case, load_cases, select
from benchmarks.peaks import ADD, GEMM, gb_s, gemm_macs, gflop_s, write_add, write_gemm
from benchmarks.run import RESULTS, measure_network, say, stamp_of
from edge4d.errors import Edge4dError, UsageError
from edge4d.files import atomic_write, refuse_existing, refuse_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

__all__ = ["MEBIBYTES", "SIDE", "main", "measure"]

SIDE = 1024
"""Of the square matrices, as in scaling.toml."""

MEBIBYTES = 128
"""Of the matrix that a number is added to."""


def measure(
    case: Case, peaks: Mapping[str, Path], folder: Path, *, runtime: str, build: Callable[[], nn.Module] | None = None,
    clips: Callable[[int], tuple[Tensor, ...]] | None = None, **asked: Any,
) -> tuple[list[dict[str, Any]], list[str]]:  # fmt: skip
    """Rows of one network, and why a candidate has none.

    Args:
        case: what is measured; its peer is not.
        peaks: files of `benchmarks.peaks`, by name.
        folder: for the files of the candidates.
        runtime: what everything runs on.
        build, clips: give network and inputs; those of the case when None.
        asked: of `benchmarks.run.measure_network`.
    """
    clips = clips or partial(clips_of, case)
    layers: list[list[Work]] = []

    def built() -> nn.Module:  # to settle its batch norms takes long enough to be done once
        network = network_of(case) if build is None else build()
        layers.extend(layers_of(network, clips(0), runtime))
        return network

    rows, problems, beside = measure_network(
        replace(case, peer=""), built, clips, folder, runtime=runtime, beside=peaks, **asked
    )
    taken = {name: beside[name].latency_ms for name in peaks}
    if failed := [name for name, latency in taken.items() if latency is None]:
        why = "; ".join(f"{name}: {beside[name].failure}" for name in failed)
        return [], [*problems, f"{case.name} is not recorded: the machine's own rates are unknown: {why}"]
    p50 = {name: latency["p50"] for name, latency in taken.items() if latency is not None}
    peak, bandwidth = gflop_s(gemm_macs(SIDE), p50[GEMM]), gb_s(MEBIBYTES, p50[ADD])
    roof = {"gflop_s": peak, "gb_s": bandwidth, "side": SIDE, "mebibytes": MEBIBYTES}
    roof |= {name: _rounded(value) for name, value in asdict(bound(layers, peak, bandwidth)).items()}
    return [row | {"roofline": roof} for row in rows], problems


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when every candidate of every network is recorded, 1 when one is not, 2 for wrong usage."""
    options = _parser().parse_args(argv)
    try:
        return _run(options)
    except Edge4dError as error:
        say(f"error: {error}")
        return error.exit_code


def _run(options: argparse.Namespace) -> int:
    from edge4d import exporters
    from edge4d.exporters.protocol import require
    from edge4d.validators.fps import machine

    cases = select(load_cases(), options.networks or None)
    if options.clock == "processor":
        cases = tuple(replace(case, threads=1) for case in cases)
    if options.rounds < 1 or options.warmup < 0:
        raise UsageError(f"--rounds {options.rounds} --warmup {options.warmup}: at least one round is needed")
    stamp = stamp_of()
    place = "cpu" if options.runtime == "onnxruntime" else f"{options.runtime}-cpu"
    size = f"{machine()['cores']}core" if options.clock == "wall" else "1thread"
    out: Path = options.out or RESULTS / f"roofline-{stamp['date']}-{place}-{size}.jsonl"
    require(exporters.get(options.runtime))
    refuse_existing(out, options.force)
    refuse_folder(out)
    asked = {name: getattr(options, name) for name in ("rounds", "warmup", "runtime", "clock")}
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="edge4d-roofline-") as kept:
        peaks = {
            GEMM: write_gemm(SIDE, Path(kept), options.runtime),
            ADD: write_add(MEBIBYTES, Path(kept), options.runtime),
        }
        for case in cases:
            with tempfile.TemporaryDirectory(prefix="edge4d-roofline-") as folder:
                found, wrong = measure(case, peaks, Path(folder), stamp=stamp, **asked)
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


def _rounded(value: float) -> float:
    """Four significant digits of a time; counts stay as they are."""
    return value if isinstance(value, int) else float(f"{value:.4g}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description=__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="only these of cases.toml")
    parser.add_argument("--runtime", default="onnxruntime", choices=("onnxruntime", "openvino"), help="(onnxruntime)")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="turns of every candidate (9)")
    parser.add_argument("--warmup", type=int, default=2, metavar="N", help="calls of each before, not timed (2)")
    parser.add_argument(
        "--clock", default="wall", choices=("wall", "processor"), help="(wall); processor time is that of one thread"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="results/roofline-DATE-…-Ncore.jsonl when not given")
    parser.add_argument("--force", action="store_true", help="replace an existing FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
