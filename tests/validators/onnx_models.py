"""Small ONNX models, good and bad, for the gate's tests: a few nodes each, so that one sees what is wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

X = ("x", [1, 4, 8, 8])
Y = ("y", [1, 4, 8, 8])


def value(name, shape=None, elem=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, elem, shape)


def ints(name, *numbers):
    return numpy_helper.from_array(np.array(numbers, np.int64), name)


def floats(name, *shape):
    return numpy_helper.from_array(np.zeros(shape, np.float32), name)


def node(op, inputs, outputs, **attributes) -> NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def branch(name, output, *nodes) -> GraphProto:
    return helper.make_graph(list(nodes), name, [], [value(output)])


def function(name, inputs, outputs, nodes, opset=18, attributes=(), domain="my"):
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("my", 1)]
    return helper.make_function(domain, name, inputs.split(), outputs.split(), nodes, imports, list(attributes))


def model(
    *nodes,
    inputs=(X,),
    outputs=(Y,),
    weights=(),
    sparse=(),
    functions=(),
    info=(),
    opset=18,
    ir=10,
) -> ModelProto:
    ports = [[p if isinstance(p, onnx.ValueInfoProto) else value(*p) for p in ports] for ports in (inputs, outputs)]
    graph = helper.make_graph(
        list(nodes), "g", *ports, initializer=list(weights), sparse_initializer=list(sparse), value_info=list(info)
    )
    domains = {n.domain for n in nodes} | {f.domain for f in functions}
    imports = [helper.make_opsetid(d, opset if not d else 1) for d in sorted(domains | {""})]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=ir)


def _through_rank_5(source="x", target="y"):
    """Three nodes whose middle value has rank 5, and the shapes they need."""
    return [
        node("Reshape", f"{source} s5", f"{source}_r5", name="up"),
        node("Relu", f"{source}_r5", f"{source}_relu", name="wide"),
        node("Reshape", f"{source}_relu s4", target, name="down"),
    ]


S5, S4 = ints("s5", 1, 2, 2, 8, 8), ints("s4", 1, 4, 8, 8)
C = value("c", [], TensorProto.BOOL)


def plain():
    return model(node("Relu", "x", "y"))


def conv2d():
    return model(node("Conv", "x w", "y", kernel_shape=[3, 3], pads=[1] * 4), weights=[floats("w", 4, 4, 3, 3)])


def depth_to_space():
    return model(node("DepthToSpace", "x", "y", blocksize=2), outputs=[("y", [1, 1, 16, 16])])


def dynamic_sizes():
    shape = ["batch", 4, "h", "w"]
    return model(node("Relu", "x", "y"), inputs=[("x", shape)], outputs=[("y", shape)])


def computed_reshape():
    """The target shape is computed in the graph: its numbers are dynamic, its length is not."""
    nodes = (
        node("Shape", "x", "s", start=0, end=1),
        node("Concat", "s minus", "target", axis=0),
        node("Reshape", "x target", "y"),
    )
    return model(*nodes, inputs=[("x", ["n", 4, 8, 8])], outputs=[("y", ["n", 256])], weights=[ints("minus", -1)])


def if_of_rank_4():
    then, other = branch("t", "t", node("Relu", "x", "t")), branch("e", "e", node("Neg", "x", "e"))
    return model(node("If", "c", "y", then_branch=then, else_branch=other), inputs=[X, C])


def _loop_body(*nodes, output="b"):
    ports = [value("i", None, TensorProto.INT64), value("on", None, TensorProto.BOOL), value("a")]
    return helper.make_graph(
        [node("Identity", "on", "on2"), *nodes], "body", ports, [value("on2", None, TensorProto.BOOL), value(output)]
    )


def _loop(body, **rest):
    limit = value("n", [], TensorProto.INT64)
    return model(node("Loop", "n c x", "y", name="loop", body=body), inputs=[X, C, limit], **rest)


def loop_of_rank_4():
    """The body's inputs have no shapes in the file; only an induction over the rounds shows their ranks."""
    return _loop(_loop_body(node("Relu", "a", "b")))


def nested_loops():
    inner = helper.make_graph(
        [node("Identity", "on_", "on_2"), node("Relu", "a_", "b_")],
        "inner",
        [value("i_", None, TensorProto.INT64), value("on_", None, TensorProto.BOOL), value("a_")],
        [value("on_2", None, TensorProto.BOOL), value("b_")],
    )
    return _loop(_loop_body(node("Loop", "n on a", "b", name="inner", body=inner)))


