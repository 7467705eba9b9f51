"""Logical arrays as a graph takes them, and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edge4d.errors import PackingError
from edge4d.ports import OPEN, Port, fits, sizes_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

__all__ = ["in_type", "pack", "unpack"]


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
    if port.shape and not fits(given.shape, port.shape):  # of an undeclared rank the runtime itself is the judge
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
    if not fits(given.shape, port.physical) or not _divides(given.size, port.shape):
        raise PackingError(
            f"output {port.name!r}: got shape {sizes_text(given.shape)}, the file declares {sizes_text(port.physical)}"
        )
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
    message = f"input {port.name!r}: got shape {sizes_text(got)}, expected {sizes_text(port.shape)}{axes}"
    if port.packing is not None and got == port.physical:
        message += (
            "; what was given is packed already, as the graph itself takes it: pass it as it was before packing, "
            "or feed packed arrays to the runtime's own session"
        )
    elif len(got) == len(port.shape) - 1 and fits((1, *got), port.shape):
        message += "; the batch axis is missing: array[None] adds it"
    return message


def in_type(array: Any, kind: str) -> Any:
    """A float array in the width that an input takes; anything else as it is, for the input itself to judge."""
    import numpy as np

    given = np.asarray(array)
    return given.astype(kind) if given.dtype.kind == "f" and kind in ("float16", "float32", "float64") else array
