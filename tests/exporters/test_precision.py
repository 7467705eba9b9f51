"""fp16 and int8: made in the ONNX graph, named after the layers still, gated and compared again; bad input refused."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import edge4d
from edge4d.artifact import open
from edge4d.checking import check_parity
from edge4d.cli import main
from edge4d.errors import ExportError, UsageError
from edge4d.exporters.half import to_fp16
from edge4d.exporters.onnx import OnnxGraph, to_onnx
from edge4d.exporters.precision import Precision, convert, kept_nodes, layer_of
from edge4d.exporters.quantizing import to_int8
from edge4d.exporters.writing import write_model
from edge4d.lowered import lower
from edge4d.offers import AVOIDED
from edge4d.planning import Planner
from edge4d.port_arrays import pack
from edge4d.sampling import Samples
from edge4d.subject import Subject
from edge4d.validators.rank import check_rank
from tests.lowering.harness import randomise


class Net(nn.Module):
    """Wide enough for Winograd, with a join, a sum and padded pooling."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(2, 24, 3, padding=1), nn.BatchNorm3d(24), nn.ReLU())
        self.left = nn.Conv3d(24, 24, 3, padding=1)
        self.pool = nn.MaxPool3d(3, 1, 1)
        self.head = nn.Linear(48, 5)

    def forward(self, clip):
        x = self.stem(clip)
        x = torch.cat([self.left(x) + x, self.pool(x)], 1)
        return self.head(x.mean((2, 3, 4)))