def scan():
    ports = [value("state"), value("item")]
    body = helper.make_graph(
        [node("Add", "state item", "next"), node("Relu", "item", "out")], "b", ports, [value("next"), value("out")]
    )
    inputs = [value("s0", [4, 8, 8]), X]
    outputs = [("last", [4, 8, 8]), ("y", [1, 4, 8, 8])]
    return model(node("Scan", "s0 x", "last y", body=body, num_scan_inputs=1), inputs=inputs, outputs=outputs)


def called_function():
    return model(node("F", "x", "y", domain="my"), functions=[function("F", "a", "d", [node("Relu", "a", "d")])])


def function_of_another_opset():
    """onnx's inliner leaves such calls alone; axes are an attribute in opset 11 and an input in 18."""
    nodes = [node("Unsqueeze", "a", "b", axes=[0]), node("Squeeze", "b", "d", axes=[0])]
    return model(
        node("F", "x", "y", domain="my"),
        inputs=[("x", [4, 8, 8])],
        outputs=[("y", [4, 8, 8])],
        functions=[function("F", "a", "d", nodes, opset=11)],
    )


def microsoft_operators():
    nodes = (
        node("FusedConv", "x w", "a", domain="com.microsoft", activation="Relu"),
        node("Gelu", "a", "b", domain="com.microsoft"),
        node("Relu", "b", "y"),
    )
    return model(*nodes, weights=[floats("w", 4, 4, 1, 1)])


def axes_in_another_file():
    """Numbers that lie outside the file are never read; how many axes there are is in the file."""
    axes = ints("axes", 0)
    axes.ClearField("raw_data")
    axes.data_location = TensorProto.EXTERNAL
    axes.external_data.add(key="location", value="missing.bin")
    nodes = (node("Unsqueeze", "x axes", "u"), node("Squeeze", "u axes", "y"))
    return model(*nodes, inputs=[("x", [4, 8, 8])], outputs=[("y", [4, 8, 8])], weights=[axes])


def old_style_weights():
    """IR 3: every weight is a graph input as well, and its numbers are constant all the same."""
    s = ints("s", 1, -1)
    return model(
        node("Reshape", "x s", "y"),
        inputs=[X, ("s", [2], TensorProto.INT64)],
        outputs=[("y", [1, 256])],
        weights=[s],
        opset=8,
        ir=3,
    )


def sequence_of_rank_4():
    nodes = (node("SequenceConstruct", "x x", "q"), node("ConcatFromSequence", "q", "y", axis=0))
    return model(*nodes, outputs=[("y", [2, 4, 8, 8])])


def empty_weight():
    """A dimension of 0 is a size like any other."""
    return model(node("Concat", "x w", "y", axis=1), weights=[floats("w", 1, 0, 8, 8)])


# ---- bad ----------------------------------------------------------------------------------------------------------


def hidden_rank_5():
    return model(*_through_rank_5(), weights=[S5, S4])


def rank_5_in_if():
    then, other = branch("t", "t", *_through_rank_5(target="t")), branch("e", "e", node("Neg", "x", "e"))
    gate = node("If", "c", "y", name="gate", then_branch=then, else_branch=other)
    return model(gate, inputs=[X, C], weights=[S5, S4])


def rank_5_in_loop():
    return _loop(_loop_body(*_through_rank_5("a", "b")), weights=[S5, S4])


def growing_loop():
    """Each round adds an axis: the rank of the first round proves nothing about the next."""
    return _loop(_loop_body(node("Unsqueeze", "a zero", "b")), weights=[ints("zero", 0)], outputs=[("y", None)])


def rank_5_in_function():
    return model(
        node("F", "x s5 s4", "y", domain="my", name="call"),
        weights=[S5, S4],
        functions=[function("F", "x s5 s4", "y", _through_rank_5())],
    )


def rank_5_in_function_of_function():
    outer = function("G", "x s5 s4", "y", [node("F", "x s5 s4", "y", domain="my")])
    inner = function("F", "x s5 s4", "y", _through_rank_5())
    return model(node("G", "x s5 s4", "y", domain="my"), weights=[S5, S4], functions=[outer, inner])


def rank_5_in_function_of_another_opset():
    nodes = [node("Unsqueeze", "a", "b", axes=[0], name="up"), node("Squeeze", "b", "d", axes=[0])]
    return model(node("F", "x", "y", domain="my"), functions=[function("F", "a", "d", nodes, opset=11)])


