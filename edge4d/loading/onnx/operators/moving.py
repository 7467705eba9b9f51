"""Operators that copy parts of tensors: join, cut, repeat, pad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from edge4d.loading.onnx.node import Node, Unsupported
from edge4d.loading.onnx.operators.conv import padded
from edge4d.loading.onnx.operators.view import numbers
from edge4d.loading.onnx.registry import imports

Array = np.ndarray[Any, Any]


@imports("Concat")
def _concat(node: Node) -> Callable[..., Any]:
    axis = node.integer("axis", 1)
    return lambda *parts: torch.cat(parts, axis)


@imports("Tile", sizes=(1,))
def _tile(node: Node) -> Callable[..., Any]:
    return lambda x, repeats: x.repeat(numbers(repeats))


@imports("Split", sizes=(1,))
def _split(node: Node) -> Callable[..., Any]:
    axis, own = node.integer("axis", 0), node.integers("split")
    parts = node.integer("num_outputs", len(node.outputs))

    def run(x: torch.Tensor, sizes: Array | None = None) -> tuple[torch.Tensor, ...]:
        wanted = own if sizes is None else numbers(sizes)
        if wanted is None:
            whole = x.shape[axis]
            each = -(-whole // parts)
            wanted = [max(0, min(each, whole - i * each)) for i in range(parts)]
        return tuple(torch.split(x, wanted, axis))

    return run


@imports("Slice", sizes=(1, 2, 3, 4))
def _slice(node: Node) -> Callable[..., Any]:
    own = [node.integers(name) for name in ("starts", "ends", "axes")]

    def run(x: torch.Tensor, *given: Array | None) -> torch.Tensor:
        lists = [numbers(array) if array is not None else None for array in given]
        starts, ends, axes, steps = [*(lists or own), None, None][:4]
        if starts is None or ends is None:
            raise Unsupported("has no starts or ends")
        axes = axes if axes is not None else list(range(len(starts)))
        for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
            if step < 0:  # a way back from before the first place begins there; Python's own has ended
                start = max(start, -x.shape[axis])
                if end in _ENDLESS:
                    raise Unsupported(
                        f"ends={end} with steps={step}: ONNX stops at the last place, runtimes at the first",
                        "write the smallest whole number for the first place",
                    )
            places = range(*slice(start, end, step).indices(x.shape[axis]))
            if step > 0:
                first = places.start
                x = x[_at(axis % x.dim(), slice(first, max(first, places.stop), step))]
            elif len(places):
                x = x[_at(axis % x.dim(), slice(places[-1], places[0] + 1, -step))].flip(axis)
            else:
                x = x[_at(axis % x.dim(), slice(0, 0))]
        return x

    return run


_ENDLESS = (2**31 - 1, 2**63 - 1)
"""What stands for the end of an axis, on the way forward."""


def _at(axis: int, part: slice) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, part)


_MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@imports("Pad", sizes=(1, 3), either=(2,))
def _pad(node: Node) -> Callable[..., Any]:
    mode = node.text("mode", "constant")
    own = node.integers("pads")
    fill = node.number("value", 0.0)
    if mode != "constant" and mode not in _MODES:
        raise Unsupported(f"mode={mode}")

    def run(x: torch.Tensor, pads: Array | None = None, value: Any = None, axes: Array | None = None) -> torch.Tensor:
        sizes = own if pads is None else numbers(pads)
        if sizes is None:
            raise Unsupported("has no pads")
        named = [axis % x.dim() for axis in (numbers(axes) if axes is not None else range(len(sizes) // 2))]
        begins, ends = [0] * x.dim(), [0] * x.dim()
        for i, axis in enumerate(named):
            begins[axis], ends[axis] = sizes[i], sizes[i + len(named)]
        if mode == "constant":
            if isinstance(value, torch.Tensor):
                raise Unsupported("its value depends on the values of the network's input")
            number = fill if value is None else value.item()
            if x.dtype is torch.bool:
                return padded(x.to(torch.uint8), begins, ends, float(number)).to(torch.bool)
            return padded(x, begins, ends, number)
        for axis in range(x.dim()):
            x = _around(x, axis, begins[axis], ends[axis], mode)
        return x

    return run


def _around(x: torch.Tensor, axis: int, begin: int, end: int, mode: str) -> torch.Tensor:
    """One axis continued by its own values; negative sizes cut."""
    if begin < 0 or end < 0:
        cut = x.narrow(axis, max(0, -begin), x.shape[axis] + min(0, begin) + min(0, end))
        return _around(cut, axis, max(0, begin), max(0, end), mode)
    if not begin and not end:
        return x
    size = x.shape[axis]
    places = np.arange(-begin, size + end)
    if mode == "edge":
        places = places.clip(0, size - 1)
    elif mode == "wrap":
        places = places % size
    else:
        if max(begin, end) >= size:
            raise Unsupported(f"reflects {max(begin, end)} places of {size}")
        places = size - 1 - np.abs(size - 1 - np.abs(places))
    behind = x.dim() - 1 - axis
    if x.dim() == 5 and x.is_floating_point() and behind < 3:  # PyTorch's own, which has a rule of its own
        around = [0] * 6
        around[2 * behind], around[2 * behind + 1] = begin, end
        if mode != "wrap" or max(begin, end) <= size:
            return F.pad(x, around, mode=_MODES[mode])
    return x.index_select(axis, torch.tensor(places.tolist()))
