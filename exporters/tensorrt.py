"""TensorRT and TensorRT for RTX behind one exporter: the same steps, and what each of the two lacks is said."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from edge4d.errors import RuntimeUnavailable, UsageError, ValidationError
from edge4d.exporters.assembling import Compiler, assemble, description_beside, refuse_suffix
from edge4d.exporters.options import as_names, checked
from edge4d.exporters.protocol import Availability, BuildResult, Session, require

__all__ = ["BuildOptions", "OpenOptions", "TensorRt", "TensorRtRtx"]

_ARCHITECTURE = re.compile(r"(?:sm_?)?(\d+)\.?(\d)", re.IGNORECASE)
Shapes = Mapping[str, Sequence[Sequence[int]]]


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built. Types are those of the ONNX file: the network is strongly typed.

    Attributes:
        device: architectures, e.g. ``sm_86``, or ``current`` for the GPU of this machine. Several make one engine for
            all of them (tensorrt_rtx). Empty for the runtime's own choice: every one from Ampere on (tensorrt_rtx),
            the GPU of this machine (tensorrt).
        shapes: least, best and greatest shape of each input that leaves sizes open.
        workspace_mib: memory that one layer may use; the whole device's when None.
        timing_cache: a file that remembers which kernels were fastest; read if it is there, then written (tensorrt).
        dla: number of a DLA core that takes the layers it can, the GPU the others (tensorrt).
        layers: write ``OUTPUT.layers.json``.
    """

    device: tuple[str, ...] = ()
    shapes: Shapes = field(default_factory=dict)
    workspace_mib: int | None = None
    timing_cache: str | None = None
    dla: int | None = None
    layers: bool = False

    def __post_init__(self) -> None:
        named = dict.fromkeys(_architecture(name) for name in as_names(self.device))
        object.__setattr__(self, "device", tuple(named))
        shapes = {}
        for name, three in dict(self.shapes).items():
            shapes[name] = tuple(tuple(int(size) for size in shape) for shape in three)
            if len(shapes[name]) != 3 or len({len(shape) for shape in shapes[name]}) != 1:
                raise UsageError(f"shapes of {name!r}: expected three of the same rank: least, best, greatest")
            if not all(0 < a <= b <= c for a, b, c in zip(*shapes[name], strict=True)):
                raise UsageError(f"shapes of {name!r}: expected least ≤ best ≤ greatest in every axis")
        object.__setattr__(self, "shapes", shapes)
        if self.timing_cache is not None:
            object.__setattr__(self, "timing_cache", str(self.timing_cache))
        for name in ("workspace_mib", "dla"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise UsageError(f"{name} {value!r}, expected a whole number")


@dataclass(frozen=True)
class OpenOptions:
    """How an engine is run.

    Attributes:
        cuda_graph: capture the engine's work once and launch it as one, which saves time where layers are small.
    """

    cuda_graph: bool = False


def _architecture(name: str) -> str:
    """``sm_86`` for whatever names compute capability 8.6."""
    if name.lower() == "current":
        return "current"
    match = _ARCHITECTURE.fullmatch(name.strip())
    if match is None:
        raise UsageError(f"device {name!r}, expected an architecture such as sm_86 (compute capability 8.6) or current")
    return f"sm_{match[1]}{match[2]}"


class TensorRt:
    """TensorRT; see `edge4d.exporters.protocol.Exporter`."""

    name = "tensorrt"  # as in `import`
    suffixes: tuple[str, ...] = (".engine", ".plan", ".trt")
    open_options: tuple[str, ...] = tuple(field.name for field in fields(OpenOptions))
    packages: tuple[str, ...] = ("tensorrt", "onnx")
    install = 'pip install "edge4d[tensorrt]"'
    needs = "an NVIDIA GPU"

    def probe(self) -> Availability:
        """Whether it can be imported here, and whether there is a GPU to run engines on; never raises."""
        try:
            runtime: Any = importlib.import_module(self.name)
        except Exception as error:  # its loader raises whatever a missing library makes it raise
            missing = isinstance(error, ModuleNotFoundError) and error.name == self.name
            why = "it is not installed" if missing else f"it is installed but cannot be imported: {error}"
            return Availability(ok=False, why_not=why, install=self.install)
        return self._placed(str(runtime.__version__), self._why_not_run())

    def _placed(self, version: str, why_not_run: str | None) -> Availability:
        """TensorRT measures kernels while it builds: without a GPU it does neither."""
        if why_not_run is not None:
            return Availability(ok=False, version=version, why_not=why_not_run, install=self.install)
        return Availability(ok=True, version=version)

    def _why_not_run(self) -> str | None:
        from edge4d.exporters.cuda import why_no_gpu

        found = why_no_gpu()
        return None if found is None else f"it needs {self.needs}: {found}"

    def open(self, path: Path, *, timeout: float | None = None, **options: Any) -> Session:
        """Load an engine onto the GPU, in this process (`timeout` has no effect); for `options` see `OpenOptions`."""
        from edge4d.exporters.tensorrt_session import TensorRtSession

        path = Path(path)
        chosen = checked(OpenOptions, self.name, options)
        if not path.is_file():
            raise ValidationError(f"{path}: no such file", hint="check the path; `edge4d build` writes engines")
        found = self.probe()
        if found.version is None:
            require(self)
        recipe = description_beside(path, self.name)
        self._refuse_other_version(path, recipe, found)
        require(self)
        if found.why_not_run is not None:
            raise RuntimeUnavailable(
                f"{path} cannot be run here: {found.why_not_run}",
                hint="run it on the machine it was built for; `edge4d doctor` shows what is installed",
            )
        return TensorRtSession(path, self.name, chosen, recipe.get("engine", {}))

    def _refuse_other_version(self, path: Path, recipe: Mapping[str, Any], found: Availability) -> None:
        """An engine runs on the version that built it alone; both runtimes' documents say so."""
        built = recipe.get("engine", {}).get("version")
        if built is not None and found.version is not None and built != found.version:
            raise ValidationError(
                f"{path} was built by {self.name} {built}, here is {found.version}; "
                "an engine runs on its own version only",
                hint=f"build it again: edge4d build MODEL.onnx --runtime {self.name}",
            )

    def build(
        self,
        model_path: Path,
        output: Path,
        *,
        max_rank: int | None = 4,
        timeout: float | None = None,
        **options: Any,
    ) -> BuildResult:
        """Parse, hold the parsed network against the limit, build; for `options` see `BuildOptions`."""
        output = Path(output)
        chosen = checked(BuildOptions, self.name, options)
        self._refuse_options(chosen)
        require(self)
        refuse_suffix(output, self.name, self.suffixes)
        beside = [output.with_name(output.name + ".layers.json")] if chosen.layers else []
        compiler = Compiler(self.name, "edge4d.exporters.tensorrt_build:compile_engine", self.packages)
        return assemble(
            compiler, Path(model_path), [output, *beside], asdict(chosen), max_rank=max_rank, timeout=timeout
        )

    def _refuse_options(self, options: BuildOptions) -> None:
        if any(name != "current" for name in options.device):
            raise UsageError(
                f"tensorrt builds for the GPU of this machine only, got {', '.join(options.device)}",
                hint="for another GeForce or RTX GPU: --runtime tensorrt_rtx, which needs none to build",
            )


class TensorRtRtx(TensorRt):
    """TensorRT for RTX: engines are compiled ahead of time without a GPU, and finished on the one that runs them."""

    name = "tensorrt_rtx"
    packages = ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "onnx")
    install = 'pip install "edge4d[tensorrt-rtx]"'
    needs = "an NVIDIA RTX GPU"

    def _placed(self, version: str, why_not_run: str | None) -> Availability:
        return Availability(ok=True, version=version, why_not_run=why_not_run)

    def _refuse_options(self, options: BuildOptions) -> None:
        if options.timing_cache is not None:
            raise UsageError(
                "tensorrt_rtx has no use for a timing cache: kernels are chosen where the engine runs",
                hint="leave --timing-cache out",
            )
        if options.dla is not None:
            raise UsageError("tensorrt_rtx knows no DLA", hint="DLA belongs to Jetson and DRIVE: --runtime tensorrt")
        if "current" in options.device and (missing := self._why_not_run()) is not None:
            raise RuntimeUnavailable(
                f"tensorrt_rtx cannot build for the GPU of this machine: {missing}",
                hint="name the architecture, e.g. --device sm_86: then none is needed",
            )
