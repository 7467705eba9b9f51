"""Local functions: called and uncalled, nested, with attributes, with subgraphs, in other operator sets."""

from __future__ import annotations

import onnx
from onnx import helper

from tests.validators.corpus.bodies import body, up_and_down
from tests.validators.corpus.case import case
from tests.validators.onnx_models import S4, S5, C, X, branch, floats, function, ints, model, node, value


def call(name, inputs="x", output="y", **attributes):
    return node(name, inputs, output, domain="my", name=f"call_{output}", **attributes)


@case("E4D001")
def constant_of_rank_5_in_a_function():
    nodes = (node("Constant", "", "k", value=floats("", 1, 1, 1, 1, 1)), node("Relu", "a", "d"))
    return model(call("F"), functions=[function("F", "a", "d", nodes)])


@case("E4D001")
def function_in_a_branch():
    then = branch("t", "t", call("F", "x s5 s4", "t"))
    other = branch("e", "e", node("Neg", "x", "e"))
    f = function("F", "x s5 s4", "y", up_and_down("x", "y"))
    return model(
        node("If", "c", "y", then_branch=then, else_branch=other), inputs=[X, C], weights=[S5, S4], functions=[f]
    )


@case("E4D001")
def branch_in_a_function():
    then, other = branch("t", "t", *up_and_down("a", "t")), branch("e", "e", node("Neg", "a", "e"))
    f = function("F", "a c s5 s4", "d", [node("If", "c", "d", name="gate", then_branch=then, else_branch=other)])
    return model(call("F", "x c s5 s4"), inputs=[X, C], weights=[S5, S4], functions=[f])


@case()
def branch_in_a_function_of_rank_4():
    then, other = branch("t", "t", node("Relu", "a", "t")), branch("e", "e", node("Neg", "a", "e"))
    f = function("F", "a c", "d", [node("If", "c", "d", name="gate", then_branch=then, else_branch=other)])
    return model(call("F", "x c"), inputs=[X, C], functions=[f])


@case()
def function_called_in_a_loop():
    f = function("F", "a", "d", [node("Relu", "a", "d")])
    return model(
        node("Loop", "n c x", "y", name="loop", body=body(call("F", "a", "b"))),
        inputs=[X, C, value("n", [], 7)],
        functions=[f],
    )


@case("E4D001")
def functions_ten_deep():
    bodies = [function("F0", "x s5 s4", "y", up_and_down("x", "y"))]
    bodies += [function(f"F{i}", "x s5 s4", "y", [call(f"F{i - 1}", "x s5 s4")]) for i in range(1, 10)]
    return model(call("F9", "x s5 s4"), weights=[S5, S4], functions=bodies)


@case()
def functions_ten_deep_of_rank_4():
    bodies = [function("F0", "x", "y", [node("Relu", "x", "y")])]
    bodies += [function(f"F{i}", "x", "y", [call(f"F{i - 1}")]) for i in range(1, 10)]
    return model(call("F9"), functions=bodies)


def _with_attribute(perm_rank, **ports):
    transpose = node("Transpose", "a", "d")
    transpose.attribute.append(onnx.AttributeProto(name="perm", ref_attr_name="p", type=onnx.AttributeProto.INTS))
    f = function("F", "a", "d", [transpose], attributes=["p"])
    return model(call("F", p=list(range(perm_rank))[::-1]), functions=[f], **ports)


@case()
def attribute_of_a_call():
    return _with_attribute(4, outputs=[("y", [8, 8, 4, 1])])


@case("E4D001")
def attribute_of_a_call_of_rank_5():
    return _with_attribute(5, inputs=[("x", [1, 2, 3, 4, 5])], outputs=[("y", [5, 4, 3, 2, 1])])


@case()
def default_of_an_attribute():
    """The function's own default stands in for what the call leaves out."""
    flat = node("Flatten", "a", "d")
    flat.attribute.append(onnx.AttributeProto(name="axis", ref_attr_name="at", type=onnx.AttributeProto.INT))
    f = function("F", "a", "d", [flat])
    f.attribute_proto.append(helper.make_attribute("at", 2))
    return model(call("F"), functions=[f], outputs=[("y", [4, 64])], ir=10)


