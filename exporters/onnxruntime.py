"""ONNX Runtime: opens any ONNX file, builds graphs that it has optimised once and for all."""

from __future__ import annotations

import difflib
import re
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edge4d.errors import ExportError, PackingError, RuntimeUnavailable, UsageError, ValidationError
from edge4d.exporters.protocol import Availability, BuildResult, require
from edge4d.files import staged
from edge4d.ports import Port
from edge4d.recipe import recipe_bytes, recipe_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

__all__ = ["Options", "OnnxRuntime", "OrtSession"]

_INSTALL = 'pip install "edge4d[onnxruntime]"'
_INSTALLS = {
    "CUDAExecutionProvider": 'pip install "onnxruntime-gpu>=1.24"',
    "TensorrtExecutionProvider": 'pip install "onnxruntime-gpu>=1.24"',
    "DmlExecutionProvider": "pip install onnxruntime-directml",
    "OpenVINOExecutionProvider": "pip install onnxruntime-openvino",
    "QNNExecutionProvider": "pip install onnxruntime-qnn",
}
_PROVIDERS = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
    "OpenVINOExecutionProvider",
    "CoreMLExecutionProvider",
    "DmlExecutionProvider",
    "QNNExecutionProvider",
    "NnapiExecutionProvider",
    "XnnpackExecutionProvider",
    "RknpuExecutionProvider",
)
_LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_LARGEST_ORT = 2**31 - 1
"""Bytes that the flat buffer of an .ort file can hold."""


@dataclass(frozen=True)
class Options:
    """How a session is made; the same values, with the hash of the input, are kept in a build's recipe.

    Attributes:
        providers: execution providers, the preferred first; ``cpu`` is short for ``CPUExecutionProvider``. One that is
            missing or fails to start is an error: nothing falls back silently.
        threads: CPU threads, 0 for ONNX Runtime's own choice.
        optimization: ``none``, ``basic``, ``extended`` (what any machine can run) or ``all`` (layouts of this CPU too).
    """

    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: int = 0
    optimization: str = "all"

    @classmethod
    def of(cls, given: Mapping[str, Any], **defaults: Any) -> Options:
        """Check options by name and value; None means the default.

        Raises:
            UsageError: an unknown option, provider or level.
        """
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise UsageError(
                    f"onnxruntime has no option {name!r}, expected one of: {', '.join(known)}",
                    hint=f"did you mean {near[0]!r}?" if near else None,
                )
        values = defaults | {name: value for name, value in given.items() if value is not None}
        if "providers" in values:
            named = values["providers"]
            named = [named] if isinstance(named, str) else list(named)
            if not named:
                raise UsageError("no execution provider was named", hint="name one, e.g. CPUExecutionProvider")
            values["providers"] = tuple(_provider(name) for name in named)
        options = cls(**values)
        if options.optimization not in _LEVELS:
            raise UsageError(f"optimization {options.optimization!r}, expected one of: {', '.join(_LEVELS)}")
        if isinstance(options.threads, bool) or not isinstance(options.threads, int) or options.threads < 0:
            raise UsageError(f"threads {options.threads!r}, expected a whole number, 0 for the runtime's own choice")
        return options


