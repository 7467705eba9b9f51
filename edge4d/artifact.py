"""An artifact as its user sees it: logical arrays in, logical arrays out, whatever runtime lies between.

An ONNX file carries, in its `metadata_props`, the logical shape and the packing of every input and output that has
more than four logical axes. What is read here may come from strangers: patterns and sizes are parsed as text and
checked against the graph, and nothing from the file is run.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import PackingError, UsageError, ValidationError
from edge4d.intake import PIXELS, Intake, Normalize
from edge4d.patterns import parse_pattern
from edge4d.ports import OPEN, Port

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    import onnx

    from edge4d.exporters.protocol import Session

__all__ = [
    "Opened",
    "attach",
    "describe",
    "in_type",
    "in_types_of",
    "metadata_of",
    "open",
    "pack",
    "ports_of",
    "unpack",
]

_SHAPE, _PACKING = "edge4d.shape.", "edge4d.packing."
_LAYOUT, _NORMALIZE = "edge4d.layout.", "edge4d.normalize."
_LONGEST = 1000
"""Characters that a description of one port may have; a pattern of 32 axes has far fewer."""

OPEN_BATCH = "N"
"""Stands in a described shape for the one size that a graph leaves open, e.g. ``Nx3x16x112x112``."""


# ---- the description in the file --------------------------------------------------------------------------------


def ports_of(model: onnx.ModelProto) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs of an ONNX model; its own shapes are the logical ones where it carries no description.

    Args:
        model: any ONNX model; its weights need not be loaded. Inputs that are initializers too are left out.

    Returns:
        (inputs, outputs). A size that the file leaves open is -1; the shape () stands for a scalar and for an
        undeclared rank.

    Raises:
        ValidationError: a description that is malformed or does not fit the graph, or a port that is no tensor.
    """
    initialized = {tensor.name for tensor in model.graph.initializer}
    inputs = [_declared(value, "input") for value in model.graph.input if value.name not in initialized]
    outputs = [_declared(value, "output") for value in model.graph.output]
    metadata = metadata_of(model)
    return attach(inputs, metadata), attach(outputs, metadata)


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """The model's `metadata_props`.

    Raises:
        ValidationError: the same edge4d key twice with different values.
    """
    result: dict[str, str] = {}
    for entry in model.metadata_props:
        if entry.key.startswith("edge4d.") and result.get(entry.key, entry.value) != entry.value:
            raise ValidationError(f"the file's metadata has {entry.key!r} twice, with different values", hint=_AGAIN)
        result[entry.key] = entry.value
    return result


def attach(ports: Iterable[Port], metadata: Mapping[str, str]) -> tuple[Port, ...]:
    """Give physical ports the logical shapes and packings that an artifact's metadata holds for their names.

    Args:
        ports: as a runtime declares them; `shape` and `packing` are ignored.
        metadata: `edge4d.shape.NAME` and `edge4d.packing.NAME`, `edge4d.layout.NAME` and `edge4d.normalize.NAME` for
            some of them; anything else is ignored.

    Raises:
        ValidationError: malformed, one without the other, or a packed shape other than the declared one.
    """
    return tuple(_taken(_described(port, metadata), metadata) for port in ports)


def describe(
    model: onnx.ModelProto,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    *,
    version: str,
    block: str,
    source: str,
    precision: str = "fp32",
) -> None:
    """Write the description into a model, in place of any that it carries.

    Args:
        model: changed in place.
        inputs: every graph input, in order; those with a packing are described.
        outputs: every graph output, likewise.
        version: of edge4d.
        block: the formulation, e.g. ``exact``.
        source: file name and SHA-256 of the model that was exported.
        precision: what its types compute in: ``fp32``, ``fp16`` or ``int8``.

    Raises:
        ValidationError: the ports are not those of the graph, or a packing that does not fit.
    """
    kept = [(entry.key, entry.value) for entry in model.metadata_props if not entry.key.startswith("edge4d.")]
    entries = {"edge4d.version": version, "edge4d.block": block, "edge4d.source": source}
    entries["edge4d.precision"] = precision
    for port in (*inputs, *outputs):
        if port.packing is not None:
            entries[_SHAPE + port.name] = "x".join(OPEN_BATCH if size == OPEN else str(size) for size in port.shape)
            entries[_PACKING + port.name] = port.packing
        if port.intake is not None and port.intake.last:
            entries[_LAYOUT + port.name] = port.intake.layout
        if port.intake is not None and port.intake.normalize is not None:
            entries[_NORMALIZE + port.name] = port.intake.normalize.text
    del model.metadata_props[:]
    for key, value in (*kept, *entries.items()):
        model.metadata_props.add(key=key, value=value)
    for role, given, read in zip(("inputs", "outputs"), (inputs, outputs), ports_of(model), strict=True):
        if [_facts(port) for port in given] != [_facts(port) for port in read]:
            raise ValidationError(f"the {role} {_said(given)} are not those of the graph, {_said(read)}")


