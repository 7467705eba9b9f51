"""OpenVINO: IR and blobs, devices and settings, and the rank rule on its own graph."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edge4d import export
from edge4d.artifact import open
from edge4d.cli import main
from edge4d.errors import GateError, RuntimeUnavailable, UsageError, ValidationError
from edge4d.exporters.openvino import OpenVino, Options, compile_engine
from tests.onnx_models import CLIP, RESULT, artifact, expected, five_axes, plain, save

pytest.importorskip("openvino", reason="openvino is not installed")


@pytest.fixture
def model(tmp_path):
    return save(artifact(), tmp_path / "m.onnx")


@pytest.fixture
def clip():
    return np.random.default_rng(0).standard_normal(CLIP.shape).astype(np.float32)


def build(model, name, **options):
    """In this process, which takes no child's start."""
    return OpenVino().build(model, model.with_name(name), timeout=0, **options)


@pytest.mark.parametrize(("name", "files"), [("e.xml", ["e.xml", "e.xml.json", "e.bin"]), ("e.blob", None)])
def test_ir_lies_in_two_files_and_a_blob_in_one(model, clip, name, files):
    result = build(model, name)
    assert [file.name for file in result.files] == (files or [name, f"{name}.json"])
    with open(result.path, timeout=0) as engine:
        assert (engine.inputs, engine.outputs) == ((CLIP,), (RESULT,))
        np.testing.assert_allclose(engine(clip)["result"], expected(clip), rtol=1e-6)


def test_ir_describes_itself_without_its_recipe(model, clip):
    result = build(model, "e.xml")
    result.recipe.unlink()
    with open(result.path, timeout=0) as engine:
        assert engine.inputs == (CLIP,)
        np.testing.assert_allclose(engine(clip)["result"], expected(clip), rtol=1e-6)


def test_weights_keep_their_type(model):
    build(model, "e.xml")
    assert model.with_name("e.bin").stat().st_size >= 90 * 4  # the bias, in float32


def test_weights_beside_the_model_go_into_the_engine(tmp_path, clip):
    made = save(artifact(), tmp_path / "m.onnx", beside=True)
    result = build(made, "e.xml")
    made.unlink()
    made.with_name("m.onnx.data").unlink()
    with open(result.path, timeout=0) as engine:
        np.testing.assert_allclose(engine(clip)["result"], expected(clip), rtol=1e-6)


def test_lost_weights_are_said(model):
    build(model, "e.xml")
    model.with_name("e.bin").unlink()
    with pytest.raises(ValidationError, match=r"e\.xml: OpenVINO refuses it"):
        OpenVino().open(model.with_name("e.xml"))


def test_it_opens_onnx_files_when_asked(model, clip):
    with open(model, "openvino") as engine:
        assert engine.session.details["runtime"] == "openvino"
        np.testing.assert_allclose(engine(clip)["result"], expected(clip), rtol=1e-6)


def test_a_scalar_input_stays_a_scalar(tmp_path):
    x, scale, y = (helper.make_tensor_value_info(*told) for told in (("x", 1, [2]), ("s", 1, []), ("y", 1, [2])))
    graph = helper.make_graph([helper.make_node("Mul", ["x", "s"], ["y"])], "g", [x, scale], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    made = save(model, tmp_path / "m.onnx")
    with OpenVino().open(made, timeout=0) as session:
        fed = {"x": np.arange(2, dtype=np.float32), "s": np.array(3, np.float32)}
        np.testing.assert_array_equal(session.run(fed)["y"], [0, 3])


@pytest.mark.parametrize("timeout", [None, 0])
def test_open_sizes_stay_open(tmp_path, timeout):
    made = save(plain("Relu", ("batch", 3)), tmp_path / "m.onnx")
    with OpenVino().open(build(made, "e.xml").path, timeout=timeout) as session:
        assert session.inputs[0].physical == (-1, 3)
        for batch in (1, 4):
            x = np.random.default_rng(batch).standard_normal((batch, 3)).astype(np.float32)
            np.testing.assert_array_equal(session.run({"x": x})["y"], np.maximum(x, 0))


def test_names_that_xml_does_not_take_survive(tmp_path):
    from dataclasses import replace

    from edge4d.describing import describe

    made = artifact()
    name = 'clip:0/"x" & y'
    made.graph.input[0].name = made.graph.node[0].input[0] = name
    port = replace(CLIP, name=name)
    describe(made, [port], [RESULT], version="1", block="exact", source="m")
    result = build(save(made, tmp_path / "m.onnx"), "e.xml")
    result.recipe.unlink()
    with open(result.path, timeout=0) as engine:
        assert engine.inputs == (port,)


# ---- devices and settings ---------------------------------------------------------------------------------------


def test_ir_for_a_device_that_is_not_here_is_made_and_said(model):
    result = build(model, "e.xml", device="npu")
    assert result.notes == ("not compiled: OpenVINO sees no NPU here, it has: CPU",)
    assert json.loads(result.recipe.read_text())["engine"]["compiled"] is False
    with open(result.path, device="CPU") as engine:  # takes it as well
        assert engine.session.details["providers"] == ["CPU"]
    with pytest.raises(RuntimeUnavailable, match="sees no NPU here, it has: CPU") as caught:
        open(result.path)  # it is not measured on another device than it was built for
    assert caught.value.exit_code == 3


def test_a_blob_needs_its_device(model, capsys):
    args = ["build", str(model), "-r", "openvino", "-o", str(model.with_name("e.blob")), "--device", "NPU"]
    assert main(args) == 3
    assert "write .xml, which is compiled where it is opened" in capsys.readouterr().err
    assert not model.with_name("e.blob").exists()


def test_what_chooses_among_devices_passes_through(model, clip):
    with open(build(model, "e.xml", device="AUTO:CPU").path, device="auto:cpu", timeout=0) as engine:
        np.testing.assert_allclose(engine(clip)["result"], expected(clip), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": ["CPU", "NPU"]}, "takes one device, got 2"),
        ({"device": []}, "takes one device, got 0"),
        ({"threads": -1}, "threads -1"),
        ({"settings": {"NO_SUCH": "1"}}, "takes no such setting: .*NO_SUCH"),
        ({"settings": ["NUM_STREAMS"]}, "expected names and values"),
    ],
)
def test_a_wrong_option_is_named(model, options, said):
    with pytest.raises(UsageError, match=said):
        build(model, "e.xml", **options)
    build(model, "good.xml")
    with pytest.raises(UsageError, match=said):
        OpenVino().open(model.with_name("good.xml"), timeout=0, **options)


