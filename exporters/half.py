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
    _join(proto, {node.name for node in graph.proto.graph.node})
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


def _join(proto: onnx.ModelProto, own: set[str]) -> None:
    """Between two nodes that stay in float32 the value does too; the converter narrows and widens it.

    Args:
        proto: changed in place.
        own: names of the nodes that were there before: a model's own casts mean what they do.
    """
    from onnx import TensorProto

    casts = [node for node in proto.graph.node if node.op_type == "Cast" and node.name not in own]
    to = {node.name: next(entry.i for entry in node.attribute if entry.name == "to") for node in casts}
    narrowed = {node.output[0]: node.input[0] for node in casts if to[node.name] == TensorProto.FLOAT16}
    wide = {
        node.output[0]: narrowed[node.input[0]]
        for node in casts
        if node.input[0] in narrowed and to[node.name] == TensorProto.FLOAT
    }
    straight = {wide[value.name]: value.name for value in proto.graph.output if value.name in wide}
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = straight.get(wide.get(name, name), wide.get(name, name))
        if node.name not in to or node.output[0] not in wide:
            for i, name in enumerate(node.output):
                node.output[i] = straight.get(name, name)
    read = {name for node in proto.graph.node for name in node.input} | {value.name for value in proto.graph.output}
    unread = {node.name for node in casts if node.output[0] not in read or node.output[0] in straight.values()}
    left = [node for node in proto.graph.node if node.name not in unread]
    _replace(proto.graph.node, left)
    made = read | {name for node in left for name in node.output}
    _replace(proto.graph.value_info, [value for value in proto.graph.value_info if value.name in made])


def _replace(entries: Any, left: list[Any]) -> None:
    """Keep some entries of a repeated field; copies, for clearing it takes their memory back."""
    copies = [type(entry).FromString(entry.SerializeToString()) for entry in left]
    del entries[:]
    entries.extend(copies)


def _order(proto: onnx.ModelProto) -> None:
    """Put the casts, which the converter appends, behind what they read; everything else keeps its order."""
    made = {name for node in proto.graph.node for name in node.output}
    casts: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.graph.node:
        if node.op_type == "Cast":
            casts.setdefault(node.input[0], []).append(node)
    ordered = [cast for name, reading in casts.items() if name not in made for cast in reading]  # of inputs and weights
    ordered = _with_casts(ordered, casts)
    for node in proto.graph.node:
        if node.op_type != "Cast":
            ordered += _with_casts([node], casts)
    _replace(proto.graph.node, ordered)


def _with_casts(nodes: list[onnx.NodeProto], casts: dict[str, list[onnx.NodeProto]]) -> list[onnx.NodeProto]:
    """Nodes, and behind them the casts of what they make, and the casts of those."""
    found = list(nodes)
    for node in found:  # grows
        for name in node.output:
            found += casts.get(name, [])
    return found
