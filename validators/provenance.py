"""Which layer and which line of the source a node comes from, as far as its exporter wrote it down."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from edge4d.validators.findings import Shape, Where
from edge4d.validators.inventory import Scope, Site

if TYPE_CHECKING:
    import onnx

__all__ = ["place_of", "source_of", "user_frame"]

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_LONGEST = 500  # characters of a layer or line; they stand in every finding about their node
_TORCH = ("/torch/nn/", "/torch/_", "/site-packages/torch/", "/dist-packages/torch/")


def place_of(home: Site | Scope, value: str | None = None, shape: Shape | None = None) -> Where:
    """The place of a finding about a node or a scope, with all that is known about where it comes from."""
    if isinstance(home, Scope):
        return Where(home.path, value=value, shape=shape)
    layer, line = source_of(home.node)
    return Where(home.scope.path, home.label, home.op, value, shape, layer, line)


def source_of(node: onnx.NodeProto) -> tuple[str | None, str | None]:
    """``("layer1.0.conv1", "model.py:42")``; None for what is not known.

    Read from edge4d's own metadata, else from that of torch.onnx (dynamo), else from the node names that torch's
    TorchScript exporter gives (``/layer1/layer1.0/conv1/Conv``).
    """
    # Protobuf gives bytes where a text is not UTF-8.
    notes = {entry.key: entry.value for entry in node.metadata_props if isinstance(entry.value, str)}
    layer = notes.get("edge4d.layer") or _scope(notes.get("pkg.torch.onnx.name_scopes", ""))
    layer = layer or _namespace(notes.get("namespace", "")) or _path_in_name(node.name)
    line = notes.get("edge4d.line") or user_frame(notes.get("pkg.torch.onnx.stack_trace", ""))
    return layer[:_LONGEST] or None, line[-_LONGEST:] or None


def _scope(text: str) -> str:
    """Of ``['', 'layer1', 'layer1.0.conv1', 'conv3d']`` the last but one: the last is the operator."""
    try:
        scopes = ast.literal_eval(text) if text else []
    except (
        ValueError,
        SyntaxError,
        MemoryError,
        RecursionError,
    ):  # another program's metadata: anything may stand there
        return ""
    if not isinstance(scopes, list) or len(scopes) < 2 or not isinstance(scopes[-2], str):
        return ""
    return scopes[-2]


def _namespace(text: str) -> str:
    """Of ``: net.Net/layer1.0.conv1: torch.nn.Conv3d/conv3d: aten.conv3d.default`` the last but one name."""
    names = [part.split(":")[0] for part in text.split("/")]
    return names[-2] if len(names) > 1 else ""


def _path_in_name(name: str) -> str:
    """The modules in ``/layer1/layer1.0/conv1/Conv``, each after the first without the repeated prefix."""
    parts = name.split("/")[1:-1] if name.startswith("/") else []
    path = ""
    for part in parts:
        path = part if not path or part.startswith(f"{path}.") else f"{path}.{part}"
    return path


def user_frame(trace: str) -> str:
    """The innermost frame outside torch itself, with the path as a reader knows it."""
    frames = [(path.replace("\\", "/"), line) for path, line in _FRAME.findall(trace)]
    # A path like <eval_with_key>.5 is of code that torch made.
    own = [(path, n) for path, n in frames if not path.startswith("<") and not any(mark in path for mark in _TORCH)]
    if not own:
        return ""
    path, line = own[-1]
    for anchor in (f"{Path.cwd().as_posix()}/", "/site-packages/", "/dist-packages/"):
        path = path.split(anchor)[-1]
    return f"{path}:{line}"
