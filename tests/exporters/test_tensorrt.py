"""TensorRT builds: real engines of TensorRT-RTX, which needs no GPU for them, and what `tensorrt` alone has on a fake.

No `tensorrt` can be installed where these tests run: what is tested of it is which of its functions are called.
"""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge4d.cli import main
from edge4d.errors import GateError, RuntimeFailed, RuntimeUnavailable, UsageError, ValidationError
from edge4d.exporters.cuda import why_no_gpu
from edge4d.exporters.tensorrt import BuildOptions, TensorRt, TensorRtRtx
from edge4d.exporters.tensorrt_build import compile_engine
from tests.onnx_models import artifact, five_axes, plain, save

rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (Linux and Windows on x86-64 only)")
no_gpu = pytest.mark.skipif(why_no_gpu() is None, reason="there is a GPU here")


@pytest.fixture
def model(tmp_path):
    return save(artifact(), tmp_path / "m.onnx")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "m.engine"


def build(model, output, **options):
    """In this process, which takes no child's start."""
    return TensorRtRtx().build(model, output, timeout=0, **options)


def test_one_engine_for_several_architectures(model, output):
    result = TensorRtRtx().build(model, output, device=["sm_86", "8.9", "SM120", "sm_86"])
    told = json.loads(result.recipe.read_text())
    assert told["options"]["device"] == told["engine"]["devices"] == ["sm_86", "sm_89", "sm_120"]
    assert told["engine"]["version"] == rtx.__version__
    assert told["engine"]["tensors_checked"] > 3
    single = build(model, output.with_name("one.engine"), device="sm_86")
    assert single.path.read_bytes() != result.path.read_bytes()


@pytest.mark.parametrize("name", ["86", "sm_86", "sm86", "SM_86", "8.6"])
def test_an_architecture_has_many_spellings(name):
    assert BuildOptions(device=name).device == ("sm_86",)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "rtx4090"}, "device 'rtx4090', expected an architecture such as sm_86"),
        ({"device": "sm_99"}, "does not build for sm_99, expected one of: sm_"),
        ({"shapes": {"clip": [(1, 3), (2, 3)]}}, "expected three of the same rank"),
        ({"shapes": {"clip": [(2, 3), (1, 3), (4, 3)]}}, "least ≤ best ≤ greatest"),
        ({"shapes": {"other": [(8, 3, 5, 6)] * 3}}, "given for 'other', the model's inputs are clip"),
        ({"shapes": {"clip": [(9, 3, 5, 6)] * 3}}, "does not fit input 'clip'"),
        ({"workspace_mib": "much"}, "workspace_mib 'much'"),
        ({"timing_cache": "cache"}, "no use for a timing cache"),
        ({"dla": 0}, "knows no DLA"),
    ],
)
def test_a_wrong_option_is_named(model, output, options, said):
    with pytest.raises(UsageError, match=said):
        build(model, output, **options)
    assert not output.exists()


@no_gpu
def test_the_gpu_of_this_machine_must_be_there(model, output):
    with pytest.raises(RuntimeUnavailable, match="cannot build for the GPU of this machine: it needs an NVIDIA RTX"):
        build(model, output, device="current")


def test_what_the_builder_refuses_is_said_by_layer(output, tmp_path):
    weight = numpy_helper.from_array(np.ones((3, 2), np.float32), "w")
    made = plain("Relu", (4, 3), (4, 2))
    made.graph.initializer.append(weight)
    made.graph.node[0].CopyFrom(helper.make_node("Gemm", ["x", "w"], ["y"], name="classifier"))
    with pytest.raises(RuntimeFailed, match=r"m\.onnx: .*'classifier' for Turing \(SM75\)") as caught:
        build(save(made, tmp_path / "m.onnx"), output, device="sm_75")
    assert "leave sm_75 out" in caught.value.hint
    assert not output.exists()


