"""Sets of inputs from files: ``.npz`` with one array for each input, ``.npy`` for a model with one input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge4d.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from edge4d.ports import Port

__all__ = ["read_sets"]


def read_sets(paths: Sequence[Path], ports: Sequence[Port], *, strict: bool) -> list[dict[str, np.ndarray]]:
    """Every set of inputs that some files hold.

    Args:
        paths: each one set, or several stacked along the first axis: (K * N, C, T, H, W) for an input (N, C, T, H, W).
        ports: the inputs; -1 for a size that is open.
        strict: hold shapes and dtypes against the ports (floats may be of any width); else an array of another shape
            is one set as it stands, and the model is the judge.

    Returns:
        Logical arrays by input name, in the order of the ports.

    Raises:
        UsageError: a file that cannot be read, arrays for other inputs, another shape or dtype, or no clip at all.
    """
    sets = []
    for path in paths:
        arrays = _read(path, [port.name for port in ports])
        pieces = {port.name: _pieces(path, port, arrays[port.name], strict) for port in ports}
        counts = {name: len(found) for name, found in pieces.items()}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise UsageError(f"--clips {path}: the inputs have different numbers of sets: {said}")
        sets += [{name: found[i] for name, found in pieces.items()} for i in range(min(counts.values(), default=0))]
    return sets


def _pieces(path: Path, port: Port, array: np.ndarray, strict: bool) -> list[np.ndarray]:
    shape = port.shape
    if len(array.shape) == len(shape) and _fits(array.shape, shape):
        pieces = [array]
    elif (
        len(array.shape) == len(shape) > 0
        and shape[0] > 0
        and _fits(array.shape[1:], shape[1:])
        and array.shape[0] % shape[0] == 0
    ):
        pieces = [array[i : i + shape[0]] for i in range(0, array.shape[0], shape[0])]
    elif strict:
        missing = len(array.shape) == len(shape) - 1 and _fits((1, *array.shape), shape)
        raise UsageError(
            f"--clips {path}: the array for input {port.name!r} has shape {_x(array.shape)}, expected {_x(shape)}, or "
            "several of them along the first axis",
            hint="the batch axis is missing: np.savez(path, x=clip[None])" if missing else "crop or resample the clips",
        )
    else:
        pieces = [array]
    if not pieces:
        raise UsageError(f"--clips {path}: the array for input {port.name!r} holds no clip")
    if strict and array.dtype.name != port.dtype and not ("float" in port.dtype and array.dtype.kind == "f"):
        raise UsageError(
            f"--clips {path}: the array for input {port.name!r} is of dtype {array.dtype.name}, expected {port.dtype}",
            hint=f"convert it as your own code does, e.g. clip.astype({port.dtype!r}), scaled the way the model wants",
        )
    return pieces


def _read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a file: by the inputs' names when it has them, else in its own order."""
    import numpy as np

    from edge4d.clips import load_inputs

    if path.suffix.lower() != ".npy" or not path.is_file():
        return load_inputs(path, names, "--clips")
    if len(names) != 1:
        raise UsageError(
            f"--clips {path}: holds one array; the model's inputs are {', '.join(names)}",
            hint="write an .npz with an array for each",
        )
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # nothing is read before it is used
    except (OSError, ValueError, EOFError) as error:
        hint = "write it with np.save(path, clips)"
        raise UsageError(f"--clips {path}: cannot be read as an .npy: {error}", hint=hint) from error
    return {names[0]: array}


def _fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    return len(shape) == len(declared) and all(d in (s, -1) for s, d in zip(shape, declared, strict=True))


def _x(shape: Sequence[int]) -> str:
    return "x".join("?" if size < 0 else str(size) for size in shape) or "()"
