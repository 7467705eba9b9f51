"""Gather, scatter, top-k and their kind; an index below 0 counts from the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from edge4d.loading.onnx.node import Node, Unsupported, tensor_of
from edge4d.loading.onnx.registry import imports

Array = np.ndarray[Any, Any]


def _positive(index: torch.Tensor, size: int) -> torch.Tensor:
    index = index.to(torch.int64)
    return torch.where(index < 0, index + size, index)


@imports("Gather", either=(1,))
def _gather(node: Node) -> Callable[..., Any]:
    axis = node.integer("axis", 0)

    def run(x: torch.Tensor, index: torch.Tensor | Array) -> torch.Tensor:
        at = axis % x.dim()
        if isinstance(index, np.ndarray):
            places = [int(place) % x.shape[at] if -x.shape[at] <= place < x.shape[at] else None for place in index.flat]
            if None in places:
                raise Unsupported(f"an index lies outside the {x.shape[at]} places of axis {at}")
            if index.ndim == 0:
                return x.select(at, places[0])  # type: ignore[arg-type]
            flat = torch.tensor(places, dtype=torch.int64)
        else:
            flat = _positive(index, x.shape[at]).reshape(-1)
        taken = x.index_select(at, flat)
        return taken if index.ndim == 1 else taken.reshape(*x.shape[:at], *index.shape, *x.shape[at + 1 :])

    return run


@imports("GatherElements")
def _gather_elements(node: Node) -> Callable[..., Any]:
    axis = node.integer("axis", 0)
    return lambda x, index: torch.gather(x, axis, _positive(index, x.shape[axis]))


@imports("GatherND")
def _gather_nd(node: Node) -> Callable[..., Any]:
    node.only("batch_dims", 0, "only 0 is imported")

    def run(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return x[tuple(_positive(part, x.shape[i]) for i, part in enumerate(index.unbind(-1)))]

    return run


@imports("ScatterElements", "Scatter")
def _scatter_elements(node: Node) -> Callable[..., Any]:
    axis, reduction = node.integer("axis", 0), node.text("reduction", "none")
    reductions = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax"}
    if reduction != "none" and reduction not in reductions:
        raise Unsupported(f"reduction={reduction}")

    def run(x: torch.Tensor, index: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        index = _positive(index, x.shape[axis])
        if reduction == "none":
            return x.scatter(axis, index, updates)
        return x.scatter_reduce(axis, index, updates, reductions[reduction], include_self=True)

    return run


@imports("ScatterND")
def _scatter_nd(node: Node) -> Callable[..., Any]:
    reduction = node.text("reduction", "none")
    if reduction not in ("none", "add"):
        raise Unsupported(f"reduction={reduction}", "none and add are imported")

    def run(x: torch.Tensor, index: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        places = tuple(_positive(part, x.shape[i]) for i, part in enumerate(index.unbind(-1)))
        return x.index_put(places, updates, accumulate=reduction == "add")

    return run


@imports("TopK", sizes=(1,))
def _top_k(node: Node) -> Callable[..., Any]:
    own, axis = node.integer("k", 0), node.integer("axis", -1)
    largest, ordered = bool(node.integer("largest", 1)), bool(node.integer("sorted", 1))

    def run(x: torch.Tensor, k: Array | None = None) -> tuple[torch.Tensor, ...]:
        values, places = torch.topk(x, own if k is None else int(k.item()), axis, largest, ordered)
        return values, places

    return run


@imports("ArgMax", "ArgMin")
def _arg_max(node: Node) -> Callable[..., Any]:
    axis, keep = node.integer("axis", 0), bool(node.integer("keepdims", 1))
    last = bool(node.integer("select_last_index", 0))
    function = torch.argmax if node.op == "ArgMax" else torch.argmin

    def run(x: torch.Tensor) -> torch.Tensor:
        if not last:
            return function(x, axis, keepdim=keep)
        return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)

    return run


@imports("OneHot", sizes=(1,))
def _one_hot(node: Node) -> Callable[..., Any]:
    axis = node.integer("axis", -1)

    def run(index: torch.Tensor, depth: Array, values: torch.Tensor) -> torch.Tensor:
        count = int(depth.item())
        at = axis % (index.dim() + 1)
        places = torch.arange(count).reshape(-1, *[1] * (index.dim() - at))
        found = _positive(index, count).unsqueeze(at) == places
        return torch.where(found, values[1], values[0])

    return run


@imports("Trilu", sizes=(1,))
def _trilu(node: Node) -> Callable[..., Any]:
    upper = bool(node.integer("upper", 1))

    def run(x: torch.Tensor, k: Array | None = None) -> torch.Tensor:
        rows, columns = np.indices(tuple(x.shape[-2:]))
        offset = 0 if k is None else int(k.item())
        kept = columns - rows >= offset if upper else columns - rows <= offset
        return torch.where(tensor_of(kept), x, torch.zeros((), dtype=x.dtype))

    return run


@imports("CumSum", sizes=(1,))
def _cumulative_sum(node: Node) -> Callable[..., Any]:
    exclusive, reverse = bool(node.integer("exclusive", 0)), bool(node.integer("reverse", 0))

    def run(x: torch.Tensor, axis: Array) -> torch.Tensor:
        at = int(axis.item())
        y = x.flip(at) if reverse else x
        total = y.cumsum(at).to(x.dtype)
        if exclusive and x.shape[at]:  # a difference would have lost the digits, and inf - inf is no number
            total = torch.cat([torch.zeros_like(y.narrow(at, 0, 1)), total.narrow(at, 0, x.shape[at] - 1)], at)
        return total.flip(at) if reverse else total

    return run


@imports("GridSample")
def _grid_sample(node: Node) -> Callable[..., Any]:
    names = {
        "bilinear": "bilinear",
        "linear": "bilinear",
        "nearest": "nearest",
        "bicubic": "bicubic",
        "cubic": "bicubic",
    }
    mode, padding = node.text("mode", "linear"), node.text("padding_mode", "zeros")
    corners = bool(node.integer("align_corners", 0))
    if mode not in names or padding not in ("zeros", "border", "reflection"):
        raise Unsupported(f"mode={mode}, padding_mode={padding}")
    return lambda x, grid: F.grid_sample(x, grid, names[mode], padding, corners)
