"""What fp16 and int8 cost in accuracy: `python -m benchmarks.precision [NETWORK…] [--formulations]`.

Each network is exported in each precision and run on the runtimes that are here; errors are those of the float32 5-D
network in PyTorch, on clips that were not calibrated on. moving-digits is trained, so its answers are scored too; the
others have random weights with uneven batch norms (`tests/zoo`), as there is nothing to download here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks import NETWORKS, Case
from edge4d import exporters
from edge4d.artifact import open as open_artifact
from edge4d.errors import Edge4dError
from edge4d.exporting import export
from edge4d.tables import table
from edge4d.validators.statistics import measure

RUNTIMES = (("onnxruntime", ""), ("openvino", ".xml"), ("tensorrt_rtx", ".engine"))
CONFIGURATIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("fp32", {}),
    ("fp16", {"precision": "fp16"}),
    *(
        (f"int8 {method}", {"precision": "int8", "calibration": method})
        for method in ("minmax", "entropy", "percentile")
    ),
)
FORMS = ("taps", "stacked", "winograd-2", "winograd-4")


def rows_of(name: str, case: Case, formulations: bool, folder: Path) -> Iterator[list[str]]:
    expected = case.scores()
    for label, given in CONFIGURATIONS:
        if label in ("int8 entropy", "int8 percentile") and case.labels is None:
            continue
        forms = (None, *FORMS) if formulations and label in ("fp16", "int8 minmax") else (None,)
        for form in forms:
            path = folder / f"{name}-{label.replace(' ', '-')}-{form}.onnx"
            calib = {"calib": case.calib} if given.get("precision") == "int8" else {}
            asked = {"formulations": [f"*={form}"]} if form else {}
            report = export(case.model, case.args, output=path, parity=False, **given, **calib, **asked)
            size = f"{path.stat().st_size / 1e6:.2f}"
            what = label + (f", {form}" if form else "")
            for runtime, suffix in RUNTIMES[: 1 if form else None]:
                yield [name, what, runtime, size, *_on(runtime, suffix, path, case, expected), "" if report.ok else "!"]


def _on(runtime: str, suffix: str, path: Path, case: Case, expected: np.ndarray) -> list[str]:
    exporter = exporters.get(runtime)
    found = exporter.probe()
    if not found.ok:
        return [f"not here: {found.why_not}", "", "", "", "", ""]
    try:
        built = path
        if suffix:
            options = {"device": ("sm_86",)} if runtime == "tensorrt_rtx" else {}
            built = exporter.build(path, path.with_suffix(suffix), **options).path
        if found.why_not_run is not None:
            return [f"builds, {built.stat().st_size / 1e6:.2f} MB", "", "", "", "", ""]
        with open_artifact(built) as session:
            got = np.concatenate([next(iter(session(clip[None]).values())) for clip in case.clips])
    except Edge4dError as error:
        return [f"{type(error).__name__}: {error.message[:150]}", "", "", "", "", ""]
    each = [measure(a[None], b[None]) for a, b in zip(expected, got, strict=True)]
    return [
        f"{max(d.relative for d in each):.2g}",
        f"{float(np.median([d.relative for d in each])):.2g}",
        f"{min(d.cosine for d in each):.5f}",
        f"{measure(expected, got).snr_db:.1f}",
        f"{float((expected.argmax(1) == got.argmax(1)).mean()):.2%}",
        f"{float((got.argmax(1) == case.labels).mean()):.2%}" if case.labels is not None else "",
    ]


NAMES = ("moving-digits", "r3d_18", "x3d_s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(NAMES), choices=list(NETWORKS))
    parser.add_argument("--formulations", action="store_true", help="each formulation by itself too, in ONNX Runtime")
    arguments = parser.parse_args()
    columns = [
        "network",
        "precision",
        "runtime",
        "MB",
        "worst error",
        "median",
        "cosine",
        "SNR dB",
        "top-1",
        "accuracy",
    ]
    for name in arguments.networks:
        with tempfile.TemporaryDirectory(prefix="edge4d-") as folder:
            rows = list(rows_of(name, NETWORKS[name](), arguments.formulations, Path(folder)))
        print(table([*columns, ""], rows, right=(3, 4, 5, 6, 7, 8, 9)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
