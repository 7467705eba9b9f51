"""Sequences, optionals and maps."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.validators.corpus.case import case
from tests.validators.onnx_models import X, ints, model, node, value

FLOAT, I64 = TensorProto.FLOAT, TensorProto.INT64


def sequence(name, shape, elem=FLOAT):
    return helper.make_tensor_sequence_value_info(name, elem, shape)


def optional(name, shape, elem=FLOAT):
    return helper.make_value_info(name, helper.make_optional_type_proto(helper.make_tensor_type_proto(elem, shape)))


def scalar(name, number):
    return numpy_helper.from_array(np.array(number, np.int64), name)


@case(q=[np.zeros((2, 3), np.float32)])
def sequence_input():
    at = node("SequenceAt", "q i", "y")
    return model(at, inputs=[sequence("q", [2, 3])], outputs=[("y", [2, 3])], weights=[scalar("i", 0)])


@case("E4D001", q=[np.zeros((1, 1, 1, 2, 3), np.float32)])
def sequence_input_of_rank_5():
    at = node("SequenceAt", "q i", "y")
    return model(at, inputs=[sequence("q", [1, 1, 1, 2, 3])], outputs=[("y", None)], weights=[scalar("i", 0)])


@case("E4D002", q=[np.zeros((2, 3), np.float32)])
def sequence_input_without_shape():
    at = node("SequenceAt", "q i", "y")
    return model(at, inputs=[sequence("q", None)], outputs=[("y", None)], weights=[scalar("i", 0)])


@case()
def sequence_built_and_read():
    nodes = (node("SequenceConstruct", "x x", "q"), node("SequenceAt", "q i", "y"))
    return model(*nodes, weights=[scalar("i", 1)])


@case("E4D001")
def sequence_of_rank_5_read():
    nodes = (
        node("Reshape", "x s5", "wide"),
        node("SequenceConstruct", "wide wide", "q"),
        node("SequenceAt", "q i", "one"),
        node("Reshape", "one s4", "y"),
    )
    return model(*nodes, weights=[scalar("i", 1), ints("s5", 1, 2, 2, 8, 8), ints("s4", 1, 4, 8, 8)])


@case()
def split_to_sequence():
    nodes = (node("SplitToSequence", "x", "q", axis=1), node("ConcatFromSequence", "q", "y", axis=1))
    return model(*nodes)


@case("E4D001")
def sequence_stacked_to_rank_5():
    nodes = (
        node("SequenceConstruct", "x x", "q"),
        node("ConcatFromSequence", "q", "wide", axis=0, new_axis=1),
        node("ReduceMax", "wide", "y", axes=[0], keepdims=0),
    )
    return model(*nodes, opset=13)


@case()
def sequence_stacked_to_rank_4():
    nodes = (node("SequenceConstruct", "x x", "q"), node("ConcatFromSequence", "q", "y", axis=0, new_axis=1))
    return model(*nodes, inputs=[("x", [4, 8, 8])], outputs=[("y", [2, 4, 8, 8])])


@case()
def sequence_inserted_and_erased():
    nodes = (
        node("SequenceConstruct", "x", "q"),
        node("SequenceInsert", "q x", "r"),
        node("SequenceErase", "r", "s"),
        node("SequenceAt", "s i", "y"),
    )
    return model(*nodes, weights=[scalar("i", 0)])


@case("E4D002")
def sequence_that_starts_empty():
    """Nothing says what is in it."""
    nodes = (node("SequenceEmpty", "", "q", dtype=FLOAT), node("SequenceLength", "q", "n"), node("Relu", "x", "y"))
    return model(*nodes)


@case("E4D002")
def sequence_of_two_ranks():
    nodes = (
        node("Flatten", "x", "flat"),
        node("SequenceConstruct", "x flat", "q"),
        node("SequenceAt", "q i", "one"),
        node("Relu", "x", "y"),
    )
    return model(*nodes, weights=[scalar("i", 0)])


@case("E4D001", "E4D002")
def sequence_of_ranks_4_and_5():
    nodes = (
        node("Reshape", "x s5", "wide"),
        node("SequenceConstruct", "x wide", "q"),
        node("SequenceAt", "q i", "one"),
        node("Relu", "x", "y"),
    )
    return model(*nodes, weights=[scalar("i", 1), ints("s5", 1, 2, 2, 8, 8)])


@case()
def sequence_mapped():
    mapped = helper.make_graph([node("Relu", "e", "f")], "m", [value("e", [1, 4, 8, 8])], [value("f", [1, 4, 8, 8])])
    nodes = (
        node("SequenceConstruct", "x x", "q"),
        node("SequenceMap", "q", "r", body=mapped),
        node("SequenceAt", "r i", "y"),
    )
    return model(*nodes, weights=[scalar("i", 0)])


@case(o=np.zeros((2, 3), np.float32))
def optional_input():
    nodes = (node("OptionalGetElement", "o", "y"),)
    return model(*nodes, inputs=[optional("o", [2, 3])], outputs=[("y", [2, 3])])


@case("E4D001", o=np.zeros([1] * 5, np.float32))
def optional_input_of_rank_5():
    return model(node("OptionalGetElement", "o", "y"), inputs=[optional("o", [1] * 5)], outputs=[("y", [1] * 5)])


@case()
def optional_made_and_opened():
    nodes = (node("Optional", "x", "o"), node("OptionalGetElement", "o", "y"))
    return model(*nodes)


@case("E4D001")
def optional_of_rank_5_within():
    nodes = (
        node("Reshape", "x s5", "wide"),
        node("Optional", "wide", "o"),
        node("OptionalGetElement", "o", "back"),
        node("Reshape", "back s4", "y"),
    )
    return model(*nodes, weights=[ints("s5", 1, 2, 2, 8, 8), ints("s4", 1, 4, 8, 8)])


@case()
def map_of_a_classifier():
    """ai.onnx.ml's classifiers end in sequences of maps, which have no rank."""
    nodes = (node("ZipMap", "x", "z", domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]),)
    inner = helper.make_map_type_proto(I64, helper.make_tensor_type_proto(FLOAT, []))
    out = helper.make_value_info("z", helper.make_sequence_type_proto(inner))
    return model(*nodes, inputs=[("x", [2, 3])], outputs=[out])


@case()
def sequence_output():
    nodes = (node("SplitToSequence", "x", "q", axis=1),)
    return model(*nodes, inputs=[X], outputs=[sequence("q", [1, 1, 8, 8])])
