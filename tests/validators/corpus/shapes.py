"""Ranks that follow only from shape arithmetic within the graph."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from tests.validators.corpus.case import case
from tests.validators.onnx_models import floats, ints, model, node

I64 = TensorProto.INT64
DYNAMIC = ("x", ["n", "c", "h", "w"])


def scalar(name, number):
    return numpy_helper.from_array(np.array(number, np.int64), name)


def sized(*nodes, out, weights=(), inputs=(DYNAMIC,), **rest):
    return model(*nodes, inputs=inputs, outputs=[("y", out)], weights=weights, **rest)


@case()
def shape_gather_concat_reshape():
    """What torch writes for ``x.view(x.size(0), -1)``."""
    nodes = (
        node("Shape", "x", "s"), node("Gather", "s zero", "n", axis=0), node("Unsqueeze", "n axis", "n1"),
        node("Concat", "n1 minus", "t", axis=0), node("Reshape", "x t", "y"),
    )  # fmt: skip
    return sized(*nodes, out=["n", None], weights=[scalar("zero", 0), ints("axis", 0), ints("minus", -1)])


@case("E4D001")
def shape_gather_concat_reshape_to_rank_5():
    nodes = (
        node("Shape", "x", "s"), node("Gather", "s zero", "n", axis=0), node("Unsqueeze", "n axis", "n1"),
        node("Concat", "n1 rest", "t", axis=0), node("Reshape", "x t", "wide"),
        node("ReduceMax", "wide", "y", axes=[1], keepdims=0),
    )  # fmt: skip
    weights = [scalar("zero", 0), ints("axis", 0), ints("rest", 2, -1, 1, 1)]
    ports = [("x", ["n", 4, 8, 8])]
    return sized(*nodes, out=None, weights=weights, inputs=ports, opset=13)


@case()
def shape_slice_and_arithmetic():
    """Half the channels, twice the batch."""
    nodes = (
        node("Shape", "x", "s"), node("Slice", "s zero one", "n"), node("Slice", "s one two", "c"),
        node("Slice", "s two four", "hw"), node("Mul", "n two", "n2"), node("Div", "c two", "c2"),
        node("Concat", "n2 c2 hw", "t", axis=0), node("Reshape", "x t", "y"),
    )  # fmt: skip
    weights = [ints("zero", 0), ints("one", 1), ints("two", 2), ints("four", 4)]
    return sized(*nodes, out=[None] * 4, weights=weights, inputs=[("x", ["n", 4, "h", "w"])])


@case()
def shape_with_start_and_end():
    nodes = (node("Shape", "x", "t", start=2), node("Expand", "w t", "y"))
    return sized(*nodes, out=[None, None], weights=[floats("w", 1, 1)])


@case("E4D001")
def expand_to_a_shape_of_five():
    nodes = (
        node("Shape", "x", "s"), node("Concat", "two s", "t", axis=0), node("Expand", "x t", "wide"),
        node("ReduceMax", "wide", "y", axes=[0], keepdims=0),
    )  # fmt: skip
    return sized(*nodes, out=[None] * 4, weights=[ints("two", 2)], opset=13)


@case()
def expand_to_the_shape_of_another():
    nodes = (node("Shape", "x", "s"), node("Expand", "w s", "y"))
    return sized(*nodes, out=[None] * 4, weights=[floats("w", 1, 1, 1, 1)])


@case()
def constant_of_a_computed_shape():
    nodes = (node("Shape", "x", "s"), node("ConstantOfShape", "s", "z"), node("Add", "x z", "y"))
    return sized(*nodes, out=[None] * 4)


@case()
def range_and_nonzero():
    nodes = (
        node("Shape", "x", "s"), node("Gather", "s zero", "n", axis=0), node("Range", "zero n one", "r"),
        node("NonZero", "x", "z"), node("Gather", "r zero1", "i", axis=0), node("Cast", "i", "y", to=1),
    )  # fmt: skip
    return sized(*nodes, out=None, weights=[scalar("zero", 0), scalar("one", 1), ints("zero1", 0)])


@case()
def squeeze_without_axes_of_known_sizes():
    return sized(node("Squeeze", "x", "y"), out=None, inputs=[("x", [1, 4, 1, 8])])


@case("E4D002")
def squeeze_without_axes_of_dynamic_sizes():
    """How many axes go depends on the sizes at run time."""
    return sized(node("Squeeze", "x", "y"), out=None)


@case("E4D002", s=np.array([2, 4]), x=(1, 2, 4, 1))
def reshape_to_an_input_of_unknown_length():
    return sized(node("Reshape", "x s", "y"), out=None, inputs=[DYNAMIC, ("s", ["k"], I64)])


@case(s=np.array([2, 4]), x=(1, 2, 4, 1))
def reshape_to_an_input_of_known_length():
    return sized(node("Reshape", "x s", "y"), out=None, inputs=[DYNAMIC, ("s", [2], I64)])


@case("E4D001", s=np.array([1, 2, 1, 4, 1]), x=(1, 2, 4, 1))
def reshape_to_an_input_of_length_5():
    return sized(node("Reshape", "x s", "y"), out=None, inputs=[DYNAMIC, ("s", [5], I64)])


@case("E4D001")
def gather_of_two_axes_adds_one():
    nodes = (node("Gather", "x i", "wide", axis=1), node("ReduceMax", "wide", "y", axes=[1], keepdims=0))
    i = numpy_helper.from_array(np.zeros((2, 2), np.int64), "i")
    return sized(*nodes, out=[None] * 4, weights=[i], opset=13)


@case("E4D001")
def gathernd_of_many_axes():
    i = numpy_helper.from_array(np.zeros((1, 1, 1, 1, 2, 1), np.int64), "i")
    nodes = (node("GatherND", "v i", "wide"), node("ReduceMax", "wide", "y", axes=[0], keepdims=0))
    return sized(*nodes, out=[None] * 4, inputs=[("v", [3])], weights=[i], opset=13)


@case("E4D001")
def einsum_of_five_letters():
    nodes = (node("Einsum", "x m", "wide", equation="nchw,de->nchde"), node("ReduceMax", "wide", "y", axes=[0]))
    return sized(*nodes, out=None, inputs=[("x", [1, 2, 3, 4]), ("m", [2, 2])], opset=13)


@case()
def einsum_of_four_letters():
    nodes = (node("Einsum", "x m", "y", equation="nchw,wd->nchd"),)
    return sized(*nodes, out=None, inputs=[("x", [1, 2, 3, 4]), ("m", [4, 2])])


@case("E4D001")
def matmul_broadcast_to_rank_5():
    nodes = (node("MatMul", "x w", "wide"), node("ReduceMax", "wide", "y", axes=[0], keepdims=0))
    return sized(*nodes, out=None, inputs=[("x", [1, 2, 3, 4])], weights=[floats("w", 1, 1, 1, 4, 2)], opset=13)


@case("E4D001")
def add_broadcast_to_rank_5():
    nodes = (node("Add", "x w", "wide"), node("ReduceMax", "wide", "y", axes=[0], keepdims=0))
    return sized(*nodes, out=None, weights=[floats("w", 1, 1, 1, 1, 1)], opset=13)


@case("E4D001")
def one_hot_of_rank_4_indices():
    depth, values = scalar("depth", 3), floats("values", 2)
    nodes = (node("OneHot", "x depth values", "wide"), node("ReduceMax", "wide", "y", axes=[4], keepdims=0))
    return sized(*nodes, out=None, inputs=[("x", ["n", 2, 3, 4], I64)], weights=[depth, values], opset=13)


@case("E4D001")
def pixel_shuffle_by_hand():
    """Reshape to 6 axes, transpose, reshape: what DepthToSpace does out of sight."""
    nodes = (
        node("Reshape", "x six", "a"), node("Transpose", "a", "b", perm=[0, 1, 4, 2, 5, 3]),
        node("Reshape", "b four", "y"),
    )  # fmt: skip
    weights = [ints("six", 1, 1, 2, 2, 8, 8), ints("four", 1, 1, 16, 16)]
    return sized(*nodes, out=[1, 1, 16, 16], inputs=[("x", [1, 4, 8, 8])], weights=weights)


@case()
def pixel_shuffle_by_its_operator():
    nodes = (node("DepthToSpace", "x", "d", blocksize=2, mode="CRD"), node("SpaceToDepth", "d", "y", blocksize=2))
    return sized(*nodes, out=[1, 4, 8, 8], inputs=[("x", [1, 4, 8, 8])])


@case("E4D001")
def channel_shuffle():
    """Of ShuffleNet."""
    nodes = (
        node("Reshape", "x five", "a"), node("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "b four", "y"),
    )  # fmt: skip
    weights = [ints("five", 1, 2, 2, 8, 8), ints("four", 1, 4, 8, 8)]
    return sized(*nodes, out=[1, 4, 8, 8], inputs=[("x", [1, 4, 8, 8])], weights=weights)


@case()
def channel_shuffle_within_rank_4():
    nodes = (
        node("Reshape", "x four", "a"), node("Transpose", "a", "b", perm=[0, 2, 1, 3]), node("Reshape", "b back", "y")
    )  # fmt: skip
    weights = [ints("four", 1, 2, 2, 64), ints("back", 1, 4, 8, 8)]
    return sized(*nodes, out=[1, 4, 8, 8], inputs=[("x", [1, 4, 8, 8])], weights=weights)


@case("E4D002", a=np.array([2]))
def shape_sliced_from_an_input():
    """ONNX's data propagation takes the unknown start for 0, and so the result for one of rank 4."""
    nodes = (
        node("Shape", "x", "s"), node("Slice", "s a three", "t"), node("Concat", "t rest", "u", axis=0),
        node("Reshape", "x u", "y"),
    )  # fmt: skip
    ports = [("x", [2, "d", 2]), ("a", [1], I64)]
    return sized(*nodes, out=None, inputs=ports, weights=[ints("three", 3), ints("rest", -1)])


