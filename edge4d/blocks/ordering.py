"""Branches joined along channels, each channel at its own place, without losing the clip's order in memory.

`Tensor.index_select` gives channels first, whatever it is given. Between layers that hand channels innermost on, as
they do while a network is tuned (`edge4d.tuning.layout`), that costs more than the selection: every layer after it,
forwards and backwards, copies its data or takes a slower way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["joined"]


def joined(parts: tuple[Tensor, ...], order: Tensor) -> Tensor:
    """``torch.cat(parts, 1)[:, order]``, and its gradient; the memory order of the parts where they have one.

    Args:
        parts: (N, ·, T, H, W).
        order: (S,), a permutation of all their channels.
    """
    if any(map(_innermost, parts)) and not _recorded():
        result: Tensor = _Joined.apply(order, *parts)  # type: ignore[no-untyped-call]
        return result
    both = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return both.index_select(1, order)


def _recorded() -> bool:
    """Whether a graph is being made, which is to hold operators that everybody knows."""
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return bool(traced) or torch.compiler.is_compiling()


def _innermost(clip: Tensor) -> bool:
    return clip.is_contiguous(memory_format=torch.channels_last_3d) and not clip.is_contiguous()


class _Joined(torch.autograd.Function):
    """Written once, to where it belongs. Each channel goes to one place, so the gradient only has to be fetched."""

    @staticmethod
    def forward(ctx: Any, order: Tensor, *parts: Tensor) -> Tensor:
        places = torch.split(torch.argsort(order), [part.shape[1] for part in parts])
        ctx.save_for_backward(*places)
        n, _, *sizes = parts[0].shape
        rows = parts[0].new_empty((n, *sizes, len(order)))
        for part, place in zip(parts, places, strict=True):
            values = part.movedim(1, -1)
            rows.scatter_(-1, place.expand(values.shape), values)
        return rows.movedim(-1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows = gradient.movedim(1, -1)
        found = (rows.gather(-1, place.expand(*rows.shape[:-1], -1)) for place in ctx.saved_tensors)
        return None, *(part.movedim(-1, 1) for part in found)
