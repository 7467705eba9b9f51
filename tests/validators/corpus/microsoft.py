"""ONNX Runtime's own operators: fused, NHWC and quantized ones."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.validators.corpus.case import add, case
from tests.validators.corpus.three_axes import quantized_weights, tensor
from tests.validators.onnx_models import X, floats, ints, model, node

MS = "com.microsoft"
U8, I8, F16 = TensorProto.UINT8, TensorProto.INT8, TensorProto.FLOAT16


def ms(op, inputs, outputs, **attributes):
    return node(op, inputs, outputs, domain=MS, name=op, **attributes)


def _x(axes, elem=1, last=False):
    return ("x", [1, *[6] * axes, 4] if last else [1, 4, *[6] * axes], elem)


def _fused_conv(axes):
    return model(ms("FusedConv", "x w", "y", activation="Relu"), inputs=[_x(axes)], outputs=[("y", None)],
                 weights=[floats("w", 2, 4, *[3] * axes)])  # fmt: skip


def _nhwc_max_pool(axes):
    return model(ms("NhwcMaxPool", "x", "y", kernel_shape=[2] * axes), inputs=[_x(axes, U8, last=True)],
                 outputs=[("y", None, U8)])  # fmt: skip


def _scales():
    return [tensor("s", 0.1, np.float32), tensor("z", 1, np.uint8), tensor("t", 0.1, np.float32),
            tensor("u", 1, np.uint8)]  # fmt: skip


def _qlinear_average_pool(axes):
    pool = ms("QLinearAveragePool", "x s z t u", "y", kernel_shape=[2] * axes)
    return model(pool, inputs=[_x(axes, U8)], outputs=[("y", None, U8)], weights=_scales())


def _qlinear_global_average_pool(axes):
    pool = ms("QLinearGlobalAveragePool", "x s z t u", "y")
    return model(pool, inputs=[_x(axes, U8)], outputs=[("y", None, U8)], weights=_scales())


def _nhwc_qlinear_conv(axes):
    """QLinearConv of com.microsoft takes channels last when it is told to."""
    conv = ms("QLinearConv", "x s z w ws wz ys yz", "y", channels_last=1)
    return model(conv, inputs=[_x(axes, U8, last=True)], outputs=[("y", None, U8)], weights=quantized_weights(axes))


def _nhwc_fused_conv(axes):
    w = tensor("w", np.zeros((2, *[3] * axes, 4)), np.float16)
    return model(ms("NhwcFusedConv", "x w", "y", activation="Relu"), inputs=[_x(axes, F16, last=True)],
                 outputs=[("y", None, F16)], weights=[w])  # fmt: skip


def _nhwc_conv(axes):
    return model(ms("NhwcConv", "x w", "y"), inputs=[_x(axes, last=True)], outputs=[("y", None)],
                 weights=[floats("w", 2, *[3] * axes, 4)])  # fmt: skip


def _conv_transpose_with_dynamic_pads(axes):
    conv = ms("ConvTransposeWithDynamicPads", "x w p", "y")
    return model(conv, inputs=[_x(axes)], outputs=[("y", None)],
                 weights=[floats("w", 4, 2, *[3] * axes), ints("p", *[1] * 2 * axes)])  # fmt: skip


def _grid_sample(axes):
    return model(ms("GridSample", "x g", "y"), inputs=[_x(axes), ("g", [1, *[3] * axes, axes])], outputs=[("y", None)])


def _max_pool_with_mask(axes):
    mask = ("m", [1, 4, *[6] * axes], TensorProto.INT32)
    pool = ms("MaxpoolWithMask", "x m", "y", kernel_shape=[2] * axes)
    return model(pool, inputs=[_x(axes), mask], outputs=[("y", None)])


_BY_AXES = {
    "fused_conv": _fused_conv,
    "max_pool_with_mask": _max_pool_with_mask,
    "nhwc_max_pool": _nhwc_max_pool,
    "qlinear_average_pool": _qlinear_average_pool,
    "qlinear_global_average_pool": _qlinear_global_average_pool,
    "nhwc_qlinear_conv": _nhwc_qlinear_conv,
    "nhwc_fused_conv": _nhwc_fused_conv,
    "nhwc_conv": _nhwc_conv,
    "conv_transpose_with_dynamic_pads": _conv_transpose_with_dynamic_pads,
    "microsoft_grid_sample": _grid_sample,
}
# No kernel on the CPU, or none for three axes, as ONNX Runtime says it.
_REFUSED = {
    "nhwc_fused_conv_2d": "NhwcFusedConv",
    "nhwc_fused_conv_3d": "NhwcFusedConv",
    "nhwc_conv_2d": "NhwcConv",
    "nhwc_conv_3d": "NhwcConv",
    "microsoft_grid_sample_3d": "expected to have rank 4",
}
for _name, _make in _BY_AXES.items():
    add(f"{_name}_2d", lambda make=_make: make(2), refused=_REFUSED.get(f"{_name}_2d"))
    add(f"{_name}_3d", lambda make=_make: make(3), "E4D001", "E4D003", refused=_REFUSED.get(f"{_name}_3d"))


@case()
def transformer_block_of_onnxruntime():
    nodes = (
        ms("SkipLayerNormalization", "x x g b", "n"), ms("BiasGelu", "n b", "h"), ms("FusedMatMul", "h w", "m"),
        ms("FastGelu", "m", "f"), node("Add", "f x", "y"),
    )  # fmt: skip
    shape = ("x", [2, 5, 8])
    weights = [floats("g", 8), floats("b", 8), floats("w", 8, 8)]
    return model(*nodes, inputs=[shape], outputs=[("y", [2, 5, 8])], weights=weights)


@case()
def quantized_additions():
    nodes = (ms("QLinearAdd", "x s z x s z t u", "a"), ms("QLinearMul", "a s z a s z t u", "m"),
             ms("QLinearSigmoid", "m s z t u", "y"))  # fmt: skip
    return model(*nodes, inputs=[(*X, U8)], outputs=[("y", None, U8)], weights=_scales())


@case("E4D001")
def quantized_concat_of_rank_5():
    concat = ms("QLinearConcat", "t u x s z x s z", "y", axis=1)
    return model(concat, inputs=[_x(3, U8)], outputs=[("y", None, U8)], weights=_scales())


@case("E4D001")
def gelu_of_rank_5():
    nodes = (node("Reshape", "x s5", "w"), ms("Gelu", "w", "g"), node("Reshape", "g s4", "y"))
    return model(*nodes, weights=[ints("s5", 1, 2, 2, 8, 8), ints("s4", 1, 4, 8, 8)])


@case()
def attention_of_onnxruntime():
    attention = ms("Attention", "x w b", "y", num_heads=2)
    return model(attention, inputs=[("x", [2, 5, 8])], outputs=[("y", None)],
                 weights=[floats("w", 8, 24), floats("b", 24)])  # fmt: skip


@case("E4D002", refused="NoSuchThing")
def operator_that_microsoft_does_not_have():
    return model(ms("NoSuchThing", "x", "y"))


@case("E4D001")
def attention_that_keeps_keys_and_values_together():
    """[2, batch, heads, sequence, size of a head]"""
    attention = ms("Attention", "x w b", "y kept", num_heads=2)
    return model(attention, inputs=[("x", [2, 5, 8])], outputs=[("y", None), ("kept", None)],
                 weights=[floats("w", 8, 24), floats("b", 24)])  # fmt: skip


@case()
def attention_with_many_heads():
    attention = ms("MultiHeadAttention", "q k k", "y", num_heads=2)
    return model(attention, inputs=[("q", [2, 5, 8]), ("k", [2, 6, 8])], outputs=[("y", None)])


@case("E4D002")
def operator_of_microsoft_without_a_rule():
    """edge4d has no rule for this operator, and says so."""
    return model(ms("CDist", "x x", "y", metric="sqeuclidean"), inputs=[("x", [3, 4])], outputs=[("y", None)])


def _bytes(*shape):
    return tensor("w", np.ones(shape), np.uint8)


@case()
def products_of_dynamic_quantization():
    nodes = (ms("DynamicQuantizeMatMul", "x w s z", "d"), node("DynamicQuantizeLinear", "d", "q t u"),
             ms("MatMulIntegerToFloat", "q w t s u z", "y"))  # fmt: skip
    weights = [_bytes(8, 8), tensor("s", 0.1, np.float32), tensor("z", 1, np.uint8)]
    return model(*nodes, inputs=[("x", [2, 8])], outputs=[("y", None)], weights=weights)


@case()
def recurrence_of_dynamic_quantization():
    lstm = ms("DynamicQuantizeLSTM", "x w r", "y h c", hidden_size=4)
    lstm.input[:] = ["x", "w", "r", *[""] * 5, "s", "z", "s", "z"]
    weights = [_bytes(1, 8, 16), tensor("r", np.ones((1, 4, 16)), np.uint8), tensor("s", [0.1], np.float32),
               tensor("z", [1], np.uint8)]  # fmt: skip
    return model(lstm, inputs=[("x", [5, 2, 8])], outputs=[("y", None), ("h", None), ("c", None)], weights=weights)


@case(refused="QLinearReduceMean")
def quantized_mean():
    mean = ms("QLinearReduceMean", "x s z t u", "y", axes=[2, 3], keepdims=0)
    return model(mean, inputs=[(*X, U8)], outputs=[("y", None, U8)], weights=_scales())


@case()
def quantized_choice():
    choice = ms("QLinearWhere", "c x s z x s z t u", "y")
    inputs = [(*X, U8), ("c", X[1], TensorProto.BOOL)]
    return model(choice, inputs=inputs, outputs=[("y", None, U8)], weights=_scales())