@case("E4D001")
def default_of_an_attribute_of_rank_5():
    """A tensor that the call replaces by one of rank 1."""
    constant = node("Constant", "", "k")
    constant.attribute.append(onnx.AttributeProto(name="value", ref_attr_name="t", type=onnx.AttributeProto.TENSOR))
    f = function("F", "a", "d", [constant, node("Add", "a k", "d")])
    f.attribute_proto.append(helper.make_attribute("t", floats("", 1, 1, 1, 1, 1)))
    return model(call("F", t=floats("", 1)), functions=[f])


@case()
def two_overloads():
    a = function("F", "a", "d", [node("Relu", "a", "d")])
    b = function("F", "a", "d", [node("Neg", "a", "d")])
    b.overload = "other"
    second = call("F", "t", "y")
    second.overload = "other"
    return model(call("F", "x", "t"), second, functions=[a, b])


@case("E4D001")
def second_overload_of_rank_5():
    a = function("F", "x s5 s4", "y", [node("Relu", "x", "y")])
    b = function("F", "x s5 s4", "y", up_and_down("x", "y"))
    b.overload = "other"
    second = call("F", "t s5 s4", "y")
    second.overload = "other"
    return model(call("F", "x s5 s4", "t"), second, functions=[a, b], weights=[S5, S4])


@case("E4D001")
def one_function_at_ranks_4_and_5():
    """Fine in one call, too high in the other."""
    f = function("F", "a", "d", [node("Relu", "a", "d")])
    nodes = (call("F", "x", "t"), node("Reshape", "t s5", "w"), call("F", "w", "v"), node("Reshape", "v s4", "y"))
    return model(*nodes, functions=[f], weights=[S5, S4])


@case("E4D002", "E4D001")
def uncalled_function_with_rank_5_in_a_branch():
    then, other = branch("t", "t", node("Constant", "", "t", value=floats("", *[1] * 5))), branch("e", "e")
    other.node.append(node("Neg", "a", "e"))
    f = function("F", "a c", "d", [node("If", "c", "d", name="gate", then_branch=then, else_branch=other)])
    return model(node("Relu", "x", "y"), functions=[f])


@case("E4D002")
def uncalled_function_of_unknown_rank():
    return model(node("Relu", "x", "y"), functions=[function("F", "a", "d", [node("Relu", "a", "d")])])


@case("E4D001", "E4D005")
def function_with_value_info_of_rank_4():
    """A body may carry claims of its own."""
    f = function("F", "x s5 s4", "y", up_and_down("x", "y"))
    f.value_info.append(value("wide", [1, 4, 8, 8]))
    return model(call("F", "x s5 s4"), weights=[S5, S4], functions=[f])


@case()
def function_without_inputs():
    f = function("F", "", "d", [node("Constant", "", "d", value=floats("", 1, 4, 1, 1))])
    return model(call("F", "", "k"), node("Add", "x k", "y"), functions=[f])


@case()
def function_with_an_input_left_out():
    clip = node("Clip", "a lo", "d")
    return model(call("F", "x"), functions=[function("F", "a lo", "d", [clip])])


@case("E4D003", "E4D001")
def conv3d_in_a_function():
    f = function("F", "a w", "d", [node("Conv", "a w", "d", kernel_shape=[1, 1, 1])])
    return model(
        call("F", "x w"),
        inputs=[("x", [1, 2, 3, 4, 4])],
        outputs=[("y", [1, 2, 3, 4, 4])],
        weights=[floats("w", 2, 2, 1, 1, 1)],
        functions=[f],
    )


@case()
def function_that_replaces_an_operator_of_onnx():
    """A function of ONNX's own domain takes precedence over the operator of its name."""
    f = function("Celu", "a", "d", [node("Relu", "a", "d")], domain="")
    return model(node("Celu", "x", "y"), functions=[f])


@case(refused="Unsqueeze")
def function_of_an_older_operator_set_with_a_body():
    then, other = branch("t", "t", node("Squeeze", "u", "t", axes=[0])), branch("e", "e", node("Neg", "a", "e"))
    nodes = [
        node("Unsqueeze", "a", "u", axes=[0]),
        node("If", "c", "d", name="gate", then_branch=then, else_branch=other),
    ]
    f = function("F", "a c", "d", nodes, opset=11)
    return model(
        call("F", "x c"), inputs=[("x", [4, 8, 8]), C], outputs=[("y", [4, 8, 8])], functions=[f], weights=[ints("u")]
    )
