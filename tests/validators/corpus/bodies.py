"""If, Loop and Scan at some depth."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.validators.corpus.case import add, case
from tests.validators.onnx_models import S4, S5, C, X, branch, floats, ints, model, node, value

I64, BOOL = TensorProto.INT64, TensorProto.BOOL


def graph(name, inputs, outputs, *nodes, weights=()):
    ports = [[value(*p) if isinstance(p, tuple) else value(p) for p in side] for side in (inputs, outputs)]
    return helper.make_graph(list(nodes), name, *ports, initializer=list(weights))


def body(*nodes, states=("a",), results=("b",), suffix=""):
    """Of a Loop; the condition is handed on."""
    inputs = [(f"i{suffix}", [], I64), (f"on{suffix}", [], BOOL), *states]
    outputs = [(f"on2{suffix}", [], BOOL), *results]
    return graph(f"body{suffix}", inputs, outputs, node("Identity", f"on{suffix}", f"on2{suffix}"), *nodes)


def loop(loop_body, states="x", results="y", **rest):
    nodes = node("Loop", f"n c {states}", results, name="loop", body=loop_body)
    return model(nodes, *rest.pop("after", ()), inputs=[X, C, ("n", [], I64)], **rest)


def up_and_down(source, target, tag=""):
    return (
        node("Reshape", f"{source} s5", f"wide{tag}", name=f"up{tag}"),
        node("Reshape", f"wide{tag} s4", target, name=f"down{tag}"),
    )


def nested_ifs(depth, *innermost):
    nodes = list(innermost)
    for level in range(depth):
        then = branch(f"t{level}", f"r{level}", *nodes)
        other = branch(f"e{level}", f"o{level}", node("Neg", "x", f"o{level}"))
        nodes = [node("If", "c", f"r{level + 1}", name=f"if{level}", then_branch=then, else_branch=other)]
    return model(*nodes, inputs=[X, C], outputs=[(f"r{depth}", X[1])], weights=[S5, S4])


for _depth in (1, 2, 5, 12):
    add(f"if_{_depth}_deep", lambda d=_depth: nested_ifs(d, node("Relu", "x", "r0")))
    add(f"rank_5_in_if_{_depth}_deep", lambda d=_depth: nested_ifs(d, *up_and_down("x", "r0")), "E4D001")


@case("E4D001")
def rank_5_in_else_branch():
    then, other = branch("t", "t", node("Neg", "x", "t")), branch("e", "e", *up_and_down("x", "e"))
    gate = node("If", "c", "y", then_branch=then, else_branch=other)
    return model(gate, inputs=[X, C], weights=[S5, S4])


@case("E4D001")
def rank_5_in_a_branch_that_is_never_taken():
    """A constant condition decides at run time; the graph holds the value all the same."""
    from onnx import numpy_helper

    never = numpy_helper.from_array(np.array(False), "never")
    then, other = branch("t", "t", *up_and_down("x", "t")), branch("e", "e", node("Neg", "x", "e"))
    return model(node("If", "never", "y", then_branch=then, else_branch=other), weights=[S5, S4, never])


@case("E4D001")
def if_that_gives_rank_5():
    then, other = branch("t", "t", node("Reshape", "x s5", "t")), branch("e", "e", node("Reshape", "x s5", "e"))
    gate = node("If", "c", "r", then_branch=then, else_branch=other)
    return model(gate, node("Reshape", "r s4", "y"), inputs=[X, C], weights=[S5, S4])


@case()
def if_of_two_outputs():
    then = graph("t", [], ["t", "u"], node("Relu", "x", "t"), node("Flatten", "x", "u"))
    other = graph("e", [], ["e", "f"], node("Neg", "x", "e"), node("Flatten", "x", "f"))
    gate = node("If", "c", "y z", then_branch=then, else_branch=other)
    return model(gate, inputs=[X, C], outputs=[("y", X[1]), ("z", None)])


@case()
def branch_that_is_only_a_weight():
    then, other = branch("t", "t"), branch("e", "e", node("Neg", "x", "e"))
    then.initializer.append(floats("t", 1, 4, 8, 8))
    return model(node("If", "c", "y", then_branch=then, else_branch=other), inputs=[X, C])


@case()
def branch_that_hides_an_outer_name():
    """``r`` within is another value than ``r`` without."""
    then = branch("t", "t", node("Flatten", "x", "q"), node("Neg", "x", "t"))
    other = branch("e", "e", node("Neg", "x", "q"), node("Abs", "q", "e"))
    return model(node("If", "c", "y", then_branch=then, else_branch=other), inputs=[X, C])


@case()
def loop_that_collects():
    """A scan output has one axis more than what a round gives."""
    b = body(node("Relu", "a", "b"), node("ReduceMean", "a", "s", keepdims=0), results=("b", "s"))
    return loop(b, results="y all", outputs=[("y", X[1]), ("all", None)])


@case("E4D001")
def loop_that_collects_rank_5():
    b = body(node("Relu", "a", "b"), node("Identity", "b", "s"), results=("b", "s"))
    return loop(b, results="y all", outputs=[("y", X[1])])


@case("E4D001")
def loop_that_carries_rank_5():
    b = body(node("Relu", "a", "b"))
    proto = loop(b, states="wide", results="r", weights=[S5, S4], outputs=[("r", None)])
    proto.graph.node.insert(0, node("Reshape", "x s5", "wide"))
    return proto


@case()
def loop_of_two_states_that_swap():
    b = body(node("Identity", "q", "b"), node("Identity", "a", "r"), states=("a", "q"), results=("b", "r"))
    return loop(b, states="x x", results="y z", outputs=[("y", X[1]), ("z", X[1])])


@case("E4D002")
def loop_of_two_ranks_that_swap():
    b = body(node("Identity", "q", "b"), node("Identity", "a", "r"), states=("a", "q"), results=("b", "r"))
    proto = loop(b, states="x flat", results="y z", outputs=[("y", None), ("z", None)])
    proto.graph.node.insert(0, node("Flatten", "x", "flat"))
    return proto


@case("E4D001")
def loop_in_if_in_loop():
    inner = body(*up_and_down("a_", "b_"), states=("a_",), results=("b_",), suffix="_")
    then = branch("t", "t", node("Loop", "n on a", "t", name="inner", body=inner))
    other = branch("e", "e", node("Neg", "a", "e"))
    return loop(body(node("If", "on", "b", then_branch=then, else_branch=other)), weights=[S5, S4])


@case()
def loop_in_if_in_loop_of_rank_4():
    inner = body(node("Relu", "a_", "b_"), states=("a_",), results=("b_",), suffix="_")
    then = branch("t", "t", node("Loop", "n on a", "t", name="inner", body=inner))
    other = branch("e", "e", node("Neg", "a", "e"))
    return loop(body(node("If", "on", "b", then_branch=then, else_branch=other)))


@case()
def loop_without_limit_or_condition():
    count = node("Loop", "n  x", "y", name="loop", body=body(node("Relu", "a", "b")))
    count.input[:] = ["n", "", "x"]
    return model(count, inputs=[X, ("n", [], I64)])


@case("E4D001")
def growing_once_in_a_loop():
    """The state shrinks back within the round."""
    nodes = (node("Unsqueeze", "a zero", "wide"), node("Squeeze", "wide zero", "b"))
    return loop(body(*nodes), weights=[ints("zero", 0)])


def _scan(*nodes, outputs=("next", "out"), **rest):
    b = graph("scan", ["state", "item"], list(outputs), *nodes)
    ports = {"inputs": [("s0", [4, 8, 8]), X], "outputs": [("last", [4, 8, 8]), ("y", None)]}
    return model(node("Scan", "s0 x", "last y", body=b, num_scan_inputs=1), **ports, **rest)


@case("E4D001")
def rank_5_in_scan():
    nodes = (
        node("Add", "state item", "next"),
        node("Reshape", "item s", "wide"),
        node("ReduceMax", "wide", "out", axes=[0, 1], keepdims=0),
    )
    return _scan(*nodes, weights=[ints("s", 1, 2, 2, 8, 8)], opset=13)


@case("E4D001")
def scan_that_collects_rank_5():
    return _scan(
        node("Add", "state item", "next"), node("Unsqueeze", "item zero", "out"), weights=[ints("zero", 0)]
    )  # 3 axes an item, 4 with the new one, 5 when they are collected


@case()
def scan_of_an_if():
    then, other = branch("t", "t", node("Relu", "item", "t")), branch("e", "e", node("Neg", "item", "e"))
    proto = _scan(node("Add", "state item", "next"), node("If", "c", "out", then_branch=then, else_branch=other))
    proto.graph.input.append(C)
    return proto


@case()
def scan_backwards():
    proto = _scan(node("Add", "state item", "next"), node("Relu", "item", "out"))
    proto.graph.node[0].attribute.append(helper.make_attribute("scan_input_directions", [1]))
    proto.graph.node[0].attribute.append(helper.make_attribute("scan_output_directions", [1]))
    return proto
