"""Lengths of the 1-D values in which a graph computes its shapes: how many axes a Reshape gives is such a length.

ONNX infers them itself; these rules go on where it stopped at an operator that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edge4d.validators.inventory import normal_domain
from edge4d.validators.values import Value, numbers_of

if TYPE_CHECKING:
    import onnx

__all__ = ["infer_length"]

_TOO_MANY = 2**31  # beyond which a length is a mistake, or made to be one


def infer_length(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    """The number of elements of the node's 1-D result; None where it does not follow.

    Args:
        node: an operator whose result has one axis.
        inputs: what is known about its inputs.
    """
    rule = None if normal_domain(node.domain) else _RULES.get(node.op_type)
    length = None if rule is None or not inputs else rule(node, inputs)
    return length if length is not None and 0 <= length < _TOO_MANY else None


def _of_first(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    return inputs[0].length


def _of_longest(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    """A scalar is stretched, and so is a list of one."""
    lengths = [1 if value.rank == 0 else value.length for value in inputs]
    known = [length for length in lengths if length is not None]
    return max(known) if len(known) == len(lengths) and 0 not in known else None


def _of_shape(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    rank = inputs[0].rank
    ends = {attribute.name: int(attribute.i) for attribute in node.attribute}
    return None if rank is None else len(range(rank)[ends.get("start", 0) : ends.get("end", rank)])


def _of_concat(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    lengths = [value.length for value in inputs]
    known = [length for length in lengths if length is not None]
    return sum(known) if len(known) == len(lengths) else None


def _of_gather(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    return inputs[1].length if inputs[0].rank == 1 and len(inputs) > 1 else None


def _of_unsqueeze(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    return 1 if inputs[0].rank == 0 else None


def _of_slice(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    """Of a list by constant ends."""
    length = inputs[0].length
    given = [numbers_of(inputs, i) for i in (1, 2)]
    if length is None or any(len(numbers) != 1 for numbers in given):
        return None
    steps = numbers_of(inputs, 4) if len(inputs) > 4 and inputs[4].name else [1]
    if len(steps) != 1 or not steps[0]:
        return None
    return len(range(length)[int(given[0][0]) : int(given[1][0]) : int(steps[0])])


_RULES: dict[str, Callable[[onnx.NodeProto, Sequence[Value]], int | None]] = {
    "Shape": _of_shape,
    "Concat": _of_concat,
    "Gather": _of_gather,
    "Unsqueeze": _of_unsqueeze,
    "Slice": _of_slice,
    "Where": _of_longest,
}
for _op in ("Identity", "Cast", "Neg", "Abs", "Floor", "Ceil", "Round", "Sqrt", "ScatterElements", "ScatterND"):
    _RULES[_op] = _of_first
for _op in ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "Pow", "Equal", "Greater", "Less"):
    _RULES[_op] = _of_longest
