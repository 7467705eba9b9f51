"""The gate: what it must find, what it must let pass, and how it takes broken files."""

from __future__ import annotations

import gc
import json

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge4d.errors import UsageError, ValidationError
from edge4d.validators import CODES, check_rank
from tests.validators import onnx_models as zoo
from tests.validators.onnx_models import BAD, GOOD, floats, function, ints, model, node


@pytest.mark.parametrize("make", GOOD, ids=lambda make: make.__name__)
def test_good_models_pass(make):
    report = check_rank(make())
    assert report.ok, report.to_text(limit=None)
    assert report.exit_code == 0
    assert report.highest_rank is not None
    assert report.highest_rank <= 4


@pytest.mark.parametrize(("make", "code", "graph", "value"), BAD, ids=lambda x: getattr(x, "__name__", None))
def test_bad_models_fail_at_the_right_place(make, code, graph, value):
    report = check_rank(make())
    assert not report.ok
    assert report.exit_code == 1
    places = {(f.code, f.where.graph, f.where.value or "") for f in report.findings}
    assert (code, graph, value) in places, report.to_text(limit=None)


@pytest.mark.parametrize("make", dict.fromkeys([*GOOD, *(make for make, *_ in BAD)]), ids=lambda make: make.__name__)
def test_the_model_is_not_changed(make):
    proto = make()
    before = proto.SerializeToString(deterministic=True)
    check_rank(proto)
    assert proto.SerializeToString(deterministic=True) == before


def test_a_finding_names_everything_that_is_known():
    proto = zoo.conv3d()
    for key, text in (("edge4d.layer", "layer1.0.conv1"), ("edge4d.line", "net.py:7")):
        proto.graph.node[0].metadata_props.add(key=key, value=text)
    found = {f.code: f for f in check_rank(proto).findings if f.where.node}
    where = found["E4D003"].where
    assert (where.op, where.node, where.value, where.shape) == ("Conv", "conv", "y", (1, 2, 4, 8, 8))
    assert (where.layer, where.line) == ("layer1.0.conv1", "net.py:7")
    assert "kernel_shape has 3 entries" in found["E4D003"].message
    assert "5 axes" in found["E4D001"].message
    assert "[1, 2, 4, 8, 8]" in found["E4D001"].message


def test_findings_that_follow_come_after_their_cause():
    found = [f for f in check_rank(zoo.unknown_operator()).findings if f.code == "E4D002"]
    assert [f.where.value for f in found] == ["a", "y"]
    assert "vendor::Foo is no operator of ONNX" in found[0].message
    assert "since that of 'a' is" in found[1].message


def test_claims_of_the_file_are_quoted_and_not_believed():
    found = check_rank(zoo.unknown_operator_with_claims()).findings
    assert "the file says 4 axes" in found[0].message


@pytest.mark.parametrize("max_rank", [1, 2, 3, 4, 5, 6])
def test_the_limit_is_honoured(max_rank):
    assert check_rank(zoo.plain(), max_rank).ok == (max_rank >= 4)
    assert check_rank(zoo.hidden_rank_5(), max_rank).ok == (max_rank >= 5)


def test_three_axis_operators_are_fine_where_rank_5_is():
    assert {f.code for f in check_rank(zoo.conv3d()).findings} == {"E4D001", "E4D003"}
    assert check_rank(zoo.conv3d(), max_rank=5).ok


def test_the_garbage_collector_is_left_as_it_was():
    assert gc.isenabled()
    check_rank(zoo.plain())
    assert gc.isenabled()
    with pytest.raises(ValidationError):
        check_rank(zoo.hidden_rank_5().SerializeToString()[:-20] + b"\xff" * 20)
    gc.disable()
    try:
        check_rank(zoo.plain())
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(("shape", "code"), [([1] * 5, "E4D001"), (None, "E4D002"), ([1], None)])
@pytest.mark.parametrize("wrap", [lambda kind: kind, helper.make_sequence_type_proto], ids=["map", "sequence"])
def test_what_a_map_holds_has_a_rank(shape, code, wrap):
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, shape))
    ports = [zoo.X, helper.make_value_info("m", wrap(kind))]
    assert [f.code for f in check_rank(model(node("Relu", "x", "y"), inputs=ports)).findings] == [code] * bool(code)


