"""OpenVINO: IR (``.xml`` and ``.bin``) that any of its devices takes, or a blob compiled for one of them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edge4d.errors import ExportError, RuntimeFailed, RuntimeUnavailable, UsageError, ValidationError
from edge4d.exporters.assembling import Compiler, assemble, description_beside, refuse_suffix
from edge4d.exporters.child import check_timeout
from edge4d.exporters.gating import Made, gate_values
from edge4d.exporters.openvino_session import (
    EIGHT_BITS,
    OpenVinoSession,
    is_at_hand,
    one_line,
    properties,
    refuse_property,
)
from edge4d.exporters.options import as_names, check_count, check_settings, checked
from edge4d.exporters.protocol import Availability, BuildResult, Session, require
from edge4d.exporters.remote import RemoteSession

__all__ = ["OpenVino", "Options", "compile_engine"]

_INSTALL = 'pip install "edge4d[openvino]"'


@dataclass(frozen=True)
class Options:
    """How a model is compiled.

    Attributes:
        device: OpenVINO's name for it: ``CPU``, ``GPU``, ``NPU``, ``AUTO:NPU,CPU``, ``HETERO:NPU,CPU``… Empty for
            the one that the engine was built for, or else the CPU.
        threads: CPU threads, 0 for OpenVINO's own choice.
        settings: OpenVINO's own properties, e.g. ``NUM_STREAMS``. Unless told otherwise it keeps the types of the model
            (``EXECUTION_MODE_HINT=ACCURACY``), for of itself it computes float32 in less where the hardware can.
    """

    device: str = ""
    threads: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = as_names(self.device)
        if len(named) != 1:
            raise UsageError(f"openvino takes one device, got {len(named)}", hint="several: --device AUTO:NPU,CPU")
        object.__setattr__(self, "device", named[0].upper())
        check_count("threads", self.threads)
        object.__setattr__(self, "settings", check_settings(self.settings))


class OpenVino:
    """The exporter; see `edge4d.exporters.protocol.Exporter`."""

    name = "openvino"
    suffixes: tuple[str, ...] = (".xml", ".blob", ".onnx")
    open_options: tuple[str, ...] = tuple(field.name for field in fields(Options))

    def probe(self) -> Availability:
        """Whether OpenVINO can be imported here; never raises."""
        try:
            openvino: Any = importlib.import_module("openvino")
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == "openvino"
            why = "it is not installed" if missing else f"it is installed but cannot be imported: {error}"
            return Availability(ok=False, why_not=why, install=_INSTALL)
        return Availability(ok=True, version=str(openvino.__version__).split("-")[0])

    def open(self, path: Path, *, timeout: float | None = None, **options: Any) -> Session:
        """Load ``.xml``, ``.blob`` or ``.onnx``; for `options` see `Options`.

        OpenVINO compiles IR when it is opened, which has been seen not to end: it lives in a child process, unless
        `timeout` is 0.
        """
        path = Path(path)
        chosen, limit = checked(Options, self.name, options), check_timeout(timeout)
        require(self)
        if path.suffix.lower() == ".onnx":
            from edge4d.exporters.sources import model_files

            model_files(path)
            recipe: dict[str, Any] = {}
        else:
            recipe = description_beside(path, self.name)
        chosen = replace(chosen, device=chosen.device or str(recipe.get("engine", {}).get("device", "CPU")))
        if limit == 0:
            return OpenVinoSession(path, chosen, recipe.get("engine", {}))
        argument = {"runtime": self.name, "path": str(path), "options": asdict(chosen)}
        return RemoteSession(path, "edge4d.exporters.remote:open_here", argument, limit)

    def build(
        self,
        model_path: Path,
        output: Path,
        *,
        max_rank: int | None = 4,
        timeout: float | None = None,
        **options: Any,
    ) -> BuildResult:
        """Write IR, or by `output`'s suffix a ``.blob`` that needs no compiling when it is opened.

        IR belongs to no device; it is compiled for `device` once, where that is at hand, to see that it can be.
        """
        output = Path(output)
        chosen = checked(Options, self.name, options)
        chosen = replace(chosen, device=chosen.device or "CPU")
        require(self)
        refuse_suffix(output, self.name, self.suffixes[:2])
        beside = [output.with_suffix(".bin")] if output.suffix.lower() == ".xml" else []
        compiler = Compiler(self.name, f"{__name__}:compile_engine", ("openvino", "onnx"))
        return assemble(
            compiler, Path(model_path), [output, *beside], asdict(chosen), max_rank=max_rank, timeout=timeout
        )


def compile_engine(order: Mapping[str, Any]) -> dict[str, Any]:
    """Convert, gate, compile, save; see `edge4d.exporters.assembling.Compiler`."""
    from edge4d.describing import metadata_of, ports_of
    from edge4d.validators.reading import read_model

    ov: Any = importlib.import_module("openvino")
    path, options = Path(order["model"]), Options(**order["options"])
    engine, *beside = (Path(file) for file in order["files"])
    proto = read_model(path)
    inputs, outputs = ports_of(proto)
    core = ov.Core()
    try:
        model = core.read_model(str(path))
    except Exception as error:  # of OpenVINO's C++ side, as RuntimeError
        raise ValidationError(
            f"{path} holds what OpenVINO cannot convert: {one_line(error)}", hint="export it for another --opset"
        ) from error
    notes = []
    if order["max_rank"] is not None:
        weights = _gate(path, model, order["max_rank"])
        if weights:
            notes.append(
                f"{weights} weights have more than {order['max_rank']} axes: OpenVINO writes grouped convolutions so"
            )
    there = is_at_hand(core, options.device)
    facts = {
        "metadata": metadata_of(proto),
        "inputs": [port.name for port in inputs],
        "outputs": [port.name for port in outputs],
        "device": options.device,
        "compiled": there,
    }
    if not there and not beside:
        raise RuntimeUnavailable(
            f"OpenVINO sees no {options.device} here, it has: {', '.join(core.available_devices)}",
            hint="a .blob is compiled on its device; write .xml, which is compiled where it is opened",
        )
    if there:
        try:
            told = properties(options, model)
            if told.get(EIGHT_BITS) == "NO" and EIGHT_BITS not in options.settings:
                notes.append(
                    "int8 values are computed in float32 on this CPU, rounded as the graph says, since OpenVINO's own "
                    f"8-bit kernels gave other numbers; `--option {EIGHT_BITS}=YES` uses them: see `edge4d parity`"
                )
            compiled = core.compile_model(model, options.device, told)
        except Exception as error:  # as above
            refuse_property(path, error)
            raise RuntimeFailed(f"OpenVINO cannot compile {path} for {options.device}: {one_line(error)}") from error
        if not beside:
            engine.write_bytes(compiled.export_model().getvalue())
    else:
        notes.append(
            f"not compiled: OpenVINO sees no {options.device} here, it has: {', '.join(core.available_devices)}"
        )
    if beside:
        # Weights keep their type: whoever wants float16 says so before, for every runtime alike.
        try:
            ov.save_model(model, str(engine), compress_to_fp16=False)
        except Exception as error:  # as above
            raise ExportError(
                f"cannot write {engine.name}: OpenVINO could not write it: {one_line(error)}",
                hint="is the disk full? free some space or write to another disk with -o",
            ) from error
    return {"engine": facts, "notes": notes}


def _gate(path: Path, model: Any, max_rank: int) -> int:
    """Hold every value that depends on an input against the limit; gives the number of weights above it."""
    fixed: set[str] = set()
    above = 0
    values: list[Made] = []
    for op in model.get_ordered_ops():
        name, kind = op.get_friendly_name(), op.get_type_name()
        sources = [value.get_node().get_friendly_name() for value in op.input_values()]
        constant = kind == "Constant" or (bool(sources) and fixed.issuperset(sources))
        if constant:
            fixed.add(name)
            above += sum((made.rank or 0) > max_rank for made in _made(op, name, kind))
        else:
            values += _made(op, name, kind)
    gate_values(f"the graph that OpenVINO made of {path}", values, max_rank)
    return above


def _made(op: Any, name: str, kind: str) -> Iterator[Made]:
    for i, output in enumerate(op.outputs()):
        rank = output.get_partial_shape().rank
        yield Made(
            name if i == 0 else f"{name}:{i}", None if rank.is_dynamic else rank.get_length(), f"{kind} {name!r}"
        )
