"""Small ONNX models, made from scratch, for tests of whatever reads or runs one."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge4d.describing import describe
from edge4d.ports import Port

PATTERN = "n c t h w -> (n t) c h w"
CLIP = Port("clip", (2, 3, 4, 5, 6), (8, 3, 5, 6), "float32", PATTERN)
RESULT = Port("result", (2, 3, 4, 5, 6), (8, 3, 5, 6), "float32", PATTERN)


def plain(op="Relu", shape=("batch", 3), out_shape=None, dtype=TensorProto.FLOAT, domain=""):
    """One operator from `x` to `y`, without any description of edge4d's."""
    x = helper.make_tensor_value_info("x", dtype, shape)
    y = helper.make_tensor_value_info("y", dtype, shape if out_shape is None else out_shape)
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], domain=domain)], "g", [x], [y])
    opsets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def artifact():
    """`result = clip + bias` on packed clips, described: a bias per channel, so that a wrong packing shows."""
    clip = helper.make_tensor_value_info("clip", TensorProto.FLOAT, CLIP.physical)
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, RESULT.physical)
    bias = np.arange(3 * 30, dtype=np.float32).reshape(3, 5, 6)
    nodes = [helper.make_node("Add", ["clip", "bias"], ["sum"]), helper.make_node("Relu", ["sum"], ["result"])]
    graph = helper.make_graph(nodes, "g", [clip], [result], [numpy_helper.from_array(bias, "bias")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model.metadata_props.add(key="author", value="someone")
    describe(model, [CLIP], [RESULT], version="1.2.3", block="exact", source="m.pt2 0123")
    return model


def five_axes():
    """A convolution over time, height and width: what a native export holds, and the gate refuses."""
    x = helper.make_tensor_value_info("clip", TensorProto.FLOAT, (1, 3, 4, 5, 6))
    y = helper.make_tensor_value_info("result", TensorProto.FLOAT, (1, 2, 4, 5, 6))
    weight = np.random.default_rng(0).standard_normal((2, 3, 3, 3, 3)).astype(np.float32)
    conv = helper.make_node("Conv", ["clip", "weight"], ["result"], name="conv", pads=[1] * 6)
    graph = helper.make_graph([conv], "g", [x], [y], [numpy_helper.from_array(weight, "weight")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def expected(clip):
    """What `artifact` computes, on logical clips (N, C, T, H, W)."""
    bias = np.arange(3 * 30, dtype=np.float32).reshape(1, 3, 1, 5, 6)
    return np.maximum(clip + bias, 0)


def save(model, path, beside=False):
    """Write a model; with its weights in ``PATH.data`` when `beside`."""
    onnx.save(model, str(path), save_as_external_data=beside, location=f"{path.name}.data", size_threshold=0)
    return path
