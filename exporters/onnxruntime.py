"""ONNX Runtime: opens any ONNX file, builds graphs that it has optimised once and for all."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edge4d.errors import ExportError, RuntimeFailed, UsageError, ValidationError
from edge4d.exporters.assembling import Compiler, assemble, refuse_suffix
from edge4d.exporters.gating import gate_model
from edge4d.exporters.onnxruntime_layout import mark, unmarked
from edge4d.exporters.onnxruntime_order import reorder
from edge4d.exporters.onnxruntime_parts import split_tiles
from edge4d.exporters.onnxruntime_products import ENTRY, mark_products
from edge4d.exporters.onnxruntime_session import LEVELS, OrtSession
from edge4d.exporters.options import as_names, check_count, check_settings, checked
from edge4d.exporters.protocol import Availability, BuildResult, require
from edge4d.exporters.sources import model_files

__all__ = ["OnnxRuntime", "Options", "OrtSession", "compile_engine"]

_INSTALL = 'pip install "edge4d[onnxruntime]"'
_PROVIDERS = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
    "NvTensorRTRTXExecutionProvider",
    "OpenVINOExecutionProvider",
    "CoreMLExecutionProvider",
    "DmlExecutionProvider",
    "QNNExecutionProvider",
    "NnapiExecutionProvider",
    "XnnpackExecutionProvider",
    "RknpuExecutionProvider",
    "AzureExecutionProvider",
)
_LARGEST_ORT = 2**31 - 1
"""Bytes that the flat buffer of an .ort file can hold."""
_BESIDE_ABOVE = 2**24
"""Bytes of a model above which its engine's weights lie beside the ``.onnx``, from where the system maps them: within
the protobuf ONNX Runtime reads and copies them, and needs memory for both."""
_SHOWN = 5


@dataclass(frozen=True)
class Options:
    """How a session is made; the same values, with the hash of the input, are kept in a build's recipe.

    Attributes:
        providers: execution providers, the preferred first; ``cpu`` is short for ``CPUExecutionProvider``. One that is
            missing or fails to start is an error: nothing falls back silently.
        threads: CPU threads, 0 for ONNX Runtime's own choice.
        optimization: ``none``, ``basic``, ``extended`` (what any machine can run) or ``all`` (layouts of this CPU too).
        arena: keep freed memory for later calls; without it, memory stays lower and calls take longer.
        settings: ``session.…`` entries of ONNX Runtime, and options of providers as ``CUDAExecutionProvider.device_id``
            (or ``cuda.device_id``).
    """

    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: int = 0
    optimization: str = "all"
    arena: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = as_names(self.providers)
        if not named:
            raise UsageError("no execution provider was named", hint="name one, e.g. CPUExecutionProvider")
        object.__setattr__(self, "providers", tuple(_provider(name) for name in named))
        if self.optimization not in LEVELS:
            raise UsageError(f"optimization {self.optimization!r}, expected one of: {', '.join(LEVELS)}")
        check_count("threads", self.threads)
        settings = check_settings(self.settings)
        object.__setattr__(self, "settings", {self._setting(key): value for key, value in settings.items()})

    @classmethod
    def of(cls, given: Mapping[str, Any], **defaults: Any) -> Options:
        """Check options by name and value; None means the default.

        Raises:
            UsageError: an unknown option, provider or level.
        """
        return checked(cls, "onnxruntime", defaults | {k: v for k, v in given.items() if v is not None})

    def _setting(self, key: str) -> str:
        """A setting's full name: of the session, or of a provider that is in use."""
        owner, _, name = key.partition(".")
        if owner in ("session", "ep", "optimization", "mlas"):
            return key
        if not name:
            raise UsageError(
                f"setting {key!r} belongs to nothing, expected session.NAME or PROVIDER.NAME",
                hint="e.g. --option session.intra_op.allow_spinning=0, --option cuda.device_id=1",
            )
        provider = _provider(owner)
        if provider not in self.providers:
            raise UsageError(f"setting {key!r} is for {provider}, which is not in use", hint=f"--provider {owner}")
        return f"{provider}.{name}"


