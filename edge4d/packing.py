"""Packings: how a logical tensor of any rank lies in at most four physical axes (pure Python).

A `Packing` is made of *atoms*, indivisible sizes numbered in logical order; *logical axes*, an ordered partition of
the atoms; and *physical axes*, an ordered partition of a permutation of the atoms into at most `MAX_RANK` groups.
The concatenation of the physical axes is the *memory order*. An axis of size 1 has no atoms: they hold no data.

It follows that permute, view, squeeze and unsqueeze rewrite the description and leave the data alone, that physical
axes may be regrouped by a free reshape, and that only a change of memory order moves data (see `edge4d.repacking`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edge4d.errors import PackingError

__all__ = ["MAX_RANK", "Groups", "Packing", "common_pieces", "frames_order"]

MAX_RANK = 4
"""The largest number of physical axes a packed value may have."""

Groups = tuple[tuple[int, ...], ...]
"""An ordered partition of atoms."""


@dataclass(frozen=True)
class Packing:
    """How a logical tensor lies in memory; immutable, hashable and canonical (equal means the same map).

    Attributes:
        sizes: the size of each atom, at least 2, numbered in logical order.
        logical: the atoms of each logical axis; concatenated they read 0, 1, 2, …
        physical: the atoms of each physical axis; at most `MAX_RANK` axes.
    """

    sizes: tuple[int, ...]
    logical: Groups
    physical: Groups

    def __post_init__(self) -> None:
        atoms = range(len(self.sizes))
        if _concat(self.logical) != tuple(atoms):
            raise PackingError(f"logical axes {self.logical} do not list the atoms {list(atoms)} in order")
        if sorted(_concat(self.physical)) != list(atoms):
            raise PackingError(f"physical axes {self.physical} are not a permutation of the atoms {list(atoms)}")
        if len(self.physical) > MAX_RANK:
            raise PackingError(f"{len(self.physical)} physical axes {self.physical}, at most {MAX_RANK} are allowed")
        if any(size < 2 for size in self.sizes):
            raise PackingError(f"atom sizes {self.sizes}: every atom has at least 2 elements")

    # ---- construction -------------------------------------------------------------------------------------------

    @classmethod
    def of(cls, shape: Sequence[int], order: Sequence[int] | None = None) -> Packing:
        """The packing of a tensor whose memory follows its logical axes in the given order.

        Args:
            shape: logical shape, every size at least 1.
            order: a permutation of the logical axes; the logical order itself when None. Leading axes are merged
                where the rank exceeds `MAX_RANK`.

        Raises:
            PackingError: a size below 1, or `order` is no permutation of the axes.
        """
        if any(size < 1 for size in shape):
            raise PackingError(f"shape {tuple(shape)} has an empty axis; tensors without elements cannot be packed")
        order = tuple(range(len(shape))) if order is None else tuple(order)
        if sorted(order) != list(range(len(shape))):
            raise PackingError(f"axis order {order} is not a permutation of {len(shape)} axes")
        sizes, logical = _number(shape)
        excess = max(0, len(shape) - MAX_RANK)
        head = _concat(logical[a] for a in order[: excess + 1])
        tail = tuple(logical[a] for a in order[excess + 1 :])
        return cls(sizes, logical, (head, *tail) if order else ())

    @classmethod
    def frames(cls, shape: Sequence[int]) -> Packing:
        """The packing of graph inputs and outputs: ``n c t h w -> (n t) c h w``; see `frames_order` for other ranks."""
        return cls.of(shape, frames_order(len(shape)))

    # ---- questions ----------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape."""
        return tuple(self._size(group) for group in self.logical)

    @property
    def physical_shape(self) -> tuple[int, ...]:
        """Physical shape; a value of logical rank ≥ 1 has at least one physical axis."""
        return tuple(self._size(group) for group in self.physical)

    @property
    def memory(self) -> tuple[int, ...]:
        """The atoms in memory order, outermost first."""
        return _concat(self.physical)

    def is_run(self, atoms: Sequence[int]) -> bool:
        """Whether the atoms follow each other in memory, in the given order."""
        if not atoms:
            return True
        memory = self.memory
        start = memory.index(atoms[0])
        return memory[start : start + len(atoms)] == tuple(atoms)

    def owner(self, atom: int) -> int:
        """The logical axis that an atom belongs to."""
        return next(axis for axis, group in enumerate(self.logical) if atom in group)

    def isolate(self, axis: int) -> tuple[Groups, int]:
        """Physical axes in which one logical axis stands alone, and its place among them.

        The present physical axes are kept where they will do; else they become [before, axis, after], in the present
        memory order if the axis is one run of it, else with its atoms gathered where the first of them lies.
        """
        atoms, memory = self.logical[axis], self.memory
        if atoms and atoms in self.physical:
            return self.physical, self.physical.index(atoms)
        if not atoms:
            place, start = self.slot(axis), 0
            for i, group in enumerate(self.physical):
                if not group and start == place:
                    return self.physical, i
                start += len(group)
            return (memory[:place], (), memory[place:]), 1
        rest = [atom for atom in memory if atom not in atoms]
        place = memory.index(min(atoms, key=memory.index))
        return (tuple(rest[:place]), atoms, tuple(rest[place:])), 1

    def resize(self, axis: int, dim: int, size: int) -> Packing:
        """The packing once an operator has changed the size of one logical axis that is physical axis `dim` alone."""
        if self.physical[dim] != self.logical[axis]:
            raise PackingError(f"physical axis {dim} of {self} is not logical axis {axis} alone")
        gone = set(self.logical[axis])
        fresh = (len(self.sizes),) if size != 1 else ()  # a number that no atom has; renumbered below
        sizes = {a: s for a, s in enumerate((*self.sizes, size)) if a not in gone}
        logical = tuple(fresh if a == axis else group for a, group in enumerate(self.logical))
        physical = tuple(fresh if d == dim else group for d, group in enumerate(self.physical))
        return _renumber(sizes, logical, physical)

    def drop(self, axes: Iterable[int]) -> Packing:
        """The packing once an operator has reduced whole logical axes to size 1, their physical places kept."""
        gone = {atom for axis in axes for atom in self.logical[axis]}
        logical = tuple(tuple(a for a in group if a not in gone) for group in self.logical)
        physical = tuple(tuple(a for a in group if a not in gone) for group in self.physical)
        return _renumber(self.sizes, logical, physical)

    def slot(self, axis: int) -> int:
        """The memory position at which atoms of an axis that has none would be put, following `frames_order`."""
        order = frames_order(len(self.logical))
        before = set(order[: order.index(axis)])
        memory = self.memory
        places = [i + 1 for i, atom in enumerate(memory) if self.owner(atom) in before]
        return max(places, default=0)

    # ---- descriptions rewritten, data untouched -------------------------------------------------------------------

    def reorder(self, physical: Groups) -> Packing:
        """The same logical tensor in another memory order: the goal of a repack."""
        return Packing(self.sizes, self.logical, physical)

    def permute(self, dims: Sequence[int]) -> Packing:
        """The logical axes in another order, as `torch.permute`."""
        if sorted(dims) != list(range(len(self.logical))):
            raise PackingError(f"permutation {tuple(dims)} does not fit {len(self.logical)} axes")
        logical = tuple(self.logical[d] for d in dims)
        return _renumber(self.sizes, logical, self.physical).coalesce()

    def coalesce(self) -> Packing:
        """Merge atoms that are neighbours both in one logical axis and in one physical axis (the canonical form)."""
        in_logical = {pair for group in self.logical for pair in itertools.pairwise(group)}
        joined = in_logical & {pair for group in self.physical for pair in itertools.pairwise(group)}
        if not joined:
            return self
        head = {b: a for a, b in joined}
        sizes = list(self.sizes)
        for atom in reversed(range(len(sizes))):
            if atom in head:
                sizes[head[atom]] *= sizes[atom]
        kept = [atom for atom in range(len(sizes)) if atom not in head]
        new = {atom: i for i, atom in enumerate(kept)}
        return Packing(
            tuple(sizes[atom] for atom in kept),
            tuple(tuple(new[a] for a in group if a in new) for group in self.logical),
            tuple(tuple(new[a] for a in group if a in new) for group in self.physical),
        )

    def split(self, pieces: Sequence[Sequence[int]]) -> Packing:
        """Split each atom into pieces (outer first) whose product is its size; pieces of size 1 vanish."""
        start, sizes, parts = 0, [], []
        for atom, sub in enumerate(pieces):
            sub = [size for size in sub if size != 1]
            if math.prod(sub) != self.sizes[atom]:
                raise PackingError(f"atom {atom} of size {self.sizes[atom]} cannot be split into {tuple(sub)}")
            parts.append(tuple(range(start, start + len(sub))))
            sizes.extend(sub)
            start += len(sub)
        return Packing(
            tuple(sizes),
            tuple(_concat(parts[a] for a in group) for group in self.logical),
            tuple(_concat(parts[a] for a in group) for group in self.physical),
        )

    def reshape_needs(self, shape: Sequence[int]) -> Groups:
        """The runs of atoms that must be neighbours in memory before `reshape` can be a mere description.

        Empty when it already is. `view` of a contiguous torch tensor never fails, but atoms of sizes 6, 4 seen as
        8, 3 have no common refinement, so those two must be merged into one atom of 24 first.
        """
        return tuple(w.atoms for w in _windows(self, shape) if w.pieces is None and not self.is_run(w.atoms))

    def reshape(self, shape: Sequence[int]) -> Packing:
        """The same elements under another logical shape (row-major over the logical axes), as `torch.reshape`.

        Raises:
            PackingError: another number of elements, or `reshape_needs` is not met.
        """
        windows, merged = _windows(self, shape), self
        for window in reversed(windows):
            if window.pieces is None:
                merged = merged._merge(window.atoms)
        split = merged.split([piece for w in windows for piece in (w.pieces or (w.dims,))])
        groups, position = [], 0
        for size in shape:
            group, product = [], 1
            while product < size:
                product *= split.sizes[position]
                group.append(position)
                position += 1
            groups.append(tuple(group))
        return Packing(split.sizes, tuple(groups), split.physical).coalesce()

    def _merge(self, atoms: tuple[int, ...]) -> Packing:
        """Merge atoms that are neighbours in logical order and in memory, across axes; the logical axes are then
        only a flat list (the caller rewrites them).
        """
        if len(atoms) == 1:
            return self
        if not self.is_run(atoms):
            raise PackingError(f"atoms {atoms} are not neighbours in memory order {self.memory}; repack first")
        first, rest = atoms[0], set(atoms[1:])
        new = {a: i for i, a in enumerate(a for a in range(len(self.sizes)) if a not in rest)}
        sizes = tuple(math.prod(self.sizes[b] for b in atoms) if a == first else self.sizes[a] for a in new)
        touched = [i for i, group in enumerate(self.physical) if set(group) & set(atoms)]
        physical = [*self.physical]
        physical[touched[0] : touched[-1] + 1] = [_concat(self.physical[touched[0] : touched[-1] + 1])]
        kept = tuple(tuple(new[a] for a in group if a in new) for group in physical)
        return Packing(sizes, tuple((a,) for a in range(len(sizes))), kept)

    def _size(self, group: Iterable[int]) -> int:
        return math.prod(self.sizes[atom] for atom in group)