class OnnxRuntime:
    """The exporter; see `edge4d.exporters.protocol.Exporter`."""

    name = "onnxruntime"
    suffixes: tuple[str, ...] = (".onnx", ".ort")

    def probe(self) -> Availability:
        """Whether ONNX Runtime can be imported here; never raises."""
        try:
            import onnxruntime
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime"
            why = "it is not installed" if missing else f"it is installed but cannot be imported: {error}"
            return Availability(ok=False, why_not=why, install=_INSTALL)
        return Availability(ok=True, version=onnxruntime.__version__)

    def open(self, path: Path, **options: Any) -> OrtSession:
        """Load a ``.onnx`` or ``.ort`` file; for `options` see `Options`."""
        chosen = Options.of(options)
        require(self)
        return OrtSession(Path(path), chosen)

    def build(self, model_path: Path, output: Path, **options: Any) -> BuildResult:
        """Write the graph as ONNX Runtime optimises it, as ``.onnx`` or, by `output`'s suffix, ``.ort``.

        Weights that lie beside the model stay beside the ``.onnx`` (``OUTPUT.data``). A ``.onnx`` is optimised to
        ``extended`` by default, for it is optimised further for the machine that opens it. A ``.ort`` is not, and
        without the layouts of ``all`` it ran at half the speed, so that is its default. The result is opened before
        it is published.
        """
        model_path, output = Path(model_path), Path(output)
        flat = output.suffix.lower() == ".ort"
        chosen = Options.of(options, optimization="all" if flat else "extended")
        require(self)
        if output.suffix.lower() not in self.suffixes:
            raise UsageError(
                f"cannot build {output}: onnxruntime writes {' or '.join(self.suffixes)}", hint="rename it with -o"
            )
        weights = _weights_beside(model_path)
        if output.exists() and output.samefile(model_path):
            raise UsageError(f"{output} is the model itself", hint="choose another name with -o")
        if flat and sum(file.stat().st_size for file in (model_path, *weights)) > _LARGEST_ORT:
            raise UsageError(
                f"{output}: an .ort file holds 2 GB at most, the model is larger", hint="write .onnx instead"
            )
        start = time.perf_counter()
        targets = [output, recipe_path(output)]
        if weights and not flat:
            targets.append(output.with_name(output.name + ".data"))
        with staged(*targets) as (engine, recipe, *data):
            config = {"session.save_model_format": "ORT" if flat else "ONNX"}
            if data:
                config["session.optimized_model_external_initializers_file_name"] = data[0].name
                # Shapes and pads must stay inside, or ONNX Runtime cannot open what it wrote.
                config["session.optimized_model_external_initializers_min_size_in_bytes"] = "1024"
            with OrtSession(model_path, chosen, save=engine, config=config) as source:
                if data and not data[0].exists():
                    data[0].touch()  # no weight is large enough to lie outside
                self._check(source, engine, chosen)
            written = {file.name: file for file in (engine, *data)}
            recipe.write_bytes(
                recipe_bytes(
                    "build onnxruntime", (model_path, *weights), asdict(chosen), written, ("onnxruntime", "onnx")
                )
            )
        notes = (
            ("it holds layouts of this CPU: run it on this kind of machine only",)
            if chosen.optimization == "all"
            else ()
        )
        return BuildResult(output, tuple(targets), targets[1], self.name, time.perf_counter() - start, notes)

    def _check(self, source: OrtSession, engine: Path, options: Options) -> None:
        """Open what was written; its ports and description must be those of the model."""
        if not engine.is_file():
            raise ExportError(f"ONNX Runtime reported no error but wrote no engine for {source.path}")
        try:
            built = OrtSession(engine, options)
        except ValidationError as error:
            raise ExportError(
                f"ONNX Runtime cannot open the engine that it built from {source.path}: {error.message}",
                hint="try --optimization basic, or another onnxruntime",
            ) from error
        with built:
            for what in ("inputs", "outputs", "metadata"):
                if getattr(built, what) != getattr(source, what):
                    raise ExportError(
                        f"the engine built from {source.path} has other {what} than the model",
                        hint="use a newer onnxruntime, or --optimization basic",
                    )


