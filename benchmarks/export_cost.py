"""``python -m benchmarks.export_cost``: what `edge4d export` itself takes, seconds and memory, without parity.

Each export is a process of its own. Its peak holds the network, which the process builds first; `before_mib` is the
peak until then, libraries included. `cpu_s` is processor time, which other work on the machine does not lengthen much.
The targets: r3d_18 in 15 s, swin3d_t in 60 s, and four times the weights plus 1 GiB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.compare import markdown
from benchmarks.measuring import RESULTS, say, stamp_of
from edge4d.errors import Edge4dError, UsageError
from edge4d.files import atomic_write, refuse_existing, refuse_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TARGETS", "allowed_mib", "main", "table"]

SCHEMA = 1

TARGETS = {"r3d_18": 15.0, "swin3d_t": 60.0}
"""Seconds, by network of tests/zoo/."""

Row = dict[str, Any]


def allowed_mib(weight_bytes: int) -> float:
    """Memory that an export of a network with these weights may take."""
    return 4 * weight_bytes / 2**20 + 1024


def table(rows: Sequence[Row]) -> str:
    """A markdown table with what was aimed at."""
    head = [
        "network",
        "`--for`",
        "seconds",
        "of the processor",
        "target",
        "peak MiB",
        "target",
        "before the export",
        "weights MiB",
        "nodes",
    ]
    body = [
        [
            row["model"],
            row["for"] or "-",
            f"{row['seconds']:.1f}",
            f"{row['cpu_s']:.1f}",
            f"{row['target_s']:.0f}",
            f"{row['peak_mib']:.0f}",
            f"{row['target_mib']:.0f}",
            f"{row['before_mib']:.0f}",
            f"{row['weight_bytes'] / 2**20:.0f}",
            f"{row['nodes']}",
        ]
        for row in rows
    ]
    return markdown(head, body, left=2)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 where a target is missed, or the exit code of an error."""
    options = _parser().parse_args(argv)
    try:
        if options.child is not None:
            return _child(*options.child)
        return _run(options)
    except Edge4dError as error:
        say(f"error: {error}")
        return error.exit_code


def _run(options: argparse.Namespace) -> int:
    from edge4d.validators.fps import machine

    unknown = [name for name in options.models if name not in TARGETS]
    if unknown:
        raise UsageError(f"no target for {', '.join(unknown)}", hint=f"there are {', '.join(TARGETS)}")
    stamp = stamp_of() | {"machine": dict(machine())}
    out: Path = options.out or RESULTS / f"export-cost-{stamp['date']}-cpu.jsonl"
    refuse_existing(out, options.force)
    refuse_folder(out)
    rows = []
    for model in options.models:
        for runtime in ("", "onnxruntime"):
            words = [sys.executable, "-m", "benchmarks.export_cost", "--child", model, runtime]
            told = subprocess.run(words, capture_output=True, text=True, check=False)
            if told.returncode:
                raise UsageError(f"{model}: its export ended with {told.returncode}\n{told.stderr[-2000:]}")
            found = json.loads(told.stdout.splitlines()[-1])
            goals = {"target_s": TARGETS[model], "target_mib": allowed_mib(found["weight_bytes"])}
            rows.append({"schema": SCHEMA, "model": model, "for": runtime or None, **found, **goals, **stamp})
            say(f"{model} {runtime}: {found['seconds']:.1f} s, {found['peak_mib']:.0f} MiB")
    atomic_write(out, "".join(json.dumps(row) + "\n" for row in rows).encode())
    print(table(rows))
    say(f"wrote {out}")
    return 0 if all(r["seconds"] <= r["target_s"] and r["peak_mib"] <= r["target_mib"] for r in rows) else 1


def _child(model: str, runtime: str) -> int:
    import torch

    from edge4d.exporting import export
    from edge4d.validators.fps_worker import peak_rss_mib
    from tests.zoo import models, wide

    entry = next(entry for entry in (*models.ZOO, *wide.WIDE) if entry.name == model)
    network, args = entry.ready(0), entry.inputs(0)
    weights = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    before, start, worked = peak_rss_mib(), time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="edge4d-cost-") as folder:
        report = export(network, args, output=Path(folder, "m.onnx"), runtime=runtime or None, parity=False)
    seconds, cpu = time.perf_counter() - start, time.process_time() - worked
    if not report.ok:
        raise UsageError(f"{model}: the gate has findings\n{report.gate.to_text()}")
    stages = {name: round(spent, 2) for name, spent in report.seconds.items()}
    told = {
        "seconds": round(seconds, 2),
        "cpu_s": round(cpu, 2),
        "stages": stages,
        "peak_mib": peak_rss_mib(),
        "before_mib": before,
    }
    told |= {"weight_bytes": weights, "written_bytes": report.weight_bytes, "nodes": sum(report.operators.values())}
    print(json.dumps(told | {"threads": torch.get_num_threads()}))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export_cost", description=__doc__)
    parser.add_argument("models", nargs="*", default=list(TARGETS), help="r3d_18, swin3d_t; both when not given")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results/export-cost-DATE-cpu.jsonl when not given")
    parser.add_argument("--force", action="store_true", help="replace an existing FILE")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