_AGAIN = "the file was damaged or edited after export; export it again"


def _facts(port: Port) -> tuple[object, ...]:
    return port.name, port.shape, port.packing, port.intake


def _taken(port: Port, metadata: Mapping[str, str]) -> Port:
    """A port with what the file says of how it takes its frames."""
    layout, text = metadata.get(_LAYOUT + port.name), metadata.get(_NORMALIZE + port.name)
    if layout is None and text is None:
        return port
    where = f"{(_LAYOUT if text is None else _NORMALIZE) + port.name!r} in the file's metadata"
    if max(len(layout or ""), len(text or "")) > _LONGEST:
        raise ValidationError(f"{where} is longer than {_LONGEST} characters", hint=_AGAIN)
    try:
        intake = Intake(layout or "nchw", Normalize.of(text) if text is not None else None)
    except UsageError as error:
        raise ValidationError(f"{where} cannot be read: {error.message}", hint=_AGAIN) from error
    rank = len(port.shape)
    if rank not in (4, 5) or (intake.last and port.packing != intake.pattern(rank)):
        raise ValidationError(
            f"{where} does not fit {port.name!r}, {_x(port.shape)} packed by {port.packing!r}", hint=_AGAIN
        )
    channels = intake.own_shape(port.shape)[1]
    if intake.normalize is not None and (port.dtype != PIXELS or intake.normalize.channels not in (None, channels)):
        raise ValidationError(f"{where} does not fit {port.name!r}, {port.dtype} of {channels} channels", hint=_AGAIN)
    return replace(port, intake=intake)


def _described(port: Port, metadata: Mapping[str, str]) -> Port:
    shape_key, packing_key = _SHAPE + port.name, _PACKING + port.name
    text, pattern = metadata.get(shape_key), metadata.get(packing_key)
    if text is None and pattern is None:
        return Port(port.name, port.physical, port.physical, port.dtype)
    if text is None or pattern is None:
        there, missing = (shape_key, packing_key) if pattern is None else (packing_key, shape_key)
        raise ValidationError(f"the file's metadata has {there!r} but no {missing!r}", hint=_AGAIN)
    if len(text) > _LONGEST or len(pattern) > _LONGEST:
        raise ValidationError(
            f"the file's metadata for {port.name!r} is longer than {_LONGEST} characters", hint=_AGAIN
        )
    size = rf"([1-9]\d{{0,9}}|{OPEN_BATCH})"
    if not re.fullmatch(rf"{size}(x{size})*", text, re.ASCII) or text.count(OPEN_BATCH) > 1:
        raise ValidationError(
            f"{shape_key!r} in the file's metadata is {text!r}, expected sizes such as '1x3x16x112x112'", hint=_AGAIN
        )
    shape = tuple(OPEN if size == OPEN_BATCH else int(size) for size in text.split("x"))
    try:
        physical = _packed(pattern, shape)
    except PackingError as error:
        raise ValidationError(f"{packing_key!r} in the file's metadata: {error.message}", hint=_AGAIN) from error
    if not _fits(physical, port.physical):
        raise ValidationError(
            f"{packing_key!r} in the file's metadata packs {_x(shape)} into {_x(physical)}, "
            f"but the graph declares {port.name!r} as {_x(port.physical)}",
            hint=_AGAIN,
        )
    return Port(port.name, shape, physical, port.dtype, pattern)


