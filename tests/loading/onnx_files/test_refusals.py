"""What cannot be imported is refused by name, all of it at once; what a file may make us read stays in its folder."""

import hashlib
import pathlib

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edge4d.errors import LoadError, LoweringError, UsageError
from edge4d.files import sha256_of
from edge4d.loading import load_model
from edge4d.loading.onnx import settle
from edge4d.loading.onnx.graph import import_graph
from edge4d.loading.onnx.reading import weight_files
from edge4d.subject import Subject
from tests.loading.onnx_files.models import HERE, expected, imported, model_of, numbers, one_node, same

X = numbers(1, 2, 4, 4, 4)


def refused(op, inputs, attributes=None, opset=18, outputs=1, constants=()):
    with pytest.raises(LoweringError) as caught:
        import_graph(one_node(op, inputs, attributes or {}, opset, outputs, constants), HERE)
    assert f"{op} at node 'the/{op}'" in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 1
    return caught.value.message


W, C = numbers(4, 2, 3, 3, 3), numbers(2)
SIZES = np.array([1, 2, 8, 8, 8])
CELL = [numbers(5, 2, 3), numbers(1, 16, 3), numbers(1, 16, 4)]
"""A sequence (T, N, features) and the weights of an LSTM of four features."""
BN = [X, C, C, C, np.abs(C) + 1]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "says"),
    [
        ("NonZero", [X], {}, "depends on the values of the input"),
        ("RandomNormalLike", [X], {}, "draws random numbers"),
        ("Det", [X], {}, "an operator that is not imported"),
        ("QuantizeLinear", [X, np.float32(1)], {}, "a quantized network"),
        ("LSTM", CELL, {"layout": 1}, "layout=1"),
        ("LSTM", CELL, {"clip": 3.0}, "clip=3.0"),
        ("LSTM", CELL, {"input_forget": 1}, "input_forget=1"),
        ("LSTM", CELL, {"direction": "sideways"}, "direction=sideways"),
        ("LSTM", CELL, {"activations": ["Sigmoid", "Relu", "Tanh"]}, "activations=Sigmoid,Relu,Tanh"),
        ("RNN", CELL, {"activations": ["Affine"], "activation_alpha": [2.0]}, "activation_alpha"),
        ("LpPool", [X], {"kernel_shape": [2, 2, 2], "p": 0}, "p=0"),
        ("Conv", [X, W], {"kernel_shape": [3, 3, 1]}, "is not that of the weight"),
        ("Conv", [X, W], {"pads": [1, 1]}, "pads has 2 numbers for 3 axes"),
        ("Conv", [X, W], {"auto_pad": "SAME"}, "auto_pad=SAME"),
        ("Conv", [X, W], {"strides": [1, 1]}, "do not fit its 3 axes"),
        ("Conv", [X, numbers(2, 2, 1, 1, 1, 1)], {}, "a convolution over 4 axes"),
        ("Conv", [X, W], {"winograd": 1}, "the attribute winograd is not one that Conv has"),
        ("BatchNormalization", BN, {"training_mode": 1}, "in inference mode"),
        ("LRN", [X], {"size": 2}, "runtimes take odd ones only"),
        ("Pad", [X, np.zeros(10, np.int64)], {"mode": "mirror"}, "mode=mirror"),
        ("Resize", [X, None, None, SIZES], {"coordinate_transformation_mode": "tf_crop_and_resize"}, "tf_crop"),
        ("Resize", [X, None, None, SIZES], {"mode": "linear", "antialias": 1}, "antialias"),
        ("Resize", [X, None, None, SIZES], {"keep_aspect_ratio_policy": "not_larger"}, "keep a ratio"),
        ("Cast", [X], {"to": TensorProto.STRING}, "element type 8"),
        ("Cast", [X], {"to": TensorProto.FLOAT8E4M3FN}, "element type 17"),
        ("ScatterND", [X, np.zeros((1, 1), np.int64), X], {"reduction": "mul"}, "reduction=mul"),
        ("GatherND", [X, np.zeros((1, 1), np.int64)], {"batch_dims": 1}, "batch_dims=1"),
    ],
)
def test_refused_by_name(op, inputs, attributes, says):
    assert says in refused(op, inputs, attributes, constants=tuple(range(1, len(inputs))))


def test_a_shape_that_hangs_on_values_is_refused():
    assert "its input shape depends on the values" in refused("Reshape", [X, np.array([2, -1])])
    assert "its input K depends on the values" in refused("TopK", [X, np.array([2])], outputs=2)


