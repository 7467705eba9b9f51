"""Reductions over any axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from edge4d.loading.onnx.node import Node, Unsupported
from edge4d.loading.onnx.operators.view import numbers
from edge4d.loading.onnx.registry import imports

Array = np.ndarray[Any, Any]
Reduction = Callable[[torch.Tensor, Sequence[int], bool], torch.Tensor]


def _product(x: torch.Tensor, axes: Sequence[int], keep: bool) -> torch.Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x.clone() if not axes else x


def _extreme(name: str) -> Reduction:
    def run(x: torch.Tensor, axes: Sequence[int], keep: bool) -> torch.Tensor:
        flags = x.dtype is torch.bool
        values = x.to(torch.uint8) if flags else x
        found: torch.Tensor = getattr(values, name)(tuple(axes), keepdim=keep)
        return found.to(torch.bool) if flags else found

    return run


def _sum(x: torch.Tensor, axes: Sequence[int], keep: bool) -> torch.Tensor:
    return x.sum(tuple(axes), keepdim=keep, dtype=x.dtype)


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": _sum,
    "ReduceMean": lambda x, axes, keep: x.mean(tuple(axes), keepdim=keep),
    "ReduceMax": _extreme("amax"),
    "ReduceMin": _extreme("amin"),
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": lambda x, axes, keep: _sum(x * x, axes, keep).sqrt(),
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: _sum(x, axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(tuple(axes), keepdim=keep),
}


_OF_FLOATS = {"ReduceMean", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"}
"""Of integers these round, which PyTorch does not do."""


@imports(*_REDUCTIONS, sizes=(1,))
def _reduction(node: Node) -> Callable[..., Any]:
    own, keep = node.integers("axes"), bool(node.integer("keepdims", 1))
    empty_is_none = bool(node.integer("noop_with_empty_axes", 0))
    function = _REDUCTIONS[node.op]

    def run(x: torch.Tensor, given: Array | None = None) -> torch.Tensor:
        axes = own if given is None else numbers(given)
        if node.op in _OF_FLOATS and not x.is_floating_point():
            kind = str(x.dtype).removeprefix("torch.")
            raise Unsupported(f"of {kind}", "cast to float before it, and back behind it")
        if not axes:
            if empty_is_none:  # what is done besides, such as a square, is done all the same
                return function(x.unsqueeze(0), [0], False)
            axes = list(range(x.dim()))
        return function(x, [axis % x.dim() for axis in axes], keep)

    return run
