"""``python -m benchmarks.gate_peers --python VENV/bin/python``: what other tools say of the gate's corpus.

The tools live in an environment of their own, for their pins would replace those of this project:
``pip install onnx onnxruntime onnxsim polygraphy onnx_graphsurgeon onnx-doctor trtcheck``.
Each looks at each model in a process of its own. A tool *flags* a model when it exits with an error.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from onnx import ModelProto

from edge4d.files import atomic_write
from tests.validators.corpus import CASES, Case

__all__ = ["GROUPS", "PEERS", "main", "table"]

_LIMIT_S = 120

# The call, after the environment's own interpreter or beside it.
PEERS: Mapping[str, Callable[[str], list[str]]] = {
    "onnx.checker (full_check)": lambda path: [
        "python", "-c", "import onnx, sys; onnx.checker.check_model(sys.argv[1], full_check=True)", path,
    ],
    "ONNX Runtime session": lambda path: [
        "python", "-c",
        "import onnxruntime, sys; onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])", path,
    ],
    "polygraphy check lint": lambda path: ["polygraphy", "check", "lint", path],
    "onnx-doctor check": lambda path: ["onnx-doctor", "check", path],
    "trtcheck": lambda path: ["trtcheck", path],
    "onnxsim": lambda path: [
        "python", "-c", "import onnxsim, sys; sys.exit(not onnxsim.simplify(sys.argv[1])[1])", path,
    ],
}  # fmt: skip

GROUPS: Mapping[str, Callable[[Case], bool]] = {
    "above rank 4, or three axes": lambda case: bool({"E4D001", "E4D003"} & case.codes),
    "rank that nothing proves": lambda case: bool(case.codes) and case.codes <= {"E4D002", "E4D007"},
    "broken, or wrong about itself": lambda case: (
        bool(case.codes) and not {"E4D001", "E4D003"} & case.codes and not case.codes <= {"E4D002", "E4D007"}
    ),
    "good": lambda case: case.passes,
}
_PACKAGES = ("onnx", "onnxruntime", "polygraphy", "onnx-doctor", "trtcheck", "onnxsim")


def _flags(words: Sequence[str]) -> bool:
    try:
        done = subprocess.run(words, capture_output=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def _with_output_shapes(proto: ModelProto) -> ModelProto:
    """Outputs with the shapes that they have, where the corpus leaves them out: onnx.checker refuses such files."""
    from onnx import shape_inference

    try:
        inferred = shape_inference.infer_shapes(proto)
    except Exception:  # a model of the corpus that is meant to be broken
        return proto
    for port, known in zip(proto.graph.output, inferred.graph.output, strict=True):
        if not port.type.tensor_type.HasField("shape"):
            port.type.CopyFrom(known.type)
    return proto


def survey(python: Path, folder: Path, names: Sequence[str]) -> dict[str, dict[str, bool]]:
    """By tool and model: whether it flags it."""
    found: dict[str, dict[str, bool]] = {}
    own = {name: folder / f"{name}.onnx" for name in names}
    for name, path in own.items():
        path.write_bytes(_with_output_shapes(CASES[name].make()).SerializeToString())
    calls = {
        "edge4d verify": lambda path: [sys.executable, "-m", "edge4d", "verify", "--quiet", path],
        **{
            tool: lambda path, words=words: [str(python.parent / words(path)[0]), *words(path)[1:]]
            for tool, words in PEERS.items()
        },
    }
    with ThreadPoolExecutor(2) as pool:
        for tool, words in calls.items():
            print(tool, "…", file=sys.stderr, flush=True)
            answers = pool.map(_flags, [words(str(path)) for path in own.values()])
            found[tool] = dict(zip(own, answers, strict=True))
    return found


def table(found: Mapping[str, Mapping[str, bool]]) -> str:
    """How many models of each group each tool flags, as Markdown."""
    names = list(next(iter(found.values())))
    groups = {title: [name for name in names if belongs(CASES[name])] for title, belongs in GROUPS.items()}
    head = [f"{title} ({len(members)})" for title, members in groups.items()]
    lines = [f"| flags, of {len(names)} | " + " | ".join(head) + " |", "|---|" + "--:|" * len(head)]
    for tool, answers in found.items():
        counts = [str(sum(answers[name] for name in members)) for members in groups.values()]
        lines.append(f"| {tool} | " + " | ".join(counts) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate_peers", description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="the interpreter of the tools' environment")
    parser.add_argument("--models", nargs="+", choices=CASES, metavar="NAME", help="only these of the corpus")
    parser.add_argument("--out", type=Path, help="where to write every answer, as JSON")
    options = parser.parse_args(argv)
    names = options.models or list(CASES)
    with tempfile.TemporaryDirectory(prefix="edge4d-peers-") as folder:
        found = survey(options.python, Path(folder), names)
    ask = "import importlib.metadata as m, json, sys; print(json.dumps({p: m.version(p) for p in sys.argv[1:]}))"
    told = subprocess.run([str(options.python), "-c", ask, *_PACKAGES], capture_output=True, text=True, check=True)
    versions = json.loads(told.stdout)
    if options.out is not None:
        atomic_write(options.out, (json.dumps({"versions": versions, "flags": found}, indent=1) + "\n").encode())
    print(table(found))
    print("\n" + ", ".join(f"{name} {version}" for name, version in versions.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
