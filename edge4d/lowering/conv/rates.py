"""How long each runtime takes for each kind of work; `python -m benchmarks.calibrate RUNTIME` prints such a line."""

from __future__ import annotations

from edge4d.lowering.conv.cost import NpuRates, Rates

__all__ = ["GENERAL", "RATES"]

GENERAL = Rates(
    wide=0.01,
    narrow=0.003,
    grouped=0.015,
    depthwise=0.02,
    ragged=0.07,
    matrix=0.04,
    moved=0.25,
    rowed=0.5,
    weights=0,
    calls=10000.0,
)
"""Between those below, rounded: for a runtime that nobody has calibrated, and for a graph that is meant for all."""

RATES: dict[str, Rates | NpuRates] = {
    "onnxruntime": Rates(
        wide=0.00817,
        narrow=0.0027,
        grouped=0.0164,
        depthwise=0,
        ragged=0.108,
        matrix=0.0317,
        moved=0.223,
        rowed=0.5,
        weights=0.16,
        calls=20400.0,
    ),
    "openvino": Rates(
        wide=0.0142,
        narrow=0.0066,
        grouped=0.03,
        depthwise=0.01,
        ragged=0.01,
        matrix=0.047,
        moved=0.21,
        rowed=1.2,
        weights=0,
        calls=5000.0,
    ),
    # rk3588, one core, as its compiler estimates: 512 products a cycle of a gigahertz, convolutions only. What is moved
    # counts for little here because it does there; docs/engines.md tells what that hides.
    "rknn": NpuRates(product=1 / 512, block=32, moved=0.005, calls=1000.0),
}
"""By runtime. Those of CPUs: some 100 measurements each on one core of an AMD EPYC with AVX-512; half of them are
predicted within 1.10 (ONNX Runtime) and 1.16 times (OpenVINO). Depthwise products that fit the vector units take little
time beside what is moved for them. `rowed` and `weights` of ONNX Runtime were set by hand afterwards, after about 80
measurements of processor time, the others held fixed. OpenVINO's were fitted on a machine busy with other work, so
that their proportions count alone; there `grouped`, `depthwise`, `ragged` and `calls` were set by hand, `rowed` after
four layers of 64 to 512 channels, see docs/performance.md."""