def _packed(pattern: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The physical shape; the axis that holds an open logical size is open itself."""
    one, two = (parse_pattern(pattern, [n if size == OPEN else size for size in shape]) for n in (1, 2))
    pairs = zip(one.physical_shape, two.physical_shape, strict=True)
    return tuple(a if a == b else OPEN for a, b in pairs)


def _declared(value: onnx.ValueInfoProto, role: str) -> Port:
    import onnx

    if value.type.WhichOneof("value") != "tensor_type":
        kind = value.type.WhichOneof("value") or "value of no type"
        raise ValidationError(f"{role} {value.name!r} is a {kind}; edge4d reads tensors only")
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else OPEN for d in tensor.shape.dim)
    try:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
    except ValueError as error:
        raise ValidationError(f"{role} {value.name!r} has an unknown element type {tensor.elem_type}") from error
    dtype = {"FLOAT": "float32", "DOUBLE": "float64", "STRING": "str"}.get(kind, kind.lower())
    return Port(value.name, shape, shape, dtype)


# ---- arrays -----------------------------------------------------------------------------------------------------


def pack(array: Any, port: Port) -> np.ndarray:
    """Check a logical array and lay it out as the graph takes it.

    Args:
        array: of shape `port.shape` (e.g. N C T H W) and dtype `port.dtype`; anything that numpy can see as an array.
        port: the input; sizes of -1 accept any size.

    Returns:
        A contiguous array of shape `port.physical`.

    Raises:
        PackingError: another shape or dtype; says which input, got and expected.
    """
    import numpy as np

    given = np.asarray(array)
    if port.shape and not _fits(given.shape, port.shape):  # of an undeclared rank the runtime itself is the judge
        raise PackingError(_wrong_shape(given.shape, port))
    text = port.dtype == "str" and given.dtype.kind in "OUT"
    if given.dtype.name != port.dtype and not text:
        raise PackingError(
            f"input {port.name!r}: got dtype {given.dtype.name}, the graph takes {port.dtype}",
            hint=f"convert it first, e.g. {port.name}.astype({port.dtype!r})",
        )
    if not given.dtype.isnative:
        given = given.astype(given.dtype.newbyteorder("="))
    if port.packing is None:
        return given if given.flags.c_contiguous else given.copy(order="C")
    return np.ascontiguousarray(given.transpose(_memory_order(port.packing))).reshape(port.physical)


def unpack(array: Any, port: Port) -> np.ndarray:
    """The logical view of what a graph gave for an output; nothing is copied.

    Args:
        array: of shape `port.physical`.
        port: the output.

    Returns:
        An array of shape `port.shape`.

    Raises:
        PackingError: the graph gave another shape than it declares.
    """
    import numpy as np

    given: np.ndarray = np.asarray(array)
    if port.packing is None:
        return given
    if not _fits(given.shape, port.physical) or not _divides(given.size, port.shape):
        raise PackingError(f"output {port.name!r}: got shape {_x(given.shape)}, the file declares {_x(port.physical)}")
    order = _memory_order(port.packing)
    logical: np.ndarray = given.reshape([port.shape[axis] for axis in order]).transpose(np.argsort(order))
    return logical


def _divides(count: int, shape: Sequence[int]) -> bool:
    """Whether so many elements make whole samples of an open batch."""
    known = math.prod(size for size in shape if size != OPEN)
    return OPEN not in shape or (known > 0 and count % known == 0)


def _memory_order(pattern: str) -> list[int]:
    """The logical axes in the order in which a (checked) pattern lays them out."""
    left, right = pattern.split("->")
    names = left.split()
    return [names.index(name) for name in right.replace("(", " ").replace(")", " ").split()]


def _wrong_shape(got: tuple[int, ...], port: Port) -> str:
    axes = f" ({port.packing.split('->')[0].strip()})" if port.packing else ""
    message = f"input {port.name!r}: got shape {_x(got)}, expected {_x(port.shape)}{axes}"
    if port.packing is not None and got == port.physical:
        message += (
            "; what was given is packed already, as the graph itself takes it: pass it as it was before packing, "
            "or feed packed arrays to the runtime's own session"
        )
    elif len(got) == len(port.shape) - 1 and _fits((1, *got), port.shape):
        message += "; the batch axis is missing: array[None] adds it"
    return message


def _fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    return len(shape) == len(declared) and all(d in (s, OPEN) for s, d in zip(shape, declared, strict=True))


def _x(shape: Sequence[int]) -> str:
    return "x".join("?" if size == OPEN else str(size) for size in shape) or "()"


def _said(ports: Sequence[Port]) -> str:
    return ", ".join(f"{port.name} {_x(port.shape)}" for port in ports) or "none"


# ---- a runtime behind it ----------------------------------------------------------------------------------------


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
        return f"Opened({str(self.path)!r}, inputs: {_said(self.inputs)}, outputs: {_said(self.outputs)})"


def in_types_of(opened: Opened) -> Callable[..., dict[str, np.ndarray]]:
    """An artifact that takes floats of any width and gives each input those that it declares."""

    def run(*arrays: Any, **named: Any) -> dict[str, np.ndarray]:
        kinds = {port.name: port.dtype for port in opened.inputs}
        given = [in_type(array, kind) for array, kind in zip(arrays, kinds.values(), strict=False)]
        return opened(*given, *arrays[len(given) :], **{k: in_type(a, kinds.get(k, "")) for k, a in named.items()})

    return run


def in_type(array: Any, kind: str) -> Any:
    """A float array in the width that an input takes; anything else as it is, for the input itself to judge."""
    import numpy as np

    given = np.asarray(array)
    return given.astype(kind) if given.dtype.kind == "f" and kind in ("float16", "float32", "float64") else array


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