def test_a_graph_that_is_the_default_of_an_attribute_is_told():
    f = function("F", "a", "d", [node("Relu", "a", "d")])
    wide = helper.make_graph([node("Identity", "w", "t")], "t", [], [zoo.value("t")], [floats("w", 1, 1, 1, 1, 1)])
    f.attribute_proto.append(helper.make_attribute("body", wide))
    report = check_rank(model(node("F", "x", "y", domain="my"), functions=[f]))
    assert [(f.code, f.where.graph) for f in report.findings] == [("E4D007", "function my::F")]


def test_means_and_variances_of_a_batch_norm_have_one_axis():
    """What ONNX leaves open must not be given a rank that the file's own declaration then contradicts."""
    norm = node("BatchNormalization", "x s b m v", "y mean var saved_mean saved_var")
    outputs = [zoo.Y, *((name, [4]) for name in norm.output[1:])]
    assert check_rank(model(norm, outputs=outputs, weights=[floats(n, 4) for n in "sbmv"], opset=8)).ok


def test_a_limit_below_one_is_a_usage_error():
    with pytest.raises(UsageError, match="max_rank is 0"):
        check_rank(zoo.plain(), 0)


X5, W5 = [1, 4, 4, 8, 8], [4, 4, 2, 2, 2]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "domain"),
    [
        ("Conv", {"x": X5, "w": W5}, {}, ""),
        ("ConvTranspose", {"x": X5, "w": W5}, {}, ""),
        ("ConvInteger", {"x": X5, "w": W5}, {}, ""),
        ("QLinearConv", {"x": X5, "s": [], "z": [], "w": W5, "ws": [], "wz": [], "ys": [], "yz": []}, {}, ""),
        ("MaxPool", {"x": X5}, {"kernel_shape": [2, 2, 2]}, ""),
        ("AveragePool", {"x": X5}, {"kernel_shape": [2, 2, 2]}, ""),
        ("LpPool", {"x": X5}, {"kernel_shape": [2, 2, 2]}, ""),
        ("GlobalAveragePool", {"x": X5}, {}, ""),
        ("GlobalMaxPool", {"x": X5}, {}, ""),
        ("GlobalLpPool", {"x": X5}, {}, ""),
        ("MaxUnpool", {"x": X5, "i": X5}, {"kernel_shape": [2, 2, 2]}, ""),
        ("Resize", {"x": X5}, {}, ""),
        ("GridSample", {"x": X5, "grid": [1, 4, 8, 8, 3]}, {}, ""),
        ("InstanceNormalization", {"x": X5, "scale": [4], "b": [4]}, {}, ""),
        ("Col2Im", {"x": [1, 32, 8], "image": [3], "block": [3]}, {}, ""),
        ("FusedConv", {"x": X5, "w": W5}, {}, "com.microsoft"),
        ("NhwcMaxPool", {"x": X5}, {"kernel_shape": [2, 2, 2]}, "com.microsoft"),
        ("QLinearGlobalAveragePool", {"x": X5}, {}, "com.microsoft"),
        ("aten_conv3d", {"x": [1]}, {}, "vendor"),
        # The attributes tell what nothing else does.
        ("Conv", {"x": None, "w": None}, {"strides": [1, 2, 2]}, ""),
        ("Conv", {"x": None, "w": None}, {"dilations": [1, 1, 1]}, ""),
        ("Conv", {"x": None, "w": None}, {"pads": [0] * 6}, ""),
        ("ConvTranspose", {"x": None, "w": None}, {"output_padding": [0, 1, 1]}, ""),
    ],
)
def test_three_axis_operators_are_found(op, inputs, attributes, domain):
    attributes = {k: v for k, v in attributes.items() if v is not None}
    n = helper.make_node(op, list(inputs), ["y"], domain=domain, name="n", **attributes)
    found = check_rank(model(n, inputs=list(inputs.items()), outputs=[("y", None)])).findings
    assert "E4D003" in {f.code for f in found if f.where.node == "n"}


@pytest.mark.parametrize("make", [zoo.conv2d, zoo.depth_to_space], ids=lambda make: make.__name__)
def test_two_axis_operators_are_not(make):
    assert "E4D003" not in {f.code for f in check_rank(make()).findings}