def frames_order(rank: int) -> tuple[int, ...]:
    """The memory order of the *frames* packing: batch and time before channels for rank 5, else logical order."""
    return (0, 2, 1, 3, 4) if rank == 5 else tuple(range(rank))


def common_pieces(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...] | None:
    """The coarsest sizes that refine both a and b (equal products, row-major), or None when there are none."""
    result, left, right = [], list(a), list(b)
    while left and right:
        step = min(left[0], right[0])
        if left[0] % step or right[0] % step:
            return None
        result.append(step)
        for side in (left, right):
            side[0] //= step
            if side[0] == 1:
                side.pop(0)
    return tuple(result)


@dataclass(frozen=True)
class _Window:
    """A shortest stretch of atoms whose product is that of a stretch of target sizes; `pieces` refines each atom."""

    atoms: tuple[int, ...]
    dims: tuple[int, ...]
    pieces: tuple[tuple[int, ...], ...] | None


def _windows(packing: Packing, shape: Sequence[int]) -> list[_Window]:
    """Cut atoms and target sizes into the shortest stretches of equal product."""
    sizes, targets = packing.sizes, [size for size in shape if size != 1]
    if math.prod(sizes) != math.prod(targets):
        raise PackingError(f"shape {packing.shape} cannot be seen as {tuple(shape)}: another number of elements")
    windows, atom, dim = [], 0, 0
    while atom < len(sizes):
        first_atom, first_dim = atom, dim
        have, want = sizes[atom], targets[dim]
        atom, dim = atom + 1, dim + 1
        while have != want:
            if have < want:
                have, atom = have * sizes[atom], atom + 1
            else:
                want, dim = want * targets[dim], dim + 1
        inside = tuple(range(first_atom, atom))
        dims = tuple(targets[first_dim:dim])
        windows.append(_Window(inside, dims, _refinement([sizes[a] for a in inside], dims)))
    return windows