def test_parse_errors_name_node_and_source_layer(output, tmp_path):
    made = artifact()
    node = made.graph.node[1]
    node.op_type, node.name = "Unknown", "head/Unknown"
    node.metadata_props.add(key="edge4d.layer", value="head.act")
    with pytest.raises(ValidationError, match=r"cannot take:\n    Unknown 'head/Unknown' \(layer head\.act\): "):
        build(save(made, tmp_path / "m.onnx"), output, max_rank=None)


def test_a_workspace_can_be_given(model, output):
    assert build(model, output, workspace_mib=64).path.is_file()


# ---- the rank rule on the parsed network ------------------------------------------------------------------------


def order(model, engine, **options):
    return {
        "runtime": "tensorrt_rtx",
        "model": str(model),
        "files": [str(engine)],
        "max_rank": 4,
        "options": {
            "device": ("sm_86",),
            "shapes": {},
            "workspace_mib": None,
            "timing_cache": None,
            "dla": None,
            "layers": False,
            **options,
        },
    }


def test_five_axes_are_found_in_the_parsed_network_itself(tmp_path, output):
    """Without the gate on the ONNX file before it, so that nothing but TensorRT's own shapes can tell."""
    with pytest.raises(GateError, match=r"network that tensorrt_rtx made of .*m\.onnx: 2 findings") as caught:
        compile_engine(order(save(five_axes(), tmp_path / "m.onnx"), output))
    assert "'clip' of the input has 5 axes" in caught.value.message
    assert "'result' of CONVOLUTION 'conv' has 5 axes" in caught.value.message
    assert not output.exists()


