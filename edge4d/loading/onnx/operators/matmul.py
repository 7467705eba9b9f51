"""Products of matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from edge4d.loading.onnx.node import Node, Unsupported
from edge4d.loading.onnx.registry import imports


@imports("MatMul")
def _matmul(node: Node) -> Callable[..., Any]:
    return torch.matmul


@imports("Gemm")
def _gemm(node: Node) -> nn.Module | Callable[..., Any]:
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    left, right = bool(node.integer("transA", 0)), bool(node.integer("transB", 0))
    weight, bias = node.constant(1), node.constant(2)
    plain_bias = not node.given(2) or (bias is not None and weight is not None and bias.shape == _rows(weight, right))
    if weight is not None and plain_bias and not left and alpha == 1 and (beta == 1 or not node.given(2)):
        matrix = node.parameter(1)
        inputs, outputs = matrix.shape[::-1] if right else matrix.shape
        made = nn.Linear(inputs, outputs, bias=node.given(2), device="meta")
        made.weight = matrix if right else nn.Parameter(matrix.detach().T.contiguous(), matrix.requires_grad)
        if node.given(2):
            made.bias = node.parameter(2)
        return made

    def run(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        y = torch.matmul(a.T if left else a, b.T if right else b)
        y = y if alpha == 1 else alpha * y
        return y if c is None else y + (c if beta == 1 else beta * c)

    return run


def _rows(weight: Any, transposed: bool) -> tuple[int, ...]:
    return (weight.shape[0 if transposed else 1],)


@imports("Einsum")
def _einsum(node: Node) -> Callable[..., Any]:
    equation = node.text("equation", "")
    if not equation:
        raise Unsupported("has no equation")
    return lambda *parts: torch.einsum(equation, *parts)
