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
from pathlib import Path

from onnx import ModelProto

from edge4d.files import atomic_write
from edge4d.validators import check_rank
from edge4d.validators.inference import infer
from edge4d.validators.inventory import take_inventory
from tests.validators.corpus import CASES, Case

__all__ = ["GROUPS", "PEERS", "main", "table"]

_LIMIT_S = 120

# A console script by its name and arguments, or a piece of Python after "-c"; the path of the model comes last.
PEERS: Mapping[str, list[str]] = {
    "onnx.checker (full_check)": ["-c", "import onnx; onnx.checker.check_model(path, full_check=True)"],
    "ONNX Runtime session": [
        "-c", "import onnxruntime; onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])",
    ],
    "polygraphy check lint": ["polygraphy", "check", "lint"],
    "onnx-doctor check": ["onnx-doctor", "check"],
    "trtcheck": ["trtcheck"],
    "onnxsim": ["-c", "import onnxsim; assert onnxsim.simplify(path)[1]"],
}  # fmt: skip

# Imports once, then forks for each model: a tool that dies or hangs takes nothing with it.
_DRIVER = """
import importlib.metadata, json, os, signal, sys
import numpy, onnx, onnxruntime, onnxsim
words, limit = json.loads(sys.argv[1]), int(sys.argv[2])
scripts = {e.name: e for e in importlib.metadata.entry_points(group="console_scripts")}
main = None if words[0] == "-c" else scripts[words[0]].load()
for line in sys.stdin:
    path = line.rstrip()
    if child := os.fork():
        print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)
        continue
    signal.alarm(limit)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    code = 1
    try:
        if main is None:
            exec(words[1], {"path": path})
            code = 0
        else:
            sys.argv = [*words, path]
            code = main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        pass
    os._exit(code if isinstance(code, int) else int(code is not None))
"""

GROUPS: Mapping[str, Callable[[Case], bool]] = {
    "above rank 4, or three axes": lambda case: bool({"E4D001", "E4D003"} & case.codes),
    "rank that nothing proves": lambda case: bool(case.codes) and case.codes <= {"E4D002", "E4D007"},
    "broken, or wrong about itself": lambda case: (
        bool(case.codes) and not {"E4D001", "E4D003"} & case.codes and not case.codes <= {"E4D002", "E4D007"}
    ),
    "good": lambda case: case.passes,
}
_PACKAGES = ("onnx", "onnxruntime", "polygraphy", "onnx-doctor", "trtcheck", "onnxsim")


def flags(python: Path, words: Sequence[str], paths: Sequence[Path]) -> list[bool]:
    """Which of the models a tool exits with an error for, or does not come back from.

    Raises:
        RuntimeError: the tool cannot be started at all.
    """
    done = subprocess.run(
        [str(python), "-c", _DRIVER, json.dumps(words), str(_LIMIT_S)],
        input="".join(f"{path}\n" for path in paths),
        capture_output=True,
        text=True,
        check=False,
    )
    codes = [json.loads(line) for line in done.stdout.splitlines()]
    if len(codes) != len(paths):
        raise RuntimeError(f"{words[0]}: {done.stderr.strip()[-500:]}")
    return [code != 0 for code in codes]


def _with_output_shapes(proto: ModelProto) -> ModelProto:
    """Outputs with the shapes that they have, where the corpus leaves them out: onnx.checker refuses such files."""
    inventory = take_inventory(proto, "model")
    types = {value.name: value.type for one in infer(inventory).occurrences for value in one.outputs}
    for port in proto.graph.output:
        known = types.get(port.name)
        if port.type.WhichOneof("value") != "tensor_type" or port.type.tensor_type.HasField("shape") or known is None:
            continue
        if known.tensor_type.HasField("shape"):
            port.type.tensor_type.shape.CopyFrom(known.tensor_type.shape)
    return proto


def survey(python: Path, folder: Path, names: Sequence[str]) -> dict[str, dict[str, bool]]:
    """By tool and model: whether it flags it."""
    found: dict[str, dict[str, bool]] = {}
    own = {name: folder / f"{name}.onnx" for name in names}
    for name, path in own.items():
        path.write_bytes(_with_output_shapes(CASES[name].make()).SerializeToString())
    found["edge4d verify"] = {name: not check_rank(path).ok for name, path in own.items()}
    for tool, words in PEERS.items():
        print(tool, "…", file=sys.stderr, flush=True)
        found[tool] = dict(zip(own, flags(python, words, list(own.values())), strict=True))
    return found


def table(found: Mapping[str, Mapping[str, bool]]) -> str:
    """How many models of each group each tool flags, as Markdown."""
    names = list(next(iter(found.values())))
    groups = {title: [name for name in names if belongs(CASES[name])] for title, belongs in GROUPS.items()}
    head = [f"{title} ({len(members)})" for title, members in groups.items()]
    flat = {f"{name[:-3]}_3d": name for name in names if name.endswith("_2d") and CASES[name].passes}
    twins = [(name, flat[name]) for name in names if name in flat]
    head.append(f"3-D, and not its 2-D twin ({len(twins)})")
    lines = [f"| flags, of {len(names)} | " + " | ".join(head) + " |", "|---|" + "--:|" * len(head)]
    for tool, answers in found.items():
        counts = [str(sum(answers[name] for name in members)) for members in groups.values()]
        counts.append(str(sum(answers[wide] and not answers[twin] for wide, twin in twins)))
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
