"""Brings several operands into one physical frame, so that an operator of rank ≤ 4 can meet them element by element.

Logical axes are cut into pieces common to all operands. The largest operand leads (of equals in the same order the one
with the fewest axes): its memory order and, where possible, its physical axes are kept; the others are repacked to it.
An axis along which an operand broadcasts must not share a physical axis with one along which it does not; if that needs
more than four physical axes, the smallest operand is broadcast along one axis first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import fx

from edge4d.lowering.values import Const, Operand, Value
from edge4d.lowering.view import broadcast, reshape
from edge4d.packing import MAX_RANK, Packing, common_pieces, frames_order

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["align"]

Key = tuple[int, int]
"""A piece of a logical axis of the common frame: (axis, number of the piece)."""


@dataclass(frozen=True)
class _Part:
    """An operand cut into the common pieces: its atoms and the key of each."""

    operand: Operand
    packing: Packing
    keys: tuple[Key, ...]


def align(
    b: Builder, operands: Sequence[Operand], shape: Sequence[int], alone: int | None = None
) -> tuple[list[fx.Node], Packing]:
    """Nodes that broadcast against each other physically as the operands do logically, and the result's packing.

    Args:
        operands: at least one `Value`; shapes that broadcast to `shape`. Operands of rank 0 stay of rank 0, because
            type promotion treats them differently.
        shape: logical shape of the result.
        alone: an axis that gets a physical axis of its own and whose size may differ between operands (for `cat`).
    """
    if alone is None:
        operands = list(operands)
        for place in range(len(operands)):  # one after another: the last that gives the shape stays whole
            operands[place] = _thinned(operands, place, shape)
    full = [_padded(b, x, len(shape)) if x.shape else x for x in operands]
    while True:
        pieces = _pieces(full, shape, alone)
        parts = [_cut(b, x, pieces, alone) if x.shape else None for x in full]
        groups = _groups([part for part in parts if part is not None], pieces, alone, b.channels_last)
        if len(groups) <= MAX_RANK:
            break
        full = _broadcast_smallest(b, full, shape, alone)
    nodes = []
    for x, part in zip(full, parts, strict=True):
        if part is None:
            nodes.append(b.arrange(x, ()))
            continue
        atom = {key: i for i, key in enumerate(part.keys)}
        nodes.append(
            b.arrange(part.operand, tuple(tuple(atom[k] for k in g if k in atom) for g in groups), part.packing)
        )
    sizes: list[int] = []
    logical: list[tuple[int, ...]] = []
    number: dict[Key, int] = {}
    for axis, cut in enumerate(pieces):
        logical.append(tuple(range(len(sizes), len(sizes) + len(cut))))
        number |= {(axis, i): len(sizes) + i for i in range(len(cut))}
        sizes.extend(cut)
    physical = tuple(tuple(number[key] for key in group if key in number) for group in groups)
    return nodes, Packing(tuple(sizes), tuple(logical), physical)


def _thinned(operands: Sequence[Operand], place: int, shape: Sequence[int]) -> Operand:
    """A constant of one number over and over as that number, where the other operands alone give the shape.

    Those with a single axis, such as a norm's weights, keep the shape that people look for.
    """
    x = operands[place]
    if not isinstance(x, Const) or sum(size > 1 for size in x.shape) < 2:
        return x
    others = [other.shape for i, other in enumerate(operands) if i != place]
    if not others or tuple(torch.broadcast_shapes(*others)) != tuple(shape):  # type: ignore[no-untyped-call]
        return x
    first = x.tensor.flatten()[:1]
    alike = (x.tensor == first) & (x.tensor.signbit() == first.signbit())  # 0 and -0 are two numbers
    return Const(first.reshape([1] * len(x.shape)), x.name) if bool(alike.all()) else x


def _padded(b: Builder, x: Operand, rank: int) -> Operand:
    shape = (1,) * (rank - len(x.shape)) + x.shape
    if isinstance(x, Const):
        return Const(x.tensor.reshape(shape), x.name) if shape != x.shape else x
    return reshape(b, x, shape)


def _own_pieces(x: Operand, axis: int) -> tuple[int, ...]:
    if isinstance(x, Const):
        return (x.shape[axis],) if x.shape[axis] != 1 else ()
    return tuple(x.packing.sizes[atom] for atom in x.packing.logical[axis])


def _pieces(operands: Sequence[Operand], shape: Sequence[int], alone: int | None) -> list[tuple[int, ...]]:
    """The pieces of each axis: the common refinement, or the whole axis where there is none."""
    result: list[tuple[int, ...]] = []
    for axis, size in enumerate(shape):
        whole = (size,) if size != 1 else ()
        cut: tuple[int, ...] | None = whole
        if axis != alone:
            for x in operands:
                if x.shape and x.shape[axis] == size and cut is not None:
                    cut = common_pieces(cut, _own_pieces(x, axis))
        result.append(whole if cut is None else cut)
    return result


def _cut(b: Builder, x: Operand, pieces: Sequence[tuple[int, ...]], alone: int | None) -> _Part:
    """Split x's atoms into the pieces; where they have no common refinement the axis is first made one atom."""
    keys: list[Key] = []
    atoms: list[list[int]] = []
    if isinstance(x, Value):
        for axis in range(len(x.shape)):
            own = _own_pieces(x, axis)
            if len(own) > 1 and (axis == alone or common_pieces(own, pieces[axis]) != pieces[axis]):
                x = _one_atom(b, x, axis)
    packing = x.packing if isinstance(x, Value) else Packing.of(x.shape)
    for axis, group in enumerate(packing.logical):
        if not group:
            continue
        cut = (x.shape[axis],) if axis == alone else pieces[axis]
        keys.extend((axis, i) for i in range(len(cut)))
        rest = list(cut)
        for atom in group:
            own_cut: list[int] = []
            while math.prod(own_cut) < packing.sizes[atom]:
                own_cut.append(rest.pop(0))
            atoms.append(own_cut)
    return _Part(x, packing.split(atoms), tuple(keys))