class OrtSession:
    """An `onnxruntime.InferenceSession`; see `edge4d.exporters.protocol.Session`."""

    def __init__(
        self, path: Path, options: Options, *, save: Path | None = None, config: Mapping[str, str] | None = None
    ) -> None:
        import onnxruntime

        self.path = path
        if not path.is_file():
            raise ValidationError(f"{path}: no such file", hint="check the path; `edge4d export` writes ONNX files")
        available = onnxruntime.get_available_providers()
        for provider in options.providers:
            if provider not in available:
                raise RuntimeUnavailable(
                    f"{provider} is not in this build of ONNX Runtime, which has: {', '.join(available)}",
                    hint=f"install it with: {_INSTALLS.get(provider, 'a build of ONNX Runtime that has it')}",
                )
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[options.optimization])
        settings.intra_op_num_threads = options.threads
        settings.log_severity_level = 4  # what goes wrong is raised; the rest would mix with our own output
        if save is not None:
            settings.optimized_model_filepath = str(save)
        for key, value in (config or {}).items():
            settings.add_session_config_entry(key, value)
        try:
            session = onnxruntime.InferenceSession(str(path), settings, providers=list(options.providers))
        except Exception as error:  # ONNX Runtime's errors have no common base
            _refuse(path, error, building=save is not None)
        session.disable_fallback()
        got = session.get_providers()
        if got[0] != options.providers[0]:
            raise RuntimeUnavailable(
                f"{options.providers[0]} failed to start, ONNX Runtime fell back to {got[0]}",
                hint="check the driver and libraries that the provider needs; `edge4d doctor` shows what is installed",
            )
        self._session: Any = session
        self.inputs = tuple(_port(path, value) for value in session.get_inputs())
        self.outputs = tuple(_port(path, value) for value in session.get_outputs())
        self.metadata: Mapping[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        self.details: Mapping[str, Any] = {
            "runtime": "onnxruntime",
            "version": onnxruntime.__version__,
            "providers": got,
            "threads": options.threads,
            "optimization": options.optimization,
        }

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once on packed arrays by name.

        Raises:
            UsageError: the session is closed, or an input is missing or unknown.
            PackingError: an array that the graph does not take.
            ValidationError: an operator failed.
        """
        if self._session is None:
            raise UsageError(f"{self.path}: the session is closed", hint="open it again")
        names = [port.name for port in self.inputs]
        if feeds.keys() != set(names):
            raise UsageError(f"{self.path} takes the inputs {', '.join(names)}, got {', '.join(feeds) or 'none'}")
        try:
            results = self._session.run(None, dict(feeds))
        except Exception as error:  # ONNX Runtime's errors have no common base
            if type(error).__name__ == "InvalidArgument":
                raise PackingError(f"{self.path}: {_words(error)}", hint="see the inputs' shapes and dtypes") from error
            raise ValidationError(f"{self.path}: ONNX Runtime failed while running it: {_words(error)}") from error
        return {port.name: array for port, array in zip(self.outputs, results, strict=True)}

    def close(self) -> None:
        """Drop the session and its memory."""
        self._session = None

    def __enter__(self) -> OrtSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _provider(name: str) -> str:
    """The full name of an execution provider: ``cuda`` is ``CUDAExecutionProvider``.

    One that is not listed here passes if it has the usual ending, for plug-ins bring their own.
    """
    short = {full.removesuffix("ExecutionProvider").lower(): full for full in _PROVIDERS}
    bare = name.removesuffix("ExecutionProvider").lower()
    if bare in short:
        return short[bare]
    near = difflib.get_close_matches(bare, short, 1, cutoff=0.7)
    if near or not name.endswith("ExecutionProvider"):
        raise UsageError(
            f"unknown execution provider {name!r}",
            hint=f"did you mean {short[near[0]]!r}?" if near else f"the usual ones: {', '.join(_PROVIDERS)}",
        )
    return name


def _port(path: Path, value: Any) -> Port:
    match = re.fullmatch(r"tensor\((\w+)\)", value.type)
    if match is None:
        raise ValidationError(f"{path}: {value.name!r} is a {value.type}; edge4d runs models on tensors only")
    names = {"float": "float32", "double": "float64", "string": "str"}
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return Port(value.name, shape, shape, names.get(match[1], match[1]))


def _weights_beside(model_path: Path) -> list[Path]:
    """The files beside an ONNX file that hold its weights.

    Raises:
        ValidationError: missing, no ONNX file, or weights that are missing or lie elsewhere; names what is wrong.
    """
    import onnx

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
    return [model_path.parent / place for place in places]


def _refuse(path: Path, error: Exception, *, building: bool) -> NoReturn:
    """Say in the user's terms why a file was not taken."""
    kind, words = type(error).__name__, _words(error)
    if kind in {"InvalidProtobuf", "NoModel"} or "No graph was found" in words:
        raise ValidationError(f"{path} is no ONNX model: {words}", hint="was it downloaded or copied whole?") from error
    if kind == "NotImplemented" or "is not a registered function" in words or "No Op registered" in words:
        raise ValidationError(
            f"{path} holds an operator that ONNX Runtime cannot run: {words}",
            hint="export it for an older opset, or use a newer onnxruntime",
        ) from error
    if building and "space" in words.lower():
        raise ExportError(
            f"{path}: ONNX Runtime could not write the engine: {words}", hint="free some space"
        ) from error
    raise ValidationError(f"{path}: ONNX Runtime refuses it ({kind}): {words}") from error


def _words(error: Exception) -> str:
    """ONNX Runtime's message without its prefix, on one line."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    return " ".join(text.split())[:1000]