@case("E4D001")
def shape_gathered_from_a_table():
    """ONNX's data propagation forgets that the table has rows, and takes one number where a row of five is."""
    nodes = (
        node("Shape", "x", "s"), node("Concat", "s one", "five", axis=0), node("Unsqueeze", "five zero", "table"),
        node("Gather", "table zero", "row", axis=0), node("Squeeze", "row zero", "t"), node("Reshape", "x t", "wide"),
        node("ReduceMax", "wide", "y", axes=[4], keepdims=0),
    )  # fmt: skip
    return sized(*nodes, out=None, weights=[ints("one", 1), ints("zero", 0)], opset=13)


@case()
def shape_taken_of_a_shape():
    nodes = (
        node("Shape", "x", "s"), node("Shape", "s", "r"), node("ConstantOfShape", "r", "ones", value=ints("", 1)),
        node("Concat", "s ones", "long", axis=0), node("Slice", "long zero four", "t"), node("Reshape", "x t", "y"),
    )  # fmt: skip
    return sized(*nodes, out=[None] * 4, weights=[ints("zero", 0), ints("four", 4)])


@case()
def reshape_with_where_as_torch_expand():
    """torch.onnx writes Where(shape == -1, ones, shape) for ``expand``."""
    nodes = (
        node("Equal", "t minus", "m"), node("Where", "m ones t", "u"), node("Expand", "x u", "y"),
    )  # fmt: skip
    weights = [ints("t", -1, 4, 8, 8), ints("minus", -1), ints("ones", 1, 1, 1, 1)]
    return sized(*nodes, out=None, inputs=[("x", [2, 1, 1, 1])], weights=weights)


