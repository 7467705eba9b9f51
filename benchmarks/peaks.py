"""What a machine can do at most on a runtime, as files that take their turns with networks: products, and a sum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.candidates import LIMIT, built
from edge4d.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

__all__ = ["ADD", "GEMM", "gb_s", "gemm_macs", "gflop_s", "write_add", "write_gemm"]

GEMM, ADD = "gemm", "add"

_FLOAT = 4
_COLUMNS = 1024
_PRODUCTS = 8


def gemm_macs(side: int) -> int:
    """Multiply-accumulates of `write_gemm`."""
    return _PRODUCTS * side**3


def write_gemm(side: int, folder: Path, runtime: str) -> Path:
    """A file that multiplies a square matrix by constant weights several times, held against numpy before it is timed.

    Nothing but the first column leaves the graph, and one product follows the other: a single one is so short that
    waking threads and fetching memory for its result take half of the time.

    Args:
        side: of both matrices.
        folder: for the file.
        runtime: what it is built for.

    Raises:
        UsageError: the product is wrong.
    """
    from onnx import helper

    weights, matrix = _numbers((side, side), (side, side))
    weights /= side**0.5  # keeps the numbers where they are
    product, name, nodes = matrix.astype("float64"), "x", []
    for place in range(_PRODUCTS):
        product = product @ weights
        nodes.append(helper.make_node("MatMul", [name, "w"], [f"p{place}"]))
        name = f"p{place}"
    cut = _first_column()
    nodes.append(helper.make_node("Slice", [name, *cut], ["y"]))
    return _written(GEMM, nodes, {"w": weights, **cut}, matrix, product[:, :1], folder, runtime, "product of matrices")


def write_add(mebibytes: int, folder: Path, runtime: str) -> Path:
    """A file that adds its input, one number, to a constant matrix: every element is read once and written once.

    Nothing but the first column leaves the graph, so that neither large inputs nor large results are copied in the time
    that is taken.

    Args:
        mebibytes: of the matrix; more than the caches hold.
        folder: for the file.
        runtime: what it is built for.

    Raises:
        UsageError: the sum is wrong.
    """
    import numpy as np
    from onnx import helper

    rows = mebibytes * 2**20 // (_FLOAT * _COLUMNS)
    matrix, number = _numbers((rows, _COLUMNS), (1, 1))
    cut = _first_column()
    nodes = [
        helper.make_node("Add", ["w", "x"], ["sum"]),
        helper.make_node("Slice", ["sum", *cut], ["y"]),
    ]
    total = matrix[:, :1].astype(np.float64) + number
    return _written(ADD, nodes, {"w": matrix, **cut}, number, total, folder, runtime, "sum")


def gflop_s(products: int, milliseconds: float) -> float:
    """Two operations a multiply-accumulate; four significant digits."""
    return float(f"{2 * products / milliseconds / 1e6:.4g}")


def gb_s(mebibytes: int, milliseconds: float) -> float:
    """Of `write_add`: what is read and what is written, in 10⁹ bytes a second; four significant digits."""
    return float(f"{2 * mebibytes * 2**20 / milliseconds / 1e6:.4g}")


def _first_column() -> dict[str, np.ndarray]:
    """What a Slice is given for it, by name and in order."""
    import numpy as np

    return {"start": np.array([0]), "stop": np.array([1]), "axis": np.array([1])}


def _numbers(*shapes: tuple[int, int]) -> list[np.ndarray]:
    import numpy as np

    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape, dtype=np.float32) for shape in shapes]


def _written(
    name: str,
    nodes: Sequence[Any],
    weights: dict[str, np.ndarray],
    x: np.ndarray,
    wanted: np.ndarray,
    folder: Path,
    runtime: str,
    said: str,
) -> Path:
    """The file of one input ``x`` and one output ``y``, opened and run once."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from edge4d.artifact import open as open_artifact

    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, wanted.shape)],
        [numpy_helper.from_array(value, label) for label, value in weights.items()],
    )
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    if runtime != "onnxruntime":
        path = built(path, runtime)
    with open_artifact(path) as opened:
        (got,) = opened(x).values()
    if not np.abs(got - wanted).max() <= LIMIT * np.ptp(wanted):
        raise UsageError(f"{runtime} gives a wrong {said}")
    return path
