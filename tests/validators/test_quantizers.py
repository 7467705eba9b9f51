"""What ONNX Runtime's quantizer and optimizer write passes or fails on its ranks, as the network it was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edge4d.validators import check_rank
from tests.validators.onnx_models import model, node

pytestmark = pytest.mark.newest  # older ones quantize other operators


def network(axes, *, choice):
    """Convolutions, a shortcut, a concatenation, perhaps a choice, a pool, a mean and dense layers."""
    rng = np.random.default_rng(0)

    def weight(name, *shape):
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    nodes = (
        node("Conv", "x w1", "c1", pads=[1] * 2 * axes), node("Relu", "c1", "r"),
        node("Conv", "r w2", "c2", pads=[1] * 2 * axes), node("Sigmoid", "c2", "g"), node("Mul", "g r", "m"),
        node("Add", "m r", "a"), node("Concat", "a r", "k", axis=1), node("LeakyRelu", "k", "l"),
        *([node("Greater", "l zero", "q"), node("Where", "q l k", "v")] if choice else [node("Neg", "l", "v")]),
        node("MaxPool", "v", "p", kernel_shape=[2] * axes, strides=[2] * axes), node("GlobalAveragePool", "p", "f"),
        node("Flatten", "f", "flat"), node("Gemm", "flat w3 b3", "d"), node("MatMul", "d w4", "e"),
        node("Softmax", "e", "y"),
    )  # fmt: skip
    weights = [
        weight("w1", 4, 3, *[3] * axes), weight("w2", 4, 4, *[3] * axes), weight("w3", 8, 8), weight("b3", 8),
        weight("w4", 8, 8), weight("zero"),
    ]  # fmt: skip
    return model(*nodes, inputs=[("x", [1, 3, *[6] * axes])], outputs=[("y", [1, 8])], weights=weights)


def quantized(path: Path, how: str) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

    class Clips(CalibrationDataReader):
        def __init__(self):
            shape = [dim.dim_value for dim in onnx.load(path).graph.input[0].type.tensor_type.shape.dim]
            self.left = [{"x": np.full(shape, number, np.float32)} for number in (-1, 0, 1)]

        def get_next(self):
            return self.left.pop() if self.left else None

    if how == "as it is":
        return path
    out = path.with_name(f"{how}.onnx")
    if how == "dynamic":
        quantize_dynamic(path, out)
    else:
        quantize_static(path, out, Clips(), quant_format=QuantFormat[how])
    return out


def optimized(path: Path) -> Path:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # the file fits this machine alone, it says
    options.optimized_model_filepath = str(path.with_suffix(".best.onnx"))
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Path(options.optimized_model_filepath)


@pytest.mark.parametrize("how", ["as it is", "QDQ", "QOperator", "dynamic"])
@pytest.mark.parametrize("axes", [2, 3])
def test_the_verdict_is_that_of_the_network(tmp_path, axes, how):
    # Of a choice the quantizer for operators loses an input, and says so.
    onnx.save(network(axes, choice=how != "QOperator"), tmp_path / "network.onnx")
    path = quantized(tmp_path / "network.onnx", how)
    best = optimized(path)
    assert {n.domain for n in onnx.load(best).graph.node} - {""}, "nothing was fused"
    for made in (path, best):
        report = check_rank(made)
        assert report.verdict == ("pass" if axes == 2 else "fail"), report.to_text(limit=None)
        assert {f.code for f in report.findings} <= {"E4D001", "E4D003"}, report.to_text(limit=None)
        assert report.highest_rank == axes + 2
