"""Inputs and outputs of the graph, and what lies between them."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from tests.validators.corpus.case import case
from tests.validators.onnx_models import X, floats, ints, model, node, value

X5 = [1, 2, 2, 8, 8]
CLIP = ("x", X5)


@case("E4D001")
def clip_in_clip_out():
    return model(node("Relu", "x", "y"), inputs=[CLIP], outputs=[("y", X5)])


@case("E4D001")
def clip_in_frames_out():
    return model(node("Reshape", "x s", "y"), inputs=[CLIP], weights=[ints("s", 1, 4, 8, 8)])


@case("E4D001")
def frames_in_clip_out():
    return model(node("Reshape", "x s", "y"), outputs=[("y", X5)], weights=[ints("s", *X5)])


@case("E4D001")
def clip_input_that_nothing_uses():
    return model(node("Relu", "x", "y"), inputs=[X, ("clip", X5)])


@case("E4D001")
def rank_5_output_without_shape():
    return model(node("Unsqueeze", "x zero", "y"), outputs=[("y", None)], weights=[ints("zero", 0)])


@case("E4D001")
def rank_6_of_dynamic_sizes():
    shape = ["a", "b", "c", "d", "e", "f"]
    return model(node("Relu", "x", "y"), inputs=[("x", shape)], outputs=[("y", shape)])


@case("E4D001")
def window_attention_of_rank_8():
    nodes = (
        node("Reshape", "x windows", "w"),
        node("Transpose", "w", "t", perm=[0, 1, 4, 2, 5, 3, 6, 7]),
        node("Reshape", "t tokens", "y"),
    )
    weights = [ints("windows", 1, 2, 2, 2, 2, 4, 2, 1), ints("tokens", 1, 4, 8, 4)]
    return model(*nodes, inputs=[("x", [1, 4, 8, 4])], outputs=[("y", [1, 4, 8, 4])], weights=weights)


@case("E4D001")
def attention_heads_of_rank_5():
    """The qkv split of a vision transformer: [batch, tokens, 3, heads, width] for an instant."""
    nodes = (
        node("MatMul", "x w", "qkv"),
        node("Reshape", "qkv split", "r"),
        node("Transpose", "r", "t", perm=[2, 0, 3, 1, 4]),
        node("Gather", "t zero", "y", axis=0),
    )
    zero = numpy_helper.from_array(np.array(0), "zero")
    weights = [floats("w", 8, 24), ints("split", 2, 5, 3, 2, 4), zero]
    return model(*nodes, inputs=[("x", [2, 5, 8])], outputs=[("y", [2, 2, 5, 4])], weights=weights)


@case()
def output_without_shape():
    return model(node("Relu", "x", "y"), outputs=[("y", None)])


@case()
def every_rank_up_to_four():
    nodes = [node("Relu", f"x{i}", f"y{i}") for i in range(5)]
    shapes = [[2] * i for i in range(5)]
    return model(
        *nodes,
        inputs=[(f"x{i}", s) for i, s in enumerate(shapes)],
        outputs=[(f"y{i}", s) for i, s in enumerate(shapes)],
    )


@case()
def input_goes_out_as_it_is():
    return model(node("Identity", "x", "y"), inputs=[X], outputs=[("y", None)])


@case()
def dynamic_batch_pooled():
    nodes = (node("MaxPool", "x", "p", kernel_shape=[2, 2]), node("GlobalAveragePool", "p", "y"))
    return model(*nodes, inputs=[("x", ["n", 4, "h", "w"])], outputs=[("y", ["n", 4, 1, 1])], weights=[])


@case(x=(3, 4, 5, 6))
def sizes_without_names():
    return model(node("Relu", "x", "y"), inputs=[("x", [None] * 4)], outputs=[("y", [None] * 4)])


@case("E4D002", x=(2, 3))
def input_without_shape_used_twice():
    return model(node("Add", "x x", "y"), inputs=[("x", None)], outputs=[("y", None)])


@case("E4D002", x=(1, 4, 8, 8))
def input_without_shape_in_front_of_conv():
    """The operator takes rank 4 only by its weight, and nothing says what the input has."""
    return model(node("Conv", "x w", "y"), inputs=[("x", None)], weights=[floats("w", 4, 4, 1, 1)])


@case(x=(1, 4, 8, 8))
def optional_outputs_left_out():
    nodes = (node("MaxPool", "x", "p", kernel_shape=[2, 2]), node("Dropout", "p", "y"))
    return model(*nodes, outputs=[("y", [1, 4, 7, 7])])


@case()
def optional_inputs_left_out():
    clip = node("Clip", "x", "y")
    clip.input[:] = ["x", "", "top"]
    return model(clip, weights=[floats("top")])


@case()
def strings_and_bools():
    nodes = (node("Equal", "a a", "b"), node("Not", "b", "y"))
    return model(*nodes, inputs=[value("a", [2, 3], TensorProto.INT64)], outputs=[value("y", [2, 3], TensorProto.BOOL)])


@case()
def size_of_zero():
    return model(node("Relu", "x", "y"), inputs=[("x", [1, 0, 8, 8])], outputs=[("y", [1, 0, 8, 8])])


@case()
def scalar_network():
    return model(node("Add", "x x", "y"), inputs=[("x", [])], outputs=[("y", [])])
