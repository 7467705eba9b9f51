"""Operators that work on three spatial axes, recognised by their attributes and by the ranks of what they work on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edge4d.validators.inventory import normal_domain
from edge4d.validators.values import Value, numbers_of

if TYPE_CHECKING:
    import onnx

__all__ = ["three_axis_reason"]

# What else an operator's name may carry in the domains of runtimes: FusedConv, NhwcMaxPool, QLinearGlobalAveragePool.
_BASE = re.compile(
    r"(?:Fused|Nhwc|Nchw|QLinear|Dynamic|Quantized|Int8|QOrdered)*"
    r"(Conv|ConvTranspose|ConvInteger|MaxPool|AveragePool|LpPool|MaxUnpool|GlobalMaxPool|GlobalAveragePool|GlobalLpPool"
    r"|Resize|Upsample|GridSample|AffineGrid|InstanceNormalization|GroupNormalization|GroupNorm|DeformConv|Col2Im"
    r"|MaxpoolWithMask|MaxRoiPool|RoiAlign)(?:WithDynamicPads|Integer|Add|Relu)*"
)
# What operators of unknown domains say of themselves: max_pool3d, grid_sampler_3d, RoIAlign3D, trilinear_interpolate.
_SAYS_3D = re.compile(
    r"(?:conv|pool|norm|resize|upsampl|interp|grid_?sampl|affine_?grid|roi_?align|im2col|col2im|unfold)[a-z_]*3d"
    r"|trilinear",
    re.IGNORECASE,
)

# Attributes that list one number an axis, and for ``pads`` two.
_PER_AXIS = {
    "kernel_shape": 1,
    "kernel_size": 1,
    "strides": 1,
    "dilations": 1,
    "output_shape": 1,
    "output_padding": 1,
    "output_pads": 1,
    "pooled_shape": 1,
    "pads": 2,
}
_WITH_WINDOW = frozenset(
    [
        "Conv",
        "ConvTranspose",
        "ConvInteger",
        "MaxPool",
        "MaxpoolWithMask",
        "AveragePool",
        "LpPool",
        "MaxUnpool",
        "DeformConv",
        "Col2Im",
        "MaxRoiPool",
    ]
)

# Which inputs carry N C and the spatial axes: for the others of _BASE the first.
_RANKED_INPUTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "ConvInteger": (0, 1),
    "DeformConv": (0, 1, 2),
    "AffineGrid": (),
    "Col2Im": (),
    "GridSample": (0, 1),
}
_LENGTHS: Mapping[str, tuple[tuple[int, int, str], ...]] = {
    # (input, length from which on there are three axes, what it lists)
    "Col2Im": ((1, 3, "image_shape"), (2, 3, "block_shape")),
    "AffineGrid": ((1, 5, "size"),),
}


def three_axis_reason(node: onnx.NodeProto, inputs: Sequence[Value]) -> str | None:
    """Why an operator works on three (or more) spatial axes, e.g. ``kernel_shape has 3 entries``; None if it does not.

    Args:
        node: with the attributes of its call.
        inputs: what is known about its inputs.
    """
    name = _own_name(node)
    if _SAYS_3D.search(name):
        return f"{name} is a 3-D operator"
    match = _BASE.fullmatch(node.op_type)
    if match is None and not normal_domain(node.domain):
        return None
    base = match[1] if match else ""
    # An operator that nobody knows here has a window if it says how large that is.
    if base in _WITH_WINDOW or (not base and any(a.name in ("kernel_shape", "kernel_size") for a in node.attribute)):
        lengths = {attribute.name: len(attribute.ints) for attribute in node.attribute}
        for name, per_axis in _PER_AXIS.items():
            if lengths.get(name, 0) >= 3 * per_axis:
                return f"{name} has {lengths[name]} entries, expected at most {2 * per_axis}"
    for i in _ranked_inputs(node.op_type, base) if base else ():
        value = inputs[i] if i < len(inputs) else None
        if value is not None and value.rank is not None and value.rank >= 5:
            return f"input {value.name!r} has {value.rank} axes, expected at most 4"
    for i, limit, what in _LENGTHS.get(base, ()):
        length = inputs[i].length if i < len(inputs) else None
        if length is not None and length >= limit:
            return f"{what} has {length} entries, expected at most {limit - 1}"
    return _resized_axes(node, inputs) if base in ("Resize", "Upsample") else None


def _own_name(node: onnx.NodeProto) -> str:
    """The operator; of torch's fallback, an ``ATen`` node, what it falls back to."""
    operator = next((a.s.decode("utf-8", "replace") for a in node.attribute if a.name == "operator"), "")
    return operator if node.op_type == "ATen" and operator else node.op_type


def _ranked_inputs(op: str, base: str) -> tuple[int, ...]:
    if op.startswith("QLinear") and base == "Conv":
        return (0, 3)  # x, its scale and zero point, then w
    return _RANKED_INPUTS.get(base, (0,))


def _resized_axes(node: onnx.NodeProto, inputs: Sequence[Value]) -> str | None:
    """A Resize of rank 4 may still change three axes at once, though none of its values has rank 5."""
    legacy = node.op_type == "Upsample" or len(inputs) == 2  # x and scales; since opset 11 x, roi, scales, sizes
    scales = numbers_of(inputs, 1 if legacy else 2)
    scales = scales or [factor for a in node.attribute if a.name == "scales" for factor in a.floats]
    changed = sum(scale != 1 for scale in scales)
    shape, sizes = (inputs[0].shape if inputs else None), numbers_of(inputs, 3)
    named = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
    if named is not None and len(named) == 3 and not scales and not sizes:
        return "it changes the size of 3 axes, expected at most 2"
    if shape is not None and sizes:
        axes = list(range(len(shape))) if named is None else named
        for axis, size in zip(axes, sizes, strict=False):
            before = shape[axis] if -len(shape) <= axis < len(shape) else None
            changed += isinstance(before, int) and before != size
    return f"it changes the size of {changed} axes, expected at most 2" if changed >= 3 else None
