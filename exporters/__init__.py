"""The runtimes, one a file, and the registry that finds them by name or by a file's suffix."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from edge4d.errors import UsageError

if TYPE_CHECKING:
    import os

    from edge4d.exporters.protocol import Exporter

__all__ = ["for_path", "get", "has_runtime", "names"]

_CLASSES = {
    "onnxruntime": ("edge4d.exporters.onnxruntime", "OnnxRuntime"),
    "openvino": ("edge4d.exporters.openvino", "OpenVino"),
    "rknn": ("edge4d.exporters.rknn", "Rknn"),
    "tensorrt": ("edge4d.exporters.tensorrt", "TensorRt"),
    "tensorrt_rtx": ("edge4d.exporters.tensorrt", "TensorRtRtx"),
}


def names() -> tuple[str, ...]:
    """The known runtimes, installed or not."""
    return tuple(_CLASSES)


def get(name: str) -> Exporter:
    """The exporter of a runtime, installed or not; `probe()` tells.

    Raises:
        UsageError: no such runtime; names the known ones and the nearest.
    """
    if name not in _CLASSES:
        near = difflib.get_close_matches(name.lower(), _CLASSES, 1)
        raise UsageError(
            f"unknown runtime {name!r}, expected one of: {', '.join(_CLASSES)}",
            hint=f"did you mean {near[0]!r}?" if near else "`edge4d doctor` lists the runtimes",
        )
    module, attribute = _CLASSES[name]
    exporter: Exporter = getattr(importlib.import_module(module), attribute)()
    return exporter


def for_path(path: str | os.PathLike[str]) -> Exporter:
    """The runtime that opens a file: told by its suffix, and where several share it, by the recipe beside the file.

    Raises:
        UsageError: no runtime has this suffix.
    """
    suffix = Path(path).suffix.lower()
    suffixes = {name: get(name).suffixes for name in _CLASSES}
    able = [name for name, own in suffixes.items() if suffix in own]
    if not able:
        known = dict.fromkeys(own for group in suffixes.values() for own in group)
        raise UsageError(
            f"cannot tell the runtime of {path} from its name, expected one of the suffixes: {', '.join(known)}",
            hint="rename the file, or name the runtime",
        )
    built_with = _runtime_in_recipe(Path(path)) if len(able) > 1 else None
    return get(built_with if built_with in able else able[0])


def has_runtime(path: str | os.PathLike[str]) -> bool:
    """Whether some runtime opens files of this name; anything else is for PyTorch."""
    suffix = Path(path).suffix.lower()
    return any(suffix in get(name).suffixes for name in _CLASSES)


def _runtime_in_recipe(path: Path) -> str | None:
    """``NAME`` of the step ``build NAME`` in the recipe beside an engine; None without a readable one."""
    import json

    from edge4d.recipe import recipe_path

    try:
        step = json.loads(recipe_path(path).read_text(encoding="utf-8"))["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # opening the engine says what is wrong with it
    return step.removeprefix("build ") if isinstance(step, str) else None
