"""NPU cycles on Rockchip's chips, by the vendor's compiler: the rank-4 graph beside its own handling of the 5-D form.

The compiler's figures are estimates that need no board and do not vary between runs: nothing is timed here but the
compiler itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import edge4d
from benchmarks.candidates import clips_of, network_of
from benchmarks.cases import load_cases, select
from edge4d.errors import Edge4dError
from edge4d.exporters.native import write_native
from edge4d.exporters.rknn import DEVICES, Rknn
from edge4d.tables import table

FORMS = ("vendor-5d", "edge4d-4d", "edge4d-4d-for-rknn")
"""The 5-D ONNX file given to the vendor as it is, the default artifact, and that of ``--for rknn``."""


def measure(name: str, form: str, model: Path, device: str, timeout: float, where: Path) -> dict[str, Any]:
    """Compile one file; a failure is a result and is quoted."""
    rank = None if form == FORMS[0] else 4
    record: dict[str, Any] = {"network": name, "form": form, "device": device, "onnx_bytes": model.stat().st_size}
    start = time.perf_counter()
    try:
        made = Rknn().build(model, where / f"{name}-{form}.rknn", device=device, max_rank=rank, timeout=timeout)
    except Edge4dError as error:
        return record | {"failure": str(error), "build_s": round(time.perf_counter() - start, 1)}
    engine = made.engine
    cpu = Counter(layer["op"] for layer in engine["layers"] if layer["target"] != "NPU")
    return record | {
        "toolkit": engine["version"],
        "build_s": round(made.seconds, 1),
        "engine_bytes": made.size_bytes,
        **engine["totals"],
        "cpu_ops": dict(cpu),
        "on_cpu_places": engine["on_cpu"],
        "notes": list(made.notes),
    }


def write_form(network: Any, args: tuple[Any, ...], form: str, folder: Path) -> Path:
    """The ONNX file of one module in one form."""
    file = folder / f"{form}.onnx"
    if form == FORMS[0]:
        write_native(network, args, file)
    else:
        edge4d.export(network, args, output=file, runtime="rknn" if form == FORMS[2] else None, parity=False)
    return file


def as_table(records: list[dict[str, Any]]) -> str:
    """One row for each network and form; ``fewer`` is the vendor's cycles over this form's."""
    base = {r["network"]: r["npu_cycles"] for r in records if r["form"] == FORMS[0] and "failure" not in r}
    rows = []
    for r in records:
        if "failure" in r:
            rows.append([r["network"], r["form"], "fails", "", "", "", "", f"{r['build_s']}"])
            continue
        fewer = f"{base[r['network']] / r['npu_cycles']:.2f}" if r["network"] in base and r["npu_cycles"] else ""
        weights = f"{r['weight_kib'] / 1024:,.1f}" if r["weight_kib"] is not None else ""
        cycles = f"{r['npu_cycles'] / 1e6:,.1f}"
        rows.append(
            [r["network"], r["form"], cycles, fewer, weights, str(r["layers"]), str(r["on_cpu"]), str(r["build_s"])]
        )
    head = ["network", "form", "NPU Mcycles", "fewer", "weights MiB", "operators", "on CPU", "build s"]
    return table(head, rows, right=(2, 3, 4, 5, 6, 7))


def main() -> int:
    """Measure what was asked for, print the table, write one JSON object a line; 1 if a 4-D form failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", help="names in cases.toml; all of them by default")
    parser.add_argument("--forms", nargs="*", default=FORMS, choices=FORMS, help="all of them by default")
    parser.add_argument("--device", default="rk3588", choices=DEVICES)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for one build")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    chosen = parser.parse_args()
    records = []
    for case in select(load_cases(), chosen.cases):
        with tempfile.TemporaryDirectory() as made:
            network, clips = network_of(case), clips_of(case, 0)
            for form in chosen.forms:
                print(f"{case.name} {form}", file=sys.stderr, flush=True)
                model = write_form(network, clips, form, Path(made))
                records.append(measure(case.name, form, model, chosen.device, chosen.timeout, Path(made)))
                chosen.out.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    print(as_table(records))
    return int(any("failure" in r for r in records if r["form"] != FORMS[0]))


if __name__ == "__main__":
    sys.exit(main())
