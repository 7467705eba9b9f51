"""Shapes of the inputs of a file that says itself which inputs it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge4d.errors import UsageError

if TYPE_CHECKING:
    from edge4d.loading.onnx.module import GraphInput

__all__ = ["declared_shapes"]


def declared_shapes(
    ports: Sequence[GraphInput], given: Sequence[tuple[int, ...]]
) -> tuple[tuple[tuple[int, ...], ...], str]:
    """One shape for each input, and a sentence that says where they came from.

    Args:
        ports: the inputs, with the sizes that the file fixes.
        given: the user's shapes, one an input, in order; may be empty. An open first axis is then a batch of 1.

    Raises:
        UsageError: another number of shapes, one that the file rules out, or an open size that nobody tells.
    """
    if not given:
        return tuple(_own(port, ports) for port in ports), (
            "from the file, with a batch of 1"
            if any(port.shape and not isinstance(port.shape[0], int) for port in ports)
            else "from the file"
        )
    if len(given) != len(ports):
        raise UsageError(
            f"the model takes {len(ports)} input{'' if len(ports) == 1 else 's'} ({_all(ports)}), --input-shape was "
            f"given {len(given)} time(s): {', '.join(map(_sizes, given))}",
            hint="give --input-shape once per input, in the order of the file",
        )
    for port, shape in zip(ports, given, strict=True):
        fits = port.shape is None or (
            len(port.shape) == len(shape)
            and all(not isinstance(size, int) or size == got for size, got in zip(port.shape, shape, strict=True))
        )
        if not fits:
            raise UsageError(
                f"the file says {_said(port)}, --input-shape gave {_sizes(shape)}",
                hint="leave --input-shape out, or export the file again with that shape or with open axes",
            )
    return tuple(tuple(shape) for shape in given), "from --input-shape"


def _own(port: GraphInput, ports: Sequence[GraphInput]) -> tuple[int, ...]:
    open_axes = [] if port.shape is None else [i for i, size in enumerate(port.shape) if not isinstance(size, int)]
    if port.shape is None or any(axis > 0 for axis in open_axes):
        raise UsageError(
            f"the file leaves the shape of its input open: {_said(port)}",
            hint="give a shape for each input, in this order: "
            + " ".join(f"--input-shape {_example(one)}" for one in ports),
        )
    return tuple(size if isinstance(size, int) else 1 for size in port.shape)


def _example(port: GraphInput) -> str:
    if port.shape is None:
        return "1x3x16x112x112"
    return _sizes([size if isinstance(size, int) else 16 if i else 1 for i, size in enumerate(port.shape)])


def _said(port: GraphInput) -> str:
    return f"{port.name}: {'any shape' if port.shape is None else _sizes([size or '?' for size in port.shape])}"


def _all(ports: Sequence[GraphInput]) -> str:
    return ", ".join(map(_said, ports))


def _sizes(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape)) or "scalar"
