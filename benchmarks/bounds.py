"""The least that convolutions and linear layers of a network need: multiplications and bytes, and the time of both.

A layer cannot be faster than its multiplications at the machine's peak, nor than what it reads and writes at the
machine's bandwidth; its bound is the larger of the two, a network's bound the sum over its layers. What enters a window
as zeros is not counted, the transforms of Winograd's algorithm are not, and every value goes in once and out once.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edge4d.errors import UsageError
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.values import Const
from edge4d.offers import RUNTIMES
from edge4d.planning import costs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

__all__ = ["Bound", "Work", "bound", "layers_of"]

aten = torch.ops.aten


@dataclass(frozen=True)
class Work:
    """What a way to compute a layer needs at least.

    Attributes:
        macs: multiply-accumulates.
        bytes: of input that is read, of weights and of the result.
    """

    macs: int
    bytes: int

    def milliseconds(self, peak: float, bandwidth: float) -> float:
        """The larger of both times; GFLOP/s and GB/s."""
        return max(2 * self.macs / peak, self.bytes / bandwidth) / 1e6


@dataclass(frozen=True)
class Bound:
    """Of a network.

    Attributes:
        direct_ms: of direct convolutions.
        least_ms: with the formulation of the lowest bound in every layer.
        memory_share: of `direct_ms`, of layers whose bytes take longer than their multiplications.
        macs: of direct convolutions.
        least_macs: of the formulations that `least_ms` is made of.
    """

    direct_ms: float
    least_ms: float
    memory_share: float
    macs: int
    least_macs: int


def bound(layers: Sequence[Sequence[Work]], peak: float, bandwidth: float) -> Bound:
    """The sum over layers, each the direct way first and then every other one.

    Args:
        layers: of `layers_of`.
        peak: GFLOP/s.
        bandwidth: GB/s.

    Raises:
        UsageError: there is no layer, or a rate is not above zero.
    """
    if not layers or not (peak > 0 and bandwidth > 0):
        raise UsageError(f"{len(layers)} layers at {peak:g} GFLOP/s and {bandwidth:g} GB/s have no bound")

    def taken(work: Work) -> float:
        return work.milliseconds(peak, bandwidth)

    direct = [ways[0] for ways in layers]
    least = [min(ways, key=lambda way: (taken(way), way.macs)) for ways in layers]
    whole = sum(map(taken, direct))
    by_memory = sum(taken(work) for work in direct if work.bytes / bandwidth > 2 * work.macs / peak)
    return Bound(
        whole, sum(map(taken, least)), by_memory / whole, sum(w.macs for w in direct), sum(w.macs for w in least)
    )


def layers_of(network: nn.Module, args: tuple[Tensor, ...], runtime: str) -> list[list[Work]]:
    """The ways to compute each convolution and linear layer, the direct one first; nothing is computed.

    Args:
        network: left unchanged.
        args: inputs, of which only shape and dtype count.
        runtime: whose formulations are weighed.

    Raises:
        UsageError: a transposed convolution, which is not counted.
    """
    ghost = copy.deepcopy(network).to("meta")
    seen = _Seen(runtime)
    with torch.no_grad(), seen:
        ghost(*(arg.to("meta") for arg in args))
    return seen.layers


class _Seen(TorchDispatchMode):
    """Collects the layers of a call."""

    def __init__(self, runtime: str) -> None:
        super().__init__()
        self.layers: list[list[Work]] = []
        self._runtime = runtime

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is aten.convolution.default:
            self.layers.append(_convolution(self._runtime, result, *args))
        elif func in (aten.addmm.default, aten.mm.default, aten.bmm.default):
            first, second = args[-2:]
            moved = sum(value.numel() * value.element_size() for value in (first, second, result))
            self.layers.append([Work(result.numel() * first.shape[-1], moved)])
        return result


def _convolution(
    runtime: str,
    result: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> list[Work]:
    """The direct way, and where it has three axes every formulation that fits and that the runtime gets."""
    if transposed:
        raise UsageError("a transposed convolution is not counted")
    axes = [
        _axis(*sizes)
        for sizes in zip(x.shape[2:], result.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    outs, ins = weight.shape[:2]
    macs = result.shape[0] * outs * ins * math.prod(products for products, _ in axes)
    read, made = math.prod(x.shape[:2]) * math.prod(touched for _, touched in axes), result.numel()
    size = x.element_size()
    ways = [Work(macs, size * (read + weight.numel() + made))]
    if len(axes) != 3:
        return ways
    named = (Const(value, label) for value, label in ((x, "clip"), (weight, "weight")))
    spec = ConvSpec(
        *named, None if bias is None else Const(bias, "bias"), tuple(stride), tuple((p, p) for p in padding),
        tuple(dilation), tuple(output_padding), groups, False, tuple(result.shape),
    )  # fmt: skip
    # Costs count windows whole. Zeros around a frame can be left out as in the direct way, those above tiles of rows
    # enter sums with other rows.
    whole = [found * kernel for found, kernel in zip(result.shape[2:], weight.shape[2:], strict=True)]
    shares = [products / every for (products, _), every in zip(axes, whole, strict=True)]
    for name, cost in costs(spec).items():
        if name not in RUNTIMES[runtime]:
            share = shares[2] if "+rows" in name else shares[1] * shares[2]
            ways.append(Work(round(cost.macs * share), size * (read + cost.weights + made)))
    return ways


def _axis(size: int, results: int, kernel: int, stride: int, padding: int, dilation: int) -> tuple[int, int]:
    """Products of one axis that see no padding, and how many elements of the input they see."""
    places = [o * stride + k * dilation - padding for o in range(results) for k in range(kernel)]
    inside = [place for place in places if 0 <= place < size]
    return len(inside), len(set(inside))
