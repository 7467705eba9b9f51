"""An ONNX file and the arrays in it. Weights in other files are read from the model's own folder only."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from edge4d.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import onnx

__all__ = ["OPSETS", "read_file", "to_array", "weight_files"]

OPSETS = (7, 26)
"""First and last operator set whose operators are imported."""

_STANDARD = ("", "ai.onnx")


def read_file(path: Path) -> onnx.ModelProto:
    """The model at `path`, its own functions inlined; weights in other files are still there.

    Raises:
        LoadError: it cannot be read, is an artifact of edge4d, or is written in an operator set that is not imported.
    """
    from edge4d.errors import ValidationError
    from edge4d.validators.contained import CouldNotInfer, inline_functions
    from edge4d.validators.reading import read_model

    try:
        model = read_model(path)
    except ValidationError as error:
        raise LoadError(error.message, hint=error.hint) from None
    if any(entry.key == "edge4d.version" for entry in model.metadata_props):
        raise LoadError(f"{path}: already an artifact of edge4d", hint=f"to check this file run: edge4d verify {path}")
    if model.functions:
        try:
            model = inline_functions(model)
        except CouldNotInfer as error:
            raise LoadError(
                f"{path}: its functions cannot be inlined: {error}", hint="inline them with onnx.inliner"
            ) from None
    opset = opset_of(model)
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise LoadError(
            f"{path}: written in ONNX operator set {opset}; {OPSETS[0]} to {OPSETS[1]} are imported",
            hint="export it again with opset 18, or convert it: onnx.version_converter.convert_version(model, 18)",
        )
    return model


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operator set."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in _STANDARD), 0)


def to_array(tensor: onnx.TensorProto, folder: Path, where: str) -> np.ndarray[Any, Any]:
    """The numbers of a tensor.

    Args:
        tensor: of the model.
        folder: the model's, in which files of weights must lie.
        where: file and tensor, for messages.

    Raises:
        LoadError: the bytes do not fit the shape, or lie in a file outside `folder`, or one that is not there.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    known = (*range(1, 8), 9, 10, 11, 12, 13, 16)  # the numbers, without strings, complex and those below eight bits
    if tensor.data_type not in known:
        name = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in TensorProto.DataType.values() else "?"
        raise LoadError(f"{where}: has the element type {name}, which PyTorch does not compute with")
    array: np.ndarray[Any, Any]
    try:
        if tensor.data_location != TensorProto.EXTERNAL:
            array = numpy_helper.to_array(tensor)
            return array
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        count = int(np.prod(tensor.dims, dtype=np.int64))
        data = _external(tensor, folder, where, count * dtype.itemsize)
        kind = dtype.newbyteorder("<") if dtype.isbuiltin == 1 else dtype
        array = np.frombuffer(data, kind).reshape(tuple(tensor.dims))
        return array
    except (ValueError, TypeError) as error:
        raise LoadError(f"{where}: damaged: {error}", hint="export or download the file again") from None


def weight_files(model: onnx.ModelProto, path: Path) -> list[Path]:
    """The files in which weights of a model lie, each once, in the order of their paths; of those that are there.

    Args:
        model: as `read_file` returns it.
        path: its own file, in whose folder theirs must be.

    Raises:
        LoadError: one of them would lie elsewhere.
    """
    tensors = [tensor for tensor in _tensors(model.graph) if tensor.data_location == tensor.EXTERNAL]
    places = {_place(tensor, path.parent, f"{path}: the weight {tensor.name!r}") for tensor in tensors}
    files = sorted(path.parent.joinpath(*place.parts) for place in places)
    return [file for file in files if file.is_file()]  # `to_array` refuses a file that is missed


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All that may hold numbers: weights, values of nodes, and those of their bodies."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield attribute.t
        yield from attribute.tensors
        for body in (attribute.g, *attribute.graphs):
            yield from _tensors(body)


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _place(tensor: onnx.TensorProto, folder: Path, where: str) -> PurePosixPath:
    """Where in `folder` the numbers of a tensor lie; a name or a link that leads elsewhere is refused."""
    location = _entries(tensor).get("location", "")
    place = PurePosixPath(location.replace("\\", "/"))
    if not location or place.is_absolute() or ".." in place.parts or ":" in location:
        raise LoadError(
            f"{where}: its numbers are said to lie in {location!r}, which is not in the model's folder",
            hint="an exporter never writes such a name; do not trust this file",
        )
    inside = os.path.realpath(folder.joinpath(*place.parts))
    if not inside.startswith(os.path.realpath(folder) + os.sep):
        raise LoadError(
            f"{where}: its numbers are said to lie in {location!r}, a link that leads out of the model's folder",
            hint="put the file itself beside the model",
        )
    return place


def _external(tensor: onnx.TensorProto, folder: Path, where: str, size: int) -> bytes:
    entries, place = _entries(tensor), _place(tensor, folder, where)
    location, path = entries["location"], Path(os.path.realpath(folder.joinpath(*place.parts)))
    offset, length = int(entries.get("offset") or 0), int(entries.get("length") or size)
    if length != size or offset < 0:
        raise ValueError(f"{length} bytes at {offset} for a tensor of {size}")
    try:
        if not path.is_file():
            raise FileNotFoundError(2, "No such file")
        with path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
    except OSError as error:
        raise LoadError(
            f"{where}: its numbers lie in {location!r}, which cannot be read: {error.strerror or error}",
            hint="keep the file of weights beside the model, under the name it was exported with",
        ) from None
    if len(data) < size:
        raise ValueError(f"{location} ends {size - len(data)} bytes too early")
    return data
