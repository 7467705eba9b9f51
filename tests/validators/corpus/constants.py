"""Constant nodes with every attribute they may have, and tensors in attributes."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from tests.validators.corpus.case import add, case
from tests.validators.corpus.weights import sparse
from tests.validators.onnx_models import X, branch, floats, ints, model, node


def _constant(**attributes):
    return model(node("Constant", "", "k", **attributes), node("Relu", "x", "y"), outputs=[("y", X[1])])


for _name, _attributes in {
    "value_float": {"value_float": 1.0},
    "value_floats": {"value_floats": [1.0, 2.0]},
    "value_int": {"value_int": 1},
    "value_ints": {"value_ints": [1, 2]},
    "value_string": {"value_string": "a"},
    "value_strings": {"value_strings": ["a", "b"]},
    "value": {"value": floats("", 1, 2, 3, 4)},
    "sparse_value": {"sparse_value": sparse("", 3, 4)},
}.items():
    add(f"constant_{_name}", lambda attributes=_attributes: _constant(**attributes))
for _rank in (5, 6, 9):
    add(f"constant_value_of_rank_{_rank}", lambda rank=_rank: _constant(value=floats("", *[1] * rank)), "E4D001")


@case("E4D001")
def sparse_constant_of_rank_6():
    return _constant(sparse_value=sparse("", 1, 1, 1, 1, 1, 2))


@case("E4D001")
def sparse_constant_of_rank_5_in_use():
    nodes = (node("Constant", "", "k", sparse_value=sparse("", 1, 1, 4, 8, 8)), node("Add", "x k", "y"))
    return model(*nodes, outputs=[("y", None)])


@case("E4D001")
def constant_of_rank_5_flattened_at_once():
    nodes = (
        node("Constant", "", "k", value=floats("", 1, 4, 1, 1, 1)),
        node("Constant", "", "s", value_ints=[1, 4, 1, 1]),
        node("Reshape", "k s", "v"),
        node("Add", "x v", "y"),
    )
    return model(*nodes)


@case()
def shape_in_a_constant_node():
    nodes = (node("Constant", "", "s", value=ints("", 1, -1)), node("Reshape", "x s", "y"))
    return model(*nodes, outputs=[("y", [1, 256])])


@case("E4D001")
def shape_of_5_in_a_constant_node():
    nodes = (
        node("Constant", "", "s5", value_ints=[1, 2, 2, 8, 8]),
        node("Reshape", "x s5", "r"),
        node("ReduceMean", "r", "y", axes=[1], keepdims=0),
    )
    return model(*nodes, outputs=[("y", [1, 2, 8, 8])], opset=13)


@case("E4D001")
def constant_of_shape_of_rank_5():
    nodes = (
        node("ConstantOfShape", "s", "c", value=floats("", 1)),
        node("ReduceSum", "c axes", "v", keepdims=0),
        node("Add", "x v", "y"),
    )
    return model(*nodes, weights=[ints("s", 2, 1, 4, 8, 8), ints("axes", 0)])


@case()
def constant_of_shape():
    nodes = (node("ConstantOfShape", "s", "c"), node("Add", "x c", "y"))
    return model(*nodes, weights=[ints("s", 1, 4, 8, 8)])


@case("E4D001", "E4D002", refused="vendor")
def sparse_attribute_of_rank_5():
    return model(node("Foo", "x", "y", domain="vendor", table=sparse("", 1, 1, 1, 1, 1)))


@case("E4D001", "E4D002", refused="vendor")
def list_of_tensors_in_an_attribute():
    return model(node("Foo", "x", "y", domain="vendor", tables=[floats("", 1), floats("", 1, 1, 1, 1, 1)]))


@case("E4D001")
def constant_of_rank_5_in_a_branch():
    then = branch(
        "t", "t", node("Constant", "", "k", value=floats("", 1, 1, 1, 1, 1)),
        node("ReduceSum", "k axes", "v", keepdims=0), node("Add", "x v", "t"),
    )  # fmt: skip
    other = branch("e", "e", node("Neg", "x", "e"))
    from tests.validators.onnx_models import C

    return model(node("If", "c", "y", then_branch=then, else_branch=other), inputs=[X, C], weights=[ints("axes", 0)])


@case()
def one_hot_depth_and_values():
    depth = numpy_helper.from_array(np.array(4, np.int64), "depth")
    values = numpy_helper.from_array(np.array([0, 1], np.float32), "values")
    return model(
        node("OneHot", "x depth values", "y"),
        inputs=[("x", [2, 3], 7)],
        outputs=[("y", [2, 3, 4])],
        weights=[depth, values],
    )


@case()
def random_numbers():
    nodes = (node("RandomNormal", "", "r", shape=[1, 4, 8, 8]), node("Add", "x r", "y"))
    return model(*nodes)


@case("E4D001")
def random_numbers_of_rank_5():
    nodes = (
        node("RandomUniform", "", "r", shape=[2, 1, 4, 8, 8]),
        node("ReduceMax", "r axes", "v", keepdims=0),
        node("Add", "x v", "y"),
    )
    return model(*nodes, weights=[ints("axes", 0)])


def _attribute_names():
    """Attributes of all kinds together are no reason for a finding."""
    attributes = {"i": 1, "f": 1.0, "s": "a", "is": [1, 2], "fs": [1.0], "ss": ["a"]}
    proto = model(node("Relu", "x", "y"))
    for key, item in attributes.items():
        proto.metadata_props.add(key=key, value=str(item))
    helper.set_model_props(proto, {"producer": "someone"})
    return proto


add("metadata_of_all_kinds", _attribute_names)


@case("E4D001")
def constant_with_a_second_tensor():
    """What it gives is not all that it holds."""
    constant = node("Constant", "", "k", value=ints("", 1))
    constant.attribute.append(helper.make_attribute("more", floats("", 1, 1, 1, 1, 1)))
    return model(constant, node("Relu", "x", "y"))
