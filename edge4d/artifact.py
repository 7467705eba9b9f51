"""An artifact as its user sees it: logical arrays in, logical arrays out, whatever runtime lies between."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.describing import attach
from edge4d.errors import UsageError, ValidationError
from edge4d.port_arrays import in_type, pack, unpack
from edge4d.ports import ports_text

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    import numpy as np

    from edge4d.exporters.protocol import Session

__all__ = ["Opened", "in_types_of", "open"]


class Opened:
    """An artifact on a runtime. A context manager; call it with logical arrays, by position or by name.

    Attributes:
        path: the file.
        inputs, outputs: logical and physical shape, dtype and packing of each.
        session: the runtime's own session, which takes and returns packed arrays.
    """

    def __init__(self, path: Path, session: Session) -> None:
        self.path = path
        self.session = session
        try:
            self.inputs = attach(session.inputs, session.metadata)
            self.outputs = attach(session.outputs, session.metadata)
        except ValidationError as error:
            raise ValidationError(f"{path}: {error.message}", hint=error.hint) from error

    def __call__(self, /, *arrays: Any, **named: Any) -> dict[str, np.ndarray]:
        """Run once.

        Args:
            arrays: logical arrays, e.g. a clip (N, C, T, H, W), in the order of `inputs`.
            named: further ones by the inputs' names.

        Returns:
            Logical arrays by the outputs' names.

        Raises:
            UsageError: an input is missing, given twice or unknown.
            PackingError: an array of another shape or dtype than the input's.
        """
        return self.unpack(self.session.run(self.pack(*arrays, **named)))

    def pack(self, /, *arrays: Any, **named: Any) -> dict[str, np.ndarray]:
        """Logical arrays as the packed arrays by name that `session.run` takes."""
        names = [port.name for port in self.inputs]
        if len(arrays) > len(names):
            raise UsageError(f"{self.path} takes {len(names)} inputs ({', '.join(names)}), got {len(arrays)} arrays")
        for name in named:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                raise UsageError(
                    f"{self.path} has no input {name!r}; it has {', '.join(names)}",
                    hint=f"did you mean {near[0]!r}?" if near else None,
                )
        given = dict(zip(names, arrays, strict=False))
        if twice := given.keys() & named.keys():
            raise UsageError(f"input {min(twice)!r} of {self.path} was given by position and by name")
        given |= named
        if missing := [name for name in names if name not in given]:
            raise UsageError(f"{self.path} needs the inputs {', '.join(map(repr, missing))} as well")
        return {port.name: pack(given[port.name], port) for port in self.inputs}

    def unpack(self, results: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What `session.run` returned as logical arrays by name."""
        return {port.name: unpack(results[port.name], port) for port in self.outputs}

    def close(self) -> None:
        """Give the runtime's resources back; the object cannot be called any more."""
        self.session.close()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Opened({str(self.path)!r}, inputs: {ports_text(self.inputs)}, outputs: {ports_text(self.outputs)})"


def in_types_of(opened: Opened) -> Callable[..., dict[str, np.ndarray]]:
    """An artifact that takes floats of any width and gives each input those that it declares."""

    def run(*arrays: Any, **named: Any) -> dict[str, np.ndarray]:
        kinds = {port.name: port.dtype for port in opened.inputs}
        given = [in_type(array, kind) for array, kind in zip(arrays, kinds.values(), strict=False)]
        return opened(*given, *arrays[len(given) :], **{k: in_type(a, kinds.get(k, "")) for k, a in named.items()})

    return run


def open(path: str | os.PathLike[str], runtime: str | None = None, **options: Any) -> Opened:
    """Open an artifact on a runtime.

    Args:
        path: an ``.onnx`` file of any origin, or an engine that `edge4d build` wrote.
        runtime: one of `edge4d.exporters.names()`; told by the file's name when None.
        options: the runtime's own, e.g. ``threads=2`` or ``providers=["CPUExecutionProvider"]``.

    Returns:
        Call it with logical arrays: ``edge4d.open("model.onnx")(clip)``.

    Raises:
        RuntimeUnavailable: the runtime is not installed.
        UsageError: an unknown runtime or option.
        ValidationError: the file is missing, unreadable, or carries a malformed description.
    """
    from edge4d.exporters import for_path, get

    file = Path(path)
    exporter = get(runtime) if runtime is not None else for_path(file)
    session = exporter.open(file, **options)
    try:
        return Opened(file, session)
    except BaseException:
        session.close()
        raise
