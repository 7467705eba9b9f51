"""Signed 8-bit activations of an OpenVINO model, made unsigned: the same numbers, which its CPU computes rightly.

OpenVINO 2026.4 multiplies signed activations wrongly where a Concat joins them before a convolution: a value is off by
up to half of its range, without a word. Shifted by 128, into the bytes that it handles best, they come out right, and
what a value stands for, (q + 128 - 128) · scale, does not change.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["unsigned"]


def unsigned(model: Any) -> int:
    """Rewrite, in place, what the ONNX frontend made of QuantizeLinear and DequantizeLinear pairs of int8.

    Args:
        model: an `openvino.Model`.

    Returns:
        How many pairs were rewritten; those of another form stay as they are.
    """
    import numpy as np

    ops: Any = importlib.import_module("openvino.opset13")
    bottom, top, shift = (ops.constant(np.float32(number)) for number in (0, 255, 128))
    done = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize" or not _signed(node):
            continue
        narrow = _users(node)
        wide = [user for convert in narrow for user in _users(convert)]
        if not wide or not all(_converts(n, "i8") for n in narrow) or not all(_converts(n, "f32") for n in wide):
            continue
        value, low, high = (node.input_value(i) for i in range(3))
        shifted = ops.fake_quantize(value, low, high, bottom, top, 256)
        as_bytes = ops.convert(shifted, "u8")
        as_bytes.set_friendly_name(narrow[0].get_friendly_name())
        for convert in wide:
            back = ops.subtract(ops.convert(as_bytes, "f32"), shift)
            zeroed = [user for user in _users(convert) if user.get_type_name() == "Subtract" and _is_zero(user)]
            for user in zeroed:
                user.output(0).replace(back.output(0))
            convert.output(0).replace(back.output(0))
        done += 1
    return done


def _users(node: Any) -> list[Any]:
    return [target.get_node() for target in node.output(0).get_target_inputs()]


def _signed(node: Any) -> bool:
    ends = [node.input_value(i).get_node() for i in (3, 4)]
    if any(end.get_type_name() != "Constant" for end in ends):
        return False
    return [end.get_data().reshape(-1).tolist() for end in ends] == [[-128.0], [127.0]]


def _converts(node: Any, kind: str) -> bool:
    return node.get_type_name() == "Convert" and node.get_attributes()["destination_type"] == kind


def _is_zero(subtract: Any) -> bool:
    """Whether the second operand of a Subtract, a constant or one converted, is 0."""
    node = subtract.input_value(1).get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and not node.get_data().any()