@case()
def shape_cast_back_and_forth():
    """tf2onnx writes shapes through int32."""
    nodes = (
        node("Shape", "x", "s"), node("Cast", "s", "s32", to=TensorProto.INT32),
        node("Slice", "s32 zero one", "n"), node("Cast", "n", "n64", to=I64),
        node("Concat", "n64 minus", "t", axis=0), node("Reshape", "x t", "y"),
    )  # fmt: skip
    return sized(*nodes, out=[None, None], weights=[ints("zero", 0), ints("one", 1), ints("minus", -1)])


@case()
def topk_and_nms_like():
    k = ints("k", 2)
    nodes = (node("TopK", "x k", "v i"), node("Cast", "i", "y", to=1))
    return sized(*nodes, out=None, inputs=[("x", [1, 4, 8, 8])], weights=[k])


@case()
def compress_and_unique():
    nodes = (node("Unique", "x", "u"), node("Compress", "u flags", "y"))
    flags = numpy_helper.from_array(np.array([True]), "flags")
    return sized(*nodes, out=None, weights=[flags])


@case()
def loop_over_a_computed_length():
    from tests.validators.corpus.bodies import body

    nodes = (
        node("Shape", "x", "s"), node("Gather", "s zero", "n", axis=0),
        node("Loop", "n yes x", "y", name="loop", body=body(node("Relu", "a", "b"))),
    )  # fmt: skip
    yes = numpy_helper.from_array(np.array(True), "yes")
    return sized(*nodes, out=[None] * 4, weights=[scalar("zero", 0), yes])


@case("E4D001")
def axis_split_as_torchscript_does():
    """An axis counted from the back: Mod of constants, a number made a list, a Slice of the shape up to there."""
    nodes = (
        node("Mod", "minus three", "axis"), node("Reshape", "axis one", "at"), node("Shape", "x", "s"),
        node("Slice", "s zero at", "front"), node("Concat", "front parts", "shape", axis=0),
        node("Reshape", "x shape", "wide"), node("Reshape", "wide back", "y"),
    )  # fmt: skip
    weights = [scalar("minus", 2), scalar("three", 3), ints("one", 1), ints("zero", 0), ints("parts", 3, 2, 4)]
    return sized(*nodes, out=None, inputs=[("x", ["n", 5, 24])], weights=[*weights, ints("back", 0, 0, 24)])


@case()
def sizes_divided_and_bounded():
    nodes = (
        node("Div", "seven two", "three"), node("Max", "three two", "most"), node("Min", "most two", "least"),
        node("Range", "zero least step", "shape"), node("Add", "shape one", "sizes"),
        node("ConstantOfShape", "sizes", "y"),
    )  # fmt: skip
    weights = [scalar("seven", 7), scalar("two", 2), scalar("zero", 0), scalar("step", 1), scalar("one", 1)]
    return sized(*nodes, out=None, weights=weights)
