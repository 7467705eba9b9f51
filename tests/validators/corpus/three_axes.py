"""Operators with spatial axes, each with two of them and with three."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from tests.validators.corpus.case import add, case
from tests.validators.onnx_models import floats, ints, model, node

U8, I8, I64 = TensorProto.UINT8, TensorProto.INT8, TensorProto.INT64


def tensor(name, array, dtype):
    return numpy_helper.from_array(np.asarray(array, dtype), name)


def _x(axes, elem=1, channels=4):
    return ("x", [1, channels, *[6] * axes], elem)


def _conv(axes):
    return model(node("Conv", "x w b", "y", pads=[1] * 2 * axes), inputs=[_x(axes)], outputs=[("y", None)],
                 weights=[floats("w", 2, 4, *[3] * axes), floats("b", 2)])  # fmt: skip


def _depthwise(axes):
    return model(node("Conv", "x w", "y", group=4, strides=[2] * axes), inputs=[_x(axes)], outputs=[("y", None)],
                 weights=[floats("w", 4, 1, *[3] * axes)])  # fmt: skip


def _conv_transpose(axes):
    return model(node("ConvTranspose", "x w", "y", strides=[2] * axes, output_padding=[1] * axes), inputs=[_x(axes)],
                 outputs=[("y", None)], weights=[floats("w", 4, 2, *[3] * axes)])  # fmt: skip


def _conv_integer(axes):
    return model(node("ConvInteger", "x w z", "y"), inputs=[_x(axes, U8)], outputs=[("y", None, 6)],
                 weights=[tensor("w", np.ones((2, 4, *[3] * axes)), np.uint8), tensor("z", 1, np.uint8)])  # fmt: skip


def quantized_weights(axes, w=(2, 4)):
    return [
        tensor("s", 0.1, np.float32), tensor("z", 1, np.uint8), tensor("w", np.ones((*w, *[3] * axes)), np.uint8),
        tensor("ws", 0.1, np.float32), tensor("wz", 1, np.uint8), tensor("ys", 0.1, np.float32),
        tensor("yz", 1, np.uint8),
    ]  # fmt: skip


def _qlinear_conv(axes):
    return model(node("QLinearConv", "x s z w ws wz ys yz", "y"), inputs=[_x(axes, U8)], outputs=[("y", None, U8)],
                 weights=quantized_weights(axes))  # fmt: skip


def _pool(op):
    return lambda axes: model(
        node(op, "x", "y", kernel_shape=[2] * axes, strides=[2] * axes), inputs=[_x(axes)], outputs=[("y", None)]
    )


def _global(op):
    return lambda axes: model(node(op, "x", "y"), inputs=[_x(axes)], outputs=[("y", None)])


def _max_pool_with_indices(axes):
    return model(node("MaxPool", "x", "p i", kernel_shape=[2] * axes, strides=[2] * axes),
                 node("MaxUnpool", "p i", "y", kernel_shape=[2] * axes, strides=[2] * axes),
                 inputs=[_x(axes)], outputs=[("y", None)])  # fmt: skip


def _resize(axes):
    resize = node("Resize", "x  scales", "y", mode="nearest")
    resize.input[:] = ["x", "", "scales"]
    return model(resize, inputs=[_x(axes)], outputs=[("y", None)],
                 weights=[tensor("scales", [1, 1, *[2] * axes], np.float32)])  # fmt: skip


def _resize_to_sizes(axes):
    resize = node("Resize", "x  sizes", "y", mode="linear")
    resize.input[:] = ["x", "", "", "sizes"]
    return model(resize, inputs=[_x(axes)], outputs=[("y", None)], weights=[ints("sizes", 1, 4, *[9] * axes)])


def _upsample(axes):
    return model(node("Upsample", "x scales", "y"), inputs=[_x(axes)], outputs=[("y", None)], opset=9,
                 weights=[tensor("scales", [1, 1, *[2] * axes], np.float32)])  # fmt: skip


def _grid_sample(axes):
    grid = ("g", [1, *[3] * axes, axes])
    return model(node("GridSample", "x g", "y"), inputs=[_x(axes), grid], outputs=[("y", None)], opset=20)


def _affine_grid(axes):
    return model(node("AffineGrid", "t size", "y"), inputs=[("t", [1, axes, axes + 1])], outputs=[("y", None)],
                 weights=[ints("size", 1, 4, *[6] * axes)], opset=20)  # fmt: skip


def _instance_norm(axes):
    return model(node("InstanceNormalization", "x s b", "y"), inputs=[_x(axes)], outputs=[("y", None)],
                 weights=[floats("s", 4), floats("b", 4)])  # fmt: skip


def _group_norm(axes):
    return model(node("GroupNormalization", "x s b", "y", num_groups=2), inputs=[_x(axes)], outputs=[("y", None)],
                 weights=[floats("s", 4), floats("b", 4)], opset=21)  # fmt: skip


def _col2im(axes):
    return model(node("Col2Im", "c image block", "y"), inputs=[("c", [1, 2 * 2**axes, 5**axes])], outputs=[("y", None)],
                 weights=[ints("image", *[6] * axes), ints("block", *[2] * axes)])  # fmt: skip


def _deform_conv(axes):
    offset = ("o", [1, axes * 3**axes, *[4] * axes])
    return model(node("DeformConv", "x w o", "y"), inputs=[_x(axes), offset], outputs=[("y", None)], opset=19,
                 weights=[floats("w", 2, 4, *[3] * axes)])  # fmt: skip


_BY_AXES = {
    "conv": _conv,
    "depthwise_conv": _depthwise,
    "conv_transpose": _conv_transpose,
    "conv_integer": _conv_integer,
    "qlinear_conv": _qlinear_conv,
    "max_pool": _pool("MaxPool"),
    "average_pool": _pool("AveragePool"),
    "lp_pool": _pool("LpPool"),
    "global_max_pool": _global("GlobalMaxPool"),
    "global_average_pool": _global("GlobalAveragePool"),
    "global_lp_pool": _global("GlobalLpPool"),
    "max_unpool": _max_pool_with_indices,
    "resize": _resize,
    "resize_to_sizes": _resize_to_sizes,
    "upsample": _upsample,
    "grid_sample": _grid_sample,
    "affine_grid": _affine_grid,
    "instance_norm": _instance_norm,
    "group_norm": _group_norm,
    "col2im": _col2im,
    "deform_conv": _deform_conv,
}
# What ONNX Runtime's CPU provider has for two axes only, as it says it.
_REFUSED = {"deform_conv_3d": "must be 4D"}
for _name, _make in _BY_AXES.items():
    add(f"{_name}_2d", lambda make=_make: make(2), refused=_REFUSED.get(f"{_name}_2d"))
    add(f"{_name}_3d", lambda make=_make: make(3), "E4D001", "E4D003", refused=_REFUSED.get(f"{_name}_3d"))


@case()
def conv_1d():
    return _conv(1)


@case()
def roi_align():
    rois, batch = floats("rois", 2, 4), ints("batch", 0, 0)
    return model(node("RoiAlign", "x rois batch", "y", output_height=2, output_width=2), inputs=[_x(2)],
                 outputs=[("y", None)], weights=[rois, batch])  # fmt: skip


@case()
def max_roi_pool():
    return model(node("MaxRoiPool", "x rois", "y", pooled_shape=[2, 2]), inputs=[_x(2)], outputs=[("y", None)],
                 weights=[floats("rois", 2, 5)])  # fmt: skip


@case()
def batch_norm_lrn_and_softmax():
    names = ("s", "b", "m", "v")
    nodes = (
        node("BatchNormalization", "x s b m v", "n"), node("LRN", "n", "l", size=3), node("Softmax", "l", "y", axis=1)
    )  # fmt: skip
    return model(*nodes, inputs=[_x(2)], outputs=[("y", None)], weights=[floats(n, 4) for n in names])


@case("E4D001")
def batch_norm_of_rank_5():
    """No operator on three axes, only a value of five."""
    return model(node("BatchNormalization", "x s b m v", "y"), inputs=[_x(3)], outputs=[("y", None)],
                 weights=[floats(n, 4) for n in ("s", "b", "m", "v")])  # fmt: skip


@case("E4D003")
def upsample_of_channels_too():
    return model(node("Upsample", "x scales", "y"), outputs=[("y", None)], opset=9,
                 weights=[tensor("scales", [1, 2, 2, 2], np.float32)])  # fmt: skip


@case("E4D003")
def resize_to_sizes_of_channels_too():
    resize = node("Resize", "x  sizes", "y", mode="nearest")
    resize.input[:] = ["x", "", "", "sizes"]
    return model(resize, outputs=[("y", None)], weights=[ints("sizes", 1, 8, 16, 16)])


@case()
def resize_by_one_axis():
    resize = node("Resize", "x  scales", "y", axes=[2], mode="nearest")
    resize.input[:] = ["x", "", "scales"]
    return model(resize, outputs=[("y", None)], weights=[tensor("scales", [2], np.float32)])


@case("E4D001", "E4D003")
def conv_of_four_axes():
    return model(node("Conv", "x w", "y"), inputs=[("x", [1, 2, 3, 3, 3, 3])], outputs=[("y", None)],
                 weights=[floats("w", 2, 2, 1, 1, 1, 1)])  # fmt: skip


@case("E4D002", "E4D003", refused="vendor")
def conv_with_three_strides_of_unknown_rank():
    nodes = (node("Foo", "x", "a", domain="vendor"), node("Foo", "x", "w", domain="vendor"),
             node("Conv", "a w", "y", strides=[1, 2, 2]))  # fmt: skip
    return model(*nodes)


@case("E4D002", "E4D003", refused="vendor")
def operator_of_a_vendor_that_says_3d():
    return model(node("Conv3D", "x", "y", domain="vendor"))


for _op in ("grid_sampler_3d", "RoIAlign3D", "TrilinearInterpolation", "Col2Im3d", "deform_conv3d"):
    add(f"vendor_{_op}", lambda op=_op: model(node(op, "x", "y", domain="vendor")), "E4D002", "E4D003",
        refused="vendor")  # fmt: skip


@case("E4D002", "E4D003", refused="vendor")
def operator_of_a_vendor_with_a_window_of_three_axes():
    return model(node("Shift", "x", "y", domain="vendor", kernel_size=[3, 3, 3]))


@case("E4D003")
def resize_of_three_axes_to_computed_sizes():
    resize = node("Resize", "x  sizes", "y", mode="nearest", axes=[1, 2, 3])
    resize.input[:] = ["x", "", "", "sizes"]
    return model(resize, inputs=[("x", [1, 4, 8, 8]), ("sizes", [3], I64)], outputs=[("y", None)])


@case("E4D002", "E4D003", refused="ATen")
def aten_fallback():
    return model(node("ATen", "x", "y", domain="org.pytorch.aten", operator="max_pool3d"))


@case("E4D002", refused="vendor")
def operator_of_a_vendor_that_says_2d():
    return model(node("Conv2D", "x", "y", domain="vendor"))


@case()
def temporal_convolution_within_rank_4():
    """A (k, 1) kernel over [n, c, t, h*w]: one real axis."""
    return model(node("Conv", "x w", "y", pads=[1, 0, 1, 0]), inputs=[("x", [1, 4, 8, 36])], outputs=[("y", None)],
                 weights=[floats("w", 2, 4, 3, 1)])  # fmt: skip