@pytest.mark.parametrize(
    ("more", "attributes", "says"),
    [
        ([None, np.array([5, 4], np.int32)], {}, "sequence_lens of 4, 5 in sequences of 5"),
        ([], {"hidden_size": 3}, "hidden_size=3, but its weights are for 4"),
    ],
)
def test_recurrent_inputs_that_are_not_imported(tmp_path, more, attributes, says):
    """What only the shapes tell is told when they are known."""
    constants = tuple(i for i in range(1, 3 + len(more)) if i < 3 or more[i - 3] is not None)
    onnx.save(one_node("LSTM", [*CELL, *more], attributes, 14, 3, constants), tmp_path / "m.onnx")
    with pytest.raises(UsageError) as caught:
        Subject.of(tmp_path / "m.onnx")
    assert "'the/LSTM'" in str(caught.value)
    assert says in str(caught.value)


def test_peepholes():
    peepholes = [*CELL, None, None, None, None, numbers(1, 12)]
    assert "has peepholes" in refused("LSTM", peepholes, {}, 14, 3, (1, 2, 7))
    assert "has peepholes" in refused("LSTM", peepholes, {}, 14, 3, (1, 2))
    peepholes[7] = peepholes[7] * 0
    model = one_node("LSTM", peepholes, {"hidden_size": 4}, 14, 3, (1, 2, 7))
    same(imported(model, {"x0": CELL[0]}), expected(model, {"x0": CELL[0]}))


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "constants"),
    [
        ("Resize", [np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4), None, None, np.array([1, 1, 6, 6])],
         {"mode": "linear"}, (3,)),
        ("ReduceMean", [np.arange(6).reshape(2, 3)], {}, ()),
        ("ReduceL2", [np.arange(6).reshape(2, 3)], {}, ()),
        ("ReduceLogSum", [np.arange(6).reshape(2, 3)], {}, ()),
    ],
)  # fmt: skip
def test_what_rounds_integers_is_refused(op, inputs, attributes, constants):
    model = import_graph(one_node(op, inputs, attributes, 18, constants=constants), HERE)
    with pytest.raises(UsageError, match=f"node 'the/{op}'.*of u?int") as caught:
        settle(model, [torch.from_numpy(inputs[0])])
    assert "cast to float" in caught.value.hint


def test_a_way_back_to_the_end_of_an_axis_is_refused():
    """By ONNX's text it stops at the last place, by ONNX Runtime at the first."""
    places = [np.array([number]) for number in (-1, np.iinfo(np.int64).max, 4, -1)]
    model = import_graph(one_node("Slice", [X, *places], {}, 18, constants=(1, 2, 3, 4)), HERE)
    with pytest.raises(UsageError, match="ends=9223372036854775807 with steps=-1") as caught:
        settle(model, [torch.from_numpy(X)])
    assert "the smallest whole number" in caught.value.hint


def test_lengths_that_hang_on_the_input_are_refused():
    said = refused("LSTM", [*CELL, None, np.array([5, 5], np.int32)], {}, 14, 3, (1, 2))
    assert "its input sequence_lens depends on the values of the network's input" in said


def test_outputs_that_are_not_imported():
    assert "its indices are used" in refused("MaxPool", [X], {"kernel_shape": [2, 2, 2]}, outputs=2)
    assert "its mask is used" in refused("Dropout", [X], outputs=2)