def rank_5_in_one_call_of_two():
    body = [node("Unsqueeze", "a zero", "b", name="up"), node("ReduceSum", "b zero", "d", keepdims=0)]
    nodes = (
        node("F", "s zero", "t", domain="my"),
        node("F", "x zero", "u", domain="my"),
        node("Add", "t u", "y"),
    )
    inputs = [X, ("s", [4, 8, 8])]
    return model(*nodes, inputs=inputs, weights=[ints("zero", 0)], functions=[function("F", "a zero", "d", body)])


def uncalled_function():
    """Its inputs come from nowhere, so their ranks are unknown; the constant within has rank 5 all the same."""
    body = [node("Constant", "", "k", value=floats("", 1, 1, 1, 1, 1), name="const"), node("Add", "a k", "d")]
    return model(node("Relu", "x", "y"), functions=[function("F", "a", "d", body)])


def unused_weight_of_rank_5():
    return model(node("Relu", "x", "y"), weights=[floats("unused", 1, 1, 2, 2, 2)])


def weight_of_rank_5_in_branch():
    then, other = branch("t", "t", node("Relu", "x", "t")), branch("e", "e", node("Neg", "x", "e"))
    then.initializer.append(floats("unused", 1, 1, 2, 2, 2))
    return model(node("If", "c", "y", name="gate", then_branch=then, else_branch=other), inputs=[X, C])


def _sparse(name, *shape):
    return helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float32), name), numpy_helper.from_array(np.zeros(1, np.int64)), shape
    )


def sparse_weight_of_rank_5():
    return model(node("Relu", "x", "y"), sparse=[_sparse("thin", 1, 1, 2, 2, 2)])


def constant_of_rank_5():
    return model(node("Constant", "", "k", value=floats("", 1, 1, 1, 1, 1), name="const"), node("Relu", "x", "y"))


def sparse_constant_of_rank_5():
    constant = node("Constant", "", "k", sparse_value=_sparse("", 1, 1, 1, 1, 1), name="const")
    return model(constant, node("Relu", "x", "y"))


def attribute_of_rank_5():
    extra = node("Foo", "x", "y", domain="vendor", name="foo", table=floats("", 1, 1, 1, 1, 1))
    return model(extra)


def sequence_of_rank_5():
    nodes = (node("Reshape", "x s5", "r"), node("SequenceConstruct", "r", "q", name="seq"), node("Relu", "x", "y"))
    return model(*nodes, weights=[S5])


def unknown_operator():
    return model(node("Foo", "x", "a", domain="vendor", name="foo"), node("Relu", "a", "y", name="after"))


def unknown_operator_with_claims():
    """value_info and the output claim rank 4; nothing in the graph confirms it."""
    return model(
        node("Foo", "x", "a", domain="vendor", name="foo"), node("Relu", "a", "y"), info=[value("a", [1, 4, 8, 8])]
    )


def unknown_operator_with_a_body():
    """The body's input has the name of a value outside, and nothing of its rank."""
    body = helper.make_graph([node("Relu", "x", "b")], "body", [value("x")], [value("b")])
    return model(node("Each", "x", "a", domain="vendor", name="each", body=body), node("Relu", "x", "y"))


def input_without_shape():
    return model(node("Relu", "x", "y"), inputs=[("x", None)])


def branches_of_two_ranks():
    then = branch("t", "t", node("Flatten", "x", "t"))
    other = branch("e", "e", node("Neg", "x", "e"))
    gate = node("If", "c", "y", name="gate", then_branch=then, else_branch=other)
    return model(gate, inputs=[X, C], outputs=[("y", None)])


def stale_value_info():
    """The file hides a rank of 5 behind a declared rank of 4."""
    return model(*_through_rank_5(), weights=[S5, S4], info=[value("x_r5", [1, 4, 8, 8])])


def stale_output():
    return model(node("Flatten", "x", "y", name="flat"), outputs=[("y", [1, 4, 8, 8])])


def conv3d():
    n = node("Conv", "x w", "y", kernel_shape=[3] * 3, pads=[1] * 6, name="conv")
    ports = {"inputs": [("x", [1, 3, 4, 8, 8])], "outputs": [("y", [1, 2, 4, 8, 8])]}
    return model(n, weights=[floats("w", 2, 3, 3, 3, 3)], **ports)


