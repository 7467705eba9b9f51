"""A random network while it is drawn: its values so far, the layers and constants that its steps hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

__all__ = ["HIGHEST", "LARGEST", "Draft", "Step"]

LARGEST = 6000
"""Elements of the largest value: enough for every pattern of axes, few enough for thousands of networks."""

HIGHEST = 7
"""Rank of a value."""


@dataclass
class Step:
    """``values.append(run(*[values[i] for i in takes]))``; `name` and `shape` are for whoever reads a failure."""

    name: str
    takes: tuple[int, ...]
    run: Callable[..., Tensor]
    shape: tuple[int, ...] = ()


class _Held(nn.Module):
    """A constant, as a buffer: it takes the type that the network is given."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.register_buffer("tensor", tensor)

    def forward(self) -> Tensor:
        return self.tensor


@dataclass
class Draft:
    """The values that the steps give on an example, by which the next step is chosen. Everything is float64."""

    rng: random.Random
    values: list[Tensor]
    layers: nn.ModuleList = field(default_factory=nn.ModuleList)
    steps: list[Step] = field(default_factory=list)

    def layer(self, module: nn.Module) -> Callable[..., Tensor]:
        """A layer of the network, with weights and statistics far from their defaults."""
        generator = torch.Generator().manual_seed(self.rng.randrange(2**31))
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                with torch.no_grad():
                    tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else noise)
        return self._added(module.double().eval())

    def held(self, tensor: Tensor) -> Callable[[], Tensor]:
        """A constant of the network, read at each run."""
        return self._added(_Held(tensor))

    def _added(self, module: nn.Module) -> Callable[..., Tensor]:
        self.layers.append(module)
        place = len(self.layers) - 1
        return lambda *values: self.layers[place](*values)

    def constant(self, shape) -> Tensor:
        """Random numbers, for a step that decides by them; one that computes with them has to hold them."""
        generator = torch.Generator().manual_seed(self.rng.randrange(2**31))
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def axis(self, x: Tensor) -> int:
        """An axis of x."""
        return self.rng.randrange(x.dim())

    def partner(self, fits: Callable[[tuple[int, ...]], bool], default: int) -> int:
        """The index of an earlier value with a shape that fits."""
        found = [i for i, value in enumerate(self.values) if fits(tuple(value.shape))]
        return self.rng.choice(found) if found else default