def test_control_flow_and_other_domains():
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "b", [], [y])
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0, name="sum"),
        helper.make_node("Cast", ["s"], ["c"], to=TensorProto.BOOL, name="cond"),
        helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch, name="choice"),
        helper.make_node("FusedConv", ["z"], ["w"], domain="com.microsoft", name="fused"),
        helper.make_node("Det", ["w"], ["v"], name="det"),
    ]
    with pytest.raises(LoweringError) as caught:
        import_graph(model_of(nodes, {"x": X}, {}, ["v"]), HERE)
    text = caught.value.message
    assert "3 nodes cannot be imported" in text
    assert "If at node 'choice': control flow" in text
    assert "FusedConv at node 'fused': an operator of the domain com.microsoft" in text
    assert "Det at node 'det'" in text
    assert "2 of the graph's 5 nodes (40.0 %) can" in text


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("size", [1, 2])
def test_branches_of_an_if_may_use_the_same_names(constant, size):
    """A weight, a folded constant and a computed value, each of which is something else in the other branch."""

    def branch(factor, *nodes):
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        k = helper.make_tensor("k", TensorProto.FLOAT, [], [factor])
        last = [helper.make_node("Mul", ["x", "u"], ["v"]), helper.make_node("Add", ["v", "k"], ["y"])]
        return helper.make_graph([*nodes, *last], "b", [], [y], [k])

    then = branch(2.0, helper.make_node("Add", ["k", "k"], ["u"]))
    other = branch(5.0, helper.make_node("Relu", ["x"], ["u"]))
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["size"], axis=0),
        helper.make_node("Equal", ["one" if constant else "size", "one"], ["c"]),
        helper.make_node("If", ["c"], ["out"], then_branch=then, else_branch=other, name="choice"),
        helper.make_node("Neg", ["out"], ["u"]),  # a name of the branches again, behind them
        helper.make_node("Mul", ["u", "x"], ["last"]),
    ]
    if constant:
        size = 1
    inputs = {"x": numbers(2, size, 4)}
    model = model_of(nodes, inputs, {"one": np.array(1)}, ["last"])
    same(imported(model, inputs), expected(model, inputs, "reference"))


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("size", [1, 2])
def test_an_if_over_shapes_is_decided(constant, size):
    """As PyTorch writes a squeeze of an axis that may have another size; both branches use a weight."""
    y, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "yz")
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    then = helper.make_graph(
        [helper.make_node("Squeeze", ["x", "axes"], ["s"]), helper.make_node("Mul", ["s", "w"], ["y"])],
        "t", [], [y], [axes],
    )  # fmt: skip
    other = helper.make_graph([helper.make_node("Add", ["x", "w"], ["z"], name="sum")], "e", [], [z])
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["size"], axis=0),
        helper.make_node("Equal", ["one" if constant else "size", "one"], ["c"]),
        helper.make_node("If", ["c"], ["out"], then_branch=then, else_branch=other, name="choice"),
        helper.make_node("Relu", ["out"], ["last"]),
    ]
    if constant:
        size = 1
    inputs = {"x": numbers(2, size, 4)}
    model = model_of(nodes, inputs, {"one": np.array(1), "w": numbers(4, seed=1)}, ["last"])
    same(imported(model, inputs), expected(model, inputs, "reference"))


def test_long_lists_are_counted():
    nodes = [helper.make_node("Det", ["x"], [f"y{i}"], name=f"d{i}") for i in range(50)]
    with pytest.raises(LoweringError, match="and 10 more Det"):
        import_graph(model_of(nodes, {"x": X}, {}, ["y0"]), HERE)


@pytest.mark.parametrize("opset", [6, 27])
def test_operator_sets(tmp_path, opset):
    onnx.save(one_node("Relu", [X], {}, opset), tmp_path / "m.onnx")
    with pytest.raises(LoadError, match=f"written in ONNX operator set {opset}; 7 to 26 are imported"):
        load_model(tmp_path / "m.onnx")


def test_names_are_paths_of_modules():
    names = ["a", "a.b", "a", "", "x..y", "a b/c:0", "forward", "parameters.x"]
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"], name=name) for i, name in enumerate(names)]
    model = model_of(nodes, {"v0": X}, {}, ["v8"])
    module = import_graph(model, HERE)
    assert [step.name for step in module.steps] == [
        "a", "a_b", "a_1", "Relu_3", "x.y", "a_b/c:0", "node_forward", "node_parameters.x"
    ]  # fmt: skip
    same(imported(model, {"v0": X}), expected(model, {"v0": X}, "reference"))


def test_nodes_that_share_a_weight_share_the_parameter():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="second"),
    ]
    module = import_graph(model_of(nodes, {"x": numbers(3, 3)}, {"w": numbers(3, 3)}, ["b"]), HERE)
    assert module.first.B is module.second.B


def test_constants_and_inputs_as_outputs():
    nodes = [
        helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0]),
        helper.make_node("Add", ["w", "c"], ["sum"]),
        helper.make_node("Mul", ["x", "w"], ["y"]),
        helper.make_node("Identity", ["x"], ["same"]),
    ]
    weights = {"w": np.array([3, 4], np.float32)}
    model = model_of(nodes, {"x": numbers(5, 2)}, weights, ["y", "sum", "w", "same"])
    same(imported(model, {"x": numbers(5, 2)}), expected(model, {"x": numbers(5, 2)}, "reference"))


def test_a_file_cannot_ask_for_all_memory():
    nodes = [
        helper.make_node("ConstantOfShape", ["n"], ["big"], name="big"),
        helper.make_node("Add", ["x", "big"], ["y"]),
    ]
    model = model_of(nodes, {"x": X}, {"n": np.array([1 << 20, 1 << 20])}, ["y"])
    with pytest.raises(LoweringError, match=r"ConstantOfShape at node 'big': would give 1.1e\+12 numbers"):
        import_graph(model, HERE)


def damaged(model):
    model.graph.node[0].input[0] = "nothing"


