"""The least time that a network can take here, beside what its candidates take.

The bound (`benchmarks.bounds`) stands on the machine's own rates, then and there: products of matrices and a large
sum take turns with the candidates on the same runtime and threads. There are two bounds: of direct convolutions, and of
the formulation of each layer that has the lowest one.

A bound is too low where a network has other layers, which it leaves out, and too high where a value is still in a
cache when it is read: bytes cost less there than the large sum pays for them.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.bounds import Work, bound, layers_of
from benchmarks.candidates import clips_of, network_of
from benchmarks.measuring import measure_network
from benchmarks.peaks import ADD, GEMM, gb_s, gemm_macs, gflop_s, write_add, write_gemm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from benchmarks.cases import Case

__all__ = ["MEBIBYTES", "SIDE", "measure", "write_peaks"]

SIDE = 1024
"""Of the square matrices, as in scaling.toml."""

MEBIBYTES = 128
"""Of the matrix that a number is added to."""


def write_peaks(folder: Path, runtime: str) -> dict[str, Path]:
    """What reaches the machine's own rates, as files, by name."""
    return {GEMM: write_gemm(SIDE, folder, runtime), ADD: write_add(MEBIBYTES, folder, runtime)}


def measure(
    case: Case, peaks: Mapping[str, Path], folder: Path, *, runtime: str, build: Callable[[], nn.Module] | None = None,
    clips: Callable[[int], tuple[Tensor, ...]] | None = None, **asked: Any,
) -> tuple[list[dict[str, Any]], list[str]]:  # fmt: skip
    """Rows of one network, and why a candidate has none.

    Args:
        case: what is measured.
        peaks: of `write_peaks`.
        folder: for the files of the candidates.
        runtime: what everything runs on.
        build, clips: give network and inputs; those of the case when None.
        asked: of `benchmarks.measuring.measure_network`.
    """
    clips = clips or partial(clips_of, case)
    layers: list[list[Work]] = []

    def built() -> nn.Module:  # to settle its batch norms takes long enough to be done once
        network = network_of(case) if build is None else build()
        layers.extend(layers_of(network, clips(0), runtime))
        return network

    rows, problems, beside = measure_network(case, built, clips, folder, runtime=runtime, beside=peaks, **asked)
    taken = {name: beside[name].latency_ms for name in peaks}
    if failed := [name for name, latency in taken.items() if latency is None]:
        why = "; ".join(f"{name}: {beside[name].failure}" for name in failed)
        return [], [*problems, f"{case.name} is not recorded: the machine's own rates are unknown: {why}"]
    p50 = {name: latency["p50"] for name, latency in taken.items() if latency is not None}
    peak, bandwidth = gflop_s(gemm_macs(SIDE), p50[GEMM]), gb_s(MEBIBYTES, p50[ADD])
    roof = {"gflop_s": peak, "gb_s": bandwidth, "side": SIDE, "mebibytes": MEBIBYTES}
    roof |= {name: _rounded(value) for name, value in asdict(bound(layers, peak, bandwidth)).items()}
    return [row | {"roofline": roof} for row in rows], problems


def _rounded(value: float) -> float:
    """Four significant digits of a time; counts stay as they are."""
    return value if isinstance(value, int) else float(f"{value:.4g}")
