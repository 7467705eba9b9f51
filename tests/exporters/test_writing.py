"""The file as it is written weight by weight: what protobuf itself would have read and written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge4d.exporters.onnx import OnnxGraph
from edge4d.exporters.writing import _varint, write_model


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int64, np.int8, np.bool_])
def test_a_written_model_is_read_as_it_was(tmp_path, dtype):
    weights = {
        "w": (np.arange(600).reshape(20, 30) % 7).astype(dtype),
        "turned": (np.arange(600).reshape(20, 30) % 5).astype(dtype).T,
        "none": np.zeros((0, 3), dtype),
        "scalar": np.array(1, dtype),
    }
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])], "g", [], [helper.make_tensor_value_info("y", kind, (20, 30))]
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    proto.metadata_props.add(key="edge4d.block", value="exact")
    before = proto.SerializeToString()
    write_model(OnnxGraph(proto, weights), tmp_path / "m.onnx")
    read = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(read, full_check=True)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in read.graph.initializer}
    assert found.keys() == weights.keys()
    for name, array in weights.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(found[name], array)
    del read.graph.initializer[:]
    assert read == proto
    assert proto.SerializeToString() == before


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31 - 1, 2**40])
def test_sizes_are_written_as_protobuf_writes_them(value):
    assert TensorProto(dims=[value]).SerializeToString()[1:] == _varint(value)
