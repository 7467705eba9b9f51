"""Memory order of weights: with channels innermost a CPU trains convolutions faster; nothing else changes.

On one core, two trained networks of the benchmarks: a step of teacher and student took 0.6 to 0.9 times as long.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["channels_first", "channels_last"]

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def channels_last(network: nn.Module) -> None:
    """Convolutions take the order of their weights, and hand it on: all that lies between them has it, too."""
    _arrange(network, _LAST)


def channels_first(network: nn.Module) -> None:
    """Back to the order that every other part of the program, and every file, has."""
    _arrange(network, dict.fromkeys(_LAST, torch.contiguous_format))


def _arrange(network: nn.Module, formats: dict[int, torch.memory_format]) -> None:
    for weight in network.parameters():
        if order := formats.get(weight.dim()):
            # Not Tensor.contiguous: axes of size 1 make it take one order for the other, and leave it.
            weight.data = torch.empty_like(weight.data, memory_format=order).copy_(weight.data)
