"""Normalisations in inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from edge4d.loading.onnx.node import Node, Unsupported
from edge4d.loading.onnx.registry import imports


class BatchNorm(nn.Module):
    """Batch normalisation by running statistics, at any rank.

    Args:
        weight, bias, mean, var: (C,).
        eps: added to the variance.
    """

    def __init__(
        self, weight: nn.Parameter, bias: nn.Parameter, mean: torch.Tensor, var: torch.Tensor, eps: float
    ) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = weight, bias, eps
        self.register_buffer("running_mean", mean)
        self.register_buffer("running_var", var)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, …) → the same shape."""
        own: Any = self
        return F.batch_norm(x, own.running_mean, own.running_var, self.weight, self.bias, False, 0.0, self.eps)


@imports("BatchNormalization")
def _batch_norm(node: Node) -> nn.Module | Callable[..., Any]:
    eps = node.number("epsilon", 1e-5)
    node.skip("momentum")  # of training
    if node.integer("training_mode", 0):
        raise Unsupported("normalises by the batch it gets (training_mode=1)", "export the network in inference mode")
    node.only("spatial", 1, "one mean for each place is not imported")
    if node.wanted > 1:
        raise Unsupported("its statistics are used", "export the network in inference mode")
    if all(node.constant(i) is not None for i in range(1, 5)):
        mean, var = node.parameter(3).detach(), node.parameter(4).detach()
        return BatchNorm(node.parameter(1), node.parameter(2), mean, var, eps)
    return lambda x, weight, bias, mean, var: F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)


@imports("InstanceNormalization")
def _instance_norm(node: Node) -> Callable[..., Any]:
    eps = node.number("epsilon", 1e-5)
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=eps)


@imports("LayerNormalization")
def _layer_norm(node: Node) -> Callable[..., Any]:
    axis, eps = node.integer("axis", -1), node.number("epsilon", 1e-5)
    node.only("stash_type", 1, "only float32 statistics are imported")
    if node.wanted > 1:
        raise Unsupported("its mean or deviation is used", "use its first output only")

    def run(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        shape = x.shape[axis % x.dim() :]
        if scale.shape == shape and (bias is None or bias.shape == shape):
            return F.layer_norm(x, shape, scale, bias, eps)
        y = F.layer_norm(x, shape, eps=eps) * scale
        return y if bias is None else y + bias

    return run


@imports("GroupNormalization")
def _group_norm(node: Node) -> Callable[..., Any]:
    groups, eps = node.integer("num_groups", 0), node.number("epsilon", 1e-5)
    node.only("stash_type", 1, "only float32 statistics are imported")
    if groups < 1:
        raise Unsupported(f"num_groups={groups}")

    def run(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        channels = x.shape[1]
        if node.opset < 21 and scale.shape[0] == groups and groups != channels:  # one weight a group, until opset 21
            scale, bias = (w.repeat_interleave(channels // groups) for w in (scale, bias))
        return F.group_norm(x, groups, scale, bias, eps)

    return run


@imports("LRN")
def _local_response_norm(node: Node) -> Callable[..., Any]:
    alpha, beta, bias = node.number("alpha", 1e-4), node.number("beta", 0.75), node.number("bias", 1.0)
    size = node.integer("size", 0)
    if size < 1 or size % 2 == 0:
        raise Unsupported(f"size={size}: runtimes take odd ones only")

    def run(x: torch.Tensor) -> torch.Tensor:
        squares = x * x
        around = [0, 0] * (x.dim() - 2) + [size // 2] * 2
        wide, channels = F.pad(squares, around), x.shape[1]
        total = wide.narrow(1, 0, channels)
        for i in range(1, size):
            total = total + wide.narrow(1, i, channels)
        return x / (bias + alpha / size * total).pow(beta)

    return run


@imports("MeanVarianceNormalization")
def _mean_variance_norm(node: Node) -> Callable[..., Any]:
    axes = node.integers("axes") or [0, 2, 3]

    def run(x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(axes, keepdim=True)
        deviation = (x * x).mean(axes, keepdim=True) - mean * mean
        return (x - mean) / (deviation.sqrt() + 1e-9)

    return run
