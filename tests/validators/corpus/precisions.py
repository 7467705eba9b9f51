"""Number formats: float16, bfloat16, float8, int4, and quantization in its two forms."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, defs, helper

from tests.validators.corpus.case import add, case
from tests.validators.corpus.three_axes import tensor
from tests.validators.onnx_models import floats, ints, model, node

T = TensorProto


def _cast_through(elem, rank):
    """To the format and back; rank 5 in between when asked for."""
    shape = [1, 2, 2, 8, 8][-rank:] if rank > 4 else [1, 4, 8, 8]
    nodes = (
        node("Reshape", "x s", "r"), node("Cast", "r", "q", to=elem), node("Cast", "q", "f", to=T.FLOAT),
        node("Reshape", "f s4", "y"),
    )  # fmt: skip
    return model(
        *nodes, weights=[ints("s", *shape), ints("s4", 1, 4, 8, 8)], opset=min(defs.onnx_opset_version(), 25), ir=11
    )


_FORMATS = {
    "float16": T.FLOAT16,
    "bfloat16": T.BFLOAT16,
    "float8_e4m3fn": T.FLOAT8E4M3FN,
    "float8_e5m2": T.FLOAT8E5M2,
    "float8_e4m3fnuz": T.FLOAT8E4M3FNUZ,
    "int4": T.INT4,
    "uint4": T.UINT4,
}
for _name, _elem in _FORMATS.items():
    add(f"{_name}_within", lambda elem=_elem: _cast_through(elem, 4))
    add(f"{_name}_within_rank_5", lambda elem=_elem: _cast_through(elem, 5), "E4D001")


def _qdq(axes, elem, dtype):
    """Quantize, dequantize, convolve: what quantization tools write."""
    weights = [
        tensor("s", 0.1, np.float32), tensor("z", 0, dtype), tensor("w", np.ones((2, 4, *[3] * axes)), dtype),
        tensor("ws", [0.1, 0.2], np.float32), tensor("wz", [0, 0], dtype),
    ]  # fmt: skip
    nodes = (
        node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"),
        node("DequantizeLinear", "w ws wz", "wd", axis=0), node("Conv", "d wd", "c"),
        node("QuantizeLinear", "c s z", "cq"), node("DequantizeLinear", "cq s z", "y"),
    )  # fmt: skip
    return model(*nodes, inputs=[("x", [1, 4, *[6] * axes])], outputs=[("y", None)], weights=weights)


for _name, _elem, _dtype in (("uint8", T.UINT8, np.uint8), ("int8", T.INT8, np.int8)):
    add(f"qdq_{_name}_2d", lambda e=_elem, d=_dtype: _qdq(2, e, d))
    add(f"qdq_{_name}_3d", lambda e=_elem, d=_dtype: _qdq(3, e, d), "E4D001", "E4D003")


@case()
def dynamic_quantization():
    nodes = (
        node("DynamicQuantizeLinear", "x", "q s z"), node("MatMulInteger", "q w z", "m"),
        node("Cast", "m", "f", to=T.FLOAT), node("Mul", "f s", "y"),
    )  # fmt: skip
    w = tensor("w", np.ones((8, 8)), np.uint8)
    return model(*nodes, inputs=[("x", ["n", 5, 8])], outputs=[("y", None)], weights=[w])


@case()
def int4_weights_in_blocks():
    """Two numbers a byte: the sizes count numbers."""
    w = helper.make_tensor("w", T.INT4, [8, 4], [1] * 32)
    s = floats("s", 2, 4)
    nodes = (node("DequantizeLinear", "w s", "d", axis=0, block_size=4), node("MatMul", "x d", "y"))
    return model(*nodes, inputs=[("x", [2, 8])], outputs=[("y", [2, 4])], weights=[w, s], opset=21)


@case("E4D001")
def int4_weight_of_rank_5():
    w = helper.make_tensor("w", T.INT4, [1, 1, 1, 2, 2], [1] * 4)
    return model(node("Relu", "x", "y"), weights=[w], opset=21)


@case()
def float8_weight():
    w = helper.make_tensor("w", T.FLOAT8E4M3FN, [4, 4], [1.0] * 16)
    nodes = (node("Cast", "w", "f", to=T.FLOAT), node("MatMul", "x f", "y"))
    return model(*nodes, inputs=[("x", [2, 4])], outputs=[("y", [2, 4])], weights=[w], opset=21)


@case()
def whole_network_in_float16():
    w = tensor("w", np.zeros((4, 4, 3, 3)), np.float16)
    nodes = (node("Conv", "x w", "c", pads=[1] * 4), node("Relu", "c", "r"), node("GlobalAveragePool", "r", "y"))
    return model(*nodes, inputs=[("x", ["n", 4, 8, 8], T.FLOAT16)], outputs=[("y", None, T.FLOAT16)], weights=[w])


@case("E4D001", "E4D003")
def whole_network_in_float16_3d():
    w = tensor("w", np.zeros((4, 4, 3, 3, 3)), np.float16)
    nodes = (node("Conv", "x w", "c", pads=[1] * 6), node("Relu", "c", "r"), node("GlobalAveragePool", "r", "y"))
    ports = {"inputs": [("x", ["n", 4, 8, 8, 8], T.FLOAT16)], "outputs": [("y", None, T.FLOAT16)]}
    return model(*nodes, weights=[w], **ports)


@case()
def doubles_and_strings():
    nodes = (node("StringNormalizer", "t", "u", case_change_action="UPPER", locale="C"), node("Relu", "x", "y"))
    return model(
        *nodes,
        inputs=[("x", [2, 3], T.DOUBLE), ("t", [3], T.STRING)],
        outputs=[("y", [2, 3], T.DOUBLE), ("u", None, T.STRING)],
    )