@pytest.fixture(scope="module")
def net():
    return randomise(Net()).eval()


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).standard_normal((10, 2, 8, 10, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def clip(clips):
    return torch.from_numpy(clips[:1])


@pytest.fixture(scope="module")
def half(net, clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("half") / "half.onnx"
    return edge4d.export(net, (clip,), output=path, precision="fp16", keep_fp32=["left", "Gemm"], fp16_io=True)


@pytest.fixture(scope="module")
def eight(net, clip, clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("eight")
    np.savez(folder / "clips.npz", clips=clips)
    path = folder / "eight.onnx"
    return edge4d.export(net, (clip,), output=path, precision="int8", calib=folder / "clips.npz")


@pytest.fixture(scope="module")
def translated(net, clip):
    lowered = lower(net, (clip,), planner=Planner.of(precision="int8"))
    return to_onnx(lowered), lowered.inputs[0]


@pytest.fixture
def graph(translated):
    """In float32, without Winograd, as the quantiser wants it; a copy, for it is used up."""
    made, port = translated
    proto = onnx.ModelProto()
    proto.CopyFrom(made.proto)
    return OnnxGraph(proto, dict(made.weights)), port


# ---- what an artifact says of itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["half", "eight"])
def test_an_artifact_passes_the_gate_and_says_what_it_computes_in(name, request):
    report = request.getfixturevalue(name)
    precision = {"half": "fp16", "eight": "int8"}[name]
    assert report.ok
    assert report.to_dict()["precision"] == precision
    assert f"held to the limits of {precision}" in report.to_text()
    model = onnx.load(report.path)
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["edge4d.precision"] == precision
    assert metadata["edge4d.packing.clip"] == "n c t h w -> (n t) c h w"
    assert metadata["edge4d.shape.clip"] == "1x2x8x10x12"
    assert {key.split(".")[0] for key in metadata} == {"edge4d"}
    assert all(layer_of(node) for node in model.graph.node if "stem" in node.name or "left" in node.name)
    assert {layer_of(node) for node in model.graph.node if node.op_type in ("Cast", "QuantizeLinear")} >= {"left"}
    assert any(t.name.startswith("left.weight") for t in model.graph.initializer)
    recipe = json.loads(report.path.with_name(report.path.name + ".json").read_text())
    assert recipe["options"]["precision"] == precision
    assert recipe["versions"]["onnxruntime"]


def test_half_is_half_but_for_what_is_kept(half):
    model = onnx.load(half.path)
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    assert kinds["head.weight"] == TensorProto.FLOAT
    assert {kind for name, kind in kinds.items() if name.startswith("left.")} == {TensorProto.FLOAT}
    assert {kind for name, kind in kinds.items() if name.startswith("stem.0.")} == {TensorProto.FLOAT16}
    assert {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)} == {TensorProto.FLOAT16}
    assert (half.inputs[0].dtype, half.outputs[0].dtype) == ("float16", "float16")
    assert "in float32: left, Gemm" in half.to_text()


def test_a_value_between_two_kept_nodes_is_not_narrowed(half):
    model = onnx.load(half.path)
    narrow = {n.output[0] for n in model.graph.node if n.op_type == "Cast" and n.attribute[0].i == TensorProto.FLOAT16}
    wide = [n for n in model.graph.node if n.op_type == "Cast" and n.attribute[0].i == TensorProto.FLOAT]
    assert wide
    assert not [n.name for n in wide if n.input[0] in narrow]


def test_ports_stay_float32_unless_asked_for(graph):
    made = to_fp16(graph[0], Precision("fp16"))
    ports = (*made.proto.graph.input, *made.proto.graph.output)
    assert {value.type.tensor_type.elem_type for value in ports} == {TensorProto.FLOAT}
    assert made.weights["stem.0.weight.stacked"].dtype == np.float16


def test_a_result_that_is_kept_is_not_narrowed_on_its_way_out(graph, tmp_path):
    made = to_fp16(graph[0], Precision("fp16", keep_fp32=("head",)))
    write_model(made, tmp_path / "kept.onnx")
    onnx.checker.check_model(tmp_path / "kept.onnx", full_check=True)
    (last,) = (node for node in made.proto.graph.node if "output" in node.output)
    assert last.op_type == "Gemm"
    named = {node.name for node in made.proto.graph.node}
    assert len(named) == len(made.proto.graph.node)


def test_int8_weights_have_a_scale_a_channel_and_no_winograd(eight):
    model = onnx.load(eight.path)
    tensors = {t.name: t for t in model.graph.initializer}
    assert not [name for name in tensors if "winograd" in name]
    weights = [name for name in tensors if name.endswith("_quantized")]
    assert len(weights) >= 3
    for name in weights:
        assert tensors[name].data_type == TensorProto.INT8
        assert list(tensors[name.replace("_quantized", "_scale")].dims) == [tensors[name].dims[0]]
    zeros = [onnx.numpy_helper.to_array(t) for name, t in tensors.items() if name.endswith("_zero_point")]
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)  # TensorRT takes nothing else
    assert tensors["head.bias"].data_type == TensorProto.FLOAT
    maker = {name: node.op_type for node in model.graph.node for name in node.output}
    assert maker["output"] == "Gemm"  # the result itself is not rounded
    assert eight.path.stat().st_size < 60_000


def test_the_recipe_names_the_clips(eight):
    recipe = json.loads(eight.path.with_name("eight.onnx.json").read_text())
    assert [source["name"] for source in recipe["sources"]] == ["clips.npz"]
    assert recipe["options"]["calibration"] == "minmax"
    assert recipe["options"]["calibration_runs"] == 10


def padded(number):
    """A convolution of a value that is padded with a number and then pooled."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    constants = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "number": np.float32(number), "weight": weight}
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["a"], "first", pads=[1, 1, 1, 1], group=1),
        helper.make_node("Slice", ["a", "zero", "three", "one"], ["b"], "cut"),
        helper.make_node("Pad", ["b", "pads", "number"], ["c"], "pad"),
        helper.make_node("MaxPool", ["c"], ["d"], "pool", kernel_shape=[3, 3]),
        helper.make_node("Conv", ["d", "weight"], ["y"], "second"),
    ]
    constants |= {"zero": np.array([0]), "three": np.array([3]), "one": np.array([1])}
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 3, 8, 8]), ("y", [1, 4, 6, 6]))
    ]
    small = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", ports[:1], ports[1:], small),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    return OnnxGraph(proto, {})


@pytest.mark.parametrize("number", [-np.inf, 0.0, -50.0])
def test_padding_with_another_number_than_zero_stays_out_of_the_range(number, tmp_path, monkeypatch):
    import edge4d.exporters.quantizing as quantizing

    feeds = [{"x": np.random.default_rng(i).standard_normal((1, 3, 8, 8)).astype(np.float32)} for i in range(8)]

    def result(graph, name):
        write_model(graph, tmp_path / name)
        with edge4d.exporters.get("onnxruntime").open(tmp_path / name) as session:
            return session.run(feeds[0])["y"]

    wanted = result(padded(number), "float.onnx")
    made = to_int8(padded(number), Precision("int8"), feeds)
    got = result(made, "int8.onnx")
    assert np.abs(got - wanted).max() < 0.05 * np.ptp(wanted)
    (pad,) = (node for node in made.proto.graph.node if node.op_type == "Pad")
    assert (len(pad.input) > 2) == (number != 0)  # TensorRT refuses a zero that is said in 8 bits
    if number == -np.inf:  # the check is no formality
        monkeypatch.setattr(quantizing, "_plain_padding", lambda graph, kept: None)
        spoilt = result(to_int8(padded(number), Precision("int8"), feeds), "spoilt.onnx")
        assert not np.abs(spoilt - wanted).max() < 0.05 * np.ptp(wanted)


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_other_ways_to_draw_ranges(graph, clips, net, method, capfd):
    made, port = graph
    feeds = [{"clip": pack(c[None], port)} for c in clips]
    result = convert(made, Precision("int8", method=method, keep_fp32=("head",)), feeds)
    assert not [name for name in result.weights if name.startswith("head.weight_quantized")]
    assert sum(node.op_type == "QuantizeLinear" for node in result.proto.graph.node) > 5
    assert capfd.readouterr().out == ""  # stdout is for results


# ---- parity ----------------------------------------------------------------------------------------------------------


def test_parity_takes_its_limits_from_the_artifact(eight, half, net, clip, clips, tmp_path):
    program = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net, (clip,)), program)
    np.savez(tmp_path / "clips.npz", clip=clips)
    found = check_parity(program, [eight.path, half.path], inputs=tmp_path / "clips.npz")
    for path, precision in ((eight.path, "int8"), (half.path, "fp16")):
        report = found[path]
        assert report.ok
        assert report.sets == len(clips)
        assert any(f"computes in {precision}, limits: error at most" in note for note in report.notes)
    assert found[eight.path].worst > 1e-4  # it would not pass as float32


def test_noise_for_int8_is_named_when_parity_fails(eight, half):
    found = check_parity(half.path, [eight.path], tolerance=edge4d.validators.Tolerance(1e-9))
    assert not found[eight.path].ok
    assert "noise is not what int8 ranges were drawn from" in found[eight.path].to_text()


def test_a_wrong_scale_fails_the_parity_of_int8(net, clip, clips, tmp_path, monkeypatch):
    import edge4d.exporters.quantizing as quantizing

    honest = quantizing._split

    def spoilt(proto):
        named = {t.name: t for t in proto.graph.initializer}
        scale = named["stem.0.weight.stacked_scale"]
        scale.CopyFrom(onnx.numpy_helper.from_array(3 * onnx.numpy_helper.to_array(scale), scale.name))
        return honest(proto)

    monkeypatch.setattr(quantizing, "_split", spoilt)
    report = edge4d.export(net, (clip,), output=tmp_path / "net.onnx", precision="int8", calib=clips)
    assert report.gate.ok
    assert not report.parity.ok


def test_openvino_rounds_as_the_graph_says(eight, clips, tmp_path):
    """Its own 8-bit kernels are off by tens of percent on this very network, with its join of signed values."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    built = edge4d.exporters.get("openvino").build(eight.path, tmp_path / "eight.xml", timeout=0)
    assert any("LP_TRANSFORMS_MODE=YES" in note for note in built.notes)
    for path, runtime in ((eight.path, "openvino"), (built.path, None)):
        with open(eight.path) as expected, open(path, runtime, timeout=0) as got:
            assert got.session.details["eight_bits"] == "NO"
            for clip in clips[:4]:
                a, b = expected(clip[None])["output"], got(clip[None])["output"]
                assert np.abs(a - b).max() < 0.02 * np.ptp(a)
    with open(eight.path, "openvino", timeout=0, settings={"LP_TRANSFORMS_MODE": "YES"}) as fast:
        assert fast.session.details["eight_bits"] == "YES"  # who asks for it gets it


def test_tensorrt_builds_from_both(eight, half, tmp_path):
    exporter = edge4d.exporters.get("tensorrt_rtx")
    if not exporter.probe().ok:
        pytest.skip(f"tensorrt_rtx: {exporter.probe().why_not}")
    for report in (eight, half):
        built = exporter.build(report.path, tmp_path / f"{report.path.stem}.engine", device=("sm_86",))
        assert built.engine["metadata"]["edge4d.precision"] == report.precision["precision"]


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "int"}, r"unknown precision 'int'\n.*did you mean 'int8'\? known: fp32, fp16, int8"),
        ({"precision": "float16"}, r"did you mean 'fp16'"),
        ({"precision": "int8"}, r"int8 needs clips[\s\S]*--calib CLIPS\.npz, or a folder"),
        ({"precision": "int8", "calibration": "median"}, "unknown calibration 'median'"),
        ({"keep_fp32": ["head"]}, "all of it is float32"),
        ({"fp16_io": True}, "are for --precision fp16, not fp32"),
        ({"calib": np.zeros((9, 2, 8, 10, 12))}, "need a block to fit or ranges to draw"),
        ({"precision": "int8", "calib": np.zeros((9, 2, 8, 10, 10))}, "clips of 2x8x10x10, but the network takes"),
        ({"precision": "int8", "calib": np.full((9, 2, 8, 10, 12), np.nan)}, "9 of 9 clips hold values that are NaN"),
        ({"precision": "int8", "calib": np.zeros((3, 2, 8, 10, 12))}, "was given 3 calibration clips, it needs 8"),
    ],
)
def test_what_is_refused(net, clip, tmp_path, options, said):
    with pytest.raises(UsageError, match=said):
        edge4d.export(net, (clip,), output=tmp_path / "net.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_says_so_too(capsys):
    assert main(["export", "model.pt2", "--precision", "fp61"]) == 2
    assert "did you mean 'fp16'" in capsys.readouterr().err
    assert main(["export", "model.pt2", "--precision", "int8", "--calib", "x", "--calib-mean", "0.4,y"]) == 2
    assert "expected numbers joined by commas" in capsys.readouterr().err


def test_nothing_to_quantise(graph, clips):
    made, port = graph
    with pytest.raises(UsageError, match=r"nothing to quantise.*outside --keep-fp32"):
        to_int8(made, Precision("int8", keep_fp32=("*",)), [{"clip": pack(clips[:1], port)}])
    with pytest.raises(UsageError, match="needs calibration clips"):
        to_int8(made, Precision("int8"), [])


def test_what_the_quantiser_says_reaches_the_user(graph):
    made, _ = graph
    with pytest.raises(ExportError, match="ONNX Runtime's quantiser fails"):
        convert(made, Precision("int8"), [{"other": np.zeros(3, np.float32)}])


def test_patterns_fit_layers_and_operators(graph):
    made, _ = graph
    assert kept_nodes(made.proto, ()) == []
    with pytest.raises(UsageError, match=r"--keep-fp32 haed fits no layer and no ONNX operator[\s\S]*head"):
        kept_nodes(made.proto, ("stem.*", "haed"))
    kept = kept_nodes(made.proto, ("stem.*", "Gemm"))
    layers = {n.name: (layer_of(n), n.op_type) for n in made.proto.graph.node}
    assert {layers[name][0].split(".")[0] for name in kept} == {"stem", "head"}


def test_winograd_is_left_out_of_int8_unless_it_is_asked_for(net, clip):
    def ways(**asked):
        return {row.becomes for row in lower(net, (clip,), planner=Planner.of(**asked)).layers if row.macs}

    assert ways() & AVOIDED["int8"]
    assert not ways(precision="int8") & AVOIDED["int8"]
    assert "winograd-2" in ways(formulations=["left=winograd-2"], precision="int8")


def test_networks_of_several_inputs_take_arrays_by_name(clips, tmp_path):
    class Two(nn.Module):
        def forward(self, a, b):
            return a.sum((2, 3, 4)) + b

    module, args = Two(), (torch.zeros(2, 2, 8, 10, 12), torch.zeros(2, 2))
    ports = lower(module, args).inputs
    subject = Subject.of(module, args)
    np.savez(tmp_path / "both.npz", a=clips, b=np.ones((10, 2)))
    runs = Samples.of(tmp_path / "both.npz", subject, edge4d.clips.Pixels()).batches(ports)
    assert len(runs) == 5  # the network takes two at a time
    assert runs[1]["a"].shape == (2, 2, 8, 10, 12)
    assert runs[1]["b"].dtype == np.float32
    given = {"a": clips, "b": np.ones((10, 2))}
    assert len(Samples.of(given, subject, edge4d.clips.Pixels()).batches(ports)) == 5
    for wrong, said in (
        ({"a": clips}, "holds a; the model's inputs are a, b"),
        ({"a": clips, "b": np.ones((10, 3))}, "'b' holds arrays of shape"),
        ({"a": clips, "b": np.full((10, 2), np.inf)}, "'b' holds values that are NaN or infinite"),
        (clips, "takes 2 inputs: a, b"),
    ):
        with pytest.raises(UsageError, match=said):
            Samples.of(wrong, subject, edge4d.clips.Pixels()).batches(ports)


def test_the_converted_graph_is_gated(eight):
    assert check_rank(eight.path).ok
    assert not check_rank(eight.path, 3).ok
