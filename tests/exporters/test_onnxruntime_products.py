"""Products of 8 bits are exact in ONNX Runtime, whatever processor an engine was built on.

Without the module under test these fail on processors that add pairs of products in 16 bits (x86 without VNNI). On the
others (VNNI, ARM) what is computed is right either way, and only what is refused and marked is tested.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge4d.errors import ValidationError
from edge4d.exporters import onnxruntime_products, onnxruntime_session
from edge4d.exporters.onnxruntime import OnnxRuntime
from edge4d.exporters.onnxruntime_products import ENTRY, PROBE, PRODUCTS, mark_products, pairs_saturate
from edge4d.validators.repro import write_repro

KINDS = ("Conv", "grouped Conv", "Gemm", "MatMul", "MatMul to float")
STEPS = 1.2 / 127
"""A step of the results' quantiser, of their range, and some: a sum between two steps may be rounded to either."""


def quantised(kind, folder):
    """One operator, quantised as `edge4d export` does it, of large numbers of one sign; and an input."""
    generator = np.random.default_rng(0)
    op = kind.split()[1 if kind.startswith("grouped") else 0]
    sizes, shape = {
        "Conv": ((16, 8, 3, 3), (1, 8, 10, 10)),
        "grouped Conv": ((16, 4, 3, 3), (1, 8, 10, 10)),
        "Gemm": ((32, 64), (6, 64)),
        "MatMul": ((64, 32), (1, 6, 64)),
        "MatMul to float": ((64, 32), (1, 6, 64)),
    }[kind]
    x = (np.abs(generator.standard_normal(shape)) + 1.5).astype(np.float32)
    weight = (np.abs(generator.standard_normal(sizes)) + 1).astype(np.float32)
    axis = 1 if op == "MatMul" else 0  # of the channels, which have a scale each
    scale = weight.max(tuple(i for i in range(weight.ndim) if i != axis), keepdims=True) / 127
    constants = {
        "w_q": np.round(weight / scale).astype(np.int8),
        "w_s": scale.ravel(),
        "w_z": np.zeros(scale.size, np.int8),
        "z": np.int8(0),
        "x_s": np.float32(x.max() / 127),
        "r_s": np.float32(x.max() * weight.max() * sizes[1 - axis] * (9 if op == "Conv" else 1) / 127),
    }
    attributes = {"Conv": {"group": 2 if kind.startswith("grouped") else 1}, "Gemm": {"transB": 1}}.get(op, {})
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_s", "z"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "x_s", "z"], ["x_d"]),
        helper.make_node("DequantizeLinear", ["w_q", "w_s", "w_z"], ["w_d"], axis=axis),
        helper.make_node(op, ["x_d", "w_d"], ["y" if kind.endswith("float") else "r"], **attributes),
    ]
    if not kind.endswith("float"):
        nodes.append(helper.make_node("QuantizeLinear", ["r", "r_s", "z"], ["r_q"]))
        nodes.append(helper.make_node("DequantizeLinear", ["r_q", "r_s", "z"], ["y"]))
    return _save(nodes, shape, constants, folder / "model.onnx"), {"x": x}


def signed(folder):
    """An operator of signed numbers, as other tools write it; unsigned weights it cannot have."""
    generator = np.random.default_rng(0)
    constants = {"w": generator.integers(80, 127, (64, 32), np.int8), "one": np.float32(1), "z": np.int8(0)}
    constants |= {"x_s": np.float32(0.02), "r_s": np.float32(128)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_s", "z"], ["q"]),
        helper.make_node("QLinearMatMul", ["q", "x_s", "z", "w", "one", "z", "r_s", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "r_s", "z"], ["y"]),
    ]
    x = generator.uniform(1.5, 2.5, (6, 64)).astype(np.float32)
    wanted = np.round(np.clip(np.round(x / 0.02), -128, 127) @ constants["w"].astype(np.float64) * 0.02 / 128) * 128
    return _save(nodes, x.shape, constants, folder / "signed.onnx"), {"x": x}, wanted


