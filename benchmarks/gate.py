"""``python -m benchmarks.gate``: seconds and memory of the gate on large models, beside onnx.checker and onnxsim.

Each tool is a process of its own from its start to its end; they take turns. Memory is the greatest sum over that
process and those that it starts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import RESULTS, commit, say

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["MODELS", "TOOLS", "Run", "main", "measure"]

SCHEMA = 1
LIMIT_S = 300.0
"""A tool that takes longer is stopped, and recorded as such."""

_LAYERS = 127  # of 4 M weights, 16 MiB, each: together just under 2 GiB, the most that one protobuf file may have
_NODES = 100_000

TOOLS: dict[str, Callable[[Path], list[str]]] = {
    "edge4d verify": lambda path: ["-m", "edge4d", "verify", "--quiet", str(path)],
    "onnx.checker": lambda path: [
        "-c", "import onnx, sys; onnx.checker.check_model(sys.argv[1], full_check=True)", str(path),
    ],
    "onnxsim": lambda path: [
        "-c", "import onnxsim, sys; onnxsim.simplify(sys.argv[1])", str(path),
    ],
}  # fmt: skip


class Run:
    """One tool on one model, once.

    Attributes:
        seconds: from start to end; None when it was stopped.
        peak_mib: greatest memory, its own and that of the processes it started.
        exit_code: None when it was stopped.
    """

    def __init__(self, words: Sequence[str], limit_s: float = LIMIT_S) -> None:
        import psutil

        self.peak_mib = 0.0
        start = time.perf_counter()
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        watched = psutil.Process(process.pid)
        while process.poll() is None and time.perf_counter() - start < limit_s:
            self.peak_mib = max(self.peak_mib, _memory(watched))
            time.sleep(0.01)
        self.exit_code = process.poll()
        self.seconds = time.perf_counter() - start if self.exit_code is not None else None
        if self.exit_code is None:
            process.kill()
            process.wait()


def _memory(process: Any) -> float:
    import psutil

    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.Error:  # it ended between two looks
        return 0.0
    return total / 2**20


def _layers(elsewhere: Path | None) -> ModelProto:
    """Convolutions of 1x1 over 2048 channels; their weights are zeros, in the file or in one beside it."""
    from onnx import TensorProto, helper

    nodes, weights = [], []
    size = 4 * 2048 * 2048
    for i in range(_LAYERS):
        nodes.append(helper.make_node("Conv", [f"v{i}", f"w{i}"], [f"c{i}"], name=f"conv{i}"))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"v{i + 1}"], name=f"relu{i}"))
        weight = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[2048, 2048, 1, 1])
        if elsewhere is None:
            weight.raw_data = bytes(size)
        else:
            weight.data_location = TensorProto.EXTERNAL
            for key, value in (("location", elsewhere.name), ("offset", str(i * size)), ("length", str(size))):
                weight.external_data.add(key=key, value=value)
        weights.append(weight)
    if elsewhere is not None:
        with elsewhere.open("wb") as stream:
            stream.truncate(_LAYERS * size)  # zeros that take no place on the disk
    return _model(nodes, f"v{_LAYERS}", weights, [1, 2048, 7, 7])


def _model(nodes: list[Any], last: str, weights: list[Any], shape: list[int]) -> ModelProto:
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("v0", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "g", [x], [y], initializer=weights)
    made: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return made


def _beside(path: Path) -> ModelProto:
    return _layers(path.with_suffix(".data"))


def _within(path: Path) -> ModelProto:
    return _layers(None)


def _many(path: Path) -> ModelProto:
    """Residual blocks of Conv, Relu and Add."""
    import numpy as np
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(np.zeros((8, 8, 3, 3), np.float32), "w")
    nodes, last = [], "v0"
    while len(nodes) < _NODES:
        i = len(nodes)
        nodes.append(helper.make_node("Conv", [last, "w"], [f"c{i}"], pads=[1] * 4, name=f"conv{i}"))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], name=f"relu{i}"))
        nodes.append(helper.make_node("Add", [last, f"r{i}"], [f"v{i + 1}"], name=f"add{i}"))
        last = f"v{i + 1}"
    return _model(nodes, last, [weight], [1, 8, 16, 16])


MODELS: dict[str, Callable[[Path], ModelProto]] = {
    "2 GB beside the file": _beside,
    "2 GB within the file": _within,
    "100,000 nodes": _many,
}


def measure(name: str, path: Path, rounds: int) -> list[dict[str, Any]]:
    """Rows of one model, the tools in turns; a tool that was stopped once is not asked again."""
    runs: dict[str, list[Run]] = {tool: [] for tool in TOOLS}
    for _ in range(rounds):
        for tool, words in TOOLS.items():
            if all(run.seconds is not None for run in runs[tool]):
                runs[tool].append(Run([sys.executable, *words(path)]))
                say(f"{name}, {tool}: {runs[tool][-1].seconds} s, {runs[tool][-1].peak_mib:.0f} MiB")
    rows = []
    for tool, done in runs.items():
        times = [run.seconds for run in done if run.seconds is not None]
        rows.append(
            {
                "schema": SCHEMA,
                "model": name,
                "file_bytes": path.stat().st_size,
                "tool": tool,
                "seconds": round(statistics.median(times), 3) if len(times) == len(done) else None,
                "limit_s": LIMIT_S,
                "peak_mib": round(max(run.peak_mib for run in done)),
                "exit_codes": sorted({run.exit_code for run in done}, key=str),
                "rounds": len(done),
            }
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    import onnx

    from edge4d.files import atomic_write
    from edge4d.recipe import versions
    from edge4d.validators.fps import machine

    today = datetime.date.today().isoformat()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of every tool (3)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="only these")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results/gate-DATE-cpu-Ncore.jsonl when not given")
    options = parser.parse_args(argv)
    out = options.out or RESULTS / f"gate-{today}-cpu-{machine()['cores']}core.jsonl"
    stamp = {
        "machine": machine(),
        "date": today,
        "commit": commit(),
        "versions": versions(("edge4d", "onnx", "onnxsim", "protobuf")),
    }
    rows = []
    for name in options.models:
        with tempfile.TemporaryDirectory(prefix="edge4d-gate-") as folder:
            path = Path(folder, "model.onnx")
            onnx.save(MODELS[name](path), str(path))
            rows += [row | stamp for row in measure(name, path, options.rounds)]
    atomic_write(out, "".join(json.dumps(row) + "\n" for row in rows).encode())
    print("| model | tool | seconds | peak MiB |\n|---|---|--:|--:|")
    for row in rows:
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
        print(f"| {row['model']} | {row['tool']} | {seconds} | {row['peak_mib']} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
