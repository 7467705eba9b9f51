"""ONNX Runtime: sessions, builds, and its errors in the user's terms."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge4d.artifact import open
from edge4d.cli import main
from edge4d.errors import GateError, PackingError, RuntimeFailed, RuntimeUnavailable, UsageError, ValidationError
from edge4d.exporters.onnxruntime import OnnxRuntime, Options, OrtSession
from edge4d.files import sha256_of
from edge4d.validators.rank import check_rank
from tests.onnx_models import CLIP, RESULT, artifact, expected, five_axes, plain, save


@pytest.fixture
def runtime():
    return OnnxRuntime()


@pytest.fixture
def model(tmp_path):
    return save(artifact(), tmp_path / "m.onnx")


def test_a_session_states_what_runs_where(runtime, model):
    with runtime.open(model, threads=1) as session:
        assert session.details["providers"] == ["CPUExecutionProvider"]
        assert session.details["threads"] == 1
        assert session.details["version"]
        assert (session.inputs[0].physical, session.inputs[0].dtype) == (CLIP.physical, "float32")
        assert session.metadata["edge4d.block"] == "exact"


@pytest.mark.parametrize("suffix", [".onnx", ".ort"])
@pytest.mark.parametrize("level", [None, "none", "basic", "extended", "all"])
def test_a_build_keeps_numbers_and_description(runtime, model, tmp_path, suffix, level):
    result = runtime.build(model, tmp_path / f"engine{suffix}", optimization=level)
    clip = np.random.default_rng(0).standard_normal(CLIP.shape).astype(np.float32)
    with open(result.path) as engine:
        assert (engine.inputs, engine.outputs) == ((CLIP,), (RESULT,))
        np.testing.assert_allclose(engine(clip)["result"], expected(clip), rtol=1e-6)
    recipe = json.loads(result.recipe.read_text())
    assert recipe["sources"] == [{"name": "m.onnx", "sha256": sha256_of(model)}]
    assert recipe["files"][result.path.name]["sha256"] == sha256_of(result.path)
    assert recipe["options"]["optimization"] == (level or "all")
    assert {"edge4d", "onnxruntime", "onnx", "python"} <= recipe["versions"].keys()
    assert bool(result.notes) == (recipe["options"]["optimization"] == "all")


@pytest.mark.parametrize("small", [False, True])
def test_weights_beside_the_model_stay_beside_the_engine(runtime, tmp_path, small):
    made = artifact()
    if not small:
        # More than the 1024 bytes up to which ONNX Runtime keeps a tensor inside.
        made.graph.initializer[0].CopyFrom(_tensor("bias", np.ones((8, 3, 5, 6), np.float32)))
    path = save(made, tmp_path / "m.onnx", beside=True)
    result = runtime.build(path, tmp_path / "engine.onnx")
    assert (tmp_path / "engine.onnx.data") in result.files
    assert ((tmp_path / "engine.onnx.data").stat().st_size > 0) is not small
    path.unlink()
    (tmp_path / "m.onnx.data").unlink()
    with open(result.path) as engine:
        assert engine(np.zeros(CLIP.shape, np.float32))["result"].shape == RESULT.shape
    assert [source["name"] for source in json.loads(result.recipe.read_text())["sources"]] == ["m.onnx", "m.onnx.data"]


def _tensor(name, array):
    from onnx import numpy_helper

    return numpy_helper.from_array(array, name)


def test_an_ort_file_takes_the_weights_in(runtime, tmp_path):
    path = save(artifact(), tmp_path / "m.onnx", beside=True)
    result = runtime.build(path, tmp_path / "engine.ort")
    assert [file.name for file in result.files] == ["engine.ort", "engine.ort.json"]


def test_missing_weights_are_named(runtime, tmp_path):
    path = save(artifact(), tmp_path / "m.onnx", beside=True)
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(ValidationError, match=r"weights in 'm\.onnx\.data', which is not beside it"):
        runtime.build(path, tmp_path / "engine.onnx")
    with pytest.raises(ValidationError, match=r"m\.onnx"):
        runtime.open(path)


@pytest.mark.parametrize("place", ["../elsewhere.data", "/etc/hostname"])
def test_weights_outside_the_folder_are_refused(runtime, tmp_path, place):
    made = artifact()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value=place)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ValidationError, match="outside its folder"):
        runtime.build(tmp_path / "m.onnx", tmp_path / "engine.onnx")


def test_a_failed_build_leaves_nothing(runtime, model, tmp_path, monkeypatch):
    def broken(source, engine, options):
        raise KeyboardInterrupt

    monkeypatch.setattr("edge4d.exporters.onnxruntime._compare", broken)
    with pytest.raises(KeyboardInterrupt):
        runtime.build(model, tmp_path / "engine.onnx", timeout=0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


def test_an_engine_that_lost_its_description_is_not_published(runtime, model, tmp_path, monkeypatch):
    real = OrtSession.__init__

    def forgetful(self, path, *args, **kwargs):
        real(self, path, *args, **kwargs)
        if path.name == "engine.onnx":
            self.metadata = {}

    monkeypatch.setattr(OrtSession, "__init__", forgetful)
    with pytest.raises(RuntimeFailed, match="has other metadata than the model"):
        runtime.build(model, tmp_path / "engine.onnx", timeout=0)
    assert not (tmp_path / "engine.onnx").exists()


def test_the_model_is_not_overwritten(runtime, model):
    with pytest.raises(UsageError, match="is the model itself"):
        runtime.build(model, model)


def test_another_suffix_is_refused(runtime, model, tmp_path):
    with pytest.raises(UsageError, match=r"writes \.onnx or \.ort"):
        runtime.build(model, tmp_path / "engine.trt")


# ---- what cannot be opened --------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"hello", b"\x08\x07", b"PK\x03\x04", bytes(1000)])
@pytest.mark.parametrize("verb", ["open", "build"])
def test_what_is_no_model_is_named(runtime, tmp_path, data, verb):
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    with pytest.raises(ValidationError, match=r"bad\.onnx"):
        runtime.open(path) if verb == "open" else runtime.build(path, tmp_path / "engine.onnx")
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.onnx"]


def test_a_truncated_model_is_named(runtime, model):
    model.write_bytes(model.read_bytes()[:-20])
    with pytest.raises(ValidationError, match=r"m\.onnx is no ONNX model"):
        runtime.open(model)


@pytest.mark.parametrize("made", [plain("NoSuchOperator"), plain(domain="my.domain")], ids=["operator", "domain"])
def test_an_unknown_operator_is_named(runtime, tmp_path, made):
    with pytest.raises(ValidationError, match=r"m\.onnx holds an operator that ONNX Runtime cannot run"):
        runtime.open(save(made, tmp_path / "m.onnx"))


def test_wrong_feeds_are_explained(runtime, tmp_path):
    with runtime.open(save(plain(), tmp_path / "m.onnx")) as session:
        with pytest.raises(UsageError, match="takes the inputs x, got z"):
            session.run({"z": np.zeros((1, 3), np.float32)})
        with pytest.raises(PackingError, match=r"m\.onnx: .*Got: 4 Expected: 3"):
            session.run({"x": np.zeros((1, 4), np.float32)})


# ---- options ----------------------------------------------------------------------------------------------------


def test_providers_have_short_names():
    assert Options.of({"providers": ["CUDA", "cpu"]}).providers == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert Options.of({"providers": "cpu"}).providers == ("CPUExecutionProvider",)
    assert Options.of({"providers": None, "threads": None}) == Options()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"thread": 2}, "no option 'thread'"),
        ({"optimization": "99"}, "expected one of: none, basic, extended, all"),
        ({"threads": -1}, "threads -1"),
        ({"threads": "2"}, "threads '2'"),
        ({"providers": []}, "no execution provider"),
        ({"providers": ["CPUExecutionProvidr"]}, "unknown execution provider"),
        ({"providers": ["gpu"]}, "unknown execution provider 'gpu'"),
    ],
)
def test_a_wrong_option_is_named(options, said):
    with pytest.raises(UsageError, match=said):
        Options.of(options)


def test_a_provider_that_is_missing_here_is_not_replaced_by_another(runtime, model):
    with pytest.raises(RuntimeUnavailable, match="RknpuExecutionProvider is not in this build"):
        runtime.open(model, providers=["RknpuExecutionProvider", "CPUExecutionProvider"])


def test_without_onnxruntime_the_install_command_is_given(runtime, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = runtime.probe()
    assert (found.ok, found.why_not) == (False, "it is not installed")
    for attempt in (lambda: runtime.open(model), lambda: runtime.build(model, model.with_name("engine.onnx"))):
        with pytest.raises(RuntimeUnavailable) as caught:
            attempt()
        assert caught.value.hint == 'install it with: pip install "edge4d[onnxruntime]"'


def test_the_optimised_graph_goes_through_the_gate(runtime, tmp_path, monkeypatch):
    """A runtime that brings back a fifth axis is found, in either form, and nothing is published."""
    real = OrtSession.__init__

    def widening(self, path, options, *, save=None, config=None):
        real(self, path, options, save=save, config=config)
        if save is not None:
            save.write_bytes(five_axes().SerializeToString())

    model = save(artifact(), tmp_path / "m.onnx")
    monkeypatch.setattr(OrtSession, "__init__", widening)
    for name in ("engine.onnx", "engine.ort"):
        with pytest.raises(GateError, match=r"the graph that ONNX Runtime made of .*m\.onnx: .*findings"):
            runtime.build(model, tmp_path / name, timeout=0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


def layered(spatial=2):
    """Convolutions wide enough for ONNX Runtime's blocked layouts, with pooling, a sum and a concatenation between."""
    size = (8,) * spatial
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 16, *size))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 48, *(4,) * spatial))
    weight = np.random.default_rng(0).standard_normal((16, 16, *(3,) * spatial)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first", pads=[1] * 2 * spatial),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2] * spatial, strides=[2] * spatial),
        helper.make_node("Conv", ["c", "w"], ["d"], name="second", pads=[1] * 2 * spatial),
        helper.make_node("Add", ["d", "c"], ["e"]),
        helper.make_node("AveragePool", ["e"], ["f"], kernel_shape=[3] * spatial, pads=[1] * 2 * spatial),
        helper.make_node("Concat", ["d", "e", "f"], ["y"], axis=1),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_the_layouts_of_this_cpu_are_proven_too(runtime, tmp_path):
    """`com.microsoft.nchwc` operators have no shape inference in ONNX; the gate has rules of its own for them."""
    made = layered()
    result = runtime.build(save(made, tmp_path / "m.onnx"), tmp_path / "e.onnx", optimization="all", timeout=0)
    graph = onnx.load(str(result.path)).graph
    domains = {node.domain for node in graph.node}
    if "com.microsoft.nchwc" not in domains:
        pytest.skip("ONNX Runtime uses no blocked layouts on this processor")
    report = check_rank(result.path)
    assert report.ok
    assert report.highest_rank == 4
    wide = onnx.load(str(result.path))
    wide.graph.input[0].type.tensor_type.shape.dim.add(dim_value=8)  # and a fifth axis is followed through all of them
    del wide.graph.value_info[:]
    del wide.graph.output[0].type.tensor_type.shape.dim[:]
    found = {item.where.value for item in check_rank(wide).findings if item.code == "E4D001"}
    assert {node.output[0] for node in graph.node if node.domain} <= found


def test_nodes_that_fall_back_are_listed(runtime, tmp_path, capsys):
    """The Azure provider is in every wheel for the CPU, and takes none of these operators."""
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no provider that leaves nodes to the CPU")
    model = save(layered(), tmp_path / "m.onnx")
    assert main(["build", str(model), "-r", "onnxruntime", "--provider", "azure", "-o", str(tmp_path / "e.onnx")]) == 0
    said = capsys.readouterr().err
    assert "of 7 nodes fall back from AzureExecutionProvider: Conv 'first' to CPUExecutionProvider" in said
    listed = json.loads((tmp_path / "e.onnx.json").read_text())["engine"]["fallback"]
    assert {"node": "second", "op": "Conv", "provider": "CPUExecutionProvider"} in listed
    with runtime.open(model, providers=["azure"]) as session:
        assert session.details["nodes_elsewhere"] == len(listed)
    with runtime.open(model) as session:
        assert (session.nodes, session.fallback) == (7, [])
        assert "nodes_elsewhere" not in session.details


def test_settings_reach_the_session_and_its_providers(runtime, tmp_path, monkeypatch):
    seen = {}
    real = onnxruntime.InferenceSession

    def spying(path, settings, providers):
        seen["providers"] = providers
        seen["arena"] = settings.enable_cpu_mem_arena
        seen["plans"] = settings.enable_mem_pattern or settings.enable_mem_reuse
        seen["spinning"] = settings.get_session_config_entry("session.intra_op.allow_spinning")
        return real(path, settings, providers=[name for name, _ in providers])

    monkeypatch.setattr(onnxruntime, "InferenceSession", spying)
    model = save(plain(), tmp_path / "m.onnx")
    settings = {"session.intra_op.allow_spinning": "0", "cpu.some_option": 3}
    with runtime.open(model, settings=settings, arena=False) as session:
        assert session.run({"x": np.ones((1, 3), np.float32)})["y"].sum() == 3
    providers = [("CPUExecutionProvider", {"some_option": "3"})]
    assert seen == {"providers": providers, "arena": False, "plans": False, "spinning": "0"}
    with runtime.open(model, providers=["azure", "cpu"], settings={"session.intra_op.allow_spinning": "0"}):
        assert seen["plans"]  # what is planned ahead pays where memory is a device's


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"spinning": "0"}, "'spinning' belongs to nothing, expected session"),
        ({"cuda.device_id": "1"}, "is for CUDAExecutionProvider, which is not in use"),
        ({"cuba.device_id": "1"}, "unknown execution provider 'cuba'"),
    ],
)
def test_a_setting_that_nobody_reads_is_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        Options.of({"settings": settings})