def tied(folder):
    """Two convolutions by the same weights, which ONNX Runtime's switch cannot take."""
    generator = np.random.default_rng(0)
    constants = {
        "w_q": generator.integers(80, 127, (8, 8, 3, 3), np.int8),
        "w_s": np.full(8, 0.01, np.float32),
        "w_z": np.zeros(8, np.int8),
        "z": np.int8(0),
    }
    nodes = [helper.make_node("DequantizeLinear", ["w_q", "w_s", "w_z"], ["w"], axis=0)]
    for number, (value, largest) in enumerate((("x", 4), ("a", 300), ("b", 17_500))):
        constants[f"s{number}"] = np.float32(largest / 127)
        nodes.append(helper.make_node("QuantizeLinear", [value, f"s{number}", "z"], [f"{value}_q"]))
        made = f"{value}_d" if value != "b" else "y"
        nodes.append(helper.make_node("DequantizeLinear", [f"{value}_q", f"s{number}", "z"], [made]))
        if value != "b":
            nodes.append(helper.make_node("Conv", [made, "w"], ["a" if value == "x" else "b"], pads=[1] * 4))
    x = generator.uniform(3, 4, (1, 8, 6, 6)).astype(np.float32)
    return _save(nodes, x.shape, constants, folder / "tied.onnx"), {"x": x}


def _save(nodes, shape, constants, path):
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", [None] * len(shape)))
    ]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def result(path, feeds, **options):
    with OnnxRuntime().open(path, **options) as session:
        return session.run(feeds)["y"]


def assert_exact(path, model, feeds, **options):
    wanted = result(model, feeds, optimization="none")  # nothing is fused there: it is float32
    np.testing.assert_allclose(result(path, feeds, **options), wanted, rtol=0, atol=STEPS * np.abs(wanted).max())


@pytest.fixture
def saturates(monkeypatch):
    """This machine, as one that adds pairs in 16 bits or does not would answer."""

    def answer(whether):
        for module in (onnxruntime_products, onnxruntime_session):
            monkeypatch.setattr(module, "pairs_saturate", lambda: whether)

    return answer


def marked(path):
    with OnnxRuntime().open(path, settings={ENTRY: "0"}) as session:
        return PRODUCTS in session.metadata


def test_the_probe_is_one_product():
    probe = onnx.load_from_string(PROBE)
    onnx.checker.check_model(probe, full_check=True)
    assert [node.op_type for node in probe.graph.node] == ["MatMulInteger"]


