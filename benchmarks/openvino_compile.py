"""How long OpenVINO compiles each formulation of a network: `python -m benchmarks.openvino_compile [NETWORK…]`.

Whole networks with one formulation forced wherever it fits, each built in a process of its own under a time limit, so
that a compile that does not end is a line of the table. Compile times are no frame rates: they tell a hang from none.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

from edge4d import exporters
from edge4d.errors import RuntimeFailed
from edge4d.exporting import export
from edge4d.lowering.conv.rules import FORMULATIONS
from edge4d.tables import table
from tests.zoo.models import find

NETWORKS = ("r3d_18", "slow_r50")
LIMIT = 300.0
"""Seconds."""


def rows_of(name: str, folder: Path, limit: float) -> list[list[str]]:
    """One row a formulation: how many layers took it, nodes, and seconds or what failed."""
    entry, rows = find(name), []
    module, clips = entry.ready(), entry.inputs()
    for form in (None, *FORMULATIONS):
        path = folder / f"{name}-{form}.onnx"
        report = export(
            module, clips, output=path, parity=False, formulations=[("*", form)] if form else (), runtime=None
        )
        taken = sum(layer.becomes == form for layer in report.layers)
        if form and not taken:
            continue
        begun = time.perf_counter()
        try:
            exporters.get("openvino").build(path, path.with_suffix(".xml"), timeout=limit)
            told = f"{time.perf_counter() - begun:.1f}"
        except RuntimeFailed as error:
            told = error.message.splitlines()[0]
        rows.append([name, form or "as planned", str(taken or ""), str(sum(report.operators.values())), told])
        print(*rows[-1], flush=True)
    return rows


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds a compile may take")
    given = parser.parse_args()
    rows: list[list[str]] = []
    for name in given.networks:
        with tempfile.TemporaryDirectory() as folder:
            rows += rows_of(name, Path(folder), given.limit)
    print(table(["network", "formulation", "layers", "nodes", "seconds"], rows))


if __name__ == "__main__":
    main()
