"""The native 5-D form of a benchmark's reference, on every runtime that a candidate runs on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d import exporters
from edge4d.errors import Edge4dError, RuntimeFailed, UsageError
from edge4d.exporters.child import call
from edge4d.recipe import recipe_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge4d.validators.fps import Samples

__all__ = ["NativeForms", "check_native", "place_of"]


def check_native(reference: Path) -> None:
    """Refuse a reference that no native form can be made of.

    Raises:
        UsageError: it is a runtime's file already.
    """
    if exporters.has_runtime(reference):
        raise UsageError(
            f"--native exports REFERENCE by torch.onnx, and {reference} is a runtime's file already",
            hint="name the PyTorch model first, and this file among the candidates",
        )


def place_of(samples: Samples) -> tuple[str, ...] | None:
    """Runtime and devices of a candidate that was loaded; None for PyTorch, and for one that failed."""
    runtime = samples.details.get("runtime")
    if samples.failure is not None or runtime in (None, "pytorch"):
        return None
    return (str(runtime), *map(str, samples.details.get("providers", ())))


@dataclass
class NativeForms:
    """Makes the native form once, and of it what each runtime opens.

    Attributes:
        order: ``model``, ``shapes``, ``factory``, ``trust_pickle``, ``submodule``, ``fix``, ``seed``, as
            `exporters.native.export_file` takes.
        folder: where the files go.
        time_limit_s: for the export, and for each runtime's compiler.
    """

    order: Mapping[str, Any]
    folder: Path
    time_limit_s: float
    _failed: Edge4dError | None = field(default=None, init=False)
    _made: int = field(default=0, init=False)

    def of(self, runtime: str, like: Path) -> Path:
        """The file that a runtime runs: the ONNX file itself where it takes one by that name, else an engine.

        Args:
            runtime: name of the exporter.
            like: a candidate on that runtime; an engine is built for the device that its recipe names.

        Raises:
            Edge4dError: the export or the build failed; it may be that this runtime takes no fifth axis.
        """
        onnx = self._exported()
        exporter = exporters.get(runtime)
        if exporters.for_path(onnx).name == runtime:
            return onnx
        self._made += 1
        engine = self.folder / f"native_5d.{self._made}{exporter.suffixes[0]}"
        return exporter.build(onnx, engine, max_rank=None, timeout=self.time_limit_s, **_device(like)).path

    def _exported(self) -> Path:
        path = self.folder / "native_5d.onnx"
        if self._failed is not None:
            raise self._failed
        if not path.is_file():
            order = {**self.order, "output": str(path)}
            doing = f"exporting {self.order['model']} with its five axes"
            try:
                call("edge4d.exporters.native:export_file", order, self.time_limit_s, doing)
            except RuntimeFailed as error:
                self._failed = RuntimeFailed(error.message, hint="give it more time with --time-limit SECONDS")
                raise self._failed from error
            except Edge4dError as error:
                self._failed = error
                raise
        return path


def _device(engine: Path) -> dict[str, Any]:
    """The device in the recipe of an engine, as an option of `build`; the runtime's default where there is none."""
    try:
        device = json.loads(recipe_path(engine).read_text(encoding="utf-8"))["options"]["device"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    named = [device] if isinstance(device, str) else device if isinstance(device, list) else []
    return {"device": tuple(named)} if named and all(isinstance(name, str) and name for name in named) else {}
