"""A fixed linear map along one axis: interpolation weights and adaptive windows, as torch itself computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import take
from edge4d.lowering.channels_last import T_AXIS
from edge4d.lowering.values import Const, Operand, Value

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["linear_map", "matrix_product"]

aten = torch.ops.aten


def linear_map(b: Builder, x: Operand, axis: int, matrix: torch.Tensor) -> Operand:
    """y[o] = Σ_i matrix[o, i] · x[i] along one logical axis.

    Rows with one 1 select, rows with at most two weights interpolate (two selections, weighted and added), anything
    else is one matrix product at rank 3.

    Args:
        x: any operand.
        axis: logical axis of size `in`.
        matrix: (out, in), float64.
    """
    nonzero = matrix != 0
    counts = nonzero.sum(1)
    if int(counts.max()) <= 2:
        first = nonzero.to(torch.int8).argmax(1)
        last = matrix.shape[1] - 1 - nonzero.flip(1).to(torch.int8).argmax(1)
        rows = torch.arange(matrix.shape[0])
        low = matrix[rows, first]
        if torch.equal(first, last) and torch.equal(low, torch.ones_like(low)):
            return take(b, x, axis, first.tolist())
        high = torch.where(first == last, torch.zeros_like(low), matrix[rows, last])
        shape = [1] * len(x.shape)
        shape[axis] = matrix.shape[0]
        result: Operand | None = None
        for places, weights in ((first, low), (last, high)):
            scale = Const(weights.reshape(shape).to(x.dtype), f"{b.at.layer}.weights".strip("."))
            part = b.lower(aten.mul.Tensor, take(b, x, axis, places.tolist()), scale)
            result = part if result is None else b.lower(aten.add.Tensor, result, part)
        assert result is not None
        return result
    return matrix_product(b, x, axis, matrix)


def matrix_product(b: Builder, x: Operand, axis: int, matrix: torch.Tensor, name: str = "map") -> Value:
    """The same as one matrix product at rank 3, whatever the matrix holds; `name` is that of its parameter."""
    value = b.given(x)
    if axis == T_AXIS:
        value = b.by_frames(value)
    groups, dim = value.packing.isolate(axis)
    if dim != 1 or len(groups) != 3:
        memory, at = value.packing.reorder(groups).memory, sum(map(len, groups[:dim]))
        groups = (memory[:at], groups[dim], memory[at + len(groups[dim]) :])
    label = f"{b.at.layer}.{name}".strip(".")
    weights = b.derive(Const(matrix, label), x.dtype, lambda: matrix.to(x.dtype).unsqueeze(0), label)
    node = b.emit(aten.matmul.default, b.parameter(weights.tensor, label), b.arrange(value, groups))
    return b.value(node, value.packing.reorder(groups).resize(axis, 1, matrix.shape[0]))