def _refinement(sizes: Sequence[int], dims: Sequence[int]) -> tuple[tuple[int, ...], ...] | None:
    """For each atom the pieces it falls into under the common refinement of both lists, or None."""
    pieces = common_pieces(sizes, dims)
    if pieces is None:
        return None
    result, rest = [], list(pieces)
    for size in sizes:
        own: list[int] = []
        while math.prod(own) < size:
            own.append(rest.pop(0))
        result.append(tuple(own))
    return tuple(result)


def _number(shape: Sequence[int]) -> tuple[tuple[int, ...], Groups]:
    """One atom for each axis of size above 1."""
    sizes: list[int] = []
    logical: list[tuple[int, ...]] = []
    for size in shape:
        logical.append((len(sizes),) if size != 1 else ())
        sizes.extend([size] if size != 1 else [])
    return tuple(sizes), tuple(logical)


def _renumber(sizes: Sequence[int] | Mapping[int, int], logical: Groups, physical: Groups) -> Packing:
    """Restore the numbering of atoms by logical order."""
    new = {old: i for i, old in enumerate(_concat(logical))}
    return Packing(
        tuple(sizes[old] for old in _concat(logical)),
        tuple(tuple(new[a] for a in group) for group in logical),
        tuple(tuple(new[a] for a in group) for group in physical),
    )


def _concat(groups: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(atom for group in groups for atom in group)
