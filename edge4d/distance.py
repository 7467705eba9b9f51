"""How far a rewritten network is from the original, since a block other than `exact` changes the numbers."""

from __future__ import annotations

from collections.abc import Mapping
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
) -> tuple[Distance, ...]:
    """Run both networks on random inputs of the shapes of `args`.

    Args:
        original, rewritten: left as they are, mode included.
        args, kwargs: example inputs; floating tensors are replaced by standard normal noise, others are kept.
        clips: how many sets.
        seed: of the noise.

    Returns:
        One entry for each floating output, flat and in order.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator).to(tensor) if tensor.is_floating_point() else tensor

    pairs: list[list[tuple[Tensor, Tensor]]] = []
    with evaluation(original), evaluation(rewritten), torch.inference_mode():
        for _ in range(clips):
            given, named = pytree.tree_map_only(Tensor, noise, (args, dict(kwargs)))
            a, b = (
                [x for x in pytree.tree_leaves(model(*given, **named)) if isinstance(x, Tensor)]
                for model in (original, rewritten)
            )
            pairs.append(list(zip(a, b, strict=True)))
    count = len(pairs[0])
    return tuple(
        _distance("output" if count == 1 else f"output {i}", [pair[i] for pair in pairs])
        for i in range(count)
        if pairs[0][i][0].is_floating_point()
    )


def _distance(name: str, pairs: list[tuple[Tensor, Tensor]]) -> Distance:
    a, b = (torch.cat([pair[side].double().flatten() for pair in pairs]) for side in (0, 1))
    scale = float(a.norm())
    cosine = float(a @ b) / max(scale * float(b.norm()), torch.finfo(torch.float64).tiny)
    top1 = None
    if pairs[0][0].dim() == 2 and pairs[0][0].shape[1] > 1:
        top1 = float(torch.cat([(x.argmax(1) == y.argmax(1)).double() for x, y in pairs]).mean())
    error = float((b - a).norm()) / scale if scale else float(b.norm() > 0)
    return Distance(name, error, cosine, top1, len(pairs))