class OnnxRuntime:
    """The exporter; see `edge4d.exporters.protocol.Exporter`."""

    name = "onnxruntime"
    suffixes: tuple[str, ...] = (".onnx", ".ort")
    open_options: tuple[str, ...] = tuple(field.name for field in fields(Options))

    def probe(self) -> Availability:
        """Whether ONNX Runtime can be imported here; never raises."""
        try:
            import onnxruntime
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime"
            why = "it is not installed" if missing else f"it is installed but cannot be imported: {error}"
            return Availability(ok=False, why_not=why, install=_INSTALL)
        return Availability(ok=True, version=onnxruntime.__version__)

    def open(self, path: Path, *, timeout: float | None = None, **options: Any) -> OrtSession:
        """Load a ``.onnx`` or ``.ort`` file into this process, whatever `timeout` says; for `options` see `Options`."""
        chosen = Options.of(options)
        require(self)
        return OrtSession(Path(path), chosen)

    def build(
        self,
        model_path: Path,
        output: Path,
        *,
        max_rank: int | None = 4,
        timeout: float | None = None,
        **options: Any,
    ) -> BuildResult:
        """Write the graph as ONNX Runtime optimises it, as ``.onnx`` or, by `output`'s suffix, ``.ort``.

        Weights of more than 16 MB, and those that lie beside the model, lie beside the ``.onnx`` (``OUTPUT.data``),
        from where they are mapped. By default the engine holds the layouts of this kind of processor (level ``all``),
        which `open` checks; one of level ``extended`` runs anywhere, and ONNX Runtime copies its weights there.
        The optimised graph goes through the gate, and the result is opened before it is published.
        """
        model_path, output = Path(model_path), Path(output)
        flat = output.suffix.lower() == ".ort"
        chosen = Options.of(options)
        require(self)
        refuse_suffix(output, self.name, self.suffixes)
        files = model_files(model_path)
        size = sum(file.stat().st_size for file in files)
        if flat and size > _LARGEST_ORT:
            raise UsageError(
                f"{output}: an .ort file holds 2 GB at most, the model is larger", hint="write .onnx instead"
            )
        large = len(files) > 1 or size > _BESIDE_ABOVE
        beside = [output.with_name(output.name + ".data")] if large and not flat else []
        compiler = Compiler(self.name, f"{__name__}:compile_engine", ("onnxruntime", "onnx"))
        return assemble(compiler, model_path, [output, *beside], asdict(chosen), max_rank=max_rank, timeout=timeout)


def compile_engine(order: Mapping[str, Any]) -> dict[str, Any]:
    """Optimise and save; see `edge4d.exporters.assembling.Compiler`."""
    model, options = Path(order["model"]), Options.of(order["options"])
    engine, *data = (Path(file) for file in order["files"])
    with tempfile.TemporaryDirectory(prefix=".edge4d-", dir=engine.parent) as folder:
        flat = engine.suffix.lower() == ".ort"
        # The flat form is none that the gate reads, or that takes a mark: it is made of the same graph as ONNX.
        place = Path(folder, "optimised.onnx") if flat else engine
        source = _optimise(model, place, [place.with_name("optimised.onnx.data")] if flat else data, options)
        if not place.is_file():
            raise ExportError(f"ONNX Runtime reported no error but wrote no engine for {model}")
        if options.optimization in ("extended", "all") and options.providers == ("CPUExecutionProvider",):
            split_tiles(place)
        if options.optimization == "all":
            reorder(place)
            mark(place, source.metadata)
        mark_products(place)
        if order["max_rank"] is not None:
            gate_model(place, order["max_rank"], f"the graph that ONNX Runtime made of {model}")
        if flat:
            _optimise(place, engine, [], replace(options, optimization="none"))
    _compare(source, engine, options)
    notes = []
    if options.optimization == "all":
        notes.append("it holds layouts of this CPU: run it on this kind of machine only (--level extended runs on any)")
    if source.unfused:
        notes.append("ONNX Runtime has no exact products of 8 bits for it on this CPU: quantisers compute in float32")
    if source.fallback:
        listed = [f"{item['op']} {item['node']!r} to {item['provider']}" for item in source.fallback]
        notes.append(
            f"{len(listed)} of {source.nodes} nodes fall back from {options.providers[0]}: "
            + ", ".join(listed[:_SHOWN])
            + (f", and {len(listed) - _SHOWN} more; the recipe lists them all" if len(listed) > _SHOWN else "")
        )
    return {"engine": {"fallback": source.fallback, "metadata": dict(source.metadata)}, "notes": notes}


def _optimise(model: Path, engine: Path, data: list[Path], options: Options) -> OrtSession:
    """Save the graph as ONNX Runtime optimises it; returns the session, closed, for what it tells."""
    flat = engine.suffix.lower() == ".ort"
    config = {"session.save_model_format": "ORT" if flat else "ONNX"}
    if options.optimization == "extended":
        config[ENTRY] = "1"  # it shall run on any processor
    if data:
        config["session.optimized_model_external_initializers_file_name"] = data[0].name
        # Shapes and pads must stay inside, or ONNX Runtime cannot open what it wrote.
        config["session.optimized_model_external_initializers_min_size_in_bytes"] = "1024"
    with OrtSession(model, options, save=engine, config=config) as source:
        if data and not data[0].exists():
            data[0].touch()  # no weight is large enough to lie outside
        return source


def _compare(source: OrtSession, engine: Path, options: Options) -> None:
    """Open what was written; its ports and description must be those of the model."""
    try:
        built = OrtSession(engine, options)
    except ValidationError as error:
        raise RuntimeFailed(
            f"ONNX Runtime cannot open the engine that it built from {source.path}: {error.message}",
            hint="try --level basic, or another onnxruntime",
        ) from error
    with built:
        facts = {what: (getattr(source, what), getattr(built, what)) for what in ("inputs", "outputs")}
        facts["metadata"] = (unmarked(source.metadata), unmarked(built.metadata))
        for what, (wanted, found) in facts.items():
            if found != wanted:
                raise RuntimeFailed(
                    f"the engine built from {source.path} has other {what} than the model",
                    hint="use a newer onnxruntime, or --level basic",
                )


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
