"""Operators that move no number: another shape or order of axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from edge4d.loading.onnx.node import Node, Unsupported
from edge4d.loading.onnx.registry import imports

Array = np.ndarray[Any, Any]


def numbers(array: Array) -> list[int]:
    """A list of whole numbers."""
    return [int(item) for item in array.ravel()]


@imports("Reshape", sizes=(1,))
def _reshape(node: Node) -> Callable[..., Any]:
    zero_is_zero = bool(node.integer("allowzero", 0))

    def run(x: torch.Tensor, shape: Array) -> torch.Tensor:
        wanted = numbers(shape)
        if not zero_is_zero:
            wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
        return x.reshape(wanted)

    return run


@imports("Flatten")
def _flatten(node: Node) -> Callable[..., Any]:
    axis = node.integer("axis", 1)

    def run(x: torch.Tensor) -> torch.Tensor:
        at = axis if axis >= 0 else axis + x.dim()
        return x.reshape(math.prod(x.shape[:at]), math.prod(x.shape[at:]))

    return run


def axes_of(node: Node) -> list[int] | None:
    """The attribute, where there is one: it became an input in opset 13."""
    return node.integers("axes")


@imports("Squeeze", sizes=(1,))
def _squeeze(node: Node) -> Callable[..., Any]:
    own = axes_of(node)

    def run(x: torch.Tensor, axes: Array | None = None) -> torch.Tensor:
        named = own if axes is None else numbers(axes)
        if named is None:
            named = [axis for axis, size in enumerate(x.shape) if size == 1]
        named = [axis % x.dim() for axis in named]
        if any(x.shape[axis] != 1 for axis in named):
            raise Unsupported(f"axes {named} of the shape {tuple(x.shape)} are not of size 1")
        return x.reshape([size for axis, size in enumerate(x.shape) if axis not in named])

    return run


@imports("Unsqueeze", sizes=(1,))
def _unsqueeze(node: Node) -> Callable[..., Any]:
    own = axes_of(node)

    def run(x: torch.Tensor, axes: Array | None = None) -> torch.Tensor:
        named = own if axes is None else numbers(axes)
        if named is None:
            raise Unsupported("has no axes")
        rank = x.dim() + len(named)
        sizes = iter(x.shape)
        new = {axis % rank for axis in named}
        return x.reshape([1 if axis in new else next(sizes) for axis in range(rank)])

    return run


@imports("Transpose")
def _transpose(node: Node) -> Callable[..., Any]:
    order = node.integers("perm")
    return lambda x: x.permute(order if order is not None else tuple(range(x.dim()))[::-1])


@imports("Expand", sizes=(1,))
def _expand(node: Node) -> Callable[..., Any]:
    return lambda x, shape: x.expand(np.broadcast_shapes(tuple(x.shape), tuple(numbers(shape))))


@imports("DepthToSpace")
def _depth_to_space(node: Node) -> Callable[..., Any]:
    block, mode = node.integer("blocksize", 0), node.text("mode", "DCR")
    if block < 1 or mode not in ("DCR", "CRD"):
        raise Unsupported(f"blocksize={block}, mode={mode}")

    def run(x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        rest = c // (block * block)
        if mode == "DCR":
            y = x.reshape(n, block, block, rest, h, w).permute(0, 3, 4, 1, 5, 2)
        else:
            y = x.reshape(n, rest, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
        return y.reshape(n, rest, h * block, w * block)

    return run


@imports("SpaceToDepth")
def _space_to_depth(node: Node) -> Callable[..., Any]:
    block = node.integer("blocksize", 0)
    if block < 1:
        raise Unsupported(f"blocksize={block}")

    def run(x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return y.reshape(n, c * block * block, h // block, w // block)

    return run
