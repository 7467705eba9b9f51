"""Engines with layouts of one kind of processor: marked where they are built, refused elsewhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge4d.cli import main
from edge4d.errors import ValidationError
from edge4d.exporters import onnxruntime as exporter
from edge4d.exporters import onnxruntime_layout, onnxruntime_session
from edge4d.exporters.onnxruntime import OnnxRuntime
from edge4d.exporters.onnxruntime_layout import LAYOUT, PROBE, layout_here


@pytest.fixture
def model(tmp_path):
    """Two Conv2d whose weights ONNX Runtime puts into blocks."""
    generator = np.random.default_rng(0)
    weights = {
        "a": generator.standard_normal((32, 16, 3, 3)).astype(np.float32),
        "b": generator.standard_normal((32, 32, 3, 3)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "a"], ["h"], pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["h", "b"], ["y"], pads=[1, 1, 1, 1]),
        ],
        "convolutions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 16, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 32, 8, 8])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(made, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def elsewhere(monkeypatch):
    """This machine, as a processor with other vectors would answer."""

    def answer(layout):
        for module in (onnxruntime_layout, onnxruntime_session):
            monkeypatch.setattr(module, "layout_here", lambda: layout, raising=False)

    return answer


def _marks(path):
    return [entry.value for entry in onnx.load(path, load_external_data=False).metadata_props if entry.key == LAYOUT]


def test_the_probe_is_one_convolution_that_tells_every_element_from_the_others():
    probe = onnx.load_from_string(PROBE)
    onnx.checker.check_model(probe, full_check=True)
    (node,), (weight,) = probe.graph.node, probe.graph.initializer
    assert (node.op_type, list(weight.dims)) == ("Conv", [4, 4, 1, 1])
    assert numpy_helper.to_array(weight).ravel().tolist() == list(range(1, 17))


def test_the_layout_is_the_same_every_time():
    onnxruntime_layout.layout_here.cache_clear()
    first = layout_here()
    onnxruntime_layout.layout_here.cache_clear()
    assert layout_here() == first


@pytest.mark.parametrize("suffix", [".onnx", ".ort"])
def test_an_engine_of_another_processor_is_refused(model, tmp_path, elsewhere, suffix):
    engine = OnnxRuntime().build(model, tmp_path / f"engine{suffix}", timeout=0).path
    x = {"x": np.random.default_rng(1).standard_normal((2, 16, 8, 8)).astype(np.float32)}
    with OnnxRuntime().open(engine) as built, OnnxRuntime().open(model) as plain:
        assert np.array_equal(built.run(x)["y"], plain.run(x)["y"])
    version, _, digest = layout_here().partition(" ")
    elsewhere(f"{version} {digest[::-1]}")
    with pytest.raises(ValidationError, match=r"a processor of another kind .* may compute wrong numbers"):
        OnnxRuntime().open(engine)
    elsewhere(f"0.{version} {digest}")
    with pytest.raises(ValidationError, match=rf"built by ONNX Runtime {version}, this is 0\.{version}"):
        OnnxRuntime().open(engine)


def test_the_command_says_so(model, tmp_path, elsewhere, capsys):
    engine = OnnxRuntime().build(model, tmp_path / "engine.onnx", timeout=0).path
    elsewhere("1.0.0 abc")
    assert main(["parity", str(model), str(engine)]) == 2
    assert "--level extended" in capsys.readouterr().err


def test_a_portable_engine_has_no_mark(model, tmp_path, elsewhere):
    engine = OnnxRuntime().build(model, tmp_path / "engine.onnx", optimization="extended", timeout=0).path
    assert _marks(engine) == []
    elsewhere("1.0.0 abc")
    OnnxRuntime().open(engine).close()


def test_an_engine_of_an_engine_has_one_mark(model, tmp_path):
    first = OnnxRuntime().build(model, tmp_path / "first.onnx", timeout=0).path
    second = OnnxRuntime().build(first, tmp_path / "second.onnx", timeout=0).path
    assert _marks(first) == _marks(second) == [layout_here()]


def test_large_weights_lie_beside_the_engine(model, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "_BESIDE_ABOVE", 10_000)
    result = OnnxRuntime().build(model, tmp_path / "engine.onnx", timeout=0)
    assert [file.name for file in result.files] == ["engine.onnx", "engine.onnx.json", "engine.onnx.data"]
    weights = 4 * 32 * 9 * (16 + 32)
    assert (tmp_path / "engine.onnx.data").stat().st_size >= weights
    assert result.path.stat().st_size < weights // 10
    x = {"x": np.random.default_rng(1).standard_normal((2, 16, 8, 8)).astype(np.float32)}
    with OnnxRuntime().open(result.path) as built, OnnxRuntime().open(model) as plain:
        assert np.array_equal(built.run(x)["y"], plain.run(x)["y"])
