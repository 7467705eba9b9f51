"""The description of an artifact's inputs and outputs in its own `metadata_props`: logical shapes and packings.

Every port that has more than four logical axes is described. What is read here may come from strangers: patterns and
sizes are parsed as text and checked against the graph, and nothing from the file is run.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge4d.errors import PackingError, UsageError, ValidationError
from edge4d.intake import PIXELS, Intake, Normalize
from edge4d.patterns import parse_pattern
from edge4d.ports import OPEN, Port, fits, ports_text, sizes_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx

__all__ = ["attach", "describe", "metadata_of", "ports_of"]

_SHAPE, _PACKING = "edge4d.shape.", "edge4d.packing."
_FIXED = "edge4d.fixed."
_LAYOUT, _NORMALIZE = "edge4d.layout.", "edge4d.normalize."
_LONGEST = 1000
"""Characters that a description of one port may have; a pattern of 32 axes has far fewer."""

OPEN_BATCH = "N"
"""Stands in a described shape for the one size that a graph leaves open, e.g. ``Nx3x16x112x112``."""


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
    fixed: Mapping[str, Any] | None = None,
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
        fixed: values of inputs that are constants of the graph, by name.

    Raises:
        ValidationError: the ports are not those of the graph, or a packing that does not fit.
    """
    kept = [(entry.key, entry.value) for entry in model.metadata_props if not entry.key.startswith("edge4d.")]
    entries = {"edge4d.version": version, "edge4d.block": block, "edge4d.source": source}
    entries["edge4d.precision"] = precision
    entries |= {_FIXED + name: json.dumps(value) for name, value in (fixed or {}).items()}
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
            raise ValidationError(f"the {role} {ports_text(given)} are not those of the graph, {ports_text(read)}")
        for port, there in zip(given, read, strict=True):
            if port.dtype != there.dtype:
                raise ValidationError(
                    f"{port.name!r} of the {role} is {port.dtype}, and {there.dtype} in the graph",
                    hint="convert it to a common type in the model, e.g. .float(), or report it",
                )


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
            f"{where} does not fit {port.name!r}, {sizes_text(port.shape)} packed by {port.packing!r}", hint=_AGAIN
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
    if not fits(physical, port.physical):
        raise ValidationError(
            f"{packing_key!r} in the file's metadata packs {sizes_text(shape)} into {sizes_text(physical)}, "
            f"but the graph declares {port.name!r} as {sizes_text(port.physical)}",
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
