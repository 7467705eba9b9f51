"""The files that an ONNX model consists of: itself, and those beside it that hold its weights."""

from __future__ import annotations

from pathlib import Path

from edge4d.errors import ValidationError

__all__ = ["model_files"]


def model_files(model_path: Path) -> tuple[Path, ...]:
    """The ``.onnx`` file, then the files of its weights.

    Raises:
        ValidationError: missing, no ONNX file, or weights that are missing or lie elsewhere; names what is wrong.
    """
    import onnx

    if model_path.is_dir():
        raise ValidationError(f"{model_path} is a folder, expected an ONNX file", hint="name the .onnx file in it")
    if not model_path.is_file():
        raise ValidationError(f"{model_path}: no such file", hint="check the path; `edge4d export` writes ONNX files")
    try:
        model = onnx.load(str(model_path), load_external_data=False)
    except Exception as error:  # of protobuf's, whose types are not part of onnx's interface
        raise ValidationError(f"{model_path} is no ONNX file", hint="build engines from .onnx files") from error
    tensors = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    places = sorted({entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"})
    for place in places:
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise ValidationError(
                f"{model_path} keeps its weights in {place!r}, outside its folder", hint="save it anew"
            )
        if not (model_path.parent / place).is_file():
            raise ValidationError(
                f"{model_path} keeps its weights in {place!r}, which is not beside it", hint="keep the files together"
            )
    return (model_path, *(model_path.parent / place for place in places))
