"""A lowered module as an ONNX graph: named after the source layers, simplified, every node with its provenance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge4d.errors import ExportError, UsageError
from edge4d.exporters.layer_outputs import LayerOutputs
from edge4d.exporters.translating import simplified, translating
from edge4d.layer_values import METADATA_KEY
from edge4d.quiet import quiet

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from edge4d.lowered import Lowered

__all__ = ["OnnxGraph", "check_opset", "to_onnx"]

OPSETS = range(18, 24)
"""Opsets that can be asked for; torch's exporter translates to 18 and converts upwards."""

_KEEP_INSIDE = 1024
"""Weights of at least this many bytes stay outside the protobuf while it is simplified."""

_MARK = "edge4d:"

_OUTPUT = "edge4d_output_"
"""Outputs are named so while torch.onnx works: a user's name may be one that it gives to a value inside."""


@dataclass
class OnnxGraph:
    """An ONNX model whose large weights are held beside it.

    Attributes:
        proto: the model; `weights` are missing from its initializers.
        weights: large initializers by name.
    """

    proto: onnx.ModelProto
    weights: dict[str, np.ndarray]

    @property
    def weight_bytes(self) -> int:
        """Bytes of the large weights."""
        return sum(array.nbytes for array in self.weights.values())


def check_opset(opset: int) -> None:
    """Refuse an operator set that torch's exporter cannot write.

    Raises:
        UsageError: it is out of range.
    """
    if opset not in OPSETS:
        raise UsageError(
            f"opset {opset} cannot be written: expected {OPSETS.start} to {OPSETS.stop - 1}",
            hint=f"use --opset {OPSETS.start}, which every runtime of the last years reads",
        )


def to_onnx(lowered: Lowered, *, opset: int = 18, simplify: bool = True) -> OnnxGraph:
    """Translate by `torch.onnx`, name, simplify by onnxsim.

    Args:
        lowered: what `edge4d.lower` returned.
        opset: the ONNX operator set, 18 to 23.
        simplify: whether onnxsim runs.

    Raises:
        UsageError: an opset out of range.
        ExportError: an operator that torch.onnx cannot translate.
    """
    import onnx_ir as ir
    import torch

    check_opset(opset)
    for node in lowered.module.graph.nodes:
        if (at := node.meta.get("edge4d")) is not None:
            node.meta["stack_trace"] = _MARK + json.dumps([node.name, at.layer, at.line, at.op, at.rule])
    args = tuple(torch.zeros(port.physical, dtype=getattr(torch, port.dtype)) for port in lowered.inputs)
    with quiet(), translating("the lowered graph", "try another --opset, or report the operator it names"):
        with torch.no_grad(), torch.fx.traceback.preserve_node_meta():
            program = torch.export.export(lowered.module, args, strict=False)
        made = torch.onnx.export(
            program,
            args,
            dynamo=True,
            opset_version=opset,
            input_names=[port.name for port in lowered.inputs],
            output_names=[f"{_OUTPUT}{i}" for i in range(len(lowered.outputs))],
            verbose=False,
            optimize=True,
        )
    assert made is not None
    model = made.model
    version = model.graph.opset_imports.get("")
    if version != opset:
        raise ExportError(f"torch.onnx wrote opset {version}, expected {opset}", hint="try --opset 18")
    provenance = {
        value.name: _read_mark(node) for node in model.graph for value in node.outputs if value.name is not None
    }
    outputs = LayerOutputs.of(model.graph, provenance, lowered)
    weights = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes >= _KEEP_INSIDE:
            weights[name] = tensor.numpy()
            del model.graph.initializers[name]
            model.graph.inputs.append(value)
    proto = ir.serde.serialize_model(model)
    if simplify:
        proto = simplified(proto, "the graph", "use --no-simplify")
    kept = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    used = {name for node in proto.graph.node for name in node.input}
    used |= {value.name for value in proto.graph.output}
    weights = {name: array for name, array in weights.items() if name in used}
    final = {f"{_OUTPUT}{i}": port.name for i, port in enumerate(lowered.outputs)}
    _name(proto, provenance, final, outputs.still_in(proto.graph, weights))
    return OnnxGraph(proto, {final.get(name, name): array for name, array in weights.items()})


def _read_mark(node: Any) -> tuple[str, ...]:
    """(graph node, layer, line, ATen overload, rule) of an ONNX node."""
    text = node.metadata_props.get("pkg.torch.onnx.stack_trace", "")
    for line in text.splitlines():
        if line.startswith(_MARK):
            return tuple(json.loads(line.removeprefix(_MARK)))
    return ()


def _name(
    proto: onnx.ModelProto, provenance: dict[str, tuple[str, ...]], outputs: dict[str, str], layers: dict[str, str]
) -> None:
    """Name nodes and values after the source layer (``layer1.0.conv1/Conv``) and write where each came from.

    Args:
        proto: changed in place.
        provenance: the mark of a value's node.
        outputs: final name of each graph output.
        layers: what to write at a value's node about the layers whose outputs it gives.
    """
    fixed = {v.name for v in proto.graph.input} | {t.name for t in proto.graph.initializer} | set(outputs)
    taken = fixed | set(outputs.values()) | {name for node in proto.graph.node for name in node.input}
    renamed = dict(outputs)
    for value in (*proto.graph.output, *proto.graph.initializer):
        value.name = outputs.get(value.name, value.name)
    layer = ""
    for node in proto.graph.node:
        mark = provenance.get(node.output[0], ())
        layer = mark[1] if mark else layer  # what the simplifier made stands beside what it was made from
        given = next((layers[name] for name in node.output if name in layers), None)
        node.name = _free(f"{layer or 'graph'}/{node.op_type}", taken)
        for i, name in enumerate(node.output):
            if name and name not in fixed:
                renamed[name] = node.name if i == 0 else f"{node.name}:{i}"
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        for i, name in enumerate(node.output):
            node.output[i] = renamed.get(name, name)
        del node.metadata_props[:]
        node.doc_string = ""
        for key, value in zip(("layer", "line", "op", "rule"), mark[1:], strict=False):
            if value:
                node.metadata_props.add(key=f"edge4d.{key}", value=value)
        if given is not None:
            node.metadata_props.add(key=METADATA_KEY, value=given)
    kept = []
    for value in proto.graph.value_info:
        if value.name in renamed:
            value.name = renamed[value.name]
            kept.append(value)
    names = {name for node in proto.graph.node for name in node.output}
    kept = [value for value in kept if value.name in names]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    for entry in (
        proto.graph,
        *proto.graph.input,
        *proto.graph.output,
        *proto.graph.value_info,
        *proto.graph.initializer,
    ):
        del entry.metadata_props[:]
    del proto.metadata_props[:]
    proto.graph.name = "edge4d"


def _free(name: str, taken: set[str]) -> str:
    candidate, serial = name, 1
    while candidate in taken:
        serial += 1
        candidate = f"{name}_{serial}"
    taken.add(candidate)
    return candidate
