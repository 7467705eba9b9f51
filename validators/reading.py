"""ONNX files as protobufs: what cannot be read is said in one line, and weights in other files stay there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edge4d.errors import ValidationError

if TYPE_CHECKING:
    import onnx

__all__ = ["read_model"]

_LARGEST = 2**31 - 1  # bytes that a protobuf message may have

# Offset and bytes by which files that are no ONNX give themselves away.
_OTHERS = (
    (0, b"PK\x03\x04", "a zip archive (a PyTorch file?)", "export it first: edge4d export {path}"),
    (0, b"\x80\x02", "a pickle (an old PyTorch file?)", "export it first: edge4d export {path}"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch the file: git lfs pull"),
    (4, b"ORTM", "an ORT-format model", "give the ONNX file that it was made from"),
    (4, b"TFL3", "a TFLite model", "give the ONNX file that it was made from"),
    (0, b"<?xml", "XML (an OpenVINO model?)", "give the ONNX file that it was made from"),
    (0, b"\x89HDF", "an HDF5 file", "give an ONNX file"),
)


def read_model(source: onnx.ModelProto | bytes | str | os.PathLike[str]) -> onnx.ModelProto:
    """Read a model without its external weights.

    Args:
        source: a model in memory (returned as it is, never changed), its bytes, or a path. Files of weights that it
            points to are not opened, so they may be large, or missing.

    Raises:
        ValidationError: missing, empty, truncated, a folder, or no ONNX model.
    """
    import onnx

    if isinstance(source, onnx.ModelProto):
        _refuse_no_model(source, "the model")
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _parse(bytes(source), "the bytes given")
    path = Path(source)
    return _parse(_read(path), str(path))


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ValidationError(f"{path}: is a folder, expected an ONNX file", hint="name the .onnx file in it")
        size = path.stat().st_size
        if size > _LARGEST:
            raise ValidationError(
                f"{path}: {size} bytes, but an ONNX file has at most {_LARGEST}",
                hint="save it with its weights as external data: onnx.save(model, path, save_as_external_data=True)",
            )
        if not path.is_file():
            raise ValidationError(f"{path}: not a regular file, expected an ONNX file")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ValidationError(f"{path}: no such file", hint="check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValidationError(f"{path}: cannot be read: {reason}") from error


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not data:
        raise ValidationError(f"{name}: empty, expected an ONNX model", hint="the export was probably interrupted")
    for offset, magic, what, hint in _OTHERS:
        if data[offset : offset + len(magic)] == magic:
            raise ValidationError(f"{name}: {what}, expected an ONNX model", hint=hint.format(path=name))
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        if "depth" in str(error).lower():
            raise ValidationError(f"{name}: graphs lie too deep within each other for protobuf to read them") from error
        raise ValidationError(
            f"{name}: not an ONNX model, or a truncated one ({len(data)} bytes that do not decode)",
            hint="export or download it again",
        ) from error
    _refuse_no_model(model, name)
    return model


def _refuse_no_model(model: onnx.ModelProto, name: str) -> None:
    """Protobuf accepts the bytes of other messages; what an ONNX model always has tells them apart."""
    missing = [
        what
        for what, there in (
            ("an IR version", model.ir_version > 0),
            ("a graph", model.HasField("graph")),
            ("an operator set", len(model.opset_import) > 0),
        )
        if not there
    ]
    if missing:
        raise ValidationError(
            f"{name}: not an ONNX model, or a truncated one: it lacks {' and '.join(missing)}",
            hint="export or download it again",
        )
