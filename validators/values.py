"""What is known about one value of a graph, read from ONNX types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from edge4d.validators.findings import Shape

__all__ = [
    "Value",
    "array_of",
    "element_type",
    "fill_sizes",
    "forget_long_names",
    "numbers_of",
    "ranked_type",
    "rank_of",
    "shape_of",
    "type_of_initializer",
]

_NUMERIC = frozenset({1, 6, 7, 10, 11})  # ONNX's numbers of float32, int32, int64, float16 and float64
_LONGEST_SIZE = 200  # characters of a size's name
_MADE_UP = re.compile(r"unk__\d+")  # what ONNX shape inference calls a size that it cannot tell


@dataclass(frozen=True)
class Value:
    """A value by name.

    Attributes:
        name: in its graph; empty for an optional input or output that is not there.
        type: the ONNX type, with as much of the shape as is known; None when not even the kind is.
        data: the numbers, for a small constant.
    """

    name: str
    type: onnx.TypeProto | None = None
    data: onnx.TensorProto | None = None

    @cached_property
    def shape(self) -> Shape | None:
        """Sizes; of the elements for a sequence, an optional or a map. None when the rank is unknown."""
        return shape_of(self.type)

    @property
    def rank(self) -> int | None:
        """Number of axes, None as in `shape`."""
        return None if self.shape is None else len(self.shape)

    @property
    def settled(self) -> bool:
        """Whether there is nothing left to find out about the rank."""
        return self.shape is not None

    @property
    def length(self) -> int | None:
        """Number of elements of a 1-D value such as a list of axes, None when it is not known."""
        if self.shape is None or len(self.shape) != 1:
            return None
        return self.shape[0] if isinstance(self.shape[0], int) else None


def _tensor_type(type_proto: onnx.TypeProto | None) -> onnx.TypeProto.Tensor | None:
    """The tensor inside any number of sequences, optionals and maps."""
    while type_proto is not None:
        kind = type_proto.WhichOneof("value")
        if kind == "tensor_type":
            return type_proto.tensor_type
        if kind == "sparse_tensor_type":
            return type_proto.sparse_tensor_type  # the same fields
        if kind == "map_type":
            type_proto = type_proto.map_type.value_type
        elif kind in ("sequence_type", "optional_type"):
            type_proto = getattr(type_proto, kind).elem_type
        else:
            return None
    return None


def shape_of(type_proto: onnx.TypeProto | None) -> Shape | None:
    """The sizes that a type states; None when it states none."""
    tensor = _tensor_type(type_proto)
    if tensor is None or not tensor.HasField("shape"):
        return None
    return tuple(_size(dim) for dim in tensor.shape.dim)


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        # Some exporters write an unknown size as -1 or 0 times a name; a negative size tells nothing.
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    name = str(dim.dim_param)
    return None if not name or _MADE_UP.fullmatch(name) else name


def forget_long_names(type_proto: onnx.TypeProto) -> None:
    """Make sizes of very long names unknown ones: inference would write the name into every value that has the size."""
    tensor = _tensor_type(type_proto)
    for dim in tensor.shape.dim if tensor is not None and tensor.HasField("shape") else ():
        if len(dim.dim_param) > _LONGEST_SIZE:
            dim.Clear()


def rank_of(type_proto: onnx.TypeProto | None) -> int | None:
    """The number of axes that a type states; None when it states none."""
    shape = shape_of(type_proto)
    return None if shape is None else len(shape)


def element_type(type_proto: onnx.TypeProto | None) -> int:
    """ONNX's number of the element type; that of float32 when it is not known."""
    tensor = _tensor_type(type_proto)
    return 1 if tensor is None else int(tensor.elem_type) or 1


def ranked_type(rank: int, elem: int, length: int | None = None) -> onnx.TypeProto:
    """A tensor of that many axes of unknown size; of one axis its size may be known."""
    import onnx

    made: onnx.TypeProto = onnx.helper.make_tensor_type_proto(elem, [length] if rank == 1 else [None] * rank)
    return made


def numbers_of(inputs: Sequence[Value], i: int) -> list[float]:
    """The numbers of a small constant input, none when it is missing or not constant."""
    array = array_of(inputs[i].data) if i < len(inputs) else None
    return [] if array is None else [float(number) for number in array.ravel()]


def array_of(data: onnx.TensorProto | None) -> np.ndarray[Any, Any] | None:
    """The numbers of a tensor; None where there are none, or bytes that do not fit what the tensor says of itself.

    Numbers in another file are not read.
    """
    from onnx import numpy_helper

    if data is None or data.data_type not in _NUMERIC or data.data_location == data.EXTERNAL:
        return None
    try:
        array: np.ndarray[Any, Any] = numpy_helper.to_array(data)
    except (ValueError, TypeError):
        return None
    return array


def fill_sizes(target: onnx.GraphProto, source: onnx.GraphProto) -> bool:
    """Take over the sizes that another copy of a graph states where this one states the same rank but not the size.

    Args:
        target: is changed, with the graphs within it.
        source: the same graph with more sizes.

    Returns:
        Whether there were any.
    """
    stated = {entry.name: entry.type for entry in (*source.value_info, *source.output)}
    filled = False
    for entry in (*target.value_info, *target.output):
        if (other := stated.get(entry.name)) is None or entry.type.WhichOneof("value") != "tensor_type":
            continue
        mine, theirs = shape_of(entry.type), shape_of(other)
        if mine is None or theirs is None or len(mine) != len(theirs):
            continue
        for dim, size, better in zip(entry.type.tensor_type.shape.dim, mine, theirs, strict=True):
            if size is None and isinstance(better, int):
                dim.dim_value = better
                filled = True
    for node, other_node in zip(target.node, source.node, strict=True):
        for attribute, other_attribute in zip(node.attribute, other_node.attribute, strict=True):
            pairs = [(attribute.g, other_attribute.g)] if attribute.HasField("g") else []
            for graph, other_graph in (*pairs, *zip(attribute.graphs, other_attribute.graphs, strict=True)):
                filled |= fill_sizes(graph, other_graph)
    return filled


def type_of_initializer(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    """Types of a graph's weights by name; they need no inference."""
    from onnx import helper

    found = {t.name: helper.make_tensor_type_proto(t.data_type, list(t.dims)) for t in graph.initializer}
    for sparse in graph.sparse_initializer:
        found[sparse.values.name] = helper.make_sparse_tensor_type_proto(sparse.values.data_type, list(sparse.dims))
    return found
