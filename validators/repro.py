"""A folder that reproduces a difference: the graph, its inputs, both results, where it came from, and a script."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import ExportError, UsageError
from edge4d.recipe import recipe_path, versions

if TYPE_CHECKING:
    import numpy as np
    import onnx

__all__ = ["SCRIPT", "claim_folder", "cut", "write_repro"]

SCRIPT = """# {title}
from pathlib import Path
import numpy as np
{imports}
here = Path(__file__).parent
expected = np.load(here / "reference.npz")
got = {run}
for name in expected.files:
    a, b = expected[name].astype(np.float64), np.asarray(got[name], np.float64)
    print(f"{{name}}: {{abs(a - b).max() / (np.ptp(a) or 1):.2e}} of the range, {allowed:.1e} is allowed")
"""
"""What is written as ``repro.py``; it needs NumPy and the runtime, and edge4d for an engine only."""

_EXACT = """
options = onnxruntime.SessionOptions()
# Some CPUs cut products of 8 bits off: let the quantisers be computed as the graph says.
options.add_session_config_entry("session.disable_quant_qdq", "1")"""


def claim_folder(folder: Path) -> None:
    """Make the folder, before any work is done.

    Raises:
        UsageError: it holds something already.
        ExportError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"--repro {folder}: the folder is not empty", hint="name a new one")
    except OSError as error:
        raise ExportError(f"cannot make the folder {folder}: {error.strerror}", hint="name another one") from error


def write_repro(
    folder: Path,
    title: str,
    *,
    model: onnx.ModelProto | Path,
    origin: Path,
    inputs: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    candidate: Mapping[str, np.ndarray],
    allowed: float,
) -> None:
    """Write everything that shows one difference.

    Args:
        folder: made if it is not there.
        title: what is wrong, one sentence.
        model: a graph that takes `inputs` as they are, or the path of an artifact that takes logical arrays.
        origin: the artifact; its recipe is copied.
        inputs: by name.
        reference: what should come out, by name.
        candidate: what came out.
        allowed: greatest error, relative to the reference's range.

    Raises:
        ExportError: the folder cannot be written to.
    """
    import numpy as np
    import onnx

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, arrays in (("inputs", inputs), ("reference", reference), ("candidate", candidate)):
            held: dict[str, Any] = {key: np.asarray(array) for key, array in arrays.items()}
            np.savez(folder / f"{name}.npz", **held)
        if isinstance(model, Path):
            for file in _files(model):
                target = folder / file.relative_to(model.parent)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
            imports = "import edge4d"
            run = f'edge4d.open(here / {model.name!r})(**np.load(here / "inputs.npz"))'
        else:
            onnx.save(model, folder / "layer.onnx")
            imports, given = "import onnxruntime", ""
            if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
                imports += _EXACT
                given = ", options"
            run = (
                f'dict(zip(expected.files, onnxruntime.InferenceSession(here / "layer.onnx"{given})'
                '.run(expected.files, dict(np.load(here / "inputs.npz")))))'
            )
        said = " ".join(title.split())  # a comment is one line
        script = SCRIPT.format(title=said, imports=imports, run=run, allowed=allowed)
        (folder / "repro.py").write_text(script, encoding="utf-8")
        (folder / "recipe.json").write_text(json.dumps(_recipe(title, origin), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ExportError(f"cannot write the repro to {folder}: {error.strerror or error}") from error


def cut(model: onnx.ModelProto, value: str, boundary: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The part of a graph that computes one value from values that are known.

    Args:
        model: with its weights inside.
        value: the one to be computed.
        boundary: arrays of the values at which to stop, graph inputs among them, by name; `value` is not one of them.

    Returns:
        A model whose inputs are those of `boundary` that `value` needs, and whose only output is `value`.
    """
    import onnx
    from onnx import helper

    nodes = list(model.graph.node)
    made_by = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    needed: set[int] = set()
    inputs: dict[str, None] = {}
    used: dict[str, None] = {}
    open_names = [value]
    while open_names:
        name = open_names.pop()
        if name in weights:
            used[name] = None
        elif name in boundary and name != value:
            inputs[name] = None
        elif name in made_by and made_by[name] not in needed:
            needed.add(made_by[name])
            open_names += [given for given in nodes[made_by[name]].input if given]
    ports = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in ((name, boundary[name]) for name in inputs)
    ]
    kept = [nodes[place] for place in sorted(needed)]
    graph = helper.make_graph(kept, "layer", ports, [onnx.ValueInfoProto(name=value)], [weights[name] for name in used])
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


def _files(model: Path) -> Sequence[Path]:
    """An artifact, its recipe, and whatever lies beside it by the recipe's or the format's word."""
    from edge4d.exporters.sources import model_files

    found = list(model_files(model)) if model.suffix.lower() == ".onnx" else [model]
    beside = recipe_path(model)
    if beside.is_file():
        found.append(beside)
        listed = json.loads(beside.read_text(encoding="utf-8")).get("files", {})
        names = [name for name in listed if Path(name).name == name]  # nothing from outside the folder
        found += [model.with_name(name) for name in names if model.with_name(name).is_file()]
    return list(dict.fromkeys(found))


def _recipe(title: str, origin: Path) -> dict[str, Any]:
    beside = recipe_path(origin)
    told = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else None
    own = versions(("edge4d", "torch", "onnx", "onnxruntime", "numpy"))
    return {"found": title, "candidate": origin.name, "versions": own, "made": told}
