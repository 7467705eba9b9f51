"""Repacks: changes of memory order as transposes of rank at most four (pure Python).

Neighbours that stay neighbours are merged first; what remains is split into at most four blocks that are permuted at
once. Every order of five atoms then needs at most two such steps, and no step, input or output exceeds rank four.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from edge4d.errors import PackingError
from edge4d.packing import MAX_RANK

__all__ = ["Transpose", "plan_repack"]

Order = tuple[int, ...]


@dataclass(frozen=True)
class Transpose:
    """View the memory as `shape` (rank ≤ 4), then permute its axes by `perm`."""

    shape: tuple[int, ...]
    perm: tuple[int, ...]


def plan_repack(sizes: Sequence[int], source: Sequence[int], target: Sequence[int]) -> tuple[Transpose, ...]:
    """The transposes that bring atoms from one memory order into another; empty when the orders agree.

    Args:
        sizes: the size of each atom.
        source: atoms in their present memory order.
        target: the same atoms in the wanted memory order.

    Raises:
        PackingError: `target` is not a permutation of `source`.
    """
    if sorted(source) != sorted(target):
        raise PackingError(f"memory orders {tuple(source)} and {tuple(target)} are not of the same atoms")
    blocks = _blocks(tuple(source), tuple(target))
    index = {block: i for i, block in enumerate(blocks)}
    head = {block[0]: block for block in blocks}
    goal = tuple(index[head[atom]] for atom in target if atom in head)
    widths = [math.prod(sizes[atom] for atom in block) for block in blocks]
    steps, now = [], tuple(range(len(blocks)))
    for after in _path(goal):
        merged = _blocks(now, after)
        order = [next(i for i, b in enumerate(merged) if b[0] == block) for block in _heads(merged, after)]
        steps.append(Transpose(tuple(math.prod(widths[i] for i in block) for block in merged), tuple(order)))
        now = after
    return tuple(steps)


def _heads(merged: Sequence[Order], after: Order) -> list[int]:
    firsts = {block[0] for block in merged}
    return [atom for atom in after if atom in firsts]


def _blocks(source: Order, target: Order) -> list[Order]:
    """Merge atoms that follow each other in both orders; the blocks in source order."""
    following = set(itertools.pairwise(target))
    blocks: list[list[int]] = []
    for atom in source:
        if blocks and (blocks[-1][-1], atom) in following:
            blocks[-1].append(atom)
        else:
            blocks.append([atom])
    return [tuple(block) for block in blocks]


def _moves(order: Order) -> Iterator[Order]:
    """Every order that one transpose of rank ≤ 4 reaches."""
    cuts_at_most = min(MAX_RANK, len(order)) - 1
    for cuts in itertools.combinations(range(1, len(order)), cuts_at_most):
        edges = (0, *cuts, len(order))
        blocks = [order[a:b] for a, b in itertools.pairwise(edges)]
        for perm in itertools.permutations(blocks):
            yield tuple(itertools.chain.from_iterable(perm))


@lru_cache(maxsize=4096)
def _path(goal: Order) -> tuple[Order, ...]:
    """A shortest chain of orders from 0, 1, 2, … to the goal, each one transpose from the last."""
    start = tuple(range(len(goal)))
    if goal == start:
        return ()
    if len(_blocks(start, goal)) <= MAX_RANK:
        return (goal,)
    came: dict[Order, Order | None] = {start: None}
    frontier = [start]
    while frontier:
        if len(goal) > 6 and len(frontier) > 1:  # a third step over this many blocks is settled without a search
            return _greedy(goal)
        reached = []
        for order in frontier:
            if len(_blocks(order, goal)) <= MAX_RANK:
                chain = [goal, order]
                while (before := came[chain[-1]]) is not None:
                    chain.append(before)
                return tuple(reversed(chain[:-1]))
            for after in _moves(order):
                if after not in came:
                    came[after] = order
                    reached.append(after)
        frontier = reached
    raise PackingError(f"no repack found for order {goal}")


def _greedy(goal: Order) -> tuple[Order, ...]:
    """Settle the goal from its front: each transpose moves the next block of the goal to its place."""
    chain, now, done = [], tuple(range(len(goal))), 0
    while now != goal:
        while now[done] == goal[done]:
            done += 1
        at = now.index(goal[done])
        end = at + 1
        while end < len(now) and done + end - at < len(goal) and now[end] == goal[done + end - at]:
            end += 1
        now = (*now[:done], *now[at:end], *now[done:at], *now[end:])
        chain.append(now)
    return tuple(chain)