def test_attributes_of_a_call_reach_the_function():
    conv = node("Conv", "a w", "d", name="inner")
    conv.attribute.append(onnx.AttributeProto(name="kernel_shape", ref_attr_name="k", type=onnx.AttributeProto.INTS))
    call = node("F", "x w", "y", domain="my", k=[2, 2, 2])
    inputs = [("x", None), ("w", None)]
    for opset in (18, 11):  # inlined, and analysed on its own
        body = function("F", "a w", "d", [conv], opset=opset, attributes=["k"])
        found = check_rank(model(call, inputs=inputs, functions=[body])).findings
        assert ("E4D003", "function my::F") in {(f.code, f.where.graph) for f in found}


def test_two_calls_of_different_rank_do_not_contradict_each_other():
    relu = function("F", "a", "d", [node("Relu", "a", "d")])
    nodes = (node("F", "x", "t", domain="my"), node("F", "v", "u", domain="my"), node("Add", "t u", "y"))
    info = [zoo.value("t", [1, 4, 8, 8]), zoo.value("u", [8])]
    report = check_rank(model(*nodes, inputs=[zoo.X, ("v", [8])], functions=[relu], info=info))
    assert report.ok, report.to_text()


def test_a_weight_that_may_be_overridden_proves_no_rank():
    """Since IR 4 an initializer that is an input too is only a default."""
    proto = model(
        node("Unsqueeze", "x axes", "y", name="u"),
        inputs=[("x", [4, 8, 8]), ("axes", ["n"], TensorProto.INT64)],
        weights=[ints("axes", 0)],
    )
    assert "E4D002" in {f.code for f in check_rank(proto).findings}


def test_external_weights_are_never_opened(tmp_path):
    proto = model(node("Conv", "x w", "y"), outputs=[("y", [1, 4, 6, 6])], weights=[floats("w", 4, 4, 3, 3)])
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, size_threshold=0, location="m.data")
    (tmp_path / "m.data").unlink()
    assert check_rank(path).ok


def test_a_model_that_declares_terabytes_of_external_weights(tmp_path):
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4, 2**20, 2**20])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/dev/zero")
    assert check_rank(model(node("Relu", "x", "y"), weights=[weight])).ok


def test_bytes_path_and_model_agree(tmp_path):
    proto = zoo.hidden_rank_5()
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    reports = [check_rank(source) for source in (proto, proto.SerializeToString(), path, str(path))]
    assert len({json.dumps([f.to_dict() for f in r.findings]) for r in reports}) == 1
    assert [r.path for r in reports] == [None, None, str(path), str(path)]


def test_the_report_is_json_and_text():
    report = check_rank(zoo.rank_5_in_if())
    data = json.loads(json.dumps(report.to_dict()))
    assert data["ok"] is False
    assert data["exit_code"] == 1
    assert data["settings"] == {"max_rank": 4}
    assert data["checked"]["graphs"] == 3
    assert data["highest_rank"] == 5
    assert data["versions"]["onnx"] == onnx.__version__
    assert {f["code"] for f in data["findings"]} <= set(CODES)
    text = report.to_text()
    assert text.startswith("✗ model: 2 rank-over-limit (checked 3 graphs, 5 nodes")
    assert "in graph / If 'gate' / then_branch" in text
    assert "hint: " in text


def test_long_reports_are_capped():
    nodes = [node("Conv", f"v{i} w", f"v{i + 1}", name=f"c{i}") for i in range(20)]
    proto = model(*nodes, inputs=[("v0", X5)], outputs=[("v20", X5)], weights=[floats("w", 4, 4, 1, 1, 1)])
    report = check_rank(proto)
    assert "… and 15 more (--verbose shows all)" in report.to_text()
    assert "… and" not in report.to_text(limit=None)
    assert len(report.findings) == 20 + 22


def test_layers_and_lines_of_torch_exports():
    metadata = {
        "pkg.torch.onnx.name_scopes": "['', 'layer1', 'layer1.0.conv', 'conv3d']",
        "pkg.torch.onnx.stack_trace": (
            'File "/home/me/net.py", line 9, in forward\n    return self.conv(x)\n'
            '  File "/venv/lib/python3.11/site-packages/torch/nn/modules/conv.py", line 735, in forward'
        ),
    }
    proto = zoo.conv3d()
    for key, text in metadata.items():
        proto.graph.node[0].metadata_props.add(key=key, value=text)
    where = next(f.where for f in check_rank(proto).findings if f.code == "E4D003")
    assert (where.layer, where.line) == ("layer1.0.conv", "/home/me/net.py:9")


