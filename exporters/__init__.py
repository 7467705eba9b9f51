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

__all__ = ["for_path", "get", "names"]

_CLASSES = {"onnxruntime": ("edge4d.exporters.onnxruntime", "OnnxRuntime")}


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
    """The runtime that opens files of this name.

    Raises:
        UsageError: no runtime has this suffix.
    """
    suffix = Path(path).suffix.lower()
    known: dict[str, str] = {}
    for name in _CLASSES:
        for own in get(name).suffixes:
            known.setdefault(own, name)
    if suffix not in known:
        raise UsageError(
            f"cannot tell the runtime of {path} from its name, expected one of the suffixes: {', '.join(known)}",
            hint="rename the file, or name the runtime",
        )
    return get(known[suffix])
