"""Nodes of an engine in the order that needs least memory: what is found, what is left alone, and the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge4d.exporters import get
from edge4d.exporters.onnxruntime_order import Flow, flow_of, improved, reorder


def tensor(name: str, *shape: int):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def weight(name: str, outs: int, ins: int):
    values = np.random.default_rng(len(name)).standard_normal((outs, ins, 1, 1), dtype=np.float32)
    return numpy_helper.from_array(values, name)


def block(**how):
    """A shortcut and a branch that widens sixteenfold, the shortcut first in the file: it then runs last."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="r"),
        helper.make_node("Conv", ["r", "a"], ["shortcut"], name="shortcut", strides=[2, 2]),
        helper.make_node("Conv", ["r", "b"], ["wide"], name="wide"),
        helper.make_node("Conv", ["wide", "c"], ["narrow"], name="narrow", strides=[2, 2]),
        helper.make_node("Add", ["narrow", "shortcut"], ["y"], name="sum", **how),
    ]
    weights = [weight("a", 8, 8), weight("b", 128, 8), weight("c", 8, 128)]
    graph = helper.make_graph(nodes, "block", [tensor("x", 1, 8, 32, 32)], [tensor("y", 1, 8, 16, 16)], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def names(model) -> list[str]:
    return [node.name for node in model.graph.node]


def executed(flow: Flow) -> list[int]:
    """As ONNX Runtime goes: of a node's inputs the one that comes last in the file first."""
    return flow.order([sorted(inputs, reverse=True) for inputs in flow.inputs])


def test_the_shortcut_goes_first_where_its_input_would_otherwise_stay(tmp_path):
    path = tmp_path / "block.onnx"
    onnx.save(block(), path)
    before = flow_of(onnx.load(path).graph)
    assert [names(onnx.load(path))[i] for i in executed(before)] == ["r", "wide", "narrow", "shortcut", "sum"]
    assert reorder(path)
    made = onnx.load(path)
    onnx.checker.check_model(made)
    after = flow_of(made.graph)
    assert [names(made)[i] for i in executed(after)] == ["r", "shortcut", "wide", "narrow", "sum"]
    frame = 8 * 32 * 32 * 4
    assert before.weight(executed(before))[0] == frame * (1 + 16 + 1 / 4)
    assert after.weight(executed(after))[0] == frame * (1 + 16 + 1 / 4)  # while the wide one is made, both are there
    assert after.weight(executed(after))[1] < before.weight(executed(before))[1]
    assert not reorder(path), "there is no better order than the one that was found"


def test_onnx_runtime_gives_the_same_numbers(tmp_path):
    plain, other = tmp_path / "plain.onnx", tmp_path / "other.onnx"
    onnx.save(block(), plain)
    onnx.save(block(), other)
    assert reorder(other)
    x = np.random.default_rng(0).standard_normal((1, 8, 32, 32), dtype=np.float32)
    with get("onnxruntime").open(plain) as a, get("onnxruntime").open(other) as b:
        assert np.array_equal(a.run({"x": x})["y"], b.run({"x": x})["y"])


def test_an_order_is_one_in_which_every_input_is_there():
    flow = flow_of(block().graph)
    for first in ([sorted(i) for i in flow.inputs], [sorted(i, reverse=True) for i in flow.inputs]):
        order = flow.order(first)
        assert sorted(order) == list(range(len(flow.inputs)))
        assert all(order.index(source) < order.index(node) for node in order for source in flow.inputs[node])


def test_memory_that_a_view_shares_is_counted_once():
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="r"),
        helper.make_node("Reshape", ["r", "shape"], ["v"], name="v"),
        helper.make_node("Neg", ["v"], ["y"], name="n"),
    ]
    shape = numpy_helper.from_array(np.array([2, -1], np.int64), "shape")
    graph = helper.make_graph(nodes, "view", [tensor("x", 4, 6)], [tensor("y", 2, 12)], [shape])
    flow = flow_of(graph)
    assert flow.sizes == [96, 0, 96]
    assert flow.holds == [[], [0], [0]], "a reader of the view holds what lies behind it"
    assert flow.weight([0, 1, 2]) == (192, 96 + 96 + 192)


@pytest.mark.parametrize("what", ["an unknown operator", "a size that is open", "a graph within"])
def test_what_is_not_understood_stays_as_it_is(what, tmp_path):
    model = block()
    if what == "an unknown operator":
        model.graph.node[2].op_type = "Mystery"
    elif what == "a size that is open":
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    else:
        model.graph.node[3].attribute.append(helper.make_attribute("body", helper.make_graph([], "body", [], [])))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    before = path.read_bytes()
    assert not reorder(path)
    assert path.read_bytes() == before


def test_a_graph_without_a_choice_is_left_alone():
    chain = Flow([[], [0], [1]], [4, 4, 4], [[], [0], [1]], [2], {2})
    assert improved(chain) is None
