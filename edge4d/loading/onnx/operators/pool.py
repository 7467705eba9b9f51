"""Pooling over one to three axes, with the windows that ONNX lays and PyTorch does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from edge4d.loading.onnx.node import Node, Unsupported
from edge4d.loading.onnx.operators.conv import auto_pads, padded, split_pads
from edge4d.loading.onnx.registry import imports
from edge4d.torch_private import outside_of_modes

_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONV: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class _Windows:
    """Where the windows lie, one number for each pooled axis.

    Attributes:
        begins, ends: padding that the operator asks for.
        over: places beyond it that the last window of ceil_mode reaches.
        counts: results.
    """

    begins: list[int]
    ends: list[int]
    over: list[int]
    counts: list[int]


@dataclass(frozen=True)
class _Pool:
    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    begins: list[int]
    ends: list[int]
    mode: str
    ceil: bool

    @classmethod
    def of(cls, node: Node) -> _Pool:
        kernel = node.integers("kernel_shape")
        if kernel is None:
            raise Unsupported("has no kernel_shape")
        axes = len(kernel)
        if axes not in _MAX:
            raise Unsupported(f"pools over {axes} axes", "PyTorch pools over one to three")
        stride, dilation = node.integers("strides") or [1] * axes, node.integers("dilations") or [1] * axes
        begins, ends, mode = split_pads(node, axes)
        if len(stride) != axes or len(dilation) != axes:
            raise Unsupported(f"strides or dilations do not fit its {axes} axes")
        return cls(kernel, stride, dilation, begins, ends, mode, bool(node.integer("ceil_mode", 0)))

    def windows(self, sizes: Sequence[int]) -> _Windows:
        """For an input of these sizes."""
        begins, ends = self.begins, self.ends
        if self.mode != "NOTSET":
            begins, ends = auto_pads(self.mode, sizes, self.kernel, self.stride, self.dilation)
        over, counts = [], []
        for i, size in enumerate(sizes):
            reach = self.dilation[i] * (self.kernel[i] - 1) + 1
            free = size + begins[i] + ends[i] - reach
            steps = -(-free // self.stride[i]) if self.ceil else free // self.stride[i]
            if self.ceil and steps * self.stride[i] >= size + begins[i]:
                steps -= 1  # a window that would begin behind the input is left out
            if steps < 0:
                raise Unsupported(f"its window of {reach} does not fit {size} places")
            counts.append(steps + 1)
            over.append(max(0, steps * self.stride[i] - free))
        return _Windows(list(begins), list(ends), over, counts)


@imports("MaxPool")
def _max_pool(node: Node) -> Callable[..., Any]:
    pool = _Pool.of(node)
    node.skip("storage_order")  # of the indices, which are not imported
    if node.wanted > 1:
        raise Unsupported("its indices are used", "use the values only")

    def run(x: torch.Tensor) -> Any:
        at = pool.windows(x.shape[2:])
        ends = [end + more for end, more in zip(at.ends, at.over, strict=True)]
        half = [k // 2 for k in pool.kernel]
        own = at.begins == ends and all(p <= most for p, most in zip(ends, half, strict=True))
        function = _MAX[len(pool.kernel)]
        if own:
            return function(x, pool.kernel, pool.stride, at.begins, pool.dilation)
        # ceil_mode of PyTorch lays the very windows where begin and end are padded alike
        if at.begins == at.ends and all(p <= most for p, most in zip(at.begins, half, strict=True)):
            return function(x, pool.kernel, pool.stride, at.begins, pool.dilation, ceil_mode=pool.ceil)
        lowest = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
        return function(padded(x, at.begins, ends, lowest), pool.kernel, pool.stride, 0, pool.dilation)

    return run


@imports("AveragePool")
def _average_pool(node: Node) -> Callable[..., Any]:
    pool = _Pool.of(node)
    include = bool(node.integer("count_include_pad", 0))
    dilated = any(d != 1 for d in pool.dilation)
    axes = len(pool.kernel)
    full = math.prod(pool.kernel)

    def run(x: torch.Tensor) -> Any:
        at = pool.windows(x.shape[2:])
        plain = not any(at.over) and at.begins == at.ends and not dilated
        if plain and all(2 * p <= k for p, k in zip(at.begins, pool.kernel, strict=True)):
            function = _AVG[axes]
            return function(x, pool.kernel, pool.stride, at.begins, count_include_pad=include)
        ends = [end + more for end, more in zip(at.ends, at.over, strict=True)]
        spread = padded(x, at.begins, ends)
        if dilated:
            flat = spread.reshape(-1, 1, *spread.shape[2:])
            ones = torch.ones((1, 1, *pool.kernel), dtype=x.dtype)
            sums = _CONV[axes](flat, ones, None, pool.stride, 0, pool.dilation)
            means = sums.reshape(*x.shape[:2], *at.counts) / full
        else:
            means = _AVG[axes](spread, pool.kernel, pool.stride)
        factors = [full_axis / axis for full_axis, axis in zip(pool.kernel, _counts(pool, at, x, include), strict=True)]
        for i, factor in enumerate(factors):
            if bool((factor != 1).any()):
                means = means * factor.to(x.dtype).reshape(-1, *[1] * (axes - 1 - i))
        return means

    return run


def _counts(pool: _Pool, at: _Windows, x: torch.Tensor, include: bool) -> list[torch.Tensor]:
    """How many places each window counts, axis by axis: their product is what its sum is divided by."""
    counts = []
    with outside_of_modes():
        for i, size in enumerate(x.shape[2:]):
            first, last = (0, at.begins[i] + size + at.ends[i]) if include else (at.begins[i], at.begins[i] + size)
            found = []
            for j in range(at.counts[i]):
                places = [j * pool.stride[i] + k * pool.dilation[i] for k in range(pool.kernel[i])]
                found.append(sum(first <= place < last for place in places))
            if not all(found):
                raise Unsupported("a window lies in the padding alone")
            counts.append(torch.tensor(found, dtype=torch.float64))
    return counts


@imports("LpPool")
def _lp_pool(node: Node) -> Callable[..., Any]:
    pool, p = _Pool.of(node), _order(node)
    axes, full = len(pool.kernel), math.prod(pool.kernel)

    def run(x: torch.Tensor) -> Any:
        """The p-norm of each window (N, C, *sizes); what lies in the padding counts as 0."""
        at = pool.windows(x.shape[2:])
        ends = [end + more for end, more in zip(at.ends, at.over, strict=True)]
        spread = padded(_powers(x, p), at.begins, ends)
        if any(d != 1 for d in pool.dilation):
            flat = spread.reshape(-1, 1, *spread.shape[2:])
            ones = torch.ones((1, 1, *pool.kernel), dtype=x.dtype)
            sums = _CONV[axes](flat, ones, None, pool.stride, 0, pool.dilation).reshape(*x.shape[:2], *at.counts)
        else:
            sums = _AVG[axes](spread, pool.kernel, pool.stride) * full
        return _root(sums, p)

    return run


@imports("GlobalLpPool")
def _global_lp_pool(node: Node) -> Callable[..., Any]:
    p = _order(node)
    return lambda x: _root(_powers(x, p).sum(tuple(range(2, x.dim())), keepdim=True), p)


def _order(node: Node) -> int:
    p = node.integer("p", 2)
    if p < 1:
        raise Unsupported(f"p={p}: no norm")
    return p


def _powers(x: torch.Tensor, p: int) -> torch.Tensor:
    return x.abs() if p == 1 else x * x if p == 2 else x.abs() ** p


def _root(x: torch.Tensor, p: int) -> torch.Tensor:
    return x if p == 1 else x.sqrt() if p == 2 else x ** (1 / p)


@imports("GlobalAveragePool")
def _global_average_pool(node: Node) -> Callable[..., Any]:
    return lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True)


@imports("GlobalMaxPool")
def _global_max_pool(node: Node) -> Callable[..., Any]:
    return lambda x: x.amax(tuple(range(2, x.dim())), keepdim=True)