@pytest.mark.parametrize("level", ["basic", "extended", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_session_multiplies_exactly(kind, level, tmp_path):
    model, feeds = quantised(kind, tmp_path)
    assert_exact(model, model, feeds, optimization=level)


@pytest.mark.parametrize("kind", KINDS)
def test_who_asks_for_the_fast_kernels_gets_them(kind, tmp_path):
    """And the tests of this file are no formality: with them this machine is wrong, if it can be."""
    model, feeds = quantised(kind, tmp_path)
    wanted, got = result(model, feeds, optimization="none"), result(model, feeds, settings={ENTRY: "0"})
    wrong = np.abs(got - wanted).max() > 10 * STEPS * np.abs(wanted).max()
    assert wrong == pairs_saturate()


@pytest.mark.parametrize("suffix", [".onnx", ".ort"])
@pytest.mark.parametrize("level", ["basic", "extended", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_multiplies_exactly_at_every_level(kind, level, suffix, tmp_path):
    model, feeds = quantised(kind, tmp_path)
    engine = OnnxRuntime().build(model, tmp_path / f"e{suffix}", optimization=level, max_rank=None, timeout=0).path
    for opened in ("none", "all"):
        assert_exact(engine, model, feeds, optimization=opened)
    if level != "basic":  # its weights are unsigned, which is right for whoever opens it
        assert_exact(engine, model, feeds, settings={ENTRY: "0"})


@pytest.mark.parametrize("suffix", [".onnx", ".ort"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_of_a_processor_that_is_exact_is_refused_elsewhere(kind, suffix, tmp_path, saturates):
    model, feeds = quantised(kind, tmp_path)
    real = pairs_saturate()
    saturates(False)
    engine = OnnxRuntime().build(model, tmp_path / f"e{suffix}", max_rank=None, timeout=0).path
    saturates(True)
    with pytest.raises(ValidationError, match="adds their products in 32 bits; this one adds pairs of them in 16"):
        OnnxRuntime().open(engine)
    saturates(real)
    if not real:
        assert_exact(engine, model, feeds)


@pytest.mark.parametrize("kind", KINDS)
def test_a_portable_engine_has_unsigned_weights_or_says_that_it_does_not(kind, tmp_path, saturates):
    """ONNX Runtime before 1.25 does not make them so on a processor with VNNI."""
    model, feeds = quantised(kind, tmp_path)
    real = pairs_saturate()
    saturates(False)
    engine = OnnxRuntime().build(model, tmp_path / "e.ort", optimization="extended", max_rank=None, timeout=0).path
    assert not (real and marked(engine))
    assert_exact(engine, model, feeds)


def test_the_mark_goes_with_what_it_says(tmp_path, saturates):
    """An engine built of an engine: its weights are unsigned now, where ONNX Runtime can make them so."""
    model, feeds = quantised("MatMul", tmp_path)
    saturates(False)
    first = OnnxRuntime().build(model, tmp_path / "first.onnx", max_rank=None, timeout=0).path
    assert marked(first)
    second = (
        OnnxRuntime().build(first, tmp_path / "second.onnx", optimization="extended", max_rank=None, timeout=0).path
    )
    types = {tensor.data_type for tensor in onnx.load(second).graph.initializer if len(tensor.dims) == 2}
    assert marked(second) == (types == {TensorProto.INT8})
    assert_exact(second, model, feeds)


def test_operators_of_signed_numbers_run_as_they_are(tmp_path, saturates):
    saturates(True)
    model, feeds, wanted = signed(tmp_path)
    for path in (model, OnnxRuntime().build(model, tmp_path / "e.ort", max_rank=None, timeout=0).path):
        np.testing.assert_allclose(result(path, feeds), wanted, rtol=0, atol=129)
        assert not marked(path)


def test_weights_that_two_operators_share(tmp_path):
    model, feeds = tied(tmp_path)
    built = OnnxRuntime().build(model, tmp_path / "e.onnx", max_rank=None, timeout=0)
    flat = OnnxRuntime().build(model, tmp_path / "e.ort", max_rank=None, timeout=0)
    for path in (model, built.path, flat.path):
        assert_exact(path, model, feeds)
    with OnnxRuntime().open(model) as session:
        assert session.details.get("quantisers") == ("float32" if session.unfused else None)
        assert session.unfused == any("quantisers compute in float32" in note for note in built.notes)
        assert not session.unfused or pairs_saturate()


def test_the_repro_of_an_int8_layer_multiplies_exactly(tmp_path):
    """It is run by ONNX Runtime alone, and must show what edge4d saw, not the processor's own error."""
    model, feeds = quantised("Conv", tmp_path)
    seen = {"y": result(model, feeds)}
    home = tmp_path / "repro"
    write_repro(
        home,
        "a layer",
        model=onnx.load(model),
        origin=model,
        inputs=feeds,
        reference=seen,
        candidate=seen,
        allowed=0.01,
    )
    done = subprocess.run([sys.executable, "repro.py"], cwd=home, capture_output=True, text=True, check=True)
    error = float(done.stdout.split(": ")[1].split()[0])
    assert error < STEPS * np.abs(seen["y"]).max() / np.ptp(seen["y"])


@pytest.mark.parametrize(("limit", "expected"), [(64, False), (65, True)])
def test_small_weights_need_no_mark(limit, expected, tmp_path):
    """Two products of 255 and 64 fit in 16 bits; of 65 they do not."""
    loaded = onnx.load(signed(tmp_path)[0])
    for tensor in loaded.graph.initializer:
        if tensor.name == "w":
            tensor.CopyFrom(numpy_helper.from_array(np.full((64, 32), -limit, np.int8), "w"))
    loaded.graph.initializer.append(numpy_helper.from_array(np.uint8(128), "u"))
    for node in loaded.graph.node[:2]:
        node.input[2] = "u"
    onnx.save(loaded, tmp_path / "m.onnx")
    mark_products(tmp_path / "m.onnx")
    keys = {entry.key for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert (PRODUCTS in keys) == expected
