"""Integers that a graph computes from constants and from shapes that are known: the numbers of axes and of sizes.

Small lists only, and nothing from an input's numbers: what is known here holds for every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge4d.validators.inventory import normal_domain
from edge4d.validators.values import Value, array_of

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

__all__ = ["fold"]

_MOST = 64  # numbers; a shape has a handful
_INTEGERS = frozenset({6, 7})  # ONNX's numbers of int32 and int64


def fold(node: onnx.NodeProto, inputs: Sequence[Value]) -> onnx.TensorProto | None:
    """The integers that a node gives, none or one axis of them; None where they are not known.

    Args:
        node: any node.
        inputs: what is known about its inputs.
    """
    rule = _RULES.get(node.op_type)
    if rule is None or not inputs or normal_domain(node.domain) or len(node.output) != 1:
        return None
    from onnx import numpy_helper

    if node.op_type in ("Shape", "Size"):
        result = _of_shape(node, inputs[0])
    else:
        arrays = [_array(value) for value in inputs]
        known = [array for array in arrays if array is not None]
        if len(known) < len(arrays):
            return None
        attributes = {a.name: a for a in node.attribute}
        try:
            result = rule(known, attributes)
        except (ArithmeticError, IndexError, ValueError):  # the node itself is not valid
            return None
    if result is None or result.ndim > 1 or result.size > _MOST or result.dtype.kind != "i":
        return None
    folded: onnx.TensorProto = numpy_helper.from_array(result)
    return folded


def _array(value: Value) -> Array | None:
    data = value.data
    if data is None or data.data_type not in _INTEGERS or len(data.dims) > 1 or sum(data.dims) > _MOST:
        return None
    return array_of(data)


def _of_shape(node: onnx.NodeProto, value: Value) -> Array | None:
    import numpy as np

    shape = value.shape
    if shape is None or value.type is None or not value.type.HasField("tensor_type"):
        return None
    ends = {attribute.name: int(attribute.i) for attribute in node.attribute}
    shape = shape[ends.get("start", 0) : ends.get("end", len(shape))]
    sizes = [size for size in shape if isinstance(size, int)]
    if len(sizes) < len(shape) or len(shape) > _MOST:
        return None
    return np.array(sizes, np.int64) if node.op_type == "Shape" else _integer(_product(sizes))


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total if total < 2**62 else -1


def _integer(number: int) -> Array | None:
    import numpy as np

    return np.array(number, np.int64) if number >= 0 else None


_Rule = Callable[[list["Array"], Mapping[str, Any]], "Array | None"]


def _gather(arrays: list[Array], attributes: Mapping[str, Any]) -> Array | None:
    data, indices = arrays
    return data[indices] if data.ndim == 1 else None


def _concat(arrays: list[Array], attributes: Mapping[str, Any]) -> Array | None:
    import numpy as np

    return np.concatenate(arrays) if sum(array.size for array in arrays) <= _MOST else None


def _slice(arrays: list[Array], attributes: Mapping[str, Any]) -> Array | None:
    data, *rest = arrays
    if data.ndim != 1 or len(rest) < 2 or any(array.size != 1 for array in rest):
        return None
    start, end, axis, step, *_ = [int(array.ravel()[0]) for array in rest] + [0, 1][len(rest) - 2 :]
    return data[start:end:step] if axis in (0, -1) else None


def _constant_of_shape(arrays: list[Array], attributes: Mapping[str, Any]) -> Array | None:
    import numpy as np

    (shape,) = arrays
    if "value" not in attributes or shape.size != 1 or not 0 <= int(shape.ravel()[0]) <= _MOST:
        return None
    value = array_of(attributes["value"].t)
    return None if value is None else np.full(int(shape.ravel()[0]), value.ravel()[0], value.dtype)


def _range(arrays: list[Array], attributes: Mapping[str, Any]) -> Array | None:
    import numpy as np

    start, stop, step = (int(array.ravel()[0]) for array in arrays)
    numbers = range(start, stop, step)
    return np.array(numbers, arrays[0].dtype) if len(numbers) <= _MOST else None


def _squeeze(arrays: list[Array], attributes: Mapping[str, Any]) -> Array | None:
    return arrays[0].reshape(()) if arrays[0].size == 1 else None


def _unsqueeze(arrays: list[Array], attributes: Mapping[str, Any]) -> Array | None:
    return arrays[0].reshape(1) if arrays[0].ndim == 0 else None


def _cast(arrays: list[Array], attributes: Mapping[str, Any]) -> Array | None:
    import numpy as np

    to = attributes["to"].i if "to" in attributes else 0
    return arrays[0].astype(np.int64 if to == 7 else np.int32) if to in _INTEGERS else None


def _elementwise(name: str, inputs: int = 2) -> _Rule:
    def apply(arrays: list[Array], attributes: Mapping[str, Any]) -> Array | None:
        import numpy as np

        if len(arrays) != inputs:  # numpy would write into a third one
            return None
        with np.errstate(all="ignore"):
            result: Array = getattr(np, name)(*arrays)
        return result

    return apply


def _divide(arrays: list[Array], attributes: Mapping[str, Any]) -> Array | None:
    """Towards zero, which numpy's is not for numbers below it."""
    import numpy as np

    return None if (arrays[0] < 0).any() or (arrays[1] <= 0).any() else np.asarray(arrays[0] // arrays[1])


def _modulo(arrays: list[Array], attributes: Mapping[str, Any]) -> Array | None:
    import numpy as np

    return None if (arrays[0] < 0).any() or (arrays[1] <= 0).any() else np.asarray(arrays[0] % arrays[1])


def _reshape(arrays: list[Array], attributes: Mapping[str, Any]) -> Array | None:
    """To a list or a scalar; a size of -1 is the only one that a list of known length needs."""
    data, shape = arrays
    sizes = [int(size) for size in shape.ravel()]
    return data.reshape(sizes) if len(sizes) < 2 and sizes not in ([0], [data.size + 1]) else None


_RULES: dict[str, _Rule] = {
    "Shape": lambda arrays, attributes: None,
    "Size": lambda arrays, attributes: None,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Cast": _cast,
    "Identity": lambda arrays, attributes: arrays[0],
    "Add": _elementwise("add"),
    "Sub": _elementwise("subtract"),
    "Mul": _elementwise("multiply"),
    "Div": _divide,
    "Mod": _modulo,
    "Min": _elementwise("minimum"),
    "Max": _elementwise("maximum"),
    "Reshape": _reshape,
    "Neg": _elementwise("negative", 1),
    "Abs": _elementwise("abs", 1),
}