def _one_atom(b: Builder, x: Value, axis: int) -> Value:
    node, _, packing = b.isolate(x, axis)
    return b.value(node, packing)


def _groups(
    parts: Sequence[_Part], pieces: Sequence[tuple[int, ...]], alone: int | None, channels_last: bool
) -> list[tuple[Key, ...]]:
    """Physical axes of the common frame as keys; more than `MAX_RANK` when the broadcast pattern needs it."""
    if not parts:  # numbers only
        return []
    values = [part for part in parts if isinstance(part.operand, Value)] or parts  # a number meets constants only
    lead = max(values, key=lambda part: math.prod(part.packing.sizes))
    if alone is None and not channels_last:
        lead = min((part for part in values if _alike(part, lead)), key=lambda part: len(part.packing.physical))
    groups = [tuple(lead.keys[atom] for atom in group) for group in lead.packing.physical]
    if alone is not None:
        isolated, dim = lead.packing.isolate(alone)
        groups = [tuple(lead.keys[atom] for atom in group) for group in isolated]
        groups[dim] = ((alone, 0),)
    everything = [(axis, i) for axis, cut in enumerate(pieces) for i in range(len(cut))]
    present = set(itertools.chain.from_iterable(groups))
    rank = frames_order(len(pieces))
    for key in everything:
        if key not in present:
            before = [i for i, g in enumerate(groups) if any(rank.index(k[0]) <= rank.index(key[0]) for k in g)]
            groups.insert(max(before, default=-1) + 1, (key,))
            present.add(key)

    def signature(key: Key) -> tuple[bool, ...]:
        return (key[0] == alone, *(key in part.keys for part in parts))

    uniform = all(len({signature(key) for key in group}) <= 1 for group in groups)
    if uniform and len(groups) <= MAX_RANK:
        return groups or [()]
    order = list(itertools.chain.from_iterable(groups))
    runs = [tuple(run) for _, run in itertools.groupby(order, signature)]
    return runs or [()]


def _alike(one: _Part, other: _Part) -> bool:
    """Whether both hold the same pieces in the same order, so that only reshapes lie between them. The one with fewer
    axes has mostly been reshaped to already, by what made the other: a shortcut, by the Winograd layer beside it.
    """
    return [one.keys[atom] for atom in one.packing.memory] == [other.keys[atom] for atom in other.packing.memory]


def _broadcast_smallest(
    b: Builder, operands: Sequence[Operand], shape: Sequence[int], alone: int | None
) -> list[Operand]:
    """Broadcast the smallest operand that still broadcasts, along its smallest missing axis."""

    def missing(x: Operand) -> list[int]:
        return [a for a, size in enumerate(shape) if x.shape and a != alone and x.shape[a] != size]

    victim = min((x for x in operands if missing(x)), key=lambda x: math.prod(x.shape))
    axis = min(missing(victim), key=lambda a: shape[a])
    wide = (*victim.shape[:axis], shape[axis], *victim.shape[axis + 1 :])
    if isinstance(victim, Const):
        fuller: Operand = Const(victim.tensor.expand(wide), victim.name)
    else:
        fuller = broadcast(b, victim, wide)
    return [fuller if x is victim else x for x in operands]
