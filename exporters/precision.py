"""In which types an artifact computes: decided in the ONNX graph, so that every runtime gets the same one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError
from edge4d.layer_values import METADATA_KEY

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from edge4d.exporters.onnx import OnnxGraph

__all__ = ["METHODS", "PRECISIONS", "Precision", "check_tools", "convert", "inherit_layers", "kept_nodes"]

PRECISIONS = ("fp32", "fp16", "int8")

METHODS = ("minmax", "entropy", "percentile")
"""How int8 ranges are drawn from what calibration clips make of each value."""

_SPELLINGS = {"float32": "fp32", "float": "fp32", "float16": "fp16", "half": "fp16", "i8": "int8", "qdq": "int8"}


@dataclass(frozen=True)
class Precision:
    """What the user asks of the types.

    Attributes:
        name: one of `PRECISIONS`.
        keep_fp32: patterns of source layers (``layer4.*``) or of ONNX operators (``Softmax``) that stay in float32.
        method: one of `METHODS`, for int8.
        narrow_ports: inputs and outputs are float16 too, for fp16; float32 otherwise.
    """

    name: str = "fp32"
    keep_fp32: tuple[str, ...] = ()
    method: str = "minmax"
    narrow_ports: bool = False

    def __post_init__(self) -> None:
        if self.name not in PRECISIONS:
            raise UsageError(f"unknown precision {self.name!r}", hint=_known(self.name, PRECISIONS))
        if self.method not in METHODS:
            raise UsageError(f"unknown calibration {self.method!r}", hint=_known(self.method, METHODS))
        if self.keep_fp32 and self.name == "fp32":
            raise UsageError("--keep-fp32: all of it is float32", hint="add --precision fp16 or int8, or leave it out")
        if self.narrow_ports and self.name != "fp16":
            raise UsageError(f"float16 inputs and outputs are for --precision fp16, not {self.name}")

    def to_dict(self) -> dict[str, Any]:
        """What a recipe keeps."""
        asked: dict[str, Any] = {"precision": self.name}
        if self.keep_fp32:
            asked["keep_fp32"] = list(self.keep_fp32)
        if self.name == "int8":
            asked["calibration"] = self.method
        if self.narrow_ports:
            asked["fp16_io"] = True
        return asked


def convert(graph: OnnxGraph, precision: Precision, feeds: Sequence[Mapping[str, np.ndarray]] = ()) -> OnnxGraph:
    """A graph in another precision; names of layers, and the source of every node, stay.

    Args:
        graph: in float32; not to be used afterwards.
        precision: what is asked for.
        feeds: packed arrays by input name, one mapping a run: what int8 ranges are drawn from.

    Raises:
        UsageError: a pattern that fits nothing, or a graph without anything to quantise.
        RuntimeUnavailable: ONNX Runtime, whose tools do it, is not installed.
        ExportError: its tools fail.
    """
    if precision.name == "fp32":
        return graph
    check_tools(precision)
    if precision.name == "fp16":
        from edge4d.exporters.half import to_fp16

        return to_fp16(graph, precision)
    from edge4d.exporters.quantizing import to_int8

    return to_int8(graph, precision, feeds)


def check_tools(precision: Precision) -> None:
    """Say before any work is done that the graph cannot be converted here.

    Raises:
        RuntimeUnavailable: ONNX Runtime, whose tools do it, is not installed.
    """
    if precision.name != "fp32":
        from edge4d.exporters import get
        from edge4d.exporters.protocol import require

        require(get("onnxruntime"))


def kept_nodes(proto: onnx.ModelProto, patterns: Sequence[str]) -> list[str]:
    """Names of the nodes that stay in float32.

    Args:
        proto: its nodes carry their source layer in `metadata_props`.
        patterns: each fits source layers or operators, case counts.

    Raises:
        UsageError: a pattern that fits neither.
    """
    nodes = [(node.name, layer_of(node), node.op_type) for node in proto.graph.node]
    known = sorted({name for _, layer, op in nodes for name in (layer, op) if name})
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.3) or known[:8]
            raise UsageError(
                f"--keep-fp32 {pattern} fits no layer and no ONNX operator of the graph",
                hint=f"e.g. {', '.join(near)}",
            )
    return [name for name, *both in nodes if any(fnmatchcase(word, p) for word in both if word for p in patterns)]


def layer_of(node: onnx.NodeProto) -> str:
    """The source layer that the exporter left in a node; empty where there is none."""
    return next((str(entry.value) for entry in node.metadata_props if entry.key == "edge4d.layer"), "")


def inherit_layers(proto: onnx.ModelProto) -> None:
    """Give nodes that a tool put in (casts, quantisers) the source of the node whose value they change.

    Args:
        proto: its nodes in order; changed in place. A weight's own converter takes after the node that reads it.
    """
    maker = {name: node for node in proto.graph.node for name in node.output}
    reader: dict[str, onnx.NodeProto] = {}
    for node in proto.graph.node:
        for name in node.input:
            reader.setdefault(name, node)
    for step, near in ((1, maker), (-1, reader)):
        for node in list(proto.graph.node)[::step]:
            if node.metadata_props:
                continue
            names = node.input[:1] if step == 1 else node.output
            source = next((near[name] for name in names if name in near), None)
            if source is not None:
                kept = [entry for entry in source.metadata_props if entry.key != METADATA_KEY]  # of one node's outputs
                node.metadata_props.extend(kept)


def _known(given: str, names: Sequence[str]) -> str:
    meant = _SPELLINGS.get(given.lower())
    near = [meant] if meant in names else difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.4)
    return f"{f'did you mean {near[0]!r}? ' if near else ''}known: {', '.join(names)}"