@pytest.mark.parametrize("text", ["[", "['a']", "[1, 2]", "(" * 500, "{}", ""])
def test_metadata_of_other_tools_may_be_anything(text):
    proto = zoo.conv3d()
    proto.graph.node[0].name = "/layer1/layer1.0/conv/Conv"
    proto.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=text)
    where = next(f.where for f in check_rank(proto).findings if f.code == "E4D003")
    assert (where.layer, where.line) == ("layer1.0.conv", None)


# ---- broken files -------------------------------------------------------------------------------------------------


def _random(n):
    return np.random.default_rng(0).bytes(n)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (_random(1000), "not an ONNX model, or a truncated one"),
        (b"\x00" * 100, "not an ONNX model"),
        (b"PK\x03\x04" + bytes(50), "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (TensorProto(name="t", dims=[1]).SerializeToString(), "not an ONNX model"),
        (zoo.plain().graph.SerializeToString(), "not an ONNX model"),
        (onnx.ModelProto(ir_version=10).SerializeToString(), "lacks a graph and an operator set"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(tmp_path, data, says):
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ValidationError) as caught:
        check_rank(path)
    assert says in caught.value.message
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 2


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ValidationError, match="no such file"):
        check_rank(tmp_path / "none.onnx")
    with pytest.raises(ValidationError, match="is a folder"):
        check_rank(tmp_path)
    with pytest.raises(ValidationError, match="cannot be read"):
        check_rank("a\0b.onnx")


@pytest.mark.parametrize("make", [zoo.hidden_rank_5, zoo.rank_5_in_function, zoo.rank_5_in_if])
def test_no_truncation_passes(make):
    """Wherever the file is cut, it is refused or it fails: a part of a bad model is never a good one."""
    data = make().SerializeToString()
    for end in range(1, len(data)):
        try:
            report = check_rank(data[:end])
        except ValidationError:
            continue
        assert not report.ok, end


def test_functions_that_call_themselves_are_refused():
    body = function("F", "a", "d", [node("G", "a", "d", domain="my")])
    other = function("G", "a", "d", [node("F", "a", "d", domain="my")])
    with pytest.raises(ValidationError, match="calls itself"):
        check_rank(model(node("F", "x", "y", domain="my"), functions=[body, other]))


def test_functions_that_multiply_are_refused():
    bodies = [function("F0", "a", "d", [node("Relu", "a", "d")])]
    for i in range(1, 64):
        calls = [node(f"F{i - 1}", "a", "b", domain="my"), node(f"F{i - 1}", "b", "d", domain="my")]
        bodies.append(function(f"F{i}", "a", "d", calls))
    with pytest.raises(ValidationError, match="expand to more than"):
        check_rank(model(node("F63", "x", "y", domain="my"), functions=bodies))


# ---- a property ---------------------------------------------------------------------------------------------------

_ELEMENTWISE = ["Relu", "Neg", "Abs", "Sigmoid", "Identity"]


@st.composite
def _networks(draw):
    """A chain of nodes, some within If branches at some depth, with rank 5 in at most one place."""
    injected = draw(st.booleans())
    length = draw(st.integers(1, 6))
    at = draw(st.integers(0, length - 1)) if injected else -1
    depth = [draw(st.integers(0, 3)) for _ in range(length)]
    nodes, current = [], "x"
    for i in range(length):
        out = f"v{i}"
        steps = [node(draw(st.sampled_from(_ELEMENTWISE)), current, out)]
        if i == at:
            steps = [node("Reshape", f"{current} s5", f"r{i}"), node("Reshape", f"r{i} s4", out)]
        for level in range(depth[i]):
            name = f"{out}_{level}"
            steps[-1].output[0] = name
            then, other = zoo.branch("t", name, *steps), zoo.branch("e", f"{name}e", node("Neg", current, f"{name}e"))
            steps = [node("If", "c", out, then_branch=then, else_branch=other)]
        nodes += steps
        current = out
    outputs = [(current, [1, 4, 8, 8])]
    return injected, model(*nodes, inputs=[zoo.X, zoo.C], outputs=outputs, weights=[zoo.S5, zoo.S4])


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(_networks())
def test_rank_5_is_found_wherever_it_is(case):
    injected, proto = case
    report = check_rank(proto)
    assert report.ok != injected, report.to_text(limit=None)
    if injected:
        assert {f.code for f in report.findings} == {"E4D001"}
