"""From an ONNX file to a serialised TensorRT engine, in the process that the exporter starts for it."""

from __future__ import annotations

import gc
import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import RuntimeFailed, RuntimeUnavailable, UsageError, ValidationError
from edge4d.exporters.gating import Made, gate_values

if TYPE_CHECKING:
    import onnx

__all__ = ["collecting_logger", "compile_engine", "ranks_of"]

_SHOWN = 8


def compile_engine(order: Mapping[str, Any]) -> dict[str, Any]:
    """Parse, gate, configure, build; see `edge4d.exporters.assembling.Compiler`.

    TensorRT calls the logger while it holds a lock, and freeing a builder takes the same lock: a garbage collection
    within the logger that meets an earlier builder would wait for ever. So there is one before, and none meanwhile.
    """
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        return _compile(order)
    finally:
        if enabled:
            gc.enable()


def _compile(order: Mapping[str, Any]) -> dict[str, Any]:
    from edge4d.describing import metadata_of
    from edge4d.validators.reading import read_model

    options, runtime = order["options"], order["runtime"]
    trt: Any = importlib.import_module(runtime)
    path = Path(order["model"])
    engine, *beside = (Path(file) for file in order["files"])
    proto = read_model(path)
    logger = collecting_logger(trt)
    builder = trt.Builder(logger)
    # Since TensorRT 11 there are no other networks, and the flag may be gone.
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    _parse(trt, network, logger, path, proto)
    what = f"the network that {runtime} made of {path}"
    tensors = gate_values(what, ranks_of(network), order["max_rank"]) if order["max_rank"] is not None else None
    config = builder.create_builder_config()
    _configure(trt, builder, config, options)
    notes = _add_profile(builder, network, config, options["shapes"])
    facts: dict[str, Any] = {
        "version": str(trt.__version__),
        "devices": list(options["device"]),
        "metadata": metadata_of(proto),
        "tensors_checked": tensors,
        "layers": network.num_layers,
    }
    if options["dla"] is not None:
        facts["dla_fallback"] = _use_dla(trt, builder, network, config, options["dla"])
        if facts["dla_fallback"]:
            notes.append(
                f"{len(facts['dla_fallback'])} of {network.num_layers} layers run on the GPU instead of the DLA: "
                + ", ".join(facts["dla_fallback"][:_SHOWN])
                + (", …" if len(facts["dla_fallback"]) > _SHOWN else "")
            )
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise RuntimeFailed(f"{runtime} cannot build {path}: {logger.said()}", hint=_hint(logger.said()))
    engine.write_bytes(serialized)
    if options["timing_cache"] is not None:
        from edge4d.files import atomic_write

        atomic_write(options["timing_cache"], bytes(config.get_timing_cache().serialize()))
    if beside:
        layers, note = _layers(trt, logger, serialized, network)
        beside[0].write_text(json.dumps(layers, indent=1) + "\n", encoding="utf-8")
        notes.append(note)
    return {"engine": facts, "notes": notes}


def collecting_logger(trt: Any) -> Any:
    """A logger that prints nothing and keeps errors, for TensorRT gives its reasons nowhere else."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

        def said(self) -> str:
            """The errors, each once, the first ones."""
            return "; ".join(list(dict.fromkeys(self.errors))[:4])[:1500] or "it gives no reason"

    return Logger()


def ranks_of(network: Any) -> Iterator[Made]:
    """Every tensor of a network: its inputs, and what each layer makes, those inside loops and conditionals too."""
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        yield Made(tensor.name, _rank(tensor), "the input")
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        for j in range(layer.num_outputs):
            tensor = layer.get_output(j)
            if tensor is not None:
                yield Made(tensor.name, _rank(tensor), f"{layer.type.name} {layer.name!r}")


def _rank(tensor: Any) -> int | None:
    """Number of axes; None where TensorRT does not know it before it runs."""
    try:
        return len(tensor.shape)
    except ValueError:  # its Dims has then a negative length
        return None


def _parse(trt: Any, network: Any, logger: Any, path: Path, proto: onnx.ModelProto) -> None:
    """Fill the network from the file.

    Raises:
        ValidationError: says for each node that is refused which it is, the source layer, and why.
    """
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(path)):
        return
    layers = {node.name: _layer_of(node) for node in proto.graph.node}
    lines = []
    for i in range(parser.num_errors):
        error = parser.get_error(i)
        name, operator = error.node_name(), error.node_operator()
        source = f" (layer {layers[name]})" if layers.get(name) else ""
        place = f"{operator} {name!r}{source}: " if name or operator else ""
        lines.append(f"{place}{' '.join(error.desc().split())}")
    lines = list(dict.fromkeys(lines)) or [logger.said()]
    listed = "".join(f"\n    {line}" for line in lines[:_SHOWN])
    more = f"\n    and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    raise ValidationError(
        f"{path} holds what {trt.__name__} cannot take:{listed}{more}",
        hint="export it for another --opset, or report the operators that it names",
    )


def _layer_of(node: onnx.NodeProto) -> str:
    """The source layer that the exporter left in a node's metadata; empty where it did not."""
    return next((str(entry.value) for entry in node.metadata_props if entry.key == "edge4d.layer"), "")


