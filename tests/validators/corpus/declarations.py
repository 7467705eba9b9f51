"""What a file says about itself, and what is wrong with files as such."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from tests.validators.corpus.case import case
from tests.validators.onnx_models import S4, S5, C, X, _through_rank_5, branch, floats, ints, model, node, value


@case()
def true_value_info():
    nodes = (node("Relu", "x", "a"), node("Neg", "a", "y"))
    return model(*nodes, info=[value("a", [1, 4, 8, 8])])


@case()
def value_info_without_shape():
    nodes = (node("Relu", "x", "a"), node("Neg", "a", "y"))
    return model(*nodes, info=[value("a", None)])


@case()
def value_info_of_nothing():
    """Left over from a pass that removed the value; of rank 4."""
    return model(node("Relu", "x", "y"), info=[value("gone", [1, 4, 8, 8])])


@case("E4D005")
def value_info_of_too_few_axes():
    nodes = (node("Relu", "x", "a"), node("Neg", "a", "y"))
    return model(*nodes, info=[value("a", [4, 64])])


@case("E4D005")
def value_info_claims_rank_5_of_rank_4():
    nodes = (node("Relu", "x", "a"), node("Neg", "a", "y"))
    return model(*nodes, info=[value("a", [1, 1, 4, 8, 8])])


@case("E4D001", "E4D005")
def value_info_hides_a_rank_in_a_branch():
    then, other = branch("t", "t", *_through_rank_5(target="t")), branch("e", "e", node("Neg", "x", "e"))
    then.value_info.append(value("x_r5", [1, 4, 8, 8]))
    return model(node("If", "c", "y", then_branch=then, else_branch=other), inputs=[X, C], weights=[S5, S4])


@case("E4D005", refused="")
def declared_input_against_a_weight():
    """IR 3: the input's declared shape and the weight's own."""
    return model(
        node("Add", "x w", "y"), inputs=[X, ("w", [1, 4, 1])], weights=[floats("w", 1, 4, 1, 1)], opset=8, ir=3
    )


@case("E4D002", refused="vendor")
def output_claims_what_nothing_proves():
    return model(node("Foo", "x", "y", domain="vendor"))


@case("E4D002", refused="vendor")
def unknown_operator_whose_result_is_reshaped():
    """After the Reshape the rank is known again; before it, it is not."""
    nodes = (node("Foo", "x", "a", domain="vendor"), node("Reshape", "a s", "y"))
    return model(*nodes, weights=[ints("s", 1, 4, 8, 8)])


@case("E4D002", refused="")
def operator_that_onnx_does_not_have():
    return model(node("Foo", "x", "y"))


@case("E4D007", refused=None)
def training_information():
    proto = model(node("Relu", "x", "y"))
    info = proto.training_info.add()
    info.algorithm.CopyFrom(onnx.helper.make_graph([node("Relu", "x", "z")], "step", [], []))
    return proto


@case("E4D006", "E4D002", refused="")
def cycle_of_two_nodes():
    return model(node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y"))


@case("E4D006")
def nodes_in_the_wrong_order():
    """ONNX Runtime sorts them; ONNX asks for the order."""
    return model(node("Relu", "a", "y"), node("Relu", "x", "a"))


@case("E4D006", refused="")
def output_that_nothing_makes():
    return model(node("Relu", "x", "z"), outputs=[("z", X[1]), ("y", X[1])])


@case("E4D006")
def two_weights_of_one_name():
    return model(node("Add", "x w", "y"), weights=[floats("w", 1, 4, 1, 1), floats("w", 1, 4, 1, 1)])


@case("E4D006", refused="")
def two_inputs_of_one_name():
    return model(node("Relu", "x", "y"), inputs=[X, X])


@case("E4D006", "E4D002", refused="")
def name_of_an_inner_scope_used_outside():
    then, other = branch("t", "t", node("Relu", "x", "t")), branch("e", "e", node("Neg", "x", "e"))
    gate = node("If", "c", "z", then_branch=then, else_branch=other)
    return model(gate, node("Relu", "t", "y"), inputs=[X, C])


@case("E4D006", refused="")
def two_functions_of_one_name():
    from tests.validators.onnx_models import function

    f = function("F", "a", "d", [node("Relu", "a", "d")])
    return model(node("F", "x", "y", domain="my"), functions=[f, f])


@case()
def several_operator_sets():
    proto = model(node("Relu", "x", "y"))
    proto.opset_import.add(domain="ai.onnx.ml", version=3)
    proto.opset_import.add(domain="com.microsoft", version=1)
    return proto


@case()
def own_domain_by_its_long_name():
    relu = node("Relu", "x", "y")
    relu.domain = "ai.onnx"
    proto = model(relu)
    del proto.opset_import[:]
    proto.opset_import.add(domain="ai.onnx", version=18)
    return proto


@case()
def names_of_all_kinds():
    nodes = (node("Relu", "x", "läyer/0:ü"), node("Neg", "läyer/0:ü", "y"))
    return model(*nodes)


@case("E4D001")
def dynamic_sizes_of_rank_5_within():
    nodes = (
        node("Unsqueeze", "x zero", "wide"),
        node("Expand", "wide two", "wider"),
        node("ReduceMean", "wider", "y", axes=[0], keepdims=0),
    )
    ports = {"inputs": [("x", ["n", 4, "h", "w"])], "outputs": [("y", ["n", 4, "h", "w"])]}
    return model(*nodes, weights=[ints("zero", 0), ints("two", 2, 1, 1, 1, 1)], opset=13, **ports)


@case()
def integers_of_every_kind():
    kinds = ("INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64", "DOUBLE", "BOOL")
    nodes = [node("Cast", "x", f"y{kind}", to=getattr(TensorProto, kind)) for kind in kinds]
    return model(*nodes, outputs=[(f"y{kind}", X[1], getattr(TensorProto, kind)) for kind in kinds])


@case("E4D005")
def value_info_that_contradicts_the_output_of_the_same_name():
    return model(node("Relu", "x", "y"), info=[value("y", [1, 1, 4, 8, 8])])


@case("E4D005")
def value_info_twice_and_once_wrong():
    nodes = (node("Relu", "x", "a"), node("Neg", "a", "y"))
    return model(*nodes, info=[value("a", [1, 1, 4, 8, 8]), value("a", [1, 4, 8, 8])])
