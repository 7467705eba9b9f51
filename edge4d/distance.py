"""How far a rewritten network is from the original, since a block other than `exact` changes the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edge4d.subject import evaluation
from edge4d.swap_report import Distance

__all__ = ["distances"]

CLIPS = 8
"""Sets of random inputs: enough for top-1 to mean something, few enough to cost seconds."""


def distances(
    original: nn.Module,
    rewritten: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    clips: int = CLIPS,
    seed: int = 0,
    data: Tensor | None = None,
) -> tuple[Distance, ...]:
    """Run both networks on the clips at hand, or on random inputs of the shapes of `args`.

    Args:
        original, rewritten: left as they are, mode included.
        args, kwargs: example inputs; floating tensors are replaced by standard normal noise, others are kept.
        clips: how many sets.
        seed: of the noise.
        data: clips (N, C, T, H, W), each of which is the one input; takes the place of all of that.

    Returns:
        One entry for each floating output, flat and in order.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator).to(tensor) if tensor.is_floating_point() else tensor

    def inputs() -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        if data is not None:
            parameter = next(original.parameters())
            yield from (((clip.to(parameter),), {}) for clip in torch.split(data, 1))
            return
        for _ in range(clips):
            yield pytree.tree_map_only(Tensor, noise, (args, dict(kwargs)))

    met: list[_Sums] = []
    with evaluation(original), evaluation(rewritten), torch.inference_mode():
        for given, named in inputs():
            a, b = (
                [x for x in pytree.tree_leaves(model(*given, **named)) if isinstance(x, Tensor)]
                for model in (original, rewritten)
            )
            met = met or [_Sums() for _ in a]
            for sums, x, y in zip(met, a, b, strict=True):
                sums.add(x, y)
    source = "random inputs" if data is None else "calibration clips, which it was fitted on"
    return tuple(
        sums.distance("output" if len(met) == 1 else f"output {i}", source)
        for i, sums in enumerate(met)
        if sums.floating
    )


class _Sums:
    """One output over all inputs, in float64: a dense output of many clips need not be held."""

    def __init__(self) -> None:
        self.sets = 0
        self.floating = True
        self.aa = self.bb = self.ab = self.apart = 0.0
        self.rows = self.agreed = 0

    def add(self, a: Tensor, b: Tensor) -> None:
        self.floating = a.is_floating_point()
        self.sets += 1
        x, y = a.double().flatten(), b.double().flatten()
        self.aa += float(x @ x)
        self.bb += float(y @ y)
        self.ab += float(x @ y)
        self.apart += float((y - x).square().sum())
        if a.dim() == 2 and a.shape[1] > 1:
            self.rows += len(a)
            self.agreed += int((a.argmax(1) == b.argmax(1)).sum())

    def distance(self, name: str, source: str) -> Distance:
        cosine = self.ab / max(math.sqrt(self.aa * self.bb), torch.finfo(torch.float64).tiny)
        error = math.sqrt(self.apart / self.aa) if self.aa else float(self.bb > 0)
        return Distance(name, error, cosine, self.agreed / self.rows if self.rows else None, self.sets, source)