def _configure(trt: Any, builder: Any, config: Any, options: Mapping[str, Any]) -> None:
    """Architectures, memory, timing cache, how much the engine tells about itself.

    Raises:
        UsageError: an architecture that this version does not know.
    """
    if options["workspace_mib"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options["workspace_mib"] << 20)
    if options["layers"]:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options["timing_cache"] is not None:
        file = Path(options["timing_cache"])
        config.set_timing_cache(config.create_timing_cache(file.read_bytes() if file.is_file() else b""), False)
    if not options["device"] or not hasattr(config, "num_compute_capabilities"):
        return
    known = trt.ComputeCapability.__members__
    config.num_compute_capabilities = len(options["device"])
    for i, name in enumerate(options["device"]):
        member = "CURRENT" if name == "current" else name.replace("_", "").upper()
        if member not in known:
            there = ", ".join(f"sm_{other[2:]}" for other in known if other.startswith("SM"))
            raise UsageError(
                f"{trt.__name__} {trt.__version__} does not build for {name}, expected one of: {there}, current"
            )
        if not config.set_compute_capability(known[member], i):
            raise RuntimeUnavailable(
                f"{trt.__name__} cannot build for {name} here", hint="name an architecture, e.g. --device sm_86"
            )


def _add_profile(builder: Any, network: Any, config: Any, shapes: Mapping[str, Any]) -> list[str]:
    """One optimisation profile for the inputs that leave sizes open.

    Raises:
        UsageError: such an input has no shapes, or shapes are given that do not fit.
    """
    inputs = {network.get_input(i).name: tuple(network.get_input(i).shape) for i in range(network.num_inputs)}
    for name in shapes:
        if name not in inputs:
            raise UsageError(f"shapes are given for {name!r}, the model's inputs are {', '.join(inputs)}")
    dynamic = {name: shape for name, shape in inputs.items() if -1 in shape}
    profile = builder.create_optimization_profile()
    for name, shape in inputs.items():
        three = shapes.get(name)
        if three is None:
            if name in dynamic:
                sizes = "x".join("?" if size == -1 else str(size) for size in shape)
                raise UsageError(
                    f"input {name!r} leaves sizes open ({sizes})", hint=f"give them: --shape-range {name}=MIN:BEST:MAX"
                )
            continue
        for given in three:
            if len(given) != len(shape) or any(s not in (-1, g) for s, g in zip(shape, given, strict=False)):
                raise UsageError(f"shape {tuple(given)} does not fit input {name!r}, {shape}")
        profile.set_shape(name, *(tuple(given) for given in three))
    if dynamic:
        config.add_optimization_profile(profile)
    return [f"sizes of {name!r} are open between the shapes given" for name in dynamic]


def _use_dla(trt: Any, builder: Any, network: Any, config: Any, core: int) -> list[str]:
    """Send the layers that a DLA core can take to it; names the others.

    Raises:
        RuntimeUnavailable: there is no such core.
    """
    cores = int(getattr(builder, "num_DLA_cores", 0))
    if core >= cores:
        raise RuntimeUnavailable(
            f"there is no DLA core {core} here, TensorRT finds {cores}",
            hint="build on the Jetson or DRIVE that has it, with a TensorRT that supports its DLA",
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = (network.get_layer(i) for i in range(network.num_layers))
    return [f"{layer.type.name} {layer.name!r}" for layer in layers if not config.can_run_on_DLA(layer)]


def _layers(trt: Any, logger: Any, serialized: Any, network: Any) -> tuple[dict[str, Any], str]:
    """The engine's layers by its inspector, which needs a GPU; without one, those of the parsed network."""
    from edge4d.exporters.cuda import why_no_gpu

    missing = why_no_gpu()
    if missing is None and (engine := trt.Runtime(logger).deserialize_cuda_engine(serialized)) is not None:
        text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        return {"of": "engine", **json.loads(text)}, "the layers are those of the engine"
    listed = []
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        outputs = [layer.get_output(j) for j in range(layer.num_outputs)]
        made = [
            {"name": t.name, "shape": None if _rank(t) is None else list(t.shape), "dtype": t.dtype.name}
            for t in outputs
            if t is not None
        ]
        listed.append({"name": layer.name, "type": layer.type.name, "outputs": made})
    why = missing or f"the engine is for another GPU ({logger.said()})"
    return {"of": "network", "layers": listed}, f"the layers are those of the parsed network, not of the engine: {why}"


def _hint(said: str) -> str | None:
    if "SM75" in said:
        return "Turing takes no float32 matrix products: export with fp16 weights, or leave sm_75 out"
    if "CUDA" in said or "cuda" in said:
        return "name the architecture, e.g. --device sm_86: then no GPU is needed to build"
    return None
