"""What a runtime must offer: say whether it is here, build an engine, open one.

An exporter imports its runtime inside these methods only, so that naming it, or asking whether it is installed, costs
nothing and needs nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from edge4d.errors import RuntimeUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np

    from edge4d.ports import Port

__all__ = ["Availability", "BuildResult", "Exporter", "Session", "require"]


@dataclass(frozen=True)
class Availability:
    """Whether a runtime can be used here.

    Attributes:
        ok: it can.
        version: of the runtime, if it is installed.
        why_not: one sentence when it cannot.
        install: the exact command that mends it.
        why_not_run: one sentence when it builds engines here but cannot run them.
    """

    ok: bool
    version: str | None = None
    why_not: str | None = None
    install: str | None = None
    why_not_run: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping of the attributes."""
        return asdict(self)


@dataclass(frozen=True)
class BuildResult:
    """What a build wrote.

    Attributes:
        path: the engine.
        files: everything written: the engine, weights beside it, the recipe.
        recipe: the JSON file with options, versions and hashes.
        runtime: name of the exporter.
        seconds: wall time of the build.
        notes: what a user should know, one sentence each.
        engine: what is known of the engine, JSON-ready, as in the recipe.
        summary: a table for people; empty for most runtimes.
    """

    path: Path
    files: tuple[Path, ...]
    recipe: Path
    runtime: str
    seconds: float
    notes: tuple[str, ...] = ()
    engine: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""

    @property
    def size_bytes(self) -> int:
        """Bytes of the engine and the weights beside it; what only tells about it, the recipe first, is left out."""
        return sum(file.stat().st_size for file in self.files if file.suffix != ".json")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {
            "path": str(self.path),
            "files": [str(file) for file in self.files],
            "recipe": str(self.recipe),
            "runtime": self.runtime,
            "seconds": self.seconds,
            "size_bytes": self.size_bytes,
            "notes": list(self.notes),
            "engine": dict(self.engine),
        }


class Session(Protocol):
    """An engine, loaded. A context manager; arrays are packed, as the graph itself takes them."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """As the runtime declares them: `physical` is the shape (-1 where it is open), `packing` is None."""
        ...

    @property
    def outputs(self) -> tuple[Port, ...]:
        """As `inputs`."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """The artifact's description (`edge4d.shape.NAME`…), from the engine or from the recipe beside it."""
        ...

    @property
    def details(self) -> Mapping[str, Any]:
        """What a measurement must state: runtime, version, provider or device, threads."""
        ...

    @property
    def spent(self) -> Mapping[str, float] | None:
        """Milliseconds of the last run by part (``compute``, ``copies``), where the runtime tells them apart."""
        ...

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once on one array for each input, and return one for each output, on the host, by name."""
        ...

    def close(self) -> None:
        """Give memory and device back; may be called twice."""
        ...

    def __enter__(self) -> Session: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


@runtime_checkable
class Exporter(Protocol):
    """One runtime.

    Attributes:
        name: as in ``--runtime NAME``.
        suffixes: of the files it opens; the first is that of the engines it builds by default.
        open_options: names that `open` takes besides ``timeout``.
    """

    name: str
    suffixes: tuple[str, ...]
    open_options: tuple[str, ...]

    def probe(self) -> Availability:
        """Whether it can be used here; never raises."""
        ...

    def build(
        self,
        model_path: Path,
        output: Path,
        *,
        max_rank: int | None = 4,
        timeout: float | None = None,
        **options: Any,
    ) -> BuildResult:
        """Build an engine from an ONNX file, whole or not at all, and a recipe beside it.

        Args:
            model_path: the ONNX file. Whatever decides about its types (fp16, int8) has been done to it before.
            output: the engine.
            max_rank: the limit on axes, for the model and again for the graph that the runtime makes of it; None to
                build whatever the runtime takes.
            timeout: seconds for the compiler, which runs in a child process; None for half an hour, 0 for no limit and
                no child.
            options: the runtime's own.

        Raises:
            RuntimeUnavailable: not installed, or it lacks the device.
            UsageError: an unknown option or value.
            ValidationError: the model cannot be read, or holds what the runtime does not know.
            GateError: a value has more than `max_rank` axes.
            RuntimeFailed: the compiler hangs, dies or gives up.
            ExportError: the engine cannot be written.
        """
        ...

    def open(self, path: Path, *, timeout: float | None = None, **options: Any) -> Session:
        """Load an engine, or an ONNX file where the runtime takes it as it is.

        Args:
            path: the file.
            timeout: seconds to load it, and for each run, where the runtime lives in a child process; 0 loads it into
                this process.
            options: the runtime's own.

        Raises:
            RuntimeUnavailable: not installed, or it lacks the device.
            UsageError: an unknown option or value.
            ValidationError: the file is missing, damaged, or meant for another version or device.
            RuntimeFailed: it hangs, dies or gives up.
        """
        ...


def require(exporter: Exporter) -> Availability:
    """The exporter's availability, if it can be used.

    Raises:
        RuntimeUnavailable: it cannot; the hint is the command that installs it.
    """
    found = exporter.probe()
    if not found.ok:
        raise RuntimeUnavailable(
            f"the runtime {exporter.name!r} cannot be used here: {found.why_not}",
            hint=f"install it with: {found.install}" if found.install else "see `edge4d doctor`",
        )
    return found
