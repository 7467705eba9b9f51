"""Activations and softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from edge4d.loading.onnx.node import Node, Unsupported
from edge4d.loading.onnx.registry import imports

_PLAIN: dict[str, Callable[..., Any]] = {
    "Relu": torch.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Softplus": F.softplus,
    "Softsign": lambda x: x / (x.abs() + 1), "HardSwish": F.hardswish, "Mish": F.mish,
}  # fmt: skip


@imports(*_PLAIN)
def _plain(node: Node) -> Callable[..., Any]:
    return _PLAIN[node.op]


@imports("LeakyRelu")
def _leaky_relu(node: Node) -> Callable[..., Any]:
    slope = node.number("alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


@imports("Elu")
def _elu(node: Node) -> Callable[..., Any]:
    alpha = node.number("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@imports("Celu")
def _celu(node: Node) -> Callable[..., Any]:
    alpha = node.number("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


@imports("Selu")
def _selu(node: Node) -> Callable[..., Any]:
    alpha, gamma = node.number("alpha", 1.67326319217681884765625), node.number("gamma", 1.05070102214813232421875)
    return lambda x: gamma * F.elu(x, alpha)


@imports("ThresholdedRelu")
def _thresholded_relu(node: Node) -> Callable[..., Any]:
    alpha = node.number("alpha", 1.0)
    return lambda x: F.threshold(x, alpha, 0.0)


@imports("Shrink")
def _shrink(node: Node) -> Callable[..., Any]:
    bias, lambd = node.number("bias", 0.0), node.number("lambd", 0.5)

    def run(x: torch.Tensor) -> torch.Tensor:
        zero = torch.zeros_like(x)
        return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero))

    return run


@imports("PRelu")
def _prelu(node: Node) -> Callable[..., Any]:
    def run(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        shape = (1,) * (x.dim() - slope.dim()) + tuple(slope.shape)
        others = [size for axis, size in enumerate(shape) if axis != 1]
        if x.dim() > 1 and x.is_floating_point() and all(size == 1 for size in others):
            return F.prelu(x, slope.reshape(-1))
        return x.clamp(min=0) + slope * x.clamp(max=0)

    return run


@imports("Clip", either=(1, 2))
def _clip(node: Node) -> Callable[..., Any]:
    limits = [node.number(name, float("nan")) if node.has(name) else None for name in ("min", "max")]

    def limit(given: Any, own: float | None) -> Any:
        return own if given is None else given if isinstance(given, torch.Tensor) else given.item()

    def run(x: torch.Tensor, low: Any = None, high: Any = None) -> torch.Tensor:
        least, most = limit(low, limits[0]), limit(high, limits[1])
        if isinstance(least, torch.Tensor) or isinstance(most, torch.Tensor):
            for bound, function in ((least, torch.maximum), (most, torch.minimum)):
                if bound is not None:
                    x = function(x, bound if isinstance(bound, torch.Tensor) else torch.full((), bound, dtype=x.dtype))
            return x
        return x if least is None and most is None else x.clamp(least, most)

    return run


@imports("HardSigmoid")
def _hard_sigmoid(node: Node) -> Callable[..., Any]:
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    if beta == 0.5 and abs(alpha - 1 / 6) < 1e-6:
        return F.hardsigmoid
    return lambda x: (alpha * x + beta).clamp(0, 1)


@imports("Gelu")
def _gelu(node: Node) -> Callable[..., Any]:
    approximate = node.text("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise Unsupported(f"approximate={approximate}")
    return lambda x: F.gelu(x, approximate=approximate)


@imports("Softmax", "LogSoftmax", "Hardmax")
def _softmax(node: Node) -> Callable[..., Any]:
    axis = node.integer("axis", -1 if node.opset >= 13 else 1)

    def hardmax(x: torch.Tensor, dim: int) -> torch.Tensor:
        places = torch.arange(x.shape[dim]).reshape(-1, *[1] * (x.dim() - 1 - dim % x.dim()))
        return (places == x.argmax(dim, keepdim=True)).to(x.dtype)

    functions: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
        "Softmax": torch.softmax,
        "LogSoftmax": torch.log_softmax,
        "Hardmax": hardmax,
    }
    function = functions[node.op]

    def run(x: torch.Tensor) -> torch.Tensor:
        at = axis % x.dim() if axis != x.dim() else axis
        if node.opset >= 13 or (at == x.dim() - 1):
            result: torch.Tensor = function(x, at)
            return result
        # Before opset 13 all axes from this one on are one; trailing axes of size 1 change nothing.
        if at < x.dim() and all(size == 1 for size in x.shape[at + 1 :]):
            result = function(x, at)
        else:
            result = function(x.flatten(at), at).reshape(x.shape)
        return result

    return run
