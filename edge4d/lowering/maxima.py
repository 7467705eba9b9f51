"""Maxima of windows together with their places, as `return_indices=True` asks for them.

A place is the number of an element among those of the pooled axes, row-major, of the first maximum in that order. Axis
by axis, the last one first, each window is laid out along an axis of its own; the first of its maxima keeps the place
that it has along the axes before, and adds its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from edge4d.lowering.axis import take
from edge4d.lowering.gathering import select_places
from edge4d.lowering.values import Const, Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["maxima_with_places"]

aten = torch.ops.aten


def maxima_with_places(
    b: Builder, x: Operand, windows: Mapping[int, Sequence[Sequence[int]]], name: str
) -> tuple[Operand, Operand]:
    """Maxima of windows along the last axes of x and where they are (int64).

    Args:
        windows: by axis, which must be all from the first of them on: the places that each result sees, all of one
            number; one that lies outside is replaced by another that the same result sees.
        name: begins the names of the constants.
    """
    place: Operand | None = None
    sizes = {axis: x.shape[axis] for axis in windows}
    for axis in sorted(windows, reverse=True):
        seen = windows[axis]
        count, width = len(seen), len(seen[0])
        flat = [i for one in seen for i in one]
        apart = [*x.shape[:axis], count, width, *x.shape[axis + 1 :]]
        window = b.lower(aten.view.default, take(b, x, axis, flat), apart)
        x, tap = b.lower(aten.max.dim, window, axis + 1)
        first = torch.arange(count).mul(width).reshape([count if a == axis else 1 for a in range(len(x.shape))])
        chosen = b.lower(aten.add.Tensor, tap, Const(first, f"{name}.windows"))
        table = Const(torch.tensor(flat) * math.prod(size for a, size in sizes.items() if a > axis), f"{name}.places")
        own = select_places(b, table, 0, b.lower(aten.reshape.default, chosen, [math.prod(x.shape)]))
        own = b.lower(aten.view.default, own, list(x.shape))
        if place is not None:
            before = b.lower(aten.view.default, take(b, place, axis, flat), apart)
            kept = b.lower(aten.gather.default, before, axis + 1, b.lower(aten.unsqueeze.default, tap, axis + 1))
            own = b.lower(aten.add.Tensor, own, b.lower(aten.squeeze.dim, kept, axis + 1))
        place = own
    assert place is not None
    return x, place
