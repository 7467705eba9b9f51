"""Elementwise operators with numpy's broadcasting, comparisons, casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from edge4d.loading.onnx.node import Node, Unsupported, torch_type
from edge4d.loading.onnx.registry import imports

_UNARY: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs, "Neg": torch.neg, "Exp": torch.exp, "Log": torch.log, "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal, "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round,
    "Sign": torch.sign, "Erf": torch.erf, "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan, "Asin": torch.asin,
    "Acos": torch.acos, "Atan": torch.atan, "Sinh": torch.sinh, "Cosh": torch.cosh, "Asinh": torch.asinh,
    "Acosh": torch.acosh, "Atanh": torch.atanh, "IsNaN": torch.isnan, "Not": torch.logical_not,
    "BitwiseNot": torch.bitwise_not,
}  # fmt: skip

_BINARY: dict[str, Callable[..., Any]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "And": torch.logical_and, "Or": torch.logical_or,
    "Xor": torch.logical_xor, "Equal": torch.eq, "Greater": torch.gt, "Less": torch.lt, "GreaterOrEqual": torch.ge,
    "LessOrEqual": torch.le, "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}  # fmt: skip


@imports(*_UNARY)
def _unary(node: Node) -> Callable[..., Any]:
    return _UNARY[node.op]


@imports(*_BINARY)
def _binary(node: Node) -> Callable[..., Any]:
    return _BINARY[node.op]


@imports("Identity", "Dropout")
def _identity(node: Node) -> Callable[..., Any]:
    node.skip("ratio", "seed")
    if node.wanted > 1:
        raise Unsupported("its mask is used", "export the network in inference mode")
    if node.op == "Dropout" and node.given(2) and (node.constant(2) is None or bool(node.constant(2))):
        raise Unsupported("drops values (training_mode)", "export the network in inference mode")
    return lambda x, *_: x


@imports("Div")
def _divide(node: Node) -> Callable[..., Any]:
    def run(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")

    return run


@imports("Mod")
def _modulo(node: Node) -> Callable[..., Any]:
    return torch.fmod if node.integer("fmod", 0) else torch.remainder


@imports("Pow")
def _power(node: Node) -> Callable[..., Any]:
    exponent = node.constant(1)
    if exponent is not None and exponent.size == 1 and exponent.ndim <= 1:
        number = exponent.item()
        number = int(number) if float(number).is_integer() else number
        axes = exponent.ndim  # one of [1] gives a scalar an axis
        return lambda x, y: torch.pow(x, number if x.dim() >= axes else y).to(x.dtype)
    return lambda x, y: torch.pow(x, y).to(x.dtype)


def _fold(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def run(first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        for other in others:
            first = function(first, other)
        return first

    return run


@imports("Min", "Max", "Sum")
def _variadic(node: Node) -> Callable[..., Any]:
    functions: dict[str, Callable[[Any, Any], Any]] = {"Min": torch.minimum, "Max": torch.maximum, "Sum": torch.add}
    return _fold(functions[node.op])


@imports("Mean")
def _mean(node: Node) -> Callable[..., Any]:
    total = _fold(torch.add)
    return lambda *parts: total(*parts) / len(parts)


@imports("Where")
def _where(node: Node) -> Callable[..., Any]:
    return torch.where


@imports("IsInf")
def _is_inf(node: Node) -> Callable[..., Any]:
    negative, positive = node.integer("detect_negative", 1), node.integer("detect_positive", 1)
    if negative and positive:
        return torch.isinf
    if not negative and not positive:
        return lambda x: torch.zeros_like(x, dtype=torch.bool)
    return torch.isposinf if positive else torch.isneginf


@imports("Cast")
def _cast(node: Node) -> Callable[..., Any]:
    dtype = torch_type(node.integer("to", 0))
    node.skip("saturate")  # of eight-bit floats, which `torch_type` refuses
    return lambda x: x.to(dtype)


@imports("CastLike")
def _cast_like(node: Node) -> Callable[..., Any]:
    node.skip("saturate")
    return lambda x, other: x.to(other.dtype)
