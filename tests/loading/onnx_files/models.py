"""ONNX models of one node, and what ONNX Runtime or ONNX's own reference makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edge4d.loading.onnx.graph import import_graph

HERE = Path("model.onnx")


def numbers(*shape, seed=0, low=-2.0, high=2.0):
    """Seeded float32 numbers."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def integers(*shape, seed=0, low=0, high=5, dtype=np.int64):
    """Seeded whole numbers."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def one_node(op, inputs, attributes, opset, outputs=1, constants=()):
    """A model of one node.

    Args:
        inputs: arrays in order, None for one that is not there.
        constants: places of those that are weights.
    """
    names = ["" if array is None else f"x{i}" for i, array in enumerate(inputs)]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, name=f"the/{op}", **attributes)
    arrays = {name: array for name, array in zip(names, inputs, strict=True) if name}
    weights = {f"x{i}" for i in constants}
    return model_of(
        [node],
        {name: array for name, array in arrays.items() if name not in weights},
        {name: array for name, array in arrays.items() if name in weights},
        results,
        opset,
    )


def model_of(nodes, inputs, weights, outputs, opset=18, open_axes=()):
    """A model of these nodes; `inputs` and `weights` are arrays by name."""
    ports = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(array.dtype),
            [f"s{axis}" if axis in open_axes else size for axis, size in enumerate(array.shape)],
        )
        for name, array in inputs.items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(
        nodes, "g", ports, results, [numpy_helper.from_array(array, name) for name, array in weights.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    for result in model.graph.output:
        result.type.tensor_type.elem_type = TensorProto.UNDEFINED
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
        known = {value.name: value for value in inferred.graph.output}
    except Exception:
        known = {}
    for result in model.graph.output:
        if result.name in known:
            result.CopyFrom(known[result.name])
    return model


def expected(model, inputs, by="onnxruntime"):
    """The outputs of a model by name."""
    names = [output.name for output in model.graph.output]
    if by == "reference":
        return dict(zip(names, ReferenceEvaluator(model).run(None, inputs), strict=True))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, inputs), strict=True))


def imported(model, inputs):
    """What our import of a model gives."""
    module = import_graph(model, HERE)
    with torch.no_grad():
        results = module(*(torch.from_numpy(np.array(array)) for array in inputs.values()))
    return {name: tensor.numpy() for name, tensor in results.items()}


def same(got, want, tolerance=1e-5):
    """Same names, shapes, dtypes and, to `tolerance` of the range, numbers; fails on arrays of no number."""
    assert got.keys() == want.keys()
    assert want
    for name in want:
        one, other = np.asarray(got[name]), np.asarray(want[name])
        assert one.shape == other.shape, f"{name}: {one.shape} against {other.shape}"
        assert one.dtype == other.dtype, f"{name}: {one.dtype} against {other.dtype}"
        if not np.issubdtype(other.dtype, np.floating):
            np.testing.assert_array_equal(one, other)
            continue
        assert (np.isnan(one) == np.isnan(other)).all()
        finite = other[np.isfinite(other)]
        scale = max(float(np.abs(finite).max()) if finite.size else 1.0, 1e-6)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)