def test_settings_reach_the_device(model):
    path = build(model, "e.xml").path
    with OpenVino().open(path, timeout=0, threads=1, settings={"NUM_STREAMS": "1"}) as session:
        told = session._model.get_property
        assert told("INFERENCE_NUM_THREADS") == 1
        assert told("NUM_STREAMS") == 1
        assert "ACCURACY" in str(told("EXECUTION_MODE_HINT"))  # of itself it may compute in less than float32
    with OpenVino().open(path, timeout=0, settings={"EXECUTION_MODE_HINT": "PERFORMANCE"}) as session:
        assert "PERFORMANCE" in str(session._model.get_property("EXECUTION_MODE_HINT"))


# ---- the rank rule on its own graph -----------------------------------------------------------------------------


def order(model, engine):
    options = {"device": "CPU", "threads": 0, "settings": {}}
    files = [str(engine), str(engine.with_suffix(".bin"))]
    return {"runtime": "openvino", "model": str(model), "files": files, "max_rank": 4, "options": options}


def test_five_axes_are_found_in_openvinos_own_graph(tmp_path):
    """Without the gate on the ONNX file before it, so that nothing but OpenVINO's own shapes can tell."""
    made = save(five_axes(), tmp_path / "m.onnx")
    with pytest.raises(GateError, match=r"graph that OpenVINO made of .*m\.onnx: \d findings") as caught:
        compile_engine(order(made, tmp_path / "e.xml"))
    assert "'clip' of Parameter 'clip' has 5 axes" in caught.value.message
    assert not (tmp_path / "e.xml").exists()
    assert compile_engine({**order(made, tmp_path / "e.xml"), "max_rank": None})["notes"] == []


def test_the_weights_of_grouped_convolutions_are_a_note(tmp_path):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 5, 6))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 3, 4))
    weight = numpy_helper.from_array(np.ones((4, 1, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=4)
    graph = helper.make_graph([node], "g", [x], [y], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    result = build(save(made, tmp_path / "m.onnx"), "e.xml")
    assert "OpenVINO writes grouped convolutions so" in result.notes[0]


def test_options_keep_what_they_were_given():
    assert Options(device=["gpu"]).device == "GPU"
    assert Options(settings={"NUM_STREAMS": 2}).settings == {"NUM_STREAMS": "2"}


def test_every_call_gives_the_mean_of_a_channel(tmp_path):
    """On CPUs with AVX2 alone the second call went wrong, as long as this mean was one over frames and places."""
    net = nn.Sequential(nn.MaxPool3d((1, 2, 2)), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 4)).eval()
    clip = torch.randn(1, 16, 4, 10, 10, generator=torch.Generator().manual_seed(0))
    export(net, (clip,), output=tmp_path / "m.onnx")
    with torch.no_grad(), open(build(tmp_path / "m.onnx", "e.xml").path, timeout=0) as engine:
        wanted = net(clip).numpy()
        for _ in range(3):
            np.testing.assert_allclose(engine(clip.numpy())["output"], wanted, atol=1e-5)
