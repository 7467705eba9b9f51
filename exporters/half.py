"""float16 by ONNX Runtime's converter: the whole graph but for what must or shall stay in float32."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edge4d.errors import ExportError
from edge4d.exporters.onnx import OnnxGraph
from edge4d.exporters.precision import inherit_layers, kept_nodes

if TYPE_CHECKING:
    import onnx

    from edge4d.exporters.precision import Precision

__all__ = ["to_fp16"]

_TAKES_HALF = frozenset({"Min", "Max"})
"""On the converter's list of operators without float16, of old; they have had it since opset 12."""


def to_fp16(graph: OnnxGraph, precision: Precision) -> OnnxGraph:
    """Convert weights, values and casts; see `edge4d.exporters.precision.convert`.

    Weights of layers that stay in float32 stay so too. Numbers beyond ±65504 become that, nearer to 0 than 6e-8 become
    6e-8, with their sign.
    """
    import onnx
    from onnx import numpy_helper

    tools: Any = import_module("onnxruntime.transformers.float16")
    kept = kept_nodes(graph.proto, precision.keep_fp32)
    proto = _with_types(graph)
    for name, array in graph.weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    try:
        proto = tools.convert_float_to_float16(
            proto,
            keep_io_types=not precision.narrow_ports,
            disable_shape_infer=True,
            op_block_list=sorted(set(tools.DEFAULT_OP_BLOCK_LIST) - _TAKES_HALF),
            node_block_list=kept,
        )
    except Exception as error:  # assertions and lookups of its own
        raise ExportError(
            f"ONNX Runtime's converter cannot make the graph float16: {type(error).__name__}: {error}",
            hint="keep what it names in float32 with --keep-fp32, or report it",
        ) from error
    weights = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer if t.name in graph.weights}
    small = [tensor for tensor in proto.graph.initializer if tensor.name not in weights]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(small)
    _join(proto)
    _order(proto)
    inherit_layers(proto)
    assert isinstance(proto, onnx.ModelProto)
    return OnnxGraph(proto, weights)


def _with_types(graph: OnnxGraph) -> onnx.ModelProto:
    """The model with a declared type for every value, which the converter goes by; large weights stay outside."""
    import onnx
    from onnx import helper

    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    ports = len(proto.graph.input)
    for name, array in graph.weights.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        proto.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    typed = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    del typed.graph.input[ports:]
    declared = {value.name for value in (*typed.graph.value_info, *typed.graph.output)}
    if missing := [name for node in typed.graph.node for name in node.output if name and name not in declared]:
        raise ExportError(f"ONNX cannot tell the type of {missing[0]!r}, so no float16 can be made", hint="report it")
    return typed


def _join(proto: onnx.ModelProto) -> None:
    """Between two nodes that stay in float32 the value does too; the converter narrows and widens it."""
    from onnx import TensorProto

    narrowed: dict[str, str] = {}
    for node in proto.graph.node:
        if node.op_type == "Cast" and node.name.endswith("_cast_to_fp16_node"):
            narrowed[node.output[0]] = node.input[0]
    wide = {
        node.output[0]: narrowed[node.input[0]]
        for node in proto.graph.node
        if node.op_type == "Cast" and node.input[0] in narrowed and node.attribute[0].i == TensorProto.FLOAT
    }
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = wide.get(name, name)
    read = {name for node in proto.graph.node for name in node.input} | {value.name for value in proto.graph.output}
    left = [node for node in proto.graph.node if node.op_type != "Cast" or node.output[0] in read]
    _replace(proto.graph.node, left)
    made = read | {name for node in left for name in node.output}
    _replace(proto.graph.value_info, [value for value in proto.graph.value_info if value.name in made])


def _replace(entries: Any, left: list[Any]) -> None:
    """Keep some entries of a repeated field; copies, for clearing it takes their memory back."""
    copies = [type(entry).FromString(entry.SerializeToString()) for entry in left]
    del entries[:]
    entries.extend(copies)


def _order(proto: onnx.ModelProto) -> None:
    """Put the casts, which the converter appends, before what reads them; everything else keeps its order."""
    there = {value.name for value in proto.graph.input} | {tensor.name for tensor in proto.graph.initializer}
    waiting = [node for node in proto.graph.node if node.op_type == "Cast"]
    others = [node for node in proto.graph.node if node.op_type != "Cast"]
    made = {name for node in proto.graph.node for name in node.output}
    ordered: list[onnx.NodeProto] = []

    def place(node: onnx.NodeProto) -> None:
        ordered.append(node)
        there.update(node.output)
        for cast in [cast for cast in waiting if cast.input[0] in node.output]:
            waiting.remove(cast)
            place(cast)

    for cast in [cast for cast in waiting if cast.input[0] not in made]:  # of an input, or of a weight
        waiting.remove(cast)
        place(cast)
    for node in others:
        place(node)
    _replace(proto.graph.node, ordered)
