"""Shape arithmetic: nodes whose inputs are all known are computed in numpy, by ONNX's own reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge4d.loading.onnx.node import Unsupported

if TYPE_CHECKING:
    import onnx

__all__ = ["MOST", "Folded", "random"]

MOST = 2**28
"""Numbers that a folded node may produce: a shape in a file must not fill the memory."""

random = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
"""Operators whose result is another one each time."""

_KEPT = 8  # results of a node by its inputs: a network is run at few shapes


class Folded:
    """A node on numpy arrays; what it gave for the same arrays is kept.

    Args:
        proto: the node.
        opset: version of ONNX's operator set.
    """

    def __init__(self, proto: onnx.NodeProto, opset: int) -> None:
        from onnx.reference import ReferenceEvaluator

        self._proto = proto
        self._names = [name for name in proto.input if name]
        try:
            self._run = ReferenceEvaluator(proto, opsets={"": opset}).run
        except Exception as error:  # of the reference, which has no type of its own for what it lacks
            raise Unsupported(f"cannot be computed beforehand: {str(error).strip()[:200]}") from error
        self._kept: dict[Any, tuple[np.ndarray[Any, Any], ...]] = {}

    def __call__(self, *arrays: np.ndarray[Any, Any] | None) -> tuple[np.ndarray[Any, Any], ...]:
        """One array for each output.

        Raises:
            Unsupported: it cannot be computed, or is too large.
        """
        given = [array for array in arrays if array is not None]
        key = tuple((array.shape, array.dtype.str, array.tobytes()) for array in given) if _small(given) else None
        if key is not None and key in self._kept:
            return self._kept[key]
        if self._proto.op_type in ("ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "OneHot"):
            self._check_size(given)
        try:
            with np.errstate(all="ignore"):
                found = self._run(None, dict(zip(self._names, given, strict=True)))
        except Exception as error:
            raise Unsupported(f"cannot be computed beforehand: {str(error).strip()[:200]}") from error
        if not all(isinstance(array, np.ndarray | np.generic) for array in found):
            raise Unsupported("gives something else than tensors")
        results = tuple(np.asarray(array) for array in found)
        if key is not None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[key] = results
        return results

    def __deepcopy__(self, memo: Any) -> Folded:
        return self  # it has no state but what it keeps, which stays right

    def _check_size(self, given: list[np.ndarray[Any, Any]]) -> None:
        """An upper bound from the numbers that are sizes, before anything is allocated."""
        op = self._proto.op_type
        own = given[0].size if given and op not in ("ConstantOfShape", "Range", "OneHot") else 1
        if op == "Range":
            start, limit, delta = (float(array) for array in given)
            count = abs(limit - start) / abs(delta) if delta else float("inf")
        elif op == "Pad":
            count = float(np.prod([size + np.abs(given[1]).sum() for size in given[0].shape])) if len(given) > 1 else 1
        else:
            sizes = np.concatenate(
                [np.abs(array.astype(np.float64)).ravel() for array in given[len(given) > 1 :]] or [[]]
            )
            count = own * float(np.prod(np.maximum(sizes, 1)))
        if not count <= MOST * max(1, own):
            raise Unsupported(f"would give {count:.2g} numbers")


def _small(arrays: list[np.ndarray[Any, Any]]) -> bool:
    return sum(array.nbytes for array in arrays) <= 4096
