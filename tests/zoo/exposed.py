"""Run an ONNX graph with every value made visible, to prove ranks by execution rather than by inference.

The gate reads shapes that shape inference wrote. Here the graph runs, unoptimised, and the arrays tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

__all__ = ["run_with_all_values"]


def run_with_all_values(onnx_model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run the model in ONNX Runtime with optimisations off and return every value of the main graph.

    Args:
        onnx_model: not changed. Weights are inside it (below the 2 GiB that protobuf allows).
        feeds: one array for each graph input.

    Returns:
        Each value by name: the graph's inputs, then its initializers, then the outputs of all its nodes.

    Raises:
        ValueError: if the graph has control flow, whose inner values an output cannot show; or a node output
            is not a plain tensor.
    """
    graph = onnx_model.graph
    for node in graph.node:
        if any(
            attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for attribute in node.attribute
        ):
            raise ValueError(f"node {node.name!r} ({node.op_type}) has a subgraph; its inner values cannot be shown")

    exposed = onnx.ModelProto()
    exposed.CopyFrom(onnx_model)
    declared = {output.name for output in graph.output}
    names = list(dict.fromkeys(name for node in graph.node for name in node.output if name))
    # Without a type ONNX Runtime infers one; whatever shapes the model claims are left out of it.
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in declared)

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    arrays = session.run(names, dict(feeds))

    values = dict(feeds)
    values |= {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name, array in zip(names, arrays, strict=True):
        if not hasattr(array, "ndim"):
            raise ValueError(f"value {name!r} is a {type(array).__name__}, not a tensor")
        values[name] = array
    return values
