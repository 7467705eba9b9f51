"""An `OnnxGraph` on disk: one file, or with external data where the protobuf would pass 2 GB, and its recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge4d.files import staged
from edge4d.recipe import recipe_bytes, recipe_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edge4d.exporters.onnx import OnnxGraph

__all__ = ["EXTERNAL_ABOVE", "data_path", "write_artifact", "write_model"]

PACKAGES = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxsim", "numpy")
"""Distributions whose versions shape the graph."""

EXTERNAL_ABOVE = 2**31 - 2**27
"""Bytes of weights above which they lie in a file beside the model; protobuf ends at 2^31."""

_ALIGN = 4096
"""Weights start on pages, so that a runtime can map them."""


def data_path(path: Path) -> Path:
    """Where the external weights of a model lie."""
    return path.with_name(path.name + ".data")


def write_artifact(
    graph: OnnxGraph,
    path: Path,
    *,
    sources: Sequence[Path] = (),
    options: Mapping[str, Any],
    external_above: int = EXTERNAL_ABOVE,
    packages: Sequence[str] = (),
) -> None:
    """Write the model, its external data if it is large, and its recipe: all of them or none.

    Args:
        graph: the model; not changed.
        path: the ``.onnx`` to write.
        sources: the files it was made from.
        options: every option it was made with, JSON-ready.
        external_above: bytes of weights above which they are written beside the model.
        packages: distributions that shaped this graph besides the usual ones.

    Raises:
        ExportError: the folder cannot be written or the disk is full.
    """
    external = graph.weight_bytes > external_above
    targets = [path, recipe_path(path), *([data_path(path)] if external else [])]
    with staged(*targets) as places:
        write_model(graph, places[0], external_above=external_above)
        files = {targets[i].name: places[i] for i in (0, 2) if i < len(targets)}
        places[1].write_bytes(recipe_bytes("export", sources, options, files, (*PACKAGES, *packages)))


def write_model(graph: OnnxGraph, path: Path, *, external_above: int = EXTERNAL_ABOVE) -> None:
    """Write the model alone, and its external data if it is large; see `write_artifact`."""
    if graph.weight_bytes > external_above:
        proto = type(graph.proto)()
        proto.CopyFrom(graph.proto)
        _write_beside(graph, proto, data_path(path))
        path.write_bytes(proto.SerializeToString())
    else:
        _write_inside(graph, path)


def _write_inside(graph: OnnxGraph, path: Path) -> None:
    """The protobuf as it would serialise with the weights in it, written weight by weight: none is copied."""
    import numpy as np
    import onnx
    from onnx import helper

    outer = type(graph.proto)()
    outer.CopyFrom(graph.proto)
    outer.ClearField("graph")
    inner = graph.proto.graph.SerializeToString()
    of_graph, of_tensor, of_bytes = (
        kind.DESCRIPTOR.fields_by_name[name].number
        for kind, name in ((type(outer), "graph"), (onnx.GraphProto, "initializer"), (onnx.TensorProto, "raw_data"))
    )
    heads = []
    for name, array in graph.weights.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        told = onnx.TensorProto(name=name, data_type=kind, dims=array.shape).SerializeToString()
        told += _head(of_bytes, array.nbytes)
        heads.append(_head(of_tensor, len(told) + array.nbytes) + told)
    size = len(inner) + graph.weight_bytes + sum(map(len, heads))
    with path.open("wb") as file:
        file.write(outer.SerializeToString() + _head(of_graph, size) + inner)
        for head, array in zip(heads, graph.weights.values(), strict=True):
            file.write(head)
            little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            file.write(little.reshape(-1).view(np.uint8).data)


def _head(field: int, size: int) -> bytes:
    """Tag of a protobuf field that holds `size` bytes, and that size."""
    return _varint(field << 3 | 2) + _varint(size)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _write_beside(graph: OnnxGraph, proto: Any, place: Path) -> None:
    import onnx
    from onnx import helper

    with place.open("wb") as file:
        for name, array in graph.weights.items():
            file.write(b"\0" * (-file.tell() % _ALIGN))
            offset = file.tell()
            file.write(array.tobytes())
            tensor = proto.graph.initializer.add(
                name=name,
                data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
                dims=array.shape,
                data_location=onnx.TensorProto.EXTERNAL,
            )
            for key, value in (("location", place.name), ("offset", offset), ("length", array.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