def test_damaged_graphs(tmp_path):
    model = one_node("Relu", [X], {}, 18)
    damaged(model)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(LoadError, match=r"takes 'nothing', which nothing before it gives"):
        load_model(tmp_path / "m.onnx")
    model = one_node("Add", [X, X], {}, 18, constants=(1,))
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-1]
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(LoadError, match=r"the weight 'x1': damaged"):
        load_model(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes((tmp_path / "m.onnx").read_bytes()[:60])
    with pytest.raises(LoadError, match="not an ONNX model, or a truncated one"):
        load_model(tmp_path / "m.onnx")


def with_external(folder, location, data, offset=0):
    model = one_node("Add", [X, X], {}, 18, constants=(1,))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    told = {"location": location, "offset": offset, "length": X.nbytes}
    for key, value in told.items():
        tensor.external_data.add(key=key, value=str(value))
    folder.mkdir(exist_ok=True)
    if data is not None:
        (folder / location).write_bytes(data)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def test_weights_beside_the_file(tmp_path):
    path = with_external(tmp_path / "a", "m.data", bytes(16) + X.tobytes(), offset=16)
    module = load_model(path).module
    np.testing.assert_array_equal(next(module.parameters()).detach().numpy(), X)


def test_the_source_is_told_by_all_files_of_a_model(tmp_path):
    """A model whose weights lie beside it was the same to its hash whatever they were."""
    path = with_external(tmp_path / "a", "m.data", X.tobytes())
    before = load_model(path)
    lines = [f"{sha256_of(tmp_path / 'a' / name)}  {name}\n" for name in ("m.data", "m.onnx")]
    assert before.source.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert (before.source.name, before.files) == ("m.onnx", (path, tmp_path / "a" / "m.data"))
    (tmp_path / "a" / "m.data").write_bytes((X + 1).tobytes())
    assert load_model(path).source.sha256 != before.source.sha256
    whole = onnx.load(path)
    onnx.save(whole, tmp_path / "whole.onnx")
    assert load_model(tmp_path / "whole.onnx").source.sha256 == sha256_of(tmp_path / "whole.onnx")


def test_no_file_outside_of_the_folder_is_hashed(tmp_path):
    """The name is refused where files are listed, too, whether or not something reads them."""
    (tmp_path / "outside.data").write_bytes(X.tobytes())
    path = with_external(tmp_path / "a", "../outside.data", None)
    with pytest.raises(LoadError, match="is not in the model's folder"):
        weight_files(onnx.load(path, load_external_data=False), path)


def test_weights_of_constants_and_of_branches_are_listed(tmp_path):
    path = with_external(tmp_path / "a", "m.data", X.tobytes())
    tensor = onnx.load(path, load_external_data=False).graph.initializer[0]
    constant = helper.make_node("Constant", [], ["v"], value=tensor)
    branch = helper.make_graph([constant], "b", [], [])
    chosen = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    for node in (constant, chosen):
        model = helper.make_model(helper.make_graph([node], "g", [], []))
        assert weight_files(model, path) == [tmp_path / "a" / "m.data"]


@pytest.mark.parametrize("location", ["../outside.data", "/etc/hostname", "a/../../outside.data", "c:\\x", ""])
def test_weights_elsewhere_are_not_read(tmp_path, location):
    (tmp_path / "outside.data").write_bytes(X.tobytes())
    with pytest.raises(LoadError, match="is not in the model's folder"):
        load_model(with_external(tmp_path / "a", location, None))


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    (tmp_path / "outside.data").write_bytes(X.tobytes())
    path = with_external(tmp_path / "a", "m.data", None)
    pathlib.Path(tmp_path / "a" / "m.data").symlink_to(tmp_path / "outside.data")
    with pytest.raises(LoadError, match="a link that leads out of the model's folder"):
        load_model(path)


def test_weights_that_are_missing_or_short(tmp_path):
    with pytest.raises(LoadError, match=r"'m.data', which cannot be read"):
        load_model(with_external(tmp_path / "a", "m.data", None))
    with pytest.raises(LoadError, match=r"m.data ends 1 bytes too early"):
        load_model(with_external(tmp_path / "b", "m.data", X.tobytes()[:-1]))


def test_a_factory_is_of_no_use(tmp_path):
    onnx.save(one_node("Relu", [X], {}, 18), tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="is an ONNX file, which holds the network itself"):
        load_model(tmp_path / "m.onnx", factory="a.b:c")


def test_local_functions_are_inlined(tmp_path):
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"], name="inner")],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    model = model_of([helper.make_node("Twice", ["x"], ["y"], domain="own", name="call")], {"x": X}, {}, ["y"])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    onnx.save(model, tmp_path / "m.onnx")
    module = load_model(tmp_path / "m.onnx").module
    import torch

    np.testing.assert_array_equal(module(torch.from_numpy(X))["y"].numpy(), X + X)