def pool3d_of_unknown_rank():
    """Nothing tells the input's rank, the attributes tell enough."""
    nodes = (node("Foo", "x", "a", domain="vendor"), node("MaxPool", "a", "y", kernel_shape=[2, 2, 2], name="pool"))
    return model(*nodes)


def resize_of_three_axes():
    """Rank 4, but channels, height and width are all resized."""
    scales = numpy_helper.from_array(np.array([1, 2, 2, 2], np.float32), "scales")
    nodes = node("Resize", "x  scales", "y", mode="linear", name="resize")
    nodes.input[:] = ["x", "", "scales"]
    return model(nodes, outputs=[("y", [1, 8, 16, 16])], weights=[scales])


def empty_graph():
    return model(outputs=[("y", [1])], inputs=[])


def undefined_name():
    return model(node("Relu", "ghost", "y", name="r"))


def produced_twice():
    return model(node("Relu", "x", "y", name="r"), node("Neg", "x", "y", name="n"))


GOOD: list[Callable[[], ModelProto]] = [
    plain, conv2d, depth_to_space, dynamic_sizes, computed_reshape, if_of_rank_4, loop_of_rank_4, nested_loops, scan,
    called_function, function_of_another_opset, microsoft_operators, axes_in_another_file, old_style_weights,
    sequence_of_rank_4, empty_weight,
]  # fmt: skip

BAD: list[tuple[Callable[[], ModelProto], str, str, str]] = [
    # (model, code, graph, value) of a finding that must be there
    (hidden_rank_5, "E4D001", "graph", "x_r5"),
    (hidden_rank_5, "E4D001", "graph", "x_relu"),
    (rank_5_in_if, "E4D001", "graph / If 'gate' / then_branch", "x_relu"),
    (rank_5_in_loop, "E4D001", "graph / Loop 'loop' / body", "a_relu"),
    (growing_loop, "E4D002", "graph / Loop 'loop' / body", "a"),
    (growing_loop, "E4D002", "graph", "y"),
    (rank_5_in_function, "E4D001", "function my::F", "x_relu"),
    (rank_5_in_function_of_function, "E4D001", "function my::F", "x_relu"),
    (rank_5_in_function_of_another_opset, "E4D001", "function my::F", "b"),
    (rank_5_in_one_call_of_two, "E4D001", "function my::F", "b"),
    (uncalled_function, "E4D001", "function my::F", "k"),
    (uncalled_function, "E4D002", "function my::F", "a"),
    (uncalled_function, "E4D002", "function my::F", "d"),
    (unused_weight_of_rank_5, "E4D001", "graph", "unused"),
    (weight_of_rank_5_in_branch, "E4D001", "graph / If 'gate' / then_branch", "unused"),
    (sparse_weight_of_rank_5, "E4D001", "graph", "thin"),
    (constant_of_rank_5, "E4D001", "graph", "k"),
    (sparse_constant_of_rank_5, "E4D001", "graph", "k"),
    (attribute_of_rank_5, "E4D001", "graph", "table"),
    (sequence_of_rank_5, "E4D001", "graph", "q"),
    (unknown_operator, "E4D002", "graph", "a"),
    (unknown_operator, "E4D002", "graph", "y"),
    (unknown_operator_with_claims, "E4D002", "graph", "a"),
    (unknown_operator_with_claims, "E4D002", "graph", "y"),
    (unknown_operator_with_a_body, "E4D002", "graph / vendor::Each 'each' / body", "x"),
    (unknown_operator_with_a_body, "E4D002", "graph / vendor::Each 'each' / body", "b"),
    (input_without_shape, "E4D002", "graph", "x"),
    (branches_of_two_ranks, "E4D002", "graph", "y"),
    (stale_value_info, "E4D005", "graph", "x_r5"),
    (stale_value_info, "E4D001", "graph", "x_r5"),
    (stale_output, "E4D005", "graph", "y"),
    (conv3d, "E4D003", "graph", "y"),
    (conv3d, "E4D001", "graph", "x"),
    (conv3d, "E4D001", "graph", "w"),
    (pool3d_of_unknown_rank, "E4D003", "graph", "y"),
    (resize_of_three_axes, "E4D003", "graph", "y"),
    (empty_graph, "E4D004", "graph", ""),
    (undefined_name, "E4D006", "graph", "ghost"),
    (produced_twice, "E4D006", "graph", "y"),
]