def nested(kind):
    """Five axes that exist inside a branch of an If, or the body of a Loop, and nowhere else."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3, 4))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 3, 4))
    wide = numpy_helper.from_array(np.array([1, 2, 3, 2, 2], np.int64), "wide")
    back = numpy_helper.from_array(np.array([2, 3, 4], np.int64), "back")
    inner = [
        helper.make_node("Reshape", ["{}", "wide"], ["five"], name="inner"),
        helper.make_node("Relu", ["five"], ["positive"]),
        helper.make_node("Reshape", ["positive", "back"], ["{}"]),
    ]

    def renamed(source, result):
        copies = []
        for node in inner:
            copy = type(node)()
            copy.CopyFrom(node)
            copy.input[0] = copy.input[0].replace("{}", source)
            copy.output[0] = copy.output[0].replace("{}", result)
            copies.append(copy)
        return copies

    if kind == "If":
        out = helper.make_tensor_value_info("out", TensorProto.FLOAT, (2, 3, 4))
        other = helper.make_tensor_value_info("other", TensorProto.FLOAT, (2, 3, 4))
        then = helper.make_graph(renamed("x", "out"), "then", [], [out])
        otherwise = helper.make_graph([helper.make_node("Neg", ["x"], ["other"])], "else", [], [other])
        condition = helper.make_tensor_value_info("c", TensorProto.BOOL, ())
        node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=otherwise)
        graph = helper.make_graph([node], "g", [x, condition], [y], [wide, back])
    else:
        body = helper.make_graph(
            [helper.make_node("Identity", ["go"], ["on"]), *renamed("carried", "next")],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, ()),
                helper.make_tensor_value_info("go", TensorProto.BOOL, ()),
                helper.make_tensor_value_info("carried", TensorProto.FLOAT, (2, 3, 4)),
            ],
            [
                helper.make_tensor_value_info("on", TensorProto.BOOL, ()),
                helper.make_tensor_value_info("next", TensorProto.FLOAT, (2, 3, 4)),
            ],
        )
        times = numpy_helper.from_array(np.array(3, np.int64), "times")
        true = numpy_helper.from_array(np.array(True), "true")
        node = helper.make_node("Loop", ["times", "true", "x"], ["y"], body=body)
        graph = helper.make_graph([node], "g", [x], [y], [wide, back, times, true])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("kind", ["If", "Loop"])
def test_five_axes_inside_a_branch_or_a_loop_are_found(tmp_path, output, kind):
    model = save(nested(kind), tmp_path / "m.onnx")
    with pytest.raises(GateError, match=r"'five.*' of SHUFFLE '.*inner.*' has 5 axes"):
        compile_engine(order(model, output))
    compile_engine({**order(model, output), "max_rank": None})
    assert output.stat().st_size > 0


# ---- dynamic sizes ----------------------------------------------------------------------------------------------


def test_open_sizes_need_their_range(output, tmp_path, capsys):
    model = save(plain("Relu", ("batch", 3, 5, 6)), tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=r"input 'x' leaves sizes open \(\?x3x5x6\)") as caught:
        build(model, output)
    assert "--shape-range x=" in caught.value.hint
    args = ["build", str(model), "-r", "tensorrt_rtx", "-o", str(output), "--shape-range"]
    assert main([*args, "x=1x3x5x6:4x3x5x6:8x3x5x6", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["notes"] == ["sizes of 'x' are open between the shapes given"]
    shapes = json.loads(output.with_name("m.engine.json").read_text())["options"]["shapes"]
    assert shapes == {"x": [[1, 3, 5, 6], [4, 3, 5, 6], [8, 3, 5, 6]]}
    assert main([*args, "x=1x3x5x6:8x3x5x6", "--force"]) == 2
    assert "expected NAME=MIN:BEST:MAX" in capsys.readouterr().err


# ---- layers -----------------------------------------------------------------------------------------------------


@no_gpu
def test_without_a_gpu_the_layers_are_those_of_the_network_and_it_says_so(model, output):
    result = build(model, output, layers=True)
    assert output.with_name("m.engine.layers.json") in result.files
    assert "not of the engine: CUDA finds none" in result.notes[0]
    dump = json.loads(output.with_name("m.engine.layers.json").read_text())
    assert dump["of"] == "network"
    made = {tensor["name"]: tensor for layer in dump["layers"] for tensor in layer["outputs"]}
    assert made["result"] == {"name": "result", "shape": [8, 3, 5, 6], "dtype": "FLOAT"}


# ---- `tensorrt` alone -------------------------------------------------------------------------------------------


class _Config:
    """A builder's configuration that knows DLA and timing caches; all else is TensorRT-RTX's own."""

    def __init__(self, real):
        self.__dict__.update(real=real, told={}, cache=None, flags=set())

    def __getattr__(self, name):
        if name in ("num_compute_capabilities", "set_compute_capability"):
            raise AttributeError(name)
        return getattr(self.real, name)

    def __setattr__(self, name, value):
        if name in ("default_device_type", "DLA_core"):
            self.told[name] = value
        else:
            setattr(self.real, name, value)

    def set_flag(self, flag):
        self.flags.add(flag)

    def can_run_on_DLA(self, layer):
        return layer.type == rtx.LayerType.ACTIVATION

    def create_timing_cache(self, data):
        return types.SimpleNamespace(serialize=lambda: data + b"+")

    def set_timing_cache(self, cache, ignore_mismatch):
        self.__dict__["cache"] = cache

    def get_timing_cache(self):
        return self.cache


class _Builder:
    cores = 2

    def __init__(self, logger):
        self.real = rtx.Builder(logger)
        self.num_DLA_cores = self.cores
        self.config = None

    def create_builder_config(self):
        _Builder.config = _Config(self.real.create_builder_config())
        return _Builder.config

    def build_serialized_network(self, network, config):
        return self.real.build_serialized_network(network, config.real)

    def __getattr__(self, name):
        return getattr(self.real, name)


@pytest.fixture
def tensorrt(monkeypatch):
    """`tensorrt` on a machine with a GPU and two DLA cores, as far as building is concerned."""
    fake = types.ModuleType("tensorrt")
    fake.__dict__.update({name: value for name, value in vars(rtx).items() if not name.startswith("__")})
    fake.__version__, fake.Builder = "10.7.0", _Builder
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr("edge4d.exporters.cuda.why_no_gpu", lambda: None)
    return TensorRt()


def test_dla_takes_what_it_can_and_the_rest_is_listed(tensorrt, model, output):
    result = tensorrt.build(model, output, timeout=0, dla=1)
    assert _Builder.config.told == {"default_device_type": rtx.DeviceType.DLA, "DLA_core": 1}
    assert _Builder.config.flags == {rtx.BuilderFlag.GPU_FALLBACK}
    fallback = json.loads(result.recipe.read_text())["engine"]["dla_fallback"]
    assert any(entry.startswith("ELEMENTWISE") for entry in fallback)
    assert not any(entry.startswith("ACTIVATION") for entry in fallback)
    assert f"{len(fallback)} of " in result.notes[0]
    assert "run on the GPU instead of the DLA" in result.notes[0]


def test_a_missing_dla_core_is_said(tensorrt, model, output):
    with pytest.raises(RuntimeUnavailable, match="no DLA core 2 here, TensorRT finds 2"):
        tensorrt.build(model, output, timeout=0, dla=2)


def test_a_timing_cache_is_read_and_written(tensorrt, model, output, tmp_path):
    cache = tmp_path / "cache"
    for expected in (b"+", b"++"):
        tensorrt.build(model, output, timeout=0, timing_cache=cache)
        assert cache.read_bytes() == expected


def test_it_builds_for_this_machine_only(tensorrt, model, output):
    with pytest.raises(UsageError, match="for the GPU of this machine only, got sm_86") as caught:
        tensorrt.build(model, output, timeout=0, device="sm_86")
    assert "tensorrt_rtx" in caught.value.hint
    assert tensorrt.build(model, output, timeout=0, device="current").path.is_file()


def test_without_a_gpu_it_cannot_even_build(tensorrt, model, output, monkeypatch):
    monkeypatch.setattr("edge4d.exporters.cuda.why_no_gpu", lambda: "CUDA finds none")
    found = tensorrt.probe()
    assert (found.ok, found.version) == (False, "10.7.0")
    with pytest.raises(RuntimeUnavailable, match="needs an NVIDIA GPU: CUDA finds none"):
        tensorrt.build(model, output)


# ---- a real network ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_r3d_18_in_its_5d_and_its_4d_form(tmp_path):
    """Both forms become engines for three architectures; the weights are all there, and only one passes the rule."""
    torch = pytest.importorskip("torch")
    from edge4d import export
    from edge4d.quiet import quiet
    from tests.zoo.models import find

    zoo = find("r3d_18")
    network, clips = zoo.ready(), zoo.inputs()
    report = export(network, args=clips, output=tmp_path / "r3d_4d.onnx")
    with quiet():
        torch.onnx.export(
            network, clips, str(tmp_path / "r3d_5d.onnx"), dynamo=True, external_data=False, verbose=False
        )
    devices = ("sm_86", "sm_89", "sm_120")
    sizes = {}
    for form, max_rank in (("4d", 4), ("5d", None)):
        model = tmp_path / f"r3d_{form}.onnx"
        result = TensorRtRtx().build(model, tmp_path / f"{form}.engine", device=devices, max_rank=max_rank)
        told = json.loads(result.recipe.read_text())["engine"]
        assert told["devices"] == list(devices)
        sizes[form] = result.path.stat().st_size
    assert min(sizes.values()) > 33_000_000 * 4  # bytes of its weights
    assert told["tensors_checked"] is None
    with pytest.raises(GateError):
        TensorRtRtx().build(tmp_path / "r3d_5d.onnx", tmp_path / "no.engine", device=devices)
    recipe = json.loads((tmp_path / "4d.engine.json").read_text())["engine"]
    assert recipe["tensors_checked"] > recipe["layers"]
    assert recipe["metadata"][f"edge4d.packing.{report.inputs[0].name}"] == "n c t h w -> (n t) c h w"


def test_nothing_is_collected_while_tensorrt_may_hold_its_lock(monkeypatch):
    """A builder that the collector frees within the logger waits for the lock that the logger's caller holds."""
    import gc

    from edge4d.exporters import tensorrt_build

    seen = []

    def fail(_order):
        seen.append(gc.isenabled())
        raise RuntimeError("as a parser may")

    monkeypatch.setattr(tensorrt_build, "_compile", fail)
    with pytest.raises(RuntimeError, match="as a parser may"):
        tensorrt_build.compile_engine({})
    assert seen == [False]
    assert gc.isenabled()
