"""Dense and sparse initializers, used and not, in the file and beside it."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.validators.corpus.case import case
from tests.validators.onnx_models import X, floats, ints, model, node


def sparse(name, *shape):
    return helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float32), name), numpy_helper.from_array(np.zeros(1, np.int64)), shape
    )


def elsewhere(name, *shape, elem=TensorProto.FLOAT):
    tensor = TensorProto(name=name, dims=shape, data_type=elem, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


@case("E4D001")
def used_weight_of_rank_5():
    nodes = (node("Reshape", "w s", "v"), node("Add", "x v", "y"))
    return model(*nodes, weights=[floats("w", 1, 2, 2, 8, 8), ints("s", 1, 4, 8, 8)])


@case("E4D001")
def weight_of_rank_5_folded_by_sum():
    nodes = (node("ReduceSum", "w axes", "v", keepdims=0), node("Add", "x v", "y"))
    return model(*nodes, weights=[floats("w", 2, 1, 4, 8, 8), ints("axes", 0)])


@case("E4D001")
def empty_weight_of_rank_6():
    return model(node("Relu", "x", "y"), weights=[floats("none", 0, 1, 1, 1, 1, 1)])


@case("E4D001")
def weight_of_rank_5_that_is_an_input_too():
    w = floats("w", 1, 1, 2, 2, 2)
    return model(node("Relu", "x", "y"), inputs=[X, ("w", [1, 1, 2, 2, 2])], weights=[w], ir=3, opset=8)


@case("E4D001")
def weight_of_rank_5_in_another_file():
    return model(node("Relu", "x", "y"), weights=[elsewhere("w", 1, 1, 2, 2, 2)])


@case("E4D001")
def sparse_weight_of_rank_5_in_use():
    return model(node("Relu", "x", "z"), node("Add", "z thin", "y"), sparse=[sparse("thin", 1, 1, 4, 8, 8)],
                 outputs=[("y", None)])  # fmt: skip


@case("E4D001")
def weight_as_output():
    return model(node("Relu", "x", "y"), outputs=[("w", [1] * 5), ("y", X[1])], weights=[floats("w", 1, 1, 1, 1, 1)])


@case(refused="weights.bin")
def weight_in_another_file():
    return model(node("Conv", "x w", "y"), weights=[elsewhere("w", 4, 4, 1, 1)])


@case()
def sparse_weight_of_rank_2():
    nodes = (node("MatMul", "x thin", "y"),)
    return model(*nodes, inputs=[("x", [2, 4])], outputs=[("y", [2, 3])], sparse=[sparse("thin", 4, 3)])


@case()
def unused_weight_of_rank_4():
    return model(node("Relu", "x", "y"), weights=[floats("unused", 1, 2, 3, 4)])


@case()
def weight_in_all_ways_of_storing():
    weights = [
        helper.make_tensor("a", TensorProto.FLOAT, [4], [1.0] * 4),
        helper.make_tensor("b", TensorProto.FLOAT16, [4], [1.0] * 4),
        helper.make_tensor("d", TensorProto.DOUBLE, [4], [1.0] * 4),
        helper.make_tensor("i", TensorProto.INT32, [4], [1] * 4),
        helper.make_tensor("l", TensorProto.INT64, [4], [1] * 4),
        helper.make_tensor("s", TensorProto.STRING, [2], [b"a", b"b"]),
        helper.make_tensor("f", TensorProto.BOOL, [4], [True] * 4),
    ]
    return model(node("Relu", "x", "y"), weights=weights)


@case()
def weights_tied_to_two_layers():
    nodes = (node("Conv", "x w", "a"), node("Conv", "a w", "y"))
    return model(*nodes, weights=[floats("w", 4, 4, 1, 1)])


@case()
def large_weight():
    """Beyond what inference is given the numbers of."""
    return model(
        node("Gemm", "x w", "y"), inputs=[("x", [1, 64])], outputs=[("y", [1, 64])], weights=[floats("w", 64, 64)]
    )


@case(axes=np.array([0]))
def default_of_an_input():
    """An override of the numbers cannot change the rank of a reduction that keeps its axes."""
    return model(
        node("ReduceSum", "x axes", "y"),
        inputs=[X, ("axes", [1], TensorProto.INT64)],
        weights=[ints("axes", 0)],
        outputs=[("y", [1, 4, 8, 8])],
    )


@case("E4D001", refused="FAIL")
def sparse_weight_made_of_rank_5():
    parts = numpy_helper.from_array(np.ones([1] * 5, np.float32), "k"), numpy_helper.from_array(np.zeros(1, np.int64))
    return model(node("Relu", "x", "y"), sparse=[helper.make_sparse_tensor(*parts, [4])])


@case("E4D002")
def default_of_an_input_without_shape():
    """A user may put any other rank in its place, though nothing uses it."""
    return model(node("Relu", "x", "y"), inputs=[X, ("w", None)], weights=[floats("w", 1, 4, 8, 8)])


@case("E4D001", "E4D005", refused="w")
def default_of_an_input_of_rank_5():
    return model(node("Relu", "x", "y"), inputs=[X, ("w", [1] * 5)], weights=[floats("w", 1, 4, 8, 8)])
